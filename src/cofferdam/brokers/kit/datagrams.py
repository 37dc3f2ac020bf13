"""A bound UDP socket on the reactor: datagrams in, each with where it came from, and out.

Not here: who may send (the firewall, and whoever is called back), what they mean.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from cofferdam.crossing.reactor import READ, Reactor

DATAGRAMS_A_TURN = 64
"""Taken from one socket before others have their turn."""
WAITING = 512
"""Read of one socket before somebody is taken for silent: more than its buffer holds, as the kernel makes it."""
LONGEST = 2048
"""Bytes of one datagram that are looked at; what is longer is cut, and so fits nothing."""


class Datagrams:
    """The socket, which belongs to it. `on_datagram(address, port, data)`."""

    def __init__(self, reactor: Reactor, sock: socket.socket, on_datagram: Callable[[str, int, bytes], None]) -> None:
        self._reactor = reactor
        self._sock = sock
        self._on_datagram = on_datagram
        self._heard = 0
        self._then: list[Callable[[], None]] = []
        self._left = 0  # to be read before these are called
        self.unsent = 0
        """Datagrams that the kernel did not take: the network is down, or its buffer full."""
        sock.setblocking(False)
        reactor.add(sock.fileno(), READ, self._on_event)

    def _on_event(self, _events: int) -> None:
        self._read(DATAGRAMS_A_TURN)

    def hear(self) -> None:
        """Reads all that waits. To be called before somebody is taken for silent: where this process had no turn for a
        while, what came in time waits here. Once a turn, for whoever else may be silent as well: a flood must not keep
        this half at it."""
        if self._heard != self._reactor.now:
            self._heard = self._reactor.now
            self._read(WAITING)

    def _read(self, most: int) -> None:
        for _ in range(most):
            try:
                data, source = self._sock.recvfrom(LONGEST)
            except OSError:
                self._left = 0
                break
            self._left -= 1
            address: Any = source[0]
            self._on_datagram(address.removeprefix("::ffff:"), int(source[1]), data)
        if self._then and self._left <= 0:
            calls, self._then = self._then, []
            for call in calls:
                call()

    def when_read(self, call: Callable[[], None]) -> None:
        """Calls once all that waits now was read, and `WAITING` at the latest: a flood has no end."""
        if not self._then:
            self._left = WAITING
        self._then.append(call)

    def send(self, address: str, port: int, data: bytes) -> None:
        """Sends one, or loses it: who sends datagrams counts on that."""
        try:
            self._sock.sendto(data, (address, port))
        except OSError:
            self.unsent += 1

    def close(self) -> None:
        """Reads and sends nothing more."""
        self.forget()
        self._sock.close()

    def forget(self) -> None:
        """Reads nothing more; the socket is closed by whoever opened it."""
        self._reactor.remove(self._sock.fileno())


def bound(port: int) -> socket.socket:
    """An IPv4 socket at this port of all of the process's own addresses, or at any port where that one is taken."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind(("", port))
    except OSError:
        sock.bind(("", 0))
    return sock
