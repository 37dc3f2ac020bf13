"""Which sealed files are made into one, and when.

A day that is over is to be one file. But what is brought in tag by tag (a folder's files, a backfill) makes a file of
each day that it touches at each sealing, and to make each of those days into one at each of them would be the same work
again and again. So files are put together when they have come to half of what they join, which writes each sample a few
times at most, however many files there were; what is less joins its day at once a few times, and after that waits until
nothing has come to it for a while. Of a day there are never more files than FILES_MOST, and some whose sizes fall by
half from one to the next.

Not here: how (sealing), the thread in which it is done (keeper).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from cofferdam.brokers.mirror.catalogue import File

FILES_MOST, OPEN_FILES_MOST = 8, 24
"""Of a day that is over, and of one that is not: its hours."""
OVER_AFTER_HOURS: Final = 25
"""After its end a day counts as over."""
QUIET_SECONDS, FEW = 7_200.0, 4
"""Longer than the hour after which what has come is sealed; and so often, with less time between each two sealings,
what has come joins its day at once."""
ROWS_AT_ONCE: Final = 4_000_000
"""Of days that are made into files one after the other, and stand in one catalogue."""


class Came:
    """When something was sealed of which day (since 1970), and for the how-manieth time without a quiet while."""

    def __init__(self) -> None:
        self._days: dict[int, tuple[float, int]] = {}

    def note(self, day: int) -> None:
        """Something was sealed of it."""
        self.quiet(day)
        _, times = self._days.get(day, (0.0, 0))
        self._days[day] = (time.monotonic(), times + 1)

    def quiet(self, day: int) -> bool:
        """Whether what has come to it may join it now."""
        at, times = self._days.get(day, (0.0, 0))
        if times and time.monotonic() - at >= QUIET_SECONDS:
            del self._days[day]
            times = 0
        return times <= FEW


def due(files: Iterable[File], now: int, quiet: Callable[[int], bool]) -> list[list[File]]:
    """Files of a day each that are to become one now; `now` is an hour since 1970, `quiet` as of `Came`."""
    days: dict[int, list[File]] = {}
    for file in files:
        days.setdefault(file.first // 24, []).append(file)
    found: list[list[File]] = []
    rows = 0
    for day, some in sorted(days.items()):
        if len(some) > 1:
            over = now - day * 24 >= 24 + OVER_AFTER_HOURS
            if one := _of_day(some, over=over, quiet=over and quiet(day)):
                found.append(one)
                rows += sum(file.rows for file in one)
                if rows >= ROWS_AT_ONCE:
                    break
    return found


def _of_day(files: Sequence[File], *, over: bool, quiet: bool) -> list[File]:
    some = sorted(files, key=lambda file: file.rows, reverse=True)
    rest = sum(file.rows for file in some)
    many = len(some) > (FILES_MOST if over else OPEN_FILES_MOST)
    for at, file in enumerate(some[:-1]):
        rest -= file.rows
        if 2 * rest >= file.rows:
            if many or (over and at == 0):
                return some[at:]
            break
    return some if quiet else []
