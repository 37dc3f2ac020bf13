"""What a play brings to the stage: its part of the policy, processes, a picture for the demo, steps for the tour.

The scenery (hosts, addresses, processes, the gate, events) is the same for all plays. A service of the gate gets a play
in a folder of its own and one line in `lab.plays`.

Not here: the scenery (lab.layout, lab.scene), what is played (lab.water, lab.orders).
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from rich.console import RenderableType

from cofferdam.lab import events
from cofferdam.lab.layout import Addresses, Layout, Spot
from cofferdam.lab.scene import Scene


class Sections(msgspec.Struct, frozen=True):
    """A play's part of the policy: entries as they stand in the file, indented by two, with their comments. `files` lie
    beside the policy. A play with `zones` on a second machine says what the lab's own `machine` is called. `overlay`
    is the section of that name, whole."""

    assets: str = ""
    principals: str = ""
    conduits: str = ""
    files: dict[str, str] = {}
    zones: str = ""
    machine: str = ""
    overlay: str = ""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was tried: what should happen, what did, and whether that is the same."""

    tried: str
    expected: str
    seen: str
    ok: bool


Step = Callable[[Any], Awaitable[list[Finding]]]
"""Tries something with a play's cast. The first line of its docstring is its title."""


class Picture(abc.ABC):
    """What the demo shows of a play."""

    @abc.abstractmethod
    def note(self, event: events.Event) -> None:
        """Takes an event in."""

    @abc.abstractmethod
    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        """What is drawn side by side, each with its share of the width."""

    @abc.abstractmethod
    def line(self) -> str:
        """All of it in one line, for where there is no terminal."""


class Play(abc.ABC):
    """One play. `steps` are those of the tour, in order; `closing` come after the steps of all plays."""

    name: str
    who: str
    """Who is on stage, in words."""
    steps: tuple[Step, ...] = ()
    closing: tuple[Step, ...] = ()
    spots: tuple[Spot, ...] = ()
    """The places that it needs besides those that every lab has; their names begin with the play's own."""

    def missing(self) -> str:
        """What it cannot do without and this machine has not, in words; "" where nothing is missing."""
        return ""

    @abc.abstractmethod
    def sections(self, where: Addresses) -> Sections:
        """Its part of the policy."""

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:  # noqa: B027 - most have none
        """Starts what is there before the gate is."""

    @abc.abstractmethod
    async def live(self, scene: Scene, listener: events.Sink) -> None:
        """Starts its people, who go about their work by themselves."""

    @abc.abstractmethod
    async def cast(self, scene: Scene) -> Any:
        """Starts its people, who wait for what the tour has them do: what its steps are given."""

    @abc.abstractmethod
    def picture(self, layout: Layout) -> Picture:
        """For the demo."""


HEAD = """\
# The policy of the demo. Read it as an example of a real one.
# On one machine without root all addresses are the loopback network's; in real life the office's and the plant's own
# stand here. The lab takes free ports before it starts.
site: riverside-water

zones:
  enterprise: {{side: it, level: 4{machine}{it}}}
  control: {{side: ot, level: 2{machine}{ot}}}
"""


def machine(plays: Sequence[Play], where: Addresses) -> str:
    """What the machine of the lab's own gate is called in the policy, "" where it has no name."""
    return next((name for play in plays if (name := play.sections(where).machine)), "")


def policy(plays: Sequence[Play], where: Addresses) -> tuple[str, dict[str, str]]:
    """The text of the policy file for these plays, and the files beside it."""
    parts = [play.sections(where) for play in plays]
    it, ot = (f", interface: {end.interface}, addresses: [{end.address}]" if end else "" for end in where.ends)
    name = next((part.machine for part in parts if part.machine), "")
    text = HEAD.format(it=it, ot=ot, machine=f", machine: {name}" if name else "")
    text += "".join(part.zones for part in parts)
    for name in ("assets", "principals", "conduits"):
        entries = [found.rstrip("\n") for part in parts if (found := getattr(part, name))]
        if entries:
            text += f"\n{name}:\n" + ("\n\n" if name == "conduits" else "\n").join(entries) + "\n"
    text += "".join(f"\n{part.overlay}" for part in parts if part.overlay)
    text += f'\ngate:\n  management: "{where.management}:{where.management_port}"\n'
    return text, {name: content for part in parts for name, content in part.files.items()}
