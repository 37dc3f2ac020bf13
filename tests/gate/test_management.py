"""The page for Prometheus serves who asks, whoever else only holds its connections."""

from __future__ import annotations

import asyncio
import io

from cofferdam.gate.log import Log
from cofferdam.gate.watch.management import CONNECTIONS, Management
from tests.ports import held_port


def test_those_who_open_connections_and_say_nothing_blind_nobody() -> None:
    """L9: sixteen of them did, for five seconds at a time."""

    async def play() -> list[bytes]:
        page = Management(lambda: b"up 1\n", Log(stream=io.StringIO()))
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
        for _, writer in dawdlers:
            writer.transport.abort()
        await page.close()
        return said

    answers = asyncio.run(play())
    assert [answer.splitlines()[-1] for answer in answers] == [b"up 1"] * 3
