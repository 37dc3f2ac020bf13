"""Events of the relay: messages that were pushed, handed out, settled, held back, and what operators did with them.

Bodies never stand here: a message is named by its channel and number, its producer's key, the SHA-256 and the size of
its body. What one commit of the keeper's store brought is one entry a channel (and consumer), however many messages
they were: `root` is the root of an RFC 6962 tree over them, against which any one of them can be shown
(brokers.relay.ledger says what a leaf is). Where it was one message, it is named outright as well.

`commit` numbers the store's commits, `store` is the store's own random name. An entry may stand in the log twice, with
the same commit: a crash left the keeper in doubt whether it had been recorded (`again`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cofferdam.audit.events import http
from cofferdam.audit.events.base import Address, Count, Event, Hash, Name, Names, Text, WallNs
from cofferdam.audit.events.lines import Line, Said, seconds, span_ns


class MessagesPushed(Event, frozen=True, kw_only=True):
    """`count` messages are in the store, under the numbers from `first` on; `size`: the bytes of their bodies. They
    are acknowledged, and handed to anybody, only after this entry is durable. `principal`: "" if there were several."""

    store: Hash
    commit: Count
    channel: Name
    first: Count
    count: Count
    size: Count
    root: Hash
    principal: Name = ""
    key: Text = ""
    sha256: Hash = ""
    again: bool = False


class MessagesLeased(Event, frozen=True, kw_only=True):
    """A consumer was handed `count` messages, of which `first` and `last` are the lowest and highest number."""

    store: Hash
    commit: Count
    channel: Name
    consumer: Name
    lease: Count
    count: Count
    first: Count
    last: Count
    size: Count
    root: Hash
    key: Text = ""
    sha256: Hash = ""
    again: bool = False


class MessagesSettled(Event, frozen=True, kw_only=True):
    """A consumer said of messages that it had leased that it is done with them, or has failed."""

    store: Hash
    commit: Count
    channel: Name
    consumer: Name
    says: Literal["done", "failed"]
    count: Count
    first: Count
    last: Count
    root: Hash
    reason: Text = ""
    again: bool = False


class MessagesDead(Event, frozen=True, kw_only=True):
    """Messages were handed to a consumer `tries` times in vain: they are not handed to it again by themselves. `reason`
    is that of one of them."""

    store: Hash
    commit: Count
    channel: Name
    consumer: Name
    tries: Count
    count: Count
    first: Count
    last: Count
    root: Hash
    reason: Text = ""
    again: bool = False


class MessageQuarantined(Event, frozen=True, kw_only=True):
    """A message did not pass its channel's checks and is kept apart, as row `row` of the quarantine."""

    store: Hash
    commit: Count
    channel: Name
    row: Count
    principal: Name
    key: Text
    sha256: Hash
    size: Count
    fault: Name
    place: Text = ""
    detail: Text = ""
    again: bool = False


class QuarantineDecided(Event, frozen=True, kw_only=True):
    """A person dealt with a row of the quarantine. "approved": the first of two who release it; "released": it passed
    the checks and is message `number` now, and `people` are all who released it; "edited": `sha256` is the new body's,
    `before` the old one's; "rejected": it is gone."""

    store: Hash
    commit: Count
    channel: Name
    row: Count
    decision: Literal["approved", "released", "edited", "rejected"]
    by: Name
    people: Names = ()
    number: Count = 0
    principal: Name = ""
    key: Text = ""
    sha256: Hash = ""
    before: Hash = ""
    reason: Text = ""
    again: bool = False


class PositionSet(Event, frozen=True, kw_only=True):
    """A person set what a consumer gets: "replay": messages from `first` on are handed to it (again); "one": message
    `first` alone; "skip": the dead message `first` is given up."""

    store: Hash
    commit: Count
    channel: Name
    consumer: Name
    how: Literal["replay", "one", "skip"]
    first: Count
    by: Name
    again: bool = False


class ChannelSet(Event, frozen=True, kw_only=True):
    """A person paused or resumed a channel: `paused` names what rests from now on (push, pull)."""

    store: Hash
    commit: Count
    channel: Name
    paused: Names
    by: Name
    again: bool = False


class MessagesRemoved(Event, frozen=True, kw_only=True):
    """Messages up to number `last` are gone from the store: older than the channel keeps them, and every consumer is
    done with them. `by`: who made room before their time."""

    store: Hash
    commit: Count
    channel: Name
    last: Count
    count: Count
    by: Name = ""
    again: bool = False


class MessageRefused(Event, frozen=True, kw_only=True):
    """A push, pull or settling was refused; nothing was kept of it. `count` is above 1 where a flood is told of at
    once. `rule`: the conduit's line that it was judged by, "" if none."""

    channel: Name
    principal: Name
    source: Address = ""
    verb: Name
    fault: Name
    detail: Text
    place: Text = ""
    key: Text = ""
    rule: Name = ""
    count: Count = 1


class MessagesBrowsed(Event, frozen=True, kw_only=True):
    """A principal read `count` messages without leasing them, within an interval; or a person saw (`by`) bodies:
    "show" one, "export" several. `first` and `last` are the lowest and highest number."""

    channel: Name
    principal: Name = ""
    by: Name = ""
    how: Literal["browse", "show", "export"] = "browse"
    count: Count
    first: Count
    last: Count
    from_ns: WallNs
    to_ns: WallNs


class MessagesCarried(Event, frozen=True, kw_only=True):
    """`count` messages were handed to a strand within an interval, `first` and `last` being the lowest and the highest
    number. Nobody says whether they have come; outside, "messages-pushed" does."""

    channel: Name
    consumer: Name
    count: Count
    first: Count
    last: Count
    from_ns: WallNs
    to_ns: WallNs


class NumbersMissing(Event, frozen=True, kw_only=True):
    """Messages of a channel, of these numbers, have not come over the strand, though one behind them has; or a person
    gave them up (`by`). If they come after all, "messages-pushed" says so."""

    store: Hash
    commit: Count
    channel: Name
    first: Count
    last: Count
    what: Literal["missing", "given-up"]
    by: Name = ""
    again: bool = False


class StoreOpened(Event, frozen=True, kw_only=True):
    """The keeper opened its store, whose last commit is `commit`. `untold` commits were durable but perhaps not in this
    log: they follow. `found` says what it had to mend, "" for nothing. If the last entry of the store before this one
    names a later commit, the power failed while store and log were written at the same time: what that commit brought
    was never acknowledged, and is not there. Where several later ones had brought messages, a backup was put
    back."""

    store: Hash
    commit: Count
    untold: Count
    messages: Count
    found: Text = ""


class StoreKept(Event, frozen=True, kw_only=True):
    """What the log has of commit `commit` and those before it is on the store's disk. It is said some seconds
    after the last messages that were pushed, and when the keeper ends in order."""

    store: Hash
    commit: Count


class StoreFailed(Event, frozen=True, kw_only=True):
    """The keeper stops: its store could not be written or read. What it had acknowledged is as durable as before."""

    store: Hash
    commit: Count
    detail: Annotated[str, Meta(max_length=512)]


CROWD = frozenset({MessageRefused})
"""What whoever speaks with a part can cause as often as they like: the log has so much room for it in a day."""

Draft = (
    MessagesPushed
    | MessagesLeased
    | MessagesSettled
    | MessagesDead
    | MessageQuarantined
    | QuarantineDecided
    | PositionSet
    | ChannelSet
    | MessagesRemoved
    | MessageRefused
    | MessagesBrowsed
    | MessagesCarried
    | NumbersMissing
    | StoreOpened
    | StoreKept
    | StoreFailed
)
GATE: tuple[type[Event], ...] = ()
"""The gate says nothing of these: only the keeper knows."""
KEEPER: tuple[type[Event], ...] = Draft.__args__
SIDE = (MessageRefused, *http.HTTP)
"""What a part that stands on a side may say."""


def _numbers(event: Said) -> str:
    first = event.get("first", 0)
    last = event.get("last", first + event.get("count", 1) - 1)
    return f"{first}" if last == first else f"{first} to {last} ({event.get('count')})"


def _named(event: Said) -> str:
    key = event.get("key")
    return f" {key}, SHA-256 {str(event.get('sha256'))[:16]}…" if key else ""


def _decided(event: Said) -> str:
    number = f" as {event.get('channel')} {event['number']}" if event.get("number") else ""
    reason = f": {event['reason']}" if event.get("reason") else ""
    return (
        f"row {event.get('row')} of {event.get('channel')} {event.get('decision')}{number} by {event.get('by')}{reason}"
    )


def _refused(event: Said) -> str:
    many = f" ({event['count']} times)" if event.get("count", 1) > 1 else ""
    place = f" at {event['place']}" if event.get("place") else ""
    return (
        f"{event.get('principal') or '?'} {event.get('verb')} {event.get('channel')}{_named(event)}:"
        f" {event.get('fault')}{place}: {event.get('detail')}{many}"
    )


def _browsed(event: Said) -> str:
    who = event.get("by") or event.get("principal")
    return f"{who} {event.get('how')} {event.get('channel')} {_numbers(event)} within {seconds(span_ns(event))}"


LINES: dict[str, Line] = {
    "messages-pushed": lambda e: (
        f"{e.get('principal') or 'several'} → {e.get('channel')} {_numbers(e)}, {e.get('size')} bytes{_named(e)}"
    ),
    "messages-leased": lambda e: (
        f"{e.get('channel')} {_numbers(e)} → {e.get('consumer')}, {e.get('size')} bytes, lease {e.get('lease')}"
    ),
    "messages-settled": lambda e: (
        f"{e.get('consumer')} {e.get('says')}: {e.get('channel')} {_numbers(e)} {e.get('reason', '')}".rstrip()
    ),
    "messages-dead": lambda e: (
        f"{e.get('channel')} {_numbers(e)} for {e.get('consumer')} after {e.get('tries')} tries: {e.get('reason')}"
    ),
    "message-quarantined": lambda e: (
        f"row {e.get('row')}: {e.get('principal')} → {e.get('channel')}{_named(e)}: {e.get('fault')} at"
        f" {e.get('place') or 'the whole'}: {e.get('detail')}"
    ),
    "quarantine-decided": _decided,
    "message-refused": _refused,
    "messages-browsed": _browsed,
    "messages-carried": lambda e: f"{e.get('channel')} {_numbers(e)} → {e.get('consumer')}",
    "numbers-missing": lambda e: (
        f"{e.get('channel')} {e.get('first')} to {e.get('last')}: {e.get('what')} {e.get('by', '')}".rstrip()
    ),
}
