"""What is looked at before a part opens the database in its store. Not here: what is in it (each part)."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from typing import Final

from cofferdam.errors import StoreError

CHECKED_BYTES: Final = 64 << 20
"""A database up to this size is read through for damage at each start: a part has to be ready within half a minute."""


def check_plain(path: Path) -> None:
    """A database and what lies beside it are plain files: who opens a pipe waits for ever, and a link leads anywhere.

    Raises:
        StoreError: one is none; with its path and the way out.
    """
    for ending in ("", "-wal", "-shm", "-journal"):
        file = path.with_name(path.name + ending)
        with contextlib.suppress(OSError):  # it is not there, or whoever opens it says more
            if not stat.S_ISREG(file.lstat().st_mode):
                raise StoreError(
                    f"{file} is no plain file", hint=f"look at what it is, then move it away: ls -l {file}"
                )
