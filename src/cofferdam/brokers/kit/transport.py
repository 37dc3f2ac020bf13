"""A byte stream to one peer, and the TCP one that runs on the reactor.

A broker writes to a `Transport` and is called back with what arrives. Tests give it a transport of their own; the
TCP transport is the one that production uses. Not here: what the bytes mean, limits other than the buffers'.
"""

from __future__ import annotations

import abc
import errno
import functools
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from mypy_extensions import mypyc_attr

from cofferdam.crossing.reactor import GONE, READ, WRITE, Reactor

RECEIVE_BYTES: Final = 2048
"""Read from a socket at once: a few frames. A larger buffer costs more than it saves, since a new one is made for each
read."""

SEND_BUFFER_BYTES = 65536
"""Asked of the kernel for one socket. Left alone it grows to megabytes for a peer that does not read."""


# Named here, these are found without a look into the module.
_read: Final = os.read
_write: Final = os.write


def _ignore(_said: object) -> None:
    return


@mypyc_attr(allow_interpreted_subclasses=True)
class Transport(abc.ABC):
    """One connection. `on_data` and `on_closed` are set by its owner right after it is made."""

    on_data: Callable[[bytes], None]
    on_closed: Callable[[str], None]
    """Called once, with the reason, when the peer or the network ended the connection; not after `close()`."""
    on_end: Callable[[], bool] | None = None
    """Asked when the peer has closed its sending half: whether it is still to be answered. Nothing more is read then,
    and who set this closes the connection when all is said. None: such a connection is over (`on_closed`)."""
    secure: bool = False
    """Whether it is one in which both ends have to show who they are (kit.tls_stream)."""
    unsent: int = 0
    """Bytes that were written and that the peer has not made room for."""

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Sends, or queues what the socket does not take."""

    def say_last(self, data: bytes) -> None:
        """Sends at once, before `close()`: past what was written in this turn and is still to leave, which is lost."""
        self.write(data)

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the connection now. What is unsent is lost."""

    def deafen(self) -> None:
        """Of one that is closed: its owner is forgotten. The two would hold each other, and the collector does not look
        through what has lived for long, as connections do, but now and then (half)."""
        self.on_data = self.on_closed = _ignore
        self.on_end = None

    @abc.abstractmethod
    def pause(self) -> None:
        """Reads nothing more until `resume()`; the peer is held back by TCP's own window."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Reads again. What has come meanwhile arrives before this turn of the loop ends."""


class TcpTransport(Transport):
    """A connected, or connecting, TCP socket on the reactor. Owns the socket.

    `gather`: what is written in one turn of the reactor leaves in one go at its end, but for the first of a turn with a
    single event, which leaves at once. For a connection that many share this spares most of the system calls and
    segments; for one client's answers it would only be a delay.
    """

    def __init__(
        self, reactor: Reactor, sock: socket.socket, *, connecting: bool = False, gather: bool = False
    ) -> None:
        self._reactor = reactor
        self._sock = sock
        # read and write on the descriptor: Python's own socket methods do the same with more work around them.
        self._fd = sock.fileno()
        self._out: list[bytes] = []
        self._open = True
        self._paused = False
        self._ended = False  # the peer has closed its sending half
        self._connecting = connecting
        self._gather = gather
        self._gathered: list[bytes] = []
        self.on_connected: Callable[[], None] | None = None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        reactor.add(self._fd, WRITE if connecting else READ, self._on_event)

    @classmethod
    def connect(cls, reactor: Reactor, address: str, port: int) -> TcpTransport:
        """Begins to connect; `on_connected` or `on_closed` follows. Raises OSError if it fails at once."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            code = sock.connect_ex((address, port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            return cls(reactor, sock, connecting=True, gather=True)
        except BaseException:
            sock.close()
            raise

    def _on_event(self, events: int) -> None:
        if self._connecting:
            self._finish_connect()
            return
        if events & READ:
            try:
                data = _read(self._fd, RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(error.strerror or str(error))
                return
            if not data:
                if self.on_end is None or not self.on_end():
                    self._lost("closed by the peer")
                else:
                    self._stop_reading()
                return
            self.on_data(data)
        elif events & GONE:
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._lost(os.strerror(code) if code else "closed by the peer")
            return
        if events & WRITE and self._open:
            self._flush()

    def _finish_connect(self) -> None:
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._lost(os.strerror(code))
            return
        self._connecting = False
        self._rearm()
        if self.on_connected is not None:
            self.on_connected()
        if self._out and self._open:
            self._flush()

    def write(self, data: bytes) -> None:
        if not self._gather or (self._reactor.alone and not self._gathered):
            self._reactor.alone = False
            self._send(data)
        elif self._open:
            if not self._gathered:
                self._reactor.later(self._send_gathered)
            self._gathered.append(data)

    def say_last(self, data: bytes) -> None:
        self._send(data)

    def _send_gathered(self) -> None:
        parts, self._gathered = self._gathered, []
        if parts:
            self._send(parts[0] if len(parts) == 1 else b"".join(parts))

    def _send(self, data: bytes) -> None:
        if not self._open:
            return
        if self._out or self._connecting:
            self._out.append(data)
            self.unsent += len(data)
            return
        try:
            sent = _write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            # Not from inside the writer's own call: it may be half way through its own bookkeeping.
            self._reactor.later(functools.partial(self._lost, error.strerror or str(error)))
            return
        if sent < len(data):
            self._out.append(data[sent:])
            self.unsent += len(data) - sent
            self._rearm()

    def _flush(self) -> None:
        try:
            while self._out:
                data = self._out[0]
                sent = os.write(self._fd, data)
                self.unsent -= sent
                if sent < len(data):
                    self._out[0] = data[sent:]
                    return
                self._out.pop(0)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        self._rearm()

    def _rearm(self) -> None:
        self._reactor.change(self._fd, (0 if self._paused else READ) | (WRITE if self._out else 0))

    def _stop_reading(self) -> None:
        """The peer sends no more: what would be read for ever is its end."""
        if self._open:
            self._ended = self._paused = True
            self._rearm()

    def pause(self) -> None:
        if self._open and not self._paused:
            self._paused = True
            if not self._connecting:
                self._rearm()

    def resume(self) -> None:
        if self._open and self._paused and not self._ended:
            self._paused = False
            if not self._connecting:
                self._rearm()
                self._reactor.later(self._look)

    def _look(self) -> None:
        """Reads what has come while nothing was read."""
        if self._open and not self._paused:
            self._on_event(READ)

    def _lost(self, reason: str) -> None:
        if self._open:
            self.close()
            self.on_closed(reason)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._reactor.remove(self._fd)
            self._sock.close()
            self._out, self._gathered, self.unsent = [], [], 0


def place_of(name: tuple[Any, ...]) -> tuple[str, int]:
    """Address and port; an IPv4 address that a dual-stack listener shows as IPv6, in its own form."""
    address = str(name[0])
    return address.removeprefix("::ffff:") if "." in address else address, int(name[1])
