"""What a write, a call, a watch or an opening means at an asset's items: which points it touches, and their limits.

An item is touched by its name. Of an array's elements each is a value by itself: whoever writes some of them is held to
the limits of these. Where a kind's names say what is a part of what ("pump.speed" of "pump", bit "status.3" of
"status"), a limit cannot be passed round by writing the whole around the point, or a part of it: both are refused.

Not here: which items may be touched at all (decide), cells (decide).
"""

from __future__ import annotations

import re
from bisect import bisect_left

from cofferdam.model import Asset, Assign, Call, Change, Fault, Item, Method, Opening, Operation, Point, Stream, Watch
from cofferdam.policy.points import typed, values
from cofferdam.policy.points.checks import Check
from cofferdam.protocols.dialect import show_range
from cofferdam.values import Value, value_fault

_FIRST = re.compile(r"\[(?:0,)*0\]")
_BEGINS = re.compile(r"\[(?:0,)+")
"""Indexes of which all, or the first ones, are 0."""


class _ItemCheck(Check):
    """A point that an assignment touches: which write, and which of its values are the point's."""

    __slots__ = ("first", "index", "point", "stop")

    def __init__(self, point: Point, index: int, first: int, stop: int) -> None:
        super().__init__(point)
        self.point = point
        self.index = index
        self.first = first
        self.stop = stop
        self.ranged = typed.is_limited(point) or point.type in values.FLOATS

    def wrong(self, op: Operation) -> str:
        return typed.beyond(self.point, _value(op, self.index), self.first, self.stop, True)

    def number(self, op: Operation) -> values.Number:
        one: values.Number = _value(op, self.index).values[self.first]  # type: ignore[assignment]
        return one


class _CallCheck(Check):
    """A method that is called: the limits of its arguments, and how often."""

    __slots__ = ("index", "method")

    def __init__(self, method: Method, index: int) -> None:
        super().__init__(method)
        self.method = method
        self.index = index
        self.ranged = any(typed.is_limited(argument) for argument in method.arguments)

    def wrong(self, op: Operation) -> str:
        call = op.writes[self.index]
        if isinstance(call, Call):
            for argument, value in zip(self.method.arguments, call.arguments, strict=True):
                fault = typed.beyond(argument, value, 0, len(value.values), typed.is_limited(argument))
                if fault:
                    return f"{self.name}: {fault}"
        return ""

    def number(self, op: Operation) -> values.Number:
        raise ValueError("a call has no value")


def _value(op: Operation, index: int) -> Value:
    write = op.writes[index]
    if not isinstance(write, Assign) or write.value is None:
        raise ValueError("a write without a value")  # touched() refuses such a one where there is a limit
    return write.value


class Items:
    """An asset's points, methods and streams of items, by name."""

    __slots__ = ("_conditions", "_limited", "_methods", "_names", "_points", "_separators", "_streams")

    def __init__(self, asset: Asset) -> None:
        self._points: dict[str, list[Point]] = {}
        for point in asset.points:
            if isinstance(point.at, Item):
                self._points.setdefault(point.at.space, []).append(point)
        self._separators = dict(asset.kinds)
        self._limited = {
            self._bare(point.at.kind, point.at.space): point
            for point in asset.points
            if isinstance(point.at, Item) and values.has_limit(point)
        }
        self._names = sorted(self._limited)
        self._methods = {method.at.space: method for method in asset.methods}
        self._conditions = {one.at.space: one for notifier in asset.notifiers for one in notifier.conditions}
        self._streams = {stream.at.space: stream for stream in asset.streams}

    def key(self, op: Operation) -> object:
        """Equal for operations of one form, which differ in values alone."""
        return (op.function, op.sub, op.unit, op.is_write, op.reads, tuple([_shape(write) for write in op.writes]))

    def _bare(self, kind: str, space: str) -> str:
        """A name without indexes of the first element: where names have indexes, a device may take the one for the
        other, "motors.speed" for "motors[0].speed"."""
        if "[" not in self._separators.get(kind, ""):
            return space
        return _BEGINS.sub("[", _FIRST.sub("", space))

    def stream(self, item: Item) -> Stream | None:
        """The stream that an item is."""
        return self._streams.get(item.space)

    def outside(self, stream: Item, op: Operation) -> str:
        """What a frame of a stream would write that is no part of it; "" for nothing."""
        separators = self._separators.get(stream.kind, "")
        begin = stream.space
        for write in op.writes:
            space = write.space
            after = space[len(begin) : len(begin) + 1]
            if not isinstance(write, Assign) or not space.startswith(begin) or not after or after not in separators:
                return f"a write of {space} is asked; parts of {begin} are allowed in its frames"
        return ""

    def faulty(self, op: Operation) -> str:
        """What is wrong with the values themselves, whatever the points say: they cannot be of their type."""
        for write in op.writes:
            if isinstance(write, Assign):
                fault = "" if write.value is None else value_fault(write.value)
            elif isinstance(write, Call):
                fault = next((value_fault(value) for value in write.arguments if value_fault(value)), "")
            else:
                continue
            if fault:
                return f"{fault} is asked for {write.space}"
        return ""

    def touched(self, op: Operation, limited: set[str], checks: list[Check]) -> tuple[Fault, str]:
        """What is wrong with an operation's form at the points ("" if nothing); adds the limits that its values must
        meet. `limited`: names of the points that it touches already."""
        for read in op.reads:
            if isinstance(read, Watch):
                wrong = self._too_fast(read)
                if wrong:
                    return Fault.RATE, wrong
            elif isinstance(read, Item) and read.fault:
                return Fault.ADDRESS, f"{read.fault} is asked"
        for index, write in enumerate(op.writes):
            fault = Fault.VALUE
            if isinstance(write, Change):
                continue
            if write.item.fault:
                return Fault.ADDRESS, f"{write.item.fault} is asked"
            if isinstance(write, Assign):
                wrong = self._assigned(index, write, limited, checks)
            elif isinstance(write, Call):
                wrong = self._called(index, write, limited, checks)
            else:
                fault, wrong = Fault.RATE, self._opened(write)
            if wrong:
                return fault, wrong
        return Fault.VALUE, ""

    # --- one write

    def _assigned(self, index: int, write: Assign, limited: set[str], checks: list[Check]) -> str:
        item, value = write.item, write.value
        if value is not None and item.first >= 0 and len(value.values) != item.count:
            return f"{len(value.values)} values for {item.count} elements are asked; one for each is allowed"
        for point in self._points.get(item.space, ()):
            at = point.at
            if at.stop <= item.start or at.start >= item.stop:
                continue
            if point.structure:
                return f"{point.name} is a structure that nobody decodes, and nobody may write"
            # Where the point's elements stand among the values. A whole's first element is number 0.
            base = max(item.first, 0)
            have = 0 if value is None else len(value.values)
            first = max(at.start, base) - base
            stop = min(at.stop - base, have)
            whole = item.start <= at.start and item.stop >= at.stop and at.start < 0
            if value is not None:
                form = typed.unfit(point, value, whole) or _no_element(point, item)
                if not form and not whole and at.start >= 0 and item.first < 0 and stop - first < at.count:
                    form = f"{have} elements are asked, which end within {point.name}; all of it is allowed"
                if form:
                    return form
            if not values.has_limit(point) and (value is None or point.type not in values.FLOATS):
                continue
            if value is None:
                return _unreadable(point)
            if values.has_limit(point):
                if point.name in limited:
                    return f"{point.name} is asked twice in one request; once is allowed"
                limited.add(point.name)
            checks.append(_ItemCheck(point, index, first, stop))
        return self._around(item)

    def _around(self, item: Item) -> str:
        """Whether an item holds, or is a part of, a point with limits, which a write of it would pass round."""
        separators = self._separators.get(item.kind, "")
        if not separators or not self._names:
            return ""
        space = self._bare(item.kind, item.space)
        own = self._limited.get(space)
        if own is not None and own.at.space != item.space:
            return _unreadable(own)
        for end in range(len(item.kind) + 1, len(space)):
            if space[end] in separators:
                outer = self._limited.get(space[:end])
                if outer is not None:
                    what = f"only {show_range(item, item.start, item.stop)} of {outer.name} is asked"
                    return f"{what}; {show_range(outer.at, outer.at.start, outer.at.stop)} is allowed as a whole"
        at = bisect_left(self._names, space)
        while at < len(self._names) and self._names[at].startswith(space):
            name = self._names[at]
            if len(name) > len(space) and name[len(space)] in separators:
                return _unreadable(self._limited[name])
            at += 1
        return ""

    def _called(self, index: int, call: Call, limited: set[str], checks: list[Check]) -> str:
        method = self._methods.get(call.item.space) or self._conditions.get(call.item.space)
        if method is None:
            return f"a call of {call.item.space} is asked, whose arguments no method of the policy says"
        if len(call.arguments) != len(method.arguments):
            asked = f"{method.name} with {len(call.arguments)} arguments is asked"
            return f"{asked}; {len(method.arguments)} are allowed"
        for argument, value in zip(method.arguments, call.arguments, strict=True):
            wrong = typed.unfit(argument, value, True)
            if wrong:
                return f"{method.name}: {wrong}"
        if call.item.space in self._conditions:  # another condition, most likely; no limit counts these
            return ""
        if method.name in limited:
            return f"{method.name} is asked twice in one request; once is allowed"
        limited.add(method.name)
        checks.append(_CallCheck(method, index))
        return ""

    # --- how fast

    def _too_fast(self, watch: Watch) -> str:
        if watch.item.fault:
            return f"{watch.item.fault} is asked"
        for point in self._points.get(watch.space, ()):
            if point.at.start < watch.stop and watch.start < point.at.stop and watch.interval_us < point.fastest_us:
                return _faster(point.name, watch.interval_us, point.fastest_us)
        return ""

    def _opened(self, opening: Opening) -> str:
        stream = self._streams.get(opening.space)
        if stream is None:
            return f"the stream {opening.space} is asked, of which the policy says nothing"
        if opening.interval_us < stream.fastest_us:
            return _faster(stream.name, opening.interval_us, stream.fastest_us)
        return ""


def _no_element(point: Point, item: Item) -> str:
    """Why a range is none of the elements of a point that is a whole item. What an asset makes of such a range is its
    own affair: it may write a part of a text, which is held to no length, or the whole after all."""
    if point.at.start >= 0 or item.first < 0:
        return ""
    if point.dimensions:
        return f"elements of {point.name} are asked, which is a matrix and is written as a whole"
    if point.elements == 1:
        return f"elements of {point.name} are asked; a single {point.type.value} is allowed, as a whole"
    if item.stop > point.elements:
        return f"elements of {point.name} up to number {item.stop - 1} are asked; it has {point.elements}"
    return ""


def _shape(write: Change | Assign | Call | Opening) -> object:
    if isinstance(write, Assign):
        return _form_of(write.value), write.item
    if isinstance(write, Call):
        return tuple([_form_of(argument) for argument in write.arguments]), write.item
    if isinstance(write, Opening):
        return write
    return write.space, write.start, write.count, write.exact, len(write.values)


def _form_of(value: Value | None) -> object:
    return None if value is None else (value.type, value.array, len(value.values))


def _unreadable(point: Point) -> str:
    return (
        f"a change of {point.name} is asked, whose result cannot be checked against its limits; "
        "writing it by itself is allowed"
    )


def _faster(name: str, asked_us: int, fastest_us: int) -> str:
    return f"{name} every {_interval(asked_us)} is asked; every {_interval(fastest_us)} or slower is allowed"


def _interval(us: int) -> str:
    return f"{us / 1000:g} ms" if us < 1_000_000 else f"{us / 1_000_000:g} s"
