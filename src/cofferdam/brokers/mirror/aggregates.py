"""Aggregates: what steps of time have of a tag, from what was reckoned beforehand where that is whole, and from samples
everywhere else.

Not here: HTTP (api), samples (query), what is reckoned beforehand (partials).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cofferdam.brokers.mirror import partials
from cofferdam.brokers.mirror.columns import HOUR_NS, STORED, TIME
from cofferdam.brokers.mirror.partials import BAD, good, verdicts
from cofferdam.brokers.mirror.query import Deadline, View
from cofferdam.policy.terms.mirror_rows import Qualities

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


def schema_of(functions: Sequence[str], wholes: Collection[str] = ()) -> pa.Schema:
    """The columns of aggregates, some of which have whole numbers."""
    whole = {"count", *wholes}
    columns = [(name, pa.int64() if name in whole else pa.float64()) for name in functions]
    return pa.schema([("tag", pa.string()), ("time", TIME), *columns])


def joined(tables: Sequence[pa.Table], functions: Sequence[str]) -> pa.Table:
    """Tables of aggregates as one: a column is of whole numbers where it is in all of them that have any."""
    wholes = []
    for name in functions:
        types = {table[name].type for table in tables if table[name].null_count < table.num_rows}
        if types == {pa.int64()}:
            wholes.append(name)
    schema = schema_of(functions, wholes)
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema, safe=False) for table in tables)])


def buckets(tables: Iterable[pa.Table]) -> Iterator[Bucket]:
    """Aggregates one by one, for whom there are few."""
    for table in tables:
        names = table.schema.names[2:]
        columns = [table[name].to_pylist() for name in names]
        times = table["time"].cast(pa.int64()).to_pylist()
        for tag, at, *values in zip(table["tag"].to_pylist(), times, *columns, strict=True):
            yield Bucket(tag, at, dict(zip(names, values, strict=True)))


def aggregate(
    view: View, tags: Sequence[str], edges: Sequence[int], functions: Sequence[str], deadline: Deadline, most: int,
    now: int,
) -> Iterator[pa.Table]:  # fmt: skip
    """Aggregates of some tags over the steps between `edges` (UTC ns, ascending), as tables of `schema_of`, some steps
    of one tag each; of whole numbers where it has no others. Bad samples count as bad seconds and nothing else.
    `time_avg`, and the seconds, take a value to hold until the next sample, and the last one until `now`. Raises:
    TooMuch, StoreError."""
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
            yield from _of_tag(tag, table, lead, piece, functions, until, view.catalogue.qualities)
            at = upto


def _beforehand(edges: Sequence[int], steps: Sequence[int]) -> int:
    """The first of some steps (s) that were reckoned beforehand of which all of these are made; 0: none is."""
    for step in steps:
        if math.gcd(*edges) % (step * 10**9) == 0:
            return step
    return 0


def _answer(tag: str, edges: Sequence[int], places: Sequence[int], columns: Mapping[str, Any],
            functions: Sequence[str]) -> pa.Table:  # fmt: skip
    """The steps at these places, by function; a function of which nothing is known has nothing."""
    schema = schema_of(functions, [name for name in NUMBERS if name in columns and columns[name].type == pa.int64()])
    count = len(places)
    times = pa.array([edges[place] for place in places], pa.int64()).cast(TIME)
    found = [
        columns[name]
        if name in columns
        else pa.array([0 if name == "count" else None] * count, schema.field(name).type)
        for name in functions
    ]
    return pa.table([pa.repeat(tag, count), times, *found], schema=schema)


def _whole(found: pa.Table, columns: dict[str, Any]) -> None:
    """Takes least, most, first and last as whole numbers where no other is among them (`found`: by step, as PARTIAL has
    it), and reckons the difference of the latter."""
    if "wholes" in found.schema.names and pc.all(pc.equal(found["wholes"], found["count"])).as_py():
        columns.update({name: found[f"whole_{name}"] for name in partials.NUMBERS if f"whole_{name}" in columns})
    if {"first", "last"} <= columns.keys():
        try:
            columns["delta"] = pc.subtract_checked(columns["last"], columns["first"])
        except pa.ArrowInvalid:  # whole numbers at both ends of what there is
            columns["delta"] = pc.subtract(
                *(columns[name].cast(pa.float64(), safe=False) for name in ("last", "first"))
            )


NUMBERS: Final = (*partials.NUMBERS, "delta")
_PARTS: Final = {
    "avg": ("sum",), **{name: (name, f"whole_{name}", "wholes") for name in partials.NUMBERS},
    "delta": ("first", "last", "whole_first", "whole_last", "wholes"),
}  # fmt: skip
_HELD: Final = ("at", "until", "end", "end_verdict", "area", "weight", *partials.VERDICTS)


def _from_partials(
    view: View, tag: str, edges: Sequence[int], functions: Sequence[str], step: int, deadline: Deadline, most: int,
    hold: int | None,
) -> Iterator[pa.Table]:  # fmt: skip
    """A tag's aggregates: of days that were reckoned beforehand, or of samples."""
    parts = {part for name in functions for part in _PARTS.get(name, ())}
    names = ["begin", "count", *sorted(parts), *(_HELD if hold is not None else ())]
    by = view.catalogue.qualities
    found, spans = view.reckoned(tag, edges[0], edges[-1], step, deadline, names)
    found = [table for table in found if table.num_rows]
    at = edges[0]
    for low, high in [*spans, (edges[-1], edges[-1])]:
        while at < low:
            upto = min(low, at + PIECE_NS)
            deadline.check()
            table = view.samples([tag], at, upto, deadline, most=most)
            if table.num_rows:
                hourly = step == partials.HOUR
                made = partials.reckon_hours(table, by) if hourly else partials.reckon(table, step, by)
                found.append(made.select(names))
            at = upto
        at = high
    lead = view.before(tag, edges[0] - 1, deadline) if hold is not None else STORED.empty_table()
    if not found and not lead.num_rows:
        return
    places: list[int] = []
    columns: dict[str, Any] = {}
    whole: pa.Table | None = None
    if found:
        joined = pa.concat_tables(found)
        joined = joined.take(pc.sort_indices(joined, [("begin", "ascending")]))
        place = _places(joined["begin"].cast(pa.int64()), pa.array(edges, pa.int64()))
        whole = joined.append_column("place", place)
        some = partials.together(whole.filter(pc.greater(joined["count"], 0)), ["place"])
        some = some.take(pc.sort_indices(some, [("place", "ascending")]))
        places, columns = some["place"].to_pylist(), {name: some[name] for name in some.schema.names}
        if "sum" in parts:
            columns["avg"] = pc.divide(some["sum"], some["count"].cast(pa.float64()))
        _whole(some, columns)
    if hold is not None:
        sums = _Sums(edges)
        _hold_partials(sums, whole, lead, hold, by)
        places, columns = sums.beside(places, columns, functions)
    if places:
        yield _answer(tag, edges, places, columns, functions)


def _hold_partials(sums: _Sums, table: pa.Table | None, lead: pa.Table, hold: int, by: Sequence[Qualities]) -> None:
    """What holds how long in hours (HOURLY, with the `place` of each), and between them."""
    first = hold
    if table is not None:
        begins = _flat(table["at"].cast(pa.int64()))
        first = begins[0].as_py()
        sums.take(table, pa.concat_arrays([begins.slice(1), pa.array([hold], pa.int64())]))
    if lead.num_rows:
        value, judged = lead["value"][0].as_py(), verdicts(lead, by)[0].as_py()
        since = lead["time"].cast(pa.int64())[0].as_py()
        sums.add(since, first, math.nan if value is None else value, judged)


def _flat(column: Any) -> Any:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _of_tag(
    tag: str, table: pa.Table, lead: pa.Table, edges: Sequence[int], functions: Sequence[str], hold: int | None,
    by: Sequence[Qualities],
) -> Iterator[pa.Table]:  # fmt: skip
    if not table.num_rows and not lead.num_rows:
        return
    times = table["time"].cast(pa.int64())
    place = _places(times, pa.array(edges, pa.int64()))
    plain = pa.table({"place": place, "value": table["value"], "whole": table["whole"]}).filter(good(table, by))
    names = {"avg": ("value", "mean"), "count": ("value", "count")}
    names |= {name: ("value", name) for name in partials.NUMBERS}
    if plain["whole"].null_count < plain.num_rows:
        names |= {"wholes": ("whole", "count"), **{f"whole_{name}": ("whole", name) for name in partials.NUMBERS}}
    grouped = plain.group_by("place", use_threads=False).aggregate(list(names.values()))
    grouped = grouped.take(pc.sort_indices(grouped, [("place", "ascending")]))
    places: list[int] = grouped["place"].to_pylist()
    found = pa.table({name: grouped[f"{column}_{function}"] for name, (column, function) in names.items()})
    columns: dict[str, Any] = {name: found[name] for name in found.schema.names}
    _whole(found, columns)
    if hold is not None:
        sums = _Sums(edges)
        _weigh(sums, pa.concat_tables([lead, table]), hold, by)
        places, columns = sums.beside(places, columns, functions)
    if places:
        yield _answer(tag, edges, places, columns, functions)


def _places(times: Any, steps: pa.Array) -> Any:
    """In which step each time lies."""
    flat = _flat(times)
    widths = pc.min_max(pc.subtract(steps.slice(1), steps.slice(0, len(steps) - 1))).as_py()
    if widths["min"] == widths["max"]:  # days of a summer, or months, are not alike
        return pc.divide(pc.subtract(flat, steps[0]), widths["min"])
    edges = steps.to_pylist()
    return pa.array([bisect.bisect_right(edges, at) - 1 for at in flat.to_pylist()], pa.int64())


def _weigh(sums: _Sums, table: pa.Table, hold: int, by: Sequence[Qualities]) -> None:
    """Time-weighted average and seconds by quality: each sample holds until the next, within its steps."""
    times = table["time"].cast(pa.int64()).to_pylist()
    values, kinds = table["value"].to_pylist(), verdicts(table, by).to_pylist()
    for begin, end, value, kind in zip(times, [*times[1:], hold], values, kinds, strict=True):
        sums.add(begin, end, math.nan if value is None else value, kind)


SUMS: Final = ("area", "weight", *partials.VERDICTS)


class _Sums:
    """Of each step: the integral of values over seconds, the seconds of which it is, and those of each verdict."""

    def __init__(self, edges: Sequence[int]) -> None:
        self._edges = edges
        self._sums: dict[int, list[float]] = {}

    def take(self, table: pa.Table, until: pa.Array) -> None:
        """Hours (HOURLY, with the `place` of each, in order), and what the last sample of each holds `until` a time: in
        its own step, and in the next. What goes on beyond that is rare."""
        edges = pa.array(self._edges, pa.int64())
        place, since = _flat(table["place"]), _flat(table["until"].cast(pa.int64()))
        value, judged = _flat(table["end"]), _flat(table["end_verdict"])
        here, there = (pc.min_element_wise(pc.add(place, steps), len(edges) - 1) for steps in (1, 2))
        border, far = edges.take(here), edges.take(there)
        usable = pc.and_(pc.not_equal(judged, BAD), pc.invert(pc.is_nan(value)))
        parts = [table.select(["place", *SUMS])]
        for at, begin, end in ((place, since, border), (here, border, far)):
            spans = pc.subtract(pc.min_element_wise(until, end), begin)
            seconds = pc.divide(pc.cast(spans, pa.float64()), 1e9)
            columns = [pc.if_else(usable, pc.multiply(value, seconds), 0.0), pc.if_else(usable, seconds, 0.0)]
            columns += [pc.if_else(pc.equal(judged, of), seconds, 0.0) for of in range(len(partials.VERDICTS))]
            parts.append(pa.table([at, *columns], names=["place", *SUMS]).filter(pc.greater(spans, 0)))
        by_place = (
            pa.concat_tables(parts).group_by("place", use_threads=False).aggregate([(one, "sum") for one in SUMS])
        )
        for number, *rest in zip(*(column.to_pylist() for column in by_place.columns), strict=True):
            self._sums[number] = rest
        further = pc.greater(until, far)
        rest_of = zip(*(one.filter(further).to_pylist() for one in (far, until, value, judged)), strict=True)
        for begin, end, held, kind in rest_of:
            self.add(begin, end, held, kind)

    def add(self, begin: int, end: int, value: float, kind: int) -> None:
        """A value holds from one time until another."""
        edges = self._edges
        begin = max(begin, edges[0])
        at = bisect.bisect_right(edges, begin) - 1
        while begin < end and at < len(edges) - 1:
            upto = min(end, edges[at + 1])
            span = (upto - begin) / 1e9
            one = self._sums.setdefault(at, [0.0] * len(SUMS))
            one[2 + kind] += span
            if kind != BAD and not math.isnan(value):
                one[0] += value * span
                one[1] += span
            begin, at = upto, at + 1

    def beside(
        self, places: Sequence[int], columns: Mapping[str, Any], functions: Sequence[str]
    ) -> tuple[list[int], dict[str, Any]]:
        """All steps of which something is known, in order, and their columns."""
        both = sorted(self._sums.keys() | set(places))
        found: dict[str, Any] = {}
        nothing = [0.0] * len(SUMS)
        rows = zip(*(self._sums.get(place, nothing) for place in both), strict=True)
        sums = {name: pa.array(column, pa.float64()) for name, column in zip(SUMS, rows, strict=False)}
        known_here = pa.array([place in self._sums for place in both], pa.bool_())
        none_here = pa.scalar(None, pa.float64())
        for name in functions:
            if name == "time_avg" and both:
                area, weight = sums["area"], sums["weight"]
                usable = pc.and_(pc.greater(weight, 0.0), pc.is_finite(area))
                found[name] = pc.if_else(usable, pc.divide(area, weight), none_here)
            elif name in partials.VERDICTS and both:
                found[name] = pc.if_else(known_here, pc.round(sums[name], 9), none_here)
            elif name in columns:
                known = dict(zip(places, columns[name].to_pylist(), strict=True))
                none = 0 if name == "count" else None
                found[name] = pa.array([known.get(place, none) for place in both], columns[name].type)
        return both, found
