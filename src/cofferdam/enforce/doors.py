"""Sockets by which members of a group reach the gate, without being root: one for each role.

The launcher makes them, since it alone may give a file to a group; the gate accepts there and knows what each role may
(gate.commands). Who may connect is the kernel's to say, by the socket's mode.

Not here: the gate's own control socket, for root and its user (gate.commands).
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from cofferdam.errors import GateError

DOORS = ("look", "sever")
"""The roles: who may look at the gate, and who may cut off as well."""
BACKLOG = 128
_NO_LOGIN = 0xFFFFFFFF
"""What the kernel says of processes that no login began."""


def door(state: Path, role: str) -> Path:
    """Where a role's socket is."""
    return state / f"{role}.sock"


def group(name: str) -> int:
    """The number of a group of this machine. Raises: GateError."""
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError, OSError):
        raise GateError(
            f"there is no group {name!r} on this machine", hint=f"make it: addgroup --system {name}"
        ) from None


def login_of(pid: int) -> int:
    """The user whose login began a process (`loginuid`, which sudo and su leave alone); -1 where none did, or where
    this kernel does not say.

    Raises: GateError: the process has gone, so nobody knows any more.
    """
    proc = Path(f"/proc/{pid}")
    try:
        found = int((proc / "loginuid").read_text())
    except (OSError, ValueError):
        if not proc.exists():
            raise GateError(f"there is no process {pid} any more") from None
        return -1
    return found if 0 <= found < _NO_LOGIN else -1


@contextlib.contextmanager
def opened(state: Path, groups: Mapping[str, int]) -> Iterator[dict[str, socket.socket]]:
    """A listening socket for each role that a group has (role -> group id), in the state directory, mode 0660. What an
    earlier gate left is removed, also for roles that no group has any more. The sockets are closed on leaving.

    Whoever is in none of the groups may then walk through the state directory, but not list it: what lies in it has
    modes of its own, that let nobody in.

    Raises: GateError.
    """
    made: dict[str, socket.socket] = {}
    left = False
    try:
        for role in DOORS:
            path = door(state, role)
            try:
                left = left or path.is_socket()
                path.unlink(missing_ok=True)
                if role in groups:
                    made[role] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                    _bind(made[role], path, groups[role])
            except OSError as error:
                raise GateError(
                    f"cannot make the socket {path}: {error.strerror or error}",
                    hint="whoever is not root can give a socket only to a group of their own",
                ) from None
        mode = stat.S_IMODE(state.stat().st_mode)
        # Taken back only where an earlier gate gave it: who else may walk through is the site's to say.
        wanted = mode | stat.S_IXOTH if groups else mode & ~stat.S_IXOTH if left else mode
        if wanted != mode:
            state.chmod(wanted)
        yield made
    finally:
        for one in made.values():
            one.close()


def _bind(ours: socket.socket, path: Path, group_id: int) -> None:
    """Nobody can connect before the group is set. What is bound here stays where it is: in a folder with the sticky bit
    only who owns it can put another in its place. Raises: OSError."""
    old = os.umask(0o777)
    try:
        ours.bind(str(path))
    finally:
        os.umask(old)
    os.chown(path, -1, group_id, follow_symlinks=False)
    path.chmod(0o660)
    ours.listen(BACKLOG)
