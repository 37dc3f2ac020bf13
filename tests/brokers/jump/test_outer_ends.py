"""A connection of the jump server's door that has ended goes by itself: what strangers leave behind is not left to the
collector, for which everybody else would have to wait."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import subprocess
import weakref
from collections.abc import Callable
from typing import Any

import asyncssh
import pytest

from cofferdam.brokers.jump.outer_ssh import GateConnection, options
from cofferdam.brokers.jump.turns import Turns
from cofferdam.brokers.kit import aio
from tests.waiting import comes_true

TIMES = 3
SSH = ("ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o",
       "BatchMode=yes", "-o", "PreferredAuthentications=none", "nobody@127.0.0.1", "-p")  # fmt: skip


class Keeper:
    """Signs, and knows nobody. Strangers wait for their turn each time that they say something."""

    certificates = ports = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.in_turn = Turns(loop, 0).add
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.signed = 0

    def exchange(self, connection: GateConnection, digest: bytes) -> None:
        self.signed += 1
        asyncio.get_running_loop().call_soon(connection.signed, self.key.sign(digest, b"ssh-ed25519"))

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


Stranger = Callable[[int], subprocess.Popen[bytes] | None]


def comes_and_goes(port: int) -> None:
    socket.create_connection(("127.0.0.1", port)).close()


def talks(port: int) -> None:
    """Says what is no version."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"x" * 20_000)


def exchanges_keys(port: int) -> subprocess.Popen[bytes]:
    """In a process that goes on meanwhile: this one serves it."""
    return subprocess.Popen((*SSH, str(port)), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("stranger", [comes_and_goes, talks, exchanges_keys])
def test_what_has_ended_is_gone(stranger: Stranger) -> None:
    came: list[weakref.ref[Any]] = []
    clients: list[subprocess.Popen[bytes] | None] = []

    async def serves(keeper: Keeper) -> None:
        hooks: Any = keeper
        said = options(keeper.key.public_data)
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as door:
            for number in range(1, TIMES + 1):
                clients.append(stranger(door.getsockname()[1]))
                door.setblocking(False)
                sock, (source, port) = await loop.sock_accept(door)
                connection = GateConnection(loop, said, hooks, number, source, port, "A notice.")
                came.append(weakref.ref(connection))
                await aio.serve(sock, lambda one=connection: one)  # type: ignore[misc]
                came.append(weakref.ref(connection._transport))
                del connection, sock
        await comes_true(lambda: not [each for each in came if each() is not None])

    gc.collect()
    gc.disable()
    with contextlib.closing(aio.PartLoop()) as loop:
        try:
            keeper = Keeper(loop)
            loop.run_until_complete(serves(keeper))
        finally:
            gc.enable()
            for client in clients:
                if client is not None:
                    client.kill()
                    client.wait()
    assert len(came) == 2 * TIMES
    assert keeper.signed == (TIMES if stranger is exchanges_keys else 0)
