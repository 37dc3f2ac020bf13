"""Lists of which there may be more than one answer takes: for operators in pieces, one after the other; for people at
the menu cut, with how many there are more and how to look for one.

Not here: what stands in a list (keeper_verbs, menu, releasing).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from cofferdam.audit.lines import escaped

PIECE_BYTES: Final = 512 << 10
"""Of one answer to an operator; a row may come on top."""
TEXT_MOST: Final = 56_000
"""Letters of one answer at the menu."""


class Which(msgspec.Struct, forbid_unknown_fields=True):
    """Those that have this word somewhere, and come after this one."""

    by: str = ""
    search: Annotated[str, Meta(max_length=200)] = ""
    after: Annotated[str, Meta(max_length=300)] = ""


def order(number: int) -> str:
    """A number as it stands in a list that goes by `after`."""
    return f"{number:020d}"


def piece(rows: Iterable[tuple[str, Any]], said: Which) -> list[Any]:
    """As many of them as one answer takes; none: there are no more. `rows` come with what they go by, in that order."""
    found, size = [], 0
    for key, row in rows:
        if key > said.after and has(row, said.search):
            if size > PIECE_BYTES:
                break
            found.append(row)
            size += len(msgspec.json.encode(row))
    return found


def has(row: Any, word: str) -> bool:
    """Whether a word stands in one of the values of a row, in whatever case."""
    return not word or any(word.lower() in text.lower() for text in _texts(row))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    else:
        yield str(value)


def text(lines: Sequence[str], word: str, nothing: str) -> str:
    """The lines as one answer, and nothing that stands in one makes it two. `word`: by what the menu lists them."""
    if not lines:
        return nothing
    lines = [escaped(line) for line in lines]
    at = size = 0
    while at < len(lines) and size + len(lines[at]) < TEXT_MOST:
        size += len(lines[at]) + 1
        at += 1
    more = [f"and {len(lines) - at} more: `{word} WORD` has those with that word alone"] if at < len(lines) else []
    return "\n".join([*lines[:at], *more])


def as_json(rows: Sequence[Any]) -> str:
    """The rows as one answer for a program: {"rows": [...], "more": how many did not fit}."""
    found, size = [], 0
    for row in rows:
        one = json.dumps(msgspec.to_builtins(row))
        size += len(one) + 2
        if size > TEXT_MOST:
            break
        found.append(one)
    return f'{{"rows": [{", ".join(found)}], "more": {len(rows) - len(found)}}}'
