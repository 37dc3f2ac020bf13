"""Sets of cells, or of items' elements, as sorted ranges. Two ranges that touch become one; a cell that was not added
is never in the set.

Not here: which cells a policy allows (policy.cover).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from cofferdam.model import Item
from cofferdam.protocols.dialect import show_range


class Cells:
    """Cell numbers of one space."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        """Adds the cells from `start` up to before `stop`."""
        if start >= stop:
            return
        low = bisect_left(self._stops, start)  # the first range that reaches `start`
        high = bisect_right(self._starts, stop)  # after the last one that begins by `stop`
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]

    def remove(self, start: int, stop: int) -> None:
        """Takes cells out."""
        kept = [
            piece
            for low, high in self
            for piece in ((low, min(high, start)), (max(low, stop), high))
            if piece[0] < piece[1]
        ]
        self._starts = [low for low, _ in kept]
        self._stops = [high for _, high in kept]

    def __contains__(self, cell: int) -> bool:
        index = bisect_right(self._starts, cell) - 1
        return index >= 0 and cell < self._stops[index]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of each range, in order."""
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def __len__(self) -> int:
        """How many ranges."""
        return len(self._starts)

    def texts(self, space: str, named: bool = False) -> list[str]:
        """The ranges as the policy file writes them: "holding 0-99", "coil 7". `named`: the space is an item, and these
        are its elements: "tag speed", "tag counts[0-9]"."""
        if named:
            kind, _, name = space.partition(" ")
            return [show_range(Item(kind, name), low, high) for low, high in self]
        return [f"{space} {low}" if high == low + 1 else f"{space} {low}-{high - 1}" for low, high in self]


class Spaces:
    """Cells of several spaces, for a line of a report: at most `limit` ranges, after which close ones are joined."""

    __slots__ = ("_limit", "_named", "_spaces", "joined")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._named: set[str] = set()
        self._spaces: dict[str, Cells] = {}
        self.joined = False

    def add(self, space: str, start: int, stop: int, named: bool = False) -> None:
        """Adds cells of a space, or elements of an item (`named`). Beyond the limit of spaces (Modbus files) the rest
        is left out, and `joined` set."""
        if space not in self._spaces and len(self._spaces) >= self._limit:
            self.joined = True
            return
        cells = self._spaces.setdefault(space, Cells())
        cells.add(start, stop)
        if named:
            self._named.add(space)
        if len(cells) > self._limit:
            ranges = list(cells)
            gaps = [(ranges[i + 1][0] - ranges[i][1], ranges[i][1], ranges[i + 1][0]) for i in range(len(ranges) - 1)]
            _, low, high = min(gaps)
            cells.add(low, high)
            self.joined = True

    def texts(self) -> list[str]:
        """All ranges, by space."""
        return [
            text for space in sorted(self._spaces) for text in self._spaces[space].texts(space, space in self._named)
        ]
