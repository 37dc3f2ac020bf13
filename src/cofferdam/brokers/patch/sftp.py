"""A file to an asset by SFTP: beside the place where it belongs, then renamed there, then read back.

Until the rename the asset has what it had. Whatever fails later, what stands there is read back, so that the outcome is
one of: sent (the hash is right), failed (what was there before is still there, or nothing was touched), unknown.

Not here: when (plan), what the asset does with the file (health).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncssh

from cofferdam.brokers.patch.outcome import CONNECT_SECONDS, SILENT_SECONDS, Outcome, Refused, at_most, read_back_of
from cofferdam.policy.terms.patch_rows import Way

PART: Final = 16 << 10
"""Bytes of one request: what every server takes."""
AT_ONCE: Final = 64
"""Requests that are under way."""
KEY_MARK: Final = "openssh-key "
"""How a credential begins that is a private key, in base64, and no password."""


ENDS: Final = (asyncssh.Error, OSError, TimeoutError, Refused, ValueError)
"""How a session may end, whatever the asset does: what it sends that is no SFTP is a ValueError of asyncssh's."""


def prepare() -> None:
    """Before the first connection of a part. asyncssh asks who runs it and where that one's files are, by the
    environment or by files that no part sees. The name goes nowhere, and nothing is read."""
    os.environ["LOGNAME"] = "cofferdam"
    os.environ["HOME"] = "/nonexistent"


async def push(
    way: Way, secret: str, file: Path, name: str, size: int, sha256: str, progress: Callable[[int], None]
) -> Outcome:
    """Sends a file of this size and hash. Never raises for what the asset or the network does."""
    renamed = False
    try:
        async with _session(way, secret) as sftp:
            place = target(way, name)
            part = f"{place}.part"
            async with asyncio.timeout(at_most(way, size)):
                try:
                    await _put(sftp, file, part, progress)
                except (asyncssh.Error, OSError, ValueError):
                    await _quietly(sftp.remove(part))  # what is left of it would fill the asset's disk
                    raise
                there = await _hash(sftp, part, size)
            if there != sha256:
                await _quietly(sftp.remove(part))
                return Outcome("failed", read_back_of(there))
            renamed = True
            await _rename(sftp, part, place)
            async with asyncio.timeout(at_most(way, size)):
                there = await _hash(sftp, place, size)
            if there == sha256:
                return Outcome("sent")
            return Outcome("unknown", "after the rename the asset reads back another hash")
    except ENDS as error:
        why = str(error) or type(error).__name__
        if not renamed:
            return Outcome("failed", f"{why[:300]}; what the asset had is still there")
    found = await read_back(way, secret, name, size)
    if found == sha256:
        return Outcome("sent", f"it broke at the end ({why[:200]}), and the asset has it")
    return Outcome("unknown", f"{why[:300]}; what the asset has now is not known")


async def read_back(way: Way, secret: str, name: str, size: int) -> str:
    """The hash of what stands where a file of this size belongs; "" if it cannot be read."""
    try:
        async with _session(way, secret) as sftp, asyncio.timeout(at_most(way, size)):
            return await _hash(sftp, target(way, name), size)
    except ENDS:
        return ""


async def read_text(way: Way, secret: str, path: str, most: int) -> str:
    """A small file of the asset. Raises: OSError."""
    try:
        async with _session(way, secret) as sftp, asyncio.timeout(SILENT_SECONDS):
            async with sftp.open(path, "rb", block_size=0) as opened:
                data = b""
                while len(data) < most and (piece := await opened.read(PART, len(data))):
                    data += piece
            return data[:most].decode("utf-8", "replace")
    except (asyncssh.Error, Refused, ValueError) as error:
        raise OSError(str(error)) from None


def target(way: Way, name: str) -> str:
    """Where a file of this name belongs. Raises: Refused."""
    if way.sftp is None:
        raise Refused("the asset has no SFTP")
    return way.sftp.path.replace("{file}", name)


@asynccontextmanager
async def _session(way: Way, secret: str) -> AsyncIterator[Any]:
    """Raises: asyncssh.Error, OSError, TimeoutError, Refused."""
    async with connected(way, secret) as connection:
        async with asyncio.timeout(CONNECT_SECONDS):
            sftp = await connection.start_sftp_client()
        yield sftp


@asynccontextmanager
async def connected(way: Way, secret: str) -> AsyncIterator[Any]:
    """A connection to the asset, by its own host key. Raises: asyncssh.Error, OSError, TimeoutError, Refused."""
    said = way.sftp
    if said is None:
        raise Refused("the asset has no SFTP")
    if not secret:
        raise Refused(f"there is no credential {said.secret} (`cofferdam patch credential {said.secret}`)")
    host_key = asyncssh.import_public_key(said.host_key)
    keys, password = [], None
    if secret.startswith(KEY_MARK):
        try:
            keys = [asyncssh.import_private_key(base64.b64decode(secret.removeprefix(KEY_MARK)))]
        except (asyncssh.KeyImportError, ValueError) as error:
            raise Refused(f"the credential {said.secret} is no private key: {error}") from None
    else:
        password = secret
    async with asyncio.timeout(CONNECT_SECONDS):
        connection = await asyncssh.connect(
            way.address, said.port, username=said.user, client_keys=keys or None, password=password,
            known_hosts=([host_key], [], []), config=(), agent_path=None, agent_forwarding=False,
            preferred_auth="publickey" if keys else "password,keyboard-interactive", tcp_keepalive=False,
            x509_trusted_certs=None, gss_host=None, login_timeout=CONNECT_SECONDS, keepalive_interval=0,
        )  # fmt: skip
    try:
        yield connection
    finally:
        connection.abort()


async def _together(works: Iterable[Awaitable[Any]]) -> list[Any]:
    """Several requests at once, each looked after: asyncssh's own way leaves some of them behind when a connection
    breaks, and what nobody looks after ends the part. Raises: what the first of them does."""
    async with asyncio.timeout(SILENT_SECONDS):
        found = await asyncio.gather(*works, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return found


async def _put(sftp: Any, file: Path, target: str, progress: Callable[[int], None]) -> None:
    """Writes; what is under way must be taken within SILENT_SECONDS."""
    at = 0
    with file.open("rb") as source:
        async with asyncio.timeout(SILENT_SECONDS):
            remote = await sftp.open(target, "wb", block_size=0)
        try:
            while data := source.read(PART * AT_ONCE):
                pieces = range(0, len(data), PART)
                await _together(remote.write(data[piece : piece + PART], at + piece) for piece in pieces)
                at += len(data)
                progress(len(data))
        finally:
            async with asyncio.timeout(SILENT_SECONDS):
                await remote.close()


async def _hash(sftp: Any, path: str, most: int) -> str:
    """Of a file there; "" if there is none, or one of more bytes than that."""
    digest, at = hashlib.sha256(), 0
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            opened = await sftp.open(path, "rb", block_size=0)
    except asyncssh.SFTPNoSuchFile:
        return ""
    try:
        while at <= most:
            count = min(AT_ONCE, (most - at) // PART + 1)
            found = await _together(opened.read(PART, at + PART * number) for number in range(count))
            if not found[0]:
                return digest.hexdigest()
            for data in found:
                digest.update(data)
                at += len(data)
                if len(data) != PART:  # the end, or it gives less than was asked for
                    break
    finally:
        await _quietly(opened.close())
    return ""


async def _rename(sftp: Any, old: str, new: str) -> None:
    """Over what is there, in one step, where the asset can; otherwise what is there is removed first."""
    async with asyncio.timeout(SILENT_SECONDS):
        try:
            await sftp.posix_rename(old, new)
        except asyncssh.SFTPOpUnsupported:
            await _quietly(sftp.remove(new))
            await sftp.rename(old, new)


async def _quietly(work: Any) -> None:
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            await work
    except ENDS:
        pass
