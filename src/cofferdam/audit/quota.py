"""How much of the log one producer may write in a day, so that nobody's noise fills the disk or hides another's. PURE.

Each producer has three shares, and none can be used up by what belongs to another: `noise` (sessions, refused reads,
broken frames, counts), `refused` (refused attempts to change the plant) and `changes` (writes, their outcomes, and all
that only a part's own work causes). A share is a bucket of bytes that fills over a day and holds half a day's. What
passes noise or refused is left out, counted, and told; what passes changes is refused, and so is not done.

Not here: what is done with that (service).
"""

from __future__ import annotations

from typing import Final, Literal

from cofferdam.audit.entry import CROWD, Draft

Share = Literal["noise", "refused", "changes"]

NOISE_BYTES: Final = 64 << 20
"""Of one producer in a day."""
REFUSED_BYTES: Final = 64 << 20
CHANGES_BYTES: Final = 8 << 30
"""About 90 writes a second, day and night."""
AROUND_BYTES: Final = 320
"""What an entry takes besides its event: index, maker, policy, site, time, and its hashes."""
DAY_NS: Final = 86_400_000_000_000


def share_of(draft: Draft) -> Share:
    """Which share an entry belongs to."""
    if type(draft) not in CROWD:
        return "changes"
    return "refused" if getattr(draft, "is_write", False) else "noise"


class Quota:
    """What one producer has left. Times: monotonic ns."""

    __slots__ = ("_at", "_left", "_most")

    def __init__(self, now: int, most: dict[Share, int] | None = None) -> None:
        """`most`: bytes of a day."""
        self._most = most or {"noise": NOISE_BYTES, "refused": REFUSED_BYTES, "changes": CHANGES_BYTES}
        self._left: dict[Share, float] = {share: size / 2 for share, size in self._most.items()}
        self._at = now

    def fill(self, now: int) -> None:
        """Time has passed."""
        passed = max(0, now - self._at) / DAY_NS
        self._at = now
        for share, size in self._most.items():
            self._left[share] = min(size / 2, self._left[share] + size * passed)

    def take(self, share: Share, size: int) -> bool:
        """Whether an event of so many bytes still has room in its share; takes it."""
        size += AROUND_BYTES
        if self._left[share] < size:
            return False
        self._left[share] -= size
        return True
