"""Requests and answers of HTTP/1.1: the part of RFC 9112 that clients of today need, and nothing beside it. PURE.

Two readers that find different ends of one request are what smuggling lives on. So a request is read in one way only:
one spelling of lines, none folded, one length and not two, chunks only where nothing else says a length, no chunk
extensions, no trailers.

Not here: connections (connection), what a request means (each broker).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

HEAD_BYTES: Final = 16_384
HEADERS_MOST: Final = 64
CHUNK_OVERHEAD: Final = 2
CHUNK_SPARE: Final = 65_536
"""A body in chunks has at most CHUNK_OVERHEAD times the bytes of its content on the wire, and CHUNK_SPARE besides: to
take in a million chunks of a byte costs more than any honest body."""

_LINE: Final = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,4095}) HTTP/1\.([01])\Z")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}):[ \t]*([\t\x20-\x7e\x80-\xff]*)\Z")
_CHUNK: Final = re.compile(rb"[0-9A-Fa-f]{1,8}\Z")
_METHODS: Final = (b"GET", b"HEAD", b"PUT", b"POST")
_ONCE: Final = frozenset((
    "host", "content-length", "transfer-encoding", "content-type", "authorization", "expect", "content-encoding",
))  # fmt: skip
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


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
    """What is sent back. `kind`: its content type. `body`: whole, or pieces as they come to be, each of which is made
    when the client has taken enough of those before; they are closed if it leaves. `length`: of all pieces together,
    where that is known beforehand."""

    status: int
    body: bytes | AsyncIterator[bytes] = b""
    kind: str = "application/json"
    headers: Mapping[str, str] = {}
    length: int | None = None


def read_head(data: bytes, most: int) -> Head:
    """A head, from its first byte to the end of its empty line; its body may have `most` bytes.

    Raises:
        BadRequest: it is none, or can be read in more than one way.
    """
    lines = data.split(b"\r\n")
    bare = data.replace(b"\r\n", b"")
    if b"\n" in bare or b"\r" in bare or b"\0" in data:
        raise BadRequest(400, "a line does not end as HTTP/1.1 has it, or holds NUL")
    first = _LINE.match(lines[0])
    if first is None:
        if re.search(rb" HTTP/[0-9]+(\.[0-9]+)?\Z", lines[0]) and not re.search(rb" HTTP/1\.[01]\Z", lines[0]):
            raise BadRequest(505, "another version of HTTP than 1.1")
        way = "" if lines[0].isascii() else ": what is not ASCII stands in it as %C3%BC (curl: -G --data-urlencode)"
        raise BadRequest(400, f"the request line is none of HTTP/1.1{way}")
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
    return Head(first[1].decode(), first[2], headers, _length(headers, old, most), old)


def _length(headers: Mapping[str, str], old: bool, most: int) -> int | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or old:
            raise BadRequest(400, "transfer-encoding where something else says the length")
        if coding.lower() != "chunked":
            raise BadRequest(501, "a transfer coding other than chunked")
    if length is not None and re.fullmatch(r"[0-9]{1,12}", length, re.ASCII) is None:
        raise BadRequest(400, "a content-length that is no number")
    if length is not None and int(length) > most:
        raise BadRequest(413, f"a body of more than {most} bytes")
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
