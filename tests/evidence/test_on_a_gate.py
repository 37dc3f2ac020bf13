"""The evidence of a real gate in namespaces: what a proof and a minute find, and that breaking one thing turns its
control, and putting it back turns it again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.evidence.export.process import USER
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


def size(stage: Stage) -> int:
    return int(ask(stage.state, "status")["audit"]["size"])


def alarms(stage: Stage) -> list[str]:
    return [alarm["name"] for alarm in ask(stage.state, "status")["alarms"]]


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


def test_an_export_without_privilege_that_is_killed(stage: Stage, tmp_path: Path) -> None:
    """The child runs as a user of its own, reads the log and not its key; killed, it begins where it was sure."""
    folder = Path(tempfile.mkdtemp(prefix="cofferdam-export-"))
    os.chown(folder, USER, USER)
    out = folder / "out.jsonl"
    settings = tmp_path / "export.yaml"
    settings.write_text(f"collectors:\n  disk: {{to: 'file://{out}'}}\n  gone: {{to: 'tls://127.0.0.1:1'}}\n")
    command = [sys.executable, "-m", "cofferdam.cli.main", "export", "run", str(settings), "--state", str(stage.state)]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(command, stderr=said)
    try:
        eventually(lambda: out.exists() and len(out.read_bytes().split(b"\n")) > size(stage) - 2)
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        for child in map(int, children.stdout.split()):
            read = Path(f"/proc/{child}/status").read_text
            eventually(lambda read=read: "NoNewPrivs:\t1" in read())  # type: ignore[misc]
            assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in read()
            assert "CapEff:\t0000000000000000" in read()
            os.kill(child, signal.SIGKILL)
        eventually(lambda: "export-gone" in alarms(stage) and "export-disk" not in alarms(stage))
        before = size(stage)
        evidence(stage, "drill", "kill", "--text", "killed the export")
        eventually(lambda: any(b"killed the export" in line for line in out.read_bytes().split(b"\n")))
        indexes = [json.loads(line)["index"] for line in out.read_bytes().split(b"\n")[:-1]]
        assert list(dict.fromkeys(indexes))[: before + 1] == list(range(before + 1))
        evidence(stage, "check", "log.exported")
        one = states(stage)["log.exported"]
        assert one["status"] == "failed"  # one of two collectors does not answer, and it says which
        assert any("gone" in fact for fact in one["facts"])
    finally:
        process.terminate()
        process.wait(PATIENT)
        shutil.rmtree(folder)
