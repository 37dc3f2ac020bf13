"""Windows over the clock changes of Europe/Paris, over midnight, over the horizon; and against zoneinfo."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from pydantic_core import PydanticCustomError

from cofferdam.model import NEVER, Allow, Deny, Fault
from cofferdam.policy import syntax, windows
from cofferdam.policy.rows import Clock, Window
from cofferdam.policy.zones import AHEAD, PAST, STEP, clock, zone, zone_names
from tests.examples import examples
from tests.policy.plant import NOW, conduit, flow, ns, policy, read

SECOND = 10**9
PARIS = clock("Europe/Paris", NOW)
CLOCKS = {"Europe/Paris": PARIS, "UTC": clock("UTC", NOW)}
# 2027: clocks jump from 02:00 to 03:00 on Sunday March 28, and go back from 03:00 to 02:00 on Sunday October 31.


def window(days: str, start: str, stop: str, zone: str = "Europe/Paris") -> Window:
    names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    hour = [int(t[:2]) * 3600 + int(t[3:]) * 60 for t in (start, stop)]
    chosen = tuple(i for i, name in enumerate(names) if name in days.split()) if days != "all" else tuple(range(7))
    return Window(chosen, hour[0], hour[1], zone)


@pytest.mark.parametrize(
    ("where", "opens", "closes"),
    [
        # an ordinary day, in winter and in summer
        (window("mon", "06:00", "18:00"), "2027-01-04T06:00+01:00", "2027-01-04T18:00+01:00"),
        (window("mon", "06:00", "18:00"), "2027-07-05T06:00+02:00", "2027-07-05T18:00+02:00"),
        # over the spring change: an hour shorter; over the autumn change: an hour longer
        (window("sun", "01:00", "04:00"), "2027-03-28T01:00+01:00", "2027-03-28T04:00+02:00"),
        (window("sun", "01:00", "04:00"), "2027-10-31T01:00+02:00", "2027-10-31T04:00+01:00"),
        # it opens in the hour that does not exist: at the jump
        (window("sun", "02:30", "04:00"), "2027-03-28T03:00+02:00", "2027-03-28T04:00+02:00"),
        # it closes in the hour that does not exist: at the jump
        (window("sun", "01:00", "02:30"), "2027-03-28T01:00+01:00", "2027-03-28T03:00+02:00"),
        # over midnight, belongs to the day on which it opens
        (window("sat", "22:00", "04:00"), "2027-03-27T22:00+01:00", "2027-03-28T04:00+02:00"),
        (window("sat", "22:00", "04:00"), "2027-10-30T22:00+02:00", "2027-10-31T04:00+01:00"),
        (window("sun", "22:00", "06:00"), "2027-01-03T22:00+01:00", "2027-01-04T06:00+01:00"),
        # whole days in a row
        (window("sat sun", "00:00", "24:00"), "2027-03-27T00:00+01:00", "2027-03-29T00:00+02:00"),
        (window("fri", "18:00", "00:00"), "2027-01-01T18:00+01:00", "2027-01-02T00:00+01:00"),
    ],
)
def test_opens_and_closes(where: Window, opens: str, closes: str) -> None:
    first, last = ns(opens), ns(closes)
    assert windows.state([where], CLOCKS, first - 1)[0] is False
    assert windows.state([where], CLOCKS, first - SECOND)[1] == first
    for inside in (first, (first + last) // 2, last - 1):
        assert windows.state([where], CLOCKS, inside) == (True, last)
    assert windows.state([where], CLOCKS, last)[0] is False


def test_a_window_in_the_hour_that_does_not_exist_stays_shut() -> None:
    where = window("sun", "02:10", "02:50")
    shut, until = windows.state([where], CLOCKS, ns("2027-03-28T00:00+01:00"))
    assert (shut, until) == (False, ns("2027-04-04T02:10+02:00"))


def test_a_window_in_the_hour_that_comes_twice_is_open_twice() -> None:
    where = window("sun", "02:10", "02:50")
    assert windows.state([where], CLOCKS, ns("2027-10-31T02:10+02:00")) == (True, ns("2027-10-31T02:50+02:00"))
    assert windows.state([where], CLOCKS, ns("2027-10-31T02:50+02:00")) == (False, ns("2027-10-31T02:10+01:00"))
    assert windows.state([where], CLOCKS, ns("2027-10-31T02:10+01:00")) == (True, ns("2027-10-31T02:50+01:00"))


def test_several_windows_add_up() -> None:
    both = [window("mon", "06:00", "12:00"), window("mon", "12:00", "18:00"), window("tue", "08:00", "09:00", "UTC")]
    assert windows.state(both, CLOCKS, ns("2027-01-04T07:00+01:00")) == (True, ns("2027-01-04T18:00+01:00"))
    assert windows.state(both, CLOCKS, ns("2027-01-04T18:00+01:00")) == (False, ns("2027-01-05T08:00"))


def test_a_window_without_end_lapses_later_and_is_open_still() -> None:
    always = [window("all", "00:00", "24:00")]
    is_open, until = windows.state(always, CLOCKS, NOW)
    assert is_open
    assert 7 * 86400 * SECOND < until - NOW < 40 * 86400 * SECOND
    assert windows.state(always, CLOCKS, until)[0]


def test_beyond_the_horizon_all_is_shut() -> None:
    extra = 'window: {from: "00:00", to: "24:00", zone: Europe/Paris}'
    asked = flow(policy(conduit("{who: ops, asset: plc, read: flow}", extra=extra)))
    horizon = PARIS.horizon * SECOND
    assert asked.decide(read("holding", 100), horizon - SECOND) == Allow("c", "c/0", horizon)
    for outside in (horizon, horizon + 10**18, PARIS.since[0] * SECOND - 1):
        verdict = asked.decide(read("holding", 100), outside)
        assert isinstance(verdict, Deny)
        assert verdict.fault is Fault.WINDOW
        assert "reload the policy" in verdict.detail
    assert horizon > NOW + 3650 * 86400 * SECOND
    assert windows.state([window("all", "00:00", "24:00")], CLOCKS, horizon) == (False, NEVER)


@pytest.mark.parametrize(
    "name", ["Europe/Paris", "America/New_York", "Africa/Casablanca", "Australia/Lord_Howe", "UTC"]
)
def test_offsets_equal_zoneinfo(name: str) -> None:
    where, made = zone(name), clock(name, NOW)
    begin = NOW // SECOND
    probes = [begin + day * 86400 + 1234 for day in range(-PAST // 86400 + 1, AHEAD // 86400 - 1, 5)]
    probes += [edge + near for edge in made.since[1:] for near in (-1, 0, 1)]
    for second in probes:
        offset = datetime.fromtimestamp(second, where).utcoffset()
        assert offset is not None
        assert windows.offset_at(made, second) == offset.total_seconds(), second
    assert len(made.since) == 1 if name == "UTC" else len(made.since) > 3


@pytest.mark.soak
def test_no_zone_changes_its_offset_twice_within_a_step() -> None:
    """What `clock` steps over is looked at by the half day, in every zone."""
    begin = NOW // SECOND - PAST
    for name in sorted(zone_names()):
        where, last, changed = zone(name), None, begin - STEP
        for second in range(begin, begin + PAST + AHEAD, 43_200):
            offset = datetime.fromtimestamp(second, where).utcoffset()
            if last is not None and offset != last:
                assert second - changed > STEP + 43_200, (name, second)
                changed = second
            last = offset


def slowly(where: Window, second: int) -> bool:
    """Whether a window is open, by datetime and zoneinfo: the local day and hour, today and yesterday."""
    local = datetime.fromtimestamp(second, zone(where.zone)).replace(tzinfo=None)
    for day in (local.date(), local.date() - timedelta(days=1)):
        excepted = any(first <= (day - date(1970, 1, 1)).days <= last for first, last in where.never)
        if day.weekday() in where.days and not excepted:
            midnight = datetime(day.year, day.month, day.day)
            length = where.stop if where.stop > where.start else where.stop + 86400
            if midnight + timedelta(seconds=where.start) <= local < midnight + timedelta(seconds=length):
                return True
    return False


never = st.lists(
    st.tuples(st.sampled_from([20_815, 20_820, 21_120, 21_243]), st.integers(0, 9)).map(lambda f: (f[0], f[0] + f[1])),
    max_size=2,
).map(tuple)
"""Spans of days at and beside the `moments`: of late December 2026 and March, October 2027, and so on."""
hours = st.integers(0, 96).map(lambda quarter: quarter * 900)
moments = st.sampled_from(["2027-03-28", "2027-10-31", "2027-01-01", "2028-02-29"]).flatmap(
    lambda day: st.integers(-3 * 1440, 3 * 1440).map(
        lambda minute: int((datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(minutes=minute)).timestamp())
    )
)


@examples(200)
@given(
    st.lists(
        st.builds(
            Window,
            st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
            hours.filter(lambda h: h < 86400), hours, st.sampled_from(["Europe/Paris", "UTC"]), st.just(""), never,
        ).filter(lambda w: w.start != w.stop),
        min_size=1, max_size=2,
    ),
    moments,
)  # fmt: skip
def test_state_equals_a_slow_one(found: list[Window], second: int) -> None:
    is_open, until = windows.state(found, CLOCKS, second * SECOND)
    assert is_open == any(slowly(where, second) for where in found)
    # Nothing changes before `until`.
    steps = range(second, min(until // SECOND, second + 3 * 86400), 900)
    assert all(any(slowly(where, step) for where in found) == is_open for step in steps)
    if until // SECOND - second < 7 * 86400:
        assert any(slowly(where, until // SECOND) for where in found) != is_open


@pytest.mark.parametrize(
    ("start", "stop", "opens", "closes"),
    [
        ("08:00", "12:00", "2027-01-04T08:00+01:00", "2027-01-04T12:00+01:00"),
        ("22:00", "04:00", "2027-01-04T22:00+01:00", "2027-01-05T04:00+01:00"),
        ("00:00", "24:00", "2027-01-04T00:00+01:00", "2027-01-05T00:00+01:00"),
    ],
)
def test_it_does_not_open_on_days_that_are_excepted(start: str, stop: str, opens: str, closes: str) -> None:
    """From Christmas Eve to the third of January, and on the fifth: the fourth is the one day between them."""
    spans = syntax.dates(["2027-01-05", "2026-12-24 to 2027-01-03"])
    where = structs.replace(window("all", start, stop), never=spans)
    before = ns("2026-12-24T04:00+01:00")
    first, last = ns(opens), ns(closes)
    for day in range(11):
        assert windows.state([where], CLOCKS, before + day * 86400 * SECOND)[0] is False
    assert windows.state([where], CLOCKS, first - 1)[0] is False
    assert windows.state([where], CLOCKS, first) == (True, last)
    assert windows.state([where], CLOCKS, last)[0] is False
    assert windows.state([where], CLOCKS, ns("2027-01-05T23:00+01:00"))[0] is False
    assert syntax.show_dates(spans) == "2026-12-24 to 2027-01-03, 2027-01-05"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("24.12.2026", "dates such as 2027-05-01, or 2026-12-24 to 2027-01-02"), ([], "1 to 100 of them"),
        ("2027-02-30", "days that the calendar has, which 2027-02-30 does not name"), (17, "dates such as"),
        ("2027-01-02 to 2026-12-24", "a first day that is not after the last"), ([["2027-01-01"]], "dates such as"),
        (["2027-05-01"] * 101, "1 to 100 of them"), ("2027-05-01 Europe/Paris", "dates such as"),
        (["2027-05-01", "12-25"], "2027-01-02, which '12-25' is not"),
        (["2027-05-01", "2027-01-02 to 2026-12-24"], "after the last, unlike 2027-01-02 to 2026-12-24"),
    ],
)  # fmt: skip
def test_dates_that_are_none(said: object, expected: str) -> None:
    with pytest.raises(PydanticCustomError, match=re.escape(expected)):
        syntax.dates(said)


def test_a_clock_without_offsets_is_shut() -> None:
    empty = Clock((100,), (0,), 200)
    assert windows.offset_at(empty, 99) is None
    assert windows.next_edge(window("all", "00:00", "24:00"), empty, 50) == 100
    assert windows.next_edge(window("all", "00:00", "24:00"), empty, 150) == 200
    assert windows.next_edge(window("all", "00:00", "24:00"), empty, 200) == NEVER
