"""Strangers take turns: what they send before they have signed in is looked at for so long in each turn of the loop,
and the rest waits for the next, so that a key which somebody strikes at work waits for few of them, however many come.

Not here: how many there may be (outer_part), how often one may begin a key exchange (outer_ssh).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

TURN_NS: Final = 1_000_000
"""For all of them in one turn of the loop, beyond what the first takes: a key exchange takes about as long."""


class Turns:
    """Work in order, and not too much at a time."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, turn_ns: int = TURN_NS, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._loop, self._turn_ns, self._clock = loop, turn_ns, clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._spent = 0
        self._armed = False

    def add(self, act: Callable[[], None]) -> bool:
        """Does it now, where nobody waits and this turn has time left; else in a later one. Whether it is done."""
        now = not self._waiting and self._spent < self._turn_ns
        if now:
            self._do(act)
        else:
            self._waiting.append(act)
        self._arm()
        return now

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._turn)

    def _do(self, act: Callable[[], None]) -> None:
        began = self._clock()
        act()
        self._spent += self._clock() - began

    def _turn(self) -> None:
        """The next turn of the loop: what has come meanwhile of those who have signed in is served in each."""
        self._armed, self._spent = False, 0
        while self._waiting:
            self._do(self._waiting.popleft())
            if self._spent >= self._turn_ns:
                break
        if self._waiting:
            self._arm()
