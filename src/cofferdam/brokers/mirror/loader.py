"""The mirror's loader: copies history on into a PostgreSQL of the site's, for tools that speak its protocol.

It stands in the readers' zone, sees the keeper's store read-only, as the reader does, and has no pipe to anybody. What
was committed there goes into the database in the order of commits; the number of the last stands in the same
transaction, so that nothing is lost or doubled, whatever dies when. A database that is away delays nothing else.

    cofferdam.history    everything, in partitions by day       cofferdam.samples    of each (tag, time) the last
    cofferdam.minutes    average, least, most, count            cofferdam.position   up to which commit it has all
    cofferdam.samples_of_NAME, cofferdam.aggregates_of_NAME     what the principal may read; for the role NAME

Not here: the connection (postgres), what is read when (query).
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import AsyncConnection, sql

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.figures import Figure
from cofferdam.brokers.kit.threads import Threads
from cofferdam.brokers.mirror import postgres, sealing
from cofferdam.brokers.mirror.blocks import Differs
from cofferdam.brokers.mirror.collector import Collector, Work
from cofferdam.brokers.mirror.columns import BAD, DAY_NS
from cofferdam.brokers.mirror.figures import LOADER
from cofferdam.brokers.mirror.query import Deadline, Reading, TooMuch, View
from cofferdam.brokers.mirror.told import Source as Told
from cofferdam.errors import StoreError
from cofferdam.policy.terms.mirror_rows import Copy, Qualities, ReadRule, Term

ROWS_AT_ONCE: Final = 50_000
QUERY_SECONDS: Final = 600.0
PAUSE_SECONDS: Final = 0.25
AHEAD_DAYS: Final = 2
"""Days after today that have a partition of their own; what lies outside is in `history_rest`."""
DROP_SECONDS: Final = 3600.0
"""How often old days are dropped, and roles looked for that are new."""
STATEMENT_MS: Final = 600_000
_SETTINGS: Final = (
    "SELECT pg_catalog.set_config('statement_timeout', %s, false), pg_catalog.set_config('search_path', '', false)"
)
_PARTITION: Final = "history_"
_COLUMNS: Final = (
    "tag text NOT NULL, time timestamptz NOT NULL, ns int2 NOT NULL, kind int2 NOT NULL, value float8, whole int8,"
    " text text, quality int8 NOT NULL, server timestamptz, commit int8 NOT NULL, nth int4 NOT NULL"
)
_SCHEMA: Final = (
    "CREATE SCHEMA IF NOT EXISTS cofferdam",
    f"CREATE TABLE IF NOT EXISTS cofferdam.history ({_COLUMNS}) PARTITION BY RANGE (time)",
    "CREATE INDEX IF NOT EXISTS history_tag_time ON cofferdam.history (tag, time, ns, commit, nth)",
    "CREATE TABLE IF NOT EXISTS cofferdam.history_rest PARTITION OF cofferdam.history DEFAULT",
    "CREATE TABLE IF NOT EXISTS cofferdam.position (mirror text PRIMARY KEY, commit int8 NOT NULL)",
    "CREATE OR REPLACE VIEW cofferdam.samples AS SELECT DISTINCT ON (tag, time, ns) tag, time, ns, kind, value, whole,"
    " text, quality, server FROM cofferdam.history ORDER BY tag, time, ns, commit DESC, nth DESC",
)
_MINUTES: Final = (
    "CREATE OR REPLACE VIEW cofferdam.minutes AS SELECT tag, date_trunc('minute', time) AS time, avg(value) AS avg,"
    " min(value) AS min, max(value) AS max, count(value) AS count FROM cofferdam.samples"
    " WHERE value <> 'NaN' AND {good} GROUP BY 1, 2"
)
_GOOD: Final[dict[Term, sql.SQL]] = {
    "": sql.SQL(
        "(CASE WHEN quality > 65535 THEN (quality >> 30) & 3 IN (0, 1)"
        " ELSE quality = 0 OR (quality >> 6) & 3 IN (1, 3) END)"
    ),
    "opc-da": sql.SQL("((quality >> 6) & 3 IN (1, 3))"),
    "opc-ua": sql.SQL("((quality >> 30) & 3 IN (0, 1))"),
    "none": sql.SQL(f"(quality <> {BAD})"),
}
"""As partials.verdict has it: not bad."""
_NAMES: Final = ("tag", "time", "ns", "kind", "value", "whole", "text", "quality", "server", "commit", "nth")


class Loader(Collector):
    """The part."""

    kinds = (Copy,)
    declared: tuple[Figure, ...] = LOADER

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        folder = setting.reads.get("keeper")
        if folder is None:
            raise StoreError("the loader sees no store")
        self.reading = Reading(folder)
        self.threads = Threads(asyncio.get_event_loop(), 1)
        self._upto = {}
        self._settle()

    def sources(self) -> Iterable[Copy]:
        return [self.row.copy] if self.row.copy is not None else []

    def zone(self) -> str:
        return self.row.outer

    def make(self, source: Any) -> Work:
        return Copying(self, source)

    def copied(self, rows: int, waiting: int) -> None:
        """So many samples more are there."""
        self._figures.add("copied", rows)
        self._figures.set("copy_waiting", waiting)

    def end(self) -> None:
        super().end()
        self.threads.close()


class Copying(Work):
    """The copy in one database."""

    source: Copy
    owner: Loader

    def __init__(self, owner: Loader, source: Copy) -> None:
        super().__init__(owner, source)
        self.position = 0
        self._qualities: tuple[Qualities, ...] = ()
        self._days: set[str] = set()

    async def session(self) -> None:
        password = self.owner.password(self.source.password)
        if not password:
            raise Differs(f"there is no password: `cofferdam mirror password {self.source.password}` brings it in")
        conn = await postgres.dial(self.source, password, STATEMENT_MS / 1000 + 30)
        try:
            await conn.execute(_SETTINGS, (str(STATEMENT_MS),))
            self._qualities = (await self._store()).catalogue.qualities
            await self._prepare(conn)
            self.well()
            await self._follow(conn)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            # What a database of the office's answers may end the copy, and nothing of the plant's.
            raise Differs(f"what the database says is not understood ({type(error).__name__}: {error})") from None
        finally:
            await conn.close()

    async def _store(self) -> View:
        """The store as it is now. Raises: Differs."""
        try:
            return await self.owner.threads.run(self.owner.reading.view)
        except StoreError as error:
            raise Differs(str(error)) from None

    async def _prepare(self, conn: AsyncConnection[Any]) -> None:
        """What the database has to have. Raises: psycopg.Error."""
        async with conn.transaction():
            for statement in _SCHEMA:
                await conn.execute(statement)
            await conn.execute("INSERT INTO cofferdam.position VALUES (%s, 0) ON CONFLICT DO NOTHING", (self._mirror,))
            await self._views(conn)
            rows = await conn.execute("SELECT commit FROM cofferdam.position WHERE mirror = %s", (self._mirror,))
            found = await rows.fetchone()
            self.position = int(found[0]) if found else 0
            rows = await conn.execute(
                "SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid"
                " WHERE i.inhparent = 'cofferdam.history'::regclass"
            )
            self._days = {name for (name,) in await rows.fetchall()}

    @property
    def _mirror(self) -> str:
        return self.owner.conduit

    async def _views(self, conn: AsyncConnection[Any]) -> None:
        """That of minutes, and one view for each principal, and only those."""
        await conn.execute(sql.SQL(_MINUTES).format(good=good(self._qualities)))
        rows = await conn.execute(
            "SELECT viewname FROM pg_catalog.pg_views WHERE schemaname = 'cofferdam'"
            " AND (viewname LIKE 'samples\\_of\\_%' OR viewname LIKE 'aggregates\\_of\\_%')"
        )
        for (name,) in await rows.fetchall():
            await conn.execute(sql.SQL("DROP VIEW {}").format(sql.Identifier("cofferdam", name)))
        for _, _, statement in views(self.source.rules, self._qualities):
            await conn.execute(statement)
        await self._grant(conn)

    async def _grant(self, conn: AsyncConnection[Any]) -> None:
        """Each view to the role of its principal's name, where there is one."""
        rows = await conn.execute("SELECT rolname FROM pg_catalog.pg_roles")
        roles = {name for (name,) in await rows.fetchall()}
        for who, name, _ in views(self.source.rules, self._qualities):
            if who in roles:
                view, role = sql.Identifier("cofferdam", name), sql.Identifier(who)
                await conn.execute(sql.SQL("GRANT USAGE ON SCHEMA cofferdam TO {}").format(role))
                await conn.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(view, role))

    async def _follow(self, conn: AsyncConnection[Any]) -> None:
        dropped = float("-inf")
        while True:
            try:
                view = await self._store()
                if view.commit < self.position:
                    raise Differs(
                        f"the database has {self.position} batches of the mirror, and the store {view.commit}"
                    )
                if view.catalogue.qualities != self._qualities:
                    self._qualities = view.catalogue.qualities
                    async with conn.transaction():
                        await self._views(conn)
                table, upto = await self.owner.threads.run(
                    lambda view=view: view.changes(  # type: ignore[misc]
                        sorted(view.tags()), self.position, Deadline(QUERY_SECONDS), ROWS_AT_ONCE
                    )
                )
            except (TooMuch, StoreError) as error:
                raise Differs(str(error)) from None
            if upto > self.position:
                began = time.monotonic_ns()
                await self._copy(conn, table, upto)
                self.owner.measured(self.source.name, time.monotonic_ns() - began)
            self.owner.copied(table.num_rows, view.commit - self.position)
            if time.monotonic() - dropped > DROP_SECONDS:
                dropped = time.monotonic()
                await self._drop(conn)
                await self._grant(conn)
            if upto >= view.commit:
                await self.pause(PAUSE_SECONDS)

    async def _copy(self, conn: AsyncConnection[Any], table: pa.Table, upto: int) -> None:
        """One transaction. Raises: psycopg.Error, Differs: it is as it was."""
        fresh: set[str] = set()
        async with conn.transaction():
            moved = await conn.execute(
                "UPDATE cofferdam.position SET commit = %s WHERE mirror = %s AND commit = %s",
                (upto, self._mirror, self.position),
            )
            if moved.rowcount != 1:
                raise Differs("somebody else has moved the mirror's position in the database")
            if table.num_rows:
                fresh = await self._partitions(conn, table)
                data = await self.owner.threads.run(lambda: as_csv(table))
                names = sql.SQL(", ").join(map(sql.Identifier, _NAMES))
                copy = sql.SQL("COPY cofferdam.history ({}) FROM STDIN (FORMAT csv)").format(names)
                async with conn.cursor() as cursor, cursor.copy(copy) as copying:
                    for at in range(0, len(data), 1 << 20):
                        await copying.write(data[at : at + (1 << 20)])
        self._days |= fresh
        self.position = upto

    async def _partitions(self, conn: AsyncConnection[Any], table: pa.Table) -> set[str]:
        """Partitions for the days of a table that have none."""
        days = pc.unique(pc.divide(sealing.floor_to(table["time"].cast(pa.int64()), DAY_NS), DAY_NS)).to_pylist()
        today = self.owner.setting.wall() // DAY_NS
        fresh = set()
        for day in days:
            if not today - self.source.keep // 86_400 - 1 <= day <= today + AHEAD_DAYS:
                continue
            name = _name(day)
            if name not in self._days:
                fresh.add(name)
                statement = sql.SQL("CREATE TABLE {} PARTITION OF cofferdam.history FOR VALUES FROM ({}) TO ({})")
                await conn.execute(
                    statement.format(
                        sql.Identifier("cofferdam", name), sql.Literal(_begin(day)), sql.Literal(_begin(day + 1))
                    )
                )
        return fresh

    async def _drop(self, conn: AsyncConnection[Any]) -> None:
        """Days that are older than what is kept."""
        oldest = _name(self.owner.setting.wall() // DAY_NS - self.source.keep // 86_400 - 1)
        for name in sorted(self._days):
            if name.startswith(_PARTITION) and name[len(_PARTITION) :].isdigit() and name < oldest:
                await conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("cofferdam", name)))
                self._days.discard(name)

    def told(self) -> Told:
        return {**super().told(), "copied": self.position}


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _begin(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def _name(day: int) -> str:
    return f"{_PARTITION}{_EPOCH + timedelta(days=day):%Y%m%d}"


def as_csv(table: pa.Table) -> bytes:
    """Samples in the form STORED as COPY takes them: times by the microsecond, which is all that PostgreSQL has, and
    the rest in ns beside them. A NUL, which no text there can have, becomes U+FFFD."""
    times = table["time"].cast(pa.int64())
    whole = sealing.floor_to(times, 1000)
    server = table["server"].cast(pa.int64())
    moment = pa.timestamp("us")  # the session's time zone is UTC; for one with a name Arrow opens files
    plain = pa.table({
        "tag": table["tag"], "time": pc.divide(whole, 1000).cast(moment), "ns": pc.subtract(times, whole),
        "kind": table["kind"], "value": table["value"], "whole": table["whole"],
        "text": pc.replace_substring(table["text"], "\0", "\ufffd"), "quality": table["quality"],
        "server": pc.divide(sealing.floor_to(server, 1000), 1000).cast(moment), "commit": table["commit"],
        "nth": pa.array(range(table.num_rows), pa.int32()),  # of several of one time and commit the last counts
    })  # fmt: skip
    out = io.BytesIO()
    pyarrow.csv.write_csv(plain, out, pyarrow.csv.WriteOptions(include_header=False))
    return out.getvalue()


def good(qualities: Iterable[Qualities]) -> sql.Composable:
    """That a sample is not bad, whichever tag it is of."""
    cases = [sql.SQL("WHEN {} THEN {}").format(_tags(one.tags), _GOOD[one.term]) for one in qualities]
    return sql.SQL("(CASE {} ELSE {} END)").format(sql.SQL(" ").join(cases), _GOOD[""]) if cases else _GOOD[""]


def views(rules: Iterable[ReadRule], qualities: Iterable[Qualities]) -> Iterator[tuple[str, str, sql.Composed]]:
    """(principal, view, what makes it): samples where a rule has no resolution, aggregates where it has, of steps that
    are over: one that goes on shows each sample as it comes."""
    patterns: dict[tuple[str, int], list[str]] = {}
    for rule in rules:
        for who in rule.who:
            patterns.setdefault((who, rule.resolution), []).extend(rule.read)
    samples = "CREATE VIEW {} WITH (security_barrier) AS SELECT * FROM cofferdam.samples WHERE {}"
    for (who, resolution), some in sorted(patterns.items()):
        if not resolution:
            name = f"samples_of_{who}"
            made = sql.SQL(samples).format(sql.Identifier("cofferdam", name), _tags(some))
            yield who, name, made
    for who in sorted({who for who, resolution in patterns if resolution}):
        parts = [
            sql.SQL(
                "SELECT tag, {step} AS seconds,"
                " to_timestamp(floor(extract(epoch FROM time) / {step}) * {step}) AS time, avg(value) AS avg,"
                " min(value) AS min, max(value) AS max, count(value) AS count"
                " FROM cofferdam.samples WHERE value <> 'NaN' AND {good} AND {tags}"
                " AND time < to_timestamp(floor(extract(epoch FROM now()) / {step}) * {step}) GROUP BY 1, 3"
            ).format(step=sql.Literal(resolution), good=good(qualities), tags=_tags(some))
            for (name, resolution), some in sorted(patterns.items())
            if name == who and resolution
        ]
        name = f"aggregates_of_{who}"
        made = sql.SQL("CREATE VIEW {} WITH (security_barrier) AS {}").format(
            sql.Identifier("cofferdam", name), sql.SQL(" UNION ALL ").join(parts)
        )
        yield who, name, made


def _tags(patterns: Collection[str]) -> sql.Composable:
    """That a tag is one of these."""
    names = [sql.Literal(one) for one in patterns if "*" not in one]
    said = [sql.SQL("tag IN ({})").format(sql.SQL(", ").join(names))] if names else []
    like = [
        "".join("%" if letter == "*" else f"\\{letter}" if letter in "%_\\" else letter for letter in one)
        for one in patterns
        if "*" in one
    ]
    said += [sql.SQL("tag LIKE {}").format(sql.Literal(one)) for one in like]
    return sql.SQL("({})").format(sql.SQL(" OR ").join(said))
