"""What a test leaves open fails it or its module, and no other (tests/leftovers.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import os
from tests.leftovers import Leftovers

def pytest_configure(config):
    config.pluginmanager.register(Leftovers("EACH" in os.environ))
"""
GUILTY = """
import gc, socket

class Circle:
    def __init__(self):
        self.me, self.sock = self, socket.socket()

def test_leaves():
    Circle()

def test_finds():
    gc.collect()
"""
INNOCENT = """
import gc

def test_passes():
    gc.collect()
"""


@pytest.mark.parametrize(
    ("own", "whose"),
    [
        ({}, ("teardown of test_finds", "left open by test_a.py (--collect says")),
        ({"EACH": "1"}, ("teardown of test_leaves", "left open by test_a.py::test_leaves")),
    ],
)
def test_what_is_left_open_fails_whom_it_belongs_to(
    tmp_path: Path, own: dict[str, str], whose: tuple[str, str]
) -> None:
    for name, text in (("conftest", CONFTEST), ("test_a", GUILTY), ("test_b", INNOCENT)):
        (tmp_path / f"{name}.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=tmp_path, env={**os.environ, **own, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "3 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert all(words in done.stdout for words in whose), done.stdout
    assert "unclosed <socket.socket" in done.stdout
