"""A proof as a list of statements, each with how it is known, when it was established, and on what evidence.

Not here: how statements are established, how they are shown (render).
"""

from __future__ import annotations

import time
from typing import Literal

import msgspec

Status = Literal["proved", "tested", "observed", "assumed", "failed"]
STATUSES: dict[str, str] = {
    "proved": "holds for every packet: the solver found none that breaks it",
    "tested": "was tried, with a positive control where something had to be absent",
    "observed": "was read from the kernel at that moment",
    "assumed": "is not established here; the statement says what it rests on",
    "failed": "does not hold, or could not be established",
}
PARTS = {
    "structure": "What the kernel says of namespaces and processes",
    "solver": "What the rules in force let through",
    "canaries": "Frames sent on the IT wire and listened for on the OT wire",
    "one-way": "The strand's end on this machine: out, and nothing back",
    "probes": "Forbidden system calls, tried inside each sandbox",
    "sabotage": "With forwarding on and the rules gone",
    "leaks": "Ways around the gate",
    "limits": "What this proof rests on",
}


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`name` is stable; `says` is the statement in a sentence; `time_ns` is UTC, ns since 1970."""

    part: str
    name: str
    status: Status
    says: str
    evidence: tuple[str, ...] = ()
    time_ns: int = 0


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole proof. `ok` if no statement failed. `policy` is the hash of the policy in force."""

    site: str
    host: str
    version: str
    policy: str
    separation: str
    started_ns: int
    finished_ns: int
    ok: bool
    counts: dict[str, int]
    statements: tuple[Statement, ...]


class Statements:
    """Collects statements as they are established."""

    def __init__(self) -> None:
        self.found: list[Statement] = []

    def say(self, part: str, name: str, status: Status, says: str, evidence: list[str] | tuple[str, ...] = ()) -> None:
        self.found.append(Statement(part, name, status, says, tuple(evidence), time.time_ns()))

    def check(
        self, part: str, name: str, says: str, wrong: list[str], evidence: list[str] | tuple[str, ...] = (),
        *, status: Status = "observed",
    ) -> None:  # fmt: skip
        """`status` if nothing is wrong, else failed, with what is wrong as the evidence."""
        self.say(part, name, "failed" if wrong else status, says, wrong or evidence)

    def counts(self) -> dict[str, int]:
        return {status: sum(1 for s in self.found if s.status == status) for status in STATUSES}
