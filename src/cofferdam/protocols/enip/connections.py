"""Class-3 connections of a client, and routes: both end here.

Forward Open and Close to the message router are answered by this side; ids are its own, and nothing is opened at the
device. Not here: I/O connections (class 0 and 1).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cofferdam.model import Asset
from cofferdam.protocols.enip import paths
from cofferdam.protocols.enip.requests import CONNECTION, LONG, SECTION, SHORT, Refused

CONNECTIONS: Final = 4
"""Class-3 connections of one TCP connection, at most."""
PLAIN, LARGE = 504, 4002
"""Bytes of a connection's packets, at most."""
_HEAD: Final = struct.Struct("<BBIIHHIB3x")
BOOK: Final = "CIP Volume 1, 3-5.5 (connection manager)"


class Link:
    """A connection's ids: `number` is ours, `to_client` the client's; `room`: bytes of an answer."""

    __slots__ = ("name", "number", "room", "to_client")

    def __init__(self, number: int, to_client: int, room: int, name: tuple[int, int, int]) -> None:
        self.number = number
        self.to_client = to_client
        self.room = room
        self.name = name


class Opening(NamedTuple):
    """A Forward Open. RPIs in µs; parameters as the plain form has them, with a size of its own."""

    to_target: int
    to_originator: int
    serial: int
    vendor: int
    originator: int
    multiplier: int
    rpi_to_target: int
    parameters_to_target: tuple[int, int]
    rpi_to_originator: int
    parameters_to_originator: tuple[int, int]
    transport: int
    path: paths.Path

    @property
    def name(self) -> tuple[int, int, int]:
        """What names the connection for whoever opened it."""
        return self.serial, self.vendor, self.originator


class Connections:
    """The connections of one client."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._last = 0

    def link(self, number: int, midway: bool) -> Link | None:
        """The connection that a client's packet names. `midway`: what was opened before is taken as it is."""
        if midway and number not in self._links:
            return Link(number, number, LARGE, (0, 0, 0))
        return self._links.get(number)

    def opening(self, large: bool, body: bytes) -> Opening:
        """Reads a Forward Open. Raises: Refused."""
        form = "<IIIIB" if large else "<IHIHB"
        start = _HEAD.size
        size = start + struct.calcsize(form) + 1
        if len(body) < size:
            raise Refused(SHORT, "a Forward Open that ends too early", BOOK)
        _, _, target, originator, serial, vendor, own, multiplier = _HEAD.unpack_from(body)
        rpi_out, out, rpi_in, into, transport = struct.unpack_from(form, body, start)
        words = body[size - 1]
        if len(body) != size + 2 * words:
            raise Refused(SHORT if len(body) < size + 2 * words else LONG, "a Forward Open of another length", BOOK)
        if multiplier > 7:
            raise Refused(CONNECTION, f"the time-out multiplier {multiplier}", BOOK, 0x0205)
        try:
            path = paths.parse(body, size, len(body))
        except paths.BadPath as error:
            raise Refused(CONNECTION, str(error), paths.SECTION, 0x0315) from None
        mask = 0xFFFF if large else 0x1FF
        return Opening(
            target, originator, serial, vendor, own, multiplier, rpi_out, (out & mask, out & ~mask), rpi_in,
            (into & mask, into & ~mask), transport, path,
        )  # fmt: skip

    def open(self, opening: Opening, asset: Asset | None) -> bytes:
        """Opens a class-3 connection; the answer's data. Raises: Refused."""
        path = opening.path
        check_route(path.route, asset)
        if (path.cls, path.instance) != (paths.ROUTER, 1) or path.points or path.names:
            raise Refused(CONNECTION, "a class-3 connection to another object than the message router", BOOK, 0x0123)
        if not opening.transport & 0x80 or opening.transport & 0x0F != 3:
            raise Refused(CONNECTION, f"the transport {opening.transport:02X}", BOOK, 0x0103)
        size = min(opening.parameters_to_target[0], opening.parameters_to_originator[0])
        if size < 20 or max(opening.parameters_to_target[0], opening.parameters_to_originator[0]) > LARGE:
            raise Refused(CONNECTION, f"packets of {size} bytes", BOOK, 0x0109)
        if any(link.name == opening.name for link in self._links.values()):
            raise Refused(CONNECTION, "a connection that is open already", BOOK, 0x0100)
        if len(self._links) >= CONNECTIONS:
            raise Refused(CONNECTION, f"more than {CONNECTIONS} connections", BOOK, 0x0113)
        self._last += 1
        number = 0x0C0F_0000 + (self._last & 0xFFFF)
        self._links[number] = Link(number, opening.to_originator, size - 2, opening.name)
        return struct.pack(
            "<IIHHIIIBx", number, opening.to_originator, *opening.name,
            opening.rpi_to_target, opening.rpi_to_originator, 0,
        )  # fmt: skip

    def close(self, body: bytes) -> bytes:
        """Closes one; the answer's data. Raises: Refused."""
        if len(body) < 12:
            raise Refused(SHORT, "a Forward Close that ends too early", BOOK)
        name = struct.unpack_from("<HHI", body, 2)
        for number, link in self._links.items():
            if link.name == name:
                del self._links[number]
                return struct.pack("<HHIBx", *name, 0)
        raise Refused(CONNECTION, "a connection that is not open", BOOK, 0x0107)

    def unwrapped(self, body: bytes, asset: Asset | None) -> bytes:
        """The request in an Unconnected Send. Raises: Refused."""
        size = int.from_bytes(body[2:4], "little")
        end = 4 + size + (size & 1)
        if len(body) < end + 2 or size < 2:
            raise Refused(SHORT, "an Unconnected Send that ends within its request", SECTION)
        words = body[end]
        if len(body) != end + 2 + 2 * words or body[end + 1]:
            raise Refused(SHORT if len(body) < end + 2 + 2 * words else LONG, "a route of another length", SECTION)
        try:
            path = paths.parse(body, end + 2, len(body))
        except paths.BadPath as error:
            raise Refused(CONNECTION, str(error), paths.SECTION, 0x0315) from None
        if path != paths.Path(route=path.route):
            raise Refused(CONNECTION, "a route with other segments", paths.SECTION, 0x0315)
        check_route(path.route, asset)
        return body[4 : 4 + size]


def check_route(route: tuple[tuple[int, int], ...], asset: Asset | None) -> None:
    """No route, or the asset's own. Raises: Refused."""
    if not route:
        return
    own = asset.route if asset is not None else None
    allowed = {paths.of_route(own)} if own else set()
    if own is None:  # a bystander, who knows of no asset
        return
    if b"".join(bytes(hop) for hop in route) not in allowed:
        named = " ".join(f"{port}/{link}" for port, link in route)
        known = f"{own} is allowed" if own else "the policy names none"
        raise Refused(CONNECTION, f"the route {named} is asked; {known}", BOOK, 0x0311)
