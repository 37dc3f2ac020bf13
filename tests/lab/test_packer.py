"""The packaging cell's tour, alone: SCADA on pylogix, an intruder, a drive by I/O, through a gate of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cofferdam.lab.packer.play import Packer
from tests.waiting import PATIENT

DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo", "--no-namespaces", "--tour", "--play", "packer"]


@pytest.mark.skipif(bool(Packer().missing()), reason="needs pylogix and cm-ethernetip")
def test_the_tour_of_the_cell() -> None:
    done = subprocess.run([*DEMO, "--json"], capture_output=True, text=True, timeout=2 * PATIENT, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in Packer.steps], done.stderr
    assert done.returncode == 0, done.stderr


def test_a_play_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Packer().missing() == "Python has no pylogix and no ethernetip"
