"""What the demo shows of the water works: the tank and the pump, and what the people in the office experienced."""

from __future__ import annotations

import collections
import datetime
from collections.abc import Sequence

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cofferdam.lab.layout import Addresses
from cofferdam.lab.play import Picture
from cofferdam.lab.water import events

TANK_ROWS = 9
PEOPLE = ("erp", "operator", "intruder", "insider")


class WaterPicture(Picture):
    """What is known now, and how it is drawn."""

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses
        self.plant: events.Plant | None = None
        self.people: dict[str, str] = {}
        self.outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.device_writes = 0

    def note(self, event: events.Event) -> None:
        match event:
            case events.Plant():
                self.plant = event
            case events.Write():
                self.device_writes += 1
            case events.Experience() if event.who in PEOPLE:
                kind = _kind(f"exception {event.exception}" if event.outcome == "exception" else event.outcome)
                self.outcomes[event.who][kind] += 1
                value = f" {event.value:g}" if event.value is not None else ""
                self.people[event.who] = f"{event.action}{value}: {kind}, {event.micros / 1000:.1f} ms"
            case events.Summary() if event.who in PEOPLE:
                counts = {_kind(kind): number for kind, number in sorted(event.counts.items())}
                if event.action == "flood":
                    self.outcomes[event.who].update(counts)
                told = ", ".join(f"{number} x {kind}" for kind, number in counts.items())
                self.people[event.who] = f"{event.action}: {told}"
            case _:
                pass

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        return ((self._works(), 2), (self._persons(), 3))

    def line(self) -> str:
        plant = self.plant
        works = (
            f"level {plant.level:.2f} m, pump {plant.speed} rpm, out {plant.outflow:.0f} m³/h" if plant else "plant: -"
        )
        people = "; ".join(
            f"{who}: " + ", ".join(f"{number} {kind}" for kind, number in counts.most_common(4))
            for who, counts in self.outcomes.items()
        )
        return f"{works} | {people}"

    def _works(self) -> RenderableType:
        plant = self.plant
        if plant is None:
            return Panel("starting", title="plant")
        filled = round(plant.level / plant.height * TANK_ROWS)
        colour = "red" if plant.low_alarm or plant.high_alarm else "blue"
        tank = Text()
        for row in range(TANK_ROWS, 0, -1):
            tank.append("│")
            tank.append("█" * 10 if row <= filled else " " * 10, colour)
            tank.append("│\n")
        tank.append("└──────────┘")
        clock = datetime.datetime.fromtimestamp(plant.clock, tz=datetime.UTC)
        pump = ("TRIPPED", "bold red") if plant.tripped else (f"{plant.speed} rpm", "bold")
        alarms = [word for word, on in (("LOW LEVEL", plant.low_alarm), ("HIGH LEVEL", plant.high_alarm)) if on]
        facts = Text.assemble(
            "level     ", (f"{plant.level:.2f} m", "bold"), f" of {plant.height:g}\n",
            f"inflow    {plant.inflow:.0f} m³/h\n",
            "pump      ", pump, f", set {plant.set_speed}\n",
            f"outflow   {plant.outflow:.0f} m³/h\n",
            f"pressure  {plant.pressure:.2f} bar\n",
            f"water     {plant.temperature:.1f} °C\n",
            f"total     {plant.flow_total / 1000:,.0f} m³\n",
            f"writes    {self.device_writes} reached it\n",
            f"clock     {clock:%a %H:%M}\n",
            (" ".join(alarms), "bold red"),
        )  # fmt: skip
        table = Table.grid(padding=(0, 2))
        table.add_row(tank, facts)
        return Panel(table, title="plant: tank and pump")

    def _persons(self) -> RenderableType:
        """Two lines for each: four people have to fit into a panel of a terminal of 80 columns and 24 lines."""
        table = Table.grid(expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for who in PEOPLE:
            address = getattr(self.addresses, who)
            if not address:
                continue
            parts = [
                Text(f"{number} {kind}", "green" if kind == "ok" else "yellow")
                for kind, number in self.outcomes[who].most_common(4)
            ]
            tally = Text(", ").join(parts) if parts else Text("-")
            table.add_row(Text.assemble((who, "bold"), f" {address}  ", tally))
            table.add_row(Text(f"  {self.people.get(who, '-')}\n"))
        title = f"office, towards {self.addresses.listen}:{self.addresses.listen_port}"
        return Panel(table, title=title)


def _kind(kind: str) -> str:
    """One name for one answer: exception 2 is exception 02."""
    word, _, number = kind.partition(" ")
    return f"exception {int(number):02d}" if word == "exception" and number.isdigit() else kind
