"""Files in folders that another user may write to, as a gate with a user of its own may to its state directory: no link
is followed, and nothing is waited for, so that whoever took the other user's process over leads nobody elsewhere
who has more rights.

Not here: which files there are, and what is in them (gate.state, gate.secrets, overlay.peers, a broker's keys).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SPARES: Final = ("spare", *(f"spare-{number}" for number in range(2, 9)))
"""A gate's reserve in its state directory: room for the next changes of what is severed, granted and expired on a full
disk, one each."""
MOST_BYTES: Final = 64 << 20
_ENTER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FRESH: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def plain(fd: int, *, alone: bool = False) -> None:
    """Raises: OSError: what is open there is no plain file, or is to have one name `alone` and has more."""
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or (alone and found.st_nlink > 1):
        raise OSError(errno.EINVAL, "it is no plain file")


def read(path: Path) -> bytes:
    """The content of a plain file. Raises: FileNotFoundError; OSError: it is none, or has more than MOST_BYTES."""
    return _content(os.open(path, _LOOK))


def open_below(base: Path, names: Sequence[str]) -> tuple[int, int]:
    """A file below `base`, open for reading, and who owns the folder that it lies in; no folder on the way is a link
    either. What it is, is still to be looked at (`plain`). Raises: FileNotFoundError; OSError."""
    *folders, name = names
    at = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            inner = os.open(folder, _ENTER, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(name, _LOOK, dir_fd=at), os.fstat(at).st_uid
    finally:
        os.close(at)


def read_below(base: Path, names: Sequence[str]) -> bytes:
    """As `read`, of a file below `base` on whose way there is no link. Raises: as `read`."""
    return _content(open_below(base, names)[0])


def _content(fd: int) -> bytes:
    """Of an open file, which is closed then. Raises: OSError."""
    try:
        plain(fd)
        found = os.fstat(fd).st_size
        if found > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {MOST_BYTES >> 20} MiB")
        pieces = []
        while piece := os.read(fd, 1 << 20):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def write(base: Path, names: Sequence[str], data: bytes, owner: int, *, new: bool = False) -> None:
    """A file below `base` that `owner` (a user id) alone reads, durable on return; folders on the way are made where
    there are none, and are the owner's as well. Where it fails, the old file is still there.

    Raises:
        OSError: with `new` also where there is one already; or somebody else's folder, or a link, is on the way.
    """
    *folders, name = names
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700, dir_fd=fd)
            inner = os.open(folder, _ENTER, dir_fd=fd)
            os.close(fd)
            fd = inner
            _hand(fd, owner)
        fresh = name if new else f"{name}.new"
        if not new:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh, dir_fd=fd)
        _fill(fd, fresh, data, owner)
        if not new:
            os.replace(fresh, name, src_dir_fd=fd, dst_dir_fd=fd)
        os.fsync(fd)
    finally:
        os.close(fd)


def _fill(folder: int, name: str, data: bytes, owner: int) -> None:
    fd = os.open(name, _FRESH, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            _hand(fd, owner)
            os.fsync(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise


def _hand(fd: int, owner: int) -> None:
    """What root has made is the owner's. Raises: OSError: it is somebody else's."""
    if os.geteuid() == 0:
        if os.fstat(fd).st_uid not in (0, owner):
            raise OSError(errno.EPERM, "it belongs to somebody else")
        os.fchown(fd, owner, owner)
