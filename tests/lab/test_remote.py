"""The play of remote access, alone: every promise of its tour is kept."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cofferdam.lab.remote.play import Remote
from cofferdam.lab.remote.steps import STEPS
from tests.waiting import PATIENT

DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo", "--no-namespaces"]


@pytest.mark.skipif(bool(Remote().missing()), reason="there is no OpenSSH (Debian: openssh-client, openssh-server)")
def test_its_tour_keeps_every_promise() -> None:
    done = subprocess.run(
        [*DEMO, "--tour", "--play", "remote", "--json"],
        capture_output=True,
        text=True,
        timeout=3 * PATIENT,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in STEPS], done.stderr
    assert done.returncode == 0, done.stderr
