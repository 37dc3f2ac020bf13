"""A historian in PostgreSQL (or TimescaleDB) as a source: reading it by COPY, counting its hours.

Each reading is one `COPY (SELECT ...) TO STDOUT (FORMAT BINARY)` over a span of time, in the order of time. What a
column is, the database says; each is cast to one of the kinds that a sample may have, and a column that is none is
told of. A time has to have a zone (`timestamptz`): one without says nothing in the autumn hour.

Not here: when what is read (collector).
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import struct
import time
import zoneinfo
from array import array
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final, NamedTuple

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import AsyncConnection, sql

from cofferdam.brokers.mirror.columns import GOOD, HOUR_NS, NO_TIME, STORED, Summary, stored, summary, tidy, to_batch
from cofferdam.brokers.mirror.records import BOOL, FLOAT, TEXT, TEXT_BYTES, WHOLE, Lane, Samples
from cofferdam.policy.terms.mirror_rows import TAG_CHARACTERS, Copy, Matcher, Postgres, tag_name

EPOCH_NS: Final = 946_684_800_000_000_000
"""PostgreSQL counts from 2000."""
NAN_BITS: Final = 0x7FF8 << 48
UTC: Final = zoneinfo.ZoneInfo("UTC")
"""What psycopg wants of a connection whose time zone is UTC: loaded here, since a part opens no file later."""
INFINITE: Final = ((1 << 63) - 1, -(1 << 63))
BATCH_POINTS: Final = 10_000
SAME_TIME_MOST: Final = 1_000_000
"""Samples of one time, where values are compared."""
BAD: Final = 0x80000000
"""The quality of a sample without a value: OPC UA's Bad."""
CONNECT_SECONDS: Final = 10
STATEMENT_MS: Final = 300_000
TEXT_MOST: Final = TEXT_BYTES - 1024
NAME_MOST: Final = 4 * TAG_CHARACTERS + 4
"""Of a tag's name, so much is asked for: a longer one is none that is taken, whatever else there is of it."""
ROW_BYTES: Final = 4 << 20
"""Of one row. No honest database sends more, since longer values stay there."""
EARLIEST_NS, LATEST_NS = -(1 << 63) + 1, (1 << 63) - 1

# A reading that is ended in mid transaction closes its connection: that no ROLLBACK went out is nobody's concern.
logging.getLogger("psycopg").setLevel(logging.ERROR)
_KINDS: Final = {
    "float4": (FLOAT, "float8"), "float8": (FLOAT, "float8"), "numeric": (FLOAT, "float8"), "int2": (WHOLE, "int8"),
    "int4": (WHOLE, "int8"), "int8": (WHOLE, "int8"), "bool": (BOOL, "bool"), "text": (TEXT, "text"),
    "varchar": (TEXT, "text"), "bpchar": (TEXT, "text"),
}  # fmt: skip
_TEXTS: Final = ("text", "varchar", "bpchar", "name", "uuid", "int2", "int4", "int8")
_WHOLES: Final = ("int2", "int4", "int8")
_SETTINGS: Final = (
    "SELECT pg_catalog.set_config('statement_timeout', %s, false), pg_catalog.set_config('search_path', '', false),"
    " pg_catalog.set_config('default_transaction_read_only', 'on', false)"
)


class Differs(Exception):
    """The source is not as the policy has it."""


class Fault(NamedTuple):
    """A row that is not taken, and why."""

    tag: str
    fault: str
    detail: str


class Reading:
    """What one reading has come to: rows, times, and what was not taken."""

    def __init__(self) -> None:
        self.rows = 0
        self.latest_ns = NO_TIME
        self.faults: dict[str, tuple[int, Fault]] = {}

    def fault(self, found: Fault) -> None:
        """Faults of one kind are told together."""
        count, first = self.faults.get(found.fault, (0, found))
        self.faults[found.fault] = (count + 1, first)


class Historian:
    """One source, connected."""

    def __init__(self, source: Postgres, conn: AsyncConnection[Any]) -> None:
        self.source = source
        self._conn = conn
        self._match = Matcher(source.tags)
        self._kind = FLOAT
        self._plain = False
        """Whether a value is eight bytes."""
        self._select: sql.Composable = sql.SQL("")
        self._from: sql.Composable = sql.SQL("")
        self._known: dict[bytes, str | None] = {}
        self._looking: sql.Composed = sql.Composed([])
        self._types: list[int] = []

    @property
    def columns(self) -> list[str]:
        """The names that are asked for."""
        one = self.source
        return [name for name in (one.tag, one.time, one.value, one.quality, one.server) if name]

    async def look(self) -> None:
        """Finds out what its columns are. Raises: Differs, psycopg.Error."""
        one = self.source
        if one.query:
            self._from = sql.SQL("({}) AS source").format(sql.SQL(one.query))
        else:
            schema, _, table = one.table.partition(".")
            self._from = sql.Identifier(schema, table)
        names = sql.SQL(", ").join(sql.Identifier(name) for name in self.columns)
        self._looking = sql.SQL("SELECT {} FROM {} LIMIT 0").format(names, self._from)
        oids = self._types = await self._look()
        types = {}
        rows = await self._conn.execute("SELECT oid, typname FROM pg_catalog.pg_type WHERE oid = ANY(%s)", (oids,))
        for oid, name in await rows.fetchall():
            types[oid] = _text(name)
        is_ = dict(zip(self.columns, [types.get(oid, "?") for oid in oids], strict=True))
        if is_[one.tag] not in _TEXTS:
            raise Differs(f"the column {one.tag} is {is_[one.tag]}, and a tag's name is text")
        for name in filter(None, (one.time, one.server)):
            if is_[name] != "timestamptz":
                hint = ": one without a zone says nothing in the autumn hour" if is_[name] == "timestamp" else ""
                raise Differs(f"the column {name} is {is_[name]}, and a time is timestamptz{hint}")
        if is_[one.value] not in _KINDS:
            raise Differs(f"the column {one.value} is {is_[one.value]}, and a value is a number, a bool or a text")
        if one.quality and is_[one.quality] not in _WHOLES:
            raise Differs(f"the column {one.quality} is {is_[one.quality]}, and a quality is a whole number")
        self._kind, cast = _KINDS[is_[one.value]]
        self._plain = self._kind in (FLOAT, WHOLE)
        value: sql.Composable = sql.SQL("{}::{}").format(sql.Identifier(one.value), sql.SQL(cast))
        long: sql.Composable = sql.SQL("NULL::int8")
        if self._kind == TEXT:  # what is too long stays in the database, and its length is told
            size = sql.SQL("pg_catalog.octet_length({})").format(value)
            value = sql.SQL("CASE WHEN {} <= {} THEN {} END").format(size, sql.Literal(TEXT_MOST), value)
            long = sql.SQL("CASE WHEN {} > {} THEN {}::int8 END").format(size, sql.Literal(TEXT_MOST), size)
        parts = [
            sql.SQL("pg_catalog.left({}::text, {})").format(sql.Identifier(one.tag), sql.Literal(NAME_MOST)),
            sql.Identifier(one.time),
            value,
        ]
        parts.append(sql.SQL("{}::int8").format(sql.Identifier(one.quality)) if one.quality else sql.SQL("NULL::int8"))
        parts.append(sql.Identifier(one.server) if one.server else sql.SQL("NULL::timestamptz"))
        parts.append(long)
        self._select = sql.SQL(", ").join(parts)

    async def _look(self) -> list[int]:
        found = await self._conn.execute(self._looking)
        return [column.type_code for column in found.description or ()]

    async def read(
        self, since_ns: int, until_ns: int, lane: Lane, reading: Reading, seen: Seen | None = None,
        now_ns: int = LATEST_NS,
    ) -> AsyncIterator[Samples]:  # fmt: skip
        """The samples after `since_ns` and up to `until_ns`, as records without numbers, in the order of time; each
        says up to when all has been read: what is ahead of the clock (`now_ns`) says nothing of that, for it must not
        hide what comes on time, and is written a little later. Raises: psycopg.Error, Differs.

        In one transaction it looks at the columns and reads them: a column that has become a float meanwhile would be
        rounded by the cast of this reading."""
        rows = _Rows(self.source.name, lane, self._kind, since_ns, now_ns)
        when = sql.Identifier(self.source.time)
        command = sql.SQL("COPY (SELECT {} FROM {} WHERE {} > {} AND {} <= {} ORDER BY {}) TO STDOUT (FORMAT BINARY)")
        low, high = _moment(since_ns), _moment(until_ns)
        statement = command.format(self._select, self._from, when, low, when, high, when)
        begun = False
        together = _Together(rows, seen)
        async with self._conn.transaction(), self._conn.cursor() as cursor:
            if await self._look() != self._types:
                raise Differs("its columns are of other types than they were")
            async with cursor.copy(statement) as copy:
                async for data in copy:
                    if len(data) > ROW_BYTES:
                        raise Differs(f"a row of {len(data)} bytes; at most {ROW_BYTES} are read")
                    try:  # no context manager: this is for each row
                        self._rows_of(bytes(data), together, reading, begun=begun)
                    except MEANT_NO_ROW as error:
                        raise no_copy(error) from None
                    begun = True
                    if rows.count >= BATCH_POINTS or rows.text_bytes > TEXT_BYTES // 2:
                        yield rows.take(rows.before)
        try:
            together.end()
        except MEANT_NO_ROW as error:
            raise no_copy(error) from None
        yield rows.take(max(rows.latest, since_ns))

    def _rows_of(self, row: bytes, together: _Together, reading: Reading, *, begun: bool) -> None:
        """Takes what came in one piece."""
        at = 0 if begun else 19 + struct.unpack_from(">i", row, 15)[0]
        while at + 2 <= len(row) and row[at : at + 2] != b"\xff\xff":
            at = self._row(row, at + 2, together, reading)

    def _row(self, row: bytes, at: int, together: _Together, reading: Reading) -> int:
        """One row; where the next one begins. As most rows are (a tag, a time, a number, a quality, no other time), it
        is taken apart in one piece."""
        length: int = _LENGTH(row, at)[0]
        end = at + 4 + length
        if self._plain and length >= 0 and len(row) >= end + _PLAIN.size:
            a, us, b, bits, c, raw, d, e = _PLAIN.unpack_from(row, end)
            if a == b == c == 8 and d == e == -1:
                name = row[at + 4 : end]
                tag = self._known[name] if name in self._known else self._tag(name, reading)
                ns = us * 1000 + EPOCH_NS
                if tag is None or EARLIEST_NS < ns < LATEST_NS:
                    reading.rows += 1
                    if tag is not None:
                        reading.latest_ns = max(reading.latest_ns, ns)
                        together.add(ns, tag, bits, raw, None)
                    return end + _PLAIN.size
        return self._odd_row(row, at, together, reading)

    def _odd_row(self, row: bytes, at: int, together: _Together, reading: Reading) -> int:
        fields: list[bytes | None] = []
        for _ in range(6):
            (length,) = _LENGTH(row, at)
            at += 4
            fields.append(None if length < 0 else row[at : at + length])
            at += max(0, length)
        reading.rows += 1
        name, when, value, quality, server, long = fields
        tag = self._tag(name, reading)
        if tag is None or when is None:
            if when is None:
                reading.fault(Fault(tag or "?", "time", "a sample without a time"))
            return at
        us = int.from_bytes(when, "big", signed=True)
        ns = us * 1000 + EPOCH_NS
        if us in INFINITE or not EARLIEST_NS < ns < LATEST_NS:
            reading.fault(Fault(tag, "time", f"a time that has no place: {us} µs from 2000"))
            return at
        reading.latest_ns = max(reading.latest_ns, ns)
        raw = int.from_bytes(quality, "big", signed=True) if quality is not None else None
        if self._kind == TEXT:
            if wrong := _wrong(value, long):
                moment = _EPOCH + datetime.timedelta(microseconds=ns // 1000)
                reading.fault(Fault(tag, "value", f"{wrong}, at {moment}"))
                together.at(ns)
                return at
            together.add(ns, tag, value, raw, server)
        elif value is None or len(value) == 8:
            together.add(ns, tag, None if value is None else int.from_bytes(value, "big", signed=True), raw, server)
        else:
            together.add(ns, tag, value[0], raw, server)
        return at

    def _tag(self, name: bytes | None, reading: Reading) -> str | None:
        """Its name, where the mirror has it."""
        if name is None:
            reading.fault(Fault("", "tag", "a sample without a tag"))
            return None
        if name in self._known:
            return self._known[name]
        text = _text(name)
        found: str | None = text if self._match(text) else None
        if found is not None and not tag_name(text):  # what is no UTF-8 is no printable text either
            reading.fault(Fault(text[:200], "tag", "a tag that cannot be called so"))
            found = None
        if len(self._known) < 200_000:
            self._known[name] = found
        return found

    async def count(self, hour: int) -> dict[str, int]:
        """By tag: samples of different times within an hour since 1970. Raises: psycopg.Error."""
        one = self.source
        statement = sql.SQL(
            "SELECT {}::text, count(DISTINCT {}) FROM {} WHERE {} >= {} AND {} < {} GROUP BY 1"
        ).format(
            sql.Identifier(one.tag), sql.Identifier(one.time), self._from, sql.Identifier(one.time),
            _moment(hour * 3_600 * 10**9), sql.Identifier(one.time),
            _moment((hour + 1) * 3_600 * 10**9),
        )  # fmt: skip
        found = await (await self._conn.execute(statement)).fetchall()
        names = [("" if tag is None else _text(tag), count) for tag, count in found]
        return {tag: count for tag, count in names if tag_name(tag) and self._match(tag)}

    async def values(self, hour: int, rate: int) -> dict[str, Summary]:
        """By tag: what there is of an hour since 1970, exact repetitions once. `rate`: rows a second at most; 0: any.
        Raises: psycopg.Error, Differs."""
        began, reading, found = time.monotonic(), Reading(), dict[str, Summary]()
        rest = STORED.empty_table()
        since = hour * HOUR_NS - 1000
        async for record in self.read(since, since + HOUR_NS, "backfill", reading):
            if not record.count:
                continue
            table = pa.concat_tables([rest, stored([(1, to_batch(record))])])
            last = pc.equal(table["time"], table["time"][-1])  # in the order of time: of the last there may be more
            _add(found, tidy(table.filter(pc.invert(last))))
            rest = table.filter(last)
            if rest.num_rows > SAME_TIME_MOST:
                raise Differs(f"more than {SAME_TIME_MOST} samples of one time")
            if rate and (ahead := reading.rows / rate - (time.monotonic() - began)) > 0:
                await asyncio.sleep(ahead)
        _add(found, tidy(rest))
        return found

    async def ahead(self, after_ns: int) -> tuple[int, str]:
        """How many samples are of later than this, and the tag of one. Raises: psycopg.Error."""
        one = self.source
        statement = sql.SQL("SELECT count(*), min({}::text) FROM {} WHERE {} > {}").format(
            sql.Identifier(one.tag), self._from, sql.Identifier(one.time), _moment(after_ns)
        )
        row = await (await self._conn.execute(statement)).fetchone()
        return (int(row[0]), _text(row[1] or "")) if row else (0, "")

    async def following(self, after_ns: int, until_ns: int) -> int | None:
        """The time (UTC ns) of the first row after a time and up to another, of whatever tag; None: there is none.
        Raises: psycopg.Error."""
        when = sql.Identifier(self.source.time)
        statement = sql.SQL("SELECT {} FROM {} WHERE {} > {} AND {} <= {} ORDER BY 1 LIMIT 1").format(
            when, self._from, when, _moment(after_ns), when, _moment(until_ns)
        )
        row = await (await self._conn.execute(statement)).fetchone()
        if row is None:
            return None
        since: datetime.timedelta = row[0] - _EPOCH
        return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000

    async def close(self) -> None:
        await self._conn.close()


def _add(found: dict[str, Summary], table: pa.Table) -> None:
    """What a further piece of an hour has, of other times than all before it."""
    for tag, one in summary(table).items():
        had = found.get(tag, Summary(0, 0, 0))
        digest = (had.digest + one.digest + (1 << 63)) % (1 << 64) - (1 << 63)
        found[tag] = Summary(had.rows + one.rows, had.times + one.times, digest)


class Seen:
    """What has been read of the last while, so that a reading that overlaps the one before sends nothing twice. When
    there is too much to remember, it is forgotten, and the store finds the repetitions."""

    MOST: Final = 400_000

    def __init__(self, span_s: int) -> None:
        self._span_ns = max(1, span_s) * 10**9
        self._sets: dict[int, dict[int, int]] = {}
        self._count = 0

    def news(self, ns: int, marks: Iterable[tuple[str, int]]) -> list[bool]:
        """Of some tags, whether each has something else at this time than when it was last read."""
        if self._count >= self.MOST:
            self.forget(1 << 63)
        known = self._sets.setdefault(ns // self._span_ns, {})
        before, found = len(known), []
        for tag, mark in marks:
            key = hash((tag, ns))
            found.append(known.get(key) != mark)
            known[key] = mark
        self._count += len(known) - before
        return found

    def forget(self, before_ns: int) -> None:
        """What is older is not read again."""
        for key in [key for key in self._sets if (key + 1) * self._span_ns < before_ns]:
            self._count -= len(self._sets.pop(key))


Value = int | bytes | None
"""The eight bytes of a number as an int64, a bool, or a text."""


class _Together:
    """The rows of one time. What a tag has there is looked at as a whole: a value that was mended and mended back is
    sent again, and two rows of one time, which are always there, are not."""

    def __init__(self, rows: _Rows, seen: Seen | None) -> None:
        self._rows, self._seen = rows, seen
        self._ns = self._count = 0
        self._waiting: dict[str, list[tuple[Value, int | None, bytes | None]]] = {}

    def at(self, ns: int) -> None:
        """There are rows of this time; earlier ones have all been seen."""
        if ns != self._ns or self._count >= BATCH_POINTS:
            self.end()
            self._ns = ns
            self._rows.saw(ns)

    def add(self, ns: int, tag: str, value: Value, quality: int | None, server: bytes | None) -> None:
        """A row of a time that is the one before, or later."""
        if ns != self._ns or self._count >= BATCH_POINTS:
            self.at(ns)
        if tag in self._waiting:
            self._waiting[tag].append((value, quality, server))
        else:
            self._waiting[tag] = [(value, quality, server)]
        self._count += 1 if not isinstance(value, bytes) else 1 + len(value) // 64

    def end(self) -> None:
        """All rows of a time are there."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        if self._seen is not None:
            marks = [(tag, hash(found[0][:2] if len(found) == 1 else frozenset(one[:2] for one in found)))
                     for tag, found in waiting.items()]  # fmt: skip
            news = self._seen.news(self._ns, marks)
            waiting = {tag: found for (tag, found), new in zip(waiting.items(), news, strict=True) if new}
        for tag, found in waiting.items():
            for one in found:
                self._rows.add(tag, self._ns, *one)


class _Rows:
    """Columns that fill up."""

    def __init__(self, source: str, lane: Lane, kind: int, since_ns: int, now_ns: int) -> None:
        self._source, self._lane, self._kind = source, lane, kind
        self._now, self._on_time = now_ns, since_ns
        self.latest = NO_TIME
        self.before = -1
        self._clear()

    def _clear(self) -> None:
        self._names: dict[str, int] = {}
        self._texts: list[str] = []
        self.text_bytes = 0
        self._tag, self._time, self._quality, self._server = array("I"), array("q"), array("q"), array("q")
        self._kinds, self._values = bytearray(), array("q")
        self._with_server = False

    @property
    def count(self) -> int:
        return len(self._kinds)

    def saw(self, ns: int) -> None:
        """A row of this time; earlier ones have all been seen."""
        if ns > self.latest:
            self.before = ns - 1 if self.latest != NO_TIME else -1
            self.latest = ns
            if ns <= self._now:
                self._on_time = ns

    def add(self, tag: str, ns: int, value: Value, quality: int | None, server: bytes | None) -> None:
        self._tag.append(self._names.setdefault(tag, len(self._names)))
        self._time.append(ns)
        if value is None:
            self._kinds.append(FLOAT)
            self._values.append(NAN_BITS)
            quality = BAD if quality is None else quality
        elif isinstance(value, bytes):
            self._kinds.append(TEXT)
            self._values.append(len(self._texts))
            self._texts.append(value.decode())
            self.text_bytes += len(value)
        else:
            self._kinds.append(self._kind)
            self._values.append(value)
        self._quality.append(GOOD if quality is None else quality)
        at = NO_TIME
        if server is not None:
            at = int.from_bytes(server, "big", signed=True) * 1000 + EPOCH_NS
            at = at if EARLIEST_NS < at < LATEST_NS else NO_TIME  # a historian's own time that has no place is none
            self._with_server = self._with_server or at != NO_TIME
        self._server.append(at)

    def take(self, upto: int) -> Samples:
        """What there is, as a record."""
        if upto > self._now:
            upto = self._on_time
        found = Samples(
            self._lane, 0, self._source, upto if self._lane == "live" else -1, tuple(self._names), self._tag.tobytes(),
            self._time.tobytes(), bytes(self._kinds), self._values.tobytes(), self._quality.tobytes(),
            self._server.tobytes() if self._with_server else b"", tuple(self._texts),
        )  # fmt: skip
        self._clear()
        return found


async def connect(source: Postgres, password: str) -> Historian:
    """Raises: psycopg.Error, Differs."""
    conn = await dial(source, password)
    try:
        await conn.execute(_SETTINGS, (str(STATEMENT_MS),))
        if conn.info.parameter_status("server_encoding") == "SQL_ASCII":
            # Such a database has any bytes in its texts. As UTF-8 it would refuse all of a reading for one of them.
            await conn.execute("SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', false)")
        found = Historian(source, conn)
        await found.look()
    except BaseException:
        await conn.close()
        raise
    return found


async def dial(source: Postgres | Copy, password: str) -> AsyncConnection[Any]:
    """A connection; each end has shown the other that it knows the password. Raises: psycopg.Error."""
    tls: dict[str, Any] = {"sslmode": "disable"}
    if not source.plain:
        tls = {"sslmode": "require", "channel_binding": "require", "sslcertmode": "disable"}
    return await AsyncConnection.connect(
        hostaddr=source.address, port=source.port, dbname=source.database, user=source.role, password=password,
        autocommit=True, prepare_threshold=None, connect_timeout=CONNECT_SECONDS, gssencmode="disable",
        application_name="cofferdam-mirror", client_encoding="utf8", options="-c TimeZone=UTC",
        require_auth="scram-sha-256", keepalives_idle=15, keepalives_interval=5, keepalives_count=3,
        tcp_user_timeout=30_000, **tls,
    )  # fmt: skip


MEANT_NO_ROW: Final = (struct.error, LookupError, ArithmeticError, ValueError)
"""What bytes that are no rows lead to."""


def no_copy(error: Exception) -> Differs:
    """Bytes that a database has sent are no rows."""
    return Differs(f"what it sends is no COPY of its columns ({error})")


def _text(raw: str | bytes) -> str:
    """Of a database that does not say how its texts are encoded, they come as bytes. What is no UTF-8 is left as
    surrogates, which no tag's name may have."""
    return raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")


def _wrong(value: bytes | None, long: bytes | None) -> str:
    """Why a text is not taken; "" if it is. `long`: its length, where it is longer than any that is."""
    if long is not None or (value is not None and len(value) > TEXT_MOST):
        size = int.from_bytes(long, "big", signed=True) if long is not None else len(value or b"")
        return f"a text of {size} bytes; at most {TEXT_MOST} are taken"
    if value is None:
        return ""
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"a text that is no UTF-8 from byte {error.start} on"
    return ""


def words(error: Exception) -> str:
    """What a database says, in one line."""
    if isinstance(error, psycopg.Error) and error.sqlstate and error.diag.message_primary:
        return f"{error.diag.message_primary} ({error.sqlstate})"
    return " ".join(str(error).split()) or type(error).__name__


_LENGTH: Final = struct.Struct(">i").unpack_from
_PLAIN: Final = struct.Struct(">iqiqiqii")
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LEAST, _MOST = -62_135_596_800 * 10**6, 253_402_300_799 * 10**6


def _moment(ns: int) -> sql.Composable:
    """To the microsecond, which is all that PostgreSQL has; what is beyond the years 1 to 9999 is their border."""
    at = _EPOCH + datetime.timedelta(microseconds=min(max(ns // 1000, _LEAST), _MOST))
    return sql.SQL("{}::timestamptz").format(sql.Literal(at.isoformat()))
