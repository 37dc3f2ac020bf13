"""Answers of CIP as bytes, both ways; each is decoded against its request.

Not here: values in pieces, lists in pages (server, client).
"""

from __future__ import annotations

import struct
from typing import Final

from cofferdam.protocols.enip import faults, single, together
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.requests import Known, parts_of
from cofferdam.protocols.enip.values import STRUCTURE, BadValue, attribute, decode, encode, known, of_attribute
from cofferdam.values import Value, ValueType

SECTION: Final = "CIP Volume 1, 2-4.2 (message router response)"
_IDENTITY: Final = struct.Struct("<HHHBBHI")


class Misfit(Exception):
    """Bytes that are no answer to what was asked; `str(error)` says why."""


def reply(service: int, status: int, more: tuple[int, ...] = (), body: bytes = b"") -> bytes:
    """The bytes of an answer."""
    head = bytes((service | 0x80, 0, status, len(more)))
    if not more:
        return head + body
    return head + struct.pack(f"<{len(more)}H", *more) + body


def split(data: bytes, service: int) -> tuple[int, tuple[int, ...], bytes]:
    """(status, additional words, data) of an answer to a service. Raises: Misfit."""
    if len(data) < 4 or data[0] != service | 0x80 or data[1]:
        raise Misfit(f"{data[:4].hex()} answers no service {service:02X}")
    words = data[3]
    if not words:
        return data[2], (), data[4:]
    at = 4 + 2 * words
    if at > len(data):
        raise Misfit("additional words that end after the answer")
    if words > 8:
        raise Misfit(f"{words} additional words")
    return data[2], struct.unpack_from(f"<{words}H", data, 4), data[at:]


def error(status: int, more: tuple[int, ...]) -> m.CipError:
    """An answer that says no."""
    return m.CipError(status, more)


def value_head(response: m.Held) -> bytes:
    """The type before a value."""
    head = response.code.to_bytes(2, "little")
    return head + response.handle.to_bytes(2, "little") if response.code == STRUCTURE else head


def value_bytes(response: m.Held) -> bytes:
    """A value without its type."""
    return encode(response.code, response.handle, response.value) if response.code else of_attribute(response.value)


def head_of(data: bytes) -> tuple[int, int, int]:
    """(type, handle, length of these) before a value. Raises: Misfit."""
    code = int.from_bytes(data[:2], "little")
    if not known(code):
        raise Misfit(f"the type {code:#06x}, which is not known here")
    if code == STRUCTURE:
        if len(data) < 4:
            raise Misfit("a structure without its handle")
        return code, int.from_bytes(data[2:4], "little"), 4
    return code, 0, 2


def tag(request: m.ReadTag, body: bytes) -> m.Held:
    """The value of a tag with its type before it, as Read Tag's answer has it. Raises: Misfit."""
    code, handle, at = head_of(body)
    return held(request, code, handle, body[at:])


def held(request: m.ReadTag, code: int, handle: int, data: bytes) -> m.Held:
    """The value of a tag. Raises: Misfit."""
    try:
        response = m.Held(code, handle, decode(code, handle, data, request.item.first >= 0))
    except BadValue as error:
        raise Misfit(str(error)) from None
    if (fault := mismatch(request, response)) or (fault := faults.response_fault(response)):
        raise Misfit(fault)
    return response


def decode_reply(request: m.EnipRequest, data: bytes, about: Known) -> m.EnipResponse:
    """The answer to a request that takes one, but for a tag's value. `data`: after a good status. Raises: Misfit."""
    match request:
        case m.GetAttribute(item):
            try:
                return m.Held(0, 0, attribute(about.type_of(item.name), data))
            except BadValue as error:
                raise Misfit(f"{item.name}: {error}") from None
        case m.Identify():
            return identity(data)
        case m.GetAttributes(items):
            return _attributes(tuple(item.name for item in items), data, about)
    if data:
        raise Misfit(f"{len(data)} bytes after what needs none")
    return m.Done()


def identity(data: bytes) -> m.Identity:
    """The identity object. Raises: Misfit."""
    if len(data) < _IDENTITY.size + 1:
        raise Misfit("an identity that ends too early")
    size = data[_IDENTITY.size]
    name = data[_IDENTITY.size + 1 : _IDENTITY.size + 1 + size]
    # Some add a state and more behind the name.
    if len(name) != size or len(data) > _IDENTITY.size + 1 + size + 64:
        raise Misfit("an identity whose name ends after it")
    vendor, device, product, major, minor, status, serial = _IDENTITY.unpack_from(data)
    return m.Identity(vendor, device, product, major, minor, status, serial, name.decode("latin-1"))


def identity_bytes(one: m.Identity) -> bytes:
    """The identity object, without a state."""
    name = one.name.encode("latin-1")
    head = _IDENTITY.pack(one.vendor, one.device, one.product, one.major, one.minor, one.status, one.serial)
    return head + bytes([len(name)]) + name


def _attributes(names: tuple[str, ...], data: bytes, about: Known) -> m.HeldList:
    """Get Attribute List: values have no lengths, so that each ends where its type does."""
    if int.from_bytes(data[:2], "little") != len(names):
        raise Misfit("another number of attributes")
    at = 2
    found: list[Value | int] = []
    for name in names:
        if len(data) < at + 4 or int.from_bytes(data[at : at + 2], "little") != int(name.rpartition("/")[2]):
            raise Misfit(f"no answer for the attribute {name}")
        status = data[at + 2]
        at += 4
        if status:
            found.append(status)
            continue
        kind = about.type_of(name)
        if kind is ValueType.BYTES:
            raise Misfit(f"bytes of no known length for {name}")
        size = _SIZES[kind] if kind in _SIZES else 1 + (data[at] if at < len(data) else 0)
        try:
            found.append(attribute(kind, data[at : at + size]))
        except BadValue as error:
            raise Misfit(f"{name}: {error}") from None
        at += size
    if at != len(data):
        raise Misfit("bytes after the last attribute")
    return m.HeldList(tuple(found))


_SIZES: Final = {
    ValueType.BOOL: 1, ValueType.INT8: 1, ValueType.UINT8: 1, ValueType.INT16: 2, ValueType.UINT16: 2,
    ValueType.INT32: 4, ValueType.UINT32: 4, ValueType.INT64: 8, ValueType.UINT64: 8, ValueType.FLOAT32: 4,
    ValueType.FLOAT64: 8,
}  # fmt: skip


def attribute_list(request: m.GetAttributes, response: m.HeldList) -> bytes:
    """The body of a Get Attribute List's answer."""
    body = len(request.items).to_bytes(2, "little")
    for item, one in zip(request.items, response.values, strict=True):
        body += int(item.name.rpartition("/")[2]).to_bytes(2, "little")
        body += bytes([one, 0]) if isinstance(one, int) else b"\0\0" + of_attribute(one)
    return body


def parts(body: bytes) -> list[bytes]:
    """The parts of a packet's answer. Raises: Misfit."""
    try:
        return parts_of(body)
    except Exception as error:
        raise Misfit(str(error)) from None


def definition(one: m.Structure) -> bytes:
    """A template as Template Read gives it: members, then names."""
    body = b"".join(struct.pack("<HHI", member.info, member.code, member.offset) for member in one.members)
    names = b"".join(name.encode("ascii") + b"\0" for name in (one.name, *(member.name for member in one.members)))
    return body + names


def structure(handle: int, size: int, count: int, data: bytes) -> m.Structure:
    """A template from its definition. Raises: Misfit."""
    if count > m.MEMBERS or len(data) < 8 * count:
        raise Misfit(f"a structure of {count} members in {len(data)} bytes")
    names = data[8 * count :].split(b"\0")
    if len(names) < count + 1 or any(len(name) > 128 for name in names[1 : count + 1]) or len(names[0]) > 256:
        raise Misfit("a structure without the names of its members")
    members = tuple(
        m.Member(names[1 + index].decode("latin-1"), *struct.unpack_from("<HHI", data, 8 * index))
        for index in range(count)
    )
    found = m.Structure(handle, size, names[0].decode("latin-1"), members)
    if fault := faults.response_fault(found):
        raise Misfit(fault)
    return found


def symbols(body: bytes) -> list[m.Symbol]:
    """A page of name, type and dimensions. Raises: Misfit."""
    found: list[m.Symbol] = []
    at = 0
    while at < len(body):
        if at + 6 > len(body):
            raise Misfit("a tag that ends after its page")
        number, size = struct.unpack_from("<IH", body, at)
        end = at + 6 + size
        if end + 14 > len(body) or not 1 <= size <= 128:
            raise Misfit("a tag that ends after its page, or without a name")
        kind, *dimensions = struct.unpack_from("<H3I", body, end)
        name = body[at + 6 : end].decode("latin-1")
        if not name.isascii() or "\0" in name:
            raise Misfit("a name that is no ASCII")
        found.append(m.Symbol(number, name, kind, (dimensions[0], dimensions[1], dimensions[2])))
        at = end + 14
    return found


def template(body: bytes) -> tuple[int, int, int, int]:
    """(definition size in words, structure size, members, handle) of a template. Raises: Misfit."""
    form = struct.Struct("<HHHIHHIHHHHHH")
    if len(body) != form.size:
        raise Misfit("a template's attributes of another length")
    count, a, x, words, b, y, size, c, z, members, d, w, handle = form.unpack(body)
    if (count, a, b, c, d) != (4, 4, 5, 2, 1) or x or y or z or w:
        raise Misfit("a template's attributes in another order, or not there")
    return words, size, members, handle


_DONE: Final[frozenset[type]] = frozenset({m.WriteTag, m.WriteBit, m.ModifyTag, m.SetAttribute, m.Service})
_KINDS: Final[dict[type, type]] = {
    m.Identify: m.Identity, m.ListTags: m.TagList, m.DescribeStructure: m.Structure, m.OpenIo: m.IoOpened,
}  # fmt: skip


def mismatch(request: m.EnipRequest, response: m.EnipResponse) -> str:
    """ "" if a response can answer a request, else why not."""
    # By their exact types: isinstance takes a thousand instructions for each kind of message that one is not.
    if type(response) is m.CipError:
        return ""
    if type(request) is m.ReadTag:
        if type(response) is m.HeldAll:
            return single.fault(request, response)
        if type(response) is not m.Held or not response.code:
            return f"{type(response).__name__} for a tag"
        value, item = response.value, request.item
        if response.code == STRUCTURE and response.handle and value.type is ValueType.BYTES:
            return ""
        if value.array != (item.first >= 0) or len(value.values) != item.count:
            return f"{len(value.values)} elements, of {item.count} that were asked"
        return ""
    if type(request) is m.Packet:
        if type(response) is m.HeldAll:
            return together.fault(request, response)
        if type(response) is not m.Answers or len(response.parts) != len(request.parts):
            return "another number of answers"
        for one, part in zip(request.parts, response.parts, strict=True):
            if fault := mismatch(one, part):
                return fault
        return ""
    if type(request) in _DONE:
        right = type(response) is m.Done
    elif type(request) is m.GetAttribute:
        right = type(response) is m.Held and not response.code
    elif type(request) is m.GetAttributes:
        right = type(response) is m.HeldList and len(response.values) == len(request.items)
    else:
        right = type(response) is _KINDS.get(type(request))
    return "" if right else f"{type(response).__name__} for {type(request).__name__}"
