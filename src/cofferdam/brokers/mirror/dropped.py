"""What lies in a file that was left in a folder: samples, read as the policy declares it, and nothing guessed.

CSV and Parquet, long (a row is a sample) or wide (each column but that of the time is a tag). What does not fit the
declaration is refused with its row and column, and the file with it: a decimal comma that was read as something else
is worse than a file that waits for a person. Everything is read piece by piece, however large a file is.

Not here: finding and moving files (drops).
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cofferdam.brokers.mirror.columns import BAD, GOOD, Sample, pack
from cofferdam.brokers.mirror.records import TEXT_BYTES, Samples
from cofferdam.policy import zones
from cofferdam.policy.terms.mirror_rows import SINCE_1970, Drop, Matcher, tag_name

BATCH_POINTS: Final = 10_000
COLUMNS_MOST: Final = 10_000
ROW_CHARACTERS: Final = 1 << 20
CELL_CHARACTERS: Final = TEXT_BYTES // 2
ROWS_MOST: Final = 1_000_000_000
"""Rows that a file of Parquet may claim to have."""
GROUP_BYTES: Final = 1 << 30
"""Of one row group, unpacked, as it says itself; what it really has is bounded by the memory of the part."""
PARQUET_ROWS: Final = 8_192
"""Rows that are unpacked at a time."""
VALUES_AT_ONCE: Final = 500_000
TEXTS_AT_ONCE: Final = TEXT_BYTES // 2
EARLIEST_NS, LATEST_NS = -(1 << 63) + 1, (1 << 63) - 1
ZONES: Final = {name: zones.zone(name) for name in sorted(zones.zone_names())}
"""All that there are, loaded with this module: a part opens no file of the system's later."""
_EPOCH: Final = datetime.datetime(1970, 1, 1)
_UTC_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?)?\s?(Z|[+-]\d\d(?::?\d\d)?)?\Z", re.ASCII
)
_COUNT: Final = re.compile(r"([+-]?)(\d{1,19})(?:\.(\d{1,9}))?\Z", re.ASCII)
_PANDAS: Final = re.compile(r"__index_level_\d+__\Z", re.ASCII)
"""What pandas calls a column of Parquet that has numbers of rows and no name: no tag."""
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}\Z", re.ASCII)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?\Z", re.ASCII)
_ODD: Final = {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf, "infinity": math.inf,
               "-infinity": -math.inf}  # fmt: skip
_TRUE_FALSE: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
Value = float | int | bool | str | None


def never(_: int) -> bool:
    """No time is too old."""
    return False


class Refused(Exception):
    """A file that is not what was declared: why, with row and column."""


def read(file: IO[bytes], drop: Drop, limit: int, old: Callable[[int], bool] = never) -> Iterator[Samples]:
    """The samples of a file, in its order, as records of the backfill lane without numbers. `limit`: no sample may be
    of later (UTC ns), or of a time that is `old`. Raises: Refused; what was given until then is of no file that is as
    declared."""
    rows = _parquet(file, drop, limit, old) if drop.form == "parquet" else _csv(file, drop, limit, old)
    match = Matcher(drop.tags)
    some: list[Sample] = []
    texts = 0
    for one in rows:
        if not match(one.tag):
            continue
        some.append(one)
        texts += len(one.value) if isinstance(one.value, str) else 0
        if len(some) >= BATCH_POINTS or texts > TEXTS_AT_ONCE // 4:
            yield pack("backfill", drop.name, some)
            some, texts = [], 0
    if some:
        yield pack("backfill", drop.name, some)


def _checked(name: str, where: str) -> str:
    if not tag_name(name):
        raise Refused(f"{where}: {name[:64]!r} cannot be a tag's name")
    return name


def _wanted(drop: Drop) -> list[str]:
    """The columns that are declared."""
    return [name for name in (drop.tag, drop.time, drop.value, drop.quality, drop.server) if name]


def _places(drop: Drop, head: Sequence[str]) -> dict[str, int]:
    """Where each column stands. Raises: Refused."""
    if twice := next((name for name in head if name and head.count(name) > 1), ""):
        raise Refused(f"the column {twice[:64]!r} is there twice")
    places = {name: at for at, name in enumerate(head)}
    if missing := [name for name in _wanted(drop) if name not in places]:
        there = ", ".join(head)[:200]
        raise Refused(f"row 1: no column {missing[0]!r}; there are {there}")
    if drop.wide:
        for name in head:
            if name != drop.time and not _PANDAS.match(name):
                _checked(name, f"row 1, column {name[:64]!r}")
    return places


# --- times ----------------------------------------------------------------------------------------------------------


class Times:
    """Reads times as they are declared."""

    def __init__(self, drop: Drop, limit: int, old: Callable[[int], bool] = never) -> None:
        self._how = drop.times
        self._limit, self._old = limit, old
        self._fixed = 0
        self._zone: datetime.tzinfo | None = None
        self._said = bool(drop.zone)
        if drop.zone in ZONES:
            self._zone = ZONES[drop.zone]
        elif drop.zone not in ("", "Z", "UTC"):
            sign = -1 if drop.zone[0] == "-" else 1
            self._fixed = sign * (int(drop.zone[1:3]) * 3600 + int(drop.zone[4:6]) * 60)

    def ns(self, text: str) -> int:
        """UTC ns. Raises: ValueError, with why in words."""
        if self._how in SINCE_1970:
            found = _counted(text, SINCE_1970[self._how])
        elif self._how == "iso":
            found = self._iso(text)
        else:
            at = datetime.datetime.strptime(text, self._how)
            if at.tzinfo is not None:
                found = _since(at)
            else:
                micro = at.microsecond
                found = self.local(at.replace(microsecond=0)) * 10**9 + micro * 1000
        return self.fits(found)

    def fits(self, ns: int) -> int:
        """The same. Raises: ValueError, where no sample may have this time."""
        if not EARLIEST_NS < ns < LATEST_NS:
            raise ValueError("it is beyond the years 1678 to 2262")
        if ns > self._limit:
            raise ValueError("it is further ahead of the clock than the policy lets")
        if self._old(ns):
            raise ValueError("it is older than the policy's `keep`, and would go at once")
        return ns

    def _iso(self, text: str) -> int:
        match = _ISO.match(text)
        if match is None:
            raise ValueError("it is none as 2027-03-01T12:00:00.5+01:00")
        day, clock, fraction, offset = match.groups()
        at = datetime.datetime.fromisoformat(f"{day}T{clock or '00:00:00'}")
        if offset is None:
            seconds = self.local(at)
        else:
            away = 0
            if offset != "Z":
                digits = offset[1:].replace(":", "")
                away = int(digits[:2]) * 3600 + int(digits[2:] or 0) * 60
            seconds = _whole(at) - (away if offset[0] != "-" else -away)
        return seconds * 10**9 + int((fraction or "0").ljust(9, "0"))

    def local(self, at: datetime.datetime) -> int:
        """Seconds since 1970 of what a clock in the zone shows. Raises: ValueError, where it shows that twice or not
        at all."""
        if not self._said:
            raise ValueError("it says no offset, and the policy no zone")
        if self._zone is None:
            return _whole(at) - self._fixed
        first, second = (self._zone.utcoffset(at.replace(fold=fold)) for fold in (0, 1))
        if first is None or second is None or first == second:
            return _whole(at) - int(first.total_seconds() if first is not None else 0)
        kind = "comes twice" if first > second else "does not come"
        raise ValueError(f"it {kind} in this zone; an offset beside it would say which it is")


def _whole(at: datetime.datetime) -> int:
    span = at - _EPOCH
    return span.days * 86_400 + span.seconds


def _since(at: datetime.datetime) -> int:
    span = at - _UTC_EPOCH
    return (span.days * 86_400 + span.seconds) * 10**9 + span.microseconds * 1000


def _counted(text: str, unit: int) -> int:
    match = _COUNT.match(text)
    if match is None:
        raise ValueError("it is no number of the unit that is declared")
    sign, whole, fraction = match.groups()
    found = int(whole) * unit + int((fraction or "").ljust(9, "0") or 0) * unit // 10**9
    return -found if sign == "-" else found


# --- CSV ------------------------------------------------------------------------------------------------------------


class _Lines:
    """Lines for the reader of CSV, which would read a row of any length. The last has to have its end: what is left of
    a number that was cut off is a number still."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._lines = io.TextIOWrapper(file, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")
        self.taken = 0
        """Characters of this row."""

    def __iter__(self) -> Iterator[str]:
        while True:
            line = self._lines.readline(ROW_CHARACTERS)
            if not line:
                return
            self.taken += len(line)
            if self.taken >= ROW_CHARACTERS:
                raise csv.Error(f"a row of more than {ROW_CHARACTERS} characters")
            if "\0" in line:
                raise csv.Error("a NUL")
            if line[-1] not in "\r\n":
                raise csv.Error("it has no end of line, as if a part of the file had not come")
            yield line


def _csv(file: IO[bytes], drop: Drop, limit: int, old: Callable[[int], bool]) -> Iterator[Sample]:
    lines = _Lines(file, drop.encoding)
    rows = csv.reader(lines, delimiter=drop.delimiter, strict=True)
    csv.field_size_limit(CELL_CHARACTERS)
    head: list[str] = []
    make: Callable[[list[str], int], Iterator[Sample]] | None = None
    while True:
        line = rows.line_num + 1
        lines.taken = 0
        try:
            row = next(rows)
        except StopIteration:
            if make is None:
                raise Refused("row 1: there is none, and it names the columns") from None
            return
        except UnicodeDecodeError:
            raise Refused(f"after row {line}: it is not {drop.encoding}") from None
        except csv.Error as error:
            raise Refused(f"row {line}: no row of CSV: {error}") from None
        if not row:
            continue
        if make is None:
            if len(row) > COLUMNS_MOST:
                raise Refused(f"row 1: {len(row)} columns; at most {COLUMNS_MOST} are read")
            head = [cell.strip() for cell in row]
            places = _places(drop, head)
            times = Times(drop, limit, old)
            make = _wide(drop, head, places, times) if drop.wide else _long(drop, places, times, Times(drop, limit))
            continue
        if len(row) != len(head):
            raise Refused(f"row {line}: {len(row)} cells, and {len(head)} columns (delimiter {drop.delimiter!r})")
        yield from make(row, line)


def _at(row: list[str], place: int, name: str, line: int, times: Times) -> int:
    text = row[place].strip()
    try:
        return times.ns(text)
    except (ValueError, OverflowError) as error:
        raise Refused(f"row {line}, column {name}: {text[:64]!r} is no time: {error}") from None


def _long(
    drop: Drop, places: dict[str, int], times: Times, servers: Times
) -> Callable[[list[str], int], Iterator[Sample]]:
    tag, at, value = places.get(drop.tag, -1), places[drop.time], places[drop.value]
    quality, server = places.get(drop.quality, -1), places.get(drop.server, -1)
    known: set[str] = set()

    def make(row: list[str], line: int) -> Iterator[Sample]:
        name = drop.of
        if not name:
            name = row[tag].strip()
            if name not in known:
                _checked(name, f"row {line}, column {drop.tag}")
                if len(known) < 100_000:
                    known.add(name)
        moment = _at(row, at, drop.time, line, times)
        found = _value(row[value], drop, line, drop.value)
        raw = BAD if found is None else GOOD
        if quality >= 0 and (text := row[quality].strip()):
            if not _INTEGER.match(text) or not -(1 << 63) <= int(text) < 1 << 63:
                raise Refused(f"row {line}, column {drop.quality}: {text[:64]!r} is no quality, a whole number")
            raw = int(text)
        seen = _at(row, server, drop.server, line, servers) if server >= 0 and row[server].strip() else None
        yield Sample(name, moment, math.nan if found is None else found, raw, seen)

    return make


def _wide(
    drop: Drop, head: list[str], places: dict[str, int], times: Times
) -> Callable[[list[str], int], Iterator[Sample]]:
    at = places[drop.time]

    def make(row: list[str], line: int) -> Iterator[Sample]:
        moment = _at(row, at, drop.time, line, times)
        for place, cell in enumerate(row):
            if place != at and (found := _value(cell, drop, line, head[place])) is not None:
                yield Sample(head[place], moment, found)

    return make


def _value(cell: str, drop: Drop, line: int, column: str) -> Value:
    """None: there is none."""
    if drop.kind == "text":
        return cell
    text = cell.strip()
    if not text:
        return None
    found: Value = None
    if drop.kind == "bool":
        found = _TRUE_FALSE.get(text.lower())
    elif drop.kind == "integer":
        found = int(text) if _INTEGER.match(text) and -(1 << 63) <= int(text) < 1 << 63 else None
    else:
        plain = text
        if drop.decimal != ".":
            plain = "" if "." in text else text.replace(drop.decimal, ".")
        found = float(plain) if _NUMBER.match(plain) else _ODD.get(text.lower())
    if found is None:
        mark = f" (decimal mark {drop.decimal!r})" if drop.kind == "number" else ""
        raise Refused(f"row {line}, column {column[:64]}: {text[:64]!r} is no {drop.kind}{mark}")
    return found


# --- Parquet --------------------------------------------------------------------------------------------------------


def _parquet(file: IO[bytes], drop: Drop, limit: int, old: Callable[[int], bool]) -> Iterator[Sample]:
    try:
        opened = pq.ParquetFile(file, pre_buffer=False)
        meta = opened.metadata
        groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
        if meta.num_rows > ROWS_MOST or sum(group.num_rows for group in groups) != meta.num_rows:
            raise Refused(f"it says that it has {meta.num_rows} rows; at most {ROWS_MOST} are read")
        if large := next((group.total_byte_size for group in groups if group.total_byte_size > GROUP_BYTES), 0):
            raise Refused(f"a row group of {large} bytes, unpacked; at most {GROUP_BYTES} are read")
        schema = opened.schema_arrow
        if len(schema) > COLUMNS_MOST:
            raise Refused(f"{len(schema)} columns; at most {COLUMNS_MOST} are read")
        _places(drop, schema.names)
        wide = [name for name in schema.names if name == drop.time or not _PANDAS.match(name)]
        names = wide if drop.wide else _wanted(drop)
        kinds = {name: schema.field(name).type for name in names}
        _types(drop, kinds)
        times, servers, row = Times(drop, limit, old), Times(drop, limit), 0
        some = max(1, min(PARQUET_ROWS, VALUES_AT_ONCE // max(1, len(names))))
        for batch in opened.iter_batches(some, columns=names, use_threads=False):
            batch.validate(full=True)
            yield from _of_batch(drop, batch, times, servers, row)
            row += batch.num_rows
        if row != meta.num_rows:
            raise Refused(f"it says that it has {meta.num_rows} rows, and {row} are there")
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise Refused(f"it cannot be read as Parquet: {said}") from None


def _types(drop: Drop, kinds: dict[str, pa.DataType]) -> None:
    def text(kind: pa.DataType) -> bool:
        inner = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner))

    for name, kind in kinds.items():
        if name in (drop.time, drop.server):
            good = pa.types.is_timestamp(kind) and (kind.tz is not None or bool(drop.zone))
            wanted = "a timestamp with a zone (isAdjustedToUTC), or without one where the policy says a zone"
        elif name == drop.tag:
            good, wanted = text(kind), "a text"
        elif name == drop.quality:
            good = pa.types.is_integer(kind)
            wanted = "a whole number"
        else:
            good = text(kind) or any(
                of(kind) for of in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
            )
            wanted = "a number, a bool or a text"
        if not good:
            raise Refused(f"column {name[:64]}: it is {kind}, and has to be {wanted}")


def _of_batch(drop: Drop, batch: pa.RecordBatch, times: Times, servers: Times, before: int) -> Iterator[Sample]:
    def plain(name: str) -> list[Any]:
        column = batch.column(name)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        if name not in (drop.time, drop.server):
            found: list[Any] = column.to_pylist()
            return found
        kind = column.type
        factor = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[kind.unit]
        numbers = pc.cast(column, pa.int64()).to_pylist()
        if kind.tz is None:
            return [None if one is None else _shown(one * factor, times) for one in numbers]
        return [None if one is None else one * factor for one in numbers]

    def moment(at: Any, name: str, index: int) -> int:
        if at is None:
            raise Refused(f"row {before + index + 1}, column {name[:64]}: there is no time")
        try:
            if isinstance(at, ValueError):
                raise at
            return (servers if name == drop.server else times).fits(at)
        except ValueError as error:
            raise Refused(f"row {before + index + 1}, column {name[:64]}: {error}") from None

    def value(found: Any, name: str, index: int) -> Any:
        if isinstance(found, str) and len(found.encode()) > CELL_CHARACTERS:
            raise Refused(f"row {before + index + 1}, column {name[:64]}: a text of more than {CELL_CHARACTERS} bytes")
        if isinstance(found, int) and not -(1 << 63) <= found < 1 << 63:
            raise Refused(f"row {before + index + 1}, column {name[:64]}: {found} is more than 64 bits have")
        return found

    moments = [moment(at, drop.time, index) for index, at in enumerate(plain(drop.time))]
    if drop.wide:
        for name in batch.schema.names:
            if name != drop.time:
                for index, found in enumerate(plain(name)):
                    if found is not None:
                        yield Sample(name, moments[index], value(found, name, index))
        return
    count = batch.num_rows
    tags = plain(drop.tag) if drop.tag else [drop.of] * count
    qualities = plain(drop.quality) if drop.quality else [None] * count
    server = plain(drop.server) if drop.server else [None] * count
    known: set[str] = set()
    for index, found in enumerate(plain(drop.value)):
        tag, raw = tags[index], value(qualities[index], drop.quality, index)
        if tag not in known:
            known.add(_checked(tag or "", f"row {before + index + 1}, column {drop.tag}"))
        if raw is None:
            raw = BAD if found is None else GOOD
        seen = moment(server[index], drop.server, index) if server[index] is not None else None
        yield Sample(tag, moments[index], math.nan if found is None else value(found, drop.value, index), raw, seen)


def _shown(ns: int, times: Times) -> int | ValueError:
    """UTC ns of what a clock shows, as ns from 1970 there."""
    seconds, rest = divmod(ns, 10**9)
    try:
        return times.local(_EPOCH + datetime.timedelta(seconds=seconds)) * 10**9 + rest
    except (ValueError, OverflowError) as error:
        return ValueError(str(error))
