"""What the ends of a strand answer to operators' verbs, as types: the verbs are checked by them, and the schemas of
what `cofferdam diode ... --json` prints are made from them.

Not here: the verbs (keeper, spool, teller).
"""

from __future__ import annotations

from typing import Any, TypedDict


class Heartbeat(TypedDict):
    """`age`: seconds since it came; `told`: the inside's clock (UTC ns); `differs`: seconds from it to ours."""

    age: float
    told: int
    queue: int
    differs: float
    dropped: int


class Copy(TypedDict):
    """The copy of the inside's audit log. `waits`: the entries of a checkpoint that waits for what is missing."""

    entries: int
    waits: int
    signed: bool
    folder: str


class Tells(TypedDict, total=False):
    """What the inside tells of itself; empty where it tells nothing."""

    folder: str
    told_ns: int
    came_ns: int
    log: Copy | None


class Inside(Tells, total=False):
    """`packed`: its status, by zlib, in base64."""

    packed: str


class Trouble(TypedDict):
    foreign: int
    blocks: int
    kernel: int
    overrun: int


class Epoch(TypedDict):
    epoch: int
    highest: int
    lost: int
    given_up: int


class Gap(TypedDict):
    """`since`: UTC ns."""

    epoch: int
    first: int
    last: int
    since: int


class File(TypedDict):
    """A file that is coming, or being sent: how many `of` its records have come, or left the spool."""

    name: str
    size: int
    done: int
    of: int


class Coming(TypedDict):
    """A channel, outside. `coming`, `done`: of files, some of which are `under_way`."""

    channel: str
    epochs: list[Epoch]
    missing: int
    gaps: list[Gap]
    coming: int
    done: int
    under_way: list[File]


class Outside(TypedDict):
    strand: str
    end: str
    paired: bool
    epoch: int
    sender: str
    hardware: str
    full: str
    heartbeat: Heartbeat | None
    stopped: dict[str, str]
    told: Tells
    trouble: Trouble
    folders: dict[str, str]
    channels: list[Coming]


class Spool(TypedDict):
    """`room_seconds`: how long there is room at this pace, below 0: for ever."""

    bytes: int
    room: int
    keep: int
    oldest_seconds: int
    dropped: int
    room_seconds: float


class NotSent(TypedDict):
    channel: str
    name: str
    why: str


class Kept(TypedDict):
    """A channel, inside: the records that can be sent again."""

    channel: str
    epoch: int
    oldest: int
    highest: int


class Within(TypedDict):
    """The inside's status."""

    strand: str
    end: str
    paired: bool
    epoch: int
    rate: int
    queue: int
    hardware: str
    spool: Spool
    full: str
    folders: dict[str, str]
    not_sent: list[NotSent]
    channels: list[Kept]
    under_way: list[File]
    resending: int


class Ticket(TypedDict):
    """`until`: seconds since 1970."""

    serial: int
    channel: str
    text: str
    until: int
    missing: int


class Tickets(TypedDict):
    strand: str
    tickets: list[Ticket]


class Resent(TypedDict):
    """`ranges`: (epoch, first, last). `go`: it is sent; else it would be."""

    serial: int
    channel: str
    until: int
    go: bool
    ranges: list[tuple[int, int, int]]
    records: int
    bytes: int
    seconds: float
    lost: int


class GivenUp(TypedDict):
    given_up: int


class Step(TypedDict):
    """One rate of a test run, as it came outside. `age`: seconds since something of it came."""

    run: int
    rate: int
    got: int
    of: int
    seconds: float
    age: float


class Run(TypedDict):
    """A test that goes out."""

    run: int
    rates: list[int]
    seconds: float


class Told(TypedDict):
    """How many entries of the log have been told."""

    told: int


# --- what the command line adds ---------------------------------------------------------------------------------------


class Figures(TypedDict):
    """`how`: what makes the strand one-way, in words; `now`: what its parts count since they started."""

    how: str
    now: dict[str, int]


class OutsideShown(Outside, Figures):
    pass


class WithinShown(Within, Figures):
    pass


class InsideShown(Tells, total=False):
    """`status`: as the other machine has told it."""

    status: Any


class Paired(TypedDict):
    """`words`: to compare by eye; `file`: what was written, "" for nothing; `taken`: the words of what was taken in;
    `log`: what became of the key of the inside's audit log, where it is another."""

    end: str
    strand: str
    words: str
    file: str
    taken: str
    log: str
