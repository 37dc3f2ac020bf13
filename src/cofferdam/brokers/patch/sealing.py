"""What lies in quarantine is encrypted, with a key that the keeper alone has: a file that nobody has looked at can be
run, opened or found by no other program of this machine, nor by whoever gets its disk or a backup.

A sealed file is a head and then pieces of PIECE bytes, each by AES-256-GCM under a key of the file's own (from the
keeper's key and the head's random salt). A piece's number, and whether it is the last, are in its nonce: pieces cannot
be swapped, left out, or cut off at the end. (The STREAM construction of Hoang, Reyhanitabar, Rogaway, Vizár.)

    head    "cofferdam sealed 1\\n", 32 bytes of salt
    piece   ciphertext and 16 bytes of tag

Without a key (`encrypt: false` in the policy) files are as they came. Either kind is read whatever the policy says now:
that a file is the one that came, its hash shows.

An examiner is given the key of the one file that it looks at, and opens that anywhere (`Kept`): a file of the
quarantine lies nowhere on the disk as it came.

Not here: where the key is kept (gate.secrets), what is sealed when (keeper).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from cofferdam.brokers.kit.sealed import KEY_BYTES, cipher, derived
from cofferdam.brokers.patch.synced import Synced
from cofferdam.errors import StoreError

HEAD: Final = b"cofferdam sealed 1\n"
SALT_BYTES: Final = 32
PIECE: Final = 1 << 20
TAG_BYTES: Final = 16
_USE: Final = b"cofferdam quarantine"
_BODY: Final = len(HEAD) + SALT_BYTES
"""Where the first piece begins."""
_BUFFER: Final = 64 << 10


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

    def key_of(self, path: Path) -> bytes:
        """The key of this one file, b"" where it lies as it came. Raises: OSError, NotSealed."""
        with path.open("rb", buffering=0) as opened:
            head = bytes(_fill(opened, memoryview(bytearray(len(HEAD) + SALT_BYTES))))
        if not head.startswith(HEAD):
            return b""
        if self.key is None:
            raise NotSealed(f"{path.name} is sealed, and its key is not there")
        if len(head) != len(HEAD) + SALT_BYTES:
            raise NotSealed(f"{path.name} is cut off")
        return derived(self.key, head[len(HEAD) :], _USE)


class Facts(Struct, frozen=True):
    """What `Kept.stat` says."""

    st_size: int


class Kept:
    """A file of the quarantine by its own key (`Sealing.key_of`), to be opened as a path is. `feed`: a named pipe by
    which all of it comes once, for what reads nothing but a file's name."""

    def __init__(self, path: Path, key: bytes, feed: Path | None = None) -> None:
        self.path, self._key, self.feed = path, key, feed

    @property
    def is_plain(self) -> bool:
        """It lies as it came."""
        return not self._key

    def open(self, mode: Literal["rb"], buffering: int = -1) -> Any:
        """As `Path.open` does. Raises: OSError; what is read, NotSealed."""
        if not self._key:
            return self.path.open(mode, buffering)
        opened = Opened(self.path, self._key)
        return opened if buffering == 0 else io.BufferedReader(opened, _BUFFER)

    def read_bytes(self) -> bytes:
        """Raises: OSError, NotSealed."""
        with self.open("rb") as opened:
            data: bytes = opened.read()
        return data

    def stat(self) -> Facts:
        """How large it is, unsealed. Raises: OSError, NotSealed."""
        with self.open("rb", 0) as opened:
            return Facts(opened.seek(0, io.SEEK_END))


class Opened(io.RawIOBase):
    """A sealed file, read anywhere. One piece is held, unsealed."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Raises: OSError, NotSealed."""
        self._name, self._box = path.name, AESGCM(key)
        self._file = path.open("rb", buffering=0)
        body = os.fstat(self._file.fileno()).st_size - _BODY
        self._count = max(1, -(-body // (PIECE + TAG_BYTES)))
        self._size = body - self._count * TAG_BYTES
        last = body - (self._count - 1) * (PIECE + TAG_BYTES)
        if last < TAG_BYTES + (self._count > 1):  # none but the only piece is empty
            self._file.close()
            raise NotSealed(f"{self._name} is cut off")
        self._sealed, self._plain = (memoryview(bytearray(PIECE + TAG_BYTES)) for _ in range(2))
        self._held = self._plain[:0]
        self._number = -1
        """The piece that is held."""
        self._at = 0
        if not self._size:
            self._take(0)  # nothing will be read of it

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(f"a place before the beginning of {self._name}")
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        """Raises: OSError, NotSealed."""
        if self._at >= self._size:
            return 0
        number, within = divmod(self._at, PIECE)
        if number != self._number:
            self._take(number)
        room = memoryview(buffer).cast("B")
        found = self._held[within : within + len(room)]
        room[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _take(self, number: int) -> None:
        self._number = -1
        self._file.seek(_BODY + number * (PIECE + TAG_BYTES))
        data = _fill(self._file, self._sealed)
        self._held = _unsealed(self._box, self._name, number, number == self._count - 1, data, self._plain)
        self._number = number

    def close(self) -> None:
        self._file.close()
        super().close()


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
        piece = _unsealed(box, name, number, not following, data, out)
        if piece:
            yield piece
        if not following:
            return
        held, spare, data, number = spare, held, following, number + 1


def _unsealed(box: AESGCM, name: str, number: int, last: bool, data: memoryview, out: memoryview) -> memoryview:
    """One piece. Raises: NotSealed."""
    size = len(data) - TAG_BYTES
    try:
        if size < 0:
            raise InvalidTag
        box.decrypt_into(_nonce(number, last), data, None, out[:size])
    except InvalidTag:
        raise NotSealed(f"{name} is damaged, cut off, or sealed with another key") from None
    return out[:size]


def _fill(opened: FileIO, buffer: memoryview) -> memoryview:
    """As much of a file as there is, up to the buffer's size. Raises: OSError."""
    count = 0
    while count < len(buffer) and (more := opened.readinto(buffer[count:])):
        count += more
    return buffer[:count]
