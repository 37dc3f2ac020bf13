"""A site under attack: an office whose ERP host is the intruder's, a device that keeps what reaches it, and a tap."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cofferdam.enforce.putback import clean
from tests.enforce.site import DEVICE, ERP, GATE_IT, GATE_OT, NEAR, OVERLAY, PlantDevice, Site, at, ip
from tests.gate.plant import Client, Gate
from tests.waiting import eventually

OPERATOR = "10.81.0.30"
ALLOWED_CELLS = {0, 200, 201}
"""Of the device's holding registers: the points level and speed."""


class Witness(PlantDevice):
    """A device that keeps every request that it gets."""

    def __init__(self, namespace: str) -> None:
        self.requests: list[bytes] = []
        super().__init__(namespace)

    def _reply(self, pdu: bytes) -> bytes:
        self.requests.append(pdu)
        if pdu[0] in (3, 16):
            return super()._reply(pdu)
        return bytes([pdu[0] | 0x80, 1])

    def outside_policy(self) -> list[str]:
        return [pdu.hex() for pdu in self.requests if not allowed(pdu)]


def allowed(pdu: bytes) -> bool:
    """The policy of the test, said again in the plainest way: read level and speed, write speed whole."""
    start, count = struct.unpack(">HH", pdu[1:5])
    if pdu[0] == 3:
        return set(range(start, start + count)) <= ALLOWED_CELLS
    return pdu[0] == 16 and (start, count) == (200, 2)


class Wiretap:
    """Every frame on the plant's wire that came from the gate, for as long as it listens."""

    def __init__(self, namespace: str) -> None:
        with at(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)
        self.frames: list[bytes] = []
        self._open = True
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while self._open:
            if select.select([self._socket], [], [], 0.1)[0]:
                frame, where = self._socket.recvfrom(65535)
                if where[2] != socket.PACKET_OUTGOING:
                    self.frames.append(frame)

    def close(self) -> None:
        time.sleep(0.3)
        self._open = False
        self._thread.join()
        self._socket.close()

    def strange(self) -> list[str]:
        """All that is not the gate's own: ARP and TCP from its address to the device, and the kernel's IPv6 hellos."""
        gate, device = socket.inet_aton(GATE_OT), socket.inet_aton(DEVICE)
        found = []
        for frame in self.frames:
            kind = int.from_bytes(frame[12:14], "big")
            arp = kind == 0x0806 and frame[28:32] == gate
            tcp = kind == 0x0800 and frame[26:34] == gate + device and frame[23] == 6
            if not arp and not tcp:
                found.append(frame[:64].hex())
        return found


class Scene:
    """The site under attack."""

    def __init__(self, site: Site, device: Witness, gate: Gate, tap: Wiretap) -> None:
        self.site, self.device, self.gate, self.tap = site, device, gate, tap

    def works(self, source: str = OPERATOR) -> bool:
        """Somebody else's conduit."""
        with self.site.client(NEAR, source=source) as client:
            return client.read() == b"\x03\x02\x00\x2a"

    def recovers(self) -> bool:
        """`works`, as soon as a pair that was ended is up again."""
        found: list[bool] = []

        def asked() -> bool:
            with contextlib.suppress(OSError):
                found.append(self.works())
            return bool(found)

        eventually(asked)
        return found[0]

    def client(self, source: str = ERP, address: str = OVERLAY) -> Client:
        return self.site.client(address, source=source)

    @contextlib.contextmanager
    def raw(self) -> Iterator[tuple[socket.socket, str, str]]:
        """A raw socket on the office's wire, its own MAC, the gate's."""
        self.client().close()  # now the office knows the gate's station
        with at(self.site.office):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        sock.bind(("net0", 0))
        own = sock.getsockname()[4].hex(":")
        words = ip("-n", self.site.office, "neigh", "show", GATE_IT).split()
        with sock:
            yield sock, own, words[words.index("lladdr") + 1]


def attack_policy(site: Site) -> str:
    rules = """  other:
    from: office
    to: plant
    broker: modbus
    owner: tests
    reason: another road, which must go on working
    allow:
      - {who: operator, asset: near, read: all}
"""
    text = site.text(rules=rules)
    return text.replace(
        f"  erp: {{zone: office, addresses: [{ERP}]}}\n",
        f"  erp: {{zone: office, addresses: [{ERP}]}}\n  operator: {{zone: office, addresses: [{OPERATOR}]}}\n",
    )


@contextlib.contextmanager
def attacked(start: Callable[[Site], Gate]) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory(prefix="cofferdam-test-") as folder, Site(Path(folder)) as site:
        ip("-n", site.office, "addr", "add", f"{OPERATOR}/24", "dev", "net0")
        for name in ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"):
            subprocess.run(["ip", "netns", "exec", site.plant, "sysctl", "-qw", name], check=True)
        site.policy.write_text(attack_policy(site))
        device = Witness(site.plant)
        gate = start(site)
        try:
            # Until the gate has its interface, the host's own IPv6 says hello there.
            gate.wait_ready()
            tap = Wiretap(site.plant)
            try:
                yield Scene(site, device, gate, tap)
            finally:
                tap.close()
        finally:
            gate.stop()
            gate.close()
            clean(site.state)
            device.close()
