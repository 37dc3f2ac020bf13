"""What the keeper's machine is made from, and what it says has changed: rows, as they lie in the store. PURE.

Not here: what they mean (keeper), the tables (store).
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from cofferdam.audit.entry import Draft
from cofferdam.brokers.relay.gaps import Gap


class ChannelRow(msgspec.Struct, frozen=True):
    """`messages` and `size` are what is there now, `held` and `held_size` what is in quarantine."""

    channel: str
    next: int = 1
    gone: int = 0
    messages: int = 0
    size: int = 0
    held: int = 0
    held_size: int = 0
    paused: int = 0


class PositionRow(msgspec.Struct, frozen=True):
    """Where a consumer stands; `lease` is the last one it got, `dead` how many messages are dead to it."""

    channel: str
    consumer: str
    cursor: int
    lease: int = 0
    dead: int = 0


class OpenRow(msgspec.Struct, frozen=True):
    """A message under way. `lease` 0: it came back, and is not handed out before `until` (UTC, ns)."""

    channel: str
    consumer: str
    number: int
    lease: int
    until: int
    count: int


class OpenRows(msgspec.Struct, frozen=True):
    """What has changed of a consumer's messages under way: (number, lease, until, count) as `OpenRow` has them, and the
    numbers of those that are not under way any more."""

    channel: str
    consumer: str
    opened: list[tuple[int, int, int, int]]
    closed: list[int]


class DeadRow(msgspec.Struct, frozen=True):
    """A message that is dead to a consumer."""

    channel: str
    consumer: str
    number: int
    count: int
    reason: str
    at: int


class GapsRow(msgspec.Struct, frozen=True):
    """All numbers of a channel that are not there."""

    channel: str
    gaps: tuple[Gap, ...]


class StepRow(msgspec.Struct, frozen=True):
    """What a limit with a memory remembers of one series (`limit`: its places). `counts`: messages by bucket, newest
    first, the newest being number `at`."""

    channel: str
    limit: str
    key: str
    value: int | float
    at: int
    counts: tuple[int, ...]


Row = ChannelRow | PositionRow | OpenRow | OpenRows | DeadRow | GapsRow
"""What a machine says has changed (without `OpenRow`), and what it is made from (without `OpenRows`, and without
`DeadRow`: positions have their count)."""


class Memory(Protocol):
    """What limits remember. A series that is new finds no place beyond `SERIES_MOST` of a channel."""

    def recall(self, channel: str, limit: str, key: str) -> StepRow | None:
        """What is remembered of a series."""

    def count(self, channel: str) -> int:
        """How many series are remembered."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """A message that has a key already. `sent`: the SHA-256 of what its producer sent."""

    number: int
    sent: bytes


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as it lies in the store. `group` is the commit that brought it."""

    number: int
    who: str
    key: str
    sha256: bytes
    at: int
    size: int
    group: int
    body: bytes


class Untold(msgspec.Struct, frozen=True):
    """Entries of a commit that the log has not confirmed. `pushed`: channel -> (first, last) number that it brought."""

    group: int
    pushed: dict[str, tuple[int, int]]
    drafts: list[Draft]
