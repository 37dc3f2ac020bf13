"""Reverse connect for peers that know none of it: what joins their ordinary connections to reversed ones.

Both live in a thread with a loop of its own, and end with `close`. Not here: peers that reverse connections themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self


def reverse_hello(uri: str, url: str) -> bytes:
    """RHE, by the standard's table and by none of our own code."""
    said = b"".join(struct.pack("<i", len(text)) + text for text in (uri.encode(), url.encode()))
    return b"RHEF" + struct.pack("<I", 8 + len(said)) + said


async def _pump(reader: asyncio.StreamReader, *writers: asyncio.StreamWriter) -> None:
    """From a connection into the first of these; all of them end with it."""
    try:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writers[0].write(data)
                await writers[0].drain()
    finally:
        for writer in writers:
            writer.close()


async def _join(one: Any, other: Any) -> None:
    """Two connections become one, until either ends."""
    await asyncio.gather(_pump(one[0], other[1], one[1]), _pump(other[0], one[1], other[1]))


class _Threaded:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.writers: list[asyncio.StreamWriter] = []
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def start(self, work: Coroutine[Any, Any, None]) -> Self:
        self._thread.start()
        self._work = asyncio.run_coroutine_threadsafe(work, self.loop)
        return self

    def close(self) -> None:
        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in self.writers:
                writer.transport.abort()
            await asyncio.gather(*(writer.wait_closed() for writer in self.writers), return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Caller(_Threaded):
    """A server at `port` that opens connections to `to`, one after the other."""

    def __init__(self, port: int, to: int, uri: str = "urn:plant:server", host: str = "127.0.0.1") -> None:
        super().__init__()
        self.port, self.to, self.uri, self.host = port, to, uri, host
        self.calls = 0
        self._now: list[asyncio.StreamWriter] = []
        self.start(self._run())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                gate = await asyncio.open_connection(self.host, self.to)
                self.calls += 1
                self.writers.append(gate[1])
                gate[1].write(reverse_hello(self.uri, f"opc.tcp://127.0.0.1:{self.port}/"))
                plant = await asyncio.open_connection("127.0.0.1", self.port)
                self._now = [gate[1], plant[1]]
                self.writers += self._now
                await _join(gate, plant)
            await asyncio.sleep(0.05)

    def cut(self) -> None:
        """The connection that there is breaks."""
        for writer in self._now:
            self.loop.call_soon_threadsafe(writer.close)


class Answerer(_Threaded):
    """Clients that connect to `near` have the connections that come to `port`; `said`: the RHE of each of these."""

    def __init__(self, port: int, near: int, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.port, self.near, self.host = port, near, host
        self.said: list[tuple[str, str]] = []
        self._waiting: asyncio.Queue[Any] = asyncio.Queue()
        self._listens = threading.Event()
        self.start(self._run())
        self._listens.wait()
        if self._work.done():
            self._work.result()  # why nobody listens

    async def _run(self) -> None:
        try:
            servers = [
                await asyncio.start_server(self._called, self.host, self.port),
                await asyncio.start_server(self._asked, "127.0.0.1", self.near),
            ]
        finally:
            self._listens.set()
        try:
            await asyncio.Event().wait()
        finally:
            for server in servers:
                server.close()

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        head = await reader.readexactly(8)
        assert head[:4] == b"RHEF"
        data = await reader.readexactly(int.from_bytes(head[4:], "little") - 8)
        size = int.from_bytes(data[:4], "little")
        self.said.append((data[4 : 4 + size].decode(), data[8 + size :].decode()))
        await self._waiting.put((reader, writer))

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await _join((reader, writer), await self._waiting.get())
