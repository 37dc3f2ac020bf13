"""What the launcher says of the fence around exports and witness: a fact of `status`, and alarms.

Not here: the fence (enforce.fence).
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from msgspec.structs import replace

from cofferdam.enforce.orders import FENCE, Fenced, Prepared
from cofferdam.evidence.checks.running import CHANGED, DOWN
from cofferdam.gate.context import Context

STANDS_SECONDS: Final = 3600.0
"""How long the alarm of a change that was put right stands, so that somebody sees it."""


class FenceWatch:
    """One gate's."""

    def __init__(self, gate: Context) -> None:
        self._gate = gate
        self._until = 0.0
        self._words = ""

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
