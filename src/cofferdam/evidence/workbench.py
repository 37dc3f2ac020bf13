"""One look at a gate's evidence: the log, the running gate's status if there is one, the catalogue; and what follows.

A console works with this, and so do the verbs. Not here: asking the gate, printing.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cofferdam import __version__
from cofferdam.audit.files import LogReader
from cofferdam.audit.show import moment
from cofferdam.enforce.orders import FENCE
from cofferdam.errors import CofferdamError
from cofferdam.evidence import drifting, gather, reports
from cofferdam.evidence.attest import verified
from cofferdam.evidence.backing import Backing
from cofferdam.evidence.catalogue import catalogue, with_own
from cofferdam.evidence.checks.logs import goes_elsewhere
from cofferdam.evidence.checks.tables import run_checks
from cofferdam.evidence.clocks import Due, dues
from cofferdam.evidence.history import Attestation, Happening, History
from cofferdam.evidence.inputs import Inputs
from cofferdam.evidence.model import EXPORT, Catalogue, Finding, Framework, Missing, spoken
from cofferdam.evidence.standing import Standing, standing


@dataclass
class Bench:
    """What is known now. `attestations`: with a word on each whose signature is not good."""

    state: Path
    status: Mapping[str, Any] | None
    reader: LogReader
    history: History
    attestations: tuple[Attestation, ...]
    wall_ns: int
    catalogue: Catalogue = field(default_factory=catalogue)

    @classmethod
    def read(cls, state: Path, status: Mapping[str, Any] | None) -> Bench:
        """Reads the log. Raises: AuditError."""
        reader, history = gather.history(state)
        history.attestations = list(verified(history))
        return cls(state, status, reader, history, tuple(history.attestations), time.time_ns())

    def lately(self) -> tuple[str, ...]:
        """When the gate was proved last, when its nightly work was over, and what came of it: a sentence each."""
        proofs, nights = self.history.of("proof-done"), self.history.of("night-done")
        found = ["no proof is in the log: sudo cofferdam prove"]
        if proofs:
            what, why = proofs[-1].event.get("result"), self.backing.signed(proofs[-1])
            found = [f"last proof: {what}, {self._ago(proofs[-1].at_ns)}, entry {proofs[-1].index}"]
            if why:
                found.append(f"  that is the gate's word alone ({why}); `--leaks` and `--diode` keep no report")
        if unknown := self._unrecorded(proofs):
            found.append(f"a proof's report is kept of which the log knows nothing: cofferdam prove --verify {unknown}")
        if names := self.standing().unknown:
            found.append(f"the log has {reports.unknown(names)}")
        if nights:
            event = nights[-1].event
            words = "; ".join(map(str, (*event.get("failed", ()), *event.get("done", ()))))
            found.append(f"last nightly work: {words}; over {self._ago(nights[-1].at_ns)}, entry {nights[-1].index}")
        return tuple(found)

    def _unrecorded(self, proofs: Sequence[Happening]) -> Path | None:
        """The newest report, if no entry names it: root keeps one after the gate has said that it recorded it."""
        try:
            folder = gather.folder(self.state, gather.PROOFS)
            kept = {one.stat().st_mtime_ns: one for one in folder.glob("*.json")}
        except (CofferdamError, OSError):
            return None
        said, at = {str(one.event.get("report")) for one in proofs}, max(kept, default=0)
        # The log no longer has the entries of what is older than itself.
        return kept[at] if at > self.history.first_ns and kept[at].stem not in said else None

    def _ago(self, at_ns: int) -> str:
        return f"{reports.when(at_ns)} ({spoken(max(0, self.wall_ns - at_ns) // 10**9)} ago)"

    @classmethod
    def under_checkpoint(cls, state: Path) -> Bench:
        """The log as its last checkpoint has it, at the moment of its last entry. Raises: AuditError."""
        size = LogReader(state / "audit", gather.log_key(state)).checkpoint().size
        reader, history = gather.history(state, size)
        history.attestations = list(verified(history))
        return cls(state, None, reader, history, tuple(history.attestations), history.last_ns)

    @property
    def policy(self) -> str:
        """The hash of the policy in force, by the gate or else by the log; "" if neither says."""
        if self.status is not None:
            return str(self.status["policy"]["hash"])
        loaded = self.history.last("policy-loaded")
        return str(loaded.event.get("policy", "")) if loaded is not None else ""

    @property
    def brokers(self) -> frozenset[str] | None:
        """The words of the brokers in use, and whether anything takes the log elsewhere, by the gate or else by the
        log; None where neither knows."""
        if self.status is None:
            brokers, exports = self.history.brokers(), goes_elsewhere(self.history)
        else:
            brokers = frozenset(one["broker"] for one in self.status["conduits"])
            exports = any(one["name"] == FENCE for one in self.status["facts"])
        return brokers | {EXPORT} if brokers is not None and exports else brokers

    def run(
        self, names: Sequence[str], *, verify: bool = True, seconds: float = gather.RECORDINGS_SECONDS
    ) -> tuple[list[Finding], list[Missing]]:  # fmt: skip
        """Runs checks on everything that can be had. `seconds`: how long recordings are read."""
        path = gather.policy_file(self.state, self.status) if self.status is not None else None
        known = gather.inputs(self.state, self.status, path, self.history, verify=verify, seconds=seconds)
        if self.status is not None:
            known = replace(known, drift=drifting.drift(self.state, self.status, self.history, known.software))
        return run_checks(known, names)

    def standing(self) -> Standing:
        """How every check stands now."""
        return standing(
            self.catalogue, self.history, self.attestations, wall_ns=self.wall_ns, policy=self.policy,
            brokers=self.brokers, unbacked=self.backing.why,
            known=Inputs(max(self.wall_ns, self.history.last_ns), status=self.status, history=self.history),
        )  # fmt: skip

    @functools.cached_property
    def backing(self) -> Backing:
        """The reports of proofs, against which what the log says of them is held."""
        return Backing(self.state, self.history, self.reader.key, max(self.wall_ns, self.history.last_ns))

    def then(self, when_ns: int) -> History:
        """What the log had at an earlier time. (What was withdrawn since is withdrawn.)"""
        results = self.history.results
        if max(self.history.forgot.values(), default=0) > when_ns:
            results = gather.history(self.state, self.history.size, when_ns)[1].results
        return replace(
            self.history,
            attestations=[one for one in self.attestations if one.time_ns <= when_ns],
            happened={
                kind: [one for one in found if one.time_ns <= when_ns] for kind, found in self.history.happened.items()
            },
            results={
                key: kept for key, found in results.items()
                if (kept := [one for one in found if one.time_ns <= when_ns])
            },
            last_ns=min(self.history.last_ns, when_ns),
        )  # fmt: skip

    def at(self, when_ns: int) -> Standing:
        """How every check stood at an earlier time, by what the log had then."""
        then = self.then(when_ns)
        loaded = then.last("policy-loaded")
        policy = str(loaded.event.get("policy", "")) if loaded is not None else ""
        return standing(
            self.catalogue, then, then.attestations, wall_ns=when_ns, policy=policy, brokers=self.brokers,
            unbacked=self.backing.why, known=Inputs(when_ns, history=then),
        )  # fmt: skip

    def clocks(self) -> tuple[Due, ...]:
        return dues(self.catalogue, self.history, self.wall_ns)

    def report(self, framework: Framework, *, level: int = 0, since: str | None = None) -> reports.Report:
        """One framework. `since`: a time as a user says it. Raises: AuditError, for one that is none."""
        earlier = self.at(moment(since)) if since else None
        return reports.make(
            self.catalogue, framework, self.standing(), version=__version__, level=level, clocks=self.clocks(),
            earlier=earlier,
        )  # fmt: skip

    def take_own(self, path: Path) -> None:
        """Takes a framework of one's own. Raises: PolicyError."""
        self.catalogue = with_own(self.catalogue, [path])
