"""What lies in quarantine is encrypted, with a key that the keeper alone has: a file that nobody has looked at can be
run, opened or found by no other program of this machine, nor by whoever gets its disk or a backup.

A sealed file is a head and then pieces of PIECE bytes, each by AES-256-GCM under a key of the file's own (from the
keeper's key and the head's random salt). A piece's number, and whether it is the last, are in its nonce: pieces cannot
be swapped, left out, or cut off at the end. (The STREAM construction of Hoang, Reyhanitabar, Rogaway, Vizár.)

    head    "cofferdam sealed 1\\n", 32 bytes of salt
    piece   ciphertext and 16 bytes of tag

Without a key (`encrypt: false` in the policy) files are as they came. Either kind is read whatever the policy says now:
that a file is the one that came, its hash shows.

Not here: where the key is kept (gate.secrets), what is sealed when (keeper).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag

from cofferdam.brokers.kit.sealed import KEY_BYTES, cipher
from cofferdam.brokers.patch.synced import Synced
from cofferdam.errors import StoreError

HEAD: Final = b"cofferdam sealed 1\n"
SALT_BYTES: Final = 32
PIECE: Final = 1 << 20
TAG_BYTES: Final = 16
_USE: Final = b"cofferdam quarantine"


class NotSealed(StoreError):
    """A file that cannot be opened with this key, or is damaged."""


class Sealing:
    """The keeper's way to its quarantine. `key`: KEY_BYTES; "" where files are kept as they come."""

    def __init__(self, key: bytes | None, *, encrypt: bool) -> None:
        self.key = key if key is not None and len(key) == KEY_BYTES else None
        self.encrypt = encrypt

    @property
    def unfit(self) -> str:
        """Why nothing can be taken, "" if it can."""
        if self.encrypt and self.key is None:
            return "the quarantine has no key: the gate makes one when it starts"
        return ""

    def create(self, path: Path) -> SealedFile | Synced:
        """A new file. Raises: OSError."""
        if not self.encrypt:
            return Synced(path.open("xb"))
        if self.key is None:
            raise OSError(self.unfit)
        return SealedFile(Synced(path.open("xb")), self.key)

    def pieces(self, path: Path) -> Iterator[bytes | memoryview]:
        """What is in a file, sealed or not; each piece holds until the next is asked for.

        Raises: OSError, NotSealed (then what came before is worth nothing).
        """
        with path.open("rb", buffering=0) as opened:
            head = bytes(_fill(opened, memoryview(bytearray(len(HEAD)))))
            if head != HEAD:
                yield head
                while data := opened.read(PIECE):
                    yield data
                return
            if self.key is None:
                raise NotSealed(f"{path.name} is sealed, and its key is not there")
            yield from _open(opened, self.key, path.name)


class SealedFile:
    """One that is being written, through two buffers that are made once: new memory for each piece costs more than the
    cipher. The last piece is written by `sync`, after which nothing more may come."""

    def __init__(self, file: Synced, key: bytes) -> None:
        salt = os.urandom(SALT_BYTES)
        self._file = file
        self._cipher = cipher(key, salt, _USE)
        self._held = memoryview(bytearray(PIECE))
        self._count = 0
        self._sealed = memoryview(bytearray(PIECE + TAG_BYTES))
        self._number = 0
        self._file.write(HEAD + salt)

    def write(self, data: bytes) -> None:
        """Raises: OSError."""
        rest = memoryview(data)
        while rest:
            if self._count == PIECE:  # not before more comes: a full piece may be the last
                self._put(last=False)
            now = rest[: PIECE - self._count]
            self._held[self._count : self._count + len(now)] = now
            self._count += len(now)
            rest = rest[len(now) :]

    def _put(self, *, last: bool) -> None:
        out = self._sealed[: self._count + TAG_BYTES]
        self._cipher.encrypt_into(_nonce(self._number, last), self._held[: self._count], None, out)
        self._file.write(out)
        self._number += 1
        self._count = 0

    def sync(self) -> None:
        """Raises: OSError."""
        self._put(last=True)
        self._file.sync()

    def close(self) -> None:
        self._file.close()


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((last,))


def _open(opened: FileIO, key: bytes, name: str) -> Iterator[memoryview]:
    """Through buffers that are made once, as they were sealed."""
    salt = bytes(_fill(opened, memoryview(bytearray(SALT_BYTES))))
    if len(salt) != SALT_BYTES:
        raise NotSealed(f"{name} is cut off")
    box, number = cipher(key, salt, _USE), 0
    out, held, spare = (memoryview(bytearray(PIECE + TAG_BYTES)) for _ in range(3))
    data = _fill(opened, held)
    while True:
        following = _fill(opened, spare)
        size = len(data) - TAG_BYTES
        try:
            if size < 0:
                raise InvalidTag
            box.decrypt_into(_nonce(number, not following), data, None, out[:size])
        except InvalidTag:
            raise NotSealed(f"{name} is damaged, cut off, or sealed with another key") from None
        if size:
            yield out[:size]
        if not following:
            return
        held, spare, data, number = spare, held, following, number + 1


def _fill(opened: FileIO, buffer: memoryview) -> memoryview:
    """As much of a file as there is, up to the buffer's size. Raises: OSError."""
    count = 0
    while count < len(buffer) and (more := opened.readinto(buffer[count:])):
        count += more
    return buffer[:count]
