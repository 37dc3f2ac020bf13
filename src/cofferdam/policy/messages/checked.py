"""What a check of a message gives, between `policy.messages.checking` (reading, schema, fields, limits) and its
callers: the sides, for a quick answer, and the keeper, for good.

`Check(channel, body)` reads strictly, applies the channel's `fields` and `set`, validates, and holds the bounds that
need no memory (`min`, `max`, `most`). It is idempotent: what it remade passes again, and comes out as the same bytes.
The keeper calls it on what crosses and takes nothing that is not its own remade form.

Not here: limits that need a memory (`max_step`, `per_minute`, the stamp's age), which the keeper alone can hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=512)]


class Problem(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """Why a message does not pass. `fault` is one stable word ("schema", "limit", "step", "fields", "size", "stamp",
    "syntax"); `place` is where in it (JSON Pointer or XPath, "" the whole); line and column count from 1, 0: unknown.
    """

    fault: Annotated[str, Meta(min_length=1, max_length=32)]
    detail: Text
    place: Text = ""
    line: Annotated[int, Meta(ge=0, le=1 << 31)] = 0
    column: Annotated[int, Meta(ge=0, le=1 << 31)] = 0


class Step(Struct, frozen=True, gc=False):
    """A value that a limit with memory bounds: `limit` is its index in the channel's `limits`, `key` the series that it
    belongs to (canonical text of what stands at the limit's `key`, "" for none)."""

    limit: int
    key: str
    value: int | float


class Checked(Struct, frozen=True):
    """The message passes. `body`: its remade form, canonical. `stamp_ns`: its own time where the channel demands one
    (UTC, ns since 1970), else -1. `steps`: one for each limit with `max_step` or `per_minute` whose place it has."""

    body: bytes
    stamp_ns: int = -1
    steps: tuple[Step, ...] = ()


Check = Callable[[str, bytes], Checked | Problem]
"""(channel, body) -> what passes, or the first problem."""
