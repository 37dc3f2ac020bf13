"""What is reckoned beforehand: of each tag and minute, and of each tag and hour, how many good samples there are, their
sum, least, most, first and last; of an hour also what holds how long. From these an aggregate over any longer step is
put together.

They are made of sealed files that hold a day whole, and say which: of hours that another file has something of, or the
hot log, samples are read instead, until the day has been made into one file again. So late data is in every answer, and
a file of these that is damaged or gone costs time and nothing else.

Not here: when they are made (keeper), answers (aggregates).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cofferdam.brokers.mirror import sealing
from cofferdam.brokers.mirror.catalogue import File, Reckoned, failed
from cofferdam.brokers.mirror.columns import BAD as NO_VALUE
from cofferdam.brokers.mirror.columns import HOUR_NS, TIME, tidy
from cofferdam.policy.terms.mirror_rows import Matcher, Qualities, Term

MINUTE: Final = 60
HOUR: Final = 3600
ROWS_MOST: Final = 2_000_000
"""Hours of tags in one file: the next days begin another."""
WORTH: Final = 4
"""Minutes are kept where there are so many times as many samples."""
GROUP_ROWS: Final = 2_048
"""Of a group, which is what is unpacked for one tag: some tags of a month."""
SUFFIX: Final = ".reckoned"
"""They are Parquet as well; but whoever reads `*.parquet` of the store reads samples, and each once."""
FILES_AT_ONCE: Final = 31
NUMBERS: Final = ("min", "max", "first", "last")
PARTIAL: Final = pa.schema([
    ("tag", pa.string()), ("begin", TIME), ("count", pa.int64()), ("sum", pa.float64()), ("min", pa.float64()),
    ("max", pa.float64()), ("first", pa.float64()), ("last", pa.float64()), ("wholes", pa.int64()),
    *((f"whole_{name}", pa.int64()) for name in NUMBERS),
])  # fmt: skip
"""Beside what is float64 the same of whole numbers, which lose digits there beyond 2^53: it counts where `wholes`, how
many samples are such, is as much as `count`."""
HOURLY: Final = pa.schema([
    *PARTIAL, ("at", TIME), ("until", TIME), ("end", pa.float64()), ("end_verdict", pa.int64()), ("area", pa.float64()),
    ("weight", pa.float64()), ("good", pa.float64()), ("uncertain", pa.float64()), ("bad", pa.float64()),
])  # fmt: skip
"""Of an hour also what holds how long, from its first sample (`at`) to its last (`until`): the value's integral over
seconds, the seconds of which it is, the seconds of each verdict; and what the last one holds from there on (`end`, NaN
where that is nothing to reckon with). What is between two hours is reckoned when it is asked for."""
FORM: Final = 3
"""Of these files: those of an earlier one are made anew."""
_OF: Final = [("value", "count"), ("value", "sum"), *(("value", name) for name in NUMBERS), ("whole", "count"),
              *(("whole", name) for name in NUMBERS)]  # fmt: skip
GOOD, UNCERTAIN, BAD = 0, 1, 2
VERDICTS: Final = ("good", "uncertain", "bad")


def verdict(quality: Any, term: Term = "") -> Any:
    """Good, uncertain or bad, of a column of raw qualities that mean what `term` says. An OPC UA StatusCode says it in
    its upper two bits; an OPC DA quality (192 and above is good) in the upper two of its lower byte. 0 is good in the
    one and bad in the other: where nothing is said it is good, as a source without qualities says nothing else."""
    if term == "none":
        return pc.if_else(pc.equal(quality, NO_VALUE), BAD, GOOD)
    upper = pc.bit_wise_and(pc.shift_right(quality, 30), 3)
    of_ua = pc.if_else(pc.equal(upper, 0), GOOD, pc.if_else(pc.equal(upper, 1), UNCERTAIN, BAD))
    if term == "opc-ua":
        return of_ua
    lower = pc.bit_wise_and(pc.shift_right(quality, 6), 3)
    of_da = pc.if_else(pc.equal(lower, 3), GOOD, pc.if_else(pc.equal(lower, 1), UNCERTAIN, BAD))
    if term == "opc-da":
        return of_da
    return pc.if_else(pc.greater(quality, 0xFFFF), of_ua, pc.if_else(pc.equal(quality, 0), GOOD, of_da))


def verdicts(table: pa.Table, by: Sequence[Qualities]) -> Any:
    """Good, uncertain or bad, of each sample in the form STORED, whichever tag it is of."""
    quality, tags = table["quality"], table["tag"]
    found = verdict(quality)
    for one in reversed(by):  # the first that has a tag counts
        match = Matcher(one.tags)
        if match.all:
            found = verdict(quality, one.term)
        else:
            own = pa.array([tag for tag in pc.unique(tags).to_pylist() if match(tag)], pa.string())
            found = pc.if_else(pc.is_in(tags, own), verdict(quality, one.term), found) if len(own) else found
    return found


def good(table: pa.Table, by: Sequence[Qualities]) -> Any:
    """Of each sample in the form STORED, whether it is one that is reckoned with: a number, and not of bad quality."""
    number = pc.and_(pc.is_valid(table["value"]), pc.invert(pc.is_nan(pc.fill_null(table["value"], 0.0))))
    return pc.and_(pc.not_equal(verdicts(table, by), BAD), number)


def reckon(table: pa.Table, step: int, by: Sequence[Qualities] = ()) -> pa.Table:
    """Of the last revisions of samples, sorted by (tag, time): PARTIAL by steps of so many seconds."""
    some = table.filter(good(table, by))
    if not some.num_rows:
        return PARTIAL.empty_table()
    begin = sealing.floor_to(some["time"].cast(pa.int64()), step * 10**9)
    plain = pa.table({"tag": some["tag"], "begin": begin, "value": some["value"], "whole": some["whole"]})
    found = plain.group_by(["tag", "begin"], use_threads=False).aggregate(_OF)
    columns = (found[f"{column}_{name}"] for column, name in _OF)
    return in_order(pa.Table.from_arrays([found["tag"], found["begin"].cast(TIME), *columns], schema=PARTIAL))


def reckon_hours(table: pa.Table, by: Sequence[Qualities] = ()) -> pa.Table:
    """Of the last revisions of samples, sorted by (tag, time): HOURLY. An hour of bad samples has a count of 0."""
    if not table.num_rows:
        return HOURLY.empty_table()
    times = table["time"].cast(pa.int64()).combine_chunks()
    begin = sealing.floor_to(times, HOUR_NS)
    tags, count = table["tag"].combine_chunks(), table.num_rows
    following = pc.and_(
        pc.equal(tags.slice(1), tags.slice(0, count - 1)), pc.equal(begin.slice(1), begin.slice(0, count - 1))
    )
    spans = pc.multiply(pc.subtract(times.slice(1), times.slice(0, count - 1)), pc.cast(following, pa.int64()))
    seconds = pc.divide(pa.concat_arrays([_flat(spans), pa.array([0], pa.int64())]).cast(pa.float64()), 1e9)
    usable, judged = good(table, by).combine_chunks(), _flat(verdicts(table, by))
    values = table["value"].combine_chunks()
    reckoned = pc.if_else(usable, values, pa.scalar(None, pa.float64()))
    plain = pa.table({
        "tag": tags, "begin": begin, "value": reckoned, "time": times, "verdict": judged,
        "whole": pc.if_else(usable, table["whole"].combine_chunks(), pa.scalar(None, pa.int64())),
        "end": pc.if_else(usable, values, float("nan")),
        "area": pc.if_else(usable, pc.multiply(pc.fill_null(values, 0.0), seconds), 0.0),
        "weight": pc.if_else(usable, seconds, 0.0),
        **{name: pc.if_else(pc.equal(judged, of), seconds, 0.0) for of, name in enumerate(VERDICTS)},
    })  # fmt: skip
    sums = ("area", "weight", *VERDICTS)
    found = plain.group_by(["tag", "begin"], use_threads=False).aggregate(
        [
            *_OF,
            ("time", "min"),
            ("time", "max"),
            ("end", "last"),
            ("verdict", "last"),
            *((name, "sum") for name in sums),
        ]
    )
    columns = (found[f"{column}_{name}"] for column, name in _OF)
    made = pa.Table.from_arrays(
        [
            found["tag"], found["begin"].cast(TIME), *columns, found["time_min"].cast(TIME),
            found["time_max"].cast(TIME), found["end_last"], found["verdict_last"].cast(pa.int64()),
            *(found[f"{name}_sum"] for name in sums),
        ],
        schema=HOURLY,
    )  # fmt: skip
    return in_order(made)


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def in_order(table: pa.Table) -> pa.Table:
    """Sorted by (tag, begin): groups come in any order."""
    return table.take(pc.sort_indices(table, [("tag", "ascending"), ("begin", "ascending")]))


def month_of(file: File) -> str:
    """The month of a file that holds a day, such as 2027-03."""
    return f"{datetime.fromtimestamp(file.first * HOUR, UTC):%Y-%m}"


class Wanted(NamedTuple):
    """What is to be made next: days of one month that are in no file of hours, and the file that they join."""

    files: tuple[File, ...]
    joined: Reckoned | None
    kept: tuple[File, ...]
    """Days of `joined` that are as they were."""


def wanted(
    files: Iterable[File], reckoned: Iterable[Reckoned], before: int, hot: Collection[int] = ()
) -> Wanted | None:
    """`before`: the first hour of the day that is not over. Of a day that several files have something of, or the hot
    log has (`hot`, days since 1970), nothing is made until that is one file."""
    days: dict[int, list[File]] = {}
    for file in files:
        for day in range(file.first // 24, file.last // 24 + 1):
            days.setdefault(day, []).append(file)
    whole = {some[0].name: some[0] for some in days.values() if len(some) == 1 and some[0].last < before}
    hours = [one for one in reckoned if one.step == HOUR]
    known = {name for one in hours for name in one.of}
    fresh = [file for name, file in whole.items() if name not in known and file.first // 24 not in hot]
    fresh.sort(key=lambda file: file.first)
    if not fresh:
        return None
    month = month_of(fresh[0])
    some = tuple(file for file in fresh if month_of(file) == month)[:FILES_AT_ONCE]
    joined = next((one for one in hours if one.month == month and one.rows < ROWS_MOST), None)
    kept = tuple(whole[name] for name in joined.of if name in whole) if joined is not None else ()
    return Wanted(some, joined, kept)


def make(folder: Path, what: Wanted, by: Sequence[Qualities] = ()) -> list[Reckoned]:
    """Files of hours and of minutes, durable on return. What qualities mean (`by`) is in their names as well: whoever
    has a file open takes no other one for it. Raises: StoreError."""
    mark = f"-{zlib.crc32(msgspec.json.encode(by)):08x}" if by else ""
    found: list[Reckoned] = []
    hours = [_kept(folder, what)] if what.joined is not None else []
    for file in what.files:
        minutes = []
        for table in sealing.merged([folder / file.name]):
            last = tidy(table, latest=True)
            minutes.append(reckon(last, MINUTE, by))
            hours.append(reckon_hours(last, by))
        of_day = pa.concat_tables(minutes) if minutes else PARTIAL.empty_table()
        if of_day.num_rows and of_day.num_rows * WORTH <= file.rows:
            name = f"minutes-{Path(file.name).stem}{mark}{SUFFIX}"
            found.append(_write(folder, name, of_day, MINUTE, (file.name,), month_of(file)))
    table = in_order(pa.concat_tables(hours))
    of = tuple(file.name for file in (*what.kept, *what.files))
    upto = max(file.commits for file in what.files)
    name = f"hours-{month_of(what.files[0])}-{what.files[-1].first:08d}-{upto:016d}{mark}{SUFFIX}"
    return [*found, _write(folder, name, table, HOUR, of, month_of(what.files[0]))]


_TOGETHER: Final = {
    "count": "sum", "sum": "sum", "wholes": "sum", **{name: name for name in NUMBERS},
    **{f"whole_{name}": name for name in NUMBERS},
}  # fmt: skip


def together(table: pa.Table, by: Sequence[str]) -> pa.Table:
    """Partial aggregates in the order of time, put together by some columns, in any order: those of them that the table
    has."""
    names = [name for name in _TOGETHER if name in table.schema.names]
    found = table.group_by(list(by), use_threads=False).aggregate([(name, _TOGETHER[name]) for name in names])
    columns = [*(found[name] for name in by), *(found[f"{name}_{_TOGETHER[name]}"] for name in names)]
    return pa.table(columns, names=[*by, *names])


def _kept(folder: Path, what: Wanted) -> pa.Table:
    """What a file of hours has of the days that are as they were."""
    if what.joined is None or not what.kept:
        return HOURLY.empty_table()
    file = sealing.open_file(folder / what.joined.name, HOURLY)
    table = pa.concat_tables([sealing.read_group(file, index) for index in range(file.num_row_groups)])
    return within(table.cast(HOURLY), [(one.first * HOUR_NS, (one.last + 1) * HOUR_NS) for one in what.kept])


def within(table: pa.Table, spans: Collection[tuple[int, int]]) -> pa.Table:
    """The rows that begin in one of some spans of time."""
    times = table["begin"].cast(pa.int64())
    keep = pa.array([False] * table.num_rows) if not spans else None
    for low, high in spans:
        here = pc.and_(pc.greater_equal(times, low), pc.less(times, high))
        keep = here if keep is None else pc.or_(keep, here)
    return table.filter(keep)


def _write(folder: Path, name: str, table: pa.Table, step: int, of: tuple[str, ...], month: str) -> Reckoned:
    path, fresh = folder / name, folder / f"{name}.new"
    try:
        pq.write_table(
            table, fresh, row_group_size=GROUP_ROWS, compression="zstd", version="2.6", data_page_version="2.0",
            write_page_checksum=True,
        )  # fmt: skip
        sealing.sync_file(fresh)
        fresh.rename(path)
        sealing.settle(folder)
        return Reckoned(name, step, of, month, table.num_rows, path.stat().st_size, sealing.sha256_of(path), FORM)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise failed(error, folder) from None


def damaged(folder: Path, some: Iterable[Reckoned]) -> list[str]:
    """The names of those that are not as they were written, or are gone."""
    found = []
    for one in some:
        try:
            whole = sealing.sha256_of(folder / one.name) == one.sha256
        except OSError:
            whole = False
        if not whole:
            found.append(one.name)
    return found
