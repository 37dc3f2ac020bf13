"""The name server: a small process in the office side's namespace that answers for the overlay's zone, by UDP and TCP.

It inherits its sockets and a control pipe, gets the zone over that pipe, puts itself under the system-call filter of
its role, which no option leaves out, and from then on opens nothing. It ends with the gate (end of the control pipe).

Not here: what an answer is (answers), how many there are (pace).
"""

from __future__ import annotations

import argparse
import errno
import functools
import os
import socket
import struct
import sys
from dataclasses import dataclass, field
from typing import Any

from cofferdam.crossing.lone_part import LonePart, run
from cofferdam.crossing.reactor import GONE, READ, WRITE, Reactor
from cofferdam.enforce import sandbox
from cofferdam.enforce.crews import NAMES
from cofferdam.enforce.overlay import pace
from cofferdam.enforce.overlay.answers import QUERY_BYTES, Answers, Question
from cofferdam.enforce.overlay.records import (
    FROM_NAMES,
    TO_NAMES,
    FromNames,
    NamesReady,
    NamesStatus,
    StopNames,
    ToNames,
)
from cofferdam.errors import RemoteProtocolError

CONNECTIONS = 64
"""TCP connections at a time; the one that was silent longest is closed for a new one."""
IDLE_SECONDS = 5.0
"""A connection that asks nothing for so long is closed (RFC 7766, 6.2.3)."""
QUESTIONS = 64
"""Questions of one connection."""
DATAGRAMS_A_TURN = 64
STATUS_SECONDS = 1.0


@dataclass(eq=False)
class _Connection:
    sock: socket.socket
    last: int
    incoming: bytearray = field(default_factory=bytearray)
    outgoing: bytearray = field(default_factory=bytearray)
    asked: int = 0
    ending: bool = False


class Server:
    """Answers on the sockets that it is given, once it has a zone."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.answers: Answers | None = None
        self.questions = self.sent = self.refused = self.limited = self.malformed = 0
        self._pace = pace.Pace(reactor.now)
        self._connections: dict[int, _Connection] = {}

    def serve(self, sock: socket.socket) -> None:
        """Takes a bound UDP socket or a TCP listener."""
        sock.setblocking(False)
        work = self._datagrams if sock.type == socket.SOCK_DGRAM else self._accept
        self.reactor.add(sock.fileno(), READ, functools.partial(work, sock))

    def status(self) -> NamesStatus:
        return NamesStatus(
            self.questions, self.sent, self.refused, self.limited, self.malformed, len(self._connections)
        )

    def _answer(self, data: bytes, *, stream: bool) -> bytes:
        """Raises: RemoteProtocolError."""
        if self.answers is None:
            raise RemoteProtocolError("there is no zone yet", section="")
        reply = self.answers.answer(data, stream=stream)
        self.refused += reply[3] & 15 == 5
        return reply

    # --- UDP ----------------------------------------------------------------------------------------------------

    def _datagrams(self, sock: socket.socket, _events: int) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                # One byte more than a question has: a longer one is seen to be longer.
                data, peer = sock.recvfrom(QUERY_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an answer of ours
            self.questions += 1
            try:
                reply = self._paced(data, peer[0])
            except RemoteProtocolError:
                self.malformed += 1
                continue
            if reply and peer[1]:
                try:
                    sock.sendto(reply, peer)
                    self.sent += 1
                except OSError:
                    self.limited += 1  # no room, or no way there: it asks again

    def _paced(self, data: bytes, source: str) -> bytes:
        allowed = self._pace.ask(source, self.reactor.now)
        if allowed == pace.ANSWER:
            return self._answer(data, stream=False)
        self.limited += 1
        if allowed == pace.SHORT and self.answers is not None:
            return self.answers.truncated(Question(data))
        return b""

    # --- TCP ----------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, _events: int) -> None:
        for _ in range(16):
            try:
                sock, _peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM) and self._connections:
                    self._drop_oldest()
                    continue
                return
            sock.setblocking(False)
            if len(self._connections) >= CONNECTIONS:
                self._drop_oldest()
            connection = _Connection(sock, self.reactor.now)
            self._connections[sock.fileno()] = connection
            self.reactor.add(sock.fileno(), READ, functools.partial(self._stream, connection))

    def _drop_oldest(self) -> None:
        self._close(min(self._connections.values(), key=lambda connection: connection.last))

    def _close(self, connection: _Connection) -> None:
        fd = connection.sock.fileno()
        if self._connections.pop(fd, None) is not None:
            self.reactor.remove(fd)
            connection.sock.close()

    def _stream(self, connection: _Connection, events: int) -> None:
        try:
            if events & WRITE:
                self._flush(connection)
            if events & (READ | GONE) and not connection.ending:
                data = os.read(connection.sock.fileno(), 4096)
                connection.last = self.reactor.now
                connection.ending = not data
                connection.incoming += data
                self._take(connection)
                self._flush(connection)
        except BlockingIOError:
            return
        except RemoteProtocolError:
            self.malformed += 1
            self._close(connection)
        except OSError:
            self._close(connection)

    def _take(self, connection: _Connection) -> None:
        """Each question has its length before it (RFC 1035, 4.2.2)."""
        incoming = connection.incoming
        while len(incoming) >= 2:
            length = struct.unpack_from(">H", incoming)[0]
            if length > QUERY_BYTES:
                raise RemoteProtocolError(f"a question of {length} bytes", section="RFC 1035, 4.2.2")
            if len(incoming) < 2 + length:
                return
            data = bytes(incoming[2 : 2 + length])
            del incoming[: 2 + length]
            self.questions += 1
            connection.asked += 1
            reply = self._answer(data, stream=True)
            connection.outgoing += struct.pack(">H", len(reply)) + reply
            self.sent += 1
            if connection.asked >= QUESTIONS:
                connection.ending = True
                return

    def _flush(self, connection: _Connection) -> None:
        fd, outgoing = connection.sock.fileno(), connection.outgoing
        try:
            while outgoing:
                del outgoing[: os.write(fd, outgoing)]
        except BlockingIOError:
            self.reactor.change(fd, WRITE)  # and reads no more of one that does not read
            return
        if connection.ending:
            self._close(connection)
        else:
            self.reactor.change(fd, READ)

    def tick(self) -> None:
        """To be called every second: closes the connections that are silent."""
        before = self.reactor.now - int(IDLE_SECONDS * 1e9)
        for connection in [connection for connection in self._connections.values() if connection.last < before]:
            self._close(connection)


class NamesProcess(LonePart[ToNames, FromNames]):
    """The process around a server."""

    name = "name server"

    def __init__(self, control_in: int, control_out: int, sockets: list[int]) -> None:
        super().__init__(reactor := Reactor(), control_in, control_out, TO_NAMES, FROM_NAMES)
        self._server = Server(reactor)
        self._sockets = [socket.socket(fileno=fd) for fd in sockets]
        self._facts: tuple[tuple[str, bool, str], ...] | None = None

    def heard(self, record: ToNames) -> bool:
        if isinstance(record, StopNames):
            return False
        self._server.answers = Answers(record.zone)
        if self._facts is None:
            for sock in self._sockets:
                self._server.serve(sock)
            self._facts = sandbox.confine(NAMES.parts["names"])
            self._reactor.call_in(STATUS_SECONDS, self._tick)
        self._gate.send(NamesReady(record.zone.serial, self._facts))
        return True

    def _tick(self) -> None:
        self._server.tick()
        if not self._gate.full:
            self._gate.send(self._server.status())
        self._reactor.call_in(STATUS_SECONDS, self._tick)


def _made(args: argparse.Namespace) -> LonePart[Any, Any]:
    sockets = range(args.listeners_at, args.listeners_at + args.listeners)
    return NamesProcess(args.control_in, args.control_out, list(sockets))


def main() -> int:
    return run("names", _made, ("listeners-at", "listeners"))


if __name__ == "__main__":
    sys.exit(main())
