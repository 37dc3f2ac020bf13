"""A file to an asset's share by SMB 3.1.1 ([MS-SMB2]): beside its place, read back, renamed, read back.

Encrypted (AES-GCM) or not at all: what is said before there are keys goes into the keys, so that nobody on the path can
have had an older dialect or no encryption agreed upon, and the server's last word of the log-in is signed by a key that
takes the password. A guest's session, or one without a name, is refused.

One request is under way at a time. Not here: older dialects, Kerberos, DFS, several channels, leases.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from cofferdam.brokers.kit.aio import literal_address
from cofferdam.brokers.patch import ntlm
from cofferdam.brokers.patch.outcome import (
    CONNECT_SECONDS,
    SILENT_SECONDS,
    Outcome,
    Progress,
    Refused,
)
from cofferdam.brokers.patch.placing import place
from cofferdam.policy.terms.patch_rows import Smb, Way

MOST: Final = 1 << 20
"""Bytes of one read or write."""
UNIT: Final = 65_536
"""Bytes that one credit pays for."""
ANSWER_BYTES: Final = MOST + (64 << 10)
_NEGOTIATE, _SETUP, _TREE, _CREATE, _CLOSE, _FLUSH, _READ, _WRITE, _SET = 0, 1, 3, 5, 6, 7, 8, 9, 17
_OK, _PENDING, _MORE = 0, 0x103, 0xC0000016
_END_OF_FILE, _NO_NAME, _NO_PATH = 0xC0000011, 0xC0000034, 0xC000003A
_WORDS: Final = {
    0xC000006D: "it does not know the user, or the password is another", 0xC0000022: "access is denied",
    0xC00000CC: "there is no such share", 0xC000007F: "its disk is full", _NO_NAME: "there is no such file",
    _NO_PATH: "there is no such folder", 0xC0000043: "somebody else has the file open",
    0xC000006E: "the user may not log in", 0xC0000072: "the user is disabled", 0xC0000234: "the user is locked out",
}  # fmt: skip
_ENDS: Final = (OSError, TimeoutError, EOFError, Refused, ntlm.NoLogin, struct.error)


class _Answered(Refused):
    """The server says no. `status` is its own."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the asset says: {_WORDS.get(status, 'no')} ({status:#010x})")
        self.status = status


class _Share:
    """A log-in at one share."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._message = 0
        self._credits = 1
        self._session = self._tree = 0
        self._said = bytes(64)
        """The hash of all that was said before there were keys."""
        self._seal: AESGCM | None = None
        self._open: AESGCM | None = None
        self._nonce = 0
        self.most = MOST

    # --- messages -----------------------------------------------------------------------------------------------------

    async def _send(self, data: bytes) -> None:
        self._writer.write(struct.pack(">I", len(data)) + data)
        async with asyncio.timeout(SILENT_SECONDS):
            await self._writer.drain()

    async def _receive(self) -> bytes:
        async with asyncio.timeout(SILENT_SECONDS):
            (length,) = struct.unpack(">I", await self._reader.readexactly(4))
            if not 64 <= length <= ANSWER_BYTES:
                raise Refused("the asset sends what is no SMB 3")
            return await self._reader.readexactly(length)

    async def ask(
        self, command: int, body: bytes, *, good: tuple[int, ...] = (_OK,), size: int = 0
    ) -> tuple[int, bytes]:
        """(status, body of the answer). `size`: bytes that are read or written. Raises: Refused, OSError."""
        charge = max(1, -(-size // UNIT))
        number = self._message
        self._message += charge
        self._credits -= charge
        head = struct.pack(
            "<4sHHIHHIIQIIQ16s",
            b"\xfeSMB",
            64,
            charge,
            0,
            command,
            64,
            0,
            0,
            number,
            0,
            self._tree,
            self._session,
            bytes(16),
        )
        await self._send(self._sealed(head + body))
        while True:
            raw = await self._receive()
            answer = self._opened(raw)
            mark, length, _, status, said, granted, flags, _, told, _, _, session, _ = struct.unpack_from(
                "<4sHHIHHIIQIIQ16s", answer
            )
            if (mark, length, said, told) != (b"\xfeSMB", 64, command, number) or not flags & 1:
                raise Refused("the asset answers something that was not asked")
            self._credits += granted
            if status != _PENDING:
                break
        if command == _SETUP and not self._session:
            self._session = session
        if self._open is None:
            self._heard(head + body)
            if not (command == _SETUP and status == _OK):  # the last word is signed by a key that comes of the others
                self._heard(answer)
        if status not in good:
            raise _Answered(status)
        self._last = answer
        return status, answer[64:]

    def _heard(self, data: bytes) -> None:
        self._said = hashlib.sha512(self._said + data).digest()

    def _sealed(self, data: bytes) -> bytes:
        if self._seal is None:
            return data
        self._nonce += 1
        nonce = struct.pack("<Q", self._nonce) + bytes(4)
        about = nonce + bytes(4) + struct.pack("<IHHQ", len(data), 0, 1, self._session)
        sealed = self._seal.encrypt(nonce, data, about)
        return b"\xfdSMB" + sealed[-16:] + about + sealed[:-16]

    def _opened(self, data: bytes) -> bytes:
        if self._open is None:
            return data
        if data[:4] != b"\xfdSMB" or len(data) < 116:
            raise Refused("the asset answers without encryption")
        try:
            return self._open.decrypt(data[20:32], data[52:] + data[4:20], data[20:52])
        except InvalidTag:
            raise Refused("the asset's answer is not sealed by the session's key") from None

    # --- the log-in ---------------------------------------------------------------------------------------------------

    async def log_in(self, said: Smb, address: str, password: str) -> None:
        """Raises: Refused, NoLogin, OSError."""
        contexts = struct.pack("<HHIHHH", 1, 38, 0, 1, 32, 1) + secrets.token_bytes(32) + bytes(2)  # SHA-512, salted
        contexts += struct.pack("<HHIHH", 2, 4, 0, 1, 2)  # AES-128-GCM
        body = struct.pack("<HHHHI16sIHH", 36, 1, 2, 0, 0x40, secrets.token_bytes(16), 104, 2, 0)
        body += struct.pack("<H", 0x0311) + bytes(2) + contexts
        _, answer = await self.ask(_NEGOTIATE, body)
        dialect, count = struct.unpack_from("<HH", answer, 4)
        read_most, write_most = struct.unpack_from("<II", answer, 32)
        (at,) = struct.unpack_from("<I", answer, 60)
        if dialect != 0x0311 or not self._agrees(answer, at - 64, count):
            raise Refused("the asset does not speak SMB 3.1.1 with AES-128-GCM")
        self.most = max(UNIT, min(MOST, read_most, write_most))
        first = ntlm.negotiate()
        _, answer = await self._setup(first, (_MORE,))
        last, session = ntlm.authenticate(said.user, password, first, self._token(answer), said.domain)
        _, answer = await self._setup(last, (_OK,))
        (flags,) = struct.unpack_from("<H", answer, 2)
        if flags & 3:
            raise Refused("the asset logs us in as a guest: it has no such user")
        signing = CMAC(AES(_key(session, b"SMBSigningKey\0", self._said)))
        signing.update(self._last[:48] + bytes(16) + self._last[64:])
        if not hmac.compare_digest(signing.finalize(), self._last[48:64]):
            raise Refused("the asset does not know the password, or somebody stands between")
        self._seal = AESGCM(_key(session, b"SMBC2SCipherKey\0", self._said))
        self._open = AESGCM(_key(session, b"SMBS2CCipherKey\0", self._said))
        path = f"\\\\{address}\\{said.share}".encode("utf-16-le")
        await self._tree_of(path)

    async def _tree_of(self, path: bytes) -> None:
        _, answer = await self.ask(_TREE, struct.pack("<HHHH", 9, 0, 72, len(path)) + path)
        if answer[2:3] != b"\1":
            raise Refused("the share is no disk")
        (self._tree,) = struct.unpack_from("<I", self._last, 36)

    async def _setup(self, token: bytes, good: tuple[int, ...]) -> tuple[int, bytes]:
        body = struct.pack("<HBBIIHHQ", 25, 0, 2, 0, 0, 88, len(token), 0) + token
        return await self.ask(_SETUP, body, good=good)

    @staticmethod
    def _token(answer: bytes) -> bytes:
        at, length = struct.unpack_from("<HH", answer, 4)
        return answer[at - 64 : at - 64 + length]

    @staticmethod
    def _agrees(answer: bytes, at: int, count: int) -> bool:
        """Whether it takes SHA-512 and our cipher."""
        found: dict[int, bytes] = {}
        for _ in range(min(count, 16)):
            kind, length = struct.unpack_from("<HH", answer, at)
            found[kind] = answer[at + 8 : at + 8 + length]
            at += (8 + length + 7) & ~7
        return found.get(1, b"")[4:6] == b"\1\0" and found.get(2, b"")[:4] == b"\1\0\2\0"

    # --- files --------------------------------------------------------------------------------------------------------

    async def create(self, path: str, access: int, disposition: int, options: int = 0) -> tuple[bytes, int]:
        """(an open file, its size). Raises: Refused, OSError."""
        name = path.encode("utf-16-le")
        body = struct.pack(
            "<HBBIQQIIIIIHHII", 57, 0, 0, 2, 0, 0, access | 0x100080, 0x80, 1, disposition, 0x200040 | options, 120,
            len(name), 0, 0,
        )  # fmt: skip
        _, answer = await self.ask(_CREATE, body + (name or b"\0\0"))
        (size,) = struct.unpack_from("<Q", answer, 48)
        return answer[64:80], size

    async def close(self, handle: bytes) -> None:
        await self.ask(_CLOSE, struct.pack("<HHI", 24, 0, 0) + handle)

    async def flush(self, handle: bytes) -> None:
        await self.ask(_FLUSH, struct.pack("<HHI", 24, 0, 0) + handle)

    @property
    def piece(self) -> int:
        """Bytes that the next read or write may have."""
        return min(self.most, max(1, self._credits) * UNIT)

    async def write(self, handle: bytes, at: int, data: bytes) -> None:
        body = struct.pack("<HHIQ16sIIHHI", 49, 112, len(data), at, handle, 0, 0, 0, 0, 0)
        _, answer = await self.ask(_WRITE, body + data, size=len(data))
        if struct.unpack_from("<I", answer, 4)[0] != len(data):
            raise Refused("the asset has taken less than it was sent")

    async def read(self, handle: bytes, at: int) -> bytes:
        """The next bytes; b"" at the end."""
        size = self.piece
        body = struct.pack("<HBBIQ16sIIIHH", 49, 0x50, 0, size, at, handle, 0, 0, 0, 0, 0) + b"\0"
        status, answer = await self.ask(_READ, body, good=(_OK, _END_OF_FILE), size=size)
        if status == _END_OF_FILE:
            return b""
        offset, length = struct.unpack_from("<BxI", answer, 2)
        data = answer[offset - 64 : offset - 64 + length]
        if len(data) != length or length > size:
            raise Refused("the asset gives more than it was asked for, or less than it says")
        return data

    async def rename(self, handle: bytes, to: str) -> None:
        """Over what is there."""
        name = to.encode("utf-16-le")
        await self._set(handle, 10, struct.pack("<B7xQI", 1, 0, len(name)) + name)

    async def remove(self, handle: bytes) -> None:
        """Once it is closed."""
        await self._set(handle, 13, b"\1")

    async def _set(self, handle: bytes, kind: int, data: bytes) -> None:
        await self.ask(_SET, struct.pack("<HBBIHHI", 33, 1, kind, len(data), 96, 0, 0) + handle + data)


def _key(session: bytes, label: bytes, context: bytes) -> bytes:
    """SP 800-108, counter mode with HMAC-SHA-256: one block, of which 128 bits are used."""
    data = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", 128)
    return hmac.new(session, data, hashlib.sha256).digest()[:16]


_READS, _WRITES, _DELETES = 0x1, 0x2, 0x10000
_OPEN, _OVERWRITE = 1, 5


@asynccontextmanager
async def _share(way: Way, password: str) -> AsyncIterator[_Share]:
    """Raises: Refused, NoLogin, OSError."""
    said = way.smb
    if said is None:
        raise Refused("the asset has no SMB")
    if not password:
        raise Refused(f"there is no credential {said.secret} (`cofferdam patch credential {said.secret}`)")
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(literal_address(way.address), said.port, limit=ANSWER_BYTES)
    try:
        share = _Share(reader, writer)
        async with asyncio.timeout(CONNECT_SECONDS):
            await share.log_in(said, way.address, password)
        yield share
    finally:
        writer.transport.abort()


def _target(way: Way, name: str) -> str:
    return (way.smb.path if way.smb is not None else "{file}").replace("{file}", name).replace("/", "\\").strip("\\")


class _Files:
    """The share's files, for `place`."""

    def __init__(self, share: _Share) -> None:
        self._share = share

    async def hash(self, path: str, most: int) -> str:
        """Of a file there; "" if there is none, or one of more bytes than that."""
        share = self._share
        try:
            handle, size = await share.create(path, _READS, _OPEN)
        except _Answered as error:
            if error.status in (_NO_NAME, _NO_PATH):
                return ""
            raise
        digest, at = hashlib.sha256(), 0
        while at <= most and (data := await share.read(handle, at)):
            digest.update(data)
            at += len(data)
        await share.close(handle)
        return digest.hexdigest() if at <= most and at == size else ""

    async def put(self, file: Path, path: str, progress: Progress) -> None:
        share = self._share
        handle, _ = await share.create(path, _READS | _WRITES | _DELETES, _OVERWRITE)
        at = 0
        with file.open("rb") as source:
            while data := source.read(share.piece):
                await share.write(handle, at, data)
                at += len(data)
                await progress(len(data))
        await share.flush(handle)
        await share.close(handle)

    async def remove(self, path: str) -> None:
        share = self._share
        handle, _ = await share.create(path, _DELETES, _OPEN)
        await share.remove(handle)
        await share.close(handle)

    async def rename(self, old: str, new: str) -> None:
        share = self._share
        handle, _ = await share.create(old, _DELETES, _OPEN)
        await share.rename(handle, new)
        await share.close(handle)


async def push(way: Way, secret: str, file: Path, name: str, size: int, sha256: str, progress: Progress) -> Outcome:
    """Sends a file of this size and hash. Never raises for what the asset or the network does."""

    @asynccontextmanager
    async def files() -> AsyncIterator[_Files]:
        async with _share(way, secret) as share:
            yield _Files(share)

    return await place(files, _ENDS, way, _target(way, name), file, size, sha256, progress)


async def read_text(way: Way, secret: str, path: str, most: int) -> str:
    """A small file of the asset. Raises: OSError."""
    try:
        async with asyncio.timeout(SILENT_SECONDS), _share(way, secret) as share:
            handle, _ = await share.create(path.replace("/", "\\").strip("\\"), _READS, _OPEN)
            return (await share.read(handle, 0))[:most].decode("utf-8", "replace")
    except (Refused, ntlm.NoLogin, EOFError, struct.error) as error:
        raise OSError(str(error)) from None
