"""Conduits whose expiry was seen: they stay expired though the clock is set back, and through restarts and reloads,
until the policy gives them another one.

A clock is easier to move than a policy, and it moves by itself: a flat battery, a wrong time server. So what has
expired is written down in the state directory, and the parts are told a policy in which it has expired since ever.

Not here: what an expiry means (policy.compile), where the file lies (state).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from cofferdam.errors import GateError
from cofferdam.gate import state
from cofferdam.gate.audit import now_ns
from cofferdam.gate.context import Context
from cofferdam.gate.crew.crew import Crew
from cofferdam.gate.crew.listeners import Listeners
from cofferdam.model import NEVER
from cofferdam.policy.table import CompiledPolicy

LOOK_SECONDS = 1.0
NOT_DURABLE = "expiry-not-durable"
"""The alarm while a restart with the clock set back would open again what has expired."""
DAMAGED = "expired-state-damaged"
TAKE_SECONDS = 5.0


class Expiries:
    """What has been seen. `damage`: why the file could not be understood: every conduit with an expiry counts then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen, self.damage = state.load_expired(folder)

    def hold(self, policy: CompiledPolicy) -> CompiledPolicy:
        """The policy, with all that has expired by now or has been seen to. Raises: GateError: that cannot be made
        durable (it holds all the same)."""
        now = now_ns()
        fresh = {
            name: conduit.expires
            for name, conduit in policy.conduits.items()
            if 0 < conduit.expires <= now and self._seen.get(name) != conduit.expires
        }
        self._seen |= fresh
        held = policy.ended(
            name
            for name, conduit in policy.conduits.items()
            if self._seen.get(name) == conduit.expires or (self.damage and conduit.expires != NEVER)
        )
        if fresh and not self.damage:
            state.save_expired(self._folder, self._seen)
        return held

    def save(self) -> None:
        """Raises: GateError."""
        if not self.damage:
            state.save_expired(self._folder, self._seen)

    def due(self, policy: CompiledPolicy) -> bool:
        """Whether something has expired that was not held yet."""
        now = now_ns()
        return any(0 < conduit.expires <= now for conduit in policy.conduits.values())


class Gate(Context, Protocol):
    """The gate, as this module knows it."""

    expiries: Expiries
    crews: dict[str, Crew]
    listeners: Listeners
    policy_path: Path
    policy_loaded_ns: int

    @property
    def alarms(self) -> Mapping[str, object]:
        """Those that stand, by name."""

    @property
    def base(self) -> CompiledPolicy:
        """The policy in force before anything was held back by an operator's hand."""

    def set_policy(self, policy: CompiledPolicy, path: Path) -> None:
        """From here on every start of a part gets this policy."""


def hold(gate: Gate, policy: CompiledPolicy) -> CompiledPolicy:
    """A policy that was just loaded, with all that has expired. An alarm says it where that is not durable."""
    expiries = gate.expiries
    gate.alarm(DAMAGED, expiries.damage)
    try:
        held = expiries.hold(policy)
    except GateError as error:
        gate.alarm(NOT_DURABLE, str(error))
        return expiries.hold(policy)  # now nothing of it is new
    return held


async def watch(gate: Gate, stopped: asyncio.Event) -> None:
    """Looks at the clock as long as the gate runs."""
    while not stopped.is_set():
        if gate.expiries.due(gate.base):
            async with gate.changing:
                loaded = gate.policy_loaded_ns
                gate.set_policy(hold(gate, gate.base), gate.policy_path)
                gate.policy_loaded_ns = loaded
                crews = list(gate.crews.values())
                await asyncio.gather(
                    *(crew.take_policy(crew.plan, gate.listeners.of(crew.plan.spots), TAKE_SECONDS) for crew in crews)
                )
        elif NOT_DURABLE in gate.alarms:
            try:
                gate.expiries.save()
            except GateError:
                pass
            else:
                gate.alarm(NOT_DURABLE, "")
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await stopped.wait()
        except TimeoutError:
            continue
