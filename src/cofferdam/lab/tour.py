"""`cofferdam lab demo --tour`: every promise of the gate, tried for real and checked out loud.

The tour drives real processes (lab.scene) and believes nobody alone: a step holds what an actor experienced against
what the plant itself saw and against what the audit log says. It ends with exit code 1 if one finding is not as
promised; a step that breaks down is a finding too.

Not here: the steps (each play's).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape

from cofferdam.errors import CofferdamError
from cofferdam.lab.layout import Layout
from cofferdam.lab.play import Finding, Play, Step, machine, policy
from cofferdam.lab.scene import Scene


class Result(msgspec.Struct, frozen=True):
    """A step's findings."""

    step: str
    title: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return bool(self.findings) and all(finding.ok for finding in self.findings)


@contextlib.asynccontextmanager
async def on_stage(layout: Layout, plays: Sequence[Play], *, state: Path | None = None) -> AsyncIterator[Scene]:
    """The gate and what is there before it, up; all gone afterwards. Raises CofferdamError where one does not start."""
    where = layout.addresses
    async with Scene(
        layout, policy(plays, where), state=state, machine=machine(plays, where), speed_up=1.0, report=0.1
    ) as scene:
        for one in plays:
            await one.before_gate(scene, None)
        await scene.start_gate()
        yield scene


async def play(cast: Any, step: Step) -> Result:
    """Play one step. A breakdown of the step is a failed finding, with its words."""
    title = (step.__doc__ or step.__name__).strip().splitlines()[0].rstrip(".")
    name = step.__name__
    try:
        findings = tuple(await step(cast))
    except CofferdamError as error:
        seen = f"{error} {error.hint}".strip()
        findings = (Finding("the step itself", "that it can be carried out", seen, ok=False),)
    return Result(name, title, findings)


async def run(layout: Layout, plays: Sequence[Play], *, state: Path | None = None, as_json: bool = False) -> int:
    """Plays the steps of all plays; 0 if every promise was kept, else 1.

    Raises CofferdamError where the stage does not stand.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.print(
        f"[bold]Cofferdam[/bold], a tour of its promises. Layout: {layout.name}"
        + ("" if layout.separated else " (separate processes; no network namespaces)")
    )
    console.print(f"[dim]starting the gate, {'; '.join(one.who for one in plays)} ...[/dim]")
    results: list[Result] = []
    async with on_stage(layout, plays, state=state) as scene:
        with scene.blaming_the_gate():
            casts = [(one, await one.cast(scene)) for one in plays]
        steps = [(cast, step) for one, cast in casts for step in one.steps]
        steps += [(cast, step) for one, cast in casts for step in one.closing]
        for number, (cast, step) in enumerate(steps, 1):
            result = await play(cast, step)
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
