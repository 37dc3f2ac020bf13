"""Aggregates that were reckoned beforehand are those that samples give, whatever comes late, is merged, dropped or
damaged."""

from __future__ import annotations

import math
import random
import zoneinfo
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cofferdam.brokers.mirror import api, partials, sealing
from cofferdam.brokers.mirror.aggregates import aggregate, buckets, joined
from cofferdam.brokers.mirror.columns import HOUR_NS, STORED, Sample, pack
from cofferdam.brokers.mirror.forms import aggregates_of, edges_of, takes_gzip
from cofferdam.brokers.mirror.query import Deadline, Reading
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.mirror.pairing import NOW, Pair
from tests.brokers.mirror.test_docs import POLICY, compiled

DAY_NS = 24 * HOUR_NS
TODAY = NOW // DAY_NS * DAY_NS
WEIGHTED = ("time_avg", "good", "uncertain", "bad")
FUNCTIONS = ("avg", "min", "max", "count", "first", "last", "delta")


def asked(pair: Pair, tag: str, every: int, since: int, until: int, *, functions: Any = FUNCTIONS) -> list[Any]:
    """(step, values) as a reader gives them."""
    view = Reading(pair.folder / "keeper").view()
    edges = list(range(since, until + 1, every))
    found = aggregate(view, [tag], edges, functions, Deadline(60), 0, pair.wall)
    return [(one.begin, one.values) for one in buckets(found)]


def reference(rows: dict[int, tuple[float, int]], every: int, since: int, until: int) -> list[Any]:
    """The same by hand, from the last revision of each time."""
    steps: dict[int, list[float]] = {}
    for at, (value, quality) in sorted(rows.items()):
        if since <= at < until and not math.isnan(value) and quality != 0x80000000:
            steps.setdefault(since + (at - since) // every * every, []).append(value)
    return [
        (begin, dict(zip(FUNCTIONS, (math.fsum(some) / len(some), min(some), max(some), len(some), some[0], some[-1],
                                     some[-1] - some[0]), strict=True)))
        for begin, some in steps.items()
    ]  # fmt: skip


def weighted(rows: dict[int, tuple[float, int]], every: int, since: int, until: int, hold: int) -> list[Any]:
    """What holds how long, by hand: each sample until the next."""
    steps: dict[int, list[float]] = {}
    times = sorted(at for at in rows if at < until)
    for at, upto in zip(times, [*times[1:], hold], strict=True):
        value, quality = rows[at]
        at = max(at, since)
        while at < upto:
            step = since + (at - since) // every * every
            end = min(upto, step + every)
            area, weight, good, bad = steps.get(step, [0.0] * 4)
            span = (end - at) / 1e9
            if quality == 0x80000000:
                bad += span
            else:
                good += span
                if not math.isnan(value):
                    area, weight = area + value * span, weight + span
            steps[step] = [area, weight, good, bad]
            at = end
    return [
        (step, {"time_avg": area / weight if weight else None, "good": good, "uncertain": 0.0, "bad": bad})
        for step, (area, weight, good, bad) in sorted(steps.items())
    ]


def same(found: list[Any], wanted: list[Any]) -> None:
    assert [at for at, _ in found] == [at for at, _ in wanted]
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if None in (one[name], other[name]):
                assert one[name] == other[name], (name, one, other)
            else:
                assert math.isclose(one[name], other[name], rel_tol=1e-9, abs_tol=1e-6), (name, one, other)


def take(pair: Pair, rows: list[tuple[int, float, int]], tag: str = "tank_a") -> None:
    pair.offer(pack("live", "historian", [Sample(tag, at, value, quality) for at, value, quality in rows]))
    pair.all()


def settled(pair: Pair) -> None:
    """All is sealed, merged and reckoned."""
    pair.seal()
    for _ in range(20):
        pair.keeper.tick()
        pair.settle()


def test_hours_and_minutes_are_those_of_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(5)
    pair = Pair(tmp_path)
    pair.back()
    rows: dict[int, tuple[float, int]] = {}

    def add(day: int, count: int, tag: str = "tank_a") -> None:
        some = []
        for _ in range(count):
            at = TODAY - day * DAY_NS + dice.randrange(DAY_NS)
            value = dice.choice([dice.gauss(50, 9), float(dice.randrange(9)), float("nan")])
            some.append((at, value, dice.choice([192, 0, 0x80000000])))
        take(pair, some, tag)
        if tag == "tank_a":
            rows.update({at: (value, quality) for at, value, quality in some})

    since, until = TODAY - 5 * DAY_NS, TODAY + DAY_NS
    steps = (60 * 10**9, HOUR_NS, 3 * HOUR_NS, DAY_NS, 6 * DAY_NS)

    def right() -> None:
        for every in steps:
            same(asked(pair, "tank_a", every, since, until), reference(rows, every, since, until))
        for every in (HOUR_NS, DAY_NS, 6 * DAY_NS):
            found = asked(pair, "tank_a", every, since, until, functions=WEIGHTED)
            same(found, weighted(rows, every, since, until, min(until, pair.wall)))

    for day in (4, 3, 2):
        add(day, 400)
        add(day, 50, "flow_b")
        settled(pair)
    add(2, 8_000)  # worth minutes
    settled(pair)
    reckoned = pair.keeper.store.catalogue.reckoned
    assert {one.step for one in reckoned} == {60, 3600}
    assert all((tmp_path / "keeper" / one.name).exists() for one in reckoned)
    # Whoever reads the store's files by their name reads samples.
    assert all(pq.read_schema(path).names == STORED.names for path in (tmp_path / "keeper").glob("*.parquet"))
    right()

    reads: list[int] = []
    read = sealing.read_group

    def counted(file: Any, *said: Any) -> Any:
        reads.append(file.schema_arrow.names in (partials.PARTIAL.names, partials.HOURLY.names))
        return read(file, *said)

    monkeypatch.setattr(sealing, "read_group", counted)
    asked(pair, "tank_a", HOUR_NS, TODAY - 4 * DAY_NS, TODAY - DAY_NS)
    assert reads and all(reads)  # no sample was looked at
    reads.clear()
    asked(pair, "tank_a", DAY_NS, TODAY - 4 * DAY_NS, TODAY - DAY_NS, functions=WEIGHTED)
    assert reads.count(False) <= 1  # but for the one before it all
    monkeypatch.undo()

    add(3, 30)  # late, and hot: in every answer at once
    right()
    pair.seal()
    right()  # beside the day's own file
    names = {one.name for one in reckoned}
    settled(pair)
    assert {one.name for one in pair.keeper.store.catalogue.reckoned} - names  # made anew
    right()
    add(0, 100)
    right()
    pair.born()
    settled(pair)
    right()

    hours = next(one for one in pair.keeper.store.catalogue.reckoned if one.step == 3600)
    path = tmp_path / "keeper" / hours.name
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 20)):  # a flipped bit is never another number
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        same(asked(pair, "tank_a", DAY_NS, since, until), reference(rows, DAY_NS, since, until))
    path.unlink()
    right()
    take(pair, [(TODAY - DAY_NS * 4 + 1, 7.0, 192)])  # its day becomes another file, and the damaged one is made anew
    rows[TODAY - DAY_NS * 4 + 1] = (7.0, 192)
    settled(pair)
    settled(pair)
    right()
    assert all((tmp_path / "keeper" / one.name).exists() for one in pair.keeper.store.catalogue.reckoned)
    pair.close()


@pytest.mark.parametrize(
    ("zone", "since", "until", "every"),
    [
        ("UTC", "2026-02-01", "2026-04-01", "1month"),  # the second is longer than the first
        ("Europe/Berlin", "2025-10-25", "2025-10-27", "1d"),  # 24 hours, and 25
        ("Europe/Berlin", "2025-10-20", "2026-04-02", "1d"),  # an hour more, and in spring one less
        ("Asia/Kathmandu", "2026-02-01", "2026-04-01", "1month"),  # no whole hours: samples are read
    ],
)
def test_steps_that_are_not_of_one_length(tmp_path: Path, zone: str, since: str, until: str, every: str) -> None:
    """Months, and the days on which clocks are changed: each sample is in its own step, and in no other."""
    tz = zoneinfo.ZoneInfo(zone)
    low, high = (int(datetime.fromisoformat(one).replace(tzinfo=tz).timestamp()) * 10**9 for one in (since, until))
    pair = Pair(tmp_path)
    pair.back()
    times = list(range(low, high, HOUR_NS))
    take(pair, [(at, float(n), 192) for n, at in enumerate(times)])
    settled(pair)
    wanted: dict[Any, list[float]] = {}
    for n, at in enumerate(times):
        day = datetime.fromtimestamp(at // 10**9, tz).date()
        wanted.setdefault(day.replace(day=1) if every == "1month" else day, []).append(float(n))
    found = buckets(
        aggregate(
            Reading(tmp_path / "keeper").view(), ["tank_a"], edges_of(every, low, high, zone),
            ("count", "first", "last", "good"), Deadline(60), 0, pair.wall,
        )
    )  # fmt: skip
    assert {datetime.fromtimestamp(one.begin // 10**9, tz).date(): one.values for one in found} == {
        day: {"count": len(some), "first": some[0], "last": some[-1], "good": len(some) * 3600.0}
        for day, some in wanted.items()
    }
    pair.close()


def test_what_was_set_long_ago_holds_and_what_is_gone_is_no_error(tmp_path: Path) -> None:
    """A setting is written once. Of a tag that is between others in what was reckoned, and has nothing there, too."""
    pair = Pair(tmp_path)
    pair.back()
    old = TODAY - 45 * DAY_NS
    take(pair, [(old, 72.0, 192)], "tank_set")
    take(pair, [(NOW, 1.0, 192)], "tank_later")
    for tag in ("flow_b", "tank_z"):
        take(pair, [(TODAY - 2 * DAY_NS + n * HOUR_NS, 1.0, 192) for n in range(24)], tag)
    settled(pair)
    assert pair.keeper.store.catalogue.reckoned
    since, until = TODAY - 2 * DAY_NS, TODAY
    found = asked(pair, "tank_set", DAY_NS, since, until, functions=WEIGHTED)
    held = {"time_avg": 72.0, "good": 86_400.0, "uncertain": 0.0, "bad": 0.0}
    assert found == [(since, held), (since + DAY_NS, held)]
    view = Reading(tmp_path / "keeper").view()
    assert view.before("tank_set", TODAY, Deadline(60))["value"].to_pylist() == [72.0]
    assert not view.before("tank_set", old - 1, Deadline(60)).num_rows
    assert asked(pair, "tank_later", DAY_NS, since, until, functions=WEIGHTED) == []
    pair.close()


def test_what_is_dropped_takes_its_aggregates_along(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    take(pair, [(TODAY - 40 * DAY_NS + n * 10**9, float(n), 192) for n in range(1000)])
    settled(pair)
    store = pair.keeper.store
    assert len(store.catalogue.files) == 1 and len(store.catalogue.reckoned) == 2
    store.dropped(list(store.catalogue.files), 0)
    pair.keeper.tick()
    assert store.catalogue.reckoned == []
    assert asked(pair, "tank_a", DAY_NS, TODAY - 50 * DAY_NS, TODAY) == []
    pair.close()


MEANT = {
    "opc-da": {"good": 2400.0, "uncertain": 600.0, "bad": 600.0, "count": 3},
    "opc-ua": {"good": 3600.0, "uncertain": 0.0, "bad": 0.0, "count": 4},
    "": {"good": 3000.0, "uncertain": 600.0, "bad": 0.0, "count": 4},
}


def test_what_a_quality_means_goes_by_the_source_of_its_tag(tmp_path: Path) -> None:
    """In samples and in what was reckoned beforehand, which is made anew when the policy says otherwise."""

    def policy(term: str) -> CompiledPolicy:
        lab = f"lab: {{folder: lab, of: tank_lab{f', quality: q, qualities: {term}' if term else ''}}}"
        text = POLICY.replace("historian:", f"{lab}\n      historian:")
        return compiled(text.replace("quality: quality", "quality: quality\n        qualities: opc-ua"))

    pair = Pair(tmp_path, policy("opc-da"))
    pair.back()
    day = TODAY - 2 * DAY_NS
    for source, tag in (("historian", "tank_a"), ("lab", "tank_lab")):
        for hour in range(24):
            some = zip((0, 10, 20, 30), (192, 64, 0, 216), strict=True)
            rows = [Sample(tag, day + hour * HOUR_NS + minute * 60 * 10**9, 5.0, quality) for minute, quality in some]
            pair.offer(pack("live", source, rows))
    pair.all()
    functions = ("good", "uncertain", "bad", "count")

    def right(term: str) -> None:
        for tag, of in (("tank_a", "opc-ua"), ("tank_lab", term)):
            hours = asked(pair, tag, HOUR_NS, day, day + DAY_NS, functions=functions)
            assert [values for _, values in hours] == [MEANT[of]] * 24, (tag, of)

    pair.keeper.tick()
    right("opc-da")  # from samples
    for term in ("opc-da", "", "opc-da"):
        pair.keeper.take_policy(policy(term), ())
        settled(pair)
        right(term)
    store = pair.keeper.store
    store._lingering[:] = [(0.0, name) for _, name in store._lingering]  # ten minutes later
    store.sweep()
    (name,) = (path.name for path in (tmp_path / "keeper").glob(f"*{partials.SUFFIX}"))
    assert [one.name for one in store.catalogue.reckoned] == [name]
    pair.close()


BIG = 9_007_199_254_740_993
"""2^53 + 1, which float64 has not."""


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    """Least, most, first, last and delta, from samples, and reckoned beforehand; where another number is among them,
    all are float64."""
    pair = Pair(tmp_path)
    pair.back()
    day = TODAY - 2 * DAY_NS
    moments = [day + minute * 60 * 10**9 for minute in range(24 * 60)]
    counter = [Sample("flow_total", at, BIG + 8 * n) for n, at in enumerate(moments)]
    counter += [Sample("flow_total", at + 1, BIG * 9, 0x80000000) for at in moments]
    mixed = [Sample("flow_mixed", at, BIG if n % 120 else 0.5) for n, at in enumerate(moments)]
    ends = [Sample("flow_ends", moments[0], -(1 << 63)), Sample("flow_ends", moments[1], (1 << 63) - 1)]
    for some in (counter, mixed, ends):
        pair.offer(pack("live", "historian", some))
    pair.all()

    def right() -> None:
        for every, more in ((60 * 10**9, ()), (HOUR_NS, ()), (HOUR_NS, ("good",)), (DAY_NS, ("time_avg",))):
            found = asked(pair, "flow_total", every, day, day + DAY_NS, functions=(*FUNCTIONS, *more))
            step = every // (60 * 10**9)
            for n, (_, values) in enumerate(found):
                first, last = BIG + 8 * n * step, BIG + 8 * (n * step + step - 1)
                some = (first, last, first, last, last - first)
                assert tuple(values[name] for name in ("min", "max", "first", "last", "delta")) == some, (every, n)
            assert len(found) == 24 * 60 // step
        (values,) = [values for _, values in asked(pair, "flow_mixed", DAY_NS, day, day + DAY_NS)]
        assert isinstance(values["min"], float) and values["min"] == 0.5 and isinstance(values["max"], float)
        (values,) = [values for _, values in asked(pair, "flow_ends", DAY_NS, day, day + DAY_NS)]
        assert values["delta"] == 2.0**64 and (values["min"], values["max"]) == (-(1 << 63), (1 << 63) - 1)

    right()
    settled(pair)
    assert {one.step for one in pair.keeper.store.catalogue.reckoned} == {partials.HOUR}
    right()
    pair.close()
    view, edges = Reading(tmp_path / "keeper").view(), [day, day + DAY_NS, day + 2 * DAY_NS]
    names = ("max", "count", "good")
    tables = {tag: list(aggregate(view, [tag], edges, names, Deadline(60), 0, pair.wall))
              for tag in ("flow_total", "flow_mixed")}  # fmt: skip
    top = counter[len(moments) - 1].value
    assert [one["max"] for table in tables["flow_total"] for one in aggregates_of(table)] == [str(top), None]
    both = [*tables["flow_total"], *tables["flow_mixed"]]
    assert joined(tables["flow_total"], names)["max"].to_pylist() == [top, None]
    assert joined(both, names)["max"].to_pylist() == [float(top), None, float(BIG), None]
    assert joined([], names).schema.names == ["tag", "time", *names]


def test_between_two_bools_there_is_nothing(tmp_path: Path) -> None:
    """A valve that was shut and is open was never half open: it is as it was."""
    pair = Pair(tmp_path)
    pair.back()
    values: dict[str, tuple[Any, Any]] = {
        "tank_a": (False, True), "tank_b": (True, 3.5), "tank_c": (1.0, True), "tank_d": (1, 2), "tank_e": ("x", "y"),
    }  # fmt: skip
    for at in (0, 1):
        pair.offer(pack("live", "historian", [Sample(tag, NOW + at * 10, some[at]) for tag, some in values.items()]))
    pair.all()
    view = Reading(tmp_path / "keeper").view()
    found = {tag: api._value_at(view, tag, NOW + 5, "linear", Deadline(60))["value"] for tag in values}
    assert str(found) == str({"tank_a": False, "tank_b": True, "tank_c": 1.0, "tank_d": 1.5, "tank_e": "x"})
    pair.close()


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ("gzip", True), ("GZIP;q=1.0", True), ("deflate, gzip;q=0.5", True), ("*", True), ("x-gzip", True), ("", False),
        ("gzip;q=0", False), ("gzip; q=0.000, *", False), ("*;q=0", False), ("identity", False), ("gzipped", False),
    ],
)  # fmt: skip
def test_an_answer_is_packed_for_who_takes_it_so(said: str, taken: bool) -> None:
    assert takes_gzip(said) is taken
