"""What a capture shows of a device's items: which were read, written, subscribed to, called and streamed, and of what
type they are; and the points, methods and streams of a policy that follow from it.

Not here: cells (learn), whose requests they were (learn).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cofferdam.model import Assign, Call, Item, Opening, Operation, Value, ValueType, Watch
from cofferdam.policy.points import typed
from cofferdam.policy.points.values import show
from cofferdam.protocols.dialect import Dialect

VERBS = ("read", "subscribe", "write", "call", "stream")
"""What a rule may say of items, in the order in which it is written."""


class _Seen:
    """One item: its types, how many elements, and the smallest and largest number that was written."""

    def __init__(self) -> None:
        self.shapes: set[tuple[ValueType, int]] = set()
        self.low: float | None = None
        self.high: float | None = None
        self.longest = 0
        self.writes = 0

    def held(self, value: Value) -> None:
        self.shapes.add((value.type, len(value.values) if value.array else 1))

    def written(self, value: Value) -> None:
        self.writes += 1
        self.held(value)
        for one in value.values:
            if isinstance(one, (str, bytes)):
                self.longest = max(self.longest, len(one))
            elif value.type in typed.NUMBERS:
                self.low = one if self.low is None else min(self.low, one)
                self.high = one if self.high is None else max(self.high, one)


class Named:
    """The items of one device. `most`: how many are told apart; others are counted in `left_out`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[Item, _Seen] = {}
        self._methods: dict[Item, set[tuple[tuple[ValueType, int], ...]]] = {}
        self._streams: dict[Item, int] = {}
        self._names: dict[Item, str] = {}
        self.left_out = 0

    def __len__(self) -> int:
        return len(self._values) + len(self._methods) + len(self._streams)

    def add(self, op: Operation) -> Iterator[tuple[str, Item]]:
        """Takes a request; what it does with which item."""
        for read in op.reads:
            if isinstance(read, (Item, Watch)):
                item = read if isinstance(read, Item) else read.item
                if self._seen(item) is not None:
                    yield ("read" if isinstance(read, Item) else "subscribe"), item
        for write in op.writes:
            if isinstance(write, Assign):
                seen = self._seen(write.item)
                if seen is not None:
                    if write.value is not None:
                        seen.written(write.value)
                    yield "write", write.item
            elif isinstance(write, Call) and self._room(write.item in self._methods):
                shape = tuple(_shape(value) for value in write.arguments)
                self._methods.setdefault(write.item, set()).add(shape)
                yield "call", write.item
            elif isinstance(write, Opening) and self._room(write.item in self._streams):
                fastest = min(self._streams.get(write.item, write.interval_us), write.interval_us)
                self._streams[write.item] = fastest
                yield "stream", write.item

    def held(self, values: tuple[Assign, ...]) -> None:
        """What a good answer showed."""
        for assign in values:
            seen = self._seen(assign.item)
            if seen is not None and assign.value is not None:
                seen.held(assign.value)

    def _room(self, known: bool) -> bool:
        if known or len(self) < self._most:
            return True
        self.left_out += 1
        return False

    def _seen(self, item: Item) -> _Seen | None:
        seen = self._values.get(item)
        if seen is None and self._room(False):
            seen = self._values[item] = _Seen()
        return seen

    # --- as text

    def name(self, item: Item) -> str:
        """What the policy calls an item; "" for one that cannot be a point, since its type was not seen."""
        if item in self._values and len(self._values[item].shapes) != 1:
            return ""
        name = self._names.get(item)
        if name is None:
            plain = re.sub(r"[^A-Za-z0-9]+", "-", item.name).strip("-")[:48] or item.kind
            plain += f"-{item.first}" if item.first >= 0 else ""
            taken = set(self._names.values())
            name, number = plain, 2
            while name in taken:
                name, number = f"{plain}-{number}", number + 1
            self._names[item] = name
        return name

    def lines(self, dialect: Dialect) -> Iterator[str]:
        """The sections of an asset."""
        words = {kind: word for word, kind in reversed(dialect.types.items())}
        points = [item for item in sorted(self._values, key=_order) if self.name(item)]
        if points:
            yield "    points:   # min and max are the values that were seen in writes"
        for item in points:
            yield f"      {self.name(item)}: {{{self._point(item, dialect, words)}}}"
        if self._methods:
            yield "    methods:"
        for item in sorted(self._methods, key=_order):
            shape = sorted(self._methods[item])[0]
            given = [
                f"{{name: argument-{number}, type: {words.get(kind, kind.value)}{_elements(count)}}}"
                for number, (kind, count) in enumerate(shape, 1)
            ]
            arguments = f", arguments: [{', '.join(given)}]" if given else ""
            yield f"      {self.name(item)}: {{at: {_quoted(dialect, item)}{arguments}}}"
        if self._streams:
            yield "    streams:"
        for item in sorted(self._streams, key=_order):
            fastest = f", fastest: {self._streams[item]} us" if self._streams[item] else ""
            yield f"      {self.name(item)}: {{at: {_quoted(dialect, item)}{fastest}}}"
        if self.left_out:
            yield f"    # {self.left_out} requests of further items were left out"

    def _point(self, item: Item, dialect: Dialect, words: dict[ValueType, str]) -> str:
        seen = self._values[item]
        [(kind, count)] = seen.shapes
        said = f"at: {_quoted(dialect, item)}, type: {words.get(kind, kind.value)}"
        if item.first < 0:
            said += _elements(count)
        if seen.low is not None and seen.high is not None:
            said += f", min: {show(seen.low)}, max: {show(seen.high)}"
        return said + (f", max_length: {seen.longest}" if seen.longest else "")

    def raw(self, item: Item, dialect: Dialect) -> str:
        """An item without a point, as `registers` name it."""
        return _quoted(dialect, item)


def _shape(value: Value) -> tuple[ValueType, int]:
    return value.type, len(value.values) if value.array else 1


def _elements(count: int) -> str:
    return f", elements: {count}" if count != 1 else ""


def _order(item: Item) -> tuple[str, int]:
    return item.space, item.start


def _quoted(dialect: Dialect, item: Item) -> str:
    """In single quotes, in which YAML knows no escapes but the quote itself; names from the network may hold anything
    that the notation writes."""
    return "'" + dialect.notation.show(item).replace("'", "''") + "'"
