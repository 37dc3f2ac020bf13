"""The pipe channel: one `pipe2(O_DIRECT)` per direction, a packet per write (pipe(7)).

A pipe and not a socket pair: a Unix socket can carry file descriptors (SCM_RIGHTS), so a broken half could hand a
live plant-side socket to the office side. A pipe carries bytes and nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Callable
from typing import Final, TypeVar

from cofferdam.crossing.channel import Receiver, Sender
from cofferdam.crossing.framing import ANEW, PACKET, mark, pack, pack_batches
from cofferdam.crossing.reactor import GONE, READ, WRITE, Reactor
from cofferdam.crossing.records import RecordCodec, Unpacker
from cofferdam.errors import CrossingError, LocalProtocolError

R = TypeVar("R")

PIPE_BYTES = 1 << 20
"""Room asked for in a pipe. A default pipe holds 16 packets only, whatever their size."""
PIPE_PACKETS = PIPE_BYTES // PACKET
"""No more lie in a pipe at once."""
PACKETS_A_TURN: Final = 64
"""Packets read in one turn, so that a busy crossing does not starve the sockets."""


# Named here, these are found without a look into the module.
_read: Final = os.read
_write: Final = os.write


def make_pipe() -> tuple[int, int]:
    """A packet pipe: (read end, write end), non-blocking, closed on exec."""
    read_end, write_end = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
    # Above the user's soft limit of pipe pages the kernel refuses; the pipe then just fills earlier.
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


class PipeSender(Sender[R]):
    """The write end of a pipe. Owns the descriptor.

    `batches`: the other end is a `PipeReceiver`, which takes many records in one go.
    """

    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        codec: RecordCodec[R],
        *,
        backlog_limit: int = 1 << 20,
        batches: bool = False,
    ) -> None:
        super().__init__(backlog_limit)
        self._pack = pack_batches if batches else pack
        self._reactor = reactor
        self._fd = fd
        self._encode = codec.encode
        self._limit = codec.limit
        self._records: list[bytes] = []
        self._packets: list[bytes] = []  # packed, waiting for room, oldest first
        self._scheduled = False
        self._armed = False
        self._away = False
        os.set_blocking(fd, False)

    def send(self, record: R) -> None:
        if self.closed or self._away:
            return
        gathering = self.gathering
        if gathering is not None and gathering.count:
            self._put(gathering.take())
        self._put(record)
        self.soon()

    def soon(self) -> None:
        if self._scheduled:
            return
        if self._reactor.alone:
            self._reactor.alone = False
            self._flush()
        else:
            self._scheduled = True
            self._reactor.later(self._flush)

    def _put(self, record: R) -> None:
        data = self._encode(record)
        if len(data) > self._limit:
            raise LocalProtocolError(f"a record of {len(data)} bytes; this channel carries at most {self._limit}")
        self._records.append(data)

    def flush(self) -> None:
        """Sends now, as far as there is room, what would leave at the end of the turn."""
        self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        if self.closed:
            return
        gathering = self.gathering
        if gathering is not None and gathering.count:
            self._put(gathering.take())
        records, self._records = self._records, []
        packets = self._pack(records)
        if self._packets:  # the pipe was full before: keep the order
            self._packets += packets
            self.backlog += sum(map(len, packets))
            return
        self._write(packets)

    def _write(self, packets: list[bytes]) -> None:
        fd = self._fd
        done = 0
        try:
            for packet in packets:
                _write(fd, packet)  # at most PIPE_BUF bytes: all of it or BlockingIOError
                done += 1
        except BlockingIOError:
            was_full = self.full
            self._packets = packets[done:]
            self.backlog = sum(map(len, self._packets))
            if not self._armed:
                self._armed = True
                self._reactor.add(fd, WRITE, self._on_event)
            if was_full and not self.full and self.on_room is not None:
                self.on_room()
        except BrokenPipeError:
            # Not from inside the writer's own call: it may be half way through its own bookkeeping.
            self._reactor.later(self._gone)
        else:
            was_full = self.full
            self._packets, self.backlog = [], 0
            if self._armed:
                self._armed = False
                self._reactor.remove(fd)
            if was_full and self.on_room is not None:
                self.on_room()

    def _on_event(self, events: int) -> None:
        if events & GONE:
            self._gone()
        else:
            self._write(self._packets)

    def away(self) -> None:
        """The process at the other end has ended, and another will come: what waits for it goes nowhere, and so does
        what is sent until then."""
        was_full = self.full
        self._away, self._records, self._packets, self.backlog = True, [], [], 0
        if self._armed:
            self._armed = False
            self._reactor.remove(self._fd)
        if was_full and self.on_room is not None:
            self.on_room()

    def anew(self, life: int) -> None:
        """It has come, or it is this process: what is sent from now on is for this life of it."""
        self.away()
        self._away = False
        if not self.closed:
            self._write([mark(life)])

    def _gone(self) -> None:
        if self.closed:
            return
        self.close()
        if self.on_closed is not None:
            self.on_closed()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self._armed:
                self._reactor.remove(self._fd)
            self._records, self._packets, self.backlog = [], [], 0
            os.close(self._fd)


class PipeReceiver(Receiver[R]):
    """The read end of a pipe. Owns the descriptor."""

    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        codec: RecordCodec[R],
        on_record: Callable[[R], None],
        on_closed: Callable[[], None] | None = None,
        on_violation: Callable[[CrossingError], None] | None = None,
        packets: int = PACKETS_A_TURN,
        on_anew: Callable[[int], None] | None = None,
        life: int = 0,
    ) -> None:
        """`on_violation` is called, once, with what the other end did wrong; the pipe is closed then. Without it the
        error goes on its way, which ends the loop. `packets`: so many are read in a turn. `on_anew` is called with the
        number of each life of the process at the other end but its first. `life`: this process has a pipe that one
        before it had; what is not for this life of it is thrown away unread."""
        self._reactor = reactor
        self._fd = fd
        self._codec = codec
        self._feed = Unpacker(codec).feed
        self._on_anew = on_anew
        self._life, self._skips = life, life > 0
        self.on_record = on_record
        self.on_closed = on_closed
        self.on_violation = on_violation
        self._packets = packets
        self._closed = False
        self._paused = False
        os.set_blocking(fd, False)
        reactor.add(fd, READ, self._on_event)

    def _on_event(self, _events: int) -> None:
        try:
            fd = self._fd
            for _ in range(self._packets):
                try:
                    packet = _read(fd, PACKET)
                except BlockingIOError:
                    return
                if not packet:
                    self.close()
                    if self.on_closed is not None:
                        self.on_closed()
                    return
                if packet[0] == ANEW or self._skips:
                    self._marked(packet)
                    continue
                records = self._feed(packet)
                on_record = self.on_record
                for record in records:
                    on_record(record)
                    if self._closed:
                        return
                # A lone record is the rule at low load: spare the read that would find the pipe empty. epoll is
                # level-triggered, so whatever is left comes with the next turn.
                if len(records) <= 1 and len(packet) < PACKET // 2:
                    return
                if self._paused:
                    return
        except CrossingError as error:
            if self.on_violation is None:
                raise
            self.close()
            self.on_violation(error)

    def _marked(self, packet: bytes) -> None:
        """A mark, or what lies before the one that is waited for."""
        if self._skips:
            self._skips = packet != mark(self._life)
            return
        life = int.from_bytes(packet[1:])
        if self._on_anew is None or packet != mark(life & 0xFFFFFFFF) or life <= self._life:
            raise CrossingError("a life begins that is none")
        self._life, self._feed = life, Unpacker(self._codec).feed
        self._on_anew(life)

    def drain(self) -> None:
        """Takes all that lies in the pipe now: the last words of an other end that has gone. One that has not, and
        talks without end, is not waited for."""
        look = select.poll()
        look.register(self._fd, select.POLLIN)
        for _ in range(PIPE_PACKETS):
            if self._closed or self._paused or not look.poll(0):
                return
            self._on_event(READ)

    def pause(self) -> None:
        if not self._paused and not self._closed:
            self._paused = True
            self._reactor.remove(self._fd)

    def resume(self) -> None:
        if self._paused and not self._closed:
            self._paused = False
            self._reactor.add(self._fd, READ, self._on_event)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._reactor.remove(self._fd)
            os.close(self._fd)
