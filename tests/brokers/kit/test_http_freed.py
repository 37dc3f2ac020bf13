"""Connections that have ended are gone at once, by counting references alone: what waits for the garbage collector has
all others wait while it looks, where strangers come and go by the thousand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import weakref
from collections.abc import Callable, Iterator

import pytest

from cofferdam.brokers.kit import aio
from cofferdam.brokers.kit.http.connection import Connection, Limits, Request, Shared
from cofferdam.brokers.kit.http.messages import Answer, BadRequest
from cofferdam.brokers.kit.tls import server_context
from cofferdam.crossing.loops import LoopReactor
from tests.brokers.relay.certificates import make
from tests.waiting import PATIENT

SERVER = make("relay.test", ca=True)


class Served:
    """A part's loop with connections on it, all in this thread: a client is a socket that blocks nobody."""

    context: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.loop = aio.PartLoop()
        self.reactor = LoopReactor(self.loop)
        limits = Limits(body_bytes=1 << 20, rest_bytes=1 << 20)
        self.shared = Shared(self.answer, limits, "urn:test:", self.loop, self.reactor.start)
        self.known: list[weakref.ref[object]] = []
        self.waiting: list[asyncio.Future[None]] = []

    async def answer(self, request: Request) -> Answer:
        self.known.append(weakref.ref(request))
        if request.target == b"/wait":
            future = self.loop.create_future()
            self.waiting.append(future)
            request.connection.gone = lambda: None if future.done() else future.set_result(None)
            await future
            request.connection.gone = None
        elif request.target == b"/bad":
            raise BadRequest(400, "bad")
        elif await request.body(1000, "p") is None:
            return Answer(413)
        return Answer(200, b"here")

    async def connected(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        theirs.setblocking(False)
        ours.setblocking(False)
        connection = Connection(self.shared, "127.0.0.1", ("p",))
        self.known.append(weakref.ref(connection))
        self.reactor.start(self._serve(theirs, connection))
        await asyncio.sleep(0)
        return ours

    async def _serve(self, sock: socket.socket, connection: Connection) -> None:
        with contextlib.suppress(OSError):
            await aio.serve(sock, lambda: connection, self.context)
            self.known.append(weakref.ref(connection._transport))

    def run(self, work: Callable[[Served], object]) -> None:
        async def go() -> None:
            async with asyncio.timeout(PATIENT):
                await work(self)  # type: ignore[misc]
            self.reactor.stop()

        self.reactor.start(go())
        self.reactor.run()

    def close(self) -> None:
        self.reactor.close()
        self.loop.close()


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - what is looked at is the loop's own
        await asyncio.sleep(0)


async def _told(served: Served, ours: socket.socket, request: bytes) -> bytes:
    """What is answered to this."""
    await served.loop.sock_sendall(ours, request)
    return await served.loop.sock_recv(ours, 65_536)


async def by_tls(served: Served) -> None:
    served.context = server_context(SERVER.pem, SERVER.key, b"")
    ours = await served.connected()
    trusted = ssl.create_default_context(cadata=SERVER.pem.decode())
    reader, writer = await asyncio.open_connection(sock=ours, ssl=trusted, server_hostname="relay.test")
    for _ in range(2):
        writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok")
        assert b" 200 " in await reader.readuntil(b"here")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def no_tls(served: Served) -> None:
    served.context = server_context(SERVER.pem, SERVER.key, b"")
    ours = await served.connected()
    ours.send(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(OSError):
        while await served.loop.sock_recv(ours, 65_536):
            pass
    ours.close()


async def half_a_handshake(served: Served) -> None:
    served.context = server_context(SERVER.pem, SERVER.key, b"")
    ours = await served.connected()
    ours.send(b"\x16\x03\x01\x02\x00")
    ours.close()


async def nothing(served: Served) -> None:
    (await served.connected()).close()


async def half_a_head(served: Served) -> None:
    ours = await served.connected()
    ours.send(b"POST /x HTTP/1.1\r\nhost")
    await until(lambda: any(connection._buffer for connection in served.shared.open))
    ours.close()


async def half_a_head_that_takes_too_long(served: Served) -> None:
    ours = await served.connected()
    ours.send(b"G")
    await until(
        lambda: any(connection.doing == "head_time" and connection._buffer for connection in served.shared.open)
    )
    for connection in served.shared.open:
        connection.due = 0
    del connection
    served.shared.sweep()
    ours.close()


async def answered(served: Served) -> None:
    ours = await served.connected()
    for _ in range(3):
        assert b" 200 " in await _told(served, ours, b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nok")
    ours.close()


async def refused(served: Served) -> None:
    ours = await served.connected()
    assert b" 400 " in await _told(served, ours, b"POST /bad HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    ours.close()


async def no_http(served: Served) -> None:
    ours = await served.connected()
    assert b" 505 " in await _told(served, ours, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    ours.close()


async def a_body_that_never_ends(served: Served) -> None:
    ours = await served.connected()
    ours.send(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\nok")
    await until(lambda: isinstance(served.known[-1](), Request))
    ours.close()


async def a_wait_that_is_left(served: Served) -> None:
    ours = await served.connected()
    ours.send(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    await until(lambda: bool(served.waiting))
    served.waiting.clear()
    ours.close()


async def ended_while_it_waits(served: Served) -> None:
    ours = await served.connected()
    ours.send(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
    await until(lambda: bool(served.waiting))
    served.waiting.clear()
    served.shared.end_all()
    ours.close()


ENDS = [nothing, half_a_head, half_a_head_that_takes_too_long, answered, refused, no_http, a_body_that_never_ends,
        a_wait_that_is_left, ended_while_it_waits, by_tls, no_tls, half_a_handshake]  # fmt: skip


@pytest.fixture
def served() -> Iterator[Served]:
    """The collector rests meanwhile."""
    gc.collect()
    gc.disable()
    made = Served()
    yield made
    made.close()
    gc.enable()


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_however_it_ends(served: Served, end: Callable[[Served], object]) -> None:
    async def work(served: Served) -> None:
        await end(served)  # type: ignore[misc]
        await until(lambda: not served.shared.open and len(served.reactor._tasks) == 1)

    served.run(work)
    left = [found for each in served.known if (found := each()) is not None]
    assert served.known and not left, [gc.get_referrers(one) for one in left]
