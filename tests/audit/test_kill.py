"""kill -9 of the writer at any moment: nothing acknowledged is lost, and the log opens and verifies."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cofferdam.audit.files import DirFiles, LogReader
from cofferdam.audit.keys import load_public
from cofferdam.audit.recovery import open_log
from cofferdam.audit.verify import verify_log

ROOT = Path(__file__).parent.parent.parent
FEW, MANY = 10, 1000
"""Kills in the suite, and in `make soak`."""


@pytest.mark.heavy
@pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(3 * 3600)])])
def test_nothing_acknowledged_is_lost(tmp_path: Path, rounds: int) -> None:
    choose = random.Random(20261123)
    before = 0
    for turn in range(rounds):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.audit.writer", str(tmp_path), str(turn)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert child.stdout is not None
        first = child.stdout.readline()  # so that the killing begins while entries are written
        try:
            child.wait(timeout=choose.uniform(0, 0.1))
        except subprocess.TimeoutExpired:
            pass
        assert child.returncode is None, first
        child.kill()
        lines = (first + child.stdout.read()).split("\n")[:-1]  # a line cut off by the kill is no acknowledgement
        child.wait()
        child.stdout.close()
        index, number = map(int, lines[-1].split())
        key = load_public(tmp_path / "keys/audit.pub")
        report = verify_log(DirFiles(tmp_path / "audit"), key, start=before)
        assert [str(finding) for finding in report.findings if not finding.unfinished] == []
        assert report.total > index >= before
        found = dict(LogReader(tmp_path / "audit", key).entries(index))
        assert json.loads(found[index])["event"]["write"] == f"w{number}"
        before = report.total
    log = open_log(tmp_path / "audit", tmp_path / "keys/audit.key", site="riverside")
    assert log.size >= before
    log.close()
    report = verify_log(DirFiles(tmp_path / "audit"), log.key.verifier)
    assert report.good and report.size == report.total == log.size
    kinds = [json.loads(data)["event"]["kind"] for _, data in LogReader(log.folder, log.key.verifier).entries()]
    assert kinds.count("log-opened") == rounds + 1
