"""The memory channel: both halves in one process, for tests and measurements.

Records are encoded, framed and decoded as on a pipe, and the channel holds as little as a pipe does, so that a
broker cannot tell the difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from cofferdam.crossing.channel import Receiver, Sender
from cofferdam.crossing.framing import pack_batches
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec, Unpacker
from cofferdam.errors import LocalProtocolError

R = TypeVar("R")

CAPACITY = 256
"""Packets that a channel holds: as many as a pipe of 1 MiB."""


class MemorySender(Sender[R]):
    """The sending end; made by `memory_channel`."""

    def __init__(self, reactor: Reactor, codec: RecordCodec[R], backlog_limit: int) -> None:
        super().__init__(backlog_limit)
        self._reactor = reactor
        self._codec = codec
        self._records: list[bytes] = []
        self._waiting: deque[bytes] = deque()
        self._scheduled = False
        self._peer: MemoryReceiver[R] | None = None

    def send(self, record: R) -> None:
        if self.closed:
            return
        self._put_gathered()
        self._put(record)
        self.soon()

    def _put(self, record: R) -> None:
        data = self._codec.encode(record)
        if len(data) > self._codec.limit:
            raise LocalProtocolError(f"a record of {len(data)} bytes; this channel carries at most {self._codec.limit}")
        self._records.append(data)

    def _put_gathered(self) -> None:
        if self.gathering is not None and self.gathering.count:
            self._put(self.gathering.take())

    def soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.later(self._flush)

    def flush(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        if self.closed:
            return
        self._put_gathered()
        records, self._records = self._records, []
        packets = pack_batches(records)
        self._waiting.extend(packets)
        self.backlog += sum(map(len, packets))
        self.pump()

    def pump(self) -> None:
        """Moves what waits into the channel as far as there is room."""
        peer = self._peer
        if peer is None or self.closed:
            return
        was_full = self.full
        while self._waiting and len(peer.packets) < CAPACITY:
            packet = self._waiting.popleft()
            self.backlog -= len(packet)
            peer.packets.append(packet)
        peer.schedule()
        if was_full and not self.full and self.on_room is not None:
            self.on_room()

    def peer_gone(self) -> None:
        """The receiver was closed."""
        if not self.closed:
            self.close()
            if self.on_closed is not None:
                self.on_closed()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._records, self.backlog = [], 0
            self._waiting.clear()
            if self._peer is not None:
                self._peer.ended = True
                self._peer.schedule()


class MemoryReceiver(Receiver[R]):
    """The receiving end; made by `memory_channel`."""

    def __init__(
        self,
        reactor: Reactor,
        codec: RecordCodec[R],
        sender: MemorySender[R],
        on_record: Callable[[R], None],
        on_closed: Callable[[], None] | None,
    ) -> None:
        self._reactor = reactor
        self._feed = Unpacker(codec).feed
        self._sender = sender
        self.on_record = on_record
        self.on_closed = on_closed
        self.packets: deque[bytes] = deque()
        self.ended = False
        self._closed = False
        self._paused = False
        self._scheduled = False

    def schedule(self) -> None:
        """Delivers at the end of the turn."""
        if not self._scheduled and not self._paused and not self._closed and (self.packets or self.ended):
            self._scheduled = True
            self._reactor.later(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        while self.packets and not self._paused and not self._closed:
            for record in self._feed(self.packets.popleft()):
                if not self._closed:
                    self.on_record(record)
        if self._closed or self._paused:
            return
        if self.ended:
            self._closed = True
            if self.on_closed is not None:
                self.on_closed()
        else:
            self._sender.pump()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self.schedule()
            self._sender.pump()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.packets.clear()
            self._sender.peer_gone()


def memory_channel(
    reactor: Reactor,
    codec: RecordCodec[R],
    on_record: Callable[[R], None],
    on_closed: Callable[[], None] | None = None,
    *,
    backlog_limit: int = 1 << 20,
) -> tuple[MemorySender[R], MemoryReceiver[R]]:
    """Both ends of a channel inside one reactor."""
    sender: MemorySender[R] = MemorySender(reactor, codec, backlog_limit)
    receiver = MemoryReceiver(reactor, codec, sender, on_record, on_closed)
    sender._peer = receiver
    return sender, receiver
