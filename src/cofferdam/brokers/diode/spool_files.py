"""What the spool takes from the folders of its channels of files.

A file is taken when it has stood still between two looks: it is copied into the store while its hash is worked out,
gets its numbers, and goes from its folder. What does not fit stays where it is, and is told once.

Not here: when it is sent (spool), the disk (spool_store).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cofferdam.audit.events import diode as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.diode.copying import Copying
from cofferdam.brokers.diode.spool_store import FileRow, SpoolStore
from cofferdam.errors import StoreError
from cofferdam.policy.terms.diode_rows import DiodeRows, FilesRow

SLICE_BYTES: Final = 4 << 20
"""Worked through in one turn of the loop."""
SYNC_BYTES: Final = 16 << 20
"""Of a file that is being copied, before they are synced."""
SCAN_MOST: Final = 2_000
"""Entries of a folder that are looked at."""
TOLD_MOST: Final = 1_000
"""Files that are known not to be sent, so that each is told once."""
SECOND: Final = 10**9
DAY: Final = 86_400


class Taking:
    """For one spool. `taken` is called with each file that has its numbers, `make_room` where no more may be kept than
    so many bytes, and says whether that is being worked at."""

    def __init__(
        self,
        setting: Setting,
        strand: str,
        row: DiodeRows,
        store: SpoolStore,
        taken: Callable[[FileRow], None],
        make_room: Callable[[int], bool],
    ) -> None:
        self._setting = setting
        self._strand = strand
        self.row = row
        self._store = store
        self._taken = taken
        self._make_room = make_room
        self.epoch = 0
        self.full = ""
        """Why nothing can be taken."""
        self.halted = False
        self.refused: dict[tuple[str, str], str] = {}
        """(channel, name) -> why."""
        self.away: dict[str, str] = {}
        """Channel -> why nothing is taken from its folder."""
        self._copying: Copying[FileRow] | None = None
        self._seen: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._today: deque[tuple[int, str, int]] = deque()
        self._no_room = sys.maxsize
        """Bytes of the smallest file for which no room could be made in this scan: for a larger one it is not tried."""

    @property
    def busy(self) -> bool:
        return self._copying is not None

    def folder(self, channel: str) -> Path:
        return self._setting.folders[next(row.out for row in self.row.files if row.channel == channel)]

    def scan(self) -> None:
        """Looks into all folders."""
        self._no_room = sys.maxsize
        for row in self.row.files:
            self._scan(row)

    def _scan(self, row: FilesRow) -> None:
        try:  # the folder is another's as well: it ends no part, and holds up no other
            found = os.scandir(self.folder(row.channel))
            self.away.pop(row.channel, None)
        except OSError as error:
            self.away[row.channel] = f"{self.folder(row.channel)}: {error.strerror or error}"
            return
        with found as entries:
            for count, entry in enumerate(entries):
                if count >= SCAN_MOST or self._copying is not None:
                    return  # one at a time; the others have their turn
                if entry.name.startswith("."):
                    continue
                try:
                    self._look(row, entry)
                except FileNotFoundError:
                    continue
                except PermissionError:
                    self._refuse(
                        row, entry.name, "the gate may not read it, or not move it: let the group of its folder"
                    )

    def _look(self, row: FilesRow, entry: os.DirEntry[str]) -> None:
        """Takes a file that has stood still since the last look."""
        if why := row.wrong(entry.name):
            self._refuse(row, entry.name, why)
            return
        found = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            self._refuse(row, entry.name, "no plain file of one name")
            return
        if found.st_size > row.most:
            self._refuse(row, entry.name, f"larger ({found.st_size} bytes) than what rides ({row.most})")
            return
        at = (row.name, entry.name)
        facts = (found.st_size, found.st_mtime_ns, found.st_ino)
        if self._seen.get(at) != facts:
            if len(self._seen) >= SCAN_MOST:
                self._seen.clear()
            self._seen[at] = facts
            return
        if found.st_size > self.row.room:
            self._refuse(row, entry.name, f"larger ({found.st_size} bytes) than the spool ({self.row.room})")
            return
        if not self._within_day(row, found.st_size):
            self._refuse(row, entry.name, f"beyond the {row.per_day} bytes of a day: it waits")
            return
        if (
            found.st_size + self._store.size > self.row.room
            and found.st_size < self._no_room
            and self._make_room(self.row.room - found.st_size)
        ):
            return  # it is looked at again
        if found.st_size + self._store.size > self.row.room:
            self._no_room = min(self._no_room, found.st_size)
            self._refuse(row, entry.name, "larger than the room beside what the spool has not sent yet: it waits")
            return
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        wall = self._setting.wall()
        try:
            taken = self._store.take(row.channel, entry.name, found.st_size, found.st_mtime_ns, wall, found.st_ino)
        except StoreError:
            os.close(fd)
            raise
        self._today.append((wall, row.name, found.st_size))
        self._seen.pop(at, None)
        self.refused.pop(at, None)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        into = os.open(self._store.path(taken), flags, 0o600)
        self._copying = Copying(taken, fd, into, hashlib.sha256(), 0)
        self._setting.reactor.later(self._copy)

    def _within_day(self, row: FilesRow, size: int) -> bool:
        since = self._setting.wall() - DAY * SECOND
        while self._today and self._today[0][0] < since:
            self._today.popleft()
        return sum(other for _, name, other in self._today if name == row.name) + size <= row.per_day

    def _refuse(self, row: FilesRow, name: str, why: str) -> None:
        at = (row.name, name)
        if self.refused.get(at) == why or len(self.refused) >= TOLD_MOST:
            return
        self.refused[at] = why
        self._setting.audit.note(
            events.DiodeFileNotSent(
                wall_ns=self._setting.wall(),
                strand=self._strand,
                channel=row.channel,
                name=clip(name),
                detail=clip(why),
            )
        )

    def _copy(self) -> None:
        """Works on: a slice of the file that is being copied, and its hash."""
        copying = self._copying
        if self.halted or copying is None:
            return
        row = copying.row
        try:
            data = os.pread(copying.source, min(SLICE_BYTES, max(1, row.size - copying.at)), copying.at)
            copying.digest.update(data)
            rest = memoryview(data)
            while rest:
                done = os.pwrite(copying.into, rest, copying.at)
                copying.at, rest = copying.at + done, rest[done:]
            if copying.at - copying.synced >= SYNC_BYTES:  # a gigabyte at the end would hold the part up for too long
                os.fdatasync(copying.into)
                copying.synced = copying.at
            if data and copying.at < row.size:
                self._setting.reactor.call_in(0, self._copy)  # in another turn: the others have theirs in between
                return
            os.fsync(copying.into)
            now = os.fstat(copying.source)
        except OSError as error:
            self._copied()
            self._store.forget_file(row)
            self.full = f"{self._store.folder}: {error.strerror or error}"
            return
        self._copied()
        if copying.at != row.size or (now.st_size, now.st_mtime_ns) != (row.size, row.changed):
            self._store.forget_file(row)  # somebody is writing it still: it is looked at again
            return
        numbered = self._store.number(row, self.epoch, copying.digest.hexdigest(), self._setting.wall())
        self.remove_source(numbered)
        self._taken(numbered)

    def _copied(self) -> None:
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.close()

    def remove_source(self, row: FileRow) -> None:
        """It is kept here, so it goes from its folder, unless another of its name is there by now."""
        if row.channel in self.row.channels:
            path = self.folder(row.channel) / row.name
            with contextlib.suppress(OSError):
                if path.lstat().st_ino == row.source:
                    path.unlink()
        self._store.removed(row)
