"""How much of files one person moves by one conduit: in a day, and in a second, in however many sessions.

The keeper keeps the day's sum; here it is counted as it goes, and told. Days are those of UTC; a clock that is set back
gives nobody a new one.

Not here: what holds for one file and for one session (inner_files).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cofferdam.brokers.jump.inner_held import No
from cofferdam.policy.terms.jump_rows import Files as FileRules

DAY_NS: Final = 86_400 * 10**9
STEP_SECONDS: Final = 1.0
"""How long one who waits for the rate sleeps before looking whether the session is over."""


class Share:
    """The share of one person. `left`: bytes of today, as the keeper knows them; `rules`: those of the conduit."""

    def __init__(self, rules: FileRules, left: int, wall_ns: int) -> None:
        self.sessions = 0
        self._rules, self._left, self._day = rules, left, wall_ns // DAY_NS
        self._untold = 0
        self._free_ns = 0

    def take(self, count: int, wall_ns: int) -> None:
        """So many bytes are to go. Raises: No: too many for today."""
        if not self._rules.day:
            return
        if wall_ns // DAY_NS > self._day:
            self._day, self._left = wall_ns // DAY_NS, self._rules.day
        if count > self._left:
            raise No(f"more than {self._rules.day} bytes in one day")
        self._left -= count
        self._untold += count

    def give(self, count: int) -> None:
        """So many of them did not go."""
        if self._rules.day:
            self._left += count
            self._untold -= count

    def untold(self) -> int:
        """Bytes that went and that the keeper has not been told of; from now on it has."""
        count = max(0, self._untold)
        self._untold -= count
        return count

    async def pace(self, count: int, now: Callable[[], int], over: Callable[[], bool]) -> None:
        """Waits until so many bytes have had their time."""
        if not self._rules.rate:
            return
        self._free_ns = mine = max(self._free_ns, now()) + count * 10**9 // self._rules.rate
        while (wait := mine - now()) > 0 and not over():  # noqa: ASYNC110 - until a time
            await asyncio.sleep(min(STEP_SECONDS, wait / 1e9))
