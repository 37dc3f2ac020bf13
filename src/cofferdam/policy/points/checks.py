"""What remains to be checked of a write once its form is allowed: the values that it brings, point by point.

Not here: which points a write touches (decide, items).
"""

from __future__ import annotations

import abc

from cofferdam.model import Item, Method, Operation, Point, Span, ValueType
from cofferdam.policy.points import values


class Check(abc.ABC):
    """A point (or method) with limits that a write's form touches. `pace`: times within a minute, None for any number.
    `ranged`: `wrong` has something to say; `max_step`: `number` does."""

    __slots__ = ("at", "max_step", "name", "pace", "plural", "ranged", "single", "stateful", "unit", "word")

    def __init__(self, of: Point | Method) -> None:
        self.name = of.name
        self.at: Span | Item = of.at
        self.pace = of.writes_per_minute
        self.max_step = of.max_step if isinstance(of, Point) else None
        self.single = isinstance(of, Point) and of.type is ValueType.FLOAT32
        self.unit = of.unit if isinstance(of, Point) else ""
        self.stateful = self.max_step is not None or self.pace is not None
        self.ranged = False
        self.word = "write" if isinstance(of, Point) else "call"
        self.plural = self.word + "s"

    @abc.abstractmethod
    def wrong(self, op: Operation) -> str:
        """What is wrong with the value that `op` writes, or ""."""

    @abc.abstractmethod
    def number(self, op: Operation) -> values.Number:
        """The value that `op` writes, of a point with a max_step."""

    def too_far(self, value: values.Number, known: values.Number) -> str:
        """What is wrong with a step from the last known value, or ""."""
        most = 0.0 if self.max_step is None else self.max_step
        # What rounding to 32 bits may add to a difference.
        slack = max(abs(value), abs(known)) * 2**-23 if self.single else 0.0
        # "not <=" and not ">", so that a device that holds NaN cannot be written past its limit.
        if abs(value - known) <= most + slack:
            return ""
        asked = f"{self.name} = {self._measure(value)} is asked; it is {values.show(known)}"
        span = f"{values.show(known - most)} to {self._measure(known + most)}"
        return f"{asked}, and a step of {self._measure(most)} is allowed ({span})"

    def _measure(self, value: values.Number) -> str:
        return f"{values.show(value)} {self.unit}".rstrip()
