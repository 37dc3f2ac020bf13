"""What two crews both want, as errors of the policy file. Not here: finding it (policy.crews)."""

from __future__ import annotations

from cofferdam.policy.crews import clashes
from cofferdam.policy.load import Loaded
from cofferdam.policy.problems import Problem
from cofferdam.policy.table import CompiledPolicy


def clash_problems(loaded: Loaded, policy: CompiledPolicy) -> tuple[Problem, ...]:
    """An error for each, which names both places."""
    found = []
    for clash in clashes(policy, loaded.kinds):
        whose, place = clash.first
        text = clash.found.replace("{first}", f"{whose} ({loaded.document.value(place).where})")
        found.append(loaded.document.value(clash.second[1]).problem(text, clash.expected, check="crew"))
    return tuple(found)
