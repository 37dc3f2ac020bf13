"""Writes captures for the tests: frames, TCP conversations, pcap and pcapng files. Shares no code with the readers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

T0 = 1_700_000_000_000_000_000
MS = 1_000_000
SECOND = 1_000_000_000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def tcp(
    source: tuple[str, int], target: tuple[str, int], seq: int, ack: int, flags: int, payload: bytes = b"",
    options: bytes = b"",
) -> bytes:  # fmt: skip
    """A TCP segment, checksum left at zero."""
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack(">HHIIBBHHH", source[1], target[1], seq % 2**32, ack % 2**32, offset, flags, 8192, 0, 0)
    return head + options + payload


def ipv4(source: str, target: str, body: bytes, *, protocol: int = 6, ident: int = 1, where: int = 0x4000) -> bytes:
    return (
        struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), ident, where, 64, protocol, 0)
        + ip_address(source).packed
        + ip_address(target).packed
        + body
    )


def ipv6(source: str, target: str, body: bytes, *, following: int = 6) -> bytes:
    return (
        struct.pack(">IHBB", 6 << 28, len(body), following, 64)
        + ip_address(source).packed
        + ip_address(target).packed
        + body
    )


def ethernet(body: bytes, kind: int = 0x0800, tags: tuple[int, ...] = ()) -> bytes:
    frame = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02"
    for tag in tags:
        frame += struct.pack(">HH", tag, 7)
    frame += struct.pack(">H", kind) + body
    return frame + bytes(max(0, 60 - len(frame)))  # Ethernet pads short frames


@dataclass
class Frame:
    """A captured frame. `wire` is its length on the wire, if the capture cut it off."""

    time_ns: int
    data: bytes
    wire: int = 0

    @property
    def length(self) -> int:
        return self.wire or len(self.data)


def pcap(frames: list[Frame], *, order: str = "<", nano: bool = False, link: int = 1, snaplen: int = 262144) -> bytes:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
    for frame in frames:
        seconds, rest = divmod(frame.time_ns, SECOND)
        fraction = rest if nano else rest // 1000
        out.append(struct.pack(order + "IIII", seconds, fraction, len(frame.data), frame.length) + frame.data)
    return b"".join(out)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def section(order: str = "<", options: bytes = b"") -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options)


def interface(order: str = "<", link: int = 1, snaplen: int = 0, tsresol: int | None = None, offset: int = 0) -> bytes:
    options = b""
    if tsresol is not None:
        options += struct.pack(order + "HHB3x", 9, 1, tsresol)
    if offset:
        options += struct.pack(order + "HHq", 14, 8, offset)
    if options:
        options += struct.pack(order + "HH", 0, 0)
    return block(order, 1, struct.pack(order + "HHI", link, 0, snaplen) + options)


def enhanced(frame: Frame, order: str = "<", number: int = 0, ticks: int | None = None) -> bytes:
    ticks = frame.time_ns // 1000 if ticks is None else ticks
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(frame.data), frame.length)
    return block(order, 6, head + frame.data + bytes(-len(frame.data) % 4))


def simple(frame: Frame, order: str = "<") -> bytes:
    return block(order, 3, struct.pack(order + "I", frame.length) + frame.data)


def pcapng(frames: list[Frame], order: str = "<", link: int = 1) -> bytes:
    return section(order) + interface(order, link) + b"".join(enhanced(frame, order) for frame in frames)


@dataclass
class Connection:
    """A TCP connection that writes its own frames. Times move on by a millisecond each."""

    client: tuple[str, int] = ("10.1.0.20", 40000)
    server: tuple[str, int] = ("10.20.0.17", 502)
    client_seq: int = 1000
    server_seq: int = 5000
    time_ns: int = T0
    frames: list[Frame] = field(default_factory=list)

    def packet(self, from_client: bool, flags: int, payload: bytes = b"", seq: int | None = None) -> Frame:
        """Adds a packet at the present position, or at `seq`; moves the position on if it is the present one."""
        mine = self.client_seq if from_client else self.server_seq
        peer = self.server_seq if from_client else self.client_seq
        ends = (self.client, self.server) if from_client else (self.server, self.client)
        at = mine if seq is None else seq
        segment = tcp(ends[0], ends[1], at, peer if flags & ACK else 0, flags, payload)
        version6 = ":" in ends[0][0]
        body = (ipv6 if version6 else ipv4)(ends[0][0], ends[1][0], segment)
        self.time_ns += MS
        frame = Frame(self.time_ns, ethernet(body, 0x86DD if version6 else 0x0800))
        self.frames.append(frame)
        if seq is None:
            moved = len(payload) + bool(flags & SYN) + bool(flags & FIN)
            if from_client:
                self.client_seq += moved
            else:
                self.server_seq += moved
        return frame

    def open(self) -> Connection:
        self.packet(True, SYN)
        self.packet(False, SYN | ACK)
        self.packet(True, ACK)
        return self

    def ask(self, data: bytes) -> Frame:
        return self.packet(True, PSH | ACK, data)

    def answer(self, data: bytes) -> Frame:
        return self.packet(False, PSH | ACK, data)

    def close(self) -> Connection:
        self.packet(True, FIN | ACK)
        self.packet(False, FIN | ACK)
        self.packet(True, ACK)
        return self


def adu(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A Modbus TCP frame."""
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def read_request(transaction: int, start: int, count: int, *, unit: int = 1, function: int = 3) -> bytes:
    return adu(transaction, unit, struct.pack(">BHH", function, start, count))


def read_answer(transaction: int, words: list[int], *, unit: int = 1, function: int = 3) -> bytes:
    return adu(transaction, unit, struct.pack(f">BB{len(words)}H", function, 2 * len(words), *words))


def write_request(transaction: int, address: int, value: int, *, unit: int = 1, function: int = 6) -> bytes:
    """Also its own answer: FC 5 and 6 are echoed."""
    return adu(transaction, unit, struct.pack(">BHH", function, address, value))


def write_many(transaction: int, address: int, words: list[int], *, unit: int = 1) -> bytes:
    head = struct.pack(">BHHB", 16, address, len(words), 2 * len(words))
    return adu(transaction, unit, head + struct.pack(f">{len(words)}H", *words))
