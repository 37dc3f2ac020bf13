"""EtherNet/IP behind a real gate: pylogix and pycomm3 on one side, a Logix tag server of other hands on the other."""

from __future__ import annotations

import contextlib
import gc
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pylogix")
pytest.importorskip("pycomm3")
pytest.importorskip("ethernetip")

from pycomm3 import LogixDriver
from pycomm3.exceptions import ResponseError
from pylogix import PLC

from cofferdam.protocols.enip import wire
from tests.gate.plant import QuickGate, events
from tests.ports import held_ports
from tests.protocols.logix import Controller
from tests.waiting import PATIENT, eventually

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
      pump: {{at: tag Pump, type: dint, unit: rpm, min: 0, max: 1500, max_step: 100}}
      counts: {{at: "tag Counts[0-99]", type: dint, min: 0, max: 999}}
      level: {{at: tag Level, type: real}}
      status: {{at: tag Status, type: dint}}
      alarm: {{at: tag Status.3, type: bool}}
      big: {{at: "tag Big[0-599]", type: dint}}
      speed: {{at: tag Speed, type: int, min: 0, max: 10, writes_per_minute: 2}}
      serial: {{at: cip 1/1/6, type: udint}}
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
        read: [pump, counts, level, status, big, speed, serial]
        write: [pump, counts, alarm, big, speed]
"""


class Works:
    def __init__(self, folder: Path) -> None:
        self.controller = Controller(more=60).start()
        [self.port] = held_ports(1)
        self.state = folder / "state"
        policy = folder / "policy.yaml"
        policy.write_text(POLICY.format(device=self.controller.port, port=self.port))
        self.gate = QuickGate(self.state, policy)

    def pylogix(self) -> Any:
        plc = PLC("127.0.0.1", port=self.port)
        plc.SocketTimeout = PATIENT
        return plc

    def pycomm3(self, way: str = "", **options: Any) -> Any:
        plc = LogixDriver(f"127.0.0.1:{self.port}{way}", **options)
        plc.socket_timeout = PATIENT
        return plc

    def hits(self, limit: str) -> int:
        return int(self.gate.status().get("limits", {}).get(limit, 0))

    def refused(self) -> list[tuple[str, str]]:
        return [(one["fault"], one["detail"]) for one in events(self.state, "refused")]


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    one = Works(tmp_path_factory.mktemp("works"))
    try:
        one.gate.wait_ready()
        yield one
        assert one.gate.stop() == 0
    finally:
        one.gate.close()
        one.controller.stop()


@pytest.fixture
def tags(works: Works) -> Iterator[Controller]:
    for name, value in (("Pump", 1200), ("Status", 0), ("Level", 1.5)):
        works.controller.put(name, value)
    works.controller.written.clear()
    works.controller.asked.clear()
    yield works.controller
    gc.collect()  # what pylogix and pycomm3 have left open is nobody else's


def test_pylogix_reads_what_it_may_and_nothing_else(works: Works, tags: Controller) -> None:
    for number in range(10):
        tags.put("Counts", 7 if number == 3 else 0, number)
    for number in range(600):
        tags.put("Big", number, number)
    with works.pylogix() as plc:
        assert plc.Read("Pump").Value == 1200
        assert plc.Read("counts[3]").Value == 7, "case means nothing"
        assert plc.Read("Counts[0]", 10).Value == [0, 0, 0, 7, 0, 0, 0, 0, 0, 0]
        assert plc.Read("Level").Value == 1.5
        assert plc.Read("Big[0]", 600).Value == list(range(600)), "in pieces, both ways"
        secret = plc.Read("Secret")
        assert (secret.Value, secret.Status) == (None, "Path destination unknown")
        several = plc.Read(["Pump", "Level", "Secret", "Counts[3]"])
        assert [one.Value for one in several] == [1200, 1.5, None, 7], "reads succeed beside a refused one"
        assert [tag.TagName for tag in plc.GetTagList().Value] == ["Pump", "Counts", "Level", "Status", "Speed", "Big"]
        assert "1756-L71" in str(plc.GetModuleProperties(0).Value)
    assert any("pump" in path for _, path in tags.asked), "by the one spelling"
    assert not any("secret" in path.lower() for _, path in tags.asked)


def test_pylogix_writes_within_the_limits(works: Works, tags: Controller) -> None:
    with works.pylogix() as plc:
        assert plc.Write("Pump", 1250).Status == "Success"
        assert plc.Write("Pump", 1600).Status == "Invalid Parameter"
        assert plc.Write("Pump", 1400).Status == "Invalid Parameter"
        assert plc.Write("Status.3", True).Status == "Success"
        assert tags.dint("Status") == 8
        assert plc.Write("Status.4", True).Status == "Path destination unknown"
        assert plc.Write("Counts[4]", [1, 2, 3]).Status == "Success"
        assert plc.Write("Counts[4]", [1, 2, 3000]).Status == "Invalid Parameter"
        assert plc.Write("Big[0]", list(range(600, 0, -1))).Status == "Success"
        assert [plc.Write("Speed", value).Status for value in (1, 2, 3)][-1] != "Success", "more than two a minute"
    assert (tags.dint("Pump"), tags.dint("Counts", 6), tags.dint("Big", 599)) == (1250, 3, 1)
    assert [name for name in tags.written if name != "Big"] == ["Pump", "Status", "Counts", "Speed", "Speed"]
    written = [one["items"][0] for one in events(works.state, "write-allowed")]
    assert ["tag status.3", "write", "bool", ["true"]] in written
    assert sum(one[0] == "tag big[0-599]" for one in written) == 1, "pieces are one write"
    faults = works.refused()
    assert ("value", "pump = 1600 rpm is asked; 0 to 1500 rpm is allowed") in faults
    assert any(fault == "step" for fault, _ in faults) and any(fault == "rate" for fault, _ in faults)


def test_a_packet_with_a_write_goes_whole_or_not_at_all(works: Works, tags: Controller) -> None:
    with works.pylogix() as plc:
        plc.Read(["Pump", "Counts[1]"])
        assert [one.Status for one in plc.Write([("Pump", 1210), ("Counts[1]", 5)])] == ["Success", "Success"]
        assert [one.Status for one in plc.Write([("Pump", 1220), ("Counts[1]", 5000)])] == ["Invalid Parameter"] * 2
        refused = plc.Write([("Pump", 1230), ("Secret", 1, 0xC4)])
        assert "Success" not in [one.Status for one in refused]
    assert (tags.dint("Pump"), tags.dint("Counts", 1)) == (1210, 5)
    assert tags.written == ["Pump", "Counts"]


def test_pycomm3_connects_reads_and_writes(works: Works, tags: Controller) -> None:
    with works.pycomm3() as plc:
        assert plc.info["product_name"] == "1756-L71/B LOGIX5571" and plc.info["name"] == "packer"
        assert sorted(plc.tags) == ["Big", "Counts", "Level", "Pump", "Speed", "Status"], "of 67"
        pump, level, secret = plc.read("Pump", "Level", "Secret")
        assert (pump.value, level.value, secret.value) == (1200, 1.5, None)
        assert len(plc.read("Big{600}").value) == 600
        assert plc.write(("Pump", 1250)).error is None and tags.dint("Pump") == 1250
        assert plc.write(("Pump", 1500)).error is not None
        assert plc.write(("Status.3", True)).error is None and tags.dint("Status") == 8
        assert plc.write(("Counts{3}", [9, 8, 7])).error is None and tags.dint("Counts", 2) == 7
        both = plc.write(("Pump", 1260), ("Counts[0]", 1))
        assert [one.error for one in both] == [None, None]
        serial = plc.generic_message(service=0x0E, class_code=1, instance=1, attribute=6)
        assert serial.value == (0xC0FFEE).to_bytes(4, "little")
    assert tags.dint("Pump") == 1260


def test_what_changes_a_controller_otherwise_never_reaches_it(works: Works, tags: Controller) -> None:
    with works.pycomm3(init_tags=False) as plc:
        tags.asked.clear()
        for service, cls in ((5, 1), (6, 0x8E), (7, 0x8E), (0x4B, 0x67), (0x4C, 0xB2), (0x10, 4), (9, 0x6B)):
            answer = plc.generic_message(service=service, class_code=cls, instance=1, attribute=3)
            assert answer.error == "Service not supported", (service, cls, answer)
        symbol = plc.generic_message(service=0x4D, class_code=0x6B, instance=5, request_data=b"\xc4\0\1\0\1\0\0\0")
        assert symbol.error is not None, "a symbol's number of no list"
    other = works.pycomm3("/3", init_tags=False)
    with pytest.raises(ResponseError):  # another slot
        other.open()
    other.close()
    assert {service for service, _ in tags.asked} <= {0x52, 1}, "its identity, which it asks before all else"
    assert tags.written == []
    kinds = {(one["function"], one["sub"]) for one in events(works.state, "refused")}
    assert {(5, 1), (6, 0x8E), (7, 0x8E), (0x4B, 0x67), (0x4C, 0xB2), (0x10, 4)} <= kinds


def test_an_intruder_is_told_the_status_of_the_reference(works: Works, tags: Controller) -> None:
    def ask(frame: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", works.port), PATIENT) as peer:
            peer.sendall(wire.frame(wire.REGISTER, 0, b"12345678", b"\1\0\0\0"))
            registered = peer.recv(1000)
            session = int.from_bytes(registered[4:8], "little")
            assert session and registered[12:20] == b"12345678"
            peer.sendall(frame.replace(b"SESS", registered[4:8]))
            return peer.recv(1000)

    def status(answer: bytes) -> int:
        return int.from_bytes(answer[8:12], "little")

    assert status(ask(wire.frame(0x99, 0, bytes(8)))) == wire.UNKNOWN_COMMAND
    assert status(ask(wire.frame(wire.SEND_RR, 77, bytes(8), bytes(8)))) == wire.UNKNOWN_SESSION
    assert status(ask(wire.frame(wire.REGISTER, 0, bytes(8), b"\1\0\0\0"))) == wire.UNKNOWN_COMMAND
    with socket.create_connection(("127.0.0.1", works.port), PATIENT) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert peer.recv(100) == b""
    assert tags.asked == []
    assert events(works.state, "malformed")


def test_what_is_sent_at_once_is_answered_in_order(works: Works, tags: Controller) -> None:
    """A refusal is there before the controller has been asked, and waits for what was asked before it."""

    def read(context: bytes, tag: bytes) -> bytes:
        path = b"\x91" + bytes([len(tag)]) + tag + b"\0" * (len(tag) & 1)
        cip = b"\x4c" + bytes([len(path) // 2]) + path + b"\1\0"
        return wire.frame(wire.SEND_RR, session, context, wire.unconnected(cip))

    with socket.create_connection(("127.0.0.1", works.port), PATIENT) as peer, peer.makefile("rb") as answers:
        peer.sendall(wire.frame(wire.REGISTER, 0, b"12345678", b"\1\0\0\0"))
        session = int.from_bytes(answers.read(28)[4:8], "little")
        names = [b"Pump", b"Secret", b"Level", b"Nothing", b"!", b"Status"] * 2
        contexts = [bytes([number]) * 8 for number in range(len(names))]
        listed = wire.frame(wire.LIST_SERVICES, 0, b"services")
        peer.sendall(b"".join(map(read, contexts, names)) + listed)
        found = []
        for _ in range(len(names) + 1):
            head = answers.read(24)
            found.append((head[12:20], answers.read(int.from_bytes(head[2:4], "little"))))
    assert [context for context, _ in found] == [*contexts, b"services"]
    assert [body[18] for _, body in found[:-1]] == [0, 5, 0, 5, 4, 0] * 2


@pytest.mark.skipif(shutil.which("enip_client") is None, reason="cpppo is not on the path")
def test_cpppos_client_reads_and_writes(works: Works, tags: Controller) -> None:
    def enip_client(*words: str) -> str:
        command = ["enip_client", "--print", "-a", f"127.0.0.1:{works.port}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENT, check=False).stdout

    assert "1200" in enip_client("Pump")
    enip_client("Pump=(DINT)1250")
    assert tags.dint("Pump") == 1250
    enip_client("Pump=(DINT)1600")
    assert tags.dint("Pump") == 1250 and tags.written == ["Pump"]
    assert "Secret" not in enip_client("Secret[0]") or not any("secret" in path for _, path in tags.asked)


def test_a_question_by_udp_is_answered_from_the_same_text_and_nothing_else_is(works: Works, tags: Controller) -> None:
    def by_tcp(command: int) -> bytes:
        with socket.create_connection(("127.0.0.1", works.port), PATIENT) as peer:
            peer.sendall(wire.frame(command, 0, b"abcdefgh"))
            return peer.recv(1000)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.connect(("127.0.0.1", works.port))
        peer.settimeout(PATIENT)
        for wrong in (
            b"", b"GET / HTTP/1.0", wire.frame(wire.REGISTER, 0, bytes(8), b"\1\0\0\0"),
            wire.frame(wire.LIST_SERVICES, 0, bytes(8), b"x"),
        ):  # fmt: skip
            peer.send(wrong)
        for command in (wire.LIST_IDENTITY, wire.LIST_SERVICES):
            peer.send(wire.frame(command, 0, b"abcdefgh"))
            assert peer.recv(1000) == by_tcp(command), "the first answer is to the first question that is one"
    identity = by_tcp(wire.LIST_IDENTITY)
    assert b"1756-L71" in identity and socket.inet_aton("127.0.0.1") in identity, "the address in it is ours"
    eventually(lambda: any("by UDP" in one["detail"] for one in events(works.state, "malformed")))
    eventually(lambda: "answered" in {one["reason"] for one in events(works.state, "session-closed")})


def test_a_flood_of_questions_by_udp_has_few_answers_and_keeps_nobody_out(works: Works, tags: Controller) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.2", 0))
        peer.connect(("127.0.0.1", works.port))
        for _ in range(300):
            peer.send(wire.frame(wire.LIST_SERVICES, 0, bytes(8)))
        with works.pylogix() as plc:
            assert plc.Read("Pump").Value == 1200
        eventually(lambda: works.hits("questions_per_second") > 0)
        peer.setblocking(False)
        answers = 0
        with contextlib.suppress(BlockingIOError):
            while peer.recv(1000):
                answers += 1
    assert 1 <= answers < 100
