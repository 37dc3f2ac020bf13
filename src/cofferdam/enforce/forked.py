"""What the launcher does around a fork and at its end: pipes, a child's descriptors, words for how one ended, and the
notices to the service manager.

Not here: which child gets what (launcher).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
import socket
from collections.abc import Sequence

from cofferdam.crossing.pipe import make_pipe

FIRST_FD = 3
"""A child's descriptors are numbered from here on, in the order of its command line."""


@contextlib.contextmanager
def pipes_of(count: int):  # type: ignore[no-untyped-def]
    """So many packet pipes; the launcher's copies are closed afterwards."""
    pipes = [make_pipe() for _ in range(count)]
    try:
        yield pipes
    finally:
        for pair in pipes:
            for fd in pair:
                os.close(fd)


def place_descriptors(fds: Sequence[int]) -> None:
    """In a fresh child: `fds` become FIRST_FD and following, standard input is empty, standard output goes where
    errors go, and nothing else stays open."""
    above = FIRST_FD + len(fds)
    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above) for fd in fds]  # out of the way of the targets
    for target, copy in enumerate(copies, FIRST_FD):
        os.dup2(copy, target, inheritable=True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.closerange(above, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def notify(state: str) -> None:
    """Tells the service manager, if there is one (sd_notify(3)). A lost notice is its business, not ours."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto(state.encode(), path.replace("@", "\0", 1) if path[0] == "@" else path)


def how(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "status unknown"
    if status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-status).name
    return f"signal {-status}"
