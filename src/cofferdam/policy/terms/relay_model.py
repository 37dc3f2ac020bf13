"""The words of the relay in the policy file.

Not here: what they mean (relay), what is wrong between them (relay_checks).
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field

from cofferdam.limits import FOLDER_NAME
from cofferdam.policy import notations, schema, syntax
from cofferdam.policy.fields import (
    YES_NO,
    FileName,
    as_list,
    choice,
    one_or_list,
    one_or_more,
    read_by,
    size,
    span,
    whole,
)
from cofferdam.policy.notations import Name, Names, Number, Positive, Text
from cofferdam.policy.terms.door_words import DoorSaid
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, PARALLEL_MOST

HTTP, TABLE, FOLDER, NATS = "http", "table", "folder", "nats"
"""Ways in and out."""
COMING: Final = {
    "mqtt": "MQTT with JSON topics or Sparkplug B",
    "odbc": "SQL Server, Oracle and Db2 by ODBC",
    "odata": "OData",
}
"""Ways in and out that are not there yet, and what they will be."""
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*\Z")
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\.[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]+(\.([A-Za-z0-9_-]+|\{channel\}))*\Z")
_JSON: Final = re.compile(r"-?[0-9]|true\Z|false\Z|\"")
DAY: Final = 86_400


def _place(raw: Any) -> str:
    if isinstance(raw, str) and len(raw) <= 256 and _POINTER.match(raw):
        return raw
    near = f'"/{raw}"' if isinstance(raw, str) and re.fullmatch(r"[\w-]+", raw) else ""
    raise syntax.Expected("a place in the message, such as /line, /parts/*/count, or /Order/@number in XML", near)


def _order(raw: Any) -> int:
    if raw == "strict":
        return 1
    found = re.fullmatch(r"parallel\s+([0-9]{1,5})", raw) if isinstance(raw, str) else None
    if found and 2 <= int(found[1]) <= PARALLEL_MOST:
        return int(found[1])
    raise syntax.Expected(f'strict, or "parallel N" with N from 2 to {PARALLEL_MOST}')


def _constant(raw: Any) -> str:
    """What stands in the file as JSON text: a number, true, false, nothing, a text; `"5"` in quotes of its own is a
    text."""
    return json.dumps(_value(raw), sort_keys=True, ensure_ascii=False)


def _value(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _value(item) for key, item in raw.items()}
    if isinstance(raw, list):
        return [_value(item) for item in raw]
    if isinstance(raw, str) and _JSON.match(raw):
        try:
            return json.loads(raw, parse_constant=lambda text: text)
        except ValueError:
            return raw
    return raw


def _table(raw: Any) -> str:
    if isinstance(raw, str) and _TABLE.match(raw):
        return raw
    raise syntax.Expected("a table as SCHEMA.TABLE, such as cofferdam.outbox")


def _folder(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(FOLDER_NAME, raw):
        return raw
    raise syntax.Expected("a name of small letters, digits, dots, - and _, such as mes-counts")


def _identifier(raw: Any) -> str:
    if isinstance(raw, str) and 0 < len(raw.encode()) <= 63 and raw.isprintable() and raw.strip() == raw:
        return raw
    raise syntax.Expected("a name as PostgreSQL has it, of at most 63 bytes")


PLACE_SCHEMA: Final = {"type": "string", "pattern": "^(/([^~/]|~[01])*)*$", "examples": ["/line", "/parts/*/count"]}
Place = Annotated[str, *read_by(_place, PLACE_SCHEMA)]
Places = Annotated[tuple[Place, ...], BeforeValidator(one_or_more), one_or_list(PLACE_SCHEMA)]
Constant = Annotated[str, *read_by(_constant, {})]
TableName = Annotated[str, *read_by(_table, {"type": "string", "pattern": _TABLE.pattern.replace("\\Z", "$")})]
Identifier = Annotated[str, *read_by(_identifier, {"type": "string", "examples": ["mes"]})]


class ValueLimit(notations.Entry):
    """Bounds on a value of a message, in the words of points."""

    min: Number | None = Field(None, description="The smallest value that is let through.")
    max: Number | None = Field(None, description="The largest value that is let through.")
    max_step: Positive | None = Field(
        None, description="How far a value may be from the last one of the same series (`by`)."
    )
    per_minute: Annotated[int, *whole(1, 1_000_000)] | None = Field(
        None, description="How many messages of the same series are taken within any 60 seconds."
    )
    by: Place | None = Field(
        None,
        description="What tells series apart, such as `/line` or `/parts/*/article`. Default: all of the channel are "
        "one.",
    )


class ChannelSaid(notations.Entry):
    """A channel: messages of one kind, in order, from those who push to those who pull."""

    schema_file: FileName | None = Field(
        None,
        alias="schema",
        description="What each message must fit, a file beside the policy: a JSON Schema (2020-12), or an XSD "
        "(`order.xsd`). What it refers to is beside the policy as well; nothing is ever fetched. Default: any.",
    )
    form: Annotated[Literal["json", "xml"], *choice("json", "xml")] | None = Field(
        None, description="What messages are: `json`, `xml`. Default: what the schema is for, else `json`."
    )
    keep: Annotated[int, *span(60, 10 * syntax.YEAR_SECONDS)] = Field(
        90 * DAY,
        description="How long messages stay after everybody is done with them, and ids are known: a repeat within it "
        "gets the first answer. Default: 90 days.",
        json_schema_extra={"default": "90 days"},
    )
    most: Annotated[int, *size(1, LARGEST_MESSAGE)] = Field(
        1_000_000, description="The largest message. Default: 1 MB.", json_schema_extra={"default": "1 MB"}
    )
    room: Annotated[int, *size(1_000_000, 10**13)] = Field(
        10**9,
        description="Room for messages; a channel that is full takes no more, and drops none. Default: 1 GB.",
        json_schema_extra={"default": "1 GB"},
    )
    messages: Annotated[int, *whole(1, 100_000_000)] = Field(2_000_000, description="Room as a number of messages.")
    order: Annotated[
        int,
        *read_by(
            _order, {"type": "string", "pattern": r"^(strict|parallel\s+\d+)$", "examples": ["strict", "parallel 8"]}
        ),
    ] = Field(
        1,
        description="`strict`: who pulls gets the next message when the one before is done or dead; `parallel 8`: up "
        "to 8 at once. Default: strict.",
        json_schema_extra={"default": "strict"},
    )
    tries: Annotated[int, *whole(1, 1000)] = Field(
        5, description="So often a message is handed out before it is dead to the one who fails with it."
    )
    on_error: Annotated[Literal["go-on", "stop"], *choice("go-on", "stop")] = Field(
        "go-on",
        description="What a dead message, or one in quarantine, does to the channel: it goes on, or stops until a "
        "person has dealt with it.",
    )
    on_gap: Annotated[Literal["go-on", "wait"], *choice("go-on", "wait")] = Field(
        "go-on",
        description="Of a conduit that rides on a strand: what consumers get where a number has not come. `go-on`: "
        "those behind it, and it later, if a ticket brings it; `wait`: nothing behind it until it is there or given up "
        "(`cofferdam relay give-up`).",
    )
    lease: Annotated[int, *span(1, 7 * DAY)] = Field(
        300,
        description="The longest that a message is handed out for in one go. Default: 5 min.",
        json_schema_extra={"default": "5 min"},
    )
    time: Place | None = Field(
        None,
        description="Where a message says its own time (RFC 3339). Then one that is older than `keep`, or of the "
        "future, is refused.",
    )
    fields: Places = Field(
        (), description="What of a message is let through, such as `[/line, /parts/*/count]`. Default: all."
    )
    others: Annotated[Literal["refuse", "drop"], *choice("refuse", "drop")] = Field(
        "refuse", description="What happens to the fields that `fields` does not name."
    )
    set: dict[Place, Constant] = Field(
        {},
        description="Constants that are put into each message, whatever it says there: `{/site: riverside}`. What "
        "reads as a number, true, false or nothing is that; `'\"007\"'` is a text.",
    )
    limits: dict[Place, ValueLimit] = Field(
        {}, description="Bounds on values, by place: `{/good: {min: 0, max: 10000}}`."
    )
    release: Annotated[Literal["one", "two"], *choice("one", "two")] = Field(
        "one", description="How many people it takes to release a message from quarantine."
    )
    alarm_oldest: Annotated[int, *span(1, 365 * DAY)] = Field(
        3600,
        description="An alarm once a message has waited so long. Default: 1 h.",
        json_schema_extra={"default": "1 h"},
    )
    alarm_silent: Annotated[int, *span(1, 365 * DAY)] = Field(
        3600,
        description="An alarm once somebody for whom messages wait has not asked for so long. Default: 1 h.",
        json_schema_extra={"default": "1 h"},
    )

    @property
    def kind(self) -> Literal["json", "xml"]:
        """What messages are."""
        return self.form or ("xml" if (self.schema_file or "").endswith(".xsd") else "json")


def _slot(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,49}", raw):
        return raw
    raise syntax.Expected("a name of small letters, digits and _, of at most 50 characters")


def _row_verb(raw: Any) -> str:
    if raw in ("insert", "update"):
        return str(raw)
    raise syntax.Expected("insert or update")


_ROW_VERBS: Final = {"enum": ["insert", "update"]}


class ChangesSaid(notations.Entry):
    """A table of the site's own, which stays as it is: each row that is inserted is a message of this channel. The
    relay reads it by way of the database's log (logical decoding)."""

    table: TableName = Field(description="The table, as SCHEMA.TABLE. A message has a member for each of its columns.")
    on: Annotated[
        tuple[Annotated[str, *read_by(_row_verb, _ROW_VERBS)], ...],
        BeforeValidator(one_or_more),
        one_or_list(_ROW_VERBS),
    ] = Field(("insert",), description="What makes a row a message: `insert`, `[insert, update]`.")
    slot: Annotated[str, *read_by(_slot, {"type": "string", "pattern": "^[a-z][a-z0-9_]{0,49}$"})] | None = Field(
        None,
        description="The name of the replication slot and of the publication. Default: cofferdam_CHANNEL. Another one "
        "begins with what is inserted from then on.",
    )


def slot_name(channel: str, said: ChangesSaid) -> str:
    """The name of a replication slot, also where the policy has none for it."""
    return said.slot or re.sub(r"[^a-z0-9_]", "_", f"cofferdam_{channel}".lower())[:50]


class TablesSaid(notations.Entry):
    """A PostgreSQL database of the zone, whose tables are a way in and out: `cofferdam relay tables sql` prints them.
    The relay connects to it, and to nothing else there."""

    at: notations.Endpoint = Field(description="ADDRESS:PORT of the database in the zone: `10.1.0.20:5432`.")
    database: Identifier = Field(description="The database's name.")
    role: Identifier = Field("cofferdam_relay", description="The role that the relay logs in as.")
    password: Name | None = Field(
        None,
        description="The name of the role's password; `cofferdam relay password NAME` brings it in. Default: the "
        "zone's name.",
    )
    plain: Annotated[bool, *YES_NO] = Field(
        False, description="Without TLS: messages can be read on the way, and nothing shows that it is this database."
    )
    outbox: TableName = Field("cofferdam.outbox", description="The table whose rows are pushed, as SCHEMA.TABLE.")
    inbox: TableName = Field("cofferdam.inbox", description="The table that messages are written into.")
    position: TableName = Field(
        "cofferdam.position", description="The table that says which messages have been written into the inbox."
    )
    changes: dict[Name, ChangesSaid] = Field(
        {}, description="Tables of the site's own whose rows are pushed, by channel: instead of the outbox for these."
    )


def _id(raw: Any) -> str:
    if raw in ("name", "content") or (isinstance(raw, str) and raw and len(raw) <= 256 and _POINTER.match(raw)):
        return str(raw)
    raise syntax.Expected("name, content, or the place of a message's own id, such as /id")


def _delimiter(raw: Any) -> str:
    found = {"tab": "\t"}.get(raw, raw)
    if isinstance(found, str) and len(found) == 1 and found in ",;\t|:":
        return found
    raise syntax.Expected('one of "," ";" "|" ":" and tab')


class FolderSaid(notations.Entry):
    """A folder of the site's by which the messages of a channel come into the relay, or leave it: files that are left
    in it, or that are fetched from it. Taken files go to `done`, refused ones to `bad` with a `.reason` beside them."""

    folder: Annotated[str, *read_by(_folder, {"type": "string", "pattern": FOLDER_NAME})] | None = Field(
        None,
        description="Its name beneath the directory of the site's folders (`cofferdam up --folders`). Default: the "
        "zone's name and the channel's: `control-counts`.",
    )
    form: Annotated[Literal["json", "xml", "lines", "csv"], *choice("json", "xml", "lines", "csv")] | None = Field(
        None,
        description="What files hold: one message (`json`, `xml`), or one in each line (`lines`) or row (`csv`; the "
        "first row names the fields). Default: what the channel's messages are. Files that go out hold one message.",
    )
    settle: Annotated[int, *span(0, 3600)] = Field(
        2,
        description="How long a file stands unchanged before it is taken; `0 s` where files are renamed in whole. "
        "Names that begin with a dot or end in .tmp or .part are left alone. Default: 2 s.",
        json_schema_extra={"default": "2 s"},
    )
    id: Annotated[str, *read_by(_id, {"type": "string", "examples": ["name", "content", "/id"]})] = Field(
        "name",
        description="What tells a message from another: `name`, the file's name (and the row's number), `content`, or "
        "the place of an id in it (`/id`). The same id again is the same message. Default: name.",
    )
    delimiter: Annotated[str, *read_by(_delimiter, {"type": "string", "examples": [";", "tab"]})] = Field(
        ",", description="What stands between the cells of CSV."
    )
    decimal: Annotated[Literal[".", ","], *choice(".", ",")] = Field(
        ".", description="The decimal mark of numbers in CSV."
    )
    columns: dict[
        Text,
        Annotated[Literal["text", "integer", "number", "boolean"], *choice("text", "integer", "number", "boolean")],
    ] = Field({}, description="What the columns of CSV are: `{good: integer}`. Those that are not named are text.")
    keep_files: Annotated[int, *span(0, 10 * syntax.YEAR_SECONDS)] = Field(
        30 * DAY,
        description="How long files stay in `done`; `0 s`: for ever. Default: 30 days.",
        json_schema_extra={"default": "30 days"},
    )


def _subject(raw: Any) -> str:
    if isinstance(raw, str) and "{channel}" in raw and _SUBJECT.match(raw):
        return raw
    raise syntax.Expected("a subject with {channel} in it, such as plant.{channel}")


def _stream(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", raw):
        return raw
    raise syntax.Expected("the name of a stream, such as PLANT")


class NatsSaid(notations.Entry):
    """The site's NATS JetStream, to which channels are published. The stream is the site's: it takes the subjects, and
    has retention by limits."""

    at: Annotated[tuple[notations.Endpoint, ...], BeforeValidator(one_or_more)] = Field(
        description="ADDRESS:PORT of the hub in the zone, or a list of its servers, tried in this order."
    )
    stream: Annotated[str, *read_by(_stream, {"type": "string", "examples": ["PLANT"]})] = Field(
        description="The stream that messages are published to."
    )
    subject: Annotated[str, *read_by(_subject, {"type": "string", "examples": ["plant.{channel}"]})] = Field(
        "cofferdam.{channel}", description="The subject of a channel's messages, with `{channel}` in it."
    )
    user: Identifier | None = Field(None, description="The user that the relay logs in as. Default: none.")
    password: Name | None = Field(
        None,
        description="The name of the user's password; `cofferdam relay password NAME` brings it in. Default: the "
        "zone's name.",
    )
    plain: Annotated[bool, *YES_NO] = Field(
        False, description="Without TLS: messages can be read on the way, and nothing shows that it is this hub."
    )
    authority: FileName | None = Field(
        None, description="The authority that has signed the hub's certificate, a PEM file beside the policy."
    )
    name: Text | None = Field(None, description="The DNS name in the hub's certificate. Default: its address.")


def folder_name(zone: str, channel: str, said: FolderSaid) -> str:
    """The name of a folder, also where the policy has none for it."""
    return said.folder or f"{zone}-{channel}".lower()[:64]


class RelayRule(schema.Rule):
    """One line of a relay's `allow`: who pushes, pulls or browses which channels."""

    who: Names = Field(description="The principal, or a list of them.")
    push: Names = Field((), description="Channels that they may push messages to: principals of the zone `from`.")
    pull: Names = Field(
        (),
        description="Channels that they may pull messages from: principals of the zone `to`. Each has a place of its "
        "own in the channel, so that all get all.",
    )
    browse: Names = Field((), description="Channels in which they may read without taking.")
    via: Annotated[str, *choice(HTTP, TABLE, FOLDER, NATS, *COMING)] = Field(
        HTTP,
        description="By which way: `http`, `table` (one principal a channel, and `tables` for its zone), `folder` "
        "(the same, and `folders`), or `nats` (pulls alone, in the less trusted zone, and `nats` for it).",
    )

    @property
    def principals(self) -> tuple[str, ...]:
        return self.who

    @property
    def changes(self) -> bool:
        return bool(self.push)


class RelayConduit(schema.Conduit):
    """The relay hands messages from one side to the other: each is checked, numbered and kept before it is
    acknowledged, and handed out until it is done. Messages go from `from` to `to`; whoever pulls begins a session of
    its own, and no session crosses. It has no assets. A conduit that a diode `carries` has a keeper on each machine:
    each message goes from the one inside to the one outside, and nothing comes back."""

    may_ride: ClassVar[bool] = True
    channels: dict[Name, ChannelSaid] = Field(description="The channels, by name.")
    listen: dict[Name, DoorSaid] = Field({}, description="Where the relay answers HTTP, by zone.")
    tables: dict[Name, TablesSaid] = Field(
        {}, description="Databases with an outbox and an inbox for those who push and pull `via: table`, by zone."
    )
    folders: dict[Name, dict[Name, FolderSaid]] = Field(
        {}, description="Folders for those who push and pull `via: folder`, by zone and channel."
    )
    nats: dict[Name, NatsSaid] = Field(
        {}, description="The site's NATS JetStream for those who pull `via: nats`, by zone."
    )
    allow: Annotated[tuple[RelayRule, ...], BeforeValidator(as_list)] = Field(
        description="The rules: who pushes, who pulls, who may look."
    )
