"""What a capture shows of a device's items: which were read, written, subscribed to, called and streamed, and of what
type they are; and the points, methods and streams of a policy that follow from it.

An item becomes a point if the limits that were learned for it let through all that was seen: its type is known, and
always the same, and no write passed round it, as one of a whole structure does. Others are named by themselves, as
`registers` and `write_registers`.

Not here: cells (learn), whose requests they were (learn).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from cofferdam.model import Assign, Call, Item, Opening, Operation, Watch
from cofferdam.policy.notations import ALL
from cofferdam.policy.points.values import Number
from cofferdam.protocols.dialect import Dialect, Misread
from cofferdam.values import Value, ValueType

VERBS = ("read", "subscribe", "events", "acknowledge", "write", "call", "stream")
"""What a rule may say of items, in the order in which it is written."""

_Shape = tuple[ValueType, int]
"""A type, and how many elements; -1 for a single value."""


class _Seen:
    """One item: its types, the smallest and largest number and the longest value that were written."""

    def __init__(self) -> None:
        self.shapes: set[_Shape] = set()
        self.low: Number | None = None
        self.high: Number | None = None
        self.longest = 0
        self.watched = False
        self.written = False
        self.unlimited = False
        """Something was written that no limits let through."""

    def held(self, value: Value) -> None:
        self.shapes.add(_shape(value))

    def write(self, value: Value | None) -> None:
        self.written = True
        if value is None:
            self.unlimited = True
            return
        self.held(value)
        for one in value.values:
            if isinstance(one, (str, bytes)):
                self.longest = max(self.longest, len(one))
            elif not math.isfinite(one):
                self.unlimited = True
            else:
                self.low = one if self.low is None else min(self.low, one)
                self.high = one if self.high is None else max(self.high, one)


class Named:
    """The items of one device. `most`: how many are told apart; requests of others are counted in `left_out`, and so
    are those of what no policy can say."""

    def __init__(self, dialect: Dialect, most: int) -> None:
        self._dialect = dialect
        self._most = most
        self._words = {kind: word for word, kind in reversed(dialect.types.items())}
        self._values: dict[Item, _Seen] = {}
        self._told_of = [one for one in dialect.conditions if isinstance(one.at, Item)]
        self._methods: dict[Item, dict[tuple[_Shape, ...], None]] = {}
        self._streams: dict[Item, int] = {}
        self._notifiers: dict[Item, dict[str, None]] = {}
        self._names: dict[Item, str] = {}
        self._taken = {"", ALL, "null", "Null", "NULL"}  # words that mean something in a policy, or in YAML
        self._raw: set[Item] | None = None
        self.left_out = 0

    def __len__(self) -> int:
        fields = sum(map(len, self._notifiers.values()))
        return len(self._values) + len(self._methods) + len(self._streams) + len(self._notifiers) + fields

    def add(self, op: Operation) -> Iterator[tuple[str, Item]]:
        """Takes a request; what it does with which item."""
        first = op.reads[0] if op.reads else None
        if isinstance(first, Watch) and first.item.kind == self._dialect.events:
            if self._told(first.item, [read for read in op.reads[1:] if isinstance(read, Item)]):
                yield "events", first.item
            return
        for read in op.reads:
            if isinstance(read, (Item, Watch)):
                verb, item = ("read", read) if isinstance(read, Item) else ("subscribe", read.item)
                seen = self._seen(verb, item)
                if seen is not None:
                    seen.watched |= verb == "subscribe"
                    yield verb, item
        assigned: set[Item] = set()
        for write in op.writes:
            if isinstance(write, Assign):
                seen = self._seen("write", write.item)
                if seen is not None:
                    seen.write(write.value)
                    seen.unlimited |= write.item in assigned
                    assigned.add(write.item)
                    yield "write", write.item
            elif isinstance(write, Call) and any(write.item.kind == one.at.kind for one in self._told_of):
                notifier = self._notifier_of(write.item)
                if notifier is None:
                    self.left_out += 1
                else:
                    yield "acknowledge", notifier
            elif isinstance(write, Call):
                shape = tuple(map(_shape, write.arguments))
                fits = all(kind in self._words and count for kind, count in shape)
                if self._room("call", write.item, known=write.item in self._methods, fits=fits):
                    self._methods.setdefault(write.item, {})[shape] = None
                    yield "call", write.item
            elif isinstance(write, Opening) and self._room("stream", write.item, known=write.item in self._streams):
                fastest = min(self._streams.get(write.item, write.interval_us), write.interval_us)
                self._streams[write.item] = fastest
                yield "stream", write.item

    def _told(self, notifier: Item, fields: list[Item]) -> bool:
        """Takes a watch of events and of which fields; whether it can be said."""
        notation, known = self._dialect.notation, self._notifiers.get(notifier, {})
        named = dict.fromkeys([notation.field_of(notifier, field) for field in fields])
        new = [field for field in named if field not in known]
        try:
            fits = notation.parse(self.raw(notifier)).space and all(notation.field(field) == field for field in named)
        except Misread:
            fits = False
        if not fits or len(self) + len(new) + (notifier not in self._notifiers) > self._most:
            self.left_out += 1
            return False
        self._notifiers.setdefault(notifier, {}).update(dict.fromkeys(new))
        return True

    def _notifier_of(self, told: Item) -> Item | None:
        """By whose events what is told of a condition is known; None where these had not what names one."""
        wanted, of_event = set(self._dialect.condition_fields), self._dialect.notation.of_event
        for notifier, fields in self._notifiers.items():
            said = [of_event(Item(one.at.kind, notifier.name), one.at.name) for one in self._told_of]
            if told in said and wanted <= fields.keys():
                return notifier
        return None

    def held(self, values: tuple[Assign, ...]) -> None:
        """What a good answer showed."""
        for assign in values:
            seen = self._values.get(assign.item)
            if seen is not None and assign.value is not None:
                seen.held(assign.value)

    def _seen(self, verb: str, item: Item) -> _Seen | None:
        seen = self._values.get(item)
        if seen is None and self._room(verb, item, known=False):
            seen = self._values[item] = _Seen()
        return seen

    def _room(self, verb: str, item: Item, *, known: bool, fits: bool = True) -> bool:
        if fits and (known or (len(self) < self._most and self._sayable(verb, item))):
            return True
        self.left_out += 1
        return False

    def _sayable(self, verb: str, item: Item) -> bool:
        """Whether a policy can allow this at all."""
        kind = self._dialect.kind(item.kind)
        if kind is None:
            return False
        codes = {"read": kind.read, "write": kind.write, "subscribe": kind.watch, "call": kind.call}
        try:
            return codes.get(verb, kind.open) > 0 and self._dialect.notation.parse(self.raw(item)) == item
        except Misread:
            return False

    # --- as text

    def name(self, item: Item) -> str:
        """What the policy calls an item; "" for one that is not named."""
        if self._raw is None:
            self._raw = set(self._not_points())
        if item in self._raw:
            return ""
        name = self._names.get(item)
        if name is None:
            plain = re.sub(r"[^A-Za-z0-9]+", "-", self._dialect.notation.title(item)).strip("-")[:40] or item.kind
            plain += f"-{item.first}" if item.first >= 0 else ""
            name, number = plain, 2
            while name in self._taken:
                name, number = f"{plain}-{number}", number + 1
            self._taken.add(name)
            self._names[item] = name
        return name

    def raw(self, item: Item) -> str:
        """An item as policy files write it."""
        return self._dialect.notation.show(item)

    def points(self) -> Iterator[str]:
        """The points of an asset, without a heading."""
        for item in sorted(self._values, key=_order):
            if self.name(item):
                yield f"      {self.name(item)}: {{{self._point(item)}}}"

    def sections(self) -> Iterator[str]:
        """What follows the points of an asset."""
        for item in sorted(self._values, key=_order):
            if self._values[item].watched and not self.name(item):
                yield f"    # {quoted(self.raw(item))} was subscribed to: make it a point, with its type, to allow this"
        if self._methods:
            yield "    methods:"
        for item in sorted(self._methods, key=_order):
            shape, *others = self._methods[item]
            given = [
                f"{{name: argument-{number}, type: {self._words[kind]}{_elements(count)}}}"
                for number, (kind, count) in enumerate(shape, 1)
            ]
            arguments = f", arguments: [{', '.join(given)}]" if given else ""
            more = "   # called with arguments of other types as well: these are not allowed" if others else ""
            yield f"      {self.name(item)}: {{at: {quoted(self.raw(item))}{arguments}}}{more}"
        if self._streams:
            yield "    streams:"
        for item in sorted(self._streams, key=_order):
            fastest = f", fastest: {self._streams[item]} us" if self._streams[item] else ""
            form = "" if self._dialect.learned_form is None else self._dialect.learned_form(item)
            form = f', form: "{form}"' if form else ""
            yield f"      {self.name(item)}: {{at: {quoted(self.raw(item))}{fastest}{form}}}"
        if self._notifiers:
            yield "    notifiers:"
        for item in sorted(self._notifiers, key=_order):
            fields = ", ".join(map(quoted, self._notifiers[item]))
            yield f"      {self.name(item)}: {{at: {quoted(self.raw(item))}, fields: [{fields}]}}"
        if self.left_out:
            yield f"    # {self.left_out} requests of further items were left out"

    def _point(self, item: Item) -> str:
        seen = self._values[item]
        [(kind, count)] = seen.shapes
        said = f"at: {quoted(self.raw(item))}, type: {self._words[kind]}"
        if item.first < 0:
            said += _elements(count)
        # A bit that was set and reset has no limit.
        if kind is not ValueType.BOOL or seen.low == seen.high:
            said += _limit("min", seen.low) + _limit("max", seen.high)
        return said + (f", max_length: {seen.longest}" if seen.longest else "")

    def _not_points(self) -> Iterator[Item]:
        """Items without a type, and those whose limits would refuse what was seen."""
        alike: dict[str, list[Item]] = {}
        for item, seen in self._values.items():
            shape = next(iter(seen.shapes), None)
            if len(seen.shapes) != 1 or seen.unlimited or shape is None or shape[0] not in self._words or not shape[1]:
                yield item
            elif shape[1] == 1 and item.first < 0:
                yield item  # an array of one element, which no point is
            alike.setdefault(item.space, []).append(item)
        for item in self._values:
            for other in alike[item.space]:
                meet = other is not item and other.start < item.stop and item.start < other.stop
                if meet and (self._values[item].written or self._values[other].written):
                    yield item
            if not self._values[item].written:
                continue
            kind = self._dialect.kind(item.kind)
            for outer in _around(item, kind.separators if kind is not None else ""):
                written = [other for other in alike.get(outer, ()) if self._values[other].written]
                yield from [item, *written] if written else ()


def quoted(text: str) -> str:
    """In single quotes, in which YAML knows no escapes but the quote itself; names from the network may hold anything
    that the notation writes."""
    return "'" + text.replace("'", "''") + "'"


def _shape(value: Value) -> _Shape:
    return value.type, len(value.values) if value.array else -1


def _limit(word: str, number: Number | None) -> str:
    """Not as people would round it, since what was written must be within it; "" for a number that a policy, whose
    numbers are floating point, cannot say."""
    return "" if number is None or int(float(number)) != int(number) else f", {word}: {number + 0!r}"


def _elements(count: int) -> str:
    return f", elements: {count}" if count > 1 else ""


def _order(item: Item) -> tuple[str, int]:
    return item.space, item.start


def _around(item: Item, separators: str) -> Iterator[str]:
    """The names that an item's name is a part of, each with its kind."""
    space = item.space
    for end in range(len(item.kind) + 1, len(space)):
        if space[end] in separators:
            yield space[:end]
