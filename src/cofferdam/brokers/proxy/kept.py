"""Reads that are asked again and again cross once whole, and then by the place where the inner half keeps them.

The outer half chooses the place, and the inner half obeys: records come in the order in which they were said, so each
knows what the other has there without a word. What is kept is a message that was decoded as strictly as any, and
checked; it is judged and recorded each time that it is asked for, by the flow of whoever asks. Writes are never kept.

Not here: verdicts (inner), records (records).
"""

from __future__ import annotations

from typing import Any

from cofferdam.brokers.proxy.records import PLACES, Again, Kept
from cofferdam.errors import CrossingError
from cofferdam.policy.points.decide import Known
from cofferdam.protocols.base import Protocol


class Keeping:
    """The outer half's end."""

    __slots__ = ("_last", "_places")

    def __init__(self) -> None:
        self._last = 0
        self._places: dict[int, Known] = {}

    def record(self, session: int, number: int, known: Known) -> Again | Kept[Any]:
        """By which a read that its flow remembers crosses. The place that was taken longest ago is given anew."""
        if known.place:
            return Again(session, number, known.place)
        self._last = place = self._last % PLACES + 1
        before = self._places.get(place)
        if before is not None:
            before.place = 0
        self._places[place] = known
        known.place = place
        return Kept(session, number, known.request, place)


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
