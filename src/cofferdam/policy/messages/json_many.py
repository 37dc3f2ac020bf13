"""Many JSON texts in one pass, as messages come in batches. PURE.

What is given is what `json_reading` gives for each of them, or nothing: a text with anything unusual (escapes, numbers
of 19 digits, `1.0`, a name twice) is read there, and there alone it is said what is wrong with it.

Why that holds. Texts are read by a reader that is not strict, and written anew from what was read, members in the order
in which they were found. If that gives the same text again, but for the space between its parts, nothing was dropped
(as the first of two equal names is) and nothing changed (as 1e400 or half a surrogate pair is). What is the same both
ways and yet refused is looked for apart: NUL, whole numbers beyond 64 bits, nesting. Fractions go by json_reading's own
function. Each text is a line, and a line that is written has no line's end within it: so texts that are the same
altogether are the same one by one, and where they are not each is compared with its own.

Not here: what a text must be (json_reading).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from cofferdam.policy.messages.json_reading import DEPTH, BadNumber, depth, number, read_fraction

_SHAPE: Final = bytes(0x30 if chr(byte) in "0123456789" else 0x21 if byte >= 0xEE else 0x20 for byte in range(256))
_LONG: Final = b"0" * 19
"""Once its digits are made alike: a number that 64 bits may not hold."""
_BEYOND: Final = b"!"
"""A character beyond U+D7FF: as soon as one is in a name, members are sorted otherwise by UTF-16."""
ODD: Final = object()
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadNumber)
_write: Final = msgspec.json.Encoder().encode_lines
_write_sorted: Final = msgspec.json.Encoder(order="sorted").encode_lines


def read_lines(lines: Sequence[bytes]) -> tuple[list[Any], bool] | None:
    """(the values, whether `written` may write them) of texts without a line's end in them; for one that is to be read
    by itself there stands `ODD`. None: that is so of all of them."""
    changed: list[str] = []

    def fraction_of(text: str) -> int | float:
        value = read_fraction(text)
        if number(value) != text:
            changed.append(text)
        return value

    data, shape = _joined(lines)
    values = _decoded(data, len(lines), fraction_of)
    if values is None:
        return None
    odd: list[int] = []
    if (back := _write(values)) != data:
        each_back = zip(lines, back.split(b"\n"), strict=False)
        odd = [index for index, (line, own) in enumerate(each_back) if _compact(line) != own]
    if _unusual(data, shape):
        odd += [index for index, line in enumerate(lines) if _unusual(line, line.translate(_SHAPE))]
    odd += _deep(lines, values)
    for index in odd:
        values[index] = ODD
    return values, not changed and _BEYOND not in shape


def read_lines_again(lines: Sequence[bytes]) -> list[Any] | None:
    """The values of texts in their one form, as another process has written them. None: read them one by one."""
    data, shape = _joined(lines)
    values = None if _BEYOND in shape or _unusual(data, shape) else _decoded(data, len(lines), _own)
    return None if values is None or _write_sorted(values) != data or _deep(lines, values) else values


def written(values: Sequence[Any]) -> list[bytes]:
    """The one form of each of these values, where `read_lines` has said so."""
    return _write_sorted(values).split(b"\n")[:-1]


def _joined(lines: Sequence[bytes]) -> tuple[bytes, bytes]:
    """All of them, each with its line's end, and the same with digits made alike."""
    data = b"\n".join(lines) + b"\n"
    return data, data.translate(_SHAPE)


def _decoded(data: bytes, count: int, fraction_of: Callable[[str], int | float]) -> list[Any] | None:
    """What a reader that is not strict makes of them."""
    try:
        values: list[Any] = msgspec.json.Decoder(float_hook=fraction_of).decode_lines(data)
    except _UNREADABLE:
        return None
    return values if len(values) == count else None


def _unusual(data: bytes, shape: bytes) -> bool:
    """Whether it may hold what comes back as it was and is refused all the same."""
    return _LONG in shape or (b"\\" in data and b"\\u0000" in data)


def _compact(line: bytes) -> bytes:
    """A text without the space between its parts."""
    try:
        return msgspec.json.format(line, indent=-1)
    except msgspec.DecodeError:
        return b""


def _own(text: str) -> int | float:
    """A fraction of a text in its one form. Raises: BadNumber."""
    value = read_fraction(text)
    if number(value) != text:
        raise BadNumber(text, "another form")
    return value


def _deep(lines: Sequence[bytes], values: Sequence[Any]) -> list[int]:
    """Which of them are nested too deep."""
    brackets = [line.count(b"{") + line.count(b"[") for line in lines]
    if max(brackets) <= DEPTH:
        return []
    return [index for index, value in enumerate(values) if brackets[index] > DEPTH and depth(value) > DEPTH]
