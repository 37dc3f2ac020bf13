"""How much of the log one producer may write in a day, so that nobody's noise fills the disk or hides another's. PURE.

Each producer has three shares, and none can be used up by what belongs to another: `noise` (sessions, refused reads,
broken frames, counts), `refused` (refused attempts to change the plant) and `changes` (writes, their outcomes, and all
that only a part's own work causes). A share is a bucket of bytes that fills over a day and holds half a day's. What
passes noise or refused is left out, counted, and told; what passes changes is refused, and so is not done. The last of
that share is for outcomes of what has been done already.

Within noise and refused nobody takes all of it: whoever it is about (a principal, or the address of a stranger) gets no
more than is left for the others, so that one cannot have the log go blind for another.

Not here: what is done with that (service).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

from cofferdam.audit.entry import CROWD, Draft
from cofferdam.audit.events import gate
from cofferdam.audit.events.access import WriteAllowed

Share = Literal["noise", "refused", "changes"]

NOISE_BYTES: Final = 64 << 20
"""Of one producer in a day."""
REFUSED_BYTES: Final = 64 << 20
CHANGES_BYTES: Final = 8 << 30
"""About 90 writes a second, day and night."""
FEW_BYTES: Final = 16 << 20
"""Of the changes' share, for a producer that changes nothing: all that it says besides a crowd's is that its partner
broke the rules."""
AROUND_BYTES: Final = 320
"""What an entry takes besides its event: index, maker, policy, site, time, and its hashes."""
DAY_NS: Final = 86_400_000_000_000
LAST: Final = 64
"""That part of the changes' share is left to outcomes."""
FORGET_NS: Final = 60_000_000_000
"""How often it is reckoned what each has still taken."""
WHO_MOST: Final = 4096
"""Those whom a share is kept apart for; all others are one."""


def share_of(draft: Draft) -> Share:
    """Which share an entry belongs to."""
    if type(draft) not in CROWD:
        return "changes"
    return "refused" if getattr(draft, "is_write", False) else "noise"


def shares_of(says: Collection[type]) -> dict[Share, int]:
    """Bytes of a day for a producer that may tell of these."""
    few = not set(says) - set(CROWD) - set(gate.PART)
    return {"noise": NOISE_BYTES, "refused": REFUSED_BYTES, "changes": FEW_BYTES if few else CHANGES_BYTES}


def whose(draft: Draft) -> str:
    """Whom an entry is about: the principals that it names, or else the address."""
    principals: tuple[str, ...] = getattr(draft, "principals", ())
    return ",".join(principals) or str(getattr(draft, "principal", "") or getattr(draft, "source", ""))


class Quota:
    """What one producer has left. Times: monotonic ns."""

    __slots__ = ("_at", "_forgot", "_left", "_most", "_used")

    def __init__(self, now: int, most: dict[Share, int] | None = None) -> None:
        """`most`: bytes of a day."""
        self._most = most or shares_of((WriteAllowed,))
        self._left: dict[Share, float] = {share: size / 2 for share, size in self._most.items()}
        self._used: dict[Share, dict[str, float]] = {share: {} for share in self._most}
        """What each has taken, less what a share has got again since."""
        self._at = self._forgot = now

    def fill(self, now: int) -> None:
        """Time has passed."""
        passed = max(0, now - self._at) / DAY_NS
        self._at = now
        for share, size in self._most.items():
            self._left[share] = min(size / 2, self._left[share] + size * passed)
        if now - self._forgot >= FORGET_NS:
            self._forget((now - self._forgot) / DAY_NS)
            self._forgot = now

    def _forget(self, passed: float) -> None:
        """What a share has got again counts as given back by all who took of it, each as much as they took."""
        for share, size in self._most.items():
            used = self._used[share]
            taken = sum(used.values())
            keep = max(0.0, 1 - size * passed / taken) if taken else 0.0
            self._used[share] = {who: rest for who, size in used.items() if (rest := size * keep) >= 1}

    def take(self, share: Share, size: int, who: str = "", *, last: bool = False) -> bool:
        """Whether an event of so many bytes still has room in its share; takes it. `last`: also in what is left to
        outcomes."""
        size += AROUND_BYTES
        left = self._left[share]
        if share == "changes":
            if left - (0 if last else self._most[share] // LAST) < size:
                return False
        else:
            used = self._used[share]
            who = who if who in used or len(used) < WHO_MOST else "others"
            if left - used.get(who, 0.0) < size:
                return False
            used[who] = used.get(who, 0.0) + size
        self._left[share] = left - size
        return True
