"""The people and the plant as processes on the stage, and what the steps of the tour ask of them."""

from __future__ import annotations

import time

import msgspec

from cofferdam.errors import CofferdamError
from cofferdam.lab.scene import COFFERDAM, UNANSWERED_SECONDS, Actor, Scene
from cofferdam.lab.water import events


async def start_plant(scene: Scene, *, listener: events.Sink | None = None) -> Actor:
    """The plant, up and listening."""
    where = scene.layout.addresses
    argv = [
        *COFFERDAM, "lab", "plant", "--address", where.device, "--port", str(where.device_port),
        "--speed-up", str(scene.speed_up), "--report", str(scene.report),
    ]  # fmt: skip
    actor = await scene.start("plant", "plant", argv, listener=listener, decode=events.parse)
    await actor.wait_for(lambda event: isinstance(event, events.Listening))
    return actor


async def start_actor(scene: Scene, kind: str, *, driven: bool, listener: events.Sink | None = None) -> Actor:
    """`kind`: erp, operator, intruder, insider. `driven`: it waits for commands. An insider is an intruder whom the
    firewall lets in: in the live demo at a host of its own in the operators' network, driven at the ERP's."""
    where = scene.layout.addresses
    sources = {"operator": where.operator, "intruder": where.intruder}
    if not driven:
        sources["insider"] = where.insider
    source = sources.get(kind, where.erp)
    # An insider who is alone has ports to try as well, and the firewall answers at none but one.
    knocks = kind == "intruder" or (kind == "insider" and not driven)
    unanswered = knocks and scene.layout.separated
    argv = [
        *COFFERDAM, "lab", "intruder" if kind == "insider" else kind,
        "--target", f"{where.listen}:{where.listen_port}", "--source", source,
        "--timeout", str(UNANSWERED_SECONDS if unanswered else scene.patience),
        *(["--driven"] if driven else []),
    ]  # fmt: skip
    decode = _insider if kind == "insider" else events.parse
    return await scene.start(kind, "office", argv, listener=listener, decode=decode)


def _insider(line: bytes) -> events.Event:
    """What an intruder said, who is one of two."""
    event = events.parse(line)
    if isinstance(event, (events.Experience, events.Summary)):
        return msgspec.structs.replace(event, who="insider")
    return event


class Cast:
    """Everything a step needs: the scene, its driven actors, and what the plant has seen so far."""

    def __init__(self, scene: Scene, plant: Actor, erp: Actor, operator: Actor, intruder: Actor) -> None:
        self.scene = scene
        self.plant = plant
        self.erp = erp
        self.operator = operator
        self.intruder = intruder
        self.addresses = scene.layout.addresses
        self.allowed_writes: list[tuple[str, int, tuple[int, ...]]] = []
        """Writes that steps made in accordance with policy: all that the plant may ever see."""

    async def settle(self) -> int:
        """Wait until we have read all that the plant said up to now; how much that is."""
        now = time.time_ns()
        await self.plant.wait_for(lambda event: event.wall_ns > now, after=max(0, len(self.plant.seen) - 1))
        return len(self.plant.seen)

    async def plant_since(self, mark: int) -> list[events.Event]:
        """What the plant saw since `mark`, without its own reports."""
        await self.settle()
        return [event for event in self.plant.seen[mark:] if not isinstance(event, events.Plant)]

    async def one(self, actor: Actor, command: events.Command) -> events.Experience:
        """Have an actor do one thing; what it experienced. Raises CofferdamError where that is not one thing."""
        told = [event for event in await actor.do(command) if isinstance(event, events.Experience)]
        if len(told) != 1:
            raise CofferdamError(f"{actor.name}: {command.do} gave {len(told)} experiences, not one")
        return told[0]

    async def read(self, actor: Actor, point: str) -> events.Experience:
        """One read of a point."""
        return await self.one(actor, events.Command("read", point=point))

    async def write(self, point: str, value: float) -> events.Experience:
        """One write by the operator."""
        return await self.one(self.operator, events.Command("write", point=point, value=value))
