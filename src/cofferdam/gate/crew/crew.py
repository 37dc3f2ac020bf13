"""A broker's crew: what its parts are told from birth on, and what they are asked.

Not here: its life (supervisor), which crews there are (plan), what parts do (brokers).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import HalfDied, HalfStarted, RecordViolation
from cofferdam.audit.supervision import PastWrite
from cofferdam.brokers.kit.pace import Bucket, draw
from cofferdam.brokers.kit.supervision import (
    HOUSE_END,
    Alarms,
    Away,
    Configure,
    EndSources,
    Listener,
    NewPolicy,
    Secret,
    SessionStatus,
    SetSevered,
    Stop,
)
from cofferdam.brokers.kit.vouch import Vouch
from cofferdam.brokers.registry import BROKERS
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.context import Context
from cofferdam.gate.crew.jobs import Jobs
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.part import Part
from cofferdam.gate.crew.plan import CrewPlan, Spot
from cofferdam.gate.crew.supervisor import Supervisor
from cofferdam.gate.log import spelled
from cofferdam.gate.secrets import load_heard, load_secrets, make_secrets, vouch
from cofferdam.gate.watch.totals import Totals
from cofferdam.policy.table import CompiledPolicy

DRAIN_SECONDS = 1.0
"""For what is under way when a crew is started anew."""
LAST_WORDS_SECONDS = 0.1
"""For a part of a side that was severed, to tell the log of what it has ended."""
MOST_SESSIONS = 1 << 20
"""No part has more."""
ALARM_SECONDS = 2.0
"""A part's alarms are looked at so often, so that one that was taken over cannot fill the log with them."""
HELD = "crew-held"
"""The alarm of a crew whose last life ended before it was ready: it is tried again, and no other crew waits for it."""
ALARMS_A_MINUTE, ALARMS_AT_ONCE = 4, 64
"""Alarms of a part that may come or go: each is an entry in the log."""


def _is_paced(policy: CompiledPolicy, assets: Collection[str]) -> bool:
    """Whether there is a limit on how often something of these assets may be done, or how fast it may move."""
    known = [policy.assets[name] for name in assets if name in policy.assets]
    points = any(
        point.writes_per_minute is not None or point.max_rate is not None for asset in known for point in asset.points
    )
    return points or any(method.writes_per_minute is not None for asset in known for method in asset.methods)


@dataclass(frozen=True)
class HeldListener:
    """A listener that the launcher holds."""

    number: int
    spot: Spot
    address: str
    port: int


class Crew(Supervisor[Part]):
    """Supervises one crew of a broker."""

    def __init__(self, gate: Context, plan: CrewPlan, listeners: Mapping[Spot, HeldListener]) -> None:
        super().__init__(gate, plan.name)
        self.plan = plan
        self.broker = BROKERS[plan.broker]
        self.kind = self.broker.crew.kind
        self.alone, self.returns = self.broker.crew.alone, self.broker.crew.returns
        self.has_store = any(self.broker.crew.parts[name].store for name in plan.parts)
        self.totals = Totals()
        """What the parts of earlier lives counted."""
        self._jobs = Jobs(gate, self.name, self.road, self.broker)
        self._listeners = dict(listeners)
        self._born_with: dict[str, tuple[Spot, ...]] = {}
        self._alarms: dict[str, frozenset[str]] = {}
        self._alarms_at: dict[str, float] = {}
        self._alarm_pace: dict[str, Bucket] = {}
        self._held = ""
        self._ordered = plan
        """The plan by which this life was born."""
        self._boot = ""
        self._lives: dict[str, int] = {}
        """How many lives of a part that comes again have ended in this one of the crew."""
        self._settled = asyncio.Event()
        """A life by the present plan has become ready, or has ended before it was."""

    # --- birth and death ----------------------------------------------------------------------------------------

    @property
    def road(self) -> str:
        return self.plan.base

    def orders(self) -> Sequence[PartOrder]:
        self._born_with, self._ordered = {}, self.plan
        return [self.order_of(name) for name in self.plan.parts]

    def order_of(self, part: str) -> PartOrder:
        plan = self.plan.parts.get(part)
        if plan is None:
            raise GateError(f"the policy needs no {self.name}/{part} any more")
        self._born_with[part] = plan.spots
        return PartOrder(
            part,
            plan.place,
            tuple(self._listeners[spot].number for spot in plan.spots),
            plan.store.quota if plan.store is not None else 0,
            plan.folders,
            self._gate.policy.urgent(self.plan.broker, self.plan.conduits),
        )

    def adopt(self, born: Born) -> Part:
        name, gate = f"{self.name}/{born.part}", self._gate
        return Part(gate.reactor, name, born, self._violation, self.broker, self._heard, self._jobs.start)

    async def configure(self) -> None:
        gate, plan = self._gate, self.plan  # a new policy may have come since the order
        self._boot, self._lives = f"{gate.boot}.{next(gate.births)}", {}
        # What earlier lives wrote in the last minute, whatever their crew was called: the log has it.
        recent: tuple[PastWrite, ...] | None = ()
        if _is_paced(gate.policy, plan.asset_names):
            recent = await gate.recent_writes(plan.asset_names)
        for part in self.parts:
            self._configure(part, self._boot, recent)

    def configure_alone(self, part: Part) -> None:
        again = part.born.part in self.returns
        self._configure(part, self._boot if again else f"{self._gate.boot}.{next(self._gate.births)}", ())

    def on_absent(self, part: Part) -> None:
        name = part.born.part
        life = self._lives.get(name, 0)
        self._lives[name] = life + 1
        for other in self.parts:
            other.send(Away(name, life))

    def on_held(self, why: str, hint: str) -> None:
        self._hold(why, hint)

    def _configure(self, part: Part, boot: str, recent: tuple[PastWrite, ...] | None) -> None:
        gate, plan, name = self._gate, self.plan, part.born.part
        profile = self.broker.crew.parts[name]
        make_secrets(gate.options.state, plan.base, name, profile.makes, gate.options.secrets)
        part.works_by(gate.policy)
        part.send(
            Configure(
                crew=self.name,
                part=name,
                broker=plan.broker,
                source_zones=plan.source_zones,
                target_zone=plan.target_zone,
                boot=boot,
                policy=plan.slice(gate.policy, name),
                severed=gate.severed,
                listeners=self._inherited(part),
                assets=plan.asset_names,
                again=recent is None,
                recent=recent or (),
                store=part.born.store,
                reads=dict(part.born.reads),
                folders=dict(part.born.folders),
                dials=plan.parts[name].dials,
                life=self._lives.get(name, 0),
                secrets=self._secrets(name),
            )
        )

    def _inherited(self, part: Part) -> tuple[Listener, ...]:
        """The listeners by their numbers in a part."""
        return tuple(
            Listener(
                part.born.listeners_at + index,
                self._listeners[spot].address,
                self._listeners[spot].port,
                spot.datagrams,
                spot.way,
            )
            for index, spot in enumerate(self._born_with.get(part.born.part, ()))
            if spot in self._listeners
        )

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            for part in list(self._alarms):
                self._raise(part, {})
            self._hold("")

    def _heard(self, part: str, alarms: Alarms) -> None:
        """What a part says needs a person. It stands until the part, or its next life, says otherwise."""
        now = time.monotonic()
        if now - self._alarms_at.get(part, -ALARM_SECONDS) < ALARM_SECONDS:
            return
        self._alarms_at[part] = now
        said = {clip(f"{part}/{name}", 128) for name in alarms}
        changed = len(said ^ self._alarms.get(part, frozenset()))
        if changed and draw(self._alarm_pace, part, int(now * 1e9), ALARMS_A_MINUTE / 60e9, ALARMS_AT_ONCE, changed):
            self._raise(part, alarms)

    def _raise(self, part: str, alarms: Alarms) -> None:
        said = {clip(f"{part}/{name}", 128): detail for name, detail in alarms.items()}
        for name in self._alarms.pop(part, frozenset()) - said.keys():
            self._gate.alarm(name, "")
        if said:
            self._alarms[part] = frozenset(said)
        for name, detail in said.items():
            self._gate.alarm(name, detail)

    def failure(self, reason: str, hint: str) -> CofferdamError:
        error = super().failure(reason, hint)
        if self._ordered is self.plan:
            self._settled.set()
        if hint and any(part.failing for part in self.parts):  # a part's words: the gate tells nobody to do them
            self._hold(f"{error}; {hint}")
        else:
            self._hold(str(error), hint)
        return error

    def _hold(self, why: str, hint: str = "") -> None:
        """Why its lives end before they are ready, and the way out; "" for no more."""
        why = clip(spelled(why))
        if why == self._held:
            return
        self._held, name = why, clip(f"{self.name}/{HELD}", 128)
        self._gate.alarm(name, "")
        if why:
            self._gate.alarm(name, why, clip(f"{spelled(hint)}; it is started again by itself") if hint else "")

    def on_ready(self) -> None:
        self._settled.set()
        for part in self.parts:
            self.on_part_ready(part)

    def on_part_ready(self, part: Part) -> None:
        self._hold("")
        self._gate.note(HalfStarted(half=clip(part.name, 128), pid=part.born.pid, wall_ns=time.time_ns()))

    def on_end(self, part: Part, reason: str, expected: bool) -> None:
        if part.status is not None:
            try:
                self.totals.add(part.broker, part.born.part, part.status, lives=False)
            except Exception as error:  # what it reported last cannot be summed: it is not counted
                self._gate.log.error("report-not-counted", part=part.name, reason=str(error))
        self._gate.note(
            HalfDied(
                half=clip(part.name, 128),
                pid=part.born.pid,
                status=part.born.ended.result(),
                expected=expected,
                restarts=self.restarts,
                reason=clip(reason),
                wall_ns=time.time_ns(),
            )
        )

    def stopping_order(self) -> list[Part]:
        # Who answers comes first: told later, it may see the others go before it knows that this is in order.
        return sorted(self.parts, key=lambda part: part.born.part not in self.broker.answers)

    def ask_to_stop(self, part: Part, seconds: float) -> None:
        part.send(Stop(seconds))

    def _violation(self, part: Part, detail: str) -> None:
        self._gate.log.error("record-violation", part=part.name, detail=detail)
        self._gate.note(RecordViolation(half=clip(part.name, 128), detail=clip(detail), wall_ns=time.time_ns()))
        self.kill_part(part)

    # --- from other tasks ---------------------------------------------------------------------------------------

    async def take_policy(self, plan: CrewPlan, listeners: Mapping[Spot, HeldListener], seconds: float) -> bool:
        """Has the parts work by the gate's present policy, with the listeners and assets that are left. False if one
        did not take it in time: it was ended, and its next life has the policy from birth."""
        self.plan = plan
        self._listeners = dict(listeners)
        wanted = self._gate.policy_hash
        parts = list(self.parts)
        for part in parts:
            part.works_by(self._gate.policy)
            own = plan.slice(self._gate.policy, part.born.part)
            part.owed += 1
            secrets = self._anew(part.born.part)
            part.send(NewPolicy(own, self._inherited(part), plan.asset_names, secrets))
        return await self._all(parts, lambda part: part.policy == wanted and not part.owed, seconds, "policy")

    def _anew(self, name: str) -> tuple[Secret, ...] | None:
        """A part's secrets as they are by now, where it takes them while it runs."""
        if name not in self.broker.rekeys:
            return None
        try:
            return self._secrets(name)
        except GateError as error:
            self._gate.log.error("secrets-not-taken", part=f"{self.name}/{name}", reason=str(error))
            return None

    def _secrets(self, name: str) -> tuple[Secret, ...]:
        """A part's own, and the public keys of those whose word it believes. Raises: GateError."""
        profile, state = self.broker.crew.parts[name], self._gate.options.state
        own = load_secrets(state, self.plan.base, name, profile.secrets, self._gate.options.secrets)
        return own + load_heard(state, self.plan.base, profile.believes)

    def vouch(self, verb: str, by: str, claim: object) -> Vouch:
        """The gate's word for who asks a part of ours for something. Raises: GateError."""
        return vouch(self._gate.options.state, self.plan.base, verb, by, claim)

    async def take_held(self, listeners: Mapping[Spot, HeldListener], seconds: float) -> int:
        """Has the parts work by the gate's present policy, whose hash may be the one that they have: each has to say
        anew that it has taken it. One that does not in time is ended, and born with it. How many sessions that has
        ended, as the part says that has seen most of them end."""
        before = {part: part.ended for part in self.parts}
        await self.take_policy(self.plan, listeners, seconds)
        return max((min(part.ended - count, MOST_SESSIONS) for part, count in before.items()), default=0)

    async def end_named(self, sessions: Sequence[str], reason: str, seconds: float) -> int:
        """Has the parts end these sessions; how many of them were there."""
        return await self._end(EndSources((), clip(reason, 512), sessions=tuple(sessions)), seconds)

    async def take_severed(self, seconds: float, fresh: Collection[str] = ()) -> bool:
        """Has the parts cut the severed sides off. As `take_policy`. Those that stand on a side that is severed now
        (`fresh`) are ended and born again, whatever they have answered: a part that was taken over may say anything."""
        sides = self._gate.severed
        parts = list(self.parts)
        # An older report must not count as the answer. It stays, for what it counted.
        older = {part: part.status for part in parts}
        for part in parts:
            part.send(SetSevered(sides))
            part.report()

        def taken(part: Part) -> bool:
            status = part.status
            return status is not None and status is not older[part] and set(status.severed) == set(sides)

        good = await self._all(parts, taken, seconds, "severed sides")
        places = {name: part.place for name, part in self.plan.parts.items()}
        cut = [
            part
            for part in parts
            if part.alive and (place := places.get(part.born.part)) is not None and place.side in fresh
        ]
        if cut:
            self._planned_end = True
            for part in cut:
                part.send(Stop(LAST_WORDS_SECONDS))
            await asyncio.wait([part.born.ended for part in cut], timeout=LAST_WORDS_SECONDS)
            for part in cut:
                self.kill_part(part)
        return good

    async def _all(self, parts: list[Part], taken: Callable[[Part], bool], seconds: float, what: str) -> bool:
        deadline = time.monotonic() + seconds
        good = True
        for part in parts:
            if await part.until(lambda part=part: taken(part), deadline - time.monotonic()):  # type: ignore[misc]
                continue
            if part.alive:
                good = False
                self._gate.log.error("part-does-not-take", part=part.name, what=what)
                self.kill_part(part)
                await asyncio.wait([part.born.ended])
        return good

    async def report(self, seconds: float) -> None:
        """Has the parts report now, and waits for it."""
        parts = [part for part in self.parts if part.ready is not None]
        asked = time.monotonic()
        for part in parts:
            part.report()
        for part in parts:
            await part.until(lambda part=part: part.heard > asked, seconds)  # type: ignore[misc]

    async def end_sessions(self, sources: Collection[str], reason: str, seconds: float) -> int:
        """Has the parts end all sessions from these addresses; how many there were. A part that does not say that it
        has done so is ended, and all of its sessions with it."""
        return await self._end(EndSources(tuple(sources), clip(reason, 512)), seconds)

    async def _end(self, asked: EndSources, seconds: float) -> int:
        parts = [part for part in self.parts if part.ready is not None]
        answers = await asyncio.gather(
            *(part.ask(HOUSE_END, msgspec.json.encode(asked), seconds) for part in parts), return_exceptions=True
        )
        ended = 0
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, int) and 0 <= answer <= MOST_SESSIONS:
                ended += answer
            elif part.alive:
                self._gate.log.error("part-does-not-take", part=part.name, what="the end of sessions")
                self.kill_part(part)
        return ended

    async def sessions(self, seconds: float, *, of_all: bool = False) -> list[SessionStatus]:
        """Some of the sessions that the parts have, SESSIONS of each at most; none of a part that does not say. Asked
        are those that reported some; `of_all`: every part, since a report may be older than a session."""
        parts = [
            part
            for part in self.parts
            if part.ready is not None and (of_all or (part.status is not None and any(part.status.open.values())))
        ]
        found: list[SessionStatus] = []
        for part in parts:
            with contextlib.suppress(GateError):
                found += await part.sessions(seconds)
        return found

    async def ask(self, name: str, verb: str, arguments: bytes, seconds: float) -> Any:
        """An operator's question to one part. Raises: GateError: its answer is no, or there is none."""
        ready = {part.born.part: part for part in self.parts if part.ready is not None}
        part = ready.get(name) or ready.get(self.broker.stands_in.get((name, verb), ""))
        if part is None:
            raise GateError(f"{self.name}/{name} does not run now", hint="`cofferdam status` shows what runs")
        return await part.ask(verb, arguments, seconds)

    async def restart(self, plan: CrewPlan, listeners: Mapping[Spot, HeldListener]) -> None:
        """Ends the parts in order; they are born again with other listeners. Waits until they are ready.

        Raises:
            GateError: they are not, after some time, or once more where the crew is held; the gate keeps trying.
        """
        self.plan = plan
        self._listeners = dict(listeners)
        news = self._settled if self._held else self._ready
        deadline = time.monotonic() + self.ready_seconds
        while time.monotonic() < deadline:
            self._planned_end = bool(self.parts)
            self._ready.clear()
            self._settled.clear()
            await self._drain(DRAIN_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), deadline - time.monotonic())
            # A birth that was under way when we came has the old listeners: once more.
            born_with = {spot for spots in self._born_with.values() for spot in spots}
            if self._ready.is_set() and set(plan.spots) <= born_with and plan.parts.keys() == self._born_with.keys():
                return
            if news.is_set() and not self._ready.is_set():
                break
        raise GateError(self._held or f"the crew {self.name} did not come back within {self.ready_seconds:.0f} s")
