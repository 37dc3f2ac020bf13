"""Operations as people write them: "read tank_level", "write holding 200 1400", "call reset", "function 43/14".

Not here: judging and explaining them (policy.explain).
"""

from __future__ import annotations

import math
import re

from cofferdam.errors import CofferdamError
from cofferdam.model import Argument, Asset, Assign, Call, Change, Item, Opening, Operation, Point, Span, Watch
from cofferdam.policy.points import scaling, typed, values
from cofferdam.policy.problems import nearest, one_of
from cofferdam.protocols.dialect import Dialect, Kind, Misread, Space, show_range
from cofferdam.values import VALUES, Octets, Text, Value, ValueType


def _forms(dialect: Dialect | None = None) -> str:
    """How an operation is written: all ways, or those that a dialect has, with a place as it writes them."""
    kinds = () if dialect is None else dialect.kinds
    item = dialect.notation.examples[0] if dialect is not None and kinds and dialect.notation.examples else ""
    any_of, cells = dialect is None, dialect is None or bool(dialect.spaces)
    lines = (
        (True, "read POINT", "read tank_level"),
        (cells, "read SPACE FIRST [COUNT]", "read holding 100 2"),
        (bool(item), "read PLACE", f"read {item}"),
        (True, "write POINT VALUE", "write pump_speed 1400"),
        (cells, "write SPACE FIRST VALUE...", "write holding 200 1400 30"),
        (
            any_of or any(kind.watch for kind in kinds),
            "subscribe POINT [INTERVAL]",
            "subscribe tank_level 500ms" + "    (where the protocol has such)" * any_of,
        ),
        (
            dialect is None or bool(dialect.history),
            "history POINT [SPAN]",
            "history tank_level 8h         (none: without an end)",
        ),
        (any_of or any(kind.call for kind in kinds), "call METHOD [ARGUMENT...]", "call reset 5"),
        (
            dialect is None or bool(dialect.events),
            "events NOTIFIER [FIELD...]",
            "events alarms Severity  (none: all that the policy names)",
        ),
        (
            dialect is None or bool(dialect.conditions),
            "acknowledge NOTIFIER CONDITION",
            "acknowledge alarms nsu=urn:plant:line;s=Alarm7",
        ),
        (
            dialect is None or bool(dialect.trees),
            "browse SUBTREE",
            "browse line      (what there is below it)",
        ),
        (any_of or any(kind.open for kind in kinds), "stream STREAM", "stream drive"),
        (dialect is None or bool(dialect.codes), "function CODE[/SUB]", "function 43/14" if cells else "function 1/1"),
        (
            dialect is None or bool(dialect.codes),
            "write-function CODE[/SUB]",
            f"write-function {'8/1' if cells else '5/1'}   (one that may change the device)",
        ),
    )
    return "\n".join(["forms of an operation:", *(f"  {form:31} {says}" for fits, form, says in lines if fits)])


FORMS = _forms()


SHOWN = 12
"""Fields of events that are told."""
_VERBS = ("read", "write", "subscribe", "history", "call", "acknowledge", "events", "browse", "stream", "function",
          "write-function")  # fmt: skip


def operation(text: str, asset: Asset, dialect: Dialect) -> Operation:
    """The operation that a text asks of an asset, as its protocol would carry it.

    Raises: CofferdamError where the text has no such form, or names what the asset has not; the hint says the forms
        that there are with this dialect.
    """
    try:
        return _operation(text, asset, dialect)
    except CofferdamError as error:
        raise CofferdamError(str(error), hint=_forms(dialect)) from None


def _operation(text: str, asset: Asset, dialect: Dialect) -> Operation:
    words = text.split()
    verb = words[0] if words else ""
    if verb == "read" and len(words) >= 2:
        return _read(words[1:], asset, dialect, text)
    if verb == "write" and len(words) >= 3:
        return _write(words[1:], asset, dialect, text)
    if verb == "subscribe" and len(words) in (2, 3):
        return _watch(words[1], words[2:], asset, dialect, text)
    if verb == "history" and len(words) in (2, 3) and dialect.history:
        return _past(words[1], words[2:], asset, dialect, text)
    if verb == "call" and len(words) >= 2:
        return _call(words[1:], asset, dialect, text)
    if verb == "browse" and len(words) == 2:
        return _browse(words[1], asset, dialect, text)
    if verb == "acknowledge" and len(words) == 3:
        return _acknowledged(words[1], words[2], asset, dialect, text)
    if verb == "events" and len(words) >= 2:
        return _events(words[1], words[2:], asset, dialect, text)
    if verb == "stream" and len(words) == 2:
        return _stream(words[1], asset, dialect, text)
    if verb in ("function", "write-function") and len(words) == 2:
        code, _, sub = words[1].partition("/")
        low, high = dialect.code_range
        plain = code.isascii() and code.isdigit() and (not sub or (sub.isascii() and sub.isdigit()))
        if plain and low <= int(code) <= high:
            number = int(sub) if sub else -1
            never = "" if dialect.unserved is None else dialect.unserved(int(code), number)
            if never:
                return Operation(int(code), number, _unit(asset), True, never=never)
            if int(code) in dialect.place_codes:
                raise _bad(text, f"function {code} carries cells: ask read or write")
            changing = verb == "write-function" or dialect.changes(int(code), number)
            return Operation(int(code), number, _unit(asset), changing)
        raise _bad(text, f"{words[1]} is no function code")
    if verb in _VERBS:
        raise _bad(text, f"{verb} takes other words behind it")
    near = nearest(verb, _VERBS)
    raise _bad(text, f"it starts with {verb or 'nothing'}{f', did you mean {near}' if near else ''}")


def _bad(text: str, why: str) -> CofferdamError:
    return CofferdamError(f"the operation {text!r} is not understood: {why}")


def _unit(asset: Asset) -> int:
    return 1 if asset.unit == -1 and asset.bits else asset.unit


def _cell(word: str, text: str, top: int = 65535) -> int:
    try:
        value = int(word, 0)
    except ValueError:
        raise _bad(text, f"{word} is not a whole number") from None
    if not 0 <= value <= top:
        raise _bad(text, f"{word} is not from 0 to {top}")
    return value


def _place(
    words: list[str], asset: Asset, dialect: Dialect, text: str
) -> tuple[Space | Kind, Span | Item, Point | None, list[str]]:
    """(its space or kind, the place, the point if one is named, the words that are left) of "POINT ...", "SPACE FIRST
    ..." or an item as the protocol writes it."""
    for point in asset.points:
        if point.name == words[0]:
            found = dialect.found(point.at)
            if found is None:
                raise _bad(text, f"{asset.protocol} has no {point.at.space}")
            return found, point.at, point, words[1:]
    space = dialect.space(words[0])
    if space is not None:
        if len(words) < 2:
            raise _bad(text, f"{words[0]} needs a first cell")
        return space, Span(words[0], _cell(words[1], text), 1), None, words[2:]
    if dialect.kinds:
        item = _item(words, asset, dialect)
        if item is not None:
            return item
    names = [point.name for point in asset.points]
    near = nearest(words[0], [*names, *(s.name for s in dialect.spaces), *(k.name for k in dialect.kinds)])
    near = near or _meant(words[0], dialect)
    which = f"{words[0]} is no point of {asset.name} and no space ({one_of(dialect.words())})"
    raise _bad(text, f"{which}{f'; did you mean {near}' if near else ''}")


def _meant(word: str, dialect: Dialect) -> str:
    """A place that may have been meant, as its notation says."""
    try:
        dialect.notation.parse(word)
    except Misread as error:
        return error.near
    return ""


def _item(words: list[str], asset: Asset, dialect: Dialect) -> tuple[Kind, Item, None, list[str]] | None:
    """The item that the first words name: as few of them as are one in the protocol's notation."""
    for count in range(1, len(words) + 1):
        try:
            place = dialect.notation.parse(dialect.written_out(" ".join(words[:count]), dict(asset.namespaces)))
        except Misread:
            continue
        kind = dialect.kind(place.kind) if isinstance(place, Item) else None
        if isinstance(place, Item) and kind is not None:
            return kind, place, None, words[count:]
    return None


def _read(words: list[str], asset: Asset, dialect: Dialect, text: str) -> Operation:
    found, place, point, rest = _place(words, asset, dialect, text)
    if point is None and rest and isinstance(place, Span):
        place = Span(place.space, place.start, _cell(rest.pop(0), text))
    if rest:
        raise _bad(text, f"{' '.join(rest)} is too much")
    if isinstance(place, Span) and (place.count < 1 or place.stop > 65536):
        raise _bad(text, f"{place.count} cells from {place.start} on are not within 0 to 65535")
    if whole := dialect.whole_of(place):
        raise _bad(text, f"{dialect.notation.show(place)} is a part of {whole}: who reads it reads {whole} whole")
    return Operation(found.read, -1, _unit(asset), False, (place,))


def _write(words: list[str], asset: Asset, dialect: Dialect, text: str) -> Operation:
    found, place, point, rest = _place(words, asset, dialect, text)
    if not rest:
        raise _bad(text, "a value is missing")
    if not dialect.writable(place):
        raise _bad(text, f"{found.name} cannot be written in {dialect.name}")
    if isinstance(place, Item):
        if point is None or not isinstance(found, Kind):
            raise _bad(text, "only a point's value can be asked: its type says what the words mean")
        value = _typed(point, " ".join(rest), text)
        return Operation(found.write, -1, _unit(asset), True, (), (Assign(place, value),))
    if point is not None:
        if len(rest) != 1:
            raise _bad(text, f"{' '.join(rest[1:])} is too much")
        if point.factor is not None and point.type is not ValueType.TEXT:
            where = values.factor_text(point)
            raise _bad(
                text,
                f"what {point.name} means follows from {where}; "
                f"ask its cells: write {place.space} {place.start} NUMBER",
            )
        try:
            if point.type is ValueType.TEXT:
                cells = values.text_cells(point, rest[0].strip('"'))
            else:
                cells = values.cells_of(point, _raw(point, _value(rest[0])))
        except ValueError as error:
            raise _bad(text, str(error)) from None
        if point.mask and isinstance(found, Space):
            change = Change(place.space, place.start, 1, (~point.mask & 0xFFFF, cells[0]), False)
            return Operation(found.write_bits, -1, _unit(asset), True, (), (change,))
    else:
        cells = tuple(_cell(word, text, 1 if place.space in asset.bits else 65535) for word in rest)
        if place.start + len(cells) > 65536:
            raise _bad(text, "it ends after cell 65535")
    if not isinstance(found, Space):
        raise _bad(text, f"{place.space} is no space")
    code = found.write_one if len(cells) == 1 and found.write_one else found.write_many
    return Operation(code, -1, _unit(asset), True, (), (Change(place.space, place.start, len(cells), cells),))


def _typed(point: Point | Argument, words: str, text: str) -> Value:
    try:
        if point.elements == 1:
            return typed.parse(point.type, words, point.form)
        parts = [typed.parse(point.type, word, point.form) for word in words.split()]
        ones = tuple(part.values[0] for part in parts)
        return VALUES[point.type](ones, True)  # type: ignore[arg-type]
    except ValueError as error:
        raise _bad(text, f"{point.name}: {error}") from None


_TIME = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(us|ms|s|min|h|d)\Z")
_UNITS = {"us": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86_400 * 10**6}


def _duration(words: list[str], text: str) -> int:
    """A time in µs; 0 where none is said."""
    if not words:
        return 0
    found = _TIME.match(words[0])
    if found is None:
        raise _bad(text, f"{words[0]} is no time, such as 500ms, 8h or 7d")
    return round(float(found[1]) * _UNITS[found[2]])


def _past(name: str, span: list[str], asset: Asset, dialect: Dialect, text: str) -> Operation:
    _, place, _, _ = _place([name], asset, dialect, text)
    kind = dialect.kind(dialect.history)
    if not isinstance(place, Item) or kind is None:
        raise _bad(text, f"{name} has no past")
    seconds = -(-_duration(span, text) // 1_000_000)
    past = Item(kind.name, place.name, 0, seconds) if seconds else Item(kind.name, place.name)
    return Operation(kind.read, -1, _unit(asset), False, (past,))


def _watch(name: str, every: list[str], asset: Asset, dialect: Dialect, text: str) -> Operation:
    found, place, point, _ = _place([name], asset, dialect, text)
    if not isinstance(place, Item) or not isinstance(found, Kind) or not found.watch:
        raise _bad(text, f"{found.name} cannot be subscribed to in {dialect.name}")
    interval = _duration(every, text) or (point.fastest_us if point is not None else 0)
    return Operation(found.watch, -1, _unit(asset), False, (Watch(place, interval),))


def _call(words: list[str], asset: Asset, dialect: Dialect, text: str) -> Operation:
    for method in asset.methods:
        if method.name == words[0]:
            kind = dialect.kind(method.at.kind)
            if len(words) - 1 != len(method.arguments):
                raise _bad(text, f"{method.name} takes {len(method.arguments)} arguments, not {len(words) - 1}")
            arguments = tuple(
                _typed(argument, word, text) for argument, word in zip(method.arguments, words[1:], strict=True)
            )
            code = kind.call if kind is not None else -1
            return Operation(code, -1, _unit(asset), True, (), (Call(method.at, arguments),))
    names = [method.name for method in asset.methods]
    raise _bad(text, _none_such(words[0], "method", asset, names))


def _acknowledged(name: str, condition: str, asset: Asset, dialect: Dialect, text: str) -> Operation:
    for notifier in asset.notifiers:
        for one in notifier.conditions[:1] if notifier.name == name else ():
            kind = dialect.kind(one.at.kind)
            code = kind.call if kind is not None else -1
            said = (Text((condition,)), Octets((bytes(16),)), Text(("",)))  # as of any event, without a comment
            return Operation(code, -1, _unit(asset), True, (), (Call(one.at, said),))
    able = [notifier.name for notifier in asset.notifiers if notifier.conditions]
    raise _bad(text, _none_such(name, "notifier with conditions", asset, able))


def _events(name: str, fields: list[str], asset: Asset, dialect: Dialect, text: str) -> Operation:
    for notifier in asset.notifiers:
        if notifier.name == name:
            kind = dialect.kind(notifier.at.kind)
            notation, shorts = dialect.notation, dict(asset.namespaces)
            try:
                named = [notation.field(notation.field_written_out(field, shorts)) for field in fields]
                asked = [notation.of_event(notifier.at, field) for field in named]
            except Misread as error:
                raise _bad(text, f"a field is {error}") from None
            code = kind.watch if kind is not None else -1
            return Operation(code, -1, _unit(asset), False, (Watch(notifier.at), *(asked or notifier.fields)))
    raise _bad(text, _none_such(name, "notifier", asset, [notifier.name for notifier in asset.notifiers]))


def _browse(name: str, asset: Asset, dialect: Dialect, text: str) -> Operation:
    for tree in asset.subtrees:
        if tree.name == name:
            kind = dialect.kind(tree.at.kind)
            return Operation(kind.read if kind is not None else -1, -1, _unit(asset), False, (tree.at,))
    raise _bad(text, _none_such(name, "subtree", asset, [tree.name for tree in asset.subtrees]))


def _stream(name: str, asset: Asset, dialect: Dialect, text: str) -> Operation:
    for stream in asset.streams:
        if stream.name == name:
            kind = dialect.kind(stream.at.kind)
            code = kind.open if kind is not None else -1
            return Operation(code, -1, _unit(asset), True, (), (Opening(stream.at, stream.fastest_us),))
    raise _bad(text, _none_such(name, "stream", asset, [stream.name for stream in asset.streams]))


def _none_such(word: str, noun: str, asset: Asset, names: list[str]) -> str:
    near = nearest(word, names)
    known = f" ({one_of(names)})" if names else ", and it has none"
    return f"{word} is no {noun} of {asset.name}{known}{f'; did you mean {near}' if near else ''}"


def _raw(point: Point, value: values.Number) -> values.Number:
    """The device's number of a value in the point's engineering units. Raises: ValueError, where it has none."""
    if point.scale == 1.0 and point.offset == 0.0:
        return value
    found = scaling.one(value, point.scale, point.offset, point.type)
    if found is None:
        raise ValueError(f"{values.show(value)} is not a whole number of steps of {values.show(abs(point.scale))}")
    return found


def _value(word: str) -> values.Number:
    if word in ("true", "false"):
        return float(word == "true")
    try:
        return int(word, 0)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word} is not a number") from None


def show(op: Operation, asset: Asset) -> str:
    """An operation in words: "read holding 100-101 (flow_total)"."""
    parts = []
    trees = {tree.at: tree.name for tree in asset.subtrees}
    of, fields = _event_fields(op, asset)
    if of is not None:
        told = ", ".join([*fields[:SHOWN], *([f"{len(fields) - SHOWN} more"] if len(fields) > SHOWN else [])])
        return f"subscribe {of.space} ({told})"
    for read in op.reads:
        place = read.item if isinstance(read, Watch) else read
        if isinstance(place, Item) and place in trees:
            parts.append(f"browse {place.name} ({trees[place]})")
            continue
        parts.append(f"{'subscribe' if isinstance(read, Watch) else 'read'} {_with_points(place, asset, None)}")
    for write in op.writes:
        if isinstance(write, Change):
            place, verb = Span(write.space, write.start, write.count), "write" if write.exact else "change bits of"
            parts.append(f"{verb} {_with_points(place, asset, write)}")
        elif isinstance(write, Assign):
            parts.append(f"write {_with_points(write.item, asset, write)}")
        elif isinstance(write, Call):
            known = [*asset.methods, *(one for notifier in asset.notifiers for one in notifier.conditions)]
            names = [f" ({method.name})" for method in known if method.at == write.item]
            arguments = "".join(f" {typed.text(value)}" for value in write.arguments)
            parts.append(f"call {write.space}{''.join(names[:1])}{arguments}")
        else:
            names = [f" ({stream.name})" for stream in asset.streams if stream.at == write.item]
            parts.append(f"stream {write.space}{''.join(names[:1])}")
    if parts:
        return " and ".join(parts)
    kind = "write-function" if op.is_write else "function"
    return f"{kind} {op.function}{f'/{op.sub}' if op.sub >= 0 else ''}"


def _event_fields(op: Operation, asset: Asset) -> tuple[Item | None, list[str]]:
    """What events are asked of, and which of their fields; None where none are."""
    watch, fields = next((read for read in op.reads if isinstance(read, Watch)), None), op.reads[1:]
    if watch is None or not any(watch.item == one.at for one in asset.notifiers):
        return None, []
    return watch.item, [one.name.removeprefix(watch.item.name).lstrip(" ->") for one in fields if isinstance(one, Item)]


def _with_points(place: Span | Item, asset: Asset, write: Change | Assign | None) -> str:
    """Cells or an item, and the points that lie in it: "holding 100-101 (flow_total)"."""
    inside = [
        _with_value(point, write)
        for point in asset.points
        if point.at.space == place.space and point.at.start >= place.start and point.at.stop <= place.stop
    ]
    names = f" ({', '.join(inside[:6])}{', ...' if len(inside) > 6 else ''})" if inside else ""
    return f"{show_range(place, place.start, place.stop)}{names}"


def _with_value(point: Point, write: Change | Assign | None) -> str:
    if isinstance(write, Assign):
        return (
            point.name
            if write.value is None
            else f"{point.name} = {typed.text(write.value, point.form)} {point.unit}".rstrip()
        )
    if write is not None and point.mask and not write.exact and not write.values[0] & point.mask:
        return f"{point.name} = {values.measure(point, values.of(point, write.values[1:]))}"
    if write is None or not write.exact or len(write.values) != write.count:
        return point.name
    first = point.at.start - write.start
    cells = write.values[first : first + point.at.count]
    if point.type is ValueType.TEXT:
        return f'{point.name} = "{values.text_of(point, cells)}"'
    if point.factor is not None:
        return f"{point.name} = {values.show(values.of(point, cells))} × 10^({values.factor_text(point)}) {point.unit}"
    value = values.of(point, cells)
    return f"{point.name} = {values.measure(point, value) if math.isfinite(value) else value}"
