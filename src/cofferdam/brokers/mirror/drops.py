"""The mirror's part that has folders of the site's: reads the files that are left there, and hands their samples to the
spooler. It stands apart, sees these folders and no other file, and has no network.

A file is read twice. First all of it is looked at: one that is not as declared goes to `bad`, with the row and the
column in NAME.reason, and nothing of it is taken. Then its samples go to the spooler, in the backfill lane; once all of
them are on its disk the file goes to `done`. If anything ends in between it is read again from its beginning, and what
comes twice vanishes in the store. A file that ended this part three times is bad.

Not here: what lies in files (dropped), working in folders that others work in as well (kit.folders).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from cofferdam.brokers.kit import folders
from cofferdam.brokers.kit.folders import BAD, DONE, Facts, Watched
from cofferdam.brokers.mirror import dropped, points, times
from cofferdam.brokers.mirror.collector import Collector, Work
from cofferdam.brokers.mirror.columns import check, span
from cofferdam.brokers.mirror.told import Source as Told
from cofferdam.errors import CrossingError
from cofferdam.policy.terms.mirror_rows import Drop

POLL_SECONDS: Final = 1.0
FILE_BYTES: Final = 100 << 30
MARK: Final = ".cofferdam-reading"
"""Names the file that is being read, so that one which ends the part does not do so for ever."""
ENDED_MOST: Final = 3
"""So often a file may have ended the part that read it."""


class Reading(msgspec.Struct, array_like=True):
    """What the mark says: the file, and how often its reading has begun."""

    name: str
    facts: Facts
    times: int


class Files(Collector):
    """The part."""

    kinds = (Drop,)

    def make(self, source: Any) -> Work:
        return Drops(self, source)


class Drops(Work):
    """One folder."""

    source: Drop

    def __init__(self, owner: Collector, source: Drop) -> None:
        super().__init__(owner, source)
        self._watched = Watched(owner.setting.folders[source.folder], source.folder)

    async def session(self) -> None:
        watched = self._watched
        with contextlib.ExitStack() as held:
            here = held.enter_context(folders.opened(watched.path))
            done, bad = (folders.beneath(here, name) for name in (DONE, BAD))
            held.callback(os.close, done)
            held.callback(os.close, bad)
            while True:
                for name, fd in ((DONE, done), (BAD, bad)):
                    if not folders.is_there(here, name, fd):
                        raise NotADirectoryError(f"{name} in {self.source.folder} is another one now")
                worked = False
                judges = self.owner.held is not None or self.owner.row.acks == "none"  # what is too old
                for name in await watched.ready(here, self.source.settle) if judges else ():
                    worked = await self._file(name, here, done, bad) or worked
                await watched.sweep(done, self.source.keep_files)
                if words := watched.told():
                    self._troubled("differs", words)
                else:
                    self.well()
                for answer in points.refused(self._asked):
                    self.owner.answer(answer)
                if not worked:
                    await self.pause(min(POLL_SECONDS, self.source.every / 1000))

    async def _file(self, name: str, here: int, done: int, bad: int) -> bool:
        """Deals with one file; whether it is dealt with."""
        facts, _ = self._watched.seen[name]
        try:
            if not name.isprintable() or len(os.fsencode(name)) > folders.NAME_BYTES:
                raise dropped.Refused(f"a file's name has at most {folders.NAME_BYTES} bytes, all of them printable")
            if facts[1] > FILE_BYTES:
                raise dropped.Refused(f"a file of {facts[1]} bytes; at most {FILE_BYTES} are read")
            begun = self._begun(name, facts, here)
            if begun > ENDED_MOST:
                raise dropped.Refused(f"reading it has ended the mirror's part {ENDED_MOST} times")
            if not await self._taken(name, facts, here):
                return False
        except dropped.Refused as refused:
            words = f"{folders.shown(name)}: {refused}"
            self.owner.refused(self.source.name, "file", 1, "", words)
            self.bad = f"{self.source.name}: {words} (it lies in {BAD})"
            return self._moved(name, facts, [str(refused)], here, bad)
        except PermissionError:  # it waits for a person; the others do not wait for it
            self._unmark(here)
            self._watched.odd.append(
                f"{folders.shown(name)} in {self.source.folder} cannot be read: its group is to be the folder's, and to"
                " read it (a folder that got another group since counts once the gate is started anew)"
            )
            return False
        except asyncio.CancelledError:
            self._unmark(here)
            raise
        self.bad = ""
        return self._moved(name, facts, [], here, done)

    async def _taken(self, name: str, facts: Facts, here: int) -> bool:
        """Looks at all of a file, then hands it on. False: it is another one by now. Raises: Refused."""
        began = time.monotonic_ns()
        wall = self.owner.setting.wall()
        limit, old = wall + self.owner.row.future * 10**9, times.goes(self.owner.row, wall, self.owner.held or ())
        for sends in (False, True):
            fd = folders.open_plain(name, facts, here)
            if fd is None:
                return False
            try:
                await self._read(fd, limit, old, sends=sends)
                if folders.facts_of(os.fstat(fd)) != facts:
                    return False
            finally:
                os.close(fd)
        await self.owner.flushed()
        self.owner.measured(self.source.name, time.monotonic_ns() - began)
        return True

    async def _read(self, fd: int, limit: int, old: Callable[[int], bool], *, sends: bool) -> None:
        with os.fdopen(fd, "rb", closefd=False) as file:
            for record in dropped.read(file, self.source, limit, old):
                try:
                    check(record)
                except CrossingError as error:
                    raise dropped.Refused(str(error)) from None
                if sends:
                    await self.owner.send(record)
                    self.newest = max(self.newest, span(record)[1])
                await asyncio.sleep(0)

    def _begun(self, name: str, facts: Facts, here: int) -> int:
        """How often the reading of this file has begun, this time counted; on the disk before it is read."""
        times = 0
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            fd = os.open(MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
            try:
                last = msgspec.json.decode(os.read(fd, 4096), type=Reading)  # of a folder of that name: an OSError
            finally:
                os.close(fd)
            if (last.name, last.facts) == (name, facts):
                times = last.times
        with contextlib.suppress(FileNotFoundError):
            os.unlink(MARK, dir_fd=here)
        folders.write(here, MARK, msgspec.json.encode(Reading(name, facts, times + 1)))
        return times + 1

    def _unmark(self, here: int) -> None:
        """It is not this file that ended the reading."""
        with contextlib.suppress(OSError):
            os.unlink(MARK, dir_fd=here)

    def _moved(self, name: str, facts: Facts, reasons: list[str], here: int, target: int) -> bool:
        self._watched.seen.pop(name, None)
        try:
            moved = folders.move(name, facts, reasons, here, target)
        except FileExistsError:
            raise FileExistsError(f"there is no free name for {folders.shown(name)} in {self.source.folder}") from None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(MARK, dir_fd=here)
        return moved

    def told(self) -> Told:
        return {**super().told(), "waits": len(self._watched.seen)}
