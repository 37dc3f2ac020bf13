"""Points of a device as a source: read at a pace, neighbours together, and bad quality where it does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cofferdam.brokers.mirror.points import spans
from cofferdam.model import Point, Span, ValueType
from cofferdam.protocols.modbus import messages as m
from tests.brokers.mirror.crew import crew
from tests.protocols.device import Device, served
from tests.waiting import eventually

ASSETS = """
assets:
  plc:
    zone: plant
    address: 127.0.0.1
    port: {port}
    protocol: modbus
    unit: 1
    timeout: 300 ms
    points:
      level: {{at: input 12, type: uint16}}
      flow: {{at: input 13, type: uint16}}
      total: {{at: holding 100, type: uint32}}
      far: {{at: holding 150, type: uint16}}
      beyond: {{at: holding 400, type: uint16}}
      pump: {{at: coil 3, type: bool}}
"""


def point(name: str, space: str, start: int, count: int = 1) -> Point:
    return Point(name, Span(space, start, count), ValueType.UINT16)


def test_neighbours_are_read_together_and_nothing_between() -> None:
    found = spans([point("c", "holding", 13), point("a", "holding", 10, 2), point("b", "holding", 12),
                   point("x", "holding", 15), point("i", "input", 16)])  # fmt: skip
    assert [(span.space, span.start, span.count) for span, _ in found] == [
        ("holding", 10, 4), ("holding", 15, 1), ("input", 16, 1),
    ]  # fmt: skip
    many = spans([point(str(n), "holding", n) for n in range(300)])
    assert [span.count for span, _ in many] == [125, 125, 50]


def test_a_real_device(tmp_path: Path) -> None:
    device = Device()
    with served(device) as port:
        assets = ASSETS.format(port=port)
        more = "plc: {asset: plc, every: 200 ms}"
        with crew(tmp_path, None, assets=assets, more=more) as mirror, mirror.client("lake") as lake:

            def last(tag: str) -> Any:
                answer = lake.get("/v1/samples", params={"tag": tag, "last": "1h"})
                return answer.json()["samples"][-1] if answer.status_code == 200 else {}

            eventually(lambda: last("plc.pump"))
            assert last("plc.level")["value"] == 2012 and last("plc.level")["quality"] == 0
            assert last("plc.total")["value"] == 1100 << 16 | 1101
            assert last("plc.pump")["value"] is True
            beyond = last("plc.beyond")  # an exception of the device: bad, with its code
            assert beyond["value"] is None and beyond["quality"] == 0x80000002
            reads = {(type(one), one.address, one.count) for one in device.seen}
            assert (m.ReadInputRegisters, 12, 2) in reads  # two points in one read
            assert not any(isinstance(one, (m.WriteSingleRegister, m.WriteMultipleRegisters)) for one in device.seen)
            device.input[12] = 7
            eventually(lambda: last("plc.level")["value"] == 7)
    # The device is gone. A mirror of it says so, and goes on saying so.
    with crew(tmp_path / "again", None, assets=assets, more=more) as mirror, mirror.client("lake") as lake:
        eventually(lambda: last_of(lake)["quality"] == 0x80050000)
        count = len(lake.get("/v1/samples", params={"tag": "plc.level", "last": "1h"}).json()["samples"])
        eventually(
            lambda: (
                len(lake.get("/v1/samples", params={"tag": "plc.level", "last": "1h"}).json()["samples"]) > count + 2
            )
        )


def last_of(lake: Any) -> Any:
    answer = lake.get("/v1/samples", params={"tag": "plc.level", "last": "1h"})
    return answer.json()["samples"][-1] if answer.status_code == 200 else {"quality": 0}
