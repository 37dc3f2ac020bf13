"""What a policy may say of the historian mirror, which copies the plant's history out, whole, for anybody who may read.

The collector stands in the plant's zone, the reader in the readers', the spooler and the keeper apart from both. The
keeper decides what is kept; what the reader sees is a mount.

Not here: the words (mirror_model), errors (mirror_checks), the rows (mirror_rows).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec

from cofferdam.model import NEVER, Allow, Deny, Fault, Side
from cofferdam.policy import rows, windows
from cofferdam.policy.document import Path
from cofferdam.policy.explain import Explanation, Question, explained
from cofferdam.policy.findings import Checking, Linting
from cofferdam.policy.notations import ALL
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import Ask, Folder, Listen, Making, Needs, PartNeeds, Place, Reach, Scope, Store, Terms
from cofferdam.policy.terms.door_words import door_row
from cofferdam.policy.terms.mirror_checks import MirrorChecks
from cofferdam.policy.terms.mirror_list import listed
from cofferdam.policy.terms.mirror_model import MirrorConduit, MirrorRule, MirrorSaid, SourceSaid
from cofferdam.policy.terms.mirror_rows import (
    About,
    Copy,
    Device,
    Drop,
    Matcher,
    MirrorRows,
    Postgres,
    Publish,
    ReadRule,
    Source,
    rights_of,
)
from cofferdam.values import ValueType

COLLECTOR, FILES, SPOOLER, KEEPER, READER, LOADER = "collector", "files", "spooler", "keeper", "reader", "loader"
PUBLISHER = "publisher"
_REGULAR = re.compile(r"(?<!\\)\\[.dws*+()\[\]]|\A(?:\.\*|\^)|\$\Z|\.\+|\[(?:\^|\w-\w)|\][+?]|\([^()]*\|[^()]*\)")
"""What a name hardly has: `\\.`, `[0-9]`, `(a|b)`, a `.*` to begin with. Names of OPC have dots, and some have brackets
and backslashes: `plant.*` and `[default]*` mean what they say."""


class MirrorTerms(Terms[MirrorConduit, MirrorRows]):
    """The terms of the mirror."""

    word = "mirror"
    title = "The historian mirror"
    conduit = MirrorConduit
    rule = MirrorRule
    row = MirrorRows
    rides = (SPOOLER, KEEPER)
    asks = (Ask("tag", "TAG", "the tag whose history is read"),)

    def check(self, name: str, conduit: MirrorConduit, numbers: Sequence[int], checking: Checking) -> None:
        MirrorChecks(name, conduit, numbers, checking).run()

    # --- rows

    def to_row(self, name: str, conduit: MirrorConduit, making: Making) -> MirrorRows:
        said = conduit.mirror
        rules = tuple(
            ReadRule(
                number=number,
                who=tuple(sorted(rule.who)),
                read=tuple(sorted(rule.read)),
                resolution=rule.resolution or 0,
                sql=rule.sql,
            )
            for number, rule in enumerate(conduit.allow)
        )
        return MirrorRows(
            sources=tuple(_source(name, one, making) for name, one in sorted(conduit.sources.items())),
            about=_about(conduit, making),
            rules=rules,
            copy=_copy(said, rules) if said.postgresql is not None else None,
            publish=_publish(said, making),
            published=said.publish is not None,
            keep=said.keep,
            most=said.most,
            spool=said.spool,
            future=said.future,
            acks=said.acks,
            nightly=said.nightly,
            store=said.store,
            outer=conduit.to_zone,
            inner=conduit.from_zone,
            stands={
                who: making.policy.principals[who].zone
                for who in sorted({who for rule in conduit.allow for who in rule.who})
            },
            doors=tuple(door_row(zone, door, making.files) for zone, door in sorted(conduit.listen.items())),
        )

    # --- needs

    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        row = _row(conduit)
        share = conduit.name
        who = tuple(sorted(row.stands))
        listens = tuple(
            Listen(
                door.zone, door.address, door.port, who, share, ("conduits", conduit.name, "listen", door.zone, "at")
            )
            for door in row.doors
        )
        reaches: list[Reach] = []
        for source in row.sources:
            if isinstance(source, Postgres):
                reaches.append(Reach(row.inner, source.address, source.port, share))
            elif isinstance(source, Device):
                asset = policy.assets[source.asset]
                reaches.append(Reach(row.inner, asset.address, asset.port, share))
        plant, office = (Place(Side(policy.zones[zone].side), zone) for zone in (row.inner, row.outer))
        folders = tuple(
            Folder(one.folder, share, ("conduits", conduit.name, "sources", one.name, "folder"))
            for one in row.sources
            if isinstance(one, Drop)
        )
        parts = {
            COLLECTOR: PartNeeds(plant, reaches=tuple(reaches)),
            **({FILES: PartNeeds(folders=folders)} if folders else {}),
            SPOOLER: PartNeeds(store=Store(int(row.spool * 1.1) + (64 << 20))),
            KEEPER: PartNeeds(store=Store(int(row.most * 1.2) + (256 << 20))),
            READER: PartNeeds(office, listens=listens),
        }
        if row.copy is not None:
            parts[LOADER] = PartNeeds(office, reaches=(Reach(row.outer, row.copy.address, row.copy.port, share),))
        if (there := row.publish) is not None:
            parts[PUBLISHER] = PartNeeds(office, reaches=(Reach(row.outer, there.address, there.port, share),))
        return Needs(parts, {share: f"the mirror's store for {row.inner} and {row.outer}"})

    # --- slices

    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> MirrorRows | None:
        row = _row(conduit)
        if part in (LOADER, PUBLISHER):
            row = msgspec.structs.replace(row, sources=(), rules=(), stands={}, doors=(), about={})
            return msgspec.structs.replace(row, **{"publish" if part == LOADER else "copy": None})
        row = msgspec.structs.replace(row, copy=None, publish=None)
        if part == READER:
            return msgspec.structs.replace(row, sources=())
        row = msgspec.structs.replace(row, about={})
        if part == KEEPER:  # whom it believes what, and not how the plant is reached
            sources = tuple(
                msgspec.structs.replace(one, address="", port=0, database="", role="", password="", query="", table="")
                if isinstance(one, Postgres)
                else one
                for one in row.sources
            )
            return msgspec.structs.replace(row, sources=sources, rules=(), stands={}, doors=())
        files = part == FILES
        own = tuple(one for one in row.sources if isinstance(one, Drop) == files) if part in (COLLECTOR, FILES) else ()
        return msgspec.structs.replace(row, sources=own, rules=(), stands={}, doors=())

    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        return frozenset(_row(conduit).stands) if part == READER else frozenset()

    def slice(self, policy: CompiledPolicy, scope: Scope, part: str) -> rows.Table:
        table = super().slice(policy, scope, part)
        if part != COLLECTOR:
            return table
        named = {
            source.asset: policy.assets[source.asset]
            for name in scope.conduits
            if isinstance(row := policy.conduits[name].terms, MirrorRows)
            for source in row.sources
            if isinstance(source, Device)
        }
        assets = {name: msgspec.structs.replace(asset, listen=None, also=()) for name, asset in named.items()}
        return msgspec.structs.replace(table, assets=assets)

    # --- explanations

    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        tag = question.said["tag"]
        principals = policy.principals_of(question.source, question.zone)
        verdict: Allow | Deny = Deny("", "", Fault.PRINCIPAL, f"{question.source} asks; no principal has that address")
        conditions: list[str] = []
        for name, conduit in policy.conduits.items():
            row = conduit.terms
            if not isinstance(row, MirrorRows) or not principals:
                continue
            rule = next((found for who in principals if (found := rights_of([row], who).rule(tag))), None)
            if rule is None:
                if not verdict.rule:
                    may = sorted({who for each in row.rules if Matcher(each.read)(tag) for who in each.who})
                    others = ", ".join(may) or "nobody"
                    detail = f"{' or '.join(principals)} asks to read {tag}; {others} may"
                    verdict = Deny(name, "", Fault.PRINCIPAL, detail)
                continue
            stands = standing(conduit, policy.table.clocks, question.wall_ns)
            if stands.open:
                _, until = windows.state(conduit.windows, policy.table.clocks, question.wall_ns)
                verdict = Allow(name, f"{name}/{rule.number}", min(until, conduit.expires, NEVER))
                if rule.resolution:
                    conditions.append(f"nothing finer than aggregates over {rule.resolution} s")
                break
            fault = Fault.EXPIRED if question.wall_ns >= conduit.expires else Fault.WINDOW
            verdict = Deny(name, f"{name}/{rule.number}", fault, f"the conduit is {stands.says}")
        answer = "problem+json with 404, as for a tag that there is not"
        return explained(
            policy, question, verdict, broker=self.word, operation="read", target=tag, answer=answer,
            conditions=conditions, considered=[verdict],
        )  # fmt: skip

    # --- warnings

    @staticmethod
    def _conduits(run: Linting) -> Iterator[tuple[str, MirrorConduit]]:
        return ((name, each) for name, each in run.policy.conduits.items() if isinstance(each, MirrorConduit))

    @staticmethod
    def unread(run: Linting) -> None:
        """Tags of a mirror's source that no rule may read."""
        for name, conduit in MirrorTerms._conduits(run):
            read = Matcher(pattern for rule in conduit.allow for pattern in rule.read)
            for source, said in conduit.sources.items():
                for index, pattern in enumerate(said.tags):
                    if "*" not in pattern and not read(pattern):
                        place = ("conduits", name, "sources", source, "tags", index)
                        run.value(place, "unread-tag", f"{pattern}, which no rule may read", "a rule that reads it")

    @staticmethod
    def twice(run: Linting) -> None:
        """One tag that two mirrors, or two sources of one, have by name."""
        seen: dict[str, str] = {}
        for name, conduit in MirrorTerms._conduits(run):
            for source, said in conduit.sources.items():
                for index, pattern in enumerate(said.tags):
                    if (
                        "*" not in pattern
                        and (other := seen.setdefault(pattern, f"{name}, {source}")) != f"{name}, {source}"
                    ):
                        place = ("conduits", name, "sources", source, "tags", index)
                        run.value(place, "tag-twice", f"{pattern}, which {other} has as well", "one source of a tag")

    @staticmethod
    def regular(run: Linting) -> None:
        """A tag that is written like a regular expression: `*` stands for anything, and all else for itself."""
        for name, conduit in MirrorTerms._conduits(run):
            said: list[tuple[Path, tuple[str, ...]]] = []
            said += [(("sources", source, "tags"), one.tags) for source, one in conduit.sources.items()]
            said += [(("allow", number, "read"), rule.read) for number, rule in enumerate(conduit.allow)]
            for where, tags in said:
                for index, pattern in enumerate(tags):
                    if _REGULAR.search(pattern):
                        place = ("conduits", name, *where, index)
                        expected = "a name, with * for anything, such as flow_*: all else stands for itself"
                        run.value(place, "tag-pattern", f"{pattern}, which looks like a regular expression", expected)

    @staticmethod
    def plain(run: Linting) -> None:
        """A mirror that speaks without TLS, with a historian or with readers, at an address other than loopback."""
        for name, conduit in MirrorTerms._conduits(run):
            doors = [(("listen", zone), said.plain, said.at) for zone, said in conduit.listen.items()]
            dials = [(("sources", one), said.plain, said.at) for one, said in conduit.sources.items() if said.at]
            if (copy := conduit.mirror.postgresql) is not None:
                dials.append((("mirror", "postgresql"), copy.plain, copy.at))
            if (there := conduit.mirror.publish) is not None:
                dials.append((("mirror", "publish"), there.plain, there.at))
            for where, plain, at in (*doors, *dials):
                if plain and at is not None and not at[0].startswith("127.") and at[0] != "::1":
                    place = ("conduits", name, *where, "plain")
                    run.value(place, "plain-mirror", "no TLS: keys, passwords and samples can be read", "TLS")

    @staticmethod
    def shared(run: Linting) -> None:
        """A mirror that reads an asset which takes one connection, and which a proxy serves as well."""
        served = {
            name
            for conduit in run.policy.conduits.values()
            if not isinstance(conduit, MirrorConduit)
            for rule in conduit.allow
            for name in rule.assets
        }
        for name, conduit in MirrorTerms._conduits(run):
            for source, said in conduit.sources.items():
                asset = run.policy.assets.get(said.asset or "")
                if said.asset in served and asset is not None and asset.connections == 1:
                    place = ("conduits", name, "sources", source, "asset")
                    found = f"{said.asset}, which takes one connection, and a proxy has it"
                    run.value(place, "shared-asset", found, "connections: 2, if the device takes them")

    warnings: ClassVar[Mapping[str, Callable[[Linting], None]]] = {
        "unread-tag": unread,
        "tag-twice": twice,
        "tag-pattern": regular,
        "plain-mirror": plain,
        "shared-asset": shared,
    }


def _row(conduit: rows.Conduit) -> MirrorRows:
    if not isinstance(conduit.terms, MirrorRows):
        raise TypeError(f"the conduit {conduit.name} is none of the mirror")
    return conduit.terms


def _copy(said: MirrorSaid, rules: tuple[ReadRule, ...]) -> Copy | None:
    found = said.postgresql
    if found is None:
        return None
    return Copy(
        name="postgresql",
        address=found.at[0],
        port=found.at[1],
        database=found.database,
        role=found.role,
        password=found.password,
        plain=found.plain,
        keep=said.keep,
        rules=rules,
    )


def _publish(said: MirrorSaid, making: Making) -> Publish | None:
    found = said.publish
    if found is None:
        return None
    return Publish(
        name="publish",
        address=found.at[0],
        port=found.at[1],
        bucket=found.bucket,
        path=found.path,
        key=found.key,
        password=found.password,
        region=found.region,
        host=found.host or "",
        authority=making.files[found.authority] if found.authority is not None else b"",
        plain=found.plain,
    )


def _listed(said: SourceSaid, making: Making) -> dict[str, About]:
    return listed(making.files[said.tag_list]) if said.tag_list is not None else {}


def _tags(said: SourceSaid, making: Making) -> tuple[str, ...]:
    """Patterns: what was said, and each name of a list."""
    if said.tag_list is None:
        return tuple(said.tags)
    return (*(said.tags if "tags" in said.model_fields_set else ()), *_listed(said, making))


def _about(conduit: MirrorConduit, making: Making) -> dict[str, About]:
    """What is said of tags: the units of an asset's points, and above them what lists say."""
    found: dict[str, About] = {}
    for said in conduit.sources.values():
        for point in making.assets[said.asset].points if said.asset is not None else ():
            if point.unit:
                found[f"{said.asset}.{point.name}"] = About(point.unit)
        found.update({tag: about for tag, about in _listed(said, making).items() if about != About()})
    return found


def _source(name: str, said: SourceSaid, making: Making) -> Source:
    assets = making.assets
    if said.asset is not None:
        history = assets[said.asset].protocol == "opcua"
        known = [point.name for point in assets[said.asset].points if history or point.type is not ValueType.TEXT]
        names: Collection[str] = said.points if said.points and ALL not in said.points else known
        return Device(name=name, asset=said.asset, points=tuple(sorted(names)), every=said.every, history=history)
    if said.folder is not None:
        return Drop(
            name=name,
            folder=said.folder,
            form=said.form,
            tag="" if said.wide or said.of else said.tag,
            time=said.time,
            value="" if said.wide else said.value,
            quality=said.quality or "",
            qualities=said.qualities or "",
            server=said.server or "",
            wide=said.wide,
            of=said.of or "",
            delimiter=said.delimiter,
            decimal=said.decimal,
            encoding=said.encoding,
            times=said.times,
            zone=said.zone or "",
            kind=said.type,
            tags=_tags(said, making),
            settle=said.settle,
            keep_files=said.keep_files,
            every=said.every,
        )
    address, port = said.at or ("", 0)
    return Postgres(
        name=name,
        address=address,
        port=port,
        database=said.database or "",
        role=said.role,
        password=said.password or name,
        plain=said.plain,
        table=said.table or "",
        query=said.query or "",
        tag=said.tag,
        time=said.time,
        value=said.value,
        quality=said.quality or "",
        qualities=said.qualities or "",
        server=said.server or "",
        tags=_tags(said, making),
        every=said.every,
        overlap=said.overlap,
        since=said.since,
        points_per_second=said.rows_per_second or 0,
    )
