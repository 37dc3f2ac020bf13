"""What a broker sees of a crossing: a Sender and a Receiver of typed records, whatever they are made of.

Back-pressure: a sender never drops and never blocks. What the channel does not take waits in the sender, and
`backlog` says how many bytes do. A half stops taking work from its peers while `full` holds, and goes on when
`on_room` is called. A receiver can be paused; then the channel fills and the other half's sender notices.

That no two halves wait for each other rests on one rule: the side that answers (the inner half, the auditor) may
pause its receiver while its own answers wait, the side that asks never does.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mypy_extensions import mypyc_attr

R = TypeVar("R")


@mypyc_attr(allow_interpreted_subclasses=True)
class Gathering(abc.ABC, Generic[R]):
    """Small things to say that become one record when it leaves (`Sender.gathering`)."""

    count: int = 0
    """How many wait."""

    @abc.abstractmethod
    def take(self) -> R:
        """The record of all that wait, of which none does any longer."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Sender(abc.ABC, Generic[R]):
    """One end that only sends."""

    gathering: Gathering[R] | None = None
    """What is gathered leaves in its order: before a record that is sent after it, and at the end of the turn at the
    latest, if `soon` was called."""
    backlog: int = 0
    """Bytes that wait for room in the channel."""
    closed: bool = False
    on_room: Callable[[], None] | None = None
    """Called when `full` ceases to hold."""
    on_closed: Callable[[], None] | None = None
    """Called once when the other end has gone."""

    def __init__(self, backlog_limit: int) -> None:
        self.backlog_limit = backlog_limit

    @property
    def full(self) -> bool:
        """So much waits that no new work should be taken on."""
        return self.backlog > self.backlog_limit

    @abc.abstractmethod
    def send(self, record: R) -> None:
        """Queues a record; it leaves at the end of the reactor's turn.

        Raises:
            LocalProtocolError: the record is larger than the channel's limit.
        """

    def soon(self) -> None:
        """Something is gathered: it leaves at the end of the turn. (Here at once, for channels that carry little.)"""
        if self.gathering is not None and self.gathering.count:
            self.send(self.gathering.take())

    def flush(self) -> None:
        """Sends now, as far as there is room, what would leave at the end of the turn."""

    @abc.abstractmethod
    def close(self) -> None:
        """Gives the end up. What waits is lost."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver(abc.ABC, Generic[R]):
    """One end that only receives: calls `on_record` with each record, in order."""

    on_record: Callable[[R], None]
    on_closed: Callable[[], None] | None = None
    """Called once when the other end has gone and all that it sent was delivered."""

    @abc.abstractmethod
    def pause(self) -> None:
        """No more records until `resume()`. Records of a packet that was already read still come."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Goes on."""

    @abc.abstractmethod
    def close(self) -> None:
        """Gives the end up."""


def hold_back(questions: Receiver[Any], answers: Sender[Any]) -> None:
    """A part takes no more questions while its answers find no room in the way back."""
    answers.on_room = questions.resume
    take = questions.on_record

    def on_record(record: Any) -> None:
        take(record)
        if answers.backlog and answers.full:
            questions.pause()

    questions.on_record = on_record
