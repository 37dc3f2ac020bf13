"""HTTPS to the servers of one source, and to no others: by literal addresses (or through the site's proxy), to servers
that are known by a pinned authority or key, with redirects among them alone. HTTP/1.1 is h11's.

What a server may do to us has a bound with a name each. A transfer that breaks is asked for again from where it broke,
and only if the server says that it is still the same file.

Not here: what is fetched (listing, fetch_apt), when (fetcher), whether it is good (keeper).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple
from urllib.parse import urljoin, urlsplit

import h11

from cofferdam.brokers.kit.aio import DIAL_SECONDS, literal_address
from cofferdam.brokers.kit.tls import public_key_hash
from cofferdam.errors import CofferdamError
from cofferdam.policy.terms.patch_source_rows import Host, Source

IDLE_SECONDS: Final = 60.0
"""Without a byte from the server."""
PAGE_SECONDS: Final = 120.0
"""For a listing or an index from its first byte to its last."""
HEAD_BYTES: Final = 64 << 10
PIECE: Final = 256 << 10
PROXY_BYTES: Final = 8 << 10
"""Of a proxy's answer."""
REDIRECTS_MOST: Final = 5
BREAKS_MOST: Final = 5
"""Breaks of one transfer without a byte between them, after which it is given up."""
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})\Z")


class NotHad(CofferdamError):
    """What a source does is refused, by name."""


class Missing(NotHad):
    """There is no such file (404, 410)."""


class Broken(CofferdamError):
    """The connection broke, or there was none: it may be tried again."""


class Place(NamedTuple):
    """A file at one of the source's servers."""

    host: Host
    target: str

    @property
    def words(self) -> str:
        return f"{self.host.name}{self.target}"[:200]


class Head(NamedTuple):
    """What a server says of a file. `size`: 0 where it does not."""

    status: int
    size: int
    mark: str
    etag: str
    """For If-Range: a strong ETag, or the time of change; "" for neither."""
    headers: dict[str, str]


class Client:
    """One source's. A connection to each server is kept while it is of use."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._lines: dict[str, _Line] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    # --- where

    def first(self, path: str) -> Place:
        return Place(self.source.hosts[0], path)

    def beside(self, place: Place, href: str) -> Place:
        """Where a link leads. Raises: NotHad: to a server that the policy does not list."""
        port = f":{place.host.port}" if place.host.port != 443 else ""
        try:
            url = urlsplit(urljoin(f"https://{place.host.name}{port}{place.target}", href))
            name, number = (url.hostname or "").lower(), url.port or 443
        except ValueError:
            raise NotHad(f"a link that is none: {href[:80]!r}") from None
        if url.scheme != "https":
            raise NotHad(f"a link to {href[:80]!r}, which is not by HTTPS")
        host = next((each for each in self.source.hosts if (each.name, each.port) == (name, number)), None)
        if host is None or url.username is not None:
            raise NotHad(f"it leads to {name}:{number}, which the policy does not list")
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if not re.fullmatch(r"/[!-~]{0,2000}", target):
            raise NotHad(f"a link that is none: {href[:80]!r}")
        return Place(host, target)

    # --- what

    async def head(self, place: Place) -> Head:
        """What the server says of a file. Raises: NotHad, Missing, Broken."""
        found, _, line = await self._ask(place, "HEAD", {})
        async for _ in line.body(place.words):
            pass
        if found.status in (405, 501):  # it does not do that
            return Head(200, 0, "", "", {})
        return found

    async def page(self, place: Place, most: int) -> tuple[bytes, Place]:
        """A small file, and where it was in the end. Raises: NotHad, Missing, Broken."""
        for left in range(BREAKS_MOST - 1, -1, -1):
            try:
                return await self._page(place, most)
            except Broken:
                self.close()
                if not left:
                    raise
                await asyncio.sleep(0.2 * 3 ** (BREAKS_MOST - 1 - left))
        raise Broken(f"{place.words} breaks off")

    async def _page(self, place: Place, most: int) -> tuple[bytes, Place]:
        try:
            async with asyncio.timeout(PAGE_SECONDS):
                found, there, line = await self._ask(place, "GET", {})
                if found.size > most:
                    raise NotHad(f"{place.words} has {found.size} bytes, and at most {most} are taken")
                data = bytearray()
                async for piece in line.body(place.words):
                    data += piece
                    if len(data) > most:
                        raise NotHad(f"{place.words} does not end within {most} bytes")
        except TimeoutError:
            self.close()
            raise NotHad(f"{place.words} does not come within {PAGE_SECONDS:.0f} s") from None
        return bytes(data), there

    async def pieces(self, place: Place, most: int, begin: Head | None = None) -> AsyncIterator[bytes]:
        """A file, whole, however often the connection breaks. Raises: NotHad, Missing, Broken."""
        got, breaks, whole, tag = 0, 0, 0, ""
        while True:
            before = got
            try:
                headers = {"Range": f"bytes={got}-", "If-Range": tag} if got else {}
                found, _, line = await self._ask(place, "GET", headers)
                if got:
                    self._continues(place, found, got, whole, tag)
                else:
                    whole, tag = found.size, found.etag
                    if begin is not None and begin.size and whole and begin.size != whole:
                        raise NotHad(f"{place.words} changes while it is fetched: {begin.size}, then {whole} bytes")
                    if whole > most:
                        raise NotHad(f"{place.words} has {whole} bytes, and at most {most} are taken")
                async for piece in line.body(place.words):
                    got += len(piece)
                    if got > most or (whole and got > whole):
                        raise NotHad(f"{place.words} does not end within {min(most, whole or most)} bytes")
                    yield piece
                if whole and got != whole:
                    raise Broken(f"{place.words} has {got} bytes, and {whole} were said")
                return
            except Broken as error:
                self.close()
                breaks = 0 if got > before else breaks + 1
                if got and (not tag or not whole):
                    raise NotHad(f"{place.words} breaks off at {got} bytes, and does not say how to go on") from None
                if breaks >= BREAKS_MOST:
                    if got:
                        raise NotHad(f"{place.words} is shorter than was said: {got} of {whole} bytes") from None
                    raise NotHad(f"{place.words}: {error}") from None
                await asyncio.sleep(min(30.0, 0.2 * 3**breaks))
            except BaseException:
                self.close()
                raise

    @staticmethod
    def _continues(place: Place, found: Head, got: int, whole: int, tag: str) -> None:
        """Raises: NotHad: it is not the rest of the same file."""
        if found.status != 206 and found.etag == tag:
            raise NotHad(f"{place.words} is shorter than was said: {got} of {whole} bytes, and no rest can be had")
        if found.status != 206:
            raise NotHad(f"{place.words} is another file since the transfer broke")
        said = _CONTENT_RANGE.match(found.headers.get("content-range", ""))
        if said is None or int(said[1]) != got or int(said[3]) != whole or int(said[2]) != whole - 1:
            raise NotHad(f"{place.words} goes on from another place than was asked for")

    async def _ask(self, place: Place, method: str, headers: dict[str, str]) -> tuple[Head, Place, _Line]:
        """Sends a request and follows redirects. The body is to be read, or the client closed."""
        for _ in range(REDIRECTS_MOST):
            line = await self._line(place.host)
            found = await line.ask(method, place.target, headers)
            if found.status in (301, 302, 303, 307, 308):
                async for _piece in line.body(place.words, HEAD_BYTES):
                    pass
                location = found.headers.get("location", "")
                try:
                    place = self.beside(place, location)
                except NotHad as error:
                    raise NotHad(f"a redirect from {place.words}: {error}") from None
                continue
            if found.status in (404, 410):
                self.close()
                raise Missing(f"there is no {place.words} ({found.status})")
            if found.status in (405, 501) and method == "HEAD":
                return found, place, line
            if found.status not in (200, 206) or (found.status == 206 and "Range" not in headers):
                self.close()
                raise NotHad(f"{place.words} is answered with {found.status}")
            if found.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
                self.close()
                kind = found.headers["content-encoding"][:40]
                raise NotHad(f"{place.words} comes as {kind!r}, where the file itself was asked for")
            return found, place, line
        raise NotHad(f"more than {REDIRECTS_MOST} redirects from {place.words}")

    # --- connections

    async def _line(self, host: Host) -> _Line:
        key = f"{host.name}:{host.port}"
        line = self._lines.get(key)
        if line is not None and line.again():
            return line
        if line is not None:
            line.close()
        line = self._lines[key] = await self._dial(host)
        return line

    async def _dial(self, host: Host) -> _Line:
        """Raises: NotHad (another certificate), Broken."""
        key = f"{host.name}:{host.port}"
        context = self._contexts.get(key) or self._contexts.setdefault(key, _context(host))
        writer: asyncio.StreamWriter | None = None
        through: socket.socket | None = None
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                if self.source.via is not None:
                    through = await _through(self.source.via, host)
                    where: dict[str, Any] = {"sock": through}
                else:
                    where = {"host": literal_address(host.address), "port": host.port}
                reader, writer = await asyncio.open_connection(
                    **where, ssl=context, server_hostname=host.name, limit=HEAD_BYTES
                )
                through = None
        except ssl.SSLCertVerificationError as error:
            raise NotHad(f"{host.name} shows another certificate than is pinned: {error.verify_message}") from None
        except TimeoutError:
            _abort(writer)
            raise Broken(f"{host.name} does not answer") from None
        except (OSError, EOFError) as error:
            _abort(writer)
            raise Broken(f"{host.name} cannot be reached: {getattr(error, 'strerror', None) or error}") from None
        except BaseException:
            _abort(writer)
            raise
        finally:
            if through is not None:
                through.close()
        if host.key:
            shown = writer.get_extra_info("ssl_object").getpeercert(True)
            if shown is None or public_key_hash(shown) != host.key:
                _abort(writer)
                raise NotHad(f"{host.name} shows another key than is pinned")
        return _Line(host, reader, writer)

    def close(self) -> None:
        """All connections."""
        for line in self._lines.values():
            line.close()
        self._lines.clear()


class _Line:
    """One connection."""

    def __init__(self, host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._host = host
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)

    def again(self) -> bool:
        """Whether another request may be sent by it."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE and not self._reader.at_eof():
            self._h11.start_next_cycle()
            return True
        return False

    async def ask(self, method: str, target: str, more: dict[str, str]) -> Head:
        """Raises: Broken, NotHad."""
        port = f":{self._host.port}" if self._host.port != 443 else ""
        headers = {"Host": f"{self._host.name}{port}", "User-Agent": "cofferdam", "Accept": "*/*",
                   "Accept-Encoding": "identity", **more}  # fmt: skip
        request = h11.Request(method=method, target=target, headers=list(headers.items()))
        try:
            self._writer.write((self._h11.send(request) or b"") + (self._h11.send(h11.EndOfMessage()) or b""))
            async with asyncio.timeout(IDLE_SECONDS):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise Broken(f"{self._host.name} hung up: {error}") from None
        while True:
            event = await self._event(f"{self._host.name}{target}"[:200])
            if isinstance(event, h11.Response):
                return _head(event)
            if not isinstance(event, h11.InformationalResponse):
                raise Broken(f"{self._host.name} hung up before it answered")

    async def body(self, words: str, most: int | None = None) -> AsyncIterator[bytes]:
        """Raises: Broken, NotHad."""
        total = 0
        while True:
            event = await self._event(words)
            if isinstance(event, h11.Data):
                total += len(event.data)
                if most is not None and total > most:
                    raise NotHad(f"{words}: more than {most} bytes")
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return
            else:
                raise Broken(f"{words} breaks off")

    async def _event(self, words: str) -> Any:
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                if self._reader.at_eof():
                    raise Broken(f"{words} breaks off") from None
                raise NotHad(f"{words}: no answer of HTTP/1.1: {error}") from None
            if event is not h11.NEED_DATA:
                return event
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    data = await self._reader.read(PIECE)
            except TimeoutError:
                raise Broken(f"{words}: nothing for {IDLE_SECONDS:.0f} s") from None
            except (OSError, ssl.SSLError) as error:
                raise Broken(f"{words} breaks off: {error}") from None
            self._h11.receive_data(data)

    def close(self) -> None:
        _abort(self._writer)


def _abort(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        with contextlib.suppress(Exception):
            writer.transport.abort()


def _context(host: Host) -> ssl.SSLContext:
    """Raises: NotHad: the policy's authority is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not host.authority:  # then its key is what counts, and it is looked at before a byte is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=host.authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise NotHad(f"the authority of {host.name} is not PEM: {error}") from None
    return context


async def _through(proxy: tuple[str, int], host: Host) -> socket.socket:
    """Has the proxy connect to a server, by its name. Its answer is read byte by byte: not one that it sends behind it
    may pass for what the server says, and TLS finds them.

    Raises:
        Broken, OSError.
    """
    loop, address = asyncio.get_running_loop(), literal_address(proxy[0])
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, (address, proxy[1]))
        name = f"[{host.name}]" if ":" in host.name else host.name
        asked = f"CONNECT {name}:{host.port} HTTP/1.1\r\nHost: {name}:{host.port}\r\n\r\n"
        await loop.sock_sendall(sock, asked.encode())
        said = b""
        while not said.endswith(b"\r\n\r\n"):
            byte = await loop.sock_recv(sock, 1)
            if not byte or len(said) >= PROXY_BYTES:
                raise Broken("the proxy gives no answer of HTTP")
            said += byte
        line = said.split(b"\r\n", 1)[0]
        words = line.split()
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or words[1] != b"200":
            raise Broken(f"the proxy does not connect to {host.name}: {line[:60].decode('ascii', 'replace')!r}")
    except BaseException:
        sock.close()
        raise
    return sock


def _head(event: h11.Response) -> Head:
    headers: dict[str, str] = {}
    for name, value in event.headers:
        headers.setdefault(name.decode("ascii", "replace"), value.decode("latin-1"))
    length = headers.get("content-length", "")
    size = int(length) if length.isdecimal() and len(length) <= 14 and "transfer-encoding" not in headers else 0
    etag, changed = headers.get("etag", ""), headers.get("last-modified", "")
    strong = etag if etag and not etag.startswith("W/") else changed
    mark = (etag or changed)[:200]
    return Head(event.status_code, size, mark if mark.isprintable() else "", strong, headers)
