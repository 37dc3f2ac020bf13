"""The leak probe: does an asset answer on the IT side's wire by its real address, round the gate?

It asks each interface of the IT side by frames of its own making: ARP (or neighbour solicitation) for the asset's
address; then ICMP echo and a TCP SYN to the protocol's port, sent to the station that answered and to the default
router, if there is one. Frames go by a packet socket, so the firewall stays as it is, and it opens no connection: a
device that answers the SYN hears nothing more, and forgets it.

Whoever asks has the sockets already and holds no privilege while it reads frames: a part of its own (leak_part), or a
child of a proof.

Not here: who is told (leaking, the gate).
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from cofferdam.enforce import inside as worker
from cofferdam.enforce import kernel
from cofferdam.proof.frames import BROADCAST, checksum

WAIT_SECONDS: Final = 1.0
"""How long answers are waited for, after the last question of each round."""
MOST_ANSWERS: Final = 8
"""Kept of each address: who answers decides what it says, and how often."""
NOBODY: Final = 65534
Json = dict[str, Any]
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_libc = ctypes.CDLL(None, use_errno=True)


class Wire(NamedTuple):
    """An interface to ask by, and a packet socket that is bound to it."""

    fd: int
    name: str
    number: int
    station: str
    own: tuple[str, ...]
    routers: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Wire:
        """From a command line: the descriptor, then enforce.isolation.Wire.text."""
        fd, name, number, station, own, routers = text.split(",")
        return cls(int(fd), name, int(number), station, tuple(filter(None, own.split("+"))),
                   tuple(filter(None, routers.split("+"))))  # fmt: skip


def probe(namespace: int, interfaces: Sequence[str], targets: Sequence[tuple[str, int]]) -> Json:
    """Asks for all targets (address, port) in the namespace of this descriptor. `answers`: (address, kind, detail);
    `asked`: how many questions went out by each interface.

    Raises:
        GateError: it cannot be done; the message says why.
    """
    result: Json = worker.inside(namespace, _probe, list(interfaces), [list(target) for target in targets])
    return result


def _probe(interfaces: list[str], targets: list[list[Any]]) -> Json:
    # Here, and not above: pyroute2 is large, and the part has no use for it.
    from cofferdam.enforce import netns

    wires = [
        Wire(netns.packet_socket(look[0]).detach(), *look[:3], tuple(look[3]), tuple(look[4]))
        for look in netns.look_at_wires(interfaces)
    ]
    _give_up()
    return ask(wires, [(str(address), int(port)) for address, port in targets])


def _give_up() -> None:
    kernel.drop_bounding_set()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.set_capabilities(())
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def ask(wires: Iterable[Wire], targets: Sequence[tuple[str, int]]) -> Json:
    """One round, by one interface after the other."""
    answers: list[list[str]] = []
    asked: dict[str, int] = {}
    for wire in wires:
        round_ = _Round(wire, targets)
        round_.run()
        answers += round_.answers
        asked[wire.name] = round_.asked
    return {"answers": answers, "asked": asked}


class _Round:
    """One interface: who has the addresses; then a ping and a SYN to those that answered and by the routers."""

    def __init__(self, wire: Wire, targets: Sequence[tuple[str, int]]) -> None:
        self._sock = socket.socket(fileno=wire.fd)
        self._mac = bytes.fromhex(wire.station.replace(":", ""))
        self._own = {4: _first(wire.own, 4), 6: _first(wire.own, 6)}
        self._routers = list(wire.routers)
        self._name = wire.name
        self._number = wire.number
        self._targets = targets
        self._poll = select.poll()
        self._poll.register(wire.fd, select.POLLIN)
        self._stations: dict[str, bytes] = {}
        self._port = 40000 + secrets.randbelow(20000)
        self._id = secrets.randbelow(65536)
        self.answers: list[list[str]] = []
        self.asked = 0

    def run(self) -> None:
        for address in dict.fromkeys([address for address, _ in self._targets] + self._routers):
            self._who_has(address)
        self._listen()
        for address, port in self._targets:
            stations = [self._stations[name] for name in (address, *self._routers) if name in self._stations]
            for station in dict.fromkeys(stations):
                self._ping(address, station)
                self._knock(address, port, station)
        self._listen()

    def _send(self, to: bytes, ethertype: int, body: bytes) -> None:
        frame = (to + self._mac + struct.pack(">H", ethertype) + body).ljust(60, b"\0")
        # With its type: Linux 6.1 does not read it from a frame on a macvlan, and the egress rules would drop it. By
        # the C library, since Python would ask for the interface's number by a call that a part may not make.
        place = (
            struct.pack("@H", socket.AF_PACKET)
            + struct.pack(">H", ethertype)
            + struct.pack("@iHBB8x", self._number, 0, 0, 6)
        )
        sent = _libc.sendto(self._sock.fileno(), frame, ctypes.c_size_t(len(frame)), 0, place, ctypes.c_int(len(place)))
        self.asked += sent == len(frame)  # less: the interface is down, and `asked` says that nothing went out

    def _who_has(self, address: str) -> None:
        target = ipaddress.ip_address(address)
        own = self._own[target.version]
        if target.version == 4:
            source = own or ipaddress.IPv4Address(0)  # a probe as of RFC 5227 where we have no address
            body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + self._mac + source.packed + bytes(6) + target.packed
            self._send(bytes.fromhex(BROADCAST.replace(":", "")), 0x0806, body)
        elif own is not None:
            group = ipaddress.IPv6Address(int(ipaddress.IPv6Address("ff02::1:ff00:0")) | int(target) & 0xFFFFFF)
            icmp = struct.pack(">BBHI", 135, 0, 0, 0) + target.packed + b"\x01\x01" + self._mac
            self._send(b"\x33\x33" + group.packed[12:], 0x86DD, _packet(own, group, 58, icmp, 255))

    def _ping(self, address: str, station: bytes) -> None:
        target = ipaddress.ip_address(address)
        own = self._own[target.version]
        if own is None:
            return
        kind, number = (8, 1) if target.version == 4 else (128, 58)
        icmp = struct.pack(">BBHHH", kind, 0, 0, self._id, 1) + b"cofferdam leak probe"
        self._send(station, 0x0800 if target.version == 4 else 0x86DD, _packet(own, target, number, icmp, 64))

    def _knock(self, address: str, port: int, station: bytes) -> None:
        target = ipaddress.ip_address(address)
        own = self._own[target.version]
        if own is None:
            return
        tcp = struct.pack(">HHIIBBHHH", self._port, port, secrets.randbits(32), 0, 5 << 4, 2, 1024, 0, 0)
        self._send(station, 0x0800 if target.version == 4 else 0x86DD, _packet(own, target, 6, tcp, 64))

    def _listen(self) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while (left := end - time.monotonic()) > 0:
            if not self._poll.poll(left * 1000):
                continue
            try:
                frame, where = self._sock.recvfrom(2048)
            except OSError:
                continue
            if where[2] != socket.PACKET_OUTGOING:
                self._take(frame)

    def _take(self, frame: bytes) -> None:
        """A frame of anyone's making: whatever is short or odd is left aside."""
        kind = int.from_bytes(frame[12:14], "big")
        wanted = {address for address, _ in self._targets}
        if kind == 0x0806 and len(frame) >= 42 and frame[20:22] == b"\0\x02":
            sender = str(ipaddress.IPv4Address(frame[28:32]))
            self._station(sender, frame[22:28], wanted, "ARP")
        elif kind == 0x0800 and len(frame) >= 34:
            start = 14 + (frame[14] & 15) * 4
            self._packet(str(ipaddress.IPv4Address(frame[26:30])), frame[23], frame[start:], wanted)
        elif kind == 0x86DD and len(frame) >= 54:
            sender, body = str(ipaddress.IPv6Address(frame[22:38])), frame[54:]
            if frame[20] == 58 and body[:1] == b"\x88" and len(body) >= 24:
                self._station(str(ipaddress.IPv6Address(body[8:24])), frame[6:12], wanted, "neighbour discovery")
            self._packet(sender, frame[20], body, wanted)

    def _station(self, address: str, mac: bytes, wanted: set[str], how: str) -> None:
        if address in self._stations or (address not in wanted and address not in self._routers):
            return
        self._stations[address] = mac
        if address in wanted:
            self._found(address, how, f"{mac.hex(':')} answers for it on {self._name}")

    def _packet(self, sender: str, protocol: int, body: bytes, wanted: set[str]) -> None:
        if sender not in wanted:
            return
        if protocol in (1, 58) and body[:1] in (b"\0", b"\x81") and body[4:6] == self._id.to_bytes(2, "big"):
            self._found(sender, "ICMP", f"answers a ping on {self._name}")
        elif protocol == 6 and len(body) >= 14 and int.from_bytes(body[2:4], "big") == self._port:
            port = int.from_bytes(body[:2], "big")
            says = "accepts connections" if body[13] & 0x12 == 0x12 else "refuses connections, so it can be reached"
            self._found(sender, "TCP", f"port {port} {says} on {self._name}")

    def _found(self, address: str, how: str, detail: str) -> None:
        mine = [answer for answer in self.answers if answer[0] == address]
        if [address, how, detail] not in mine and len(mine) < MOST_ANSWERS:
            self.answers.append([address, how, detail])


def _first(own: Sequence[str], version: int) -> Any:
    found = [ipaddress.ip_address(text) for text in own]
    return next((address for address in found if address.version == version), None)


def _packet(source: IPAddress, target: IPAddress, number: int, body: bytes, hops: int) -> bytes:
    """An IP packet; the checksum of what is in it is put in as well."""
    at = 16 if number == 6 else 2
    pseudo = b"" if number == 1 else source.packed + target.packed + struct.pack(">II", len(body), number)
    body = body[:at] + checksum(pseudo + body).to_bytes(2, "big") + body[at + 2 :]
    if target.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(body), number, hops) + source.packed + target.packed + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, hops, number, 0) + source.packed + target.packed
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body
