"""The page for Prometheus serves who asks, whoever else only holds its connections."""

from __future__ import annotations

import asyncio
import io

from cofferdam.gate.log import Log
from cofferdam.gate.watch.management import CONNECTIONS, Management
from tests.ports import held_port


def test_those_who_open_connections_and_say_nothing_blind_nobody() -> None:
    """L9: sixteen of them did, for five seconds at a time."""

    pages: list[bytes] = []

    async def play() -> list[bytes]:
        page = Management(lambda: b"up 1\n", lambda: (True, False, "NOT OK: a"), Log(stream=io.StringIO()))
        at = ("127.0.0.1", held_port())
        await page.listen(at)
        dawdlers = [await asyncio.open_connection(*at) for _ in range(2 * CONNECTIONS)]
        said = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection(*at)
            writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
            said.append(await reader.read())
            writer.close()
        assert len(page._waiting) <= CONNECTIONS
        for line in (b"GET /health", b"GET /ready", b"HEAD /metrics"):
            reader, writer = await asyncio.open_connection(*at)
            writer.write(line + b" HTTP/1.1\r\n\r\n")
            pages.append(await reader.read())
            writer.close()
        for _, writer in dawdlers:
            writer.transport.abort()
        await page.close()
        return said

    answers = asyncio.run(play())
    heads = [answer.split(b"\r\n")[0] for answer in pages]
    assert heads == [b"HTTP/1.1 503 Service Unavailable", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK"]
    assert pages[1].endswith(b"\nready; /health says: NOT OK: a\n"), "one word for what it answers"
    assert pages[0].endswith(b"NOT OK: a\n") and pages[2].endswith(b"\r\n\r\n"), "HEAD has no body"
    assert [answer.splitlines()[-1] for answer in answers] == [b"up 1"] * 3
