"""Each requirement on remote access has a test that bears its number, where somebody who asks for it finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
PLACES = ("brokers/jump", "gate/test_jump*.py", "overlay")
CONTROLS = [
    *(f"CIP-005-7 R{number}" for number in ("2.1", "2.2", "2.3", "2.4", "2.5", "3.1", "3.2")),
    "CIP-003-9 Att. 1 section 6",
    *(f"62443-3-3 SR {number}" for number in (
        "1.1 RE 2", "1.2", "1.5", "1.7", "1.10", "1.11", "1.12", "1.13", "1.13 RE1", "2.1 RE4", "2.5", "2.6", "2.7",
        "2.8", "2.10", "2.12", "7.1",
    )),
]  # fmt: skip


@pytest.fixture(scope="module")
def said() -> str:
    """What the tests say that they show, one control a line."""
    found = []
    for place in PLACES:
        for path in sorted(TESTS.glob(place if place.endswith(".py") else f"{place}/test_*.py")):
            if path != Path(__file__):
                found.append(path.read_text("utf-8"))
    text = "\n".join(found)
    for number in ("R2", "R3"):
        text = text.replace(f", {number}.", f"; CIP-005-7 {number}.")
    return text


@pytest.mark.parametrize("control", CONTROLS)
def test_it_has_its_test(said: str, control: str) -> None:
    assert any(f"{control}{end}" in said for end in (":", ";", ".", ",")), control
