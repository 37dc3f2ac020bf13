"""The two ends of a connection.

Theory. The client says Hello within 2 s, the server Welcome; requests before that end the connection. Ids are the
client's; an answer, a notice, a frame and an Over carry the id of the request that they belong to. The server says
Ping after 5 s without a word, the client answers Pong. A body that is no message of its direction is answered with
Refusal 6; the stream goes on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.model import Assign, Deny, Item
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    ClientEvent,
    ClientMachine,
    Established,
    FrameReceived,
    LocalAnswer,
    NoticeReceived,
    Released,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    ServerEvent,
    ServerMachine,
    Unmatched,
)
from cofferdam.protocols.base import Over as StandingOver
from tests.protocols.toy import messages as m
from tests.protocols.toy.dialect import PATH
from tests.protocols.toy.wire import BOOK, Frames, frame

HELLO_NS = 2_000_000_000
PING_NS = 5_000_000_000
_from_client = msgspec.msgpack.Decoder(m.FromClient)
_from_server = msgspec.msgpack.Decoder(m.FromServer)


def _plain(item: Item) -> Item:
    """The item by its one spelling. Raises: ValueError where it has none."""
    name = item.name.lower()
    if not PATH.match(name) or item.fault:
        raise ValueError(f"{item.name!r} is no path")
    return Item(item.kind, name, item.first, item.count)


def plain(request: Any) -> Any:
    """A request whose names are spelt as everywhere. Raises: ValueError."""
    if isinstance(request, m.Read):
        return m.Read(tuple(map(_plain, request.items)))
    if isinstance(request, m.Write):
        return m.Write(tuple(Assign(_plain(write.item), write.value) for write in request.writes))
    if isinstance(request, (m.CallMethod, m.Subscribe, m.Open)):
        return msgspec.structs.replace(request, item=_plain(request.item))
    return request


class ToyServer(ServerMachine[m.ToyRequest, m.ToyResponse]):
    """A token is `serial << 32 | id`."""

    def __init__(self, midway: bool = False) -> None:
        self._frames = Frames()
        self._open: dict[int, int] = {}
        self._standing: dict[int, int] = {}  # id -> token
        self._requests: dict[int, Any] = {}
        self._serial = 0
        self._output = b""
        self._midway = midway
        self._established = midway
        self._greeted = midway
        self._now = 0
        self._due = 0
        self._error: RemoteProtocolError | None = None

    def receive_data(self, data: bytes) -> None:
        self._frames.data += data

    def on_time(self, now: int) -> None:
        self._now = now
        if not self._due:
            self._due = now + (PING_NS if self._established else HELLO_NS)
        elif now >= self._due:
            if not self._established:
                self._fail("no Hello in time")
            self._say(0, m.Ping())

    def take_output(self) -> bytes:
        output, self._output = self._output, b""
        return output

    @property
    def deadline(self) -> int:
        return 0 if self._error is not None else self._due

    def _say(self, number: int, message: Any) -> None:
        self._output += frame(number, message)
        self._spoken()

    def _spoken(self) -> None:
        if self._established and self._now:
            self._due = self._now + PING_NS

    def _fail(self, why: str) -> None:
        self._error = RemoteProtocolError(why, section=BOOK)

    def next_event(self) -> ServerEvent[m.ToyRequest, m.ToyResponse]:
        if self._error is not None:
            raise self._error
        if self._established and not self._greeted:
            self._greeted = True
            return Established()
        try:
            found = self._frames.next()
        except RemoteProtocolError as error:
            self._error = error
            raise
        if found is None:
            return NEED_DATA
        return self._event(*found)

    def _event(self, number: int, body: bytes) -> ServerEvent[m.ToyRequest, m.ToyResponse]:
        try:
            message = _from_client.decode(body)
            if isinstance(message, m.Hello) and not self._established:
                self._established = True
                self._say(number, m.Welcome())
                return self.next_event()
            if not self._established:
                self._fail("a request before Hello")
                return self.next_event()
            message = plain(message)
        except (msgspec.MsgspecError, ValueError) as error:
            return RequestRefused(self._token(number), m.Refusal(6), BOOK, str(error), body[1] if len(body) > 1 else -1)
        if isinstance(message, m.Pong) or (self._midway and isinstance(message, m.Hello)):
            return self.next_event()
        if isinstance(message, m.Signals):
            token = self._standing.get(number)
            return self.next_event() if token is None else FrameReceived(token, message)
        if isinstance(message, m.Hello):
            self._fail("a second Hello")
            return self.next_event()
        if isinstance(message, m.Who):
            reply: Any = m.Name("the gate")
            return LocalAnswer(self._token(number), reply)
        if isinstance(message, m.Drop):
            standing = self._standing.pop(message.standing, -1)
            return Released(self._token(number), standing, m.Done())
        token = self._token(number)
        if self._error is not None:
            return self.next_event()
        self._requests[token] = message
        return RequestReceived(token, message)

    def _token(self, number: int) -> int:
        if number in self._open or number in self._standing:
            self._fail(f"the id {number} is in use")
        self._serial += 1
        token = self._open[number] = self._serial << 32 | number
        return token

    def send(self, token: int, response: Any) -> bytes:
        number = token & 0xFFFFFFFF
        if self._open.get(number) != token:
            raise LocalProtocolError(f"token {token} is not open")
        del self._open[number]
        request = self._requests.pop(token, None)
        if isinstance(response, m.Agreed):
            if not isinstance(request, (m.Subscribe, m.Open)):
                raise LocalProtocolError("nothing was asked that could stand")
            self._standing[number] = token
        self._spoken()
        return frame(number, response)

    def release(self, token: int) -> None:
        self._open.pop(token & 0xFFFFFFFF, None)
        self._requests.pop(token, None)

    def notice(self, standing: int, message: Any) -> bytes:
        return self._of_standing(standing, message)

    def frame(self, standing: int, message: Any) -> bytes:
        return self._of_standing(standing, message)

    def over(self, standing: int, deny: Deny | None) -> bytes:
        data = self._of_standing(standing, m.Over(5 if deny is None else 1))
        del self._standing[standing & 0xFFFFFFFF]
        return data

    def _of_standing(self, standing: int, message: Any) -> bytes:
        number = standing & 0xFFFFFFFF
        if self._standing.get(number) != standing:
            raise LocalProtocolError(f"nothing stands by {standing}")
        self._spoken()
        return frame(number, message)

    @property
    def buffered(self) -> int:
        return len(self._frames.data)

    @property
    def open(self) -> int:
        return len(self._open)


class ToyClient(ClientMachine[m.ToyRequest, m.ToyResponse]):
    """A token is the id that we chose."""

    def __init__(self, midway: bool = False, outstanding: int = 1, mute: bool = False) -> None:
        self._frames = Frames()
        self._pending: dict[int, Any] = {}
        self._forgotten: dict[int, Any] = {}
        self._standing: dict[int, Any] = {}
        self._dropping: set[int] = set()
        self._next = 1
        self._outstanding = outstanding
        self._mute = mute  # the quirk: such a device gets no Hello
        self._established = midway or mute
        self._greeted = midway
        self._output = b"" if midway or mute else frame(0, m.Hello(1))
        self._error: RemoteProtocolError | None = None

    def receive_data(self, data: bytes) -> None:
        self._frames.data += data

    def take_output(self) -> bytes:
        output, self._output = self._output, b""
        return output

    def next_event(self) -> ClientEvent[m.ToyResponse]:
        if self._error is not None:
            raise self._error
        if self._established and not self._greeted:
            self._greeted = True
            return Established()
        try:
            found = self._frames.next()
        except RemoteProtocolError as error:
            self._error = error
            raise
        if found is None:
            return NEED_DATA
        number, body = found
        try:
            message = _from_server.decode(body)
        except msgspec.MsgspecError as error:
            if self._pending.pop(number, None) is None:
                return Unmatched(str(error))
            return BadResponse(number, BOOK, str(error))
        return self._event(number, message)

    def _event(self, number: int, message: Any) -> ClientEvent[m.ToyResponse]:
        if isinstance(message, m.Welcome):
            self._established = True
            return self.next_event()
        if isinstance(message, m.Ping):
            self._output += frame(0, m.Pong())
            return self.next_event()
        if isinstance(message, (m.News, m.Signals)):
            request = self._standing.get(number)
            if isinstance(request, m.Subscribe) and isinstance(message, m.News):
                return NoticeReceived(number, message)
            if isinstance(request, m.Open) and isinstance(message, m.Signals):
                return FrameReceived(number, message)
            return Unmatched("news of what does not stand")
        if isinstance(message, m.Over):
            if self._standing.pop(number, None) is None:
                return Unmatched("the end of what does not stand")
            return StandingOver(number, f"ended by the device with {message.code}")
        if number in self._dropping:
            self._dropping.discard(number)
            return self.next_event()
        if isinstance(message, m.Name):
            return Unmatched("a name that nobody asked for")
        request = self._pending.pop(number, None)
        if request is None:
            late = self._forgotten.pop(number, None)
            if isinstance(message, m.Agreed) and late is not None:
                self._output += self._drop(number)  # nobody waits for it any more: it must not stand
            return Unmatched("a late answer, or one to nothing")
        fault = mismatch(request, message)
        if fault:
            return BadResponse(number, BOOK, fault)
        if isinstance(message, m.Agreed):
            self._standing[number] = request
        return ResponseReceived(number, message)

    def send(self, request: m.ToyRequest) -> tuple[int, bytes]:
        if not self._established or self._error is not None:
            raise LocalProtocolError("the connection is not established")
        if len(self._pending) >= self._outstanding:
            raise LocalProtocolError("too many requests are under way")
        number = self._number()
        self._pending[number] = request
        return number, frame(number, request)

    def _number(self) -> int:
        number, self._next = self._next, (self._next + 1) % (1 << 32) or 1
        return number

    def forget(self, token: int) -> None:
        request = self._pending.pop(token, None)
        if request is not None:
            self._forgotten[token] = request

    def frame(self, standing: int, message: Any) -> bytes:
        if not isinstance(self._standing.get(standing), m.Open):
            raise LocalProtocolError(f"no stream stands by {standing}")
        return frame(standing, message)

    def give_up(self, standing: int) -> bytes:
        return b"" if self._standing.pop(standing, None) is None else self._drop(standing)

    def _drop(self, standing: int) -> bytes:
        number = self._number()
        self._dropping.add(number)
        return frame(number, m.Drop(standing))

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def buffered(self) -> int:
        return len(self._frames.data)

    @property
    def drop_after_timeout(self) -> bool:
        return False


ANSWERS: dict[type, type] = {
    m.Read: m.Values, m.Write: m.Done, m.CallMethod: m.Done, m.Subscribe: m.Agreed, m.Open: m.Agreed,
    m.Uptime: m.Seconds, m.Restart: m.Done,
}  # fmt: skip


def mismatch(request: Any, response: Any) -> str:
    if isinstance(response, m.Refusal):
        return ""
    if type(response) is not ANSWERS[type(request)]:
        return f"{type(response).__name__} does not answer {type(request).__name__}"
    if isinstance(response, m.Values) and len(response.values) != len(request.items):
        return f"{len(response.values)} values for {len(request.items)} items"
    return ""
