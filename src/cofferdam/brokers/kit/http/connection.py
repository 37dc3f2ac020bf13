"""HTTP/1.1 as Cofferdam answers it: connections, with a bound for whatever a client may make them hold or wait for.

What comes behind a request before its answer is never read as a request: the connection ends with the answer. (No
client of today sends so.) What is refused is answered with a problem, and ends the connection.

Each connection has a deadline for what it is doing: its head, its body, the answer, the taking of the answer, the time
between two requests. Bodies are read when the application asks for them, and not before it knows who asks: whole
(`Request.body`), or piece by piece with back-pressure (`Request.pieces`); there are bounds for one, and for all that
are held together. Answers go whole, or piece by piece as the client takes them.

Not here: how a request is read (messages), accepting and TLS (doors, brokers.kit.aio), what a request means.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from cofferdam.brokers.kit.aio import Places
from cofferdam.brokers.kit.http.messages import (
    HEAD_BYTES,
    PHRASES,
    Answer,
    BadRequest,
    Chunks,
    Gone,
    Head,
    read_head,
)

HEAD_SECONDS: Final = 10.0
"""From the first byte of a connection, or of a further request, to the end of the head."""
REST_SECONDS: Final = 5.0
"""For the rest of a body that is not wanted, so that the client may read why."""
UNASKED_BYTES: Final = 65_536
"""Of a body, before the application wants it; then the client has to wait. Of one that is read piece by piece, the
most that is held."""
BUSY: Final = "too much is under way; try again"
_ENDS: Final = re.compile(rb"\r\n\r\n|\n\r?\n")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the connections of one part may cost. Bytes and seconds."""

    body_bytes: int
    """The largest body of all."""
    rest_bytes: int
    """Of a body that is not wanted: many a client reads no answer before it has sent all, and would take a connection
    that breaks for a fault of the network, and try for ever."""
    bodies_bytes: int = 128 << 20
    """Of bodies that are held, all together; the first UNASKED_BYTES of each do not count, so that what is small goes
    whoever else is slow. `connections` bounds those."""
    share_bytes: int = 32 << 20
    """Of these, for one principal, or for one source while nobody knows who it is: more than any one body that is read
    whole."""
    connections: int = 2_048
    connections_source: int = 256
    body_seconds: float = 60.0
    """For a body that is read whole; of one that is read piece by piece, for each UNASKED_BYTES."""
    answer_seconds: float = 90.0
    """For the answer, and for each piece of one: longer than anything waits."""
    write_seconds: float = 30.0
    """For a client to take more of an answer that waits for it."""
    idle_seconds: float = 75.0
    """Between two requests."""


Application = Callable[["Request"], Coroutine[Any, Any, Answer]]


class Shared:
    """What the connections of a part have in common. `start` runs a task; one that fails ends the process. `problems`:
    what the type of a problem begins with, such as "urn:cofferdam:relay:"."""

    def __init__(
        self,
        app: Application,
        limits: Limits,
        problems: str,
        loop: asyncio.AbstractEventLoop,
        start: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.app = app
        self.limits = limits
        self.problems = problems
        self.loop = loop
        self.start = start
        self.open: set[Connection] = set()
        self.places = Places(limits.connections, limits.connections_source)
        self.bodies = 0
        self.shares: dict[str, int] = {}
        """Of `bodies`, by whose they are."""
        self.hits: dict[str, int] = {}
        self.malformed = 0
        self.date = ""
        self.sweep()

    def hit(self, limit: str) -> None:
        """Counts a limit that was hit."""
        self.hits[limit] = self.hits.get(limit, 0) + 1

    def sweep(self) -> None:
        """Ends the connections that have taken too long. To be called twice a second."""
        self.date = email.utils.formatdate(usegmt=True)
        now = self.loop.time()
        for connection in [each for each in self.open if each.due <= now]:
            self.hit(connection.doing)
            connection.abort()

    def end_all(self, but_busy: bool = False) -> int:
        """Ends all connections (those that wait for an answer stay, with `but_busy`). Returns how many ended."""
        ended = [each for each in self.open if not (but_busy and each.busy)]
        for connection in ended:
            connection.abort()
        return len(ended)


class Request:
    """One request, as the application sees it."""

    def __init__(self, connection: Connection, head: Head) -> None:
        self.connection = connection
        self.method = head.method
        self.target = head.target
        self.headers = head.headers
        self.length = head.length
        self.old = head.old
        self.rows: object = None
        """What the application works by when the request comes; its own to use."""
        self.content = bytearray()
        self.expects = "expect" in head.headers
        """The client waits for 100 Continue before it sends a body."""
        self.most = UNASKED_BYTES
        """Of content that is taken now; when there is more, the client has to wait, or the request is refused."""
        self.whole: asyncio.Future[bool | None] | None = None
        """Done when all of the body has come (True), or more than is wanted (False), or no more will come (None)."""

    async def body(self, most: int, principal: str) -> bytes | None:
        """The body, or None if it has more than `most` bytes. It counts to the principal's share. Raises: Gone."""
        if self.length is not None and self.length > most:
            return None
        self.connection.belongs(principal)
        self.most = most
        if not await self.connection.read_body(self) or len(self.content) > most:
            return None
        return bytes(self.content)

    async def pieces(self, most: int, principal: str) -> AsyncIterator[bytes]:
        """The body, piece by piece; the client waits while no piece is asked for. At most UNASKED_BYTES are held.

        Raises:
            Gone: the client left before the end.
            BadRequest: it has more than `most` bytes.
        """
        if self.length is not None and self.length > most:
            raise BadRequest(413, f"a body of more than {most} bytes")
        self.connection.belongs(principal)
        size = 0
        while piece := await self.connection.read_piece(self):
            size += len(piece)
            if size > most:
                raise BadRequest(413, f"a body of more than {most} bytes")
            yield piece


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, shared: Shared, source: str, principals: tuple[str, ...]) -> None:
        self.shared = shared
        self.source = source
        self.principals = principals
        """Whose address it comes from."""
        self.certificate: bytes = b""
        self.secure = False
        """By TLS."""
        self.shown: tuple[str, bytes | None] = ("", None)
        """The key that its last request showed, and the hash of that. Whether it is one is looked at each time."""
        self.gone: Callable[[], None] | None = None
        """Called once if the client leaves while its request waits."""
        self.due = shared.loop.time() + HEAD_SECONDS
        self.doing = "head_time"
        self._transport: asyncio.Transport | None = None
        self._buffer = b""  # of a head that is not whole yet
        self._request: Request | None = None  # that has no answer yet
        self._coming = False  # a body is coming, wanted or not
        self._left = 0  # of a body with a length
        self._chunks: Chunks | None = None
        self._body_left = shared.limits.body_seconds  # for the next UNASKED_BYTES of a body read piece by piece
        self._progress = 0  # of those, how many have come
        self._rest = 0  # bytes of a body that nobody wants
        self._last = False  # the connection ends with the answer
        self._held = 0
        self._owner = f"source {source}"  # whose share the body counts to
        self._full = False
        self._room: asyncio.Future[None] | None = None  # done once the client has taken more, or is gone
        self._streams = False  # the answer has begun, and goes on piece by piece

    @property
    def busy(self) -> bool:
        """A request is under way."""
        return self._request is not None

    @property
    def request(self) -> Request | None:
        """The request that is under way."""
        return self._request

    @property
    def waits(self) -> bool:
        """The client is waiting for what is yet to come: an answer that it may leave (`gone`), or more of one."""
        return self.gone is not None or self._streams

    @property
    def closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    # --- asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a transport that carries no stream")
        self._transport = transport
        self.shared.open.add(self)
        found = transport.get_extra_info("ssl_object")
        self.secure = found is not None
        if found is not None and (der := found.getpeercert(True)):
            self.certificate = der

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.open.discard(self)
        self._let_go()
        self._wake()
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()
        # What is left of the two goes now: they must not keep each other until the collector looks.
        request, self._request = self._request, None
        if request is not None and request.whole is not None and not request.whole.done():
            request.whole.set_result(None)

    def pause_writing(self) -> None:
        self._full = True
        self._until("write_time", self.shared.limits.write_seconds)

    def resume_writing(self) -> None:
        self._full = False
        if self._request is None:
            self._until("idle", self.shared.limits.idle_seconds)
        else:
            self._until("answer_time", self.shared.limits.answer_seconds)
        self._wake()

    def _wake(self) -> None:
        """Whoever waits until the client has taken more goes on, also where the client is gone."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def abort(self) -> None:
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _until(self, doing: str, seconds: float) -> None:
        if not self._full or doing == "write_time":  # whatever comes next, the client has to take its answer first
            self.doing, self.due = doing, self.shared.loop.time() + seconds

    # --- what comes ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            while data and not self.closing:
                if self._coming:
                    data = self._take_body(data)
                elif self._request is None:
                    data = self._take_head(data)
                else:
                    self.shared.hit("too_early")
                    self._last = True
                    return
        except BadRequest as error:
            self._refuse(error)

    def _take_head(self, data: bytes) -> bytes:
        """Returns what is behind the head."""
        if not self._buffer:
            data = data.lstrip(b"\r\n") if len(data) <= 4 else data  # an empty line may stand before a request
            if not data:
                return b""
            self._until("head_time", HEAD_SECONDS)
        found = _ENDS.search(self._buffer + data, max(0, len(self._buffer) - 3))
        self._buffer += data
        end = found.end() if found else 0
        if not self._buffer[:1].isupper():
            raise BadRequest(400, "the request line is none of HTTP/1.1")
        if (end or len(self._buffer)) > HEAD_BYTES:
            raise BadRequest(431, f"a head of more than {HEAD_BYTES} bytes")
        if not end:
            return b""
        rest, head = self._buffer[end:], read_head(self._buffer[:end], self.shared.limits.body_bytes)
        self._buffer = b""
        self._last = head.old or "close" in head.headers.get("connection", "").lower()
        self._chunks = Chunks() if head.length is None else None
        self._left = head.length or 0
        self._coming = head.length != 0
        self._body_left, self._progress = self.shared.limits.body_seconds, 0
        self._request = request = Request(self, head)
        self._until("answer_time", self.shared.limits.answer_seconds)
        if self._coming and not request.expects:
            self._until("body_time", self.shared.limits.body_seconds)
        self.shared.start(self._serve(request))
        return rest

    def _take_body(self, data: bytes) -> bytes:
        """Returns what is behind the body."""
        if self._chunks is not None:
            content, rest = self._chunks.feed(data), self._chunks.rest
            done = self._chunks.done
        else:
            content, rest = data[: self._left], data[self._left :]
            self._left -= len(content)
            done = self._left == 0
        request = self._request
        if request is None:
            self._rest += len(content)
            if self._rest > self.shared.limits.rest_bytes:
                self.shared.hit("body_bytes")
                self.abort()
        else:
            before = len(request.content)
            request.content += content
            if not self.hold(max(0, len(request.content) - max(before, UNASKED_BYTES))):
                raise BadRequest(503, BUSY)
            self._weigh(request, done)
        if done:
            self._coming = False
            if request is None:
                self._until("idle", self.shared.limits.idle_seconds)
            else:
                self._until("answer_time", self.shared.limits.answer_seconds)
        return rest

    def _weigh(self, request: Request, done: bool) -> None:
        """Tells the application what has come, and the client to wait if that is more than is wanted."""
        if len(request.content) > request.most and self._transport is not None:
            self._transport.pause_reading()
        if request.whole is not None and not request.whole.done():
            if len(request.content) > request.most:
                request.whole.set_result(False)
            elif done:
                request.whole.set_result(True)

    async def read_body(self, request: Request) -> bool:
        """Whether all of the body has come, and no more than is wanted. Raises: Gone."""
        if not self._coming and not self.closing:
            return True
        return await self._more(request)

    async def _more(self, request: Request) -> bool:
        """Waits until all of the body has come (True), or more than `request.most`. Raises: Gone."""
        if self.closing or self._transport is None:
            raise Gone
        if request.expects:
            request.expects = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._until("body_time", self.shared.limits.body_seconds)
        request.whole = self.shared.loop.create_future()
        self._weigh(request, done=False)
        if len(request.content) <= request.most:
            self._transport.resume_reading()
        found, request.whole = await request.whole, None
        if found is None:
            raise Gone
        return found

    async def read_piece(self, request: Request) -> bytes:
        """What of a body has come since the last piece; b"" at its end. Raises: Gone."""
        if not request.content and self._coming:
            request.most = 0  # whatever comes is enough, and then the client has to wait
            began = self.shared.loop.time()
            self._until("body_time", self._body_left)
            await self._more(request)
            self._body_left -= self.shared.loop.time() - began
            self._progress += len(request.content)
            if self._progress >= UNASKED_BYTES:
                self._progress, self._body_left = 0, self.shared.limits.body_seconds
            self._until("answer_time", self.shared.limits.answer_seconds)
        elif self.closing:
            raise Gone
        piece = bytes(request.content)
        request.content.clear()
        self.hold(-self._held)
        return piece

    def hold(self, size: int) -> bool:
        """Counts bytes of a body that is kept until the answer. Returns whether there is room for them."""
        shared, owner, limits = self.shared, self._owner, self.shared.limits
        share = shared.shares.get(owner, 0) + size
        if size > 0 and (shared.bodies + size > limits.bodies_bytes or share > limits.share_bytes):
            shared.hit("bodies_bytes" if share <= limits.share_bytes else "bodies_share")
            return False
        self._held += size
        shared.bodies += size
        if share:
            shared.shares[owner] = share
        else:
            shared.shares.pop(owner, None)
        return True

    def belongs(self, principal: str) -> None:
        """The body counts to a principal's share from now on, with what of it is there."""
        held = self._held
        self.hold(-held)
        self._owner = f"principal {principal}"
        if not self.hold(held):
            raise BadRequest(503, BUSY)

    def _let_go(self) -> None:
        """The body is no longer kept, and the next one's owner is not known yet."""
        self.hold(-self._held)
        self._owner = f"source {self.source}"

    # --- what goes ----------------------------------------------------------------------------------------------

    async def _serve(self, request: Request) -> None:
        try:
            answer = await self.shared.app(request)
        except Gone:
            self.abort()
            return
        except BadRequest as error:
            self._refuse(error)
            return
        body = answer.body
        if isinstance(body, bytes):
            if self._request is request:
                self._send(answer, body, bodiless=request.method == "HEAD")
            return
        try:
            if self._request is request:
                await self._stream(request, answer, body)
        except Gone:
            self.abort()
        finally:
            if (close := getattr(body, "aclose", None)) is not None:
                await close()

    async def _stream(self, request: Request, answer: Answer, body: AsyncIterator[bytes]) -> None:
        """Sends an answer piece by piece. Raises: Gone."""
        if self.closing or self._transport is None:
            raise Gone
        old, length, sent = request.old, answer.length, 0
        self._last = self._last or (old and length is None)
        how = f"content-length: {length}" if length is not None else "" if old else "transfer-encoding: chunked"
        self._streams = True
        self._transport.write(self._head(answer, how))
        if request.method != "HEAD":
            async for piece in body:
                if self.closing or self._request is not request:
                    raise Gone
                sent += len(piece)
                if length is not None and sent > length:
                    raise ValueError(f"an answer of {length} bytes that goes on")
                if piece and (length is not None or old):
                    self._transport.write(piece)
                elif piece:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                if self._full:
                    self._room = self.shared.loop.create_future()
                    await self._room
                self._until("answer_time", self.shared.limits.answer_seconds)
            if self.closing or (length is not None and sent < length):
                raise Gone  # what it is made of ended early: the client has to see that
            if length is None and not old:
                self._transport.write(b"0\r\n\r\n")
        self._streams = False
        self._answered()

    def _head(self, answer: Answer, how: str) -> bytes:
        lines = [
            f"HTTP/1.1 {answer.status} {PHRASES.get(answer.status, '')}",
            f"date: {self.shared.date}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        if answer.status not in (204, 304):
            lines += [f"content-type: {answer.kind}", *([how] if how else [])]
        if self._last:
            lines.append("connection: close")
        head = "\r\n".join(lines)
        if not head.replace("\r\n", "").isprintable():
            raise ValueError("a header field that would break the answer")
        return head.encode("latin-1") + b"\r\n\r\n"

    def _send(self, answer: Answer, body: bytes, bodiless: bool = False) -> None:
        if self.closing or self._transport is None:
            return
        self._transport.write(self._head(answer, f"content-length: {len(body)}") + (b"" if bodiless else body))
        self._answered()

    def _answered(self) -> None:
        """The answer is given; the next request may come."""
        if self._transport is None:
            return
        self._request, self.gone, self._rest = None, None, 0
        self._let_go()
        if self._coming:
            self._until("rest_time", REST_SECONDS)
        else:
            self._until("idle", self.shared.limits.idle_seconds)
        if self._last:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _refuse(self, error: BadRequest) -> None:
        """Answers what is no request, and ends the connection."""
        self.shared.malformed += 1
        if self._streams:
            self.abort()
            return
        problem = {"type": f"{self.shared.problems}http", "title": error.title, "status": error.status}
        request, self._last = self._request, True
        if request is not None and request.whole is not None and not request.whole.done():
            request.whole.set_result(None)
        self._send(Answer(error.status, kind="application/problem+json"), json.dumps(problem).encode())
