"""A file to an asset by SCP as of old (`scp -t`), where it has no SFTP: into its place, then read back from there
(`scp -f`).

SCP knows neither a rename nor an offset: the file stands in its place while it is written. So whatever breaks after the
first byte is read back, and where that is not what was sent, or cannot be had, the outcome is "unknown", and a person
says what the asset has. Nothing is sent again.

Not here: connections and keys (sftp), folders, times and modes of files.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cofferdam.brokers.patch import sftp
from cofferdam.brokers.patch.outcome import CONNECT_SECONDS, PIECE, SILENT_SECONDS, Outcome, Progress, Refused, at_most
from cofferdam.policy.terms.patch_rows import Way

LINE_BYTES: Final = 1024
_FILE: Final = re.compile(rb"C[0-7]{4} ([0-9]{1,14}) [^/\n]{1,255}\Z")


class _Wire:
    """The two ends of a command there."""

    def __init__(self, process: Any) -> None:
        self._in, self._out = process.stdin, process.stdout

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(SILENT_SECONDS):
            self._in.write(data)
            await self._in.drain()

    async def take(self, count: int) -> bytes:
        """Exactly so many bytes. Raises: Refused, TimeoutError."""
        async with asyncio.timeout(SILENT_SECONDS):
            data = bytes(await self._out.read(count))
            while len(data) < count and (more := await self._out.read(count - len(data))):
                data += more
        if len(data) != count:
            raise Refused("the asset has hung up")
        return data

    async def some(self, most: int) -> bytes:
        async with asyncio.timeout(SILENT_SECONDS):
            return bytes(await self._out.read(most))

    async def agreed(self) -> None:
        """Raises: Refused: it says what is wrong."""
        if (first := await self.take(1)) != b"\0":
            raise Refused(f"the asset says: {(await self._line(first)).decode('utf-8', 'replace')[1:200].strip()}")

    async def _line(self, line: bytes) -> bytes:
        while not line.endswith(b"\n") and len(line) < LINE_BYTES:
            line += await self.take(1)
        return line

    async def size(self) -> int:
        """Of the file that it is about to send. Raises: Refused."""
        line = (await self._line(await self.take(1))).rstrip(b"\n")
        found = _FILE.match(line)
        if found is None:
            raise Refused(f"the asset says: {line.decode('utf-8', 'replace')[1:200].strip()}")
        return int(found[1])


async def push(way: Way, secret: str, file: Path, name: str, size: int, sha256: str, progress: Progress) -> Outcome:
    """Sends a file of this size and hash. Never raises for what the asset or the network does."""
    begun, why = False, ""
    target = sftp.target(way, name)
    try:
        async with asyncio.timeout(at_most(way, size)), sftp.connected(way, secret) as connection:
            wire = await _command(connection, f"scp -t {shlex.quote(target)}")
            await wire.agreed()
            await wire.send(b"C0600 %d %s\n" % (size, name.encode()))
            begun = True  # an empty file may stand there by now
            await wire.agreed()
            with file.open("rb") as source:
                while data := source.read(PIECE):
                    await wire.send(data)
                    await progress(len(data))
            await wire.send(b"\0")
            await wire.agreed()
    except sftp.ENDS as error:
        why = str(error) or type(error).__name__
        if not begun:
            return Outcome("failed", f"{why[:300]}; what the asset had is still there")
    there = await read_back(way, secret, name, size)
    if there == sha256:
        return Outcome("sent", f"it broke at the end ({why[:200]}), and the asset has it" if why else "")
    return Outcome("unknown", f"{why[:300] or 'it was sent'}; the asset reads back {there[:16] or 'nothing'}…")


async def read_back(way: Way, secret: str, name: str, most: int) -> str:
    """The hash of what stands where a file of this size belongs; "" if it cannot be read."""
    digest = hashlib.sha256()
    try:
        async with asyncio.timeout(at_most(way, most)), sftp.connected(way, secret) as connection:
            await _read(connection, sftp.target(way, name), most, digest.update)
    except sftp.ENDS:
        return ""
    return digest.hexdigest()


async def read_text(way: Way, secret: str, path: str, most: int) -> str:
    """A small file of the asset. Raises: OSError."""
    found = bytearray()
    try:
        async with asyncio.timeout(SILENT_SECONDS), sftp.connected(way, secret) as connection:
            await _read(connection, path, most, found.extend)
    except sftp.ENDS as error:
        raise OSError(str(error) or type(error).__name__) from None
    return found.decode("utf-8", "replace")


async def _read(connection: Any, path: str, most: int, feed: Callable[[bytes], Any]) -> None:
    """Raises: Refused: among them, that it has more than that."""
    wire = await _command(connection, f"scp -f {shlex.quote(path)}")
    await wire.send(b"\0")
    left = await wire.size()
    if left > most:
        raise Refused(f"the asset has a file of {left} bytes there")
    await wire.send(b"\0")
    while left:
        data = await wire.some(min(left, PIECE))
        if not data:
            raise Refused("the asset has hung up")
        feed(data)
        left -= len(data)
    await wire.agreed()
    await wire.send(b"\0")


async def _command(connection: Any, command: str) -> _Wire:
    async with asyncio.timeout(CONNECT_SECONDS):
        return _Wire(await connection.create_process(command, encoding=None))
