"""Which process holds an end of a TCP connection on this machine, by the kernel's own tables in /proc.

The tour's second witness: on the loopback network an address proves little, a socket's owner does.

Not here: other network namespaces; /proc/net is the reader's own.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

PROC = Path("/proc")


def _inode(address: str, port: int) -> int | None:
    """The inode of the IPv4 TCP socket whose local end this is; None where there is none."""
    wanted = f"{struct.unpack('=I', socket.inet_aton(address))[0]:08X}:{port:04X}"
    for line in (PROC / "net" / "tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1] == wanted and int(columns[9]):
            return int(columns[9])
    return None


def owner_of(address: str, port: int) -> int | None:
    """The process that has the socket with this local end open; None where we may not see it or nobody has.

    A socket that several processes hold is reported for the lowest process id.
    """
    inode = _inode(address, port)
    if inode is None:
        return None
    link = f"socket:[{inode}]"
    for pid in sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        try:
            for descriptor in (PROC / str(pid) / "fd").iterdir():
                if os.readlink(descriptor) == link:  # noqa: PTH115  the plain call is enough for a name that is no path
                    return pid
        except OSError:
            continue  # ended meanwhile, or not ours to see
    return None


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
