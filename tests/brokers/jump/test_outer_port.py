"""A forwarded port's channel, by asyncssh itself: what the other broker does before the client has its channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import asyncssh
import pytest

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.outer_port import Front, Port
from cofferdam.brokers.kit import seam
from tests.brokers.stage import Link
from tests.waiting import PATIENT

LENT = records.Lent(1, "127.0.0.1", 502, "s-1", "helps")


class Ways:
    def __init__(self) -> None:
        self.gone: list[Any] = []

    def closed(self, session: Any) -> None:
        self.gone.append(session)


class Gate:
    """The part's side of a port: its session lives, and the other broker answers in one turn as the test has it."""

    def __init__(self, answers: Callable[[Front, int], None]) -> None:
        self.ways = Ways()
        self.link = Link(seam.codec())
        self.front = Front(cast(Any, self.link), lambda: 1)
        self._answers = answers

    async def forwarded(self) -> Port:
        whose = SimpleNamespace(person="anna", source="10.0.0.9", port=4711, full=False)
        port = Port(self.ways, cast(Any, whose))
        port.lent(LENT, self.front)
        (line,) = [one.line for one in self.link.take() if isinstance(one, seam.Come)]
        asyncio.get_running_loop().call_soon(self._answers, self.front, line)
        return await port.opened()

    async def asked(self) -> bytes:
        """What a client is told by its channel, up to its end. Raises: asyncssh.ChannelOpenError."""
        gate = self

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return False

            def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
                return gate.forwarded()

        listener = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Server, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            encoding=None,
        )  # fmt: skip
        try:
            async with asyncssh.connect(
                "127.0.0.1", listener.get_port(), known_hosts=None, config=None, agent_path=None, client_keys=None,
                username="anna",
            ) as connection:  # fmt: skip
                reader, _ = await connection.open_connection("plc", 502, encoding=None)
                found: bytes = await reader.read()
                return found
        finally:
            listener.close()
            await listener.wait_closed()


def run(gate: Gate) -> bytes:
    async def main() -> bytes:
        async with asyncio.timeout(PATIENT):
            return await gate.asked()

    return asyncio.run(main())


def test_what_is_said_before_there_is_a_channel_comes_first_and_whole() -> None:
    """A server that greets, and then ends: nothing of it is lost, and room is given for it."""

    def answers(front: Front, line: int) -> None:
        front.take(seam.Served(line))
        for piece in (b"one ", b"two ", b"three"):
            front.take(seam.Said(line, piece))
        front.take(seam.Over(line))

    gate = Gate(answers)
    assert run(gate) == b"one two three"


@pytest.mark.parametrize("what", ["the seam", "the session"])
def test_what_ends_before_there_is_a_channel_is_refused_with_the_reason(what: str) -> None:
    """No channel stays open through which nothing goes."""

    def answers(front: Front, line: int) -> None:
        port = front._lines[line]
        front.take(seam.Served(line))
        front.take(seam.Said(line, b"hello"))
        if what == "the seam":
            front.take(seam.Fresh())
        else:
            port.ended(records.Closed(1, reason="it was killed"))

    gate = Gate(answers)
    with pytest.raises(asyncssh.ChannelOpenError, match="was born again" if what == "the seam" else "it was killed"):
        run(gate)
    assert len(gate.ways.gone) == 1
    assert seam.Over in [type(one) for one in gate.link.take()]
    assert not gate.front._lines
