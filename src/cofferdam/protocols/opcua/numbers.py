"""Single numbers, which nearly all values are, as DataValues: read and written in one call each, with their times.

What has another form in any byte is left to the decoder (builtin), which says what is wrong with it, if anything is.
"""

from __future__ import annotations

import struct
from typing import Any

from cofferdam.protocols.opcua import messages as m
from cofferdam.values import Bool, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64

LETTERS: dict[int, str] = {
    1: "?", 2: "b", 3: "B", 4: "h", 5: "H", 6: "i", 7: "I", 8: "q", 9: "Q", 10: "f", 11: "d",
}  # fmt: skip
MADE: dict[int, Any] = {
    1: Bool, 2: Int8, 3: UInt8, 4: Int16, 5: UInt16, 6: Int32, 7: UInt32, 8: Int64, 9: UInt64, 10: Float32, 11: Float64,
}  # fmt: skip
KINDS: dict[type, int] = {made: kind for kind, made in MADE.items()}
"""The builtin type of a number."""
_FORMS: dict[int, struct.Struct] = {
    kind << 8 | mask: struct.Struct(
        "<BB" + letter + "I" * (mask >> 1 & 1) + "q" * (mask >> 2 & 1) + "q" * (mask >> 3)
    )
    for kind, letter in LETTERS.items() for mask in range(1, 16, 2)
}  # fmt: skip
"""By the type and the mask of the fields that there are (OPC 10000-6, 5.2.2.17), as they lie in the first two bytes."""
_READ = b"\x01\x00\x7a\x02"
_HEADERS = frozenset((bytes(12), bytes(5) + b"\xff\xff\xff\xff" + bytes(3)))
"""What stands behind the handle in the header of an answer: a good status, no diagnostics, no strings, no more."""
_NOTHING = frozenset((bytes(4), b"\xff\xff\xff\xff"))
"""The diagnostics behind the results: none."""
_COUNT_AT, AT = 28, 32
"""Of the number of values, and of the first."""
_ANSWER = struct.Struct("<4sqIIQI")


def is_answer(data: bytes, count: int) -> bool:
    """Whether a body has the head and the end of a good answer to a Read of so many nodes."""
    if data[:4] != _READ or data[16:_COUNT_AT] not in _HEADERS or data[-4:] not in _NOTHING:
        return False
    return len(data) >= AT + 4 and int.from_bytes(data[_COUNT_AT:AT], "little") == count


def samples_of(data: bytes, count: int) -> tuple[m.Sample, ...] | None:
    """What the body of a good answer to a Read of so many nodes holds, if all of it are single numbers."""
    if not is_answer(data, count):
        return None
    found: list[m.Sample] = []
    at, size = AT, len(data)
    for _ in range(count):
        if at + 2 > size:
            return None
        first = data[at + 1] << 8 | data[at]
        form = _FORMS.get(first)
        if form is None:
            return None
        stop = at + form.size
        if stop > size:
            return None
        fields = form.unpack_from(data, at)
        mask = first & 0xFF
        value = MADE[first >> 8]((fields[2],))
        if mask == 13:
            found.append(m.Sample(value, 0, fields[3], fields[4]))
        else:
            place = 3
            told = [0, 0, 0]
            for number in range(3):
                if mask >> number & 2:
                    told[number] = fields[place]
                    place += 1
            found.append(m.Sample(value, told[0], told[1], told[2]))
        at = stop
    return tuple(found) if at == size - 4 else None


def written(sample: m.Sample, stamps: int) -> bytes | None:
    """The DataValue of a sample that is a single number. `stamps`: as in Namespaces.data."""
    value: Any = sample.value
    kind = KINDS.get(type(value))
    if kind is None or value.array:
        return None
    status = sample.status
    source = sample.source if stamps == 2 or stamps == 0 else 0
    server = sample.server if stamps == 2 or stamps == 1 else 0
    number = value.values[0]
    if source and server and not status:
        return _FORMS[kind << 8 | 13].pack(13, kind, number, source, server)
    mask = 1 | (status != 0) << 1 | (source != 0) << 2 | (server != 0) << 3
    rest = [one for one in (status, source, server) if one]
    return _FORMS[kind << 8 | mask].pack(mask, kind, number, *rest)


def answer(time: int, handle: int, count: int, values: list[bytes]) -> bytes:
    """The body of an answer to a Read of so many nodes, of what was written of the values. `time`: in 100 ns since
    1601."""
    return b"".join((_ANSWER.pack(_READ, time, handle, 0, 0, count), b"".join(values), b"\0\0\0\0"))
