"""The fuzzer itself: it finds a planted fault, makes it small, writes it down, and sees it again from the file."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Hashable
from pathlib import Path

import pytest

from tests.fuzz import engine
from tests.fuzz.engine import Target
from tests.waiting import PATIENT


def planted(data: bytes) -> Hashable:
    """Three gates, one behind the other: without keeping what opened the first, the last is hardly ever reached."""
    if data[:1] != b"\x2b":
        return "closed"
    if data[1:2] != b"\x0e":
        return "first"
    if data[2:3] != b"\xff":
        return "second"
    raise KeyError("planted")


def fine(data: bytes) -> Hashable:
    return len(data) % 3


def silent(line: str) -> None:
    pass


def test_a_planted_fault_is_found_made_small_and_written(tmp_path: Path) -> None:
    lines: list[str] = []
    target = Target("planted", lambda: [bytes(40)], planted)
    both = [target, Target("fine", lambda: [b"x"], fine)]
    found = engine.fuzz(both, PATIENT, 7, tmp_path, lines.append, every=0.5, enough=1)
    assert len(found) == 1
    assert found[0].read_bytes() == b"\x2b\x0e\xff"
    text = found[0].with_suffix(".txt").read_text()
    assert f"python -m tests.fuzz --target planted --reproduce {found[0]}" in text
    assert "KeyError: 'planted'" in text and "2b0eff" in text
    assert any("found 1" in line and "/s" in line for line in lines)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert engine.fuzz([Target("fine", lambda: [b"x"], fine)], 0.3, 7, tmp_path, silent) == []
    assert not list(tmp_path.iterdir())


def test_a_seed_that_fails_is_a_finding_once_however_often_it_happens(tmp_path: Path) -> None:
    target = Target("planted", lambda: [b"\x2b\x0e\xff\x00", b"\x2b\x0e\xff\x01"], planted)
    assert len(engine.fuzz([target], 0.5, 7, tmp_path, silent)) == 1


def test_a_hang_is_a_finding(tmp_path: Path) -> None:
    def stuck(data: bytes) -> Hashable:
        while data:
            pass
        return None

    (path,) = engine.fuzz([Target("stuck", lambda: [b"x"], stuck, hang_seconds=0.2)], 0.0, 7, tmp_path, silent)
    assert "no answer in time" in path.with_suffix(".txt").read_text()


def test_mutation_is_the_same_for_the_same_seed_and_keeps_the_bound() -> None:
    for seed in range(200):
        one, two = (engine.mutate(b"abcdef", b"ghi", random.Random(seed), (b"tok",), 9) for _ in range(2))
        assert one == two and len(one) <= 9


def test_every_part_registers_its_targets() -> None:
    assert {"modbus-server", "modbus-client"} <= set(engine.targets())


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--list"], 0, "modbus-server"),
        (["--target", "nonsense"], 2, "no such target: nonsense"),
        (["--reproduce", "README.md"], 2, "exactly one --target"),
        (["--target", "modbus-server", "--reproduce", "README.md"], 0, "nothing wrong"),
    ],
)
def test_the_command_line(arguments: list[str], code: int, word: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *arguments],
        capture_output=True, text=True, cwd=engine.TESTS.parent, check=False,
    )  # fmt: skip
    assert run.returncode == code, run.stderr
    assert word in run.stdout + run.stderr
