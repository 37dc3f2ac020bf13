"""The values that a point had of late: what `max_rate` is judged from.

A ramp limit says how far a value may move within a time: the written value may be no further than that from any value
which the point had within it, as far as the gate knows: what it held before each write, and what each write gave it. So
many small steps come no further than one large one, whoever makes them, and to go back to where it just was is allowed.

Values are kept by spans of a PIECES-th of the time, the least and the greatest of each: memory has a bound, and a value
counts for up to a PIECES-th longer than it must.

Not here: whose values these are (state), whether a write is allowed (decide).
"""

from __future__ import annotations

import math
from collections import deque

from cofferdam.policy.points.values import Number

PIECES = 30
"""So many spans of its time are kept apart."""


class Ramp:
    """The values of one point. Times: monotonic ns."""

    __slots__ = ("_blocked", "_spans", "span_ns")

    def __init__(self, span_ns: int) -> None:
        self.span_ns = span_ns
        self._spans: deque[tuple[int, Number, Number]] = deque()  # number of the span, least, greatest
        self._blocked = 0

    def resize(self, span_ns: int) -> None:
        """Another policy has another time. What is kept counts as if it had been had at the end of the old span."""
        if span_ns != self.span_ns:
            old, ends = self._spans, [(number + 1) * self._piece for number, _, _ in self._spans]
            self._spans, self.span_ns = deque(), span_ns
            for end, (_, low, high) in zip(ends, old, strict=True):
                self.add(low, end)
                self.add(high, end)

    @property
    def _piece(self) -> int:
        return max(1, self.span_ns // PIECES)

    def add(self, value: Number, mono_ns: int) -> None:
        """The point had this value at that time; such as came before others may be told later."""
        number, spans = mono_ns // self._piece, self._spans
        if math.isnan(value):  # no value is written past it as long as it is the present one
            return
        at = len(spans)
        while at and spans[at - 1][0] > number:
            at -= 1
        if at and spans[at - 1][0] == number:
            _, low, high = spans[at - 1]
            spans[at - 1] = (number, min(low, value), max(high, value))
        else:
            spans.insert(at, (number, value, value))
            while spans[-1][0] - spans[0][0] > PIECES + 1:
                spans.popleft()

    def block(self, mono_ns: int) -> None:
        """Nobody knows what values it had until then."""
        self._blocked = max(self._blocked, mono_ns + self.span_ns)

    def wait_ns(self, mono_ns: int) -> int:
        """How long until it is known again; 0 for now."""
        return max(0, self._blocked - mono_ns)

    def range(self, now: Number, mono_ns: int) -> tuple[Number, Number]:
        """The least and the greatest value that it had within the time, with the present one."""
        spans, piece = self._spans, self._piece
        while spans and (spans[0][0] + 1) * piece + self.span_ns <= mono_ns:
            spans.popleft()
        low = high = now
        for _, least, greatest in spans:
            low, high = min(low, least), max(high, greatest)
        return low, high

    def inherit(self, other: Ramp) -> None:
        """Takes over what another one knows of the same cells."""
        for number, low, high in other._spans:
            end = (number + 1) * other._piece - 1
            self.add(low, end)
            self.add(high, end)
        self._blocked = max(self._blocked, min(other._blocked, other._blocked - other.span_ns + self.span_ns))
