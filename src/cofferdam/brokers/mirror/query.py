"""Reading the store, as the reader does it: a mount that it cannot write, whose keeper it never speaks with.

A `View` is one generation: the catalogue as it was, and what of the hot log lay behind it. Everything here runs in a
thread, and is told when to give up.

Not here: HTTP (api), what a principal may read (policy.terms.mirror_rows), SQL (sql).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cofferdam.brokers.mirror import catalogue, hot, partials, sealing
from cofferdam.brokers.mirror.catalogue import Catalogue, File, Tag
from cofferdam.brokers.mirror.columns import HOUR_NS, NO_TIME, STORED, mixed, stored, tidy
from cofferdam.errors import StoreError

OPEN_MOST: Final = 512
"""Sealed files whose footers are kept."""
BYTES_MOST: Final = 256 << 20
"""Of one answer, as it is in memory."""


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
        self._once: dict[str, tuple[int, int, bool]] = {}
        self._alone_of: Catalogue | None = None
        self._alone: dict[int, list[tuple[int, int, str]]] = {}

    def view(self) -> View:
        """The store as it is now. Raises: StoreError."""
        with self._lock:
            found = self._known()
            tables, commits, tags = [], [], []
            came: list[tuple[str, Sequence[hot.Commit]]] = []
            paths = hot.files(self.folder, found.sealed)
            names = {path.name for path in paths}
            for name in [name for name in self._hot if name not in names]:
                del self._hot[name]
                self._once.pop(name, None)
            for path in paths:
                one = self._hot_file(path)
                if one is None:
                    continue
                if one.commits and one.commits[0].commit <= found.sealed:
                    rest = [each for each in one.commits if each.commit > found.sealed]
                    tables.append(stored([(each.commit, each.batch) for each in rest]))
                    tags.append(_tags_of(rest))
                    commits += rest
                    came.append((path.name, rest))
                else:
                    tables.append(one.table)
                    tags.append(one.tags)
                    commits += one.commits
                    came.append((path.name, one.commits))
            return View(self, found, tables, commits, tags, came)

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

    def once(self, name: str, commits: Sequence[hot.Commit]) -> bool:
        """Whether the samples that a hot file has of these commits come in the order of time, batch by batch, and no
        two of a batch are of one tag and time: then there is one of each."""
        with self._lock:
            upto, last, well = self._once.get(name, (0, NO_TIME, True))
            for one in commits:
                if well and one.commit > upto and one.batch.num_rows:
                    times = one.batch.column(1)
                    ends = pc.min_max(times).as_py()
                    keys = mixed(times, pc.cast(one.batch.column(0).indices, pa.int64()))
                    well = ends["min"] > last and pc.count_distinct(keys).as_py() == len(keys)
                    last = ends["max"]
                upto = max(upto, one.commit)
            self._once[name] = (upto, last, well)
            return well

    def alone(self, found: Catalogue, step: int) -> list[tuple[int, int, str]]:
        """The times (UTC ns) of which one sealed file has everything, and that was reckoned beforehand: from, to, and
        the file that has it."""
        with self._lock:
            if self._alone_of is not found:
                self._alone_of, self._alone = found, {}
            if step not in self._alone:
                self._alone[step] = _alone(found, step)
            return self._alone[step]

    def file(self, name: str, schema: pa.Schema = STORED) -> pq.ParquetFile:
        """A sealed file, its footer read. Raises: StoreError."""
        with self._lock:
            found = self._open.pop(name, None)
            if found is None:
                found = sealing.open_file(self.folder / name, schema)
            self._open[name] = found
            if len(self._open) > OPEN_MOST:
                self._open.popitem(last=False)
            return found


class View:
    """One generation."""

    def __init__(
        self, reading: Reading, found: Catalogue, tables: Sequence[pa.Table], commits: Sequence[hot.Commit],
        tags: Sequence[dict[str, Tag]], came: Sequence[tuple[str, Sequence[hot.Commit]]],
    ) -> None:  # fmt: skip
        self._reading = reading
        self.catalogue = found
        self._tables = tables
        self.commits = commits
        self._hot_tags = tags
        self._came = came
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

    def unrevised(self) -> tuple[set[str], pa.Table, pa.Table]:
        """The names of the sealed files of which no sample can have another revision: there is none in them, and
        nothing else has anything of their time. What of the hot log is so, and what is not."""
        files = self.catalogue.files
        spans = {file.name: (file.first * HOUR_NS, (file.last + 1) * HOUR_NS - 1) for file in files}
        tables = {name: table for (name, _), table in zip(self._came, self._tables, strict=True) if table.num_rows}
        ends = {name: pc.min_max(table["time"].cast(pa.int64())).as_py() for name, table in tables.items()}
        spans |= {name: (one["min"], one["max"]) for name, one in ends.items()}
        near = _overlapping((*span, name) for name, span in spans.items())
        if len(near) <= OPEN_MOST:  # hours say too little of files of one day: they say themselves of when they are
            for name in near - tables.keys():
                spans[name] = self._span(name) or spans[name]
            near = _overlapping((*span, name) for name, span in spans.items())
        once = {name for name, some in self._came if name in tables.keys() - near and self._reading.once(name, some)}
        parted = [
            pa.concat_tables(
                [STORED.empty_table(), *(table for name, table in tables.items() if (name in once) == well)]
            )
            for well in (True, False)
        ]
        return {file.name for file in files if file.revised == 0} - near, *parted

    def _span(self, name: str) -> tuple[int, int] | None:
        """The first and the last time (UTC ns) that a sealed file has; None, where it does not say."""
        try:
            meta = self._reading.file(name).metadata
        except StoreError:
            return None
        found = [meta.row_group(index).column(1).statistics for index in range(meta.num_row_groups)]
        if not found or not all(stats is not None and stats.has_min_max for stats in found):
            return None
        return min(stats.min_raw for stats in found), max(stats.max_raw for stats in found)

    def damaged(self) -> Iterator[tuple[str, str]]:
        """The sealed files that are not as they were sealed, and why not: each is read whole."""
        for file in self.catalogue.files:
            path = self.folder / file.name
            try:
                if sealing.sha256_of(path) != file.sha256:
                    yield file.name, "its bytes are not those that were sealed"
                elif sum(group.num_rows for group in sealing.read_groups(path)) != file.rows:
                    yield file.name, "it has another number of samples"
            except (OSError, StoreError) as error:
                yield file.name, str(error)
        for name in partials.damaged(self.folder, self.catalogue.reckoned):
            yield name, "its aggregates are not those that were reckoned; samples are read instead"

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
                if not sealing.overlaps(columns.column(0).statistics, low, high, text=True):
                    continue
                if not sealing.overlaps(columns.column(1).statistics, since, until - 1):
                    continue
                deadline.check()
                yield sealing.read_group(opened, index).cast(STORED)

    def reckoned(
        self, tag: str, since: int, until: int, step: int, deadline: Deadline, names: Sequence[str]
    ) -> tuple[list[pa.Table], list[tuple[int, int]]]:
        """What was reckoned beforehand of a tag (columns of PARTIAL, or HOURLY, by steps of so many seconds), and the
        spans of time for which that is all there is, in order. A file that cannot be read is passed over: samples are
        read instead."""
        hot = [pc.min_max(part["time"].cast(pa.int64())).as_py() for table in self._tables
               if (part := _cut(table, pa.array([tag]), since, until)).num_rows]  # fmt: skip
        schema = partials.HOURLY if step == partials.HOUR else partials.PARTIAL
        by_file: dict[str, list[tuple[int, int]]] = {}
        for low, high, name in self._reading.alone(self.catalogue, step):
            low, high = max(low, since), min(high, until)
            if low < high and not any(one["min"] < high and one["max"] >= low for one in hot):
                by_file.setdefault(name, []).append((low, high))
        found, spans = [], []
        for name, some in by_file.items():
            deadline.check()
            try:
                opened = self._reading.file(name, schema)
                groups = [
                    sealing.read_group(opened, index, ["tag", *names]) for index in sealing.groups_of(opened, tag, tag)
                ]
            except StoreError:
                continue
            for table in groups:
                mine = table.filter(pc.equal(table["tag"], tag)).select(names)
                found.append(partials.within(mine, _joined(some)))
            spans += some
        return found, sorted(spans)

    def files(self, since: int, until: int) -> list[File]:
        """The sealed files that may have samples of this time."""
        first, last = since // HOUR_NS, (until - 1) // HOUR_NS
        return [file for file in self.catalogue.files if file.first <= last and file.last >= first]

    def before(self, tag: str, at: int, deadline: Deadline, span: int = 31 * 24 * HOUR_NS) -> pa.Table:
        """The last sample of a tag at or before a time; none, where there is none within `span`, and a later one."""
        known = self.tags().get(tag)
        if known is None or known.first > at:
            return STORED.empty_table()
        at = min(at, known.last)  # what a setting was set to last holds for years
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


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of time that follow each other as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if found and found[-1][1] == low:
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return found


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


def _alone(found: Catalogue, step: int) -> list[tuple[int, int, str]]:
    where = {name: one.name for one in found.reckoned if one.step == step for name in one.of}
    files = sorted(found.files, key=lambda file: (file.first, file.last))
    spans = []
    reach = -(1 << 62)  # the last hour of all files before
    for index, file in enumerate(files):
        following = files[index + 1].first if index + 1 < len(files) else 1 << 62
        if file.name in where and reach < file.first and following > file.last:
            spans.append((file.first * HOUR_NS, (file.last + 1) * HOUR_NS, where[file.name]))
        reach = max(reach, file.last)
    return spans


def _overlapping(spans: Iterable[tuple[int, int, str]]) -> set[str]:
    """The names of those spans (first, last, name) that have something in common with another."""
    found: set[str] = set()
    reach, whose = -(1 << 64), ""
    for first, last, name in sorted(spans):
        if first <= reach:
            found |= {name, whose}
        if last > reach:
            reach, whose = last, name
    return found


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
