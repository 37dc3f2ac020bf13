"""What a policy may say about Modbus."""

from __future__ import annotations

import re

from cofferdam.protocols.dialect import CellNotation, Dialect, Misread, Space, Units
from cofferdam.values import ValueType

_MODICON = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}

_OTHERS = {
    "HR": "holding", "IR": "input", "DI": "discrete", "CO": "coil", "C": "coil", "%MW": "holding", "%M": "coil",
    "%IW": "input", "%I": "discrete",
}  # fmt: skip
"""What engineers write for the spaces: short names of registers, and the variables of IEC 61131-3, 6.5.5."""


_BITS = re.compile(r"(.*[0-9])(\.[0-9]{1,2}(?:\s*-\s*[0-9]{1,2})?|\s+bits?\s+[0-9].*)\Z")
"""A word and, behind it, its bits, which are counted from 0 however the words are."""


_SPELT = re.compile(
    r"(holding|input|coil|discrete)s?(?:[ _-]*(?:inputs?|reg(?:ister)?s?))?[ _:#=-]*([0-9]{1,5}(?:\s*-\s*[0-9]{1,5})?)",
    re.IGNORECASE,
)
"""A space as it is called in full, or grown together with its number."""


def _near(text: str) -> str:
    """What a number alone may have meant: a Modicon address such as 40101, or a register."""
    if bits := _BITS.match(text):
        word = _near(bits[1])
        return f'{word[:-1]}{bits[2]}"' if word.startswith(('"holding', '"input')) else ""
    if place := re.fullmatch(r"(HR|IR|DI|CO|C|%MW|%M|%IW|%I)\s?([0-9]{1,5})", text, re.IGNORECASE):
        return f'"{_OTHERS[place[1].upper()]} {int(place[2])}"'
    if spelt := _SPELT.fullmatch(text):
        return f'"{spelt[1].lower()} {spelt[2]}"'
    if hexadecimal := re.fullmatch(r"(?:([a-z]+)\s+)?0x([0-9a-fA-F]{1,4})", text):
        return f'"{hexadecimal[1] or "holding"} {int(hexadecimal[2], 16)}"'
    if (cell := _numbered(text, "modicon")) != text:
        return f'"{cell}"'
    return f'"holding {text}"' if re.fullmatch(r"[0-9]{1,5}", text) else ""


_MODICON_RANGE = re.compile(r"([0134])(?:x([0-9]{5})|([0-9]{4,5}))(?:\s*-\s*(?:\1x?([0-9]{4,5})))?\Z")
_NUMBER = r"(0x[0-9a-fA-F]{1,4}|[0-9]{1,5})"
_SPACED = re.compile(rf"([a-z]+(?::[0-9]{{1,5}})?)\s+{_NUMBER}(?:\s*-\s*{_NUMBER})?\Z")
_UNMISTAKABLE = re.compile(r"[0134]x[0-9]{5}(?:\s*-|\Z)")
"""With the x it is Modicon's, whatever the asset says: counted from 1."""
_SHORT = re.compile(r"(HR|IR|DI|CO|C|%MW|%M|%IW|%I)\s?([0-9]{1,5})\Z", re.IGNORECASE)


def _numbered(text: str, numbering: str) -> str:
    """A place as engineers write it, in our notation: counted from 0 in its space."""
    if bits := _BITS.match(text):
        return _numbered(bits[1], numbering) + bits[2]
    back = 1 if numbering == "one" else 0
    if not numbering and not _UNMISTAKABLE.match(text):
        return text
    if numbering == "modicon" or _UNMISTAKABLE.match(text):
        found = _MODICON_RANGE.match(text)
        if found is None:
            return text
        first = int(found[2] or found[3])
        last = int(found[4]) if found[4] else first
        if not first or not last:
            return text
        return f"{_MODICON[found[1]]} {first - 1}" + (f"-{last - 1}" if found[4] else "")
    if short := _SHORT.match(text):
        number = int(short[2]) - back
        return f"{_OTHERS[short[1].upper()]} {number}" if number >= 0 else text
    if spaced := _SPACED.match(text):
        first, last = (int(spaced[at] or spaced[2], 0 if "x" in (spaced[at] or spaced[2]) else 10) for at in (2, 3))
        if min(first, last) >= back:
            return f"{spaced[1]} {first - back}" + (f"-{last - back}" if spaced[3] else "")
        raise Misread("cells counted from 1, as the asset's numbering has them", f'"{spaced[1]} 1"')
    if back and (bare := re.fullmatch(_NUMBER, text)) and _numbered(text, "modicon") == text:
        raise Misread("a space and cells counted from 1, as the asset's numbering has them", f'"holding {bare[1]}"')
    return text


MODBUS = Dialect(
    name="modbus",
    default_port=502,
    notation=CellNotation(("holding 100", "holding 0-99"), _near),
    types={
        kind.value: kind
        for kind in (
            ValueType.BOOL, ValueType.UINT16, ValueType.INT16, ValueType.UINT32, ValueType.INT32, ValueType.UINT64,
            ValueType.INT64, ValueType.FLOAT32, ValueType.FLOAT64, ValueType.TEXT,
        )
    },
    spaces=(
        Space("holding", bits=False, writable=True, read=3, write_one=6, write_many=16, write_bits=22, whole=True,
              digit=4),
        Space("input", bits=False, writable=False, read=4, whole=True, digit=3),
        Space("coil", bits=True, writable=True, read=1, write_one=5, write_many=15, whole=True),
        Space("discrete", bits=True, writable=False, read=2, whole=True, digit=1),
        Space("file", bits=False, writable=True, numbered=True, read=20, write_many=21),
        Space("fifo", bits=False, writable=False, read=24),
    ),
    codes={
        7: "read exception status",
        8: "diagnostics",
        11: "get comm event counter",
        12: "get comm event log",
        17: "report server id",
        43: "encapsulated interface (43/13 CANopen, 43/14 device identification)",
    },
    numberings=_numbered,
    code_range=(1, 127),
    code_examples='8 or "43/14"',
    # Restart communications, change delimiter, force listen only, clear counters, clear overrun; CANopen may write.
    changing=frozenset({(8, 1), (8, 3), (8, 4), (8, 10), (8, 20), (43, 13)}),
    place_codes=frozenset({1, 2, 3, 4, 5, 6, 15, 16, 20, 21, 22, 23, 24}),
    # Modbus over serial line 1.02, 2.2: 0 is the broadcast; TCP guide 1.0b, 4.4.2.1: 255 is a device without units.
    units=Units(0, 255, broadcast=0),
    quirks=frozenset({
        "any_unit", "zero_transaction_id", "wrong_transaction_id", "spare_bytes", "long_exceptions", "wrong_byte_count",
        "full_echo", "loose_echo", "answers_twice", "wrong_length", "rtu_over_tcp", "rtu_echo",
    }),
    vendors={
        40: "not public: Modicon programming", 42: "not public: Modicon programming",
        65: "user-defined: Huawei's inverters among others",
        90: "not public: Schneider UMAS, by which controllers are programmed",
        125: "not public: Schneider firmware", 126: "not public: Schneider programming",
    },
    opaque=True,
    secure_port=802,
    secrets=("certificate", "key", "trusted"),
    id_quirks=("zero_transaction_id", "wrong_transaction_id"),
    length_quirk="wrong_length",
    lone_quirks=frozenset({
        "zero_transaction_id", "wrong_transaction_id", "wrong_length", "rtu_over_tcp", "rtu_echo",
    }),
)  # fmt: skip
