"""The patch play alone: its tour keeps every promise, and it runs unattended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cofferdam.lab.patch.play import Patch
from tests.waiting import PATIENT, alone

pytestmark = pytest.mark.skipif(bool(Patch().missing()), reason=Patch().missing())
DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo", "--no-namespaces", "--play", "patch"]


def test_the_tour_of_the_patch_relay() -> None:
    with alone("swupdate"):
        done = subprocess.run(
            [*DEMO, "--tour", "--json"], capture_output=True, text=True, timeout=4 * PATIENT, check=False
        )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [finding for result in results for finding in result["findings"] if not finding["ok"]], done.stdout
    assert [result["step"] for result in results] == [step.__name__ for step in Patch.steps], done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
def test_maintenance_brings_firmware_in(tmp_path: Path) -> None:
    seconds, said = 8, ""
    while "the controller runs 1." not in said and seconds < 100:
        done = subprocess.run(
            [*DEMO, "--seconds", str(seconds), "--state", str(tmp_path / str(seconds))],
            capture_output=True, text=True, timeout=3 * PATIENT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        said, seconds = done.stdout, 3 * seconds
    assert "the controller runs 1." in said
