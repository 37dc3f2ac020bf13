"""Who may cause how many entries of the audit log: its share is one for the whole keeper, and without it nobody could
push. PURE.

As long as the share is plentiful, everybody causes what they like. Once it is half used up, each principal gets its
part of what comes in anew, and a little at once; so who asks for much waits, and who asks for less notices nothing. To
wait costs nothing but time: what has waited goes together, in one commit with one entry.

Not here: the share itself (audit.quota), what waits (keeper_part, keeper_push).
"""

from __future__ import annotations

from typing import Final

import msgspec

from cofferdam.brokers.kit.pace import Bucket, draw

RATE: Final = 90e-9
"""Entries per ns that the log's share is for: 90 a second."""
ENTRY_BYTES: Final = 1_000
"""Of one. What of it a producer or consumer chooses (a key, a reason) counts besides."""
PLENTY: Final = 2_000_000
"""As many lie ready, less than the log lets write at once."""
OWN: Final = 1_000
"""So many a principal may cause at once, also where they are scarce."""
LARGEST: Final = 4
"""As many does the largest entry count for: a reason of 512 characters that are all escaped."""

_encode: Final = msgspec.json.Encoder().encode


class Pace:
    """What each has caused."""

    def __init__(self, now: int) -> None:
        self._sharers = 1
        self._all = Bucket(PLENTY, now)
        self._own: dict[str, Bucket] = {}

    def may(self, who: str, now: int, text: str = "", *, must: bool = False) -> bool:
        """Whether one more entry may be caused by a principal now; it counts as caused then. `text`: what of its own
        the entry will hold. `must`: it is caused in any case."""
        self._fill(now)
        count = 1 + len(_encode(text)) / ENTRY_BYTES
        own = draw(self._own, who, now, RATE / self._sharers, OWN, count)
        if not own and self.scarce:
            if not must:
                return False
            self._own[who].tokens -= count
        self._all.tokens -= count
        return True

    def ready(self, who: str, now: int) -> bool:
        """Whether `may` would say so of any entry; nothing is caused by asking."""
        self._fill(now)
        draw(self._own, who, now, RATE / self._sharers, OWN, 0)  # so that it holds what has come in since
        return not (self.scarce and self._used_up(who))

    @property
    def scarce(self) -> bool:
        """More than a half is used up."""
        return self._all.tokens < PLENTY / 2

    def short(self) -> list[str]:
        """Those who have used up their part, where that counts."""
        return sorted(filter(self._used_up, self._own)) if self.scarce else []

    def _used_up(self, who: str) -> bool:
        return self._own[who].tokens < LARGEST

    def serve(self, names: frozenset[str]) -> None:
        """These share from now on. Those that the policy does not have any more are forgotten."""
        self._sharers = max(1, len(names))
        self._own = {who: bucket for who, bucket in self._own.items() if who in names}

    def _fill(self, now: int) -> None:
        every = self._all
        every.tokens = min(PLENTY, every.tokens + max(0, now - every.at) * RATE)
        every.at = now
