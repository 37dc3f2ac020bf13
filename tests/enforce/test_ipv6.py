"""IPv6 all the way: an overlay address by a route, one in the office's own network, and the device."""

from __future__ import annotations

import socket
import subprocess
import time

import pytest

from tests.enforce.site import PlantDevice, Site, ip, netns
from tests.gate.plant import Gate

pytestmark = netns
ERP6, DEVICE6, OVERLAY6, NEAR6 = "fd00:81::20", "fd00:82::17", "fd00:65::7", "fd00:81::77"


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
    gate = Gate(site.state, site.policy)
    try:
        gate.wait_ready()
        for address in (OVERLAY6, NEAR6):
            deadline = time.monotonic() + 10
            while True:
                try:
                    with site.client(address, source=ERP6, timeout=1.0) as client:
                        assert client.read() == b"\x03\x02\x00\x2a"
                        break
                except OSError:  # neighbour discovery of fresh links takes a moment
                    assert time.monotonic() < deadline, address
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
