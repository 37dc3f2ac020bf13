"""The longest of what lasted too long of late: a loop that did not look, a stream that paused. PURE."""

from __future__ import annotations

from collections import deque
from typing import Final

OF_LATE_NS: Final = 10_000_000_000
KEPT: Final = 64
"""Of those that were not the longest any more when they were noted, at most."""


class Longest:
    """Durations above `floor` (ns) of the last ten seconds, as far as no longer one came after them."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self._found: deque[tuple[int, int]] = deque()  # (when it ended, how long it was): the longest first

    def note(self, duration: int, now: int) -> None:
        """Something took so long, and ended at `now` (monotonic ns)."""
        if duration <= self.floor:
            return
        found = self._found
        while found and found[-1][1] <= duration:
            found.pop()
        self._forget(now)
        if len(found) < KEPT:
            found.append((now, duration))

    def of_late(self, now: int) -> int:
        """The longest of the ten seconds before `now`; 0 where none was above the floor."""
        self._forget(now)
        return self._found[0][1] if self._found else 0

    def _forget(self, now: int) -> None:
        found = self._found
        while found and found[0][0] < now - OF_LATE_NS:
            found.popleft()
