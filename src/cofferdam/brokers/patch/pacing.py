"""What goes to assets goes no faster, all together, than the policy says.

Not here: what is sent (pushing, serving).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

LEAST_SECONDS: Final = 0.02
"""A shorter wait is made up for by the next one."""


class Pacer:
    """`rate`: bytes a second, 0 for any."""

    def __init__(self, now: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.rate = 0
        self._now = now
        self._sleep = sleep
        self._free = 0.0

    async def went(self, count: int) -> None:
        """So many bytes have gone out; waits until more may."""
        if not self.rate:
            return
        now = self._now()
        self._free = max(self._free, now) + count / self.rate
        if (wait := self._free - now) > LEAST_SECONDS:
            await self._sleep(wait)
