"""`cofferdam lab demo --tour`: every promise of the gate, tried for real and checked out loud.

The tour drives real processes (lab.scene) and believes nobody alone: a step holds what an actor experienced against
what the plant itself saw and against what the audit log says. It ends with exit code 1 if one finding is not as
promised; a step that breaks down is a finding too.

Not here: the steps (lab.steps).
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape

from cofferdam.errors import CofferdamError
from cofferdam.lab import events
from cofferdam.lab.layout import Layout
from cofferdam.lab.scene import Actor, Scene


class Finding(msgspec.Struct, frozen=True):
    """One thing that was tried: what should happen, what did, and whether that is the same."""

    tried: str
    expected: str
    seen: str
    ok: bool


class Tour:
    """Everything a step needs: the scene, its driven actors, and what the plant has seen so far."""

    def __init__(self, scene: Scene, plant: Actor, erp: Actor, operator: Actor, intruder: Actor) -> None:
        self.scene = scene
        self.plant = plant
        self.erp = erp
        self.operator = operator
        self.intruder = intruder
        self.addresses = scene.layout.addresses
        self.allowed_writes: list[tuple[str, int, tuple[int, ...]]] = []
        """Writes that steps made in accordance with policy: all that the plant may ever see."""

    async def settle(self) -> int:
        """Wait until we have read all that the plant said up to now; how much that is."""
        now = time.time_ns()
        await self.plant.wait_for(lambda event: event.wall_ns > now, after=max(0, len(self.plant.seen) - 1))
        return len(self.plant.seen)

    async def plant_since(self, mark: int) -> list[events.Event]:
        """What the plant saw since `mark`, without its own reports."""
        await self.settle()
        return [event for event in self.plant.seen[mark:] if not isinstance(event, events.Plant)]

    async def one(self, actor: Actor, command: events.Command) -> events.Experience:
        """Have an actor do one thing; what it experienced. Raises CofferdamError where that is not one thing."""
        told = [event for event in await actor.do(command) if isinstance(event, events.Experience)]
        if len(told) != 1:
            raise CofferdamError(f"{actor.name}: {command.do} gave {len(told)} experiences, not one")
        return told[0]

    async def read(self, actor: Actor, point: str) -> events.Experience:
        """One read of a point."""
        return await self.one(actor, events.Command("read", point=point))

    async def write(self, point: str, value: float) -> events.Experience:
        """One write by the operator."""
        return await self.one(self.operator, events.Command("write", point=point, value=value))


Step = Callable[[Tour], Awaitable[list[Finding]]]


class Result(msgspec.Struct, frozen=True):
    """A step's findings."""

    step: str
    title: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return bool(self.findings) and all(finding.ok for finding in self.findings)


@contextlib.asynccontextmanager
async def on_stage(layout: Layout, *, state: Path | None = None) -> AsyncIterator[Tour]:
    """Plant, gate and three driven actors, up; all gone afterwards. Raises CofferdamError where one does not start."""
    async with Scene(layout, state=state, speed_up=1.0, report=0.1) as scene:
        plant = await scene.start_plant()
        await scene.start_gate()
        erp, operator, intruder = [
            await scene.start_actor(kind, driven=True) for kind in ("erp", "operator", "intruder")
        ]
        yield Tour(scene, plant, erp, operator, intruder)


async def play(tour: Tour, step: Step) -> Result:
    """Play one step. A breakdown of the step is a failed finding, with its words."""
    title = (step.__doc__ or step.__name__).strip().splitlines()[0].rstrip(".")
    name = step.__name__
    try:
        findings = tuple(await step(tour))
    except CofferdamError as error:
        seen = f"{error} {error.hint}".strip()
        findings = (Finding("the step itself", "that it can be carried out", seen, ok=False),)
    return Result(name, title, findings)


async def run(layout: Layout, steps: Sequence[Step], *, state: Path | None = None, as_json: bool = False) -> int:
    """Play `steps`; 0 if every promise was kept, else 1. Raises CofferdamError where the stage does not stand."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.print(
        f"[bold]Cofferdam[/bold], a tour of its promises. Layout: {layout.name}"
        + ("" if layout.separated else " (separate processes; no network namespaces)")
    )
    console.print("[dim]starting the plant, the gate, an ERP, an operator and an intruder ...[/dim]")
    results: list[Result] = []
    async with on_stage(layout, state=state) as tour:
        for number, step in enumerate(steps, 1):
            result = await play(tour, step)
            results.append(result)
            show(console, number, result)
            if as_json:
                sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
                sys.stdout.flush()
    failed = [result for result in results if not result.ok]
    findings = sum(len(result.findings) for result in results)
    if failed:
        console.print(f"\n[bold red]FAILED[/bold red]: {', '.join(result.step for result in failed)}")
        return 1
    console.print(f"\n[bold green]ok[/bold green]: {len(results)} promises, {findings} findings, all as expected")
    return 0


def show(console: Console, number: int, result: Result) -> None:
    """Print a step."""
    console.print(f"\n[bold]{number}. {escape(result.title)}[/bold]")
    if not result.findings:
        console.print("   [bold red]FAILED[/bold red]: nothing was checked")
    for finding in result.findings:
        mark = "[green]ok[/green]" if finding.ok else "[bold red]FAILED[/bold red]"
        console.print(f"   tried     {escape(finding.tried)}")
        console.print(f"   expected  {escape(finding.expected)}")
        console.print(f"   seen      {escape(finding.seen)}")
        console.print(f"   {mark}")
