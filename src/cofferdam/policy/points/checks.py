"""What remains to be checked of a write once its form is allowed: the values that it brings, point by point.

Not here: which points a write touches (decide), points of items (items).
"""

from __future__ import annotations

import abc
import math

from cofferdam.model import Item, Method, Operation, Point, Span
from cofferdam.policy.points import values
from cofferdam.values import ValueType

MOST_POWER = 10
"""A factor is ten to a power of at most this, or one over it; what devices have for "there is none" is far from it."""


class Check(abc.ABC):
    """A point (or method) with limits that a write's form touches. `pace`: times within a minute, None for any number.
    `ranged`: `wrong` has something to say; `max_step`, `max_rate`: `number` does."""

    __slots__ = (
        "at", "factor", "factor_name", "max_rate", "max_step", "name", "of", "pace", "plural", "ranged", "single",
        "stateful", "valued", "within", "word",
    )  # fmt: skip

    def __init__(self, of: Point | Method) -> None:
        self.name = of.name
        self.at: Span | Item = of.at
        self.pace = of.writes_per_minute
        self.max_step = of.max_step if isinstance(of, Point) else None
        self.max_rate = of.max_rate if isinstance(of, Point) else None
        self.within = "second" if isinstance(of, Point) and of.rate_seconds == 1 else "minute"
        self.valued = self.max_step is not None or self.max_rate is not None
        self.single = isinstance(of, Point) and of.type is ValueType.FLOAT32
        self.of = of if isinstance(of, Point) else None
        self.factor = of.factor if isinstance(of, Point) and values.has_range(of) else None
        self.factor_name = "" if self.of is None or self.factor is None else values.factor_text(self.of)
        self.stateful = self.valued or self.pace is not None or self.factor is not None
        self.ranged = False
        self.word = "write" if isinstance(of, Point) else "call"
        self.plural = self.word + "s"

    @abc.abstractmethod
    def wrong(self, op: Operation) -> str:
        """What is wrong with the value that `op` writes, or ""."""

    @abc.abstractmethod
    def number(self, op: Operation) -> values.Number:
        """The value that `op` writes, of a point with a max_step or max_rate."""

    def wrong_scaled(self, op: Operation, power: int) -> str:
        """What is wrong with the value that `op` writes, where its factor is ten to this power, or ""."""
        point = self.of
        if point is None:
            return ""
        if abs(power) > MOST_POWER:
            asked = f"{self.name} is asked, whose factor in {self.factor_name} is 10^{power}"
            return f"{asked}; from -{MOST_POWER} to {MOST_POWER} is allowed"
        value = float(f"{self.number(op)}e{power}")
        if (point.min is None or value >= point.min) and (point.max is None or value <= point.max):
            return ""
        measured = f"{values.measure(point, value)} (with 10^{power} in {self.factor_name})"
        return f"{self.name} = {measured} is asked; {values.allowed_range(point)}"

    def too_far(self, value: values.Number, known: values.Number) -> str:
        """What is wrong with a step from the last known value, or ""."""
        most = 0.0 if self.max_step is None else self.max_step
        slack = self._slack(value, known)
        # "not <=" and not ">", so that a device that holds NaN cannot be written past its limit.
        if abs(value - known) <= most + slack:
            return ""
        asked = f"{self.name} = {self._measure(value)} is asked; it is {self._show(known)}"
        span = self._span(known - most, known + most)
        return f"{asked}, and a step of {self._measure(most, True)} is allowed ({span})"

    def too_fast(self, value: values.Number, low: values.Number, high: values.Number) -> str:
        """What is wrong with a value where the point was `low` to `high` within the time of its max_rate, or ""."""
        most = 0.0 if self.max_rate is None else self.max_rate
        slack = self._slack(value, low, high)
        if abs(value - low) <= most + slack and abs(value - high) <= most + slack:
            return ""
        was = self._show(low) if low == high else f"{self._show(low)} to {self._show(high)}"
        asked = f"{self.name} = {self._measure(value)} is asked; it was {was} within the last {self.within}"
        span = self._span(high - most, low + most)
        return f"{asked}, and a move of {self._measure(most, True)} a {self.within} is allowed (now {span})"

    def _slack(self, *of: values.Number) -> float:
        """What rounding to 32 bits may add to a difference; nothing of what is not finite, which is far from all."""
        if not self.single:
            return 0.0
        most = max(abs(value) for value in of)
        return most * 2**-23 if math.isfinite(most) else 0.0

    def _span(self, low: values.Number, high: values.Number) -> str:
        """From one to the other, as far as the point's own limits let it."""
        least, most = low, high
        if self.of is not None and self.factor is None:
            least = low if self.of.min is None else max(low, self.of.min)
            most = high if self.of.max is None else min(high, self.of.max)
        if least > most:  # it stands outside of its limits
            least, most = low, high
        return f"{self._show(least)} to {self._measure(most)}"

    def _show(self, value: values.Number) -> str:
        return values.show(value if self.of is None else values.scaled(self.of, value))

    def _measure(self, value: values.Number, step: bool = False) -> str:
        return values.show(value) if self.of is None else values.measure(self.of, value, step)


class CellCheck(Check):
    """A point of cells with limits that a write's form touches: which change, and where in it."""

    __slots__ = ("allowed", "change", "high", "low", "offset", "point", "simple", "size")

    def __init__(self, point: Point, change: int, offset: int) -> None:
        """`offset`: where in the change's values its cells are; for a change of bits, where the bits are."""
        super().__init__(point)
        self.point = point
        self.change = change
        self.offset = offset
        self.size = point.at.count
        self.ranged = point.factor is None and (
            values.has_range(point) or point.type in values.FLOATS or point.type is ValueType.TEXT or point.bcd
        )
        # One unsigned cell, the common setpoint, needs no decoding.
        self.simple = point.type in (ValueType.UINT16, ValueType.BOOL) and not point.word_order.endswith(values.SWAPPED)
        self.simple = self.simple and not point.values and point.scale == 1.0 and point.offset == 0.0
        self.simple = self.simple and not point.mask and not point.bcd
        self.low = -math.inf if point.min is None else point.min
        self.high = math.inf if point.max is None else point.max
        self.allowed = values.allowed_range(point)

    def wrong(self, op: Operation) -> str:
        cells = op.writes[self.change].values  # type: ignore[union-attr]
        if self.simple:
            value = cells[self.offset]
            if self.low <= value <= self.high:
                return ""
            return f"{self.name} = {value} {self.point.unit}".rstrip() + f" is asked; {self.allowed}"
        return values.out_of_range(self.point, cells[self.offset : self.offset + self.size])

    def number(self, op: Operation) -> values.Number:
        cells = op.writes[self.change].values[self.offset : self.offset + self.size]  # type: ignore[union-attr]
        return values.of(self.point, cells)


class IdleCheck(CellCheck):
    """A point of bits in a word that a write of bits asks for and leaves as it is: it counts as a write of the point,
    and has no value."""

    __slots__ = ()

    def __init__(self, point: Point, change: int) -> None:
        super().__init__(point, change, 1)
        self.ranged = self.valued = False
        self.factor = None
        self.stateful = self.pace is not None
