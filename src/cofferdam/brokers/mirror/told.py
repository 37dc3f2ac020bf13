"""What the mirror's parts answer to operators' verbs, as types: the verbs are checked by them, and the schemas of what
`cofferdam mirror ... --json` prints are made from them.

Times are UTC ns, but for hours (since 1970). Not here: the verbs (keeper_verbs and each part).
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

from cofferdam.brokers.mirror.catalogue import Hold, Loss

Counted = tuple[str, int, int, int]
"""(tag, hour, samples here, samples at the source)."""


class Keeper(TypedDict):
    conduit: str
    generation: int
    commit: int
    tags: int
    hot: int
    files: int
    rows: int
    size: int
    bytes_a_point: float
    first: int
    newest: int
    lag_ns: int
    sealed_hour: int
    gaps: int
    holds: list[Hold]
    full: str
    taken: dict[str, int]
    sources: list[str]
    copied: bool
    published: bool


class Lane(TypedDict):
    waiting: int
    last: int


class Spooler(TypedDict):
    """`left_seconds`: how long there is room if nothing were taken; below 0: nobody knows. `known`: what the
    keeper has is known."""

    bytes: int
    most: int
    left_seconds: float
    lanes: dict[str, Lane]
    upto: dict[str, int]
    full: str
    known: bool


class Source(TypedDict):
    """A source, or with `copied` or `left` a copy. `trouble`: "" where all is well."""

    source: str
    trouble: str
    upto: int | None
    newest: int
    asked: int
    idle: NotRequired[bool]
    waits: NotRequired[int]
    copied: NotRequired[int]
    published: NotRequired[int]
    left: NotRequired[int]


class Run(TypedDict):
    """A verification. `differ`: the first of them."""

    number: int
    first: int
    last: int
    against: str
    ended: bool
    done: int
    total: int
    tags: int
    points: int
    differ: list[Counted]
    differences: int
    source_has_less: list[Counted]
    damaged: list[str]
    failed: str
    gaps: int


class Gaps(TypedDict):
    count: int
    gaps: list[Loss]


class Backfilled(TypedDict):
    sources: list[str]


class Holds(TypedDict):
    """How many times are held now."""

    holds: int


class Sealing(TypedDict):
    """How many samples are being sealed."""

    hot: int


# --- what the command line adds ---------------------------------------------------------------------------------------


class Status(TypedDict):
    """The keeper, or the spooler, is null where it is on the other machine of a strand."""

    keeper: Keeper | None
    spooler: Spooler | None
    sources: list[Source]


class Tag(TypedDict):
    tag: str
    source: str
    type: str
    first: int
    last: int


class Sample(TypedDict):
    """`time`, `server`: RFC 3339; `value`: null where there is none."""

    tag: str
    time: str
    value: float | int | bool | str | None
    quality: int
    server: NotRequired[str]


class Exported(TypedDict):
    tags: int
    samples: int
    file: str


class Damaged(TypedDict):
    file: str
    why: str


class Checked(TypedDict):
    """`hot`: samples that are not sealed yet."""

    files: int
    hot: int
    damaged: list[Damaged]
