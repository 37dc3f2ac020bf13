"""When the leak probe asks, and what is known of it: its interval is the policy's, its rounds are another process's.

That process (`cofferdam prove --leaks --every policy`, started by `cofferdam up`) waits here for its turn. So a new
policy's interval holds at once, and a probe that does not come for its turn is missed. Where the policy has it off, or
there are no namespaces to ask from, that is a fact in `status` like what is in force.

Not here: asking (proof.leak), what a round found (commands).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from cofferdam.audit.events.proof import LeakProbeSet
from cofferdam.errors import GateError
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context

FIRST_ROUND_SECONDS = 10.0
"""After the start, where the interval is not shorter: the gate's own start comes first."""
GRACE_SECONDS = 120.0
"""A round that is so late is missed: the probe's process has ended or hangs."""
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

    def __init__(self, gate: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._gate = gate
        self._clock = clock
        self._seconds: int | None = None
        self._since = 0.0  # when the present interval, or the probe's last turn, began
        self._first = True
        self._heard = 0.0
        self._last_ns = 0
        self._trouble = ""
        self._turns = 0
        self._ended = False
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
        self._heard, self._trouble = self._clock(), ""
        self._gate.alarm(ALARM, "")
        self._gate.note(LeakProbeSet(seconds=seconds, wall_ns=now_ns()))
        if seconds:
            self._gate.log.info("leak-probe", every=spoken(seconds))
        else:
            self._gate.log.warning("leak-probe-off", detail=OFF)
        self._wake()

    def told(self, trouble: str) -> None:
        """A round is over; `trouble`: why it could not ask."""
        self._heard, self._trouble = self._clock(), trouble
        if not trouble:
            self._last_ns = now_ns()
        self._gate.alarm(ALARM, trouble)
        self._wake()

    def end(self) -> None:
        """The gate stops: whoever waits is told so."""
        self._ended = True
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

    async def turn(self) -> bool:
        """Waits until a round is due. False: there is nothing to ask from, now or later.

        Raises:
            GateError: the gate stops, or another probe waits.
        """
        if not self.possible:
            return False
        self._turns += 1
        mine = self._turns
        self._wake()  # one that waited before has ended, or is one too many
        while True:
            if self._ended:
                raise GateError("the gate stops")
            if mine != self._turns:
                raise GateError("another process asks for the leak probe's turns")
            left = self._due()
            if left is not None and left <= 0:
                self._first, self._since = False, self._clock()
                return True
            await asyncio.wait({self._changed}, timeout=left)

    async def watch(self) -> None:
        """Raises the alarm when rounds are missed, until `end`."""
        while not self._ended:
            left = self._heard + self._seconds + GRACE_SECONDS - self._clock() if self._seconds else None
            if left is not None and left <= 0:
                self._trouble = (
                    f"no round of the leak probe for {spoken(round(self._clock() - self._heard))}, though the policy "
                    f"wants one every {spoken(self._seconds or 0)}: its process has ended or hangs"
                )
                self._gate.alarm(ALARM, self._trouble)
                left = None
            await asyncio.wait({self._changed}, timeout=left)

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
