"""A side's end of its pipe to the keeper: requests are numbered, and each waits for its one answer.

Back-pressure: while the pipe is full, or too many wait, nothing more is asked (503 at the edge). A pull whose client
has left is given up.

Not here: what is asked (http_api).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

from cofferdam.brokers.kit.http.problems import Refusal, refusal
from cofferdam.brokers.relay.records import (
    Answered,
    FromKeeper,
    GiveUp,
    Handed,
    NotDone,
    Push,
    ToKeeper,
    Works,
    to_keeper,
)
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import CrossingError

WAITING_MOST: Final = 4_096
"""Requests that wait for the keeper."""

GIVEN_UP_MOST: Final = 65_536
"""Requests that were given up and may still be answered; the oldest are forgotten."""

A = TypeVar("A", Answered, Handed)


class Keeper:
    """The keeper, as a side asks it."""

    def __init__(self, sender: Sender[ToKeeper], loop: asyncio.AbstractEventLoop, reactor: Reactor) -> None:
        self._sender = sender
        self._loop = loop
        self._reactor = reactor
        self._number = 0
        self._waiting: dict[int, asyncio.Future[FromKeeper]] = {}
        self._given_up: dict[int, None] = {}

    @property
    def waiting(self) -> int:
        """Requests without an answer yet."""
        return len(self._waiting)

    def works(self, fingerprint: bytes) -> None:
        """Says by which rows this side works from now on."""
        self._sender.send(Works(fingerprint))

    async def ask(
        self, kind: type[A], make: Callable[[int], ToKeeper], gone: Callable[[Callable[[], None]], None] | None = None
    ) -> A:
        """The answer to the request that `make` makes of its number. `gone` is given what gives the request up.

        Raises: Refusal, also where the keeper is too busy to be asked, or a number is out of every range (the keeper
        ends the crew over a record that no sound side sends, and a client must not get one sent); CrossingError for an
        answer of another kind.
        """
        if self._sender.closed or self._sender.full or len(self._waiting) >= WAITING_MOST:
            raise refusal("busy", "too much is under way; try again", retry=1)
        number = self._number + 1
        record = make(number)
        if not isinstance(record, Push):
            _hold_to_ranges(record)
        self._number = number
        future: asyncio.Future[FromKeeper] = self._loop.create_future()
        # Where nobody else waits for the keeper it is not waited for others that might ask in the same turn.
        self._reactor.alone = not self._waiting
        self._waiting[number] = future
        self._sender.send(record)
        self._reactor.alone = False
        if gone is not None:
            gone(lambda: self._give_up(number))
        found = await future
        if isinstance(found, NotDone):
            raise Refusal(found.problem, retry=found.retry)
        if not isinstance(found, kind):
            raise CrossingError(f"the keeper answers request {number} with {type(found).__name__}")
        return found

    def _give_up(self, number: int) -> None:
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            self._given_up[number] = None
            if len(self._given_up) > GIVEN_UP_MOST:
                del self._given_up[next(iter(self._given_up))]
            self._sender.send(GiveUp(number))
            future.set_result(NotDone(number, _GONE))

    def on_record(self, record: Any) -> None:
        """An answer. Raises: CrossingError for one that nobody waits for."""
        future = self._waiting.pop(record.request, None)
        if future is None:
            if record.request not in self._given_up:
                raise CrossingError(f"the keeper answers {record.request}, which nobody asked")
            del self._given_up[record.request]
            return
        future.set_result(record)


_codec: Final = to_keeper()


def _hold_to_ranges(record: ToKeeper) -> None:
    """Encoding checks no ranges, decoding does. Raises: Refusal. (Of a push the API has checked every field, and its
    bodies are not worth a second reading.)"""
    try:
        _codec.decode(_codec.encode(record))
    except CrossingError as error:
        raise refusal("request", str(error)[:500]) from None


_GONE: Final = refusal("busy", "the client has left").problem
