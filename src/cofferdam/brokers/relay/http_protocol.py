"""HTTP/1.1 as a side of the relay takes it: uvicorn's protocol on h11, with what they let pass refused before them.

Two readers that find different ends of one request are what smuggling lives on. So a request's head is looked at as
bytes before h11 sees it: one spelling of lines, no folded ones, one length and not two, chunks only where nothing else
says a length. What comes behind a request before its answer is never read as a request: the connection ends with the
answer. (No client of today sends so.)

uvicorn knows no limits of time but one between requests. Here each connection has a deadline for what it is doing:
its head, its body, the reading of its answer, the time between two requests; and there are bounds for connections, of
one source and in all, and for bytes of bodies.

Not here: accepting and TLS (brokers.kit.aio, http_side), what a request means (http_api).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import re
from collections.abc import Callable
from typing import Any, Final

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

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
REST_BYTES: Final = 1 << 20
BODY_BYTES: Final = LARGEST_MESSAGE + (1 << 20)
"""The largest body of all: a batch."""
CHUNK_OVERHEAD: Final = 2
CHUNK_SPARE: Final = 65_536
"""A body in chunks has at most CHUNK_OVERHEAD times the bytes of its content on the wire, and CHUNK_SPARE besides: to
take in a million chunks of a byte costs more than any honest body."""
CHUNKS_A_TIME: Final = 16_384
"""Bytes of a body in chunks that are read before that is looked at."""
BODIES_BYTES: Final = 128 << 20
"""Of bodies that are being received, all together."""
CONNECTIONS_MOST: Final = 2_048
CONNECTIONS_SOURCE: Final = 256

_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,4095}) HTTP/1\.[01]\Z")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([\t\x20-\x7e\x80-\xff]*)\Z")
_ENDS: Final = re.compile(rb"\r\n\r\n|\n\r?\n")
_METHODS: Final = (b"GET", b"HEAD", b"PUT", b"POST")


class BadRequest(Exception):
    """A request that is answered without being understood, and ends the connection."""

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title


def check_head(head: bytes) -> int | None:
    """How long the body of a request with this head (up to and with its empty line) is; None: it comes in chunks.

    Raises: BadRequest, where it is none or can be read in more than one way.
    """
    lines = head.split(b"\r\n")
    if b"\n" in head.replace(b"\r\n", b"") or b"\r" in head.replace(b"\r\n", b"") or b"\0" in head:
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
    seen: dict[bytes, bytes] = {}
    for line in lines[1:-2]:
        found = _HEADER.match(line)
        if found is None:
            raise BadRequest(400, "a header field that is none, or a folded one")
        name = found[1].lower()
        if name in seen and name in _ONCE:
            raise BadRequest(400, f"the header field {name.decode()} twice")
        seen[name] = found[2].strip(b" \t")
    if b"host" not in seen:
        raise BadRequest(400, "no header field host")
    return _framing(seen, old=lines[0].endswith(b"1.0"))


_ONCE: Final = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"authorization",
        b"expect",
        b"content-encoding",
    )
)


def _framing(seen: dict[bytes, bytes], old: bool) -> int | None:
    length, coding = seen.get(b"content-length"), seen.get(b"transfer-encoding")
    if coding is not None:
        if length is not None or old:
            raise BadRequest(400, "transfer-encoding where something else says the length")
        if coding.lower() != b"chunked":
            raise BadRequest(501, "a transfer coding other than chunked")
    if length is not None and re.fullmatch(rb"[0-9]{1,12}", length) is None:
        raise BadRequest(400, "a content-length that is no number")
    if length is not None and int(length) > BODY_BYTES:
        raise BadRequest(413, f"a body of more than {BODY_BYTES} bytes")
    if seen.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
        raise BadRequest(415, "a body that is compressed; it has to come as it is")
    if seen.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise BadRequest(417, "an expectation that is not known here")
    return None if coding is not None else int(length or 0)


class CheckedHeads(h11.Connection):
    """h11 that reads a request's head only after `check_head` has passed it, and takes nothing else for one."""

    checked = False
    content = 0
    """Bytes of the present body that have come."""

    def next_event(self) -> Any:
        """The next event. See h11."""
        if self.their_state is h11.IDLE and not self.checked:
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Request):
            self.checked, self.content = False, 0
        elif isinstance(event, h11.Data):
            self.content += len(event.data)
        return event

    @property
    def surplus(self) -> bool:
        """Something came behind the request."""
        return self.their_state is not h11.SEND_BODY and bool(self.trailing_data[0])


class Shared:
    """What the connections of a side have in common."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        logging.getLogger("uvicorn.error").disabled = True
        logging.getLogger("uvicorn.access").disabled = True
        self.config = Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", http="h11", loop="asyncio",
            interface="asgi3", proxy_headers=False, server_header=False, date_header=False,
            timeout_keep_alive=int(IDLE_SECONDS) * 2, h11_max_incomplete_event_size=HEAD_BYTES + 1024,
        )  # fmt: skip
        self.config.load()
        self.state = ServerState()
        self.loop = loop
        self.open: set[Connection] = set()
        self.places = Places(CONNECTIONS_MOST, CONNECTIONS_SOURCE)
        self.bodies = 0
        self.hits: dict[str, int] = {}
        self.malformed = 0
        self.sweep()

    def hit(self, limit: str) -> None:
        """Counts a limit that was hit."""
        self.hits[limit] = self.hits.get(limit, 0) + 1

    def sweep(self) -> None:
        """Ends the connections that have taken too long. To be called twice a second."""
        self.state.default_headers = [(b"date", email.utils.formatdate(usegmt=True).encode())]
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


class Connection(H11Protocol):
    """One connection."""

    def __init__(self, shared: Shared, source: str, principals: tuple[str, ...]) -> None:
        super().__init__(shared.config, shared.state, {"connection": self}, shared.loop)
        self.conn: CheckedHeads = CheckedHeads(h11.SERVER, HEAD_BYTES + 1024)
        self.shared = shared
        self.source = source
        self.principals = principals
        """Whose address it comes from."""
        self.certificate: bytes = b""
        self.gone: Callable[[], None] | None = None
        """Called once if the client leaves while its request waits."""
        self.due = shared.loop.time() + HEAD_SECONDS
        self.doing = "head_time"
        self._head = bytearray()
        self._answered = True
        """No request is under way."""
        self._wire = 0
        self._left: int | None = 0
        """Bytes of the body that are still to come; None: nobody knows, it comes in chunks."""
        self._held = 0

    @property
    def busy(self) -> bool:
        """A request is under way."""
        return not self._answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.shared.open.add(self)
        found = transport.get_extra_info("ssl_object")
        if found is not None and (der := found.getpeercert(True)):
            self.certificate = der

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self.shared.open.discard(self)
        self.hold(-self._held)
        gone, self.gone = self.gone, None
        if gone is not None:
            gone()

    def abort(self) -> None:
        """Ends it at once."""
        self.transport.abort()

    def _until(self, doing: str, seconds: float) -> None:
        if doing != "write_time" and self.flow is not None and self.flow.write_paused:
            return  # whatever comes next, the client has to take its answer first
        self.doing, self.due = doing, self.shared.loop.time() + seconds

    # --- what comes

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._answered and self.conn.their_state is h11.IDLE:
            self._unset_keepalive_if_required()
            self._take_head(data)
        elif self.conn.their_state is h11.SEND_BODY:
            self._take_body(data)
        else:
            self._too_early()

    def _take_head(self, data: bytes) -> None:
        if not self._head:
            data = data.lstrip(b"\r\n") if len(data) <= 4 else data  # an empty line may stand before a request
            if not data:
                return
            self._until("head_time", HEAD_SECONDS)
        found = _ENDS.search(self._head + data, max(0, len(self._head) - 3))
        self._head += data
        end = found.end() if found else 0
        try:
            if not self._head[:1].isupper():
                raise BadRequest(400, "the request line is none of HTTP/1.1")
            if max(end, 0 if end else len(self._head)) > HEAD_BYTES:
                raise BadRequest(431, f"a head of more than {HEAD_BYTES} bytes")
            if not end:
                return
            self._left = check_head(bytes(self._head[:end]))
        except BadRequest as error:
            self.refuse(error)
            return
        whole, self._head = bytes(self._head), bytearray()
        self._answered, self._wire = False, 0
        self._until("body_time", BODY_SECONDS)
        self.conn.checked = True
        self.conn.receive_data(whole[:end])
        self.handle_events()
        if len(whole) > end and not self.transport.is_closing():
            self.data_received(whole[end:])

    def _take_body(self, data: bytes) -> None:
        # Exactly the body goes to h11. What is behind it may be the next request, of a client that has its answer.
        most = CHUNKS_A_TIME if self._left is None else self._left
        body, rest = data[:most], data[most:]
        self._wire += len(body)
        if self._left is not None:
            self._left -= len(body)
        if self._answered and self._wire > REST_BYTES:
            self.shared.hit("body_bytes")
            self.abort()
            return
        self.conn.receive_data(body)
        self.handle_events()
        if self.conn.surplus:
            self._too_early()
        elif self._left is None and self._wire > CHUNK_OVERHEAD * self.conn.content + CHUNK_SPARE:
            self.shared.hit("chunks")
            self.refuse(BadRequest(400, "a body in too many small chunks"))
        elif rest and not self.transport.is_closing():
            self.data_received(rest)

    def _too_early(self) -> None:
        """Something comes behind a request that has no answer yet: the connection ends with the answer."""
        self.shared.hit("too_early")
        if self._answered:
            self.abort()
        else:
            self.cycle.keep_alive = False

    def handle_events(self) -> None:
        super().handle_events()
        if self.transport.is_closing() or self.conn.their_state is h11.SEND_BODY:
            return
        if self._answered:
            self._until("idle", IDLE_SECONDS)
        else:
            self._until("answer_time", ANSWER_SECONDS)

    def _should_upgrade(self) -> bool:
        return False

    def send_400_response(self, msg: str) -> None:
        self.refuse(BadRequest(400, "the request is no HTTP/1.1"))

    def refuse(self, error: BadRequest) -> None:
        """Answers what is no request, and ends the connection."""
        self.shared.malformed += 1
        if not self._answered and self.cycle is not None and self.cycle.response_started:
            self.abort()
            return
        problem = {"type": "urn:cofferdam:relay:http", "title": error.title, "status": error.status}
        body = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 {error.status} \r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        if not self._answered:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(head.encode() + body)
        self._until("rest_time", REST_SECONDS)
        self.transport.close()

    # --- what goes

    def on_response_complete(self) -> None:
        self._answered = True
        self.gone = None
        self.hold(-self._held)
        if self.conn.their_state is h11.SEND_BODY:
            self._until("rest_time", REST_SECONDS)
            self._wire = 0
        else:
            self._until("idle", IDLE_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._until("write_time", WRITE_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._until("idle" if self._answered else "answer_time", IDLE_SECONDS if self._answered else ANSWER_SECONDS)

    def hold(self, size: int) -> bool:
        """Counts bytes of a body that is kept until the answer. Returns whether there is room for them."""
        if size > 0 and self.shared.bodies + size > BODIES_BYTES:
            self.shared.hit("bodies_bytes")
            return False
        self._held += size
        self.shared.bodies += size
        return True
