"""Operations as people write them: "read tank_level", "write holding 200 1400", "function 43/14".

Not here: judging and explaining them (policy.explain).
"""

from __future__ import annotations

import math

from cofferdam.errors import CofferdamError
from cofferdam.model import Asset, Change, Operation, Point, Span
from cofferdam.policy.points import values
from cofferdam.policy.problems import nearest, one_of
from cofferdam.protocols.dialect import Family, Space
from cofferdam.protocols.dialects import FAMILIES

FORMS = """forms of an operation:
  read POINT                      read tank_level
  read SPACE FIRST [COUNT]        read holding 100 2
  write POINT VALUE               write pump_speed 1400
  write SPACE FIRST VALUE...      write holding 200 1400 30
  function CODE[/SUB]             function 43/14
  write-function CODE[/SUB]       write-function 8/1   (one that may change the device)"""


def operation(text: str, asset: Asset) -> Operation:
    """The operation that a text asks of an asset, as its protocol would carry it.

    Raises: CofferdamError where the text has no such form, or names what the asset has not; the hint says the forms.
    """
    words = text.split()
    family = FAMILIES[asset.protocol]
    verb = words[0] if words else ""
    if verb == "read" and len(words) >= 2:
        return _read(words[1:], asset, family, text)
    if verb == "write" and len(words) >= 3:
        return _write(words[1:], asset, family, text)
    if verb in ("function", "write-function") and len(words) == 2:
        code, _, sub = words[1].partition("/")
        if code.isascii() and code.isdigit() and (not sub or (sub.isascii() and sub.isdigit())) and int(code) < 128:
            number = int(sub) if sub else -1
            if int(code) in family.cell_codes:
                raise _bad(text, f"function {code} carries cells: ask read or write")
            changing = verb == "write-function" or family.changes(int(code), number)
            return Operation(int(code), number, _unit(asset), changing)
        raise _bad(text, f"{words[1]} is no function code")
    near = nearest(verb, ("read", "write", "function", "write-function"))
    raise _bad(text, f"it starts with {verb or 'nothing'}{f', did you mean {near}' if near and near != verb else ''}")


def _bad(text: str, why: str) -> CofferdamError:
    return CofferdamError(f"the operation {text!r} is not understood: {why}", hint=FORMS)


def _unit(asset: Asset) -> int:
    return 1 if asset.unit == -1 else asset.unit


def _cell(word: str, text: str, top: int = 65535) -> int:
    try:
        value = int(word, 0)
    except ValueError:
        raise _bad(text, f"{word} is not a whole number") from None
    if not 0 <= value <= top:
        raise _bad(text, f"{word} is not from 0 to {top}")
    return value


def _place(words: list[str], asset: Asset, family: Family, text: str) -> tuple[Space, Span, Point | None, list[str]]:
    """(space, cells, the point if one is named, the words that are left) of "POINT ..." or "SPACE FIRST ..."."""
    for point in asset.points:
        if point.name == words[0]:
            found = family.space(point.span.space)
            if found is None:
                raise _bad(text, f"{asset.protocol} has no {point.span.space}")
            return found, point.span, point, words[1:]
    space = family.space(words[0])
    if space is None:
        names = [point.name for point in asset.points]
        near = nearest(words[0], [*names, *(s.name for s in family.spaces)])
        spaces = [s.name + (":N" if s.numbered else "") for s in family.spaces]
        which = f"{words[0]} is no point of {asset.name} and no space ({one_of(spaces)})"
        raise _bad(text, f"{which}{f'; did you mean {near}' if near else ''}")
    if len(words) < 2:
        raise _bad(text, f"{words[0]} needs a first cell")
    return space, Span(words[0], _cell(words[1], text), 1), None, words[2:]


def _read(words: list[str], asset: Asset, family: Family, text: str) -> Operation:
    space, span, point, rest = _place(words, asset, family, text)
    if point is None and rest:
        span = Span(span.space, span.start, _cell(rest.pop(0), text))
    if rest:
        raise _bad(text, f"{' '.join(rest)} is too much")
    if span.count < 1 or span.stop > 65536:
        raise _bad(text, f"{span.count} cells from {span.start} on are not within 0 to 65535")
    return Operation(space.read, -1, _unit(asset), False, (span,))


def _write(words: list[str], asset: Asset, family: Family, text: str) -> Operation:
    space, span, point, rest = _place(words, asset, family, text)
    if not rest:
        raise _bad(text, "a value is missing")
    if not space.writable:
        raise _bad(text, f"{space.name} cannot be written in {family.name}")
    if point is not None:
        if len(rest) != 1:
            raise _bad(text, f"{' '.join(rest[1:])} is too much")
        try:
            cells = values.encode(point.type, point.word_order, _value(rest[0]))
        except ValueError as error:
            raise _bad(text, str(error)) from None
    else:
        cells = tuple(_cell(word, text, 1 if space.bits else 65535) for word in rest)
        if span.start + len(cells) > 65536:
            raise _bad(text, "it ends after cell 65535")
    code = space.write_one if len(cells) == 1 and space.write_one else space.write_many
    return Operation(code, -1, _unit(asset), True, (), (Change(span.space, span.start, len(cells), cells),))


def _value(word: str) -> float:
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
    spans: list[tuple[str, Span | Change]] = [("read", s) for s in op.reads]
    spans += [("write" if c.exact else "change bits of", c) for c in op.writes]
    for verb, span in spans:
        last = f"-{span.stop - 1}" if span.count > 1 else ""
        inside = [
            _with_value(point, span)
            for point in asset.points
            if point.span.space == span.space and point.span.start >= span.start and point.span.stop <= span.stop
        ]
        names = f" ({', '.join(inside[:6])}{', ...' if len(inside) > 6 else ''})" if inside else ""
        parts.append(f"{verb} {span.space} {span.start}{last}{names}")
    if parts:
        return " and ".join(parts)
    kind = "write-function" if op.is_write else "function"
    return f"{kind} {op.function}{f'/{op.sub}' if op.sub >= 0 else ''}"


def _with_value(point: Point, span: Span | Change) -> str:
    if not isinstance(span, Change) or not span.exact or len(span.values) != span.count:
        return point.name
    first = point.span.start - span.start
    value = values.decode(point.type, point.word_order, span.values[first : first + point.span.count])
    return f"{point.name} = {values.measure(point, value) if math.isfinite(value) else value}"
