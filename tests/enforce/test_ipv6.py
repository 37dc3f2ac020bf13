"""IPv6 all the way: an overlay address by a route, one in the office's own network, and the device."""

from __future__ import annotations

import socket
import subprocess

import pytest

from tests.enforce.site import PlantDevice, Site, ip, netns
from tests.gate.plant import QuickGate, cli
from tests.waiting import eventually

pytestmark = netns
ERP6, DEVICE6, OVERLAY6, NEAR6 = "fd00:81::20", "fd00:82::17", "fd00:65::7", "fd00:81::77"


def reads(site: Site, address: str) -> bool:
    """Whether a read is answered. Neighbour discovery of fresh links takes a moment, so ask `eventually`."""
    try:
        with site.client(address, source=ERP6, timeout=1.0) as client:
            return client.read() == b"\x03\x02\x00\x2a"
    except OSError:
        return False


@pytest.mark.skipif(not socket.has_ipv6, reason="this kernel has no IPv6")
def test_a_brokered_read_by_ipv6(site: Site) -> None:
    text = site.text(office=f"interface: {site.it}, addresses: ['fd00:81::1/64']",
                     plant=f"interface: {site.ot}, addresses: ['fd00:82::1/64']")  # fmt: skip
    for old, new in (("10.82.0.17", DEVICE6), ("100.65.7.17", OVERLAY6), ("10.81.0.77", NEAR6), ("10.81.0.20", ERP6)):
        text = text.replace(old, f'"{new}"')
    site.policy.write_text(text)
    ip("-n", site.office, "addr", "add", f"{ERP6}/64", "dev", "net0", "nodad")
    ip("-n", site.office, "addr", "add", "fd00:81::66/64", "dev", "net0", "nodad")
    ip("-n", site.office, "route", "add", "fd00:65::/64", "via", "fd00:81::1")
    ip("-n", site.plant, "addr", "add", f"{DEVICE6}/64", "dev", "net0", "nodad")
    device = PlantDevice(site.plant, DEVICE6)
    gate = QuickGate(site.state, site.policy)
    try:
        gate.wait_ready()
        for address in (OVERLAY6, NEAR6):
            eventually(lambda address=address: reads(site, address))  # type: ignore[misc]
        with pytest.raises(OSError):
            site.client(OVERLAY6, source="fd00:81::66", timeout=0.7)
        for name in site.gates():
            done = subprocess.run(["ip", "netns", "exec", name, "sysctl", "-n", "net.ipv6.conf.all.forwarding"],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            assert done.stdout.strip() == "0"
        assert gate.stop() == 0
    finally:
        gate.close()
        device.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="this kernel has no IPv6")
def test_a_reload_that_brings_ipv6_gives_moved_interfaces_theirs_back(site: Site) -> None:
    """The interfaces keep their own addresses. The first policy has no IPv6, the second has both."""
    old = site.text(office=f"interface: {site.it}", plant=f"interface: {site.ot}")
    asset = f"  six: {{zone: plant, address: '{DEVICE6}', protocol: modbus, unit: 1, overlay: '{OVERLAY6}'}}\n"
    who = f"principals:\n  erp6: {{zone: office, addresses: ['{ERP6}']}}\n"
    rule = "    allow:\n      - {who: erp6, asset: six, registers: holding 0-9}\n"
    new = old.replace("principals:\n", asset + who).replace("    allow:\n", rule)
    site.policy.write_text(old)
    for name, address in ((site.it, "fd00:81::1/64"), (site.ot, "fd00:82::1/64")):
        ip("addr", "add", address, "dev", name, "nodad")
    ip("-6", "route", "add", "fd00:83::/64", "via", "fd00:82::17", "dev", site.ot)
    ip("-n", site.office, "addr", "add", f"{ERP6}/64", "dev", "net0", "nodad")
    ip("-n", site.office, "route", "add", "fd00:65::/64", "via", "fd00:81::1")
    ip("-n", site.plant, "addr", "add", f"{DEVICE6}/64", "dev", "net0", "nodad")
    device = PlantDevice(site.plant, DEVICE6)
    gate = QuickGate(site.state, site.policy)

    def of_gate(*words: str) -> str:
        return "".join(ip("-n", name, *words) for name in site.gates())

    try:
        gate.wait_ready()
        assert "fd00:8" not in of_gate("-6", "addr")
        site.policy.write_text(new)
        code, _, err = cli("reload", "--state", site.state)
        assert code == 0, err
        shown, routes = of_gate("-6", "addr"), of_gate("-6", "route")
        assert "fd00:81::1/64" in shown and "fd00:82::1/64" in shown
        assert "fd00:83::/64 via fd00:82::17" in routes
        eventually(lambda: reads(site, OVERLAY6))
        site.policy.write_text(old)
        assert cli("reload", "--state", site.state)[0] == 0
        assert "fd00:8" not in of_gate("-6", "addr")
        assert gate.stop() == 0
        assert "fd00:81::1/64" in ip("-6", "addr", "show", site.it)
    finally:
        gate.close()
        device.close()
