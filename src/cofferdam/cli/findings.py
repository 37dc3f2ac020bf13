"""How findings of a policy are printed: each with its line of the file and a caret.

Not here: what a finding is (policy.problems).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cofferdam.audit.lines import escaped
from cofferdam.policy.problems import Problem, excerpt, lines_of
from cofferdam.policy.yamltext import MAX_BYTES


def count_of(number: int, nouns: str) -> str:
    """ "2 assets", "1 asset"."""
    return f"{number} {nouns if number != 1 else nouns.removesuffix('s')}"


def print_problems(problems: Sequence[object]) -> None:
    """Each finding, with its line of the file; what a gate says of a policy that it refuses comes as text. What no
    terminal should get of it is not printed."""
    texts: dict[str, list[str]] = {}
    for problem in problems:
        if not isinstance(problem, Problem):
            print("\n".join(map(escaped, str(problem).split("\n"))), file=sys.stderr)
            continue
        stream = sys.stderr if problem.severity == "error" else sys.stdout
        print("\n".join(map(escaped, str(problem).split("\n"))), file=stream)
        if problem.file not in texts:
            try:
                with Path(problem.file).open(encoding="utf-8", errors="replace") as file:
                    texts[problem.file] = lines_of(file.read(MAX_BYTES))
            except OSError:
                texts[problem.file] = []
        shown = excerpt(problem, texts[problem.file])
        if shown:
            print(shown, file=stream)
