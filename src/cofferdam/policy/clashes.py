"""What two crews both want, as errors of the policy file. Not here: finding it (policy.crews)."""

from __future__ import annotations

from cofferdam.policy.crews import clashes
from cofferdam.policy.load import Loaded
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy


def clash_problems(loaded: Loaded, policy: CompiledPolicy) -> tuple[Problem, ...]:
    """An error for each, which names both places.

    Raises: PolicyError, where a part would stand on both sides."""
    found = []
    for clash in clashes(policy):
        (whose, first), (_, second) = clash.first, clash.second
        node = loaded.document.value(first).node
        what = f"{clash.what}, which another crew has for {whose} ({node.file}:{node.line}:{node.column})"
        found.append(loaded.document.value(second).problem(what, clash.expected, check="crew"))
    return tuple(found)
