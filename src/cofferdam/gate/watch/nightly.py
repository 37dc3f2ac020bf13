"""When the gate is proved and tried each day, and whether that could be done.

The hour is the policy's, by the wall clock of its zone. The launcher starts the process (cli.nightly), which tells the
gate what it finds as an operator's verbs do. A night in which no gate ran is made up for at the next start: the last
one is kept in the state directory. A clock that is set ahead brings one proof more, and one that is set back none less.

Not here: what is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.evidence import NightDone as Over
from cofferdam.crossing.link import Link
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import CrossingError, GateError
from cofferdam.evidence.nightly_records import FROM_NIGHT, TO_NIGHT, NightBegins, NightDone
from cofferdam.gate import state
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.crew.hearing import Bounded
from cofferdam.policy.rows import Clock
from cofferdam.policy.windows import DAY, offset_at

ALARM: Final = "nightly-proof"
GOOD, WRONG = "nothing wrong", "found what does not hold: cofferdam evidence list --status failed"
LOOK_SECONDS: Final = 20.0
FIRST_SECONDS: Final = 20.0
"""After the start, for a night that is made up for: the gate's own start comes first."""
LONGEST_SECONDS: Final = 4000.0
"""For all that is done; each has a limit of its own."""


def last_due(clock: Clock, of_day: int, second: int) -> int:
    """The last UTC second, not after `second`, at which the local wall clock showed this second of the day; 0 where the
    clock does not say. An hour that does not exist in spring counts when the clocks have jumped."""
    offset = offset_at(clock, second)
    if offset is None:
        return 0
    today = (second + offset) // DAY
    for day in (today, today - 1, today - 2):  # by the day alone, so that one day has one
        local = day * DAY + of_day
        before = offset_at(clock, local - DAY)
        if before is None:
            return 0
        due = local - before
        after = offset_at(clock, due)
        if after is not None and after != before and offset_at(clock, local - after) == after:
            due = local - after
        if due <= second:
            return due
    return 0


class Nightly:
    """One gate's. All methods are called from the event loop."""

    def __init__(self, gate: Context, clock: Callable[[], float] = time.time) -> None:
        self._gate, self._clock = gate, clock
        self._trouble = ""
        self._night = state.Night()
        self._running = False
        self._wanted = asyncio.Event()

    @property
    def whole(self) -> bool:
        """Whether there is something to prove: namespaces, and root's sight of them."""
        return self._gate.separation.isolation == "namespaces"

    async def work(self, stop: asyncio.Event) -> None:
        """Day after day, until the gate stops."""
        self._night = state.load_night(self._gate.options.state)
        if not self._night.last:  # the first start: what is due is the next one
            self._keep(int(self._clock()))
        wait = FIRST_SECONDS
        stopping = asyncio.get_running_loop().create_task(stop.wait())
        try:
            while not stop.is_set():
                asked = asyncio.get_running_loop().create_task(self._wanted.wait())
                either: set[asyncio.Future[Any]] = {asked, stopping}
                await asyncio.wait(either, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                if not stop.is_set() and (self._wanted.is_set() or self.is_due()):
                    await self._work(stopping)
                wait = LOOK_SECONDS
        finally:
            stopping.cancel()

    def ask(self) -> bool:
        """Has it done now; False where it is under way."""
        if self._running:
            return False
        self._wanted.set()
        return True

    def is_due(self) -> bool:
        """Whether an hour has come since the last time."""
        wanted, now = self._gate.policy.table.evidence, int(self._clock())
        if wanted.proof < 0:
            return False
        if self._night.last > now + DAY:  # somebody set the clock back
            self._keep(now)
        return last_due(self._gate.policy.table.clocks[wanted.zone], wanted.proof, now) > self._night.last

    async def _work(self, stopping: asyncio.Future[Any]) -> None:
        """Has it all done, and raises or clears the alarm."""
        began = int(self._clock())
        self._keep(began)
        self._running = True
        self._wanted.clear()
        try:
            found = await self._one(stopping)
        except GateError as error:
            found = NightDone((), (("the nightly work", str(error)[:500]),))
        finally:
            self._running = False
        if found is None:
            return
        self._trouble = "; ".join(f"{name} could not be done: {why}" for name, why in found.failed)
        self._gate.alarm(ALARM, clip(self._trouble))
        done = tuple(f"{name}: {GOOD if good else WRONG}" for name, good in found.done)
        now = int(self._clock())
        self._gate.note(
            Over(
                done=tuple(map(clip, done)),
                failed=tuple(clip(f"{name} could not be done: {why}") for name, why in found.failed),
                seconds=max(0, now - began),
                wall_ns=now_ns(),
            )
        )
        self._night = msgspec.structs.replace(self._night, ended=now, said=clip("; ".join(done) or "nothing was done"))
        self._save()

    async def _one(self, stopping: asyncio.Future[Any]) -> NightDone | None:
        """None: the gate stops, and it with it. Raises: GateError."""
        (born,) = await self._gate.launcher.spawn("nightly", "nightly", [PartOrder("prover")])
        self._gate.log.info("nightly-proof", pid=born.pid)
        told: list[NightDone] = []
        broke: list[str] = []

        def closed(error: CrossingError | None) -> None:
            if error is not None:
                broke.append(str(error))

        link: Link[NightBegins, NightDone] = Link(
            self._gate.reactor, born.read_fd, born.write_fd, Bounded(FROM_NIGHT), TO_NIGHT, told.append, closed
        )
        try:
            either: set[asyncio.Future[Any]] = {born.ended, stopping}
            await asyncio.wait(either, timeout=LONGEST_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            link.drain()
        finally:
            self._gate.launcher.kill(born)
            await asyncio.wait([born.ended])
            link.close()
        if told:
            return told[-1]
        if stopping.done():
            return None
        why = f"what it says is no answer: {broke[0]}" if broke else f"its process ended ({born.ended.result()})"
        raise GateError(f"the nightly proof came to nothing: {why}", hint="its messages stand on stderr")

    def _keep(self, second: int) -> None:
        self._night = msgspec.structs.replace(self._night, last=second)
        self._save()

    def _save(self) -> None:
        try:
            state.save_night(self._gate.options.state, self._night)
        except GateError as error:
            self._gate.log.error("night-not-kept", reason=str(error))

    def fact(self) -> tuple[str, bool, str]:
        """What `status` says of it."""
        wanted = self._gate.policy.table.evidence
        name = "nightly proof"
        if wanted.proof < 0:
            return name, False, "OFF by the policy (evidence: proof): nobody proves the gate by itself"
        if self._trouble:
            return name, False, self._trouble
        last = "; none done yet"
        if self._running:
            last = "; one is under way"
        elif self._night.ended:
            last = f"; the last was over at {datetime.fromtimestamp(self._night.ended, UTC):%Y-%m-%d %H:%M} UTC: "
            last += self._night.said
        when = f"daily at {wanted.proof // 3600:02d}:{wanted.proof // 60 % 60:02d} ({wanted.zone})"
        if not self.whole:
            return (
                name,
                False,
                f"{when}; NO proof: no namespaces{last}; the gate tries itself and looks at its evidence",
            )
        return name, True, f"{when}{last}; the gate is proved, tries itself and looks at its evidence"
