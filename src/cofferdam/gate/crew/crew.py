"""The life of one pair of halves: born together, watched, ended together, born again.

A pair that dies has lost its sessions, and nothing of them is replayed. What waits in the listeners' backlogs, which
the launcher holds, is served by the pair's next life.

Not here: which pairs there are (plan), what the halves do (brokers).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import HalfDied, HalfStarted, RecordViolation
from cofferdam.brokers.kit.supervision import Configure, Listener, NewPolicy, Report, SetSevered, Stop
from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import GateError
from cofferdam.gate.context import Context
from cofferdam.gate.crew.part import Half
from cofferdam.gate.crew.plan import CrewPlan, Spot
from cofferdam.gate.watch.totals import Totals

READY_SECONDS = 10.0
"""A half that is not ready so long after its start has failed."""
PARTNER_SECONDS = 1.0
"""How long one half may go on after the other has ended."""
SILENCE_SECONDS = 3.5
"""A half reports once a second; one that was silent for so long hangs, and is ended."""
DRAIN_SECONDS = 1.0
"""For what is under way when a pair is started anew."""
FREE_RESTARTS = 10
"""A pair that worked is started anew at once, so many times in a row; one more is allowed each second."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
"""Beyond that, or if it dies before it is ready: the first pause and, doubling each time, the longest."""


@dataclass(frozen=True)
class Opened:
    """A listener that the launcher holds."""

    number: int
    spot: Spot
    address: str
    port: int


@dataclass
class Restarts:
    """How soon a pair may be started anew."""

    tokens: float = FREE_RESTARTS
    since: float = field(default_factory=time.monotonic)
    pause: float = 0.0

    def delay(self, was_ready: bool, now: float) -> float:
        """Seconds to wait before the next start."""
        self.tokens = min(FREE_RESTARTS, self.tokens + now - self.since)
        self.since = now
        if was_ready and self.tokens >= 1:
            self.tokens -= 1
            self.pause = 0.0
        else:
            self.pause = min(max(PAUSE_SECONDS, 2 * self.pause), LONGEST_PAUSE_SECONDS)
        return self.pause


class Pair:
    """Supervises one pair. `run()` is its life; the other methods are called from other tasks."""

    def __init__(self, gate: Context, plan: CrewPlan, listeners: Mapping[Spot, Opened]) -> None:
        self._gate = gate
        self.plan = plan
        self._listeners = dict(listeners)
        self.halves: list[Half] = []
        self.restarts = 0
        self.totals = Totals()
        """What the halves of earlier lives counted."""
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the pair has been ready once; a GateError if its first life ended before that."""
        self._ready = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._planned_end = False
        self._ended = asyncio.Event()
        self._pacing = Restarts()
        self._born_with: dict[str, tuple[Spot, ...]] = {}

    @property
    def working(self) -> bool:
        return self._ready.is_set()

    async def run(self) -> None:
        """Until `stop`."""
        try:
            while not self._stop_asked.is_set():
                was_ready = await self._life()
                if self._stop_asked.is_set():
                    break
                self.restarts += 1
                delay = 0.0 if self._planned_end else self._pacing.delay(was_ready, time.monotonic())
                self._planned_end = False
                if delay:
                    self._gate.log.warning("pair-pauses", pair=self.plan.name, seconds=delay)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop_asked.wait(), delay)
        finally:
            self._ended.set()

    async def _life(self) -> bool:
        """From birth to death; whether the pair was ready in between."""
        gate, plan = self._gate, self.plan
        spots = {name: part.spots for name, part in plan.parts.items()}
        orders = [
            PartOrder(
                name,
                part.place,
                tuple(self._listeners[spot].number for spot in part.spots),
                part.store.quota if part.store is not None else 0,
            )
            for name, part in plan.parts.items()
        ]
        try:
            children = await gate.launcher.spawn(plan.broker, plan.name, orders, road=plan.base)
        except GateError as error:
            self._fail_first(error)
            gate.log.error("pair-not-started", pair=plan.name, reason=str(error))
            return False
        broker = BROKERS[plan.broker]
        self.halves = [
            Half(gate.reactor, f"{plan.name}/{born.part}", born, self._violation, broker) for born in children
        ]
        boot = f"{gate.boot}.{next(gate.births)}"
        for half in self.halves:
            half.link.send(
                Configure(
                    crew=plan.name,
                    part=half.born.part,
                    broker=plan.broker,
                    source_zones=plan.source_zones,
                    target_zone=plan.target_zone,
                    boot=boot,
                    policy=self.plan.slice(gate.policy, half.born.part),
                    severed=gate.severed,
                    listeners=self._inherited(half, spots[half.born.part]),
                    assets=self.plan.asset_names,  # a new policy may have come meanwhile
                    again=self.restarts > 0,
                    store=half.born.store,
                    reads=half.born.reads,
                )
            )
        self._born_with = spots
        ready = await self._until_ready()
        if ready:
            self._ready.set()
            if not self.first.done():
                self.first.set_result(None)
            for half in self.halves:
                gate.log.info("half-started", half=half.name, pid=half.born.pid)
                gate.note(HalfStarted(half=half.name, pid=half.born.pid, wall_ns=time.time_ns()))
            await self._watch()
        await self._bury(ready)
        return ready

    def _inherited(self, half: Half, spots: tuple[Spot, ...]) -> tuple[Listener, ...]:
        """The listeners by their numbers in a half."""
        return tuple(
            Listener(half.born.listeners_at + index, self._listeners[spot].address, self._listeners[spot].port)
            for index, spot in enumerate(spots)
            if spot in self._listeners
        )

    async def _until_ready(self) -> bool:
        deadline = time.monotonic() + READY_SECONDS
        for half in self.halves:
            await half.until(lambda half=half: half.ready is not None, deadline - time.monotonic())  # type: ignore[misc]
        return all(half.ready is not None and half.alive for half in self.halves)

    async def _watch(self) -> None:
        """Until a half ends or hangs."""
        looked = time.monotonic()
        while True:
            done, _ = await asyncio.wait(
                [half.born.ended for half in self.halves], timeout=1.0, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return
            now = time.monotonic()
            if now - looked > 2.0:
                # It was this loop that stood still: what the halves said meanwhile waits to be read.
                for half in self.halves:
                    half.heard = now
            looked = now
            silent = [half for half in self.halves if now - half.heard > SILENCE_SECONDS]
            for half in silent:
                self._gate.log.error("half-hangs", half=half.name, silent_seconds=round(now - half.heard))
                self._gate.launcher.kill(half.born)

    async def _bury(self, was_ready: bool) -> None:
        """Ends what is left of the pair and records how it ended."""
        self._ready.clear()
        ended = [half.born.ended for half in self.halves]
        patience = PARTNER_SECONDS if was_ready else 0.1
        await asyncio.wait(ended, timeout=patience)
        for half in self.halves:
            self._gate.launcher.kill(half.born)
        await asyncio.wait(ended)
        expected = self._stop_asked.is_set() or self._planned_end
        for half in self.halves:
            half.drain()
            status = half.born.ended.result()
            for part, told in half.statuses.items():
                self.totals.add(half.broker, part, told, lives=False)
            level = self._gate.log.info if expected else self._gate.log.error
            level("half-ended", half=half.name, pid=half.born.pid, status=status, reason=half.failing)
            self._gate.note(
                HalfDied(
                    half=half.name,
                    pid=half.born.pid,
                    status=status,
                    expected=expected,
                    restarts=self.restarts,
                    wall_ns=time.time_ns(),
                )
            )
        if not was_ready and not self._stop_asked.is_set():
            said = "; ".join(f"{half.name}: {half.failing}" for half in self.halves if half.failing)
            how = ", ".join(f"{half.name} exit {half.born.ended.result()}" for half in self.halves)
            self._fail_first(GateError(f"the pair {self.plan.name} does not start: {said or how}"))
        for half in self.halves:
            half.forget()
        self.halves = []

    def _fail_first(self, error: GateError) -> None:
        if not self.first.done():
            self.first.set_exception(error)
            self.first.exception()  # looked at: nobody may be waiting any more

    def _violation(self, half: Half, detail: str) -> None:
        self._gate.log.error("record-violation", half=half.name, detail=detail)
        self._gate.note(RecordViolation(half=half.name, detail=clip(detail), wall_ns=time.time_ns()))
        self._gate.launcher.kill(half.born)

    # --- from other tasks ---------------------------------------------------------------------------------------

    async def take_policy(self, plan: CrewPlan, listeners: Mapping[Spot, Opened], seconds: float) -> bool:
        """Has the halves judge by the gate's present policy, with the listeners and assets that are left. False if a
        half did not take it in time: it was ended, and its next life has the policy from birth."""
        self.plan = plan
        self._listeners = dict(listeners)
        wanted = self._gate.policy_hash
        halves = list(self.halves)
        for half in halves:
            inherited = self._inherited(half, self._born_with.get(half.born.part, ()))
            own = plan.slice(self._gate.policy, half.born.part)
            half.link.send(NewPolicy(policy=own, listeners=inherited, assets=plan.asset_names))
        return await self._all(halves, lambda half: half.policy == wanted, seconds, "policy")

    async def take_severed(self, seconds: float) -> bool:
        """Has the halves cut the severed sides off. As `take_policy`."""
        sides = self._gate.severed
        halves = list(self.halves)
        # An older report must not count as the answer. It stays, for what it counted.
        older = {half: dict(half.statuses) for half in halves}
        for half in halves:
            half.link.send(SetSevered(sides))
            half.link.send(Report())

        def taken(half: Half) -> bool:
            told = [status for role, status in half.statuses.items() if status is not older[half].get(role)]
            return bool(told) and all(set(status.severed) == set(sides) for status in told)

        return await self._all(halves, taken, seconds, "severed sides")

    async def _all(self, halves: list[Half], taken: Callable[[Half], bool], seconds: float, what: str) -> bool:
        deadline = time.monotonic() + seconds
        good = True
        for half in halves:
            if await half.until(lambda half=half: taken(half), deadline - time.monotonic()):  # type: ignore[misc]
                continue
            if half.alive:
                good = False
                self._gate.log.error("half-does-not-take", half=half.name, what=what)
                self._gate.launcher.kill(half.born)
                await asyncio.wait([half.born.ended])
        return good

    async def report(self, seconds: float) -> None:
        """Has the halves report now, and waits for it."""
        halves = [half for half in self.halves if half.ready is not None]
        asked = time.monotonic()
        for half in halves:
            half.link.send(Report())
        for half in halves:
            await half.until(lambda half=half: half.heard > asked, seconds)  # type: ignore[misc]

    async def restart(self, plan: CrewPlan, listeners: Mapping[Spot, Opened]) -> None:
        """Ends the halves in order; they are born again with other listeners. Waits until they are ready.

        Raises:
            GateError: they are not, after some time; the gate keeps trying.
        """
        self.plan = plan
        self._listeners = dict(listeners)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self._planned_end = bool(self.halves)
            self._ready.clear()
            await self._drain(DRAIN_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), deadline - time.monotonic())
            # A birth that was under way when we came has the old listeners: once more.
            born_with = {spot for spots in self._born_with.values() for spot in spots}
            if self._ready.is_set() and set(plan.spots) <= born_with:
                return
        raise GateError(f"the pair {plan.name} did not come back within {READY_SECONDS:.0f} s")

    async def stop(self, seconds: float) -> None:
        """Ends the pair for good."""
        self._stop_asked.set()
        await self._drain(seconds)
        await self._ended.wait()

    async def _drain(self, seconds: float) -> None:
        halves = [half for half in self.halves if half.alive]
        # The inner half first: told second, it may see the outer one go before it knows that this is in order.
        for half in reversed(halves):
            half.link.send(Stop(seconds))
        if halves:
            await asyncio.wait([half.born.ended for half in halves], timeout=seconds + 0.5)
        for half in halves:
            self._gate.launcher.kill(half.born)

    def kill(self) -> None:
        """Ends the halves at once."""
        for half in self.halves:
            self._gate.launcher.kill(half.born)
