"""Time zones: names and UTC offsets, from the tzdata package and never from the host's files, so that the same policy
means the same everywhere.

Not here: windows over these offsets (policy.windows).
"""

from __future__ import annotations

import functools
import importlib.resources
import zoneinfo
from datetime import UTC, datetime, timedelta

from cofferdam.policy.rows import Clock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEP = 7 * 86_400
"""Seconds: two changes of a zone's offset never lie closer together. `make soak` asks every zone."""
PAST = 366 * 86_400
"""How far back a clock knows offsets, in seconds before it was made."""
AHEAD = 3653 * 86_400
"""How far ahead: ten years. After that the policy must be compiled anew."""


@functools.cache
def zone_names() -> frozenset[str]:
    """Every name in the tz database."""
    return frozenset(importlib.resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


@functools.cache
def zone(name: str) -> zoneinfo.ZoneInfo:
    """The zone of a name in `zone_names()`. Raises: KeyError for any other."""
    if name not in zone_names():
        raise KeyError(name)
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return zoneinfo.ZoneInfo.from_file(data, key=name)


def _offset(where: zoneinfo.ZoneInfo, second: int) -> int:
    offset = (_EPOCH + timedelta(seconds=second)).astimezone(where).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


@functools.lru_cache(maxsize=256)
def _clock(name: str, first: int) -> Clock:
    where = zone(name)
    since, offsets = [first], [_offset(where, first)]
    second, end = first, first + PAST + AHEAD
    while second < end:
        following = min(second + STEP, end)
        offset = _offset(where, following)
        if offset != offsets[-1]:
            low, high = second, following  # the offset changes after low, at or before high
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if _offset(where, middle) == offsets[-1] else (low, middle)
            since.append(high)
            offsets.append(offset)
        second = following
    return Clock(tuple(since), tuple(offsets), end)


def clock(name: str, now_ns: int) -> Clock:
    """A zone's offsets from a year before `now_ns` to ten years after it, in whole days."""
    today = now_ns // 10**9 // 86_400 * 86_400
    return _clock(name, today - PAST)


def end_of_day(date: str, name: str) -> int:
    """The UTC time in ns at which a date (2027-06-30) has ended in a zone. Raises: KeyError, ValueError."""
    following = datetime.fromisoformat(date) + timedelta(days=1)
    return int((following.replace(tzinfo=zone(name)) - _EPOCH).total_seconds()) * 10**9
