"""Sums over parts and over their lives: a crew that was started anew does not begin counting at nothing.

What is summed has been held to its broker's declarations (brokers.kit.figures.check). A part may still name labels that
there are not, in each of its lives others: so many are kept, and the rest is one label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import Distribution
from cofferdam.brokers.kit.supervision import PartStatus
from cofferdam.enforce.profile import Can
from cofferdam.histogram import Histogram

MOST = (1 << 63) - 1
"""Where a sum ends: beyond it no JSON could tell it."""
LABELS = 8192
"""Labels of one figure that are kept apart, ..."""
OTHERS = "(others)"
"""... and what counts the rest."""
WORDS = 256
"""Limits and faults that are kept apart by name."""

T = TypeVar("T")


class _Labels(Generic[T]):
    """Values by label, so many at most."""

    def __init__(self, most: int = LABELS) -> None:
        self.values: dict[str, T] = {}
        self._most = most

    def key(self, label: str) -> str:
        return label if label in self.values or len(self.values) < self._most else OTHERS


class Counts(_Labels[int]):
    def add(self, label: str, count: int) -> None:
        label = self.key(label)
        self.values[label] = min(self.values.get(label, 0) + count, MOST)


class Durations(_Labels[Histogram]):
    def merge(self, label: str, counts: dict[int, int], total: int, maximum: int) -> None:
        label = self.key(label)
        histogram = self.values.get(label)
        if histogram is None:
            histogram = self.values[label] = Histogram()
        histogram.merge(counts, total, maximum)
        histogram.count, histogram.sum = min(histogram.count, MOST), min(histogram.sum, MOST)


class Totals:
    """Sums of any number of parts. Figures are kept by (broker, name)."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self._durations: dict[tuple[str, str], Durations] = {}
        self.limits = Counts(WORDS)
        self.faults = Counts(WORDS)
        self.malformed = 0

    def add(self, broker: Broker, part: str, status: PartStatus, *, lives: bool) -> None:
        """What a part reported. Gauges count only while it `lives`."""
        for name, count in status.limits.items():
            self.limits.add(name, count)
        profile = broker.crew.parts[part]
        if Can.ACCEPT in profile.can & ~profile.by_need:
            # Told by those who face clients: what another part refuses comes back to them, and would be counted twice.
            self.malformed = min(self.malformed + status.malformed, MOST)
            for name, count in status.faults.items():
                self.faults.add(name, count)
        for figure in broker.figures.get(part, ()):
            if figure.kind == "gauge" and not lives:
                continue
            for label, value in status.figures.get(figure.name, {}).items():
                if isinstance(value, Distribution):
                    self._spread(broker.name, figure.name).merge(label, value.counts, value.sum, value.max)
                else:
                    self._count(broker.name, figure.name).add(label, value)

    def merge(self, other: Totals) -> None:
        """Adds all of another's."""
        self.malformed = min(self.malformed + other.malformed, MOST)
        for mine, its in ((self.limits, other.limits), (self.faults, other.faults)):
            for name, count in its.values.items():
                mine.add(name, count)
        for (broker, name), counts in other._counts.items():
            for label, count in counts.values.items():
                self._count(broker, name).add(label, count)
        for (broker, name), durations in other._durations.items():
            for label, one in durations.values.items():
                self._spread(broker, name).merge(label, one.counts, one.sum, one.max)

    def _count(self, broker: str, name: str) -> Counts:
        return self._counts.setdefault((broker, name), Counts())

    def _spread(self, broker: str, name: str) -> Durations:
        return self._durations.setdefault((broker, name), Durations())

    def counts(self, broker: str, name: str) -> dict[str, int]:
        """A counter or gauge by label."""
        found = self._counts.get((broker, name))
        return found.values if found is not None else {}

    def durations(self, broker: str, name: str) -> dict[str, Histogram]:
        """A histogram by label."""
        found = self._durations.get((broker, name))
        return found.values if found is not None else {}

    def all_durations(self, name: str) -> Iterator[tuple[str, Histogram]]:
        """A histogram of this name by label, of all brokers that have one."""
        for (_, figure), durations in self._durations.items():
            if figure == name:
                yield from durations.values.items()
