"""Taking a new policy while everything runs.

Until the new policy is known to be good and every new address is listened at, nothing has changed. After that, parts
take it in place: sessions that it still allows do not notice, the others are ended by the parts, which record it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import PolicyLoaded, PolicyRefused
from cofferdam.brokers.registry import check_installed
from cofferdam.enforce.orders import Notify
from cofferdam.enforce.plans.joined import joined
from cofferdam.enforce.plans.network import network_plan
from cofferdam.errors import CofferdamError, GateError, PolicyError
from cofferdam.gate import expiry
from cofferdam.gate.audit import now_ns
from cofferdam.gate.crew.plan import Change, change_crews, plan_crews
from cofferdam.gate.gate import STOP_SECONDS, Gate
from cofferdam.gate.loading import load_policy, taken
from cofferdam.gate.sides import RECORD_SECONDS, TAKE_SECONDS
from cofferdam.gate.told import assets_at, told_files
from cofferdam.policy.table import CompiledPolicy


class Reloaded(msgspec.Struct, frozen=True):
    """What a reload did: names of crews."""

    policy: str
    previous: str
    path: str
    kept: tuple[str, ...]
    restarted: tuple[str, ...]
    started: tuple[str, ...]
    stopped: tuple[str, ...]
    troubles: tuple[str, ...]
    """Crews that do not start under the new policy; the gate keeps trying."""


async def reload_policy(gate: Gate, path: Path | None, loaded: bytes = b"") -> Reloaded:
    """Takes the policy at `path`, or the present file anew. `loaded`: as whoever asks for it has read it
    (`loading.handed_over`); else the gate reads it itself, as far as it can see it.

    Raises:
        PolicyError: it does not load. Nothing changed.
        GateError: it cannot be put in force: an address in use, say. Nothing changed.
    """
    async with gate.changing:
        path = path or gate.policy_path
        try:
            if loaded:
                policy, files = taken(loaded, gate.options.machine)
            else:
                policy, files = await load_policy(path, machine=gate.options.machine)
            policy = expiry.hold(gate, policy)
            return await _put_in_force(gate, policy, path, files)
        except PolicyError as error:
            first = str(error.problems[0]) if error.problems else str(error)
            count = max(1, len(error.problems))
            gate.log.error("policy-refused", path=path, problems=count, first=first)
            gate.note(PolicyRefused(problem=clip(first), problems=count, wall_ns=now_ns()))
            raise
        except GateError as error:
            gate.log.error("policy-refused", path=path, reason=str(error))
            gate.note(PolicyRefused(problem=clip(str(error)), wall_ns=now_ns()))
            raise


async def reload_by_signal(gate: Gate) -> None:
    """As `reload_policy`, for someone who reads the log."""
    try:
        await reload_policy(gate, None)
    except PolicyError as error:
        for problem in error.problems or (error,):
            gate.log.error("policy-problem", problem=problem)
    except CofferdamError as error:
        gate.log.error("policy-problem", problem=error, hint=error.hint)
    except Exception as error:  # a bug of ours: no command of an operator ends the gate
        gate.command_failed("reload", "a signal", error)


async def _put_in_force(gate: Gate, policy: CompiledPolicy, path: Path, files: tuple[str, ...]) -> Reloaded:
    if policy.site != gate.policy.site:
        raise GateError(
            f"the new policy is for the site {policy.site}, this gate's log is that of {gate.policy.site}",
            hint="a gate keeps its site; start another one with a --state of its own",
        )
    gate.check_separation(policy)
    plan, old_plan = network_plan(policy), network_plan(gate.base)
    # Also where nothing changes: what someone did to the rules by hand is put right. Until the parts have taken the
    # new policy, the firewall lets through what either needs.
    gate.separation = await gate.launcher.prepare(joined(old_plan, plan))
    try:
        change = await _open(gate, policy)
    except CofferdamError:
        gate.separation = await gate.launcher.prepare(old_plan)
        raise
    previous = gate.policy_hash
    gate.launcher.notify(Notify("RELOADING=1"))
    gate.set_policy(policy, path)
    loaded = PolicyLoaded(policy=policy.hash, previous=previous, files=told_files(files), wall_ns=now_ns())
    await gate.audit.record(loaded, RECORD_SECONDS)
    gate.leaks.set(policy.gate.leak_probe_seconds)
    await gate.evidence.take_policy()
    troubles = await _change_crews(gate, change)
    try:
        gate.separation = await gate.launcher.prepare(plan)
        await gate.overlay.take_policy(policy)
    except GateError as error:
        troubles += (str(error),)
    gate.log.info("policy-loaded", policy=policy.hash[:12], previous=previous[:12], path=path)
    gate.launcher.notify(Notify("READY=1"))
    return Reloaded(
        policy=policy.hash,
        previous=previous,
        path=str(path),
        kept=tuple(plan.name for plan in change.keep),
        restarted=tuple(plan.name for plan in change.restart),
        started=tuple(plan.name for plan in change.start),
        stopped=change.stop,
        troubles=troubles,
    )


async def _open(gate: Gate, policy: CompiledPolicy) -> Change:
    """Opens what the policy needs besides what is open. Raises: CofferdamError; nothing changed."""
    running = {name: crew.plan for name, crew in gate.crews.items()}
    change = change_crews(running, plan_crews(policy, shards=gate.options.shards))
    plans = (*change.keep, *change.restart, *change.start)
    check_installed(plan.broker for plan in plans)
    opened = await gate.listeners.open((spot for plan in plans for spot in plan.spots), assets_at(plans))
    try:
        await gate.management.listen(policy.gate.management)
    except CofferdamError:
        gate.listeners.close(opened)
        raise
    return change


async def _change_crews(gate: Gate, change: Change) -> tuple[str, ...]:
    """First those that give something up, then those that take it over. Returns what went wrong."""
    stopped = [gate.crews.pop(name) for name in change.stop]
    gate.leaving.update(stopped)
    await asyncio.gather(
        *(crew.stop(STOP_SECONDS) for crew in stopped),
        *(gate.crews[plan.name].take_policy(plan, gate.listeners.of(plan.spots), TAKE_SECONDS) for plan in change.keep),
    )
    gate.leaving.clear()
    for crew in stopped:
        gate.earlier.merge(crew.totals)
    gate.listeners.keep(spot for plan in (*change.keep, *change.restart, *change.start) for spot in plan.spots)
    results = await asyncio.gather(
        *(gate.crews[plan.name].restart(plan, gate.listeners.of(plan.spots)) for plan in change.restart),
        *(gate.start_crews([plan]) for plan in change.start),
        return_exceptions=True,
    )
    troubles = []
    for result in results:
        if isinstance(result, GateError):
            troubles.append(str(result))
        elif isinstance(result, BaseException):
            raise result
    return tuple(troubles)
