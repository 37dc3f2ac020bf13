"""What a client's requests came in, as the server's machine keeps it: frames, connections, packets, pieces.

Not here: what is done with it (server).
"""

from __future__ import annotations

from typing import Any, Final

from cofferdam.model import Asset, Item
from cofferdam.protocols.enip import replies, requests, wire
from cofferdam.protocols.enip.connections import Link
from cofferdam.protocols.enip.requests import Known, Refused

UNCONNECTED: Final = 504
"""Bytes of an answer outside a connection, at most."""


def known_of(asset: Asset | None) -> Known:
    """What the machines need of an asset's points."""
    if asset is None:
        return Known(every=True)
    arrays = {point.at.name for point in asset.points if isinstance(point.at, Item) and point.at.first >= 0}
    types = {
        point.at.name: point.type for point in asset.points if isinstance(point.at, Item) and point.at.kind == "cip"
    }
    return Known(frozenset(arrays), types)


def out_of_place(why: str) -> Refused:
    """What is said to a piece that does not belong where it says."""
    return Refused(requests.EXTENDED, why, requests.DATA_ACCESS, requests.BEYOND)


class Divided:
    """A packet that was divided: answers by their place."""

    def __init__(self, asked: Asked, count: int) -> None:
        self.asked = asked
        self.answers: list[bytes | None] = [None] * count
        self.left = count
        self.silent = False  # it has no answer, since one of its parts has none


class Asked:
    """What a request came in."""

    __slots__ = (
        "beside", "command", "context", "link", "list", "offset", "opening", "packet", "parts", "piece", "place",
        "port", "request", "sequence", "service", "session",
    )  # fmt: skip

    def __init__(self, command: int, session: int, context: bytes, link: Link | None, sequence: int) -> None:
        self.command = command
        self.session = session
        self.context = context
        self.link = link
        self.sequence = sequence
        self.service = 0
        self.request: Any = None
        self.parts: tuple[int, ...] = ()  # services of a packet's parts
        self.packet: Divided | None = None  # the divided packet that it is a part of
        self.place = 0
        self.piece = False  # the value is asked in pieces
        self.offset = 0
        self.opening: Any = None  # the Forward Open of an I/O connection, and where its client takes packets
        self.port = 0
        self.beside: tuple[tuple[int, bytes], ...] = ()  # further items of its answer
        self.list: Any = None  # which page of a list is asked

    @property
    def room(self) -> int:
        """Bytes that an answer may have."""
        return UNCONNECTED if self.link is None else self.link.room


class Fetched:
    """A value that a client fetches in pieces."""

    __slots__ = ("data", "head", "offset")

    def __init__(self, head: bytes, data: bytes) -> None:
        self.head = head
        self.data = data
        self.offset = 0


class Draft:
    """A value that comes in pieces."""

    __slots__ = ("code", "data", "handle", "item", "size")

    def __init__(self, item: Item, code: int, handle: int, size: int) -> None:
        self.item = item
        self.code = code
        self.handle = handle
        self.size = size
        self.data = b""


def once(data: bytes) -> bytes:
    """A request that pycomm3 says twice, with a sequence number in between, as it writes a single tag: the one request.
    Anything else stays as it is."""
    size = (len(data) - 2) // 2
    return data[:size] if size > 4 and len(data) == 2 * size + 2 and data[size + 2 :] == data[:size] else data


def address_of(place: tuple[str, int]) -> bytes:
    """A place as a socket address item has it; zeros for IPv6, which it cannot say."""
    host, port = place
    numbers = host.split(".")
    address = bytes(map(int, numbers)) if len(numbers) == 4 else bytes(4)
    return b"\0\2" + port.to_bytes(2, "big") + address + bytes(8)


def packed(parts: list[bytes], room: int) -> bytes:
    """A packet's answer; what finds no room in it is answered with 11 (reply too large)."""
    left = room - 6 - 2 * len(parts) - 4 * len(parts)
    for place, part in enumerate(parts):
        left -= len(part) - 4
        if left < 0:
            left += len(part) - 4
            parts[place] = bytes([part[0], 0, 0x11, 0])
    failed = any(part[2] for part in parts)
    return replies.reply(requests.PACKET, 0x1E if failed else 0, (), requests.packet(parts))


def services_of(asset: Asset | None) -> bytes:
    """ListServices: version 1, CIP over TCP, and class 0 and 1 by UDP where there are I/O connections."""
    flags = 0x0120 if asset is not None and asset.streams else 0x0020
    return wire.listed(((0x0100, b"\1\0" + flags.to_bytes(2, "little") + b"Communications\0\0"),))
