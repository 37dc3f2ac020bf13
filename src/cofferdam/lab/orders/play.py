"""Orders and counts: an MES and an ERP that exchange messages by the relay, and never meet.

Not here: what they do (people), the steps of the tour (steps).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table

from cofferdam.errors import CofferdamError
from cofferdam.lab.layout import Addresses, Layout
from cofferdam.lab.orders import events
from cofferdam.lab.orders.steps import STEPS, Cast
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import COFFERDAM, Actor, Scene

PEOPLE = {"mes": "mes", "erp-desk": "planning"}
"""Name of the actor -> its principal."""

COUNT = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "bottles that a line has filled since its last count",
  "type": "object",
  "required": ["line", "good", "at"],
  "additionalProperties": false,
  "properties": {
    "line": {"type": "string", "pattern": "^[a-z0-9-]{1,32}$"},
    "good": {"type": "integer", "minimum": 0},
    "at": {"type": "string", "format": "date-time"}
  }
}
"""
ORDER = COUNT.replace("bottles that a line has filled since its last count", "bottles that a line shall fill").replace(
    '"good"', '"amount"'
)


def _principals(where: Addresses) -> str:
    return f"""\
  mes: {{zone: control, addresses: [{where.mes}]}}
  planning: {{zone: enterprise, addresses: [{where.erp}]}}
"""


def _conduits(where: Addresses) -> str:
    doors = f"""\
    listen:                           # without TLS, since this is a play; a real door names its certificate
      control: {{at: "{where.gate_ot}:{where.plant_door}", plain: yes}}
      enterprise: {{at: "{where.gate_it}:{where.office_door}", plain: yes}}"""
    return f"""\
  counts-to-erp:
    from: control
    to: enterprise
    broker: relay
    owner: production
    reason: the ERP books what was filled
    expires: 2035-06-30
{doors}
    channels:
      counts: {{schema: count.json, keep: 90 d, most: 64 kB, limits: {{/good: {{max: 10000}}}}}}
    allow:
      - {{who: mes, push: counts}}
      - {{who: planning, pull: counts}}

  orders-to-mes:
    from: enterprise
    to: control
    broker: relay
    owner: planning
    reason: the MES takes its orders from the ERP
    expires: 2035-06-30
{doors}
    channels:
      orders: {{schema: order.json, keep: 90 d, most: 64 kB, limits: {{/amount: {{min: 1, max: 100000}}}}}}
    allow:
      - {{who: planning, push: orders}}
      - {{who: mes, pull: orders}}
"""


class Orders(Play):
    """The relay at work."""

    name = "orders"
    who = "an MES and the ERP's order desk"
    steps = STEPS

    def sections(self, where: Addresses) -> Sections:
        files = {"count.json": COUNT, "order.json": ORDER}
        return Sections(principals=_principals(where), conduits=_conduits(where), files=files)

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        for name in PEOPLE:
            await _start(scene, name, driven=False, listener=listener)

    async def cast(self, scene: Scene) -> Any:
        mes, desk = [await _start(scene, name, driven=True) for name in PEOPLE]
        return Cast(scene, mes, desk)

    def picture(self, layout: Layout) -> Picture:
        return OrdersPicture()


async def _start(scene: Scene, name: str, *, driven: bool, listener: events.Sink | None = None) -> Actor:
    """One of the two, with a key that the gate has just made for it."""
    where = scene.layout.addresses
    made = await scene.verb("relay", "key", "new", PEOPLE[name], "--json")
    if made.code:
        raise CofferdamError(f"no key for {name}: {made.text}")
    key = scene.directory / f"{name}.key"
    _write_secret(key, made.json()["key"])
    plant = name == "mes"
    address, port = (where.gate_ot, where.plant_door) if plant else (where.gate_it, where.office_door)
    argv = [
        *COFFERDAM, "lab", name, "--door", f"{address}:{port}", "--key", str(key),
        "--source", where.mes if plant else where.erp, *(["--driven"] if driven else []),
    ]  # fmt: skip
    return await scene.start(name, "plant" if plant else "office", argv, listener=listener, decode=events.parse)


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="ascii")


class OrdersPicture(Picture):
    """Both channels: what went in, what came out, what was refused."""

    def __init__(self) -> None:
        self.pushed: dict[str, list[int]] = {"counts": [0, 0, 0], "orders": [0, 0, 0]}  # times, last number, refused
        self.booked: dict[str, list[int]] = {"counts": [0, 0, 0], "orders": [0, 0, 0]}  # times, last number, again

    def note(self, event: events.Event) -> None:
        match event:
            case events.Pushed():
                row = self.pushed[event.channel]
                if event.status in (200, 201):
                    row[0], row[1] = row[0] + 1, max(row[1], event.number)
                else:
                    row[2] += 1
            case events.Booked():
                row = self.booked[event.channel]
                row[0], row[1], row[2] = row[0] + 1, event.number, row[2] + event.again
            case _:
                pass

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        table = Table(expand=True, box=None)
        for heading in ("", "in", "last", "refused", "out", "last", "twice"):
            table.add_column(heading, justify="right" if heading else "left")
        for channel, way in (("counts", "MES → ERP"), ("orders", "ERP → MES")):
            cells = [*self.pushed[channel], *self.booked[channel]]
            table.add_row(f"{channel}\n{way}", *map(str, cells))
        return ((Panel(table, title="relay: counts and orders"), 2),)

    def line(self) -> str:
        return "; ".join(
            f"{name}: {self.pushed[name][0]} in, {self.booked[name][0]} out" for name in ("counts", "orders")
        )
