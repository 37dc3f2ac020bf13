"""The operator's hand, finer than a side: what is severed (zones, conduits, principals, assets), and conduits that are
granted for a time. Both are kept through restarts and reloads, and end by themselves where they have an end.

All of it is one thing to the parts: the policy in force with something held back (`CompiledPolicy.held`), which the
deciding part judges by like by any other. So nothing of a crossing, a broker or a protocol knows of it.

A file that cannot be understood is an alarm: then no grant stands, and both sides count as severed: fail closed.

Not here: severing a side, which does not wait for policies (gate), single sessions (crew), who may ask (commands).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import GrantAgreed, GrantAsked, GrantEnded, Restored, Severed
from cofferdam.errors import GateError
from cofferdam.gate import state
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.crew.crew import Crew
from cofferdam.gate.crew.listeners import Listeners
from cofferdam.gate.state import Closure, Granted, Hands, Kind
from cofferdam.policy.problems import nearest
from cofferdam.policy.table import CompiledPolicy

LOOK_SECONDS = 1.0
RECORD_SECONDS = 2.0
TAKE_SECONDS = 5.0
MOST = 1000
"""Closures that stand at once, and grants that are asked for or stand."""
ASKED_SECONDS = 86_400
"""A grant that nobody agrees to is forgotten after a day."""
DAMAGED, NOT_DURABLE = "hands-state-damaged", "hands-not-durable"
STAYS = "severed-past-its-time"
NS = 10**9
CHUNK = 256
"""Sessions that are ended by one order."""


class Gate(Context, Protocol):
    """The gate, as this module knows it."""

    crews: dict[str, Crew]
    listeners: Listeners

    @property
    def base(self) -> CompiledPolicy:
        """The policy in force before anything was held back by an operator's hand."""

    cuts: state.Severed

    async def restore(self, side: str, by: str, over_ns: int = 0) -> bool:
        """Lets a side work again."""

    def hold(self) -> None:
        """The policy in force is made anew from what was loaded and what is held back."""


class Ends:
    """Whether as much time has passed as was left to an end when it was seen first, whatever clock was set since."""

    def __init__(self) -> None:
        self._at: dict[tuple[str, int], int] = {}

    def passed(self, what: str, until_ns: int, now: int, most_ns: int = 2**63) -> bool:
        """`now`: what the clock says (UTC ns). One end that takes the place of another comes no sooner than that.
        `most_ns`: no more than that is left to it, also where the machine begins with a clock of long ago."""
        if (what, until_ns) not in self._at:
            before = (at for (one, _), at in self._at.items() if one == what)
            self._at[what, until_ns] = max((passed_ns() + min(until_ns - now, most_ns), *before))
        return passed_ns() >= self._at[what, until_ns]

    def over(self, what: str) -> None:
        """Somebody has ended it by hand: the next one has nothing of its end."""
        self._at = {one: at for one, at in self._at.items() if one[0] != what}

    def forget(self, but: Collection[tuple[str, int]]) -> None:
        """All others are over."""
        self._at = {one: at for one, at in self._at.items() if one in but}


def passed_ns() -> int:
    """Time that has passed since the machine's start, also while it slept."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class OperatorsHands:
    """One gate's. Who sets the clock neither ends early what is severed for a time, nor prolongs a grant: the first is
    over when the clock says so and as much time has passed, the second as soon as one of both is."""

    def __init__(self, folder: Path) -> None:
        self._ends = Ends()
        self._folder = folder
        self.now, self.damage = state.load_hands(folder)
        self._lock = asyncio.Lock()

    def held(self, policy: CompiledPolicy) -> CompiledPolicy:
        """The policy without what is held back now."""
        now = now_ns()
        by_kind: dict[str, set[str]] = {}
        for one in self.now.closures:
            if self._closed(one, now):
                by_kind.setdefault(one.kind, set()).add(one.name)
        shut = {name: "severed" for name in by_kind.get("conduit", ()) if name in policy.conduits}
        until: dict[str, int] = {}
        standing = {one.conduit: one for one in self.now.grants if one.stands(now) and not self._used_up(one, now)}
        for name, conduit in policy.conduits.items():
            if conduit.grant is None or name in shut:
                continue
            if name in standing:
                until[name] = standing[name].until_ns
            else:
                shut[name] = "shut: no grant stands"
        return policy.held(
            zones=by_kind.get("zone", ()), conduits=shut, principals=by_kind.get("principal", ()),
            assets=by_kind.get("asset", ()), until=until,
        )  # fmt: skip

    def _closed(self, one: Closure, now: int) -> bool:
        return not one.until_ns or not self._ends.passed(one.what, one.until_ns, now) or one.stands(now)

    def _used_up(self, one: Granted, now: int) -> bool:
        grant = f"grant {one.number}"
        return bool(one.agreed_by) and self._ends.passed(grant, one.until_ns, now, one.seconds * NS)

    # --- severing -----------------------------------------------------------------------------------------------

    async def sever(self, gate: Gate, kind: Kind, name: str, by: str, reason: str, until_ns: int) -> tuple[int, int]:
        """In force, then recorded; durable before it is said to be done. Of two that sever the same the later end
        counts, and none is the latest. Returns how many sessions it ended, and until when it stands (UTC ns; 0: no
        end).

        Raises:
            GateError: there is no such thing; or it is in force and cannot be made durable.
        """
        _known(gate.base, kind, name)
        if until_ns and until_ns <= now_ns():
            raise GateError("that end is over already", hint="--for takes a duration from now, such as 2h")
        async with self._lock:
            closures = state.with_closure(self.now.closures, Closure(kind, name, now_ns(), by, reason, until_ns))
            if len(closures) > MOST:
                raise GateError(f"{MOST} things are severed already", hint="sever a side, or restore some")
            self.now = Hands(closures, self.now.grants, self.now.last)
            ends = next(one.until_ns for one in closures if (one.kind, one.name) == (kind, name))
            ended = await self._apply(gate)
            trouble = self._save(gate)
            gate.log.warning("severed", what=f"{kind} {name}", by=by, reason=reason, sessions=ended)
            await gate.audit.record(
                Severed(side="", by=clip(by, 128), sessions=ended, what=kind, name=clip(name, 128),
                        reason=clip(reason), until_ns=until_ns, wall_ns=now_ns()),
                RECORD_SECONDS if gate.audit.writable else 0,
            )  # fmt: skip
            if trouble is not None:
                raise GateError(f"{kind} {name} is severed, but would not be after a restart: {trouble}",
                                hint=trouble.hint)  # fmt: skip
            return ended, ends

    async def restore(self, gate: Gate, kind: Kind, name: str, by: str, reason: str = "") -> bool:
        """Durable, recorded, in force. False if it was not severed. Raises: GateError; it stays severed."""
        async with self._lock:
            rest = tuple(one for one in self.now.closures if (one.kind, one.name) != (kind, name))
            if len(rest) == len(self.now.closures):
                return False
            entry = Restored(side="", by=clip(by, 128), what=kind, name=clip(name, 128), reason=clip(reason),
                             wall_ns=now_ns())  # fmt: skip
            fresh = Hands(rest, self.now.grants, self.now.last)
            state.save_hands(self._folder, fresh)
            await gate.audit.record(entry, RECORD_SECONDS)
            self.now = fresh
            self._ends.over(f"{kind} {name}")
            await self._apply(gate)
            gate.log.warning("restored", what=f"{kind} {name}", by=by)
            return True

    # --- grants -------------------------------------------------------------------------------------------------

    async def ask(self, gate: Gate, conduit: str, by: str, reason: str, seconds: int) -> Granted:
        """Somebody asks for a conduit. Nothing opens yet. Raises: GateError."""
        known = gate.base.conduits
        if conduit not in known:
            _known(gate.base, "conduit", conduit)
        grant = known[conduit].grant
        if grant is None:
            raise GateError(f"the conduit {conduit} needs no grant: it is open by the policy alone",
                            hint="`grant: {most: 4 h}` in the conduit makes it need one")  # fmt: skip
        if not 60 <= seconds <= grant.most_seconds:
            raise GateError(f"a grant of {conduit} is from a minute to {grant.most_seconds // 60} min",
                            hint=f"--for {grant.most_seconds // 60}m")  # fmt: skip
        if not reason:
            raise GateError("a grant needs a reason", hint="--reason 'work order 4711'")
        async with self._lock:
            if len(self.now.grants) >= MOST:
                raise GateError(f"{MOST} grants stand or are asked for", hint="cofferdam grant list")
            # Never one again: whoever agrees names the number that they have looked at.
            number = max(self.now.last, *(one.number for one in self.now.grants), 0) + 1
            asked = Granted(number, conduit, by, reason, seconds, now_ns())
            await self._record(gate, GrantAsked(number=number, conduit=clip(conduit, 128), by=clip(by, 128),
                                                reason=clip(reason), seconds=seconds, wall_ns=now_ns()))  # fmt: skip
            fresh = Hands(self.now.closures, (*self.now.grants, asked), number)
            self._keep(gate, fresh, asked)
            self.now = fresh
            return asked

    async def agree(self, gate: Gate, number: int, by: str) -> Granted:
        """A second person agrees: recorded, durable, in force, from now on. Raises: GateError."""
        async with self._lock:
            asked = next((one for one in self.now.grants if one.number == number), None)
            if asked is None or asked.over(now_ns()):
                raise GateError(f"nobody has asked for a grant {number}", hint="cofferdam grant list")
            if asked.agreed_by:
                raise GateError(f"grant {number} was agreed to by {asked.agreed_by}", hint="cofferdam grant list")
            conduit = gate.base.conduits.get(asked.conduit)
            if conduit is None or conduit.grant is None:
                raise GateError(f"the policy has no conduit {asked.conduit} any more that needs a grant")
            if by == asked.by:
                raise GateError(f"{by} has asked for it, and nobody agrees to their own wish",
                                hint="another person agrees, under their own login")  # fmt: skip
            if conduit.grant.by and by not in conduit.grant.by:
                raise GateError(f"{by} may not agree for {asked.conduit}",
                                hint=f"the policy names {', '.join(conduit.grant.by)}")  # fmt: skip
            seconds = min(asked.seconds, conduit.grant.most_seconds)
            until = now_ns() + seconds * NS
            await self._record(gate, GrantAgreed(number=number, conduit=clip(asked.conduit, 128), by=clip(by, 128),
                                                 asked_by=clip(asked.by, 128), until_ns=until,
                                                 wall_ns=now_ns()))  # fmt: skip
            done = Granted(number, asked.conduit, asked.by, asked.reason, seconds, asked.asked_ns, by, until)
            rest = tuple(done if one.number == number else one for one in self.now.grants)
            fresh = Hands(self.now.closures, rest, self.now.last)
            self._keep(gate, fresh, done)
            self.now = fresh
            await self._apply(gate)
            return done

    async def end(self, gate: Gate, number: int, by: str) -> bool:
        """A grant, or what was asked for, is over: in force first. False if there is none. Raises: GateError."""
        async with self._lock:
            if all(one.number != number for one in self.now.grants):
                return False
            await self._end(gate, {number}, by)
            return True

    async def _end(self, gate: Gate, numbers: set[int], by: str) -> None:
        over = [one for one in self.now.grants if one.number in numbers]
        rest = tuple(one for one in self.now.grants if one.number not in numbers)
        self.now = Hands(self.now.closures, rest, self.now.last)
        await self._apply(gate)
        self._save(gate)
        for one in over:
            gate.note(GrantEnded(number=one.number, conduit=clip(one.conduit, 128), by=clip(by, 128),
                                 wall_ns=now_ns()))  # fmt: skip

    # --- time ---------------------------------------------------------------------------------------------------

    async def watch(self, gate: Gate, stopped: asyncio.Event) -> None:
        """What has an end, ends by itself."""
        gate.alarm(DAMAGED, self.damage)
        while not stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), LOOK_SECONDS)
            now = now_ns()
            timed = {(f"{cut.side} {cut.since_ns}", cut.until_ns): cut.side for cut in gate.cuts.cuts if cut.until_ns}
            passed = {side for (what, until), side in timed.items() if self._ends.passed(what, until, now)}
            for side in passed & set(gate.cuts.over(now)):
                try:
                    await gate.restore(side, "its time", now)
                    gate.alarm(STAYS, "")
                except GateError as error:
                    gate.alarm(STAYS, f"the {side} side stays severed past its time: {error}")
            async with self._lock:
                over = {one.number for one in self.now.grants if one.over(now) or self._used_up(one, now)}
                if over:
                    await self._end(gate, over, "its time")
                done = [one for one in self.now.closures if not self._closed(one, now)]
                if done:
                    kept = tuple(one for one in self.now.closures if one not in done)
                    self.now = Hands(kept, self.now.grants, self.now.last)
                    for one in done:
                        gate.note(Restored(side="", by="its time", what=one.kind, name=clip(one.name, 128),
                                           wall_ns=now_ns()))  # fmt: skip
                    self._save(gate)
                    await self._apply(gate)
                    for one in done:
                        gate.log.warning("restored", what=f"{one.kind} {one.name}", by="its time")
                self._ends.forget({*timed, *((one.what, one.until_ns) for one in self.now.closures),
                                   *((f"grant {one.number}", one.until_ns) for one in self.now.grants)})  # fmt: skip

    async def _apply(self, gate: Gate) -> int:
        """Every part works by it when this returns; one that does not say so in time is ended, and born with it. How
        many sessions that has ended."""
        gate.hold()
        ended = await asyncio.gather(*(self._hold_back(gate, crew) for crew in list(gate.crews.values())))
        return sum(ended)

    async def _hold_back(self, gate: Gate, crew: Crew) -> int:
        """Parts end the sessions of who has no right to be there at all. Those that could do nothing more are ended by
        name; a broker's sessions that are with no asset, where all its conduits here are shut."""
        ended = await crew.take_held(gate.listeners.of(crew.plan.spots), TAKE_SECONDS)
        policy, now, broker = gate.policy, now_ns(), crew.plan.broker
        is_open = any(now < policy.conduits[name].expires for name in crew.plan.conduits if name in policy.conduits)
        barred = [
            one.session
            for one in await crew.sessions(TAKE_SECONDS, of_all=True)
            if not (policy.serves(broker, one.asset, one.principals, now) if one.asset in policy.assets else is_open)
        ]
        for begin in range(0, len(barred), CHUNK):
            chunk = tuple(barred[begin : begin + CHUNK])
            ended += await crew.end_named(chunk, "what it was for is severed, or its grant is over", TAKE_SECONDS)
        return ended

    def _keep(self, gate: Gate, hands: Hands, grant: Granted) -> None:
        """Makes it durable. Raises: GateError; the log, which has the grant already, is told that it is over."""
        try:
            state.save_hands(self._folder, hands)
        except GateError:
            over = GrantEnded(number=grant.number, conduit=clip(grant.conduit, 128), by="the gate", wall_ns=now_ns())
            gate.note(over)
            raise

    async def _record(self, gate: Gate, entry: GrantAsked | GrantAgreed) -> None:
        if not await gate.audit.record(entry, RECORD_SECONDS):
            raise GateError(
                f"it cannot be recorded ({gate.audit.reason}), so nothing was done", hint="cofferdam status"
            )

    def _save(self, gate: Gate) -> GateError | None:
        try:
            state.save_hands(self._folder, self.now)
        except GateError as error:
            gate.alarm(NOT_DURABLE, str(error))
            return error
        gate.alarm(NOT_DURABLE, "")
        return None


def _known(policy: CompiledPolicy, kind: str, name: str) -> None:
    """Raises: GateError, with the nearest name."""
    named: dict[str, Collection[str]] = {
        "zone": policy.zones,
        "conduit": policy.conduits,
        "principal": policy.principals,
        "asset": policy.assets,
    }
    there = named[kind]
    if name not in there:
        near = nearest(name, there)
        raise GateError(
            f"the policy has no {kind} {name}",
            hint=f"did you mean {near}?" if near else f"it has {', '.join(sorted(there)[:10]) or 'none'}",
        )
