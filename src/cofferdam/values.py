"""Typed values: what an item holds, a method takes, a message carries. Frozen, without I/O.

They decode strictly: each class holds the bounds of its type; `value_fault` tells what no single field can say.

Not here: what a value is to policy (policy.points), how a protocol writes it (protocols.*).
"""

from __future__ import annotations

import enum
import math
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

ELEMENTS = 65536
"""Values in one array, at most."""
TEXT_LENGTH = 65536
"""Characters of a text, or bytes of a byte string, at most."""
FLOAT32_MAX = 3.4028234663852886e38
"""The largest finite value of 32 bits."""


class ValueType(enum.StrEnum):
    """What a value is. The first nine can also be made of cells: a bit, or words in the order of `word_order`."""

    BOOL = "bool"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    INT32 = "int32"
    UINT64 = "uint64"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    UINT8 = "uint8"
    INT8 = "int8"
    TEXT = "text"
    BYTES = "bytes"


DATE_TIME = "DateTime"
"""The form (`Point.form`) of times: an int64, 100 ns since 1601 in UTC."""

_Array = Meta(max_length=ELEMENTS)


class _Value(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """One value, or an array of values, of one type. A single value is a tuple of one, with `array` False."""

    type: ClassVar[ValueType]


class Bool(_Value, frozen=True, gc=False, tag="bool"):
    type: ClassVar[ValueType] = ValueType.BOOL
    values: Annotated[tuple[bool, ...], _Array]
    array: bool = False


class Int8(_Value, frozen=True, gc=False, tag="i8"):
    type: ClassVar[ValueType] = ValueType.INT8
    values: Annotated[tuple[Annotated[int, Meta(ge=-(1 << 7), lt=1 << 7)], ...], _Array]
    array: bool = False


class UInt8(_Value, frozen=True, gc=False, tag="u8"):
    type: ClassVar[ValueType] = ValueType.UINT8
    values: Annotated[tuple[Annotated[int, Meta(ge=0, lt=1 << 8)], ...], _Array]
    array: bool = False


class Int16(_Value, frozen=True, gc=False, tag="i16"):
    type: ClassVar[ValueType] = ValueType.INT16
    values: Annotated[tuple[Annotated[int, Meta(ge=-(1 << 15), lt=1 << 15)], ...], _Array]
    array: bool = False


class UInt16(_Value, frozen=True, gc=False, tag="u16"):
    type: ClassVar[ValueType] = ValueType.UINT16
    values: Annotated[tuple[Annotated[int, Meta(ge=0, lt=1 << 16)], ...], _Array]
    array: bool = False


class Int32(_Value, frozen=True, gc=False, tag="i32"):
    type: ClassVar[ValueType] = ValueType.INT32
    values: Annotated[tuple[Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)], ...], _Array]
    array: bool = False


class UInt32(_Value, frozen=True, gc=False, tag="u32"):
    type: ClassVar[ValueType] = ValueType.UINT32
    values: Annotated[tuple[Annotated[int, Meta(ge=0, lt=1 << 32)], ...], _Array]
    array: bool = False


class Int64(_Value, frozen=True, gc=False, tag="i64"):
    type: ClassVar[ValueType] = ValueType.INT64
    values: Annotated[tuple[Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)], ...], _Array]
    array: bool = False


class UInt64(_Value, frozen=True, gc=False, tag="u64"):
    type: ClassVar[ValueType] = ValueType.UINT64
    values: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], _Array]
    array: bool = False


class Float32(_Value, frozen=True, gc=False, tag="f32"):
    type: ClassVar[ValueType] = ValueType.FLOAT32
    values: Annotated[tuple[float, ...], _Array]
    array: bool = False


class Float64(_Value, frozen=True, gc=False, tag="f64"):
    type: ClassVar[ValueType] = ValueType.FLOAT64
    values: Annotated[tuple[float, ...], _Array]
    array: bool = False


class Text(_Value, frozen=True, gc=False, tag="text"):
    type: ClassVar[ValueType] = ValueType.TEXT
    values: Annotated[tuple[Annotated[str, Meta(max_length=TEXT_LENGTH)], ...], _Array]
    array: bool = False


class Octets(_Value, frozen=True, gc=False, tag="bytes"):
    type: ClassVar[ValueType] = ValueType.BYTES
    values: Annotated[tuple[Annotated[bytes, Meta(max_length=TEXT_LENGTH)], ...], _Array]
    array: bool = False


Value = (
    Bool | Int8 | UInt8 | Int16 | UInt16 | Int32 | UInt32 | Int64 | UInt64 | Float32 | Float64 | Text | Octets
)  # fmt: skip
VALUES: dict[ValueType, type[Value]] = {kind.type: kind for kind in Value.__args__}
"""The class of each type's values."""


def value_fault(value: Value) -> str:
    """What is wrong with a value beyond what its fields' types hold, in words; "" for nothing."""
    if not value.array and len(value.values) != 1:
        return f"a single {value.type.value} with {len(value.values)} values"
    if type(value) is UInt64:  # isinstance takes a thousand instructions to say no
        for number in value.values:
            if number >= 1 << 64:
                return f"{number} is outside uint64"
    elif type(value) is Float32:
        for real in value.values:
            if abs(real) > FLOAT32_MAX and not math.isinf(real):
                return f"{real} is outside float32"
    return ""
