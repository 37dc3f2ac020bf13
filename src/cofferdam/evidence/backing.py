"""Whether what the log says of a proof stands in a report that is signed with the log's key.

A result's entry is the gate's own, and whoever has taken the gate over can write any. The report of a proof is made and
signed by root, beside the gate, which has not that key. So what a proof establishes counts with its report alone.

Not here: how a check stands (standing), what a report says of one (checks.proofs).
"""

from __future__ import annotations

from pathlib import Path

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.errors import CofferdamError
from cofferdam.evidence import gather
from cofferdam.evidence.checks.proofs import STATEMENTS, judge
from cofferdam.evidence.history import Happening, History
from cofferdam.evidence.inputs import Proven, Unknown
from cofferdam.evidence.model import STATUSES, Result

NEAREST = 4
"""Proofs that are looked at for one result, those whose time is nearest to its own."""


class Backing:
    """Of one log and the reports beside it. Reads each report once."""

    def __init__(self, state: Path, history: History, key: VerifierKey, now_ns: int) -> None:
        self._state, self._history, self._key, self._now = state, history, key, now_ns
        self._read: dict[tuple[str, str], Proven | str] = {}
        self._found: dict[int, tuple[str, int]] = {}

    def why(self, result: Result) -> str:
        """Why no report says what this result says; "" if one does, or where none is asked for."""
        if result.check not in STATEMENTS or result.outcome == "failed":
            return ""
        if result.index not in self._found:
            self._found[result.index] = self._look(result)
        return self._found[result.index][0]

    @property
    def entries(self) -> set[int]:
        """The `proof-done` entries whose reports say what some result that was asked about says."""
        return {index for why, index in self._found.values() if not why and index >= 0}

    def signed(self, proof: Happening) -> str:
        """Why the report of a `proof-done` entry is no signed one; "" if it is."""
        known = self._report(proof, "")
        return known if isinstance(known, str) else known.why

    def _look(self, result: Result) -> tuple[str, int]:
        proofs = sorted(self._history.of("proof-done"), key=lambda one: abs(one.at_ns - result.wall_ns))
        why = "no proof of that time is in the log"
        for one in proofs[:NEAREST]:
            known = self._report(one, result.policy)
            if isinstance(known, str):
                why = known
            elif known.why:
                why = f"the report of entry {one.index} is not taken: {known.why}"
            elif known.report.finished_ns == result.wall_ns:
                return self._says(known, result), one.index
        return why, -1

    def _report(self, one: Happening, policy: str) -> Proven | str:
        digest = str(one.event.get("report"))
        if (digest, policy) not in self._read:
            found: Proven | str
            try:
                path = gather.folder(self._state, gather.PROOFS) / f"{digest}.json"
                found = gather.admit(path, self._key, self._history.site, policy, self._now)
            except CofferdamError as error:
                found = str(error)
            self._read[digest, policy] = found
        return self._read[digest, policy]

    def _says(self, known: Proven, result: Result) -> str:
        try:
            found = judge(result.check, known.report.statements).outcome
        except Unknown as error:
            return f"the report says nothing of it: {error}"
        if STATUSES.index(found) > STATUSES.index(result.outcome):
            return f"the report says {found} of it"
        return ""
