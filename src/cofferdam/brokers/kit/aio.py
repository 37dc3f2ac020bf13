"""For parts that run libraries made for asyncio: their loop, connections with protocols and TLS on them, dialling.

The loop has no threads: a system-call filter holds for the one thread that put it on, so what libraries hand to an
executor runs at once. It resolves no names, since no part has a file or a server to ask: addresses are literal. What
nobody catches ends the process (crossing.loops), where asyncio alone would log it and go on without.

A part accepts by itself (`Part.accept_socket`): `listen` is not among the calls that it may make.

Not here: TLS contexts (kit.tls), limits on requests (each broker's).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)
T = TypeVar("T")

HANDSHAKE_SECONDS = 10.0
"""For a TLS handshake, from the first byte to the last."""
DIAL_SECONDS = 10.0


class _Transport(asyncio.selector_events._SelectorSocketTransport):  # type: ignore[name-defined,misc]
    """A connection's socket. asyncio's own keeps itself alive after its end, until the collector looks: where strangers
    come and go by the thousand, all others wait for that."""

    def _call_connection_lost(self, exc: Exception | None) -> None:
        super()._call_connection_lost(exc)
        self._read_ready_cb = None


class PartLoop(asyncio.SelectorEventLoop):
    """A loop without threads and without names.

    asyncio wakes a loop from other threads and from signal handlers by a pair of Unix sockets. There are no threads
    here, and no handlers; and a part holds no socket but those of its work, least of all one that could pass on
    descriptors.
    """

    def _make_self_pipe(self) -> None:
        """None is needed."""

    def _close_self_pipe(self) -> None:
        """None was made."""

    def _write_to_self(self) -> None:
        """Whoever calls is in the loop's own thread: it looks by itself."""

    def _make_socket_transport(
        self, sock: Any, protocol: Any, waiter: Any = None, *, extra: Any = None, server: Any = None
    ) -> asyncio.Transport:
        return _Transport(self, sock, protocol, waiter, extra, server)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Runs it now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> list[tuple[Any, ...]]:
        """The address itself, if it is one.

        Raises:
            OSError: it is a name.
        """
        literal = literal_address(host)
        own = socket.AF_INET6 if ":" in literal else socket.AF_INET
        if family not in (0, own):
            raise OSError(f"{literal} is of another family than was asked for")
        kind = type or socket.SOCK_STREAM
        protocol = proto or (socket.IPPROTO_TCP if kind == socket.SOCK_STREAM else socket.IPPROTO_UDP)
        address = (literal, int(port or 0)) if own == socket.AF_INET else (literal, int(port or 0), 0, 0)
        return [(own, socket.SocketKind(kind), protocol, "", address)]

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """The address as it stands: nobody is asked for its name."""
        return str(sockaddr[0]), str(sockaddr[1])


def literal_address(host: Any) -> str:
    """An address, in its shortest form.

    Raises:
        OSError: it is a name, and none is resolved here.
    """
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise OSError(f"{text!r} is no address, and names are not resolved here") from None


class Places:
    """How many connections a part has, and from whom: no more than it may. A connection is counted until its socket
    is closed, by whom and however that may happen."""

    def __init__(self, most: int, most_by_address: int) -> None:
        self.most = most
        self.most_by_address = most_by_address
        self._held: dict[socket.socket, str] = {}

    @property
    def count(self) -> int:
        """Connections that there are now."""
        self._held = {sock: source for sock, source in self._held.items() if sock.fileno() >= 0}
        return len(self._held)

    def take(self, sock: socket.socket, source: str) -> str:
        """ "" if this connection may stay; else it is closed, and the limit that it met is named."""
        if self.count >= self.most:
            sock.close()
            return "client_connections"
        if sum(1 for other in self._held.values() if other == source) >= self.most_by_address:
            sock.close()
            return "client_connections_per_address"
        self._held[sock] = source
        return ""


async def serve(
    sock: socket.socket,
    factory: Callable[[], P],
    context: ssl.SSLContext | None = None,
    *,
    handshake_seconds: float = HANDSHAKE_SECONDS,
) -> P:
    """Starts a protocol on a socket that was accepted, by TLS if there is a context. The socket is the transport's.

    Raises:
        OSError: the client went away, or made no TLS connection in time; the socket is closed.
    """
    loop = asyncio.get_running_loop()
    try:
        _, protocol = await loop.connect_accepted_socket(
            factory, sock, ssl=context, ssl_handshake_timeout=handshake_seconds if context is not None else None
        )
    except OSError as error:
        sock.close()
        # The future that has the error is in the frames that the error's traceback has: until the collector looks, the
        # connection would be kept by them.
        raise error.with_traceback(None) from None
    except BaseException:
        sock.close()
        raise
    return protocol


async def dial(
    address: str,
    port: int,
    factory: Callable[[], P],
    context: ssl.SSLContext | None = None,
    *,
    server_name: str | None = None,
    seconds: float = DIAL_SECONDS,
) -> P:
    """Connects to a literal address and starts a protocol there, by TLS if there is a context; `server_name` is the
    name that its certificate must have (without one: the address).

    Raises:
        OSError: it is a name, nobody answers, or TLS fails. (TimeoutError and ssl.SSLError are OSErrors.)
    """
    literal = literal_address(address)
    loop = asyncio.get_running_loop()
    name = (server_name or literal) if context is not None else None
    async with asyncio.timeout(seconds):
        _, protocol = await loop.create_connection(factory, literal, port, ssl=context, server_hostname=name)
    return protocol
