"""Readers of pcap and pcapng files: a stream of bytes in, packets with exact times out.

Formats: draft-ietf-opsawg-pcap (magic for microseconds and nanoseconds, both byte orders) and
draft-ietf-opsawg-pcapng (several sections, each with its byte order; several interfaces; if_tsresol and
if_tsoffset; Enhanced, Simple and the obsolete Packet Block; blocks of other types skipped). One packet is in memory
at a time, and every length is checked against a limit before anything of that length is read.

A file that ends in the middle, or goes on with something that is no packet, raises CaptureError *after* the packets
before it were handed out; the error says how many, and at which byte it stopped.

A file compressed by gzip is read as what is in it, piece by piece. Not here: what is in the packets (frames.py). Files
compressed otherwise are named as such and refused.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

import msgspec

from cofferdam.capture.limits import CaptureLimits
from cofferdam.errors import CaptureError

SECOND_NS: Final = 1_000_000_000
_SKIP_PIECE: Final = 1 << 16

# First bytes of files that people hand us by mistake, and what to do about it.
_FOREIGN: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "decompress it first: zstd -dk FILE"),
    (b"\xfd7zXZ", "xz-compressed", "decompress it first: xz -dk FILE"),
    (b"BZh", "bzip2-compressed", "decompress it first: bzip2 -dk FILE"),
    (b"\x04\x22\x4d\x18", "lz4-compressed", "decompress it first: lz4 -dk FILE"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"snoop\0\0\0", "a Solaris snoop capture", "convert it: editcap -F pcapng FILE OUT"),
    (b"\xa1\xb2\xcd\x34", "a capture of the modified pcap format", "convert it: editcap -F pcapng FILE OUT"),
    (b"\x34\xcd\xb2\xa1", "a capture of the modified pcap format", "convert it: editcap -F pcapng FILE OUT"),
)

_PCAP_MAGIC: Final[dict[bytes, tuple[str, int]]] = {  # first bytes -> (byte order, ns per tick)
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_OBSOLETE_PACKET: Final = 2
_SIMPLE_PACKET: Final = 3
_ENHANCED_PACKET: Final = 6
_OPTION_TSRESOL: Final = 9
_OPTION_TSOFFSET: Final = 14


_GZIP: Final = b"\x1f\x8b"


class _Again:
    """A stream of which the first bytes were read already."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        self._first = first
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if self._first and size != 0:
            first, self._first = self._first, b""
            if 0 <= size < len(first):
                first, self._first = first[:size], first[size:]
            return first
        return self._stream.read(size)


class Packet(msgspec.Struct, frozen=True, gc=False):
    """One captured packet. `number` counts from 1 as Wireshark does; `time_ns` is UTC, or -1 where the file has
    no time for it (Simple Packet Block); `offset` is where its record starts in the file; `length` is what it
    measured on the wire, of which `data` is the captured beginning."""

    number: int
    time_ns: int
    link: int
    length: int
    data: bytes
    offset: int


class _Interface(msgspec.Struct, frozen=True, gc=False):
    link: int
    snaplen: int
    ticks_per_second: int
    offset_ns: int


class CaptureFile:
    """Reads packets from `stream`. Iterate once.

    Attributes: `packets` handed out so far, `offset` the byte up to which the file was understood, `format`
    ("pcap", "pcapng", or "" before the first packet was asked for).
    """

    def __init__(self, stream: BinaryIO, name: str = "capture", limits: CaptureLimits | None = None) -> None:
        self._stream = stream
        self._limits = limits or CaptureLimits()
        self.name = name
        self.packets = 0
        self.offset = 0
        self.format = ""
        self._position = 0

    def __iter__(self) -> Iterator[Packet]:
        """The packets in file order.

        Raises:
            CaptureError: the file is no capture, is damaged, ends in the middle of a record, or cannot be read.
        """
        magic = self._read_some(4)
        if magic[:2] == _GZIP:
            self._stream = cast(BinaryIO, gzip.GzipFile(fileobj=cast(BinaryIO, _Again(magic, self._stream))))
            self._position = 0
            magic = self._read_some(4)
        if magic in _PCAP_MAGIC:
            self.format = "pcap"
            yield from self._pcap(*_PCAP_MAGIC[magic])
        elif magic == _SECTION.to_bytes(4, "big"):
            self.format = "pcapng"
            yield from self._pcapng()
        else:
            raise self._foreign(magic)

    # -- pcap ------------------------------------------------------------------------------------------------

    def _pcap(self, order: str, tick_ns: int) -> Iterator[Packet]:
        header = self._read(20, "file header")
        major, minor, _zone, _figures, _snaplen, link = struct.unpack(order + "HHiIII", header)
        if major != 2 or not 0 <= minor <= 4:
            raise self._damaged(f"pcap version {major}.{minor}; 2.4 is the one in use")
        link &= 0xFFFF  # the upper half holds the length of a frame check sequence, which IP lengths leave out
        self.offset = self._position
        record = struct.Struct(order + "IIII")
        while True:
            head = self._read_some(16)
            if not head:
                return
            if len(head) < 16:
                raise self._cut_off("packet header", len(head), 16)
            seconds, fraction, captured, length = record.unpack(head)
            if minor < 3 or (minor == 3 and captured > length):  # the two stood the other way round before 2.3
                captured, length = length, captured
            if captured > self._limits.packet_bytes:
                raise self._damaged(f"packet {self.packets + 1} claims {captured} captured bytes")
            data = self._read(captured, f"packet {self.packets + 1}")
            # Some tools write a negative fraction: such a packet has no time, and counts as sent at the one before it.
            time_ns = seconds * SECOND_NS + fraction * tick_ns if fraction * tick_ns < 2 * SECOND_NS else -1
            yield self._packet(time_ns, link, max(length, captured), data)

    # -- pcapng ----------------------------------------------------------------------------------------------

    def _pcapng(self) -> Iterator[Packet]:
        interfaces: list[_Interface] = []
        order = self._section(self._read(4, "section header"))
        while True:
            head = self._read_some(8)
            if not head:
                return
            if len(head) < 8:
                raise self._cut_off("block header", len(head), 8)
            kind, length = struct.unpack(order + "II", head)
            if kind == _SECTION:
                interfaces = []
                order = self._section(head[4:])
                continue
            if length < 12 or length % 4:
                raise self._damaged(f"a block of type {kind:#x} has the impossible length {length}")
            if kind not in (_INTERFACE, _ENHANCED_PACKET, _SIMPLE_PACKET, _OBSOLETE_PACKET):
                self._skip(length - 12)
                self._end_block(order, length)
                continue
            if length > self._limits.block_bytes:
                raise self._damaged(f"a block of type {kind:#x} claims {length} bytes")
            body = self._read(length - 12, f"block of type {kind:#x}")
            self._end_block(order, length, keep_offset=True)
            if kind == _INTERFACE:
                if len(interfaces) >= self._limits.interfaces:
                    raise self._damaged(f"more than {self._limits.interfaces} interfaces in one section")
                interfaces.append(self._interface(body, order))
                self.offset = self._position
            elif kind == _SIMPLE_PACKET:
                yield self._simple(body, order, interfaces)
            else:
                yield self._enhanced(kind, body, order, interfaces)

    def _section(self, raw_length: bytes) -> str:
        """A Section Header Block whose type and length were read. Returns the section's byte order."""
        marker = self._read(4, "section header")
        order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(marker)
        if order is None:
            raise self._damaged(f"a section starts with the unknown byte-order mark {marker.hex()}")
        (length,) = struct.unpack(order + "I", raw_length)
        if length < 28 or length % 4:
            raise self._damaged(f"a section header has the impossible length {length}")
        major, minor = struct.unpack(order + "HH", self._read(4, "section header"))
        if major != 1:
            raise self._damaged(f"pcapng version {major}.{minor}; 1.0 is the one in use")
        self._skip(length - 20)
        self._end_block(order, length)
        return order

    def _interface(self, body: bytes, order: str) -> _Interface:
        if len(body) < 8:
            raise self._damaged("an interface description is too short")
        link, _reserved, snaplen = struct.unpack_from(order + "HHI", body)
        ticks = 1_000_000
        offset_ns = 0
        for code, value in self._options(body, 8, order):
            if code == _OPTION_TSRESOL and len(value) == 1:
                exponent = value[0] & 0x7F
                if exponent > 64:
                    raise self._damaged(f"an interface has the impossible time resolution {value[0]:#x}")
                ticks = (2 if value[0] & 0x80 else 10) ** exponent
            elif code == _OPTION_TSOFFSET and len(value) == 8:
                offset_ns = struct.unpack(order + "q", value)[0] * SECOND_NS
        return _Interface(link, snaplen, ticks, offset_ns)

    def _options(self, body: bytes, at: int, order: str) -> Iterator[tuple[int, bytes]]:
        while at + 4 <= len(body):
            code, length = struct.unpack_from(order + "HH", body, at)
            if code == 0:
                return
            if at + 4 + length > len(body):
                raise self._damaged("an interface description has an option longer than itself")
            yield code, body[at + 4 : at + 4 + length]
            at += 4 + (length + 3) // 4 * 4

    def _enhanced(self, kind: int, body: bytes, order: str, interfaces: list[_Interface]) -> Packet:
        if len(body) < 20:
            raise self._damaged(f"the block of packet {self.packets + 1} is too short")
        if kind == _ENHANCED_PACKET:
            number, high, low, captured, length = struct.unpack_from(order + "IIIII", body)
        else:
            number, _drops, high, low, captured, length = struct.unpack_from(order + "HHIIII", body)
        if captured > len(body) - 20 or captured > self._limits.packet_bytes:
            raise self._damaged(f"packet {self.packets + 1} claims {captured} captured bytes")
        if number >= len(interfaces):
            raise self._damaged(f"packet {self.packets + 1} names interface {number}, which nothing describes")
        interface = interfaces[number]
        ticks = high << 32 | low
        time_ns = ticks * SECOND_NS // interface.ticks_per_second + interface.offset_ns
        if not 0 <= time_ns < 1 << 63:
            time_ns = -1
        return self._packet(time_ns, interface.link, max(length, captured), body[20 : 20 + captured])

    def _simple(self, body: bytes, order: str, interfaces: list[_Interface]) -> Packet:
        if len(body) < 4 or not interfaces:
            raise self._damaged(f"the block of packet {self.packets + 1} is too short or has no interface")
        (length,) = struct.unpack_from(order + "I", body)
        interface = interfaces[0]  # a Simple Packet Block always belongs to the first interface
        captured = min(length, len(body) - 4)
        if interface.snaplen:
            captured = min(captured, interface.snaplen)
        elif captured < length:
            raise self._damaged(f"packet {self.packets + 1} is shorter than it says")
        if captured > self._limits.packet_bytes:
            raise self._damaged(f"packet {self.packets + 1} claims {captured} captured bytes")
        return self._packet(-1, interface.link, length, body[4 : 4 + captured])

    def _end_block(self, order: str, length: int, *, keep_offset: bool = False) -> None:
        (again,) = struct.unpack(order + "I", self._read(4, "end of a block"))
        if again != length:
            raise self._damaged(f"a block ends with the length {again} where it began with {length}")
        if not keep_offset:
            self.offset = self._position

    # -- bytes -----------------------------------------------------------------------------------------------

    def _packet(self, time_ns: int, link: int, length: int, data: bytes) -> Packet:
        packet = Packet(self.packets + 1, time_ns, link, length, data, self.offset)
        self.packets += 1
        self.offset = self._position
        return packet

    def _read_some(self, size: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        parts: list[bytes] = []
        left = size
        while left:
            try:
                part = self._stream.read(left)
            except (OSError, EOFError, zlib.error) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise self._error(
                    f"cannot be read any further: {why}", "copy the file again, if it is a copy"
                ) from error
            if not part:
                break
            parts.append(part)
            left -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._position += len(data)
        return data

    def _read(self, size: int, what: str) -> bytes:
        data = self._read_some(size)
        if len(data) < size:
            raise self._cut_off(what, len(data), size)
        return data

    def _skip(self, size: int) -> None:
        left = size
        while left:
            piece = min(left, _SKIP_PIECE)
            got = len(self._read_some(piece))
            left -= got
            if got < piece:
                raise self._cut_off("block", size - left, size)

    def _error(self, what: str, hint: str = "") -> CaptureError:
        read = f"read up to byte {self.offset}: {self.packets} packet{'' if self.packets == 1 else 's'}"
        return CaptureError(f"{self.name}: {what}; {read}", hint=hint)

    def _cut_off(self, what: str, have: int, want: int) -> CaptureError:
        return self._error(
            f"the file is cut off in the {what} at byte {self.offset} ({have} of {want} bytes are there)",
            "a capture that was still being written, or a copy that did not finish: copy it again",
        )

    def _damaged(self, what: str) -> CaptureError:
        return self._error(
            f"damaged at byte {self.offset}: {what}", "what comes before that byte was read; the rest was not"
        )

    def _foreign(self, magic: bytes) -> CaptureError:
        if not magic:
            return CaptureError(f"{self.name}: the file is empty", hint="a pcap or pcapng file was expected")
        start = magic + self._read_some(4)
        for prefix, what, hint in _FOREIGN:
            if start.startswith(prefix):
                return CaptureError(f"{self.name}: this is {what}, not pcap or pcapng", hint=hint)
        return CaptureError(
            f"{self.name}: not a pcap or pcapng file (it starts with {magic.hex(' ')})",
            hint="make one with tcpdump -w FILE, dumpcap or Wireshark; `file FILE` may say what this is",
        )
