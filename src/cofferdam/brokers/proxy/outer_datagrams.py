"""Streams whose frames come by UDP, in an outer half: whose each one is, and by which socket each leaves.

A datagram is a client's if it comes from the address of a connection of its, on which a stream stands, and fits that.
What is nobody's is dropped and counted: nothing is ever sent to an address that has no connection here.

Not here: what a datagram means (the protocol's machine), which sockets there are (policy.terms).
"""

from __future__ import annotations

import socket
from typing import Any

from cofferdam.brokers.kit.datagrams import Datagrams
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.brokers.proxy.clients import Client
from cofferdam.brokers.proxy.outer_standing import Standings
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor


class ClientDatagrams:
    """The sockets of one half, and the clients with streams, by their address. `clients`: those that are connected;
    `hits`: how often each limit was hit."""

    def __init__(
        self, reactor: Reactor, clients: set[Client], standings: Standings, inner: Sender[Any], hits: dict[str, int]
    ) -> None:
        self._reactor = reactor
        self._clients = clients
        self._standings = standings
        self._inner = inner
        self._hits = hits
        self._sockets: dict[str, Datagrams] = {}
        self._numbers: dict[int, str] = {}
        self._expected: dict[str, list[Client]] = {}

    def serve(self, sock: socket.socket, listener: Listener) -> None:
        """Reads from a socket from now on."""
        self._numbers[sock.fileno()] = listener.address
        self._sockets[listener.address] = Datagrams(self._reactor, sock, self._taken)

    def end(self, sock: socket.socket) -> None:
        """The policy takes it away."""
        address = self._numbers.pop(sock.fileno(), "")
        found = self._sockets.pop(address, None)
        if found is not None:
            found.forget()

    def expect(self, client: Client) -> None:
        """A stream of this client stands."""
        known = self._expected.setdefault(client.source, [])
        if client not in known:
            known.append(client)

    def _taken(self, source: str, port: int, data: bytes) -> None:
        for client in list(self._expected.get(source, ())):
            if client not in self._clients or not client.standing:
                self._expected[source].remove(client)
                continue
            client.machine.on_time(self._reactor.now)
            event = client.machine.datagram(port, data)
            if event is not None:
                if not self._inner.full:  # a frame that is late is worth nothing: the next one follows
                    self._standings.frame_received(client, event)
                return
        if not self._expected.get(source, True):
            del self._expected[source]
        self._hits["stray_datagrams"] = self._hits.get("stray_datagrams", 0) + 1

    def send(self, client: Client) -> None:
        """Sends what a client's machine has for it."""
        for port, data in client.machine.take_datagrams():
            sock = self._sockets.get(client.local) or self._sockets.get("0.0.0.0")  # noqa: S104 - looked up
            if sock is not None:
                sock.send(client.source, port, data)
