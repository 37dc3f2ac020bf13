"""Reading the store, as the reader does it: a mount that it cannot write, whose keeper it never speaks with.

A `View` is one generation: the catalogue as it was, and what of the hot log lay behind it. Everything here runs in a
thread, and is told when to give up.

Not here: HTTP (api), what a principal may read (policy.terms.mirror_rows), SQL (sql).
"""

from __future__ import annotations

import bisect
import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cofferdam.brokers.mirror import catalogue, hot, sealing
from cofferdam.brokers.mirror.catalogue import Catalogue, File, Tag
from cofferdam.brokers.mirror.columns import HOUR_NS, STORED, stored, tidy

OPEN_MOST: Final = 512
"""Sealed files whose footers are kept."""
BYTES_MOST: Final = 256 << 20
"""Of one answer, as it is in memory."""
GOOD, UNCERTAIN, BAD = 0, 1, 2


class TooMuch(Exception):
    """A query met a limit, which this names."""


class Deadline:
    """When a query has to give up."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds
        self._seconds = seconds

    def check(self) -> None:
        """Raises: TooMuch."""
        if time.monotonic() > self._at:
            raise TooMuch(f"it took more than {self._seconds:g} s")


class _HotFile(NamedTuple):
    """What of a hot file has been read: its size then, its batches, all of them in the form STORED, and their tags."""

    size: int
    commits: list[hot.Commit]
    table: pa.Table
    tags: dict[str, Tag]


class Reading:
    """The store, read-only. Threads share it; its caches have a lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._catalogue = Catalogue()
        self._stamp: tuple[int, int, int] = (0, 0, 0)
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._hot: dict[str, _HotFile] = {}

    def view(self) -> View:
        """The store as it is now. Raises: StoreError."""
        with self._lock:
            found = self._known()
            tables, commits, tags = [], [], []
            paths = hot.files(self.folder, found.sealed)
            names = {path.name for path in paths}
            for name in [name for name in self._hot if name not in names]:
                del self._hot[name]
            for path in paths:
                one = self._hot_file(path)
                if one is None:
                    continue
                if one.commits and one.commits[0].commit <= found.sealed:
                    rest = [each for each in one.commits if each.commit > found.sealed]
                    tables.append(stored([(each.commit, each.batch) for each in rest]))
                    tags.append(_tags_of(rest))
                    commits += rest
                else:
                    tables.append(one.table)
                    tags.append(one.tags)
                    commits += one.commits
            return View(self, found, tables, commits, tags)

    def _known(self) -> Catalogue:
        try:
            facts = (self.folder / catalogue.NAME).stat()
        except FileNotFoundError:
            return Catalogue()
        stamp = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if stamp != self._stamp:
            self._catalogue, self._stamp = catalogue.load(self.folder), stamp
        return self._catalogue

    def _hot_file(self, path: Path) -> _HotFile | None:
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        had = self._hot.get(path.name)
        if had is not None and had.size == size:
            return had
        commits = list(hot.read(path, len(had.commits) if had is not None else 0))
        if had is not None and len(commits) > len(had.commits):
            fresh = stored([(one.commit, one.batch) for one in commits[len(had.commits) :]])
            table = pa.concat_tables([had.table, fresh])
            tags = dict(had.tags)
            _add_tags(tags, _tags_of(commits[len(had.commits) :]))
        else:
            table = stored([(one.commit, one.batch) for one in commits])
            tags = _tags_of(commits)
        found = self._hot[path.name] = _HotFile(size, commits, table, tags)
        return found

    def file(self, name: str) -> pq.ParquetFile:
        """A sealed file, its footer read. Raises: StoreError."""
        with self._lock:
            found = self._open.pop(name, None)
            if found is None:
                found = sealing.open_file(self.folder / name)
            self._open[name] = found
            if len(self._open) > OPEN_MOST:
                self._open.popitem(last=False)
            return found


class View:
    """One generation."""

    def __init__(
        self, reading: Reading, found: Catalogue, tables: Sequence[pa.Table], commits: Sequence[hot.Commit],
        tags: Sequence[dict[str, Tag]],
    ) -> None:  # fmt: skip
        self._reading = reading
        self.catalogue = found
        self._tables = tables
        self.commits = commits
        self._hot_tags = tags
        self.commit = commits[-1].commit if commits else found.sealed
        self._tags: dict[str, Tag] | None = None

    @property
    def folder(self) -> Path:
        return self._reading.folder

    @property
    def mark(self) -> str:
        """What stands for the whole of it: an ETag."""
        return f"{self.catalogue.generation}-{self.commit}"

    def hot(self) -> pa.Table:
        """What is not sealed yet, as it came."""
        return pa.concat_tables(self._tables) if self._tables else STORED.empty_table()

    def tags(self) -> dict[str, Tag]:
        """All tags, those of the hot log as well."""
        if self._tags is None:
            self._tags = self._all_tags()
        return self._tags

    def _all_tags(self) -> dict[str, Tag]:
        found = dict(self.catalogue.tags)
        for more in self._hot_tags:
            _add_tags(found, more)
        return found

    def samples(
        self, tags: Sequence[str], since: int, until: int, deadline: Deadline, *, most: int = 0, revisions: bool = False
    ) -> pa.Table:
        """The samples of some tags from `since` until before `until`, sorted, in the form STORED: of each time the
        last revision, or all of them. Raises: TooMuch with more than `most` rows (0: any); StoreError."""
        found = []
        rows = size = 0
        wanted = pa.array(sorted(tags), pa.string())
        for table in itertools.chain(self._groups(sorted(tags), since, until, deadline), self._tables):
            part = _cut(table, wanted, since, until)
            rows += part.num_rows
            size += part.nbytes
            deadline.check()
            if most and size > BYTES_MOST:
                raise TooMuch(f"more than {BYTES_MOST >> 20} MiB: ask for less time or fewer tags")
            if most and rows > 2 * most:
                raise TooMuch(f"more than {most} rows: ask for less time or fewer tags, or for aggregates")
            if part.num_rows:
                found.append(part)
        if not found:
            return STORED.empty_table()
        table = tidy(pa.concat_tables(found), latest=not revisions)
        if most and table.num_rows > most:
            raise TooMuch(f"more than {most} rows: ask for less time or fewer tags, or for aggregates")
        return table

    def changes(self, tags: Sequence[str], after: int, deadline: Deadline, most: int) -> tuple[pa.Table, int]:
        """What was committed after `after`, in the order of commits, and up to which commit that is all: about `most`
        rows. Nothing that comes late is passed over, since commits are numbered as they come. Raises: TooMuch."""
        early = _Early(tags, after, most)
        for file in sorted(self.catalogue.files, key=lambda file: file.commits):
            if file.commits <= after:
                continue
            opened = self._reading.file(file.name)
            for index in range(opened.num_row_groups):
                stats = opened.metadata.row_group(index).column(8).statistics
                if stats is None or not stats.has_min_max or (stats.max_raw > after and stats.min_raw <= early.last):
                    deadline.check()
                    early.add(sealing.read_group(opened, index).cast(STORED))
        for table in self._tables:
            deadline.check()
            early.add(table)
        return early.found(self.commit)

    def _groups(self, tags: Sequence[str], since: int, until: int, deadline: Deadline) -> Iterator[pa.Table]:
        """The row groups that may have something of it."""
        if not tags:
            return
        low, high = tags[0].encode(), tags[-1].encode()
        for file in self.files(since, until):
            opened = self._reading.file(file.name)
            for index in range(opened.num_row_groups):
                columns = opened.metadata.row_group(index)
                if not _overlaps(columns.column(0).statistics, low, high, text=True):
                    continue
                if not _overlaps(columns.column(1).statistics, since, until - 1):
                    continue
                deadline.check()
                yield sealing.read_group(opened, index).cast(STORED)

    def files(self, since: int, until: int) -> list[File]:
        """The sealed files that may have samples of this time."""
        first, last = since // HOUR_NS, (until - 1) // HOUR_NS
        return [file for file in self.catalogue.files if file.first <= last and file.last >= first]

    def before(self, tag: str, at: int, deadline: Deadline, span: int = 31 * 24 * HOUR_NS) -> pa.Table:
        """The last sample of a tag at or before a time; none, where there is none within `span`."""
        known = self.tags().get(tag)
        if known is None or known.first > at:
            return STORED.empty_table()
        low = at
        step = HOUR_NS
        while low > max(known.first - 1, at - span):
            high, low = low, max(low - step, at - span, known.first - 1)
            found = self.samples([tag], low + 1, high + 1, deadline)
            if found.num_rows:
                return found.slice(found.num_rows - 1)
            step *= 4
        return STORED.empty_table()

    def after(self, tag: str, at: int, deadline: Deadline, span: int = 31 * 24 * HOUR_NS) -> pa.Table:
        """The first sample of a tag after a time."""
        known = self.tags().get(tag)
        if known is None or known.last <= at:
            return STORED.empty_table()
        high, step = at + 1, HOUR_NS
        while high <= min(known.last, at + span):
            low, high = high, min(high + step, at + span + 1, known.last + 1)
            found = self.samples([tag], low, high, deadline)
            if found.num_rows:
                return found.slice(0, 1)
            if high > known.last:
                break
            step *= 4
        return STORED.empty_table()


class _Early:
    """The first rows of some tags in the order of commits, whatever order tables come in: about `most` of them, and no
    more than a few times that in memory."""

    def __init__(self, tags: Sequence[str], after: int, most: int) -> None:
        self._wanted = pa.array(sorted(tags), pa.string())
        self._after, self._most = after, most
        self._found: list[pa.Table] = []
        self._rows = self._size = 0
        self.last = 1 << 62
        """Later commits are not among them."""
        self._cut = False

    def add(self, table: pa.Table) -> None:
        commits = table["commit"]
        here = pc.and_(pc.greater(commits, self._after), pc.less_equal(commits, self.last))
        fresh = table.filter(pc.and_(here, pc.is_in(table["tag"], self._wanted)))
        if fresh.num_rows:
            self._found.append(fresh)
            self._rows += fresh.num_rows
            self._size += fresh.nbytes
            if self._rows > 2 * self._most or self._size > BYTES_MOST:
                self._prune()

    def _prune(self) -> None:
        """Whole commits, and at least one, until there are enough."""
        table = pa.concat_tables(self._found)
        table = table.take(
            pc.sort_indices(table, [("commit", "ascending"), ("tag", "ascending"), ("time", "ascending")])
        )
        share = BYTES_MOST * table.num_rows // max(1, table.nbytes)
        most = min(self._most, share)
        if table.num_rows > most:
            first, upto = table["commit"][0].as_py(), table["commit"][most].as_py()
            self.last = upto if upto == first else upto - 1
            table = table.filter(pc.less_equal(table["commit"], self.last))
            self._cut = True
        self._found, self._rows, self._size = [table], table.num_rows, table.nbytes

    def found(self, commit: int) -> tuple[pa.Table, int]:
        if not self._found:
            return STORED.empty_table(), commit
        self._prune()
        return self._found[0], self.last if self._cut else commit


def _tags_of(commits: Iterable[hot.Commit]) -> dict[str, Tag]:
    found: dict[str, Tag] = {}
    for one in commits:
        batch = one.batch
        if not batch.num_rows:
            continue
        plain = pa.table({"tag": batch.column(0).indices, "time": batch.column(1), "kind": batch.column(2)})
        rows = plain.group_by("tag", use_threads=False).aggregate(
            [("time", "min"), ("time", "max"), ("time", "count"), ("kind", "last")]
        ).to_pylist()  # fmt: skip
        names = batch.column(0).dictionary.to_pylist()
        _add_tags(found, {
            names[row["tag"]]: Tag(one.source, row["kind_last"], row["time_min"], row["time_max"], row["time_count"])
            for row in rows
        })  # fmt: skip
    return found


def _add_tags(found: dict[str, Tag], more: dict[str, Tag]) -> None:
    """What came later to what is known; nothing that is shared is changed."""
    for name, tag in more.items():
        had = found.get(name)
        if had is not None:
            first, last = min(tag.first, had.first), max(tag.last, had.last)
            tag = Tag(tag.source, tag.kind, first, last, had.points + tag.points)
        found[name] = tag


def _cut(table: pa.Table, tags: pa.Array, since: int, until: int) -> pa.Table:
    times = table["time"].cast(pa.int64())
    since, until = max(since, -(1 << 63)), min(until, (1 << 63) - 1)
    here = pc.and_(pc.greater_equal(times, since), pc.less(times, until))
    of = pc.equal(table["tag"], tags[0]) if len(tags) == 1 else pc.is_in(table["tag"], tags)
    return table.filter(pc.and_(here, of))


def _overlaps(stats: Any, low: Any, high: Any, *, text: bool = False) -> bool:
    if stats is None or not stats.has_min_max:
        return True
    least, most = stats.min_raw, stats.max_raw
    if text:
        least, most = (one if isinstance(one, bytes) else str(one).encode() for one in (least, most))
    found: bool = least <= high and most >= low
    return found


# --- quality --------------------------------------------------------------------------------------------------------


def verdict(quality: Any) -> Any:
    """Good, uncertain or bad, of a column of raw qualities. An OPC UA StatusCode says it in its upper two bits; an OPC
    DA quality (192 and above is good) in the upper two of its lower byte. 0 is good in the one and bad in the other:
    here it is good, as a source without qualities says nothing else."""
    ua = pc.greater(quality, 0xFFFF)
    upper = pc.bit_wise_and(pc.shift_right(quality, 30), 3)
    of_ua = pc.if_else(pc.equal(upper, 0), GOOD, pc.if_else(pc.equal(upper, 1), UNCERTAIN, BAD))
    lower = pc.bit_wise_and(pc.shift_right(quality, 6), 3)
    of_da = pc.if_else(
        pc.or_(pc.equal(quality, 0), pc.equal(lower, 3)), GOOD, pc.if_else(pc.equal(lower, 1), UNCERTAIN, BAD)
    )
    return pc.if_else(ua, of_ua, of_da)


# --- aggregates -----------------------------------------------------------------------------------------------------

PIECE_NS: Final = 8 * 24 * HOUR_NS
"""Aggregates are reckoned over so long at a time, or one step if it is longer."""
FUNCTIONS: Final = (
    "avg", "time_avg", "min", "max", "count", "first", "last", "delta", "good", "uncertain", "bad",
)  # fmt: skip


class Bucket(NamedTuple):
    """One step of an aggregate: its beginning, and what there is of it by function."""

    tag: str
    begin: int
    values: dict[str, float | int | None]


def aggregate(
    view: View, tags: Sequence[str], edges: Sequence[int], functions: Sequence[str], deadline: Deadline, most: int,
    now: int,
) -> Iterator[Bucket]:  # fmt: skip
    """Aggregates of some tags over the steps between `edges` (UTC ns, ascending). Bad samples count as bad seconds and
    nothing else. `time_avg`, and the seconds, take a value to hold until the next sample, and the last one until
    `now`. Raises: TooMuch, StoreError."""
    weighted = bool({"time_avg", "good", "uncertain", "bad"} & set(functions))
    hold = min(now, edges[-1]) if weighted else None
    for tag in tags:
        at = 0
        while at < len(edges) - 1:  # some days at a time: of a year, not all is in memory
            upto = bisect.bisect_right(edges, edges[at] + PIECE_NS, at + 2) - 1
            piece = edges[at : upto + 1]
            deadline.check()
            table = view.samples([tag], piece[0], piece[-1], deadline, most=most)
            lead = view.before(tag, piece[0] - 1, deadline) if weighted else STORED.empty_table()
            until = min(hold, piece[-1]) if hold is not None else None
            yield from _of_tag(tag, table, lead, pa.array(piece, pa.int64()), piece, functions, until)
            at = upto


def _of_tag(
    tag: str, table: pa.Table, lead: pa.Table, steps: pa.Array, edges: Sequence[int], functions: Sequence[str],
    hold: int | None,
) -> Iterator[Bucket]:  # fmt: skip
    if not table.num_rows and not lead.num_rows:
        return
    times = table["time"].cast(pa.int64())
    place = _places(times, steps)
    good = pc.and_(
        pc.not_equal(verdict(table["quality"]), BAD),
        pc.and_(pc.is_valid(table["value"]), pc.invert(pc.is_nan(pc.fill_null(table["value"], 0.0)))),
    )
    plain = pa.table({"place": place, "time": times, "value": table["value"]}).filter(good)
    grouped = plain.group_by("place", use_threads=False).aggregate(
        [("value", "mean"), ("value", "min"), ("value", "max"), ("value", "count"), ("value", "first"),
         ("value", "last")]
    ).to_pydict()  # fmt: skip
    names = {"avg": "value_mean", "min": "value_min", "max": "value_max", "count": "value_count",
             "first": "value_first", "last": "value_last"}  # fmt: skip
    found: dict[int, dict[str, Any]] = {}
    for index, at in enumerate(grouped["place"]):
        found[at] = {name: grouped[column][index] for name, column in names.items()}
        found[at]["delta"] = found[at]["last"] - found[at]["first"]
    if hold is not None:
        _weigh(found, pa.concat_tables([lead, table]), edges, hold)
    for at in sorted(found):
        values = found[at]
        yield Bucket(tag, edges[at], {name: values.get(name, 0 if name == "count" else None) for name in functions})


def _places(times: Any, steps: pa.Array) -> Any:
    """In which step each time lies."""
    flat = times.combine_chunks() if isinstance(times, pa.ChunkedArray) else times
    width = steps[1].as_py() - steps[0].as_py()
    even = len(steps) < 3 or steps[-2].as_py() - steps[0].as_py() == width * (len(steps) - 2)
    if even:
        return pc.divide(pc.subtract(flat, steps[0]), width)
    edges = steps.to_pylist()
    return pa.array([bisect.bisect_right(edges, at) - 1 for at in flat.to_pylist()], pa.int64())


def _weigh(found: dict[int, dict[str, Any]], table: pa.Table, edges: Sequence[int], hold: int) -> None:
    """Time-weighted average and seconds by quality: each sample holds until the next, within its steps."""
    times = table["time"].cast(pa.int64()).to_pylist()
    values, kinds = table["value"].to_pylist(), verdict(table["quality"]).to_pylist()
    sums: dict[int, list[float]] = {}
    for index, begin in enumerate(times):
        end = times[index + 1] if index + 1 < len(times) else hold
        begin = max(begin, edges[0])
        at = bisect.bisect_right(edges, begin) - 1
        while begin < end and at < len(edges) - 1:
            upto = min(end, edges[at + 1])
            span = (upto - begin) / 1e9
            one = sums.setdefault(at, [0.0, 0.0, 0.0, 0.0, 0.0])
            one[2 + kinds[index]] += span
            value = values[index]
            if kinds[index] != BAD and value is not None and not math.isnan(value):
                one[0] += value * span
                one[1] += span
            begin, at = upto, at + 1
    for at, (total, span, good, uncertain, bad) in sums.items():
        one_found = found.setdefault(at, {})
        one_found |= {"good": round(good, 9), "uncertain": round(uncertain, 9), "bad": round(bad, 9),
                      "time_avg": total / span if span > 0 and math.isfinite(total) else None}  # fmt: skip
