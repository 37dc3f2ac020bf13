"""A file that is brought to disk while it is written, so that the last step is never long: a part that waits for a
gigabyte to be on disk tells nobody that it lives, and is taken for hung."""

from __future__ import annotations

import os
from types import TracebackType
from typing import BinaryIO, Final

SYNC_BYTES: Final = 16 << 20


class Synced:
    """Wraps a file that was opened for writing, and closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._behind = 0

    def write(self, data: bytes | memoryview) -> None:
        """Raises: OSError."""
        self._file.write(data)
        self._behind += len(data)
        if self._behind >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Raises: OSError."""
        self._behind = 0
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Synced:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
