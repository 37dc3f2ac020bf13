"""Who connects again and again is turned away before anything is made of a connection."""

from __future__ import annotations

import socket

from cofferdam.brokers.kit.transport import Transport
from tests.brokers.test_last_words import Shut, process_of
from tests.ports import held_ports


class Door(Shut):
    """One to which some come too fast."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[str] = []
        self.transports: list[Transport] = []

    def is_hasty(self, source: str) -> bool:
        return source == "127.0.0.2"

    def accept(self, transport: Transport, source: str, port: int, local: tuple[str, int]) -> None:
        self.came.append(source)
        self.transports.append(transport)


def test_the_hasty_are_closed_unlooked_at_and_the_others_taken() -> None:
    process, _ = process_of(door := Door(), "modbus", "outer")
    (port,) = held_ports(1)
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.setblocking(False)
        clients = [
            socket.create_connection(("127.0.0.1", port), 60, (source, 0))
            for source in ("127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.4")
        ]
        process._accept(listener)
        assert door.came == ["127.0.0.3", "127.0.0.4"]
        for client in (clients[0], clients[2]):
            assert client.recv(1) == b"", "closed"
        for client in clients:
            client.close()
        for transport in door.transports:
            transport.close()
