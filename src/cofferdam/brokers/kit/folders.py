"""Working in folders that other programs of the site work in as well: what is opened, moved and written there, and how.

Whoever leaves files in a folder may do anything else there, at any moment. So a folder, and its `done` and `bad`, are
opened once and worked in by descriptor, since a link put in the place of `done` would have a part move files where
their producer may not; names are looked at before they are used, links are never followed, and nothing but plain files
is opened; nothing is moved over what is there; and a file that was moved is looked at once more: if it is not what was
read, it goes back. Files whose names begin with a dot or end in .tmp or .part are left alone: somebody is writing them.

Not here: where the site's folders lie (enforce.sites), what lies in files (the brokers).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

FILES_MOST: Final = 10_000
"""Files that are looked at in one go; the rest wait for the next."""
AT_ONCE: Final = 1_000
"""Entries of a folder after which others have their turn."""
SWEEP_SECONDS: Final = 600.0
"""How often done files are looked through for those that have been kept long enough."""
ODD_TOLD: Final = 3
"""Entries that are named of those which are left alone; of more, how many there are."""
NAME_BYTES: Final = 200
"""Of a file's name: what is added to it still fits."""
NAMES_TRIED: Final = 100
"""Numbers that are put behind a name which is taken; then the time is."""
DONE, BAD = "done", "bad"
_NOREPLACE: Final = 1
_NO_SUCH_WAY: Final = (errno.EINVAL, errno.ENOSYS)
"""What a file system says that cannot move without replacing."""

_libc = ctypes.CDLL(None, use_errno=True)

Facts = tuple[int, int, int]
"""(inode, size, time of change) of a file."""


def facts_of(found: os.stat_result) -> Facts:
    return found.st_ino, found.st_size, found.st_mtime_ns


def shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name[:NAME_BYTES])


def cut(name: str) -> str:
    """A name to which something may be added."""
    return name.encode()[:NAME_BYTES].decode(errors="ignore")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def is_there(folder: int, name: str, fd: int) -> bool:
    """Whether the folder that is open is still the one of this name."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def is_taken(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_writers(name: str) -> bool:
    """Whether a name says that somebody is writing it still, or that it is none of the files that come."""
    return name in (DONE, BAD) or name.startswith(".") or name.endswith((".tmp", ".part"))


def beneath(here: int, name: str) -> int:
    """The folder `done` or `bad`, opened; made where there is none. Raises: NotADirectoryError, where something else
    has its name; OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o2770, dir_fd=here)
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.ENOENT):
            raise
        raise NotADirectoryError(errno.ENOTDIR, "no folder", name) from None


def open_plain(name: str, facts: Facts, here: int) -> int | None:
    """A file, opened for reading; None where it is not what was looked at any more. Raises: OSError."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, or a socket, since we looked
            return None
        raise
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and facts_of(found) == facts:
        return fd
    os.close(fd)
    return None


def move(name: str, facts: Facts, reasons: list[str], here: int, target: int, *, synced: bool = True) -> bool:
    """Moves a file that is dealt with, once it is said why it is bad (`reasons`, into NAME.reason). False, if it was
    another one by then: it is back in its place. Raises: FileExistsError, where there is no free name for it. `synced`:
    it lasts when this returns; else the caller syncs both folders soon (what a power cut brings back is known)."""
    said = "".join(f"{line}\n" for line in reasons).encode()
    free = cut(shown(name))
    place = free
    for number in range(2, NAMES_TRIED + 2):
        try:
            if is_taken(target, place):
                raise FileExistsError
            if reasons:
                write(target, f"{place}.reason", said)
            try:
                rename(here, name, target, place)
                break
            except OSError:
                forget(target, f"{place}.reason", reasons)
                raise
        except FileExistsError:
            place = f"{free}.{number if number < NAMES_TRIED else time.time_ns()}"
        except FileNotFoundError:  # its producer has taken it away; what it brought is there
            return True
    else:
        raise FileExistsError(errno.EEXIST, "no free name", name)
    if facts_of(os.stat(place, dir_fd=target, follow_symlinks=False)) != facts:
        forget(target, f"{place}.reason", reasons)
        try:
            rename(target, place, here, name)
            return False
        except FileExistsError:  # its producer has replaced it twice: what lay in between, nobody has read
            write(target, f"{place}.reason", b"replaced by another one before it was read: not taken\n")
    if synced:
        os.fsync(target)
        os.fsync(here)
    return True


def forget(folder: int, name: str, reasons: list[str]) -> None:
    """Takes back a `.reason`, if one was written."""
    if reasons:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def rename(source: int, name: str, target: int, to: str) -> None:
    """Moves a file, and never over another one. Raises: FileExistsError and other OSErrors."""
    if not _libc.renameat2(source, os.fsencode(name), target, os.fsencode(to), _NOREPLACE):
        return
    code = ctypes.get_errno()
    if code not in _NO_SUCH_WAY:
        raise OSError(code, os.strerror(code), name)
    if is_taken(target, to):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to)
    os.rename(name, to, src_dir_fd=source, dst_dir_fd=target)


def write(folder: int, name: str, content: bytes) -> None:
    """A whole file under its name, or none. Raises: OSError, FileExistsError among them."""
    hidden = f".{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(hidden, dir_fd=folder)  # of an earlier life, or somebody else's: a link, or a pipe
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(hidden, flags, 0o660, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(fd)
        rename(folder, hidden, folder, name)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(hidden, dir_fd=folder)
        raise


class Watched:
    """A folder that others leave files in, as it was when somebody last looked. `name`: what it is called."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.seen: dict[str, tuple[Facts, float]] = {}
        """What each file is like, since when (monotonic)."""
        self.odd: list[str] = []
        """Entries that are left alone, and why."""
        self._swept = float("-inf")

    async def ready(self, here: int, settle: int) -> list[str]:
        """Files that have stood unchanged for so many seconds, the oldest first. Raises: OSError."""
        now, found = time.monotonic(), dict[str, Facts]()
        self.odd = []
        async for name in _names(self.path):
            if len(found) >= FILES_MOST:
                break
            if is_writers(name):
                continue
            try:
                facts = os.stat(name, dir_fd=here, follow_symlinks=False)
            except FileNotFoundError:  # its producer has taken it back meanwhile
                continue
            if stat.S_ISREG(facts.st_mode):
                found[name] = facts_of(facts)
            else:
                kind = "a link" if stat.S_ISLNK(facts.st_mode) else "no plain file"
                self.odd.append(f"{shown(name)} in {self.name} is {kind}, and is left alone")
        before, self.seen = self.seen, {}
        for name, one in found.items():
            self.seen[name] = before[name] if name in before and before[name][0] == one else (one, now)
        ready = [name for name, (_, since) in self.seen.items() if now - since >= settle]
        return sorted(ready, key=lambda name: (found[name][2], name))

    def told(self) -> str:
        """What is left alone, in one line; "" for nothing."""
        more = len(self.odd) - ODD_TOLD
        words = "; ".join(sorted(self.odd)[:ODD_TOLD]) + (f"; and {more} more" if more > 0 else "")
        return f"{len(self.odd)} entries: {words}" if len(self.odd) > 1 else words

    async def sweep(self, done: int, keep: int) -> None:
        """Now and then, removes done files that have been kept for so many seconds (0: for ever). Bad ones are for a
        person. Raises: OSError."""
        if time.monotonic() - self._swept < SWEEP_SECONDS or not keep:
            return
        self._swept = time.monotonic()
        oldest = time.time() - keep  # a move changes the time of change (ctime)
        old: list[str] = []
        async for name in _names(self.path / DONE):
            if len(old) >= FILES_MOST:
                break
            with contextlib.suppress(FileNotFoundError):
                facts = os.stat(name, dir_fd=done, follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode) and facts.st_ctime < oldest:
                    old.append(name)
        for name in old:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=done)


async def _names(folder: Path) -> AsyncIterator[str]:
    """What is said to be in a folder, however much: others have their turn in between. (By its path, since a part may
    not double descriptors; what is found is then looked at by the descriptor.)"""
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            yield entry.name
