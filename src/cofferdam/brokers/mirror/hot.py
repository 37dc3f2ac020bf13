"""The hot log: what has been taken and is not sealed yet. A run of Arrow IPC streams, one record batch a commit.

A batch's metadata has its commit, its lane and number there, its source, and the CRC-32 of what it says, since Arrow
notices a torn stream but not a flipped bit. What the keeper has is what verifies, from the first batch on: log and
readable tail are one. Readers map the files; the keeper alone writes them.

Not here: what is sealed when (sealing), the catalogue (catalogue).
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import pyarrow as pa

from cofferdam.brokers.mirror.columns import HOT, crc
from cofferdam.brokers.mirror.records import LANES, Lane
from cofferdam.errors import StoreError, StoreFull

BATCHES_MOST: Final = 256
BYTES_MOST: Final = 64 << 20
"""Of one file: what a reader that has not seen it yet reads for its first answer."""
_DAMAGE: Final = (
    pa.ArrowException, OSError, EOFError, StopIteration, MemoryError, ValueError, OverflowError, KeyError,
)  # fmt: skip
"""What Arrow raises of bytes that are no stream of batches, or of a torn one."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Commit(NamedTuple):
    """One batch, as it lies there."""

    commit: int
    lane: Lane
    number: int
    source: str
    batch: pa.RecordBatch


def name_of(commit: int) -> str:
    """The file that begins with this commit."""
    return f"hot-{commit:016d}.arrows"


def files(folder: Path, after: int) -> list[Path]:
    """The files that may hold commits after this one, in order."""
    found = sorted(folder.glob("hot-*.arrows"))
    starts = [int(path.stem.split("-")[1]) for path in found]
    return [path for index, path in enumerate(found) if index + 1 == len(found) or starts[index + 1] > after + 1]


def read(path: Path, skip: int = 0) -> Iterator[Commit]:
    """The batches of a file that verify, up to the first that does not; the CRC of the first `skip` is not looked at
    again. Raises: OSError, where there is no such file."""
    if path.stat().st_size == 0:
        return
    with contextlib.suppress(*_DAMAGE):
        reader = pa.ipc.open_stream(pa.memory_map(str(path), "r"))
        if reader.schema != HOT:
            return
        count = 0
        while True:
            batch, said = reader.read_next_batch_with_custom_metadata()
            try:
                commit, lane = int(said[b"commit"]), said[b"lane"].decode()
                number, source, mark = int(said[b"number"]), said[b"source"].decode(), int(said[b"crc"])
            except (KeyError, ValueError, TypeError):
                return
            if lane not in LANES or (count >= skip and not _whole(batch, mark, commit, lane, number, source)):
                return
            count += 1
            yield Commit(commit, cast(Lane, lane), number, source, batch)


def _whole(batch: pa.RecordBatch, mark: int, commit: int, lane: str, number: int, source: str) -> bool:
    """Whether a batch is as it was written. What Arrow says of its own lengths and places is looked at first."""
    batch.validate(full=True)
    columns = [*batch.columns, batch.column(0).dictionary]
    return all(column.null_count == 0 for column in columns) and _mark(commit, lane, number, source, batch) == mark


def _mark(commit: int, lane: str, number: int, source: str, batch: pa.RecordBatch) -> int:
    """CRC-32 of a batch and of what is said of it."""
    return zlib.crc32(f"{commit} {lane} {number} {source}".encode(), crc(batch))


class _Sink:
    """What Arrow writes into; the log writes it to the disk in one piece."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> int:
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        pieces, self.pieces = self.pieces, []
        return b"".join(pieces)

    def flush(self) -> None:
        """Nothing is held back."""

    def tell(self) -> int:
        return 0

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class HotLog:
    """The writing end. A commit counts once `sync` has returned."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = -1
        self._sink = _Sink()
        self._writer: Any = None
        self._size = self._batches = 0
        self._dirty = False

    def add(self, commit: int, lane: Lane, number: int, source: str, batch: pa.RecordBatch) -> int:
        """Writes a batch; returns the bytes that it took. Raises: StoreFull, StoreError: nothing of it is there."""
        if self._writer is None or self._batches >= BATCHES_MOST or self._size >= BYTES_MOST:
            self.roll()
            self._begin(commit)
        mark = _mark(commit, lane, number, source, batch)
        said = {"commit": str(commit), "lane": lane, "number": str(number), "source": source, "crc": str(mark)}
        self._writer.write_batch(batch, custom_metadata=said)
        data = self._sink.take()
        self._dirty = True
        try:
            written = os.pwrite(self._file, data, self._size)
            if written != len(data):
                raise OSError(errno.ENOSPC, "no room for a whole batch")
        except OSError as error:
            # What Arrow believes to have written (a dictionary) is not there: the next batch begins a file.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            self.roll()  # those before it are on disk before anybody is told so
            raise _failed(error, self.folder) from None
        self._size += len(data)
        self._batches += 1
        return len(data)

    def sync(self) -> None:
        """What was added is on disk. Raises: StoreError."""
        if self._dirty and self._file >= 0:
            try:
                os.fdatasync(self._file)
                gone = os.fstat(self._file).st_nlink == 0
            except OSError as error:
                raise StoreError(f"the store {self.folder}: {error.strerror or error}") from None
            if gone:  # a file without a name ends with this process
                raise StoreError(f"the store {self.folder}: a file of the hot log is gone")
        self._dirty = False

    def roll(self) -> None:
        """The next batch begins a file."""
        self.sync()
        self._end()

    def _begin(self, commit: int) -> None:
        try:
            self._file = os.open(
                self.folder / name_of(commit), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640
            )
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            self._end()
            raise _failed(error, self.folder) from None
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._sink, "w"), HOT)
        self._size = self._batches = 0

    def _end(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file, self._writer = -1, None


def _failed(error: OSError, folder: Path) -> Exception:
    if error.errno in _FULL:
        return StoreFull(f"{folder} is full")
    return StoreError(f"the store {folder}: {error.strerror or error}")
