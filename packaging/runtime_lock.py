"""Prints what of requirements.lock a gate needs at run time, with hashes: the dependencies of pyproject.toml and of the
extras that are named, and whatever the lock has because of them. What belongs to tests and the lab is left out.

    python packaging/runtime_lock.py relay jump mirror diode patch > runtime.lock
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def entries() -> dict[str, tuple[list[str], set[str]]]:
    """The lock: of each package its lines, and the packages because of which it is there."""
    found: dict[str, tuple[list[str], set[str]]] = {}
    lines: list[str] = []
    because: set[str] = set()
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            lines, because = [], set()
            found[normal(re.split(r"[=\[ ;@]", line, maxsplit=1)[0])] = (lines, because)
        lines.append(line)
        why = re.match(r"    # (?:via )? *([A-Za-z0-9._-]+)", line)
        if why and why[1] != "via":
            because.add(normal(why[1]))
    return found


def wanted(extras: Iterable[str], lock: dict[str, tuple[list[str], set[str]]]) -> set[str]:
    """The names of all packages."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    said = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    names = {normal(re.split(r"[\[<>=~! ;]", one, maxsplit=1)[0]) for one in said}
    while fresh := {name for name, (_, because) in lock.items() if name not in names and because & names}:
        names |= fresh
    return names


def main() -> int:
    lock = entries()
    names = wanted(sys.argv[1:], lock)
    for name, (lines, _) in lock.items():
        if name in names:
            print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
