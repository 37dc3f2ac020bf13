"""What somebody has open in a session of files: a file that is read, one that is written, a folder.

Not here: what may be done with them (inner_files).
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

import asyncssh

from cofferdam.brokers.jump.inner_held import Pieces
from cofferdam.protocols.sftp import messages as m

MODE: Final = 0o644


class Down:
    """A file that is read. `handed`: bytes that were handed out, in whatever order."""

    def __init__(self, path: str, file: asyncssh.SFTPClientFile) -> None:
        self.path, self.file = path, file
        self.hash = hashlib.sha256()
        self.handed = 0
        self._size = 0
        self._later: dict[int, bytes] = {}
        self.waiting = 0
        self.whole = True
        self.number = 0
        """In quarantine, from where it is handed out once it was scanned; or 0."""
        self.scan = ""
        self.pieces = Pieces()

    def add(self, offset: int, data: bytes, room: int) -> None:
        """Some of it was handed out. `room`: bytes that may wait for those before them."""
        self.handed += len(data)
        if not self.whole or (offset < self._size and offset + len(data) <= self._size):
            return
        if offset < self._size or offset in self._later:
            self._lose()
            return
        self._later[offset] = data
        self.waiting += len(data)
        while (piece := self._later.pop(self._size, None)) is not None:
            self.waiting -= len(piece)
            self.hash.update(piece)
            self._size += len(piece)
        if self.waiting > room:
            self._lose()

    def _lose(self) -> None:
        self.whole, self.waiting = False, 0
        self._later.clear()

    @property
    def size(self) -> int:
        """Of what the digest is of; where there is none, all that was handed out."""
        return self._size if self.digest else self.handed

    @property
    def digest(self) -> str:
        """Of what was handed out; "" where that was not from its beginning on without gaps."""
        return self.hash.hexdigest() if self.whole and not self._later else ""


class Up:
    """A file that is written. `number`: in quarantine, or 0."""

    def __init__(self, path: str, number: int) -> None:
        self.path, self.number = path, number
        self.file: asyncssh.SFTPClientFile | None = None
        self.beside = ""
        self.hash = hashlib.sha256()
        self.size = 0
        self.mode = MODE
        self.pending: set[asyncio.Future[None]] = set()
        self.wrong = ""
        self.least = 0
        """What a client that writes into a file without emptying it has to write, or to say its size."""
        self.times: tuple[int, int] | None = None


class Folder:
    """A folder that is listed."""

    def __init__(self, path: str, names: list[m.Name]) -> None:
        self.path, self.names = path, names
