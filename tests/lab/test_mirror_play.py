"""The mirror's play alone: the tour keeps every promise."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cofferdam.lab.mirror import events
from cofferdam.lab.mirror.play import Mirror, MirrorPicture
from tests.waiting import PATIENT

pytestmark = pytest.mark.heavy
DEMO = [sys.executable, "-m", "cofferdam.cli.main", "lab", "demo", "--no-namespaces"]


@pytest.mark.skipif(bool(Mirror().missing()), reason=Mirror().missing())
def test_the_tour_keeps_every_promise() -> None:
    done = subprocess.run(
        [*DEMO, "--tour", "--play", "mirror", "--json"],
        capture_output=True, text=True, timeout=5 * PATIENT, check=False,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [finding for result in results for finding in result["findings"] if not finding["ok"]]
    assert not failed
    assert [result["step"] for result in results] == [step.__name__ for step in Mirror.steps], done.stderr
    assert done.returncode == 0, done.stderr


def test_the_picture_shows_what_was_seen() -> None:
    picture = MirrorPicture()
    picture.note(events.Recorded("historian", 6, 600))
    picture.note(events.Seen("analyst", "x", 200, 3, "", 101.5, 230, (1.0, 2.0, 3.0)))
    assert "600" in picture.line() and "230 ms" in picture.line()
    assert len(picture.panels()) == 1
