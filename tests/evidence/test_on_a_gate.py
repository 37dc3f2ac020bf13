"""The evidence of a real gate in namespaces: what a proof and a minute find, and that breaking one thing turns its
control, and putting it back turns it again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.gate.client import ask
from tests.prove.stage import Stage, run, staged
from tests.waiting import PATIENT, eventually

pytestmark = [
    pytest.mark.netns,
    pytest.mark.heavy,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


def evidence(stage: Stage, *words: str) -> tuple[int, str]:
    """`cofferdam evidence ...`: the exit code and what it printed."""
    command = [sys.executable, "-m", "cofferdam.cli.main", "evidence", *words, "--state", str(stage.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENT)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout or done.stderr


def states(stage: Stage) -> dict[str, dict[str, Any]]:
    code, text = evidence(stage, "list", "--json")
    assert code == 0, text
    return {one["id"]: one for one in json.loads(text)}


def report(stage: Stage, framework: str) -> dict[str, dict[str, Any]]:
    code, text = evidence(stage, "report", "--framework", framework, "--json")
    assert code == 0, text
    return {row["control"]["id"]: row["control"] for row in json.loads(text)["rows"]}


def test_a_proof_a_minute_and_a_rule_by_hand(stage: Stage, tmp_path: Path) -> None:
    code, _ = stage.prove("--no-probes")
    assert code == 0
    code, text = evidence(stage, "check")
    found = states(stage)
    assert found["proof.nothing-forwarded"]["status"] == "proved", text
    assert found["proof.structure"]["status"] == "observed"
    assert found["proof.probes"]["status"] == "not covered"
    assert found["log.whole"]["status"] == "tested"
    assert found["separation.in-force"]["status"] == "observed", found["separation.in-force"]
    assert found["policy.values-checked"]["status"] == "tested"
    assert found["access.mfa"] == found["access.mfa"] | {"status": "not covered", "index": -1}
    for name, one in found.items():
        assert (one["index"] >= 0) == (one["status"] not in ("not covered",)), name
    control = report(stage, "iec62443-3-2")["ZCR 3.2"]
    assert (control["status"], control["decides"]) == ("proved", ["proof.nothing-forwarded"])

    # A rule by hand: the packet that it lets through is the fact, the control turns, and an alarm stands.
    space = stage.namespace("it")
    run("ip", "netns", "exec", space, "nft", "insert rule inet cofferdam forward tcp dport 4444 accept")
    code, _ = stage.prove("--no-probes")
    assert code == 1
    one = states(stage)["proof.nothing-forwarded"]
    assert one["status"] == "failed"
    assert any("4444" in fact for fact in one["facts"]), one
    assert report(stage, "iec62443-3-2")["ZCR 3.2"]["status"] == "failed"
    assert "check-proof.nothing-forwarded" in [alarm["name"] for alarm in ask(stage.state, "status")["alarms"]]

    ask(stage.state, "reload", path="")  # puts the rules right
    code, _ = stage.prove("--no-probes")
    assert code == 0
    assert states(stage)["proof.nothing-forwarded"]["status"] == "proved"
    assert "check-proof.nothing-forwarded" not in [one["name"] for one in ask(stage.state, "status")["alarms"]]
    page = tmp_path / "report.html"
    code, text = evidence(stage, "report", "--framework", "nerc-cip", "--html", str(page))
    assert code == 0, text
    shown = page.read_text()
    assert "<script" not in shown
    assert "compliant" not in shown.lower()


def test_the_gate_finds_by_itself(stage: Stage) -> None:
    eventually(lambda: states(stage)["log.writable"]["status"] == "observed")
    code, text = evidence(stage, "show", "log.writable", "--json")
    assert code == 0
    shown = json.loads(text)
    assert [result["outcome"] for result in shown["history"]] == ["observed"]  # the same again is no new entry
    assert ["nist-800-53r5", "au-5"] in shown["controls"]
