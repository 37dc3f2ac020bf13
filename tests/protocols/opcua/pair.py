"""Both machines in one process, joined by nothing but bytes: a client of ours in the place of any client and of the
plant's server, with a clock of the test's own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cofferdam.errors import RemoteProtocolError
from cofferdam.model import Asset, Item, Method, Point, Security
from cofferdam.protocols.base import NEED_DATA, Facing, LocalAnswer, Released, RequestReceived, RequestRefused
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import together
from cofferdam.protocols.opcua.machine import OpcUaClient, OpcUaServer
from cofferdam.protocols.opcua.trust import Secret, Trust
from cofferdam.values import ValueType

SPEED, LEVEL = "nsu=urn:plant:line;s=Line1.Speed", "nsu=urn:plant:line;s=Line1.Level"
RESET = "nsu=urn:plant:line;s=Line1 -> nsu=urn:plant:line;s=Line1.Reset"
WALL = time.time_ns()


def asset(word: str = "none") -> Asset:
    """The asset, spoken with in the same way on both sides."""
    return Asset(
        name="filler", zone="plant", address="127.0.0.1", port=4840, protocol="opcua", unit=-1,
        listen=("127.0.0.1", 4841), outstanding=8,
        points=(
            Point("level", Item("node", LEVEL), ValueType.FLOAT64),
            Point("speed", Item("node", SPEED), ValueType.FLOAT64),
        ),
        methods=(Method("reset", Item("method", RESET)),), security=Security((word,), word),
    )  # fmt: skip


def trust(own: Path | None = None, *trusted: Path) -> Trust:
    """What a part knows: its own key's folder, and whom it trusts."""
    if own is None:
        return Trust({})
    secret = Secret(
        key=(own / "own.pem").read_text(),
        certificate=(own / "own.der").read_bytes(),
        trusted=tuple((one / "own.der").read_bytes() for one in trusted),
    )
    return Trust({"opcua": msgspec.json.encode(secret)})


def facing(common: Trust, word: str = "none", may: Callable[[Any], bool] = lambda _op: True) -> Facing:
    """Where a machine stands."""
    return Facing(common, asset(word), os.urandom, lambda: WALL, may, lambda _verb, _item: True, "10.1.0.20",
                  ("127.0.0.1", 4841))  # fmt: skip


class Pair:
    """A client machine and a server machine. `step` bytes go at a time, if it is not 0."""

    def __init__(self, server: OpcUaServer, client: OpcUaClient, step: int = 0, now: int = 10**9) -> None:
        self.server = server
        self.client = client
        self.step = step
        self.now = now
        self.asked: list[tuple[int, Any]] = []
        """What would cross: (token, request)."""
        self.heard: list[Any] = []
        """The client's events."""
        self.refused: list[str] = []
        """What the server has refused, as the log is told."""
        self.server_error: RemoteProtocolError | None = None
        self.client_error: RemoteProtocolError | None = None
        server.on_time(self.now)
        client.on_time(self.now)

    def run(self) -> Pair:
        """Until neither end has anything to say."""
        while True:
            to_server, to_client = self.client.take_output(), self.server.take_output()
            if not to_server and not to_client:
                if self.client.deadline != 1 or self.client_error is not None:
                    return self
                self.client.on_time(self.now)  # it has asked to be told the time at once
                self.to_client(b"")
            self.to_server(to_server)
            self.to_client(to_client)

    def later(self, ns: int) -> Pair:
        """So much later."""
        self.now += ns
        self.server.on_time(self.now)
        self.client.on_time(self.now)
        self.to_server(b"")
        self.to_client(b"")
        return self.run()

    def pieces(self, data: bytes) -> list[bytes]:
        return [data[at : at + self.step] for at in range(0, len(data), self.step)] if self.step else [data]

    def to_server(self, data: bytes) -> None:
        for piece in self.pieces(data):
            if self.server_error is not None:
                return
            self.server.receive_data(piece)
            try:
                while (event := self.server.next_event()) is not NEED_DATA:
                    self._server_event(event)
            except RemoteProtocolError as error:
                self.server_error = error

    def _server_event(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self.asked.append((event.token, event.request))
        elif isinstance(event, (LocalAnswer, RequestRefused, Released)):
            if isinstance(event, RequestRefused):
                self.refused.append(event.detail)
            self.to_client(self.server.send(event.token, event.reply))

    def to_client(self, data: bytes) -> None:
        for piece in self.pieces(data):
            if self.client_error is not None:
                return
            self.client.receive_data(piece)
            try:
                while (event := self.client.next_event()) is not NEED_DATA:
                    self.heard.append(event)
            except RemoteProtocolError as error:
                self.client_error = error

    def answer(self, response: Any) -> None:
        """Answers the oldest request that would have crossed."""
        token, _ = self.asked.pop(0)
        self.to_client(self.server.send(token, response))
        self.run()


def plain(step: int = 0, may: Callable[[Any], bool] = lambda _op: True) -> Pair:
    """A pair without security, established."""
    return Pair(OpcUaServer(facing(trust(), may=may)), OpcUaClient(facing(trust()), 8), step).run()


def samples(response: Any) -> tuple[m.Sample, ...]:
    """The values of an answer to a read, whichever way they cross."""
    found: tuple[m.Sample, ...] = (together.one_by_one(response) if type(response) is m.Numbers else response).samples
    return found
