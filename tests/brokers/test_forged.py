"""Whatever an outer half could send: the inner half stops, or what it does is within policy. With names, calls, watches
and streams.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.proxy import records
from cofferdam.errors import CrossingError
from cofferdam.model import Allow, Assign, Item
from cofferdam.policy.points.decide import Flow
from cofferdam.values import Bool, Float32, Int8, Int32, Octets, Text
from tests.brokers.toystage import ToyDevice, ToyStage
from tests.examples import examples
from tests.protocols.toy import messages as m
from tests.protocols.toy.operations import Toy

PATHS = (
    "pump.speed", "pump.level", "pump", "recipe", "counts", "status.3", "table", "run", "secret", "line.reset",
    "line.mix", "line.stop", "drive", "drive.setpoint", "other",
)  # fmt: skip
NEARLY = [
    m.Read((Item("tag", "pump.speed"),)), m.Read((Item("tag", "counts", 3, 2),)), m.Read((Item("tag", "secret"),)),
    *(m.Write((Assign(Item("tag", "pump.speed"), Int32((n,))),)) for n in (-1, 0, 7, 107, 108, 1500, 1501)),
    *(m.Write((Assign(Item("tag", "counts", 8, 3), Int32(ones, True)),)) for ones in ((1, 99, 500), (1, 100, 500))),
    *(m.Write((Assign(Item("tag", "recipe"), Text((word,))),)) for word in ("Batch 7", "Batch 789")),
    m.Write((Assign(Item("tag", "status.3"), Bool((True,))),)), m.Write((Assign(Item("tag", "run"), None),)),
    m.CallMethod(Item("method", "line.reset")), m.CallMethod(Item("method", "line.stop")),
    *(m.CallMethod(Item("method", "line.mix"), (Int32((n,)), Text(("red",)))) for n in (1, 60, 61)),
    *(m.Subscribe(Item("tag", name), us) for name in ("pump.level", "recipe") for us in (99_999, 100_000)),
    *(m.Open(Item("io", name), us) for name in ("drive", "drive", "other") for us in (9_999, 10_000)),
]  # fmt: skip
"""Much of a script is what an honest half might say, or nearly: a lie that is found out at once tries nothing more."""


class Forger:
    """Makes records by chance, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def value(self) -> Any:
        rng = self.rng
        kind = rng.choice((Bool, Int8, Int32, Int32, Float32, Text, Octets))
        one: Callable[[], Any] = {
            Bool: lambda: rng.random() < 0.5,
            Int8: lambda: rng.randint(-128, 127),
            Int32: lambda: rng.choice((-5, 0, 50, 99, 100, 1500, 1600)),
            Float32: lambda: rng.choice((0.0, 5.5, 49.5, 51.0, -1.0, float("nan"), float("inf"))),
            Text: lambda: "x" * rng.randint(0, 10),
            Octets: lambda: bytes(rng.randint(0, 3)),
        }[kind]
        made: Any = kind
        array = rng.random() < 0.3
        return made(tuple(one() for _ in range(rng.choice((0, 1, 3)) if array else 1)), array)

    def item(self) -> Item:
        rng = self.rng
        where = rng.choice(((-1, 1), (-1, 1), (-1, 1), (0, 1), (5, 10), (19, 3)))
        return Item(rng.choice(("tag", "tag", "tag", "method", "io", "x")), rng.choice(PATHS), *where)

    def request(self) -> Any:
        rng = self.rng
        if rng.random() < 0.8:
            return rng.choice(NEARLY)
        us = rng.choice((0, 9_999, 10_000, 100_000, 10**10))
        return rng.choice(
            (
                m.Read(tuple(self.item() for _ in range(rng.randint(1, 3)))),
                m.Write(tuple(Assign(self.item(), self.value()) for _ in range(rng.randint(1, 3)))),
                m.CallMethod(self.item(), tuple(self.value() for _ in range(rng.randint(0, 3)))),
                m.Subscribe(self.item(), us),
                m.Open(self.item(), us),
                m.Uptime(),
                m.Restart(),
            )
        )

    def frame(self, handle: int) -> Any:
        rng = self.rng
        names = [rng.choice(("setpoint",) * 9 + ("x",)) for _ in range(rng.randint(0, 2))]
        near = [Float32((rng.choice((0.0, 4.0, 8.0, 12.0, 20.0, 50.0, 51.0)),)), self.value()]
        return records.Frame(handle, m.Signals(tuple(m.Signal(name, rng.choice(near)) for name in names)))

    def record(self, number: int, inner: Any) -> Any:
        """The next record; `number` is that of a request."""
        rng, session, chance = self.rng, self.rng.randint(1, 3), self.rng.random()
        standing = list(inner._standings.values())
        if chance < 0.02:
            return records.Closed(session)
        if standing and chance < 0.1:
            one = rng.choice(standing)
            return records.Unwatch(one.session.id, one.handle)
        if standing and chance < 0.5:
            return self.frame(rng.choice([one.handle for one in standing if one.stream] or [1]))
        request = self.request()
        kind: Any = records.Watch if isinstance(request, m.Subscribe) else records.Request
        return kind(session, number, request)

    def lie(self, number: int) -> Any:
        rng = self.rng
        kind: Any = rng.choice((records.Watch, records.Request))
        return rng.choice(
            (
                kind(rng.randint(1, 9), rng.randint(1, 2 * number), self.request()),
                kind(1, number, m.Read((Item("tag", rng.choice(("PUMP.speed", "a b", "pump.speed"))),))),
                kind(1, number, m.Read((Item("tag", "run", -1, 3),))),
                records.Frame(1, m.Signals((m.Signal("SETPOINT", self.value()),))),
                records.Unwatch(rng.randint(1, 3), rng.randint(1, 99)),
                self.frame(rng.randint(1, 99)),
                records.Opened(rng.randint(1, 9), "s", "127.0.0.1", "line"),
            )
        )


SOURCE = {1: "127.0.0.1", 2: "10.1.0.66", 3: "10.9.9.9"}


def run(seed: int) -> ToyStage:
    """Has the inner half take what a forger says, with lies at the end; it may stop in between."""
    stage, forger = ToyStage(), Forger(seed)
    for number, source in SOURCE.items():
        stage.inner.take(records.Opened(number, f"s{number}", source, "line"))
    try:
        for number in range(100, 133):
            stage.to_inner.send(forger.record(number, stage.inner) if number < 130 else forger.lie(number))
            for decoded in stage.to_inner.take():
                stage.inner.take(decoded)
            settle(stage)
    except CrossingError:
        pass  # the half stops: what came before was within policy all the same
    settle(stage)
    return stage


@given(st.integers(0, 1 << 60))
@examples(300)
def test_nothing_reaches_the_asset_that_policy_does_not_allow(seed: int) -> None:
    stage = run(seed)
    protocol = Toy()
    flows = [stage.policy.flow("toy", source, "line", ("office",)) for source in SOURCE.values()]
    allowed = [flow for flow in flows if isinstance(flow, Flow)]
    last: float | None = None
    for device in stage.plant:
        for request in device.asked:
            if request != "drop":
                verdicts = [flow.decide(protocol.operation(request), stage.inner._wall()) for flow in allowed]
                assert any(isinstance(verdict, Allow) for verdict in verdicts), request
        assert sum(isinstance(one, m.CallMethod) and one.item.name == "line.reset" for one in device.asked) <= 2
        for frame in device.frames:
            for one in frame.signals:
                if one.name == "setpoint":
                    [value] = one.value.values
                    assert 0 <= value <= 50 and (last is None or abs(value - last) <= 10.001), frame
                    last = value


def test_the_forger_tries_what_it_should() -> None:
    """The test above would hold nothing if nothing ever reached the device."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        for device in run(seed).plant:
            seen.update(type(one).__name__ for one in device.asked)
            seen["frames"] += len(device.frames)
    for kind in ("Read", "Write", "CallMethod", "Subscribe", "Open", "frames", "str"):
        assert seen[kind] > 5, seen


def settle(stage: ToyStage) -> None:
    """The inner half and the device come to rest; nobody is at the outer end."""
    for _ in range(20):
        stage.reactor.settle()
        if stage.audit_pipe.unanswered:
            stage.acknowledge()
        for wire in stage.devices[len(stage.plant) :]:
            stage.plant.append(ToyDevice(wire))
            assert wire.on_connected is not None
            wire.on_connected()
        busy = [device.turn() for device in stage.plant if not device.wire.closed]
        stage.to_outer.take()
        if not any(busy) and not stage.audit_pipe.unanswered:
            return
