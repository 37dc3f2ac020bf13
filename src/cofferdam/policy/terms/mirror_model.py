"""The words of the historian mirror in the policy file.

Not here: what they mean (mirror), the rows (mirror_rows).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field

from cofferdam.limits import FOLDER_NAME
from cofferdam.policy import notations, schema, syntax, zones
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
from cofferdam.policy.notations import Name, Names
from cofferdam.policy.problems import nearest
from cofferdam.policy.terms.door_words import DoorSaid
from cofferdam.policy.terms.mirror_rows import EVERYTHING, SINCE_1970, TAG_CHARACTERS, tag_name

ALL: Final = "all"
DAY: Final = 86_400
YEAR: Final = syntax.YEAR_SECONDS
_PATTERN: Final = re.compile(r"(?=.*%)(?:%[YmdHMSfzyj]|[ ./:,T_-]|[0-9])+\Z")
_OFFSET: Final = re.compile(r"(?:UTC|Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])\Z")
_TABLE: Final = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}\Z")


def _pattern(raw: Any) -> str:
    if raw == ALL:
        return EVERYTHING
    if isinstance(raw, str) and 0 < len(raw) <= TAG_CHARACTERS and raw.isprintable() and raw.strip() == raw:
        return raw
    raise syntax.Expected("a tag's name, with * for anything, such as flow_*, or `all`")


def _column(raw: Any) -> str:
    if isinstance(raw, str) and 0 < len(raw.encode()) <= 63 and raw.isprintable() and raw.strip() == raw:
        return raw
    raise syntax.Expected("a name as PostgreSQL has it, of at most 63 bytes")


def _table(raw: Any) -> str:
    if isinstance(raw, str) and _TABLE.match(raw):
        return raw if "." in raw else f"public.{raw}"
    raise syntax.Expected("a table as SCHEMA.TABLE, such as public.samples")


def _query(raw: Any) -> str:
    text = syntax.text(raw).rstrip(";").strip()
    if ";" in text or "\0" in text or not re.match(r"(?i)(select|with)\b", text):
        raise syntax.Expected("one query that begins with SELECT or WITH")
    return text


def _every(raw: Any) -> int:
    found = syntax.milliseconds(raw)
    if not 100 <= found <= DAY * 1000:
        raise syntax.Expected("a time from 100 ms to 1 d")
    return found


def _resolution(raw: Any) -> int:
    return syntax.long_span(raw, 1, 366 * DAY)


PATTERN: Final = {"type": "string", "examples": ["tank_level", "flow_*", "all"]}
Pattern = Annotated[str, *read_by(_pattern, PATTERN)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(one_or_more), one_or_list(PATTERN)]
Column = Annotated[str, *read_by(_column, {"type": "string", "examples": ["time"]})]
Table = Annotated[str, *read_by(_table, {"type": "string", "pattern": _TABLE.pattern.replace("\\Z", "$")})]
Query = Annotated[str, *read_by(_query, {"type": "string", "examples": ["SELECT tag, time, value FROM samples"]})]


def _folder(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(FOLDER_NAME, raw):
        return raw
    raise syntax.Expected("a name of small letters, digits, dots, - and _, such as lab-results")


def _tag(raw: Any) -> str:
    if isinstance(raw, str) and tag_name(raw):
        return raw
    raise syntax.Expected(f"a tag's name, of at most {TAG_CHARACTERS} characters")


def _delimiter(raw: Any) -> str:
    found = {"tab": "\t"}.get(raw, raw)
    if isinstance(found, str) and len(found) == 1 and found in ",;\t|":
        return found
    raise syntax.Expected('one of "," ";" "|" and tab')


def _times(raw: Any) -> str:
    if isinstance(raw, str) and (raw in ("iso", *SINCE_1970) or (len(raw) <= 64 and _PATTERN.match(raw))):
        return raw
    raise syntax.Expected("iso, s, ms, us, ns, or a pattern such as %d.%m.%Y %H:%M:%S (%Y %m %d %H %M %S %f %z %y %j)")


def _zone(raw: Any) -> str:
    text = syntax.text(raw)
    if _OFFSET.match(text) or text in zones.zone_names():
        return text
    raise syntax.Expected(
        "a time zone, such as Europe/Berlin, or an offset, such as +01:00", nearest(text, zones.zone_names())
    )


class SourceSaid(notations.Entry):
    """Where samples come from: a historian in PostgreSQL (`at`), points of an asset (`asset`), or files that are left
    in a folder (`folder`)."""

    at: notations.Endpoint | None = Field(
        None, description="ADDRESS:PORT of a PostgreSQL (or TimescaleDB) in the zone `from`: `10.2.0.5:5432`."
    )
    database: Column | None = Field(None, description="With `at`: the database's name.")
    role: Column = Field("cofferdam_mirror", description="With `at`: the role that the mirror logs in as.")
    password: Name | None = Field(
        None,
        description="With `at`: the name of the role's password; `cofferdam mirror password NAME` brings it in. "
        "Default: the source's name.",
    )
    plain: Annotated[bool, *YES_NO] = Field(False, description="With `at`: without TLS.")
    table: Table | None = Field(None, description="With `at`: the table that is read, as SCHEMA.TABLE.")
    query: Query | None = Field(None, description="With `at`, instead: a query that gives the columns.")
    tag: Column = Field("tag", description="The column with the tag's name.")
    time: Column = Field("time", description="The column with the source's time (`timestamptz`).")
    value: Column = Field("value", description="The column with the value.")
    quality: Column | None = Field(None, description="The column with the raw quality, whole. Default: none, all good.")
    qualities: Annotated[Literal["opc-da", "opc-ua", "none"], *choice("opc-da", "opc-ua", "none")] | None = Field(
        None,
        description="With `quality`: what the numbers in it mean. `opc-da`: 192 is good, 64 uncertain, 0 (and NULL) "
        "bad; `opc-ua`: a StatusCode, of which 0 is good; `none`: nothing, what has a value is good. They are kept raw "
        "all the same. Default: above 65535 as in OPC UA, below as in OPC DA, and 0 is good.",
    )
    server: Column | None = Field(None, description="The column with the historian's own time. Default: none.")
    overlap: Annotated[int, *span(0, 7 * DAY)] = Field(
        600,
        description="With `at`: how far behind the newest sample each reading begins, for what is committed late. "
        "Default: 10 min.",
        json_schema_extra={"default": "10 min"},
    )
    since: Annotated[int, *span(0, 30 * YEAR)] = Field(
        30 * DAY,
        description="With `at`: how far back the very first reading goes. Default: 30 days.",
        json_schema_extra={"default": "30 days"},
    )
    rows_per_second: Annotated[int, *whole(1, 10_000_000)] | None = Field(
        None, description="With `at`: ask for no more rows a second than that. Default: as fast as they come."
    )
    asset: Name | None = Field(
        None,
        description="An asset of the zone `from`, by Modbus or OPC UA (which is watched, under the keys of "
        "`security:`; `cofferdam pki` brings them); a tag is then ASSET.POINT.",
    )
    points: Names = Field((), description="With `asset`: its points that are read. Default: all.")
    folder: Annotated[str, *read_by(_folder, {"type": "string", "pattern": FOLDER_NAME})] | None = Field(
        None,
        description="A folder in which files are left: its name beneath the directory of the site's folders "
        "(`cofferdam up --folders`). Files that were taken go to `done`, refused ones to `bad` with a `.reason`.",
    )
    form: Annotated[Literal["csv", "parquet"], *choice("csv", "parquet")] = Field(
        "csv", description="With `folder`: what its files are. The first row of CSV names the columns."
    )
    wide: Annotated[bool, *YES_NO] = Field(
        False, description="With `folder`: each column but that of the time is a tag, and named like it."
    )
    of: Annotated[str, *read_by(_tag, {"type": "string", "examples": ["tank_level"]})] | None = Field(
        None, description="With `folder`: there is no column of tags; all samples are of this one."
    )
    delimiter: Annotated[str, *read_by(_delimiter, {"type": "string", "examples": [";", "tab"]})] = Field(
        ",", description="With `form: csv`: what stands between the cells."
    )
    decimal: Annotated[Literal[".", ","], *choice(".", ",")] = Field(
        ".", description="With `form: csv`: the decimal mark of numbers."
    )
    encoding: Annotated[Literal["utf-8", "latin-1", "cp1252"], *choice("utf-8", "latin-1", "cp1252")] = Field(
        "utf-8", description="With `form: csv`: how texts are encoded."
    )
    times: Annotated[str, *read_by(_times, {"type": "string", "examples": ["iso", "ms", "%d.%m.%Y %H:%M:%S"]})] = Field(
        "iso",
        description="With `form: csv`: how times are written: `iso` (`2027-03-01T12:00:00.5+01:00`), `s`, `ms`, `us`, "
        "`ns` since 1970, or a pattern such as `%d.%m.%Y %H:%M:%S`.",
    )
    zone: Annotated[str, *read_by(_zone, {"type": "string", "examples": ["Europe/Berlin", "+01:00"]})] | None = Field(
        None,
        description="With `folder`: the time zone of times without an offset: a name such as Europe/Berlin, or an "
        "offset. Of a zone with summer time, a time that comes twice in autumn, or not at all in spring, is refused. "
        "Default: a time without an offset is refused.",
    )
    type: Annotated[Literal["number", "integer", "bool", "text"], *choice("number", "integer", "bool", "text")] = Field(
        "number", description="With `form: csv`: what values are."
    )
    settle: Annotated[int, *span(0, 3600)] = Field(
        2,
        description="With `folder`: how long a file stands unchanged before it is taken; `0 s` where files are renamed "
        "in whole. Default: 2 s.",
        json_schema_extra={"default": "2 s"},
    )
    keep_files: Annotated[int, *span(0, 10 * YEAR)] = Field(
        30 * DAY,
        description="With `folder`: how long files stay in `done`; `0 s`: for ever. Default: 30 days.",
        json_schema_extra={"default": "30 days"},
    )
    tags: Patterns = Field(
        (EVERYTHING,),
        description="Which tags are mirrored, by name, with `*` for anything. Default: all, or those of `list`.",
    )
    tag_list: FileName | None = Field(
        None,
        alias="list",
        description="An engineer's list of tags, a CSV file beside the policy with the columns `tag`, `unit` and "
        "`description`: these tags are mirrored as well as those of `tags`, and readers see what it says of them.",
    )
    every: Annotated[int, *read_by(_every, notations.DURATION)] = Field(
        10_000, description="How often it is read. Default: 10 s.", json_schema_extra={"default": "10 s"}
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of at, asset, folder, those that it says."""
        return tuple(name for name in ("at", "asset", "folder") if getattr(self, name) is not None)


class CopySaid(notations.Entry):
    """A PostgreSQL of the site's, in the readers' zone, that history is copied into for tools which speak to it."""

    at: notations.Endpoint = Field(description="Its ADDRESS:PORT in the zone `to`: `10.1.0.40:5432`.")
    database: Column = Field(description="The database's name.")
    role: Column = Field("cofferdam_loader", description="The role that writes there. It owns a schema `cofferdam`.")
    password: Name = Field(
        "postgresql", description="The name of the role's password; `cofferdam mirror password NAME` brings it in."
    )
    plain: Annotated[bool, *YES_NO] = Field(False, description="Without TLS: whoever is on the wire can read it.")


def _bucket(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", raw):
        return raw
    raise syntax.Expected("a bucket's name: 3 to 63 small letters, digits, dots and -")


def _path(raw: Any) -> str:
    if isinstance(raw, str) and len(raw) <= 200 and re.fullmatch(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", raw):
        return raw
    raise syntax.Expected("a path of letters, digits, - and _, such as plant/history")


def _word(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[A-Za-z0-9._/+=-]{1,128}", raw):
        return raw
    raise syntax.Expected("a word of letters and digits")


Word = Annotated[str, *read_by(_word, {"type": "string", "examples": ["us-east-1"]})]


class PublishSaid(notations.Entry):
    """An object store (S3, MinIO, Ceph) in the readers' zone, in which what is sealed is published as an Apache Iceberg
    table, for engines that read such tables."""

    at: notations.Endpoint = Field(description="Its ADDRESS:PORT in the zone `to`: `10.1.0.50:9000`.")
    bucket: Annotated[str, *read_by(_bucket, {"type": "string", "examples": ["history"]})] = Field(
        description="The bucket, which is there already."
    )
    path: Annotated[str, *read_by(_path, {"type": "string", "examples": ["plant/history"]})] = Field(
        "cofferdam/history", description="Where the table lies in it. Nobody else may write there."
    )
    key: Word = Field(description="The id of the access key.")
    password: Name = Field("s3", description="The name of its secret; `cofferdam mirror password NAME` brings it in.")
    region: Word = Field("us-east-1", description="The region that requests are signed for.")
    host: notations.Text | None = Field(
        None, description="The name in its certificate, which is asked for as well. Default: its address."
    )
    authority: FileName | None = Field(
        None, description="A file beside the policy (PEM): whose certificates are taken. Needed, unless `plain`."
    )
    plain: Annotated[bool, *YES_NO] = Field(False, description="Without TLS: whoever is on the wire can read it.")


class MirrorSaid(notations.Entry):
    """What is kept, and how."""

    keep: Annotated[int, *span(3600, 100 * YEAR)] = Field(
        5 * YEAR,
        description="How long samples stay. Default: 5 years.",
        json_schema_extra={"default": "5 years"},
    )
    most: Annotated[int, *size(10_000_000, 10**14)] = Field(
        50 * 10**9,
        description="Room for all that is kept; the oldest goes first, with an entry. Default: 50 GB.",
        json_schema_extra={"default": "50 GB"},
    )
    spool: Annotated[int, *size(10_000_000, 10**13)] = Field(
        5 * 10**9,
        description="Room for what was read and is not in the store yet. Default: 5 GB.",
        json_schema_extra={"default": "5 GB"},
    )
    future: Annotated[int, *span(1, DAY)] = Field(
        600,
        description="How far ahead of the clock a sample's time may be; what is further is refused. Default: 10 min.",
        json_schema_extra={"default": "10 min"},
    )
    store: Annotated[Literal["embedded", "postgresql"], *choice("embedded", "postgresql")] = Field(
        "embedded",
        description="Where it is kept: `embedded`, in files of Parquet beside the gate; `postgresql`: there, and in "
        "the database of `postgresql:` as well.",
    )
    postgresql: CopySaid | None = Field(None, description="With `store: postgresql`: where it is copied to.")
    publish: PublishSaid | None = Field(
        None, description="Where what is sealed is published as an Apache Iceberg table. Default: nowhere."
    )
    acks: Annotated[Literal["crossing", "none"], *choice("crossing", "none")] = Field(
        "crossing", description="`crossing`: the store tells the spool what it has. `none`: nothing ever goes back."
    )
    nightly: Annotated[bool, *YES_NO] = Field(
        True, description="Each night the day before is counted at the source, and what is missing is read again."
    )


class MirrorRule(schema.Rule):
    """One line of a mirror's `allow`: who may read which tags."""

    who: Names = Field(description="The principal of the zone `to`, or a list of them.")
    read: Patterns = Field(description="Tags, by name, with `*` for anything; or `all`.")
    resolution: Annotated[int, *read_by(_resolution, {"type": "string", "examples": ["1 min"]})] | None = Field(
        None, description="Nothing finer than aggregates over so long. Default: samples as they are."
    )
    sql: Annotated[bool, *YES_NO] = Field(
        False, description="Any SQL over all that is kept: only with `read: all`, and without `resolution`."
    )

    @property
    def principals(self) -> tuple[str, ...]:
        return self.who


class MirrorConduit(schema.Conduit):
    """The historian mirror: the plant's history, copied out whole, and read by anybody who may. It goes `from` the
    plant's zone `to` the readers'; readers reach the copy and never the plant, which opens no port for it."""

    may_ride: ClassVar[bool] = True
    sources: dict[Name, SourceSaid] = Field(description="Where samples come from, by name.")
    mirror: MirrorSaid = Field(default_factory=MirrorSaid.model_construct, description="What is kept, and how.")
    listen: dict[Name, DoorSaid] = Field({}, description="Where readers are answered by HTTP: the zone `to`.")
    allow: Annotated[tuple[MirrorRule, ...], BeforeValidator(as_list)] = Field(
        description="The rules: who reads which tags."
    )

    @property
    def assets(self) -> tuple[str, ...]:
        return tuple(said.asset for said in self.sources.values() if said.asset is not None)
