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
import time
import zoneinfo
from collections.abc import AsyncIterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from cofferdam.brokers.kit import postgres
from cofferdam.brokers.kit.postgres import Answering
from cofferdam.brokers.mirror.blocks import (
    EPOCH,
    LATEST_NS,
    NAME_MOST,
    TEXT_MOST,
    Block,
    Differs,
    Reading,
    Shape,
    pieces,
    text_of,
)
from cofferdam.brokers.mirror.columns import STORED, Summary, stored, summary, tidy, to_batch
from cofferdam.brokers.mirror.records import BOOL, FLOAT, TEXT, WHOLE, Lane, Samples
from cofferdam.brokers.mirror.seen import Seen
from cofferdam.policy.terms.mirror_rows import Copy, Postgres

UTC: Final = zoneinfo.ZoneInfo("UTC")
"""What psycopg wants of a connection whose time zone is UTC: loaded here, since a part opens no file later."""
SAME_TIME_MOST: Final = 1_000_000
"""Samples of one time, where values are compared."""
STATEMENT_MS: Final = 300_000
SILENT_SECONDS: Final = 330.0
"""Without a word in answer, or with one here and there: a database that is well has ended the statement before."""
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


class Historian:
    """One source, connected."""

    def __init__(self, source: Postgres, conn: Answering) -> None:
        self.source = source
        self._conn = conn
        self._shape = Shape(FLOAT, source.tags, quality=False, server=False)
        self._select: sql.Composable = sql.SQL("")
        self._from: sql.Composable = sql.SQL("")
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
            types[oid] = text_of(name)
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
        kind, cast = _KINDS[is_[one.value]]
        self._shape = Shape(kind, one.tags, quality=bool(one.quality), server=bool(one.server))
        value: sql.Composable = sql.SQL("{}::{}").format(sql.Identifier(one.value), sql.SQL(cast))
        long: sql.Composable = sql.SQL("NULL::int8")
        if kind == TEXT:  # what is too long stays in the database, and its length is told
            size = sql.SQL("pg_catalog.octet_length({})").format(value)
            value = sql.SQL("CASE WHEN {} <= {} THEN {} END").format(size, sql.Literal(TEXT_MOST), value)
            long = sql.SQL("CASE WHEN {} > {} THEN {}::int8 END").format(size, sql.Literal(TEXT_MOST), size)
        parts = [sql.Identifier(one.time), value]  # the tag comes last: all before it has its place in a row
        parts.append(sql.SQL("{}::int8").format(sql.Identifier(one.quality)) if one.quality else sql.SQL("NULL::int8"))
        parts.append(sql.Identifier(one.server) if one.server else sql.SQL("NULL::timestamptz"))
        parts.append(long)
        parts.append(sql.SQL("pg_catalog.left({}::text, {})").format(sql.Identifier(one.tag), sql.Literal(NAME_MOST)))
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
        hide what comes on time, and is written a little later. Raises: psycopg.Error, OSError, Differs.

        In one transaction it looks at the columns and reads them: a column that has become a float meanwhile would be
        rounded by the cast of this reading."""
        block = Block(self.source.name, lane, self._shape, reading, seen, since_ns, now_ns, until_ns)
        when = sql.Identifier(self.source.time)
        command = sql.SQL("COPY (SELECT {} FROM {} WHERE {} > {} AND {} <= {} ORDER BY {}) TO STDOUT (FORMAT BINARY)")
        low, high = _moment(since_ns), _moment(until_ns)
        statement = command.format(self._select, self._from, when, low, when, high, when)
        async with self._conn.transaction(), self._conn.cursor() as cursor:
            if await self._look() != self._types:
                raise Differs("its columns are of other types than they were")
            async with cursor.copy(statement):
                over = False
                while not over:
                    asked = time.monotonic()
                    rows, over = await self._conn.wait(pieces(self._conn.pgconn))
                    reading.waited += time.monotonic() - asked
                    if reading.waited > self._conn.silent:
                        raise TimeoutError(f"it has not answered one question within {self._conn.silent:g} s")
                    block.take(rows)
                    while block.full:
                        yield block.some()
        yield block.rest()

    async def count(self, hour: int, hours: int) -> dict[str, int]:
        """By tag: samples of different times within so many hours, from one since 1970 on. Raises: psycopg.Error."""
        one = self.source
        statement = sql.SQL(
            "SELECT {}::text, count(DISTINCT {}) FROM {} WHERE {} >= {} AND {} < {} GROUP BY 1"
        ).format(
            sql.Identifier(one.tag), sql.Identifier(one.time), self._from, sql.Identifier(one.time),
            _moment(hour * 3_600 * 10**9), sql.Identifier(one.time),
            _moment((hour + hours) * 3_600 * 10**9),
        )  # fmt: skip
        found = await (await self._conn.execute(statement)).fetchall()
        names = [("" if tag is None else text_of(tag), count) for tag, count in found]
        return {tag: _count(count) for tag, count in names if self._shape.matches(tag)}

    async def values(self, since_ns: int, until_ns: int, found: dict[str, Summary], rate: int) -> int:
        """Adds, by tag, what there is after one time and up to another, of which nothing is `found` yet, exact
        repetitions once; gives how many rows that were. `rate`: rows a second at most; 0: any. Raises: psycopg.Error,
        Differs."""
        began, reading = time.monotonic(), Reading()
        rest = STORED.empty_table()
        async for record in self.read(since_ns, until_ns, "backfill", reading):
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
        return reading.rows

    async def ahead(self, after_ns: int) -> tuple[int, str]:
        """How many samples are of later than this, and the tag of one. Raises: psycopg.Error."""
        one = self.source
        statement = sql.SQL("SELECT count(*), min({}::text) FROM {} WHERE {} > {}").format(
            sql.Identifier(one.tag), self._from, sql.Identifier(one.time), _moment(after_ns)
        )
        row = await (await self._conn.execute(statement)).fetchone()
        return (_count(row[0]), text_of(row[1] or "")) if row else (0, "")

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
        since: datetime.timedelta = row[0] - EPOCH
        found = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
        if not after_ns < found <= until_ns:
            raise Differs("the next row is of another time than was asked for")
        return found

    async def close(self) -> None:
        await self._conn.close()


def _count(found: object) -> int:
    """Raises: Differs."""
    if not isinstance(found, int) or not 0 <= found <= 1 << 62:
        raise Differs("what it counts is no number of rows")
    return found


def _add(found: dict[str, Summary], table: pa.Table) -> None:
    """What a further piece of an hour has, of other times than all before it."""
    for tag, one in summary(table).items():
        had = found.get(tag, Summary(0, 0, 0))
        digest = (had.digest + one.digest + (1 << 63)) % (1 << 64) - (1 << 63)
        found[tag] = Summary(had.rows + one.rows, had.times + one.times, digest)


async def connect(source: Postgres, password: str) -> Historian:
    """Raises: psycopg.Error, Differs."""
    conn = await dial(source, password, SILENT_SECONDS)
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


async def dial(source: Postgres | Copy, password: str, silent: float) -> Answering:
    """A connection whose clock is UTC. Raises: psycopg.Error."""
    return await postgres.dial(source, password, silent=silent, name="cofferdam-mirror", options="-c TimeZone=UTC")


_LEAST, _MOST = -62_135_596_800 * 10**6, 253_402_300_799 * 10**6


def _moment(ns: int) -> sql.Composable:
    """To the microsecond, which is all that PostgreSQL has; what is beyond the years 1 to 9999 is their border."""
    at = EPOCH + datetime.timedelta(microseconds=min(max(ns // 1000, _LEAST), _MOST))
    return sql.SQL("{}::timestamptz").format(sql.Literal(at.isoformat()))
