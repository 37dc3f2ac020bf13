"""One finding in a policy file: where, what was found, what was expected, and the nearest valid name.

Not here: what is checked (policy.schema, policy.crosscheck, policy.lint).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """A finding. Line and column count from 1. `near` is the nearest valid name, or "". `check` names the check."""

    file: str
    line: int
    column: int
    found: str
    expected: str
    near: str = ""
    severity: str = "error"
    check: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        word = "" if self.severity == "error" else f" {self.severity}:"
        tail = f"; did you mean {self.near}" if self.near else ""
        return f"{where}:{word} found {self.found}, expected {self.expected}{tail}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name that is most like `name`, or "" if none is."""
    by_fold = {candidate.lower(): candidate for candidate in sorted(valid)}
    found = difflib.get_close_matches(name.lower(), list(by_fold), n=1, cutoff=0.6)
    return by_fold[found[0]] if found else ""


def one_of(names: Iterable[str], limit: int = 8) -> str:
    """Names as an expectation: "one of a, b, c"."""
    known = list(names)
    if len(known) == 1:
        return known[0]
    shown = ", ".join(known[:limit])
    return f"one of {shown}{f' and {len(known) - limit} more' if len(known) > limit else ''}"
