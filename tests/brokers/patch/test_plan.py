"""Plans: rings, thresholds and windows, the latter against a model that walks minute by minute through the years."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cofferdam.brokers.patch.plan import NS, Held, Plan, Step, upcoming
from cofferdam.brokers.patch.records import Custom, Release
from cofferdam.policy.hours import Window
from cofferdam.policy.terms.patch_rows import Health, Install, PatchRows, Unless, Way
from cofferdam.policy.zones import clock, zone

ZONES = ["Europe/Paris", "America/New_York", "America/Sao_Paulo", "Asia/Kolkata", "Australia/Lord_Howe",
         "Africa/Casablanca", "Pacific/Apia", "UTC"]  # fmt: skip
START = datetime(2026, 1, 1, tzinfo=UTC)
CLOCKS = {name: clock(name, int(START.timestamp()) * NS) for name in ZONES}
MINUTE = 60 * NS


def slow(window: Window, at: datetime) -> bool:
    """Whether the window is open, by the wall clock of its zone and nothing else."""
    local = at.astimezone(zone(window.zone))  # of the same tz database
    second = local.hour * 3600 + local.minute * 60 + local.second
    if window.stop > window.start:
        return local.weekday() in window.days and window.start <= second < window.stop
    return (local.weekday() in window.days and second >= window.start) or (
        (local.weekday() - 1) % 7 in window.days and second < window.stop
    )


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ZONES), st.integers(0, 3650), st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 95), st.integers(0, 95),
)  # fmt: skip
def test_rows_are_what_the_wall_clock_says(name: str, day: int, days: set[int], start: int, stop: int) -> None:
    """Ten years, eight zones, both changes of the clocks, windows over midnight, leap days."""
    if start == stop:
        stop = (stop + 1) % 96
    window = Window(tuple(sorted(days)), start * 900, stop * 900, name)
    since = START + timedelta(days=day)
    since_ns = int(since.timestamp()) * NS
    span = 3 * 1440
    rows = upcoming((window,), CLOCKS, since_ns, since_ns + span * MINUTE)
    for minute in range(0, span, 5):
        at = since_ns + minute * MINUTE
        assert any(begin <= at < end for begin, end in rows) == slow(window, since + timedelta(minutes=minute)), minute


@pytest.mark.parametrize(
    ("date", "hours"), [("2027-03-28", 1), ("2027-10-31", 3), ("2027-03-21", 2)],
)  # fmt: skip
def test_a_window_is_as_long_as_its_night(date: str, hours: int) -> None:
    window = Window((6,), 2 * 3600, 4 * 3600, "Europe/Paris")
    since = int(datetime.fromisoformat(f"{date}T00:00+00:00").timestamp()) * NS - 3600 * NS
    rows = upcoming((window,), CLOCKS, since, since + 12 * 3600 * NS)
    assert [(end - begin) // NS for begin, end in rows] == [hours * 3600]


def release(number: int, *, size: int = 1000, emergency: bool = False) -> Release:
    custom = Custom(
        number=number, product="fw", version=f"{number}.0", file="fw.bin", uploaded_by="u", requested_by="r",
        origin="o", scan="s", at="", emergency=emergency, reason="x" if emergency else "",
    )  # fmt: skip
    return Release(custom.path, size, "0" * 64, custom)


def rows(*, soak: int = 0, stop_after: int = 1, window: Window | None = None) -> PatchRows:
    windows = (window,) if window else ()
    places = [("a", "test"), ("b", "line"), ("c", "line")]
    return PatchRows(
        ways=tuple(Way(asset=asset, address="10.0.0.1", rate=1000) for asset, _ in places),
        installs=tuple(
            Install(number=n, asset=asset, products=("fw",), ring=ring, windows=windows)
            for n, (asset, ring) in enumerate(places)
        ),
        rings=("test", "line"),
        soak=(("test", soak),),
        stop_after=stop_after,
    )


def step(asset: str, number: int, state: Any, at: int = 1) -> Step:
    return Step(
        asset=asset,
        product="fw",
        release=number,
        version=f"{number}.0",
        sha256="",
        state=state,
        at=at,
    )


def due(plan: Plan, wall: int = 10 * NS) -> dict[str, bool]:
    return {verdict.asset: verdict.due for verdict in plan.verdicts(wall)}


def steps(*some: Step) -> dict[str, Step]:
    return {each.key: each for each in some}


def test_a_ring_waits_for_the_one_before_and_its_rest() -> None:
    some = [release(1)]
    assert due(Plan(rows(soak=60), some, {}, Held(), CLOCKS)) == {"a": True, "b": False, "c": False}
    done = steps(step("a", 1, "done", at=10 * NS))
    resting = Plan(rows(soak=60), some, done, Held(), CLOCKS)
    assert due(resting, 69 * NS) == {"a": False, "b": False, "c": False}
    assert due(resting, 70 * NS) == {"a": False, "b": True, "c": True}


@pytest.mark.parametrize("state", ["failed", "unknown", "back"])
def test_failures_stop_a_release_for_all_until_a_person_lets_them_pass(state: str) -> None:
    some = steps(step("a", 1, "done"), step("b", 1, state))
    assert due(Plan(rows(), [release(1)], some, Held(), CLOCKS)) == {"a": False, "b": False, "c": False}
    assert due(Plan(rows(stop_after=2), [release(1)], some, Held(), CLOCKS))["c"]
    assert due(Plan(rows(), [release(1)], some, Held(passed={1: 1}), CLOCKS))["c"]
    # What failed is never begun again by itself, whatever is released next.
    assert not due(Plan(rows(), [release(1), release(2)], some, Held(passed={1: 1}), CLOCKS))["b"]


@pytest.mark.parametrize("state", ["sending", "sent", "backing"])
def test_nothing_is_sent_twice(state: str) -> None:
    assert not due(Plan(rows(), [release(1)], steps(step("a", 1, state)), Held(), CLOCKS))["a"]


def test_a_transfer_that_would_not_end_inside_does_not_start() -> None:
    window = Window((0, 1, 2, 3, 4, 5, 6), 0, 3600, "UTC")
    midnight = int(START.timestamp()) * NS
    plan = Plan(rows(window=window), [release(1, size=600_000)], {}, Held(), CLOCKS)  # ten minutes
    assert due(plan, midnight + 3000 * NS)["a"]
    assert not due(plan, midnight + 3001 * NS)["a"]
    assert not due(plan, midnight + 7200 * NS)["a"]
    urgent = Plan(rows(window=window), [release(1, emergency=True)], {}, Held(), CLOCKS)
    assert due(urgent, midnight + 7200 * NS) == {"a": True, "b": True, "c": True}


def test_what_people_hold_holds() -> None:
    some = [release(1), release(2)]
    assert not due(Plan(rows(), some, {}, Held(paused=("fw",)), CLOCKS))["a"]
    plan = Plan(rows(), some, {}, Held(stopped=(2,)), CLOCKS)
    assert {verdict.release.custom.number for verdict in plan.verdicts(0) if verdict.release} == {1}


def test_no_more_are_under_way_than_may_be_at_once() -> None:
    few = msgspec.structs.replace(rows(stop_after=5), at_once=1)
    sends = steps(step("a", 1, "done"), step("b", 1, "sending"))
    plan = Plan(few, [release(1)], sends, Held(), CLOCKS)
    assert due(plan) == {"a": False, "b": False, "c": False}
    assert "1 asset is under way, and 1 may be at once" in [each.why for each in plan.verdicts(10 * NS)]
    assert due(Plan(msgspec.structs.replace(few, at_once=2), [release(1)], sends, Held(), CLOCKS))["c"]
    assert due(Plan(rows(), [release(1)], sends, Held(), CLOCKS))["c"]
    # What was sent is under way for as long as we look at it; what waits for a person is not.
    sent = steps(step("a", 1, "done"), step("b", 1, "sent"))
    for health, turn in ((None, True), (Health(tcp=1), False), (Health(person=True), True)):
        installs = tuple(msgspec.structs.replace(each, health=health) for each in few.installs)
        looked = msgspec.structs.replace(few, installs=installs)
        assert due(Plan(looked, [release(1)], sent, Held(), CLOCKS))["c"] is turn


@pytest.mark.parametrize("emergency", [False, True])
def test_what_holds_it_back_is_asked_last_and_of_every_release(emergency: bool) -> None:
    said = Unless(asset="press", point="speed", above=0)
    some = rows(window=Window((0,), 0, 3600, "UTC"))
    some = msgspec.structs.replace(
        some, installs=tuple(msgspec.structs.replace(each, unless=(said,)) for each in some.installs)
    )
    monday = int(datetime(2026, 1, 5, tzinfo=UTC).timestamp()) * NS
    for wall, looks in ((monday, True), (monday + 7200 * NS, emergency)):
        plan = Plan(some, [release(1, emergency=emergency)], {}, Held(), CLOCKS, lambda _: "it runs")
        first = next(plan.verdicts(wall))
        assert (first.due, first.held, first.why == "it runs") == (False, looks, looks)
        assert next(Plan(some, [release(1, emergency=emergency)], {}, Held(), CLOCKS).verdicts(wall)).due is looks


def test_an_emergency_is_told_of_until_a_day_after_it_is_everywhere() -> None:
    urgent, day = [release(1, emergency=True)], 86_400 * NS
    wall = 10 * day
    assert list(Plan(rows(), urgent, {}, Held(), CLOCKS).emergencies(wall)) == urgent
    for state, ago, told in (("done", day - NS, True), ("done", day, False), ("failed", day, True)):
        some = {
            key: msgspec.structs.replace(each, at=wall - ago)
            for key, each in steps(step("a", 1, "done"), step("b", 1, "done"), step("c", 1, state)).items()
        }
        assert bool(list(Plan(rows(), urgent, some, Held(), CLOCKS).emergencies(wall))) is told, (state, ago)
    some = steps(step("a", 1, "done"), step("b", 1, "done"))
    for gone in (Held(stopped=(1,)), Held()):
        newer = [] if gone.stopped else [release(2)]
        assert not list(Plan(rows(), [*urgent, *newer], some, gone, CLOCKS).emergencies(wall))
    assert not list(Plan(rows(), [release(1)], {}, Held(), CLOCKS).emergencies(wall))
