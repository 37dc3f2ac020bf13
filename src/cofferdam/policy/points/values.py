"""What the cells of a point mean, and whether a value that a write brings is within the point's limits.

Not here: limits that need a memory (max_step, max_rate, writes_per_minute: policy.state), and which cells may be
written at all (policy.decide).
"""

from __future__ import annotations

import math
import struct

from cofferdam.model import Argument, Point
from cofferdam.policy.points import instants
from cofferdam.values import DATE_TIME, ValueType

WORDS: dict[ValueType, int] = {
    ValueType.BOOL: 1, ValueType.UINT16: 1, ValueType.INT16: 1, ValueType.UINT32: 2, ValueType.INT32: 2,
    ValueType.UINT64: 4, ValueType.INT64: 4, ValueType.FLOAT32: 2, ValueType.FLOAT64: 4,
}  # fmt: skip
"""Cells of a value of each type that cells can make."""

Number = int | float
"""A whole number stays one: as a float a 64-bit number would not be exact. Compiled code (mypyc) makes a float of what
is called `float` alone."""

FLOATS = (ValueType.FLOAT32, ValueType.FLOAT64)
SIGNED = (ValueType.INT8, ValueType.INT16, ValueType.INT32, ValueType.INT64)


def type_range(type_: ValueType) -> tuple[Number, Number]:
    """The smallest and largest finite value of a type of numbers, or bool. Integers, so exact, except for floats."""
    if type_ is ValueType.BOOL:
        return 0, 1
    if type_ is ValueType.FLOAT32:
        largest: float = struct.unpack(">f", b"\x7f\x7f\xff\xff")[0]
        return -largest, largest
    if type_ is ValueType.FLOAT64:
        return -1.7976931348623157e308, 1.7976931348623157e308
    bits = int(type_.value.removeprefix("u").removeprefix("int"))
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if type_ in SIGNED else (0, (1 << bits) - 1)


def nearest_float32(value: float) -> float:
    """`value` as a device that keeps 32-bit floats would hold it, so that a limit of 0.1 admits a written 0.1."""
    rounded: float = struct.unpack(">f", struct.pack(">f", value))[0]
    return rounded


def decode(type_: ValueType, word_order: str, cells: tuple[int, ...]) -> Number:
    """The value of a point's cells, given in address order: `WORDS[type_]` words of 0-65535, or one bit."""
    word_order, cells = _unswapped(type_, word_order, cells)
    if len(cells) == 1:
        return cells[0] - 0x10000 if type_ is ValueType.INT16 and cells[0] & 0x8000 else cells[0]
    raw = 0
    for word in cells if word_order == "big" else reversed(cells):
        raw = raw << 16 | word
    if type_ is ValueType.FLOAT32:
        return float(struct.unpack(">f", raw.to_bytes(4, "big"))[0])
    if type_ is ValueType.FLOAT64:
        return float(struct.unpack(">d", raw.to_bytes(8, "big"))[0])
    bits = 16 * len(cells)
    return raw - (1 << bits) if type_ in SIGNED and raw >> (bits - 1) else raw


def of(point: Point, cells: tuple[int, ...]) -> Number:
    """The value of a point, given all its cells in address order; NaN where decimal digits are none."""
    if point.mask:
        return (cells[0] & point.mask) // (point.mask & -point.mask)
    if not point.bcd:
        return decode(point.type, point.word_order, cells)
    value = 0
    raw = int(decode(point.type, point.word_order, cells))
    for shift in range(16 * len(cells) - 4, -4, -4):
        digit = raw >> shift & 15
        if digit > 9:
            return math.nan
        value = value * 10 + digit
    return value


def cells_of(point: Point, value: Number) -> tuple[int, ...]:
    """The cells of a point's value, of a field of a word with all other bits 0. Raises: ValueError where it cannot hold
    the value."""
    if not point.mask and not point.bcd:
        return encode(point.type, point.word_order, value)
    low, high = point_range(point)
    if value != value or not low <= value <= high or value != int(value):
        raise ValueError(f"{show(value)} is not a whole number from {show(low)} to {show(high)}")
    if point.mask:
        return (int(value) * (point.mask & -point.mask),)
    return encode(point.type, point.word_order, int(str(int(value)), 16))


def point_range(point: Point) -> tuple[Number, Number]:
    """The smallest and the largest value that a point of cells can hold."""
    if point.mask:
        return 0, point.mask // (point.mask & -point.mask)
    if point.bcd:
        return 0, 10 ** (4 * point.at.count) - 1
    return type_range(point.type)


_PRINTABLE = frozenset(range(0x20, 0x7F))


def text_of(point: Point, cells: tuple[int, ...]) -> str:
    """The text of a point of cells: two characters in a word, up to the first NUL, without spaces at its end. What is
    no printable ASCII is shown as an escape."""
    _, words = _unswapped(ValueType.TEXT, point.word_order, cells)
    data = b"".join([word.to_bytes(2, "big") for word in words])
    return data.partition(b"\0")[0].rstrip(b" ").decode("ascii", "backslashreplace").translate(_SHOWN)


_SHOWN = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)}


def text_cells(point: Point, text: str) -> tuple[int, ...]:
    """The cells of a text, with NULs to its end. Raises: ValueError where it is too long, or no printable ASCII."""
    size = 2 * point.at.count
    if len(text) > size or not text.isascii() or not text.isprintable():
        raise ValueError(f"{text!r} is not at most {size} printable characters of ASCII")
    data = text.encode("ascii").ljust(size, b"\0")
    words = tuple([int.from_bytes(data[at : at + 2], "big") for at in range(0, size, 2)])
    return _unswapped(ValueType.TEXT, point.word_order, words)[1]


def _wrong_text(point: Point, cells: tuple[int, ...]) -> str:
    """ "" where cells are a text that may be written: printable ASCII, then NULs alone, no longer than allowed."""
    _, words = _unswapped(ValueType.TEXT, point.word_order, cells)
    data = b"".join([word.to_bytes(2, "big") for word in words])
    said, _, rest = data.partition(b"\0")
    if not _PRINTABLE.issuperset(said) or rest.strip(b"\0"):
        return f"{point.name} with characters that are no printable ASCII is asked; a text with NULs behind is allowed"
    size = len(said.rstrip(b" "))
    if point.max_length is not None and size > point.max_length:
        most = f"at most {point.max_length} characters are allowed"
        return f"{point.name} with {size} characters is asked; {most}"
    return ""


def encode(type_: ValueType, word_order: str, value: Number) -> tuple[int, ...]:
    """The cells of a value, in address order. Raises: ValueError where the type cannot hold it."""
    low, high = type_range(type_)
    if type_ in FLOATS:
        if math.isfinite(value) and not low <= value <= high:
            raise ValueError(f"{show(value)} is outside {type_.value}")
        data = struct.pack(">f" if type_ is ValueType.FLOAT32 else ">d", value)
    else:
        if not math.isfinite(value) or value != int(value):
            raise ValueError(f"{show(value)} is not a whole number, {type_.value} is")
        if not low <= value <= high:
            raise ValueError(f"{show(value)} is outside {type_.value} ({show(low)} to {show(high)})")
        if type_ is ValueType.BOOL:
            return (int(value),)
        data = int(value).to_bytes(2 * WORDS[type_], "big", signed=type_ in SIGNED)
    words = tuple(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    word_order, words = _unswapped(type_, word_order, words)
    return words if word_order == "big" else words[::-1]


SWAPPED = "-swapped"
"""At the end of an order of words: the bytes within each word stand the other way round."""


def _unswapped(type_: ValueType, word_order: str, cells: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """The order of the words, and these with their bytes as the standard has them (and the other way round)."""
    if type_ is ValueType.BOOL or not word_order.endswith(SWAPPED):
        return word_order, cells
    swapped = tuple([(cell & 0xFF) << 8 | cell >> 8 for cell in cells])
    return word_order.removesuffix(SWAPPED), swapped


def show(value: Number) -> str:
    """A number as people write it: 1500, not 1500.0."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def scaled(point: Point | Argument, value: Number, step: bool = False) -> Number:
    """A raw number in the point's engineering units; `step`: it is a difference."""
    if isinstance(point, Argument) or (point.scale == 1.0 and point.offset == 0.0) or not math.isfinite(value):
        return value
    if step:
        return float(f"{value * abs(point.scale):.12g}")
    return float(f"{value * point.scale + point.offset:.12g}")  # as it was meant: 7000 * 0.01 is 70


def factor_text(point: Point) -> str:
    """Where the point's power of ten is: "holding 40084"; "" for none."""
    return "" if point.factor is None else f"{point.factor.space} {point.factor.start}"


def measure(point: Point | Argument, value: Number, step: bool = False) -> str:
    """A number with the point's unit; a time as one."""
    if point.form == DATE_TIME:
        return instants.show(value)
    return f"{show(scaled(point, value, step))} {point.unit}".rstrip()


def has_limit(point: Point) -> bool:
    """Whether anything about the point's value or pace is limited."""
    return (
        has_range(point)
        or point.max_step is not None
        or point.max_rate is not None
        or point.writes_per_minute is not None
        or point.max_length is not None
    )


def is_judged(point: Point) -> bool:
    """Whether some values that its cells can have may not be written to it, or not always."""
    return has_limit(point) or point.type in FLOATS or point.type is ValueType.TEXT or point.bcd


def has_range(point: Point | Argument) -> bool:
    return point.min is not None or point.max is not None or (isinstance(point, Point) and bool(point.values))


def allowed_range(point: Point | Argument) -> str:
    """What would be allowed, in words."""
    if isinstance(point, Point) and point.values:
        return f"{', '.join([measure(point, one) for one in point.values])} is allowed, and nothing between"
    if point.min is not None and point.max is not None:
        low, high = (point.max, point.min) if isinstance(point, Point) and point.scale < 0 else (point.min, point.max)
        return f"{measure(point, low) if point.form else show(scaled(point, low))} to {measure(point, high)} is allowed"
    if point.min is not None:
        return f"{measure(point, point.min)} or more is allowed"
    if point.max is not None:
        return f"{measure(point, point.max)} or less is allowed"
    return f"a finite {point.type.value} is allowed"


def out_of_range(point: Point, cells: tuple[int, ...]) -> str:
    """ "" where a value is within min and max, else one sentence. NaN and infinity are outside of every limit."""
    if point.type is ValueType.TEXT:
        return _wrong_text(point, cells)
    value = of(point, cells)
    low, high = point.min, point.max
    if (
        (low is None or value >= low)
        and (high is None or value <= high)
        and (type(value) is int or math.isfinite(value))
        and (not point.values or value in point.values)
    ):
        return ""
    if point.bcd and type(value) is not int:
        return f"{point.name} with a digit above 9 is asked; decimal digits are allowed"
    return f"{point.name} = {measure(point, value)} is asked; {allowed_range(point)}"
