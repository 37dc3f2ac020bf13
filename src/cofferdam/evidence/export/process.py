"""The processes of an export: one for each collector, without privilege, and one that watches them and tells the gate.

The watcher opens nothing of the network. As root it gives each child the log's folder and its own folder of cursors as
descriptors, and a user of its own with the log's group: the child reads the log and not its key, writes its cursor, and
gains no privilege any more. A collector that is a black hole holds up nobody else; a child that died is started again.

Not here: the work (sending), asking the gate (the verb hands in `tell`).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.files import LogReader
from cofferdam.evidence.export.sending import Cursor, Sending, Stood, cursors, encode
from cofferdam.evidence.export.settings import Collector
from cofferdam.evidence.export.ways import WayError, prepared
from cofferdam.evidence.gather import EXPORT_USER

USER = EXPORT_USER
AGAIN_SECONDS = 2.0
HOUR = 3600.0
MAX_LINE = 4096
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
Tell = Callable[[Stood], None]
"""Has the gate record how an export stands, and raise or clear its alarm."""


class Child:
    """One collector's process, as the watcher knows it."""

    def __init__(self, to: Collector) -> None:
        self.to = to
        self.pid = 0
        self.read_fd = -1
        self.born = 0.0
        self.buffer = b""
        self.last: Stood | None = None
        self.told: tuple[bool, float] | None = None


class Watcher:
    """Starts the children, hears them, tells the gate. `run` ends at SIGTERM or SIGINT."""

    def __init__(self, state: Path, key: VerifierKey, collectors: Sequence[Collector], tell: Tell) -> None:
        self._state, self._key, self._tell = state, key, tell
        self._children = [Child(to) for to in collectors]
        self._stop = False
        self._folder = cursors(state)

    def run(self) -> None:
        """Until it is told to stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        try:
            while not self._stop:
                self._start_some()
                self._hear(0.5)
        finally:
            for child in self._children:
                if child.pid:
                    os.kill(child.pid, signal.SIGTERM)
            for child in self._children:
                if child.pid:
                    os.waitpid(child.pid, 0)

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stop = True

    def _start_some(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if not child.pid and now - child.born >= AGAIN_SECONDS:
                self._start(child)

    def _start(self, child: Child) -> None:
        read_fd, write_fd = os.pipe()
        child.born, child.buffer = time.monotonic(), b""
        audit = os.open(self._state / "audit", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        kept = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if os.geteuid() == 0:
            os.chown(self._folder, USER, USER)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(read_fd)
                for other in self._children:
                    if other.read_fd >= 0:
                        os.close(other.read_fd)
                code = _child(child.to, self._key, audit, kept, write_fd)
            except BaseException as error:
                sys.stderr.write(f"export {child.to.name}: {error!r}\n")
            finally:
                os._exit(code)
        for fd in (write_fd, audit, kept):
            os.close(fd)
        child.pid, child.read_fd = pid, read_fd

    def _hear(self, seconds: float) -> None:
        by_fd = {child.read_fd: child for child in self._children if child.read_fd >= 0}
        ready, _, _ = select.select(list(by_fd), [], [], seconds)
        for fd in ready:
            child = by_fd[fd]
            data = os.read(fd, 65536)
            if not data:
                self._ended(child)
                continue
            child.buffer += data
            while b"\n" in child.buffer:
                line, _, child.buffer = child.buffer.partition(b"\n")
                self._heard(child, line)
            if len(child.buffer) > MAX_LINE:
                os.kill(child.pid, signal.SIGKILL)  # it says what is no line of ours

    def _heard(self, child: Child, line: bytes) -> None:
        try:
            said = json.loads(line)
            stood = Stood(child.to.name, int(said["next"]), int(said["behind"]), said["working"] is True,
                          str(said["detail"])[:400])  # fmt: skip
        except (ValueError, KeyError, TypeError):
            os.kill(child.pid, signal.SIGKILL)
            return
        child.last = stood
        now = time.monotonic()
        if child.told is None or child.told[0] != stood.working or now - child.told[1] >= HOUR:
            child.told = (stood.working, now)
            self._tell(stood)

    def _ended(self, child: Child) -> None:
        os.close(child.read_fd)
        _, status = os.waitpid(child.pid, 0)
        child.pid, child.read_fd = 0, -1
        if not self._stop:
            how = os.waitstatus_to_exitcode(status)
            stood = Stood(child.to.name, child.last.next if child.last else 0, 0, False, f"its process ended ({how})")
            if child.told is None or child.told[0]:
                child.told = (False, time.monotonic())
                self._tell(stood)


def _confine(audit: int) -> None:
    """Ends with the watcher, gains nothing, and as root becomes a user that may read the log and nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        group = os.fstat(audit).st_gid
        os.setgroups([group])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        # A change of users also shuts /proc/self, by which the two folders are reached.
        libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the users: a change of users forgets it
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _child(to: Collector, key: VerifierKey, audit: int, kept: int, write_fd: int) -> int:
    """What only root reads (keys, tokens) is read first, then the rights are given up."""
    try:
        ready = prepared(to)
    except WayError as error:
        _say(write_fd, Stood(to.name, 0, 0, False, str(error)))
        return 1
    "name".encode("idna")  # loaded while it can be: afterwards Python's own folder may be shut
    _confine(audit)
    reader = LogReader(Path(f"/proc/self/fd/{audit}"), key)
    cursor = Cursor(Path(f"/proc/self/fd/{kept}"), to.name, key.text)
    sending = Sending(ready.to, reader, cursor, lambda stood: _say(write_fd, stood), make=ready.way)
    while True:
        time.sleep(sending.turn())


def _say(write_fd: int, stood: Stood) -> None:
    os.write(write_fd, encode(stood))
