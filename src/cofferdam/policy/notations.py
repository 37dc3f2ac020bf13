"""How the policy file's values are written: each a type that reads the text which stands there, and tells editors.

What depends on the asset's protocol (places, types, units, codes) is read by the dialect around it (`Reading`).

Not here: the fields (schema, schema_assets), the small notations themselves (syntax).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationInfo,
    WithJsonSchema,
)

from cofferdam.model import Item, Span
from cofferdam.policy import syntax
from cofferdam.policy.fields import YES_NO
from cofferdam.policy.fields import choice as _choice
from cofferdam.policy.fields import one_or_list as _one_or_list
from cofferdam.policy.fields import one_or_more as _listed
from cofferdam.policy.fields import read_by as _read
from cofferdam.policy.fields import whole as _whole
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.rows import Piece
from cofferdam.protocols.dialect import BitSpan, Dialect, Misread
from cofferdam.protocols.dialects import DIALECTS, Dialects
from cofferdam.values import ValueType

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
ADDRESS = {"type": "string", "examples": ["10.20.0.17", "fd00::17"]}
DURATION = {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(us|µs|ms|s|min|h|d)$", "examples": ["200 ms", "5 s"]}
_NOTATIONS: list[dict[str, Any]] = [
    {"type": "string", "pattern": dialect.notation.pattern, "examples": list(dialect.notation.examples)}
    for dialect in DIALECTS.values()
]
PLACE = _NOTATIONS[0] if len(_NOTATIONS) == 1 else {"anyOf": _NOTATIONS}
IEC_TYPES = (
    "INT", "DINT", "LINT", "UINT", "WORD", "UDINT", "DWORD", "ULINT", "LWORD", "REAL", "LREAL", "BOOL"
)  # fmt: skip
TYPES = list(dict.fromkeys((*(name for dialect in DIALECTS.values() for name in dialect.types), *IEC_TYPES)))
_UNITS = [dialect.units for dialect in DIALECTS.values() if dialect.units is not None]
UNIT = {
    "anyOf": [
        {"type": "integer", "minimum": min(u.low for u in _UNITS), "maximum": max(u.high for u in _UNITS)},
        {"const": "any"},
    ]
}
UNITS = {
    "anyOf": [
        {"type": "string", "pattern": r"^\d{1,3}(\s*-\s*\d{1,3})?$"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
    ],
    "examples": ["1-20", ["1", "8-12"]],
}
_CODES = [dialect.code_range for dialect in DIALECTS.values()]
_CODE_DIGITS = len(str(max(high for _, high in _CODES)))
CODE = {
    "anyOf": [
        {"type": "integer", "minimum": min(low for low, _ in _CODES), "maximum": max(high for _, high in _CODES)},
        {"type": "string", "pattern": rf"^\d{{1,{_CODE_DIGITS}}}(/\d{{1,5}})?$"},
    ],
    "examples": [8, "43/14"],
}

ALL = "all"
"""Stands for every point of an asset in a rule's `read` and `write`."""
DEFAULT_FIELDS = "default"
"""In a notifier's `fields`: those that all events have."""


class Reading:
    """What fields need to know of where they stand: the dialect of the asset, or of the conduit's broker, around them.
    None: there is none of that name, and what only a dialect can read stays unread (None): the name is the error."""

    def __init__(self, dialects: Dialects) -> None:
        self.dialects = dialects
        self.dialect: Dialect | None = None
        self.numbering = ""
        self.shorts: dict[str, str] = {}


def _dialect(info: ValidationInfo) -> Dialect | None:
    return info.context.dialect if isinstance(info.context, Reading) else None


def read_within(info: ValidationInfo, raw: Any, field: str, handler: Callable[[Any], Any]) -> Any:
    """Reads an entry by the dialect that its own field names."""
    reading = info.context
    if not isinstance(reading, Reading):
        return handler(raw)
    name = raw.get(field) if isinstance(raw, dict) else None
    outside, reading.dialect = reading.dialect, reading.dialects.get(name) if isinstance(name, str) else None
    said = raw.get("numbering") if isinstance(raw, dict) else None
    reading.numbering = said if isinstance(said, str) else ""
    shorts = raw.get("namespaces") if isinstance(raw, dict) else None
    known = shorts.items() if isinstance(shorts, dict) else ()
    reading.shorts = {str(short): uri for short, uri in known if isinstance(uri, str)}
    try:
        return handler(raw)
    finally:
        reading.dialect, reading.numbering, reading.shorts = outside, "", {}


def read_unit(raw: Any, info: ValidationInfo) -> int:
    dialect = _dialect(info)
    if dialect is None:
        return -1
    units = dialect.units
    if units is None:
        raise syntax.Expected(f"no unit: {dialect.name} has none")
    if raw == "any" and units.any:
        return -1
    try:
        return syntax.whole(raw, units.low, units.high)
    except Exception as error:
        if "octal" in str(error):
            raise
        words = f"a whole number from {units.low} to {units.high}"
        raise syntax.Expected(f"{words}, or any" if units.any else words) from None


def _place(raw: Any, info: ValidationInfo) -> Span | Item | None:
    """Cells or an item, as the dialect writes them."""
    dialect = _dialect(info)
    if dialect is None:
        return None
    text = raw if isinstance(raw, str) else ""
    reading = info.context
    try:
        if isinstance(reading, Reading):
            text = dialect.written_out(dialect.numbered(text, reading.numbering), reading.shorts)
    except Misread as error:
        raise syntax.Expected(str(error), error.near) from None
    try:
        return dialect.notation.parse(text)
    except Misread as error:
        near = error.near
        if isinstance(reading, Reading):
            near = dialect.as_numbered(near, reading.numbering)
        raise syntax.Expected(str(error), near) from None


def _node_text(raw: Any, info: ValidationInfo) -> str:
    """A text that names a place, with its short names written out."""
    text, dialect = syntax.text(raw), _dialect(info)
    try:
        if dialect is not None and isinstance(info.context, Reading):
            text = dialect.written_out(text, info.context.shorts)
    except Misread as error:
        raise syntax.Expected(str(error), error.near) from None
    return text


def _field_text(raw: Any, info: ValidationInfo) -> str:
    """A field of events, with its short names written out."""
    text, dialect = syntax.text(raw), _dialect(info)
    try:
        if dialect is not None and isinstance(info.context, Reading):
            text = dialect.notation.field_written_out(text, info.context.shorts)
    except Misread as error:
        raise syntax.Expected(str(error), error.near) from None
    return text


def _raw(raw: Any, info: ValidationInfo) -> Piece | None:
    """A place, or all items with a prefix."""
    dialect = _dialect(info)
    if dialect is None or not isinstance(raw, str) or not raw.endswith("*"):
        place = _place(raw, info)
        if isinstance(place, BitSpan):
            raise syntax.Expected(
                "whole cells: bits are written by a point that is them", f'"{place.space} {place.start}"'
            )
        return None if place is None else Piece(place)
    try:
        return Piece(dialect.notation.prefix(raw), prefix=True)
    except Misread as error:
        raise syntax.Expected(str(error), error.near) from None


BCD = "bcd"
"""The type of decimal digits, which the number of its cells makes an unsigned number of as many words."""


def _point_type(raw: Any, info: ValidationInfo) -> ValueType | Literal["bcd"] | None:
    dialect = _dialect(info)
    if dialect is not None and dialect.spaces and isinstance(raw, str):
        if raw in (BCD, BCD.upper()):
            return "bcd"
        if raw in ("string", "STRING") and "text" in dialect.types:
            return ValueType.TEXT
    return _type(raw, info, (*dialect.types, BCD) if dialect is not None and dialect.spaces else ())


def _type(raw: Any, info: ValidationInfo, words: Collection[str] = ()) -> ValueType | None:
    dialect = _dialect(info)
    if dialect is None:
        return None
    found = dialect.types.get(raw) if isinstance(raw, str) else None
    if found is None and isinstance(raw, str) and raw.isupper():
        found = dialect.types.get(raw.lower()) or dialect.types.get(_IEC.get(raw.lower(), ""))
    if found is None:
        raise syntax.Expected(one_of(words or dialect.types, 20), _near_type(raw, words or dialect.types, dialect))
    return found


_IEC = {
    "int": "int16", "dint": "int32", "lint": "int64", "uint": "uint16", "word": "uint16", "udint": "uint32",
    "dword": "uint32", "ulint": "uint64", "lword": "uint64", "real": "float32", "float": "float32", "lreal": "float64",
    "double": "float64", "boolean": "bool", "bit": "bool", "bool": "bool",
}  # fmt: skip
"""What engineers call the types: the names of IEC 61131-3, 6.4, and those of drivers."""


def _near_type(raw: Any, known: Collection[str], dialect: Dialect) -> str:
    if not isinstance(raw, str):
        return ""
    meant = _IEC.get(raw.lower(), raw.lower())
    same = [name for name in known if dialect.types.get(name) == meant]
    return meant if meant in known else same[0] if same else nearest(raw, known)


def form_of(raw: Any, info: ValidationInfo) -> str:
    """The type of an entry, where that is a form alone (`Dialect.value_forms`); else ""."""
    dialect, word = _dialect(info), raw.get("type") if isinstance(raw, dict) else None
    return word if dialect is not None and isinstance(word, str) and word in dialect.value_forms else ""


def _code(raw: Any, info: ValidationInfo) -> tuple[int, int]:
    dialect = _dialect(info)
    low, high = (1, 65535) if dialect is None else dialect.code_range
    return syntax.function(raw, low, high, "" if dialect is None else dialect.code_examples)


def _security_word(raw: Any, info: ValidationInfo) -> str:
    dialect = _dialect(info)
    if dialect is None:
        return ""
    if not dialect.security:
        raise syntax.Expected(f"nothing: {dialect.name} has no security of its own")
    if raw not in dialect.security:
        raise syntax.Expected(one_of(dialect.security), nearest(raw, dialect.security) if isinstance(raw, str) else "")
    return str(raw)


def _thumbprint(raw: Any) -> str:
    text = raw.replace(":", "").lower() if isinstance(raw, str) else ""
    if len(text) != 40 or text.strip("0123456789abcdef"):
        raise syntax.Expected("the thumbprint of a certificate: SHA-1, 40 hexadecimal digits")
    return text


_NAME_ITEM = {"type": "string", "pattern": NAME}
_NETWORK_ITEM = {"type": "string", "examples": ["10.1.0.20", "10.1.5.0/24"]}
Name = Annotated[str, *_read(syntax.name, _NAME_ITEM)]
Text = Annotated[str, *_read(syntax.text, {"type": "string", "minLength": 1})]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed), _one_or_list(_NAME_ITEM)]
_FIELD_ITEM = {"type": "string", "minLength": 1}
Fields = Annotated[
    tuple[Annotated[str, *_read(_field_text, _FIELD_ITEM)], ...], BeforeValidator(_listed), _one_or_list(_FIELD_ITEM)
]
Address = Annotated[str, *_read(syntax.address, ADDRESS)]
Network = Annotated[str, *_read(syntax.network, _NETWORK_ITEM)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_listed), _one_or_list(_NETWORK_ITEM)]
Interface = Annotated[str, *_read(syntax.interface, {"type": "string", "examples": ["10.1.0.2/24"]})]
Interfaces = Annotated[tuple[Interface, ...], BeforeValidator(_listed), _one_or_list({"type": "string"})]
InterfaceName = Annotated[str, *_read(syntax.interface_name, {"type": "string", "maxLength": 15, "examples": ["eth1"]})]
_ROUTE_ITEM = {"type": "string", "examples": ["10.50.0.0/16 via 10.1.0.254"]}
Route = Annotated[tuple[str, str], *_read(syntax.route, _ROUTE_ITEM)]
Routes = Annotated[tuple[Route, ...], BeforeValidator(_listed), _one_or_list(_ROUTE_ITEM)]
Endpoint = Annotated[tuple[str, int], *_read(syntax.endpoint, {"type": "string", "examples": ["127.0.0.1:502"]})]
_PREFIX4_ITEM = {"type": "string", "examples": ["10.64.7.0/24"]}
_PREFIX6_ITEM = {"type": "string", "examples": ["auto", "none", "fd12:3456:789a::/64"]}
Endpoints = Annotated[
    tuple[Endpoint, ...], BeforeValidator(_listed), _one_or_list({"type": "string", "examples": ["10.1.0.20:4845"]})
]
Prefix4 = Annotated[str, *_read(lambda raw: syntax.prefix(raw, 4), _PREFIX4_ITEM)]
Prefix6 = Annotated[str, *_read(syntax.prefix6, _PREFIX6_ITEM)]
Domain = Annotated[str, *_read(syntax.domain, {"type": "string", "examples": ["riverside-water.internal"]})]
HostPort = Annotated[
    tuple[str, int], *_read(syntax.host_port, {"type": "string", "examples": ["vpn.example.com:51820"]})
]
_ADDRESSES_ITEM = {"anyOf": [ADDRESS, {"type": "array", "items": ADDRESS, "minItems": 1}]}
Addresses = Annotated[tuple[Address, ...], BeforeValidator(_listed), WithJsonSchema(_ADDRESSES_ITEM)]
Milliseconds = Annotated[int, *_read(syntax.milliseconds, DURATION)]
Microseconds = Annotated[int, *_read(syntax.microseconds, DURATION)]
LeakProbe = Annotated[
    int,
    *_read(
        syntax.leak_probe,
        {"anyOf": [{**DURATION, "examples": ["5 min", "30 s"]}, {"const": "off"}]},
    ),
]
"""Seconds; 0 for off."""
Number = Annotated[float, *_read(syntax.number, {"type": "number"})]
Limit = Annotated[
    float,
    *_read(syntax.limit, {"anyOf": [{"type": "number"}, {"type": "string", "examples": ["2027-06-30T12:00:00Z"]}]}),
]
Positive = Annotated[float, *_read(syntax.positive, {"type": "number", "exclusiveMinimum": 0})]
YesNo = Annotated[bool, *YES_NO]
_NUMBER_ITEM = {"type": "number"}


def _not_zero(raw: Any) -> float:
    value = syntax.number(raw)
    if value == 0:
        raise syntax.Expected("a number other than 0")
    return value


def _number_or_hex(raw: Any) -> float:
    if isinstance(raw, str) and re.fullmatch(r"0x[0-9a-fA-F]{1,12}", raw):
        return float(int(raw, 16))
    return syntax.number(raw)


NotZero = Annotated[float, *_read(_not_zero, _NUMBER_ITEM)]
Numbers = Annotated[
    tuple[Annotated[float, *_read(_number_or_hex, _NUMBER_ITEM)], ...],
    BeforeValidator(_listed),
    _one_or_list(_NUMBER_ITEM),
]
Seconds = Annotated[
    float, *_read(syntax.seconds, {"type": "number", "exclusiveMinimum": 0, "maximum": syntax.YEAR_SECONDS})
]
SecondsOrNone = Annotated[
    float, *_read(syntax.seconds_or_none, {"type": "number", "minimum": 0, "maximum": syntax.YEAR_SECONDS})
]
Rate = Annotated[
    syntax.Rate,
    *_read(
        syntax.rate,
        {"type": "string", "pattern": "^[0-9.eE+-]+.*/ *(s|min|h)$", "examples": ["50 rpm/min", "2 bar/s", "30 K/h"]},
    ),
]
_ORDERS = {"ABCD": "big", "CDAB": "little", "BADC": "big-swapped", "DCBA": "little-swapped"}
"""What drivers call them, by the bytes of 32 bits as they come."""
_ORDER_WORDS = [*_ORDERS.values(), *_ORDERS]


def _word_order(raw: Any) -> str:
    found = _ORDERS.get(raw.upper(), raw) if isinstance(raw, str) else ""
    if found not in _ORDERS.values():
        raise syntax.Expected(one_of(_ORDER_WORDS, 20), nearest(raw, _ORDER_WORDS) if isinstance(raw, str) else "")
    return found


WordOrder = Annotated[
    Literal["big", "little", "big-swapped", "little-swapped"],
    *_read(_word_order, {"type": "string", "enum": _ORDER_WORDS}),
]
Numbering = Annotated[Literal["zero", "one", "modicon"], *_choice("zero", "one", "modicon")]
Elements = Annotated[int, *_whole(1, 65536)]
Length = Annotated[int, *_whole(1, 65536)]
Dimensions = Annotated[
    tuple[Elements, ...],
    BeforeValidator(_listed),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65536}, "minItems": 2}),
]
At = Annotated[Span | Item | None, *_read(_place, PLACE)]
NodeText = Annotated[str, *_read(_node_text, {"type": "string", "minLength": 1})]
"""Unread (None) only where the asset's protocol is wrong."""
Type = Annotated[ValueType | None, *_read(_type, {"type": "string", "enum": TYPES})]
PointType = Annotated[
    ValueType | Literal["bcd"] | None, *_read(_point_type, {"type": "string", "enum": [*TYPES, BCD, "string"]})
]
Raw = Annotated[Piece | None, *_read(_raw, PLACE)]
_SECURITY_ITEM = {"type": "string", "enum": list(dict.fromkeys(w for d in DIALECTS.values() for w in d.security))}


def _all_cells(raw: Any, info: ValidationInfo) -> Any:
    """`all`, as the cells that it stands for."""
    dialect = _dialect(info)
    if raw not in (ALL, [ALL]) or dialect is None:
        return _listed(raw)
    spaces = [space.name for space in dialect.spaces if space.whole]
    if not spaces:
        raise syntax.Expected(f"items by name: {dialect.name} has no cells")
    return tuple(f"{name} 0-65535" for name in spaces)


RawReads = Annotated[
    tuple[Raw, ...], BeforeValidator(_all_cells), _one_or_list({"anyOf": [*_NOTATIONS, {"const": ALL}]})
]


def _some_cells(raw: Any, info: ValidationInfo) -> Any:
    """Cells for writing: not `all`."""
    dialect = _dialect(info)
    if raw in (ALL, [ALL]) and dialect is not None and dialect.spaces:
        examples = " or ".join(f'"{example}"' for example in dialect.notation.examples)
        raise syntax.Expected(f"the cells that may be written, such as {examples}: all stands for reads alone")
    return _listed(raw)


RawWrites = Annotated[tuple[Raw, ...], BeforeValidator(_some_cells), _one_or_list(PLACE)]
SecurityWord = Annotated[str, *_read(_security_word, _SECURITY_ITEM)]
SecurityWords = Annotated[tuple[SecurityWord, ...], BeforeValidator(_listed), _one_or_list(_SECURITY_ITEM)]
Thumbprint = Annotated[str, *_read(_thumbprint, {"type": "string", "examples": ["3f" * 20]})]
Code = Annotated[tuple[int, int], *_read(_code, CODE)]
Codes = Annotated[tuple[Code, ...], BeforeValidator(_listed), _one_or_list(CODE)]
Hour = Annotated[int, *_read(syntax.hour, {"type": "string", "pattern": r"^\d{1,2}:\d{2}(:\d{2})?$"})]
Days = Annotated[
    tuple[int, ...],
    *_read(
        syntax.days,
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "examples": ["mon-fri", "all", ["mon", "wed", "sat-sun"]],
        },
    ),
]
Dates = Annotated[
    tuple[tuple[int, int], ...],
    *_read(
        syntax.dates,
        {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "examples": ["2027-05-01", ["2026-12-24 to 2027-01-02", "2027-05-01"]],
        },
    ),
]
Date = Annotated[str, *_read(syntax.date, {"type": "string", "examples": ["2027-06-30", "2027-06-30 Europe/Paris"]})]


class Entry(BaseModel):
    """What all parts share: unknown fields are errors, nothing is converted silently, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        populate_by_name=False,
        hide_input_in_errors=True,
        defer_build=True,  # the model of the whole file is built, and none of its parts alone
    )
