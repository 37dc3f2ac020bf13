"""The server's end of encapsulation: commands, the session, items. What is in a request's data is the server's.

By UDP (`Facing.alone`) a single question comes, without a session: ListIdentity and ListServices are answered there
from the same text, and nothing else is.

Answers go in the order in which the requests came, whoever gives them: some clients that send several at once count on
it. One that is ready before its turn is held; with `ANSWERS` of them held, nothing further is read. Openings of I/O
connections, which may take a device seconds, have no place in that line.

Not here: frames as bytes (wire), requests of CIP (server).
"""

from __future__ import annotations

import abc
from collections import deque
from typing import Final

from cofferdam.errors import RemoteProtocolError
from cofferdam.model import Asset
from cofferdam.protocols.base import (
    NEED_DATA,
    WAITS,
    Established,
    Facing,
    Goodbye,
    LocalAnswer,
    RequestReceived,
    RequestRefused,
    ServerEvent,
    ServerMachine,
)
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import replies, requests, wire
from cofferdam.protocols.enip.asked import Asked, address_of, once, services_of
from cofferdam.protocols.enip.connections import Connections

REGISTER_NS: Final = 5_000_000_000
"""A session is registered within so long of the connection."""
ANSWERS: Final = 64
"""Answers that are held for those before them, at most."""
_ALONE: Final = frozenset({wire.LIST_IDENTITY, wire.LIST_SERVICES})
"""What may be asked by UDP."""

Event = ServerEvent[m.EnipRequest, m.EnipResponse]


class Encapsulation(ServerMachine[m.EnipRequest, m.EnipResponse]):
    """What a server's machine has of frames. A token is a number that is counted on."""

    def __init__(self, facing: Facing | None = None, midway: bool = False) -> None:
        self._frames = wire.Frames()
        self._events: deque[Event] = deque()
        self._open: dict[int, Asked] = {}
        self._prepared: dict[int, bytes] = {}
        self._midway = midway
        self._alone = facing is not None and facing.alone
        self._serial = 0
        self._line: deque[int] = deque()
        self._held: dict[int, bytes] = {}
        self._late = b""
        self._session = 0
        self._now = 0
        self._due = 0
        self._error: RemoteProtocolError | None = None
        self._connections = Connections()
        self._asset: Asset | None = None if facing is None else facing.asset
        self._local_place = ("", 0) if facing is None else facing.local

    def receive_data(self, data: bytes) -> None:
        self._frames.add(data)

    def next_event(self) -> Event:
        while True:
            if self._error is not None:
                raise self._error
            if self._events:
                return self._events.popleft()
            if len(self._held) >= ANSWERS:
                return WAITS
            try:
                found = self._frames.next()
            except RemoteProtocolError as error:
                self._error = error
                raise
            if found is None:
                return NEED_DATA
            self._frame(*found)

    @property
    def buffered(self) -> int:
        return self._frames.buffered

    @property
    def open(self) -> int:
        return len(self._open)

    def _no_session_in_time(self) -> None:
        """The client has connected, and has said nothing of use since."""
        self._due = self._due or self._now + REGISTER_NS
        if self._now >= self._due and not self._session and not self._midway and not self._alone:
            self._error = RemoteProtocolError("no session in time", section=wire.ENCAPSULATION)

    @abc.abstractmethod
    def _request(self, asked: Asked, data: bytes, beside: list[tuple[int, bytes]]) -> None:
        """A request of CIP has come in a frame; `beside`: further items."""

    # --- commands ---------------------------------------------------------------------------------------------------

    def _token(self, ordered: bool = True) -> int:
        """A further request's; with a place in the line of answers, if `ordered`."""
        self._serial += 1
        if ordered and not self._midway:
            self._line.append(self._serial)
        return self._serial

    def _in_turn(self, token: int, data: bytes) -> bytes:
        """What may be said now that this answer is there: nothing where one before it is not, else it and those that
        waited for it."""
        line = self._line
        if not line:
            return data
        if line[0] != token:
            self._held[token] = data
            return b""
        line.popleft()
        return data + self._freed()

    def _freed(self) -> bytes:
        line, held = self._line, self._held
        data = b""
        while line and line[0] in held:
            data += held.pop(line.popleft())
        return data

    def _unanswered(self, token: int) -> None:
        """This one has no answer: those behind it wait for it no longer."""
        if token in self._line:
            self._line.remove(token)
            self._late += self._freed()

    def take_output(self) -> bytes:
        output, self._late = self._late, b""
        return output

    def _local(self, data: bytes) -> None:
        """Says something that nobody else has to say."""
        token = self._token()
        self._prepared[token] = data
        self._events.append(LocalAnswer(token, m.Done()))

    def _wrong(self, data: bytes, section: str, detail: str, function: int) -> None:
        """The client broke a rule; the answer is there already."""
        token = self._token()
        self._prepared[token] = data
        self._events.append(RequestRefused(token, m.Done(), section, detail, function))

    def _frame(self, command: int, session: int, status: int, context: bytes, options: int, data: bytes) -> None:
        if command == wire.SEND_RR and session == self._session and session and not (options or status or self._alone):
            self._data(command, session, context, data)  # as nearly all are
            return
        if self._alone and (command not in _ALONE or options or status or data):
            # Whoever asks by UDP may be somebody else than the address says: there is no answer to what is wrong.
            self._error = RemoteProtocolError(f"the command {command:04X} by UDP", section=wire.ENCAPSULATION)
            return
        if options or command == wire.NOP:
            # Both are to be passed over in silence; each counts as a request, so that nobody is kept busy by them.
            self._local(b"")
            return
        if command not in wire.COMMANDS:
            self._encapsulation(command, session, context, wire.UNKNOWN_COMMAND, f"the command {command:04X}")
        elif status:
            self._encapsulation(command, session, context, wire.BAD_DATA, f"a request with the status {status:08X}")
        elif command == wire.REGISTER:
            self._register(session, context, data)
        elif command in (wire.LIST_SERVICES, wire.LIST_INTERFACES, wire.LIST_IDENTITY):
            if data:
                self._encapsulation(command, session, context, wire.WRONG_LENGTH, "a list that is asked with data")
            elif command == wire.LIST_IDENTITY:
                asked = Asked(command, session, context, None, 0)
                asked.service, asked.request = requests.GET_ALL, m.Identify()
                token = self._token()
                self._open[token] = asked
                self._events.append(RequestReceived(token, m.Identify()))
            else:
                found = services_of(self._asset) if command == wire.LIST_SERVICES else b"\0\0"
                self._local(wire.frame(command, session, context, found))
        elif self._midway:
            if command in (wire.SEND_RR, wire.SEND_UNIT):
                self._data(command, session, context, data)
        elif session != self._session or not session:
            self._encapsulation(command, session, context, wire.UNKNOWN_SESSION, f"the session {session:#x}")
        elif command == wire.UNREGISTER:
            self._session = 0
            self._events.append(Goodbye())
        else:
            self._data(command, session, context, data)

    def _encapsulation(self, command: int, session: int, context: bytes, status: int, detail: str) -> None:
        # Some peers read a RegisterSession's answer without looking at its status.
        data = b"\1\0\0\0" if command == wire.REGISTER else b""
        self._wrong(wire.frame(command, session, context, data, status), wire.ENCAPSULATION, detail, command)

    def _register(self, session: int, context: bytes, data: bytes) -> None:
        if len(data) != 4:
            self._encapsulation(wire.REGISTER, 0, context, wire.WRONG_LENGTH, "a RegisterSession of another length")
        elif data[:2] != b"\1\0" or data[2:] != b"\0\0":
            self._encapsulation(wire.REGISTER, 0, context, wire.WRONG_VERSION, "another version or options")
        elif self._session and not self._midway:
            self._encapsulation(wire.REGISTER, session, context, wire.UNKNOWN_COMMAND, "a second RegisterSession")
        else:
            # It is good on this connection alone, so that nobody gains by guessing it.
            self._session = 1 + int.from_bytes(context, "little") % 0x7FFF_FFFF
            self._local(wire.frame(wire.REGISTER, self._session, context, data))
            if not self._midway:
                self._events.append(Established())

    def _data(self, command: int, session: int, context: bytes, data: bytes) -> None:
        asked = Asked(command, session, context, None, 0)
        cip = wire.unconnected_of(data) if command == wire.SEND_RR else None
        if cip is not None:
            self._request(asked, cip, [])
            return
        found = wire.connected_of(data) if command == wire.SEND_UNIT else None
        if found is not None:
            self._in_connection(asked, *found)
            return
        try:
            items = wire.items_of(data)
            kinds = [kind for kind, _ in items]
            if command == wire.SEND_RR:
                if kinds[:2] != [wire.NULL_ADDRESS, wire.UNCONNECTED] or items[0][1]:
                    raise wire.BadPacket("no null address and unconnected data")
            elif kinds != [wire.CONNECTED_ADDRESS, wire.CONNECTED] or len(items[0][1]) != 4 or len(items[1][1]) < 2:
                raise wire.BadPacket("no connection's address and connected data")
        except wire.BadPacket as error:
            self._encapsulation(command, session, context, wire.BAD_DATA, str(error))
            return
        body = items[1][1]
        if command == wire.SEND_UNIT:
            number = int.from_bytes(items[0][1], "little")
            self._in_connection(asked, number, int.from_bytes(body[:2], "little"), body[2:])
            return
        self._request(asked, body, items[2:])

    def _in_connection(self, asked: Asked, number: int, sequence: int, data: bytes) -> None:
        """A request has come in a connection of class 3."""
        link = self._connections.link(number, self._midway, self._now)
        if link is None:
            why = f"the connection {number:#010x}"
            self._encapsulation(asked.command, asked.session, asked.context, wire.BAD_DATA, why)
            return
        asked.link, asked.sequence, body = link, sequence, once(data)
        if link.again(sequence, body):
            # Under way still: the one answer is for both.
            said = wire.connected(link.to_client, sequence, link.answer)
            self._local(wire.frame(asked.command, asked.session, asked.context, said) if link.answer else b"")
            return
        self._request(asked, body, [])

    def _identity(self, asked: Asked, response: m.EnipResponse) -> bytes:
        if not isinstance(response, m.Identity):
            return wire.frame(asked.command, asked.session, asked.context, b"\0\0")
        item = b"\1\0" + address_of(self._local_place) + replies.identity_bytes(response) + b"\xff"
        return wire.frame(asked.command, asked.session, asked.context, wire.listed(((0x000C, item),)))
