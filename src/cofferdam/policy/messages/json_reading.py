"""JSON as a message may have it: read strictly, made anew in one form.

What other readers take in silence is refused here, with its place: a second member of the same name, NaN and infinity,
a number that its reader would change (1e400, 2^70), lone surrogates, NUL, a byte order mark, nesting beyond `DEPTH`.
Where two programs read one text differently, what was checked is not what is booked.

The remade form is RFC 8785 (members sorted by UTF-16, shortest numbers, no space), with one difference: a whole number
of 64 bits keeps all its digits, where RFC 8785 knows doubles only. Reading the remade form gives the same value, and
remaking that gives the same bytes.

NUL (as \\u0000) is refused because half of what stands behind a relay ends a text there: C strings, PostgreSQL's text.

Not here: what a channel's messages must look like (policy.messages.checking).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

import msgspec

DEPTH: Final = 64
"""Objects and arrays within each other."""
NUMBER_CHARACTERS: Final = 64
"""Of one number, as it is written."""
EASY_CHARACTERS: Final = 16
"""A fraction of so few characters has at most 15 figures, which every double keeps."""
POINTER_CHARACTERS: Final = 512
"""Of a place that an answer names; what is longer is cut."""
EFFORT_CHARACTERS: Final = 8 << 20
"""Read once more, at most, to say where something stands; after that the answer names the part around it."""

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_SPACE = re.compile(r"[ \t\n\r]*")
_NUL = re.compile(rb"\\u0000")
_DIGIT = re.compile(r"[1-9]")


class NotJson(Exception):
    """The text is not one JSON value as a message may have it. `at` is the place in the text, in characters."""

    def __init__(self, words: str, at: int = 0, pointer: str = "") -> None:
        super().__init__(words)
        self.words = words
        self.at = at
        self.pointer = pointer


class _Doubled(Exception):
    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__()
        seen: set[str] = set()
        self.name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]


class BadNumber(Exception):
    """A number that is not read."""

    def __init__(self, text: str, words: str) -> None:
        super().__init__()
        self.text = text
        self.words = words


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Doubled(pairs)
    return found


def _constant(text: str) -> Any:
    raise BadNumber(text, f"{text}, which is no JSON number")


def _whole(text: str) -> int | float:
    if len(text) < 19:
        return int(text)
    if len(text) > NUMBER_CHARACTERS:
        raise BadNumber(text, f"a number of {len(text)} characters; at most {NUMBER_CHARACTERS} are read")
    value = int(text)
    if INT64_MIN <= value <= INT64_MAX:
        return value
    # A double that happens to be whole is written without an exponent up to 1e21: such a text is that double.
    double = float(text)
    if number(double) == text:
        return double
    raise BadNumber(text, f"{text}, which neither 64 bits nor a double hold exactly; a text can carry it")


def read_fraction(text: str) -> int | float:
    """A number that is written with a fraction or an exponent. Raises: BadNumber."""
    if len(text) > NUMBER_CHARACTERS:
        raise BadNumber(text, f"a number of {len(text)} characters; at most {NUMBER_CHARACTERS} are read")
    value = float(text)
    if value - value != 0:  # infinite
        raise BadNumber(text, f"{text}, which is more than a double holds")
    if value == 0:
        if _DIGIT.search(text.lower().partition("e")[0]):
            raise BadNumber(text, f"{text}, which a double holds as 0 only")
        return 0
    whole = int(value) if INT64_MIN <= value <= INT64_MAX else INT64_MAX + 1
    if len(text) > EASY_CHARACTERS and (exact := Decimal(text)) != Decimal(repr(value)):
        if INT64_MIN <= exact <= INT64_MAX and exact == int(exact):
            return int(exact)
        # Programs write a double with few figures or with many: as long as these are its own, nothing is lost.
        figures = len(text.lower().partition("e")[0].replace(".", "").lstrip("-0").rstrip("0"))
        if exact != Decimal(f"{value:.{figures - 1}e}"):
            raise BadNumber(text, f"{text}, which neither 64 bits nor a double hold exactly; a text can carry it")
    if value == whole and INT64_MIN <= whole <= INT64_MAX:
        return whole
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_whole, parse_float=read_fraction
)
_LOOSE = json.JSONDecoder(parse_float=str, parse_int=str)


def read(data: bytes) -> tuple[Any, str]:
    """The value, and the text that it was read from. 1.0 is read as 1, and -0.0 as 0: they are the same number.

    Raises: NotJson.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        good = data[: error.start].decode()
        raise NotJson(f"the byte 0x{data[error.start]:02x}, which is not UTF-8", len(good)) from None
    if text.startswith("\ufeff"):
        raise NotJson("a byte order mark before the value")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJson(_words(error, text), error.pos) from None
    except _Doubled as error:
        raise _find(text, doubled=error.name) from None
    except BadNumber as error:
        raise _find(text, number=error) from None
    except RecursionError:
        raise NotJson(f"nesting deeper than {DEPTH}", _too_deep(text)) from None
    if data.count(b"[") + data.count(b"{") > DEPTH and depth(value) > DEPTH:
        raise NotJson(f"nesting deeper than {DEPTH}", _too_deep(text))
    if b"\\u" in data:
        _texts(value, text, data)
    return value, text


def read_again(data: bytes) -> Any:
    """The value of a text in its one form, as `canonical` wrote it; several times as fast as `read`. Raises: NotJson;
    also for a text in another form, which is no error of the text's but of whoever says that it is in that form."""
    shape = data.translate(_SHAPE)
    if b"\\u0000" not in data and _LONG not in shape:
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            value = None
        # What is written again as it was had each name once, and no number that was changed by reading it.
        if (value is not None or data == b"null") and _written(
            value, data.isascii() and _FRACTION not in shape
        ) == data:
            if data.count(b"[") + data.count(b"{") > DEPTH and depth(value) > DEPTH:
                raise NotJson(f"nesting deeper than {DEPTH}")
            return value
    value, _ = read(data)
    if canonical(value) != data:
        raise NotJson("another form than the one that messages are remade in")
    return value


def _written(value: Any, easy: bool) -> bytes:
    """The one form of a value. `easy`: it has no number with a fraction or an exponent, and no name beyond ASCII;
    msgspec writes that form by itself."""
    return msgspec.json.encode(value, order="sorted") if easy else canonical(value)


_SHAPE: Final = bytes(
    0x30 if chr(byte) in "0123456789" else 0x65 if chr(byte) in ".eE" else 0x20 for byte in range(256)
)
_LONG: Final = b"0" * 19
"""Once its digits are made alike: a number that 64 bits may not hold."""
_FRACTION: Final = b"0e"
"""A number that is written otherwise than its digits (or a text that looks so)."""


def _words(error: json.JSONDecodeError, text: str) -> str:
    if error.pos >= len(text):
        return f"the end of the text ({error.msg[0].lower()}{error.msg[1:]})" if text else "an empty text"
    if error.msg == "Extra data":
        return "more after the value's end"
    return error.msg[0].lower() + error.msg[1:]


def depth(value: Any) -> int:
    """How deep a value is, by levels and not by calls."""
    depth, level = 0, [value]
    while level and depth <= DEPTH:
        below: list[Any] = []
        held = False
        for item in level:
            if type(item) is dict:
                held = True
                below.extend(item.values())
            elif type(item) is list:
                held = True
                below.extend(item)
        if not held:
            break
        depth += 1
        level = below
    return depth


_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


def _too_deep(text: str) -> int:
    """Where the first bracket too many stands."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        mark = found[0]
        if mark in "[{":
            depth += 1
            if depth > DEPTH:
                return found.start()
        elif mark in "]}":
            depth -= 1
    return 0


def _texts(value: Any, text: str, data: bytes) -> None:
    """Refuses texts that escapes made wrong: lone surrogates and NUL. Raises: NotJson."""
    try:
        msgspec.json.encode(value)
        if not _NUL.search(data):
            return
    except UnicodeEncodeError:
        pass
    wrong = _wrong_text(value)
    if wrong is not None:
        found, what = wrong
        pointer = pointer_of(found)
        raise NotJson(what, place_of(text, found), pointer)


def _wrong_text(value: Any) -> tuple[tuple[str | int, ...], str] | None:
    """The first text (or name) that no message may have, depth first."""
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if type(item) is str:
            if what := _wrong(item):
                return path, f"{what} in a text"
        elif type(item) is list:
            stack.extend(((*path, index), each) for index, each in reversed(list(enumerate(item))))
        elif type(item) is dict:
            for name in item:
                if what := _wrong(name):
                    return path, f"{what} in a name"
            stack.extend(((*path, name), each) for name, each in reversed(list(item.items())))
    return None


def _wrong(text: str) -> str:
    if "\0" in text:
        return "NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a surrogate pair"
    return ""


# --- one form ---------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """A finite double as ECMAScript (and so RFC 8785) writes it."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    digits, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = digits.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    figures = (whole + fraction).lstrip("0")
    if whole == "0":
        point -= len(whole + fraction) - len(figures)
    figures = figures.rstrip("0")
    count = len(figures)
    if count <= point <= 21:
        return f"{sign}{figures}{'0' * (point - count)}"
    if 0 < point <= 21:
        return f"{sign}{figures[:point]}.{figures[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{figures}"
    rest = f".{figures[1:]}" if count > 1 else ""
    return f"{sign}{figures[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def canonical(value: Any) -> bytes:
    """A value that `read` gave, in its one form."""
    return msgspec.json.encode(_formed(value), order="sorted")


def _formed(value: Any) -> Any:
    """The value with what msgspec writes otherwise replaced: numbers as RFC 8785 has them, members of names that sort
    otherwise by UTF-16 in their order."""
    kind = type(value)
    if kind is dict:
        if not _FORMED.isdisjoint(map(type, value.values())):
            value = {name: _formed(item) if type(item) in _FORMED else item for name, item in value.items()}
        if not "".join(value).isascii() and any(max(name, default="") > "\ud7ff" for name in value):
            return _by_utf16(value)
        return value
    if kind is list:
        return [_formed(item) if type(item) in _FORMED else item for item in value]
    return msgspec.Raw(number(value).encode()) if kind is float else value


_FORMED = frozenset((dict, list, float))


def _by_utf16(value: dict[str, Any]) -> msgspec.Raw:
    members = (
        msgspec.json.encode(name) + b":" + msgspec.json.encode(value[name], order="sorted")
        for name in sorted(value, key=_utf16_order)
    )
    return msgspec.Raw(b"{" + b",".join(members) + b"}")


def _utf16_order(name: str) -> str:
    """A text that sorts by characters as `name` does by UTF-16: there, what is beyond U+FFFF begins with a surrogate,
    and so comes before U+E000. Without a codec: a part could not load it once its system-call filter is on."""
    return "".join(
        chr(ord(c) - 0x2000) if c > "\uffff" else chr(ord(c) + 0x10_0000) if c > "\udfff" else c for c in name
    )


# --- places -----------------------------------------------------------------------------------------------------


def pointer_of(path: Sequence[str | int]) -> str:
    """A path as a JSON Pointer (RFC 6901), cut where it is endless."""
    found = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
    found = "".join(c if c.isprintable() else "\ufffd" for c in found)
    return found if len(found) <= POINTER_CHARACTERS else found[: POINTER_CHARACTERS - 1] + "…"


def line_and_column(text: str, at: int) -> tuple[int, int]:
    """Of a place in a text; both count from 1, columns in characters."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def place_of(text: str, path: Sequence[str | int]) -> int:
    """Where the value at a path stands in a text that was read; the deepest part of it that exists."""
    at = _skip(text, 0)
    effort = 0
    for step in path:
        for name, _, start, end in _members(text, at):
            effort += end - start
            if str(name) == str(step):  # a pointer does not tell an index from a name
                at = start
                break
            if effort > EFFORT_CHARACTERS:
                return at
        else:
            return at
    return at


def spans(text: str) -> list[tuple[int, int]]:
    """Where each element of an array begins and ends, in one pass over a text that was read."""
    return [(start, end) for _, _, start, end in _members(text, _skip(text, 0))]


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _members(text: str, at: int) -> Iterator[tuple[str | int, int, int, int]]:
    """(name or index, where the name stands, where the value stands, its end) of each member of an object or array, up
    to where the text is broken: what could not be read may be broken behind the place that is looked for."""
    opening = text[at : at + 1]
    if opening not in ("{", "["):
        return
    at = _skip(text, at + 1)
    index = 0
    while at < len(text) and text[at] not in "}]":
        name: str | int = index
        named = at
        try:
            if opening == "{":
                if text[at] != '"':
                    return
                name, at = scanstring(text, at + 1, True)
                at = _skip(text, _skip(text, at) + 1)  # the colon
            _, end = _LOOSE.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = len(text) if at < len(text) else -1
        if end < 0:
            return
        yield name, named, at, end
        index += 1
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)


def _find(text: str, doubled: str | None = None, number: BadNumber | None = None) -> NotJson:
    """Where the name stands a second time, or the number that cannot be read: searched only when there is one."""
    words = f"the name {json.dumps(doubled[:64])} twice in one object" if doubled is not None else ""
    words = number.words[:200] if number is not None else words
    level: list[tuple[tuple[str | int, ...], int]] = [((), _skip(text, 0))]
    effort = 0
    while level:
        below: list[tuple[tuple[str | int, ...], int]] = []
        for path, at in level:
            if number is not None and text.startswith(number.text, at):
                return NotJson(words, at, pointer_of(path))
            seen = False
            for name, named, start, end in _members(text, at):
                effort += end - start
                if effort > EFFORT_CHARACTERS:
                    return NotJson(words, at, pointer_of(path))
                if name == doubled:
                    if seen:
                        return NotJson(words, named, pointer_of((*path, name)))
                    seen = True
                below.append(((*path, name), start))
        level = below
    return NotJson(words)
