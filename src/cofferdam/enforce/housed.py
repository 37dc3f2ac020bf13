"""What every process of a gate gets that root starts, whatever its network is: a user, files and limits of its own.

    process    files it can write          sees besides Python
    part       its store, if it has one    what is bound for it
    gate       the state folder's top      the policy's folder
    auditor    audit/, keys/, archive/     nothing
    launcher   all: it makes the others

Not here: networks (namespaces, rooted), system-call filters, which a part puts on itself (sandbox).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from cofferdam.enforce import fence, journal, kernel, sites, stores, view
from cofferdam.enforce.crews import GATE
from cofferdam.enforce.isolation import Berth, Isolation
from cofferdam.enforce.kernel_log import KernelLog
from cofferdam.enforce.orders import DROPPED, FENCE, DroppedCounter, DroppedState, Fact
from cofferdam.enforce.plans.fence import SPACE
from cofferdam.enforce.plans.records import Hosted
from cofferdam.enforce.profile import Profile
from cofferdam.enforce.users import Allotted, Users
from cofferdam.errors import GateError
from cofferdam.owned import SPARES

PEER_FILES = ("peers.json", "peers.json.new", "wireguard.key", "wireguard.key.new")
"""What the gate keeps of the overlay in the state folder."""

GATE_FILES = ("severed.json", "hands.json", "expired.json", "anchor.json", "failed-checks.json", "night.json")
"""What else it keeps there: written anew as NAME.new each time."""


class HousedIsolation(Isolation):
    """For one gate. Needs the capabilities in users.NEEDED."""

    def __init__(self, state: Path, policy: Path, users: Users) -> None:
        self.kernel_log = KernelLog()
        self._state = state
        self._policy = policy
        self._users = users
        self._launcher = os.getpid()
        self._python = view.find_python()
        self._home_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._allotted = Allotted(self._users, journal.folder(state), lambda name: stores.owners(state, name))
        self._fence = fence.Fence(state)
        self._unfenced = ""  # why no fence can be had
        self._folders: list[Path] = []  # made by `begin`; taken away again if no plan comes into force

    # --- state --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Hands out the state folder: its top is the gate's to write (but not to remove others' files from), the log
        and its key are the auditor's."""
        fence.remove(self._state)  # that of a gate that was killed
        try:
            self._hand_out()
        except OSError as error:
            raise GateError(
                f"cannot hand out the state directory {self._state} to the gate's users: {error.strerror or error}",
                hint="give one with --state on a local file system",
            ) from None

    def _check_policy(self) -> None:
        """The gate reads the policy as its own user. Raises: GateError."""
        needed = 0o005 if self._policy.is_dir() else 0o004
        found = self._policy.stat()
        if found.st_uid != self._users.gate and found.st_mode & needed != needed:
            raise GateError(
                f"the gate's user ({self._users.gate}) may not read the policy {self._policy}",
                hint=f"chmod o+{'rX' if needed == 0o005 else 'r'} {self._policy} (a policy holds no secrets), "
                f"or chown it to {self._users.gate}",
            )

    def _hand_out(self) -> None:
        self._folders += [path for path in (journal.folder(self._state),) if not path.exists()]
        journal.prepare_folder(self._state)
        self._make_folder(journal.folder(self._state) / "root", 0o700)
        os.chown(self._state, 0, self._users.gate)
        self._state.chmod(0o1770)
        (self._state / "gate.sock").unlink(missing_ok=True)
        for name in (*(f"{kept}{end}" for kept in GATE_FILES for end in ("", ".new")), *SPARES, *PEER_FILES):
            with contextlib.suppress(FileNotFoundError):
                os.chown(self._state / name, self._users.gate, self._users.gate, follow_symlinks=False)
        handed = self._state / "secrets"  # the gate reads them, and tells each to the one part that it is for
        if handed.is_dir() and not handed.is_symlink():
            stores.give(handed, self._users.gate, whole=True)
        for name, mode in (("audit", 0o750), ("keys", 0o700), ("archive", 0o750)):
            folder = self._state / name
            self._make_folder(folder, mode)
            stores.give(folder, self._users.auditor)

    def _make_folder(self, path: Path, mode: int) -> None:
        if not path.exists():
            path.mkdir(mode=mode)
            self._folders.append(path)

    def undo(self) -> None:
        """A start that failed leaves no empty folders. One that holds something by now (a log) stays."""
        self._fence.take_away()
        for path in reversed(self._folders):
            with contextlib.suppress(OSError):
                path.rmdir()
        self._folders.clear()

    # --- parts in the host's network ------------------------------------------------------------------------------

    def _hold(self, hosted: tuple[Hosted, ...]) -> None:
        """They reach what is theirs from now on, and nothing else. Raises: GateError; then all is as it was."""
        users = {one.who: self.user(one.who) for one in hosted}
        self._fence.put(hosted, users, self._in_hosts_network(hosted))

    def _in_hosts_network(self, hosted: tuple[Hosted, ...]) -> range:
        """Users of ours that may stand there."""
        return self._users.parts if hosted else range(0)

    def admit(self, who: str) -> None:
        if not self._unfenced and not (self._fence.stands and who in self._fence.held):
            raise GateError(
                f"{who} is to stand in the host's network, and no fence holds it to what it is for",
                hint="`nft list table inet " + self._fence.name + "` shows the fence; the launcher puts it back by "
                "itself as soon as it can",
            )

    def look_at_fence(self) -> fence.Looked | None:
        return self._fence.look()

    def dropped(self, serial: int) -> DroppedState:
        refused = self._fence.refused()
        return DroppedState(
            serial, tuple(DroppedCounter(SPACE, f"{DROPPED}{who}", count) for who, count in refused.items())
        )

    def _fence_facts(self) -> tuple[Fact, ...]:
        """Of the fence around parts in the host's network, where there are any."""
        if self._unfenced:
            what = "an export or a witness that is taken over reaches all that this host reaches"
            return ((FENCE, False, f"there is none ({self._unfenced}): {what}"),)
        if not self._fence.held:
            return ()
        what = f"exports and the witness reach their own collectors, and nothing else (table inet {self._fence.name})"
        return ((FENCE, self._fence.stands, what),)

    # --- processes ----------------------------------------------------------------------------------------------------

    def user(self, name: str) -> int:
        own = {"gate": self._users.gate, "auditor/auditor": self._users.auditor}
        return own[name] if name in own else self._allotted.of(name)

    def group(self, name: str) -> int:
        return self.user(name)

    @contextlib.contextmanager
    def forking(self, profile: Profile) -> Iterator[None]:
        """A part is born as the first process of a process namespace of its own: it sees and can signal no other."""
        if not profile.confined:
            yield
            return
        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            yield
        finally:
            if os.getpid() == self._launcher:
                kernel.setns(self._home_pids, kernel.CLONE_NEWPID)

    def child_setup(self, berth: Berth) -> None:
        self.stand(berth)
        berth.limit()

    def stand(self, berth: Berth) -> None:
        """Takes the part's place as its user, without its limits yet: one that stands there may have children."""
        profile = berth.profile
        if profile.root:
            self._stand_beside()
            return
        kinds = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC
        self._take_place(berth)
        if profile.stands == "apart":
            kinds |= kernel.CLONE_NEWNET  # an empty one: it has nobody to talk to
        if profile.confined:
            kinds |= kernel.CLONE_NEWUTS
        kernel.unshare(kinds)
        if profile.confined:
            socket.sethostname("part")
        os.umask(0o022)
        groups = {*berth.reads.values(), *map(sites.group, berth.folders.values())}
        self._enter_files(berth)
        kernel.become(berth.user, groups, self._kept(berth))
        # The kernel forgets this at a change of user. A launcher that ended before it is noticed by the control pipe.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if not profile.confined and os.getppid() != self._launcher:
            raise OSError(errno.ESRCH, "the launcher ended while this child started")

    def _stand_beside(self) -> None:
        """It stays where the launcher is, and ends with it."""
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._launcher:
            raise OSError(errno.ESRCH, "the launcher ended while this child started")

    def _take_place(self, berth: Berth) -> None:
        """The calling process, still with its privilege, enters the network that it is to be in, if it has one."""

    def _kept(self, berth: Berth) -> tuple[str, ...]:
        """The capabilities that it keeps: none."""
        return ()

    def _enter_files(self, berth: Berth) -> None:
        """The calling process, in a mount namespace of its own, sees its files and no others from now on."""
        view.enter(journal.folder(self._state) / "root", self._python, *self._files(berth))

    @property
    def probe_user(self) -> int:
        """A user that no part is."""
        return self._users.probe

    def become_probe(self) -> None:
        """The calling process becomes a user that no part is, without a place. For a probe."""
        kernel.become(self.probe_user)

    def _files(self, berth: Berth) -> tuple[list[Path], list[Path]]:
        """(reads, writes) besides Python."""
        if berth.profile is GATE:
            return [self._policy_place(), Path("/etc/passwd")], [self._state]
        own = [self._state / name for name in berth.profile.writes]
        return [*berth.reads, *berth.sockets], [*own, *berth.writes]

    def _policy_place(self) -> Path:
        """What of the policy the gate sees: its folder rather than the file, since editors replace a file by another.
        Where others may not enter the folder, the file alone; a new one in its place is then seen at the next start."""
        policy, parent = self._policy, self._policy.parent
        if policy.is_dir() or parent == Path("/") or not parent.stat().st_mode & 0o001:
            return policy
        return parent
