"""The end of a hub outside the machine: sees every frame from power-on, and can send some of its own.

Frames come and go as UDP datagrams on loopback, as QEMU's socket network has them.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

ARP, IPV4, VLAN, IPV6 = 0x0806, 0x0800, 0x8100, 0x86DD
OUTSIDE = "52:54:00:0c:fd:99"
"""The hardware address of the host that asks from here."""


@dataclass(frozen=True)
class Frame:
    """A frame on the wire; `at` is this machine's monotonic time in s."""

    at: float
    data: bytes

    @property
    def source(self) -> str:
        return self.data[6:12].hex(":")

    @property
    def to(self) -> str:
        return self.data[:6].hex(":")

    @property
    def tag(self) -> int:
        """Its VLAN; 0 without a tag."""
        return int.from_bytes(self.data[14:16], "big") & 0xFFF if self._kind == VLAN else 0

    @property
    def _kind(self) -> int:
        return int.from_bytes(self.data[12:14], "big")

    @property
    def kind(self) -> int:
        """The EtherType, behind a tag if it has one."""
        return int.from_bytes(self.data[16:18], "big") if self._kind == VLAN else self._kind


class Wire:
    """Both ports are on loopback. Frames are kept until `forget`."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.port: int = self._socket.getsockname()[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", 0))
            self.far_port: int = other.getsockname()[1]
        self._frames: list[Frame] = []
        self._open = True
        self._asking: Callable[[], list[bytes]] | None = None
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._listen, self._ask)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        while self._open:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:
                return
            self._frames.append(Frame(time.monotonic(), data))

    def _ask(self) -> None:
        while self._open:
            for data in self._asking() if self._asking is not None else []:
                self.send(data)
            time.sleep(0.1)

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data.ljust(60, b"\0"), ("127.0.0.1", self.far_port))
        except OSError:
            return  # the machine is off

    def keep_asking(self, frames: list[bytes]) -> None:
        """These frames, ten times a second, from now on. An empty list ends it."""
        self._asking = (lambda: frames) if frames else None

    def forget(self) -> None:
        self._frames = []

    def frames(self, source: str = "") -> list[Frame]:
        """What was seen since the last `forget`, of one sender if it is given."""
        return [frame for frame in list(self._frames) if not source or frame.source == source]

    def close(self) -> None:
        self._open = False
        for thread in self._threads:
            thread.join(2)
        self._socket.close()


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def who_has(address: str, asker: str) -> bytes:
    """An ARP request to everyone (RFC 826)."""
    own, there = (ipaddress.IPv4Address(text).packed for text in (asker, address))
    body = struct.pack(">HHBBH", 1, IPV4, 6, 4, 1) + _mac(OUTSIDE) + own + bytes(6) + there
    return b"\xff" * 6 + _mac(OUTSIDE) + struct.pack(">H", ARP) + body


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(to: str, address: str, asker: str, port: int, source_port: int = 40000) -> bytes:
    """A TCP connection's first packet, for one card (RFC 9293)."""
    own, there = (ipaddress.IPv4Address(text).packed for text in (asker, address))
    tcp = struct.pack(">HHIIBBHHH", source_port, port, 1, 0, 5 << 4, 2, 1024, 0, 0)
    check = _sum(own + there + struct.pack(">BBH", 0, 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack(">H", check) + tcp[18:]
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 7, 0, 64, 6, 0, own, there)
    head = head[:10] + struct.pack(">H", _sum(head)) + head[12:]
    return _mac(to) + _mac(OUTSIDE) + struct.pack(">H", IPV4) + head + tcp
