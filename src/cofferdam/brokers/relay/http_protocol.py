"""HTTP/1.1 as a side of the relay speaks it: the part of RFC 9112 that its clients need, and nothing beside it.

Two readers that find different ends of one request are what smuggling lives on. So a request is read in one way only:
one spelling of lines, none folded, one length and not two, chunks only where nothing else says a length, no chunk
extensions, no trailers. What comes behind a request before its answer is never read as a request: the connection ends
with the answer. (No client of today sends so.) What is refused is answered with a problem, and ends the connection.

Each connection has a deadline for what it is doing: its head, its body, the answer, the taking of the answer, the time
between two requests. Bodies are read when the application asks for them, and not before it knows who asks; there are
bounds for one, and for all that are under way together.

Not here: accepting and TLS (http_side, brokers.kit.aio), what a request means (http_api).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from cofferdam.brokers.kit.aio import Places
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE

HEAD_BYTES: Final = 16_384
HEADERS_MOST: Final = 64
HEAD_SECONDS: Final = 10.0
"""From the first byte of a connection, or of a further request, to the end of the head."""
BODY_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 90.0
"""For the answer: longer than any pull waits."""
WRITE_SECONDS: Final = 30.0
"""For a client to take more of an answer that waits for it."""
IDLE_SECONDS: Final = 75.0
"""Between two requests."""
REST_SECONDS: Final = 5.0
"""For the rest of a body that is not wanted, so that the client may read why."""
BODY_BYTES: Final = LARGEST_MESSAGE + (1 << 20)
"""The largest body of all: a batch."""
REST_BYTES: Final = BODY_BYTES
"""Of a body that is not wanted: many a client reads no answer before it has sent all, and would take a connection that
breaks for a fault of the network, and try for ever."""
UNASKED_BYTES: Final = 65_536
"""Of a body, before the application wants it; then the client has to wait."""
CHUNK_OVERHEAD: Final = 2
CHUNK_SPARE: Final = 65_536
"""A body in chunks has at most CHUNK_OVERHEAD times the bytes of its content on the wire, and CHUNK_SPARE besides: to
take in a million chunks of a byte costs more than any honest body."""
BODIES_BYTES: Final = 128 << 20
"""Of bodies that are being received, all together; the first UNASKED_BYTES of each do not count, so that what is small
(a lease, a settling, most single messages) goes whoever else is slow. CONNECTIONS_MOST bounds those."""
SHARE_BYTES: Final = BODIES_BYTES // 4
"""Of these, for one principal, or for one source while nobody knows who it is: more than any one body."""
BUSY: Final = "too much is under way; try again"
CONNECTIONS_MOST: Final = 2_048
CONNECTIONS_SOURCE: Final = 256

_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,4095}) HTTP/1\.([01])\Z")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([\t\x20-\x7e\x80-\xff]*)\Z")
_ENDS: Final = re.compile(rb"\r\n\r\n|\n\r?\n")
_CHUNK: Final = re.compile(rb"[0-9A-Fa-f]{1,8}\Z")
_METHODS: Final = (b"GET", b"HEAD", b"PUT", b"POST")
_ONCE: Final = frozenset((
    "host", "content-length", "transfer-encoding", "content-type", "authorization", "expect", "content-encoding",
))  # fmt: skip
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class BadRequest(Exception):
    """A request that is answered without being understood, and ends the connection."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title


class Gone(Exception):
    """The client is not there any more, or is not to be answered."""


class Head(NamedTuple):
    """A request's first part. Names of header fields are in lower case; `length`: of the body, None: in chunks."""

    method: str
    target: bytes
    headers: Mapping[str, str]
    length: int | None
    old: bool
    """HTTP/1.0: the connection ends with the answer."""


class Answer(NamedTuple):
    """What is sent back. `kind`: its content type."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: Mapping[str, str] = {}


def read_head(data: bytes) -> Head:
    """A head, from its first byte to the end of its empty line. Raises: BadRequest, where it is none, or can be read in
    more than one way."""
    lines = data.split(b"\r\n")
    bare = data.replace(b"\r\n", b"")
    if b"\n" in bare or b"\r" in bare or b"\0" in data:
        raise BadRequest(400, "a line does not end as HTTP/1.1 has it, or holds NUL")
    first = _LINE.match(lines[0])
    if first is None:
        if re.search(rb" HTTP/[0-9]+(\.[0-9]+)?\Z", lines[0]) and not re.search(rb" HTTP/1\.[01]\Z", lines[0]):
            raise BadRequest(505, "another version of HTTP than 1.1")
        raise BadRequest(400, "the request line is none of HTTP/1.1")
    if first[1] not in _METHODS:
        raise BadRequest(501, "a method that is not known here")
    if len(lines) - 3 > HEADERS_MOST:
        raise BadRequest(431, f"more than {HEADERS_MOST} header fields")
    headers: dict[str, str] = {}
    for line in lines[1:-2]:
        found = _HEADER.match(line)
        if found is None:
            raise BadRequest(400, "a header field that is none, or a folded one")
        name, value = found[1].decode().lower(), found[2].decode("latin-1").strip(" \t")
        if name in headers:
            if name in _ONCE:
                raise BadRequest(400, f"the header field {name} twice")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    if "host" not in headers:
        raise BadRequest(400, "no header field host")
    old = first[3] == b"0"
    return Head(first[1].decode(), first[2], headers, _length(headers, old), old)


def _length(headers: Mapping[str, str], old: bool) -> int | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or old:
            raise BadRequest(400, "transfer-encoding where something else says the length")
        if coding.lower() != "chunked":
            raise BadRequest(501, "a transfer coding other than chunked")
    if length is not None and re.fullmatch(r"[0-9]{1,12}", length, re.ASCII) is None:
        raise BadRequest(400, "a content-length that is no number")
    if length is not None and int(length) > BODY_BYTES:
        raise BadRequest(413, f"a body of more than {BODY_BYTES} bytes")
    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise BadRequest(415, "a body that is compressed; it has to come as it is")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise BadRequest(417, "an expectation that is not known here")
    return None if coding is not None else int(length or 0)


class Chunks:
    """A body in chunks. `rest` is what came behind it, once it is `done`."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._buffer = b""
        self._left = 0  # of the chunk that is being read, with its line end
        self._wire = self._content = 0

    def feed(self, data: bytes) -> bytes:
        """What of the content has come. Raises: BadRequest."""
        self._wire += len(data)
        buffer, at, found = self._buffer + data, 0, []
        while not self.done:
            if self._left > 2:
                piece = buffer[at : at + self._left - 2]
                if not piece:
                    break
                found.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._content += len(piece)
            elif self._left == 2:
                if not b"\r\n".startswith(buffer[at : at + 2]):
                    raise BadRequest(400, "a chunk that does not end where it says")
                if len(buffer) - at < 2:
                    break
                at += 2
                self._left = 0
            else:
                end = buffer.find(b"\r\n", at, at + 12)
                if end < 0:
                    if len(buffer) - at >= 12:
                        raise BadRequest(400, "a chunk without a size, or with an extension")
                    break
                if _CHUNK.match(buffer[at:end]) is None:
                    raise BadRequest(400, "a chunk without a size, or with an extension")
                size = int(buffer[at:end], 16)
                if size:
                    self._left, at = size + 2, end + 2
                elif len(buffer) < end + 4:
                    break
                elif buffer[end + 2 : end + 4] != b"\r\n":
                    raise BadRequest(400, "a trailer behind the last chunk")
                else:
                    self.done, at = True, end + 4
        self._buffer = buffer[at:]
        if self.done:
            self.rest, self._buffer = self._buffer, b""
        elif self._wire > CHUNK_OVERHEAD * self._content + CHUNK_SPARE:
            raise BadRequest(400, "a body in too many small chunks")
        return b"".join(found)


Application = Callable[["Request"], Coroutine[Any, Any, Answer]]


class Shared:
    """What the connections of a side have in common. `start` runs a task; one that fails ends the process."""

    def __init__(
        self, app: Application, loop: asyncio.AbstractEventLoop, start: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        self.app = app
        self.loop = loop
        self.start = start
        self.open: set[Connection] = set()
        self.places = Places(CONNECTIONS_MOST, CONNECTIONS_SOURCE)
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
        self.rows: object = None
        """What the application works by when the request comes; its own to use."""
        self.content = bytearray()
        self.most = UNASKED_BYTES
        """Of content that is taken now; when there is more, the client has to wait, or the request is refused."""
        self.whole: asyncio.Future[bool] | None = None
        """Done when all of the body has come (True), or more than is wanted (False)."""

    async def body(self, most: int, principal: str) -> bytes | None:
        """The body, or None if it has more than `most` bytes. It counts to the principal's share. Raises: Gone."""
        if self.length is not None and self.length > most:
            return None
        self.connection.belongs(principal)
        self.most = most
        if not await self.connection.read_body(self) or len(self.content) > most:
            return None
        return bytes(self.content)


class Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, shared: Shared, source: str, principals: tuple[str, ...]) -> None:
        self.shared = shared
        self.source = source
        self.principals = principals
        """Whose address it comes from."""
        self.certificate: bytes = b""
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
        self._rest = 0  # bytes of a body that nobody wants
        self._last = False  # the connection ends with the answer
        self._held = 0
        self._owner = f"source {source}"  # whose share the body counts to
        self._full = False

    @property
    def busy(self) -> bool:
        """A request is under way."""
        return self._request is not None

    @property
    def request(self) -> Request | None:
        """The request that is under way."""
        return self._request

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
        if found is not None and (der := found.getpeercert(True)):
            self.certificate = der

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.open.discard(self)
        self._let_go()
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()
        request = self._request
        if request is not None and request.whole is not None and not request.whole.done():
            request.whole.set_exception(Gone())

    def pause_writing(self) -> None:
        self._full = True
        self._until("write_time", WRITE_SECONDS)

    def resume_writing(self) -> None:
        self._full = False
        self._until("idle" if self._request is None else "answer_time", IDLE_SECONDS)

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
        rest, head = self._buffer[end:], read_head(self._buffer[:end])
        self._buffer = b""
        self._last = head.old or "close" in head.headers.get("connection", "").lower()
        self._chunks = Chunks() if head.length is None else None
        self._left = head.length or 0
        self._coming = head.length != 0
        self._request = request = Request(self, head)
        self._until("answer_time", ANSWER_SECONDS)
        if self._coming and request.headers.get("expect") is None:
            self._until("body_time", BODY_SECONDS)
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
            if self._rest > REST_BYTES:
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
            self._until(*(("idle", IDLE_SECONDS) if request is None else ("answer_time", ANSWER_SECONDS)))
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
        if self.closing or self._transport is None:
            raise Gone
        if not self._coming:
            return True
        if request.headers.get("expect") is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._until("body_time", BODY_SECONDS)
        request.whole = self.shared.loop.create_future()
        self._weigh(request, done=False)
        if len(request.content) <= request.most:
            self._transport.resume_reading()
        return await request.whole

    def hold(self, size: int) -> bool:
        """Counts bytes of a body that is kept until the answer. Returns whether there is room for them."""
        shared, owner = self.shared, self._owner
        share = shared.shares.get(owner, 0) + size
        if size > 0 and (shared.bodies + size > BODIES_BYTES or share > SHARE_BYTES):
            shared.hit("bodies_bytes" if share <= SHARE_BYTES else "bodies_share")
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
        if self._request is request:
            self._send(answer, bodiless=request.method == "HEAD")

    def _send(self, answer: Answer, bodiless: bool = False) -> None:
        if self.closing or self._transport is None:
            return
        lines = [
            f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, '')}",
            f"date: {self.shared.date}",
            *(f"{name}: {value}" for name, value in answer.headers.items()),
        ]
        if answer.status != 204:
            lines += [f"content-type: {answer.kind}", f"content-length: {len(answer.body)}"]
        if self._last:
            lines.append("connection: close")
        head = "\r\n".join(lines)
        if not head.replace("\r\n", "").isprintable():
            raise ValueError("a header field that would break the answer")
        self._request, self.gone, self._rest = None, None, 0
        self._let_go()
        self._until(*(("rest_time", REST_SECONDS) if self._coming else ("idle", IDLE_SECONDS)))
        self._transport.write(head.encode("latin-1") + b"\r\n\r\n" + (b"" if bodiless else answer.body))
        if self._last:
            self._transport.close()
        else:
            self._transport.resume_reading()

    def _refuse(self, error: BadRequest) -> None:
        """Answers what is no request, and ends the connection."""
        self.shared.malformed += 1
        problem = {"type": "urn:cofferdam:relay:http", "title": error.title, "status": error.status}
        request, self._last = self._request, True
        if request is not None and request.whole is not None and not request.whole.done():
            request.whole.set_exception(Gone())
        self._send(Answer(error.status, json.dumps(problem).encode(), "application/problem+json"))
