"""What the halves say on standard error, where that is a socket, as it is under systemd.

A half holds no socket but those of its side, and shares none with its partner. So it gets the writing end of a pipe
instead, and a process that holds the other end and the socket, and nothing else, hands on what comes, unread.

Not here: what the messages say, and the gate's and the auditor's own messages, which go to the socket itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import sys
import time

PIECE_BYTES = 4096
LAST_WORDS_SECONDS = 2.0
NOBODY = 65534


class Messages:
    """Made by the launcher, before it starts anyone. `fd` is for halves: 2 itself, where that is no socket."""

    def __init__(self) -> None:
        self.fd = 2
        self._pid = 0
        try:
            is_socket = stat.S_ISSOCK(os.fstat(2).st_mode)
        except OSError:  # closed
            return
        if not is_socket:
            return
        read_fd, self.fd = os.pipe2(os.O_CLOEXEC)
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _hand_on(read_fd)
        os.close(read_fd)

    def close(self) -> None:
        """To be called when everyone else has ended: the last words are handed on before it returns, unless the socket
        takes nothing for so long that they are given up."""
        if not self._pid:
            return
        os.close(self.fd)
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        with contextlib.suppress(ChildProcessError):  # reaped with the launcher's children
            while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    break
                time.sleep(0.005)
        self.fd, self._pid = 2, 0


def _hand_on(read_fd: int) -> None:
    """A fresh fork becomes the process between. It ends when nobody can write any more; nothing returns from here."""
    try:
        os.setsid()  # signals of a terminal are not for it
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(read_fd, 0)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        while piece := os.read(0, PIECE_BYTES):
            while piece:
                piece = piece[os.write(2, piece) :]
    finally:
        os._exit(0)
