"""When the leak probe asks, what it found, and what is known of it.

Its interval is the policy's; a new one holds at once. Each round is a crew of its own, born for it, with packet sockets
on the IT side's interfaces and nothing else. Where the policy has it off, or there are no namespaces to ask from, that
is a fact in `status` like what is in force.

Not here: a round (leak_round), asking (proof.leak).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.proof import LeakFound, LeakProbeSet
from cofferdam.enforce.statefolder import BUSY
from cofferdam.errors import GateError
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.watch.leak_round import Round, one_round

FIRST_ROUND_SECONDS = 10.0
"""After the start, where the interval is not shorter: the gate's own start comes first."""
GRACE_SECONDS = 120.0
"""A round that is so late is missed: the alarm says so."""
AGAIN_SECONDS = 2.0
"""Before a round that found a proof under way looks again."""
ALARM = "leak-probe"


class LeakProbeReport(msgspec.Struct, frozen=True):
    """The leak probe. `seconds`: its interval, 0 where it is off or cannot be; `last_ns`: its last round (0: none
    yet); `works`: it is on, and does what it should; `detail`: that in a sentence."""

    seconds: int
    last_ns: int
    works: bool
    detail: str


class LeakProbe:
    """One gate's. All methods are called from the event loop; times are monotonic, in seconds."""

    def __init__(self, gate: Context, clock: Callable[[], float] = time.monotonic, round_: Round = one_round) -> None:
        self._gate = gate
        self._clock = clock
        self._round = round_
        self._leaking: set[str] = set()
        self._seconds: int | None = None
        self._since = 0.0  # when the present interval, or the probe's last turn, began
        self._first = True
        self._last_ns = 0
        self._trouble = ""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def possible(self) -> bool:
        """Whether there is an IT side to ask from."""
        return self._gate.separation.isolation == "namespaces"

    def set(self, seconds: int) -> None:
        """The interval of the policy in force; 0: off. Recorded where it is new. A turn that is due by it comes now."""
        if not self.possible or seconds == self._seconds:
            return
        if self._seconds is None:
            self._since = self._clock()
        self._seconds = seconds
        self._trouble = ""
        self._gate.alarm(ALARM, "")
        self._gate.note(LeakProbeSet(seconds=seconds, wall_ns=now_ns()))
        if seconds:
            self._gate.log.info("leak-probe", every=spoken(seconds))
        else:
            self._gate.log.warning("leak-probe-off", detail=OFF)
        self._wake()

    def told(self, trouble: str) -> None:
        """A round is over; `trouble`: why it could not ask."""
        self._trouble = trouble
        if not trouble:
            self._last_ns = now_ns()
        self._gate.alarm(ALARM, trouble)
        self._wake()

    def end(self) -> None:
        """The gate stops, and a round that is under way with it."""
        if not self._ended.done():
            self._ended.set_result(None)
        self._wake()

    def _wake(self) -> None:
        before, self._changed = self._changed, asyncio.get_running_loop().create_future()
        before.set_result(None)

    def _due(self) -> float | None:
        """Seconds until the next turn; None: never, as things are."""
        if not self._seconds:
            return None
        wait = min(self._seconds, FIRST_ROUND_SECONDS) if self._first else self._seconds
        return self._since + wait - self._clock()

    async def work(self) -> None:
        """Round after round as they are due, until `end`; none where there is nothing to ask from."""
        while self.possible and await self._turn():
            await self._one()

    async def _turn(self) -> bool:
        """Waits until a round is due; False when the gate stops."""
        while not self._ended.done():
            left = self._due()
            if left is not None and left <= 0:
                self._first, self._since = False, self._clock()
                return True
            await asyncio.wait({self._changed}, timeout=left)
        return False

    async def _one(self) -> None:
        """A round; it waits for a proof that looks at the same namespaces."""
        until = self._clock() + GRACE_SECONDS
        while not self._ended.done() and self._seconds:
            work = asyncio.get_running_loop().create_task(self._round(self._gate))
            either: set[asyncio.Future[Any]] = {work, self._ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                return
            try:
                tried, leaks = work.result()
            except GateError as error:
                if str(error) != BUSY or self._clock() > until:
                    self.told(str(error))
                    return
                await asyncio.wait({self._changed}, timeout=AGAIN_SECONDS)
            else:
                self.found(tried, leaks)
                self.told("")
                return

    def found(self, tried: Collection[str], leaks: Mapping[str, str]) -> int:
        """Raises an alarm for each asset that leaks, records those that are new, and clears what is over. Returns how
        many are new."""
        new = [asset for asset in leaks if asset not in self._leaking]
        for asset, detail in leaks.items():
            if asset in new:
                self._gate.note(LeakFound(asset=asset, detail=clip(detail), wall_ns=now_ns()))
            self._gate.alarm(f"leak-{asset}", detail)
        over = {asset for asset in tried if asset not in leaks}
        for asset in over:
            self._gate.alarm(f"leak-{asset}", "")
        self._leaking = (self._leaking | set(new)) - over
        return len(new)

    def report(self) -> LeakProbeReport:
        """What `status` says of it."""
        if not self.possible:
            return LeakProbeReport(0, self._last_ns, False, "without namespaces there is no IT side to ask from")
        seconds = self._seconds or 0
        if not seconds:
            return LeakProbeReport(0, self._last_ns, False, OFF)
        if self._trouble:
            return LeakProbeReport(seconds, self._last_ns, False, self._trouble)
        ago = spoken((now_ns() - self._last_ns) // 10**9)
        last = f"the last time {ago} ago" if self._last_ns else "the first round is still to come"
        says = f"every {spoken(seconds)} each asset's real address is tried from the IT side, {last}"
        return LeakProbeReport(seconds, self._last_ns, True, says)


OFF = "OFF by the policy (gate: leak_probe): between two proofs nobody checks for a way round the gate"


def spoken(seconds: int) -> str:
    """A duration in the unit that makes it a whole number."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds // 60} min" if seconds > 600 else f"{seconds} s"
