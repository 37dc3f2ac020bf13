"""A histogram of durations with 3 % resolution, cheap enough for every transaction. PURE.

Buckets are log-linear: values below 64 have one each, above that each doubling has 32. A value is an integer in
nanoseconds, up to about 290 years; negative values (a clock that was set) count as 0.
"""

from __future__ import annotations

from collections.abc import Mapping

_SUB = 32
BUCKETS = (57 << 5) + 64
"""How many there are, for values below 2**63."""


def bucket(value: int) -> int:
    """The bucket's number for a value (ns)."""
    if value < 64:
        return max(value, 0)
    shift = value.bit_length() - 6
    return (shift << 5) + (value >> shift)


def upper(index: int) -> int:
    """The largest value (ns) that falls into the bucket."""
    if index < 64:
        return index
    shift = (index >> 5) - 1
    return (((index & 31) + _SUB + 1) << shift) - 1


class Histogram:
    """Counts by bucket, with the exact maximum and sum."""

    __slots__ = ("_counts", "_zeros", "count", "max", "sum")

    def __init__(self) -> None:
        self._counts: list[int] = []  # by bucket, as far as there was something
        self._zeros = 0  # apart, since most waits are none at all
        self.count = 0
        self.sum = 0
        self.max = 0

    def add(self, value: int) -> None:
        """Counts one value (ns)."""
        self.count += 1
        if value <= 0:
            self._zeros += 1
            return
        # `bucket`, spelled out: this runs several times for each transaction.
        if value < 64:
            index = value
        else:
            shift = value.bit_length() - 6
            index = (shift << 5) + (value >> shift)
        counts = self._counts
        if index >= len(counts):
            self._reach(index)
        counts[index] += 1
        self.sum += value
        if value > self.max:
            self.max = value

    def _reach(self, index: int) -> None:
        self._counts += [0] * (index + 1 - len(self._counts))

    def merge(self, counts: Mapping[int, int], total: int, maximum: int) -> None:
        """Adds another histogram's counts, sum (ns) and maximum (ns)."""
        for index, n in counts.items():
            if index >= len(self._counts):
                self._reach(index)
            self._counts[index] += n
            self.count += n
        self.sum += total
        self.max = max(self.max, maximum)

    @property
    def counts(self) -> dict[int, int]:
        """A copy: how many values fell into each bucket that has any."""
        found = {index: n for index, n in enumerate(self._counts) if n}
        if self._zeros:
            found[0] = found.get(0, 0) + self._zeros
        return found

    def quantile(self, q: float) -> int:
        """The value (ns) that the share `q` (0 to 1) of all values does not exceed; 0 when empty."""
        if not self.count:
            return 0
        wanted = q * self.count
        seen = 0
        for index, n in sorted(self.counts.items()):
            seen += n
            if seen >= wanted:
                return min(upper(index), self.max)
        return self.max
