"""`cofferdam lab demo`: plant, gate and people live in the terminal, until Ctrl-C.

The picture is fed by what the processes say: the plant and the actors by their events, the gate by
its control socket and `cofferdam audit tail --json`. Without a terminal it prints lines instead.

Not here: the processes (lab.scene), the checks of promises (lab.tour).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.layout import Layout as Grid
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.watch.report import StatusReport
from cofferdam.lab import events
from cofferdam.lab.layout import Layout
from cofferdam.lab.play import Play, policy
from cofferdam.lab.scene import COFFERDAM, Actor, Scene

STATUS_SECONDS = 0.5
"""Between two looks at the gate's status."""
VERIFY_SECONDS = 15.0
"""Between two verifications of the audit log."""
UNATTENDED_SECONDS = 60.0
"""How long the demo runs without a terminal and without --seconds."""
LINE_SECONDS = 3.0
"""Between two lines where there is no terminal."""
PLAY_ROWS = 13
"""Of the first row of panels; the further ones have FURTHER_ROWS, with two plays in a row."""
FURTHER_ROWS = 8
REFUSALS = 10
"""Kinds of refusal that are shown, the latest first."""


class View:
    """What is known now, and how it is drawn. Pure but for the clock that `note` is given."""

    def __init__(self, site: str, layout: Layout, plays: Sequence[Play]) -> None:
        self.site = site
        self.layout = layout
        self.pictures = [play.picture(layout) for play in plays]
        self.refusals: dict[tuple[str, str], tuple[int, str]] = {}
        """(who, what fails) -> (how often, the latest one's sentence); the latest is last."""
        self.status: StatusReport | None = None
        self.verified = "not yet verified"
        self.trouble = ""

    def note(self, event: events.Event) -> None:
        """Take an event in."""
        if isinstance(event, events.Entry):
            self._entry(event.entry)
        for picture in self.pictures:
            picture.note(event)

    def _entry(self, entry: dict[str, Any]) -> None:
        said = entry.get("event", {})
        if said.get("kind") in ("refused", "malformed", "limit-hit", "refused-many"):
            who = str(said.get("source", ""))
            what = str(said.get("fault") or said.get("limit") or said.get("section") or said["kind"])
            times, _ = self.refusals.pop((who, what), (0, ""))
            self.refusals[(who, what)] = (times + int(said.get("count", 1)), str(said.get("detail", "")))
            if len(self.refusals) > 4 * REFUSALS:
                del self.refusals[next(iter(self.refusals))]

    # --- drawing --------------------------------------------------------------------------------------------

    def render(self) -> RenderableType:
        """The whole picture."""
        grid = Grid()
        rows = [self.pictures[:2], *(self.pictures[at : at + 2] for at in range(2, len(self.pictures), 2))]
        plays = [Grid(name=f"plays-{at}", size=FURTHER_ROWS if at else PLAY_ROWS) for at in range(len(rows))]
        grid.split_column(Grid(self._header(), size=3), *plays, Grid(name="gate"), Grid(name="log"))
        for row, pictures in zip(plays, rows, strict=True):
            panels = [found for picture in pictures for found in picture.panels()]
            row.split_row(*(Grid(panel, ratio=ratio) for panel, ratio in panels))
        grid["gate"].update(self._gate())
        grid["gate"].size = 8 + len(self.status.conduits if self.status else ())
        grid["log"].update(self._refused())
        return grid

    def _header(self) -> RenderableType:
        separation = self.status.separation if self.status else "starting"
        text = Text.assemble(
            (f" {self.site} ", "bold reverse"), f"  layout: {self.layout.name}   separation: ", (separation, "bold"),
            "   Ctrl-C ends it",
        )  # fmt: skip
        if self.status and self.status.severed:
            text.append("   SEVERED: " + ", ".join(cut.side for cut in self.status.severed), "bold red")
        return Panel(text)

    def _gate(self) -> RenderableType:
        status = self.status
        if status is None:
            return Panel(self.trouble or "starting", title="gate")
        table = Table(expand=True, box=None)
        for heading in ("conduit", "sessions", "reads", "writes", "refused", "failed", "added median", "p99", "budget"):
            table.add_column(heading, justify="left" if heading == "conduit" else "right")
        for c in status.conduits:
            table.add_row(
                c.name or "(none fits)", str(c.sessions), str(c.reads), str(c.writes), str(c.refused), str(c.failed),
                f"{c.added.median / 1000:.2f} ms", f"{c.added.p99 / 1000:.2f} ms",
                Text(f"{c.budget / 1000:g} ms" if c.budget else "-", "red" if c.over_budget else ""),
            )  # fmt: skip
        faults = ", ".join(f"{number} {fault}" for fault, number in sorted(status.faults.items())) or "none"
        limits = ", ".join(f"{number} {name}" for name, number in sorted(status.limits.items())) or "none"
        notes = Text.assemble(
            f"sessions {sum(status.open.values())}   refused by: {faults}   malformed: {status.malformed}   ",
            f"by nobody known: {status.unmatched}\n",
            f"limits hit: {limits}\n",
            "audit log: ", (f"{status.audit.size} entries", "bold"), f", {status.audit.signed} signed; ",
            (self.verified, "green" if self.verified.startswith("verified") else "red"),
        )  # fmt: skip
        return Panel(Group(table, notes), title=f"gate {status.version}, policy {status.policy.hash[:12]}")

    def _refused(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for (who, what), (times, detail) in list(reversed(self.refusals.items()))[:REFUSALS]:
            table.add_row(Text(who), Text(f"{times} x", style="dim"), Text(what, "bold yellow"), Text(detail))
        return Panel(table if self.refusals else "none yet", title="last refusals, from the audit log")

    def line(self) -> str:
        """All of it in one line, for where there is no terminal."""
        log = f"audit {self.status.audit.size} entries, {self.verified}" if self.status else self.trouble or "gate: -"
        return " | ".join([*(picture.line() for picture in self.pictures), log])


def decode_entry(line: bytes) -> events.Event:
    """A line of `cofferdam audit tail --json`. Raises CofferdamError where it is none."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise CofferdamError(f"not an audit entry: {line[:120]!r}") from error
    return events.Entry(entry if isinstance(entry, dict) else {"event": {}})


async def _watch_gate(scene: Scene, view: View, feed: Actor) -> None:
    """Look at the gate's status now and then. An actor that has ended and should not have ends the demo."""
    while True:
        for actor in (*scene.actors.values(), feed):
            if actor is not None and not actor.running:
                raise CofferdamError(f"{actor.name} ended: {actor.complaint() or 'without a word'}")
        try:
            view.status = await scene.status()
            view.trouble = ""
        except GateError as error:
            view.trouble = str(error)
        await asyncio.sleep(STATUS_SECONDS)


async def _verify(scene: Scene, view: View) -> None:
    """Verify the audit log now and then, as anyone could."""
    while True:
        await asyncio.sleep(VERIFY_SECONDS / 3)
        answer = await scene.verb("audit", "verify")
        now = datetime.datetime.now(datetime.UTC).strftime("%H:%M:%S")
        view.verified = f"verified at {now} UTC" if answer.code == 0 else f"NOT VERIFIED: {answer.text[:160]}"
        await asyncio.sleep(VERIFY_SECONDS * 2 / 3)


async def _draw(view: View, console: Console, until: float) -> None:
    """Show the view until the monotonic time `until`."""
    if console.is_terminal:
        with Live(view.render(), console=console, screen=True, auto_refresh=False) as live:
            while time.monotonic() < until:
                live.update(view.render(), refresh=True)
                await asyncio.sleep(0.25)
        return
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(LINE_SECONDS, left))
        console.print(view.line(), soft_wrap=True, highlight=False)
        for (who, what), (times, detail) in view.refusals.items():
            words = f"  refused {who} {times} x ({what}): {detail}"
            console.print(words, soft_wrap=True, highlight=False, markup=False)
        view.refusals.clear()


async def run(
    layout: Layout, plays: Sequence[Play], *, state: Path | None = None, seconds: float = 0.0, speed_up: float = 60.0
) -> int:
    """Play until Ctrl-C or for `seconds`; 0. Raises CofferdamError where something does not start or breaks down."""
    console = Console()
    if not seconds and not console.is_terminal:
        seconds = UNATTENDED_SECONDS
    view = View("riverside-water", layout, plays)
    async with Scene(layout, policy(plays, layout.addresses), state=state, speed_up=speed_up) as scene:
        console.print(f"starting the gate, {'; '.join(play.who for play in plays)} ...")
        for play in plays:
            await play.before_gate(scene, view.note)
        await scene.start_gate()
        for play in plays:
            await play.live(scene, view.note)
        tail = [*COFFERDAM, "audit", "tail", "--json", "--state", str(scene.state)]
        feed = await scene.start("audit-tail", "gate", tail, listener=view.note, decode=decode_entry)
        until = time.monotonic() + seconds if seconds else float("inf")
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(work) for work in (_watch_gate(scene, view, feed), _verify(scene, view))
                ]
                await _draw(view, console, until)
                for task in background:
                    task.cancel()
        except* CofferdamError as group_error:
            # One cause is enough for a person; the others are its echoes.
            raise _first(group_error) from None
        last = view.line()
    with contextlib.suppress(OSError):
        console.print(last, soft_wrap=True, highlight=False)
    return 0


def _first(group: BaseExceptionGroup[CofferdamError]) -> CofferdamError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
