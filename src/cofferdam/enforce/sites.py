"""The site's folders that parts read and write: where other programs of the site leave files for the gate, and fetch
what it leaves for them.

A policy names a folder, and never says where it lies: it is that name beneath the one directory that whoever starts the
gate gives (`--folders`, else STATE/folders). So neither a policy nor a gate that was taken over can have the launcher
open another place. A share of the site's is mounted there. The part owns the folder, so that it can move away what it
is done with; the folder's group is the site's: whoever is in it leaves and fetches files, and the part is in it too.

Not here: what lies in a folder (the part), a part's own store (stores).
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from cofferdam.errors import GateError

FOLDER = "folders"
_MODE = 0o2770
"""What is made in it has its group, which is the site's."""


def make(root: Path, name: str, user: int) -> Path:
    """The folder of this name, for a part that runs as `user`; it is there from now on.

    Raises:
        GateError: it is not as it must be; with the path and the way out.
    """
    path = root / name
    if path.parent != root or name in (".", ".."):
        raise GateError(f"{name} is no name of a folder")
    try:
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        if root.stat().st_uid == os.geteuid() and root.stat().st_mode & 0o777 == 0o700:
            root.chmod(0o711)  # others come through to the folder that is theirs, and see no other's name
        fresh = not os.path.lexists(path)
        if fresh:
            path.mkdir(mode=0o700)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no folder"
            raise GateError(f"the folder {path} is {what}", hint="mount what it should lead to there, or remove it")
        if found.st_uid != user and os.geteuid() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise GateError(f"the folder {path} cannot be written by this user", hint=f"chown {user} {path}")
        if fresh or os.geteuid() == 0:
            _hand_over(path, found, user, fresh=fresh and found.st_uid == os.geteuid())
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            raise GateError(f"the folder {path} is on a read-only file system", hint="mount it for writing")
    except OSError as error:
        raise GateError(
            f"the folder {path} cannot be had: {error.strerror}",
            hint="give another directory with --folders, in which this user can write",
        ) from None
    return path


def _hand_over(path: Path, found: os.stat_result, user: int, *, fresh: bool) -> None:
    """It is this user's, and what is made in it has its group: else what one part leaves belongs to its own group, and
    no other reads it. Whoever may write beside it leads nobody elsewhere meanwhile. Raises: OSError."""
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        now = os.fstat(held)
        if (now.st_dev, now.st_ino) != (found.st_dev, found.st_ino):
            raise OSError(errno.ESTALE, "another was put in its place")
        if fresh:
            os.fchmod(held, _MODE)  # before the chown: without CAP_FSETID only of a group of one's own
            os.fchown(held, user, user)
            return
        if now.st_uid != user:
            os.fchown(held, user, -1)
        if not now.st_mode & stat.S_ISGID:
            os.fchown(held, -1, os.getegid())
            os.fchmod(held, stat.S_IMODE(now.st_mode) | stat.S_ISGID)
            os.fchown(held, -1, now.st_gid)
    finally:
        os.close(held)


def group(path: Path) -> int:
    """The group whose files a part that has the folder may read."""
    return path.stat().st_gid
