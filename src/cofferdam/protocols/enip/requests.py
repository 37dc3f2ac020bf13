"""Requests of CIP as bytes, both ways: one service on one path (Volume 1, appendix A; Logix data access, 1756-PM020).

A service's code means nothing without what it is asked of: everything here is decided by (symbol or class, service).

Not here: what takes several requests (a value in pieces, a list in pages), packets, connections (server, client).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from cofferdam.model import Item
from cofferdam.protocols.enip import faults, paths
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.dialect import unserved
from cofferdam.protocols.enip.epath import Path
from cofferdam.protocols.enip.values import (
    DATA,
    STRUCTURE,
    BadValue,
    attribute,
    decode,
    encode,
    known,
    of_attribute,
    size_of,
)
from cofferdam.values import ValueType

SECTION: Final = "CIP Volume 1, 2-4 (message router)"
DATA_ACCESS: Final = "Rockwell 1756-PM020 (Logix data access)"

GET_ALL, GET_LIST, PACKET, GET_ONE, SET_ONE = 0x01, 0x03, 0x0A, 0x0E, 0x10
READ, WRITE, MODIFY, READ_PIECE, WRITE_PIECE = 0x4C, 0x4D, 0x4E, 0x52, 0x53
LIST = 0x55
UNCONNECTED_SEND, OPEN, LARGE_OPEN, CLOSE, OWNER = 0x52, 0x54, 0x5B, 0x4E, 0x5A

NO_SUCH, NO_SERVICE, FORBIDDEN, SHORT, LONG, PARAMETER, SEGMENT = 0x05, 0x08, 0x0F, 0x13, 0x15, 0x20, 0x04
MORE, EXTENDED, BEYOND, WRONG_TYPE, CONNECTION = 0x06, 0xFF, 0x2105, 0x2107, 0x01

NO_SIZES: Final[Mapping[int, int]] = {}

ENCODED: Final = 2048
"""Tags whose reading is remembered as bytes."""

_MASKS: Final[dict[int, Literal[1, 2, 4, 8]]] = {1: 1, 2: 2, 4: 4, 8: 8}


class Refused(Exception):
    """A request that breaks a rule: the status that says so, and where the rule stands."""

    def __init__(self, status: int, detail: str, section: str = SECTION, *more: int) -> None:
        super().__init__(detail)
        self.error = m.CipError(status, more)
        self.detail = detail
        self.section = section


class Known(NamedTuple):
    """What the policy says of the asset: tags of which elements are points, and the types of attributes. `every`: a
    bystander knows no policy, and takes each attribute that is written as bytes."""

    arrays: frozenset[str] = frozenset()
    types: dict[str, ValueType] = {}
    every: bool = False

    def type_of(self, name: str) -> ValueType:
        """The type of an attribute that is read: bytes for one that is no point."""
        return self.types.get(name, ValueType.BYTES)

    def sized(self, items: Iterable[Item]) -> bool:
        """Whether each of these attributes has a length that its type says."""
        return all(self.type_of(item.name) is not ValueType.BYTES for item in items)

    def written_type(self, name: str) -> ValueType | None:
        """The type of one that is written; None for one that is no point: no limit could be checked."""
        return self.types.get(name, ValueType.BYTES if self.every else None)


def split(data: bytes) -> tuple[int, Path, bytes]:
    """(service, path, data) of a request. Raises: Refused."""
    if len(data) < 2:
        raise Refused(SHORT, "a request of less than two bytes")
    service, words = data[0], data[1]
    start = 2 + 2 * words
    if not 1 <= service < 0x80:
        raise Refused(NO_SERVICE, f"the service {service:02X}")
    if start > len(data):
        raise Refused(0x26, "a path that ends after its request", paths.SECTION)
    try:
        return service, paths.parse(data, 2, start), data[start:]
    except paths.BadPath as error:
        raise Refused(SEGMENT, str(error), paths.SECTION) from None


def tag_of(path: Path, count: int, about: Known, symbols: dict[tuple[str, int], str]) -> Item:
    """The item of a tag's path, by name or by a number of the list that was given out. Raises: Refused."""
    names = path.names
    if path.cls >= 0:
        name = symbols.get((path.program, path.instance))
        if name is None:
            raise Refused(NO_SUCH, f"the symbol instance {path.instance}, which no list of this connection has")
        head = [(path.program, ())] if path.program else []
        names = (*head, (name, path.elements), *names)
    if path.attribute >= 0 or path.points or path.route or path.key or path.data or len(path.instances) > 1:
        raise Refused(SEGMENT, "a tag's path with other segments", paths.SECTION)
    if not 1 <= count <= DATA:
        raise Refused(PARAMETER, f"{count} elements", DATA_ACCESS)
    try:
        return paths.joined(names, count, about.arrays)
    except paths.BadPath as error:
        raise Refused(SEGMENT, str(error), paths.SECTION) from None


def is_tag(path: Path) -> bool:
    """Whether a path leads to a tag: by its name, or by its number in class 6B."""
    return bool(path.names) if path.cls < 0 else path.cls == paths.SYMBOL and path.instance > 0


def decode_tag(
    service: int,
    path: Path,
    body: bytes,
    about: Known,
    symbols: dict[tuple[str, int], str],
    sizes: Mapping[int, int] = NO_SIZES,
) -> m.EnipRequest:
    """A service on a tag, but for pieces. `sizes`: bytes of structures, by their handle, as far as they are known.
    Raises: Refused."""
    if service == READ:
        if len(body) != 2:
            raise Refused(SHORT if len(body) < 2 else LONG, "Read Tag without its two bytes alone", DATA_ACCESS)
        return m.ReadTag(tag_of(path, int.from_bytes(body, "little"), about, symbols))
    if service == WRITE:
        code, handle, count, at = typed_head(body)
        unit = sizes.get(handle, 0) if code == STRUCTURE else 0
        return written(tag_of(path, count, about, symbols), code, handle, body[at:], unit)
    if service == MODIFY:
        return _modify(tag_of(path, 1, about, symbols), body)
    name = path.names[-1][0] if path.names else "a tag"
    return m.Unserved(service, paths.SYMBOL, f"service {service:02X} on {name[:40]}, which no tag has here")


def typed_head(body: bytes) -> tuple[int, int, int, int]:
    """(type, handle, elements, length of these) before what a write writes. Raises: Refused."""
    code = int.from_bytes(body[:2], "little")
    size = 6 if code == STRUCTURE else 4
    if len(body) < size:
        raise Refused(SHORT, "a write that ends within its type and count", DATA_ACCESS)
    if not known(code):
        raise Refused(EXTENDED, f"the type {code:#06x}, which is not known here", DATA_ACCESS, WRONG_TYPE)
    handle = int.from_bytes(body[2:4], "little") if code == STRUCTURE else 0
    return code, handle, int.from_bytes(body[size - 2 : size], "little"), size


def written(item: Item, code: int, handle: int, data: bytes, unit: int = 0) -> m.WriteTag:
    """A whole write. `unit`: bytes of a structure, where they are known. Raises: Refused."""
    size = (size_of(code, handle) or unit) * item.count
    if size and len(data) != size:
        short = len(data) < size
        raise Refused(SHORT if short else LONG, f"{len(data)} bytes of a value that has {size}", DATA_ACCESS)
    try:
        value = decode(code, handle, data, item.first >= 0)
    except BadValue as error:
        raise Refused(SHORT if error.short else PARAMETER, str(error), DATA_ACCESS) from None
    request = m.WriteTag(item, code, handle, value)
    if fault := faults.request_fault(request):
        raise Refused(SHORT if "values for" in fault else PARAMETER, fault, DATA_ACCESS)
    return request


def _modify(item: Item, body: bytes) -> m.WriteBit | m.ModifyTag:
    said = int.from_bytes(body[:2], "little")
    size = _MASKS.get(said)
    if size is None:
        raise Refused(SHORT if len(body) < 2 else PARAMETER, f"masks of {said} bytes", DATA_ACCESS)
    # pycomm3 sends an AND mask of eight bytes whatever the size: what is too much of it must be ones.
    spare = body[2 + 2 * size :]
    if len(body) < 2 + 2 * size or (spare and (len(spare) != 8 - size or spare.strip(b"\xff"))):
        raise Refused(SHORT if len(body) < 2 + 2 * size else LONG, "masks of another size than they say", DATA_ACCESS)
    or_mask = int.from_bytes(body[2 : 2 + size], "little")
    and_mask = int.from_bytes(body[2 + size : 2 + 2 * size], "little")
    full = (1 << 8 * size) - 1
    name = f"{item.name}[{item.first}]" if item.first >= 0 else item.name
    cleared = full & ~and_mask
    one = cleared or or_mask
    if (not cleared or not or_mask) and one and one & (one - 1) == 0:
        request = m.WriteBit(Item("tag", f"{name}.{one.bit_length() - 1}"), size, not cleared)
        if fault := faults.request_fault(request):
            raise Refused(SEGMENT, fault, paths.SECTION)
        return request
    if size == 8:
        raise Refused(PARAMETER, "several bits of a tag of eight bytes at once", DATA_ACCESS)
    return m.ModifyTag(item, size, or_mask, and_mask)


def decode_object(service: int, path: Path, body: bytes, about: Known) -> m.EnipRequest:
    """A service on an object. Raises: Refused."""
    cls, instance = path.cls, max(path.instance, 0)
    if cls < 0 or len(path.instances) > 1 or path.points or path.route or path.key or path.data or path.program:
        raise Refused(SEGMENT, "a path to no class, or with other segments", paths.SECTION)
    if service in (GET_ONE, SET_ONE):
        name = f"{cls}/{instance}/{path.attribute}"
        if path.attribute < 0:
            raise Refused(SEGMENT, "no attribute in the path", paths.SECTION)
        item = Item("cip", name)
        if service == GET_ONE:
            if body:
                raise Refused(LONG, "Get Attribute Single with data")
            return m.GetAttribute(item)
        kind = about.written_type(name)
        if kind is None:
            return m.Unserved(service, cls, f"cip {name} is no point of the policy, so that its type is not known")
        try:
            return m.SetAttribute(item, attribute(kind, body))
        except BadValue as error:
            raise Refused(SHORT if error.short else PARAMETER, str(error)) from None
    if service == GET_ALL and (cls, instance, path.attribute) == (paths.IDENTITY, 1, -1):
        if body:
            raise Refused(LONG, "Get Attributes All with data")
        return m.Identify()
    if service == GET_LIST:
        return _attributes(cls, instance, body)
    if never := unserved(service, cls):
        return m.Unserved(service, cls, never)
    if body or service in (GET_ALL, 0x02, 0x04):
        why = "with data that have no names" if body else "of a whole instance"
        return m.Unserved(
            service, cls, f"service {service:02X} of class {cls:02X}, {why}: attributes one by one are served"
        )
    return m.Service(service, cls, instance)


def _attributes(cls: int, instance: int, body: bytes) -> m.EnipRequest:
    count = int.from_bytes(body[:2], "little")
    if len(body) != 2 + 2 * count or not 1 <= count <= m.ATTRIBUTES:
        raise Refused(SHORT if len(body) < 2 + 2 * count else LONG, f"a list of {count} attributes")
    numbers = struct.unpack_from(f"<{count}H", body, 2)
    return m.GetAttributes(tuple(Item("cip", f"{cls}/{instance}/{number}") for number in numbers))


def encode_request(request: m.EnipRequest) -> bytes:
    """The bytes of a request that takes one. Raises: ValueError for what takes several, or none."""
    match request:
        case m.ReadTag(item):
            return read_tag(item)
        case m.WriteTag(item, code, handle, value):
            return _made(WRITE, paths.of_tag(item), write_head(code, handle, item.count) + encode(code, handle, value))
        case m.WriteBit(item, size, value):
            name, _, bit = item.name.rpartition(".")
            mask, full = 1 << int(bit), (1 << 8 * size) - 1
            return _masks(Item("tag", name), size, mask if value else 0, full if value else full & ~mask)
        case m.ModifyTag(item, size, or_mask, and_mask):
            return _masks(item, size, or_mask, and_mask)
        case m.GetAttribute(item):
            return _made(GET_ONE, paths.of_attribute(item), b"")
        case m.SetAttribute(item, value):
            return _made(SET_ONE, paths.of_attribute(item), of_attribute(value))
        case m.Service(service, cls, instance):
            return _made(service, paths.of_object(cls, instance), b"")
        case m.Identify():
            return _made(GET_ALL, paths.of_object(paths.IDENTITY, 1), b"")
        case m.GetAttributes(items):
            cls, instance, _ = map(int, items[0].name.split("/"))
            numbers = [int(item.name.rpartition("/")[2]) for item in items]
            body = struct.pack(f"<{1 + len(numbers)}H", len(numbers), *numbers)
            return _made(GET_LIST, paths.of_object(cls, instance), body)
    raise ValueError(f"{type(request).__name__} is no single request")


@functools.lru_cache(ENCODED)
def read_tag(item: Item) -> bytes:
    """The bytes of Read Tag. What a poller asks for it asks for again, and they follow from the item alone (ADR 51)."""
    return _made(READ, paths.of_tag(item), item.count.to_bytes(2, "little"))


def write_head(code: int, handle: int, count: int) -> bytes:
    """What stands before the data of a write."""
    body = code.to_bytes(2, "little")
    if code == STRUCTURE:
        body += handle.to_bytes(2, "little")
    return body + count.to_bytes(2, "little")


def _masks(item: Item, size: int, or_mask: int, and_mask: int) -> bytes:
    body = size.to_bytes(2, "little") + or_mask.to_bytes(size, "little") + and_mask.to_bytes(size, "little")
    return _made(MODIFY, paths.of_tag(item), body)


def made(service: int, path: bytes, body: bytes) -> bytes:
    """A request of a service on a path."""
    return bytes([service, len(path) // 2]) + path + body


_made = made


def packet(parts: list[bytes]) -> bytes:
    """A count, offsets and parts, as a Multiple Service Packet and its answer have them."""
    at = 2 + 2 * len(parts)
    head = [len(parts)]
    for part in parts:
        head.append(at)
        at += len(part)
    return struct.pack(f"<{len(head)}H", *head) + b"".join(parts)


def packet_of(parts: list[bytes]) -> bytes:
    """The request that asks for these in one."""
    return made(PACKET, paths.of_object(paths.ROUTER, 1), packet(parts))


def parts_of(body: bytes) -> list[bytes]:
    """The parts of a Multiple Service Packet, or of its answer. Raises: Refused."""
    count = int.from_bytes(body[:2], "little")
    if len(body) < 2 + 2 * count or not count:
        raise Refused(SHORT, f"a packet of {count} requests that has no room for their places")
    if count > m.PARTS:
        raise Refused(LONG, f"{count} requests in one packet, at most {m.PARTS} are known")
    places = struct.unpack_from(f"<{count}H", body, 2)
    found: list[bytes] = []
    at = places[0]
    for place in (*places[1:], len(body)):
        found.append(body[at:place])
        if place <= at or places[0] != 2 + 2 * count:
            raise Refused(SEGMENT, "places of requests that do not rise within the packet")
        at = place
    return found


def grouped(parts: list[tuple[Any, bytes]], room: int) -> list[list[tuple[Any, bytes]]]:
    """Requests in packets that have room for them, and for answers of a common size."""
    groups: list[list[tuple[Any, bytes]]] = []
    size = answers = 0
    for part, data in parts:
        answer = 8 + 8 * (part.item.count if isinstance(part, m.ReadTag) else 0)
        if not groups or size + len(data) + 2 > room or answers + answer > room:
            groups.append([])
            size = answers = 0
        groups[-1].append((part, data))
        size, answers = size + len(data) + 2, answers + answer
    return groups


_WRAPPING: Final = b"\x52\x02\x20\x06\x24\x01\x07\x28"
"""What begins an Unconnected Send: to the connection manager, and the device may take about five seconds."""


def wrapped(request: bytes, route: bytes) -> bytes:
    """An Unconnected Send along a route."""
    size = len(request)
    end = (b"\0" if size & 1 else b"") + bytes((len(route) // 2, 0)) + route
    return _WRAPPING + size.to_bytes(2, "little") + request + end
