"""Whether a loop looks for more work before it sleeps: it finds out which of the two is the shorter wait. PURE.

To look again and again costs a processor that others may need; to sleep costs the time that waking takes, which is a
microsecond where all share a core and forty where an interrupt has to leave a virtual machine. So nobody is told which
is better here. A loop tries both, `TRIED` waits each, and then does for `KEPT` waits what was better: it begins to look
where that makes the middle one of its waits a twentieth shorter, and goes on while it makes it shorter at all. A few
waits say little, and the longest of them, in which somebody else had the core, say nothing. Where nothing comes soon,
or another process wants the core, looking shortens nothing, and the loop sleeps. Where a single look shows that
somebody else had the core for long meanwhile, it sleeps at once for a while: a short one, since most of those who come
are gone in a moment, and twice as long each time that it happens again.

Not here: the looking and the sleeping (reactor).
"""

from __future__ import annotations

from typing import Final

TRIED: Final = 48
"""Waits of each kind that are compared."""
KEPT: Final = 4096
"""Waits for which the better one stays in use."""
BEGINS: Final = 95
"""A loop begins to look where that makes the wait so many percent of what it was ..."""
STAYS: Final = 99
"""... and goes on while it makes it no more than so many."""
SCARCE: Final = 16
"""Waits for which a loop sleeps after somebody else needed its core; doubles up to `KEPT` until looking is found better
once more."""
SCARCE_NS: Final = 300_000
"""A look takes about a microsecond. One that takes so long has waited while somebody used up a slice of the core, which
is a millisecond or so. Who had it for less gave it back by himself: a client that works on its answer before it asks
again (pycomm3 for 50 us), which is what this loop waits for."""
LONGEST: Final = 4
"""A wait counts as at most so many times as long as looking may go on: pauses between two polls are alike."""


def _middle(waits: list[int]) -> int:
    return sorted(waits)[len(waits) // 2]


class Looking:
    """What one loop has found out. `on`: the next wait begins with looking. `trying`: its time (ns) is wanted."""

    __slots__ = ("_asleep", "_left", "_longest", "_looked", "_pause", "_pays", "_rest", "on", "trying")

    def __init__(self, spin_ns: int) -> None:
        self._longest = spin_ns * LONGEST
        self._left = TRIED
        self._looked: list[int] = []
        self._asleep: list[int] = []
        self._pause = SCARCE
        self._pays = False  # what was found last
        self._rest = 0  # waits for which looking was still to stay in use when the core was found scarce
        self.on = self.trying = spin_ns > 0

    def waited(self, duration_ns: int) -> None:
        """A wait that was wanted is over."""
        (self._looked if self.on else self._asleep).append(min(duration_ns, self._longest))
        self._left -= 1
        if self._left > 0:
            return
        if self.on:
            self.on, self._left = False, TRIED
            return
        self._pays = _middle(self._looked) * 100 <= _middle(self._asleep) * (STAYS if self._pays else BEGINS)
        self.on, self.trying, self._left = self._pays, False, KEPT
        if self.on:
            self._pause = SCARCE

    def passed(self) -> None:
        """Another wait is over."""
        self._left -= 1
        if self._left > 0 or not self._longest:
            return
        if self._rest:
            self.on, self._left, self._rest = True, self._rest, 0
            return
        self._left = TRIED
        self._looked.clear()
        self._asleep.clear()
        self.on = self.trying = True

    def scarce(self) -> None:
        """Somebody else had the core while this loop was looking."""
        self._rest = 0 if self.trying else self._left
        self.on = self.trying = False
        self._left = self._pause
        self._pause = min(self._pause * 2, KEPT)
