"""One finding in a policy file: where, what was found, what was expected, and the nearest valid name.

Not here: what is checked (policy.schema, policy.crosscheck, policy.lint).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

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


MARGIN = 96
"""Characters of a line that are shown."""


def excerpt(problem: Problem, text: str) -> str:
    """The line of the text at which a finding points, with a caret below it; "" where there is no such line."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not 1 <= problem.line <= len(lines):
        return ""
    line = "".join(c if c.isprintable() else " " if c.isspace() else "·" for c in lines[problem.line - 1])
    column = max(0, min(problem.column - 1, len(line)))
    cut = max(0, column - MARGIN + 32)
    shown = ("…" + line[cut + 1 :] if cut else line)[:MARGIN]
    width = 1
    quoted = problem.found.rpartition(' "')[2] if problem.found.endswith('"') else problem.found
    word = quoted.strip('"')
    if word and lines[problem.line - 1].startswith(word, problem.column - 1):
        width = min(len(word), MARGIN - (column - cut))
    return f"{problem.line:>6} | {shown}\n       | {' ' * (column - cut)}{'^' * max(1, width)}"


ALSO: Final = {"ethernetip": "enip", "ethernet-ip": "enip", "cip": "enip", "iec62541": "opcua", "uart": "serial"}
"""What the field calls things by, where it is not like our name."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The valid name that is most like `name`, or "" if none is."""
    by_fold = {candidate.lower(): candidate for candidate in sorted(valid)}
    if (known := ALSO.get(name.lower(), "")) in by_fold:
        return by_fold[known]
    found = difflib.get_close_matches(name.lower(), list(by_fold), n=1, cutoff=0.6)
    return by_fold[found[0]] if found else ""


def one_of(names: Iterable[str], limit: int = 8) -> str:
    """Names as an expectation: "one of a, b, c"."""
    known = list(names)
    if len(known) == 1:
        return known[0]
    shown = ", ".join(known[:limit])
    return f"one of {shown}{f' and {len(known) - limit} more' if len(known) > limit else ''}"
