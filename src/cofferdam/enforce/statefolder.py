"""The state directory's locks: one gate at a time, and one who looks at a gate's namespaces at a time.

Not here: what lies in it (gate.state, journal, stores, the auditor).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import stat
import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cofferdam import owned
from cofferdam.enforce import journal
from cofferdam.errors import GateError

LOOKING = "prove.lock"
"""Held by whoever is in the namespaces without being a broker's part: a proof, or a round of the leak probe. Each would
take the other for a stranger."""

BUSY = "a proof is under way"


def hold_network(state: Path) -> int:
    """The lock on looking; the descriptor that holds it. Raises: GateError, if somebody looks now."""
    lock = os.open(journal.folder(state) / LOOKING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise GateError(BUSY, hint="it looks at the same namespaces; this waits for it") from None
    return lock


def lock_state(state: Path) -> int:
    """Takes the state directory for this gate; the descriptor that holds it."""
    lock = -1
    try:
        _make(state)
        _own(state)
        lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        owned.plain(lock, alone=True)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid != os.geteuid():  # another user's gate left it, and it says whose process it names
            os.fchown(lock, os.geteuid(), -1)
        # Whoever has to reach this process without the gate (gate.client.cut_off) finds it here, while the lock holds.
        os.ftruncate(lock, 0)
        os.write(lock, b"%d\n" % os.getpid())
    except BlockingIOError:
        os.close(lock)
        raise GateError(
            f"another gate runs with the state directory {state}",
            hint=f"`cofferdam status --state {state}` shows it, `cofferdam down --state {state}` stops it; "
            "a second gate needs a --state of its own",
        ) from None
    except OSError as error:
        if lock >= 0:
            os.close(lock)
        raise GateError(
            f"cannot use the state directory {state}: {error.strerror}",
            hint="give another one with --state, or make it writable for this user",
        ) from None
    return lock


def check_place(state: Path) -> None:
    """That a gate would take a state directory, as far as its place goes; also one that is not there yet.

    Raises: GateError.
    """
    there = next(folder for folder in (state, *state.parents) if os.path.lexists(folder))
    try:
        if there == state:
            _own(state)
        else:
            _check_way(there / "x", state)
    except OSError as error:
        raise GateError(f"cannot use the state directory {state}: {error.strerror}") from None


def _make(state: Path) -> None:
    """The state directory is there. One that is made here is this user's alone, whatever access list the folder above
    has for what is made in it. Raises: OSError."""
    try:
        state.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return
    for listed in (_ACL_FRESH, _ACL):
        with contextlib.suppress(OSError):  # there is none
            os.removexattr(state, listed)


def _on_the_way(state: Path) -> Iterator[Path]:
    """Folders and links that lead to a state directory, and that somebody else could have lead elsewhere."""
    ours = _ours()
    links = _links(state)
    for link in links:
        if link.lstat().st_uid not in ours:
            yield link
    above = (folder for link in links for folder in link.parents)
    for folder in dict.fromkeys((*state.absolute().parents, *above, *state.resolve().parents)):
        found = folder.stat()
        shared = found.st_mode & stat.S_IWOTH or (
            found.st_mode & stat.S_IWGRP and not _is_ours_alone(folder, found.st_gid, ours)
        )
        if found.st_uid not in ours or (shared and not found.st_mode & stat.S_ISVTX):
            yield folder


def _ours() -> set[int]:
    """Users to whom a state directory may be left: root, who starts the gate, and who has root do so."""
    return {0, os.geteuid(), _unknown_user(), _behind_sudo()}


def _links(state: Path) -> list[Path]:
    """The links that lead to a state directory, those that links lead to as well. Raises: OSError, at a circle."""
    found: dict[Path, None] = {}
    steps, at, followed = list(reversed(state.absolute().parts[1:])), Path("/"), 0
    while steps:
        step = steps.pop()
        at = at.parent if step == ".." else at / step
        if not at.is_symlink():
            continue
        followed += 1  # one that leads back to itself is always the same
        if followed > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        found[at] = None
        leads = at.readlink()
        at = Path("/") if leads.is_absolute() else at.parent
        steps += reversed(leads.parts[1:] if leads.is_absolute() else leads.parts)
    return list(found)


_MOST_LINKS = 40
_ACL, _ACL_FRESH = "system.posix_acl_access", "system.posix_acl_default"
_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK, _ACL_OTHER, _ACL_WRITE = 2, 4, 8, 16, 32, 2


def _listed(folder: Path, which: str) -> list[tuple[int, int, int]]:
    """A folder's access list: what kind of entry, what it allows, whom. Empty if it has none."""
    try:
        return list(struct.iter_unpack("<HHI", os.getxattr(folder, which)[4:]))
    except OSError:
        return []


def _is_ours_alone(folder: Path, group: int, users: Collection[int]) -> bool:
    """Whether only such users may write to a folder, of those to whom its mode's bits for the group allow it: where it
    has an access list (acl(5)), these bits are the most that anybody named in it may."""
    listed = _listed(folder, _ACL)
    if not listed:
        return _is_own_group(group, users)
    most = next((may for tag, may, _ in listed if tag == _ACL_MASK), _ACL_WRITE)
    for tag, may, number in listed:
        if not may & most & _ACL_WRITE:
            continue
        if tag == _ACL_USER and number not in users:
            return False
        if tag in (_ACL_GROUP, _ACL_GROUP_OBJ) and not _is_own_group(number if tag == _ACL_GROUP else group, users):
            return False
    return True


def _is_own_group(number: int, users: Collection[int]) -> bool:
    """Whether it is root's group, or that of such a user, with nobody else in it: many machines let those write."""
    try:
        found = grp.getgrgid(number)
    except KeyError:
        return number == 0
    whose = {0} if number == 0 else _users([found.gr_name])
    born = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == number}  # whom the group's own line does not name
    return bool(whose) and whose | born | _users(found.gr_mem) <= set(users)


def _users(names: Sequence[str]) -> set[int]:
    """The numbers of those that there are."""
    found = set()
    for name in names:
        with contextlib.suppress(KeyError):
            found.add(pwd.getpwnam(name).pw_uid)
    return found


def _behind_sudo() -> int:
    """Who has root do this, in a folder of their own."""
    said = os.environ.get("SUDO_UID", "") if os.geteuid() == 0 else ""
    return int(said) if said.isascii() and said.isdigit() else 0


def _unknown_user() -> int:
    """Whose things in a user namespace nobody in it can be. Where it has that user, as outside of any and in many
    containers, it is one like others (nobody)."""
    try:
        number = int(Path("/proc/sys/kernel/overflowuid").read_text())
        for line in Path("/proc/self/uid_map").read_text().splitlines():
            first, _, count = map(int, line.split())
            if first <= number < first + count:
                return 0
    except (OSError, ValueError):
        return 0
    return number


def _own(state: Path) -> None:
    """Whoever can write to the state directory can restore a severed side and swap the log: it must be ours alone.
    Whoever can put another in its place can do as much, and answer root's commands as if they were the gate.

    Raises: GateError.
    """
    _check_way(state, state)
    found = state.stat()
    if found.st_uid in (0, os.geteuid()) and _lists_others(state):
        raise GateError(
            f"the access list of the state directory {state} lets others write there, or to what is made in it",
            hint=f"take it away: setfacl -R -b -k {state}; or another --state",
        )
    # So it is handed out (housed): to a group that has nobody in it but the gate's own user.
    sticky_group = (
        found.st_mode & stat.S_ISVTX
        and not found.st_mode & stat.S_IWOTH
        and (_is_nobodys(found.st_gid) or _is_own_group(found.st_gid, {0, os.geteuid(), found.st_gid}))
    )
    if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not sticky_group):
        raise GateError(
            f"the state directory {state} can be written to by others",
            hint=f"make it this user's alone: chown {os.geteuid()} {state} && chmod 700 {state}; or another --state",
        )


def _check_way(way: Path, state: Path) -> None:
    """Raises: GateError."""
    for place in _on_the_way(way):
        raise GateError(
            f"the state directory {state} can be put out of its place by others, who may write to {place}",
            hint=f"make that this user's alone: chmod go-w {place}, owned by root or this user; or another --state",
        )


def _lists_others(state: Path) -> bool:
    """Whether an access list names somebody who may write to a state directory as soon as the gate's own group may, or
    lets others than its owner write to what is made in it, whatever the gate's own umask says."""
    ours = {0, os.geteuid()}
    return any(
        may & _ACL_WRITE and tag in (_ACL_USER, _ACL_GROUP) and not (tag == _ACL_USER and number in ours)
        for tag, may, number in _listed(state, _ACL)
    ) or any(
        may & _ACL_WRITE and tag in (_ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_OTHER)
        for tag, may, _ in _listed(state, _ACL_FRESH)
    )


def _is_nobodys(group: int) -> bool:
    """Whether the machine has no name for a group, and no user who is born into it."""
    try:
        grp.getgrgid(group)
    except KeyError:
        return all(user.pw_gid != group or user.pw_uid == group for user in pwd.getpwall())
    return False
