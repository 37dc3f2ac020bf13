"""Separation without network namespaces, where root starts the gate: what root can take from its children all the same.
Each is born as it would be with namespaces (housed), but that it shares the host's network.

Where only root may enter the policy's folder or read the policy, the gate sees the host's files, but for the log's key,
and keeps the right to read them (CAP_DAC_READ_SEARCH), so that it can read what it is given; it can write no more for
that. `status` says so, and what to do.

Not here: the network (namespaces), system-call filters (sandbox).
"""

from __future__ import annotations

from pathlib import Path

from cofferdam.enforce import journal, kernel
from cofferdam.enforce.crews import GATE
from cofferdam.enforce.fence import NoFence
from cofferdam.enforce.housed import HousedIsolation
from cofferdam.enforce.isolation import Berth, PlainIsolation
from cofferdam.enforce.orders import Fact
from cofferdam.enforce.plans.records import Hosted, NetworkPlan
from cofferdam.enforce.users import Users

READING = ("dac_read_search",)
SWITCHES = Path("/proc/sys/net")
"""There the gate sees whether the host forwards, and what else its network is set to: no more than anybody sees."""


class RootIsolation(HousedIsolation, PlainIsolation):
    """For a launcher that has the capabilities of users.NEEDED, and makes no network."""

    def __init__(self, state: Path, policy: Path, users: Users, missing: tuple[str, str] | None = None) -> None:
        PlainIsolation.__init__(self, *(() if missing is None else (missing,)))
        self.kernel_log.close()
        HousedIsolation.__init__(self, state, policy, users)
        self._reads_all = False
        """The gate keeps the right to read."""

    def begin(self) -> None:
        self._reads_all = not self._is_open() and not kernel.missing_capabilities(READING)
        if not self._reads_all:
            self._check_policy()
        super().begin()

    def prepare(self, plan: NetworkPlan) -> None:
        PlainIsolation.prepare(self, plan)
        try:
            self._hold(plan.hosted)
        except NoFence as error:
            if self._fence.held:
                raise
            self._unfenced = str(error)  # this separation is what can be had, and says what it lacks
        else:
            self._unfenced = ""

    def _in_hosts_network(self, hosted: tuple[Hosted, ...]) -> range:
        return self._users.parts  # all of them do

    def _is_open(self) -> bool:
        """Whether the gate's user may read the policy, and what stands beside it, and sees what is put there."""
        policy = self._policy
        needed = 0o005 if policy.is_dir() else 0o004
        mode = policy.stat().st_mode
        return mode & needed == needed and (policy.is_dir() or policy.parent.stat().st_mode & 0o001 != 0)

    def _kept(self, berth: Berth) -> tuple[str, ...]:
        return READING if berth.profile is GATE and self._reads_all else ()

    def _enter_files(self, berth: Berth) -> None:
        if berth.profile is not GATE or not self._reads_all:
            super()._enter_files(berth)
            return
        kernel.mount("", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
        hard = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_RDONLY
        kernel.mount("tmpfs", str(self._state / "keys"), "tmpfs", hard, "mode=0,size=4k")

    def _files(self, berth: Berth) -> tuple[list[Path], list[Path]]:
        reads, writes = super()._files(berth)
        return ([*reads, SWITCHES] if berth.profile is GATE else reads), writes

    def undo(self) -> None:
        super().undo()
        for folder in (journal.folder(self._state) / "root", journal.folder(self._state)):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def describe(self) -> tuple[Fact, ...]:
        users = self._users
        sees, may = "a part sees Python and our code, read-only, and its own files, if it has any", ""
        if self._reads_all:
            where = self._policy if self._policy.is_dir() else self._policy.parent
            sees += "; the gate sees the host's files, but for the log's key"
            may = f", but that the gate may read what others own: let others read {where}, and it need not"
        own = {
            "mount namespaces": (True, sees),
            "process namespaces": (True, "a part sees no other process"),
            "own users": (True, f"user ids {users.first} to {users.last}, without capabilities{may}"),
        }
        facts = [(name, *own.pop(name, (in_force, sentence))) for name, in_force, sentence in super().describe()]
        return (*facts, *((name, *fact) for name, fact in own.items()))
