"""When a window is open, by bisecting plain UTC offsets: no zone files, no clock of its own.

A window is judged by the local wall clock, so at daylight saving:
- in the hour that does not exist (spring) nothing is open that lies wholly in it, and a window that starts in it opens
  when the clocks have jumped;
- the hour that comes twice (autumn) is open both times.

Not here: where offsets come from (policy.compile).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from cofferdam.model import NEVER
from cofferdam.policy.rows import Clock, Window

DAY = 86_400
NS = 1_000_000_000
# Windows that are open day and night have no end, and some days may be excepted: look more than a week ahead (each
# window has at most 3 edges a day), then let the verdict lapse and be made again. Lapsing early is harmless.
MAX_EDGES = 30
"""Edges of each window that are looked at for the next change."""


def offset_at(clock: Clock, second: int) -> int | None:
    """UTC offset in seconds at a UTC second, or None outside what the clock knows."""
    if second >= clock.horizon:
        return None
    index = bisect_right(clock.since, second) - 1
    return clock.offsets[index] if index >= 0 else None


def is_open(window: Window, clock: Clock, second: int) -> bool:
    """Whether the window is open at a UTC second. Closed where the clock knows no offset."""
    offset = offset_at(clock, second)
    if offset is None:
        return False
    day, of_day = divmod(second + offset, DAY)
    if window.stop > window.start:
        return window.start <= of_day < window.stop and _starts(window, day)
    return (of_day >= window.start and _starts(window, day)) or (of_day < window.stop and _starts(window, day - 1))


def _starts(window: Window, day: int) -> bool:
    """Whether it opens on a day of its calendar; 1970-01-01, a Thursday, was 0."""
    return (day + 3) % 7 in window.days and not any(first <= day <= last for first, last in window.never)


def next_edge(window: Window, clock: Clock, second: int) -> int:
    """The next UTC second at which `is_open` may change; at most a day later. NEVER from the horizon on."""
    if second >= clock.horizon:
        return NEVER
    index = bisect_right(clock.since, second) - 1
    if index < 0:
        return clock.since[0]
    offset = clock.offsets[index]
    segment_end = clock.since[index + 1] if index + 1 < len(clock.since) else clock.horizon
    midnight, of_day = divmod(second + offset, DAY)
    ahead = min(edge for edge in (window.start, window.stop, DAY) if edge > of_day)
    return min(midnight * DAY + ahead - offset, segment_end)


def state(windows: Sequence[Window], clocks: Mapping[str, Clock], wall_ns: int) -> tuple[bool, int]:
    """Whether any window is open at `wall_ns`, and until when (UTC ns) that answer holds. No windows: always open."""
    if not windows:
        return True, NEVER
    second = wall_ns // NS
    now = any(is_open(window, clocks[window.zone], second) for window in windows)
    for _ in range(MAX_EDGES * len(windows)):
        second = min(next_edge(window, clocks[window.zone], second) for window in windows)
        if second == NEVER:
            return now, NEVER
        if any(is_open(window, clocks[window.zone], second) for window in windows) != now:
            break
    return now, second * NS


def beyond_horizon(windows: Sequence[Window], clocks: Mapping[str, Clock], wall_ns: int) -> bool:
    """True where every window is closed because its zone's offsets are not known at `wall_ns`."""
    return bool(windows) and all(offset_at(clocks[window.zone], wall_ns // NS) is None for window in windows)
