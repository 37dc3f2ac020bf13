"""The folders that parts keep things in: STATE/stores/CREW/PART, each of one part's own, made by the launcher.

Whoever finds the folder other than it must be refuses the crew: another owner means that somebody else has written
there, or that users were given anew, and a link would lead anywhere.

Not here: mounts (view), rules (sandbox), what lies in a store (the part).
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from cofferdam.errors import StoreUnfit

FOLDER = "stores"


def of(state: Path, crew: str, part: str) -> Path:
    """Where the store of a part is. A crew's name has slashes, and becomes one name here."""
    return state / FOLDER / crew.replace("%", "%25").replace("/", "%2F") / part


def owners(state: Path, but: str = "") -> frozenset[int]:
    """The users that own a store, other than that of the part `but` (as Isolation.user names it)."""
    found: set[int] = set()
    own = of(state, *but.rpartition("/")[::2])
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for crew in (state / FOLDER).iterdir():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # no folder: its crew is refused, alone
                found |= {path.lstat().st_uid for path in crew.iterdir() if path != own}
    return frozenset(found)


def make(state: Path, crew: str, part: str, user: int, *, shared: bool) -> Path:
    """The store of a part, which is there from now on. `user`: whose it is; `shared`: other parts may read it, by the
    group of the same number.

    Raises:
        StoreUnfit: it is not as it must be; with the path and the way out.
    """
    path = of(state, crew, part)
    try:
        for folder in (path.parent.parent, path.parent):
            _own(folder, os.geteuid(), 0o700)
        _own(path, user, 0o750 if shared else 0o700)
    except OSError as error:
        raise StoreUnfit(
            f"the store {path} cannot be had: {error.strerror}",
            hint="give another --state, on a local file system that this user can write to",
        ) from None
    return path


def look(state: Path, crew: str, part: str, user: int | None) -> None:
    """Whether `make` would take what is there; nothing is changed. `user`: None where nobody knows whose it will be.

    Raises:
        StoreUnfit: as `make` would.
        OSError: it cannot be seen.
    """
    path = of(state, crew, part)
    with contextlib.suppress(FileNotFoundError):
        for folder in (path.parent.parent, path.parent, path):
            found = folder.lstat()
            whose = found.st_uid if user is None or found.st_uid == os.geteuid() == 0 else user  # root's is handed over
            _fits(folder, found, whose if folder == path else os.geteuid())


def _own(path: Path, user: int, mode: int) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    else:
        if user != os.geteuid():
            os.chown(path, user, user, follow_symlinks=False)
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode) and user != found.st_uid == os.geteuid() == 0:
        give(path, user)  # root alone has written there, by a gate whose parts had no users of their own yet
        found = path.lstat()
    _fits(path, found, user)
    if found.st_mode & 0o777 != mode:
        path.chmod(mode)  # narrower than somebody made it


def _fits(path: Path, found: os.stat_result, user: int) -> None:
    if not stat.S_ISDIR(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no folder"
        raise StoreUnfit(f"the store {path} is {what}", hint=f"look at what it is, then remove it: rm {path}")
    if found.st_uid != user:
        raise StoreUnfit(
            f"the store {path} belongs to user {found.st_uid}, and its part runs as user {user}",
            hint=f"if what is in it is the part's: chown -R {user}:{user} {path}; if not, move it away",
        )
    if found.st_mode & 0o700 != 0o700:
        raise StoreUnfit(f"the store {path} cannot be written by its own user", hint=f"chmod u+rwx {path}")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise StoreUnfit(f"the store {path} is on a read-only file system", hint="mount it for writing")


def give(folder: Path, user: int, *, whole: bool = False) -> None:
    """A folder and all in it belongs to a user; nothing to do if it does so already, unless `whole` says that others
    may have put something there. Links are not followed."""
    if folder.lstat().st_uid == user and not whole:
        return
    for _, folders, files, fd in os.fwalk(folder, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, user, user, dir_fd=fd, follow_symlinks=False)
    os.chown(folder, user, user, follow_symlinks=False)  # last: it says that the others are done
