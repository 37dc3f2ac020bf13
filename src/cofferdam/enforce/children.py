"""The launcher's children: how one becomes its program, which there are, and how all of them end.

Each is a fork that gets its descriptors, its place and its narrow rights (isolation) before it runs anything; one that
cannot have them ends. Not here: what an order starts and with what (launcher), pipes to the auditor (producers).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cofferdam.enforce.forked import place_descriptors
from cofferdam.enforce.isolation import Berth, Isolation
from cofferdam.enforce.messages import Messages
from cofferdam.enforce.orders import GATE_CHILD, Child
from cofferdam.enforce.producers import Producer
from cofferdam.enforce.profile import Profile

REAP_SECONDS = 5.0
"""How long the launcher waits for children that it has killed."""
LOG_SECONDS = 3.0
"""How long the auditor may take to write down what those that have ended had said."""


@dataclass
class Process:
    """A child. `profile`: None for a program that is not ours. `held`: a lock for as long as it lives."""

    pid: int
    profile: Profile | None
    producer: Producer | None = None
    held: int = -1
    side: str = ""
    """Where it stands, if on a side."""


class Children:
    """Those that live, by the numbers that the gate knows them by."""

    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self._messages: Messages | None = None
        self._next = GATE_CHILD
        self.by_number: dict[int, Process] = {}

    def begin(self) -> None:
        """Before the first of them: what they say is handed on from now on."""
        self._messages = Messages()

    def start(
        self, part: str, berth: Berth, arguments: Sequence[str], environment: Mapping[str, str], fds: Sequence[int],
        producer: Producer | None,
    ) -> Child:  # fmt: skip
        """Starts a Python of ours, isolated from the environment (-I), with `fds` from FIRST_FD on.

        It writes no bytecode (-B): what a child with its narrow umask left beside the source, parts of other users
        could not read, and would compile those modules at each of their starts.
        """
        command = [sys.executable, "-I", "-B", *arguments]
        words = -1
        if self._messages is not None and berth.profile.confined:
            words = self._messages.pipe(arguments[arguments.index("--name") + 1] if "--name" in arguments else part)
        sys.stderr.flush()
        try:
            with self._isolation.forking(berth.profile):
                pid = os.fork()
                if pid == 0:
                    self._become(part, berth, command, environment, fds, words)
        finally:
            if words >= 0:
                os.close(words)
        return self.register(part, pid, berth.profile, producer)

    def register(self, part: str, pid: int, profile: Profile | None, producer: Producer | None = None) -> Child:
        """Takes note of one that lives."""
        number, self._next = self._next, self._next + 1
        self.by_number[number] = Process(pid, profile, producer)
        return Child(number, part, pid)

    def _become(
        self, part: str, berth: Berth, command: list[str], environment: Mapping[str, str], fds: Sequence[int],
        words: int,
    ) -> None:  # fmt: skip
        """A fresh fork becomes the child's program. Nothing returns from here."""
        try:
            if words >= 0:
                os.dup2(words, 2)
            place_descriptors(list(fds))
            berth.lift()
            self._isolation.child_setup(berth)
            os.execve(sys.executable, command, environment)  # noqa: S606 - our own interpreter, no shell
        except BaseException as error:
            os.write(2, f"cofferdam: cannot start the {part} process: {error}\n".encode())
        finally:
            os._exit(127)

    def gone(self, pid: int) -> tuple[int, Process] | None:
        """One has ended, and was reaped. None: it was none of these."""
        number = next((number for number, process in self.by_number.items() if process.pid == pid), None)
        if number is None:
            return None
        process = self.by_number.pop(number)
        if process.held >= 0:
            os.close(process.held)
        return number, process

    def kill(self, which: Callable[[Process], bool]) -> None:
        """Ends all that are so; they are reaped like others."""
        for process in self.by_number.values():
            if which(process):
                os.kill(process.pid, signal.SIGKILL)

    def end_all(self, said: Callable[[], None]) -> None:
        """The auditor last of all, and by itself: what the others have said is written before that. `said`: called
        when nobody is left who says anything."""
        auditors = [one for one in self.by_number.values() if _audits(one)]
        self.kill(lambda one: not _audits(one))
        _reap([one for one in self.by_number.values() if not _audits(one)], REAP_SECONDS)
        said()
        for process in _reap(auditors, LOG_SECONDS):
            os.kill(process.pid, signal.SIGKILL)
            _reap([process], REAP_SECONDS)
        for process in self.by_number.values():
            if process.held >= 0:
                os.close(process.held)
        self.by_number.clear()

    def close(self) -> None:
        """Nothing is handed on any more."""
        if self._messages is not None:
            self._messages.close()


def _audits(process: Process) -> bool:
    return process.profile is not None and bool(process.profile.producers)


def _reap(ended: Sequence[Process], seconds: float) -> list[Process]:
    """Waits for processes to have ended. Those that have not in so many seconds."""
    left = list(ended)
    deadline = time.monotonic() + seconds
    while left := [one for one in left if os.waitpid(one.pid, os.WNOHANG)[0] == 0]:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.005)
    return left
