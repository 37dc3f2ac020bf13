"""What checks look at, gathered by whoever calls them. Nothing here does any I/O.

What was not gathered is None, and a check that needs it says that it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cofferdam.evidence.baseline import Difference
from cofferdam.evidence.history import Happening, History
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy
from cofferdam.proof.statements import Report

FUTURE_NS = 300 * 1_000_000_000
"""A time that is further ahead than this of one's own clock is of a clock that was wrong."""


class Unknown(Exception):
    """A check can say nothing: what it looks at is not there. The reason is for people."""


class Gone(Unknown):
    """It can say nothing since the policy in force has nothing of the kind. What was found of it is over."""


@dataclass(frozen=True)
class Proven:
    """A proof's report. `why`: why it is not taken as evidence ("" if it is)."""

    report: Report
    why: str = ""


@dataclass(frozen=True)
class Verified:
    """What a verification of the whole log found."""

    entries: int
    findings: tuple[str, ...]


@dataclass
class Recorded:
    """What came of comparing recordings with the log. `unknown`: older than the log, or so new that it has not signed
    anything of them; `left`: not looked at within the time there was."""

    count: int = 0
    unknown: int = 0
    left: int = 0
    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Disk:
    """Room where the log lies, in bytes, and how fast the log grows, in bytes a day (0: not known yet). `more`: how
    much it takes yet before the oldest entries go (`at_most`), None where the disk is its only bound."""

    free: int
    total: int
    per_day: int
    more: int | None = None


@dataclass(frozen=True)
class TimeDaemon:
    """What the kernel says of its clock: `synchronised`, and the largest error that it admits, in seconds."""

    synchronised: bool
    error_seconds: float


@dataclass(frozen=True)
class Software:
    """The installed files against their release's record. `wrong`: changed, missing, of nobody."""

    files: int
    wrong: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Drift:
    """The baseline now, the one that was approved, and what is different. `approved`: its hash, "" if none is; `why`:
    why the last approval does not count, ""."""

    now: str
    approved: str
    by: str
    differences: tuple[Difference, ...]
    why: str = ""


@dataclass(frozen=True)
class Inputs:
    """Everything that a check may look at."""

    now_ns: int
    status: Mapping[str, Any] | None = None
    policy: CompiledPolicy | None = None
    warnings: tuple[Problem, ...] | None = None
    proven: Proven | None = None
    history: History | None = None
    verified: Verified | None = None
    recorded: Recorded | None = None
    disk: Disk | None = None
    time_daemon: TimeDaemon | None = None
    software: Software | None = None
    drift: Drift | None = None
    components: int | None = None
    """Entries of the bill of materials."""
    stood: Sequence[Happening] | None = None
    """How exports and witnesses stand, as the gate itself was told; without it the log says."""

    def the_status(self) -> Mapping[str, Any]:
        if self.status is None:
            raise Unknown("the gate does not run, or was not asked")
        return self.status

    def the_policy(self) -> CompiledPolicy:
        if self.policy is None:
            raise Unknown("the policy in force was not read")
        return self.policy

    def the_history(self) -> History:
        if self.history is None:
            raise Unknown("the log was not read")
        return self.history

    def how_it_stood(self) -> Sequence[Happening]:
        """How exports and witnesses stood, the last of each last."""
        return self.stood if self.stood is not None else self.the_history().of("export-stood")

    def the_report(self) -> Report:
        if self.proven is None:
            raise Unknown("no report of a proof is kept: `cofferdam prove` makes one")
        if self.proven.why:
            raise Unknown(f"the report of the proof is not taken: {self.proven.why}")
        return self.proven.report
