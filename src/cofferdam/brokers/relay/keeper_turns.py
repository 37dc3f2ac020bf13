"""How much of a turn one side may have: of the keeper's time, and of its memory.

Requests are served in the order in which they came. A turn gives each side so much effort and so many bytes of answers;
what is beyond waits for the next turn, so that neither a flood nor one large request keeps the keeper from the other
sides, or silent for longer than its watchdog allows. A side that does not take its answers is not served, and what it
may have waiting is bounded: more is refused as "busy".

Effort is reckoned in rough units of what one series under a limit costs (one look, one write).

Not here: what requests mean (keeper_part).
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper import Channel
from cofferdam.brokers.relay.keeper_rows import Stored
from cofferdam.brokers.relay.records import Message, NotDone, Result
from cofferdam.brokers.relay.store import Store
from cofferdam.crossing.channel import Sender
from cofferdam.errors import StoreError
from cofferdam.policy.messages.checked import Problem

EFFORT_OF_TURN: Final = 4_000
"""After so much a side waits for the next turn. A push goes on there with its next message."""
ANSWERS_OF_TURN: Final = 8 << 20
"""Bytes of bodies after which a side is handed nothing more in this turn. One message may be beyond."""
QUEUED_MOST: Final = 1_024
QUEUED_BYTES: Final = 32 << 20
"""What waits of one side. A single request may be larger."""
REQUEST_EFFORT: Final = 8
ITEM_EFFORT: Final = 2
BYTES_A_UNIT: Final = 4_096


class Pushing:
    """A push of which a part is done. `over`: it was answered, and what is left of it is dropped.
    `waited`: for its principal's part of the log."""

    __slots__ = ("over", "record", "results", "size", "waited")

    def __init__(self, record: records.Push) -> None:
        self.record = record
        self.size = _size(record)
        self.results: list[Result] = []
        self.over = False
        self.waited = False


class Side:
    """One part that stands on a side, and what it has of the present turn."""

    __slots__ = (
        "_effort", "_given", "_turn", "fingerprint", "last", "name", "parked", "principals", "queue", "queued",
        "sender", "severed", "spoken", "works",
    )  # fmt: skip

    def __init__(self, name: str, sender: Sender[Any]) -> None:
        self.name = name
        self.sender = sender
        self.principals: frozenset[str] = frozenset()
        self.fingerprint = self.works = b""
        self.spoken = False
        """It has said by which rows it works, though that may still be in the queue."""
        self.last = 0
        self.parked = 0
        self.severed = False
        self.queue: deque[Any] = deque()
        """Requests, and what it says of its rows; the first one may be a `Pushing`."""
        self.queued = 0
        self._turn = self._effort = self._given = 0

    def has_turn(self, turn: int) -> bool:
        """Whether it may be served, or served more, in this turn."""
        if turn != self._turn:
            self._turn, self._effort, self._given = turn, 0, 0
        return self._effort < EFFORT_OF_TURN and self._given < ANSWERS_OF_TURN and not self.sender.full

    def spend(self, effort: int, size: int = 0) -> None:
        """Something was done for it, with bodies of this size."""
        self._effort += effort + size // BYTES_A_UNIT

    def give(self, messages: int, size: int) -> None:
        """It is handed messages, of this size in all."""
        self.spend(messages, size)
        self._given += size

    def enqueue(self, record: Any) -> Problem | None:
        """Lets a request wait for its turn. Returns why it may not."""
        if isinstance(record, records.Works):  # is never refused; of two in a row the last one counts
            if self.queue and isinstance(self.queue[-1], records.Works):
                self.queue.pop()
            self.queue.append(record)
            return None
        size = _size(record)
        if len(self.queue) >= QUEUED_MOST or (self.queued and self.queued + size > QUEUED_BYTES):
            return Problem("busy", "too many requests of this side are waiting")
        self.queue.append(record)
        self.queued += size
        return None

    def first(self) -> Any:
        """Takes what has waited longest."""
        record = self.queue.popleft()
        if not isinstance(record, Pushing | records.Works):
            self.queued -= _size(record)
        return record

    def drop(self, record: Any) -> None:
        """Somebody has given up a request that waits."""
        self.queue.remove(record)
        self.queued -= _size(record)

    def refuse(self, request: int, problem: Problem, retry: int) -> None:
        """The answer to a request of which nothing is done."""
        self.sender.send(NotDone(request, problem, retry))

    def forget(self) -> None:
        """Nothing of it is served any more."""
        self.queue.clear()
        self.queued = 0


class Parked:
    """A pull that waits."""

    __slots__ = ("request", "side", "until")

    def __init__(self, side: Side, request: records.Pull, until: int) -> None:
        self.side = side
        self.request = request
        self.until = until


def answer_of(store: Store, channel: str, numbers: list[int]) -> list[Stored]:
    """These messages, as many of the first of them as one answer may hold."""
    left, at = records.HANDED_BYTES, 0
    found: list[Stored] = []
    while at < len(numbers):
        end = at + 1
        while end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
            end += 1
        run = store.messages(channel, numbers[at] - 1, end - at, numbers[end - 1], left)
        size = sum([one.size for one in run])
        if found and size > left:
            break
        found += run
        left -= size
        if len(run) < end - at or left <= 0:
            break
        at = end
    if not found or [one.number for one in found] != numbers[: len(found)]:
        raise StoreError(f"{store.path} is damaged: {channel} lacks a message among {numbers[0]} to {numbers[-1]}")
    return found


def message_of(one: Stored, counts: dict[int, int]) -> Message:
    """A message as it is handed out; `counts`: number -> how often it was by now, for those that are leased."""
    return Message(one.number, one.who, one.key, one.sha256, one.at, counts.get(one.number, 0), one.body)


def missing_of(channel: Channel) -> tuple[tuple[int, int], ...]:
    """The missing numbers that consumers are told of."""
    return tuple((gap.first, gap.last) for gap in channel.gaps.awaited[: records.TOLD_GAPS])


def _size(record: Any) -> int:
    if isinstance(record, records.Push):
        return sum([len(item.body) for item in record.items])
    return 256 * len(record.verdicts) if isinstance(record, records.Settle) else 256
