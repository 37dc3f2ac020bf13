"""I/O connections of EtherNet/IP behind a real gate: an adapter of other hands as the drive, a scanner by raw bytes."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ethernetip")

from tests.gate.plant import QuickGate, events
from tests.ports import held_ports
from tests.protocols.scanner import Drive, Scanner
from tests.verbs import cli
from tests.waiting import eventually, kill

POLICY = """\
site: works
limits: {{asset_connect_seconds: 60, audit_wait_seconds: 60, client_wait_seconds: 60}}
zones:
  office: {{side: it}}
  plant: {{side: ot}}
assets:
  drive:
    zone: plant
    address: 127.0.0.2
    protocol: enip
    timeout: 20 s
    port: {device}
    listen: 127.0.0.1:{port}
    points:
      reference: {{at: io Drive.0, type: dint, unit: rpm, min: 0, max: 1500}}
    streams:
      drive:
        at: io Drive
        fastest: 10 ms
        form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"
        config: "01 00 dc"
      inputs: {{at: io Inputs, form: "outputs 193 of 0 bytes, inputs 100 of 8 bytes, config 151, no run"}}
principals:
  scada: {{zone: office, addresses: [127.0.0.9, 127.0.0.10]}}
conduits:
  road:
    from: office
    to: plant
    broker: enip
    owner: production
    reason: a test
    priority: realtime
    allow:
      - {{who: scada, asset: drive, {verbs}}}
"""


class Works:
    def __init__(self, folder: Path) -> None:
        self.drive = Drive().start()
        [self.port] = held_ports(1)
        self.state = folder / "state"
        self.policy = folder / "policy.yaml"
        self.allow("stream: [drive, inputs]")
        self.gate = QuickGate(self.state, self.policy)

    def allow(self, verbs: str) -> None:
        self.policy.write_text(POLICY.format(device=self.drive.port, port=self.port, verbs=verbs))

    def cofferdam(self, *words: str) -> None:
        code, out, err = cli(*words, "--state", self.state)
        assert code == 0, out + err


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    one = Works(tmp_path_factory.mktemp("works"))
    try:
        one.gate.wait_ready()
        yield one
        assert one.gate.stop() == 0
    finally:
        one.gate.close()
        one.drive.stop()


@pytest.fixture
def scanner(works: Works) -> Iterator[Scanner]:
    one = Scanner(works.port)
    yield one
    one.shut()
    eventually(lambda: works.drive.connections == 0)


def test_packets_go_both_ways_within_the_limits(works: Works, scanner: Scanner) -> None:
    def measured() -> list[int]:
        """How old packets were, and how evenly they left, both ways: each half measures what it sends."""
        figures = {one["name"]: one["values"] for one in works.gate.status()["figures"] if one["broker"] == "enip"}
        names = ("outputs_age", "outputs_jitter", "inputs_age", "inputs_jitter")
        return [figures[name].get("drive/drive", {"count": 0})["count"] for name in names]

    works.drive.references.clear()
    before, known = len(events(works.state, "stream-ended")), measured()
    assert scanner.open() == (0,)
    works.drive.say(b"ABCDEFGH")

    def came() -> bool:
        enough = all(now >= then + 10 for now, then in zip(measured(), known, strict=True))
        return enough and bool(works.drive.references) and scanner.heard == b"ABCDEFGH"

    scanner.until(700, came)
    assert works.drive.references == [700] and works.drive.connections == 1
    for value in (1100, 1400):
        scanner.until(value, lambda value=value: works.drive.references[-1] == value)  # type: ignore[misc]
    assert works.drive.references == [700, 1100, 1400]
    # A reference above its limit never arrives; three in a row close both sides.
    scanner.until(1501, lambda: works.drive.connections == 0)
    assert works.drive.references == [700, 1100, 1400]
    eventually(lambda: len(events(works.state, "stream-ended")) > before)
    ended = events(works.state, "stream-ended")[before]
    assert ended["refused"] == 3 and ended["sent"] >= 10 and ended["received"] >= 10
    assert "reference = 1501 rpm is asked" in ended["reason"]
    [road] = works.gate.status()["conduits"]
    assert road["packets"]["count"] >= 20 and road["packets"]["max"] > 0
    [written] = events(works.state, "write-allowed")[-1:]
    assert written["items"] == [["io drive", "stream", "", ["20000 us"]]]


def test_a_drive_is_one_clients_and_its_inputs_are_for_all(works: Works, scanner: Scanner) -> None:
    assert scanner.open(serial=30) == (0,)
    other = Scanner(works.port, "127.0.0.10")
    try:
        assert other.open(serial=31) == (1, 0x0106), "it is owned"
        [taken] = [one for one in events(works.state, "refused") if one["fault"] == "taken"]
        assert "127.0.0.9" in taken["detail"]
        # Input only: a heartbeat of no data to 193, as often as clients want.
        inputs = b"\x20\x04\x24\x97\x2c\xc1\x2c\x64"
        assert other.open(serial=32, sizes=(2, 10), path=inputs) == (0,)
        assert scanner.open(serial=33, sizes=(2, 10), path=inputs) == (0,)
        assert scanner.close_io(30) == 0
        eventually(lambda: other.open(serial=34) == (0,))
    finally:
        other.shut()


def test_packets_that_were_lost_are_told_in_the_log(works: Works, scanner: Scanner) -> None:
    before = len(events(works.state, "stream-ended"))
    assert scanner.open(serial=40) == (0,)
    scanner.until(40, lambda: works.drive.references[-1:] == [40])
    scanner._sequence += 7
    scanner.until(41, lambda: works.drive.references[-1:] == [41])
    assert scanner.close_io(40) == 0
    eventually(lambda: len(events(works.state, "stream-ended")) > before)
    ended = events(works.state, "stream-ended")[-1]
    assert ended["lost_out"] == 7 and ended["reason"] == "given up by the client"


def test_halves_have_a_real_time_priority_or_say_that_they_have_none(works: Works) -> None:
    status = works.gate.status()
    [pair] = status["pairs"]
    [fact] = [one for one in status["facts"] if one["name"] == "real-time priority"]
    for half in pair["halves"]:
        assert (os.sched_getscheduler(half["pid"]) == os.SCHED_RR) == fact["in_force"], fact
    assert fact["in_force"] or "refuses it" in fact["detail"]
    # As root the launcher may raise the limit; nobody else of the gate gets the priority.
    if os.geteuid() == 0:
        assert os.sched_getscheduler(works.gate.pids()["gate"]) == os.SCHED_OTHER


def test_each_half_says_how_long_it_was_held_up(works: Works) -> None:
    def halves() -> set[str]:
        figures = works.gate.status()["figures"]
        return {half for one in figures if (one["broker"], one["name"]) == ("enip", "held") for half in one["values"]}

    eventually(lambda: halves() == {"outer", "inner"})


def test_an_opening_that_is_wrong_is_told_so(works: Works, scanner: Scanner) -> None:
    before = works.drive.connections
    third = b"\x01\x80\x10\x00\x00\x02\x08\xae\x0a\x00\x00\x01" + bytes(8)
    assert scanner.open(sizes=(8, 10)) == (1, 0x0127, 10)
    assert scanner.open(sizes=(10, 8)) == (1, 0x0128, 10)
    assert scanner.open(rpi=1000) == (1, 0x0111)
    assert scanner.open(rpi=5000) == (2,), "faster than the policy says"
    assert scanner.open(transport=6) == (1, 0x0103)
    assert scanner.open(flags=0xC800) == (1, 0x0123), "a redundant owner"
    assert scanner.open(beside=third) == (1, 0x0205), "packets to a third host"
    assert scanner.open(path=b"\x20\x04\x24\x97\x2c\x95\x2c\x64") == (8,), "other assemblies"
    assert scanner.open(path=b"\x01\x03\x20\x04\x24\x97\x2c\x96\x2c\x64") == (1, 0x0311), "another slot"
    # The drive says that it is 1/2/3, revision 1.0.
    assemblies = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"
    for key, more in (((9, 2, 3, 1, 0), 0x0114), ((1, 9, 3, 1, 0), 0x0115), ((1, 2, 3, 2, 0), 0x0116)):
        assert scanner.open(path=b"\x34\x04" + struct.pack("<HHHBB", *key) + assemblies) == (1, more), "another device"
    assert works.drive.connections == before
    assert scanner.open(path=b"\x34\x04" + struct.pack("<HHHBB", 1, 2, 3, 1, 0) + assemblies) == (0,)
    assert scanner.close_io() == 0
    assert scanner.open() == (0,)
    assert scanner.open() == (1, 0x0100), "a duplicate"
    assert scanner.close_io() == 0
    assert scanner.close_io() == 1


def test_the_device_is_given_the_policys_configuration_and_no_other(works: Works, scanner: Scanner) -> None:
    assemblies = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"

    def given() -> list[bytes]:
        return [bytes(one.config_data) for one in works.drive.device.connection_manager.active_connections]

    for wrong in (b"\x80\x02\x01\x00\xdd\x00", b"\x80\x01\x01\x00", b"\x80\x03\x01\x00\xdc\x00\x00\x00"):
        assert scanner.open(path=assemblies + wrong) == (1, 0x0126), wrong
    assert given() == []
    assert scanner.open(path=assemblies + b"\x80\x02\x01\x00\xdc\x00") == (0,)
    assert given() == [b"\x01\x00\xdc\x00"], "in whole words, as the policy has it"
    assert scanner.close_io() == 0
    eventually(lambda: works.drive.connections == 0)
    assert scanner.open(serial=2) == (0,), "a client need bring none"
    assert given() == [b""]


def test_packets_that_do_not_belong_are_dropped(works: Works, scanner: Scanner) -> None:
    assert scanner.open(serial=7) == (0,)
    scanner.until(300, lambda: works.drive.references[-1:] == [300])
    told = list(works.drive.references)
    stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stranger.bind(("127.0.0.8", 2222))
    with stranger:
        scanner.say(400, source=stranger)  # the right id from another source
    scanner.say(401, number=0x1234)
    scanner.say(402, sequence=1)  # an old one
    scanner.say(300, sequence=(repeated := scanner._sequence + 10))
    scanner.say(402, sequence=repeated)  # the same number again
    scanner._send(bytes(9))  # the right id and another size
    scanner._send(bytes(11))
    scanner._send(bytes(9000))  # more than any that may come: on a wire it would be in pieces
    scanner.udp.sendto(b"\2\0\2\x80", ("127.0.0.1", 2222))
    scanner._sequence = 1000
    scanner.until(350, lambda: works.drive.references[-1:] == [350])
    assert works.drive.references == [*told, 350]

    # Hundreds of a stranger's, and ten times as many as agreed: dropped, counted, and the fair ones go on.
    def strays() -> int:
        return int(works.gate.status()["limits"].get("stray_datagrams", 0))

    # A socket whose owner has no turn holds some 270; and who has none meanwhile sends no ten times as many.
    before = strays()
    flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flood.bind(("127.0.0.8", 0))

    def flooded() -> bool:
        for number in range(100):
            scanner.say(402, number=number, source=flood)
        return strays() >= before + 300

    with flood:
        eventually(flooded)
    scanner._sequence = 50_000
    scanner.until(360, lambda: works.drive.references[-1:] == [360])
    before = strays()

    def hurried() -> bool:
        for _ in range(100):
            scanner.say(361)
        return strays() >= before + 80

    eventually(hurried)
    scanner.until(362, lambda: works.drive.references[-1:] == [362])
    assert 402 not in works.drive.references


def test_a_client_that_falls_silent_is_closed_on_the_other_side(works: Works, scanner: Scanner) -> None:
    assert scanner.open(serial=8, rpi=10_000, multiplier=4) == (0,)
    before = len(events(works.state, "stream-ended"))
    scanner.run(200, 0.2, 0.01)
    eventually(lambda: works.drive.connections == 0)
    eventually(lambda: len(events(works.state, "stream-ended")) > before)
    reason = events(works.state, "stream-ended")[-1]["reason"]
    assert "has sent nothing in time (in the ten seconds before, " in reason, reason


def test_sever_and_reload_end_it(works: Works, scanner: Scanner) -> None:
    assert scanner.open(serial=9) == (0,)
    scanner.until(100, lambda: works.drive.references[-1:] == [100])
    works.allow("write_functions: [5]")
    works.cofferdam("reload")
    eventually(lambda: works.drive.connections == 0)
    assert scanner.open(serial=10) == (15,), "no rule allows it any more"
    works.allow("stream: [drive, inputs]")
    works.cofferdam("reload")
    assert scanner.open(serial=11) == (0,)
    works.cofferdam("sever", "ot")
    eventually(lambda: works.drive.connections == 0)
    works.cofferdam("restore", "ot")


@pytest.mark.parametrize("half", ["outer", "inner"])
def test_when_a_half_dies_nothing_stale_is_sent(works: Works, half: str) -> None:
    scanner = Scanner(works.port)
    try:
        # What was restored a moment ago may not have come to both halves yet.
        eventually(lambda: scanner.open(serial=20, rpi=10_000) == (0,))
        scanner.until(50, lambda: works.drive.references[-1:] == [50], 0.01)
        [pair] = works.gate.status()["pairs"]
        restarts = pair["restarts"]
        pid = next(one["pid"] for one in pair["halves"] if one["role"] == half)
        kill(pid)
        eventually(lambda: works.gate.status()["pairs"][0]["restarts"] > restarts)
        for value in range(60, 70):
            scanner.say(value)
        # The drive's own watchdog acts, whatever became of us; nothing is opened again by itself.
        eventually(lambda: works.drive.connections == 0)
        assert works.drive.references[-1] == 50
    finally:
        scanner.shut()
    works.gate.wait_ready()

    def again() -> bool:
        one = Scanner(works.port)
        try:
            return one.open(serial=21) == (0,)
        finally:
            one.shut()

    eventually(again)
