"""The strand: a flow meter and the works' counts inside, a second machine outside, and a regulator who reads there.

Not here: the second machine (outside), who is at the ends (people), the steps of the tour (steps).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from cofferdam.errors import CofferdamError, extra
from cofferdam.lab.diode import events
from cofferdam.lab.diode.outside import INSIDE, LOSS, OUTSIDE, Outside
from cofferdam.lab.diode.steps import STEPS, Cast
from cofferdam.lab.layout import Addresses, GateEnd, Layout, Spot
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import Actor, Scene

METER, WORKS, BOOKS = "diode-meter", "diode-works", "diode-books"
REGULATOR, HISTORY, COUNTS, STRAND = "diode-regulator", "diode-history", "diode-counts", "diode-strand"


class Diode(Play):
    """What goes out, and nothing comes back."""

    name = "diode"
    who = "a flow meter, a strand to a second machine outside, and a regulator who reads there"
    steps = STEPS
    spots = (
        Spot(METER, "plant", 502), Spot(WORKS, "plant"), Spot(BOOKS, "gate-plant", 8447),
        Spot(REGULATOR, "regulator"), Spot(HISTORY, "gate-regulator", 8443), Spot(COUNTS, "gate-regulator", 8444),
        Spot(STRAND, "strand", 4799),
    )  # fmt: skip

    def missing(self) -> str:
        for name, word in (("duckdb", "mirror"), ("pyarrow", "mirror"), ("reed_solomon_leopard", "diode")):
            if importlib.util.find_spec(name) is None:
                return f"{name} is not installed ({extra(word)})"
        return ""

    def sections(self, where: Addresses) -> Sections:
        def zone(name: str, side: str, machine: str, end: GateEnd | None, more: str = "") -> str:
            interface = f", interface: {end.interface}" if end is not None and end.interface else ""
            addresses = f", addresses: [{end.address}]" if end is not None else ""
            return f"  {name}: {{side: {side}, machine: {machine}{interface}{addresses}{more}}}\n"

        sends, hears = where.strand
        return Sections(
            machine=INSIDE,
            zones=zone("strand-in", "ot", INSIDE, sends, ", crossing: diode")
            + zone("strand-out", "it", OUTSIDE, hears, ", crossing: diode")
            + zone("regulators", "it", OUTSIDE, where.far),
            assets=f"""\
  flow-meter:
    zone: control
    address: {where.host(METER)}
    port: {where.port(METER)}
    protocol: modbus
    unit: 1
    points:
      flow_total: {{at: holding 100, type: uint32, unit: l}}
""",
            principals=f"""\
  works: {{zone: control, addresses: [{where.host(WORKS)}]}}
  regulator: {{zone: regulators, addresses: [{where.host(REGULATOR)}]}}
""",
            conduits=f"""\
  flow-totals:
    from: control
    to: regulators
    broker: mirror
    owner: compliance
    reason: the regulator reads the flow totals, and reaches nothing
    expires: 2035-06-30
    sources: {{flow-meter: {{asset: flow-meter, every: 200 ms}}}}
    mirror: {{acks: none, keep: 1 year, most: 1 GB}}
    listen:
      regulators: {{at: "{where.at(HISTORY)}", plain: yes}}
    allow:
      - {{who: regulator, read: [flow-meter.flow_total]}}

  daily-counts:
    from: control
    to: regulators
    broker: relay
    owner: compliance
    reason: the regulator is told the day's counts
    expires: 2035-06-30
    channels:
      daily: {{order: parallel 1000, keep: 90 d, most: 64 kB}}
    listen:                             # without TLS, since this is a play
      control: {{at: "{where.at(BOOKS)}", plain: yes}}
      regulators: {{at: "{where.at(COUNTS)}", plain: yes}}
    allow:
      - {{who: works, push: daily}}
      - {{who: regulator, pull: daily}}

  strand:
    from: strand-in
    to: strand-out
    broker: diode
    owner: compliance
    reason: nothing comes back
    port: {where.port(STRAND)}
    rate: 40 Mbit/s
    wait: 1 s
    carries: [flow-totals, daily-counts, "files:flow-reports"]
    files:
      flow-reports: {{names: ["*.csv"], most: 10 MB}}
""",
        )

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:
        """The meter, and the machine outside, which hears nothing yet."""
        where = scene.layout.addresses
        outside = Outside(scene)
        await outside.pair()
        await outside.up()
        actor = await scene.start("flow-meter", "plant", [*_people("meter"), "--at", where.at(METER)],
                                  listener=listener, decode=events.parse)  # fmt: skip
        await actor.wait_for(lambda event: isinstance(event, events.Listening))
        self._outside = outside

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        await self._start(scene, driven=False, listener=listener)

    async def cast(self, scene: Scene) -> Any:
        works, regulator = await self._start(scene, driven=True)
        return Cast(scene, self._outside, scene.actors["flow-meter"], works, regulator)

    async def _start(
        self, scene: Scene, *, driven: bool, listener: events.Sink | None = None
    ) -> tuple[Actor, Actor]:  # fmt: skip
        """The works and the regulator, each with keys that the gates have just made."""
        where, outside = scene.layout.addresses, self._outside
        await outside.heard()
        keys = {}
        for name, verb, state in (("works", "relay", scene.state), ("regulator", "relay", outside.state),
                                  ("regulator", "mirror", outside.state)):  # fmt: skip
            made = await scene.verb(verb, "key", "new", name, "--json", "--state", str(state), state=False)
            if made.code:
                raise CofferdamError(f"no key for the {name}: {made.text}")
            keys[name, verb] = path = scene.directory / f"{name}-{verb}.key"
            path.touch(mode=0o600)
            path.write_text(made.json()["key"], encoding="ascii")
        more = ["--driven"] if driven else []
        folder = outside.folder(scene.state, "spool")
        works = await scene.start("works", "plant", [
            *_people("works"), "--at", where.at(BOOKS), "--key", str(keys["works", "relay"]),
            "--source", where.host(WORKS), "--folder", str(folder), *more,
        ], listener=listener, decode=events.parse)  # fmt: skip
        regulator = await scene.start("regulator", "regulator", [
            *_people("regulator"), "--at", where.at(COUNTS), "--key", str(keys["regulator", "relay"]),
            "--history", where.at(HISTORY), "--history-key", str(keys["regulator", "mirror"]),
            "--source", where.host(REGULATOR), *more,
        ], listener=listener, decode=events.parse)  # fmt: skip
        return works, regulator

    def picture(self, layout: Layout) -> Picture:
        return DiodePicture(layout)


def _people(who: str) -> list[str]:
    return [sys.executable, "-m", "cofferdam.lab.diode.people", who]


class DiodePicture(Picture):
    """What was said inside, what the regulator has of it, and how far behind."""

    def __init__(self, layout: Layout) -> None:
        self.loss = f"{LOSS:.0%} of all packets lost" if layout.separated else "the kernel's own link"
        self.inside = self.outside = self.behind = self.told = self.taken = 0
        self.missing = 0

    def note(self, event: events.Event) -> None:
        match event:
            case events.Metered():
                self.inside = event.total
            case events.Told():
                self.told = event.last
            case events.Regulated(what="total"):
                self.outside, self.behind = (*event.values, self.outside)[0], event.behind_ms
            case events.Regulated(what="counts"):
                self.taken += len(event.values)
                self.missing = sum(last - first + 1 for first, last in event.missing)
            case _:
                pass

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        text = Text(
            f"inside    flow total {self.inside} l, {self.told} counts\n"
            f"          ══ strand, one-way by software; {self.loss} ══►\n"
            f"outside   flow total {self.outside} l, {self.behind / 1000:.1f} s behind; {self.taken} counts, "
            f"{self.missing} missing\nnothing comes back: no acknowledgement, no ARP"
        )
        return ((Panel(text, title="diode: a regulator reads outside"), 2),)

    def line(self) -> str:
        return f"strand: {self.inside} l inside, {self.outside} l and {self.taken} of {self.told} counts outside"
