"""Which process holds an end of a TCP connection on this machine, by the kernel's own tables in /proc.

The tour's second witness: on the loopback network an address proves little, a socket's owner does.

Not here: other network namespaces; /proc/net is the reader's own.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
_LISTENS = "0A"


def _socket(address: str, port: int) -> tuple[int, int] | None:
    """Inode and user id of the IPv4 TCP socket whose local end this is; None where there is none."""
    wanted = f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}:{port:04X}"
    for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1] == wanted and int(columns[9]):
            return int(columns[9]), int(columns[7])
    return None


def owners_of(address: str, port: int) -> tuple[int, ...]:
    """The processes that may hold the socket with this local end, lowest process id first.

    Those that have it open, where one is seen. Else it is with a process that keeps its descriptors from us, as the
    gate's halves do from everyone but root: then all such processes of the socket's user, one of which holds it.
    """
    found = _socket(address, port)
    if found is None:
        return ()
    inode, user = found
    link = f"socket:[{inode}]"
    seen: list[int] = []
    closed: list[int] = []
    for pid in sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        try:
            if link in _links(pid):
                seen.append(pid)
        except PermissionError:
            if user in _users(pid):
                closed.append(pid)
        except OSError:
            continue  # ended meanwhile
    return tuple(seen or closed)


def _links(pid: int) -> Iterator[str]:
    """What a process has open. What it closes meanwhile is left out."""
    for descriptor in (PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(descriptor)  # noqa: PTH115  the plain call is enough for a name that is no path


def everywhere() -> set[int]:
    """TCP ports at which somebody listens on every address of this machine, and so on those of the lab as well."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in (PROC / "net" / name).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == _LISTENS and not int(address, 16):
                found.add(int(port, 16))
    return found


def _users(pid: int) -> set[int]:
    """The user ids of a process: real, effective, saved, file system."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return set()  # ended meanwhile
    line = next((line for line in status.splitlines() if line.startswith("Uid:")), "Uid:")
    return {int(word) for word in line.split()[1:]}


def descends_from(pid: int, ancestor: int) -> bool:
    """Is `pid` the process `ancestor` or one of its children's children?"""
    for _ in range(64):
        if pid == ancestor:
            return True
        try:
            stat = (PROC / str(pid) / "stat").read_text()
        except OSError:
            return False
        # The name in parentheses may hold spaces and parentheses; the parent is the second field after it.
        pid = int(stat.rpartition(")")[2].split()[1])
        if pid <= 1:
            return False
    return False
