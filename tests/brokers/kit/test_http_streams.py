"""Answers and bodies that go piece by piece: with back-pressure both ways, and an end that a client can see."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from cofferdam.brokers.kit import aio
from cofferdam.brokers.kit.http.connection import UNASKED_BYTES, Connection, Limits, Request, Shared
from cofferdam.brokers.kit.http.messages import Answer, BadRequest, Gone, read_head
from tests.waiting import PATIENT, eventually

PIECE = b"x" * 65_536
MOST = 8 << 20


@dataclass
class App:
    """The application: uploads are hashed, downloads and lines go out piece by piece."""

    made: int = 0
    closed: int = 0
    held: int = 0
    shared: Shared | None = None
    gate: list[asyncio.Event] = field(default_factory=list)

    async def __call__(self, request: Request) -> Answer:
        match request.target:
            case b"/upload":
                found = hashlib.sha256()
                async for piece in request.pieces(MOST, "p"):
                    self.held = max(self.held, len(piece))
                    found.update(piece)
                return Answer(200, found.hexdigest().encode(), "text/plain")
            case b"/none":
                return Answer(200, self._pieces(10_000))
            case b"/short":
                return Answer(200, self._pieces(3), length=4 * len(PIECE))
            case b"/fails":
                return Answer(200, self._fails())
        return Answer(200, self._pieces(5), "application/octet-stream", length=5 * len(PIECE))

    async def _pieces(self, count: int) -> AsyncIterator[bytes]:
        try:
            for _ in range(count):
                self.made += 1
                yield PIECE
        finally:
            self.closed += 1

    async def _fails(self) -> AsyncIterator[bytes]:
        yield PIECE
        raise Gone


@pytest.fixture
def served() -> Iterator[tuple[App, int]]:
    app, loop = App(), asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    tasks: set[asyncio.Task[None]] = set()

    async def run() -> None:
        def start(coroutine: object) -> None:
            task = loop.create_task(coroutine)  # type: ignore[arg-type,var-annotated]
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        shared = Shared(app, Limits(body_bytes=MOST, rest_bytes=MOST), "urn:test:", loop, start)
        app.shared = shared
        listener.setblocking(False)
        while True:
            sock, _ = await loop.sock_accept(listener)
            await aio.serve(sock, lambda: Connection(shared, "127.0.0.1", ("p",)))

    main = loop.create_task(run())
    thread = threading.Thread(target=lambda: _quietly(app, loop, main))
    thread.start()
    yield app, listener.getsockname()[1]
    loop.call_soon_threadsafe(main.cancel)
    thread.join(PATIENT)
    assert not thread.is_alive()
    loop.close()
    listener.close()


def _quietly(app: App, loop: asyncio.AbstractEventLoop, main: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(main)
    if app.shared is not None:
        app.shared.end_all()
    loop.run_until_complete(asyncio.sleep(0.05))  # what was aborted is closed


def client(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENT, trust_env=False)


def test_a_file_of_known_length_and_another_request_behind_it(served: tuple[App, int]) -> None:
    app, port = served
    with client(port) as http:
        for _ in range(2):
            answer = http.get("/file")
            assert answer.headers["content-length"] == str(5 * len(PIECE))
            assert answer.content == PIECE * 5
        assert http.head("/file").content == b""
    assert app.shared is not None and len(app.shared.open) <= 1  # one connection served all of them


def test_a_client_that_takes_nothing_is_not_sent_more(served: tuple[App, int]) -> None:
    app, port = served
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /none HTTP/1.1\r\nhost: x\r\n\r\n")
        made = -1
        while made != app.made or not made:  # until it stands still
            made = app.made
            threading.Event().wait(0.2)
        assert 0 < made < 1_000
        with client(port) as http:
            assert http.get("/file").status_code == 200  # others are served meanwhile
    eventually(lambda: app.closed >= 2)  # what made the pieces is told that nobody takes them


def test_an_answer_that_ends_early_is_seen_to(served: tuple[App, int]) -> None:
    _, port = served
    with client(port) as http:
        for path in ("/short", "/fails"):
            with pytest.raises(httpx.HTTPError):
                http.get(path)


def test_uploads_of_both_kinds_and_one_too_large(served: tuple[App, int]) -> None:
    app, port = served
    data = bytes(range(256)) * 16_384

    def chunks() -> Iterator[bytes]:
        for at in range(0, len(data), 50_000):
            yield data[at : at + 50_000]

    with client(port) as http:
        assert http.put("/upload", content=data).text == hashlib.sha256(data).hexdigest()
        assert http.put("/upload", content=chunks()).text == hashlib.sha256(data).hexdigest()
        asked = http.put("/upload", content=data, headers={"expect": "100-continue"})
        assert asked.text == hashlib.sha256(data).hexdigest()
        assert http.put("/upload", content=data * 3).status_code == 413
        many = http.put("/upload", content=(piece for _ in range(3) for piece in chunks()))
        assert many.status_code == 413
        assert http.put("/upload", content=b"").text == hashlib.sha256(b"").hexdigest()
    assert app.held <= 4 * UNASKED_BYTES
    eventually(lambda: app.shared is not None and app.shared.bodies == 0)


def test_a_client_that_leaves_in_mid_upload_leaves_nothing(served: tuple[App, int]) -> None:
    app, port = served
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"PUT /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 500_000)
        eventually(lambda: app.held)  # before that nothing of it is there that could be left
    eventually(lambda: app.shared is not None and not app.shared.open and app.shared.bodies == 0)


def test_a_name_that_was_not_encoded_is_told_how() -> None:
    """curl sends a tag with an umlaut as it was typed."""
    with pytest.raises(BadRequest, match="%C3%BC"):
        read_head("GET /v1/samples?tag=Kühlraum HTTP/1.1\r\nhost: x\r\n\r\n".encode(), 0)
    with pytest.raises(BadRequest, match=r"none of HTTP/1\.1$"):
        read_head(b"GET  / HTTP/1.1\r\nhost: x\r\n\r\n", 0)
