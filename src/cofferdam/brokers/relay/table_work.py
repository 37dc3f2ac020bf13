"""What is done with the tables of a database: an outbox is drained, an inbox filled.

An outbox row is locked, pushed, and marked once the keeper has it for good; lock and mark are one transaction. If
anything ends in between, the row is pushed again, under the same key, and the keeper knows it. Rows are found by not
being done, never by an id beyond the last one: a transaction with a lower id may commit later.

An inbox row and the position that says so are one transaction; then the message is settled. If anything ends in
between, it comes again, and the position knows it.

Whatever the database refuses, the work says why, waits, connects anew and goes on (ways).

Not here: which tables there are (tables), their columns (table_schema).
"""

from __future__ import annotations

import abc
import asyncio
import datetime
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final, LiteralString

import psycopg
from psycopg import AsyncConnection, sql

from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit import postgres
from cofferdam.brokers.kit.http.problems import Refusal
from cofferdam.brokers.relay.http_messages import is_key, single
from cofferdam.brokers.relay.records import Answered, Handed, Item, Message, Pull, Push, Settle, Verdict
from cofferdam.brokers.relay.table_schema import HINT, inbox_differs, named, outbox_differs
from cofferdam.brokers.relay.ways import LAST_SECONDS, LEASE_SECONDS, WAIT_MS, Trouble, Way, Work, conflict, in_words
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, PARALLEL_MOST, Table

POLL_SECONDS: Final = 1.0
"""How often an outbox is looked at, whether or not it has notified."""
BATCH: Final = 500
BATCH_BYTES: Final = 1 << 20
"""Rows of one transaction, and the bytes of their bodies if there are several."""
AGAIN_SECONDS: Final = 60
"""When a message comes again that the inbox does not take."""
_BAD_MESSAGE: Final = ("22", "23", "P0")
"""Classes of errors that a message may be to blame for: its data, a constraint, a trigger of the site's own."""
_SETTINGS: Final = (
    "SET statement_timeout = '30s'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'"
)


class Differs(Trouble):
    """The tables are not as they have to be, or the inbox has another message under a number: a person has to look."""


class TableWork(Work):
    """Work over one connection."""

    foreign = (psycopg.Error, OSError)
    settings: ClassVar[LiteralString] = _SETTINGS
    """Of its session."""
    silent: ClassVar[float] = 60.0
    """Seconds without an answer: more than its statement's limit."""

    def __init__(self, owner: Way[Any, Any], table: Table) -> None:
        super().__init__(owner, table.zone)
        self.table = table
        self._conn: postgres.Answering | None = None
        self._connecting: asyncio.Task[Any] | None = None
        self._booking = False

    @abc.abstractmethod
    async def _differs(self, conn: AsyncConnection[Any]) -> list[str]: ...

    @abc.abstractmethod
    async def _work(self, conn: AsyncConnection[Any]) -> None:
        """Works until it is stopped or something is wrong."""

    @property
    def away(self) -> bool:
        """There is no connection."""
        return self._conn is None

    def words(self, error: Exception) -> str:
        said = isinstance(error, psycopg.Error) and error.sqlstate
        return postgres.words(error) if said else super().words(error)

    # --- life

    def stop(self, *, now: bool = False) -> None:
        super().stop(now=now)
        if self._connecting is not None:
            self._connecting.cancel()
        elif self._conn is not None and not self._conn.closed and (now or not self._booking):
            self._conn.shut()

    async def session(self) -> None:
        password = self.owner.password(self.table.password)
        if not password:
            raise Differs(f"there is no password: `cofferdam relay password {self.table.password}` brings it in")
        self._connecting = asyncio.current_task()
        try:
            conn = await postgres.dial(self.table, password, silent=self.silent, name="cofferdam")
        finally:
            self._connecting = None
        try:
            self._conn = conn
            self.check()
            await conn.execute(self.settings)
            if wrong := await self._differs(conn):
                raise Differs("; ".join(wrong))
            self.trouble = ""
            await self._work(conn)
        finally:
            self._conn, self._booking = None, False
            await conn.close()


# --- outbox -----------------------------------------------------------------------------------------------------

_NEXT: Final = (
    "SELECT id, key, pg_catalog.octet_length(body::text) FROM {} WHERE channel = %s AND done IS NULL"
    " ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED"
)
_BODIES: Final = "SELECT id, body::text FROM {} WHERE id = ANY(%s)"
_MARK: Final = (
    "UPDATE {} o SET done = pg_catalog.now(), outcome = v.outcome, number = v.number, problem = v.problem"
    " FROM ROWS FROM (pg_catalog.unnest(%s::bigint[]), pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::bigint[]),"
    " pg_catalog.unnest(%s::text[])) AS v(id, outcome, number, problem)"
    " WHERE o.id = v.id"
)
_OTHERS: Final = "SELECT channel FROM {} WHERE done IS NULL AND NOT channel = ANY(%s) LIMIT 1"
Mark = tuple[int, str, int | None, str | None]
"""(id, outcome, number, problem)"""


class Outbox(TableWork):
    """Drains an outbox. `pushes`: channel -> the principal whose rows these are."""

    def __init__(self, owner: Way[Any, Any], table: Table, pushes: Sequence[tuple[str, str]]) -> None:
        super().__init__(owner, table)
        self._pushes = dict(pushes)
        self._not_before: dict[str, float] = {}

    @property
    def name(self) -> str:
        return "outbox"

    async def _differs(self, conn: AsyncConnection[Any]) -> list[str]:
        return await outbox_differs(conn, self.table)

    async def _work(self, conn: AsyncConnection[Any]) -> None:
        await conn.execute(f"LISTEN {HINT}")
        while True:
            more = False
            for channel, who in self._pushes.items():
                self.check()
                if time.monotonic() >= self._not_before.get(channel, 0):
                    more = await self._batch(conn, channel, who) or more
            self.check()
            if not more:
                await self._others(conn)
                async for _ in conn.notifies(timeout=POLL_SECONDS, stop_after=1):
                    pass

    async def _others(self, conn: AsyncConnection[Any]) -> None:
        """Rows that nobody will ever take are told of."""
        found = await (await conn.execute(self._sql(_OTHERS), (list(self._pushes),))).fetchone()
        self.trouble = (
            f"rows for {str(found[0])[:100]!r}, to which the policy lets nobody push from here" if found else ""
        )

    def _sql(self, text: str) -> sql.Composed:
        return sql.SQL(text).format(named(self.table.outbox))

    async def _batch(self, conn: AsyncConnection[Any], channel: str, who: str) -> bool:
        """Returns whether there may be more at once."""
        try:
            self._booking = True
            async with conn.transaction():
                rows = await (await conn.execute(self._sql(_NEXT), (channel, BATCH))).fetchall()
                rows = _few(rows)
                if not rows:
                    return False
                small = [number for number, _, size in rows if size is not None and size <= LARGEST_MESSAGE]
                bodies = dict(await (await conn.execute(self._sql(_BODIES), (small,))).fetchall())
                marks = await self._push(channel, who, [(number, key, bodies.get(number)) for number, key, _ in rows])
                if marks:
                    await conn.execute(self._sql(_MARK), tuple(list(column) for column in zip(*marks, strict=True)))
        except Refusal as refused:  # paused, full, busy, at the wrong time: the keeper says when to come again
            self._not_before[channel] = time.monotonic() + min(max(1, refused.retry), LAST_SECONDS)
            return False
        finally:
            self._booking = False
        self.owner.counts["table_rows_taken"] += len(marks)
        self.moved = self.moved or bool(marks)
        return bool(marks)

    async def _push(self, channel: str, who: str, rows: list[tuple[int, str | None, str | None]]) -> list[Mark]:
        """What is to be written beside each row; a row that the keeper takes later has none."""
        marks: list[Mark] = []
        items: list[Item] = []
        ids: list[int] = []
        for number, key, body in rows:
            if key is None or not is_key(key):
                problem: Problem | None = Problem("syntax", "a key is a text of 1 to 200 printable characters")
            elif body is None:
                problem = Problem("size", f"no body, or one of more than {LARGEST_MESSAGE} bytes")
            else:
                outcome = single(self.owner.checks, channel, key, body.encode())
                problem = outcome.problem if outcome.item is None else None
                if outcome.item is not None:
                    items.append(outcome.item)
                    ids.append(number)
            if problem is not None:
                marks.append((number, "refused", None, in_words(problem)))
                self.owner.refused(channel, who, self.table.address, problem, clip(str(key)))
        if not items:
            return marks
        answered = await self.ask(Answered, lambda number: Push(number, who, channel, tuple(items)))
        for number, result in zip(ids, answered.results, strict=True):
            if result.state == "stored":
                marks.append((number, "stored", result.number, None))
            elif result.state == "conflict":
                marks.append((number, "refused", None, conflict(result)))
            elif result.retry and result.state == "refused":
                self._not_before[channel] = time.monotonic() + min(result.retry, LAST_SECONDS)
            else:
                why = in_words(result.problem) if result.problem is not None else ""
                marks.append((number, result.state, result.number or None, why))
        return marks


def _few(rows: list[tuple[int, str | None, int | None]]) -> list[tuple[int, str | None, int | None]]:
    """The first rows, as many as one push may have. (One that is too large is not read at all.)"""
    left = BATCH_BYTES
    found: list[tuple[int, str | None, int | None]] = []
    for row in rows:
        size = row[2] or 0
        left -= size if size <= LARGEST_MESSAGE else 0
        if found and left < 0:
            break
        found.append(row)
    return found


# --- inbox ------------------------------------------------------------------------------------------------------

_BEGIN: Final = (
    "INSERT INTO {} (channel, number, missing, newest) VALUES (%s, 0, '{{}}', 0) ON CONFLICT (channel) DO NOTHING"
)
_POSITION: Final = "SELECT number, missing, newest FROM {} WHERE channel = %s FOR UPDATE"
_MOVE: Final = "UPDATE {} SET number = %s, missing = %s, newest = %s WHERE channel = %s"
_INSERT: Final = (
    "INSERT INTO {} (channel, number, who, key, sha256, at, body) VALUES (%s, %s, %s, %s, %s, %s, %s)"
    " ON CONFLICT (channel, number) DO NOTHING"
)
_THERE: Final = "SELECT number, sha256 FROM {} WHERE channel = %s AND number = ANY(%s)"


class Inbox(TableWork):
    """Fills an inbox from one channel, for one principal."""

    def __init__(self, owner: Way[Any, Any], table: Table, channel: str, who: str) -> None:
        super().__init__(owner, table)
        self._channel = channel
        self._who = who
        self._handed: Handed | None = None
        """What was handed out and is not settled: tried again with the next connection."""

    @property
    def name(self) -> str:
        return f"inbox-{self._channel}"

    async def _differs(self, conn: AsyncConnection[Any]) -> list[str]:
        return await inbox_differs(conn, self.table)

    async def _work(self, conn: AsyncConnection[Any]) -> None:
        while True:
            try:
                if self._handed is None:
                    self._handed = await self.ask(Handed, self._pull, waits=True)
                handed, self._booking = self._handed, True
                if handed.messages:
                    verdicts = await self._book(conn, handed.messages)
                    self._handed = None  # whatever becomes of the settling: a repeat is known
                    await self.ask(Answered, lambda number: self._settle(number, handed, verdicts))  # noqa: B023
                else:
                    self._handed = None
                    await conn.execute("SELECT 1")
            except Refusal as refused:
                self._booking = False
                await self.sleep(min(max(1, refused.retry), LAST_SECONDS))
            finally:
                self._booking = False

    def _pull(self, number: int) -> Pull:
        return Pull(number, self._who, self._channel, BATCH, LEASE_SECONDS, WAIT_MS)

    def _settle(self, number: int, handed: Handed, verdicts: tuple[Verdict, ...]) -> Settle:
        return Settle(number, self._who, self._channel, handed.lease, verdicts)

    def _sql(self, text: str, table: str) -> sql.Composed:
        return sql.SQL(text).format(named(table))

    async def _book(self, conn: AsyncConnection[Any], messages: Sequence[Message]) -> tuple[Verdict, ...]:
        """Writes what is not there yet, in one transaction with the position."""
        position, inbox, channel = self.table.position, self.table.inbox, self._channel
        async with conn.transaction():
            await conn.execute(self._sql(_BEGIN, position), (channel,))
            row = await (await conn.execute(self._sql(_POSITION, position), (channel,))).fetchone()
            if row is None:
                raise Differs(f"{position} does not keep the row of {channel}")
            number, missing, newest = int(row[0]), set(row[1]), int(row[2])
            before = (number, set(missing))
            for message in sorted(messages, key=lambda one: one.number):
                # Of a channel, no more than these can be on their way: what is further back went another way.
                missing.update(range(max(number + 1, message.number - PARALLEL_MOST), message.number + 1))
                number = max(number, message.number)
            fresh = [message for message in messages if message.number in missing]
            failed = await self._insert(conn, fresh)
            cursor = await conn.execute(self._sql(_THERE, inbox), (channel, [one.number for one in messages]))
            there = dict(await cursor.fetchall())
            for message in messages:
                if message.number not in failed:
                    self._compare(message, there.get(message.number), message in fresh, newest)
            missing -= {message.number for message in fresh if message.number not in failed}
            if (number, missing) != before:
                kept = sorted(missing)[-PARALLEL_MOST:]
                newest = max(newest, *(message.at for message in fresh))
                await conn.execute(self._sql(_MOVE, position), (number, kept, newest, channel))
        self.owner.counts["table_rows_booked"] += len(fresh) - len(failed)
        self.moved = self.moved or len(fresh) > len(failed)
        return tuple(
            Verdict(one.number, "failed", failed[one.number], AGAIN_SECONDS)
            if one.number in failed
            else Verdict(one.number, "done")
            for one in messages
        )

    def _compare(self, message: Message, there: str | None, fresh: bool, newest: int) -> None:
        """Raises: Differs, where a number does not mean what it meant."""
        what = f"message {message.number} of {self._channel}"
        again = "was the relay's store put back or replaced? Nothing is written until that is settled"
        if there is not None and there != message.sha256.hex():
            raise Differs(f"{self.table.inbox} has another content for {what}: {again}")
        if there is None and fresh:
            raise Differs(f"{self.table.inbox} does not keep {what}, though it took it: has it a trigger or a rule?")
        if not fresh and message.at > newest:
            raise Differs(f"{what} is newer than all that {self.table.position} has for written, and among it: {again}")

    async def _insert(self, conn: AsyncConnection[Any], messages: list[Message]) -> dict[int, str]:
        """Inserts these; which of them the inbox does not take, and why."""
        statement = self._sql(_INSERT, self.table.inbox)
        rows = [self._row(message) for message in messages]
        failed: dict[int, str] = {}
        try:
            async with conn.transaction(), conn.cursor() as cursor:
                await cursor.executemany(statement, rows)
            return failed
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in _BAD_MESSAGE:
                raise
        for message, row in zip(messages, rows, strict=True):
            try:
                async with conn.transaction():
                    await conn.execute(statement, row)
            except psycopg.Error as error:
                if (error.sqlstate or "")[:2] not in _BAD_MESSAGE:
                    raise
                failed[message.number] = clip(f"the inbox does not take it: {self.words(error)}")
        return failed

    def _row(self, message: Message) -> tuple[Any, ...]:
        at = datetime.datetime.fromtimestamp(message.at / 1e9, datetime.UTC)
        sha256, body = message.sha256.hex(), message.body.decode()
        return (self._channel, message.number, message.who, message.key, sha256, at, body)
