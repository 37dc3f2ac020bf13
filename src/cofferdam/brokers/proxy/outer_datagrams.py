"""What comes by UDP in an outer half: frames of streams, whose each one is and by which socket each leaves; and, at the
port of the connections, questions that come alone (alone).

A datagram is a client's if it comes from the address of a connection of its, on which a stream stands, and fits that.
What is nobody's is dropped and counted: nothing is ever sent to an address that has no connection here, but for groups
that streams of the policy name.

Not here: what a datagram means (the protocol's machine), which sockets there are (policy.terms).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from cofferdam.brokers.kit.datagrams import Datagrams
from cofferdam.brokers.kit.supervision import Listener
from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy.alone import Alone, Askers
from cofferdam.brokers.proxy.clients import Client
from cofferdam.brokers.proxy.outer_standing import Standings
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.protocols.base import FrameReceived, KeptBack


class ClientDatagrams:
    """The sockets of one half, and the clients with streams, by their address. `clients`: those that are connected;
    `hits`: how often each limit was hit; `port`: that of streams' frames; `accept`: takes a question that came alone as
    a client: (its transport, the address and port it came from, those it came to); `tend`: has a client's machine told
    the time."""

    def __init__(
        self,
        reactor: Reactor,
        clients: set[Client],
        standings: Standings,
        inner: Sender[Any],
        hits: dict[str, int],
        port: int,
        accept: Callable[[Transport, str, int, tuple[str, int]], Client | None],
        tend: Callable[[Client], bool],
    ) -> None:
        self._reactor = reactor
        self._clients = clients
        self._standings = standings
        self._inner = inner
        self._hits = hits
        self._port = port
        self._accept = accept
        self._tend = tend
        self._askers = Askers()
        self._sockets: dict[tuple[str, int], Datagrams] = {}
        self._numbers: dict[int, tuple[str, int]] = {}
        self._expected: dict[str, list[Client]] = {}
        self.groups: frozenset[str] = frozenset()
        """Groups of the streams of the policy in force."""

    def serve(self, sock: socket.socket, listener: Listener) -> None:
        """Reads from a socket from now on."""
        place = (listener.address, listener.port)
        self._numbers[sock.fileno()] = place
        if listener.port == self._port:
            self._sockets[place] = Datagrams(self._reactor, sock, self._taken)
        else:
            self._sockets[place] = Datagrams(
                self._reactor, sock, lambda source, port, data: self._asked(place, source, port, data)
            )

    def end(self, sock: socket.socket) -> None:
        """The policy takes it away."""
        place = self._numbers.pop(sock.fileno(), ("", 0))
        found = self._sockets.pop(place, None)
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
            event = client.machine.datagram(port, data, self._reactor.now)
            if isinstance(event, KeptBack):
                self._keep_back(client, event.standing)
                return
            if event is not None:
                self._framed(client, event)
                return
        if not self._expected.get(source, True):
            del self._expected[source]
        self._hits["stray_datagrams"] = self._hits.get("stray_datagrams", 0) + 1

    def _framed(self, client: Client, event: FrameReceived) -> None:
        if client.machine.deadline != client.due:
            self._tend(client)
        if not self._inner.full:  # a frame that is late is worth nothing: the next one follows
            self._standings.frame_received(client, event)

    def _keep_back(self, client: Client, standing: int) -> None:
        """What is kept back of a stream comes once all that waits was read."""
        sock = self._of(client)
        if sock is not None:
            sock.when_read(lambda: self._newest(client, standing))

    def _newest(self, client: Client, standing: int) -> None:
        event = client.machine.newest(standing, self._reactor.now) if client in self._clients else None
        if event is not None:
            self._framed(client, event)

    def _asked(self, place: tuple[str, int], source: str, port: int, data: bytes) -> None:
        """A question came alone."""
        sock = self._sockets[place]
        if not port or not self._askers.take(source, self._reactor.now):
            self._hits["questions_per_second"] = self._hits.get("questions_per_second", 0) + 1
            return
        ended = self._askers.begin(source)
        alone = Alone(self._reactor, lambda answer: sock.send(source, port, answer), ended)
        client = self._accept(alone, source, port, place)
        if client is None:
            return
        alone.on_data(data)
        if not client.outstanding:
            alone.over("no question")

    def send(self, client: Client) -> bool:
        """Sends what a client's machine has for it, or for a group. Returns whether there was anything."""
        found = client.machine.take_datagrams()
        sock = self._of(client)
        for port, data, group in found:
            if group and group not in self.groups:
                continue  # the policy has just taken it away, and the stream is about to end
            if sock is not None:
                sock.send(group or client.source, port, data)
        return bool(found)

    def hear(self, client: Client) -> None:
        """Reads all that waits where this client sends to."""
        sock = self._of(client)
        if sock is not None:
            sock.hear()

    def _of(self, client: Client) -> Datagrams | None:
        everywhere = ("0.0.0.0", self._port)  # noqa: S104 - looked up
        return self._sockets.get((client.local, self._port)) or self._sockets.get(everywhere)
