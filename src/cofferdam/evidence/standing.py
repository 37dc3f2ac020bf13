"""How checks and controls stand now: from what the log has, with age, and never better than what was found.

Rules of order: a result counts from its entry's time and no longer than its check allows; a result of another policy
than the one in force is stale where it is about rules; a time that lies ahead of the clock counts for nothing; what
failed stays failed until it is found otherwise. A control has the status of the weakest check that counts.

Not here: reading the log (history), whether a signature is good (attest), showing it (reports).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from cofferdam.evidence.attest import about, facts
from cofferdam.evidence.checks.tables import CHECKS, LEFT, SELF_TESTED, run_checks
from cofferdam.evidence.history import Attestation, History
from cofferdam.evidence.inputs import FUTURE_NS, Inputs
from cofferdam.evidence.model import Catalogue, Check, Control, Framework, Result, spoken, weakest

NS = 1_000_000_000
OF_A_POLICY = ("proof.", "policy.", "ports.", "access.no-direct")
"""Checks whose result is about the policy under which it was found."""
ALL_POLICIES = frozenset(("policy.reviewed", "policy.change-approved", "proof.canaries", "proof.sabotage"))


Unbacked = Callable[[Result], str]
"""Why no signed report says what a result says, where one has to (backing); "" otherwise."""

SIGNED_BY_HASH = frozenset(("policy.reviewed", "policy.change-approved"))
"""What a person signs for one policy, though no result of the gate's is about one."""


def of_a_policy(check: str) -> bool:
    """Whether its results count for one policy alone."""
    return check.startswith(OF_A_POLICY) and check not in ALL_POLICIES


def signed_for_a_policy(check: str) -> bool:
    """Whether a person's signature for it counts for the policy alone that the statement names."""
    return of_a_policy(check) or check in SIGNED_BY_HASH


class CheckState(msgspec.Struct, frozen=True):
    """How a check stands. `age`: seconds since it was established, -1 if never; `ends`: seconds that it still counts,
    negative once it does not; `index`: its entry in the log, -1 without one; `counts`: False where the check is left
    out since the policy does not use its room, with `says` saying so."""

    id: str
    status: str
    says: str
    facts: tuple[str, ...] = ()
    age: int = -1
    ends: int = 0
    index: int = -1
    counts: bool = True
    subjects: tuple[str, ...] = ()


class ControlState(msgspec.Struct, frozen=True):
    """How a control stands. `status` is one of model.STATUSES, or "coming"; `decides` are the checks that have it;
    `starts` is the day from which it is in force, "" where it is; without `needs` it is not covered."""

    id: str
    framework: str
    status: str
    why: str
    says: str
    by: str
    rest: str
    checks: tuple[str, ...]
    left_out: tuple[str, ...]
    decides: tuple[str, ...]
    age: int = -1
    index: int = -1
    starts: str = ""
    needs: tuple[str, ...] = ()


class Standing(msgspec.Struct, frozen=True):
    """All of it at one moment. `now_ns`: the later of clock and log; `unknown`: checks that the log has results of, and
    this version does not know (another did)."""

    site: str
    policy: str
    now_ns: int
    wall_ns: int
    size: int
    checks: dict[str, CheckState]
    attestations: tuple[Attestation, ...] = ()
    unknown: tuple[str, ...] = ()


def age_seconds(result_time_ns: int, result_wall_ns: int, last_ns: int, wall_ns: int) -> int:
    """How old something is, by the log's time or by the clock, whichever says older; -1 if it is of the future.

    A clock that jumped ahead and back leaves entries with times that are still to come: those count for nothing.
    """
    if result_wall_ns > wall_ns + FUTURE_NS:
        return -1
    return max(0, last_ns - result_time_ns, wall_ns - result_wall_ns) // NS


def standing(
    catalogue: Catalogue, history: History, attestations: Collection[Attestation], *, wall_ns: int, policy: str = "",
    brokers: Collection[str] | None = None, unbacked: Unbacked = lambda _: "", known: Inputs | None = None,
) -> Standing:  # fmt: skip
    """How every check stands. `policy`: the hash of the policy in force; `brokers`: the words that it uses, None where
    that is not known; `attestations`: those whose signatures were looked at; `known`: what there is besides, by which a
    check of which nothing was found says what it lacks."""
    now_ns = max(wall_ns, history.last_ns)
    signed: dict[str, list[Attestation]] = {}
    for one in attestations:
        signed.setdefault(one.check, []).append(one)
    by_check: dict[str, list[Result]] = {}
    for (name, _), results in history.results.items():
        by_check.setdefault(name, []).append(results[-1])
    states = {
        name: _check(
            check, by_check.get(name, []), signed.get(name, []), history, wall_ns, policy, brokers, unbacked, known
        )
        for name, check in catalogue.checks.items()
    }
    unknown = tuple(sorted(by_check.keys() - states.keys()))
    return Standing(history.site, policy, now_ns, wall_ns, history.size, states, tuple(attestations), unknown)


def _check(
    check: Check, results: list[Result], signed: list[Attestation], history: History, wall_ns: int, policy: str,
    brokers: Collection[str] | None, unbacked: Unbacked, known: Inputs | None,
) -> CheckState:  # fmt: skip
    unused = brokers is not None and check.room not in ("house", "console", "ha") and check.room not in brokers
    found = _newest(check, results, history, wall_ns, policy, unbacked) if results else None
    by_people = [one for one in (_attested(check, a, history, wall_ns, policy) for a in signed) if one is not None]
    valid = [one for one in by_people if one.status == "attested"]
    if found is not None and found.status == "not covered" and unused:
        return msgspec.structs.replace(found, counts=False)
    if unused and found is None:
        says = f"the policy uses nothing of {check.room}"
        if by_people:  # what is signed is about a service of the gate's, and there is none
            says += f"; the signature of entry {max(one.index for one in by_people)} carries nothing"
        return CheckState(check.id, "not covered", says, counts=False)
    if found is not None and (found.status not in ("stale", "not covered") or not valid):
        return found
    if valid:
        return max(valid, key=lambda one: one.index)
    if by_people:
        return max(by_people, key=lambda one: one.index)
    return CheckState(check.id, "not covered", _why_nothing(check, known))


def _why_nothing(check: Check, known: Inputs | None) -> str:
    if check.best == "attested":
        return "nobody has signed for it"
    if check.id in SELF_TESTED:
        return "it has not been tried yet: `cofferdam evidence selftest`"
    if check.id not in CHECKS:
        return LEFT.get(check.id, "nothing of the gate looks at it yet; a person can sign for it")
    if "proof" in CHECKS[check.id].looks:
        return "no proof has established it: `cofferdam prove`"
    at_hand = {"history", "exports"} if known is not None else set()
    if known is not None and known.status is not None:
        at_hand.add("status")
    if known is not None and at_hand.issuperset(CHECKS[check.id].looks):
        _, missing = run_checks(known, [check.id])
        if missing:
            return missing[0].reason
    # (It may have been looked at in vain: of that there is no entry.)
    return f"nothing of it is on record: `sudo cofferdam evidence run {check.id}` looks at it"


def _newest(
    check: Check, results: list[Result], history: History, wall_ns: int, policy: str, unbacked: Unbacked
) -> CheckState:
    """Over all subjects: the weakest that is not too old. A subject that nobody speaks of any more falls away once it
    is older than the check allows, if others are newer."""
    states = [_one(check, result, history, wall_ns, policy, unbacked) for result in results]
    fresh = [one for one in states if one.status != "stale"]
    states = fresh or states
    status = weakest([one.status for one in states])
    mine = [one for one in states if one.status == status]
    oldest = max(mine, key=lambda one: one.age)
    subjects = tuple(sorted(subject for one in mine for subject in one.subjects if subject))
    return msgspec.structs.replace(oldest, subjects=subjects)


def _one(check: Check, result: Result, history: History, wall_ns: int, policy: str, unbacked: Unbacked) -> CheckState:
    age = age_seconds(result.time_ns, result.wall_ns, history.last_ns, wall_ns)
    valid = min(result.valid, check.valid)
    status, says = result.outcome, result.says
    of_policy = of_a_policy(check.id)
    if status not in ("failed", "not covered"):
        if age < 0:
            status, says = "stale", f"it was found at a time that is still to come, by a clock that was wrong: {says}"
        elif age > valid:
            status, says = "stale", f"older than {spoken(valid)}: {says}"
        elif of_policy and policy and result.policy != policy:
            status, says = "stale", f"found under another policy, {result.policy[:12]}: {says}"
        elif why := unbacked(result):
            status, says = "not covered", f"the gate says so in entry {result.index}, and nothing signed does: {why}"
        elif _weaker(check.best, status):
            status = check.best  # an entry cannot say more than its check can establish
    return CheckState(
        check.id, status, says, result.facts, age, valid - max(age, 0), result.index, subjects=(result.subject,)
    )


def _weaker(best: str, status: str) -> bool:
    return weakest([best, status]) == best and best != status


def _attested(check: Check, one: Attestation, history: History, wall_ns: int, policy: str) -> CheckState | None:
    if one.withdrawn >= 0:
        return None
    says = f"{one.person} signed for it"
    if one.trouble:
        return CheckState(check.id, "failed", f"{says}, and {one.trouble}", (), -1, 0, one.index)
    at = one.wall_ns or one.time_ns
    age = age_seconds(one.time_ns, at, history.last_ns, wall_ns)
    ends = min(check.valid, (one.until_ns - at) // NS) - max(age, 0)
    status = "stale" if age < 0 or ends < 0 else "attested"
    if signed_for_a_policy(check.id) and policy and about(one, "policy") != policy:
        status, says = "stale", f"{says}, for another policy than the one in force"
    return CheckState(check.id, status, says, facts(one), age, ends, one.index, subjects=(one.person,))


# --- controls ---------------------------------------------------------------------------------------------------


def control(framework: Framework, one: Control, now: Standing, day: str) -> ControlState:
    """How a control stands on `day` (ISO)."""
    states = [now.checks[name] for name in one.checks]
    counting = [state for state in states if state.counts]
    left_out = tuple(state.id for state in states if not state.counts)
    decides: tuple[str, ...] = ()
    age = index = -1
    if one.by == "outside":
        status, why = "not covered", "nothing of the gate bears on it"
    elif not states:
        status, why = "not covered", "no check of the gate bears on it"
    elif not counting:
        status, why = "not covered", f"the policy uses none of what it rests on ({', '.join(left_out)})"
    elif (lacking := [name for name in one.needs if name in left_out]) and not any(
        state.status == "failed"
        for state in counting  # what failed is shown, whatever else there is not
    ):
        status, why = "not covered", f"the policy does not use what alone would show it ({', '.join(lacking)})"
    else:
        status = weakest([state.status for state in counting])
        worst = [state for state in counting if state.status == status]
        decides = tuple(state.id for state in worst)
        why = "; ".join(f"{state.id}: {state.says}" for state in worst)
        aged = [state for state in worst if state.age >= 0]
        if aged:
            oldest = max(aged, key=lambda state: state.age)
            age, index = oldest.age, oldest.index
    if one.starts and one.starts > day:
        status, why = "coming", f"in force from {one.starts} on; now it would be: {status}"
    return ControlState(
        one.id,
        framework.id,
        status,
        why,
        one.says,
        one.by,
        one.rest,
        one.checks,
        left_out,
        decides,
        age,
        index,
        one.starts,
        one.needs,
    )


def controls(framework: Framework, now: Standing, day: str, level: int = 0) -> tuple[ControlState, ...]:
    """Those of a framework, up to a security level (0: all)."""
    return tuple(
        control(framework, one, now, day)
        for one in framework.controls.values()
        if not level or not one.level or one.level <= level
    )


def coverage(found: Collection[ControlState]) -> Mapping[str, int]:
    """How many controls have which status: numbers, and no percentage."""
    counts: dict[str, int] = {}
    for one in found:
        counts[one.status] = counts.get(one.status, 0) + 1
    return counts
