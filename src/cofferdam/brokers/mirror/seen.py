"""What has been read of a historian lately, so that a reading that overlaps the one before sends nothing twice.

Of each sample there are two numbers: of which tag and time it is (its key), and what it says (its mark). Both are
reckoned by Arrow for many samples at a time, and stand in Arrow's columns, 16 bytes a sample.

Not here: what is read when (collector), rows (blocks).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, cast

import pyarrow as pa
import pyarrow.compute as pc

from cofferdam.brokers.mirror.columns import NO_TIME, as_int64, mixed

STEPS: Final = 60
"""What is remembered goes step by step, of which there are so many in the time that is read again."""


class _Step:
    """What has been read of a step. `last`: the latest of its times; keys and marks come in pieces."""

    def __init__(self) -> None:
        self.last = NO_TIME
        self._keys: list[pa.Array] = []
        self._marks: list[pa.Array] = []

    @property
    def count(self) -> int:
        return sum(map(len, self._keys))

    def news(self, first: int, last: int, keys: pa.Array, marks: pa.Array) -> pa.BooleanArray:
        """Of samples of these times, whether each says something else than when it was last read."""
        if first > self.last:
            fresh = pa.repeat(pa.scalar(True), len(keys))
        else:
            known, said = pa.concat_arrays(self._keys), pa.concat_arrays(self._marks)
            fresh = pc.fill_null(pc.not_equal(said.take(pc.index_in(keys, value_set=known)), marks), True)
            if fresh.true_count:
                rest = pc.invert(pc.is_in(known, value_set=keys))
                known, said = known.filter(rest), said.filter(rest)
            self._keys, self._marks = [known], [said]
        if fresh.true_count:
            self._keys.append(keys)
            self._marks.append(marks)
        self.last = max(self.last, last)
        return fresh


class Seen:
    """What was read. When there is too much to remember, it is forgotten, and the store finds the repetitions. Of no
    time at all (0 s) nothing is read again."""

    MOST: Final = 2_000_000

    def __init__(self, span_s: int) -> None:
        self.remembers = span_s > 0
        self._step_ns = max(1, span_s // STEPS) * 10**9
        self.past_ns = NO_TIME
        """Of times before it much is read at once, and next to nothing again: it need not be remembered."""
        self._steps: dict[int, _Step] = {}

    @property
    def count(self) -> int:
        """Samples."""
        return sum(step.count for step in self._steps.values())

    def news(self, times: Sequence[int], keys: pa.Array, marks: pa.Array) -> pa.BooleanArray:
        """Of samples in the order of time, whether each says something else than when it was last read. `keys` and
        `marks`: as of `marked`."""
        if self.count >= self.MOST:
            self._steps.clear()
        found: list[pa.BooleanArray] = []
        at = 0
        while at < len(times):
            number = times[at] // self._step_ns
            end = max(at + 1, bisect_left(times, (number + 1) * self._step_ns, at))
            step = self._steps.setdefault(number, _Step())
            found.append(step.news(times[at], times[end - 1], keys.slice(at, end - at), marks.slice(at, end - at)))
            at = end
        return pa.concat_arrays(found)

    def forget(self, before_ns: int) -> None:
        """What is older is not read again."""
        for number in [number for number in self._steps if (number + 1) * self._step_ns < before_ns]:
            del self._steps[number]


def marked(
    tags: Sequence[str], times: array[int], values: Sequence[object], qualities: array[int]
) -> tuple[pa.Array, pa.Array]:
    """Of samples, which each is, and what is said of it (columns of int64). Of several of one tag and time each says
    what all of them say."""
    keys = mixed(as_int64(times), as_int64(array("q", map(hash, tags))))
    odd: list[int] = []
    try:  # all are numbers, as nearly always
        numbers = array("q", cast(Sequence[int], values))
    except TypeError:
        odd = [at for at, value in enumerate(values) if not isinstance(value, int)]
        numbers = array("q", [value if isinstance(value, int) else 0 for value in values])
    marks = mixed(as_int64(numbers), as_int64(qualities))
    several = pc.count_distinct(keys).as_py() != len(keys)
    if odd or several:
        plain = array("q", marks.to_pylist())
        for at in odd:
            plain[at] = hash((values[at], str(qualities[at])))
        marks = as_int64(_together(keys.to_pylist(), plain) if several else plain)
    return keys, marks


def _together(keys: list[int], marks: array[int]) -> array[int]:
    said: dict[int, set[int]] = {}
    for key, mark in zip(keys, marks, strict=True):
        said.setdefault(key, set()).add(mark)
    return array("q", [
        mark if len(said[key]) == 1 else hash(frozenset(said[key])) for key, mark in zip(keys, marks, strict=True)
    ])  # fmt: skip
