"""A pair of packet pipes between the gate and one child, for asyncio: typed records out, typed records in.

Framing and codec are the crossing's own. Nothing blocks: what a full pipe does not take waits, up to a limit. A child
that sends what is no record, or that does not read for so long that the limit is passed, has broken its side: the
link is closed and the owner told why, once.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from cofferdam.crossing.framing import PACKET, Assembler, pack
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError, LocalProtocolError

Out = TypeVar("Out")
In = TypeVar("In")

RECORD_BYTES = 16 << 20
"""The largest record on a control pipe: a policy of 10,000 rules is about 3 MiB."""
BACKLOG_BYTES = 64 << 20
"""What may wait for a child that does not read."""
PACKETS_A_TURN = 64


class PipeLink(Generic[Out, In]):
    """Owns both descriptors. Calls `on_record` with each record; `on_closed` once, with the child's fault or None if
    it closed its end in order. Both are called from the event loop."""

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        incoming: RecordCodec[In],
        outgoing: RecordCodec[Out],
        on_record: Callable[[In], None],
        on_closed: Callable[[CrossingError | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._decode = incoming.decode
        self._feed = Assembler(incoming.limit).feed
        self._outgoing = outgoing
        self._on_record = on_record
        self._on_closed = on_closed
        self._waiting: deque[bytes] = deque()
        self._backlog = 0
        self.closed = False
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._loop.add_reader(read_fd, self._readable)

    def send(self, record: Out) -> None:
        """Sends a record, now or as soon as there is room. After the link was closed: nothing.

        Raises:
            LocalProtocolError: the record is larger than the link carries.
        """
        if self.closed:
            return
        data = self._outgoing.encode(record)
        if len(data) > self._outgoing.limit:
            raise LocalProtocolError(
                f"a record of {len(data)} bytes; a control pipe carries at most {self._outgoing.limit}"
            )
        packets = pack([data])
        was_idle = not self._waiting
        self._waiting.extend(packets)
        self._backlog += sum(map(len, packets))
        if was_idle:
            self._write()
        if self._backlog > BACKLOG_BYTES:
            self._end(CrossingError("it does not read what the gate tells it"))

    def _write(self) -> None:
        waiting = self._waiting
        try:
            while waiting:
                os.write(self._write_fd, waiting[0])  # a packet: whole or not at all
                self._backlog -= len(waiting.popleft())
        except BlockingIOError:
            self._loop.add_writer(self._write_fd, self._write)
        except BrokenPipeError:
            # The child has gone. What it said last is still to be read: the reader ends the link.
            waiting.clear()
            self._backlog = 0
            self._loop.remove_writer(self._write_fd)
        else:
            self._loop.remove_writer(self._write_fd)

    def _readable(self) -> None:
        try:
            for _ in range(PACKETS_A_TURN):
                packet = os.read(self._read_fd, PACKET)
                if not packet:
                    self._end(None)
                    return
                for data in self._feed(packet):
                    self._on_record(self._decode(data))
                    if self.closed:
                        return
        except BlockingIOError:
            return
        except CrossingError as error:
            self._end(error)

    def drain(self) -> None:
        """Takes what a child that has ended said last."""
        if not self.closed:
            self._readable()

    def _end(self, error: CrossingError | None) -> None:
        if not self.closed:
            self.close()
            self._on_closed(error)

    def close(self) -> None:
        """Gives both ends up; `on_closed` is not called."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._read_fd)
            self._loop.remove_writer(self._write_fd)
            os.close(self._read_fd)
            os.close(self._write_fd)
