"""A file to an asset by FTP (RFC 959, 2428), or by FTPS (RFC 4217): beside its place, read back, renamed, read back.

    FTP    protects nothing: whoever is on the path reads the password and can change the file. What is read back shows
           a change, and only if the way back is left alone. The policy's warnings say so.
    FTPS   AUTH TLS on the control connection, PROT P on each data connection, which resumes the control connection's
           session (servers ask for that); the asset's certificate is pinned.

Passive mode alone: no part listens for an asset. Data ports are those that the policy names; whatever address the asset
names for them, its own is dialled. Not here: SIZE, REST and listings (a transfer is whole or begun anew), names of
hosts, active mode.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from cofferdam.brokers.kit.aio import literal_address
from cofferdam.brokers.patch.outcome import (
    CONNECT_SECONDS,
    PIECE,
    SILENT_SECONDS,
    Outcome,
    Progress,
    Refused,
)
from cofferdam.brokers.patch.placing import over, place
from cofferdam.policy.terms.patch_rows import Ftp, Way

LINE_BYTES: Final = 4096
LINES_MOST: Final = 100
"""Of one answer."""
_EPSV: Final = re.compile(r"\(\|\|\|([0-9]{1,5})\|\)")
_PASV: Final = re.compile(r"([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3})")
_BAD: Final = re.compile(r"[\x00-\x1f\x7f]")


class _Wire:
    """A connection, plain or under TLS of our own making: asyncio's cannot resume another connection's session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._tls: ssl.SSLObject | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()

    async def secure(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> None:
        """Raises: ssl.SSLError, OSError."""
        self._tls = context.wrap_bio(self._in, self._out, session=session)
        while True:
            try:
                self._tls.do_handshake()
                await self._flush()
                return
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()

    @property
    def session(self) -> ssl.SSLSession | None:
        return self._tls.session if self._tls is not None else None

    @property
    def certificate(self) -> bytes:
        return (self._tls.getpeercert(binary_form=True) or b"") if self._tls is not None else b""

    async def _flush(self) -> None:
        if data := self._out.read():
            self._writer.write(data)
        await self._writer.drain()

    async def _fill(self) -> None:
        data = await self._reader.read(PIECE)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def write(self, data: bytes) -> None:
        if self._tls is None:
            self._writer.write(data)
            await self._writer.drain()
            return
        at = 0
        while at < len(data):
            try:
                at += self._tls.write(memoryview(data)[at:])
            except ssl.SSLWantReadError:
                await self._fill()
            await self._flush()

    async def read(self, most: int) -> bytes:
        """ "" at the end. Raises: OSError, also where TLS ends without saying so: then it may have been cut."""
        if self._tls is None:
            return await self._reader.read(most)
        while True:
            try:
                return self._tls.read(most)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""

    async def finish(self) -> None:
        """That was all: a server takes the file only after TLS has said so."""
        if self._tls is not None:
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                pass  # its own farewell may come later, or not at all
            except ssl.SSLError:
                pass
            await self._flush()
        if self._writer.can_write_eof():
            self._writer.write_eof()
        await self._writer.drain()

    def abort(self) -> None:
        self._writer.transport.abort()


class _Session:
    """A control connection, logged in."""

    def __init__(self, way: Way, said: Ftp) -> None:
        self._way = way
        self._said = said
        self._wire: _Wire = None  # type: ignore[assignment]
        self._data = b""
        self._context: ssl.SSLContext | None = None

    async def _connect(self, port: int) -> _Wire:
        async with asyncio.timeout(CONNECT_SECONDS):
            return _Wire(*await asyncio.open_connection(literal_address(self._way.address), port, limit=PIECE))

    async def login(self, secret: str) -> None:
        """Raises: Refused, OSError, TimeoutError."""
        self._wire = await self._connect(self._said.port)
        await self._answer("2")
        if self._said.certificate:
            await self.ask("AUTH TLS", "2")
            if self._data:
                raise Refused("the asset says more before TLS than it was asked")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # the certificate itself is compared
            self._context = context
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._wire.secure(context, None)
            self._same(self._wire)
            await self.ask("PBSZ 0", "2")
            await self.ask("PROT P", "2")
        said = await self.ask(f"USER {self._said.user}", "23")
        if said.startswith("3"):
            await self.ask(f"PASS {secret}", "2", shown="PASS")
        await self.ask("TYPE I", "2")

    def _same(self, wire: _Wire) -> None:
        if hashlib.sha256(wire.certificate).hexdigest() != self._said.certificate:
            raise Refused("the asset shows another certificate than the policy has")

    async def ask(self, command: str, good: str, *, shown: str = "") -> str:
        """Raises: Refused, where the answer does not begin with one of these digits."""
        if _BAD.search(command):
            raise Refused("a command with a line end in it")
        async with asyncio.timeout(SILENT_SECONDS):
            await self._wire.write(command.encode() + b"\r\n")
        return await self._answer(good, shown or command)

    async def _answer(self, good: str, to: str = "") -> str:
        text = await self._line()
        if text[3:4] == "-":
            for _ in range(LINES_MOST):
                line = await self._line()
                if line.startswith(text[:3] + " "):
                    break
            else:
                raise Refused("an answer of too many lines")
        if not text[:3].isdigit() or text[0] not in good:
            raise Refused(f"{to or 'the connection'}: {text[:120]}")
        return text

    async def _line(self) -> str:
        async with asyncio.timeout(SILENT_SECONDS):
            while b"\n" not in self._data:
                if len(self._data) > LINE_BYTES:
                    raise Refused("an answer without an end")
                data = await self._wire.read(LINE_BYTES)
                if not data:
                    raise Refused("the asset has closed the connection")
                self._data += data
        line, _, self._data = self._data.partition(b"\n")
        return line.decode("utf-8", "replace").rstrip("\r")

    async def _open(self) -> _Wire:
        """A data connection to the asset's own address, at a port that the policy names."""
        try:
            found = _EPSV.search(await self.ask("EPSV", "2"))
            port = int(found[1]) if found else 0
        except Refused:
            old = _PASV.search(await self.ask("PASV", "2"))
            port = int(old[5]) * 256 + int(old[6]) if old else 0
        low, high = self._said.data
        if not low <= port <= high:
            raise Refused(f"the asset offers the data port {port}, and the policy has {low}-{high}")
        return await self._connect(port)

    async def _secure(self, wire: _Wire) -> None:
        if self._context is not None:
            async with asyncio.timeout(CONNECT_SECONDS):
                await wire.secure(self._context, self._wire.session)
            self._same(wire)

    async def put(self, file: Path, target: str, progress: Progress) -> None:
        """Raises: Refused, OSError, TimeoutError."""
        wire = await self._open()
        try:
            await self.ask(f"STOR {target}", "1")
            await self._secure(wire)
            with file.open("rb") as source:
                while data := source.read(PIECE):
                    async with asyncio.timeout(SILENT_SECONDS):
                        await wire.write(data)
                    await progress(len(data))
            async with asyncio.timeout(SILENT_SECONDS):
                await wire.finish()
            await self._answer("2", f"STOR {target}")
        finally:
            wire.abort()

    async def hash(self, target: str, most: int) -> str:
        """Of a file there; "" if there is none, or one of more bytes than that."""
        wire = await self._open()
        digest, size = hashlib.sha256(), 0
        try:
            try:
                await self.ask(f"RETR {target}", "1")
            except Refused:
                return ""
            await self._secure(wire)
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    data = await wire.read(PIECE)
                if not data:
                    break
                size += len(data)
                if size > most:
                    return ""
                digest.update(data)
            async with asyncio.timeout(SILENT_SECONDS):
                await wire.finish()  # some servers wait for our end of TLS before they say that it is done
            await self._answer("2", f"RETR {target}")
            return digest.hexdigest()
        finally:
            wire.abort()

    async def read(self, target: str, most: int) -> bytes:
        """The beginning of a file. Raises: Refused, OSError, TimeoutError."""
        wire, found = await self._open(), b""
        try:
            await self.ask(f"RETR {target}", "1")
            await self._secure(wire)
            async with asyncio.timeout(SILENT_SECONDS):
                while len(found) < most and (data := await wire.read(most - len(found))):
                    found += data
            return found
        finally:
            wire.abort()

    async def remove(self, target: str) -> None:
        await self.ask(f"DELE {target}", "2")

    async def rename(self, old: str, new: str) -> None:
        """Over what is there."""
        await over(self, Refused, self._rename, old, new)

    async def _rename(self, old: str, new: str) -> None:
        await self.ask(f"RNFR {old}", "3")
        await self.ask(f"RNTO {new}", "2")

    def abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()


@asynccontextmanager
async def _session(way: Way, secret: str) -> AsyncIterator[_Session]:
    if way.ftp is None:
        raise Refused("the asset has no FTP")
    session = _Session(way, way.ftp)
    try:
        await session.login(secret)
        yield session
    finally:
        session.abort()


def _target(way: Way, name: str) -> str:
    return way.ftp.path.replace("{file}", name) if way.ftp is not None else name


async def push(way: Way, secret: str, file: Path, name: str, size: int, sha256: str, progress: Progress) -> Outcome:
    """Sends a file of this size and hash. Never raises for what the asset or the network does."""
    ends = (Refused, OSError, TimeoutError)
    return await place(lambda: _session(way, secret), ends, way, _target(way, name), file, size, sha256, progress)


async def read_text(way: Way, secret: str, path: str, most: int) -> str:
    """A small file of the asset. Raises: OSError."""
    try:
        async with _session(way, secret) as session:
            return (await session.read(path, most)).decode("utf-8", "replace")
    except Refused as error:
        raise OSError(str(error)) from None
