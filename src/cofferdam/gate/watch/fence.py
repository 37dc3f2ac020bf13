"""What the launcher says of the fence around exports and witness: a fact of `status`, and alarms.

Not here: the fence (enforce.fence).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from cofferdam.enforce.orders import FENCE, Fenced, Prepared
from cofferdam.evidence.checks.running import CHANGED, DOWN, TRIED
from cofferdam.gate.context import Context

STANDS_SECONDS: Final = 3600.0
"""How long the alarm of a change that was put right stands, so that somebody sees it; and that of what was tried."""
TRIED_MOST: Final = {60.0: 30, 86_400.0: 300}
"""Packets of one part that are refused within so many seconds and are no alarm: of connections that a reload has cut
off, and of proofs. The long time is for whoever tries slowly."""


class FenceWatch:
    """One gate's."""

    def __init__(self, gate: Context) -> None:
        self._gate = gate
        self._until = 0.0
        self._words = ""
        self._seen: dict[tuple[str, float], tuple[float, int]] = {}
        """Part and seconds -> when these began for it, and how many of its packets had been refused by then."""
        self._tried_until = 0.0
        self._tried: dict[str, str] = {}

    def refused(self, packets: Mapping[str, int]) -> None:
        """How many packets of each part have been refused so far. An honest one is refused hardly any."""
        now = time.monotonic()
        for who, count in packets.items():
            for within, most in TRIED_MOST.items():
                since, before = self._seen.get((who, within), (now, 0))
                if count - before > most:
                    many = f"{count - before} packets were refused within {within:.0f} s"
                    self._tell(who, f"{who} tried to reach what is none of its collectors: {many}")
                    self._tried_until = now + STANDS_SECONDS
                    since, before = now, count
                elif now - since > within:
                    since, before = now, count
                self._seen[who, within] = since, before
        if self._tried_until and now > self._tried_until:
            self._tried_until = 0.0
            self._tried = {}
            self._gate.alarm(TRIED, "")

    def _tell(self, who: str, words: str) -> None:
        """Once of each part, as long as the alarm stands: one that cries hides no other."""
        if who not in self._tried:
            self._tried[who] = words
            self._gate.alarm(TRIED, "")
            self._gate.alarm(TRIED, "; ".join(self._tried.values()))

    def take(self, told: Fenced) -> Prepared:
        """What is in force now."""
        self._gate.alarm(DOWN, "" if told.stands else f"{told.detail}; until it stands, exports and the witness rest")
        if told.stands:
            self._gate.alarm(CHANGED, f"the fence around exports and witness was put back: {told.detail}")
            self._until = time.monotonic() + STANDS_SECONDS
            asyncio.get_running_loop().call_later(STANDS_SECONDS + 1, self._over)
        before = self._gate.separation
        self._words = next((detail for name, held, detail in before.facts if name == FENCE and held), self._words)
        now = (FENCE, told.stands, self._words if told.stands else told.detail)
        return replace(before, facts=tuple(now if fact[0] == FENCE else fact for fact in before.facts))

    def _over(self) -> None:
        if time.monotonic() >= self._until:
            self._gate.alarm(CHANGED, "")
