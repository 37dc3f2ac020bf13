"""Checks that read the report of a proof: which statements bear upon which check.

The table STATEMENTS is the contract between the two; the reference page is made from it.
"""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.evidence.checks.registry import Table
from cofferdam.evidence.inputs import Inputs, Unknown
from cofferdam.evidence.model import STRENGTH, Finding, weakest
from cofferdam.proof.ids import identify
from cofferdam.proof.statements import Statement

TABLE = Table()
STATEMENTS: dict[str, tuple[str, ...]] = {
    "proof.nothing-forwarded": ("solver.nothing-forwarded", "solver.rules"),
    "proof.only-declared-in": ("solver.only-declared-in", "solver.rules"),
    "proof.only-declared-out": ("solver.only-declared-out", "solver.rules"),
    "proof.no-drift": ("solver.as-in-policy", "solver.rules"),
    "proof.structure": ("structure.*",),
    "proof.canaries": ("canaries.*",),
    "proof.probes": ("probes.*",),
    "proof.sabotage": ("sabotage.*",),
    "oneway.no-return": ("one-way.*",),
    "ports.needed": ("solver.only-declared-in", "solver.rules", "structure.sockets"),
    "management.apart": ("structure.sockets@gate", "structure.sockets@auditor", "structure.sockets@launcher"),
    "access.no-direct": ("solver.nothing-forwarded", "solver.rules"),
}
"""Check -> ids of statements; `part.*` is all of a part, `id@subject` the one about this subject."""
SAYS = {
    "proof.nothing-forwarded": "no packet exists that the rules in force would forward",
    "proof.only-declared-in": "no packet exists that comes in and is not declared",
    "proof.only-declared-out": "no packet exists that goes out and is not declared",
    "proof.no-drift": "the rules in force mean what the policy's rules mean",
    "proof.structure": "processes, namespaces, interfaces, routes and switches are as declared",
    "proof.canaries": "no frame sent on the office wire arrived on the plant wire",
    "proof.probes": "forbidden system calls are refused in each sandbox",
    "proof.sabotage": "with forwarding on and no rules, still nothing arrived",
    "oneway.no-return": "each end of the one-way channel is one-way: sockets, filters, frames",
    "ports.needed": "only sockets that the policy declares wait for packets, and nothing else comes in",
    "management.apart": "gate, auditor and launcher stand in neither side and hold no socket of one",
    "access.no-direct": "no packet of a remote computer is forwarded to an asset",
}
FACTS = 8


def bears(statement: Statement, wanted: Iterable[str]) -> bool:
    """Whether a statement is one of these ids."""
    named = identify(statement)
    part = named.id.partition(".")[0]
    return any(one in (named.id, f"{named.id}@{named.subject}", f"{part}.*") for one in wanted)


def judge(name: str, statements: Iterable[Statement], at_ns: int = 0) -> Finding:
    """What a proof of `at_ns` says of one check. Raises: Unknown, where it has not established it."""
    mine = [one for one in statements if bears(one, STATEMENTS[name])]
    failed = [one for one in mine if one.status == "failed"]
    if failed:
        facts = [f"{one.name}: {'; '.join((one.says, *one.evidence))}"[:500] for one in failed[:FACTS]]
        return Finding(name, "failed", f"{len(failed)} of {len(mine)} statements do not hold", tuple(facts))
    known = [one for one in mine if one.status in STRENGTH]
    if not known:
        why = mine[0].says if mine else "the proof has no statement about it"
        raise Unknown(why)
    status = weakest([one.status for one in known])
    assumed = len(mine) - len(known)
    says = f"{SAYS[name]} ({len(known)} statements{f', {assumed} more are assumed' if assumed else ''})"
    facts = [f"{one.status}: {one.name}: {one.says}"[:500] for one in known[:FACTS]]
    return Finding(name, status, says, tuple(facts), at_ns=at_ns)  # type: ignore[arg-type]


def _enter(name: str) -> None:
    def run(known: Inputs) -> Finding:
        report = known.the_report()
        return judge(name, report.statements, report.finished_ns)

    TABLE.check(name, "proof")(run)


for _name in STATEMENTS:
    _enter(_name)
