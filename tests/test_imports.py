"""Who may call on whom: the ranks of docs/architecture.md, held by walking every import of the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "cofferdam"

# A module imports from its own folder and from lower ranks. The pure part of audit ranks with policy.
RANKS = {
    "__init__": 0, "errors": 0, "limits": 0, "model": 0, "histogram": 0,
    "policy": 1, "protocols": 1, "audit.pure": 1,
    "crossing": 2, "enforce.plans": 2, "capture": 2,
    "audit": 3, "enforce": 3,
    "brokers": 4,
    "gate": 5, "evidence": 5,
    "console": 6, "cli": 6, "lab": 6,
}  # fmt: skip
# cli calls on lab (`cofferdam lab`), never the other way round.
SAME_RANK_ALLOWED = {("cli", "lab"), ("cli", "console")}
BASE = {"__init__", "errors", "limits", "model", "histogram"}

AUDIT_PURE = {"entry", "tree", "checkpoint", "verify", "tiles", "frames"}
IMPURE = {
    "asyncio", "socket", "ssl", "os", "time", "random", "secrets", "subprocess", "logging", "select",
    "selectors", "threading", "multiprocessing", "pathlib", "tempfile", "shutil",
}  # fmt: skip
# The policy's loader reads files: the one door from the pure rooms to the disk.
IMPURE_ALLOWED = {"policy.load": {"os", "pathlib"}}


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = list(path.relative_to(SRC).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


def room(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "audit" and len(parts) > 1 and parts[1] in AUDIT_PURE:
        return "audit.pure"
    if parts[0] == "enforce" and len(parts) > 1 and parts[1] == "plans":
        return "enforce.plans"
    return parts[0]


def imports(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [node.module or ""]
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def exists(name: str) -> bool:
    path = SRC.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_a_module_imports_only_downward(path: Path) -> None:
    name = dotted(path)
    mine = room(name)
    wrong = []
    for target in imports(path):
        if not target.startswith("cofferdam."):
            continue
        inner = target.removeprefix("cofferdam.")
        if not exists(inner):
            continue
        other = room(inner)
        if other == mine or (mine, other) in SAME_RANK_ALLOWED or {mine, other} <= BASE:
            continue
        if mine == "audit" and other == "audit.pure":
            continue
        if RANKS[other] >= RANKS[mine]:
            wrong.append(f"{name} (rank {RANKS[mine]}) imports {inner} (rank {RANKS[other]})")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_siblings_keep_apart(path: Path) -> None:
    """Two protocols, two brokers, and an outer and an inner half never import each other."""
    name = dotted(path)
    parts = name.split(".")
    for target in imports(path):
        inner = target.removeprefix("cofferdam.").split(".")
        if not target.startswith("cofferdam.") or len(inner) < 2 or inner[0] != parts[0]:
            continue
        for family in ("protocols", "brokers"):
            folder = (SRC / family / parts[1]).is_dir() if len(parts) > 2 else False
            if parts[0] == family and folder and (SRC / family / inner[1]).is_dir():
                assert inner[1] == parts[1], f"{name} imports its sibling {target}"
        if parts[0] == "brokers" and inner[0] == "brokers":
            pair = {parts[-1].split("_")[0], inner[-1].split("_")[0]}
            assert pair != {"outer", "inner"}, f"{name} imports {target}: halves meet only in records.py"


@pytest.mark.parametrize(
    "path", [p for p in modules() if room(dotted(p)) in {"policy", "protocols", "audit.pure", "enforce.plans"}],
    ids=dotted,
)  # fmt: skip
def test_pure_rooms_do_no_io(path: Path) -> None:
    name = dotted(path)
    roots = {target.split(".")[0] for target in imports(path)}
    assert not (roots & IMPURE) - IMPURE_ALLOWED.get(name, set())
