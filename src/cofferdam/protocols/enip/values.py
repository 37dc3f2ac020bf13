"""Types of CIP data, and values as bytes (Logix data access, 1756-PM020; all little-endian).

Not here: which type a point has (policy), what an attribute is (messages).
"""

from __future__ import annotations

import struct
from typing import Any, Final

from cofferdam.values import (
    Bool,
    Float32,
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    Octets,
    Text,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Value,
    ValueType,
)

STRUCTURE: Final = 0x02A0
"""The type of any structure; its handle follows."""
STRING_HANDLE: Final = 0x0FCE
"""The handle of STRING: u32 length and 82 characters, 88 bytes with two that fill up."""
STRING_SIZE, STRING_LENGTH = 88, 82
SHORT_STRING: Final = 0xDA
DATA = 8192
"""Bytes of one value, array or structure, at most."""

ATOMIC: Final[dict[int, tuple[str, type[Any], str, int]]] = {
    0xC1: ("bool", Bool, "?", 1),
    0xC2: ("sint", Int8, "b", 1),
    0xC3: ("int", Int16, "h", 2),
    0xC4: ("dint", Int32, "i", 4),
    0xC5: ("lint", Int64, "q", 8),
    0xC6: ("usint", UInt8, "B", 1),
    0xC7: ("uint", UInt16, "H", 2),
    0xC8: ("udint", UInt32, "I", 4),
    0xC9: ("ulint", UInt64, "Q", 8),
    0xCA: ("real", Float32, "f", 4),
    0xCB: ("lreal", Float64, "d", 8),
    0xD1: ("byte", UInt8, "B", 1),
    0xD2: ("word", UInt16, "H", 2),
    0xD3: ("dword", UInt32, "I", 4),
    0xD4: ("lword", UInt64, "Q", 8),
}
"""Name, class, letter of `struct` and bytes of each type of numbers."""
_ONE: Final = {code: struct.Struct(f"<{entry[2]}") for code, entry in ATOMIC.items()}
"""A single element."""
NAMES: Final = {code: entry[0] for code, entry in ATOMIC.items()}
OF_TYPE: Final[dict[ValueType, int]] = {
    ValueType.BOOL: 0xC1, ValueType.INT8: 0xC2, ValueType.INT16: 0xC3, ValueType.INT32: 0xC4, ValueType.INT64: 0xC5,
    ValueType.UINT8: 0xC6, ValueType.UINT16: 0xC7, ValueType.UINT32: 0xC8, ValueType.UINT64: 0xC9,
    ValueType.FLOAT32: 0xCA, ValueType.FLOAT64: 0xCB, ValueType.TEXT: SHORT_STRING,
}  # fmt: skip
"""The type by which an attribute of a point travels: CIP says none with an attribute, so it is the policy's."""
BITS: Final = {0xC2: 8, 0xC3: 16, 0xC4: 32, 0xC5: 64, 0xD1: 8, 0xD2: 16, 0xD3: 32, 0xD4: 64}


class BadValue(Exception):
    """Bytes that are no value of the type; `str(error)` says why, `short` whether some are missing."""

    def __init__(self, why: str, short: bool = False) -> None:
        super().__init__(why)
        self.short = short


def known(code: int) -> bool:
    """Whether values of a type can be read here."""
    return code in ATOMIC or code == STRUCTURE


def size_of(code: int, handle: int) -> int:
    """Bytes of one element; 0 where the type does not say (a structure)."""
    if code == STRUCTURE:
        return STRING_SIZE if handle == STRING_HANDLE else 0
    return ATOMIC[code][3]


def decode(code: int, handle: int, data: bytes, array: bool) -> Value:
    """The elements that bytes are. Raises: BadValue."""
    if code == STRUCTURE:
        if handle == STRING_HANDLE:
            return _strings(data, array)
        if not data:
            raise BadValue("a structure without a byte", short=True)
        return Octets((data,), False)
    entry = ATOMIC.get(code)
    if entry is None:
        raise BadValue(f"the type {code:#06x}, which is not known here")
    _, kind, letter, size = entry
    count, rest = divmod(len(data), size)
    if rest or not count:
        raise BadValue(f"{len(data)} bytes of {entry[0]}, which has {size}", short=True)
    if code == 0xC1:
        for byte in data:
            if byte not in (0, 1, 255):
                raise BadValue(f"a bool of {byte:#04x}")
        value: Value = Bool(tuple([byte != 0 for byte in data]), array)
    else:
        value = kind(_ONE[code].unpack(data) if count == 1 else struct.unpack(f"<{count}{letter}", data), array)
    if not array and count != 1:
        raise BadValue(f"{count} elements of {entry[0]}, where one is asked")
    return value


def _strings(data: bytes, array: bool) -> Text:
    count, rest = divmod(len(data), STRING_SIZE)
    if rest or not count or (count != 1 and not array):
        raise BadValue(f"{len(data)} bytes of STRING, which has {STRING_SIZE}", short=True)
    found: list[str] = []
    for at in range(0, len(data), STRING_SIZE):
        length = int.from_bytes(data[at : at + 4], "little")
        if length > STRING_LENGTH:
            raise BadValue(f"a STRING of {length} characters, which holds {STRING_LENGTH}")
        found.append(data[at + 4 : at + 4 + length].decode("latin-1"))
    return Text(tuple(found), array)


def encode(code: int, handle: int, value: Value) -> bytes:
    """The bytes of a value. Raises: ValueError, struct.error for one that is not of this type (see `fault`)."""
    if code == STRUCTURE:
        if isinstance(value, Octets):
            return value.values[0]
        return b"".join(
            len(text).to_bytes(4, "little") + text.encode("latin-1").ljust(STRING_SIZE - 4, b"\0")
            for text in value.values
            if isinstance(text, str)
        )
    if code == 0xC1:
        return bytes(255 if one else 0 for one in value.values)
    if len(value.values) == 1:
        return _ONE[code].pack(value.values[0])
    return struct.pack(f"<{len(value.values)}{ATOMIC[code][2]}", *value.values)


def fault(code: int, handle: int, value: Value, first: int, count: int) -> str:
    """Why a value is not one of this type with so many elements; "" if it is."""
    if value.array != (first >= 0) and not isinstance(value, Octets):
        return "elements of what is asked whole" if value.array else "a single value for a range"
    if code == STRUCTURE:
        if isinstance(value, Octets):
            right = len(value.values) == 1 and 0 < len(value.values[0]) <= DATA and handle != STRING_HANDLE
            return "" if right and not value.array else "a structure that is none"
        if not isinstance(value, Text) or handle != STRING_HANDLE:
            return f"a structure as {value.type.value}"
        if any(len(text) > STRING_LENGTH or any(ord(one) > 255 for one in text) for text in value.values):
            return f"a text that no STRING of {STRING_LENGTH} characters holds"
        size = STRING_SIZE
    else:
        entry = ATOMIC.get(code)
        if entry is None or not isinstance(value, entry[1]):
            return f"{value.type.value} as the type {code:#06x}"
        size = entry[3]
        if entry[1] is UInt64 and any(one >= 1 << 64 for one in value.values):
            return "a number outside 64 bits"
        if entry[1] is Float32:
            try:
                struct.pack(f"<{len(value.values)}f", *value.values)
            except OverflowError:
                return "a number outside 32 bits"
    if handle and code != STRUCTURE:
        return "a handle of what is no structure"
    if len(value.values) != count:
        return f"{len(value.values)} values for {count} elements"
    return f"{size * count} bytes, at most {DATA} are known" if size * count > DATA else ""


def attribute(kind: ValueType, data: bytes) -> Value:
    """The value of an attribute that the policy says is of this kind. Raises: BadValue."""
    if kind is ValueType.TEXT:
        if not data or len(data) != 1 + data[0]:
            raise BadValue("a SHORT_STRING of another length than it says", short=True)
        return Text((data[1:].decode("latin-1"),))
    if kind is ValueType.BYTES:
        if not 0 < len(data) <= DATA:
            raise BadValue("bytes of no length")
        return Octets((data,))
    return decode(OF_TYPE[kind], 0, data, False)


def of_attribute(value: Value) -> bytes:
    """The bytes of an attribute's value. Raises: ValueError, struct.error (see `attribute_fault`)."""
    if type(value) is Text:
        data = value.values[0].encode("latin-1")
        return bytes([len(data)]) + data
    if type(value) is Octets:
        return value.values[0]
    code = OF_TYPE[value.type]
    return bytes([value.values[0] is True]) if code == 0xC1 else encode(code, 0, value)


def attribute_fault(value: Value) -> str:
    """Why a value is none that an attribute can have; "" if it is."""
    if value.array or len(value.values) != 1:
        return "several values of an attribute"
    if type(value) is Text:
        text = value.values[0]
        return "a text that no SHORT_STRING holds" if len(text) > 255 or any(ord(one) > 255 for one in text) else ""
    if type(value) is Octets:
        return "" if 0 < len(value.values[0]) <= DATA else "bytes of no length, or too many"
    return fault(OF_TYPE[value.type], 0, value, -1, 1)
