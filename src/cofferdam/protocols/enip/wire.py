"""Encapsulation and common packet format (CIP Volume 2, chapters 2-3 and 2-6): frames and what is in them.

Not here: CIP itself (requests, replies), who may say what when (machine).
"""

from __future__ import annotations

import struct
from typing import Final

from cofferdam.errors import RemoteProtocolError

HEADER: Final = struct.Struct("<HHII8sI")
_BEGIN: Final = struct.Struct("<HH")
"""command, length of what follows, session, status, sender context, options."""
SIZE: Final = 24
MOST_DATA: Final = 8192
"""Bytes after a header, at most (ours; the standard's 65,511 no device sends)."""
ENCAPSULATION: Final = "CIP Volume 2, 2-3 (encapsulation)"
PACKET: Final = "CIP Volume 2, 2-6 (common packet format)"

NOP, LIST_SERVICES, LIST_IDENTITY, LIST_INTERFACES = 0x00, 0x04, 0x63, 0x64
REGISTER, UNREGISTER, SEND_RR, SEND_UNIT = 0x65, 0x66, 0x6F, 0x70
COMMANDS: Final = frozenset(
    {NOP, LIST_SERVICES, LIST_IDENTITY, LIST_INTERFACES, REGISTER, UNREGISTER, SEND_RR, SEND_UNIT}
)
GOOD, UNKNOWN_COMMAND, BAD_DATA, UNKNOWN_SESSION, WRONG_LENGTH, WRONG_VERSION = 0, 1, 3, 0x64, 0x65, 0x69

NULL_ADDRESS, CONNECTED_ADDRESS, SEQUENCED_ADDRESS = 0x0000, 0x00A1, 0x8002
CONNECTED, UNCONNECTED = 0x00B1, 0x00B2
TO_TARGET, TO_ORIGINATOR = 0x8000, 0x8001
_UNCONNECTED: Final = bytes(6) + b"\2\0\0\0\0\0\xb2\0"
_CONNECTED: Final = struct.Struct("<6sHHHIHHH")
ITEMS: Final = 4
"""Items of one packet, at most."""


class BadPacket(Exception):
    """A packet that breaks the common packet format; `str(error)` says how."""


def _check(command: int, length: int) -> None:
    """Raises: RemoteProtocolError where a header with these is none."""
    if command > 0xFF:
        raise RemoteProtocolError("a command above 00FF, which is no encapsulation", section=ENCAPSULATION, offset=0)
    if length > MOST_DATA:
        raise RemoteProtocolError(f"a frame of more than {MOST_DATA} bytes", section=ENCAPSULATION, offset=2)


class Frames:
    """Bytes in, frames out."""

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    def add(self, data: bytes) -> None:
        self._data = self._data[self._at :] + data
        self._at = 0

    @property
    def buffered(self) -> int:
        return len(self._data) - self._at

    def next(self) -> tuple[int, int, int, bytes, int, bytes] | None:
        """(command, session, status, context, options, data) of the next frame; None while it is not whole.

        Raises: RemoteProtocolError where what comes is no such frame.
        """
        data, at = self._data, self._at
        have = len(data) - at
        if have < SIZE:
            if have:  # what is no such frame is found out before its header is whole
                command, length = _BEGIN.unpack(data[at : at + 4].ljust(4, b"\0"))
                _check(command, length)
            return None
        command, length, session, status, context, options = HEADER.unpack_from(data, at)
        _check(command, length)
        if have < SIZE + length:
            return None
        self._at = at + SIZE + length
        body = data[at + SIZE : self._at]
        if self._at == len(data):
            self._data, self._at = b"", 0
        return command, session, status, context, options, body


def frame(command: int, session: int, context: bytes, data: bytes = b"", status: int = GOOD) -> bytes:
    """One frame."""
    return HEADER.pack(command, len(data), session, status, context, 0) + data


def packet(items: tuple[tuple[int, bytes], ...]) -> bytes:
    """What a SendRRData or SendUnitData carries: interface 0, time-out 0, and items."""
    return bytes(6) + listed(items)


def unconnected(cip: bytes) -> bytes:
    """What a SendRRData carries, nearly always: a null address, and CIP."""
    return _UNCONNECTED + len(cip).to_bytes(2, "little") + cip


def unconnected_of(data: bytes) -> bytes | None:
    """The CIP in what `unconnected` makes, byte by byte; None for what has another form, which may be as good."""
    if data[:14] == _UNCONNECTED and len(data) >= 16 and data[14] + 256 * data[15] == len(data) - 16:
        return data[16:]
    return None


def connected(number: int, sequence: int, cip: bytes) -> bytes:
    """What a SendUnitData carries: a connection's id, a sequence number, and CIP."""
    return _CONNECTED.pack(b"", 2, CONNECTED_ADDRESS, 4, number, CONNECTED, 2 + len(cip), sequence) + cip


def connected_of(data: bytes) -> tuple[int, int, bytes] | None:
    """(connection, sequence number, CIP) in what `connected` makes, byte by byte; None for what has another form, which
    may be as good."""
    if len(data) < _CONNECTED.size:
        return None
    begin, items, first, four, number, second, size, sequence = _CONNECTED.unpack_from(data)
    if begin != bytes(6) or (items, first, four, second, size) != (2, CONNECTED_ADDRESS, 4, CONNECTED, len(data) - 20):
        return None
    return number, sequence, data[_CONNECTED.size :]


def listed(items: tuple[tuple[int, bytes], ...]) -> bytes:
    """Items with their count."""
    return len(items).to_bytes(2, "little") + b"".join(
        kind.to_bytes(2, "little") + len(data).to_bytes(2, "little") + data for kind, data in items
    )


def items_of(data: bytes) -> list[tuple[int, bytes]]:
    """The items of a SendRRData or SendUnitData. Raises: BadPacket."""
    if len(data) < 8:
        raise BadPacket("no room for interface, time-out and count")
    if data[:4] != b"\0\0\0\0":
        raise BadPacket("an interface that is not CIP")
    return items_at(data, 6)


def items_at(data: bytes, at: int) -> list[tuple[int, bytes]]:
    """The items from `at` on, with their count. Raises: BadPacket."""
    count = int.from_bytes(data[at : at + 2], "little")
    if len(data) < at + 2 or count > ITEMS:
        raise BadPacket(f"{count} items, at most {ITEMS} are known")
    found: list[tuple[int, bytes]] = []
    at += 2
    for _ in range(count):
        if at + 4 > len(data):
            raise BadPacket("an item without its length")
        kind, size = struct.unpack_from("<HH", data, at)
        at += 4 + size
        if at > len(data):
            raise BadPacket("an item that ends after its packet")
        found.append((kind, data[at - size : at]))
    if at != len(data):
        raise BadPacket(f"{len(data) - at} bytes after the last item")
    return found
