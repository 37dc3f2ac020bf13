"""Typed values of items: how people write and read them, and whether one is within what a point or an argument allows.

Not here: values that are made of cells (values), limits that need a memory (state), which items may be written at all
(decide).
"""

from __future__ import annotations

import math

from cofferdam.model import Argument, Point
from cofferdam.policy.points import instants
from cofferdam.policy.points.values import FLOATS, Number, allowed_range, measure, show, type_range
from cofferdam.values import DATE_TIME, VALUES, Int64, Value, ValueType, value_fault

NUMBERS = frozenset(ValueType) - {ValueType.BOOL, ValueType.TEXT, ValueType.BYTES}
"""Types whose values are compared with min, max and max_step."""
SIZED = frozenset({ValueType.TEXT, ValueType.BYTES})
"""Types whose values have a length."""
SHOWN_ELEMENTS = 8
"""Elements of an array that are shown."""
SHOWN_LENGTH = 200
"""Characters of a text, and bytes of a byte string, that are shown."""


def text(value: Value, form: str = "") -> str:
    """A value as people read it: 1500, true, "Batch 7", 0x00ff, [1, 2, 3]. `form`: what it is at the device."""
    show_one = instants.show if form == DATE_TIME and isinstance(value, Int64) else _one
    if not value.array and len(value.values) == 1:
        return show_one(value.values[0])  # type: ignore[arg-type]
    shown = ", ".join(show_one(one) for one in value.values[:SHOWN_ELEMENTS])  # type: ignore[arg-type]
    more = f", ... ({len(value.values)})" if len(value.values) > SHOWN_ELEMENTS else ""
    return f"[{shown}{more}]"


def _one(one: bool | Number | str | bytes) -> str:
    if isinstance(one, bool):
        return "true" if one else "false"
    if isinstance(one, str):
        return f'"{one[:SHOWN_LENGTH]}{"..." if len(one) > SHOWN_LENGTH else ""}"'
    if isinstance(one, bytes):
        return f"0x{one[:SHOWN_LENGTH].hex()}{'...' if len(one) > SHOWN_LENGTH else ''}"
    return show(one)


def parse(kind: ValueType, words: str, form: str = "") -> Value:
    """A single value that people have written. Raises: ValueError where the type has no such value."""
    if form == DATE_TIME:
        ticks = instants.parse(words)
        if ticks is None:
            raise ValueError(f"{words} is no time, such as 2027-06-30T12:00:00Z")
        return Int64((ticks,))
    one: bool | Number | str | bytes
    if kind is ValueType.TEXT:
        one = words[1:-1] if len(words) >= 2 and words[0] == words[-1] == '"' else words
    elif kind is ValueType.BYTES:
        try:
            one = bytes.fromhex(words.removeprefix("0x"))
        except ValueError:
            raise ValueError(f"{words} is no bytes in hexadecimal, such as 0x00ff") from None
    elif kind is ValueType.BOOL:
        if words not in ("true", "false", "0", "1"):
            raise ValueError(f"{words} is neither true nor false")
        one = words in ("true", "1")
    else:
        try:
            one = float(words) if kind in FLOATS else int(words, 0)
        except ValueError:
            raise ValueError(f"{words} is not a {'number' if kind in FLOATS else 'whole number'}") from None
    value = VALUES[kind]((one,))  # type: ignore[arg-type]
    low, high = type_range(kind) if kind in NUMBERS else (0, 0)
    if kind in NUMBERS and isinstance(one, int) and not low <= one <= high:
        raise ValueError(f"{words} is outside {kind.value} ({show(low)} to {show(high)})")
    fault = value_fault(value)
    if fault:
        raise ValueError(fault)
    return value


def unfit(limit: Point | Argument, value: Value, whole: bool) -> str:
    """Why a value's form is not the point's; "" if it is. `whole`: it is the point's value, and not that of some of its
    elements."""
    if value.type is not limit.type:
        return f"{limit.name} as {value.type.value} is asked; {limit.type.value} is allowed"
    if not whole:
        return ""
    if limit.elements == 1 and value.array:  # one of one element as well: an asset that takes it holds an array then
        asked = "an array of one element" if len(value.values) == 1 else f"{len(value.values)} elements"
        return f"{asked} of {limit.name} are asked; a single {limit.type.value} is allowed"
    if limit.elements != 1 and (not value.array or len(value.values) != limit.elements):
        asked = f"{len(value.values)} elements" if value.array else f"a single {value.type.value}"
        return f"{asked} of {limit.name} is asked; {limit.elements} elements are allowed"
    return ""


def is_limited(limit: Point | Argument) -> bool:
    """Whether anything about single values is limited."""
    return limit.min is not None or limit.max is not None or limit.max_length is not None


def beyond(limit: Point | Argument, value: Value, first: int, stop: int, strict: bool) -> str:
    """Which of the values from `first` up to before `stop` is outside the limits, as one sentence, or "". `strict`: NaN
    and infinity are outside, as they are of every limit."""
    low, high, longest = limit.min, limit.max, limit.max_length
    kind = value.type
    if kind in SIZED:
        if longest is None:
            return ""
        for index in range(first, stop):
            size = len(value.values[index])  # type: ignore[arg-type]
            if size > longest:
                what = "characters" if kind is ValueType.TEXT else "bytes"
                return f"{limit.name} with {size} {what} is asked; at most {longest} {what} are allowed"
        return ""
    reals = kind in FLOATS
    if low is None and high is None and not (strict and reals):
        return ""
    for index in range(first, stop):
        one: Number = value.values[index]  # type: ignore[assignment]
        if (
            (low is not None and not one >= low)
            or (high is not None and not one <= high)
            or (reals and not math.isfinite(one))
        ):
            name = f"{limit.name}[{index}]" if value.array else limit.name
            return f"{name} = {measure(limit, one + 0)} is asked; {allowed_range(limit)}"
    return ""
