"""What is wrong between the fields of a mirror's conduit, and with other entries.

Not here: the form of single fields (mirror_model), what is legal but unwise (mirror).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking
from cofferdam.policy.notations import ALL
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.terms.diode_rows import strand_of
from cofferdam.policy.terms.door_words import DoorChecks
from cofferdam.policy.terms.mirror_list import listed
from cofferdam.policy.terms.mirror_model import MirrorConduit, MirrorRule, PublishSaid, SourceSaid
from cofferdam.policy.terms.mirror_rows import EVERYTHING, SINCE_1970, Matcher, meet
from cofferdam.values import ValueType

_OF_COLUMNS = ("tag", "time", "value", "quality", "qualities", "server")
_OF_DATABASES = (
    "database", "role", "password", "plain", "table", "query", "overlap", "since", "rows_per_second", *_OF_COLUMNS,
)  # fmt: skip
_OF_CSV = ("delimiter", "decimal", "encoding", "times", "type")
_OF_FOLDERS = ("form", "wide", "of", "zone", "settle", "keep_files", *_OF_CSV, *_OF_COLUMNS)


class MirrorChecks:
    """One conduit's."""

    def __init__(self, name: str, conduit: MirrorConduit, numbers: Sequence[int], checking: Checking) -> None:
        self.name = name
        self.here = ("conduits", name)
        self.conduit = conduit
        self.numbers = numbers
        self.checking = checking
        self.at = checking.at

    def run(self) -> None:
        conduit, policy = self.conduit, self.checking.policy
        for name, zone, side in (("from", conduit.from_zone, "ot"), ("to", conduit.to_zone, "it")):
            known = policy.zones.get(zone)
            if known is not None and known.side != side:
                expected = f"a zone of the {side} side: history goes from the plant to its readers"
                self.at((*self.here, name), f"{zone}, which is {known.side}", expected, check="direction")
        for other, theirs in policy.conduits.items():
            same = (theirs.from_zone, theirs.to_zone) == (conduit.from_zone, conduit.to_zone)
            if other < self.name and isinstance(theirs, MirrorConduit) and same:
                found = f"a second mirror from {conduit.from_zone} to {conduit.to_zone}, beside {other}"
                self.checking.key(self.here, found, f"its sources and rules in {other}", check="mirror")
        if (conduit.mirror.store == "postgresql") != (conduit.mirror.postgresql is not None):
            database = "no database" if conduit.mirror.postgresql is None else "a database"
            found = f"store: {conduit.mirror.store}, and {database}"
            expected = "store: postgresql, and postgresql: {at: ADDRESS:PORT, database: NAME}"
            self.at((*self.here, "mirror", "store"), found, expected, check="store")
        if conduit.mirror.publish is not None:
            self.publish((*self.here, "mirror", "publish"), conduit.mirror.publish)
        strand = strand_of(policy.conduits, self.name)
        fitting = "none" if strand else "crossing"
        if conduit.mirror.acks != fitting:
            how = f"it rides on {strand}, over which nothing comes back" if strand else "no strand carries it"
            found = f"acks: {conduit.mirror.acks}"
            self.at((*self.here, "mirror", "acks"), found, f"{fitting}: {how}", fitting, "acks")
        if not conduit.sources and not self.checking.names(*self.here, "sources"):
            self.at((*self.here, "sources"), "no sources", "at least one source", check="missing")
        for source, said in conduit.sources.items():
            self.source((*self.here, "sources", source), said)
        self.meanings()
        doors = DoorChecks(self.name, conduit, self.checking)
        for zone, door in conduit.listen.items():
            doors.door((*self.here, "listen", zone), zone, door)
            if zone == conduit.from_zone:
                at = (*self.here, "listen", zone)
                self.checking.key(at, f"a door in {zone}, the plant's", f"one in {conduit.to_zone}", check="listen")
        said_doors = "listen" in self.checking.names(*self.here) and self.checking.names(*self.here, "listen")
        if conduit.allow and conduit.to_zone not in (said_doors or {}):
            found = f"no place to listen in {conduit.to_zone}, where readers ask"
            self.at((*self.here, "allow"), found, f"listen: {conduit.to_zone}: {{at: ...}}", check="listen")
        for number, rule in zip(self.numbers, conduit.allow, strict=True):
            self.rule((*self.here, "allow", number), rule)

    def publish(self, at: Path, said: PublishSaid) -> None:
        if said.plain == (said.authority is not None):
            found = "plain, and an authority" if said.plain else "TLS without an authority"
            self.checking.key(at, found, "authority: FILE.pem, or plain: yes", check="authority")
        data = self.checking.file(said.authority, (*at, "authority")) if said.authority is not None else None
        if data is not None and (b"-----BEGIN CERTIFICATE-----" not in data or not data.isascii()):
            self.at((*at, "authority"), f"{said.authority}: no certificates", "certificates in PEM", check="file")
        if said.host is not None and not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", said.host):
            self.at((*at, "host"), said.host, "a host's name", check="host")

    def source(self, at: Path, said: SourceSaid) -> None:
        kinds = said.kinds
        if len(kinds) != 1:
            found = f"{' and '.join(kinds)} together" if kinds else "a source that says not where it is"
            self.checking.key(at, found, "one of at, asset, folder", check="missing")
            return
        (kind,) = kinds
        own = {"at": _OF_DATABASES, "asset": ("points",), "folder": _OF_FOLDERS}
        for of, fields in own.items():
            for field in fields:
                if of != kind and field in said.model_fields_set and field not in own[kind]:
                    where = {"at": "a database (at)", "asset": "an asset", "folder": "a folder"}[of]
                    self.at((*at, field), f"{field} beside {kind}", f"it belongs to {where}", check="source")
        if said.tag_list is not None:
            self.listed(at, said)
        if said.qualities is not None and said.quality is None and kind != "asset":
            self.at((*at, "qualities"), "no column to which it applies", "quality: COLUMN", check="missing")
        if kind == "at":
            self.database(at, said)
        elif kind == "folder":
            self.folder(at, said)
        if kind == "asset":
            self.device(at, said)

    def listed(self, at: Path, said: SourceSaid) -> None:
        data = self.checking.file(said.tag_list or "", (*at, "list"))
        if data is None:
            return
        try:
            tags = listed(data)
        except ValueError as error:
            expected = "CSV whose first row is tag,unit,description"
            self.at((*at, "list"), f"{said.tag_list}: {error}", expected, check="list")
            return
        if said.asset is not None:
            asset = self.checking.policy.assets.get(said.asset)
            known = {f"{said.asset}.{point}" for point in asset.points} if asset is not None else set(tags)
            if strange := next((tag for tag in tags if tag not in known), ""):
                found = f"{said.tag_list}: {strange}, which is no point of {said.asset}"
                self.at((*at, "list"), found, f"{said.asset}.POINT", nearest(strange, known), check="list")

    def meanings(self) -> None:
        """What a quality means goes by tag, and a name counts before a pattern: no tag may be left of which two sources
        say otherwise."""
        names = {name: self.names(said) for name, said in self.conduit.sources.items()}
        wild = {name: [tag for tag in tags if "*" in tag] for name, tags in names.items()}
        for name, said in self.conduit.sources.items():
            for other, theirs in self.conduit.sources.items():
                if said.qualities is None or theirs.qualities == said.qualities:
                    continue
                both = {tag for tag in names[name] & names[other] if "*" not in tag}
                both.update(tag for own in wild[name] for tag in wild[other] if meet(own, tag))
                if both:
                    found = f"{said.qualities}, and {other}, which says {theirs.qualities or 'nothing'}, may have the "
                    expected = "tags for each source that the other has not"
                    at = (*self.here, "sources", name, "qualities")
                    self.at(at, f"{found}same tags ({min(both)})", expected, check="source")
                    break

    def names(self, said: SourceSaid) -> set[str]:
        """The tags of a source, names and patterns."""
        if said.asset is not None:
            asset = self.checking.policy.assets.get(said.asset)
            return {f"{said.asset}.{point}" for point in asset.points} if asset is not None else set()
        if said.of is not None:
            return {said.of}
        if said.tag_list is None:
            return set(said.tags)
        found = set(said.tags) if "tags" in said.model_fields_set else set()
        with contextlib.suppress(ValueError):  # which is told where the list stands
            found.update(listed(self.checking.files.get(said.tag_list, b"")))
        return found

    def database(self, at: Path, said: SourceSaid) -> None:
        if said.database is None:
            self.checking.key(at, "a database without its name", "database: NAME", check="missing")
        if (said.table is None) == (said.query is None):
            self.checking.key(at, "a database", "table, or query", check="missing")
        self.columns(at, [said.tag, said.time, said.value, *filter(None, (said.quality, said.server))])

    def columns(self, at: Path, columns: Sequence[str]) -> None:
        if len(set(columns)) != len(columns):
            self.checking.key(at, "one column for two purposes", "a column for each", check="source")

    def folder(self, at: Path, said: SourceSaid) -> None:
        for other, theirs in self.conduit.sources.items():
            if theirs.folder == said.folder and other < str(at[-1]):
                self.at((*at, "folder"), f"{said.folder}, which {other} has", "a folder of its own", check="source")
        given = said.model_fields_set
        if said.form != "csv":
            for field in _OF_CSV:
                if field in given:
                    self.at((*at, field), f"{field} of {said.form}", "form: csv", check="source")
        if said.delimiter == said.decimal and said.form == "csv":
            self.checking.key(at, "one mark for cells and decimals", "another delimiter", check="source")
        if said.wide and said.of is not None:
            self.at((*at, "of"), "wide, and all of one tag", "wide, or of", check="source")
        for field, without in (("tag", said.wide or said.of is not None), ("value", said.wide), ("quality", said.wide),
                               ("server", said.wide)):  # fmt: skip
            if without and field in given:
                found = f"a column for the {field} " + ("of a wide file" if said.wide else "beside of")
                self.at((*at, field), found, "none: each column is a tag" if said.wide else "none", check="source")
        if said.zone is not None and (said.times in SINCE_1970 or "%z" in said.times):
            self.at((*at, "zone"), f"a zone for times: {said.times}", "none: they say what they are", check="source")
        if said.zone is None and said.form == "csv" and "%" in said.times and "%z" not in said.times:
            found = "times without an offset, and no zone"
            self.checking.key(at, found, "zone: Europe/Berlin (or +01:00)", check="source")
        if said.wide:
            self.columns(at, [said.time])
        elif said.of is not None:
            self.columns(at, [said.time, said.value, *filter(None, (said.quality, said.server))])
        else:
            self.columns(at, [said.tag, said.time, said.value, *filter(None, (said.quality, said.server))])
        for index, pattern in enumerate(said.tags):
            if said.of is not None and not Matcher([pattern])(said.of) and len(said.tags) == 1:
                self.at((*at, "tags", index), f"{pattern}, and all is of {said.of}", said.of, check="source")

    def device(self, at: Path, said: SourceSaid) -> None:
        name = said.asset or ""
        if not self.checking.known("assets", name, (*at, "asset")):
            return
        asset = self.checking.policy.assets.get(name)
        if asset is None:
            return
        if asset.zone != self.conduit.from_zone:
            found = f"{name} of zone {asset.zone}"
            self.at((*at, "asset"), found, f"an asset of {self.conduit.from_zone}", check="asset-zone")
        if asset.protocol not in ("modbus", "opcua"):
            self.at((*at, "asset"), f"{name}, which speaks {asset.protocol}", "an asset that speaks modbus or opcua",
                    check="protocol")  # fmt: skip
        if asset.tls is not None and asset.tls.asset:
            found = f"{name}, which is spoken with by TLS"
            self.at((*at, "asset"), found, "an asset that the mirror can read without TLS", check="protocol")
        if asset.reverse is not None and asset.reverse.listen is not None:
            found = f"{name}, which opens the connections itself"
            self.at((*at, "asset"), found, "an asset that the mirror can connect to", check="protocol")
        for index, point in enumerate(said.points):
            if point != ALL and point not in asset.points:
                near = nearest(point, asset.points)
                expected = f"a point of {name} ({one_of(asset.points)})" if asset.points else f"{name} has none"
                self.at((*at, "points", index), f"the point {point}", expected, near, "unknown-point")
            elif point in asset.points and asset.points[point].type is ValueType.TEXT:
                self.at((*at, "points", index), f"{point}, which is a text", "points that are numbers", check="type")
        if not asset.points:
            self.at((*at, "asset"), f"{name}, which has no points", "an asset with points", check="unknown-point")

    def rule(self, at: Path, rule: MirrorRule) -> None:
        if rule.sql and (EVERYTHING not in rule.read or rule.resolution):
            found = "sql without `read: all`" if EVERYTHING not in rule.read else "sql with a resolution"
            self.at((*at, "sql"), found, "read: all, as it is: a file holds many tags", check="sql")
        for index, who in enumerate(rule.who):
            path = (*at, "who", index)
            if not self.checking.known("principals", who, path):
                continue
            principal = self.checking.policy.principals.get(who)
            if principal is not None and principal.zone != self.conduit.to_zone:
                fitting = [n for n, p in self.checking.policy.principals.items() if p.zone == self.conduit.to_zone]
                expected = f"a principal of {self.conduit.to_zone}, where readers are"
                self.at(path, f"{who} of zone {principal.zone}", expected, nearest(who, fitting), "principal-zone")
