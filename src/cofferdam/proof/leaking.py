"""Whether an asset can be reached from the IT side round the gate, as statements and as what the gate is told.

Not here: the probe (enforce.leak).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cofferdam.enforce.plans.records import NetworkPlan
from cofferdam.errors import GateError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.proof import leak
from cofferdam.proof.statements import Statements

if TYPE_CHECKING:  # it reads the network by pyroute2, which is large, and the gate judges rounds
    from cofferdam.proof.subject import Subject

Ask = Callable[..., Any]
"""Asks the running gate something (gate.client)."""

NAMES_AT_ONCE = 50
"""Assets in one message to the gate, which takes 64 KiB at most."""
PART = "leaks"
PROBE = "leak probe"
"""The statement that there is when the probe cannot run."""
BETWEEN = "between proofs"
"""The statement on what the gate does until the next proof."""


def targets(plan: NetworkPlan) -> list[tuple[str, int]]:
    """The real address and port of everything that a broker may reach on the OT side."""
    return sorted(
        {(address, reach.port) for side in plan.sides if side.side == "ot" for reach in side.reaches
         for address in reach.addresses}
    )  # fmt: skip


def state(subject: Subject, wanted: list[tuple[str, int]], out: Statements) -> None:
    """Asks, as root in a child of its own; then as `judge`."""
    side = subject.sides["it"]
    interfaces = list(side.interfaces.values())
    try:
        found = leak.probe(side.fd, interfaces, wanted)
    except GateError as error:
        out.say(PART, PROBE, "failed", f"the IT side could not be asked: {error}")
        return
    judge(found, wanted, out)


def judge(found: Mapping[str, Any], wanted: list[tuple[str, int]], out: Statements) -> None:
    """One statement for each address, by what a round has found (leak.ask)."""
    asked = [f"{count} questions sent by {name}" for name, count in found["asked"].items()]
    silent = [name for name, count in found["asked"].items() if not count]
    for address in dict.fromkeys(address for address, _ in wanted):
        answers = [f"{how}: {detail}" for who, how, detail in found["answers"] if who == address]
        says = (
            "answers on the IT side by its real address: hosts there can go round the gate" if answers
            else "does not answer on the IT side by its real address (ARP, ICMP, its protocol's port)"
        )  # fmt: skip
        wrong = [*answers, *(f"nothing could be sent by {name}" for name in silent)]
        out.check(PART, address, says, wrong, asked, status="tested")


def between(probe: Mapping[str, Any], out: Statements) -> None:
    """What happens between two proofs: `probe` is the gate's status of its leak probe."""
    says = probe["detail"]
    if not probe["seconds"]:
        out.say(PART, BETWEEN, "assumed", says)
    else:
        out.check(PART, BETWEEN, says, [] if probe["works"] else [says])


def named(policy: CompiledPolicy) -> dict[str, list[str]]:
    """The assets of each address: two cells may have a device each with the same."""
    names: dict[str, list[str]] = {}
    for asset in policy.assets.values():
        names.setdefault(asset.address, []).append(asset.name)
    return names


def tell(ask: Ask, policy: CompiledPolicy, out: Statements) -> None:
    """Tells the gate what a proof has found."""
    tried, found = verdicts(out, named(policy))
    leaks = dict(found)
    for start in range(0, len(tried), NAMES_AT_ONCE):
        some = tried[start : start + NAMES_AT_ONCE]
        ask("leaks", tried=some, found=[{"asset": name, "detail": leaks[name][:500]} for name in some if name in leaks])


def verdicts(out: Statements, names: Mapping[str, Sequence[str]]) -> tuple[list[str], list[tuple[str, str]]]:
    """(assets that were tried, (asset, detail) of those that leak). `names`: address to assets."""
    here = [statement for statement in out.found if statement.part == PART and statement.name in names]
    found = [
        (name, f"{s.name}: {'; '.join(s.evidence)}") for s in here if s.status == "failed" for name in names[s.name]
    ]
    return [name for statement in here for name in names[statement.name]], found
