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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncssh

from cofferdam.brokers.patch.outcome import CONNECT_SECONDS, SILENT_SECONDS, Outcome, Refused, at_most, read_back_of
from cofferdam.policy.terms.patch_rows import Way

BLOCK: Final = 256 << 10
KEY_MARK: Final = "openssh-key "
"""How a credential begins that is a private key, in base64, and no password."""


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
            target = _target(way, name)
            part = f"{target}.part"
            async with asyncio.timeout(at_most(way, size)):
                try:
                    await _put(sftp, file, part, progress)
                except (asyncssh.SFTPError, OSError):
                    await _quietly(sftp.remove(part))  # what is left of it would fill the asset's disk
                    raise
                there = await _hash(sftp, part, size)
            if there != sha256:
                await _quietly(sftp.remove(part))
                return Outcome("failed", read_back_of(there))
            renamed = True
            await _rename(sftp, part, target)
            async with asyncio.timeout(at_most(way, size)):
                there = await _hash(sftp, target, size)
            if there == sha256:
                return Outcome("sent")
            return Outcome("unknown", "after the rename the asset reads back another hash")
    except (asyncssh.Error, OSError, TimeoutError, Refused) as error:
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
            return await _hash(sftp, _target(way, name), size)
    except (asyncssh.Error, OSError, TimeoutError, Refused):
        return ""


async def read_text(way: Way, secret: str, path: str, most: int) -> str:
    """A small file of the asset. Raises: OSError."""
    try:
        async with _session(way, secret) as sftp, asyncio.timeout(SILENT_SECONDS), sftp.open(path, "rb") as opened:
            data: bytes = await opened.read(most)
            return data.decode("utf-8", "replace")
    except (asyncssh.Error, Refused) as error:
        raise OSError(str(error)) from None


def _target(way: Way, name: str) -> str:
    if way.sftp is None:
        raise Refused("the asset has no SFTP")
    return way.sftp.path.replace("{file}", name)


@asynccontextmanager
async def _session(way: Way, secret: str) -> AsyncIterator[Any]:
    """Raises: asyncssh.Error, OSError, TimeoutError, Refused."""
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
        async with asyncio.timeout(CONNECT_SECONDS):
            sftp = await connection.start_sftp_client()
        yield sftp
    finally:
        connection.abort()


async def _put(sftp: Any, file: Path, target: str, progress: Callable[[int], None]) -> None:
    """Writes with several blocks under way; each must be taken within SILENT_SECONDS."""
    at = 0
    with file.open("rb") as source:
        async with asyncio.timeout(SILENT_SECONDS):
            remote = await sftp.open(target, "wb")
        try:
            while data := source.read(BLOCK * 4):
                async with asyncio.timeout(SILENT_SECONDS):
                    await remote.write(data, at)
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
            opened = await sftp.open(path, "rb")
    except asyncssh.SFTPNoSuchFile:
        return ""
    try:
        while at <= most:
            async with asyncio.timeout(SILENT_SECONDS):
                data = await opened.read(BLOCK * 4, at)
            if not data:
                return digest.hexdigest()
            digest.update(data)
            at += len(data)
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
    except (asyncssh.Error, OSError, TimeoutError):
        pass
