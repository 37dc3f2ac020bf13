"""What the relay's keeper answers to operators' verbs, as types: its verbs are checked by them, and the schemas of what
`cofferdam relay ... --json` prints are made from them.

Times are UTC ns. Not here: the verbs (keeper_verbs).
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Missing(TypedDict):
    """Numbers that a strand has not brought."""

    first: int
    last: int
    since: int
    given_up: bool


class Place(TypedDict):
    """Where a consumer of a channel stands. `asked_ns`, `oldest_ns`: how long ago it asked, and how long the oldest
    message that it has not settled has waited for it."""

    consumer: str
    present: bool
    cursor: int
    lowest: int
    lag: int
    leased: int
    returned: int
    dead: int
    stopped: bool
    asked_ns: int
    oldest_ns: int


class ChannelStands(TypedDict):
    channel: str
    served: bool
    next: int
    shown: int
    gone: int
    messages: int
    size: int
    room: int
    room_messages: int
    quarantine: int
    paused: list[str]
    order: int
    waiting: int
    missing: list[Missing]
    consumers: list[Place]


class Stands(TypedDict):
    store: str
    commit: int
    free: int
    disk: int
    full: str
    unlogged: int
    channels: list[ChannelStands]


class Message(TypedDict):
    number: int
    who: str
    key: str
    sha256: str
    size: int
    at: int


class Listed(Message):
    recorded: bool


class Shown(Message):
    """`consumers`: how it stands with each, in words. `body` as text, the first of it where it is not `whole`."""

    channel: str
    commit: int
    consumers: dict[str, str]
    body: NotRequired[str]
    whole: NotRequired[bool]


class Carried(Message):
    """`body`: base64."""

    body: str


class Page(TypedDict):
    messages: list[Carried]
    after: int
    offset: int


class Dead(TypedDict):
    number: int
    tries: int
    reason: str
    at: int


class Why(TypedDict):
    """What is wrong with a message, and where in it."""

    fault: str
    detail: str
    place: str
    line: int
    column: int


class Held(Why):
    """A row of the quarantine. `approved`: by whom, where it takes another person as well."""

    row: int
    channel: str
    who: str
    key: str
    sha256: str
    size: int
    at: int
    edited: bool
    editors: tuple[str, ...]
    approved: str
    body: NotRequired[str]
    diff: NotRequired[list[str]]


class Released(TypedDict):
    """`waits`: for whom, where it is not released yet."""

    row: int
    released: bool
    number: NotRequired[int]
    people: NotRequired[tuple[str, ...]]
    waits: NotRequired[str]


class Rejected(TypedDict):
    row: int
    rejected: bool


class Edited(TypedDict):
    """`problem`: why it still fails."""

    row: int
    by: str
    diff: list[str]
    problem: Why | None


class Replayed(TypedDict):
    channel: str
    consumer: str
    lag: int


class Skipped(TypedDict):
    channel: str
    consumer: str
    dead: int


class Cleared(TypedDict):
    channel: str
    removed: int
    size: int
    last: int


class ClearedSome(Cleared):
    """One turn's."""

    more: bool


class GivenUp(TypedDict):
    channel: str
    given_up: list[tuple[int, int]]


class Rests(TypedDict):
    channel: str
    paused: list[str]


# --- what the command line adds ---------------------------------------------------------------------------------------


class Answer(TypedDict):
    """What one relay says. `end`: of a strand that carries it; one that no strand carries has the "inside"."""

    crew: str
    result: Stands
    end: str


class HeldHere(Held):
    crew: str


class Exported(Message):
    """A line of an export. `data`: the message itself, of XML as a text."""

    data: Any


class PassedOver(TypedDict):
    entry: int
    channel: str
    first: int
    count: int
    commit: int
    opened: int
    seconds_before: float


class Verified(TypedDict):
    messages: int
    channels: list[str]
    against: str
    findings: list[str]
    missing: list[str]
    passed: list[PassedOver]
