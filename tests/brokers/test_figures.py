"""Figures: what a part may report of what its broker declares, and that nothing else gets through."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.kit.figures import (
    FIGURES,
    LABELS,
    Distribution,
    Figures,
    Reported,
    check,
    counter,
    gauge,
    histogram,
)
from cofferdam.errors import CrossingError
from cofferdam.histogram import BUCKETS, bucket

DECLARED = {
    figure.name: figure
    for figure in (
        counter("messages", "messages taken", by="channel"),
        gauge("spool", "what waits", unit="bytes"),
        histogram("waited", "from coming to going", by="channel"),
    )
}


class Report(msgspec.Struct, array_like=True):
    figures: Reported


def over_the_pipe(reported: Reported) -> Reported:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(Report(reported)), type=Report).figures


def test_what_a_part_counts_arrives() -> None:
    figures = Figures(DECLARED.values())
    figures.add("messages", label="orders")
    figures.add("messages", 4, label="orders")
    figures.set("spool", 1 << 40)
    figures.measure("waited", 1_000_000, label="orders")
    figures.measure("waited", -5, label="orders")  # somebody set the clock
    reported = over_the_pipe(figures.report())
    check(DECLARED, reported)
    assert reported["messages"] == {"orders": 5} and reported["spool"] == {"": 1 << 40}
    waited = reported["waited"]["orders"]
    assert isinstance(waited, Distribution) and sum(waited.counts.values()) == 2
    figures.set("spool", 0)
    assert figures.report()["spool"] == {"": 0} and reported["spool"] == {"": 1 << 40}


def test_what_is_not_declared_can_not_be_counted() -> None:
    figures = Figures(DECLARED.values())
    with pytest.raises(KeyError):
        figures.add("mesages")
    with pytest.raises(KeyError):
        figures.measure("messages", 1)


@pytest.mark.parametrize(
    "reported",
    [
        {"unknown": {"": 1}},
        {"spool": {"channel": 1}},
        {"spool": {"": Distribution({}, 0, 0)}},
        {"waited": {"orders": 1}},
        {"waited": {"orders": Distribution({BUCKETS: 1}, 0, 0)}},
        {"waited": {"orders": Distribution({-1: 1}, 0, 0)}},
        {"messages": {"a\nb": 1}},
        {"messages": {"\x1b[2J": 1}},
    ],
)
def test_what_no_honest_part_says_is_refused(reported: Reported) -> None:
    with pytest.raises(CrossingError):
        check(DECLARED, over_the_pipe(reported))


@pytest.mark.parametrize(
    "reported",
    [
        {f"f{number}": {"": 1} for number in range(FIGURES + 1)},
        {"messages": dict.fromkeys(map(str, range(LABELS + 1)), 1)},
        {"messages": {"x" * 257: 1}},
        {"messages": {"orders": -1}},
        {"messages": {"orders": 1 << 63}},
        {"messages": {"orders": "many"}},
        {"waited": {"orders": Distribution({3: -1}, 0, 0)}},
    ],
)
def test_what_is_too_much_is_no_record(reported: Reported) -> None:
    with pytest.raises((msgspec.ValidationError, OverflowError)):
        over_the_pipe(reported)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_every_duration_has_a_bucket_that_passes(value: int) -> None:
    figures = Figures(DECLARED.values())
    figures.measure("waited", value, "orders")
    assert 0 <= bucket(value) < BUCKETS
    check(DECLARED, over_the_pipe(figures.report()))
