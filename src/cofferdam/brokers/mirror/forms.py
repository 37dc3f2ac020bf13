"""The forms of an answer: JSON, NDJSON, CSV, Parquet, Arrow; and times as people and programs write them.

A number that JSON has not (NaN, infinities) is null, and its quality stands beside it. Whole numbers beyond 2^53 are
exact in all forms: in JSON many a reader rounds them, and there they are texts.

Not here: which form is asked for by whom (api).
"""

from __future__ import annotations

import csv
import datetime
import io
import math
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from cofferdam.audit.cells import no_formula
from cofferdam.brokers.kit.http.problems import refusal, time_of
from cofferdam.brokers.mirror.columns import HOUR_NS, TIME
from cofferdam.brokers.mirror.records import BOOL, FLOAT, TEXT, WHOLE

KINDS: Final = {
    "json": "application/json", "ndjson": "application/x-ndjson", "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet", "arrow": "application/vnd.apache.arrow.stream",
}  # fmt: skip
EXACT: Final = 1 << 53
SLICE_ROWS: Final = 10_000
EDGES_MOST: Final = 100_000
_encode = msgspec.json.Encoder().encode
_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?\Z", re.ASCII
)
_SPAN: Final = re.compile(r"(\d{1,9})\s*(ms|s|m|min|h|d|w|month|months|y)\Z", re.ASCII)
_UNIT_NS: Final = {
    "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": HOUR_NS, "d": 24 * HOUR_NS, "w": 168 * HOUR_NS,
    "y": 365 * 24 * HOUR_NS,
}  # fmt: skip


def form_of(said: str, accept: str) -> str:
    """Which form is asked for: by `format=`, else by Accept, else JSON. Raises: Refusal."""
    if said:
        if said not in KINDS:
            raise refusal("request", f"format is {', '.join(KINDS)}")
        return said
    for part in accept.split(","):
        kind = part.partition(";")[0].strip().lower()
        for name, known in KINDS.items():
            if kind == known.partition(";")[0]:
                return name
    return "json"


def takes_gzip(accept: str) -> bool:
    """Whether an Accept-Encoding lets an answer be packed by gzip (RFC 9110, 12.5.3)."""
    said = {}
    for part in accept.lower().split(","):
        name, _, parameter = part.partition(";")
        weight = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", parameter, re.ASCII)
        said[name.strip()] = float(weight[1]) if weight else 1.0
    return said.get("gzip", said.get("x-gzip", said.get("*", 0.0))) > 0


def between(value: Any) -> bool:
    """Whether there is something between this value and another: a valve is open or shut."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- times ----------------------------------------------------------------------------------------------------------


def moment(text: str, now: int, zone: str = "") -> int:
    """A time in UTC ns: RFC 3339 with its offset (or in `zone`), whole ns since 1970, `now`, or a span before now
    (`-24h`). Raises: Refusal."""
    if text == "now":
        return now
    if re.fullmatch(r"-?\d{10,19}", text, re.ASCII):
        found = int(text)
        if 10**9 <= found < 10**17:  # the first days of 1970, or rather seconds, ms or µs of today
            raise refusal("request", f"{text} is no time: ns since 1970 have 19 digits, no other unit is guessed")
        if -(1 << 63) < found < (1 << 63):
            return found
    if text.startswith("-"):
        return now - span_ns(text[1:])
    match = _RFC3339.match(text)
    if match is None:
        plus = " (a + stands in an address as %2B)" if re.search(r" \d\d:?\d\d$", text) else ""
        raise refusal("request", f"{text[:64]!r} is no time: RFC 3339, ns since 1970, or -24h are{plus}")
    day, clock, fraction, offset = match.groups()
    if offset is None and not zone and clock is not None:
        raise refusal("request", f"{text[:64]!r} says no offset (Z, +02:00), and no zone is given")
    try:
        plain = datetime.datetime.fromisoformat(f"{day}T{clock or '00:00:00'}")
        if offset is None:
            at = plain.replace(tzinfo=_zone(zone) if zone else datetime.UTC)
            if clock is not None:
                _once(at, text)
        else:
            at = datetime.datetime.fromisoformat(f"{plain.isoformat()}{'+00:00' if offset == 'Z' else offset}")
    except ValueError:
        raise refusal("request", f"{text[:64]!r} is no time that there is") from None
    seconds = round((at - _EPOCH).total_seconds())
    ns = seconds * 10**9 + int((fraction or "0").ljust(9, "0"))
    if not -(1 << 63) < ns < (1 << 63):
        raise refusal("request", f"{text[:64]!r} is beyond the years 1678 to 2262")
    return ns


def _once(at: datetime.datetime, text: str) -> None:
    """Raises: Refusal, of what a clock shows twice in autumn, or not at all in spring."""
    first, second = (at.replace(fold=fold).utcoffset() for fold in (0, 1))
    if first is not None and second is not None and first != second:
        offsets = [at.replace(fold=fold).isoformat()[19:] for fold in (0, 1)]
        kind = "comes twice" if first > second else "does not come"
        says = f"an offset says which ({' or '.join(offsets)}; a + stands in an address as %2B)"
        raise refusal("request", f"{text[:64]!r} {kind} in {at.tzinfo}: {says}")


def span_ns(text: str) -> int:
    """A span of time in ns. Raises: Refusal."""
    match = _SPAN.match(text)
    if match is None or match[2].startswith("month") or int(match[1]) * _UNIT_NS[match[2]] > 200 * _UNIT_NS["y"]:
        raise refusal("request", f"{text[:32]!r} is no time such as 10s, 5min, 24h, 7d")
    return int(match[1]) * _UNIT_NS[match[2]]


ZONES: Final = {name: zoneinfo.ZoneInfo(name) for name in sorted(zoneinfo.available_timezones())}
"""All that there are, loaded with this module: a part opens no file of the system's later."""


def known_zone(name: str) -> None:
    """Raises: Refusal, where something is given and no time zone is called so."""
    if name:
        _zone(name)


def _zone(name: str) -> zoneinfo.ZoneInfo:
    if name not in ZONES:
        raise refusal("request", f"there is no time zone {name[:64]!r}")
    return ZONES[name]


_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def _beyond() -> Exception:
    return refusal("request", "a step reaches beyond the years 1678 to 2262")


_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def edges_of(every: str, since: int, until: int, zone: str) -> list[int]:
    """The borders of steps that cover a time: of a fixed length from 1970 on, or, for days, weeks and months, of the
    zone's own. Raises: Refusal."""
    match = _SPAN.match(every)
    if match is None:
        raise refusal("request", f"{every[:32]!r} is no step such as 1s, 1min, 1h, 1d, 1month")
    count, unit = int(match[1]), match[2].removesuffix("s") if match[2].startswith("month") else match[2]
    if unit in ("d", "w", "month"):
        return _calendar(count, unit, since, until, zone)
    step = count * _UNIT_NS[unit]
    if not 10**9 <= step <= 31 * 24 * HOUR_NS:
        raise refusal("request", "a step is from 1s to 1month")
    low = since // step * step
    if not _LEAST <= low <= low + step * -(-(until - low) // step) <= _MOST:
        raise _beyond()
    number = -(-(until - low) // step)
    if number > EDGES_MOST:
        raise refusal("size", f"{number} steps; at most {EDGES_MOST} are answered at once")
    return [low + index * step for index in range(number + 1)]


def _calendar(count: int, unit: str, since: int, until: int, zone: str) -> list[int]:
    if not 1 <= count <= 12:
        raise refusal("request", "at most 12 days, weeks or months make a step")
    tz = _zone(zone) if zone else datetime.UTC
    at = datetime.datetime.fromtimestamp(since // 10**9, tz)
    day = datetime.date(at.year, at.month, 1 if unit == "month" else at.day)
    if unit == "w":
        day -= datetime.timedelta(days=day.weekday())
    found = []
    while True:
        begin = datetime.datetime(day.year, day.month, day.day, tzinfo=tz)
        found.append(round(begin.timestamp()) * 10**9)
        if not _LEAST <= found[-1] <= _MOST:
            raise _beyond()
        if found[-1] >= until:
            return found
        if len(found) > EDGES_MOST:
            raise refusal("size", f"more than {EDGES_MOST} steps")
        if unit == "month":
            months = day.year * 12 + day.month - 1 + count
            day = datetime.date(months // 12, months % 12 + 1, 1)
        else:
            day += datetime.timedelta(days=count * (7 if unit == "w" else 1))


# --- rows of samples ------------------------------------------------------------------------------------------------


def rows_of(table: pa.Table, *, revisions: bool = False) -> Iterator[dict[str, Any]]:
    """The samples of a table in the form STORED, as JSON has them."""
    times, server = table["time"].cast(pa.int64()).to_pylist(), table["server"].cast(pa.int64()).to_pylist()
    columns = [table[name].to_pylist() for name in ("tag", "kind", "value", "whole", "text", "quality", "commit")]
    for index, (tag, kind, value, whole, text, quality, commit) in enumerate(zip(*columns, strict=True)):
        found: dict[str, Any] = {"tag": tag, "time": time_of(times[index]), "value": value_of(kind, value, whole, text),
                                 "quality": quality}  # fmt: skip
        if server[index] is not None:
            found["server"] = time_of(server[index])
        if revisions:
            found["commit"] = commit
        yield found


def aggregates_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Aggregates as JSON has them."""
    names = table.schema.names[2:]
    for at in range(0, table.num_rows, SLICE_ROWS):
        part = table.slice(at, SLICE_ROWS)
        times = part["time"].cast(pa.int64()).to_pylist()
        columns = [part[name].to_pylist() for name in names]  # a time in ns would have Arrow look for pandas
        for tag, time, *values in zip(part["tag"].to_pylist(), times, *columns, strict=True):
            numbers = (value_of(WHOLE if isinstance(one, int) else FLOAT, one, one, None) for one in values)
            yield {"tag": tag, "time": time_of(time), **dict(zip(names, numbers, strict=True))}


def value_of(kind: int, value: float | None, whole: int | None, text: str | None) -> Any:
    """A value as JSON has it."""
    if kind == TEXT:
        return text
    if kind == WHOLE and whole is not None:
        return whole if -EXACT <= whole <= EXACT else str(whole)
    if kind == BOOL:
        return bool(value)
    return value if value is not None and math.isfinite(value) else None


def json_pieces(head: dict[str, Any], name: str, rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """One JSON object, whose last member is a list, in pieces."""
    opening = _encode(head)[:-1] + (b"," if head else b"") + _encode(name) + b":["
    some: list[bytes] = []
    first = True
    for row in rows:
        some.append(_encode(row))
        if len(some) >= SLICE_ROWS:
            yield (opening if first else b",") + b",".join(some)
            some, first = [], False
    yield (opening if first else b"," if some else b"") + b",".join(some) + b"]}\n"


def line_pieces(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """NDJSON, in pieces."""
    some: list[bytes] = []
    for row in rows:
        some.append(_encode(row) + b"\n")
        if len(some) >= SLICE_ROWS:
            yield b"".join(some)
            some = []
    yield b"".join(some)


def csv_pieces(names: Sequence[str], rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """CSV with a head line, in pieces. A text that a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([_cell(name) for name in names])
    for count, row in enumerate(rows, 1):
        writer.writerow([_cell(row.get(name)) for name in names])
        if count % SLICE_ROWS == 0:
            yield out.getvalue().encode()
            out.seek(0)
            out.truncate()
    yield out.getvalue().encode()


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return no_formula(value) if isinstance(value, str) else value


def in_utc(table: pa.Table) -> pa.Table:
    """The same, its times said to be UTC: without a zone, a reader takes them for those of its own clock."""
    schema = table.schema
    for index, field in enumerate(schema):
        if field.type == TIME:
            schema = schema.set(index, field.with_type(pa.timestamp("ns", "UTC")))
    return table.cast(schema)


def parquet_of(table: pa.Table) -> bytes:
    """A table as a file of Parquet."""
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd")
    found: bytes = out.getvalue().to_pybytes()
    return found


def arrow_of(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream."""
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    found: bytes = out.getvalue().to_pybytes()
    return found
