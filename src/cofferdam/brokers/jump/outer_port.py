"""Forwarded ports (`ssh -L`) to assets that another broker serves: the outer part's side of them.

The channel's bytes go to the outer part of that broker, by a seam, which parses and judges them; to no socket. That
there is a session, the keeper says; that it lives is told to that broker on the inside, past us (inner_lent).

Not here: what goes through a seam (kit.seam), who may have such a session (deciding).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import asyncssh
from asyncssh.constants import OPEN_ADMINISTRATIVELY_PROHIBITED
from asyncssh.misc import ChannelOpenError

from cofferdam.audit.lines import escaped
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.alone import unswallowed
from cofferdam.brokers.jump.outer_ssh import GateConnection
from cofferdam.brokers.jump.outer_watch import Stage
from cofferdam.brokers.kit import seam
from cofferdam.brokers.kit.seam_ends import Flow, check_reads
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CrossingError

SERVED_SECONDS: Final = 10
"""How long the other broker may take over a client."""


class Ways(Protocol):
    """What a port needs of the part."""

    def closed(self, session: Any) -> None:
        """The client's end is gone."""


class Front:
    """The seam to one asset."""

    def __init__(self, sender: Sender[Any], clock: Callable[[], int]) -> None:
        self._sender = sender
        self._clock = clock
        self._last = 0
        self._lines: dict[int, Port] = {}
        sender.send(seam.Fresh())

    def come(self, port: Port, lent: records.Lent, whose: GateConnection) -> int:
        """A client has come. Numbers go on over all lives of ours: by the clock."""
        self._last = line = max(self._last + 1, self._clock())
        self._lines[line] = port
        self._sender.send(seam.Come(line, lent.name, lent.conduit, whose.person, whose.source, whose.port))
        return line

    def send(self, record: Any) -> None:
        self._sender.send(record)

    def take(self, record: Any) -> None:
        """What the other broker says. Raises: CrossingError: it breaks the rules."""
        if isinstance(record, seam.Fresh):
            self.end("the broker of this asset was born again")
        elif isinstance(record, (seam.Served, seam.Said, seam.Took, seam.Over)):
            port = self._lines.get(record.line)
            if port is None:
                return  # the client has just gone
            if isinstance(record, seam.Served):
                port.served()
            elif isinstance(record, seam.Said):
                port.shown(record.data)
            elif isinstance(record, seam.Took):
                port.took(record.count)
            else:
                del self._lines[record.line]
                port.over()
        else:
            raise seam.unfit(record)

    def check(self) -> None:
        """Raises: CrossingError: the other broker does not take what it is told."""
        check_reads(self._sender)

    def leave(self, line: int) -> None:
        """The client of a line has gone."""
        if self._lines.pop(line, None) is not None:
            self._sender.send(seam.Over(line))

    def end(self, reason: str) -> None:
        lines, self._lines = self._lines, {}
        for line, port in lines.items():
            self._sender.send(seam.Over(line))
            port.refused(reason)


def _denied(reason: str) -> ChannelOpenError:
    return ChannelOpenError(OPEN_ADMINISTRATIVELY_PROHIBITED, escaped(reason))


class Port(asyncssh.SSHTCPSession[bytes]):
    """One channel: a session of the kind "port"."""

    terminal = None
    takes = is_locked = False

    def __init__(self, ways: Ways, connection: GateConnection) -> None:
        self._ways = ways
        self._connection = connection
        self._chan: asyncssh.SSHTCPChannel[bytes] | None = None
        self._opened: asyncio.Future[Port] = asyncio.get_running_loop().create_future()
        self._front: Front | None = None
        self._line = 0
        self._flow: Flow | None = None
        self._full = self._held = False
        self._untaken = 0
        self._early: list[bytes] = []  # what was said before the client was told that its channel is there
        self._ended = ""
        self._closed = False
        self.number = 0
        self.stage = Stage()

    async def opened(self) -> Port:
        """Once its session lives. Raises: ChannelOpenError: there is none, or none any more."""
        await self._opened
        if self._ended:  # between the other broker's word and ours
            raise _denied(self._ended)
        return self

    @property
    def stands(self) -> bool:
        """Whether its session lives."""
        return self._opened.done() and not self._opened.cancelled() and self._opened.exception() is None

    # --- the gate ---------------------------------------------------------------------------------------------------

    def started(self) -> None:
        """Its session lives; by which seam it goes is said next."""

    def lent(self, record: records.Lent, front: Front | None) -> None:
        """It is served from now on."""
        if self._opened.done():
            return
        if front is None:
            self.refused("the gate has no way to that broker just now")
            return
        self._front = front
        self._line = front.come(self, record, self._connection)
        self._flow = Flow(self._line, front.send)
        asyncio.get_running_loop().call_later(SERVED_SECONDS, self._late)

    def _late(self) -> None:
        if not self._opened.done():
            self.refused("the broker of this asset does not answer")

    def served(self) -> None:
        """The other broker has taken it in."""
        if not self._opened.done():
            self._opened.set_result(self)

    def refused(self, reason: str) -> None:
        """There is no session, or none any more."""
        if not self._opened.done():
            if self._front is not None and self._line:
                self._front.leave(self._line)
            self._opened.set_exception(_denied(reason))
        elif self._chan is not None:
            self._chan.abort()
        elif not self._ended:
            self._ended = reason
            if self._front is not None and self._line:
                self._front.leave(self._line)
            self._ways.closed(self)

    def farewell(self, reason: str) -> None:
        self.refused(reason)

    def ended(self, record: records.Closed) -> None:
        """Its session has ended. A channel of this kind has no words for why: the log does."""
        self.refused(record.reason or "the session has ended")

    def notice(self, text: str) -> None:
        """Nobody sits here to read it."""

    def over(self) -> None:
        """The other broker has closed it."""
        self._line = 0
        if not self._opened.done():
            self.refused("the broker of this asset takes no more")
        elif self._chan is not None:
            self._chan.close()
        else:
            self._closed = True  # once it has what was said before

    def shown(self, data: bytes, error: bool = False) -> None:
        """What the other broker says. Raises: CrossingError: more than there is room for."""
        if self._front is not None:
            self._front.check()
        self._untaken += len(data)
        if self._untaken > seam.CREDIT:
            raise CrossingError("more was said than there is room for")
        if self._chan is None:
            self._early.append(data)
            return
        if self._chan.is_closing():
            return
        self._chan.write(data)
        self.room()

    def took(self, count: int) -> None:
        """So much of what the client said was handed on."""
        if self._flow is not None:
            self._flow.took(count)
            if self._held and not self._flow.waiting and self._chan is not None:
                self._held = False
                self._chan.resume_reading()

    def room(self) -> None:
        """The client may keep up again."""
        if self._untaken and not self._full and not self._connection.full and self._front is not None and self._line:
            count, self._untaken = self._untaken, 0
            self._front.send(seam.Took(self._line, count))

    # --- the client -------------------------------------------------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._chan = chan
        early, self._early = self._early, []
        for data in early:
            chan.write(data)
        self.room()
        if self._closed:
            chan.close()

    def data_received(self, data: bytes, datatype: Any) -> None:
        if self._flow is None or not self._line:
            return
        self._flow.put(data)
        if self._flow.waiting and self._chan is not None:
            self._held = True
            self._chan.pause_reading()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self.room()

    @unswallowed
    def connection_lost(self, exc: Exception | None) -> None:
        self._chan = None
        if self._front is not None and self._line:
            self._front.leave(self._line)
        self._ways.closed(self)
