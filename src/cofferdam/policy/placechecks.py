"""Checks of what an asset has: points, methods and streams, with their places, types and limits.

Cells and items are told apart here: a point of cells takes its size from its type, a point of items takes its value as
it is. Not here: the rest of an asset (crosscheck), how a place is written (the protocol's dialect).
"""

from __future__ import annotations

import math
import re

from cofferdam.model import Item, Span
from cofferdam.policy import groups, notations, schema_assets
from cofferdam.policy.document import Path
from cofferdam.policy.findings import Checking
from cofferdam.policy.points import instants, scaling, typed, values
from cofferdam.policy.points.instants import EXPECTED
from cofferdam.policy.problems import nearest, one_of
from cofferdam.policy.syntax import Instant
from cofferdam.policy.yamltext import quote
from cofferdam.protocols.dialect import BitSpan, Dialect, Kind, Misread, Space
from cofferdam.values import DATE_TIME, ELEMENTS, ValueType

MOST_TEXT = 123
"""Cells of a text."""
NUMBERS = typed.NUMBERS | {ValueType.BOOL}


def cell_type(point: schema_assets.Point, at: Span, space: Space) -> tuple[ValueType | None, int, int]:
    """(type, cells, mask) of a point of cells; the type None where it has to be said."""
    said = point.type
    if isinstance(at, BitSpan):
        one = at.low == at.high
        fits = said is None or said is (ValueType.BOOL if one else ValueType.UINT16)
        return (ValueType.BOOL if one else ValueType.UINT16) if fits else None, 1, at.mask
    if said == "bcd":
        return BCD_TYPES.get(at.count), at.count, 0
    kind = said or (ValueType.BOOL if space.bits else None)
    if kind is None:
        return None, 0, 0
    return kind, at.count if kind is ValueType.TEXT else values.WORDS.get(kind, 0), 0


BCD_TYPES = {1: ValueType.UINT16, 2: ValueType.UINT32, 4: ValueType.UINT64}
"""By how many cells of digits there are."""


def point_place(dialect: Dialect, point: schema_assets.Point) -> tuple[Span | Item, ValueType, int] | None:
    """The place, the type and the mask of a point, or None where they do not fit."""
    at = point.at
    found = None if at is None else dialect.found(at)
    if at is None or found is None:
        return None
    if isinstance(at, Item):
        return None if point.type is None or point.type == "bcd" else (at, point.type, 0)
    if not isinstance(found, Space):
        return None
    kind, count, mask = cell_type(point, at, found)
    if kind is None or not count or ((kind is ValueType.BOOL) != found.bits and not mask) or (mask and found.bits):
        return None
    if at.count not in (1, count) or at.start + count > 65536:
        return None
    return Span(at.space, at.start, count), kind, mask


class PlaceChecks:
    """The checks of one asset."""

    def __init__(self, checking: Checking, here: Path, asset: schema_assets.Asset, dialect: Dialect) -> None:
        self.checking = checking
        self.at = checking.at
        self.here = here
        self.asset = asset
        self.dialect = dialect
        self._items: dict[Item, str] = {}
        self._told: dict[str, str] = {}

    def check(self) -> None:
        for name, point in self.asset.points.items():
            self._point((*self.here, "points", name), name, point)
        for section, things in (("methods", self.asset.methods), ("streams", self.asset.streams)):
            for name in things:
                if name == notations.ALL:
                    self.checking.key((*self.here, section, name), 'the name "all"', "another: all stands for all")
                for other in ("points", "methods"):
                    if other != section and name in getattr(self.asset, other):
                        found = f"{name}, which is one of the {other} as well"
                        self.checking.key((*self.here, section, name), found, "a name of its own", check="name")
        for name, method in self.asset.methods.items():
            self._method((*self.here, "methods", name), name, method)
        for name, stream in self.asset.streams.items():
            self._place((*self.here, "streams", name), name, stream.at, "streams", "opened as streams")
            self._form((*self.here, "streams", name), name, stream)
            self._config((*self.here, "streams", name, "config"), stream)
            self._group((*self.here, "streams", name, "multicast"), stream.multicast)
        for name, notifier in self.asset.notifiers.items():
            self._notifier((*self.here, "notifiers", name), name, notifier)
        for name, tree in self.asset.browse.items():
            self._subtree((*self.here, "browse", name), name, tree)
        for name, at in self.asset.bits_of.items():
            self._bits_of((*self.here, "bits_of"), name, at)

    def _bits_of(self, here: Path, name: str, at: Span | Item | None) -> None:
        """Whether a space of bits is said to be in words."""
        spaces = {space.name: space for space in self.dialect.spaces}
        bits = [space.name for space in spaces.values() if space.bits]
        words = [space.name for space in spaces.values() if space.writable and not space.bits and not space.numbered]
        if name not in bits:
            self.checking.key(
                (*here, name), f"the space {quote(name)}", f"a space of bits ({one_of(bits)})", check="space"
            )
        elif at is not None and (not isinstance(at, Span) or at.space not in words or at.count != 1):
            expected = f"the word of its first bit, of {' or '.join(words)}"
            self.at((*here, name), self.dialect.notation.show(at), expected, check="space")

    # --- points

    def _point(self, here: Path, name: str, point: schema_assets.Point) -> None:
        if name == notations.ALL:
            self.checking.key(here, 'a point named "all"', "another name: all stands for every point")
        at, dialect = point.at, self.dialect
        if at is None:
            return
        found = dialect.found(at)
        if found is None:
            self._unknown(here, at)
        elif isinstance(at, Item):
            self._item(here, name, point, at)
        elif isinstance(found, Space):
            self._cells(here, name, point, at, found)

    def _unknown(self, here: Path, at: Span | Item) -> None:
        dialect = self.dialect
        word = at.space if isinstance(at, Span) else at.kind
        known = [space.name for space in dialect.spaces] + [kind.name for kind in dialect.kinds]
        what = "space" if isinstance(at, Span) else "kind"
        near = nearest(word.partition(":")[0], known)
        self.at((*here, "at"), f"the {what} {quote(word)}", one_of(dialect.words()), near, what)

    def _missing_type(self, here: Path, what: str, types: list[str]) -> None:
        self.checking.key(here, f"{what} without type", f"type: {one_of(types, 20)}", check="missing")

    def _cells(self, here: Path, name: str, point: schema_assets.Point, at: Span, space: Space) -> None:
        names = self.dialect.types
        if {"byte_order", "word_order"} <= point.model_fields_set:
            self.at((*here, "byte_order"), "byte_order beside word_order", "one of them", check="type")
        limits = ("elements", "fastest") if point.type is ValueType.TEXT else ("elements", "max_length", "fastest")
        if point.dimensions:
            self.at((*here, "dimensions"), "dimensions of cells", "none: it is for items with names", check="type")
        for field in limits:
            if getattr(point, field) is not None:
                self.at((*here, field), f"{field} of cells", "no such limit: it is for items with names", check=field)
        for field in _moving(point):
            if space.numbered:
                expected = "a point that can be read by itself, for a step to be counted from"
                self.at((*here, field), f"{field} in {at.space}", expected, check="step")
        if isinstance(at, BitSpan):
            self._bits(here, point, at, space)
            return
        if point.type == notations.BCD and at.count not in BCD_TYPES:
            self.at((*here, "at"), f"{at.count} cells of decimal digits", "one cell, two or four", check="type")
            return
        if point.type is None and not space.bits:
            words = [word for word, kind in names.items() if kind in values.WORDS and kind is not ValueType.BOOL]
            self._missing_type(here, f"point {name}", words)
            return
        kind, count, _ = cell_type(point, at, space)
        if kind is None:
            return
        if (kind is ValueType.BOOL) != space.bits or not count:
            expected = "bool" if space.bits else "a type of words, such as uint16"
            if not space.bits and not space.numbered and at.count == 1:
                bit = self.dialect.as_numbered(f"{at.space} {at.start}.0", self.asset.numbering or "")
                expected += f", or one bit: at: {bit}"
            self.at((*here, "type"), f"{kind.value} in {at.space}", expected, check="type")
            return
        if kind is ValueType.TEXT:
            self._text(here, point, at)
            return
        if at.count not in (1, count):
            found = f"{at.count} cells for {kind.value}"
            first = at.start
            near = f'"{at.space} {first}-{first + count - 1}"' if count > 1 else f'"{at.space} {first}"'
            near = self.dialect.as_numbered(near, self.asset.numbering or "")
            self.at((*here, "at"), found, f"{count} cell{'s' if count > 1 else ''}", near, "type")
        elif at.start + count > 65536:
            self.at(
                (*here, "at"), f"{kind.value} that ends after cell 65535", "all cells from 0 to 65535", check="type"
            )
        digits = (0, 10 ** (4 * at.count) - 1) if point.type == notations.BCD else None
        self._range(here, kind, point, digits)
        self._values(here, kind, point, digits)
        self._rate(here, kind, point)
        self._factor(here, kind, point)

    def _bits(self, here: Path, point: schema_assets.Point, at: BitSpan, space: Space) -> None:
        """A point that is some bits of a word."""
        if space.bits or space.numbered:
            self.at((*here, "at"), f"bits of {space.name}", "bits of a word that can be read by itself", check="type")
            return
        one = at.low == at.high
        kind = ValueType.BOOL if one else ValueType.UINT16
        if point.type not in (None, kind):
            expected = "bool: it is a single bit" if one else "uint16: the bits as a number, or no type"
            self.at((*here, "type"), f"{_word(point.type)} in {self.dialect.notation.show(at)}", expected, check="type")
            return
        for field in ("scale_from", "word_order", "byte_order"):
            if field in point.model_fields_set:
                self.at((*here, field), f"{field} of bits", "none", check="type")
        held = (0, at.mask >> at.low)
        self._range(here, kind, point, held)
        self._values(here, kind, point, held)
        if one:
            for field in _moving(point):
                self.at((*here, field), f"{field} of a bit", "a number", check="step")
        else:
            self._rate(here, kind, point)

    def _text(self, here: Path, point: schema_assets.Point, at: Span) -> None:
        """A point that is a text in words."""
        for field in ("min", "max", "max_step", "max_rate", "scale", "offset", "scale_from", "values"):
            if field in point.model_fields_set:
                self.at((*here, field), f"{field} of a text", "max_length, or none", check="range")
        if point.max_length is not None and point.max_length > 2 * at.count:
            found = f"{point.max_length} characters in {at.count} cell{'s' if at.count > 1 else ''}"
            self.at((*here, "max_length"), found, f"at most {2 * at.count}", check="range")
        if at.count > MOST_TEXT:
            self.at((*here, "at"), f"a text of {at.count} cells", f"at most {MOST_TEXT}, which one write has")

    def _factor(self, here: Path, kind: ValueType, point: schema_assets.Point) -> None:
        """A point whose power of ten is in another cell."""
        at = point.scale_from
        if at is None:
            return
        place = (*here, "scale_from")
        found = self.dialect.found(at)
        if not isinstance(at, Span) or isinstance(at, BitSpan) or not isinstance(found, Space) or found.bits \
                or found.numbered or at.count != 1:  # fmt: skip
            self.at(place, self.dialect.notation.show(at), "one word that can be read by itself", check="scale")
        for field in ("scale", "offset", "values", "max_step", "max_rate"):
            if field in point.model_fields_set:
                expected = "min and max alone: the factor may change between two looks"
                self.at((*here, field), f"{field} with scale_from", expected, check="scale")
        if kind in values.FLOATS or kind is ValueType.BOOL:
            self.at(place, f"scale_from of a {kind.value}", "a whole number", check="scale")

    def _values(
        self, here: Path, kind: ValueType, point: schema_assets.Point, held: tuple[int, int] | None = None
    ) -> None:
        """Whether the device has the values that may be written, and the limits beside them say nothing else."""
        if kind is ValueType.BOOL and (point.scale is not None or point.offset is not None):
            self.at((*here, "scale"), "a scale of a bit", "none", check="scale")
            return
        low, high = held or values.type_range(kind)
        for index, value in enumerate(point.values):
            raw = scaling.one(value, point.scale or 1.0, point.offset or 0.0, kind)
            if raw is None or not low <= raw <= high:
                expected = f"a value that {kind.value} can hold"
                self.at((*here, "values", index), values.show(value), expected, check="range")
            elif (point.min is not None and value < point.min) or (point.max is not None and value > point.max):
                self.at((*here, "values", index), values.show(value), "one within min and max", check="range")
        if point.scale is None or point.max_step is None or kind in values.FLOATS:
            return
        if scaling.step(point.max_step, point.scale, kind) < 1:
            expected = f"at least {values.show(abs(point.scale))}, which is the least that it moves"
            self.at((*here, "max_step"), values.show(point.max_step), expected, check="step")

    def _item(self, here: Path, name: str, point: schema_assets.Point, at: Item) -> None:
        kind = self.dialect.kind(at.kind)
        if kind is not None and not kind.valued:
            valued = [k.name for k in self.dialect.kinds if k.valued]
            self.at(
                (*here, "at"), f"{kind.words}, which has no value", f"what has one ({one_of(valued)})", check="kind"
            )
            return
        other = self._items.setdefault(at, name)
        if other != name:
            self.at(
                (*here, "at"),
                f"{self.dialect.notation.show(at)}, which the point {other} is already",
                "one point for it",
                check="at",
            )
        if kind is not None and kind.open:
            self._in_stream(here, point, at, kind)
        if point.type == "bcd":
            self.at((*here, "type"), "bcd of an item", "a type of its own: digits are for cells", check="type")
            return
        for field in ("scale", "offset", "values", "scale_from", "byte_order"):
            if field in point.model_fields_set:
                self.at((*here, field), f"{field} of an item", "none: it is for cells", check="type")
        if "word_order" in self.checking.names(*map(str, here)):
            self.at((*here, "word_order"), "an order of words", "none: it is for cells", check="type")
        if point.type is None:
            self._missing_type(here, f"point {name}", list(self.dialect.types))
            return
        if (whole := self.dialect.whole_of(at)) and point.type is not ValueType.BOOL:
            self.at((*here, "type"), f"{point.type.value} in a bit of {whole}", "bool", check="type")
        if point.elements is not None and at.first >= 0:
            expected = "no elements: the range says them"
            self.at(
                (*here, "elements"), f"elements of the range {self.dialect.notation.show(at)}", expected, check="type"
            )
        if point.dimensions:
            self._matrix(here, point, at)
        if point.fastest is not None and kind is not None and not kind.watch:
            self.at((*here, "fastest"), f"a limit for {kind.words}", "what can be subscribed to", check="fastest")
        if point.structure is not None:
            self._structure(here, point)
        self._value_limits(here, point.type, point)
        several = bool(point.dimensions) or (point.elements or (at.count if at.first >= 0 else 1)) > 1
        if several or point.form or point.type not in typed.NUMBERS:
            what = "an array" if several else f"a {point.form or point.type.value}"
            for field in _moving(point):
                expected = "a single number for a step to be counted from"
                self.at((*here, field), f"{field} of {what}", expected, check="step")
        else:
            self._rate(here, point.type, point)

    def _matrix(self, here: Path, point: schema_assets.Point, at: Item) -> None:
        most, count = self.dialect.dimensions, math.prod(point.dimensions)
        place: Path = (*here, "dimensions")
        if not most:
            self.at(place, "dimensions", f"none: {self.dialect.name} has no matrices", check="type")
        elif not 2 <= len(point.dimensions) <= most or not 1 < count <= ELEMENTS:
            found = f"{len(point.dimensions)} dimensions of {count} elements"
            self.at(place, found, f"2 to {most} dimensions, and 2 to {ELEMENTS} elements", check="type")
        elif point.elements is not None or at.first >= 0 or point.structure is not None:
            self.at(place, "dimensions", "neither elements, nor a range, nor a structure beside them", check="type")

    def _structure(self, here: Path, point: schema_assets.Point) -> None:
        """A structure that is passed on as it is."""
        notation = self.dialect.notation
        try:
            place = notation.parse(point.structure or "") if self.dialect.structures else None
        except Misread as error:
            self.at((*here, "structure"), quote(point.structure or ""), str(error), error.near, "structure")
            return
        if not self.dialect.structures:
            self.at((*here, "structure"), "a structure", f"none: {self.dialect.name} has none", check="structure")
        elif not isinstance(place, Item) or place.first >= 0 or self.dialect.kind(place.kind) is None:
            self.at((*here, "structure"), notation.show(place or Span("", 0, 1)), "the node of an encoding",
                    check="structure")  # fmt: skip
        elif point.type is not ValueType.BYTES or point.max_length is None:
            expected = "type: ByteString and max_length: what nobody decodes is bytes, and so many at most"
            self.at((*here, "structure"), "a structure without them", expected, check="structure")

    def _rate(self, here: Path, kind: ValueType, point: schema_assets.Point) -> None:
        """Whether a max_rate is in the point's own unit, and lets it move at all."""
        rate = point.max_rate
        if rate is None:
            return
        if rate.unit and rate.unit != (point.unit or ""):
            expected = f"{point.unit}, the unit of the point" if point.unit else "none: the point has no unit"
            self.at((*here, "max_rate"), f"the unit {quote(rate.unit)}", expected, check="rate")
        if rate.most / abs(point.scale or 1.0) < 1 and kind not in values.FLOATS:
            within = "second" if rate.seconds == 1 else "minute"
            found = f"{values.show(rate.most)} a {within} of a {kind.value}, which moves by whole numbers"
            self.at((*here, "max_rate"), found, f"at least 1 a {within}", check="rate")

    def _value_limits(self, here: Path, kind: ValueType, said: schema_assets.Point | schema_assets.Argument) -> None:
        if said.form == DATE_TIME:
            self._times(here, said)
            return
        for field in ("min", "max"):
            if isinstance(getattr(said, field), Instant):
                self.at((*here, field), f"a time for a {said.form or kind.value}", "a number", check="range")
                return
        if said.max_length is not None and kind not in typed.SIZED:
            self.at((*here, "max_length"), f"max_length of a {kind.value}", "a text or byte string", check="range")
        for field, limit in (("min", said.min), ("max", said.max)):
            if limit is not None and kind not in NUMBERS:
                self.at((*here, field), f"{field} of a {kind.value}", "max_length, or a number", check="range")
                return
        if kind in NUMBERS:
            self._range(here, kind, said)

    def _times(self, here: Path, said: schema_assets.Point | schema_assets.Argument) -> None:
        """The limits of a time."""
        for field in ("min", "max"):
            limit = getattr(said, field)
            if limit is not None and not isinstance(limit, Instant):
                self.at((*here, field), f"{values.show(limit)} for a {DATE_TIME}", EXPECTED, check="range")
                return
        if said.max_length is not None:
            self.at((*here, "max_length"), f"max_length of a {DATE_TIME}", "min and max", check="range")
        if said.min is not None and said.max is not None and said.min > said.max:
            found = f"min {instants.show(said.min)} above max {instants.show(said.max)}"
            self.at((*here, "min"), found, "min at most max", check="range")

    def _range(
        self,
        here: Path,
        kind: ValueType,
        said: schema_assets.Point | schema_assets.Argument,
        held: tuple[int, int] | None = None,
    ) -> None:
        low, high = held or values.type_range(kind)
        if isinstance(said, schema_assets.Point) and said.scale_from is not None:
            low, high = -math.inf, math.inf
        elif isinstance(said, schema_assets.Point) and (said.scale is not None or said.offset is not None):
            scale, offset = said.scale or 1.0, said.offset or 0.0
            low, high = sorted((low * scale + offset, high * scale + offset))
        for field, limit in (("min", said.min), ("max", said.max)):
            if limit is not None and not low <= limit <= high:
                name = kind.value if held is None else "it"
                expected = f"a value that {name} can hold ({values.show(low)} to {values.show(high)})"
                self.at((*here, field), values.show(limit), expected, check="range")
        if said.min is not None and said.max is not None and said.min > said.max:
            found = f"min {values.show(said.min)} above max {values.show(said.max)}"
            self.at((*here, "min"), found, "min at most max", check="range")

    # --- methods and streams

    def _place(self, here: Path, name: str, at: Span | Item | None, section: str, words: str) -> None:
        """Whether there is such a thing, and no other entry is it."""
        if at is None:
            return
        dialect = self.dialect
        fitting = [kind.name for kind in dialect.kinds if (kind.call if section == "methods" else kind.open)]
        kind = dialect.kind(at.kind) if isinstance(at, Item) else None
        if isinstance(at, Item) and kind is None:
            self._unknown(here, at)
        elif not isinstance(at, Item) or kind is None or kind.name not in fitting:
            found = dialect.notation.show(at)
            expected = (
                f"what can be {words} ({one_of(fitting)})" if fitting else f"no {section}: {dialect.name} has none"
            )
            self.at((*here, "at"), found, expected, check="kind")
        else:
            other = self._items.setdefault(at, name)
            if other != name:
                found = f"{dialect.notation.show(at)}, which is {other}"
                self.at((*here, "at"), found, "one entry for it", check="at")
            if at.first >= 0:
                self.at((*here, "at"), dialect.notation.show(at), "no range of elements", check="at")

    def _notifier(self, here: Path, name: str, notifier: schema_assets.Notifier) -> None:
        dialect, at = self.dialect, notifier.at
        missing = "" if dialect.events else f"no notifiers: {dialect.name} has no events"
        if not self._known_kind(here, f"the notifier {name}", name, missing):
            return
        self._one_object(here, at, "one object that events come from")
        for index, text in enumerate(notifier.fields):
            if text == notations.DEFAULT_FIELDS:
                continue
            try:
                if text == notations.ALL:
                    raise Misread("each field by its name, and `default` for those that all events have")
                dialect.notation.field(text)
            except Misread as error:
                self.at((*here, "fields", index), f"the field {quote(text)}", str(error), check="field")

    def _known_kind(self, here: Path, what: str, name: str, missing: str) -> bool:
        """Whether the protocol has such things at all (`missing`: what to say if not); also looks at its name."""
        if name == notations.ALL:
            self.checking.key(here, 'the name "all"', "another: all stands for all")
        if missing:
            self.checking.key(here, what, missing, check="kind")
        return not missing

    def _one_object(self, here: Path, at: Span | Item | None, expected: str) -> bool:
        dialect = self.dialect
        wrong = at is not None and (not isinstance(at, Item) or at.kind != dialect.kinds[0].name or at.first >= 0)
        if at is not None and wrong:
            self.at((*here, "at"), dialect.notation.show(at), expected, check="kind")
        return at is not None and not wrong

    def _subtree(self, here: Path, name: str, tree: schema_assets.Subtree) -> None:
        dialect, at = self.dialect, tree.at
        missing = "" if dialect.trees else f"none: {dialect.name} has no tree of nodes"
        if not self._known_kind(here, f"the subtree {name}", name, missing):
            return
        if not self._one_object(here, at, "one object, below which all may be seen") or not isinstance(at, Item):
            return
        if not dialect.notation.owned(at):
            expected = "an object of the asset's own: the standard's nodes are those of its server and of all servers"
            self.at((*here, "at"), dialect.notation.show(at), expected, check="kind")
        other = self._items.setdefault(Item(dialect.trees, at.name), name)
        if other != name:
            self.at((*here, "at"), f"{dialect.notation.show(at)}, which is {other}", "one subtree for it", check="at")

    def _form(self, here: Path, name: str, stream: schema_assets.Stream) -> None:
        """What a stream is made of, where the protocol has to be told."""
        dialect = self.dialect
        if stream.form is None:
            if dialect.forms:
                expected = f"form: what it is made of, such as {dialect.form_example}"
                self.checking.key(here, f"stream {name} without form", expected, check="missing")
        elif not re.fullmatch(dialect.forms or "(?!)", stream.form):
            expected = dialect.form_example if dialect.forms else f"no form: {dialect.name} needs none"
            self.at((*here, "form"), f"the form {quote(stream.form)}", expected, check="form")
        else:
            told = "" if dialect.tells is None else dialect.tells(stream.form)
            other = self._told.setdefault(told, name)
            if told and other != name:
                expected = f"one stream for them: the limits of points of {other} would not hold for those of {name}"
                self.at((*here, "form"), f"{told}, which {other} has", expected, check="form")

    def _config(self, here: Path, stream: schema_assets.Stream) -> None:
        """What an opening may bring with it."""
        text, most = stream.config, self.dialect.configuration
        if text is None:
            return
        digits = "".join(text.split())
        if not most:
            self.at(here, "config", f"none: openings of {self.dialect.name} bring no configuration", check="config")
        elif not re.fullmatch(r"([0-9A-Fa-f]{2})+", digits) or len(digits) > 2 * most:
            expected = f'1 to {most} bytes in hexadecimal, such as "01 00 dc 05"'
            self.at(here, f"the configuration {quote(text)}", expected, check="config")
        elif ", config " not in (stream.form or ""):
            expected = f"a form that says to which assembly it goes, such as {self.dialect.form_example}"
            self.at(here, "a configuration for no assembly", expected, check="config")

    def _group(self, here: Path, text: str | None) -> None:
        """Where a stream's frames go for clients that want them by multicast."""
        own = self.asset.listen[0] if self.asset.listen is not None else self.asset.overlay
        found = None if text is None else groups.wrong(text, self.dialect, own)
        if found is not None:
            self.at(here, *found, check="multicast")

    def _in_stream(self, here: Path, point: schema_assets.Point, at: Item, kind: Kind) -> None:
        """A point of a stream's frames lies in one of the asset's streams: its limits would hold nowhere else."""
        show = self.dialect.notation.show
        places = [one for one in self.asset.streams.values() if isinstance(one.at, Item) and one.at.kind == at.kind]
        for stream in places:
            begin = "" if stream.at is None else stream.at.space
            rest = at.space.removeprefix(begin)
            if rest and rest != at.space and rest[0] in kind.separators:
                form, of = stream.form or "", point.type if isinstance(point.type, ValueType) else None
                wrong = "" if of is None else self.dialect.notation.misplaced(form, rest[1:], of, point.elements or 1)
                if wrong:
                    self.at((*here, "at"), f"{show(at)} as {'' if of is None else of.value}", wrong, check="at")
                if point.writes_per_minute is not None:
                    expected = "max_step or max_rate: frames come by themselves, and are not counted"
                    self.at((*here, "writes_per_minute"), "writes_per_minute in a stream", expected, check="range")
                return
        known = [show(stream.at) for stream in places if stream.at is not None]
        expected = f"a part of a stream of this asset ({one_of(known)})" if known else "a stream of this asset for it"
        self.at((*here, "at"), show(at), expected, nearest(show(at).partition(".")[0], known), "at")

    def _method(self, here: Path, name: str, method: schema_assets.Method) -> None:
        self._place(here, name, method.at, "methods", "called")
        seen: set[str] = set()
        for index, argument in enumerate(method.arguments):
            place: Path = (*here, "arguments", index)
            if argument.name in seen:
                self.at((*place, "name"), f"{quote(argument.name)} again", "a name of its own", check="name")
            seen.add(argument.name)
            if argument.type is not None:
                self._value_limits(place, argument.type, argument)
        names = [one.name for one in method.returns]
        for index, given in enumerate(names):
            if given in names[:index]:
                place = (*here, "returns", index, "name")
                self.at(place, f"{quote(given)} again", "a name of its own", check="name")


def _word(kind: ValueType | str | None) -> str:
    return kind.value if isinstance(kind, ValueType) else str(kind)


def _moving(point: schema_assets.Point) -> tuple[str, ...]:
    """What the point says of how its value may move."""
    return tuple(field for field in ("max_step", "max_rate") if getattr(point, field) is not None)
