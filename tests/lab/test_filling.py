"""The filling line's play, alone: its tour keeps every promise."""

from __future__ import annotations

import json
import subprocess
import sys

from cofferdam.lab.filling.steps import STEPS
from tests.waiting import PATIENT

DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo", "--no-namespaces", "--play", "filling"]


def test_the_tour_of_the_filling_line() -> None:
    done = subprocess.run([*DEMO, "--tour", "--json"], capture_output=True, text=True, timeout=2 * PATIENT, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in STEPS], done.stderr
    assert done.returncode == 0, done.stderr
