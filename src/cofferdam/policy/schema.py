"""The policy file's fields: names, notations, defaults, and the sentence that documents each.

From these models come the checks of a file, the JSON Schema for editors, and docs/policy-reference.md. Values arrive as
the text that stands in the file (policy.yamltext), so each field says by its type how it reads that text.

Not here: checks between fields and between entries (policy.crosscheck), and what the rules mean (policy.decide).
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Callable, Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)

from cofferdam import limits as limits_module
from cofferdam.audit.entry import KINDS
from cofferdam.limits import Limits
from cofferdam.model import Item, Side, Span, ValueType
from cofferdam.policy import collectors, syntax, witnesses
from cofferdam.policy.fields import YES_NO, FileName, as_list, size, span
from cofferdam.policy.fields import choice as _choice
from cofferdam.policy.fields import one_or_list as _one_or_list
from cofferdam.policy.fields import one_or_more as _listed
from cofferdam.policy.fields import read_by as _read
from cofferdam.policy.fields import whole as _whole
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.rows import Piece
from cofferdam.protocols.dialect import BitSpan, Dialect, Misread
from cofferdam.protocols.dialects import DIALECTS, Dialects

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


def _read_within(info: ValidationInfo, raw: Any, field: str, handler: Callable[[Any], Any]) -> Any:
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


def _unit(raw: Any, info: ValidationInfo) -> int:
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
        found = dialect.types.get(_IEC.get(raw.lower(), ""))
    if found is None:
        raise syntax.Expected(one_of(words or dialect.types, 20), _near_type(raw, words or dialect.types))
    return found


_IEC = {
    "int": "int16", "dint": "int32", "lint": "int64", "uint": "uint16", "word": "uint16", "udint": "uint32",
    "dword": "uint32", "ulint": "uint64", "lword": "uint64", "real": "float32", "float": "float32", "lreal": "float64",
    "double": "float64", "boolean": "bool", "bit": "bool", "bool": "bool",
}  # fmt: skip
"""What engineers call the types: the names of IEC 61131-3, 6.4, and those of drivers."""


def _near_type(raw: Any, known: Collection[str]) -> str:
    if not isinstance(raw, str):
        return ""
    meant = _IEC.get(raw.lower(), "")
    return meant if meant in known else nearest(raw, known)


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
Fields = Annotated[tuple[Text, ...], BeforeValidator(_listed), _one_or_list({"type": "string", "minLength": 1})]
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


_STATION = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"


def _station(raw: Any) -> str:
    text = raw.lower() if isinstance(raw, str) else ""
    if re.match(_STATION, text) is None:
        raise syntax.Expected("a hardware address, such as 02:00:5e:10:00:01")
    return text


Station = Annotated[str, *_read(_station, {"type": "string", "pattern": _STATION, "examples": ["02:00:5e:10:00:01"]})]


class Zone(Entry):
    """A network segment on one of the two sides."""

    side: Annotated[Literal["it", "ot"], *_choice("it", "ot")] = Field(
        description="Which bulkhead the zone stands behind: `it` (less trusted) or `ot` (the plant)."
    )
    level: Number | None = Field(
        None, description="Level in the Purdue model, such as 4 or 3.5. For people; decides nothing."
    )
    interface: InterfaceName | None = Field(
        None,
        description="The network interface of this machine that leads to the zone. Separation by namespaces needs it, "
        "and takes it into the namespace of its side while the gate runs.",
    )
    vlan: Annotated[int, *_whole(1, 4094)] | None = Field(
        None, description="The zone is this VLAN of the interface: the gate makes the VLAN's interface and takes that."
    )
    attach: Annotated[Literal["move", "macvlan"], *_choice("move", "macvlan")] = Field(
        "move",
        description="How the interface is taken: `move` takes it whole, `macvlan` makes another interface on it, for a "
        "port that this machine needs for other things as well.",
    )
    addresses: Interfaces = Field(
        (),
        description="This machine's own addresses in the zone with their prefix length, such as `10.1.0.2/24`. "
        "Default: those that the interface has.",
    )
    routes: Routes = Field(
        (), description="Networks behind a router of the zone: `10.50.0.0/16 via 10.1.0.254`, or a list of them."
    )
    machine: Name | None = Field(
        None,
        description="Which machine the zone hangs on, where a site has several: each runs the gate by the same policy, "
        "with `cofferdam up --machine NAME`. With one zone that says it, all must.",
    )
    crossing: Annotated[Literal["diode"], *_choice("diode")] | None = Field(
        None,
        description="`diode`: the zone is one end of a strand that goes one way, and nothing else is on it. It has a "
        "network namespace of its own.",
    )
    station: Station | None = Field(
        None,
        description="The hardware address of the strand's other end, for the end that sends: nobody can be asked for "
        "it. Default: that of everybody (broadcast).",
    )


class Point(Entry):
    """A named value of an asset, and the limits that hold for whoever writes it."""

    at: At = Field(
        description="Where the value is, as the asset's protocol writes it. Modbus: the space and the first cell, "
        "counted from 0 as on the wire: `holding 100`, `input 12`, `coil 3`, `discrete 7`, `file:4 0`. A range "
        "(`holding 100-101`) must have as many cells as the type. `holding 40.3` is bit 3 of a register, counted from "
        "the least significant one, `holding 40.0-3` a field of four; `holding 40 bit 3` is the same."
    )
    type: PointType = Field(
        None,
        description="What the value is, or how the cells make it, in the protocol's words. Modbus: `bool`, `uint16`, "
        "`int16`, `uint32`, `int32`, `uint64`, `int64`, `float32`, `float64`, or by "
        "IEC 61131-3: `INT`, `REAL`; `text` (or `string`): two characters of ASCII in each cell of the range; `bcd`: "
        "four decimal digits in each of one, two or four cells. Coils, discrete inputs and single bits are `bool`, "
        "several bits `uint16`; all others must say.",
    )
    word_order: WordOrder = Field(
        "big",
        description="Order of the words of a wider type: `big` has the most significant first, `little` last. With "
        "`-swapped` the bytes within each word stand the other way round. Or as drivers have it: `ABCD`, `CDAB`, "
        "`BADC`, `DCBA`.",
    )
    byte_order: WordOrder | None = Field(None, description="Another name for `word_order`, which drivers use.")
    unit: Text | None = Field(None, description="The physical unit, for people: rpm, m, kWh.")
    scale: NotZero | None = Field(
        None,
        description="What people mean is the device's number times this: 0.01 where 7000 is 70 %. All limits of the "
        "point are in what people mean then, and so is what `explain` asks and refusals say. For cells.",
    )
    offset: Number | None = Field(None, description="What is added to the scaled number. For cells.")
    scale_from: At = Field(
        None,
        description="The cell that holds, as an int16, the power of ten by which the device's number is multiplied "
        "(SunSpec's scale factors): `holding 40084`. `min` and `max` are in what that makes. The broker reads it just "
        "before a write.",
    )
    values: Numbers = Field(
        (), description="The only values that may be written, and nothing between: `[0x55, 0xAA]`. For cells."
    )
    min: Number | None = Field(None, description="The smallest value that may be written.")
    max: Number | None = Field(None, description="The largest value that may be written.")
    max_step: Positive | None = Field(
        None,
        description="How far a written value may be from the present one, which the broker reads just before; with "
        "`limits: known_value_seconds`, a value that old will do.",
    )
    max_rate: Rate | None = Field(
        None,
        description="How fast the value may move, in the unit of the point: `50 rpm/min`, `2 bar/s`, `30 K/h`. A "
        "written value may be no further than that from any value that the point had within the last minute (second), "
        "as far as the broker knows: before and after each write. Said for an hour, it holds for each minute of it.",
    )
    writes_per_minute: Annotated[int, *_whole(1, 6000)] | None = Field(
        None, description="How many writes of the point are sent within any 60 seconds, by all clients together."
    )
    elements: Elements | None = Field(
        None,
        description="How many elements the value has, where it is a whole array. For protocols with names; default: a "
        "single value, or the range that `at` names.",
    )
    max_length: Length | None = Field(
        None,
        description="The longest text (characters) or byte string (bytes) that may be written. For such types.",
    )
    structure: NodeText | None = Field(
        None,
        description="The value is a structure that the gate does not decode, of this encoding (the node of its Default "
        "Binary): `nsu=urn:plant:line;i=5001`. With `type: ByteString` and `max_length`. It may be read, and never "
        "written.",
    )
    fastest: Microseconds | None = Field(
        None,
        description="How often the value may be looked at for who has subscribed to it: no interval is shorter. For "
        "protocols with subscriptions.",
    )


class Argument(Entry):
    """What a method takes in one place of a call, and its limits."""

    name: Name = Field(description="What it is called in messages and in the log.")
    type: Type = Field(description="What it is, in the protocol's words.")
    unit: Text | None = Field(None, description="The physical unit, for people.")
    min: Number | None = Field(None, description="The smallest value that may be passed.")
    max: Number | None = Field(None, description="The largest value that may be passed.")
    elements: Elements | None = Field(None, description="How many elements it has, where it is an array.")
    max_length: Length | None = Field(None, description="The longest text or byte string that may be passed.")


class Returned(Entry):
    """What a method gives back in one place of its answer."""

    name: Name = Field(description="What clients are told that it is called.")
    type: Type = Field(description="What it is, in the protocol's words.")
    unit: Text | None = Field(None, description="The physical unit, for people.")
    elements: Elements | None = Field(None, description="How many elements it has, where it is an array.")


class Method(Entry):
    """Something that can be called at an asset. A call counts as a write."""

    at: At = Field(description="Which method, as the asset's protocol writes it.")
    arguments: Annotated[tuple[Argument, ...], BeforeValidator(as_list)] = Field(
        (), description="What it takes, in order. A call with other types, or another number of them, is refused."
    )
    returns: Annotated[tuple[Returned, ...], BeforeValidator(as_list)] = Field(
        (),
        description="What it gives back, in order, for clients to see. If it is said, what the device gives back in "
        "another form is left out.",
    )
    writes_per_minute: Annotated[int, *_whole(1, 6000)] | None = Field(
        None, description="How many calls are sent within any 60 seconds, of all clients together."
    )


class Stream(Entry):
    """A stream that can be opened to an asset: values that then go by themselves, frame by frame. Opening it counts as
    a write; the values of its frames are held to the limits of the points that they are of."""

    at: At = Field(description="Which stream, as the asset's protocol writes it.")
    fastest: Microseconds | None = Field(None, description="The shortest interval of its frames that may be asked.")
    form: Text | None = Field(
        None,
        description="What it is made of, where the protocol has to be told. EtherNet/IP: its assemblies and their "
        "sizes, `outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151`; with `, no run` at the end if the outputs "
        "do not begin with run or idle.",
    )


class Notifier(Entry):
    """What events come from, and which of their fields may be had. Of one object there may be several, with fields for
    different principals."""

    at: At = Field(
        description="The object that events come from, as the asset's protocol writes it. OPC UA: `i=2253` is the "
        "server itself, whose events are those of all."
    )
    fields: Fields = Field(
        (),
        description="The fields, as the asset's protocol writes them. OPC UA: browse paths such as `Severity`, "
        "`ActiveState/Id` or `nsu=urn:plant:line;Batch`, and `ConditionId`. Default: those that all events have "
        "(EventId, EventType, SourceNode, SourceName, Time, ReceiveTime, Message, Severity); `default` among others "
        "stands for them.",
    )


class Security(Entry):
    """How an asset is spoken with, on either side. For protocols that can be secured."""

    clients: SecurityWords = Field(
        (), description="What clients may use. Default: the best that the protocol has; `none` has to be said."
    )
    asset: SecurityWord | None = Field(None, description="What is used towards the asset. Default: the same.")
    server: Text | None = Field(
        None, description="Who the asset has to show to be: for OPC UA the ApplicationUri of its certificate."
    )
    revocation: Annotated[str, *_choice("known", "required")] = Field(
        "known",
        description="`required`: a certificate by an authority is good only with a current revocation list of it "
        "(`cofferdam pki crl`). `known`: what a list says counts, where there is one.",
    )
    user: Text | None = Field(
        None, description="As whom the broker logs in at the asset. The password is `cofferdam pki password ASSET`."
    )
    login: Annotated[str, *_choice("certificate")] | None = Field(
        None,
        description="`certificate`: instead, the broker logs in at the asset by a certificate that is for that alone "
        "(`cofferdam pki identity ASSET`).",
    )


class Tls(Entry):
    """Modbus/TCP Security: the protocol within TLS, both ends with certificates (`cofferdam tls`)."""

    clients: YesNo = Field(False, description="Clients have to use it. The broker answers at port 802 then.")
    asset: YesNo = Field(False, description="The device is spoken with by it, at port 802 unless `port` says another.")
    name: Text | None = Field(
        None, description="The name that the device's certificate has to have. Default: its address."
    )


class Reverse(Entry):
    """Connections that who serves opens. For protocols that have such (OPC UA: reverse connect)."""

    listen: Endpoint | None = Field(
        None,
        description="ADDRESS:PORT of this machine in the asset's zone, to which the device opens connections, from its "
        "`address`. The gate opens none to it then.",
    )
    clients: Endpoints = Field(
        (),
        description="ADDRESS:PORT, or a list of them: to these clients the gate opens connections for the asset. Who "
        "waits there has to be a principal that a rule names, by its address.",
    )


class Asset(Entry):
    """A device in the plant."""

    zone: Name = Field(description="The zone in which the device is.")
    address: Address = Field(description="The device's own address, on the plant side.")
    protocol: Name = Field(description="What the device speaks: `modbus`.")
    port: Annotated[int, *_whole(1, 65535)] | None = Field(
        None, description="The device's port. Default: that of the protocol (Modbus: 502)."
    )
    unit: Annotated[int, *_read(_unit, UNIT)] = Field(
        1,
        description="The unit id that requests must carry, 0 to 255, or `any`. A device behind a serial gateway has "
        "its own. For protocols with units.",
    )
    units: Annotated[None, *_read(lambda raw: None, UNITS)] = Field(
        None,
        description="Instead of `unit`: one asset for each of these units, `1-20` or `[1, 2, 8-12]`, named NAME-1 and "
        "so on, and alike in all else. Rules that name NAME mean all of them.",
    )
    device_unit: Annotated[int, *_whole(0, 255)] | None = Field(
        None,
        description="The unit id that the device itself has, where it is another than clients say (`unit`).",
    )
    gateway: Literal["serial"] | None = Field(
        None,
        description="`serial`: behind the address is a gateway to a serial line, which tells its units apart. Else "
        "they are taken for one device, and no other asset of the address may be written where one has limits.",
    )
    overlay: Address | None = Field(
        None, description="The address that the other side sees for this device; only a broker answers there."
    )
    listen: Endpoint | None = Field(
        None,
        description="ADDRESS:PORT where the broker answers for this device. Default: the overlay address with the "
        "protocol's port. Devices with different units may share one.",
    )
    connections: Annotated[int, *_whole(1, 64)] = Field(
        1, description="Never more connections than this towards the device."
    )
    outstanding: Annotated[int, *_whole(1, 16)] = Field(
        1, description="Requests in flight on one connection to the device."
    )
    timeout: Milliseconds = Field(1000, description="How long the device may take to answer.")
    connect_delay: Milliseconds | None = Field(
        None, description="How long after connecting the device is left alone before it is asked. At most 30 s."
    )
    reconnect_delay: Milliseconds | None = Field(
        None,
        description="How long after a connection has ended, whoever ended it, the device is left alone before the next "
        "is opened; reads wait meanwhile, writes for `timeout` or `wait`, and one refusal more is waited out. For "
        "devices that refuse the next connection for a while. At most 30 s.",
    )
    pause: Milliseconds | None = Field(
        None,
        description="How long the device is left alone after each of its answers, whoever asks next. For converters to "
        "serial lines, which lose what comes too soon. At most 10 s; `outstanding` must be 1.",
    )
    idle: Milliseconds | None = Field(
        None,
        description="A connection that nobody has used for so long is closed, half a second later at most: a second "
        "less than what the device itself forgets one after. Default: `asset_idle_seconds` of `limits`. At least 1 s.",
    )
    wait: Milliseconds | None = Field(
        None,
        description="How long a request may wait in line for the device, apart from `timeout`, which is the device's. "
        "What waited longer is answered as busy, and not sent. Default: `timeout` and `connect_delay`, for reads "
        "`reconnect_delay` besides; reads of a device behind whose address are several units, five times that. At most "
        "60 s.",
    )
    keep_alive: Milliseconds | None = Field(
        None,
        description="A connection that nobody has used for so long is used by the gate: it asks what `cofferdam ping` "
        "asks, the first read that a rule allows somebody just then. For devices that forget a connection and clients "
        "that ask seldom. From 1 s on, and less than `idle`.",
    )
    write_bits: Annotated[Literal["alone", "read-first"], *_choice("alone", "read-first")] = Field(
        "alone",
        description="How bits of a word are written: `alone`, where the device knows a function for that (Modbus: 22), "
        "or `read-first`, where it does not: the gate then reads the word, puts the bits in and writes it, and no "
        "other write of the gate comes in between.",
    )
    repeat_reads: YesNo = Field(
        False,
        description="`yes`: a read whose connection the device broke is asked once more, on a fresh one. A write never "
        "is.",
    )
    share_reads: Milliseconds | None = Field(
        None, description="Reads of the same cells within this time reach the device once. Off unless set."
    )
    route: Text | None = Field(
        None,
        description="How a request goes on from the address to the device, for protocols with routes. EtherNet/IP: "
        "`backplane 0` for the controller in slot 0 of the rack.",
    )
    explicit: Annotated[Literal["connected"], *_choice("connected")] | None = Field(
        None,
        description="`connected`: requests go within a connection of class 3 (EtherNet/IP), which holds about 4,000 "
        "bytes of a request where the device has large ones, and about 500 else. Without it each goes by itself.",
    )
    quirks: Names = Field(
        (), description="Known deviations of the device from its protocol, by the names that the protocol's page lists."
    )
    vendor_functions: Codes = Field(
        (),
        description="Functions of the device's vendor, by number, that are carried without being understood (Modbus: "
        "codes that no public document has), and that change nothing in it, as you say. A rule allows them by "
        "`functions`.",
    )
    vendor_write_functions: Codes = Field(
        (), description="The same, of functions that may change it. A rule allows them by `write_functions`."
    )
    security: Security | None = Field(
        None, description="How the device is spoken with, for protocols that can be secured."
    )
    tls: Tls | None = Field(None, description="Who speaks with it within TLS, for protocols that have that (Modbus).")
    reverse: Reverse | None = Field(
        None, description="Connections that the device opens, or that are opened to clients for it."
    )
    bits_of: dict[Name, At] = Field(
        {},
        description="Spaces of bits that the device keeps in words of another space: `{coil: holding 100}` where coils "
        "0 to 15 are the bits of holding 100, coils 16 to 31 those of holding 101, and so on. Limits of a point then "
        "hold for writes by either name.",
    )
    namespaces: dict[Name, Text] = Field(
        {},
        description="Short names for what a protocol's names of places begin with, for `at` and `structure`. OPC UA: "
        '`{line: "urn:plant:line"}`, and `at: "line:s=Line1.Speed"` is `nsu=urn:plant:line;s=Line1.Speed`.',
    )
    numbering: Numbering | None = Field(
        None,
        description="How `at` of its points and `bits_of` count cells, where it is another way than from 0 in a space. "
        "`modicon`: `40101`, `400101` or `4x00101` is holding 100, `30001` input 0, `10001` discrete 0, `00001` coil "
        "0. `one`: from 1 in a space, `holding 1` or `HR1` is holding 0. `zero`: from 0, and `HR100`, `%MW100` and "
        "`holding 0x64` as well. For Modbus; rules' `registers` count from 0.",
    )
    points: dict[Name, Point] = Field({}, description="The device's named values.")
    methods: dict[Name, Method] = Field({}, description="What can be called, by name. For protocols with methods.")
    streams: dict[Name, Stream] = Field({}, description="What can be opened as a stream. For protocols with streams.")
    notifiers: dict[Name, Notifier] = Field({}, description="What events come from. For protocols with events.")

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_protocol(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        found: Self = _read_within(info, raw, "protocol", handler)
        return found


class Principal(Entry):
    """Who asks: a name for source addresses."""

    zone: Name = Field(description="The zone from which the principal comes.")
    addresses: Networks = Field(
        (), description="Source addresses and networks (CIDR), IPv4 or IPv6. Needed, unless it is a peer."
    )
    peer: Name | None = Field(
        None,
        description="Instead of addresses: the name of an overlay peer (`cofferdam overlay add-peer NAME`). It "
        "comes by WireGuard, and has the address that belongs to its key.",
    )
    jump: Name | None = Field(
        None,
        description="Instead of addresses: a conduit of the jump server, by whose forwarded ports (`do: port` there, "
        "`ssh -L`) they come.",
    )
    user: Text | None = Field(
        None,
        description="Who has to be logged in as well, for protocols with users: all that is named must match. With "
        "`jump`: the person.",
    )
    application: Text | None = Field(
        None, description="The application that has to show a certificate of this URI, for protocols that have such."
    )
    certificate: Thumbprint | None = Field(
        None, description="The certificate that has to be shown, for protocols that have such: its SHA-1."
    )


class Window(Entry):
    """Hours of the week in which a conduit is open."""

    days: Days = Field(
        (0, 1, 2, 3, 4, 5, 6), description="Days: `mon-fri`, `[mon, wed, sat-sun]`, `all`. Default: all."
    )
    start: Hour = Field(alias="from", description="When it opens, by the wall clock of the zone: `06:00`.")
    stop: Hour = Field(
        alias="to",
        description="When it closes: `18:00`, `24:00`. Not after `from` means over midnight; the window then belongs "
        "to the day on which it opens.",
    )
    zone: Text = Field(
        description="The time zone's name in the tz database, such as `Europe/Paris` or `UTC`. Daylight saving is "
        "followed."
    )
    never: Dates = Field(
        (),
        alias="except",
        description="Days on which it does not open, by the calendar of the zone: `2027-05-01`, "
        "`2026-12-24 to 2027-01-02`, or a list of them.",
    )


# The Window model hides behind a validator, so its place in the JSON Schema is put in by policy.reference.
Windows = Annotated[tuple[Window, ...], BeforeValidator(_listed), WithJsonSchema({"x-windows": True})]


class Rule(Entry):
    """One line of a conduit's `allow`. What it may say is its broker's (policy.terms)."""

    @property
    def principals(self) -> tuple[str, ...]:
        """The principals that it names."""
        return ()

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets that it names."""
        return ()

    @property
    def changes(self) -> bool:
        """Whether it allows what may change the plant."""
        return False


class Grant(Entry):
    """A conduit that is shut until somebody asks for it and a second person agrees (`cofferdam grant`)."""

    most: Microseconds = Field(
        description="How long one grant may last, such as `4 h`: from a minute to 30 days.", ge=60 * 10**6,
        le=30 * 86_400 * 10**6,
    )  # fmt: skip
    by: Annotated[tuple[Name, ...], BeforeValidator(as_list)] = Field(
        (), description="Names of users of the gate's machine who may agree. Default: whoever may use the gate. Nobody "
        "agrees to what they have asked for."
    )  # fmt: skip


class Conduit(Entry):
    """An agreed road from one zone to another, through one kind of broker. What no conduit allows is refused.

    A broker's terms add its own fields and say what stands under `allow`.
    """

    may_ride: ClassVar[bool] = False
    from_zone: Name = Field(alias="from", description="The zone where sessions begin.")
    to_zone: Name = Field(alias="to", description="The zone to which they go.")
    broker: Name = Field(description="The broker that understands the exchange; what else the conduit may say is its.")
    owner: Text = Field(description="Who answers for this conduit: a role or a team.")
    reason: Text = Field(description="Why it exists, in words that a reviewer understands.")
    expires: Date | None = Field(
        None,
        description="The last day on which the conduit is open: until the end of it in UTC, or in the zone given after "
        "the date (`2027-06-30 Europe/Paris`).",
    )
    window: Windows = Field(
        (), description="The hours in which the conduit is open, one window or a list. Default: always."
    )
    deny: Annotated[Literal["refuse", "silent"], *_choice("refuse", "silent")] = Field(
        "refuse",
        description="How a refused request is answered: `refuse` in the protocol's own words, `silent` not at all.",
    )
    grant: Grant | None = Field(
        None, description="The conduit is shut unless a grant stands: asked for by one person, agreed by another."
    )
    latency_budget: Microseconds | None = Field(
        None,
        description="How much latency the brokers may add; `status` and the metrics compare with it. Nothing is "
        "refused for it.",
    )
    allow: Annotated[tuple[Rule, ...], BeforeValidator(as_list)] = Field(
        description="The rules, in the broker's words. What no rule allows is refused."
    )

    @property
    def principals(self) -> tuple[str, ...]:
        """The principals that it names besides those of its rules."""
        return ()

    @property
    def assets(self) -> tuple[str, ...]:
        """The assets that it names besides those of its rules."""
        return ()

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_broker(cls, raw: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        found: Self = _read_within(info, raw, "broker", handler)
        return found


class Gate(Entry):
    """How the gate itself runs."""

    management: Endpoint | None = Field(
        None, description="ADDRESS:PORT of /metrics, /health and /ready. Off unless set."
    )
    separation: Annotated[str, *_choice("auto", "namespaces", "processes")] = Field(
        "auto",
        description="What keeps the halves apart: `namespaces`, `processes` only, or `auto` for the best that can be "
        "had.",
    )
    require: Annotated[str, *_choice("namespaces")] | None = Field(
        None, description="`namespaces`: refuse to start where namespaces cannot be had."
    )
    leak_probe: LeakProbe = Field(
        300,
        description="How often the gate asks on the IT side, by each asset's real address, whether there is a way "
        "round it: from `10 s` to `1 d`. With `off` nobody asks between two proofs, and status, proof and audit log "
        "say so.",
        json_schema_extra={"default": "5 min"},
    )


class WireGuard(Entry):
    """Overlay peers come by WireGuard, which ends in the namespace of the office side."""

    endpoint: HostPort = Field(
        description="HOST:PORT where peers find the gate, as they see it: `vpn.example.com:51820`."
    )
    port: Annotated[int, *_whole(1024, 65535)] | None = Field(
        None, description="The UDP port on this machine. Default: that of the endpoint."
    )
    peers: Prefix4 = Field(description="The IPv4 network of which each peer gets an address: `10.64.8.0/24`.")
    peers6: Prefix6 = Field(
        "auto", description="The same for IPv6; `auto` is a ULA made from the site's name, `none` is no IPv6."
    )
    keepalive: Annotated[int, *_whole(0, 3600)] = Field(
        25, description="Seconds between keep-alive packets of a peer behind NAT; 0 for none."
    )


class Overlay(Entry):
    """Addresses and names by which the office side reaches assets."""

    prefix: Prefix4 | None = Field(
        None, description="The IPv4 network of which each asset in a rule gets an address, unless it says `overlay` or "
        "`listen` itself: `10.64.7.0/24`.",
    )  # fmt: skip
    prefix6: Prefix6 = Field(
        "auto", description="The same for IPv6; `auto` is a ULA made from the site's name, `none` is no IPv6."
    )
    domain: Domain | None = Field(
        None, description="The DNS zone of the assets' names. Default: the site's name and `internal`."
    )
    dns: Addresses | None = Field(
        None, description="Addresses at which the zone is served (port 53). Default: the first of each prefix."
    )
    wireguard: WireGuard | None = Field(None, description="Peers by WireGuard. Off unless set.")
    assigned: dict[Name, Addresses] = Field(
        {},
        description="Addresses that assets were given, so that they keep them. `cofferdam overlay assign` writes it.",
    )
    assigned_peers: dict[Name, Addresses] = Field({}, description="The same for overlay peers.")


class Witness(Entry):
    """Who keeps the log's signed heads elsewhere."""

    to: Annotated[
        witnesses.Place,
        *_read(witnesses.place, {"type": "string", "pattern": "^(https?|sftp)://", "examples": witnesses.EXAMPLES}),
    ] = Field(
        description="Where: `http://ADDRESS:PORT/PREFIX` or `https://...`, a witness by C2SP tlog-witness; or "
        "`sftp://USER@ADDRESS:PORT/FOLDER`, a folder on another machine."
    )
    key: Annotated[
        str, *_read(witnesses.key, {"type": "string", "pattern": r"^(\S+\+[0-9a-f]{8}\+\S+|ssh-\S+ \S+)$"})
    ] = Field(
        description="The witness's key, NAME+ID+BASE64; for SFTP the host key of the machine, such as `ssh-ed25519 "
        "AAAA...`. What another key answers is refused, with an alarm."
    )
    name: Annotated[str, *_read(syntax.domain, {"type": "string", "examples": ["witness.example"]})] | None = Field(
        None, description="The host's name, where the witness asks for it (`Host`, TLS)."
    )


def _collector_name(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[a-z][a-z0-9-]{0,39}", raw):
        return raw
    raise syntax.Expected("a name of small letters, digits and dashes, at most 40")


CollectorName = Annotated[str, *_read(_collector_name, {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,39}$"})]


def _header(raw: Any) -> str:
    if isinstance(raw, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", raw) and raw.lower() not in _OWN_HEADERS:
        return raw
    raise syntax.Expected("the name of a header that carries a token, such as Authorization")


_OWN_HEADERS = ("host", "content-length", "content-type", "transfer-encoding", "connection", "user-agent", "expect")


class Collector(Entry):
    """Who gets the log's entries."""

    to: Annotated[
        collectors.Place,
        *_read(
            collectors.place,
            {"type": "string", "pattern": "^((tls|https|udp)://|folder$)", "examples": collectors.EXAMPLES},
        ),
    ] = Field(
        description="Where: `tls://ADDRESS:PORT`, syslog over TLS (RFC 5425); `https://ADDRESS:PORT/PATH`, JSON lines "
        "by POST; `udp://127.0.0.1:514`, syslog to this machine; `folder`, JSON lines in the folder `export-NAME`."
    )
    authority: FileName | None = Field(
        None,
        description="Who has signed the collector's certificate, a PEM file beside the policy; tls and https.",
    )
    name: Annotated[str, *_read(syntax.domain, {"type": "string", "examples": ["soc.example"]})] | None = Field(
        None, description="The name in its certificate. Default: the address."
    )
    form: Annotated[str, *_choice(*collectors.FORMS)] = Field("json", description="The form of an entry.")
    kinds: Annotated[
        tuple[Annotated[str, *_choice(*KINDS)], ...],
        BeforeValidator(_listed),
        _one_or_list({"type": "string", "enum": list(KINDS)}),
    ] = Field((), description="Kinds of events. Default: all.")
    header: Annotated[str, *_read(_header, {"type": "string", "examples": ["Authorization"]})] | None = Field(
        None, description="The HTTP header that carries the token: `cofferdam export secret NAME --token FILE`."
    )
    enterprise: Annotated[int, *_whole(1, (1 << 32) - 1)] = Field(
        32473, description="The private enterprise number in syslog. The default is the one for examples (RFC 5612)."
    )


def _proof(raw: Any) -> int:
    if raw == "off":
        return -1
    found = syntax.hour(raw)
    if found == 86_400:
        raise syntax.Expected("an hour of the day from 00:00 to 23:59, or off", '"00:00"')
    return found


class Evidence(Entry):
    """The gate's evidence of itself."""

    proof: Annotated[
        int,
        *_read(_proof, {"type": "string", "pattern": r"^(([01]\d|2[0-3]):[0-5]\d|off)$", "examples": ["03:15"]}),
    ] = Field(
        11_700,
        description="When the gate is proved and tried each day, by the clock of the zone; `off`: never by itself.",
        json_schema_extra={"default": "03:15"},
    )
    zone: Text = Field("UTC", description="The time zone's name in the tz database, such as `Europe/Paris`.")


class Audit(Entry):
    """The audit log."""

    reads: Annotated[str, *_choice("allow", "refuse")] | None = Field(
        None,
        description="Whether reads go on while the log cannot be written. Writes never do. Unless this says otherwise, "
        "reads of assets go on, and a relay hands out no messages.",
    )
    interval: Milliseconds = Field(10_000, description="How often reads are counted into the log, for each flow.")
    keep: Annotated[int, *span(86_400, 100 * syntax.YEAR_SECONDS)] | None = Field(
        None,
        description="Entries that are older than this go, whole files of 65,536 entries at a time. Unset: none goes.",
    )
    at_most: Annotated[int, *size(256 * 10**6, 10**15)] | None = Field(
        None,
        description="Room for the whole log. The oldest entries go when it takes more, also before `keep` has passed "
        "(an alarm says so). Unset: no bound but the disk.",
    )
    gone: Annotated[str, *_choice("dropped", "moved")] = Field(
        "dropped",
        description="What becomes of entries that go: they are removed, or moved into the folder `archive` of the "
        "state directory, where another disk may be mounted. An entry says which went, and what is left verifies.",
    )
    witnesses: dict[Name, Witness] = Field(
        {},
        description="Who gets the log's signed head each minute, by name, at most 8. Each must go on from the one that "
        "was given out before.",
    )
    collectors: dict[CollectorName, Collector] = Field(
        {}, description="Who gets the log's entries, each once at least and in order, by name, at most 8."
    )


def _limit_docs() -> dict[str, str]:
    """The sentence under each field of `limits.Limits`."""
    body = next(n for n in ast.parse(inspect.getsource(limits_module)).body if isinstance(n, ast.ClassDef)).body
    found: dict[str, str] = {}
    for field, sentence in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(sentence, ast.Expr)
            and isinstance(sentence.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(sentence.value.value).split())
    return found


def _limit_fields() -> dict[str, Any]:
    docs, defaults = _limit_docs(), Limits()
    fields: dict[str, Any] = {}
    for name in Limits.__struct_fields__:
        default = getattr(defaults, name)
        # Looking before sleeping is the one limit that can be off; a second of it would keep a core for itself.
        low, high = (0, 10_000) if name == "busy_poll_microseconds" else (1, 1 << 31)
        floats = SecondsOrNone if name == "known_value_seconds" else Seconds
        kind: Any = Annotated[int, *_whole(low, high)] if isinstance(default, int) else floats
        fields[name] = (kind, Field(default, description=docs[name]))
    return fields


LimitsSection: type[Entry] = create_model(
    "Limits", __base__=Entry, __doc__="Bounds of one pair of halves, where the defaults do not fit.", **_limit_fields()
)


class Policy(Entry):
    """A Cofferdam policy: what may pass between the office network and the plant. All else is refused."""

    site: Name = Field(description="The site's name; it stands in the audit log and in host names.")
    zones: dict[Name, Zone] = Field(description="The network segments, by name.")
    assets: dict[Name, Asset] = Field({}, description="The devices in the plant, by name.")
    principals: dict[Name, Principal] = Field({}, description="Who asks, by name.")
    conduits: dict[Name, Conduit] = Field({}, description="The agreed roads, by name.")
    limits: LimitsSection = Field(  # type: ignore[assignment]  # a class that was made above
        default_factory=LimitsSection.model_construct, description="Bounds of one pair of halves."
    )
    gate: Gate = Field(default_factory=Gate.model_construct, description="How the gate runs.")
    overlay: Overlay | None = Field(
        None,
        description="Addresses and names for the assets. Without it, each asset says its own `overlay` or `listen`.",
    )
    audit: Audit = Field(default_factory=Audit.model_construct, description="How the audit log is kept.")
    evidence: Evidence = Field(default_factory=Evidence.model_construct, description="When the gate is proved.")


def side(zone: Zone) -> Side:
    """The side of a zone as the model's type."""
    return Side(zone.side)
