"""History: a historian in the plant, its mirror, and an analyst in the office who never meets it.

Not here: what they do (people), the steps of the tour (steps).
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.panel import Panel
from rich.text import Text

from cofferdam.errors import CofferdamError, extra
from cofferdam.lab.layout import Addresses, Layout, Spot
from cofferdam.lab.mirror import events, people
from cofferdam.lab.mirror.steps import ANALYST, CONDUIT, DOOR, HISTORIAN, STEPS, Cast
from cofferdam.lab.play import Picture, Play, Sections
from cofferdam.lab.scene import Actor, Scene

BARS = "▁▂▃▄▅▆▇█"


class Mirror(Play):
    """The historian mirror at work."""

    name = "mirror"
    who = "a historian that records a boiler, and an analyst"
    steps = STEPS
    spots = (Spot(HISTORIAN, "plant", 5432), Spot(DOOR, "gate-office", 8445), Spot(ANALYST, "office"))

    def missing(self) -> str:
        if people.binaries() is None:
            return "there is no PostgreSQL (Debian: postgresql)"
        try:
            import duckdb  # noqa: F401
            import psycopg  # noqa: F401
            import pyarrow  # noqa: F401
        except ImportError as error:
            return f"{error.name} is not installed ({extra('mirror')})"
        return ""

    def sections(self, where: Addresses) -> Sections:
        return Sections(
            principals=f"  analyst: {{zone: enterprise, addresses: [{where.host(ANALYST)}]}}\n",
            conduits=f"""\
  {CONDUIT}:
    from: control
    to: enterprise
    broker: mirror
    owner: energy
    reason: the energy report needs the boiler's history, and nobody in the office needs the historian
    expires: 2035-06-30
    sources:
      historian:
        at: "{where.at(HISTORIAN)}"
        database: {people.DATABASE}
        role: {people.ROLE}
        plain: yes                      # on one machine; a real historian has TLS
        table: samples
        quality: quality
        every: 200 ms
        overlap: 1 min                  # what is committed late is found within six seconds
        since: 2 d
    mirror: {{keep: 1 year, most: 1 GB, spool: 1 GB}}
    listen:
      enterprise: {{at: "{where.at(DOOR)}", plain: yes}}
    allow:
      - {{who: analyst, read: all, sql: yes}}
""",
        )

    async def before_gate(self, scene: Scene, listener: events.Sink | None) -> None:
        """The historian: it records by itself in the demo, and waits for commands in the tour."""
        (scene.directory / "historian.secret").touch(mode=0o600)
        (scene.directory / "historian.secret").write_text(secrets.token_urlsafe(18), encoding="ascii")
        where = scene.layout.addresses
        argv = [*_people("historian", where.at(HISTORIAN), scene.directory / "historian.secret"),
                "--folder", str(scene.directory / "historian"), *([] if listener else ["--driven"])]  # fmt: skip
        actor = await scene.start("historian", "plant", argv, listener=listener, decode=events.parse)
        await actor.wait_for(lambda event: isinstance(event, events.Listening))

    async def live(self, scene: Scene, listener: events.Sink) -> None:
        await _analyst(scene, driven=False, listener=listener)

    async def cast(self, scene: Scene) -> Any:
        return Cast(scene, scene.actors["historian"], await _analyst(scene, driven=True))

    def picture(self, layout: Layout) -> Picture:
        return MirrorPicture()


def _people(who: str, at: str, secret: Path) -> list[str]:
    return [sys.executable, "-m", "cofferdam.lab.mirror.people", who, "--at", at, "--secret", str(secret)]


async def _analyst(scene: Scene, *, driven: bool, listener: events.Sink | None = None) -> Actor:
    """The analyst, with a key that the gate has just made; and the historian's password for the mirror."""
    where = scene.layout.addresses
    brought = await scene.verb("mirror", "password", "historian", "--file", str(scene.directory / "historian.secret"))
    made = await scene.verb("mirror", "key", "new", "analyst", "--json")
    if brought.code or made.code:
        raise CofferdamError(f"the mirror has no password or no key: {brought.text} {made.text}")
    key = scene.directory / "analyst.key"
    key.touch(mode=0o600)
    key.write_text(made.json()["key"], encoding="ascii")
    argv = [
        *_people("analyst", where.at(DOOR), key),
        "--source",
        where.host(ANALYST),
        *(["--driven"] if driven else []),
    ]
    return await scene.start("analyst", "office", argv, listener=listener, decode=events.parse)


class MirrorPicture(Picture):
    """What the historian has, what the analyst sees of it, how far behind, and the curve of one tag."""

    def __init__(self) -> None:
        self.total = self.behind = 0
        self.value: float | None = None
        self.curve: tuple[float, ...] = ()
        self.status = 0

    def note(self, event: events.Event) -> None:
        match event:
            case events.Recorded():
                self.total = event.total
            case events.Seen():
                self.status, self.value, self.behind = event.status, event.value, event.behind_ms
                self.curve = event.curve or self.curve
            case _:
                pass

    def panels(self) -> Sequence[tuple[RenderableType, int]]:
        low, high = min(self.curve, default=0.0), max(self.curve, default=0.0)
        bars = "".join(
            BARS[min(7, int(8 * (value - low) / (high - low)))] if high > low else BARS[3] for value in self.curve
        )
        words = f"{self.value:.1f}, {self.behind / 1000:.1f} s behind" if self.value is not None else "nothing yet"
        text = Text(f"historian: {self.total} samples\nboiler.temperature: {words}\n{bars}\n{low:.0f} to {high:.0f}")
        return ((Panel(text, title="mirror: a boiler's history"), 2),)

    def line(self) -> str:
        words = f"{self.value:.1f}, {self.behind} ms behind" if self.value is not None else f"nothing ({self.status})"
        return f"historian {self.total} samples; mirror {words}"
