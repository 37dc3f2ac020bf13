"""What the ends of a seam do: lines of clients, and the sessions that are lent.

Not here: what goes through a seam, and what it is for (seam).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from cofferdam.brokers.kit.seam import (
    CREDIT,
    LENT,
    LINES,
    PIECE,
    SILENT_NS,
    Come,
    Fresh,
    Known,
    Lend,
    Over,
    Said,
    Served,
    Took,
    Withdraw,
    unfit,
)
from cofferdam.brokers.kit.transport import Transport
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CrossingError


def check_reads(sender: Sender[Any], most: int = LINES * CREDIT) -> None:
    """Raises: CrossingError: who asks for answers does not take them, and they pile up here. `most`: bytes that may
    wait; all that lines have room for, as long as they are honest."""
    if sender.backlog > most:
        raise CrossingError("what it is told is not taken")


class Flow:
    """One direction of a line, at its sender: no more under way than the other end has room for."""

    def __init__(self, line: int, send: Callable[[Any], None]) -> None:
        self._line = line
        self._send = send
        self._credit = CREDIT
        self._waiting: deque[bytes] = deque()
        self.waiting = 0

    def put(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            self._waiting.append(piece)
            self.waiting += len(piece)
        self._go()

    def took(self, count: int) -> None:
        self._credit += count
        if self._credit > CREDIT:
            raise CrossingError("more was taken than was sent")
        self._go()

    def _go(self) -> None:
        while self._waiting and self._credit >= len(self._waiting[0]):
            piece = self._waiting.popleft()
            self.waiting -= len(piece)
            self._credit -= len(piece)
            self._send(Said(self._line, piece))


class SeamTransport(Transport):
    """A client that has come by a seam, as the back has it."""

    def __init__(self, line: int, sender: Sender[Any], forget: Callable[[int], None]) -> None:
        self._line = line
        self._sender = sender
        self._forget = forget
        self._flow = Flow(line, sender.send)
        self._room = CREDIT
        self._held: deque[bytes] = deque()
        self._paused = False
        self._open = True

    def write(self, data: bytes) -> None:
        if self._open:
            self._flow.put(data)
            self.unsent = self._flow.waiting

    def close(self) -> None:
        if self._open:
            self._open = False
            self._forget(self._line)
            self._sender.send(Over(self._line))

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._deliver()

    def said(self, data: bytes) -> None:
        """What the client says."""
        self._room -= len(data)
        if self._room < 0:
            raise CrossingError("more was said than there is room for")
        self._held.append(data)
        self._deliver()

    def _deliver(self) -> None:
        while self._held and self._open and not self._paused:
            data = self._held.popleft()
            self._room += len(data)
            self._sender.send(Took(self._line, len(data)))
            self.on_data(data)

    def took(self, count: int) -> None:
        self._flow.took(count)
        self.unsent = self._flow.waiting

    def lost(self, reason: str) -> None:
        """The front has ended it, or the seam is no more."""
        if self._open:
            self._open = False
            self._forget(self._line)
            self.on_closed(reason)


class BackOuter:
    """The outer part at a seam's back. `serve(transport, come)` takes a client in."""

    def __init__(self, sender: Sender[Any], serve: Callable[[SeamTransport, Come], None]) -> None:
        self._sender = sender
        self._serve = serve
        self._lines: dict[int, SeamTransport] = {}
        self._last = 0
        sender.send(Fresh())

    def take(self, record: Any) -> None:
        """What the front says. Raises: CrossingError: it breaks the rules."""
        if isinstance(record, Come):
            if record.line <= self._last:
                raise CrossingError(f"line {record.line} after {self._last}")
            check_reads(self._sender)
            self._last = record.line
            transport = SeamTransport(record.line, self._sender, self._gone)
            if len(self._lines) >= LINES:
                transport.close()
                return
            self._lines[record.line] = transport
            self._sender.send(Served(record.line))
            self._serve(transport, record)
        elif isinstance(record, Fresh):
            self.end("the broker that brought it was born again")
        elif isinstance(record, (Said, Took, Over)):
            found = self._lines.get(record.line)
            if found is None:
                return  # it has just ended
            if isinstance(record, Said):
                check_reads(self._sender)
                found.said(record.data)
            elif isinstance(record, Took):
                found.took(record.count)
            else:
                found.lost(record.reason or "closed by the client")
        else:
            raise unfit(record)

    def _gone(self, line: int) -> None:
        self._lines.pop(line, None)

    def end(self, reason: str) -> None:
        for line, transport in list(self._lines.items()):
            transport.lost(reason)
            self._sender.send(Over(line))


class BackInner:
    """The inner part at a seam's back: what the front lends. `ended(session)` is called when one has ended."""

    def __init__(self, sender: Sender[Any], ended: Callable[[str], None], clock: Callable[[], int]) -> None:
        self._sender = sender
        self._ended = ended
        self._clock = clock
        self._lent: dict[str, Lend] = {}
        self._heard: dict[str, int] = {}  # when it was last said that they live
        sender.send(Fresh())

    def take(self, record: Any) -> None:
        """What the front says. Raises: CrossingError: it breaks the rules."""
        if isinstance(record, Lend):
            check_reads(self._sender, CREDIT)
            if len(self._lent) >= LENT and record.session not in self._lent:
                raise CrossingError(f"more than {LENT} sessions are lent")
            self._lent[record.session], self._heard[record.session] = record, self._clock()
            self._sender.send(Known(record.session))
        elif isinstance(record, Withdraw):
            self._over(record.session)
        elif isinstance(record, Fresh):
            self.end()
        else:
            raise unfit(record)

    def lends(self, session: str, conduit: str, asset: str, person: str) -> bool:
        """Whether this session lives, and is for this, and whose it is: an outer part's word for a person is none."""
        return self._lent.get(session) == Lend(session, conduit, asset, person)

    def end(self) -> None:
        for session in list(self._lent):
            self._over(session)

    def tick(self) -> None:
        now = self._clock()
        for session in [session for session, at in self._heard.items() if now - at > SILENT_NS]:
            self._over(session)

    def _over(self, session: str) -> None:
        if self._lent.pop(session, None) is not None:
            del self._heard[session]
            self._ended(session)
