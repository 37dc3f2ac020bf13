"""A filling line with an OPC UA server, an MES that watches it, an operator who sets its speed.

Not here: the line (plant), its people (people), the steps of the tour (steps).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table

from cofferdam.errors import CofferdamError, extra
from cofferdam.lab import events
from cofferdam.lab.filling.people import make_keys
from cofferdam.lab.filling.steps import STEPS, Cast
from cofferdam.lab.layout import Addresses, Layout, Spot
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import COFFERDAM, Actor, Scene

LINE, SHOWN, MES, OPERATOR = "filling-line", "filling-shown", "filling-mes", "filling-operator"
PASSWORD = "fill them up"  # noqa: S105  of a play


def _assets(where: Addresses) -> str:
    return f"""\
  filler-1:
    zone: control
    address: {where.host(LINE)}
    port: {where.port(LINE)}
    protocol: opcua
    listen: "{where.at(SHOWN)}"
    outstanding: 8
    timeout: 5 s
    security: {{clients: Basic256Sha256, asset: none}}
    points:
      filler_speed: {{at: "nsu=urn:works:filler;s=Line.Speed", type: Double, min: 0, max: 1500, max_step: 200}}
      filler_level: {{at: "nsu=urn:works:filler;s=Line.Level", type: Double}}
      filler_bottles: {{at: "nsu=urn:works:filler;s=Line.Bottles", type: Int32}}
      filler_state: {{at: "nsu=urn:works:filler;s=Line.State", type: Int32}}
      filler_recipe: {{at: "nsu=urn:works:filler;s=Line.Recipe", type: String, max_length: 16}}
    methods:
      reset_counter:
        at: "nsu=urn:works:filler;s=Line -> nsu=urn:works:filler;s=Line.Reset"
        arguments: [{{name: count, type: Int32, min: 0, max: 10}}]
"""


def _principals(where: Addresses) -> str:
    return f"""\
  filling-mes: {{zone: enterprise, addresses: [{where.host(MES)}], application: "urn:works:{MES}"}}
  anna: {{zone: enterprise, addresses: [{where.host(OPERATOR)}], user: anna}}
"""


_CONDUITS = """\
  mes-sees-line:
    from: enterprise
    to: control
    broker: opcua
    owner: production
    reason: OEE
    expires: 2035-06-30
    allow:
      - {who: filling-mes, asset: filler-1, read: all, subscribe: [filler_level], history: [filler_level], longest: 1 h}
      - {who: anna, asset: filler-1, read: all, write: [filler_speed], call: [reset_counter]}
"""


class Filling(Play):
    """OPC UA at work."""

    name = "filling"
    who = "a filling line, its MES and its operator"
    steps = STEPS
    spots = (Spot(LINE, "plant", 4840), Spot(SHOWN, "overlay", 4840), Spot(MES, "office"), Spot(OPERATOR, "office"))

    def missing(self) -> str:
        if importlib.util.find_spec("asyncua") is None:
            return f"asyncua is not installed ({extra('lab')})"
        return ""

    def sections(self, where: Addresses) -> Sections:
        return Sections(_assets(where), _principals(where), _CONDUITS)

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:
        await _line(scene, listener)

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        await _prepare(scene)
        for name in (MES, OPERATOR):
            trusted = str(scene.directory / f"{name}-keys" / "own.der")
            await _verb(scene, "pki", "trust", "--side", "outer", "--file", trusted)
            await _person(scene, name, driven=False, listener=listener)

    async def cast(self, scene: Scene) -> Any:
        await _prepare(scene)
        mes, operator = [await _person(scene, name, driven=True) for name in (MES, OPERATOR)]

        async def restart() -> None:
            await scene.actors[LINE].stop()
            await _line(scene, None, "--swapped")

        return Cast(scene, mes, operator, restart)

    def picture(self, layout: Layout) -> Picture:
        return FillingPicture()


async def _verb(scene: Scene, *words: str) -> None:
    done = await scene.verb(*words)
    if done.code:
        raise CofferdamError(f"{' '.join(words)}: {done.text}")


async def _prepare(scene: Scene) -> None:
    """Keys of the gate and of both people."""
    await _verb(scene, "pki", "new")
    await _verb(scene, "pki", "export", str(scene.directory / "gate-keys"))
    for name in (MES, OPERATOR):
        make_keys(scene.directory / f"{name}-keys", f"urn:works:{name}")
    (scene.directory / "anna.password").touch(mode=0o600)
    (scene.directory / "anna.password").write_text(PASSWORD)
    await _verb(scene, "pki", "user", "anna", "--password-file", str(scene.directory / "anna.password"))


async def _line(scene: Scene, listener: events.Sink | None, *options: str) -> Actor:
    where = scene.layout.addresses
    argv = [*COFFERDAM, "lab", "filler", "--address", where.host(LINE), "--port", str(where.port(LINE)), *options]
    actor = await scene.start(LINE, "plant", argv, listener=listener)
    await actor.wait_for(lambda event: isinstance(event, events.Listening))
    return actor


async def _person(scene: Scene, name: str, *, driven: bool, listener: events.Sink | None = None) -> Actor:
    where = scene.layout.addresses
    [server] = sorted((scene.directory / "gate-keys").glob("*-outer.der"))
    argv = [
        *COFFERDAM, "lab", name, "--target", where.at(SHOWN), "--source", where.host(name),
        "--keys", str(scene.directory / f"{name}-keys"), "--server", str(server),
        *(["--password", str(scene.directory / "anna.password")] if name == OPERATOR else []),
        *(["--driven"] if driven else []),
    ]  # fmt: skip
    return await scene.start(name, "office", argv, listener=listener)


class FillingPicture(Picture):
    """The speed as it is seen, and what was refused to whom."""

    def __init__(self) -> None:
        self.speed = 0.0
        self.done = {MES: [0, 0], OPERATOR: [0, 0]}  # went well, was refused
        self.last = ""

    def note(self, event: events.Event) -> None:
        if isinstance(event, events.Experience) and event.who in self.done:
            self.done[event.who][event.outcome != "ok"] += 1
            if event.value is not None:
                self.speed = event.value
            if event.outcome != "ok":
                self.last = f"{event.action}: {event.detail}"

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        table = Table(expand=True, box=None)
        for heading in ("", "done", "refused"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, (good, bad) in self.done.items():
            table.add_row(name.removeprefix("filling-"), str(good), str(bad))
        table.add_row(f"speed {self.speed:g}", "", "")
        return ((Panel(table, title="filling line: OPC UA", subtitle=self.last), 1),)

    def line(self) -> str:
        return f"filling line: speed {self.speed:g}, {sum(bad for _, bad in self.done.values())} refused"
