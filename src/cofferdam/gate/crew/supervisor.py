"""The life of one crew, of whatever kind: its parts are born together, watched, ended together, and born again.

A part that ends or hangs takes its crew with it: what is durable lies in stores, and nothing else is carried over into
the next life. What waits in listeners' backlogs, which the launcher holds, is served by it. A part that nothing joins
to the others (`alone`), or without which they go on (`returns`), is born again by itself.

Not here: what the parts of a kind of crew are told (crew, auditor, overlay.names), which crews there are (plan).
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from cofferdam.crossing.exit import EXIT_BUG, EXIT_PEER_GONE, EXIT_VIOLATION
from cofferdam.crossing.link import Link
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import CofferdamError, CrossingError, GateError, StoreUnfit
from cofferdam.gate.context import Context
from cofferdam.gate.crew.launcher import Born

FREE_RESTARTS = 10
"""A crew that worked is started anew at once, so many times in a row; one more is allowed each second."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0
"""Beyond that, or if it dies before it is ready: the first pause and, doubling each time, the longest."""
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGABRT, signal.SIGSYS)
"""By which the kernel, or a library, ends a process for what it did itself."""
ENDS_ALL = frozenset({EXIT_PEER_GONE, EXIT_VIOLATION, EXIT_BUG, *(-number for number in FAULTS)})
"""How a part may end that takes its crew with it also where the others could go on: another has ended before it, one
has broken the rules, or it did itself, and be it in a library that stumbled over what another said. Nobody of those who
may be at fault lives on."""
OWN_PAUSE_SECONDS = 2.0
"""A turn of the gate's loop that took longer says nothing of the parts: what they said waits to be read."""

Out = TypeVar("Out")
In = TypeVar("In")


@dataclass
class Restarts:
    """How soon a crew may be started anew."""

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


class Child(abc.ABC, Generic[Out, In]):
    """One process of a crew as the gate sees it: its control link, when it was last heard, and waiting for it to say
    something. `on_violation` is called when it sends the gate what is no record, or what its kind may not say."""

    def __init__(
        self,
        reactor: Reactor,
        name: str,
        born: Born,
        incoming: RecordCodec[In],
        outgoing: RecordCodec[Out],
        on_violation: Callable[[Any, str], None],
    ) -> None:
        self.name = name
        self.born = born
        self.started_ns = time.time_ns()
        self.heard = time.monotonic()
        """When it last said anything (monotonic, s)."""
        self.failing = ""
        """What it said of its end."""
        self.hint = ""
        self.of_store = False
        """What it said of its end is for the sake of a store, or may be."""
        self._on_violation = on_violation
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[bool]]] = []
        self._link: Link[Out, In] = Link(
            reactor, born.read_fd, born.write_fd, incoming, outgoing, self._on_record, self._on_closed
        )
        born.ended.add_done_callback(lambda _: self._wake())

    @property
    @abc.abstractmethod
    def is_ready(self) -> bool:
        """It has said that it takes work."""

    @abc.abstractmethod
    def take(self, record: In) -> None:
        """What it says. Raises: CrossingError, where it may not say that."""

    @property
    def alive(self) -> bool:
        return not self.born.ended.done()

    def send(self, record: Out) -> None:
        """Tells it something. One that has gone is told nothing."""
        self._link.send(record)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Waits until the condition holds; False if the process ended first or the time is up."""
        if condition():
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self._waiters.append(entry)
        self._wake()
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return False
        finally:
            if entry in self._waiters:
                self._waiters.remove(entry)

    def _wake(self) -> None:
        for condition, future in self._waiters:
            if not future.done():
                if condition():
                    future.set_result(True)
                elif not self.alive:
                    future.set_result(False)

    def _on_record(self, record: In) -> None:
        self.heard = time.monotonic()
        try:
            self.take(record)
        except CrossingError:
            raise
        except Exception as error:  # a bug of ours that it has found: it ends, and the gate does not
            raise CrossingError(f"what it said could not be taken: {type(error).__name__}: {error}") from error
        self._wake()

    def _on_closed(self, error: CrossingError | None) -> None:
        if error is not None:
            self._on_violation(self, str(error))

    def forget(self) -> None:
        """Reads what it said last, and gives its pipes back."""
        self._link.drain()
        self._link.close()
        self._wake()


def how(status: int, call: str, failing: str) -> str:
    """An end in words: why a process ended, as far as anybody knows."""
    if status == -signal.SIGSYS:
        which = f" ({call})" if call else ""
        return f"a system call outside its profile{which}"
    if failing:
        return failing
    if status == -signal.SIGKILL:
        return "killed"
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
        return f"signal {-status}"
    return "" if status == 0 else f"exit code {status}"


C = TypeVar("C", bound=Child[Any, Any])


class Supervisor(abc.ABC, Generic[C]):
    """Supervises one crew. `run()` is its life; the other methods are called from other tasks."""

    kind: str
    """Which of the crews of the code."""
    ready_seconds = 30.0
    """Parts that are not ready so long after they were told all have failed. All crews of a gate start at once, and on
    a small machine their programs and libraries take their time."""
    silence_seconds = 3.5
    """A part reports once a second; one that was silent for so long hangs, and is ended."""
    partner_seconds = 1.0
    """How long the other parts may go on after one has ended."""
    keeps_trying = True
    """Also when its first life fails; else that ends `run`."""
    has_store = False
    """A part of it keeps something: what ends a life before it was ready may be for that."""

    def __init__(self, gate: Context, name: str) -> None:
        self._gate = gate
        self.name = name
        self.parts: list[C] = []
        self.restarts = 0
        self.first: asyncio.Future[StoreUnfit | None] = asyncio.get_running_loop().create_future()
        """Done when the crew has been ready once, or its first life ended before that: with why, if that was for the
        sake of a store; else with an error."""
        self._ready = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._planned_end = False
        self._late = False
        self._why_told = False
        """Why this life ended before it was ready is known."""
        self._ended = asyncio.Event()
        self._pacing = Restarts()
        self._waiting: dict[str, float] = {}
        """Parts that are born again alone, and when (monotonic, s)."""
        self._newborn: dict[str, float] = {}
        """Those that were, and until when they have to be ready."""
        self._lone_pacing: dict[str, Restarts] = {}

    # --- what a kind of crew is ---------------------------------------------------------------------------------

    @property
    def road(self) -> str:
        """Crews of one road share users (see enforce.orders.Spawn)."""
        return ""

    @abc.abstractmethod
    def orders(self) -> Sequence[PartOrder]:
        """The parts to be born now. Raises: GateError, if there is nothing to be born with."""

    @abc.abstractmethod
    def adopt(self, born: Born) -> C:
        """A part that was born."""

    @abc.abstractmethod
    async def configure(self) -> None:
        """Tells the parts all that makes them ready. May wait for what is to be told, while they live.

        Raises:
            GateError: it cannot be told.
        """

    @abc.abstractmethod
    def ask_to_stop(self, part: C, seconds: float) -> None:
        """Has a part end in order, within so many seconds."""

    def stopping_order(self) -> list[C]:
        """The parts, the first to be told to stop first."""
        return list(self.parts)

    def on_ready(self) -> None:
        """All parts are ready."""

    alone: frozenset[str] = frozenset()
    """Parts that nothing joins to the others: one that ends is born again by itself."""

    returns: frozenset[str] = frozenset()
    """Parts without which the others go on, for as long as it takes to have them born again."""

    def on_absent(self, part: C) -> None:
        """One of these has ended: the others are to be told."""

    def on_held(self, why: str, hint: str) -> None:
        """One of these could not be born again yet; it is tried anew."""

    def order_of(self, part: str) -> PartOrder:
        """The order for one part that is born again by itself. Raises: GateError."""
        raise GateError(f"{self.name}/{part} is not born alone")

    def configure_alone(self, part: C) -> None:
        """Tells such a one all that makes it ready. Raises: GateError."""

    def on_part_ready(self, part: C) -> None:
        """One of those is ready."""

    def on_end(self, part: C, reason: str, expected: bool) -> None:
        """A part has ended, and all that it said was read."""

    def failure(self, reason: str, hint: str) -> CofferdamError:
        """The error of a life that ended before it was ready."""
        return GateError(f"the crew {self.name} does not start: {reason}", hint=hint)

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def working(self) -> bool:
        away = self._waiting.keys() | self._newborn.keys()
        return self._ready.is_set() and self.returns.isdisjoint(away)

    async def run(self) -> None:
        """Until `stop`, or until a first life failed that is not tried again."""
        try:
            while not self._stop_asked.is_set():
                was_ready = await self._life()
                if self._stop_asked.is_set() or not (was_ready or self.restarts or self.keeps_trying):
                    break
                self.restarts += 1
                delay = 0.0 if self._planned_end else self._pacing.delay(was_ready, time.monotonic())
                self._planned_end = False
                if delay:
                    self._gate.log.warning("crew-pauses", crew=self.name, seconds=delay)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._stop_asked.wait(), delay)
        finally:
            self._ended.set()

    async def _life(self) -> bool:
        """From birth to death; whether the crew was ready in between."""
        self._why_told = False
        try:
            children = await self._gate.launcher.spawn(self.kind, self.name, self.orders(), road=self.road)
        except GateError as error:
            self._failed(str(error), error.hint, of_store=isinstance(error, StoreUnfit))
            self._gate.log.error("crew-not-started", crew=self.name, reason=str(error))
            return False
        self.parts = [self.adopt(born) for born in children]
        if self._stop_asked.is_set():  # asked while they were born
            self.kill()
        ready = await self._until_ready()
        if ready:
            self._ready.set()
            if not self.first.done():
                self.first.set_result(None)
            for part in self.parts:
                self._gate.log.info("part-started", part=part.name, pid=part.born.pid)
            self.on_ready()
            await self._watch()
        await self._bury(ready)
        return ready

    async def _until_ready(self) -> bool:
        try:
            await self.configure()
        except GateError as error:
            self._failed(str(error), error.hint, of_store=isinstance(error, StoreUnfit))
            self._gate.log.error("crew-not-started", crew=self.name, reason=str(error))
            return False
        deadline = time.monotonic() + self.ready_seconds
        for part in self.parts:
            await part.until(lambda part=part: part.is_ready, deadline - time.monotonic())  # type: ignore[misc]
        self._late = time.monotonic() >= deadline
        return all(part.is_ready and part.alive for part in self.parts)

    async def _watch(self) -> None:
        """Until a part ends or hangs that is not born again alone."""
        looked = time.monotonic()
        self._waiting.clear()
        self._newborn.clear()
        while True:
            ended = [part.born.ended for part in self.parts]
            soon = min(1.0, *(max(0.0, due - time.monotonic()) for due in self._waiting.values()), 1.0)
            done, _ = await asyncio.wait(ended, timeout=soon, return_when=asyncio.FIRST_COMPLETED)
            if done and not self._goes_on():
                return
            now = time.monotonic()
            if now - looked > OWN_PAUSE_SECONDS:
                for part in self.parts:
                    part.heard = now
            looked = now
            for part in self.parts:
                self._look_at(part, now)
            for name in [name for name, due in self._waiting.items() if due <= now]:
                await self._revive(name)

    def _look_at(self, part: C, now: float) -> None:
        """Whether it lives."""
        name = part.born.part
        if name in self._newborn:
            if part.is_ready:
                del self._newborn[name]
                self._gate.log.info("part-started", part=part.name, pid=part.born.pid)
                self.on_part_ready(part)
            elif now > self._newborn[name]:
                self._gate.log.error("part-not-ready", part=part.name, seconds=round(self.ready_seconds))
                self.kill_part(part)
        elif now - part.heard > self.silence_seconds:
            self._gate.log.error("part-hangs", part=part.name, silent_seconds=round(now - part.heard))
            self.kill_part(part)

    def _goes_on(self) -> bool:
        """Whether the crew goes on without the parts that have ended, which are born again then."""
        gone = [part for part in self.parts if not part.alive]
        if self._stop_asked.is_set() or self._planned_end or any(map(self._takes_all, gone)):
            return False
        for part in gone:
            name = part.born.part
            was_ready = name not in self._newborn
            self._newborn.pop(name, None)
            self.parts.remove(part)
            self._buried(part, expected=False)
            self.restarts += 1
            if name in self.returns:
                self.on_absent(part)
                if not was_ready:
                    why = part.failing or how(part.born.ended.result(), part.born.call, "")
                    self.on_held(f"{part.name}: {why}", part.hint)
            self._soon(name, was_ready)
        return True

    def _takes_all(self, part: C) -> bool:
        """Whether the crew ends with a part that has ended."""
        returns = part.born.part in self.returns and part.born.ended.result() not in ENDS_ALL
        return not returns and part.born.part not in self.alone

    def _soon(self, name: str, was_ready: bool) -> None:
        """A part is to be born again by itself, at its own pace."""
        now = time.monotonic()
        self._waiting[name] = now + self._lone_pacing.setdefault(name, Restarts()).delay(was_ready, now)

    async def _revive(self, name: str) -> None:
        """A part is born again, while the others go on; where that cannot be, all are."""
        del self._waiting[name]
        try:
            [born] = await self._gate.launcher.spawn(self.kind, self.name, [self.order_of(name)], road=self.road)
            part = self.adopt(born)
            self.parts.append(part)
            self._newborn[name] = time.monotonic() + self.ready_seconds
            self.configure_alone(part)
        except GateError as error:
            self._gate.log.error("part-not-started", part=f"{self.name}/{name}", reason=str(error))
            if name not in self.returns:
                self.kill()
                return
            self.on_held(f"{self.name}/{name}: {error}", error.hint)
            if name in self._newborn:  # it has nothing to work by
                self.kill_part(self.parts[-1])
            else:
                self._soon(name, was_ready=False)

    async def _bury(self, was_ready: bool) -> None:
        """Ends what is left of the crew and tells how it ended."""
        self._ready.clear()
        ended = [part.born.ended for part in self.parts]
        planned = self._stop_asked.is_set() or self._planned_end
        if not planned and any(not part.alive and part.born.part in self.returns for part in self.parts):
            for part in self.parts:  # whose pipes to it have no end that they could see
                self.ask_to_stop(part, self.partner_seconds / 2)
        await asyncio.wait(ended, timeout=self.partner_seconds if was_ready else 0.1)
        self.kill()
        await asyncio.wait(ended)
        expected = self._stop_asked.is_set() or self._planned_end
        reasons, hints = [], []
        for part in self.parts:
            self._buried(part, expected=expected)
            if part.failing:
                reasons.append(f"{part.name}: {part.failing}")
                hints.append(part.hint)
        if not was_ready and not self._stop_asked.is_set():
            # A store may hang its part, or have the kernel end it: where none has said anything it may be for that.
            of_store = self.has_store and all(part.of_store for part in self.parts if part.failing)
            if not reasons:
                reasons, hints = self._in_silence()
            self._failed("; ".join(reasons), next(filter(None, hints), ""), of_store=of_store)
        self.parts = []

    def _in_silence(self) -> tuple[list[str], list[str]]:
        """Why a life ended before it was ready, of which no part has said so: what is known, and the way out."""
        reasons = [f"{part.name} ended: {how(part.born.ended.result(), part.born.call, '')}" for part in self.parts]
        ways = []
        if self._late:
            silent = [part.name for part in self.parts if not part.is_ready]
            reasons = [f"its parts were not ready within {self.ready_seconds:g} s ({', '.join(silent)})"]
            ways.append("is the machine busy with other work?")
        if kept := " and ".join(part.born.store for part in self.parts if part.born.store):
            ways.append(f"If it stays so, look at what is in {kept}: keep a copy, and put back a backup")
        return reasons, [" ".join(ways)]

    def _buried(self, part: C, *, expected: bool) -> None:
        """Tells how a part ended, once all that it said was read."""
        part.forget()
        status = part.born.ended.result()
        reason = how(status, part.born.call, part.failing)
        level = self._gate.log.info if expected else self._gate.log.error
        level("part-ended", part=part.name, pid=part.born.pid, status=status, reason=reason)
        self.on_end(part, reason, expected)

    def _failed(self, reason: str, hint: str, *, of_store: bool) -> None:
        """A life has ended before it was ready; of its reasons the first counts."""
        if self._why_told:
            return
        self._why_told = True
        error = self.failure(reason, hint)
        if self.first.done():
            return
        if of_store:
            self.first.set_result(StoreUnfit(str(error), hint=error.hint))
        else:
            self.first.set_exception(error)
            self.first.exception()  # looked at: nobody may be waiting any more

    # --- from other tasks ---------------------------------------------------------------------------------------

    async def stop(self, seconds: float) -> None:
        """Ends the crew for good."""
        self._stop_asked.set()
        await self._drain(seconds)
        await self._ended.wait()

    async def _drain(self, seconds: float) -> None:
        """Ends the parts that there are: in order, and then without asking."""
        parts = [part for part in self.stopping_order() if part.alive]
        for part in parts:
            self.ask_to_stop(part, seconds)
        if parts:
            await asyncio.wait([part.born.ended for part in parts], timeout=seconds + 0.5)
        for part in parts:
            self.kill_part(part)

    def kill_part(self, part: C) -> None:
        """Ends one part at once, and its crew by that."""
        self._gate.launcher.kill(part.born)

    def kill(self) -> None:
        """Ends all parts at once."""
        for part in self.parts:
            self.kill_part(part)
