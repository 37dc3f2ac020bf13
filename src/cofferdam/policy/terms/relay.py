"""What a policy may say of the relay, which hands messages from one side to the other.

A channel belongs to one conduit. Messages go from the conduit's zone `from`, whose principals push, to its zone `to`,
whose principals pull; either may begin, and neither's session crosses. The outer side stands in the less trusted zone,
the inner one in the more trusted one, and the keeper, which decides, apart from both.

Not here: the words (relay_model), errors (relay_checks), warnings (relay_lint), the rows (relay_rows).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.model import NEVER, Allow, Deny, Fault, Side
from cofferdam.policy import rows, windows
from cofferdam.policy.explain import Explanation, Question, explained
from cofferdam.policy.findings import Checking
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.points.values import show
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms import relay_lint, relay_rows
from cofferdam.policy.terms.base import Ask, Folder, Listen, Making, Needs, PartNeeds, Place, Reach, Scope, Store, Terms
from cofferdam.policy.terms.diode_rows import strand_of
from cofferdam.policy.terms.door_words import door_row
from cofferdam.policy.terms.relay_checks import RelayChecks, refers_to, sides
from cofferdam.policy.terms.relay_model import (
    FOLDER,
    HTTP,
    NATS,
    TABLE,
    ChannelSaid,
    FolderSaid,
    NatsSaid,
    RelayConduit,
    RelayRule,
    folder_name,
    slot_name,
)
from cofferdam.policy.terms.relay_rows import (
    VERBS,
    Changes,
    Channel,
    Limit,
    Line,
    Relay,
    RelayRows,
    Table,
    Verb,
    inside,
    outside,
    slice_for,
    way_of,
)

OUTER, INNER, KEEPER, FAR = "outer", "inner", "keeper", "far"
OUTER_TABLES, INNER_TABLES = "outer-tables", "inner-tables"
OUTER_NATS = "outer-nats"
OUTER_FOLDERS, INNER_FOLDERS = "outer-folders", "inner-folders"
STORE_SHARE = 1.5
"""The store's quota, in times of what its channels have room for: indexes, quarantine, and what a commit needs."""
STORE_LEAST = 256_000_000


class RelayTerms(Terms[RelayConduit, RelayRows]):
    """The terms of the relay."""

    word = "relay"
    title = "The relay"
    conduit = RelayConduit
    rule = RelayRule
    row = RelayRows
    rides = (KEEPER, FAR)
    asks = (
        Ask("push", "CHANNEL", "the channel that a message is pushed to", optional=True),
        Ask("pull", "CHANNEL", "the channel that is pulled from", optional=True),
        Ask("browse", "CHANNEL", "the channel that is read", optional=True),
        Ask("body", "FILE", "with --push: the message, to be checked as well", file=True, optional=True),
    )
    warnings = relay_lint.CHECKS

    def check(self, name: str, conduit: RelayConduit, numbers: Sequence[int], checking: Checking) -> None:
        RelayChecks(name, conduit, numbers, checking).run()

    # --- rows

    def to_row(self, name: str, conduit: RelayConduit, making: Making) -> RelayRows:
        outer, inner = sides(conduit, making.policy) or ("", "")
        files: dict[str, bytes] = {}
        waiting = [said.schema_file for said in conduit.channels.values() if said.schema_file]
        while waiting:
            file = waiting.pop()
            if file not in files:
                files[file] = making.files[file]
                waiting += [other for other in refers_to(file, files[file]) if other in making.files]
        return RelayRows(
            channels=tuple(_channel(channel, said) for channel, said in sorted(conduit.channels.items())),
            lines=tuple(
                Line(
                    number=number,
                    who=tuple(sorted(rule.who)),
                    push=tuple(sorted(rule.push)),
                    pull=tuple(sorted(rule.pull)),
                    # Who publishes has to read again what the hub has lost.
                    browse=tuple(sorted({*rule.browse, *(rule.pull if rule.via == NATS else ())})),
                    via=rule.via,
                )
                for number, rule in enumerate(conduit.allow)
            ),
            schemas=dict(sorted(files.items())),
            outer=outer,
            inner=inner,
            stands={
                who: making.policy.principals[who].zone
                for who in sorted({who for rule in conduit.allow for who in rule.who})
            },
            doors=tuple(door_row(zone, said, making.files) for zone, said in sorted(conduit.listen.items())),
            tables=tuple(
                Table(
                    zone=zone,
                    address=said.at[0],
                    port=said.at[1],
                    database=said.database,
                    role=said.role,
                    password=said.password or zone,
                    plain=said.plain,
                    outbox=said.outbox,
                    inbox=said.inbox,
                    position=said.position,
                )
                for zone, said in sorted(conduit.tables.items())
            ),
            changes=tuple(
                Changes(
                    zone=zone,
                    channel=channel,
                    table=each.table,
                    slot=slot_name(channel, each),
                    on=tuple(sorted(set(each.on))),
                )
                for zone, said in sorted(conduit.tables.items())
                for channel, each in sorted(said.changes.items())
            ),
            folders=tuple(
                _folder(zone, channel, said, conduit.channels[channel])
                for zone, channels in sorted(conduit.folders.items())
                for channel, said in sorted(channels.items())
            ),
            nats=tuple(_nats(zone, said, making.files) for zone, said in sorted(conduit.nats.items())),
            strand=strand_of(making.policy.conduits, name),
        )

    # --- needs

    def needs(self, conduit: rows.Conduit, policy: CompiledPolicy) -> Needs:
        row = _row(conduit)
        channels = sorted(channel.name for channel in row.channels)
        room = sum(channel.room for channel in row.channels)

        def side(zone: str) -> PartNeeds:
            listens = tuple(
                Listen(
                    zone, door.address, door.port, _who(row, zone), channels[0],
                    ("conduits", conduit.name, "listen", zone, "at"),
                )
                for door in row.doors if door.zone == zone
            )  # fmt: skip
            return PartNeeds(Place(Side(policy.zones[zone].side), zone), listens=listens)

        def tables(zone: str) -> PartNeeds | None:
            """Where nobody of the zone has a table, there is no part for them."""
            found = [table for table in row.tables if table.zone == zone]
            if not found or not any(
                line.via == TABLE and row.stands[who] == zone for line in row.lines for who in line.who
            ):
                return None
            reaches = tuple(Reach(zone, table.address, table.port, channels[0]) for table in found)
            return PartNeeds(Place(Side(policy.zones[zone].side), zone), reaches=reaches)

        def nats(zone: str) -> PartNeeds | None:
            reaches = tuple(
                Reach(zone, address, port, channels[0])
                for hub in row.nats if hub.zone == zone for address, port in hub.servers
            )  # fmt: skip
            return PartNeeds(Place(Side(policy.zones[zone].side), zone), reaches=reaches) if reaches else None

        def folders(zone: str) -> PartNeeds | None:
            found = tuple(
                Folder(folder.name, channels[0], ("conduits", conduit.name, "folders", zone, folder.channel))
                for folder in row.folders if folder.zone == zone
            )  # fmt: skip
            machine = policy.zones[zone].machine if row.strand else ""
            return PartNeeds(folders=found, machine=machine) if found else None

        quota = max(STORE_LEAST, int(room * STORE_SHARE))
        wanted = {
            OUTER: side(row.outer), OUTER_NATS: nats(row.outer), OUTER_TABLES: tables(row.outer),
            OUTER_FOLDERS: folders(row.outer), FAR: PartNeeds(store=Store(quota)) if row.strand else None,
            KEEPER: PartNeeds(store=Store(quota)),
            INNER_FOLDERS: folders(row.inner), INNER_TABLES: tables(row.inner), INNER: side(row.inner),
        }  # fmt: skip
        parts = {name: needs for name, needs in wanted.items() if needs is not None}
        # One keeper numbers all that goes between two zones, either way: its store is never shared out. Of two that a
        # strand joins the one inside numbers, and the one outside takes its numbers.
        return Needs(parts, dict.fromkeys(channels, f"the relay's store for {row.outer} and {row.inner}"))

    # --- slices

    def cut(self, conduit: rows.Conduit, scope: Scope, part: str) -> RelayRows | None:
        row = _row(conduit)
        if part in (KEEPER, FAR):
            row = msgspec.structs.replace(row, doors=(), tables=(), changes=(), folders=(), nats=())
            return (outside if part == FAR else inside)(row) if row.strand else row
        zone = row.outer if part.startswith(OUTER) else row.inner
        way = way_of(part)
        return msgspec.structs.replace(
            slice_for(row, self.principals(conduit, part), way),
            doors=tuple(door for door in row.doors if door.zone == zone and way == HTTP),
            folders=tuple(folder for folder in row.folders if folder.zone == zone and way == FOLDER),
            nats=tuple(hub for hub in row.nats if hub.zone == zone and way == NATS),
            tables=tuple(table for table in row.tables if table.zone == zone and way == TABLE),
            changes=tuple(each for each in row.changes if each.zone == zone and way == TABLE),
        )

    def principals(self, conduit: rows.Conduit, part: str) -> frozenset[str]:
        row = _row(conduit)
        zone = row.outer if part == FAR or part.startswith(OUTER) else row.inner
        both = part == KEEPER and not row.strand
        return frozenset(who for who, stands in row.stands.items() if both or stands == zone)

    # --- explanations

    @property
    def form(self) -> str:
        return "--push CHANNEL [--body FILE], --pull CHANNEL or --browse CHANNEL"

    def asked(self, said: Collection[str]) -> bool:
        words = set(said)
        return len(words & set(VERBS)) == 1 and (words <= {*VERBS} or words == {"push", "body"})

    def explain(self, policy: CompiledPolicy, question: Question) -> Explanation:
        verb: Verb = next(verb for verb in VERBS if verb in question.said)
        name = question.said[verb]
        found = {
            conduit_name: conduit.terms
            for conduit_name, conduit in policy.conduits.items()
            if isinstance(conduit.terms, RelayRows)
        }
        relay = Relay(found.items())
        if name not in relay.channels:
            near = nearest(name, relay.channels)
            known = f"the policy has {one_of(relay.channels)}" if relay.channels else ""
            raise CofferdamError(f"the policy has no channel {name!r}", hint=f"did you mean {near}?" if near else known)
        verdict, problem = self._verdict(policy, relay, verb, name, question)
        conditions = list(_conditions(relay.channels[name])) if isinstance(verdict, Allow) and verb == "push" else []
        answer = "problem+json: a message that fails its checks gets 422, and is kept in quarantine"
        if problem is None:
            answer = "problem+json with 404, as for a channel that there is not, or 403 at the wrong time"
        return explained(
            policy, question, verdict, broker=self.word, operation=verb, target=name, answer=answer,
            conditions=conditions, considered=[verdict],
        )  # fmt: skip

    def _verdict(
        self, policy: CompiledPolicy, relay: Relay, verb: Verb, name: str, question: Question
    ) -> tuple[Allow | Deny, Problem | None]:
        conduit = policy.conduits[relay.conduit_of[name]]
        principals = policy.principals_of(question.source, question.zone)
        if not principals:
            detail = f"{question.source} asks; no principal has that address"
            return Deny("", "", Fault.PRINCIPAL, detail), None
        right = next((found for who in principals if (found := relay.right(who, verb, name))), None)
        if right is None:
            may = relay.who(verb, name)
            others = ", ".join(sorted(may)) or "nobody"
            line = next(iter(may.values())).rule if may else ""
            detail = f"{' or '.join(principals)} asks to {verb} {name}; {others} may"
            return Deny(conduit.name, line, Fault.PRINCIPAL, detail), None
        stands = standing(conduit, policy.table.clocks, question.wall_ns)
        if not stands.open:
            fault = Fault.EXPIRED if question.wall_ns >= conduit.expires else Fault.WINDOW
            return Deny(conduit.name, right.rule, fault, f"the conduit is {stands.says}"), None
        if "body" in question.said:
            checked = Checks(relay)(name, question.said["body"].encode())
            if isinstance(checked, Problem):
                where = f"{checked.place or 'the message'}, line {checked.line} column {checked.column}"
                return Deny(conduit.name, right.rule, Fault.VALUE, f"{checked.detail} ({where})"), checked
        _, until = windows.state(conduit.windows, policy.table.clocks, question.wall_ns)
        return Allow(conduit.name, right.rule, min(until, conduit.expires, NEVER)), None


def _row(conduit: rows.Conduit) -> RelayRows:
    if not isinstance(conduit.terms, RelayRows):
        raise TypeError(f"the conduit {conduit.name} is none of the relay")
    return conduit.terms


def _who(row: RelayRows, zone: str) -> tuple[str, ...]:
    return tuple(sorted(who for who, stands in row.stands.items() if stands == zone))


def _channel(name: str, said: ChannelSaid) -> Channel:
    return Channel(
        name=name,
        form=said.kind,
        schema=said.schema_file or "",
        keep=said.keep,
        most=said.most,
        room=said.room,
        room_messages=said.messages,
        order=said.order,
        tries=said.tries,
        on_error=said.on_error,
        on_gap=said.on_gap,
        lease=said.lease,
        stamp=said.time or "",
        release=2 if said.release == "two" else 1,
        fields=tuple(sorted(set(said.fields))),
        others=said.others,
        set=tuple(sorted(said.set.items())),
        limits=tuple(
            Limit(
                at=place,
                min=_number(limit.min),
                max=_number(limit.max),
                max_step=_number(limit.max_step),
                per_minute=limit.per_minute or 0,
                key=limit.by or "",
            )
            for place, limit in sorted(said.limits.items())
        ),
        alarm_oldest=said.alarm_oldest,
        alarm_silent=said.alarm_silent,
    )


def _folder(zone: str, channel: str, said: FolderSaid, of: ChannelSaid) -> relay_rows.Folder:
    return relay_rows.Folder(
        zone=zone,
        channel=channel,
        name=folder_name(zone, channel, said),
        form=said.form or of.kind,
        settle=said.settle,
        id=said.id,
        delimiter=said.delimiter,
        decimal=said.decimal,
        columns=tuple(sorted(said.columns.items())),
        keep_files=said.keep_files,
    )


def _nats(zone: str, said: NatsSaid, files: Mapping[str, bytes]) -> relay_rows.Nats:
    return relay_rows.Nats(
        zone=zone,
        servers=said.at,
        stream=said.stream,
        subject=said.subject,
        user=said.user or "",
        password=said.password or zone,
        plain=said.plain,
        authority=files[said.authority] if said.authority else b"",
        name=said.name or "",
    )


def _number(value: float | None) -> int | float | None:
    """Whole numbers as such: what is compared is exact."""
    return int(value) if value is not None and value == int(value) else value


def _conditions(channel: Channel) -> Iterable[str]:
    for limit in channel.limits:
        by = f" of the same {limit.key}" if limit.key else ""
        if limit.max_step is not None:
            yield f"{limit.at} may be at most {show(limit.max_step)} from the last one{by}"
        if limit.per_minute:
            yield f"at most {limit.per_minute} messages{by} a minute"
    if channel.stamp:
        yield f"the time at {channel.stamp} is no older than what the channel keeps"
