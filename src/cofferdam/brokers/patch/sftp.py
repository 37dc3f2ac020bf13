"""A file to an asset by SFTP, as `placing` has it: beside its place, then renamed there, each time read back.

Not here: in which order (placing), when (plan), what the asset does with the file (health).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import asyncssh

from cofferdam.brokers.patch.outcome import (
    CONNECT_SECONDS,
    SILENT_SECONDS,
    Outcome,
    Progress,
    Refused,
)
from cofferdam.brokers.patch.placing import over, place
from cofferdam.policy.terms.patch_rows import Way

PART: Final = 16 << 10
"""Bytes of one request where the asset does not say what it takes: every server takes these."""
PART_MOST: Final = 255 << 10
"""Where it says so, as OpenSSH does: fewer requests cost less than half of the processor time."""
AHEAD: Final = 2 << 20
"""Bytes that are under way."""
AT_ONCE: Final = 64
"""Requests that are under way, at most."""
CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr",
                  "aes192-ctr", "aes128-ctr")  # fmt: skip
"""asyncssh's own, the cheapest first: its ChaCha20 takes four calls for a packet and three times as long."""
KEY_MARK: Final = "openssh-key "
"""How a credential begins that is a private key, in base64, and no password."""


ENDS: Final = (asyncssh.Error, OSError, TimeoutError, Refused, ValueError)
"""How a session may end, whatever the asset does: what it sends that is no SFTP is a ValueError of asyncssh's."""


def prepare() -> None:
    """Before the first connection of a part. asyncssh asks who runs it and where that one's files are, by the
    environment or by files that no part sees. The name goes nowhere, and nothing is read."""
    os.environ["LOGNAME"] = "cofferdam"
    os.environ["HOME"] = "/nonexistent"


async def push(way: Way, secret: str, file: Path, name: str, size: int, sha256: str, progress: Progress) -> Outcome:
    """Sends a file of this size and hash. Never raises for what the asset or the network does."""

    @asynccontextmanager
    async def files() -> AsyncIterator[_Files]:
        async with _session(way, secret) as sftp:
            yield _Files(sftp)

    return await place(files, ENDS, way, target(way, name), file, size, sha256, progress)


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
            encryption_algs=CIPHERS,
            preferred_auth="publickey" if keys else "password,keyboard-interactive", tcp_keepalive=False,
            x509_trusted_certs=None, gss_host=None, login_timeout=CONNECT_SECONDS, keepalive_interval=0,
        )  # fmt: skip
    try:
        yield connection
    finally:
        connection.abort()


async def _answers(works: Iterable[Coroutine[Any, Any, Any]], at_once: int) -> AsyncGenerator[Any, None]:
    """The answers to requests, in their order, with so many under way. Each is looked after, however this ends:
    asyncssh's own way leaves some of them behind when a connection breaks, and what nobody looks after ends the part.
    Raises: what the first of them does."""
    loop, left = asyncio.get_running_loop(), iter(works)
    waiting = deque(loop.create_task(work) for work in islice(left, at_once))
    try:
        while waiting:
            async with asyncio.timeout(SILENT_SECONDS):
                found = await waiting[0]
            waiting.popleft()
            waiting.extend(loop.create_task(work) for work in islice(left, 1))
            yield found
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def _fit(part: int) -> tuple[int, int]:
    """How large requests are, by what the asset says that it takes, and how many are under way."""
    part = min(max(part, PART), PART_MOST)
    return part, min(AT_ONCE, AHEAD // part)


class _Files:
    """The asset's files, for `place`."""

    def __init__(self, sftp: Any) -> None:
        self._sftp = sftp

    async def put(self, file: Path, path: str, progress: Progress) -> None:
        """Writes; what is under way must be taken within SILENT_SECONDS."""
        part, at_once = _fit(self._sftp.limits.max_write_len)
        with file.open("rb") as source:
            async with asyncio.timeout(SILENT_SECONDS):
                remote = await self._sftp.open(path, "wb", block_size=0)

            async def written(data: bytes, at: int) -> int:
                await remote.write(data, at)
                return len(data)

            pieces = iter(partial(source.read, part), b"")
            works = (written(data, part * number) for number, data in enumerate(pieces))
            try:
                async with aclosing(_answers(works, at_once)) as answers:
                    async for count in answers:
                        await progress(count)
            finally:
                async with asyncio.timeout(SILENT_SECONDS):
                    await remote.close()

    async def hash(self, path: str, most: int) -> str:
        """Of a file there; "" if there is none, or one of more bytes than that."""
        digest, at, (part, at_once) = hashlib.sha256(), 0, _fit(self._sftp.limits.max_read_len)
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                opened = await self._sftp.open(path, "rb", block_size=0)
        except asyncssh.SFTPNoSuchFile:
            return ""
        try:
            while at <= most:
                works = (opened.read(part, place) for place in range(at, most + 1, part))
                async with aclosing(_answers(works, at_once)) as answers:
                    async for data in answers:
                        digest.update(data)
                        at += len(data)
                        if not data:
                            return digest.hexdigest()
                        if len(data) != part:  # the end, or it gives less than was asked for: so much then
                            part = len(data)
                            break
        finally:
            await _quietly(opened.close())
        return ""

    async def rename(self, old: str, new: str) -> None:
        """Over what is there, in one step, where the asset can."""
        async with asyncio.timeout(SILENT_SECONDS):
            try:
                await self._sftp.posix_rename(old, new)
            except asyncssh.SFTPOpUnsupported:
                await over(self, asyncssh.SFTPError, self._sftp.rename, old, new)

    async def remove(self, path: str) -> None:
        await self._sftp.remove(path)


async def _quietly(work: Any) -> None:
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            await work
    except ENDS:
        pass
