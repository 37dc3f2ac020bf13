"""All checks that there are functions for, by id."""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.evidence.catalogue import catalogue
from cofferdam.evidence.checks import logs, people, policies, proofs, running, services, ways
from cofferdam.evidence.checks.registry import Made, run
from cofferdam.evidence.inputs import FUTURE_NS, Inputs
from cofferdam.evidence.model import Finding, Missing, spoken

CHECKS: dict[str, Made] = {}
for _table in (proofs.TABLE, running.TABLE, policies.TABLE, logs.TABLE, services.TABLE, people.TABLE, ways.TABLE):
    CHECKS |= _table.made
MINUTE = tuple(one for one in CHECKS.values() if one.looks and set(one.looks) <= {"status", "policy", "exports"})
"""Those that the gate itself can run: they need nothing but what it has in memory."""

LEFT = {
    "policy.fits-traffic": "nothing compares the traffic with the policy by itself; `cofferdam simulate` does with a "
    "capture, and a person signs for what came of it",
    "policy.change-approved": "the log has a policy's hash and who loaded it is not in it, so nobody can tell its "
    "author from who approved it; somebody else than its author signs for it, which counts for that policy alone",
    "backup.made": "backups are made by the site's own means; whoever made one signs for it, with its hash",
    "backup.restored": "a restore is the site's drill; whoever held it signs for it",
    "standby.measured": "the product has no standby",
    "log.access": "who reads the log's files is the machine's to record; the gate does not see it",
    "console.sessions": "there is no console yet",
    "console.tls": "there is no console yet",
    "monitor.alarms": "whether an alarm reached a person is that person's to say, by signature",
    "monitor.anomaly": "what the policy does not allow is refused and counted; nothing compares the rest with what was "
    "learnt",
}
"""Checks without a function, and why; a person can sign for each. Those that are attested by nature are not here."""

SELF_TESTED = frozenset((
    "policy.values-checked", "broker.strict-parse", "broker.session-break", "broker.fail-closed", "broker.flood-limits",
    "access.signed-hop",
))  # fmt: skip
"""What the self-test finds (evidence.selftest), alone or besides a function here."""


def run_checks(known: Inputs, names: Iterable[str] | None = None) -> tuple[list[Finding], list[Missing]]:
    """Runs these checks, or all. Nothing is found by what is older than its check allows, or of a time that is still to
    come, or older than a failure that the log has."""
    wanted = CHECKS.values() if names is None else [CHECKS[name] for name in names]
    found, missing = run(wanted, known)
    for one in found:
        why = "" if one.outcome == "failed" or not one.at_ns else _counts_not(one, known)
        if why:
            missing.append(Missing(one.check, why))
    left = {one.check for one in missing}
    found = [one for one in found if one.check not in left]
    over = [one for one in missing if one.gone and _was_found(one.check, known)]
    return [*found, *(one.over for one in over)], [one for one in missing if one not in over]


def _was_found(check: str, known: Inputs) -> bool:
    past = known.history.results.get((check, ""), []) if known.history is not None else []
    return bool(past) and past[-1].outcome != "not covered"


def _counts_not(one: Finding, known: Inputs) -> str:
    """Why what a finding rests on counts for nothing, or ""."""
    valid, age = catalogue().checks[one.check].valid, (known.now_ns - one.at_ns) // 10**9
    if one.at_ns > known.now_ns + FUTURE_NS:
        return f"what it rests on was found at a time that is still to come, by a clock that was wrong: {one.says}"
    if age > valid:
        return f"what it rests on is {spoken(age)} old, and counts for {spoken(valid)}: {one.says}"
    past = known.history.results.get((one.check, one.subject), []) if known.history is not None else []
    if past and past[-1].outcome == "failed" and past[-1].wall_ns > one.at_ns:
        return f"it failed by entry {past[-1].index}, which is newer than what speaks for it: {one.says}"
    return ""
