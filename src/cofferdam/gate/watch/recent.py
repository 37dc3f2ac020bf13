"""What conduits added in the last minutes: the difference between what is counted now and what was counted then.

The halves count since their start, and nothing more is asked of them: every half minute the gate keeps what it has of
their histograms. So a request costs nothing, and `status` some subtractions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from cofferdam.histogram import Histogram, upper

RECENT_SECONDS = 300
STEP_SECONDS = 30.0
"""Between two that are kept: "the last 5 minutes" are up to so much longer."""


class _Kept(NamedTuple):
    at: float
    histograms: dict[str, Histogram]


class Recent:
    """Histograms by name, that only grow. Times are monotonic, in seconds."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque()

    def keep(self, now: float, histograms: Mapping[str, Histogram]) -> None:
        """Remembers these; forgets what no question needs any more."""
        before = self._kept[-1].histograms if self._kept else {}
        copies = {name: _copy(histogram) for name, histogram in histograms.items()}
        # While a pair is being ended, what it counted is missing for a moment: what was known before is nearer.
        for name, old in before.items():
            if name not in copies or copies[name].count < old.count:
                copies[name] = old
        self._kept.append(_Kept(now, copies))
        while len(self._kept) > 1 and self._kept[1].at <= now - RECENT_SECONDS:
            self._kept.popleft()

    def since(self, now: float, name: str, present: Histogram) -> Histogram:
        """What came into `present` in the last RECENT_SECONDS; all of it where nothing so old is known."""
        old = None
        for kept in self._kept:
            if kept.at > now - RECENT_SECONDS:
                break
            old = kept.histograms.get(name)
        return _copy(present) if old is None else _difference(present, old)


def _copy(histogram: Histogram) -> Histogram:
    made = Histogram()
    made.merge(histogram.counts, histogram.sum, histogram.max)
    return made


def _difference(now: Histogram, then: Histogram) -> Histogram:
    """What was added to `then`. The largest value is exact where it is the largest of all, else its bucket's end."""
    counts = {index: count - then.counts.get(index, 0) for index, count in now.counts.items()}
    counts = {index: count for index, count in counts.items() if count > 0}
    made = Histogram()
    if counts:
        largest = now.max if now.max > then.max else min(now.max, upper(max(counts)))
        made.merge(counts, max(0, now.sum - then.sum), largest)
    return made
