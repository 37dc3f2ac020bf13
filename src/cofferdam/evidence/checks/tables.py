"""All checks that there are functions for, by id."""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.evidence.checks import logs, policies, proofs, running, services
from cofferdam.evidence.checks.registry import Made, run
from cofferdam.evidence.inputs import Inputs
from cofferdam.evidence.model import Finding, Missing

CHECKS: dict[str, Made] = {}
for _table in (proofs.TABLE, running.TABLE, policies.TABLE, logs.TABLE, services.TABLE):
    CHECKS |= _table.made
MINUTE = tuple(one for one in CHECKS.values() if one.looks and set(one.looks) <= {"status", "policy"})
"""Those that the gate itself can run: they need nothing but what it has in memory."""

SELF_TESTED = frozenset(("policy.values-checked", "broker.strict-parse", "broker.session-break", "broker.fail-closed"))
"""What the self-test finds (evidence.selftest), alone or besides a function here."""


def run_checks(known: Inputs, names: Iterable[str] | None = None) -> tuple[list[Finding], list[Missing]]:
    """Runs these checks, or all."""
    wanted = CHECKS.values() if names is None else [CHECKS[name] for name in names]
    return run(wanted, known)
