"""What parts say on standard error, on its way to where the launcher's own messages go.

A part holds no terminal, no file that it could seek in, and no socket but those of its side: it gets the writing end of
a pipe of its own. A process that holds the other ends, and nothing else, hands on what comes, line by line: marked with
who said it, without what a terminal would obey, cut, and no more than so much in a time. So a part that was taken over
can neither speak for another nor for the gate, nor fill the journal.

Not here: what the messages say, and the gate's and the auditor's own messages, which go where the launcher's go.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import time

PIECE_BYTES = 4096
LINE_CHARACTERS = 1000
"""A longer line is cut."""
BYTES_AT_ONCE, BYTES_A_SECOND = 64 << 10, 2 << 10
"""What one part may say; the rest is counted."""
NAME_BYTES = 256
LAST_WORDS_SECONDS = 2.0
NOBODY = 65534


class Messages:
    """Made by the launcher, before it starts anyone."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _hand_on(theirs)
        theirs.close()
        self._to = ours

    def pipe(self, name: str) -> int:
        """A descriptor for a part of this name to write its messages to; the caller's to close."""
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(self._to, [name.encode()[:NAME_BYTES]], [read_fd])
        except OSError:  # nobody hands anything on any more: what it says goes nowhere
            os.close(write_fd)
            write_fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        finally:
            os.close(read_fd)
        return write_fd

    def close(self) -> None:
        """To be called when everyone else has ended: the last words are handed on before it returns, unless nobody
        takes them for so long that they are given up."""
        if not self._pid:
            return
        self._to.close()
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        with contextlib.suppress(ChildProcessError):  # reaped with the launcher's children
            while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    break
                time.sleep(0.005)
        self._pid = 0


class Speaker:
    """One part, as far as its messages go."""

    def __init__(self, name: str, now: float) -> None:
        self.name = clean(name.encode())
        self._begun = b""
        self._tokens = float(BYTES_AT_ONCE)
        self._at = now
        self._lost = 0

    def take(self, piece: bytes, now: float) -> list[str]:
        """The lines that these bytes complete, as they are handed on; with b"", the end, what is left."""
        self._tokens = min(BYTES_AT_ONCE, self._tokens + (now - self._at) * BYTES_A_SECOND)
        self._at = now
        *lines, self._begun = (self._begun + piece).split(b"\n")
        if self._begun and (not piece or len(self._begun) > PIECE_BYTES):
            lines, self._begun = [*lines, self._begun], b""
        said = []
        for line in lines:
            if self._tokens < len(line):
                self._lost += len(line)
                continue
            self._tokens -= len(line) + 32  # an empty line is one, too
            if self._lost:
                said.append(f"{self.name}: ({self._lost} bytes were left out)")
                self._lost = 0
            said.append(f"{self.name}: {clean(line)}")
        return said


def clean(line: bytes) -> str:
    """A line without what a terminal would obey or not show: such characters are spelled out."""
    text = line[: 4 * LINE_CHARACTERS].decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "…"


def _hand_on(introductions: socket.socket) -> None:
    """A fresh fork becomes the process between. It ends when nobody can write any more; nothing returns from here."""
    try:
        os.setsid()  # signals of a terminal are not for it
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        os.dup2(introductions.fileno(), 0)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        _serve(socket.socket(fileno=0))
    finally:
        os._exit(0)


def _serve(introductions: socket.socket) -> None:
    journal = "JOURNAL_STREAM" in os.environ
    poll = select.poll()
    poll.register(0, select.POLLIN)
    speakers: dict[int, Speaker] = {}
    listening = True
    while listening or speakers:
        for fd, _ in poll.poll():
            now = time.monotonic()
            if fd == 0:
                name, fds, _, _ = socket.recv_fds(introductions, NAME_BYTES, 1)
                for new in fds:
                    speakers[new] = Speaker(name.decode("utf-8", "replace"), now)
                    poll.register(new, select.POLLIN)
                if not name and not fds:
                    listening = False
                    poll.unregister(0)
                continue
            piece = os.read(fd, PIECE_BYTES)
            for line in speakers[fd].take(piece, now):
                data = f"{'<6>' if journal else ''}{line}\n".encode("utf-8", "replace")
                while data:
                    data = data[os.write(2, data) :]
            if not piece:
                poll.unregister(fd)
                del speakers[fd]
                os.close(fd)
