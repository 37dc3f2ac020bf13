"""A million messages wait: memory, start, and what a push costs then."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_million_messages_wait(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.brokers.relay.million", tmp_path, "1000000"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["messages"] >= 1_000_000
    assert found["resident_mib"] < 150, "the keeper, with a test's sides and auditor in the same process"
    assert found["grown_mib"] < 60
    assert found["start_s"] < 3 * PATIENCE
    for name, few in found["few"].items():
        assert found["many"][name] < 2 * few, (name, found)
