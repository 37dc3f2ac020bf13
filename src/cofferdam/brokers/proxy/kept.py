"""Reads that are asked again and again cross once whole, and then by the place where the inner half keeps them.

The outer half chooses the place, and the inner half obeys: records come in the order in which they were said, so each
knows what the other has there without a word. What is kept is a message that was decoded as strictly as any, and
checked; it is judged and recorded each time that it is asked for, by the flow of whoever asks. Writes are never kept.

Not here: verdicts (inner), records (records).
"""

from __future__ import annotations

from typing import Any

from cofferdam.brokers.proxy.records import PLACES, Again, Kept
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CrossingError
from cofferdam.policy.points.decide import Known
from cofferdam.protocols.base import Protocol


class Keeping:
    """The outer half's end."""

    __slots__ = ("_last", "_places")

    def __init__(self) -> None:
        self._last = 0
        self._places: dict[int, Known] = {}

    def send(self, sender: Sender[Any], session: int, number: int, known: Known) -> None:
        """Has a read that its flow remembers cross. The place that was taken longest ago is given anew.

        Raises:
            LocalProtocolError: it is too large to cross. It has no place then.
        """
        if known.place:
            sender.send(Again(session, number, known.place))
            return
        place = self._last % PLACES + 1
        sender.send(Kept(session, number, known.request, place))
        before = self._places.get(place)
        if before is not None:
            before.place = 0
        self._last, self._places[place], known.place = place, known, place


class KeptReads:
    """The inner half's end. Methods raise CrossingError where no honest outer half would have asked."""

    __slots__ = ("_places", "_protocol")

    def __init__(self, protocol: Protocol[Any, Any]) -> None:
        self._protocol = protocol
        self._places: dict[int, Any] = {}

    def keep(self, record: Kept[Any], known: Known | None) -> Any:
        """The message that is to be kept. `known`: what the flow of whoever asks remembers of an equal one, which is
        kept in its stead: it is found quicker by being the same than by being equal."""
        message = record.message if known is None else known.request
        if known is None:
            self._protocol.check(message)
            if self._protocol.operation(message).is_write:
                raise CrossingError("a write is to be kept")
        self._places[record.place] = message
        return message

    def at(self, place: int) -> Any:
        """The message at this place."""
        found = self._places.get(place)
        if found is None:
            raise CrossingError(f"nothing is kept at the place {place}")
        return found
