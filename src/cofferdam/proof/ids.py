"""Stable ids of a proof's statements: what others may build upon, while names and sentences are for people.

A statement's name is "SUBJECT: WHAT" or "WHAT". Its id is the part and WHAT in one word, such as
`structure.forwarding`; the subject (a side, a part, an address) stands beside it. Names that hold more than a word of
the code (an address, an attempt, a chain) have an id of their kind.

Not here: which check a statement bears upon (evidence.checks.proofs).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cofferdam.proof.statements import Statement


class Named(NamedTuple):
    """A statement's id, and what it is about ("": the gate as a whole)."""

    id: str
    subject: str


_KINDS: tuple[tuple[str, str, str], ...] = (
    ("solver", r"nothing is forwarded.*", "solver.nothing-forwarded"),
    ("solver", r"in comes only what the policy declares", "solver.only-declared-in"),
    ("solver", r"out goes only what the policy declares", "solver.only-declared-out"),
    ("solver", r"as in the policy: .*", "solver.as-in-policy"),
    ("solver", r"rules", "solver.rules"),
    ("canaries", r".* canaries", "canaries.family"),
    ("sabotage", r".* canaries", "sabotage.family"),
    ("probes", r"(control|sandbox|system calls|connections)", r"probes.\1"),
    ("probes", r"sandboxes", "probes.sandboxes"),
    ("probes", r".*", "probes.attempt"),
)
"""Part, the whole name behind the subject, id."""
_LEAKS = {"leak probe": "leaks.probe", "between proofs": "leaks.between"}
"""Any other name there is an address."""
_WORD = re.compile(r"[^a-z0-9]+")


def identify(statement: Statement) -> Named:
    """The id of a statement, whatever its name."""
    part, name = statement.part, statement.name
    if part == "leaks":
        known = _LEAKS.get(name)
        return Named(known, "") if known else Named("leaks.asset", name)
    if part == "limits":
        return Named(f"limits.{_slug(name)}", "")
    subject, colon, what = name.partition(": ")
    if not colon:
        subject, what = "", name
    for kind, pattern, named in _KINDS:
        if kind == part and (match := re.fullmatch(pattern, what)):
            if named == "probes.attempt":
                return Named(named, name)
            if named.endswith(".family"):
                return Named(named, what.removesuffix(" canaries"))
            return Named(match.expand(named).replace(" ", "-"), subject)
    return Named(f"{part}.{_slug(what)}", subject)


def _slug(text: str) -> str:
    return _WORD.sub("-", text.lower()).strip("-")
