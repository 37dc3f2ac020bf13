"""What some rules allow of one access, as sorted intervals: answers in logarithmic time, however many rules there are.

Not here: whose rules, and when they hold (policy.decide).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from cofferdam.model import Item, Span
from cofferdam.policy.rows import Piece


class Cover:
    """The allowed cells of one space, or elements of one item. Made of (piece, rule number), asked with numbers."""

    __slots__ = ("_best", "_merged_start", "_merged_stop", "_piece_start", "_pieces")

    def __init__(self, pieces: Iterable[tuple[Piece, int]]) -> None:
        self._pieces = sorted(pieces, key=lambda entry: (entry[0].at.start, entry[1]))
        self._piece_start = [piece.at.start for piece, _ in self._pieces]
        self._best: list[int] = []  # for each piece, the one before or at it that reaches furthest
        self._merged_start: list[int] = []
        self._merged_stop: list[int] = []
        best = 0
        for index, (piece, _) in enumerate(self._pieces):
            at = piece.at
            if at.stop > self._pieces[best][0].at.stop:
                best = index
            self._best.append(best)
            if self._merged_stop and at.start <= self._merged_stop[-1]:
                self._merged_stop[-1] = max(self._merged_stop[-1], at.stop)
            else:
                self._merged_start.append(at.start)
                self._merged_stop.append(at.stop)

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
            start = piece.at.stop
        return numbers

    def nearest(self, cell: int) -> tuple[int, Piece, int]:
        """(distance, piece, rule number) of the allowed piece that lies nearest to a cell. Distance 0: covered."""
        after = bisect_right(self._piece_start, cell)
        candidates = []
        if after > 0:
            piece, number = self._pieces[self._best[after - 1]]
            candidates.append((max(0, cell - piece.at.stop + 1), piece, number))
        if after < len(self._pieces):
            piece, number = self._pieces[after]
            candidates.append((piece.at.start - cell, piece, number))
        return min(candidates, key=lambda entry: entry[0])


class Reach:
    """All that some rules allow of one access (read, write, call, ...), by space: of cells and of items."""

    __slots__ = ("_names", "_pieces", "_prefixes", "spaces")

    def __init__(self, pieces: Iterable[tuple[Piece, int]]) -> None:
        self._pieces: dict[str, list[tuple[Piece, int]]] = {}
        self._prefixes: list[tuple[Piece, int]] = []
        for piece, number in pieces:
            if piece.prefix:
                self._prefixes.append((piece, number))
            else:
                self._pieces.setdefault(piece.at.space, []).append((piece, number))
        self.spaces = {space: Cover(found) for space, found in self._pieces.items()}
        self._names: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.spaces or self._prefixes)

    def cover(self, space: str) -> Cover | None:
        """What is allowed of a space or an item; None where nothing is."""
        cover = self.spaces.get(space)
        if self._prefixes:
            wide = [entry for entry in self._prefixes if space.startswith(entry[0].at.space)]
            if wide:
                return Cover([*self._pieces.get(space, ()), *wide])
        return cover

    def sees(self, space: str, separators: str) -> bool:
        """Whether anything is allowed of an item, or of a part of it."""
        if self.cover(space) is not None:
            return True
        if any(piece.at.space.startswith(space) for piece, _ in self._prefixes):
            return True
        names = self._sorted()
        at = bisect_left(names, space)
        while at < len(names) and names[at].startswith(space):
            if names[at][len(space)] in separators:
                return True
            at += 1
        return False

    def _sorted(self) -> list[str]:
        if not self._names:
            self._names = sorted(self.spaces)
        return self._names

    def nearest(self, asked: Span | Item) -> tuple[int, str]:
        """(rule number, what it allows) for something of which nothing is allowed: the space of the first rule; for an
        item the one whose name begins most alike."""
        if isinstance(asked, Span) and self.spaces:
            number, space = min(((cover.nearest(0)[2], space) for space, cover in self.spaces.items()), key=_first)
            return number, space
        names = self._sorted()
        at = bisect_left(names, asked.space)
        beside = names[max(0, at - 1) : at + 1]
        if not beside:
            piece, number = self._prefixes[0]
            return number, f"{piece.at.space}*"
        space = max(beside, key=lambda name: _alike(name, asked.space))
        _, piece, number = self.spaces[space].nearest(0)
        return number, f"{piece.point} ({space})" if piece.point else space


def _first(entry: tuple[int, str]) -> int:
    return entry[0]


def _alike(one: str, other: str) -> int:
    """How many characters two names have in common from the beginning."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
