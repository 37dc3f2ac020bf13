"""EPATHs in their padded form: what stands before a request's data, and in a connection's opening.

Not here: which paths which service takes (requests), routes that are allowed (machine).
"""

from __future__ import annotations

import re
from typing import Final

from cofferdam.model import Item
from cofferdam.protocols.enip.dialect import ELEMENT, NAME, PARTS, path_fault
from cofferdam.protocols.enip.epath import Path

SECTION: Final = "CIP, EPATH segments (padded)"
SYMBOL, TEMPLATE, MANAGER, ROUTER, IDENTITY, PROGRAM, ASSEMBLY = 0x6B, 0x6C, 0x06, 0x02, 0x01, 0x64, 0x04
_WIDTHS: Final = (1, 2, 4)
_CLASS, _INSTANCE, _ELEMENT, _POINT, _ATTRIBUTE = 0, 1, 2, 3, 4
_LONGEST: Final = {_CLASS: 1, _INSTANCE: 2, _ELEMENT: 2, _POINT: 2, _ATTRIBUTE: 1}


class BadPath(Exception):
    """A path that breaks a rule; `str(error)` says which."""


def parse(data: bytes, at: int, stop: int) -> Path:
    """The segments from `at` up to before `stop`. Raises: BadPath."""
    cls = attribute = -1
    names: list[tuple[str, tuple[int, ...]]] = []
    indexes: list[int] = []
    elements: list[int] = []
    points: list[int] = []
    instances: list[int] = []
    route: list[tuple[int, bytes]] = []
    key = config = b""
    program = ""
    of_name = False  # whether an element belongs to the last name
    while at < stop:
        kind = data[at]
        if kind >> 5 == 1:  # logical
            what, width = kind >> 2 & 7, kind & 3
            if kind == 0x34:
                if at + 10 > stop or data[at + 1] != 4:
                    raise BadPath("an electronic key of another form")
                if key:
                    raise BadPath("a second electronic key")
                key, at = data[at + 2 : at + 10], at + 10
                continue
            if what > 4 or width == 3 or width > _LONGEST[what]:
                raise BadPath(f"the segment {kind:#04x}")
            start = at + 1 if width == 0 else at + 2
            size = _WIDTHS[width]
            if start + size > stop:
                raise BadPath("a segment that ends after the path")
            if width and data[at + 1]:
                raise BadPath("a byte that fills up and is not zero")
            value, at = int.from_bytes(data[start : start + size], "little"), start + size
            if what == _CLASS:
                if cls >= 0 or instances:
                    raise BadPath("a second class, or one after its instance")
                if names:
                    if len(names) != 1 or names[0][1] or not names[0][0].startswith("program:"):
                        raise BadPath("a class after a symbol that is no program")
                    program, names = names[0][0], []
                cls, of_name = value, False
            elif what == _INSTANCE:
                instances.append(value)
            elif what == _POINT:
                points.append(value)
            elif what == _ATTRIBUTE:
                if attribute >= 0:
                    raise BadPath("a second attribute")
                attribute = value
            elif value > ELEMENT:
                raise BadPath(f"the element {value}")
            elif of_name:
                if len(indexes) == 3:
                    raise BadPath("more than three indexes")
                indexes.append(value)
                names[-1] = (names[-1][0], tuple(indexes))
            elif cls == SYMBOL and instances:
                if len(elements) == 3:
                    raise BadPath("more than three indexes")
                elements.append(value)
            else:
                raise BadPath("an element of nothing")
        elif kind == 0x91:
            size = data[at + 1] if at + 1 < stop else 0
            end = at + 2 + size
            padded = end + (size & 1)
            if not size or padded > stop or (size & 1 and data[end]):
                raise BadPath("a symbol of no length, or that ends after the path")
            text = data[at + 2 : end].decode("latin-1")
            if not NAME.match(text):
                raise BadPath(f"the symbol {text!r}")
            if len(names) == PARTS:
                raise BadPath(f"more than {PARTS} parts")
            names.append((text.lower(), ()))
            indexes, at, of_name = [], padded, True
        elif 1 <= kind & 0x0F <= 0x0E and kind < 0x20:
            if at + 2 > stop or cls >= 0 or names:
                raise BadPath("a port after what it leads to")
            # A link of several characters, such as an address, has their number before them, and is filled up.
            end = at + 2 + (data[at + 1] if kind & 0x10 else 0)
            if end + (end - at & 1) > stop:
                raise BadPath("a link that ends after the path")
            route.append((kind, data[at + 1 : at + 2] if end == at + 2 else data[at + 2 : end]))
            at = end + (end - at & 1)
        elif kind == 0x80:
            end = at + 2 + 2 * (data[at + 1] if at + 1 < stop else 0)
            if end > stop or at + 1 >= stop:
                raise BadPath("data that end after the path")
            if config:
                raise BadPath("data twice")
            config, at = data[at + 2 : end], end
        else:
            raise BadPath(f"the segment {kind:#04x}")
    return Path(
        cls, instances[0] if instances else -1, attribute, tuple(names), tuple(elements), tuple(points),
        program, tuple(instances), tuple(route), key, config,
    )  # fmt: skip


def joined(parts: tuple[tuple[str, tuple[int, ...]], ...], count: int, arrays: frozenset[str]) -> Item:
    """The item of a tag's path with so many elements, by its one spelling. `arrays`: names of which it is known that an
    element is meant where none is said. Raises: BadPath."""
    written: list[str] = []
    for name, indexes in parts[:-1]:
        written.append(f"{name}[{','.join(map(str, indexes))}]" if indexes else name)
    last, indexes = parts[-1]
    first = -1
    if len(indexes) == 1:
        first = indexes[0]
    elif indexes:
        last = f"{last}[{','.join(map(str, indexes))}]"
        if count != 1:
            raise BadPath("a range of elements by several indexes")
    whole = ".".join([*written, last])
    if fault := path_fault(whole):
        raise BadPath(fault)
    if first < 0 and len(indexes) < 2 and (count > 1 or whole in arrays):
        first = 0
    if first < 0:
        return Item("tag", whole)
    if first + count - 1 > ELEMENT:
        raise BadPath(f"elements beyond {ELEMENT}")
    return Item("tag", whole, first, count)


def _logical(kind: int, value: int) -> bytes:
    if value < 256:
        return bytes([0x20 | kind << 2, value])
    if value < 65536:
        return bytes([0x21 | kind << 2, 0]) + value.to_bytes(2, "little")
    return bytes([0x22 | kind << 2, 0]) + value.to_bytes(4, "little")


def _symbol(name: str) -> bytes:
    text = name.encode("ascii")
    return bytes([0x91, len(text)]) + text + b"\0" * (len(text) & 1)


_INDEXES = re.compile(r"([^\[]*)(?:\[([0-9,]+)\])?\Z")


def of_tag(item: Item) -> bytes:
    """The path of a tag's item, of which the first element is named."""
    path = b""
    for part in item.name.split("."):
        found = _INDEXES.match(part)
        if found is None:
            raise ValueError(f"{item.name!r} is no path")
        path += _symbol(found[1])
        for index in found[2].split(",") if found[2] else ():
            path += _logical(_ELEMENT, int(index))
    return path + _logical(_ELEMENT, item.first) if item.first >= 0 else path


def of_object(cls: int, instance: int = -1, attribute: int = -1) -> bytes:
    """The path of a class, an instance, or an attribute."""
    path = _logical(_CLASS, cls)
    if instance >= 0:
        path += _logical(_INSTANCE, instance)
    return path + _logical(_ATTRIBUTE, attribute) if attribute >= 0 else path


def of_points(*points: int) -> bytes:
    """Connection points."""
    return b"".join(_logical(_POINT, point) for point in points)


def of_data(data: bytes) -> bytes:
    """A segment of simple data: whole words."""
    return bytes([0x80, len(data) // 2]) + data if data else b""


def of_program(name: str) -> bytes:
    """The path of what belongs to a program: "Program:Main" before the class."""
    return _symbol(name) if name else b""


def of_attribute(item: Item) -> bytes:
    """The path of an attribute's item."""
    cls, instance, attribute = map(int, item.name.split("/"))
    return of_object(cls, instance, attribute)


def of_route(route: str) -> bytes:
    """The port segments of "backplane 0"; b"" for no route."""
    return bytes([1, int(route.split()[1])]) if route else b""
