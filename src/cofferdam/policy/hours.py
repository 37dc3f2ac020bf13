"""Hours of the week and the clocks that they follow, as rows of a compiled policy.

Not here: when a window is open (policy.windows), where offsets come from (policy.compile).
"""

from __future__ import annotations

import msgspec


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hours of the week in a time zone. `days` are 0 (Monday) to 6; `start` and `stop` are seconds of the local day.

    A window whose stop is not after its start runs over midnight and belongs to the day on which it starts.
    `text` is how a person would write it. `never`: days on which it does not start, as first and last of each span, in
    days since 1970-01-01 of the zone's calendar.
    """

    days: tuple[int, ...]
    start: int
    stop: int
    zone: str
    text: str = ""
    never: tuple[tuple[int, int], ...] = ()


class Clock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The UTC offsets of one time zone: from `since[i]` (UTC seconds) on, local time is UTC + `offsets[i]` seconds.

    Before `since[0]` and from `horizon` on nothing is known, and a window of that zone is closed.
    """

    since: tuple[int, ...]
    offsets: tuple[int, ...]
    horizon: int
