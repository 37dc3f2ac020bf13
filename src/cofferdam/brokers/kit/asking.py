"""One connection to a device, with one question at a time, for parts that read what an asset says by themselves.

Not here: what is asked, and how often.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.base import NEED_DATA, BadResponse, ResponseReceived


class Line(asyncio.Protocol):
    """One connection to the device, with one question at a time."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self._waiter: asyncio.Future[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._settle(ConnectionError("the device has closed the connection"))

    def data_received(self, data: bytes) -> None:
        try:
            self.machine.receive_data(data)
            while (event := self.machine.next_event()) is not NEED_DATA:
                if isinstance(event, ResponseReceived):
                    self._settle(event.response)
                elif isinstance(event, BadResponse):
                    self._settle(ConnectionError("an answer that is none"))
        except RemoteProtocolError as error:
            self._settle(ConnectionError(str(error)))
            self.close()

    def _settle(self, found: Any) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            if isinstance(found, Exception):
                waiter.set_exception(found)
            else:
                waiter.set_result(found)

    async def ask(self, request: Any, seconds: float) -> Any:
        """The answer. Raises: OSError, also where there is none in time; then the connection is of no more use."""
        if self.lost or self.transport is None:
            raise ConnectionError("there is no connection")
        self._waiter = asyncio.get_running_loop().create_future()
        _, data = self.machine.send(request)
        self.transport.write(data)
        try:
            async with asyncio.timeout(seconds):
                return await self._waiter
        except TimeoutError:
            self.close()
            raise

    def close(self) -> None:
        self.lost = True
        if self.transport is not None:
            self.transport.abort()
