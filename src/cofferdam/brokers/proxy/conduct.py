"""How a device behaves: what it does wrong is counted, told, and from a point on answered.

Four things are wrong: an answer that breaks the protocol (`broken`), one that comes after its time (`late`), a frame
that nobody asked for (`unasked`), and an identity other than before (`identity`). Each is an entry, as a count where
they come fast. More than ALARM of them in a minute are an alarm. MOST broken or unasked ones within WINDOW_NS, or one
after which the stream cannot be read on, end the connection; from the second time on the next one has to wait, twice as
long each time.

Not here: connections (device), entries (inner).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cofferdam.limits import Limits

WINDOW_NS: Final = 10_000_000_000
MOST: Final = 20
"""So many broken answers or unasked frames in a window are a fault of the device, and not a mishap."""
MINUTE_NS: Final = 60_000_000_000
ALARM: Final = 10
CHANGED_NS: Final = 3_600_000_000_000
"""So long the alarm of another identity stands."""
SAID: Final = {
    "broken": "answers that break the protocol",
    "late": "answers that came too late",
    "unasked": "frames that nobody asked for",
}
"""What is counted, and how it is called."""


class Conduct:
    """Of one device. Times: monotonic ns. `tell` is called with what happened, the standard's section, a detail."""

    def __init__(self, limits: Limits, tell: Callable[[str, str, str], None]) -> None:
        self._limits = limits
        self._tell = tell
        self.broken = self.late = self.unasked = self.identities = 0
        """Since the part began."""
        self._window = [0, 0]  # when it began, how many there were in it that count against the connection
        self._minute: dict[str, int] = {}
        self._minute_began = 0
        self._last: dict[str, int] = {}  # of the minute before
        self._bad = 0  # when the connection was closed last for it
        self._pause = 0.0
        self._changed = (0, "")

    def note(self, what: str, section: str, detail: str, now: int, counts: bool = True) -> bool:
        """One more. Whether it is one too many: the connection is to be closed. `counts`: it speaks against the
        connection; an answer that is wrong by itself comes as often as some client asks for it."""
        if what == "broken":
            self.broken += 1
        elif what == "late":
            self.late += 1
        else:
            self.unasked += 1
        self._turn(now)
        self._minute[what] = self._minute.get(what, 0) + 1
        self._tell(what, section, detail)
        if what == "late" or not counts:
            return False
        if now - self._window[0] > WINDOW_NS:
            self._window = [now, 0]
        self._window[1] += 1
        return self._window[1] > MOST

    def changed(self, detail: str, now: int) -> None:
        """It says that it is another device than before."""
        self.identities += 1
        self._changed = (now, detail)
        self._tell("identity", "", detail)

    def pause_ns(self, now: int) -> int:
        """The connection was closed for what the device did: how long the next one has to wait."""
        again = self._bad and now - self._bad <= MINUTE_NS
        self._bad = now
        self._window = [now, 0]
        if not again:
            self._pause = 0.0
            return 0
        limits = self._limits
        self._pause = min(self._pause * 2 or limits.asset_backoff_seconds, limits.asset_backoff_max_seconds)
        return int(self._pause * 1e9)

    def alarm(self, now: int) -> str:
        """What needs a person, or ""."""
        self._turn(now)
        found = []
        counts = {what: max(self._minute.get(what, 0), self._last.get(what, 0)) for what in SAID}
        if sum(counts.values()) > ALARM:
            found.append(", ".join(f"{count} {SAID[what]}" for what, count in counts.items() if count) + " in a minute")
        at, detail = self._changed
        if detail and now - at < CHANGED_NS:
            found.append(detail)
        return "; ".join(found)

    def _turn(self, now: int) -> None:
        passed = now - self._minute_began
        if passed >= MINUTE_NS:
            self._last = self._minute if passed < 2 * MINUTE_NS else {}
            self._minute, self._minute_began = {}, now
