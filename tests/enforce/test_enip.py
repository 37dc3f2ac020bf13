"""EtherNet/IP's inputs by multicast with network namespaces, firewall and users: they go to the group that the policy
names, by the office's interface, and to no other; the proof asks for that and no more."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

pytest.importorskip("ethernetip")

from tests.enforce.site import DEVICE, ERP, GATE_IT, GATE_OT, OVERLAY, STRANGER, Site, at, ip, netns
from tests.gate.plant import cli, events, running
from tests.protocols.scanner import Drive, Scanner
from tests.waiting import PATIENT, eventually

pytestmark = netns
POLICY = """
site: {name}
limits: {{asset_connect_seconds: 60, audit_wait_seconds: 60, client_wait_seconds: 60}}
zones:
  office: {{side: it, interface: {it}, addresses: [{gate_it}/24]}}
  plant: {{side: ot, interface: {ot}, addresses: [{gate_ot}/24]}}
assets:
  drive:
    zone: plant
    address: {device}
    port: {port}
    protocol: enip
    overlay: {overlay}
    timeout: 20 s
    streams:
      inputs:
        {{at: io Inputs, form: "outputs 193 of 0 bytes, inputs 100 of 8 bytes, config 151, no run"{multicast}}}
principals:
  scanners: {{zone: office, addresses: [{erp}, {other}]}}
conduits:
  road: {{from: office, to: plant, broker: enip, owner: a, reason: b,
         allow: [{{who: scanners, asset: drive, stream: inputs}}]}}
"""
GROUP, DERIVED = "239.192.7.1", "239.192.99.0"
"""One that a policy names, and that of the overlay address."""
INPUTS = b"\x20\x04\x24\x97\x2c\xc1\x2c\x64"
MULTICAST = 0x2800


class PlantDrive(Drive):
    """The drive, in a namespace."""

    def __init__(self, namespace: str) -> None:
        super().__init__(DEVICE)
        self._namespace = namespace

    def _run(self) -> None:
        with at(self._namespace):
            super()._run()


class Tap:
    """What comes to the office for groups: each as (group, source, port, TTL)."""

    def __init__(self, namespace: str) -> None:
        with at(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
            self._socket.bind(("net0", 0x0800))
        self._socket.setblocking(False)

    def seen(self) -> list[tuple[str, str, int, int]]:
        """All until now, from the gate."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, place = self._socket.recvfrom(2048)
                group, source = socket.inet_ntoa(data[16:20]), socket.inet_ntoa(data[12:16])
                if place[2] != socket.PACKET_OUTGOING and 224 <= data[16] < 240:
                    found.append((group, source, int.from_bytes(data[22:24], "big"), data[8]))
        return found

    def close(self) -> None:
        self._socket.close()


class Office:
    """The gate, its drive and its clients."""

    def __init__(self, site: Site, stack: contextlib.ExitStack) -> None:
        self.site = site
        self._stack = stack
        for namespace in (site.office, site.plant):
            ip("-n", namespace, "link", "set", "lo", "up")
        self.drive = PlantDrive(site.plant).start()
        stack.callback(self.drive.stop)
        self.say(f", multicast: {GROUP}")
        self.gate = stack.enter_context(running(site.state, site.policy))
        self.tap = Tap(site.office)
        stack.callback(self.tap.close)

    def say(self, multicast: str) -> None:
        self.site.policy.write_text(
            POLICY.format(name=self.site.name, it=self.site.it, ot=self.site.ot, gate_it=GATE_IT, gate_ot=GATE_OT,
                          device=DEVICE, port=self.drive.port, overlay=OVERLAY, erp=ERP, other=STRANGER,
                          multicast=multicast)
        )  # fmt: skip

    def reload(self, multicast: str) -> None:
        self.say(multicast)
        code, out, error = cli("reload", "--state", self.site.state)
        assert code == 0, out + error

    def scanner(self, source: str) -> Scanner:
        with at(self.site.office):
            one = Scanner(44818, source, OVERLAY)
        self._stack.callback(one.shut)
        return one

    def opened(self, one: Scanner, serial: int) -> str:
        """Opens the inputs by multicast, and joins the group that the answer names."""
        assert one.open(serial=serial, sizes=(2, 10), path=INPUTS, inputs=MULTICAST) == (0,)
        with at(self.site.office):
            return one.join()

    def heard(self, *scanners: Scanner, data: bytes) -> None:
        """The drive says this, and all of them hear it."""
        self.drive.say(data)
        for one in scanners:

            def there(one: Scanner = one) -> bool:
                for other in scanners:
                    other.beat()
                one.hear(PATIENT)
                return one.heard == data

            eventually(there)


@pytest.fixture
def office(site: Site) -> Iterator[Office]:
    with contextlib.ExitStack() as stack:
        yield Office(site, stack)


def test_inputs_go_once_to_the_group_that_the_policy_names(office: Office) -> None:
    one, other = office.scanner(ERP), office.scanner(STRANGER)
    assert office.opened(one, 1) == office.opened(other, 2) == GROUP
    assert one.into == other.into, "they hear the same"
    assert office.drive.connections == 2, "each has its own connection at the device"
    office.heard(one, other, data=b"ABCDEFGH")
    assert set(office.tap.seen()) == {(GROUP, OVERLAY, 2222, 1)}
    one.udp.setblocking(False)
    with pytest.raises(BlockingIOError):  # nothing came to one of them alone
        one.udp.recv(2000)
    # A packet that comes in fragments is too long for any connection: it is dropped, and counted.
    strays = office.gate.status()["limits"].get("stray_datagrams", 0)
    one._sequence += 1
    one._send(bytes(3000))
    eventually(lambda: office.gate.status()["limits"].get("stray_datagrams", 0) > strays)
    office.heard(one, other, data=b"BCDEFGHI")
    # Whoever led leaves: the other goes on hearing.
    one.shut()
    eventually(lambda: office.drive.connections == 1)
    office.heard(other, data=b"abcdefgh")
    # Who asks for point to point has that, beside the group.
    alone = office.scanner(ERP)
    assert alone.open(serial=3, sizes=(2, 10), path=INPUTS) == (0,) and not alone.beside
    office.heard(alone, other, data=b"12345678")
    assert set(office.tap.seen()) == {(GROUP, OVERLAY, 2222, 1)}

    def proved() -> bool:
        code, said, error = cli("prove", "--json", "--no-probes", "--state", office.site.state)
        failed = [one for one in json.loads(said)["report"]["statements"] if one["status"] == "failed"]
        assert not failed and code == 0, (failed, error)
        return True

    eventually(proved)
    # The walls: from the same place to any other group, or to another port of this one, nothing goes out.
    rules = ip("netns", "exec", office.site.gates()[0], "nft", "list", "ruleset")
    lines = [line for line in rules.splitlines() if "239." in line]
    assert len(lines) == 1 and f"ip daddr {GROUP} ip saddr {OVERLAY} udp sport 2222 udp dport 2222" in lines[0], lines


def test_a_group_that_a_new_policy_does_not_name_is_sent_nothing_more(office: Office) -> None:
    one = office.scanner(ERP)
    assert office.opened(one, 1) == GROUP
    office.heard(one, data=b"ABCDEFGH")
    office.reload(", multicast: derived")
    office.tap.seen()
    eventually(lambda: office.drive.connections == 0)
    [ended] = events(office.site.state, "stream-ended")
    assert "has changed" in ended["reason"]
    assert office.opened(one, 2) == DERIVED
    office.heard(one, data=b"abcdefgh")
    assert set(office.tap.seen()) == {(DERIVED, OVERLAY, 2222, 1)}
    # Without one, who asks for multicast is sent to by itself.
    office.reload("")
    eventually(lambda: office.drive.connections == 0)
    office.tap.seen()
    last = office.scanner(STRANGER)
    assert last.open(serial=3, sizes=(2, 10), path=INPUTS, inputs=MULTICAST) == (0,) and not last.beside
    office.heard(last, data=b"12345678")
    assert office.tap.seen() == []
