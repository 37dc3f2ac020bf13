"""The frozen rows of the relay: channels, the lines that say who may do what with them, and their schemas. PURE.

They travel to the relay's parts inside the compiled policy. A side gets what concerns its own principals (`slice_for`),
the keeper gets all. Both reckon a fingerprint of what a side should have: while the two differ (a reload is under way)
the keeper refuses what that side asks for, and once they agree a side that asks for what it cannot ask for is broken.

Not here: how rows are made from a policy file (terms.relay), how messages are checked by them (policy.messages).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal

import msgspec

from cofferdam.policy.terms.doors import Door

LARGEST_MESSAGE: Final = 20_000_000
"""The most bytes of one message that any channel may take."""
PARALLEL_MOST: Final = 10_000
"""The most messages that one consumer of a channel may have under way."""

Verb = Literal["push", "pull", "browse"]
VERBS: Final[tuple[Verb, ...]] = ("push", "pull", "browse")


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A bound on the value at `at` (JSON Pointer, or the XPath subset for XML): within `min` and `max`, at most
    `max_step` from the last one, at most `per_minute` messages a minute. `key`: the place of what tells series apart
    (a line, an article): step and rate are reckoned for each of its values; "": for the channel as a whole."""

    at: str
    min: int | float | None = None
    max: int | float | None = None
    max_step: int | float | None = None
    per_minute: int = 0
    key: str = ""


class Channel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One channel. Times are seconds, sizes bytes.

    `schema` names one of the rows' `schemas` ("": any value of the form). `order`: 1 is strict (the next message is
    handed to a consumer when the one before is done or dead), N above 1: up to N of a consumer under way. `tries`: so
    often a message is handed to a consumer before it is dead to it. `on_error`: whether a dead message or one in
    quarantine stops the channel. `on_gap`: what a consumer gets where a strand has not brought a number: those behind
    it, or nothing until it is there or given up. `stamp`: the place of a message's own time; with it, a message older
    than `keep` or from the future is refused. `release`: how many people a release from quarantine takes. `fields`:
    what is let through (empty: all); what else came is dropped or refused (`others`); `set`: constants, as JSON text,
    by place.
    """

    name: str
    form: Literal["json", "xml"] = "json"
    schema: str = ""
    keep: int = 7_776_000
    most: int = 1_000_000
    room: int = 1_000_000_000
    room_messages: int = 2_000_000
    order: int = 1
    tries: int = 5
    on_error: Literal["go-on", "stop"] = "go-on"
    on_gap: Literal["go-on", "wait"] = "go-on"
    lease: int = 300
    """The longest that a message is leased in one go."""
    stamp: str = ""
    release: Literal[1, 2] = 1
    fields: tuple[str, ...] = ()
    others: Literal["drop", "refuse"] = "refuse"
    set: tuple[tuple[str, str], ...] = ()
    limits: tuple[Limit, ...] = ()
    alarm_oldest: int = 3_600
    """An alarm once a message has waited so long for a consumer."""
    alarm_silent: int = 3_600
    """An alarm once a consumer with messages waiting has not asked for so long."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of `allow`: principals, and the channels that they may push to, pull from, browse. `number` counts the
    conduit's lines from 0. `via`: the way in or out that serves them."""

    number: int
    who: tuple[str, ...]
    push: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()
    browse: tuple[str, ...] = ()
    via: str = "http"


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the database of `zone` (SCHEMA.TABLE) whose rows are a channel's messages, read from the database's
    log by way of a replication slot (and a publication of the same name). `on`: what is done to a row that makes it a
    message."""

    zone: str
    channel: str
    table: str
    slot: str
    on: tuple[str, ...] = ("insert",)


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A database in whose tables messages of principals of `zone` come and go. `password` names the secret that the
    part has been given; `plain`: without TLS. Tables are SCHEMA.TABLE."""

    zone: str
    address: str
    port: int
    database: str
    role: str
    password: str
    plain: bool = False
    outbox: str = "cofferdam.outbox"
    inbox: str = "cofferdam.inbox"
    position: str = "cofferdam.position"

    @property
    def at(self) -> str:
        """ADDRESS:PORT/DATABASE."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}/{self.database}"


class Folder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A folder of the site's by which messages of one channel come or go, for principals of `zone`. `name`: beneath the
    directory of all such folders. `form`: what files hold: one message ("json", "xml"), or one in each line ("lines")
    or row ("csv"). `settle`: seconds that a file stands unchanged before it is taken. `id`: "name", "content", or the
    JSON Pointer of a message's id. `columns`: those of CSV that are no text. `keep_files`: seconds that done files
    stay, 0: for ever."""

    zone: str
    channel: str
    name: str
    form: Literal["json", "xml", "lines", "csv"] = "json"
    settle: int = 2
    id: str = "name"
    delimiter: str = ","
    decimal: str = "."
    columns: tuple[tuple[str, str], ...] = ()
    keep_files: int = 2_592_000


class Nats(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A NATS JetStream of principals of `zone`, to which channels are published. `servers`: (address, port), tried in
    this order. `subject` has {channel} in it. `user` "": none is shown, else with the secret named `password`.
    `authority` (PEM) has signed the hub's certificate, which is for `name` ("": for the address); `plain`: no TLS."""

    zone: str
    servers: tuple[tuple[str, int], ...]
    stream: str
    subject: str
    user: str = ""
    password: str = ""
    plain: bool = False
    authority: bytes = b""
    name: str = ""


class RelayRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="relay"):
    """What one conduit of the relay says. `schemas`: the bytes of the policy's schema files by their names in it: those
    that channels name, and those that they refer to. `outer` and `inner`: the zones in which the sides stand, the less
    and the more trusted one; `stands`: in which of them each principal does. `doors`: where the sides answer,
    `tables`: the databases that they speak with, `changes`: tables of the site's
    own in them, `folders`: those of the site's, `nats`: its hubs; the keeper needs none of them. `strand`: the
    conduit over which messages go from the keeper inside to the one outside, "" where one keeper has both sides."""

    channels: tuple[Channel, ...] = ()
    lines: tuple[Line, ...] = ()
    schemas: dict[str, bytes] = {}
    outer: str = ""
    inner: str = ""
    stands: dict[str, str] = {}
    doors: tuple[Door, ...] = ()
    tables: tuple[Table, ...] = ()
    changes: tuple[Changes, ...] = ()
    folders: tuple[Folder, ...] = ()
    nats: tuple[Nats, ...] = ()
    strand: str = ""

    @property
    def rider(self) -> str:
        """Whom the keeper inside has as its consumer: what goes over the strand. No principal has a colon in its
        name."""
        return f"{STRAND}:{self.strand}"


STRAND: Final = "strand"
"""The way (`via`) of what crosses between two keepers: no part that stands on a side serves it."""
WAYS: Final = {"tables": "table", "folders": "folder", "nats": "nats"}


def way_of(part: str) -> str:
    """By which way (a line's `via`) a part of the relay serves its principals."""
    return WAYS.get(part.partition("-")[2], "http")


def slice_for(rows: RelayRows, principals: Collection[str], way: str = "") -> RelayRows:
    """What a side whose principals these are has to know: their lines (those of one way, if it is given), and the
    channels in them. What a message has to look like is for those who push it."""
    lines = tuple(
        msgspec.structs.replace(line, who=tuple(name for name in line.who if name in principals))
        for line in rows.lines
        if way in ("", line.via) and any(name in principals for name in line.who)
    )
    pushed = {name for line in lines for name in line.push}
    taken = {name for line in lines for name in (*line.pull, *line.browse)}
    channels = tuple(
        channel if channel.name in pushed else _outline(channel)
        for channel in rows.channels
        if channel.name in pushed | taken
    )
    wanted = any(channel.schema for channel in channels)
    schemas = dict(rows.schemas) if wanted else {}
    stands = {name: zone for name, zone in rows.stands.items() if name in principals}
    return RelayRows(channels=channels, lines=lines, schemas=schemas, outer=rows.outer, inner=rows.inner, stands=stands)


def inside(rows: RelayRows) -> RelayRows:
    """What the keeper inside has of a conduit that rides: who pushes there, and the strand, which pulls it all."""
    lines = tuple(
        msgspec.structs.replace(line, who=who, pull=())
        for line in rows.lines
        if (who := tuple(name for name in line.who if rows.stands[name] == rows.inner))
    )
    names = tuple(channel.name for channel in rows.channels)
    ride = Line(number=len(rows.lines), who=(rows.rider,), pull=names, via=STRAND)
    return msgspec.structs.replace(rows, lines=(*lines, ride))


def outside(rows: RelayRows) -> RelayRows:
    """What the keeper outside has of it: who pulls there, and whose messages may come over the strand."""
    lines = []
    for line in rows.lines:
        there = tuple(name for name in line.who if rows.stands[name] == rows.outer)
        if there:
            lines.append(msgspec.structs.replace(line, who=there, push=()))
        elif line.push:
            lines.append(msgspec.structs.replace(line, pull=(), browse=(), via=STRAND))
    return msgspec.structs.replace(rows, lines=tuple(lines))


def print_of(rows: RelayRows, channel: str) -> bytes:
    """8 bytes over what the two keepers of a channel that rides have to agree on: its checks, and who may push."""
    (row,) = (each for each in rows.channels if each.name == channel)
    # What each of them keeps, and how it is handed out, is its own.
    bare = (row.name, row.form, row.schema, row.most, row.fields, row.others, row.set, row.limits, row.stamp)
    who = sorted({name for line in rows.lines if channel in line.push for name in line.who})
    said = msgspec.msgpack.encode((bare, who, rows.schemas if row.schema else {}), order="sorted")
    return hashlib.sha256(said).digest()[:8]


def _outline(channel: Channel) -> Channel:
    return msgspec.structs.replace(channel, schema="", stamp="", fields=(), set=(), limits=())


def fingerprint(rows: Mapping[str, RelayRows]) -> bytes:
    """16 bytes over what a side has: conduit -> rows, as `slice_for` gave them (its doors, tables, folders
    and hubs, which the keeper does not have, do not count; nor do conduits without a line for it)."""
    bare = [
        (name, msgspec.structs.replace(each, doors=(), tables=(), changes=(), folders=(), nats=()))
        for name, each in sorted(rows.items())
        if each.lines
    ]
    said = msgspec.msgpack.encode(bare, order="sorted")
    return hashlib.sha256(said).digest()[:16]


class Right(msgspec.Struct, frozen=True, gc=False):
    """That a principal may do a verb on a channel: by which conduit and which of its lines, which way."""

    conduit: str
    number: int
    via: str

    @property
    def rule(self) -> str:
        """As it is named in the audit log and by explain."""
        return f"{self.conduit}/{self.number}"


class Relay:
    """Rows with an index over them: which channels there are, and who may do what. Immutable."""

    def __init__(self, conduits: Iterable[tuple[str, RelayRows]]) -> None:
        """`conduits`: (name, rows) of those that this crew serves."""
        self.channels: dict[str, Channel] = {}
        self.conduit_of: dict[str, str] = {}
        """The conduit that a channel is declared in."""
        self.schemas: dict[str, dict[str, bytes]] = {}
        """By conduit: the schema files that its channels may name."""
        self._who: dict[tuple[Verb, str], dict[str, Right]] = {}
        for conduit, rows in conduits:
            self.schemas[conduit] = rows.schemas
            for channel in rows.channels:
                self.channels[channel.name] = channel
                self.conduit_of[channel.name] = conduit
            for line in rows.lines:
                for verb, names in (("push", line.push), ("pull", line.pull), ("browse", line.browse)):
                    right = Right(conduit, line.number, line.via)
                    for name in names:
                        for who in line.who:
                            self._who.setdefault((verb, name), {}).setdefault(who, right)  # type: ignore[arg-type]

    def right(self, who: str, verb: Verb, channel: str) -> Right | None:
        """Whether a principal may, and by what."""
        return self._who.get((verb, channel), {}).get(who)

    def who(self, verb: Verb, channel: str) -> dict[str, Right]:
        """All who may."""
        return self._who.get((verb, channel), {})
