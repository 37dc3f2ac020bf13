"""The histogram against a list of all values."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.histogram import Histogram, bucket, upper

VALUES = st.lists(st.one_of(st.integers(-5, 200), st.integers(0, 2**62)), max_size=40)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(VALUES, VALUES)
def test_it_counts_what_a_list_would(first: list[int], second: list[int]) -> None:
    histogram, other = filled(first), filled(second)
    histogram.merge(other.counts, other.sum, other.max)
    values = [max(value, 0) for value in (*first, *second)]
    assert histogram.counts == Counter(map(bucket, values))
    assert (histogram.count, histogram.sum, histogram.max) == (len(values), sum(values), max(values, default=0))


@given(VALUES.filter(bool), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_a_quantile_is_a_value_s_bucket(values: list[int], share: float) -> None:
    ordered = sorted(max(value, 0) for value in values)
    at = next(value for number, value in enumerate(ordered, 1) if number >= share * len(ordered))
    assert filled(values).quantile(share) == min(upper(bucket(at)), ordered[-1])


def test_what_nobody_counts_changes_nothing() -> None:
    histogram = filled([0, 0, 7])
    histogram.counts[0] = 99
    assert histogram.counts == {0: 2, 7: 1}
    assert Histogram().quantile(0.5) == 0
