"""Structures, STRINGs, programs and bits of arrays through a real gate: pylogix and pycomm3 on one side, a controller
on the other that keeps tags as Logix does (tests.protocols.rack)."""

from __future__ import annotations

import gc
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pylogix")
pytest.importorskip("pycomm3")

from pycomm3 import LogixDriver
from pylogix import PLC

from cofferdam.protocols.enip import paths, requests, wire
from tests.gate.plant import QuickGate, events
from tests.ports import held_ports
from tests.protocols.rack import Rack
from tests.waiting import PATIENT

pytestmark = pytest.mark.filterwarnings(
    # pylogix and pycomm3 leave sockets to the collector.
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

POLICY = """\
site: works
limits: {{asset_connect_seconds: 60, audit_wait_seconds: 60, client_wait_seconds: 60}}
zones:
  office: {{side: it}}
  plant: {{side: ot}}
assets:
  packer:
    zone: plant
    address: 127.0.0.1
    protocol: enip
    timeout: 20 s
    port: {device}
    listen: 127.0.0.1:{port}
    route: backplane 0
    points:
      pump: {{at: tag Pump, type: dint, unit: rpm, min: 0, max: 1500}}
      recipe: {{at: tag Recipe, type: string, max_length: 20}}
      motor: {{at: tag Motor1, type: structure}}
      ratio: {{at: tag Motor1.Ratio, type: real}}
      label: {{at: tag Motor1.Label, type: string}}
      motors: {{at: "tag Motors[0-2]", type: structure}}
      second: {{at: "tag Motors[2].Speed", type: dint, min: 0, max: 10}}
      bits: {{at: "tag Bits[0-1]", type: dword}}
      third: {{at: "tag Bits[1].3", type: bool}}
      level: {{at: tag Program:Main.Level, type: real, min: 0, max: 10}}
  wrapper:
    zone: plant
    address: 127.0.0.1
    protocol: enip
    timeout: 20 s
    port: {device}
    listen: 127.0.0.1:{other}
    route: backplane 1
    explicit: connected
    points:
      pump: {{at: tag Pump, type: dint, min: 0, max: 9}}
      counts: {{at: "tag Counts[0-599]", type: dint}}
      wide: {{at: tag Wide, type: structure}}
      bits: {{at: "tag Bits[0-1]", type: dword}}
principals:
  scada: {{zone: office, addresses: [127.0.0.1]}}
conduits:
  road:
    from: office
    to: plant
    broker: enip
    owner: production
    reason: a test
    allow:
      - who: scada
        asset: packer
        read: [pump, recipe, motor, ratio, label, motors, second, bits, level]
        write: [pump, recipe, motor, ratio, label, motors, second, third, level]
      - {{who: scada, asset: wrapper, read: all, write: [pump, counts, wide]}}
"""


class Works:
    def __init__(self, folder: Path) -> None:
        self.rack = Rack()
        self.port, self.other = held_ports(2)
        self.state = folder / "state"
        policy = folder / "policy.yaml"
        policy.write_text(POLICY.format(device=self.rack.port, port=self.port, other=self.other))
        self.gate = QuickGate(self.state, policy)

    def pylogix(self, port: int = 0) -> Any:
        plc = PLC("127.0.0.1", port=port or self.port)
        plc.SocketTimeout = PATIENT
        plc.ProcessorSlot = 1 if port else 0
        return plc

    def pycomm3(self, way: str) -> Any:
        plc = LogixDriver(f"127.0.0.1:{way}")
        plc.socket_timeout = PATIENT
        return plc


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    one = Works(tmp_path_factory.mktemp("works"))
    try:
        one.gate.wait_ready()
        yield one
        assert one.gate.stop() == 0
    finally:
        one.gate.close()
        one.rack.stop()


@pytest.fixture
def rack(works: Works) -> Iterator[Rack]:
    works.rack.download(1)
    for tag in works.rack.tags:
        tag.data[:] = bytes(len(tag.data))
    works.rack.written.clear()
    works.rack.asked.clear()
    if works.rack.neighbour is not None:
        for tag in works.rack.neighbour.tags:
            tag.data[:] = bytes(len(tag.data))
    yield works.rack
    gc.collect()  # what pylogix and pycomm3 have left open is nobody else's


def test_pylogix_lists_structures_and_writes_texts(works: Works, rack: Rack) -> None:
    with works.pylogix() as plc:
        listed = {one.TagName: one.DataType for one in plc.GetTagList().Value}
        assert listed["Recipe"] == "ASCIISTRING82" and listed["Motor1"] == listed["Motors"] == "Motor"
        assert "Secret" not in listed and listed["Program:Main.Level"] == "REAL"
        assert plc.Write("Recipe", "hello").Status == "Success" and plc.Read("Recipe").Value == "hello"
        assert rack.tag("Recipe").data[:9] == b"\x05\0\0\0hello"
        assert plc.Write("Recipe", "x" * 21).Status == "Invalid Parameter"
        assert plc.Write("Motor1.Label", "left").Status == "Success" and plc.Read("Motor1.Label").Value == "left"
        assert plc.Write("Motor1.Ratio", 2.5).Status == "Success"
        assert plc.Write("Program:Main.Level", 3.5).Status == "Success" and plc.Read("Program:Main.Level").Value == 3.5
        assert plc.Write("Program:Main.Level", 10.5).Status == "Invalid Parameter"
        for around in ("Recipe.LEN", "Recipe.DATA[0]", "Motors[0].Speed", "Program:Main.Step"):
            assert plc.Write(around, 1).Status == "Path destination unknown", around
        # BOOL arrays are DWORDs: element 35 is bit 3 of the second.
        assert plc.Write("Bits[35]", True).Status == "Success" and plc.Read("Bits[35]").Value is True
        assert plc.Write("Bits[34]", True).Status == "Path destination unknown"
    assert rack.tag("Bits").data == b"\0\0\0\0\x08\0\0\0"
    assert rack.written == ["Recipe", "Motor1", "Motor1", "Level", "Bits"]


def test_pycomm3_reads_and_writes_structures_whole_where_no_member_has_limits(works: Works, rack: Rack) -> None:
    rack.tag("Motor1").data[:4] = struct.pack("<i", 5)
    with works.pycomm3(f"{works.port}") as plc:
        motor = plc.read("Motor1").value
        assert motor == {"Speed": 5, "Ratio": 0.0, "Steps": [0, 0], "Label": ""}
        assert plc.write(("Motor1", {**motor, "Speed": 77, "Label": "right"})).error is None
        assert plc.read("Motor1.Label").value == "right" and rack.tag("Motor1").data[:4] == struct.pack("<i", 77)
        assert len(plc.read("Motors{3}").value) == 3
        # A member of one of them has limits, which writing it whole would pass round.
        assert plc.write(("Motors[2]", {**motor, "Speed": 11})).error is not None
        assert plc.write(("Motors[2].Speed", 11)).error is not None
        assert plc.write(("Motors[2].Speed", 9)).error is None
        assert rack.tag("Motors").data[208:212] == struct.pack("<i", 9)
        assert plc.write(("Recipe", "HELLO")).error is None and plc.read("Recipe").value == "HELLO"
    assert rack.written == ["Motor1", "Motors", "Recipe"]


def test_a_download_renumbers_tags_and_no_other_one_is_written(works: Works, rack: Rack) -> None:
    with works.pycomm3(f"{works.port}") as plc:
        assert plc.read("Pump").value == 0
        rack.download(2)  # what was the pump's number is another tag's now
        assert rack.numbers[2].name != "Pump"
        assert plc.write(("Pump", 55)).error is None
    assert rack.written == ["Pump"] and rack.tag("Pump").data == struct.pack("<i", 55)


def test_no_clients_question_ends_the_halves(works: Works, rack: Rack) -> None:
    """A program whose name is none: it was passed on, and the inner half stopped, with everybody's connections."""
    with works.pylogix() as other, socket.create_connection(("127.0.0.1", works.port), PATIENT) as peer:
        assert other.Read("Pump").Value == 0
        peer.sendall(wire.frame(wire.REGISTER, 0, b"12345678", b"\1\0\0\0"))
        session = int.from_bytes(peer.recv(1000)[4:8], "little")
        for program in ("Program:a:b", "Program:" + "x" * 100):
            path = paths.of_program(program) + paths.of_object(0x6B, 0)
            cip = requests.made(requests.LIST, path, struct.pack("<4H", 3, 1, 2, 8))
            peer.sendall(wire.frame(wire.SEND_RR, session, bytes(8), wire.packet(((0, b""), (0xB2, cip)))))
            assert peer.recv(1000)[42] == 4, "a path that breaks a rule"
        assert other.Read("Pump").Value == 0, "on the same connection"
    [pair] = works.gate.status()["pairs"]
    assert pair["restarts"] == 0 and any("the program" in one["detail"] for one in events(works.state, "malformed"))


def test_two_controllers_behind_one_address_are_told_apart_by_their_slots(works: Works, rack: Rack) -> None:
    assert rack.neighbour is not None
    with works.pylogix() as one, works.pylogix(works.other) as other:
        assert one.Write("Pump", 1200).Status == "Success"
        assert other.Write("Pump", 10).Status == "Invalid Parameter", "by its own limits"
        assert other.Write("Pump", 7).Status == "Success"
        assert (one.Read("Pump").Value, other.Read("Pump").Value) == (1200, 7)
    assert rack.tag("Pump").data == struct.pack("<i", 1200)
    assert rack.neighbour.tag("Pump").data == struct.pack("<i", 7)
    written = [(one["asset"], one["items"][0][3]) for one in events(works.state, "write-allowed")[-2:]]
    assert written == [("packer", ["1200"]), ("wrapper", ["7"])]


def test_what_goes_in_a_connection_may_be_long(works: Works, rack: Rack) -> None:
    assert rack.neighbour is not None
    before = rack.connected
    with works.pycomm3(f"{works.other}/1") as plc:
        wide = {"Count": 3, "Steps": list(range(1500))}
        # 6,004 bytes: the client sends it in pieces, it is one write, and goes on in pieces of our own.
        assert plc.write(("Wide", wide)).error is None and plc.read("Wide").value == wide
        assert plc.write(("Counts{600}", list(range(600)))).error is None
        assert plc.read("Counts{600}").value == list(range(600))
    assert rack.neighbour.tag("Wide").data == struct.pack("<1501i", 3, *range(1500))
    assert set(rack.opened) == {4002} and rack.connected > before
    [entry] = [one for one in events(works.state, "write-allowed") if one["items"][0][0] == "tag wide"]
    assert entry["asset"] == "wrapper" and rack.neighbour.written[-2:] == ["Wide", "Counts"]
    assert rack.neighbour.written.count("Wide") == 2, "each piece once, of which a connection holds 4,000 bytes"


def test_a_connection_that_the_controller_has_forgotten_is_opened_again(works: Works, rack: Rack) -> None:
    with works.pylogix(works.other) as plc:
        assert plc.Read("Pump").Value == 0
        rack.forget()
        rack.large = 500  # and it has no large ones any more
        try:
            assert plc.Write("Pump", 5).Status != "Success", "nobody knows what became of it, and it is not sent again"
            assert plc.Write("Pump", 6).Status == "Success" and plc.Read("Pump").Value == 6
            assert plc.Read("Counts[0]", 600).Value == [0] * 600
        finally:
            rack.large = 4002
            rack.forget()
    assert rack.opened[-1] == 504
    assert rack.neighbour is not None and rack.neighbour.written.count("Pump") >= 1
