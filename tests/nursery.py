"""Parts that are born of a process which has loaded already what such a part loads before its filter is on.

A part is a process of its own as ever, and puts its real filter on itself; it is only not a fresh interpreter, which
needs ten times as long to load its modules as most tests take with it. What is loaded here is what every start loads,
and no more: the part's module, its records, and what its profile says must be loaded (`preload`). So an import that
comes too late is still one (harness.WATCH).

Run as a program, by its path and with `-I`, this is the process that bears them: `nursery.py SOCKET KIND PART FIRST`,
where FIRST is code of a test's own that comes before all. It gets a request and descriptors, forks, tells the process
id, and writes how the child ended into the pipe that came along.

Not here: the gate, which starts its parts as programs (enforce.launcher).
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

MOST = 8
"""Of them that one session has at a time; the oldest goes."""
_WORDS = 1 << 18
"""Bytes of a request."""
_DESCRIPTORS = 200
_STARTS = "-m", "cofferdam.brokers.half"

used = 0.0
"""Seconds of processor time of those that were born and have ended, and of their children."""
_turn = threading.RLock()
"""Whoever bears, or takes an end: tests with several gates do so in several threads."""


# --- in the tests ----------------------------------------------------------------------------------------------------


class Born:
    """A process that was born there; as much of subprocess.Popen as parts need."""

    def __init__(self, arguments: Sequence[str], pid: int, ended: int) -> None:
        self.args = list(arguments)
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises: subprocess.TimeoutExpired."""
        code = self._look(None if timeout is None else int(timeout * 1000))
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def _look(self, milliseconds: int | None) -> int | None:
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._ended, select.POLLIN)
            if poll.poll(milliseconds):
                with _turn:
                    self._take()
        return self.returncode

    def _take(self) -> None:
        global used
        if self.returncode is None:
            said = os.read(self._ended, 64).split()
            os.close(self._ended)
            assert said, "the process that bore it has ended"
            self.returncode, used = int(said[0]), used + float(said[1])

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __del__(self) -> None:
        if self.returncode is None:
            with contextlib.suppress(OSError):
                os.close(self._ended)


class _Nursery:
    def __init__(self, kind: str, part: str, first: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-I", __file__, str(theirs.fileno()), kind, part, first]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

        self.born: weakref.WeakSet[Born] = weakref.WeakSet()

    def bear(self, request: dict[str, Any], fds: Sequence[int]) -> int:
        socket.send_fds(self._socket, [json.dumps(request).encode()], list(fds))
        said = self._socket.recv(64)
        assert said, "the process that bears parts has ended"
        return int(said)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_there: dict[tuple[str, str, str], _Nursery] = {}


def bear(
    build: Sequence[str],
    arguments: Sequence[str],
    fds: Sequence[int],
    stderr: int,
    environment: Mapping[str, str] = os.environ,
) -> Born | None:
    """A part started by `build` (after `python -I`) with these arguments and descriptors, which keep their numbers.
    Code (`-c`) may be in two pieces, of which the second is what comes first. None where that cannot be forked: a
    compiled build, or what has to be there before Python is."""
    if (build[0] != "-c" and tuple(build) != _STARTS) or "LD_PRELOAD" in environment:
        return None
    words = dict(zip(arguments[::2], arguments[1::2], strict=False))
    first = "".join(build[2:])
    key = (words["--kind"], words["--part"], "") if not first else ("", "", first)
    request = {
        "code": build[1] if build[0] == "-c" else "", "argv": list(arguments), "numbers": list(fds),
        "environment": dict(environment), "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }  # fmt: skip
    with _turn:
        nursery = _there.pop(key, None) or _Nursery(*key)
        _there[key] = nursery  # the newest comes last
        idle = [key for key, one in _there.items() if all(child.poll() is not None for child in one.born)]
        for old in idle[: max(0, len(_there) - MOST)]:
            if old != key:
                _there.pop(old).close()
        ended, tells = os.pipe2(os.O_CLOEXEC)
        try:
            pid = nursery.bear(request, [tells, 1, stderr, *fds])
        finally:
            os.close(tells)
        nursery.born.add(found := Born([*build, *arguments], pid, ended))
        return found


@atexit.register
def _close_all() -> None:
    for nursery in _there.values():
        nursery.close()


# --- the program -----------------------------------------------------------------------------------------------------


def _load(kind: str, part: str, first: str) -> None:
    from cofferdam.brokers import half  # noqa: F401
    from cofferdam.brokers.registry import BROKERS, named

    if first:
        exec(compile(first, "<string>", "exec"), {"__name__": "__main__"})
    broker = BROKERS.get(kind)
    if broker is None or part not in broker.make:
        return  # a test's own
    named(broker.make[part])
    for ends, place in broker.records.items():
        if part in ends:
            named(place)
    for module in broker.crew.parts[part].preload:
        __import__(module)


def _serve(asked: socket.socket) -> tuple[str, list[str]] | None:
    """Bears children for as long as somebody asks; in a child, what it is to run. None at the end."""
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    told: dict[int, int] = {}
    poll = select.poll()
    for fd in (asked.fileno(), wake_read):
        poll.register(fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if wake_read in ready:
            os.read(wake_read, 512)
        while told:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            fd = told.pop(pid)
            with contextlib.suppress(OSError):  # nobody waits for it any more
                os.write(fd, f"{os.waitstatus_to_exitcode(status)} {usage.ru_utime + usage.ru_stime}".encode())
            os.close(fd)
        if asked.fileno() not in ready:
            continue
        words, packed, _, _ = asked.recvmsg(_WORDS, socket.CMSG_SPACE(4 * _DESCRIPTORS))
        if not words:
            return None
        fds = array.array("i")
        for _, _, data in packed:
            fds.frombytes(data)
        request = json.loads(words)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            asked.detach()
            _become(request, list(fds[1:]))
            return request["code"], request["argv"]
        told[pid] = fds[0]
        for fd in fds[1:]:
            os.close(fd)
        asked.send(str(pid).encode())


def _become(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """The child's descriptors are standard output and error, and those that were given, at their numbers."""
    targets = [1, 2, *request["numbers"]]
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(request["files"]))
    above = max(targets) + 1
    import fcntl

    copies = [fcntl.fcntl(fd, fcntl.F_DUPFD, max(above, 3 + len(fds))) for fd in fds]
    for target, copy in zip(targets, copies, strict=True):
        os.dup2(copy, target)
    kept = sorted({0, *targets})
    for low, high in zip(kept, [*kept[1:], resource.getrlimit(resource.RLIMIT_NOFILE)[1]], strict=True):
        os.closerange(low + 1, high)
    os.environ.clear()
    os.environ.update(request["environment"])


def _bear_until_the_end() -> None:
    asked = socket.socket(fileno=int(sys.argv[1]))
    _load(*sys.argv[2:])
    gc.collect()
    gc.freeze()
    born = _serve(asked)
    if born is None:
        return
    code, sys.argv[1:] = born
    if code:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        return
    from cofferdam.brokers import half

    sys.exit(half.main())


if __name__ == "__main__":
    _bear_until_the_end()
