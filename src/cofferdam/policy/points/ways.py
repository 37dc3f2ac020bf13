"""One conduit, as far as it concerns a flow: which rule of it allows an operation's form, or how far it got.

Not here: what values may be written (checks, decide), which conduit is the nearest (decide).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cofferdam.model import NEVER, Call, Change, Fault, Item, Opening, Operation, Span, Watch
from cofferdam.policy import windows
from cofferdam.policy.points.cover import Cover, Reach
from cofferdam.policy.rows import Clock, Conduit, Piece, Rule
from cofferdam.protocols.dialect import bits_text, show_range

RULE_LETTERS = 128
"""The longest name of rules in a verdict; records and entries of the log hold no longer one."""

VERBS = ("read", "write", "call", "subscribe", "stream")
_ALLOWS = ("reading", "writing", "calling", "subscribing", "streaming")


class Way:
    """One conduit, as far as it concerns a flow: its rules for the flow's principals and asset."""

    __slots__ = ("_paced", "_reaches", "bits", "conduit", "functions", "is_open", "rules", "until", "write_functions")

    def __init__(self, conduit: Conduit, rules: Sequence[Rule]) -> None:
        self.conduit = conduit
        self.rules = tuple(rules)
        self._reaches = (  # by the place in VERBS
            Reach((piece, rule.number) for rule in rules for piece in rule.reads),
            Reach((piece, rule.number) for rule in rules for piece in rule.writes if not piece.mask),
            Reach((piece, rule.number) for rule in rules for piece in rule.calls),
            Reach((piece, rule.number) for rule in rules for piece in rule.watches),
            Reach((piece, rule.number) for rule in rules for piece in rule.streams),
        )
        self.bits: dict[tuple[str, int], list[tuple[Piece, int]]] = {}  # by space and cell
        for rule in rules:
            for piece in rule.writes:
                if piece.mask:
                    self.bits.setdefault((piece.at.space, piece.at.start), []).append((piece, rule.number))
        watches = [(piece, rule.number) for rule in rules for piece in rule.watches]
        self._paced = watches if any(piece.fastest_us or piece.slowest_us for piece, _ in watches) else []
        self.functions = _numbers((code, rule.number) for rule in rules for code in rule.functions)
        self.write_functions = _numbers((code, rule.number) for rule in rules for code in rule.write_functions)
        self.is_open = False
        self.until = 0

    def refresh(self, clocks: Mapping[str, Clock], wall_ns: int) -> int:
        """Set `is_open` and `until` for a time; returns when (UTC ns) they may change."""
        if wall_ns >= self.conduit.expires:
            self.is_open, self.until = False, NEVER
        else:
            self.is_open, until = windows.state(self.conduit.windows, clocks, wall_ns)
            self.until = min(until, self.conduit.expires)
        return self.until

    def needs(self, op: Operation) -> list[tuple[int, Span | Item]]:
        """What must be allowed: (the place in VERBS, of what)."""
        found: list[tuple[int, Span | Item]] = []
        for read in op.reads:
            found.append((3, read.item) if isinstance(read, Watch) else (0, read))
        for write in op.writes:
            if isinstance(write, Change):
                found.append((1, Span(write.space, write.start, write.count)))
            else:
                found.append((2 if isinstance(write, Call) else 4 if isinstance(write, Opening) else 1, write.item))
        return found

    def form(self, op: Operation) -> list[int] | tuple[Fault, int, int, str]:
        """The numbers of the rules that allow an operation's form; or the fault, distance, rule and sentence."""
        numbers: list[int] = []
        if op.never:
            return Fault.FUNCTION, 0, self._first(), op.never
        if op.browse:
            return [self._first()]
        # A changing operation that says no cells of what it changes is judged by its code, whatever it reads.
        if not op.writes and (op.is_write or not op.reads):
            known = self.write_functions if op.is_write else self.functions
            found = known.get((op.function, op.sub), known.get((op.function, -1)))
            if found is None:
                return Fault.FUNCTION, 0, self._first(), self._function_sentence(op)
            numbers.append(found)
        for access, span in self.needs(op):
            reach = self._reaches[access]
            word = VERBS[access]
            if span.count < 1:  # no protocol asks this; a broken half might
                return (
                    Fault.ADDRESS,
                    1 << 18,
                    self._first(),
                    f"{word} of {span.count} cells is asked; 1 or more are allowed",
                )
            asked = f"{word} {show_range(span, span.start, span.stop)} is asked"
            if access == 1 and self.bits:
                alone = self._by_bits(op, span, asked)
                if isinstance(alone, tuple):
                    return alone
                if alone:
                    numbers += alone
                    continue
            if not reach:
                others = [word for word, other in zip(_ALLOWS, self._reaches, strict=True) if other]
                what = f"only {' and '.join(others)}" if others else "no such access"
                return Fault.FUNCTION, 0, self._first(), f"{asked}; {self.conduit.name} allows {what} here"
            cover = reach.cover(span.space)
            if cover is None:
                number, there = reach.nearest(span)
                return Fault.ADDRESS, 1 << 17, number, f"{asked}; nothing of {span.space} is allowed, only of {there}"
            missing = cover.missing(span.start, span.stop)
            if missing < span.stop:
                distance, piece, number = cover.nearest(missing)
                return Fault.ADDRESS, distance, number, f"{asked}; the nearest allowed is {name_piece(piece)}"
            if access == 3 and self._paced:
                paced = self._at_pace(op, span)
                if isinstance(paced, tuple):
                    return paced
                cover = paced
            numbers += cover.rules(span.start, span.stop)
        return sorted(set(numbers))

    def pace(self, item: Item) -> tuple[int, int]:
        """The shortest and the longest interval (µs) at which all of an item may be watched, as far as rules say so; 0
        for none."""
        found = [piece for piece, _ in self._paced if piece.at.space == item.space]
        if not found:
            return 0, 0
        slowest = [piece.slowest_us for piece in found]
        return min(piece.fastest_us for piece in found), 0 if 0 in slowest else max(slowest)

    def _at_pace(self, op: Operation, span: Span | Item) -> Cover | tuple[Fault, int, int, str]:
        """What may be watched at the interval that is asked; or the fault, distance, rule and sentence."""
        asked = next((read.interval_us for read in op.reads if isinstance(read, Watch)), 0)
        here = [(piece, number) for piece, number in self._paced if piece.at.space == span.space]
        cover = Cover([(p, n) for p, n in here if p.fastest_us <= asked <= (p.slowest_us or asked)])
        if cover.covers(span.start, span.stop):
            return cover
        piece, number = here[0]
        allowed = f"from {interval_text(piece.fastest_us)}" if piece.fastest_us else "any"
        allowed += f" to {interval_text(piece.slowest_us)}" if piece.slowest_us else " on" if piece.fastest_us else ""
        what = f"{name_piece(piece)} every {interval_text(asked)} is asked; intervals {allowed} are allowed"
        return Fault.RATE, 0, number, what

    def alone(self, op: Operation) -> list[tuple[Piece, int]]:
        """The bits that may be written of the one word that a write is of; none where all of it may be written, or
        nothing."""
        if len(op.writes) != 1 or not isinstance(op.writes[0], Change) or op.writes[0].count != 1:
            return []
        change = op.writes[0]
        cover = self._reaches[1].cover(change.space)
        if cover is not None and cover.covers(change.start, change.stop):
            return []
        return self.bits.get((change.space, change.start), [])

    def _by_bits(self, op: Operation, span: Span | Item, asked: str) -> list[int] | tuple[Fault, int, int, str]:
        """The rules by which bits of a word may be written; none where no bits are named there, or all of it may be
        written; or the fault, distance, rule and sentence."""
        cover = self._reaches[1].cover(span.space)
        if cover is not None and cover.covers(span.start, span.stop):
            return []
        named = [place for place in self.bits if place[0] == span.space and span.start <= place[1] < span.stop]
        if not named:
            return []
        pieces = self.alone(op)
        if not pieces or op.reads:
            number = self.bits[named[0]][0][1]
            return Fault.ADDRESS, 0, number, f"{asked}, of which only bits are allowed: that word by itself is"
        change = op.writes[0]
        if not isinstance(change, Change) or change.exact:
            return [number for _, number in pieces]
        touched = left = ~change.values[0] & 0xFFFF
        numbers = [number for piece, number in pieces if piece.mask & touched]
        for piece, _ in pieces:
            left &= ~piece.mask
        if left or not touched:
            known = ", ".join(name_piece(piece) for piece, _ in pieces)
            word = show_range(span, span.start, span.stop)
            what = bits_text(left) if left else "no bit"
            return Fault.ADDRESS, 0, pieces[0][1], f"write {what} of {word} is asked; allowed is {known}"
        return numbers

    def sees(self, item: Item, separators: str) -> bool:
        """Whether any rule allows something of an item, or of a part of it."""
        return any(reach.sees(item.space, separators) for reach in self._reaches)

    def reaches(self, access: int, item: Item) -> bool:
        """Whether all of an item is allowed (`access`: the place in VERBS)."""
        cover = self._reaches[access].cover(item.space)
        return cover is not None and cover.covers(item.start, item.stop)

    def _first(self) -> int:
        return self.rules[0].number

    def _function_sentence(self, op: Operation) -> str:
        code = show_function(op.function, op.sub)
        kind = "write_functions" if op.is_write else "functions"
        known = self.write_functions if op.is_write else self.functions
        allowed = ", ".join(show_function(*entry) for entry in sorted(known)) or "none"
        changing = ", which may change the device," if op.is_write else ""
        return f"function {code}{changing} is asked; allowed {kind}: {allowed}"


def interval_text(us: int) -> str:
    """An interval in words."""
    if us >= 1_000_000:
        return f"{us / 1_000_000:g} s"
    return f"{us / 1000:g} ms"


def name_piece(piece: Piece) -> str:
    """An allowed piece in words: "flow_total (holding 100-101)"."""
    cells = show_range(piece.at, piece.at.start, piece.at.stop)
    if piece.mask:
        return f"{piece.point} ({bits_text(piece.mask)} of {cells})"
    return f"{piece.point} ({cells})" if piece.point else f"{cells}*" if piece.prefix else cells


def show_function(function: int, sub: int) -> str:
    """A function code as the policy writes it: 8, or 43/14."""
    return str(function) if sub < 0 else f"{function}/{sub}"


def rules_named(way: Way, *numbers: int) -> str:
    """The rules by their numbers, as an entry of the log can hold them: many are told by the first ones."""
    text = f"{way.conduit.name}/{'+'.join(str(number) for number in numbers)}"
    return text if len(text) <= RULE_LETTERS else text[: text.rindex("+", 0, RULE_LETTERS - 1)] + "+…"


def _numbers(codes: Iterable[tuple[tuple[int, int], int]]) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for code, number in codes:
        found.setdefault(code, number)
    return found
