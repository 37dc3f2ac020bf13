"""The steps of the tour around the filling line: whom nobody trusts, what one sees, what is judged, what a restart
does.

Not here: how steps are run and shown (lab.tour), what the people can do (people).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import time
from collections.abc import Awaitable, Callable

from cofferdam.lab import events
from cofferdam.lab.play import Finding, Step
from cofferdam.lab.scene import PATIENCE_SECONDS, Actor, Scene, in_the_end


class Cast:
    """The MES and the operator, driven; `restart` ends the line and starts it with its namespaces swapped."""

    def __init__(self, scene: Scene, mes: Actor, operator: Actor, restart: Callable[[], Awaitable[None]]) -> None:
        self.scene = scene
        self.mes = mes
        self.operator = operator
        self.restart = restart

    async def ask(
        self, actor: Actor, do: str, point: str = "", value: float = 0.0, count: int = 1
    ) -> events.Experience:  # fmt: skip
        """One thing that somebody does; what came of it."""
        told = await actor.do(events.Command(do, point=point, value=value, count=count), seconds=PATIENCE_SECONDS)
        return next(event for event in told if isinstance(event, events.Experience))

    async def tries(
        self, actor: Actor, words: str, wanted: str, do: str, point: str = "", value: float = 0.0, count: int = 1
    ) -> Finding:
        """A finding: `wanted` is "ok" or the status that it is to be refused with."""
        seen = await self.ask(actor, do, point, value, count)
        got = "ok" if seen.outcome == "ok" else seen.detail
        return Finding(words, wanted, f"{got} {seen.detail if got == 'ok' else ''}".strip(), got == wanted)


async def _refused(cast: Cast, mark: str) -> bool:
    """Whether a certificate stands among those that were refused."""
    listed = await cast.scene.verb("pki", "list", "--side", "outer", "--json")
    return mark in [one["thumbprint"] for side in listed.json() for one in side["refused"]]


async def strangers_are_let_in_by_the_operator_of_the_gate(cast: Cast) -> list[Finding]:
    """A certificate that nobody trusts is refused and told; one verb lets it in"""
    findings = []
    for actor in (cast.mes, cast.operator):
        first = await cast.ask(actor, "connect")
        der = (cast.scene.directory / f"{actor.name}-keys" / "own.der").read_bytes()
        mark = hashlib.sha1(der, usedforsecurity=False).hexdigest()
        listed = await in_the_end(functools.partial(_refused, cast, mark), bool)
        trusted = await cast.scene.verb("pki", "trust", mark[:16], "--json")
        second = await cast.ask(actor, "connect")
        findings.append(
            Finding(
                f"{actor.name} connects, the gate's operator trusts its certificate, it connects again",
                "refused and listed with its thumbprint; then connected",
                f"{first.outcome}, listed: {listed}; trust: exit {trusted.code}; {second.outcome}",
                first.outcome == "refused" and listed and trusted.code == 0 and second.outcome == "ok",
            )
        )
    return findings


async def one_sees_what_one_may_use(cast: Cast) -> list[Finding]:
    """The MES browses and watches its nodes, and there is no other"""
    seen = await cast.ask(cast.mes, "browse")
    watched = await cast.ask(cast.mes, "watch", "Line.Level", count=5)
    return [
        Finding("the MES browses", "its five nodes and no sixth", seen.detail,
                seen.detail == "Line: Bottles Level Recipe Speed State"),
        Finding(
            "the MES subscribes to the level", "five changes", watched.detail, len(watched.detail.split()) == 5
        ),
        await cast.tries(cast.mes, "the MES reads a node of the line that it knows of", "BadNodeIdUnknown", "read",
                         "Line.Secret"),
        await cast.tries(cast.mes, "the MES reads back half an hour of the level", "ok", "history", "Line.Level", 30),
        await cast.tries(cast.mes, "and two hours of it", "BadUserAccessDenied", "history", "Line.Level", 120),
    ]  # fmt: skip


async def values_and_calls_are_judged(cast: Cast) -> list[Finding]:
    """What is written and called is held to who asks, to ranges and to steps"""
    return [
        await cast.tries(cast.mes, "the MES writes the speed", "BadUserAccessDenied", "write", "Line.Speed", 310.0),
        await cast.tries(cast.operator, "the operator writes it in range", "ok", "write", "Line.Speed", 350.0),
        await cast.tries(cast.operator, "out of range", "BadOutOfRange", "write", "Line.Speed", 5000.0),
        await cast.tries(cast.operator, "too far at once", "BadOutOfRange", "write", "Line.Speed", 900.0),
        await cast.tries(cast.operator, "the operator resets the counter", "ok", "call", "Line.Reset", 1),
        await cast.tries(cast.operator, "and purges the line", "BadNodeIdUnknown", "call", "Line.Purge", 1),
    ]


async def a_restart_with_other_numbers(cast: Cast) -> list[Finding]:
    """The line's server restarts with its namespaces in another order, and nobody reads a wrong node"""
    await cast.restart()
    seen: list[float] = []
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        told = await cast.ask(cast.mes, "read", "Line.Speed")
        if told.value is not None:
            seen.append(told.value)
        if len(seen) >= 10:
            break
        await asyncio.sleep(0.1)
    return [
        Finding(
            "the MES goes on reading the speed, which is -1 at the other line",
            "ten times the line's own, 300",
            f"{len(seen)} times: {sorted(set(seen))}",
            len(seen) == 10 and set(seen) == {300.0},
        )
    ]


async def an_intruder_gets_nowhere(cast: Cast) -> list[Finding]:
    """Somebody at the operator's own address without its key: no certificate, a stolen token, a looped chain, 10 MB"""
    findings = []
    for how, wanted in (
        ("without a certificate", "BadSecurityChecksFailed"), ("with a stolen token", "BadSecurityChecksFailed"),
        ("with a looped chain", "BadSecurityChecksFailed"), ("with 10 MB of chunks", "closed"),
    ):  # fmt: skip
        seen = await cast.ask(cast.operator, "intrude", how)
        good = seen.detail in (wanted, "BadTcpMessageTooLarge" if "chunks" in how else wanted)
        findings.append(Finding(f"an intruder {how}", wanted, seen.detail, good))
    goes_on = await cast.ask(cast.mes, "read", "Line.Speed")
    findings.append(Finding("the MES reads all the while", "ok", goes_on.outcome, goes_on.outcome == "ok"))
    return findings


async def the_log_names_each(cast: Cast) -> list[Finding]:
    """The audit log names each write and call, who, and by which rule"""
    verified = await cast.scene.verb("audit", "verify")
    shown = await cast.scene.verb("audit", "show", "--json", "--kind", "write-allowed")
    found = [line for line in shown.out.splitlines() if "Line.Speed" in line or "Line.Reset" in line]
    users = all("anna" in line for line in found)
    return [
        Finding(
            "the log of what went to the line",
            "one write and one call, of anna's",
            f"{len(found)} entries, all of anna's: {users}",
            len(found) == 2 and users,
        ),
        Finding("the log verifies", "exit 0", f"exit {verified.code}", verified.code == 0),
    ]


STEPS: tuple[Step, ...] = (
    strangers_are_let_in_by_the_operator_of_the_gate,
    one_sees_what_one_may_use,
    values_and_calls_are_judged,
    an_intruder_gets_nowhere,
    a_restart_with_other_numbers,
    the_log_names_each,
)
