"""The nouns of this room: statuses, checks, controls, frameworks, clocks, findings of a check, results of the log.

The word that an assessor alone may say of a plant is nowhere in this product: a control has a status, a reason and an
age, and no verdict.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

import msgspec

STRENGTH = ("proved", "tested", "observed", "attested")
"""What a check can establish, strongest first."""
WEAKNESS = ("stale", "not covered", "failed")
"""What is weaker than all of them, the weakest last: what failed is never averaged away."""
STATUSES = (*STRENGTH, *WEAKNESS)
EXPORT = "export"
"""The room of whatever takes the log elsewhere: where nothing does, its check is left out like one of a service."""
MEANINGS = {
    "proved": "a solver found no counter-example",
    "tested": "it was tried, with a positive control where something had to be absent",
    "observed": "it was read at that moment",
    "attested": "a named person signed for it",
    "stale": "it was established once, and that is too long ago, or under another policy",
    "not covered": "nothing here shows it",
    "failed": "it does not hold, or could not be established",
    "coming": "the requirement is not in force yet",
}
SECOND = 1_000_000_000
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}

Status = Literal["proved", "tested", "observed", "attested", "stale", "not covered", "failed"]
Outcome = Literal["proved", "tested", "observed", "failed", "not covered"]
"""What a check finds. Attested comes from people, stale from age. Not covered is found where something had been found
and the policy has nothing of the kind any more."""
By = Literal["gate", "part", "operator", "outside"]


def weakest(statuses: list[str]) -> str:
    """The weakest of them; "not covered" if there is none."""
    return max(statuses, key=STATUSES.index, default="not covered")


def seconds(text: str) -> int:
    """Seconds of a duration such as "24 h". Raises: ValueError."""
    found = re.fullmatch(r"(\d{1,6}) ?(s|min|h|d)", text)
    if found is None:
        raise ValueError(f"{text!r} is no duration such as 5 min, 24 h, 35 d")
    return int(found[1]) * _UNITS[found[2]]


def spoken(length: int) -> str:
    """A duration in seconds, in the largest unit that makes it at least 2, or a whole one."""
    length = max(0, length)
    for unit in ("d", "h", "min"):
        size = _UNITS[unit]
        if length >= 2 * size or (length >= size and length % size == 0):
            return f"{length // size} {unit}"
    return f"{length} s"


def several(count: int, many: str, one: str = "") -> str:
    """ "2 sessions", "1 session". `one`: for one, where that is more than `many` without its last letter."""
    return f"{count:,} {many if count != 1 else one or many[:-1]}"


class Check(msgspec.Struct, frozen=True):
    """One check. `every` is a number of seconds, 0 where somebody asks, -1 where something happens; `valid` seconds."""

    id: str
    best: str
    every: int
    valid: int
    room: str
    source: str
    says: str


class Control(msgspec.Struct, frozen=True):
    """One control of a framework. `starts`: the day from which it is in force, "" where it is; `compare`: its text
    comes from secondary sources; `level`: the security level from which it is asked (IEC 62443), 0 where there is none;
    `clock`: seconds that the standard allows for doing it again, 0 where it names none; `needs`: those of `checks`
    without which the others do not show it: where the policy uses nothing of one, the control is not covered."""

    id: str
    says: str
    by: By
    themes: tuple[str, ...]
    checks: tuple[str, ...] = ()
    rest: str = ""
    level: int = 0
    starts: str = ""
    compare: bool = False
    clock: int = 0
    needs: tuple[str, ...] = ()


class Framework(msgspec.Struct, frozen=True):
    """Controls that belong together, in the order of the file."""

    id: str
    title: str
    note: str
    controls: dict[str, Control]


class Clock(msgspec.Struct, frozen=True):
    """A standing duty. `after`, `remind`: seconds."""

    id: str
    after: int
    remind: int
    serves: tuple[str, ...]
    done: str


class Catalogue(msgspec.Struct, frozen=True):
    """All of it."""

    themes: tuple[str, ...]
    clocks: dict[str, Clock]
    checks: dict[str, Check]
    frameworks: dict[str, Framework]

    def carried_by(self, check: str) -> list[tuple[str, str]]:
        """(framework, control) of each control that names a check."""
        return [
            (name, control.id)
            for name, framework in self.frameworks.items()
            for control in framework.controls.values()
            if check in control.checks
        ]

    def related(self, framework: str, control: Control) -> list[tuple[str, str]]:
        """Controls of the other frameworks that share a theme and a check with this one."""
        mine, themes = set(control.checks), set(control.themes)
        return [
            (name, other.id)
            for name, one in self.frameworks.items()
            if name != framework
            for other in one.controls.values()
            if mine & set(other.checks) and themes & set(other.themes)
        ]


class Finding(msgspec.Struct, frozen=True):
    """What a check found. `subject`: the asset, conduit, part or side that it is about, "" for the gate as a whole.
    `at_ns`: when that happened which it rests on, 0 for now: an old proof that is looked at again is no newer by it."""

    check: str
    outcome: Outcome
    says: str
    facts: tuple[str, ...] = ()
    subject: str = ""
    at_ns: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 of what is the same as long as the outcome is: check, subject, outcome."""
        return hashlib.sha256(msgspec.json.encode([self.check, self.subject, self.outcome])).hexdigest()


class Result(msgspec.Struct, frozen=True):
    """A finding as the log has it. `time_ns` is the log's own time, `wall_ns` the clock of whoever found it; `policy`
    is the hash of the policy that was in force."""

    check: str
    subject: str
    outcome: str
    says: str
    facts: tuple[str, ...]
    digest: str
    index: int
    time_ns: int
    wall_ns: int
    valid: int
    policy: str


class Missing(msgspec.Struct, frozen=True):
    """A check that could say nothing, and why. `gone`: the policy in force has nothing that it could be about."""

    check: str
    reason: str
    gone: bool = False

    @property
    def over(self) -> Finding:
        """What is found where something had been found, and is gone."""
        return Finding(self.check, "not covered", f"what was found of it is over: {self.reason}")
