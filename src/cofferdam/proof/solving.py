"""Part (b): the rules in force in each side's namespace, put to the solver.

Not here: the questions (plans.claims) and their answers (plans.solver).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cofferdam.enforce.plans.rules import ruleset
from cofferdam.errors import CofferdamError
from cofferdam.proof.rules import claims
from cofferdam.proof.rules.listing import Ruleset
from cofferdam.proof.rules.solver import Question, ask, script
from cofferdam.proof.statements import Statements
from cofferdam.proof.subject import Side, Subject

Json = dict[str, Any]
PART = "solver"


def state(subject: Subject, out: Statements, folder: Path | None = None) -> None:
    """The statements of all sides, which have been read. Each question is written to `folder` as well, in SMT-LIB 2."""
    for side in subject.sides.values():
        solve(side, subject.users, out, folder)


def solve(side: Side, users: Mapping[str, int], out: Statements, folder: Path | None = None) -> None:
    """One side. `users`: of the parts that reach something there."""
    missing = sorted({there.who for there in side.plan.towards} - users.keys())
    if missing:
        out.say(PART, f"{side.name}: rules", "failed", f"the launcher knows no user of {missing[0]}")
        return
    try:
        live = Ruleset.read(side.rules)
        hooks = {base.hook for base in live.bases}
        plan = Ruleset.read(ruleset(side.plan, side.interfaces, users, egress="egress" in hooks, tunnel=side.tunnel))
    except CofferdamError as error:
        out.say(PART, f"{side.name}: rules", "failed", f"nothing is proved about side {side.name}: {error}")
        return
    rulesets = {claims.LIVE: live, claims.PLAN: plan}
    names = [link["name"] for link in side.reading["links"]]
    for question in (*claims.confinement(side.plan, side.interfaces, users, side.tunnel), *claims.drift(plan, live)):
        if folder is not None:
            name = "-".join(f"{side.name} {question.name}".replace(":", "").replace(",", "").split())
            (folder / f"{name}.smt2").write_text(script(rulesets, question, names) + "(check-sat)\n")
        _ask(side, rulesets, question, names, out)


def _ask(side: Side, rulesets: dict[str, Ruleset], question: Question, names: list[str], out: Statements) -> None:
    start = time.perf_counter()
    name = f"{side.name}: {question.name}"
    try:
        (answer,) = ask(rulesets, [question], names)
    except CofferdamError as error:
        out.say(PART, name, "failed", str(error))
        return
    took = f"{(time.perf_counter() - start) * 1000:.0f} ms, {rulesets[claims.LIVE].rules} rules"
    if answer.packet is None:
        says = "the rules in force accept what the policy's rules accept, packet for packet" if question.differs else (
            f"for every packet: {question.name}")  # fmt: skip
        out.say(PART, name, "proved", says, [f"no packet breaks it ({took})"])
        return
    if question.differs:
        says = "the rules in force do not mean what the policy says: this packet is treated differently"
    elif question.name.startswith("nothing"):
        says = "the rules let this packet be forwarded"
    else:
        says = "the rules accept this packet, which the policy declares nowhere"
    out.say(PART, name, "failed", says, [str(answer.packet), took])
