"""Clients to whom the outer half opens the connection, for protocols in which who serves may do so (an asset's
`reverse: clients:`).

There is one connection to each, which is theirs to use; when it ends, or nobody there takes it, another is opened after
a pause that doubles as long as nothing is asked. What a client may is judged as if it had come by itself.

Not here: where the firewall lets the part go (policy.terms.proxy), what is said first (the protocol's machine).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy.clients import Client
from cofferdam.model import Asset

PAUSE_NS, MOST_PAUSE_NS = 1_000_000_000, 30_000_000_000
CONNECT_NS = 10_000_000_000
"""So long a connection may take to come up."""


class _Call:
    """One client of one asset. Times: monotonic ns."""

    __slots__ = ("at", "client", "pause", "since", "transport")

    def __init__(self) -> None:
        self.client: Client | None = None
        self.transport: Transport | None = None  # while it comes up
        self.since = 0
        self.at = 0  # no sooner is the next one opened
        self.pause = 0


class Calls:
    """All of them. `take_in(transport, address, port, local, dialled=True)` makes a client of a connection, or turns it
    away; `close` ends one of `clients`."""

    def __init__(
        self,
        dial: Callable[[str, int, Callable[[], None]], Transport],
        take_in: Callable[..., Client | None],
        close: Callable[[Client, str], None],
        clients: set[Client],
        clock: Callable[[], int],
    ) -> None:
        self._dial = dial
        self._take_in = take_in
        self._close = close
        self._clients = clients
        self._clock = clock
        self.wanted: dict[tuple[str, tuple[str, int]], tuple[str, int]] = {}
        """By asset and client: where the asset is published."""
        self._calls: dict[tuple[str, tuple[str, int]], _Call] = {}

    def take(self, assets: Iterable[Asset]) -> None:
        """These are the policy's from now on. Connections to clients that it names no more end."""
        self.wanted = {
            (asset.name, client): asset.listen
            for asset in assets
            for client in asset.clients
            if asset.listen is not None
        }
        for key in self._calls.keys() - self.wanted.keys():
            call = self._calls.pop(key)
            if call.transport is not None:
                call.transport.close()
            if call.client is not None:
                self._close(call.client, "the policy does not have it connected to any more")

    def tick(self, known: Callable[[str], bool]) -> None:
        """Opens what is due. `known`: whether anybody comes from an address, to whom alone connections are opened."""
        now = self._clock()
        for key, place in self.wanted.items():
            call = self._calls.get(key)
            if call is None:
                call = self._calls[key] = _Call()
            if call.transport is not None:
                if now - call.since > CONNECT_NS:
                    call.transport.close()
                    self._again(call, False)
            elif call.client is not None:
                if call.client not in self._clients:
                    self._again(call, call.client.requests > 0)
            elif now >= call.at and known(key[1][0]):
                self._open(call, key[1], place)

    def _again(self, call: _Call, used: bool) -> None:
        call.client = call.transport = None
        call.pause = PAUSE_NS if used or not call.pause else min(call.pause * 2, MOST_PAUSE_NS)
        call.at = self._clock() + call.pause

    def _open(self, call: _Call, client: tuple[str, int], place: tuple[str, int]) -> None:
        call.since = self._clock()
        try:
            transport = self._dial(*client, functools.partial(self._up, call, client, place))
        except OSError:
            self._again(call, False)
            return
        call.transport = transport
        transport.on_data = _nothing
        transport.on_closed = lambda _reason: self._again(call, False)

    def _up(self, call: _Call, client: tuple[str, int], place: tuple[str, int]) -> None:
        transport, call.transport = call.transport, None
        if transport is None:
            return
        call.client = self._take_in(transport, *client, place, dialled=True)
        if call.client is None:
            self._again(call, False)


def _nothing(_data: Any) -> None:
    """Nothing is read before the connection is up."""
