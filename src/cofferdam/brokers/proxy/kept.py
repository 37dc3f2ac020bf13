"""Reads that are asked again and again cross once whole, and then by the place where the inner half keeps them.

The outer half chooses the place, and the inner half obeys: records come in the order in which they were said, so each
knows what the other has there without a word, and what of it has gone (Room). What is kept is a message that was
decoded as strictly as any, and checked; it is judged and recorded each time that it is asked for, by the flow of
whoever asks. Writes are never kept.

What one turn brings crosses together, as plain numbers: requests for what is kept (Again), and answers that are rows of
values (Rows).

Not here: verdicts (inner_reads), records (records).
"""

from __future__ import annotations

from typing import Any, Final

from cofferdam.brokers.proxy.records import GATHERED, PLACES, Again, Kept, Rows
from cofferdam.crossing.channel import Gathering, Sender
from cofferdam.errors import CrossingError
from cofferdam.policy.points.decide import Flow, Known, bulk
from cofferdam.protocols.base import Protocol

MOST_BYTES: Final = 3000
"""Of values in one record: it is to share a packet with others."""
PLACES_BYTES = 8 << 20
"""Of all that is kept, by an estimate (bulk)."""


class Room:
    """Room in bytes for what is kept. What goes for something new is what was kept first, and how large it is follows
    from what it means: both ends reckon alike, and no record says so."""

    __slots__ = ("_left", "_sizes")

    def __init__(self) -> None:
        self._left = PLACES_BYTES
        self._sizes: dict[int, int] = {}  # by place, in the order in which it was kept

    def take(self, place: int, size: int) -> list[int]:
        """The places of what goes, so that there is room for what is kept at this one."""
        sizes = self._sizes
        self._left += sizes.pop(place, 0) - size
        gone: list[int] = []
        while self._left < 0 and sizes:
            first = next(iter(sizes))
            self._left += sizes.pop(first)
            gone.append(first)
        sizes[place] = size
        return gone


class Keeping(Gathering[Any]):
    """The outer half's end. It is what its sender gathers."""

    def __init__(self, sender: Sender[Any]) -> None:
        self.count = 0
        self._sender = sender
        self._last = 0
        self._places: list[Known | None] = [None] * (PLACES + 1)
        self._first = 0
        self._asked: list[int] = []
        self._room = Room()
        sender.gathering = self

    def send(self, session: int, number: int, known: Known) -> None:
        """Has a read that its flow remembers cross. The place that was taken longest ago is given anew.

        Raises:
            LocalProtocolError: it is too large to cross. It has no place then.
        """
        place = known.place
        if place and self._places[place] is known:
            if self.count == GATHERED or (self.count and number != self._first + self.count):
                self._sender.send(self.take())
            if not self.count:
                self._first = number
            self.count += 1
            self._asked.append(session)
            self._asked.append(place)
            self._sender.soon()
            return
        place = self._last % PLACES + 1
        self._sender.send(Kept(session, number, known.request, place))
        for one in (place, *self._room.take(place, bulk(known.operation))):
            before, self._places[one] = self._places[one], None
            if before is not None:
                before.place = 0
        self._last, self._places[place], known.place = place, known, place

    def take(self) -> Again:
        asked, self._asked, self.count = self._asked, [], 0
        return Again(self._first, asked)


class KeptRead:
    """What is kept at a place. `known`: what `flow` remembered of it, from `since` on (Flow.since)."""

    __slots__ = ("flow", "known", "message", "since")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.flow: Flow | None = None
        self.known: Known | None = None
        self.since = 0

    def recalled(self, flow: Flow, wall_ns: int) -> Known | None:
        """What this flow remembers of it now. It is kept, since it stays true until the flow judges anew."""
        known = flow.recall(self.message, wall_ns)
        self.flow, self.known, self.since = flow, known, flow.since
        return known


class KeptReads:
    """The inner half's end. Methods raise CrossingError where no honest outer half would have asked."""

    __slots__ = ("_places", "_protocol", "_room")

    def __init__(self, protocol: Protocol[Any, Any]) -> None:
        self._protocol = protocol
        self._places: dict[int, KeptRead] = {}
        self._room = Room()

    def keep(self, record: Kept[Any], known: Known | None) -> Any:
        """The message that is to be kept. `known`: what the flow of whoever asks remembers of an equal one, which is
        kept in its stead: it is found quicker by being the same than by being equal."""
        if known is None:
            message = record.message
            self._protocol.check(message)
            operation = self._protocol.operation(message)
            if operation.is_write:
                raise CrossingError("a write is to be kept")
        else:
            message, operation = known.request, known.operation
        for one in self._room.take(record.place, bulk(operation)):
            del self._places[one]
        self._places[record.place] = KeptRead(message)
        return message

    def forget(self) -> None:
        """Another policy is in force: flows of the last one are nobody's any more."""
        for one in self._places.values():
            one.flow = one.known = None

    def at(self, place: int) -> KeptRead:
        """What is kept at this place."""
        found = self._places.get(place)
        if found is None:
            raise CrossingError(f"nothing is kept at the place {place}")
        return found


class Replying(Gathering[Any]):
    """The inner half's end for answers that are rows of values. It is what its sender gathers."""

    def __init__(self, sender: Sender[Any]) -> None:
        self.count = 0
        self._sender = sender
        self._size = 0
        self._numbers: list[int] = []
        self._rows: list[bytes] = []
        sender.gathering = self

    def send(self, number: int, device_ns: int, waited_ns: int, row: bytes) -> None:
        """Has the answer to a request cross."""
        if self.count == GATHERED or self._size > MOST_BYTES:
            self._sender.send(self.take())
        self.count += 1
        self._size += len(row)
        numbers = self._numbers
        numbers.append(number)
        numbers.append(device_ns)
        numbers.append(waited_ns)
        self._rows.append(row)
        self._sender.soon()

    def take(self) -> Rows:
        numbers, self._numbers, rows, self._rows = self._numbers, [], self._rows, []
        self.count = self._size = 0
        return Rows(numbers, rows)
