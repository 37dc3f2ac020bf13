"""The leg to an asset that speaks telnet, or is a serial line: on the plant's side alone, unencrypted, shown as that.

The gate signs in at the prompts by itself: the person is shown nothing before that is done, and never the password.
What a prompt looks like is not standardised; what is looked for stands here. An asset without a login (a serial line
behind ser2net) has a credential of the kind "none".

A serial line (`protocol: serial`) is one behind a device server that gives its bytes by TCP as they are (ser2net's raw
mode, "TCP server" of others). It has no sizes and no end; who is to sign in there wakes it with a return first.

Not here: telnet itself (protocols.telnet), the session around the leg (inner_session).
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from cofferdam.brokers.jump.alone import unswallowed
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.brokers.jump.inner_ssh import SIGN_IN_SECONDS, NoLeg, unreachable
from cofferdam.brokers.kit import aio
from cofferdam.errors import RemoteProtocolError
from cofferdam.model import Asset
from cofferdam.protocols.telnet.machine import Client
from cofferdam.protocols.terminals.dialect import TELNET

LOGIN: Final = re.compile(rb"(?i)(login|user ?name|user) ?: *\Z")
PASSWORD: Final = re.compile(rb"(?i)pass(word|code|wort)[^\r\n]{0,40}: *\Z")
REFUSED: Final = re.compile(rb"(?i)(?!last )[^\n]*(incorrect|invalid|denied|fail(ed|ure)|wrong|not authori[sz]ed)")
"""The first line after a password that did not count; "Last failed login: ..." is one after a password that did."""
LINE_SECONDS: Final = 0.5
"""How long the first line after the password may stay without its end: then it is a prompt."""
BEFORE_BYTES: Final = 65_536
"""What an asset may say before it has let us in."""
WRITE_BYTES: Final = 65_536


class TelnetLeg(asyncio.Protocol):
    """A terminal at the asset."""

    def __init__(self, live: Live, protocol: str = TELNET.name) -> None:
        terminal = live.grant.terminal
        self._live = live
        self._machine: Client | Bare = Bare()
        if protocol == TELNET.name:
            self._machine = Client(terminal.term, terminal.columns, terminal.rows) if terminal else Client()
        self._transport: Any = None
        self._full = self._held = False
        self._timer: asyncio.TimerHandle | None = None
        self._before = bytearray()
        self._credential = live.grant.credential
        self._state = "open" if self._credential.kind == "none" else "login"
        self._is_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- what asyncio calls -----------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(WRITE_BYTES)
        if self._state == "open":
            self._let_in()
        elif isinstance(self._machine, Bare):
            self._type(b"", "login")

    def data_received(self, data: bytes) -> None:
        try:
            shown = self._machine.receive_data(data)
        except RemoteProtocolError as error:
            self._over(f"the asset breaks telnet: {error}")
            return
        self._flush()
        if self._state == "open":
            if shown:
                self._live.leg_says(shown)
        elif shown:
            self._prompted(shown)

    def _prompted(self, shown: bytes) -> None:
        """The asset asks who is there."""
        self._before += shown
        said = bytes(self._before[-512:])
        if len(self._before) > BEFORE_BYTES:
            self._over("it says much and asks for no login")
        elif self._state == "login" and LOGIN.search(said):
            self._type(self._live.grant.login.encode(), "password")
        elif self._state in ("login", "password") and PASSWORD.search(said):
            self._type(self._credential.secret, "after")
        elif self._state == "after" and (text := self._before.strip(b"\r\n\0 ")):
            if b"\n" in text or self._before.endswith(b"\n"):
                self._judge()
            elif self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(LINE_SECONDS, self._judge)

    def _judge(self) -> None:
        """What the asset says to the password."""
        if self._state != "after" or self._transport is None:
            return
        said = bytes(self._before)
        if REFUSED.match(said.lstrip(b"\r\n\0 ")) or LOGIN.search(said) or PASSWORD.search(said):
            self._over(f"{self._live.grant.asset} does not take the gate's credential for {self._live.grant.login}")
            return
        self._state = "open"
        self._let_in()
        self._live.leg_says(said)

    def _type(self, text: bytes, state: str) -> None:
        self._before.clear()
        self._state = state
        self._machine.send(text + b"\r")
        self._flush()

    def _let_in(self) -> None:
        if not self._is_in.done():
            self._is_in.set_result(None)
            self._live.start(self)

    def _over(self, reason: str) -> None:
        if not self._is_in.done():
            self._is_in.set_exception(NoLeg(reason))
        else:
            self._live.end(reason)
        self.close()

    def pause_writing(self) -> None:
        self._full = True  # what it asks for would cost us memory: it is not read either
        self._read()

    def resume_writing(self) -> None:
        self._full = False
        self._read()
        self._live.leg_room()

    def _read(self) -> None:
        """Reads on, or not."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if self._full or self._held else self._transport.resume_reading)()

    @unswallowed
    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_in.done():
            self._is_in.set_exception(NoLeg(f"{self._live.grant.asset} ended the connection"))
        elif self._transport is not None:
            self._live.leg_eof()
            self._live.leg_exit(0)
            self._live.leg_closed(f"the asset's end is gone: {exc}" if exc is not None else "")
        self._transport = None

    async def signed_in(self) -> None:
        """Raises: NoLeg."""
        await self._is_in

    # --- what the session calls -------------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._transport is not None and (data := self._machine.data_to_send()):
            self._transport.write(data)

    def write(self, data: bytes) -> bool:
        self._machine.send(data)
        self._flush()
        return not self._full

    def write_eof(self) -> None:
        """Telnet has none; a person who says no more leaves by what the asset calls that."""

    def resize(self, columns: int, rows: int) -> None:
        self._machine.resize(columns, rows)
        self._flush()

    def signal(self, name: str) -> None:
        if name == "INT":
            self._machine.interrupt()
            self._flush()

    def hold(self, held: bool) -> None:
        self._held = held
        self._read()

    def close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


class Bare:
    """A line whose bytes are what they are."""

    def __init__(self) -> None:
        self._out = bytearray()

    def receive_data(self, data: bytes) -> bytes:
        return data

    def send(self, data: bytes) -> None:
        self._out += data

    def data_to_send(self) -> bytes:
        out = bytes(self._out)
        self._out.clear()
        return out

    def resize(self, columns: int, rows: int) -> None:
        """It has no size."""

    def interrupt(self) -> None:
        self.send(b"\x03")


async def open_telnet(live: Live, asset: Asset) -> None:
    """Starts the session's leg. Raises: NoLeg."""
    if live.grant.credential.kind == "key":
        raise NoLeg(f"the gate has a key for {asset.name}, and {asset.protocol} takes none: tell the operator")
    leg = TelnetLeg(live, asset.protocol)
    try:
        async with asyncio.timeout(SIGN_IN_SECONDS):
            await aio.dial(asset.address, asset.port, lambda: leg)
            await leg.signed_in()
    except TimeoutError:
        raise NoLeg(f"{live.grant.asset} does not ask for a login, or does not answer it") from None
    except OSError as error:
        raise unreachable(live.grant.asset, error) from None
    finally:
        if live.done:
            leg.close()
