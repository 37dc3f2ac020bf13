"""Aggregates: what steps of time have of a tag, from what was reckoned beforehand where that is whole, and from samples
everywhere else.

Not here: HTTP (api), samples (query), what is reckoned beforehand (partials).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cofferdam.brokers.mirror import partials
from cofferdam.brokers.mirror.columns import HOUR_NS, STORED
from cofferdam.brokers.mirror.partials import BAD, good, verdict
from cofferdam.brokers.mirror.query import Deadline, View

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
    step = _beforehand(edges, (partials.HOUR,) if weighted else (partials.HOUR, partials.MINUTE))
    for tag in tags:
        if step:
            yield from _from_partials(view, tag, edges, functions, step, deadline, most, hold)
            continue
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


def _beforehand(edges: Sequence[int], steps: Sequence[int]) -> int:
    """The first of some steps (s) that were reckoned beforehand of which all of these are made; 0: none is."""
    for step in steps:
        if all(edge % (step * 10**9) == 0 for edge in edges):
            return step
    return 0


def _from_partials(
    view: View, tag: str, edges: Sequence[int], functions: Sequence[str], step: int, deadline: Deadline, most: int,
    hold: int | None,
) -> Iterator[Bucket]:  # fmt: skip
    """A tag's aggregates: of days that were reckoned beforehand, or of samples."""
    found, spans = view.reckoned(tag, edges[0], edges[-1], step, deadline)
    at = edges[0]
    for low, high in [*spans, (edges[-1], edges[-1])]:
        while at < low:
            upto = min(low, at + PIECE_NS)
            deadline.check()
            table = view.samples([tag], at, upto, deadline, most=most)
            if table.num_rows:
                hourly = step == partials.HOUR
                found.append(partials.reckon_hours(table) if hourly else partials.reckon(table, step))
            at = upto
        at = high
    lead = view.before(tag, edges[0] - 1, deadline) if hold is not None else STORED.empty_table()
    if not found and not lead.num_rows:
        return
    buckets: dict[int, dict[str, Any]] = {}
    whole: pa.Table | None = None
    if found:
        joined = partials.in_order(pa.concat_tables(found))
        place = _places(joined["begin"].cast(pa.int64()), pa.array(edges, pa.int64()))
        whole = joined.append_column("place", place)
        some = whole.filter(pc.greater(joined["count"], 0))
        for row in partials.together(some, ["place"]).to_pylist():
            buckets[row["place"]] = row | {"avg": row["sum"] / row["count"], "delta": row["last"] - row["first"]}
    if hold is not None:
        sums = _Sums(edges)
        _hold_partials(sums, whole, lead, hold)
        sums.into(buckets)
    for number in sorted(buckets):
        values = buckets[number]
        yield Bucket(tag, edges[number], {name: values.get(name, 0 if name == "count" else None) for name in functions})


def _hold_partials(sums: _Sums, table: pa.Table | None, lead: pa.Table, hold: int) -> None:
    """What holds how long in hours (HOURLY, with the `place` of each), and between them."""
    ends: list[tuple[int, float, int]] = []  # since when, which value, of which verdict
    if lead.num_rows:
        value, judged = lead["value"][0].as_py(), verdict(lead["quality"])[0].as_py()
        ends.append((lead["time"].cast(pa.int64())[0].as_py(), math.nan if value is None else value, judged))
    begins: list[int] = []
    if table is not None:
        for row in table.group_by("place", use_threads=False).aggregate([(name, "sum") for name in SUMS]).to_pylist():
            for index, name in enumerate(SUMS):
                sums.of(row["place"])[index] += row[f"{name}_sum"]
        begins = table["at"].cast(pa.int64()).to_pylist()
        ends += zip(
            table["until"].cast(pa.int64()).to_pylist(), table["end"].to_pylist(), table["end_verdict"].to_pylist(),
            strict=True,
        )  # fmt: skip
    if not lead.num_rows:
        begins = begins[1:]
    for (since, value, judged), until in zip(ends, [*begins, hold], strict=True):
        sums.add(since, until, value, judged)


def _of_tag(
    tag: str, table: pa.Table, lead: pa.Table, steps: pa.Array, edges: Sequence[int], functions: Sequence[str],
    hold: int | None,
) -> Iterator[Bucket]:  # fmt: skip
    if not table.num_rows and not lead.num_rows:
        return
    times = table["time"].cast(pa.int64())
    place = _places(times, steps)
    plain = pa.table({"place": place, "time": times, "value": table["value"]}).filter(good(table))
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
    sums = _Sums(edges)
    for begin, end, value, kind in zip(times, [*times[1:], hold], values, kinds, strict=True):
        sums.add(begin, end, math.nan if value is None else value, kind)
    sums.into(found)


SUMS: Final = ("area", "weight", *partials.VERDICTS)


class _Sums:
    """Of each step: the integral of values over seconds, the seconds of which it is, and those of each verdict."""

    def __init__(self, edges: Sequence[int]) -> None:
        self._edges = edges
        self._sums: dict[int, list[float]] = {}

    def of(self, place: int) -> list[float]:
        """Those of a step."""
        return self._sums.setdefault(place, [0.0] * len(SUMS))

    def add(self, begin: int, end: int, value: float, kind: int) -> None:
        """A value holds from one time until another."""
        edges = self._edges
        begin = max(begin, edges[0])
        at = bisect.bisect_right(edges, begin) - 1
        while begin < end and at < len(edges) - 1:
            upto = min(end, edges[at + 1])
            span = (upto - begin) / 1e9
            one = self.of(at)
            one[2 + kind] += span
            if kind != BAD and not math.isnan(value):
                one[0] += value * span
                one[1] += span
            begin, at = upto, at + 1

    def into(self, found: dict[int, dict[str, Any]]) -> None:
        """What comes of it, by step."""
        for at, (total, span, *seconds) in self._sums.items():
            of = dict(zip(partials.VERDICTS, (round(one, 9) for one in seconds), strict=True))
            found.setdefault(at, {}).update(
                of, time_avg=total / span if span > 0 and math.isfinite(total) else None
            )  # fmt: skip
