"""Each requirement on remote access has a test that bears its number, where somebody who asks for it finds it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cofferdam.evidence.catalogue import catalogue

TESTS = Path(__file__).parents[2]
PLACES = ("brokers/jump/test_*.py", "gate/test_jump*.py", "overlay/test_*.py")
CIP = {
    *(f"CIP-005-7 R{number}" for number in ("2.1", "2.2", "2.3", "2.4", "2.5", "3.1", "3.2")),
    "CIP-003-9 Att. 1 section 6",
}
ISA = {
    f"62443-3-3 SR {number}"
    for number in (
        "1.1 RE 2", "1.2", "1.5", "1.7", "1.10", "1.11", "1.12", "1.13", "1.13 RE 1", "2.1 RE 4", "2.5", "2.6", "2.7",
        "2.8", "2.10", "2.12", "7.1",
    )
}  # fmt: skip
"""What was asked for when the jump server was built."""
HERE = ("access.mfa", "access.unique", "access.roles", "access.lockout", "access.banner", "access.approval",
        "access.break-glass", "access.four-eyes", "access.idle-lock", "access.window", "access.concurrency",
        "access.no-tunnel")  # fmt: skip
"""Checks that the evidence has of nothing but the jump server."""
NUMBERS = {
    "CIP-005-7 ": r"R\d\.\d",
    "CIP-003-9 Att. 1 section ": r"6",
    "62443-3-3 SR ": r"\d\.\d+(?: RE ?\d)?",
}


def controls() -> set[str]:
    """Those, and whatever the evidence answers by such a check."""
    (framework,) = [one for one in catalogue().frameworks.values() if "SR 1.13" in one.controls]
    asked = {name for name, one in framework.controls.items() if set(HERE) & set(one.checks)}
    return CIP | ISA | {f"62443-3-3 {name}" for name in asked}


@pytest.fixture(scope="module")
def shown() -> dict[str, list[str]]:
    """Control -> the tests that say that they show it."""
    found: dict[str, list[str]] = {}
    for place in PLACES:
        for path in sorted(TESTS.glob(place)):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    for control in _said(ast.get_docstring(node) or ""):
                        found.setdefault(control, []).append(f"{path.name}::{node.name}")
    return found


def _said(text: str) -> list[str]:
    """The controls in a docstring: `CIP-005-7 R2.1, R2.3; 62443-3-3 SR 1.1, SR 1.1 RE 1: what is shown`."""
    text = " ".join(text.split())
    found = []
    for head, number in NUMBERS.items():
        more = head.rpartition("SR ")[1]
        for group in re.findall(rf"{re.escape(head)}({number}(?:, {more}{number})*)(?![\w.]*\d)", text):
            found += [head + re.sub(r"RE ?", "RE ", one) for one in re.findall(number, group)]
    return found


def test_how_they_are_said() -> None:
    assert _said("CIP-005-7 R2.1, R2.3; CIP-003-9 Att. 1 section 6. 62443-3-3 SR 1.1, SR 1.13 RE1: so.") == [
        "CIP-005-7 R2.1", "CIP-005-7 R2.3", "CIP-003-9 Att. 1 section 6", "62443-3-3 SR 1.1", "62443-3-3 SR 1.13 RE 1",
    ]  # fmt: skip


@pytest.mark.parametrize("control", sorted(controls()))
def test_it_has_its_test(shown: dict[str, list[str]], control: str) -> None:
    assert shown.get(control), f"no test says in its docstring that it shows {control}"
