"""Commands for a driven actor, from its standard input."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from cofferdam.lab import events


async def commands() -> AsyncIterator[events.Command]:
    """Commands from stdin until it ends. Raises CofferdamError at a line that is none."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    )
    try:
        while line := await reader.readline():
            yield events.parse_command(line)
    finally:
        transport.close()
