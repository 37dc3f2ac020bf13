"""What is wrong between the fields of a relay's conduit, and with other entries.

Not here: the form of single fields (relay_model), what is legal but unwise (relay_lint).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cofferdam.errors import extra
from cofferdam.limits import FOLDER_NAME
from cofferdam.policy import schema
from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking
from cofferdam.policy.messages.schemas import FILES_MOST, SchemaError, Schemas, named_files
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.terms.diode_rows import strand_of
from cofferdam.policy.terms.door_words import DoorChecks
from cofferdam.policy.terms.relay_model import (
    COMING,
    FOLDER,
    HTTP,
    NATS,
    TABLE,
    ChannelSaid,
    FolderSaid,
    NatsSaid,
    RelayConduit,
    RelayRule,
    TablesSaid,
    folder_name,
    slot_name,
)
from cofferdam.policy.yamltext import quote


def sides(conduit: RelayConduit | schema.Conduit, policy: schema.Policy) -> tuple[str, str] | None:
    """The zones of a conduit as (outer, inner), the less and the more trusted one; None if it has not one of each."""
    found = {policy.zones[name].side: name for name in (conduit.from_zone, conduit.to_zone) if name in policy.zones}
    return (found["it"], found["ot"]) if len(found) == 2 else None


def schema_files(name: str, checking: Checking, at: Path) -> dict[str, bytes]:
    """A schema file and all that it refers to. What cannot be had is left out; a SchemaError leaves this."""
    found: dict[str, bytes] = {}
    waiting = [name]
    while waiting and len(found) < FILES_MOST:
        next_name = waiting.pop()
        # What a schema refers to and is not there is named by the schema, with its place in it.
        data = checking.file(next_name, at) if next_name == name else _quietly(next_name, checking, at)
        if data is not None and next_name not in found:
            found[next_name] = data
            waiting += refers_to(next_name, data)
    return found


def refers_to(name: str, data: bytes) -> tuple[str, ...]:
    """The files that a schema refers to. Raises: SchemaError."""
    if not name.endswith(".xsd"):
        return named_files(name, data)
    try:
        from cofferdam.policy.messages.xml_reading import xsd_files
    except ImportError:
        raise SchemaError(name, "an XSD, and lxml is not there", f"lxml ({extra('relay')})") from None
    return xsd_files(name, data)


def _quietly(name: str, checking: Checking, at: Path) -> bytes | None:
    count = len(checking.problems)
    data = checking.file(name, at)
    del checking.problems[count:]
    return data


class RelayChecks:
    """One conduit's."""

    def __init__(self, name: str, conduit: RelayConduit, numbers: Sequence[int], checking: Checking) -> None:
        self.name = name
        self.here = ("conduits", name)
        self.conduit = conduit
        self.numbers = numbers
        self.checking = checking
        self.at = checking.at

    def run(self) -> None:
        zones = [name for name in (self.conduit.from_zone, self.conduit.to_zone) if name in self.checking.policy.zones]
        if len(zones) == 2 and sides(self.conduit, self.checking.policy) is None:
            side = self.checking.policy.zones[zones[0]].side
            found = f"{zones[0]} and {zones[1]}, which are both {side}"
            self.at((*self.here, "to"), found, "a zone of the other side: a relay stands between two", check="zones")
        if not self.conduit.channels and not self.checking.names(*self.here, "channels"):
            self.at((*self.here, "channels"), "no channels", "at least one channel", check="missing")
        for channel, said in self.conduit.channels.items():
            self.channel((*self.here, "channels", channel), channel, said)
        for number, rule in zip(self.numbers, self.conduit.allow, strict=True):
            self.rule((*self.here, "allow", number), rule)
        doors = DoorChecks(self.name, self.conduit, self.checking)
        for zone, door in self.conduit.listen.items():
            doors.door((*self.here, "listen", zone), zone, door)
        self.doors_wanted()
        for zone, tables in self.conduit.tables.items():
            self.tables((*self.here, "tables", zone), zone, tables)
        for zone, channels in self.conduit.folders.items():
            for channel, folder in channels.items():
                self.folder((*self.here, "folders", zone, channel), zone, channel, folder)
        for zone, hub in self.conduit.nats.items():
            self.nats((*self.here, "nats", zone), zone, hub)
        self.one_way()
        self.riding()

    def riding(self) -> None:
        """One that a strand carries has its two zones for itself, and goes the strand's way."""
        policy = self.checking.policy
        strand = strand_of(policy.conduits, self.name)
        if not strand:
            for channel, each in self.conduit.channels.items():
                if each.on_gap != "go-on":
                    at = (*self.here, "channels", channel, "on_gap")
                    self.at(at, "wait", "a conduit that a strand carries: else there are no gaps", check="carries")
            return
        found = sides(self.conduit, policy)
        if found is not None and found[0] == self.conduit.from_zone:
            expected = f"a zone of side ot: it rides on {strand}, over which nothing comes back"
            self.at((*self.here, "from"), f"{self.conduit.from_zone}, which is it", expected, check="direction")
        for number, rule in zip(self.numbers, self.conduit.allow, strict=True):
            for index, pulled in enumerate(rule.pull if rule.via == TABLE else ()):
                if pulled in self.conduit.channels and self.conduit.channels[pulled].on_gap != "wait":
                    wrong = f"{pulled} via table, from a strand that may bring numbers late"
                    expected = "on_gap: wait: an inbox knows its last number alone"
                    self.at((*self.here, "allow", number, "pull", index), wrong, expected, check="carries")
        here = {self.conduit.from_zone, self.conduit.to_zone}
        for other, said in policy.conduits.items():
            if other != self.name and isinstance(said, RelayConduit) and {said.from_zone, said.to_zone} == here:
                wrong = f"a second relay between {self.conduit.from_zone} and {self.conduit.to_zone}, beside {other}"
                if other < self.name or not strand_of(policy.conduits, other):
                    self.checking.key(self.here, wrong, f"its channels in one: {strand} carries it", check="carries")

    # --- channels

    def channel(self, at: Path, name: str, said: ChannelSaid) -> None:
        for other, conduit in self.checking.policy.conduits.items():
            if other < self.name and isinstance(conduit, RelayConduit) and name in conduit.channels:
                first = self.checking.document.key(("conduits", other, "channels", name)).where
                found = f"the channel {name}, which the conduit {other} has ({first})"
                self.checking.key(at, found, "a name of its own", check="channel")
        if said.schema_file is not None:
            self.schema((*at, "schema"), said.schema_file, said.kind)
        for place, limit in said.limits.items():
            here = (*at, "limits", place)
            if limit.min is not None and limit.max is not None and limit.min > limit.max:
                self.at((*here, "min"), f"min {limit.min:g} above max {limit.max:g}", "min at most max", check="range")
            if not any((limit.min is not None, limit.max is not None, limit.max_step, limit.per_minute)):
                expected = "min, max, max_step or per_minute"
                self.at(here, "a limit that limits nothing", expected, check="missing")
            if limit.by is not None and limit.by.count("*") > place.count("*"):
                found = f"{limit.by}, which has more * than {place}"
                self.at((*here, "by"), found, "one place for each value", check="place")
        for place, text in said.set.items():
            if said.kind == "xml" and text[:1] in ("{", "["):
                self.at((*at, "set", place), "a map or a list", "a text, a number, true or false", check="place")
            if "*" in place.split("/"):
                self.checking.key((*at, "set", place), f"{place}", "one place, without *", check="place")
        if said.time is not None and "*" in said.time.split("/"):
            self.at((*at, "time"), said.time, "one place, without *", check="place")
        if said.room < said.most:
            self.at((*at, "room"), "less room than one message may take", "room for some messages", check="room")

    def schema(self, at: Path, name: str, form: str) -> None:
        if (form == "xml") != name.endswith(".xsd"):
            expected = "a file whose name ends with .xsd" if form == "xml" else "a JSON Schema, or form: xml"
            self.at(at, f"{quote(name)} for messages that are {form}", expected, check="schema")
            return
        try:
            files = schema_files(name, self.checking, at)
            if name in files and form == "xml":
                from cofferdam.policy.messages.xml_reading import XsdSchemas

                XsdSchemas(files).validator(name)
            elif name in files:
                Schemas(files).validator(name)
        except SchemaError as error:
            where = f"{error.file}:{error.line}:{error.column}"
            self.at(at, f"{where}: {error.found}", error.expected, check="schema")

    # --- rules

    def rule(self, at: Path, rule: RelayRule) -> None:
        if not rule.push and not rule.pull and not rule.browse:
            self.at(at, "a rule that allows nothing", "push, pull or browse", check="missing")
        if rule.via == NATS and rule.push:
            self.at(
                (*at, "push"), "push via nats", "pull: channels are published to NATS, not read from it", check="via"
            )
        if rule.via in (TABLE, FOLDER) and rule.browse:
            words = f"push or pull: a {rule.via} is not browsed"
            self.at((*at, "browse"), f"browse via {rule.via}", words, check="via")
        for channel in (*rule.push, *rule.pull) if rule.via == TABLE else ():
            said = self.conduit.channels.get(channel)
            if said is not None and said.kind == "xml":
                self.at(at, f"{channel}, which is XML, via table", "http: a table has JSON", HTTP, "via")
        if rule.via in COMING:
            found = f"via {rule.via}: {COMING[rule.via]}"
            self.at(
                (*at, "via"),
                found,
                f"{HTTP}, {TABLE}, {FOLDER} or {NATS}; {rule.via} is to come in a later version",
                HTTP,
                "via",
            )
        for verb, channels in (("push", rule.push), ("pull", rule.pull), ("browse", rule.browse)):
            for index, channel in enumerate(channels):
                self.checking.known("channels", channel, (*at, verb, index), within=self.here)
        for index, who in enumerate(rule.who):
            path = (*at, "who", index)
            if not self.checking.known("principals", who, path):
                continue
            principal = self.checking.policy.principals.get(who)
            if principal is not None:
                self.principal(path, who, principal.zone, rule)

    def principal(self, at: Path, who: str, zone: str, rule: RelayRule) -> None:
        begin, end = self.conduit.from_zone, self.conduit.to_zone
        wanted = {name for verbs, name in ((rule.push, begin), (rule.pull, end)) if verbs}
        if not wanted and zone not in (begin, end):
            wanted = {begin, end}
        if not wanted or wanted == {zone}:
            return
        verb = "push" if rule.push else "pull" if rule.pull else "browse"
        fitting = sorted(n for n, p in self.checking.policy.principals.items() if p.zone in wanted)
        expected = {
            "push": f"a principal of {begin}: messages go from there to {end}",
            "pull": f"a principal of {end}: messages go from {begin} to there",
            "browse": f"a principal of {begin} or {end}",
        }[verb]
        if len(wanted) == 2 and verb == "push":
            expected = "one rule for those who push and one for those who pull: they stand in two zones"
        self.at(at, f"{who} of zone {zone}", expected, nearest(who, fitting), "principal-zone")

    # --- tables

    def tables(self, at: Path, zone: str, said: TablesSaid) -> None:
        here = (self.conduit.from_zone, self.conduit.to_zone)
        if zone not in here:
            found = f"the zone {quote(zone)}"
            self.checking.key(at, found, f"a zone of this conduit ({one_of(here)})", nearest(zone, here), "tables")
        if len({said.outbox, said.inbox, said.position}) < 3:
            self.checking.key(at, "one table for two purposes", "an outbox, an inbox and a position", check="tables")
        slots: dict[str, str] = {}
        for channel, each in said.changes.items():
            path = (*at, "changes", channel)
            if channel not in self.conduit.channels:
                near = nearest(channel, self.conduit.channels)
                self.checking.key(path, f"the channel {quote(channel)}", "a channel of this conduit", near, "tables")
            elif zone != self.conduit.from_zone or not any(
                rule.via == TABLE and channel in rule.push for rule in self.conduit.allow
            ):
                expected = f"a rule that lets somebody of {self.conduit.from_zone} push {channel} via table"
                self.checking.key(path, f"a table for {channel} that nobody uses", expected, check="tables")
            if each.table in (said.outbox, said.inbox, said.position):
                self.at(
                    (*path, "table"), f"{each.table}, which is the relay's own", "a table of the site's", check="tables"
                )
            other = slots.setdefault(slot_name(channel, each), channel)
            if other != channel:
                found = f"the slot {slot_name(channel, each)}, which {other} has"
                self.checking.key(path, found, "slot: a name of its own", check="tables")

    # --- folders

    def folder(self, at: Path, zone: str, channel: str, said: FolderSaid) -> None:
        here = (self.conduit.from_zone, self.conduit.to_zone)
        if zone not in here:
            near = nearest(zone, here)
            self.checking.key(
                at, f"the zone {quote(zone)}", f"a zone of this conduit ({one_of(here)})", near, "folders"
            )
        of = self.conduit.channels.get(channel)
        if of is None:
            if channel not in self.checking.names(*self.here, "channels"):
                near = nearest(channel, self.conduit.channels)
                self.checking.key(at, f"the channel {quote(channel)}", "a channel of this conduit", near, "folders")
            return
        form = said.form or of.kind
        if (form == "xml") != (of.kind == "xml"):
            self.at((*at, "form"), f"{form} for messages that are {of.kind}", of.kind, check="folders")
        if form in ("csv", "lines") and zone == self.conduit.to_zone:
            self.at((*at, "form"), f"{form} for files that go out", "one message a file: json", check="folders")
        if form == "xml" and said.id.startswith("/"):
            self.at((*at, "id"), f"{said.id} in XML", "name or content", check="folders")
        if said.columns and form != "csv":
            self.at((*at, "columns"), f"columns of {form}", "form: csv", check="folders")
        if said.delimiter == said.decimal:
            self.at((*at, "decimal"), "one mark for two purposes", "another delimiter", check="folders")
        name = folder_name(zone, channel, said)
        if not re.fullmatch(FOLDER_NAME, name):
            self.checking.key(at, f"the folder {quote(name)}", "folder: a name of small letters", check="folders")
        for conduit, whose, what in self.all_folders(name):
            if (conduit, whose, what) < (self.name, zone, channel):
                found = f"the folder {name}, which {what} of {conduit} has in {whose}"
                self.checking.key(at, found, "a folder of its own", check="folders")
        verb = "push" if zone == self.conduit.from_zone else "pull"
        if not any(rule.via == FOLDER and channel in getattr(rule, verb) for rule in self.conduit.allow):
            expected = f"a rule that lets somebody {verb} {channel} via folder"
            self.checking.key(at, f"a folder for {channel} that nobody uses", expected, check="folders")

    # --- NATS

    def nats(self, at: Path, zone: str, said: NatsSaid) -> None:
        policy, here = self.checking.policy, (self.conduit.from_zone, self.conduit.to_zone)
        if zone not in here:
            near = nearest(zone, here)
            self.checking.key(at, f"the zone {quote(zone)}", f"a zone of this conduit ({one_of(here)})", near, "nats")
        elif policy.zones[zone].side != "it":
            self.checking.key(
                at, f"NATS in {zone}, the more trusted zone", "NATS in the less trusted one", check="nats"
            )
        if said.plain == (said.authority is not None):
            found = "plain, and an authority" if said.plain else "no authority for the hub's certificate"
            self.checking.key(at, found, "authority: FILE, or plain: true", check="tls")
        data = self.checking.file(said.authority, (*at, "authority")) if said.authority else None
        if data is not None and b"BEGIN CERTIFICATE" not in data:
            self.at(
                (*at, "authority"), f"{quote(str(said.authority))}, which is no certificate", "a PEM file", check="tls"
            )
        if said.password and not said.user:
            self.at((*at, "password"), "a password without a user", "user: NAME", check="nats")

    def all_folders(self, name: str) -> list[tuple[str, str, str]]:
        """(conduit, zone, channel) of those of this name, in all relays of the policy."""
        return [
            (conduit, zone, channel)
            for conduit, said in self.checking.policy.conduits.items()
            if isinstance(said, RelayConduit)
            for zone, channels in said.folders.items()
            for channel, folder in channels.items()
            if folder_name(zone, channel, folder) == name
        ]

    def one_way(self) -> None:
        """In a table or a folder stands no principal: one pushes a channel from there, and one pulls it; nobody does
        both ways."""
        names = self.checking.names(*self.here, "tables") if "tables" in self.checking.names(*self.here) else {}
        by_way: dict[tuple[str, str, str], str] = {}
        ways: dict[tuple[str, str, str], str] = {}
        for number, rule in zip(self.numbers, self.conduit.allow, strict=True):
            at = (*self.here, "allow", number)
            for verb, channel, who in ((v, c, w) for v, cs in (("push", rule.push), ("pull", rule.pull)) for c in cs
                                       for w in rule.who):  # fmt: skip
                way = ways.setdefault((verb, channel, who), rule.via)
                if way != rule.via:
                    self.at(at, f"{who}, who has {channel} via {way}, via {rule.via}", "one way", check="via")
                other = who if rule.via == HTTP else by_way.setdefault((verb, channel, rule.via), who)
                if other != who:
                    found = f"{who} and {other}, who both {verb} {channel} via {rule.via}"
                    what = "row" if rule.via == TABLE else "file"
                    self.at(at, found, f"one of them: a {what} does not say whose it is", check="via")
                zone = self.conduit.from_zone if verb == "push" else self.conduit.to_zone
                if rule.via == FOLDER and channel not in self.conduit.folders.get(zone, {}):
                    found = f"no folder in {zone} for {channel}, which {who} has via folder"
                    self.at(at, found, f"folders: {zone}: {channel}: {{}}", check="folders")
            for zone in sorted(set(_zones(rule, self.checking.policy)) - self.conduit.nats.keys()):
                if rule.via == NATS and zone in (self.conduit.from_zone, self.conduit.to_zone):
                    expected = f"nats: {zone}: {{at: ..., stream: ...}}"
                    self.at(at, f"no NATS in {zone}, where {one_of(rule.who)} has one", expected, check="nats")
            for zone in sorted(set(_zones(rule, self.checking.policy)) - names.keys()):
                if rule.via == TABLE and zone in (self.conduit.from_zone, self.conduit.to_zone):
                    found = f"no database in {zone}, where {one_of(rule.who)} has a table"
                    self.at(at, found, f"tables: {zone}: {{at: ..., database: ...}}", check="tables")

    # --- doors

    def doors_wanted(self) -> None:
        """Whoever asks by HTTP has a door in its zone."""
        said = "listen" in self.checking.names(*self.here)
        names = self.checking.names(*self.here, "listen") if said else {}
        for number, rule in zip(self.numbers, self.conduit.allow, strict=True):
            for zone in sorted(set(_zones(rule, self.checking.policy)) - names.keys()):
                if rule.via == HTTP and zone in (self.conduit.from_zone, self.conduit.to_zone):
                    found = f"no place to listen in {zone}, where {one_of(rule.who)} asks by HTTP"
                    self.at((*self.here, "allow", number), found, f"listen: {zone}: {{at: ...}}", check="listen")


def _zones(rule: RelayRule, policy: schema.Policy) -> Iterable[str]:
    return (policy.principals[who].zone for who in rule.who if who in policy.principals)
