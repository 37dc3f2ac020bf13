"""A pair of packet pipes between the gate and one child: typed records out, typed records in.

Nothing blocks: what a full pipe does not take waits, up to a limit. A child that sends what is no record, or that does
not read for so long that the limit is passed, has broken its side: the link is closed and its owner told why, once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError

Out = TypeVar("Out")
In = TypeVar("In")

RECORD_BYTES = 16 << 20
"""The largest record on a control pipe: a policy of 10,000 rules is about 3 MiB."""
BACKLOG_BYTES = 64 << 20
"""What may wait for a child that does not read."""


class Link(Generic[Out, In]):
    """Owns both descriptors. Calls `on_record` with each record; `on_closed` once, with the child's fault or None if
    it closed its end in order. Both are called from the reactor's loop."""

    def __init__(
        self,
        reactor: Reactor,
        read_fd: int,
        write_fd: int,
        incoming: RecordCodec[In],
        outgoing: RecordCodec[Out],
        on_record: Callable[[In], None],
        on_closed: Callable[[CrossingError | None], None],
    ) -> None:
        self._on_closed = on_closed
        self.closed = False
        # A child that has gone while we write has perhaps said something before: the receiver ends the link.
        self._sender: PipeSender[Out] = PipeSender(reactor, write_fd, outgoing, backlog_limit=BACKLOG_BYTES)
        self._receiver: PipeReceiver[In] = PipeReceiver(
            reactor, read_fd, incoming, on_record, lambda: self._end(None), self._end
        )

    def send(self, record: Out) -> None:
        """Sends a record, now or as soon as there is room. After the link was closed: nothing.

        Raises:
            LocalProtocolError: the record is larger than the link carries.
        """
        if self.closed:
            return
        self._sender.send(record)
        self._sender.flush()
        if self._sender.full:
            self._end(CrossingError("it does not read what the gate tells it"))

    def drain(self) -> None:
        """Takes what a child that has ended said last."""
        self._receiver.drain()

    def _end(self, error: CrossingError | None) -> None:
        if not self.closed:
            self.close()
            self._on_closed(error)

    def close(self) -> None:
        """Gives both ends up; `on_closed` is not called."""
        self.closed = True
        self._sender.close()
        self._receiver.close()
