"""Connections that a client opens, and routes: both end here.

Forward Open and Close to the message router are answered by this side; ids are its own, and nothing is opened at the
device. Not here: the packets of I/O connections (io).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cofferdam.model import Asset, Item
from cofferdam.protocols.enip import paths, wire
from cofferdam.protocols.enip.dialect import learned_name
from cofferdam.protocols.enip.epath import Path
from cofferdam.protocols.enip.io import FIRST_NS, forms_of
from cofferdam.protocols.enip.io import PORT as IO_PORT
from cofferdam.protocols.enip.keys import key_of
from cofferdam.protocols.enip.messages import FASTEST_US, LONGEST, SLOWEST_US, OpenIo
from cofferdam.protocols.enip.requests import CONNECTION, LONG, SECTION, SHORT, Refused

IO_CONNECTIONS: Final = 64
"""I/O connections of one TCP connection, at most."""
OPENS_A_SECOND: Final = 10
"""I/O connections that one TCP connection may open a second, once it has opened as many as it may have."""
CONNECTIONS: Final = 4
"""Class-3 connections of one TCP connection, at most."""
PLAIN, LARGE = 504, 4002
"""Bytes of a connection's packets, at most."""
_HEAD: Final = struct.Struct("<BBIIHHIB3x")
BOOK: Final = "CIP Volume 1, 3-5.5 (connection manager)"


class Unknown(Exception):
    """An I/O connection that is none of the policy's streams."""


class Link:
    """A connection's ids: `number` is ours, `to_client` the client's; `room`: bytes of an answer. Of the last request
    in it: `sequence`, its number; `asked`, what it said; `changes`: it may have changed something; `answer`: what was
    answered, b"" while nothing was."""

    __slots__ = ("answer", "asked", "changes", "due", "name", "number", "room", "sequence", "timeout_ns", "to_client")

    def __init__(
        self, number: int, to_client: int, room: int, name: tuple[int, int, int], timeout_ns: int = 0, now: int = 0
    ) -> None:
        """`timeout_ns`: for so long the client may ask nothing; 0: a bystander's, which has none."""
        self.timeout_ns = timeout_ns
        self.due = now + timeout_ns
        self.number = number
        self.to_client = to_client
        self.room = room
        self.name = name
        self.sequence = -1
        self.asked = self.answer = b""
        self.changes = False

    def again(self, sequence: int, data: bytes) -> bool:
        """Whether a request is the last one, sent once more: by its number, which whoever repeats one does not count
        on (CIP Volume 1, 3-4.4: it is answered again, and not carried out). What changes nothing is asked anew."""
        if self.changes and sequence == self.sequence and data == self.asked:
            return True
        self.sequence, self.asked, self.answer, self.changes = sequence, data, b"", False
        return False


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
    path: Path

    @property
    def name(self) -> tuple[int, int, int]:
        """What names the connection for whoever opened it."""
        return self.serial, self.vendor, self.originator


class Connections:
    """The connections of one client."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self.io_names: dict[int, tuple[int, int, int]] = {}
        """Names of I/O connections that are open or being opened, by the token of the request."""
        self._last = 0
        self._opens = float(IO_CONNECTIONS)
        self._opens_at = 0

    def link(self, number: int, midway: bool, now: int) -> Link | None:
        """The connection that a client's packet names, which is used by it; one whose time is over is closed. `midway`:
        what was opened before is taken as it is. `now`: monotonic ns."""
        found = self._links.get(number)
        if midway:
            return found or Link(number, number, LARGE, (0, 0, 0))
        if found is not None and now > found.due:
            del self._links[number]
            return None
        if found is not None:
            found.due = now + found.timeout_ns
        return found

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

    def open(self, opening: Opening, asset: Asset | None, now: int) -> bytes:
        """Opens a class-3 connection; the answer's data. `now`: monotonic ns. Raises: Refused."""
        size = self.check(opening, asset, now)
        self._last += 1
        number = 0x0C0F_0000 + (self._last & 0xFFFF)
        # What the client sends by: it is to come within so many of its intervals (CIP Volume 1, 3-4.4). Nobody gains by
        # an interval that is shorter than how often its client asks.
        timeout_ns = max(FIRST_NS, opening.rpi_to_target * 1000 * (4 << opening.multiplier))
        self._links[number] = Link(number, opening.to_originator, size - 2, opening.name, timeout_ns, now)
        return struct.pack(
            "<IIHHIIIBx", number, opening.to_originator, *opening.name,
            opening.rpi_to_target, opening.rpi_to_originator, 0,
        )  # fmt: skip

    def check(self, opening: Opening, asset: Asset | None, now: int) -> int:
        """Whether a class-3 connection may be opened; the bytes of its packets. Raises: Refused."""
        self._links = {number: link for number, link in self._links.items() if now <= link.due}
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
        return size

    def io(
        self, opening: Opening, asset: Asset | None, beside: list[tuple[int, bytes]], source: str, now: int
    ) -> OpenIo:
        """What an I/O connection asks, if it is one of the policy's streams. `asset`: None for a bystander, who knows
        of none. `now`: monotonic ns. Raises: Refused, Unknown."""
        path = opening.path
        check_route(path.route, asset)
        points = path.points or path.instances[1:]
        config = path.instances[0] if path.instances else -1
        if asset is None:
            return _learned(opening, points, config)
        asked = (path.cls, points)
        found = [
            (name, form)
            for name, form in forms_of(asset).items()
            if asked == (paths.ASSEMBLY, (form.outputs, form.inputs))
            and (config == form.config or (not config and form.config < 0))
        ]
        if not found:
            raise Unknown(f"an I/O connection to class {path.cls:02X}, {max(config, 0)}/{'/'.join(map(str, points))}")
        name, form = found[0]
        if path.data not in (b"", form.data):
            why = "which are not the policy's" if form.data else "and the policy has none"
            raise Refused(CONNECTION, f"{len(path.data)} bytes of configuration, {why}", BOOK, 0x0126)
        cls = opening.transport & 0x0F
        if opening.transport & 0x70 not in (0x00, 0x10, 0x20) or cls not in (0, 1):
            raise Refused(CONNECTION, f"the transport {opening.transport:02X}", BOOK, 0x0103)
        _io_types(opening)
        if opening.parameters_to_target[0] != form.size_out(cls):
            raise Refused(CONNECTION, "outputs of another size", BOOK, 0x0127, form.size_out(cls))
        if opening.parameters_to_originator[0] != form.size_in(cls):
            raise Refused(CONNECTION, "inputs of another size", BOOK, 0x0128, form.size_in(cls))
        for rpi in (opening.rpi_to_target, opening.rpi_to_originator):
            if not FASTEST_US <= rpi <= SLOWEST_US:
                raise Refused(CONNECTION, f"an interval of {rpi} us", BOOK, 0x0111)
        if opening.name in self.io_names.values():
            raise Refused(CONNECTION, "a connection that is open already", BOOK, 0x0100)
        if len(self.io_names) >= IO_CONNECTIONS:
            raise Refused(CONNECTION, f"more than {IO_CONNECTIONS} I/O connections", BOOK, 0x0113)
        if source.startswith("jump:"):  # policy.rows.BY_JUMP
            raise Refused(CONNECTION, f"I/O to {source}, which has no address", wire.PACKET, 0x0205)
        client_port(beside, source)
        # Each is a write, with an entry that is on disk before the device is asked.
        self._opens = min(float(IO_CONNECTIONS), self._opens + (now - self._opens_at) * OPENS_A_SECOND * 1e-9)
        self._opens_at = now
        if self._opens < 1.0:
            raise Refused(0x02, f"more than {OPENS_A_SECOND} I/O connections a second", BOOK)
        self._opens -= 1.0
        return OpenIo(
            Item("io", name), opening.rpi_to_target, opening.rpi_to_originator, opening.multiplier, 1 if cls else 0,
            key_of(path.key) if path.key else None, bool(path.data),
        )  # fmt: skip

    def standing_of(self, body: bytes) -> int | None:
        """The token of the I/O connection that a Forward Close names; None if it names none."""
        name = struct.unpack_from("<HHI", body, 2) if len(body) >= 12 else None
        return next((token for token, known in self.io_names.items() if known == name), None)

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
        if path != Path(route=path.route):
            raise Refused(CONNECTION, "a route with other segments", paths.SECTION, 0x0315)
        check_route(path.route, asset)
        return body[4 : 4 + size]


def _learned(opening: Opening, points: tuple[int, ...], config: int) -> OpenIo:
    """What a bystander makes of an I/O connection: its name says its assemblies. Outputs that have room for it are
    taken to begin with run or idle. Raises: Refused, Unknown."""
    cls = opening.transport & 0x0F
    rpis = opening.rpi_to_target, opening.rpi_to_originator
    if opening.path.cls != paths.ASSEMBLY or len(points) != 2 or cls not in (0, 1):
        raise Unknown(f"an I/O connection of class {cls} to class {opening.path.cls:02X}")
    if not all(FASTEST_US <= rpi <= SLOWEST_US for rpi in rpis):
        raise Refused(CONNECTION, f"intervals of {rpis[0]} and {rpis[1]} us", BOOK, 0x0111)
    count = 2 if cls else 0
    out, into = opening.parameters_to_target[0] - count, opening.parameters_to_originator[0] - count
    run = out >= 4
    sizes = out - 4 if run else out, into
    if not all(0 <= size <= LONGEST for size in sizes) or max(*points, config) > 0xFFFF:
        raise Unknown(f"an I/O connection of {out} and {into} bytes")
    name = learned_name(points[0], sizes[0], points[1], sizes[1], config, run)
    return OpenIo(Item("io", name), *rpis, opening.multiplier, 1 if cls else 0)


def _io_types(opening: Opening) -> None:
    """Point to point or multicast, and nobody is a redundant owner. Raises: Refused."""
    for parameters, allowed, status in (
        (opening.parameters_to_target[1], (2,), 0x0123), (opening.parameters_to_originator[1], (1, 2), 0x0124)
    ):  # fmt: skip
        flags = parameters >> 16 if parameters >= 1 << 16 else parameters
        if flags & 0x8000 or (flags >> 13 & 3) not in allowed:
            raise Refused(CONNECTION, f"the connection type {flags:04X}", BOOK, status)


def client_port(beside: list[tuple[int, bytes]], source: str) -> int:
    """The UDP port at which a client takes I/O. Its address is that of its TCP connection, whatever it says. Raises:
    Refused where it says another host's."""
    port = IO_PORT
    for kind, data in beside:
        if kind not in (wire.TO_TARGET, wire.TO_ORIGINATOR) or len(data) != 16 or data[:2] != b"\0\2":
            raise Refused(CONNECTION, "a socket address of another form", wire.PACKET, 0x0205)
        said = ".".join(map(str, data[4:8]))
        if kind == wire.TO_ORIGINATOR:
            if source and said not in ("0.0.0.0", source):  # noqa: S104 - compared with
                raise Refused(CONNECTION, f"I/O to {said} is asked, from {source}", wire.PACKET, 0x0205)
            port = int.from_bytes(data[2:4], "big") or IO_PORT
    return port


def check_route(route: tuple[tuple[int, bytes], ...], asset: Asset | None) -> None:
    """No route, or the asset's own. Raises: Refused."""
    if not route:
        return
    own = asset.route if asset is not None else None
    allowed = {paths.of_route(own)} if own else set()
    if own is None:  # a bystander, who knows of no asset
        return
    if b"".join(bytes([port]) + link for port, link in route) not in allowed:
        named = " ".join(f"{port & 15}/{link[0] if port < 16 else link.decode('latin-1')!r}" for port, link in route)
        known = f"{own} is allowed" if own else "the policy names none"
        raise Refused(CONNECTION, f"the route {named} is asked; {known}", BOOK, 0x0311)
