"""An auditor: reports for each framework, signatures, a drift that is named, a pack that strangers check.

Not here: the steps of the tour (steps).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from cofferdam.lab import events
from cofferdam.lab.auditor.steps import STEPS, Cast
from cofferdam.lab.layout import Addresses, Layout, Spot
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import Scene

METER, DOOR, DESK = "auditor-meter", "auditor-door", "auditor-desk"


class Auditor(Play):
    """What the gate shows an auditor. It is the last play: its steps look at what the others left in the log."""

    name = "auditor"
    who = "an auditor, and a person who signs"
    steps = STEPS
    spots = (Spot(METER, "plant", 502), Spot(DOOR, "overlay", 502), Spot(DESK, "office"))

    def missing(self) -> str:
        return "" if shutil.which("ssh-keygen") else "there is no ssh-keygen (Debian: openssh-client)"

    def sections(self, where: Addresses) -> Sections:
        return Sections(
            assets=f"""\
  meter:
    zone: control
    address: {where.host(METER)}
    port: {where.port(METER)}
    protocol: modbus
    unit: 1
    listen: "{where.at(DOOR)}"
    points:
      energy: {{at: input 0, type: uint32, unit: kWh}}
      tariff: {{at: holding 4, type: uint16, min: 1, max: 4}}
""",
            principals=f"  billing: {{zone: enterprise, addresses: [{where.host(DESK)}]}}\n",
            conduits="""\
  billing-reads-meter:
    from: enterprise
    to: control
    broker: modbus
    owner: energy
    reason: energy is billed by the month, and its tariff is set from there
    expires: 2035-06-30
    latency_budget: 50 ms
    allow:
      - {who: billing, asset: meter, read: [energy], write: [tariff]}
""",
        )

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        """Nobody is needed: the gate looks at itself once a minute."""

    async def cast(self, scene: Scene) -> Any:
        return Cast(scene)

    def picture(self, layout: Layout) -> Picture:
        return AuditorPicture()


class AuditorPicture(Picture):
    """Where an auditor would ask."""

    def note(self, event: events.Event) -> None:
        """Nothing of the plant's events is evidence by itself."""

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        words = "cofferdam evidence list\ncofferdam evidence report --framework nerc-cip\ncofferdam evidence pack …"
        return ((Panel(Text(words), title="evidence: ask with --state"), 1),)

    def line(self) -> str:
        return "evidence: cofferdam evidence list"
