"""When a night's work is due, by the wall clock of a zone: over changes of summer time, missed nights, set clocks."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cofferdam.gate import state
from cofferdam.gate.watch.nightly import Nightly, last_due
from cofferdam.policy.rows import Evidence
from cofferdam.policy.zones import clock


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


BERLIN = clock("Europe/Berlin", utc("2026-01-01T00:00") * 10**9)


@pytest.mark.parametrize(
    ("hour", "now", "due"),
    [
        ("03:15", "2026-01-15T12:00", "2026-01-15T02:15"),  # winter
        ("03:15", "2026-01-15T02:15", "2026-01-15T02:15"),  # to the second
        ("03:15", "2026-01-15T02:14", "2026-01-14T02:15"),
        ("03:15", "2026-07-15T12:00", "2026-07-15T01:15"),  # summer
        ("03:15", "2026-03-29T12:00", "2026-03-29T01:15"),  # the night in which the clocks jump ahead
        ("03:15", "2026-10-25T12:00", "2026-10-25T02:15"),  # and back
        ("23:30", "2026-07-15T12:00", "2026-07-14T21:30"),
        ("00:00", "2026-07-15T22:30", "2026-07-15T22:00"),
    ],
)
def test_the_last_time_that_it_was_due(hour: str, now: str, due: str) -> None:
    of_day = int(hour[:2]) * 3600 + int(hour[3:]) * 60
    assert last_due(BERLIN, of_day, utc(now)) == utc(due)


@pytest.mark.parametrize("hour", range(24))
def test_once_a_day_whatever_the_clocks_do(hour: int) -> None:
    """Over the year every day has one, also those with 23 and 25 hours."""
    found = {last_due(BERLIN, hour * 3600, second) for second in range(utc("2026-01-03"), utc("2026-12-30"), 1800)}
    days = sorted(found)
    gaps = {after - before for before, after in itertools.pairwise(days)}
    assert gaps <= {82_800, 86_400, 90_000}
    assert len(days) in (361, 362)


def test_a_night_that_was_missed_and_a_clock_that_is_set(tmp_path: Path) -> None:
    now = [utc("2026-07-15T12:00")]
    table = SimpleNamespace(evidence=Evidence(11_700, "Europe/Berlin"), clocks={"Europe/Berlin": BERLIN})
    gate: Any = SimpleNamespace(options=SimpleNamespace(state=tmp_path), policy=SimpleNamespace(table=table))

    def due() -> bool:
        one = Nightly(gate, clock=lambda: now[0])
        one._night = state.load_night(tmp_path)
        return one.is_due()

    state.save_night(tmp_path, state.Night(now[0]))
    assert not due()
    now[0] = utc("2026-07-18T12:00")  # the machine was off for three nights
    assert due()
    state.save_night(tmp_path, state.Night(utc("2027-07-15T12:00")))  # the clock was a year ahead when it was done last
    assert not due()
    now[0] = utc("2026-07-19T12:00")
    assert due()
    table.evidence = Evidence(-1, "Europe/Berlin")
    assert not due()
    for damaged in ("", "[]", '{"last": -1}', '{"last": 1e99}', '{"last": 1, "x": 2}', "\xff"):
        (tmp_path / "night.json").write_text(damaged, "latin-1")
        assert state.load_night(tmp_path) == state.Night()
