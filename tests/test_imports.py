"""Who may call on whom: the ranks of docs/architecture.md, held by walking every import of the package.

Imports for type checkers alone count as well: who must know another's types is not apart from it.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

SRC = Path(__file__).parent.parent / "src" / "cofferdam"

# A module imports from its own room and from lower ranks.
RANKS = {
    "base": 0,
    "protocols": 1, "audit.pure": 1,
    "policy": 2, "crossing": 2,
    "enforce": 3, "audit": 3, "capture": 3,
    "brokers": 4, "proof": 4,
    "gate": 5, "evidence": 5,
    "console": 6, "cli": 6, "lab": 6,
}  # fmt: skip
SAME_RANK_ALLOWED = {("cli", "lab"), ("cli", "console"), ("gate", "evidence")}
"""cli calls on lab (`cofferdam lab`), the gate on the checks of evidence; never the other way round."""
BASE = {"__init__", "errors", "limits", "model", "values", "histogram", "disk", "owned"}
AUDIT_PURE = {"cosignature", "entry", "events", "tree", "checkpoint", "verify", "tiles", "frames", "sealed", "dropped"}
DIALECTS = {"dialect", "dialects"}
"""All that policy may know of protocols: the last part of a module's name."""
IMPURE = {
    "asyncio", "socket", "ssl", "os", "time", "random", "secrets", "subprocess", "logging", "select",
    "selectors", "threading", "multiprocessing", "pathlib", "tempfile", "shutil",
}  # fmt: skip
PURE_ROOMS = ("policy", "protocols", "audit.pure")
PURE_FOLDERS = ("enforce.plans", "proof.rules")
IMPURE_ALLOWED = {"policy.load": {"os", "pathlib"}}
"""The policy's loader reads files: the one door from the pure rooms to the disk."""


def dotted(path: Path) -> str:
    parts = list(path.relative_to(SRC).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def room(name: str) -> str:
    parts = name.split(".")
    if parts[0] in BASE:
        return "base"
    if parts[0] == "audit" and len(parts) > 1 and parts[1] in AUDIT_PURE:
        return "audit.pure"
    return parts[0]


@functools.cache
def modules() -> dict[str, Path]:
    return {dotted(path): path for path in sorted(SRC.rglob("*.py"))}


@functools.cache
def roots(name: str) -> frozenset[str]:
    """The top-level packages that a module imports."""
    return frozenset(target.split(".")[0] for target in _targets(name))


@functools.cache
def ours(name: str) -> frozenset[str]:
    """The modules of this package that a module imports. `from PACKAGE import MODULE` is that module."""
    known = modules()
    found = set()
    for target in _targets(name):
        inner = target.removeprefix("cofferdam.")
        while target.startswith("cofferdam.") and inner not in known and "." in inner:
            inner = inner.rpartition(".")[0]
        if target.startswith("cofferdam.") and inner in known and inner != name:
            found.add(inner)
    packages = {inner for inner in found if any(other.startswith(f"{inner}.") for other in found)}
    return frozenset(found - {inner for inner in packages if known[inner].stat().st_size < 200})


@functools.cache
def _targets(name: str) -> frozenset[str]:
    path = modules()[name]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def test_modules_import_only_downward() -> None:
    wrong = []
    for name in modules():
        mine = room(name)
        for target in sorted(ours(name)):
            other = room(target)
            if other == mine or (mine, other) in SAME_RANK_ALLOWED:
                continue
            if RANKS[other] >= RANKS[mine]:
                wrong.append(f"{name} (rank {RANKS[mine]}) imports {target} (rank {RANKS[other]})")
            elif mine == "policy" and other == "protocols" and target.rpartition(".")[2] not in DIALECTS:
                wrong.append(f"{name} imports {target}: policy knows of protocols their dialects alone")
    assert not wrong, "\n".join(wrong)


def test_siblings_keep_apart() -> None:
    """Two protocols never import each other, nor do two brokers; the parts of a broker meet only in its records."""
    wrong = []
    for name in modules():
        parts = name.split(".")
        for target in sorted(ours(name)):
            inner = target.split(".")
            if inner[0] != parts[0] or parts[0] not in ("protocols", "brokers") or len(parts) < 3 or len(inner) < 3:
                continue
            if inner[1] != parts[1] and inner[1] != "kit":
                wrong.append(f"{name} imports its sibling {target}")
            if parts[0] == "brokers" and {parts[-1].split("_")[0], inner[-1].split("_")[0]} == {"outer", "inner"}:
                wrong.append(f"{name} imports {target}: parts meet only in records.py")
    assert not wrong, "\n".join(wrong)


def test_pure_rooms_do_no_io() -> None:
    wrong = []
    for name in modules():
        if room(name) in PURE_ROOMS or name.startswith(PURE_FOLDERS):
            impure = (roots(name) & IMPURE) - IMPURE_ALLOWED.get(name, set())
            if impure:
                wrong.append(f"{name} imports {', '.join(sorted(impure))}")
    assert not wrong, "\n".join(wrong)


def test_no_imports_in_a_circle() -> None:
    """Tarjan's strongly connected components over all imports, those for type checkers included."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(ours(name)):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            circle: list[str] = []
            while not circle or circle[-1] != name:
                circle.append(stack.pop())
            if len(circle) > 1:
                circles.append(sorted(circle))

    for name in modules():
        if name not in index:
            visit(name)
    assert not circles, "\n".join(" <-> ".join(circle) for circle in circles)
