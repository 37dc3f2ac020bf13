"""`cofferdam lab demo`: plant, gate and people live in the terminal, until q or Ctrl-C.

The picture is fed by what the processes say: the plant and the actors by their events, the gate by
its control socket and `cofferdam audit tail --json`. Without a terminal it prints lines instead.

Not here: the processes (lab.scene), the checks of promises (lab.tour).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.layout import Layout as Grid
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cofferdam.errors import CofferdamError, GateError
from cofferdam.gate.watch.report import ConduitReport, StatusReport
from cofferdam.lab import events
from cofferdam.lab.layout import Layout
from cofferdam.lab.play import Play, machine, policy
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
"""Of the first row of panels; the further ones have FURTHER_ROWS."""
FURTHER_ROWS = 8
HEAD_ROWS = 3
GATE_ROWS = 8
"""Of the gate's panel, besides one for each conduit. Its notes may take two lines more in a narrow terminal."""
LOG_ROWS = 6
"""The fewest that the refusals are given; they take what is left."""
LEAST_ROWS = PLAY_ROWS
"""Of a page without its head; a smaller terminal shows the upper part."""
BESIDE_COLUMNS, WIDE_COLUMNS = 140, 110
"""From so many on two plays stand beside each other, and the gate's table has all its columns."""
PAGE_SECONDS = 8.0
"""Until the next page is shown where not all fit on one."""
NEXT = """\
Next: each promise tried and checked    make demo ARGS=--tour
      one service alone                 make demo ARGS="--play water"
      the policy of what you saw        .venv/bin/cofferdam lab policy
      what each of them does            docs/demo.md"""
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
        self.stays = False
        """Pages do not turn by themselves."""

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

    def pages(self, width: int, height: int) -> list[RenderableType]:
        """The whole picture on as many pages of this size (cells) as it takes. There is at least one."""
        rows = max(height - HEAD_ROWS, LEAST_ROWS)
        pages: list[list[Grid]] = [[]]
        left = rows
        for part, size in self._parts(width, rows):
            if size > left and pages[-1]:
                pages.append([])
                left = rows
            pages[-1].append(Grid(part, size=min(size, left)))
            left -= min(size, left)
        if left < LOG_ROWS:
            pages.append([])
        pages[-1].append(Grid(self._refused()))
        found: list[RenderableType] = []
        for number, parts in enumerate(pages, 1):
            grid = Grid()
            rest = [] if number == len(pages) else [Grid(Text(" "))]
            grid.split_column(Grid(self._header(number, len(pages)), size=HEAD_ROWS), *parts, *rest)
            found.append(grid)
        return found

    def _parts(self, width: int, rows: int) -> Iterator[tuple[RenderableType, int]]:
        """The panels, from above, each with its height: plays, beside each other where there is room; the gate."""
        beside = 2 if width >= BESIDE_COLUMNS else 1
        for at in range(0, len(self.pictures), beside):
            row = Grid()
            panels = [found for picture in self.pictures[at : at + beside] for found in picture.panels()]
            if not panels:
                continue
            row.split_row(*(Grid(panel, ratio=ratio) for panel, ratio in panels))
            yield row, FURTHER_ROWS if at else PLAY_ROWS
        status = self.status
        if status is None:
            yield Panel(self.trouble or "starting", title="gate"), 3
            return
        most = rows - GATE_ROWS
        for at in range(0, max(len(status.conduits), 1), most):
            shown = status.conduits[at : at + most]
            yield self._gate(status, shown, width), GATE_ROWS + len(shown)

    def _header(self, page: int, pages: int) -> RenderableType:
        separation = self.status.separation if self.status else "starting"
        text = Text.assemble(
            (f" {self.site} ", "bold reverse"), f"  layout: {self.layout.name}   separation: ", (separation, "bold"),
        )  # fmt: skip
        if self.status:
            if self.status.severed:
                text.append("   SEVERED: " + ", ".join(cut.side for cut in self.status.severed), "bold red")
            refused = sum(conduit.refused for conduit in self.status.conduits)
            text.append(f"\n {sum(self.status.open.values())} sessions, {refused} refused; audit log: ")
            text.append(f"{self.status.audit.size} entries, ")
            text.append(self.verified, "green" if self.verified.startswith("verified") else "red")
        else:
            text.append(f"\n {self.trouble or 'the gate is asked'}")
        turn = (
            f"page {page} of {pages}   space: next page   p: {'go on' if self.stays else 'stay'}   "
            if pages > 1
            else ""
        )
        text.append(f"\n {turn}q or Ctrl-C: end", "dim")
        return text

    def _gate(self, status: StatusReport, conduits: Sequence[ConduitReport], width: int) -> RenderableType:
        table = Table(expand=True, box=None)
        wide = width >= WIDE_COLUMNS
        headings = ["conduit", "sessions", "reads", "writes", "refused", "failed", "added median", "p99", "budget"]
        if not wide:
            headings = ["conduit", "reads", "writes", "refused", "added", "budget"]
        for heading in headings:
            left = heading == "conduit"
            table.add_column(heading, justify="left" if left else "right", no_wrap=True)
        for c in conduits:
            budget = f"{c.budget / 1000:g} ms" if c.budget else "-"
            added = f"{c.added.median / 1000:.2f} ms"
            p99 = Text(f"{c.added.p99 / 1000:.2f} ms", "red" if c.over_budget else "")
            name = c.name or "(none fits)"
            if wide:
                table.add_row(name, str(c.sessions), str(c.reads), str(c.writes), str(c.refused), str(c.failed), added,
                              p99, budget)  # fmt: skip
            else:
                table.add_row(name, str(c.reads), str(c.writes), str(c.refused), added, budget)
        faults = ", ".join(f"{number} {fault}" for fault, number in sorted(status.faults.items())) or "none"
        limits = ", ".join(f"{number} {name}" for name, number in sorted(status.limits.items())) or "none"
        dropped = sum(sum(side.packets.values()) for side in status.dropped)
        fence = f"; dropped by the firewall: {dropped} packets" if status.dropped else ""
        notes = Text.assemble(
            f"refused by: {faults}   malformed: {status.malformed}   without a conduit: {status.unmatched}\n",
            f"limits hit: {limits}\n",
            "audit log: ", (f"{status.audit.size} entries", "bold"), f", {status.audit.signed} signed{fence}",
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


@contextlib.contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Keys are told at once, where there is a keyboard; afterwards the terminal is as it was."""
    try:
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
    except (OSError, ValueError, termios.error):
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = os.read(number, 64)
        if not data:
            loop.remove_reader(number)
        for key in data.decode("ascii", "ignore"):
            pressed(key)

    tty.setcbreak(number)
    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)


class _Pages:
    """Which page is shown, and whether it is enough."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.page = 0
        self.turned = time.monotonic()
        self.over = False

    def pressed(self, key: str) -> None:
        """q ends it, p stays, all else turns the page."""
        if key in "qQ":
            self.over = True
        elif key in "pP":
            self.view.stays = not self.view.stays
        else:
            self._turn()

    def _turn(self) -> None:
        self.page += 1
        self.turned = time.monotonic()

    def shown(self, console: Console) -> RenderableType:
        """The page to show now."""
        if not self.view.stays and time.monotonic() - self.turned > PAGE_SECONDS:
            self._turn()
        pages = self.view.pages(*console.size)
        self.page %= len(pages)
        return pages[self.page]


async def _draw(view: View, console: Console, until: float) -> None:
    """Show the view until the monotonic time `until`, or until somebody has had enough."""
    if console.is_terminal:
        pages = _Pages(view)
        with _keys(pages.pressed), Live(pages.shown(console), console=console, screen=True, auto_refresh=False) as live:
            while time.monotonic() < until and not pages.over:
                live.update(pages.shown(console), refresh=True)
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
    began = time.monotonic()

    def say(what: str) -> None:
        console.print(f"[{time.monotonic() - began:3.0f} s] {what}", highlight=False, markup=False)

    try:
        last = await _play(layout, plays, view, console, say, state=state, seconds=seconds, speed_up=speed_up)
    except asyncio.CancelledError:
        console.print(NEXT, highlight=False, markup=False)
        raise
    with contextlib.suppress(OSError):
        console.print(last, soft_wrap=True, highlight=False)
        console.print(NEXT, highlight=False, markup=False)
    return 0


async def _play(
    layout: Layout, plays: Sequence[Play], view: View, console: Console, say: Callable[[str], None], *,
    state: Path | None, seconds: float, speed_up: float,
) -> str:  # fmt: skip
    """All of it; the last line."""
    where = layout.addresses
    async with Scene(
        layout, policy(plays, where), state=state, machine=machine(plays, where), speed_up=speed_up
    ) as scene:
        say("starting; with all plays it takes half a minute, and more on a small or busy machine")
        for play in plays:
            say(f"{play.name}: {play.who}")
            await play.before_gate(scene, view.note)
        say("the gate: cofferdam up")
        await scene.start_gate()
        for play in plays:
            say(f"{play.name}: its people")
            with scene.blaming_the_gate():
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
        say("all of it is ended")
        return view.line()


def _first(group: BaseExceptionGroup[CofferdamError]) -> CofferdamError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found
