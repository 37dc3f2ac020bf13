"""Room for what the keeper has to write down however full the disk is: who was moved out, what was moved, what is over.

Below a bound it takes on nothing new, so that nothing of what it has taken on fails: who is at work goes on. Where
others fill the disk to its end, a file that was allocated while there was room gives its blocks to the store.

Not here: what counts as new (signin, menu, keeper_verbs), the same of recordings (quarantine).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from cofferdam import disk

FREE_BYTES: Final = 16 << 20
"""Of the disk, below which nothing new is taken on: less than recordings leave free."""
AGAIN_BYTES: Final = 1 << 20
"""So much more, before it is again."""
SPARE_BYTES: Final = 8 << 20
"""Of the file: twice what the store's write-ahead log grows to before it begins anew."""
SPARE: Final = "spare"
FULL: Final = "the disk of the gate's keeper is nearly full: tell the operator"
"""What people are told."""


class Reserve:
    """Of one store."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spare = folder / SPARE
        self._low = False
        self.keep()

    def short(self) -> str:
        """Why nothing new is taken on; "" where it is."""
        try:
            free = disk.room(self._folder)[0]
        except OSError as error:
            return f"the keeper's store {self._folder} cannot be looked at: {error.strerror}"
        self._low = free < FREE_BYTES + (AGAIN_BYTES if self._low else 0)
        left = f"{free >> 20} MiB of the disk of {self._folder} are free, and the last {FREE_BYTES >> 20} are kept"
        return left if self._low else ""

    def keep(self) -> None:
        """Has the spare file there, where the disk has room for it."""
        with contextlib.suppress(OSError):
            there = self._spare.lstat().st_size if os.path.lexists(self._spare) else 0
            if there >= SPARE_BYTES or disk.room(self._folder)[0] < FREE_BYTES + SPARE_BYTES:
                return
            fd = os.open(self._spare, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SPARE_BYTES)
            except OSError:
                self._spare.unlink()
            finally:
                os.close(fd)

    def give_up(self) -> bool:
        """Makes room of the spare file. Whether there was one."""
        try:
            self._spare.unlink()
        except OSError:
            return False
        return True
