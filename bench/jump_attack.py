"""Whoever knocks at the jump server's door without meaning it, for bench/jump.py: `jump_attack.py KIND PORT`, until it
is ended; then it says how often. It stands for another machine, and so takes only the processor time that is left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import asyncssh
from tests.brokers.jump.site import ELSEWHERE

CONNECTIONS_MOST = 18
"""At a time: the door takes 20 of an address that have not signed in, and what it refuses at once attacks less."""


class Typist(asyncssh.SSHClient):
    """Types passwords and codes that are none."""

    def kbdint_auth_requested(self) -> str:
        return ""

    def kbdint_challenge_received(self, name: str, words: str, lang: str, prompts: list[tuple[str, bool]]) -> list[str]:
        return ["correct horse staple" if "assword" in text else "000000" for text, _ in prompts]


async def connections(port: int) -> None:
    """Comes and goes."""
    await asyncio.to_thread(lambda: _knock(port).close())


async def banners(port: int) -> None:
    """A banner of 1 MB."""

    def say() -> None:
        with _knock(port) as sock, contextlib.suppress(OSError):
            sock.sendall(b"x" * 1_000_000)
            while sock.recv(65_536):
                pass

    await asyncio.to_thread(say)


async def silence(port: int) -> None:
    """Says its version, a letter a second, and goes after some."""

    def say() -> None:
        with _knock(port) as sock, contextlib.suppress(OSError):
            for letter in b"SSH-2.0-x\r\n":
                sock.sendall(bytes((letter,)))
                time.sleep(1)

    await asyncio.to_thread(say)


async def exchanges(port: int) -> None:
    """A key exchange, which the keeper signs, and goes."""
    await _signs_in(port, "nobody", "none")


async def passwords(port: int) -> None:
    """A wrong password of somebody who is there, which the keeper verifies."""
    await _signs_in(port, "tech", "keyboard-interactive")


KINDS: dict[str, Callable[[int], Awaitable[None]]] = {
    "connections": connections, "banners": banners, "silence": silence, "exchanges": exchanges, "passwords": passwords,
}  # fmt: skip


def _knock(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 60, source_address=(ELSEWHERE, 0))


async def _signs_in(port: int, user: str, method: str) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        connection, _ = await asyncssh.create_connection(
            Typist, "127.0.0.1", port, username=user, known_hosts=None, config=None, agent_path=None, client_keys=[],
            preferred_auth=method, local_addr=(ELSEWHERE, 0),
        )  # fmt: skip
        connection.abort()


async def main(kind: str, port: int) -> int:
    """How often."""
    times = 0

    async def again() -> None:
        nonlocal times
        while True:
            with contextlib.suppress(OSError):
                await KINDS[kind](port)
                times += 1
            await asyncio.sleep(0)

    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    working = [asyncio.get_running_loop().create_task(again()) for _ in range(CONNECTIONS_MOST)]
    print("ready", flush=True)
    await over.wait()
    for each in working:
        each.cancel()
    return times


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # also where what is measured is in the real-time class
    print(asyncio.run(main(sys.argv[1], int(sys.argv[2]))), flush=True)
    os._exit(0)  # threads that still wait for an answer have nothing to finish
