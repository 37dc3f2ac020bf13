"""All that a side of the relay and its keeper can say to each other.

A side is any part that stands on one side: HTTP ("outer", "inner") and later tables, folders and the like, whose names
begin with their side's ("inner-tables"). Each has its own pair of pipes with the keeper, none with another side. Where
a strand carries a conduit there is a keeper at each end of it, and from the one inside to the one outside ("far") goes
what that has kept: `Carried` and `Highest`, each of which stands for itself.

What the keeper believes of a side: who asks (only the side has seen the key), within the principals of that side's
zone. What it does not believe: that a body is canonical, that it fits the channel's schema, limits or size. Each body
is parsed and checked again. A message travels as the *remade* form: canonical bytes of a value that the side has
understood, never the bytes that came from the wire.

Rules of order, held by the keeper (breaking one ends the crew, with an entry):

    1. a side's first record, and its first after each change of its policy, is `Works`
    2. requests are numbered 1, 2, 3, ... on each pipe, across all kinds of request, with none left out
    3. a key is of printable characters (`printable`)
    4. a body that is not marked `doubtful` is canonical and passes the checks that need no memory

A push that is too much for one turn is stored in parts. If it is refused in between, its first messages may be stored;
pushed again, they are answered as repeats.

Every request is answered exactly once, by `Answered`, `Handed` or `NotDone`; but one that was given up (`GiveUp`) may
be answered or not. Answers come in the order in which things become certain, not in that of the requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from cofferdam.crossing.channel import Sender
from cofferdam.crossing.records import RecordCodec
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE

ITEMS_MOST: Final = 1_000
"""Messages in one push, verdicts in one settling."""
HANDED_MOST: Final = 1_000
"""Messages in one answer."""
HANDED_BYTES: Final = 1 << 20
"""Bytes of bodies in one answer, if it has more than one message."""
TOLD_GAPS: Final = 100
"""Ranges of missing numbers in one answer."""
RECORD_BYTES: Final = LARGEST_MESSAGE + (1 << 20)
"""The largest record. A push of several messages has at most so many bytes in all: a side splits what is more."""
WAIT_MOST_MS: Final = 60_000
"""The longest that a pull waits."""

Id = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Number = Annotated[int, Meta(ge=1, le=(1 << 44) - 1)]
Upto = Annotated[int, Meta(ge=0, le=(1 << 44) - 1)]
Seconds = Annotated[int, Meta(ge=0, le=31_536_000)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Key = Annotated[str, Meta(min_length=1, max_length=256)]
Text = Annotated[str, Meta(max_length=512)]
Body = Annotated[bytes, Meta(max_length=LARGEST_MESSAGE)]
Sha256 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Store = Annotated[bytes, Meta(min_length=32, max_length=32)]
WallNs = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


# --- side to keeper ---------------------------------------------------------------------------------------------


class Works(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """The side works by these rows from now on: `relay_rows.fingerprint` of its slice."""

    fingerprint: Annotated[bytes, Meta(min_length=16, max_length=16)]


class Item(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """One message. `key` is the producer's own id for it. `doubtful`: the side could read the body, but it fails the
    channel's checks; the keeper finds out why and puts it into quarantine."""

    key: Key
    body: Body
    doubtful: bool = False


class Push(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """Messages for a channel, in order: durable together, each with a result of its own."""

    request: Id
    who: Name
    channel: Name
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=ITEMS_MOST)]


class Pull(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """Lease up to `most` messages for `seconds`; if there is none, wait for one for up to `wait_ms`."""

    request: Id
    who: Name
    channel: Name
    most: Annotated[int, Meta(ge=1, le=HANDED_MOST)]
    seconds: Seconds
    wait_ms: Annotated[int, Meta(ge=0, le=WAIT_MOST_MS)] = 0


class Verdict(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """What a consumer says of a message that it has leased. `seconds`: with "extend" how long from now it keeps it,
    with "failed" how long from now it does not want it again."""

    number: Number
    says: Literal["done", "failed", "extend"]
    reason: Text = ""
    seconds: Seconds = 0


class Settle(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """Verdicts on messages of one lease."""

    request: Id
    who: Name
    channel: Name
    lease: Id
    verdicts: Annotated[tuple[Verdict, ...], Meta(min_length=1, max_length=ITEMS_MOST)]


class Browse(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """Messages after a number, without leasing them."""

    request: Id
    who: Name
    channel: Name
    after: Upto
    most: Annotated[int, Meta(ge=1, le=HANDED_MOST)]


class GiveUp(Struct, frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """Nobody waits for the answer to this pull any more: it gets no messages. (`request` is an earlier one's.)"""

    request: Id


# --- keeper to side ---------------------------------------------------------------------------------------------


class Result(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """What became of one item of a push or one verdict of a settling.

    Push: "stored" (`number` is the message's; `again`: it was stored before), "conflict" (the key is taken by another
    content: `sha256` is what came, `other` is what is there), "quarantined" (`number` is that of the quarantine's row;
    `problem` says why), "refused" (`problem`; `retry` seconds from now it may be otherwise, 0: it will not).
    Settling: "stored" for a verdict that was taken, else "refused".
    """

    state: Literal["stored", "conflict", "quarantined", "refused"]
    number: Upto = 0
    again: bool = False
    sha256: bytes = b""
    other: bytes = b""
    problem: Problem | None = None
    retry: Seconds = 0


class Answered(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """The results of a push or a settling, in the order of its items. What is "stored" is durable and recorded."""

    request: Id
    results: Annotated[tuple[Result, ...], Meta(max_length=ITEMS_MOST)]


class Message(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """One message as it is handed out. (channel, number) and (channel, who, key) are unique; `count` is how often it
    has been handed to this consumer by now, 0 when browsing. `at`: when it was stored, by the keeper's clock."""

    number: Number
    who: Name
    key: Key
    sha256: Sha256
    at: WallNs
    count: Annotated[int, Meta(ge=0, le=1 << 31)]
    body: Body


class Handed(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """Messages: leased ones (`lease` is what they are settled with, for `seconds`), or browsed ones (`lease` 0). None:
    there was none within the time to wait. `upto`: the highest number that may be handed out now. `missing`: (first,
    last) of what a strand has not brought, the lowest ones first."""

    request: Id
    lease: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    seconds: Seconds
    upto: Upto
    messages: Annotated[tuple[Message, ...], Meta(max_length=HANDED_MOST)]
    missing: Annotated[tuple[tuple[Number, Number], ...], Meta(max_length=TOLD_GAPS)] = ()


class NotDone(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """The request as a whole is refused; nothing of it was done (but of a push in parts, see above).

    `problem.fault`: "policy" (not allowed, or the policy is just changing), "window", "severed", "paused", "stopped",
    "room", "log", "busy", "store". `retry` as above."""

    request: Id
    problem: Problem
    retry: Seconds = 0


# --- keeper inside to keeper outside, over a strand ---------------------------------------------------------------


class Carried(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """A message as the keeper inside has it, under its number. `store`: whose numbers they are; `print_`: by what
    checks it passed there (`relay_rows.print_of`)."""

    store: Store
    print_: Annotated[bytes, Meta(min_length=8, max_length=8)]
    channel: Name
    number: Number
    who: Name
    key: Key
    body: Body


class Highest(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """Up to this number the channel's messages have left: said once nothing more comes for a moment, so that it is seen
    what is missing at the end."""

    store: Store
    channel: Name
    number: Upto


ToFar = Carried | Highest
ToKeeper = Works | Push | Pull | Settle | Browse | GiveUp
FromKeeper = Answered | Handed | NotDone


def to_keeper(*_: Any) -> RecordCodec[ToKeeper]:
    """The codec of the pipe from a side to the keeper."""
    return RecordCodec(ToKeeper, limit=RECORD_BYTES)


def from_keeper(*_: Any) -> RecordCodec[FromKeeper]:
    """The codec of the pipe from the keeper to a side."""
    return RecordCodec(FromKeeper, limit=RECORD_BYTES)


def to_far(*_: Any) -> RecordCodec[ToFar]:
    """The codec of what goes over a strand."""
    return RecordCodec(ToFar, limit=RECORD_BYTES)


def keeper_of(senders: Mapping[str, Sender[Any]]) -> Sender[Any]:
    """The way to a side's keeper: it has one, whatever that is called."""
    (sender,) = senders.values()
    return sender


def printable(key: str) -> bool:
    """Whether a producer's id for a message is one that a side takes: of printable characters, and not all spaces."""
    return key.isprintable() and not key.isspace()


def all_printable(keys: list[str]) -> bool:
    """Whether all of these are, and none of them is empty."""
    return "".join(keys).isprintable() and all(keys) and not any(map(str.isspace, keys))


def side_of(part: str) -> Literal["outer", "inner"]:
    """The side on which a part of the relay stands, by its name. Raises: ValueError for one that stands on none."""
    side = part.partition("-")[0]
    if side == "outer":
        return "outer"
    if side == "inner":
        return "inner"
    raise ValueError(f"{part} is no side of the relay")
