"""Which cells some rules allow, as sorted intervals: answers in logarithmic time, however many rules there are.

Not here: whose rules, and when they hold (policy.decide).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from cofferdam.policy.rows import Piece


class Cover:
    """The allowed cells of one space. Made of (piece, rule number), asked with cell numbers."""

    __slots__ = ("_best", "_merged_start", "_merged_stop", "_piece_start", "_pieces")

    def __init__(self, pieces: Iterable[tuple[Piece, int]]) -> None:
        self._pieces = sorted(pieces, key=lambda entry: (entry[0].span.start, entry[1]))
        self._piece_start = [piece.span.start for piece, _ in self._pieces]
        self._best: list[int] = []  # for each piece, the one before or at it that reaches furthest
        self._merged_start: list[int] = []
        self._merged_stop: list[int] = []
        best = 0
        for index, (piece, _) in enumerate(self._pieces):
            span = piece.span
            if span.stop > self._pieces[best][0].span.stop:
                best = index
            self._best.append(best)
            if self._merged_stop and span.start <= self._merged_stop[-1]:
                self._merged_stop[-1] = max(self._merged_stop[-1], span.stop)
            else:
                self._merged_start.append(span.start)
                self._merged_stop.append(span.stop)

    def covers(self, start: int, stop: int) -> bool:
        """Whether every cell from `start` up to before `stop` is allowed."""
        index = bisect_right(self._merged_start, start) - 1
        return index >= 0 and stop <= self._merged_stop[index]

    def missing(self, start: int, stop: int) -> int:
        """The first cell in the range that is not allowed; `stop` if all are."""
        index = bisect_right(self._merged_start, start) - 1
        if index < 0 or start >= self._merged_stop[index]:
            return start
        return min(stop, self._merged_stop[index])

    def rules(self, start: int, stop: int) -> list[int]:
        """Numbers of the rules that together allow a covered range: the fewest, reaching furthest first."""
        numbers: list[int] = []
        while start < stop:
            piece, number = self._pieces[self._best[bisect_right(self._piece_start, start) - 1]]
            numbers.append(number)
            start = piece.span.stop
        return numbers

    def nearest(self, cell: int) -> tuple[int, Piece, int]:
        """(distance, piece, rule number) of the allowed piece that lies nearest to a cell. Distance 0: covered."""
        after = bisect_right(self._piece_start, cell)
        candidates = []
        if after > 0:
            piece, number = self._pieces[self._best[after - 1]]
            candidates.append((max(0, cell - piece.span.stop + 1), piece, number))
        if after < len(self._pieces):
            piece, number = self._pieces[after]
            candidates.append((piece.span.start - cell, piece, number))
        return min(candidates, key=lambda entry: entry[0])
