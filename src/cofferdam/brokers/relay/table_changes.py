"""A table of the site's that nobody may change, read by way of the database's own log: each row that is inserted (or
changed) is a message.

The database keeps its log for a replication slot until the slot has moved on; the slot moves on once the keeper has all
rows of a transaction. In between they come again, under the same keys (slot, the transaction's place in the log, the
row's number in it), and the keeper knows them. The slot is reached by two functions that `relay tables sql` prints: the
relay's role can read this one publication, and nothing else of the database.

What is kept for a slot that nobody reads fills the database's disk. So it is looked whether the database has a bound
(`max_slot_wal_keep_size`), and how far the relay is behind; both are alarms. If the database has thrown away what was
not read, the work stands until a person has made the slot anew.

Not here: the bytes (pgoutput), what tables have in common (table_work).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from psycopg import AsyncConnection, sql

from cofferdam.brokers.kit.http.problems import Refusal
from cofferdam.brokers.relay.http_messages import single
from cofferdam.brokers.relay.pgoutput import Decoder, Row
from cofferdam.brokers.relay.records import Answered, Item, Push, Result
from cofferdam.brokers.relay.table_schema import changes_functions, changes_schema
from cofferdam.brokers.relay.table_work import BATCH, BATCH_BYTES, POLL_SECONDS, Differs, TableWork
from cofferdam.brokers.relay.ways import LAST_SECONDS, Trouble, Way, conflict, in_words
from cofferdam.errors import RemoteProtocolError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, Changes, Table

READ: Final = 10_000
"""Changes that one reading asks for. The database tells a transaction whole, however many it has."""
REST: Final = 4
"""A reading that took long is followed by a pause so many times as long: the database reads its log anew for each."""
TOLD_SECONDS: Final = 3_600
"""So long an alarm tells of a row that was refused."""
_SETTINGS: Final = (
    "SET statement_timeout = '10min'; SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '10min';"
    " SET DateStyle = 'ISO'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'UTC'; SET bytea_output = 'hex';"
    " SET extra_float_digits = 1"
)
_SLOT: Final = (
    "SELECT plugin, database = pg_catalog.current_database(), wal_status, safe_wal_size,"
    " pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), confirmed_flush_lsn)::bigint,"
    " pg_catalog.pg_current_wal_flush_lsn()::text,"
    " (SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size')"
    " FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"
)
_PUBLISHED: Final = (
    "SELECT p.pubinsert, p.pubupdate, t.tablename IS NOT NULL FROM pg_catalog.pg_publication p LEFT JOIN"
    " pg_catalog.pg_publication_tables t ON t.pubname = p.pubname AND t.schemaname = %s AND t.tablename = %s"
    " WHERE p.pubname = %s"
)
_OID: Final = (
    "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relname = %s"
)
_MAY: Final = (
    "SELECT pg_catalog.to_regprocedure(%s) IS NOT NULL AND pg_catalog.to_regprocedure(%s) IS NOT NULL,"
    " pg_catalog.has_function_privilege(pg_catalog.to_regprocedure(%s), 'EXECUTE')"
    " AND pg_catalog.has_function_privilege(pg_catalog.to_regprocedure(%s), 'EXECUTE')"
)
_CHANGES: Final = (
    "SELECT pg_catalog.array_agg(d ORDER BY n) FROM (SELECT n, d,"
    " pg_catalog.sum(pg_catalog.octet_length(d)) OVER (ORDER BY n ROWS UNBOUNDED PRECEDING) / {bytes} AS part,"
    " n / {rows} AS few FROM (SELECT n, CASE WHEN pg_catalog.octet_length(data) <= {most} THEN data END AS d"
    " FROM {peek}(%s) WITH ORDINALITY AS t(data, n)) a) b GROUP BY part, few ORDER BY pg_catalog.min(n)"
)
"""A row for as many changes as one push may have, so that no more of them are in memory at once."""


class TableChanges(TableWork):
    """Reads one table's changes into one channel."""

    settings = _SETTINGS
    silent = 630.0

    def __init__(self, owner: Way[Any, Any], table: Table, changes: Changes, who: str) -> None:
        super().__init__(owner, table)
        self.changes = changes
        self.behind = 0
        """Bytes of the database's log that were not read."""
        self._who = who
        self._read_upto = ""
        self._refused = ("", 0.0)
        """What an alarm tells of, and until when."""
        self._oid = 0

    @property
    def name(self) -> str:
        return f"changes-{self.changes.channel}"

    async def _differs(self, conn: AsyncConnection[Any]) -> list[str]:
        changes = self.changes
        wrong = await changes_schema(conn, self.table, changes)
        slot = await (await conn.execute(_SLOT, (changes.slot,))).fetchone()
        if slot is None:
            wrong.append(
                f"there is no replication slot {changes.slot}: `cofferdam relay tables sql` says how it is made"
            )
        elif slot[0] != "pgoutput" or not slot[1]:
            wrong.append(f"the replication slot {changes.slot} is not one of pgoutput in this database")
        found = await (await conn.execute(_PUBLISHED, (*changes.table.split(".", 1), changes.slot))).fetchone()
        if found is None or not found[2]:
            wrong.append(f"there is no publication {changes.slot} of {changes.table}")
        else:
            verbs = (("insert", found[0]), ("update", found[1]))
            wrong += [
                f"the publication {changes.slot} does not publish {verb}"
                for verb, published in verbs
                if verb in changes.on and not published
            ]
        names = [f"{name}({kind})" for name, kind in zip(changes_functions(self.table, changes), ("integer", "pg_lsn"),
                 strict=True)]  # fmt: skip
        schema, name = changes.table.split(".", 1)
        table = await (await conn.execute(_OID, (schema, name))).fetchone()
        self._oid = int(table[0]) if table else 0
        there, may = await (await conn.execute(_MAY, (*names, *names))).fetchone() or (False, False)
        if not there:
            wrong.append(f"the functions {' and '.join(names)} are not there")
        elif not may:
            wrong.append(f"the role lacks the right to EXECUTE {' and '.join(names)}")
        return wrong

    async def _work(self, conn: AsyncConnection[Any]) -> None:
        while True:
            self.check()
            began = time.monotonic()
            flushed = await self._look(conn)
            more = flushed != self._read_upto and await self._read(conn, flushed)
            if not more:
                await self.sleep(max(POLL_SECONDS, REST * (time.monotonic() - began)))

    async def _look(self, conn: AsyncConnection[Any]) -> str:
        """How things stand with the slot. Returns how far the database's log goes. Raises: Differs."""
        slot = await (await conn.execute(_SLOT, (self.changes.slot,))).fetchone()
        if slot is None:
            raise Differs(f"the replication slot {self.changes.slot} is gone: rows that were not read are lost")
        _, _, status, safe, self.behind, flushed, bound = slot
        if status == "lost":
            raise Differs(
                f"the database has thrown away what was not read of its log ({self.behind} bytes behind): rows are "
                f"missing. Send them by another way, drop the slot {self.changes.slot}, and make it anew"
            )
        said, until = self._refused
        if bound < 0:
            self.trouble = (
                "max_slot_wal_keep_size is not set in this database: if the relay were away, its log would grow until "
                f"the disk is full ({self.behind} bytes behind)"
            )
        elif status == "unreserved" or (safe is not None and safe < bound * 512 * 1024):
            self.trouble = (
                f"the relay is {self.behind} bytes of the database's log behind, and the database has less than half "
                f"of max_slot_wal_keep_size ({bound} MB) left before it throws away what was not read"
            )
        else:
            self.trouble = said if time.monotonic() < until else ""
        return str(flushed)

    async def _read(self, conn: AsyncConnection[Any], flushed: str) -> bool:
        """Reads what there is. Returns whether there may be more at once."""
        decoder = Decoder()
        peek, advance = (sql.Identifier(*name.split(".", 1)) for name in changes_functions(self.table, self.changes))
        statement = sql.SQL(_CHANGES).format(
            bytes=sql.Literal(BATCH_BYTES), rows=sql.Literal(BATCH), most=sql.Literal(LARGEST_MESSAGE), peek=peek
        )
        count = done = 0
        wait = 0.0
        try:
            self._booking = True
            async with conn.transaction(), conn.cursor("cofferdam", binary=True) as cursor:
                await cursor.execute(statement, (READ,))
                while not wait and (chunk := await cursor.fetchone()):
                    count += len(chunk[0])
                    wait = await self._push(self._rows(decoder, chunk[0]))
                    done = done if wait else decoder.end
        except Refusal as refused:  # paused, full, busy, at the wrong time: the keeper says when to come again
            wait = min(max(1, refused.retry), LAST_SECONDS)
        except RemoteProtocolError as error:
            raise Trouble(str(error)) from None
        finally:
            self._booking = False
        if done or not (count or wait):
            upto = f"{done >> 32:X}/{done & 0xFFFFFFFF:X}" if done else flushed
            await conn.execute(sql.SQL("SELECT {}(%s)").format(advance), (upto,))
        if not count and not wait:
            self._read_upto = flushed
        if wait:
            await self.sleep(wait)
        return bool(count) and not wait

    def _rows(self, decoder: Decoder, messages: Sequence[bytes | None]) -> list[Row]:
        found = []
        for message in messages:
            if message is None:
                # Its key is not known, nor is that of what follows in its transaction.
                raise Trouble(
                    f"a row of {self.changes.table} has more than {LARGEST_MESSAGE} bytes: it can be passed over by "
                    f"moving the slot {self.changes.slot} on (pg_replication_slot_advance)"
                )
            row = decoder.take(message)
            if row is None:
                continue
            if row.table == self.changes.table or row.oid == self._oid:  # it may have been renamed, or made anew
                found.append(row)
            else:
                said = (
                    f"rows of {row.table} are passed over: {self.changes.slot} is to publish {self.changes.table} alone"
                )
                self._refused = (said, time.monotonic() + TOLD_SECONDS)
        return found

    async def _push(self, rows: list[Row]) -> float:
        """Returns how long to wait before they are pushed again, 0: the keeper is done with them."""
        channel, items, refused = self.changes.channel, list[Item](), list[tuple[str, Problem]]()
        for row in rows:
            key = f"{self.changes.slot}/{row.key}"
            if row.body is None:
                words = (
                    f"{row.lacks} is large and did not change, so the database does not say it: REPLICA IDENTITY FULL"
                )
                refused.append((key, Problem("syntax", words)))
                continue
            outcome = single(self.owner.checks, channel, key, row.body.encode())
            if outcome.item is not None:
                items.append(outcome.item)
            elif outcome.problem is not None:
                refused.append((key, outcome.problem))
        results: tuple[Result, ...] = ()
        if items:
            answered = await self.ask(Answered, lambda number: Push(number, self._who, channel, tuple(items)))
            results = answered.results
        wait = max((result.retry for result in results if result.state == "refused"), default=0)
        if wait:
            return min(wait, LAST_SECONDS)
        for item, result in zip(items, results, strict=True):
            if result.state == "conflict":
                raise Differs(f"{item.key}: {conflict(result)}. Was the database put back? A new slot has new keys")
            if result.state == "refused" and result.problem is not None:
                self._note(item.key, result.problem)
        for key, problem in refused:
            self.owner.refused(channel, self._who, self.table.address, problem, key)
            self._note(key, problem)
        self.owner.counts["table_rows_taken"] += len(rows)
        return 0

    def _note(self, key: str, problem: Problem) -> None:
        """There is no place beside the row to write why it was refused; it stays in its table."""
        said = f"a row was refused, and not kept: {key}, {in_words(problem)}"
        self._refused = (said, time.monotonic() + TOLD_SECONDS)
