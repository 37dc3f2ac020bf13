"""The auditor's play alone: the tour keeps every promise."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cofferdam.lab.auditor.play import Auditor, AuditorPicture
from tests.waiting import PATIENT


@pytest.mark.skipif(bool(Auditor().missing()), reason=Auditor().missing())
def test_the_tour_keeps_every_promise() -> None:
    command = [
        sys.executable,
        "-m",
        "cofferdam.cli.main",
        "lab",
        "demo",
        "--no-namespaces",
        "--tour",
        "--play",
        "auditor",
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=5 * PATIENT, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in Auditor.steps], done.stderr
    assert done.returncode == 0, done.stderr


def test_the_picture() -> None:
    assert "evidence" in AuditorPicture().line()
    assert len(AuditorPicture().panels()) == 1
