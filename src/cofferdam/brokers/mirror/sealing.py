"""Sealed files: Parquet, sorted by (tag, time), row groups of about 50,000 rows cut at the borders of tags.

What is taken is sealed hour by hour; files of the same hours are later made into one, without repetitions. Everything
here reads and writes files and decides nothing, so that it may run in a thread beside the keeper's work.

Not here: when (keeper), the catalogue (catalogue).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cofferdam.brokers.mirror.catalogue import File, failed, sync_folder
from cofferdam.brokers.mirror.columns import DAY_NS, HOUR_NS, STORED, in_order, places, stored, tidy
from cofferdam.brokers.mirror.hot import Commit
from cofferdam.errors import StoreError

GROUP_ROWS: Final = 50_000
AT_ONCE_ROWS: Final = 100_000
"""Of samples that are made into one file: so many are in memory at a time."""
DAY_HOURS: Final = 24
FACTS: Final = "cofferdam"
"""The key of a file's facts in its metadata."""
_NAME: Final = re.compile(
    r"(?:h(-?[0-9]{7,9})|d(-?[0-9]{7,9})-(-?[0-9]{7,9}))-([0-9]{16})(?:-([0-9]{1,9}))?\.parquet\Z"
)


class Facts(msgspec.Struct, frozen=True):
    """What a sealed file says of itself: hours, the commit up to which it has what was taken, by lane the number of the
    last batch among that, the files that it was made of, and what of it is `revised` (catalogue.File). `commits` 0: it
    is of a version that said nothing."""

    first: int = 0
    last: int = 0
    commits: int = 0
    taken: dict[str, int] = {}
    of: tuple[str, ...] = ()
    revised: int = -1


def facts_of(file: pq.ParquetFile) -> Facts:
    """Those of an open file."""
    said = (file.metadata.metadata or {}).get(FACTS.encode())
    try:
        return msgspec.json.decode(said, type=Facts) if said is not None else Facts()
    except msgspec.MsgspecError:
        return Facts()


def is_name(name: str) -> bool:
    """Whether a sealed file may be called so."""
    return _NAME.match(name) is not None


def commit_in(name: str) -> int:
    """The commit in the name of a sealed file; 0 for another name."""
    found = _NAME.match(name)
    return int(found[4]) if found is not None else 0


def is_merged(name: str) -> bool:
    """Whether a sealed file of this name was made of others."""
    found = _NAME.match(name)
    return found is not None and found[1] is None


def round_in(name: str) -> int:
    """How often, one after the other, files were put together for it: two of the same hours and commits have not the
    same name by that."""
    found = _NAME.match(name)
    return int(found[5] or found[1] is None) if found is not None else 0


def hours_in(name: str) -> tuple[int, int]:
    """The first and the last hour that the name of a sealed file tells: of one that is not merged, those of its day."""
    found = _NAME.match(name)
    if found is None:
        return 0, 0
    if found[1] is not None:
        first = int(found[1])
        return first, first // DAY_HOURS * DAY_HOURS + DAY_HOURS - 1
    return int(found[2]), int(found[3])


def seal(
    folder: Path, commits: Sequence[Commit], seen: Counter[str] | None = None, before: Before | None = None
) -> list[File]:
    """Commits as sealed files, durable on return: one for each day that they touch, which in the run of things is one
    for the hour that is over; none, where all of a day is sealed already (`before`), for nothing is sealed twice.
    `seen` is told what was `repeated` and `revised`. Raises: StoreError: no file of it is there."""
    some = [one for one in commits if one.batch.num_rows]
    if not some:
        return []
    upto = max(one.commit for one in commits)
    taken: dict[str, int] = {}
    for one in commits:
        taken[one.lane] = max(taken.get(one.lane, 0), one.number)
    days: dict[int, list[tuple[Commit, pa.Array | None]]] = {}
    for one in some:
        for day, rows in _by_day(one.batch.column(1)):
            days.setdefault(day, []).append((one, rows))
    before = before if before is not None else Before(folder, ())
    while True:  # once more for each file that turns out to be unreadable, at most
        bad, counts = len(before.unreadable), Counter[str]()
        found: list[File] = []
        try:
            for _, parts in sorted(days.items()):
                if (file := _sealed(folder, parts, upto, taken, counts, before)) is not None:
                    found.append(file)
        except StoreError:
            _remove(folder, found)
            raise
        if len(before.unreadable) == bad:
            break
        _remove(folder, found)  # what they lack may be in a file that is set aside now, whatever of it could be read
    settle(folder)
    if seen is not None:
        seen.update(counts)
    return found


def _sealed(
    folder: Path, parts: Sequence[tuple[Commit, pa.Array | None]], upto: int, taken: dict[str, int],
    seen: Counter[str], before: Before,
) -> File | None:  # fmt: skip
    """What commits have of a day as a file; None, where all of it is sealed. Raises: StoreError."""
    pieces = [(one.commit, one.batch if rows is None else one.batch.take(rows)) for one, rows in parts]
    ends = [pc.min_max(batch.column(1)).as_py() for _, batch in pieces]
    first, last = min(one["min"] for one in ends) // HOUR_NS, max(one["max"] for one in ends) // HOUR_NS
    facts = Facts(first, last, upto, taken)
    name = f"h{first:08d}-{upto:016d}"
    return _write(folder, name, _tidied(pieces, seen, before.of(first, last)), facts)


def _remove(folder: Path, files: Iterable[File]) -> None:
    """Files that no catalogue names. Raises: StoreError."""
    try:
        for file in files:
            (folder / file.name).unlink()
    except OSError as error:
        raise failed(error, folder) from None


class Before:
    """What is sealed already: the files of a catalogue. `unreadable`: the names of those of which something could not
    be read: they are set aside, and nothing counts as sealed by them."""

    def __init__(self, folder: Path, files: Iterable[File]) -> None:
        self._folder = folder
        self._files = tuple(files)
        self.unreadable: set[str] = set()

    def of(self, first: int, last: int) -> list[_Known]:
        """The files that may have samples of these hours, and can be read as far as is known."""
        found = []
        for file in self._files:
            if file.name not in self.unreadable and file.first <= last and file.last >= first:
                try:
                    found.append(_Known(self._folder / file.name, self.unreadable))
                except Unreadable:
                    self.unreadable.add(file.name)
        return found


class _Known:
    """A sealed file of which other samples may be. Raises: Unreadable."""

    def __init__(self, path: Path, unreadable: set[str]) -> None:
        self._name, self._unreadable = path.name, unreadable
        self._file = open_file(path, mapped=False)
        groups = [self._file.metadata.row_group(index) for index in range(self._file.num_row_groups)]
        self._ends = [(group.column(0).statistics, group.column(1).statistics) for group in groups]

    def like(self, table: pa.Table) -> Iterator[pa.Table]:
        """Its samples that have a tag and a time of those in a table (STORED)."""
        names, times = pc.unique(table["tag"]), pc.unique(table["time"])
        tags, ends = sorted(one.encode() for one in names.to_pylist()), pc.min_max(times.cast(pa.int64())).as_py()
        for index, (of_tags, of_times) in enumerate(self._ends):
            if overlaps(of_tags, tags[0], tags[-1], text=True) and overlaps(of_times, ends["min"], ends["max"]):
                try:
                    some = read_group(self._file, index, ["tag", "time"])
                    mask = pc.and_(pc.is_in(some["tag"], names), pc.is_in(some["time"].cast(times.type), times))
                    if pc.any(mask).as_py():
                        yield read_group(self._file, index).cast(STORED).filter(mask)
                except Unreadable:
                    self._unreadable.add(self._name)


def overlaps(stats: Any, low: Any, high: Any, *, text: bool = False) -> bool:
    """Whether a column of a row group may have a value from `low` to `high`, as it says of itself."""
    if stats is None or not stats.has_min_max:
        return True
    least, most = stats.min_raw, stats.max_raw
    if text:
        least, most = _bytes(least), _bytes(most)
    found: bool = least <= high and most >= low
    return found


def days_of(times: pa.Array) -> frozenset[int]:
    """The days since 1970 that some times are of."""
    ends = pc.min_max(times).as_py()
    first, last = ends["min"] // DAY_NS, ends["max"] // DAY_NS
    return frozenset((first, last) if last - first < 2 else pc.unique(_days(times)).to_pylist())


def _days(times: pa.Array) -> pa.Array:
    return pc.divide(floor_to(times, DAY_NS), DAY_NS)


def _by_day(times: pa.Array) -> Iterator[tuple[int, pa.Array | None]]:
    """The days since 1970 that some times are of, and which of them are; None: all."""
    own = days_of(times)
    if len(own) == 1:
        yield from ((day, None) for day in own)
        return
    days = _days(times)
    order = pc.sort_indices(days)  # it leaves those of one day in the order in which they came
    at = 0
    runs = pc.run_end_encode(days.take(order))
    for day, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        yield day, order.slice(at, end - at)
        at = end


def _tidied(
    pieces: Sequence[tuple[int, pa.RecordBatch]], seen: Counter[str], known: Sequence[_Known]
) -> Iterator[pa.Table]:
    """Batches (HOT) with their commits as sealed files have them, in order and without repetitions, of what is `known`
    either: some tags at a time, as many as a row group has, since all of them take several times the memory that they
    had."""
    own = min(commit for commit, _ in pieces)
    tags = pa.chunked_array([batch.column(0) for _, batch in pieces]).unify_dictionaries()
    names: list[str] = tags.chunk(0).dictionary.to_pylist()
    counts = {one["values"]: one["counts"] for one in pc.value_counts(_indices(tags)).to_pylist()}
    slices, number, rows = [0] * len(names), 0, 0
    for place in sorted(counts, key=lambda place: names[place].encode()):
        if rows and rows + counts[place] > GROUP_ROWS:
            number, rows = number + 1, 0
        slices[place] = number
        rows += counts[place]
    which = pa.array(slices, pa.int32())
    of = [which.take(chunk.indices) for chunk in tags.chunks]
    for at in range(number + 1):
        whole = stored([
            (commit, batch.filter(pc.equal(slice_of, at)) if number else batch)
            for (commit, batch), slice_of in zip(pieces, of, strict=True)
        ])  # fmt: skip
        had = [table for file in known for table in file.like(whole)]
        table = tidy(pa.concat_tables([*had, whole]))
        if had:  # they decide which is a repetition: that of the last revision before it, and of no other
            table = table.filter(pc.greater_equal(table["commit"], own))
        seen["repeated"] += whole.num_rows - table.num_rows
        seen["revised"] += table.num_rows - places(table)
        yield table


def _indices(tags: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([chunk.indices for chunk in tags.chunks], pa.int32())


def floor_to(times: Any, step: int) -> Any:
    """Times rounded down to multiples of a step, also before 1970."""
    whole = pc.multiply(pc.divide(times, step), step)
    return pc.subtract(whole, pc.multiply(pc.cast(pc.greater(whole, times), pa.int64()), step))


def damaged(folder: Path, files: Iterable[File]) -> list[str]:
    """The names of those that are not as they were sealed, or are gone."""
    found = []
    for file in files:
        try:
            whole = sha256_of(folder / file.name) == file.sha256
        except OSError:
            whole = False
        if not whole:
            found.append(file.name)
    return found


def merge(folder: Path, files: Sequence[File], *, whole: bool = True) -> File:
    """Several files of a day as one, durable on return: without repetitions where they are the `whole` of it. Of some
    of them nobody can say what repeats: another file may have a revision between two that are alike. Raises:
    StoreError."""
    first, last = min(one.first for one in files), max(one.last for one in files)
    upto = max(one.commits for one in files)
    paths = [folder / one.name for one in files]
    taken: dict[str, int] = {}
    for path in paths:
        for lane, number in facts_of(open_file(path)).taken.items():
            taken[lane] = max(taken.get(lane, 0), number)
    facts = Facts(first, last, upto, taken, tuple(one.name for one in files))
    name = f"d{first:08d}-{last:08d}-{upto:016d}-{1 + max(round_in(one.name) for one in files)}"
    found = _write(folder, name, merged(paths, whole=whole), facts)
    if found is None:
        raise StoreError(f"{files[0].name} and others have no samples")
    settle(folder)
    return found


def merged(paths: Sequence[Path], *, whole: bool = True) -> Iterator[pa.Table]:
    """The samples of several files, in order, without repetitions where they are the `whole` of a day: some tags at a
    time. Each row group is read once, and of each file one is in memory, less what has gone by."""
    counts: dict[str, int] = {}
    for path in paths:
        for group in read_groups(path, ["tag"]):
            for each in pc.value_counts(group["tag"].combine_chunks()).to_pylist():
                counts[each["values"]] = counts.get(each["values"], 0) + each["counts"]
    tags = sorted(counts, key=lambda text: text.encode())
    files = [_Ahead(path) for path in paths]
    rows = 0
    for index, tag in enumerate(tags):
        rows += counts[tag]
        if index + 1 == len(tags) or rows + counts[tags[index + 1]] > AT_ONCE_ROWS:
            table = pa.concat_tables([table for file in files for table in file.upto(tag)])
            yield tidy(table) if whole else in_order(table)
            rows = 0


class _Ahead:
    """A sealed file that is read from its first row group to its last."""

    def __init__(self, path: Path) -> None:
        self._file = open_file(path, mapped=False)
        self._next = 0
        self._rest = STORED.empty_table()

    def upto(self, tag: str) -> Iterator[pa.Table]:
        """What is of tags up to this one, which is not given again."""
        while True:
            here = pc.less_equal(self._rest["tag"], tag)
            yield self._rest.filter(here)
            self._rest = self._rest.filter(pc.invert(here))
            if self._rest.num_rows or self._next == self._file.num_row_groups:
                return
            self._rest = read_group(self._file, self._next).cast(STORED)
            self._next += 1


# --- reading --------------------------------------------------------------------------------------------------------


_NO_DAMAGE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM)
"""Of the system's errors."""


class Unreadable(StoreError):
    """What lies there is not what was written: no reading of it again gives anything else."""


def _not_read(error: Exception, what: str) -> StoreError:
    """An error of Arrow's."""
    kind = StoreError if isinstance(error, MemoryError) or getattr(error, "errno", None) in _NO_DAMAGE else Unreadable
    return kind(f"{what} cannot be read: {error}")


def open_file(path: Path, schema: pa.Schema = STORED, *, mapped: bool = True) -> pq.ParquetFile:
    """Raises: StoreError, where it is no file of ours. One that is mapped is in memory as far as it was read."""
    try:
        # Without the checksums of its pages, nine of ten flipped bits are another number and no error.
        found = pq.ParquetFile(path, memory_map=mapped, pre_buffer=False, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise _not_read(error, path.name) from None
    if not found.schema_arrow.equals(schema):
        raise Unreadable(f"{path.name} has other columns than a sealed file")
    return found


def read_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """A file, row group by row group. Raises: StoreError."""
    file = open_file(path)
    for index in range(file.num_row_groups):
        yield read_group(file, index, columns)


def read_group(file: pq.ParquetFile, index: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Raises: StoreError, where it is damaged."""
    try:
        return file.read_row_group(index, columns=columns, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _not_read(error, f"row group {index}") from None


def groups_of(file: pq.ParquetFile, first: str, last: str) -> list[int]:
    """The row groups that may have tags from `first` to `last`."""
    low, high = first.encode(), last.encode()
    found = []
    for index in range(file.num_row_groups):
        stats = file.metadata.row_group(index).column(0).statistics
        if stats is None or not stats.has_min_max or (_bytes(stats.max) >= low and _bytes(stats.min) <= high):
            found.append(index)
    return found


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file. Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- writing --------------------------------------------------------------------------------------------------------


def _write(folder: Path, stem: str, tables: Iterable[pa.Table], facts: Facts) -> File | None:
    """A sealed file, synced; it counts once the catalogue has it. None, where there are no samples. Raises:
    StoreError."""
    path, fresh = folder / f"{stem}.parquet", folder / f"{stem}.new"
    rows = revised = 0
    tags: set[str] = set()
    try:
        with pq.ParquetWriter(
            fresh, STORED, compression="zstd", compression_level=3, version="2.6", data_page_version="2.0",
            use_dictionary=["tag", "kind", "quality", "text"], write_page_checksum=True,
            column_encoding={"time": "DELTA_BINARY_PACKED", "whole": "DELTA_BINARY_PACKED",
                             "server": "DELTA_BINARY_PACKED", "commit": "DELTA_BINARY_PACKED",
                             "value": "BYTE_STREAM_SPLIT"},  # a third less than a dictionary, also of few values
        ) as writer:  # fmt: skip
            for table in tables:  # all that it has of some tags, in order
                revised += table.num_rows - places(table)
                for group in _cut(table):
                    writer.write_table(group, row_group_size=group.num_rows)
                    rows += group.num_rows
                    tags.update(pc.unique(group["tag"]).to_pylist())
            facts = msgspec.structs.replace(facts, revised=revised)
            writer.add_key_value_metadata({FACTS: msgspec.json.encode(facts).decode()})
        if not rows:
            fresh.unlink()
            return None
        sync_file(fresh)
        fresh.rename(path)
        return File(
            path.name,
            facts.first,
            facts.last,
            rows,
            path.stat().st_size,
            sha256_of(path),
            facts.commits,
            len(tags),
            revised,
        )
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise failed(error, folder) from None


def sync_file(path: Path) -> None:
    """Raises: OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    """Row groups: whole tags, until there are GROUP_ROWS of them; a tag that has more stands alone, in several."""
    count = table.num_rows
    if not count:
        return
    runs = pc.run_end_encode(table["tag"].combine_chunks())
    ends: list[int] = runs.run_ends.to_pylist()
    start = 0
    for index, end in enumerate(ends):
        following = ends[index + 1] if index + 1 < len(ends) else count + GROUP_ROWS + 1
        if following - start > GROUP_ROWS:
            for at in range(start, end, GROUP_ROWS):
                yield table.slice(at, min(GROUP_ROWS, end - at))
            start = end


def settle(folder: Path) -> None:
    """A file that was renamed into place stays there. Raises: StoreError."""
    try:
        sync_folder(folder)
    except OSError as error:
        raise failed(error, folder) from None
