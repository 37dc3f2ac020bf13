"""The management address: Prometheus metrics and the gate's health over plain HTTP, and nothing that changes anything.

A server for three pages needs very little HTTP: the request line of a GET is read, within limits, and answered; the
connection is closed. It belongs on an address that only operators reach; `127.0.0.1` is the usual choice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from cofferdam.enforce.isolation import listen
from cofferdam.errors import GateError
from cofferdam.gate.log import Log

REQUEST_BYTES = 8192
"""The largest head of a request."""
REQUEST_SECONDS = 5.0
"""For a request to arrive and its answer to leave."""
CONNECTIONS = 16
"""At once; with one more, whoever has waited longest of the address that has most of them is closed."""
PAGES = (b"/metrics", b"/health", b"/ready")
"""`/ready`: every crew works and the log takes entries. `/health`: that, and no alarm stands and nothing is severed.
200 or 503, with the verdict of `cofferdam status` as text."""
_TEXT = "text/plain; charset=utf-8"
_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class Management:
    """Serves at most one address. `metrics` gives the text exposition, `health` whether the gate takes work, whether
    all is well, and the verdict."""

    def __init__(self, metrics: Callable[[], bytes], health: Callable[[], tuple[bool, bool, str]], log: Log) -> None:
        self._metrics = metrics
        self._health = health
        self._log = log
        self._server: asyncio.Server | None = None
        self._at: tuple[str, int] | None = None
        self._waiting: dict[asyncio.StreamWriter, str] = {}  # in the order in which they came: where each is from

    @property
    def address(self) -> str:
        """Where it is, or ""."""
        if self._server is None:
            return ""
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def listen(self, at: tuple[str, int] | None) -> None:
        """Serves there from now on (None: nowhere).

        Raises:
            GateError: the address cannot be had; the old one is still served.
        """
        if at == self._at and (at is None) == (self._server is None):
            return
        fresh = None
        if at is not None:
            try:
                ours = listen(*at)
            except GateError as error:
                raise GateError(f"management address: {error}", hint=error.hint) from None
            fresh = await asyncio.start_server(self._serve, sock=ours, limit=REQUEST_BYTES)
        await self.close()
        self._server, self._at = fresh, at
        if fresh is not None:
            self._log.info("metrics", url=f"http://{self.address}/metrics")

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting[writer] = str((writer.get_extra_info("peername") or ("",))[0])
        if len(self._waiting) > CONNECTIONS:
            self._close_one()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client's own fault, and nobody else's concern
        finally:
            self._waiting.pop(writer, None)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _close_one(self) -> None:
        """Who opens connections and says nothing takes the place of none but its own."""
        sources = list(self._waiting.values())
        greediest = max(sources, key=sources.count)
        idlest = next(writer for writer, source in self._waiting.items() if source == greediest)
        del self._waiting[idlest]
        idlest.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", _TEXT, b"not HTTP/1.1\n")
        if words[0] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", _TEXT, b"only GET and HEAD\n", more="Allow: GET, HEAD\r\n")
        found = self._page(words[1].split(b"?")[0])
        return found if words[0] == b"GET" else found[: found.index(b"\r\n\r\n") + 4]

    def _page(self, path: bytes) -> bytes:
        if path not in PAGES:
            return _response("404 Not Found", _TEXT, f"there is {', '.join(map(bytes.decode, PAGES))}\n".encode())
        try:
            if path == b"/metrics":
                return _response("200 OK", _EXPOSITION, self._metrics())
            ready, well, said = self._health()
            good = ready if path == b"/ready" else well
            if path == b"/ready" and ready and not well:
                said = f"ready; /health says: {said}"
            return _response("200 OK" if good else "503 Service Unavailable", _TEXT, f"{said}\n".encode())
        except Exception as error:  # whoever scrapes ends nothing, whatever there is to be shown
            self._log.error("metrics-failed", reason=f"{type(error).__name__}: {error}")
            self._log.trace(error)
            return _response("500 Internal Server Error", _TEXT, b"the gate's log says why\n")


def _response(status: str, kind: str, body: bytes, *, more: str = "") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body
