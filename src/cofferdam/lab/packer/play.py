"""The packaging cell: a SCADA system reads and writes six tags, a scanner drives a drive, and neither meets either.

Not here: what they do (cell, people), the steps of the tour (steps).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table

from cofferdam.lab.layout import Addresses, Layout, Spot
from cofferdam.lab.packer import events
from cofferdam.lab.packer.steps import STEPS, Cast
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import Actor, Scene

PORT = 44818
CELL, OFFICE = "packer-cell", "packer-office"


class Packer(Play):
    """EtherNet/IP at work."""

    name = "packer"
    who = "a Logix controller, a drive, a SCADA system and a scanner"
    steps = STEPS
    spots = (
        Spot("packer-controller", "plant", PORT),
        Spot("packer-drive", "plant", PORT),
        Spot("packer-tags", "overlay", PORT),
        Spot("packer-io", "overlay", PORT),
        Spot("packer-office", "office"),
    )

    def missing(self) -> str:
        lacks = [name for name in ("pylogix", "ethernetip") if importlib.util.find_spec(name) is None]
        return f"Python has no {' and no '.join(lacks)}" if lacks else ""

    def sections(self, where: Addresses) -> Sections:
        (controller, port), (drive, drive_port) = where.spots["packer-controller"], where.spots["packer-drive"]
        assets = f"""\
  packer:
    zone: control
    address: {controller}
    port: {port}
    protocol: enip
    route: backplane 0                # the controller is in slot 0 of the rack
    listen: "{where.at("packer-tags")}"
    points:
      pump: {{at: tag Pump, type: dint, unit: rpm, min: 0, max: 1500, max_step: 100}}
      line: {{at: tag Line, type: dint, min: 1, max: 4}}
      level: {{at: tag Level, type: real, unit: m}}
      counts: {{at: "tag Counts[0-49]", type: dint}}
      status: {{at: tag Status, type: dint}}
      speed: {{at: tag Speed, type: int}}
  packer-drive:
    zone: control
    address: {drive}
    port: {drive_port}
    protocol: enip
    listen: "{where.at("packer-io")}"
    points:
      reference: {{at: io Drive.0, type: dint, unit: rpm, min: 0, max: 1500}}
    streams:
      drive: {{at: io Drive, fastest: 10 ms, form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"}}
"""
        conduits = """\
  scada-sees-packer:
    from: enterprise
    to: control
    broker: enip
    owner: production
    reason: the line's overview, and its setpoints
    expires: 2035-06-30
    allow:
      - {who: packer-scada, asset: packer, read: all, write: [pump, line]}
      - {who: packer-scada, asset: packer-drive, stream: drive}
"""
        principals = f"  packer-scada: {{zone: enterprise, addresses: [{where.host('packer-office')}]}}\n"
        return Sections(assets=assets, principals=principals, conduits=conduits)

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:
        where = scene.layout.addresses
        argv = [
            sys.executable, "-m", "cofferdam.lab.packer.cell",
            "--controller", where.at("packer-controller"), "--drive", where.at("packer-drive"),
        ]  # fmt: skip
        cell = await scene.start(CELL, "plant", argv, listener=listener, decode=events.parse)
        await cell.wait_for(lambda event: isinstance(event, events.Listening))

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        await _office(scene, driven=False, listener=listener)

    async def cast(self, scene: Scene) -> Any:
        return Cast(scene, scene.actors[CELL], await _office(scene, driven=True))

    def picture(self, layout: Layout) -> Picture:
        return PackerPicture()


async def _office(scene: Scene, *, driven: bool, listener: events.Sink | None = None) -> Actor:
    where = scene.layout.addresses
    argv = [
        sys.executable, "-m", "cofferdam.lab.packer.people", "--controller", where.at("packer-tags"),
        "--drive", where.at("packer-io"), "--source", where.host("packer-office"), *(["--driven"] if driven else []),
    ]  # fmt: skip
    return await scene.start(OFFICE, "office", argv, listener=listener, decode=events.parse)


class PackerPicture(Picture):
    """What the office was told last, and what reached the cell."""

    def __init__(self) -> None:
        self.told = {"scada": "", "scanner": ""}
        self.cell: dict[str, int] = {}
        self.refused = 0

    def note(self, event: events.Event) -> None:
        if isinstance(event, events.Told) and event.who in self.told:
            self.told[event.who] = f"{event.asked}: {', '.join(event.answers)}"
            self.refused += event.asked.startswith("write") and event.answers != ("Success",)
        elif isinstance(event, events.Written):
            self.cell[event.name] = event.value

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        table = Table.grid(expand=True)
        for who, words in self.told.items():
            table.add_row(who, words[:60])
        table.add_row("cell", ", ".join(f"{name} {value}" for name, value in self.cell.items()))
        table.add_row("refused", str(self.refused))
        return ((Panel(table, title="EtherNet/IP: packer and drive"), 2),)

    def line(self) -> str:
        return f"packer: {', '.join(f'{name} {value}' for name, value in self.cell.items())}; {self.refused} refused"
