"""SQL over the mirror, for those who may read everything: DuckDB in the reader's own process.

The wall is not DuckDB's: the store is a mount that this process cannot write, and under its filter it opens no file for
writing, no socket and no program. Besides, DuckDB is told to open nothing but the store, to load nothing, and that this
cannot be changed; one statement is taken, and only one that reads.

    samples   the last revision of each (tag, time)       raw    everything, as it is kept
    tags      what there is                               gaps   what is known to be missing

Not here: HTTP (api).
"""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
import re
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any, Final

import duckdb
import msgspec
import pyarrow as pa
from msgspec import Meta, Struct

from cofferdam.brokers.kit.http.problems import refusal, time_of
from cofferdam.brokers.mirror.columns import STORED
from cofferdam.brokers.mirror.query import Reading, TooMuch, View
from cofferdam.policy.terms.mirror_rows import terms_of

SECONDS: Final = 60.0
MEMORY: Final = "512MB"
ROWS_MOST: Final = 1_000_000
RESULT_BYTES: Final = 128 << 20
_EXPLAIN: Final = re.compile(r"\s*EXPLAIN(?:\s+ANALYZE)?\s+(.*)", re.IGNORECASE | re.DOTALL)
AGAIN_SECONDS: Final = 0.2
"""Between interruptions of what is late: one that comes between two steps is not noticed."""
STUCK_SECONDS: Final = 60.0
"""After its time is over."""
_SETTINGS: Final = {
    "threads": "1", "memory_limit": MEMORY, "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false", "allow_community_extensions": "false", "temp_directory": "",
    "python_enable_replacements": "false", "parquet_metadata_cache": "true",
}  # fmt: skip
_COLUMNS: Final = ", ".join(STORED.names)


class Refused(Exception):
    """SQL that is not run, or that failed, in the database's words."""


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for."""

    sql: Annotated[str, Meta(min_length=1)]
    limit: Annotated[int, Meta(ge=1, le=ROWS_MOST)] = 100_000
    format: str = ""


def asked(body: bytes, kind: str) -> Asked:
    """A body: SQL as it is (`application/sql`, `text/plain`), or JSON. Raises: Refusal."""
    try:
        if kind.partition(";")[0].strip().lower() == "application/json":
            return msgspec.json.decode(body, type=Asked)
        return Asked(body.decode())
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise refusal("request", f"the body is not understood: {error}"[:500]) from None


class Sql:
    """The database. Made before the filter is on."""

    def __init__(self, reading: Reading) -> None:
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._db = duckdb.connect(":memory:")
        for name, value in _SETTINGS.items():
            self._db.execute(f"SET {name} = '{value}'")
        folder = str(reading.folder).replace("'", "''")
        self._db.execute(f"SET allowed_directories = ['{folder}/']")
        self._db.execute("SET enable_external_access = false")
        self._db.execute("SET lock_configuration = true")
        # What it loads when it first reads a file, it loads now.
        self._db.execute("SELECT count(*), max(x) FROM range(10) t(x)").fetchall()
        self._clock = _Clock()

    def run(self, who: str, view: View, text: str, limit: int) -> pa.Table:
        """The rows, no more than `limit`. One at a time for each principal. Raises: Refused, TooMuch."""
        with self._lock:
            if who in self._busy:
                raise TooMuch(f"a statement of {who} is being run")
            self._busy.add(who)
        try:
            return self._run(who, view, text, limit)
        finally:
            with self._lock:
                self._busy.discard(who)

    def stuck(self) -> str:
        """Whose statement goes on long after it was interrupted: the database does not look within a call of some
        functions, nor while it reckons what has no column in it. "": nobody's."""
        return self._clock.stuck(time.monotonic() - STUCK_SECONDS)

    def _run(self, who: str, view: View, text: str, limit: int) -> pa.Table:
        with self._lock:
            cursor = self._db.cursor()
        running = self._clock.begin(who, cursor, SECONDS)
        try:
            _judge(cursor, text)
            self._views(cursor, view)
            cursor.execute("BEGIN TRANSACTION READ ONLY")  # the database is everybody's, and is left as it was
            return self._fetch(cursor.sql(text), limit)
        except duckdb.Error as error:
            if running.late:
                raise TooMuch(f"it took more than {SECONDS:g} s") from None
            raise Refused(" ".join(str(error).split())) from None
        finally:
            self._clock.end(running)
            cursor.close()

    def _views(self, cursor: Any, view: View) -> None:
        unrevised, once, several = view.unrevised()
        cursor.register("hot_once", once)
        cursor.register("hot_several", several.append_column("nth", pa.array(range(several.num_rows), pa.int64())))
        files = [file.name for file in view.catalogue.files]
        # Names of our own files and columns: nothing in it comes from anybody.
        hot = [f"SELECT {_COLUMNS} FROM {name}" for name in ("hot_once", "hot_several")]  # noqa: S608
        cursor.execute(f"CREATE TEMP VIEW raw AS {' UNION ALL '.join([*self._sealed(view, files), *hot])}")
        rest = self._sealed(view, [name for name in files if name not in unrevised], ", file_row_number AS nth")
        numbered = [*rest, f"SELECT {_COLUMNS}, nth FROM hot_several"]  # noqa: S608
        # Of several of one time that came in one batch the last counts, as everywhere. All that is looked at for it is
        # in memory at a time, so what nobody has revised is left out.
        last = (
            f"SELECT * EXCLUDE (commit, nth) FROM ({' UNION ALL '.join(numbered)})"  # noqa: S608
            " QUALIFY row_number() OVER (PARTITION BY tag, time ORDER BY commit DESC, nth DESC) = 1"
        )
        parts = [*self._sealed(view, sorted(unrevised)), hot[0]]
        plain = [f"SELECT * EXCLUDE (commit) FROM ({one})" for one in parts]  # noqa: S608
        cursor.execute(f"CREATE TEMP VIEW samples AS {' UNION ALL '.join([*plain, last])}")
        tags = view.tags()
        cursor.register("tags", pa.table({
            "tag": pa.array(list(tags), pa.string()),
            "source": pa.array([tag.source for tag in tags.values()], pa.string()),
            "first": pa.array([tag.first for tag in tags.values()], pa.int64()).cast(pa.timestamp("ns")),
            "last": pa.array([tag.last for tag in tags.values()], pa.int64()).cast(pa.timestamp("ns")),
            "qualities": pa.array(terms_of(view.catalogue.qualities, tags), pa.string()),
        }))  # fmt: skip
        losses = [loss for loss in view.catalogue.losses if loss.known]
        cursor.register("gaps", pa.table({
            "source": pa.array([one.source for one in losses], pa.string()),
            "since": pa.array([one.since for one in losses], pa.int64()).cast(pa.timestamp("ns")),
            "until": pa.array([one.until for one in losses], pa.int64()).cast(pa.timestamp("ns")),
            "points": pa.array([one.points for one in losses], pa.int64()),
            "why": pa.array([one.why for one in losses], pa.string()),
        }))  # fmt: skip

    def _sealed(self, view: View, names: Sequence[str], more: str = "") -> list[str]:
        """What reads some sealed files; nothing for none."""
        if not names:
            return []
        listed = ", ".join("'" + str(view.folder / name).replace("'", "''") + "'" for name in names)
        return [f"SELECT {_COLUMNS}{more} FROM read_parquet([{listed}], file_row_number = true)"]  # noqa: S608

    def _fetch(self, relation: Any, limit: int) -> pa.Table:
        reader = relation.to_arrow_reader(10_000)
        batches, rows, size = [], 0, 0
        for batch in reader:
            rows += batch.num_rows
            size += batch.nbytes
            if size > RESULT_BYTES:
                raise TooMuch(f"an answer of more than {RESULT_BYTES} bytes")
            batches.append(batch)
            if rows > limit:
                raise TooMuch(f"more than {limit} rows: LIMIT them, or reckon in SQL")
        return _distinct(pa.Table.from_batches(batches, reader.schema))


def _distinct(table: pa.Table) -> pa.Table:
    """The same, with columns of one name told apart: a JSON object, and a frame, have one of each name."""
    names: list[str] = []
    for name in table.schema.names:
        fresh = (f"{name}_{number}" for number in itertools.count(1))
        names.append(name if name not in names else next(one for one in fresh if one not in names))
    return table.rename_columns(names)


class _Running:
    """A statement, and when its time is over (monotonic, s)."""

    def __init__(self, who: str, cursor: Any, until: float) -> None:
        self.who = who
        self.cursor = cursor
        self.until = until
        self.late = False


class _Clock:
    """Interrupts statements whose time is over. Its one thread is made with the first: where statements have used up
    the memory, a new thread may end before it has begun, and who started it would wait for it for good."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: list[_Running] = []
        self._thread: threading.Thread | None = None

    def begin(self, who: str, cursor: Any, seconds: float) -> _Running:
        running = _Running(who, cursor, time.monotonic() + seconds)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="clock", daemon=True)
                self._thread.start()
            self._running.append(running)
            self._changed.notify()
        return running

    def end(self, running: _Running) -> None:
        with self._changed:
            self._running.remove(running)

    def stuck(self, since: float) -> str:
        with self._changed:
            return next((one.who for one in self._running if one.until < since), "")

    def _serve(self) -> None:
        with self._changed:
            while True:
                self._changed.wait(AGAIN_SECONDS if self._running else None)
                now = time.monotonic()
                for one in self._running:
                    if now >= one.until:
                        one.late = True
                        one.cursor.interrupt()


def _judge(cursor: Any, text: str) -> None:
    """One statement, and one that reads: EXPLAIN ANALYZE does what it explains. Raises: Refused, duckdb.Error."""
    kinds = [one.type.name for one in cursor.extract_statements(text)]
    if kinds == ["EXPLAIN"] and (match := _EXPLAIN.match(text)) is not None:
        kinds = [one.type.name for one in cursor.extract_statements(match[1])]
    if kinds != ["SELECT"]:
        raise Refused("one statement that reads: SELECT (or WITH, FROM, EXPLAIN of one)")


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them."""
    columns = []
    for column in table.columns:
        if pa.types.is_timestamp(column.type):
            factor = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[column.type.unit]
            numbers = column.cast(pa.int64()).to_pylist()
            columns.append([None if one is None else time_of(one * factor) for one in numbers])
        else:
            columns.append([_plain(one) for one in column.to_pylist()])
    names = table.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1 << 53:
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (decimal.Decimal, datetime.date, datetime.time, datetime.timedelta)):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
