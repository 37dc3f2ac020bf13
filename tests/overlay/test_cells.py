"""Two machine cells that were bought twice: the same addresses, and both published."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from cofferdam.enforce.plans.network import network_plan
from cofferdam.enforce.plans.records import check
from cofferdam.enforce.putback import clean
from tests.enforce.site import DEVICE, ERP, GATE_OT, PORT, PlantDevice, Site, at, ip, netns
from tests.gate.plant import Gate, cli
from tests.overlay.works import compiled

CELLS = """
site: works
zones:
  office: {side: it, interface: eth0, addresses: 10.1.0.1/16}
  cell-a: {side: ot, interface: eth1, addresses: 192.168.0.1/24}
  cell-b: {side: ot, interface: eth2, addresses: %s/24}
  cell-c: {side: ot, interface: eth3, addresses: 192.168.7.1/24}
overlay: {prefix: 10.64.7.0/24}
assets:
  press-a: {zone: cell-a, address: 192.168.0.10, protocol: modbus, points: {p: {at: holding 0, type: uint16}}}
  press-b: {zone: cell-b, address: %s, protocol: modbus, points: {p: {at: holding 0, type: uint16}}}
  press-c: {zone: cell-c, address: 192.168.7.10, protocol: modbus, points: {p: {at: holding 0, type: uint16}}}
principals:
  erp: {zone: office, addresses: 10.1.0.20}
conduits:
"""


def cells(own: str, device: str) -> str:
    text = CELLS % (own, device)
    for cell in "abc":
        text += (
            f"  {cell}: {{from: office, to: cell-{cell}, broker: modbus, owner: o, reason: r, "
            f"allow: [{{who: erp, asset: press-{cell}, read: all}}]}}\n"
        )
    return text


def test_equal_addresses_get_a_namespace_of_their_own_and_others_do_not() -> None:
    plan = network_plan(compiled(cells("192.168.0.1", "192.168.0.10")))
    assert check(plan) == ""
    assert [side.space for side in plan.sides] == ["it", "ot", "ot.cell-b"]
    assert [[link.zone for link in side.links] for side in plan.sides] == [["office"], ["cell-a", "cell-c"], ["cell-b"]]
    assert {plan.space_of("ot", f"cell-{cell}") for cell in "ac"} == {"ot"}
    assert plan.space_of("ot", "cell-b") == "ot.cell-b"
    assert [[reach.conduit for reach in side.reaches] for side in plan.sides] == [[], ["a", "c"], ["b"]]


def test_a_network_within_another_zones_network_is_told_apart_as_well() -> None:
    plan = network_plan(
        compiled(cells("192.168.0.129", "192.168.0.200").replace("192.168.0.129/24", "192.168.0.129/25"))
    )
    assert [side.space for side in plan.sides] == ["it", "ot", "ot.cell-b"]


def test_zones_with_addresses_of_their_own_share_one_namespace() -> None:
    plan = network_plan(compiled(cells("192.168.1.1", "192.168.1.10")))
    assert [side.space for side in plan.sides] == ["it", "ot"]


class Twice(Site):
    """The site, and a second plant that is the first one's copy."""

    def __init__(self, folder: Path) -> None:
        self.copy = f"cdt{os.getpid()}-{secrets.token_hex(2)}-ot2"
        self.ot2 = f"cdt{secrets.token_hex(2)}p"
        super().__init__(folder)

    def text(self, **changes: str) -> str:
        text = super().text(**changes)
        zone = f"  twin: {{side: ot, interface: {self.ot2}, addresses: [{GATE_OT}/24]}}\n"
        points = "points: {level: {at: holding 0, type: uint16}}"
        asset = f"  twin: {{zone: twin, address: {DEVICE}, protocol: modbus, timeout: 20 s, {points}}}\n"
        road = (
            "  twin: {from: office, to: twin, broker: modbus, owner: o, reason: r, "
            "allow: [{who: erp, asset: twin, read: all}]}\n"
        )
        text = text.replace("assets:\n", f"{zone}assets:\n", 1).replace("principals:\n", f"{asset}principals:\n", 1)
        return (
            text.replace("gate: {", f"{road}gate: {{", 1)
            + "overlay: {prefix: 10.91.9.0/24, assigned: {twin: 10.91.9.9}}\n"
        )

    def __enter__(self) -> Twice:
        super().__enter__()
        ip("netns", "add", self.copy)
        ip("link", "add", self.ot2, "type", "veth", "peer", "name", "net0", "netns", self.copy)
        ip("-n", self.copy, "link", "set", "net0", "up")
        ip("-n", self.copy, "addr", "add", f"{DEVICE}/24", "dev", "net0")
        ip("-n", self.office, "route", "add", "10.91.9.0/24", "via", "10.81.0.1")
        return self

    def __exit__(self, *args: object) -> None:
        subprocess.run(["ip", "-n", self.copy, "link", "del", "net0"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.copy], capture_output=True, check=False)
        super().__exit__(None, None, None)


class OtherDevice(PlantDevice):
    """Answers 7 to every read, where the first answers 42."""

    def _reply(self, pdu: bytes) -> bytes:
        if pdu[0] == 3:
            count = int.from_bytes(pdu[3:5], "big")
            return bytes([3, 2 * count]) + b"\0\x07" * count
        return super()._reply(pdu)


@netns[0]
@netns[1]
def test_two_devices_with_one_address_are_both_reached() -> None:
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, Twice(Path(folder)) as site:
        first, second = PlantDevice(site.plant), OtherDevice(site.copy)
        gate = Gate(site.state, site.policy)
        try:
            gate.wait_ready()
            assert len(site.gates()) == 3
            with site.client() as one, site.client("10.91.9.9") as other:
                for _ in range(3):
                    assert one.read() == b"\x03\x02\x00\x2a"
                    assert other.read() == b"\x03\x02\x00\x07"
            assert (first.connections, second.connections) == (1, 1)
            # From one cell there is no way to the other, nor to the office.
            with at(site.copy):
                probe = socket.socket()
            with probe:
                probe.settimeout(0.5)
                with pytest.raises(OSError):
                    probe.connect((ERP, PORT))
            # The proof knows all three namespaces, and which half stands in which.
            code, out, err = cli("prove", "--json", "--state", site.state)
            assert code == 0, out[-3000:] + err
            for name in ("ot.twin: nothing is forwarded", "modbus/office-twin/inner: namespaces", "namespaces are 4"):
                assert name in out
            assert gate.stop() == 0, gate.said()
            assert not site.gates()
        finally:
            gate.close()
            clean(site.state)
            first.close()
            second.close()
