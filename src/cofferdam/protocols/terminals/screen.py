"""What stands on a terminal's screen: text and control sequences in, lines that somebody saw out. PURE.

As much of ECMA-48 and xterm as decides where letters stand: cursor, erasing, inserting, deleting, scrolling regions,
the other screen of full-screen programs, lines that go on in the next row. All else (colours) is taken and forgotten.
What is seen is told when it has changed (`seen`): what a program draws in pieces, at places of its own, is found as it
stood there, and so is a row that left the screen before anybody asked.

Not here: bytes and their encoding, what must not reach a person's terminal (brokers.jump.cleaned).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

CELLS_MOST: Final = 1_000
"""Columns, and rows."""
LOST_MOST: Final = 100_000
"""Lines that have left the screen and that nobody has asked for."""
LINE_MOST: Final = 10_000
"""Letters of a line that is told in one piece."""
SEQUENCE_MOST: Final = 4_096
"""Letters of a sequence whose end has not come."""
_TOKEN: Final = re.compile(
    r"[^\x00-\x1f\x7f\x80-\x9f]+"  # text
    r"|\x1b\[(?P<args>[0-?]*)[ -/]*(?P<csi>[@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[ -/]*(?P<esc>[0-OQ-WYZ`-~\\])"
    r"|[\x00-\x1a\x1c-\x1f\x7f-\x9f]"
    r"|\x1b(?=[\x00-\x1f])"  # one that was broken off
)


class _Row:
    """One row. `on`: the line goes on in the next one; `before`: what it began with, in rows that have left."""

    __slots__ = ("before", "cells", "on")

    def __init__(self, columns: int) -> None:
        self.cells = [" "] * columns
        self.on = False
        self.before = ""


class Screen:
    """One screen, and the other one behind it."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._columns, self._height = _within(columns), _within(rows)
        self._rows = [_Row(self._columns) for _ in range(self._height)]
        self._behind: list[_Row] | None = None
        self._x = self._y = 0
        self._saved = (0, 0)
        self._top, self._bottom = 0, self._height
        self._changed: set[int] = set()
        self._lost: list[str] = []
        self._rest = ""
        self._last = " "

    # --- what is asked ----------------------------------------------------------------------------------------------

    def seen(self) -> list[str]:
        """The lines that were changed, or have left the screen, since that was asked last; none that is empty."""
        found, self._lost = [*self._lost, *self._lines_of(self._changed)], []
        self._changed.clear()
        return [line for line in found if line]

    def lines(self) -> list[str]:
        """The screen as it stands."""
        return ["".join(row.cells).rstrip() for row in self._rows]

    def _lines_of(self, rows: Iterable[int]) -> list[str]:
        """The lines that these rows are part of."""
        firsts: set[int] = set()
        for y in rows:
            while y and self._rows[y - 1].on:
                y -= 1
            firsts.add(y)
        return [self._line(y) for y in sorted(firsts)]

    def _line(self, y: int) -> str:
        """The line that begins in this row."""
        text = self._rows[y].before
        while True:
            row = self._rows[y]
            text += "".join(row.cells)
            y += 1
            if not row.on or y >= self._height:
                return text.strip()

    # --- what is shown ----------------------------------------------------------------------------------------------

    def feed(self, text: str) -> None:
        """The next piece."""
        text, self._rest = self._rest + text, ""
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                self._rest = text[at:] if len(text) - at <= SEQUENCE_MOST else ""
                return
            at = found.end()
            piece = found.group()
            if found["csi"] is not None:
                self._control(found["csi"], found["args"])
            elif found["esc"] is not None:
                self._escape(found["esc"])
            elif piece >= " ":
                self._put(piece)
            else:
                self._act(piece)

    def resize(self, columns: int, rows: int) -> None:
        """The person's window has another size."""
        self._keep(range(self._height))
        self._columns, self._height = _within(columns), _within(rows)
        for screen in (self._rows, self._behind or []):
            for row in screen:
                row.cells = (row.cells + [" "] * self._columns)[: self._columns]
            del screen[: max(0, len(screen) - self._height)]
            screen += [_Row(self._columns) for _ in range(self._height - len(screen))]
        self._top, self._bottom = 0, self._height
        self._changed.clear()
        self._move(self._x, self._y)

    def _put(self, text: str) -> None:
        self._last = text[-1]
        if not text.isascii():
            self._put_wide(text)
            return
        while text:
            if self._x >= self._columns:
                self._wrap()
            row = self._rows[self._y]
            piece, text = text[: self._columns - self._x], text[self._columns - self._x :]
            row.cells[self._x : self._x + len(piece)] = piece
            self._changed.add(self._y)
            self._x += len(piece)

    def _put_wide(self, text: str) -> None:
        """Letters that may take two cells, or none."""
        for letter in text:
            if unicodedata.combining(letter) and self._x:
                self._rows[self._y].cells[self._x - 1] += letter
                continue
            width = 2 if unicodedata.east_asian_width(letter) in "WF" and self._columns > 1 else 1
            if self._x + width > self._columns:
                self._wrap()
            self._rows[self._y].cells[self._x : self._x + width] = [letter, ""][:width]
            self._changed.add(self._y)
            self._x += width

    def _wrap(self) -> None:
        self._rows[self._y].on = True
        self._x = 0
        self._down()

    def _act(self, control: str) -> None:
        match control:
            case "\r":
                self._x = 0
            case "\n" | "\v" | "\f" | "\x84":
                self._rows[self._y].on = False
                self._down()
            case "\x85":
                self._x = 0
                self._down()
            case "\b":
                self._x = max(0, min(self._x, self._columns) - 1)
            case "\t":
                self._x = min(self._columns - 1, (self._x // 8 + 1) * 8)

    def _escape(self, final: str) -> None:
        match final:
            case "D":
                self._down()
            case "E":
                self._x = 0
                self._down()
            case "M":
                self._up()
            case "7":
                self._saved = (self._x, self._y)
            case "8":
                self._move(*self._saved)
            case "c":
                self._clear(0, self._height)
                self._top, self._bottom = 0, self._height
                self._move(0, 0)

    def _control(self, final: str, args: str) -> None:
        if args[:1] in ("?", ">", "<", "="):
            if args[:1] == "?" and final in "hl" and {"47", "1047", "1049"} & set(args[1:].split(";")):
                self._other(final == "h")
            return
        numbers = [min(int(word), CELLS_MOST) if word.isdecimal() else 0 for word in args.split(";")]
        first = numbers[0]
        count = max(1, first)
        match final:
            case "A":
                self._move(self._x, self._y - count)
            case "B" | "e":
                self._move(self._x, self._y + count)
            case "C" | "a":
                self._move(self._x + count, self._y)
            case "D":
                self._move(min(self._x, self._columns - 1) - count, self._y)
            case "E":
                self._move(0, self._y + count)
            case "F":
                self._move(0, self._y - count)
            case "G" | "`":
                self._move(count - 1, self._y)
            case "d":
                self._move(self._x, count - 1)
            case "H" | "f":
                self._move(max(1, numbers[1] if len(numbers) > 1 else 1) - 1, count - 1)
            case "J":
                self._erase_screen(first)
            case "K":
                self._erase_line(first)
            case "L" | "M":
                self._shift(count if final == "L" else -count, self._y)
            case "S" | "T":
                self._shift(-count if final == "S" else count, self._top)
            case "@" | "P" | "X":
                self._in_line(final, count)
            case "b":
                self._put(self._last * count)
            case "r":
                last = numbers[1] if len(numbers) > 1 and numbers[1] else self._height
                if count - 1 < min(last, self._height):
                    self._top, self._bottom = count - 1, min(last, self._height)
                    self._move(0, 0)
            case "s":
                self._saved = (self._x, self._y)
            case "u":
                self._move(*self._saved)

    # --- how it changes ---------------------------------------------------------------------------------------------

    def _move(self, x: int, y: int) -> None:
        self._x, self._y = max(0, min(x, self._columns - 1)), max(0, min(y, self._height - 1))

    def _keep(self, rows: range) -> None:
        """These are about to go: what was changed there was seen, for a moment."""
        if len(self._lost) < LOST_MOST and (gone := self._changed.intersection(rows)):
            self._lost += self._lines_of(gone)

    def _down(self) -> None:
        if self._y == self._bottom - 1:
            self._shift(-1, self._top)
        elif self._y < self._height - 1:
            self._y += 1

    def _up(self) -> None:
        if self._y == self._top:
            self._shift(1, self._top)
        elif self._y:
            self._y -= 1

    def _shift(self, by: int, top: int) -> None:
        """The rows from `top` to the end of the region go down, or up by as many."""
        bottom = self._bottom
        if not self._top <= top < bottom:
            return
        by = max(top - bottom, min(by, bottom - top))
        self._keep(range(top, self._carry(top, top - by)) if by < 0 else range(bottom - by, bottom))
        fresh = [_Row(self._columns) for _ in range(abs(by))]
        region = self._rows[top:bottom]
        self._rows[top:bottom] = [*fresh, *region[:-by]] if by > 0 else [*region[-by:], *fresh]
        inside = {y + by for y in self._changed if top <= y < bottom and top <= y + by < bottom}
        self._changed = {y for y in self._changed if not top <= y < bottom} | inside

    def _carry(self, top: int, end: int) -> int:
        """These rows leave above. A line that goes on in the rows that stay goes with them; returns where it begins."""
        if end >= self._bottom or not self._rows[end - 1].on:
            return end
        first = end - 1
        while first > top and self._rows[first - 1].on:
            first -= 1
        text = self._rows[first].before + "".join(cell for row in self._rows[first:end] for cell in row.cells)
        if len(text) > LINE_MOST:
            return end
        self._rows[end].before = text
        if self._changed.intersection(range(first, end)):
            self._changed.add(end)
        return first

    def _clear(self, first: int, end: int) -> None:
        self._keep(range(first, end))
        for y in range(first, end):
            self._rows[y] = _Row(self._columns)
            self._changed.discard(y)

    def _erase_screen(self, what: int) -> None:
        if what == 0:
            self._erase_line(0)
            self._clear(self._y + 1, self._height)
        elif what == 1:
            self._clear(0, self._y)
            self._erase_line(1)
        else:
            self._clear(0, self._height)

    def _erase_line(self, what: int) -> None:
        self._keep(range(self._y, self._y + 1))
        row, x = self._rows[self._y], min(self._x, self._columns - 1)
        first, end = ((x, self._columns), (0, x + 1), (0, self._columns))[min(what, 2)]
        row.cells[first:end] = [" "] * (end - first)
        row.on = row.on and what == 1
        self._changed.add(self._y)

    def _in_line(self, final: str, count: int) -> None:
        row, x = self._rows[self._y], min(self._x, self._columns - 1)
        count = min(count, self._columns - x)
        if final == "X":
            row.cells[x : x + count] = [" "] * count
        elif final == "@":
            row.cells[x:] = ([" "] * count + row.cells[x:])[: self._columns - x]
        else:
            row.cells[x:] = row.cells[x + count :] + [" "] * count
        self._changed.add(self._y)

    def _other(self, wanted: bool) -> None:
        """The screen of a full-screen program, or the one behind it again."""
        if wanted == (self._behind is not None):
            return
        self._keep(range(self._height))
        self._changed.clear()
        if self._behind is None:
            self._behind, self._saved = self._rows, (self._x, self._y)
            self._rows = [_Row(self._columns) for _ in range(self._height)]
        else:
            self._rows, self._behind = self._behind, None
            self._move(*self._saved)


def _within(cells: int) -> int:
    return max(1, min(cells, CELLS_MOST))
