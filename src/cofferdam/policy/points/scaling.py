"""Engineering units: what a policy says of a point with `scale` and `offset`, in the device's own numbers.

The value that people mean is raw * scale + offset. Limits are turned into raw ones once, when the policy is compiled,
so that what decides compares the numbers that travel, and rounds nothing: for whole numbers a limit is the outermost
raw number that is still within it. Not here: how raw numbers are told to people (values.measure).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from cofferdam.policy.points import values
from cofferdam.values import ValueType

NEARLY = 1e-9
"""A limit that is so near to a whole raw number, relatively, is that number: 100 / 0.01 is 10000."""


def raw(value: float, scale: float, offset: float) -> float:
    """The device's number for a value in engineering units, before any rounding."""
    return (value - offset) / scale


def limits(
    low: float | None, high: float | None, scale: float, offset: float, kind: ValueType
) -> tuple[float | None, float | None]:
    """A range in raw numbers."""
    least = None if low is None else raw(low, scale, offset)
    most = None if high is None else raw(high, scale, offset)
    if scale < 0:
        least, most = most, least
    if kind in values.FLOATS:
        return least, most
    return None if least is None else _whole(least, math.ceil), None if most is None else _whole(most, math.floor)


def step(value: float, scale: float, kind: ValueType) -> float:
    """A difference in raw numbers."""
    found = abs(value / scale)
    return found if kind in values.FLOATS else _whole(found, math.floor)


def one(value: float, scale: float, offset: float, kind: ValueType) -> float | None:
    """A single value in raw numbers; None where the device has no such number."""
    found = raw(value, scale, offset)
    if kind in values.FLOATS:
        return found
    near = round(found)
    return float(near) if abs(found - near) <= NEARLY * max(1.0, abs(found)) else None


def _whole(value: float, rounded: Callable[[float], int]) -> float:
    near = round(value)
    if abs(value - near) <= NEARLY * max(1.0, abs(value)):
        return float(near)
    return float(rounded(value))
