"""What the audit log is told of an operation: its cells, its items, and the values that it gives to named points.

Not here: when it is told (brokers), the events themselves (audit.events).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable

from cofferdam.audit.events.access import ITEM, ITEMS, VALUE, Cells, OfItem, PointValue, Written
from cofferdam.audit.events.base import number
from cofferdam.model import Asset, Assign, Call, Change, Item, Opening, Operation, Point, Span, Watch
from cofferdam.policy.points import typed, values
from cofferdam.policy.points.values import Number
from cofferdam.protocols.dialect import show_range
from cofferdam.values import Value, ValueType

CELL_ENTRIES = 64
"""Changes and spans of cells of one request in an entry."""
POINTS = 256
"""Points of one write in an entry."""
NAME = 128
_DIGITS = 32


def untold(operation: Operation) -> str:
    """Why an entry cannot name all that a request would change, in words; "" if it can. Such a write is refused: what
    cannot be written into the log is not done."""
    count = len(operation.writes)
    return f"{count} items in one write are asked; at most {ITEMS} are allowed" if count > ITEMS else ""


def cells(operation: Operation) -> tuple[Cells, ...]:
    """The cells that it reads and writes."""
    told = [Cells(span.space, span.start, span.count) for span in operation.reads if isinstance(span, Span)]
    told += [Cells(write.space, write.start, write.count) for write in operation.writes if isinstance(write, Change)]
    return tuple(told[:CELL_ENTRIES])


def raw_values(operation: Operation) -> tuple[int, ...]:
    """The raw values that it writes to cells."""
    return tuple(value for write in operation.writes if isinstance(write, Change) for value in write.values)


def written(operation: Operation) -> tuple[Written, ...]:
    """The cells that it writes, with their values."""
    changes = [write for write in operation.writes if isinstance(write, Change)]
    return tuple(Written(change.space, change.start, change.values) for change in changes[:CELL_ENTRIES])


def items(operation: Operation, reads: bool = True) -> tuple[OfItem, ...]:
    """The items that it touches; `reads`: also those that it only reads."""
    told: list[OfItem] = []
    for read in operation.reads if reads else ():
        if isinstance(read, Watch):
            told.append(OfItem(_name(read.item), "subscribe"))
        elif isinstance(read, Item):
            told.append(OfItem(_name(read), "read"))
    for write in operation.writes:
        if isinstance(write, Assign):
            value = write.value
            if value is None:
                told.append(OfItem(_name(write.item), "write"))
            else:
                told.append(OfItem(_name(write.item), "write", value.type.value, (_whole(value),)))
        elif isinstance(write, Call):
            told.append(OfItem(_name(write.item), "call", "", tuple(_whole(value) for value in write.arguments)))
        elif isinstance(write, Opening):
            told.append(OfItem(_name(write.item), "stream", "", (f"{write.interval_us} us",)))
    return tuple(told[:ITEMS])


def points(asset: Asset, operation: Operation) -> tuple[PointValue, ...]:
    """The values that a write gives to named points."""
    found: list[PointValue] = []
    for write in operation.writes:
        if not isinstance(write, (Change, Assign)):
            continue
        for point in asset.points:
            at = point.at
            if not write.exact:
                here = isinstance(write, Change) and (at.space, at.start) == (write.space, write.start)
                if isinstance(write, Change) and here and point.mask and not write.values[0] & point.mask:
                    text = values.show(values.of(point, write.values[1:]))
                    found.append(PointValue(point.name[:NAME], text, _unit(point)))
            elif at.space == write.space and at.start >= write.start and at.stop <= write.stop:
                text = _of_cells(point, write) if isinstance(write, Change) else _of_item(point, write)
                found.append(PointValue(point.name[:NAME], text[:NAME], _unit(point)))
            if len(found) == POINTS:
                return tuple(found)
    return tuple(found)


def before(held: Iterable[tuple[Point, Number]]) -> tuple[PointValue, ...]:
    """What points held before a write."""
    return tuple(
        PointValue(point.name[:NAME], number(value), _unit(point)) for point, value in itertools.islice(held, POINTS)
    )


def _unit(point: Point) -> str:
    """The unit of the numbers that travel, which are what the log has: with its scale, where that is not 1."""
    if point.factor is not None:
        return f"× 10^({values.factor_text(point)}) {point.unit}".rstrip()[:NAME]
    if point.scale == 1.0 and point.offset == 0.0:
        return point.unit[:NAME]
    offset = f" + {values.show(point.offset)}" if point.offset else ""
    return f"× {values.show(point.scale)}{offset} {point.unit}".rstrip()[:NAME]


def _of_cells(point: Point, change: Change) -> str:
    raw = change.values[point.at.start - change.start : point.at.stop - change.start]
    if point.type is ValueType.TEXT:
        return values.text_of(point, raw)
    return values.show(values.of(point, raw))


def _of_item(point: Point, assign: Assign) -> str:
    value = assign.value
    if value is None:
        return ""
    if point.at.start >= 0:
        first = point.at.start - max(assign.start, 0)
        value = type(value)(value.values[first : first + point.at.count], value.array)  # type: ignore[arg-type]
    return typed.text(value, point.form)


def _name(item: Item) -> str:
    return _cut(show_range(item, item.start, item.stop), ITEM)


def _whole(value: Value) -> str:
    """A value with nothing left out: as JSON would write it, bytes in hexadecimal."""
    plain = [one.hex() if isinstance(one, bytes) else one for one in value.values]
    text = json.dumps(plain if value.array else plain[0] if plain else None, ensure_ascii=False)
    return _cut(text, VALUE)


def _cut(text: str, length: int) -> str:
    """A text that is too long is told by its beginning and its SHA-256, so that no two look alike."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    if len(text) <= length:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
    return f"{text[: length - _DIGITS - 9]}… sha256 {digest}"
