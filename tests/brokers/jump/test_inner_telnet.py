"""The telnet leg against an asset that does not read, and one that never asks for a login."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cofferdam.brokers.jump.inner_ssh import NoLeg
from cofferdam.brokers.jump.inner_telnet import BEFORE_BYTES, WRITE_BYTES, TelnetLeg, open_telnet
from cofferdam.brokers.jump.records import Credential, Grant
from cofferdam.model import Asset


class Session:
    """As much of a session as a leg sees."""

    def __init__(self, kind: Any) -> None:
        self.grant = cast(
            Grant, SimpleNamespace(terminal=None, credential=Credential(kind, b"word"), login="svc", asset="old")
        )
        self.done = False
        self.leg: TelnetLeg | None = None
        self.said: list[str] = []

    def start(self, leg: TelnetLeg) -> None:
        self.leg = leg

    def end(self, reason: str) -> None:
        self.said.append(reason)

    def leg_says(self, data: bytes) -> None:
        self.said.append(data.decode())

    def leg_closed(self, reason: str = "") -> None:
        self.said.append(f"closed {reason}")

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def run(kind: str, asset: Any, after: Any = None) -> Session:
    """A leg on a real socket towards an asset."""

    async def main() -> Session:
        session = Session(kind)
        tasks: list[asyncio.Task[None]] = []

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(cast(Any, asyncio.current_task()))
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asset(reader, writer)
                await reader.read()
            writer.transport.abort()

        server = await asyncio.start_server(served, "127.0.0.1", 0)
        try:
            address, port = server.sockets[0].getsockname()[:2]
            await open_telnet(cast(Any, session), Asset("old", "plant", address, port, "telnet", -1, None))
            if after is not None:
                await after(session)
        finally:
            server.close()
            if session.leg is not None:
                session.leg.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0.01)
        return session

    return asyncio.run(main())


def test_one_that_asks_and_does_not_read_costs_no_memory() -> None:
    """Are you there, again and again: while answers wait, it is read no more, whoever else lets go of it."""

    async def asset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(200):
            writer.write(b"\xff\xf6" * 50_000)
            await writer.drain()

    async def after(session: Session) -> None:
        leg = session.leg
        assert leg is not None
        most = 0
        for _ in range(200):
            await asyncio.sleep(0.002)
            leg.hold(True)
            leg.hold(False)
            if leg._transport is not None:
                most = max(most, leg._transport.get_write_buffer_size())
        assert 0 < most < WRITE_BYTES + 2_000_000  # one read's answers beyond the mark

    run("none", asset, after)


def test_one_that_says_much_and_asks_for_nothing() -> None:
    async def asset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * (BEFORE_BYTES + 1))

    with pytest.raises(NoLeg, match="asks for no login"):
        run("password", asset)


def test_a_key_is_never_typed() -> None:
    async def asset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError("nobody connects")

    with pytest.raises(NoLeg, match="telnet takes none"):
        run("key", asset)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"\r\nLogin incorrect\r\nlogin: ", "does not take"),
        (b"\r\nLogin incorrect", "does not take"),
        (b"\r\nPassword: ", "does not take"),
        (b"\r\nWelcome\r\n$ ", ""),
        (b"\r\nLast failed login: Monday\r\n$ ", ""),
        (b"\r\n$ ", ""),
    ],
)
def test_what_an_asset_says_to_the_password(answer: bytes, told: str) -> None:
    """Refused, or let in: and whoever is let in is shown what came after the password, and not the prompts."""

    async def asset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"motd\r\nlogin: ")
        assert await reader.readuntil(b"\r\0") == b"svc\r\0"
        writer.write(b"svc\r\nPassword: ")
        assert await reader.readuntil(b"\r\0") == b"word\r\0"
        writer.write(answer)

    if told:
        with pytest.raises(NoLeg, match=told):
            run("password", asset)
    else:
        assert run("password", asset).said[0] == answer.decode()
