"""Separation without network namespaces, where root starts the gate: what root can take from its children all the same.

    process                          user        files it sees               capabilities
    part without files of its own    of its own  Python and our own code     none
    other part, auditor              root        the host's                  reading what others own
    gate                             root        the host's                  that, and ports below 1024

A part without files of its own (the halves of every proxy) is born as it would be with namespaces, but that it shares
the host's network: in a mount namespace, as the first process of a process namespace, as a user that nothing belongs
to. The others keep root's user, since what they work with is root's: the policy, the state, the site's folders.

Not here: the network (namespaces), system-call filters (sandbox).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from cofferdam.enforce import journal, kernel, view
from cofferdam.enforce.crews import GATE
from cofferdam.enforce.isolation import Berth, PlainIsolation
from cofferdam.enforce.orders import Fact
from cofferdam.enforce.profile import Can, Profile
from cofferdam.enforce.users import Users

KEPT = ("dac_read_search",)
KEPT_BY_GATE = ("dac_read_search", "net_bind_service")
"""Capabilities of those who stay root: the state or the policy may lie in somebody's own folder."""


class RootIsolation(PlainIsolation):
    """For a launcher that has the capabilities of users.NEEDED, and makes no network."""

    def __init__(self, state: Path, users: Users, missing: tuple[str, str] | None = None) -> None:
        super().__init__(*(() if missing is None else (missing,)))
        self._state = state
        self._users = users
        self._born = 0
        self._python = view.find_python()
        self._home_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def begin(self) -> None:
        (journal.prepare_folder(self._state) / "root").mkdir(mode=0o700, exist_ok=True)

    @contextlib.contextmanager
    def forking(self, profile: Profile) -> Iterator[None]:
        if not _without_files(profile):
            yield
            return
        self._born += 1
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            yield
        finally:
            if os.getpid() == self._launcher:
                kernel.setns(self._home_pids, kernel.CLONE_NEWPID)

    def child_setup(self, berth: Berth) -> None:
        profile = berth.profile
        if not _without_files(profile):
            kept = [name for name in (KEPT_BY_GATE if profile is GATE else KEPT) if name in kernel.CAPABILITIES]
            lacking = kernel.missing_capabilities(kept)
            kernel.drop_bounding_set(name for name in kept if name not in lacking)
            super().child_setup(berth)
            return
        os.setsid()
        kinds = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
        if profile.stands == "apart":
            kinds |= kernel.CLONE_NEWNET  # an empty one: it has nobody to talk to
        kernel.unshare(kinds)
        socket.sethostname("part")
        os.umask(0o022)
        view.enter(journal.folder(self._state) / "root", self._python)
        kernel.become(self._user())
        # The kernel forgets this at a change of user. A launcher that ended before it is noticed by the control pipe.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        berth.limit()

    def _user(self) -> int:
        """Another one for each birth, until all have had their turn: nothing belongs to any of them."""
        return self._users.parts[self._born % len(self._users.parts)]

    def undo(self) -> None:
        with contextlib.suppress(OSError):
            (journal.folder(self._state) / "root").rmdir()
            journal.folder(self._state).rmdir()

    def describe(self) -> tuple[Fact, ...]:
        users = self._users.parts
        seen = "a part without files of its own (each half of a proxy)"
        own = {
            "mount namespaces": (True, f"{seen} sees Python and our code, read-only; others see the host's files"),
            "own users": (
                False,
                f"{seen} runs as one of the users {users[0]} to {users[-1]}, without capabilities; the gate, the "
                "auditor and parts with files run as root, without most capabilities",
            ),
        }
        return tuple((name, *own.get(name, (in_force, sentence))) for name, in_force, sentence in super().describe())


def _without_files(profile: Profile) -> bool:
    """Whether a part needs nothing of the file system but to start."""
    files = profile.store or profile.folders or profile.reads or profile.writes or profile.sockets or profile.wires
    return profile.confined and not files and not profile.can & Can.READ
