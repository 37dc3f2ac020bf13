"""`cofferdam audit`: what people and scripts see."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.entry import KINDS, format_time
from cofferdam.audit.events.access import Malformed, Refused, SessionOpened, WriteOutcome
from cofferdam.audit.events.gate import GateStopped
from cofferdam.audit.lines import LINES, line
from cofferdam.cli.main import main
from tests.audit.conftest import Clock, Opener, write


@pytest.fixture
def state(opener: Opener, tmp_path: Path, clock: Clock) -> Path:
    log = opener()
    log.append(
        [SessionOpened(session="o:1", half="outer", source="10.1.0.20", source_port=5000, asset="plc-7")], maker="outer"
    )
    clock.move(3600 * 10**9)
    log.append([write(n) for n in range(300)], maker="inner")
    log.append(
        [WriteOutcome(session="o:1", write="w0", asset="plc-7", outcome="done", device_ns=1_500_000)], maker="inner"
    )
    refused = Refused(
        session="o:2", principals=("erp",), source="10.1.0.20", asset="plc-8", conduit="c", rule="c/0", fault="value",
        detail="pump_speed would be 9000 rpm, allowed are 0 to 1500",
    )  # fmt: skip
    log.append([refused], maker="outer")
    log.append([GateStopped(reason="done")], maker="gate")
    log.close()
    return tmp_path


def test_after_a_clock_that_was_set_back_both_times_are_shown(
    opener: Opener, tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    log = opener()
    now = clock.wall
    log.append([GateStopped(wall_ns=now, reason="before")], maker="gate")
    clock.wall -= 3600 * 10**9
    log.append([GateStopped(wall_ns=clock.wall, reason="after")], maker="gate")
    log.close()
    _, out = audit(tmp_path, capsys, "show", "--kind", "gate-stopped")
    before, after = out.splitlines()
    assert before.endswith("before")
    assert after[:27][8:] == before[:27][8:] and after.endswith(f"(by the clock {shown(clock.wall)})")


def shown(wall_ns: int) -> str:
    return format_time(wall_ns)[:19].decode().replace("T", " ")


def audit(state: Path, capsys: pytest.CaptureFixture[str], verb: str, *more: str) -> tuple[int, str]:
    code = main(["audit", verb, "--log", str(state / "audit"), "--key", str(state / "keys/audit.pub"), *more])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_show_and_its_filters(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kinds(*more: str) -> list[str]:
        code, out = audit(state, capsys, "show", "--json", *more)
        assert code == 0
        return [json.loads(text)["event"]["kind"] for text in out.splitlines()]

    assert len(kinds()) == 305
    assert kinds("--last", "2") == ["refused", "gate-stopped"]
    assert kinds("--kind", "refused", "--kind", "session-opened") == ["session-opened", "refused"]
    assert kinds("--session", "o:1") == ["session-opened", "write-outcome"]
    assert kinds("--asset", "plc-8") == ["refused"]
    assert kinds("--source", "10.1.0.20") == ["session-opened", "refused"]
    assert kinds("--asset", "plc-7", "--last", "1") == ["write-outcome"]
    first = json.loads(audit(state, capsys, "show", "--json")[1].splitlines()[0])["time"]
    assert kinds("--until", first) == ["log-opened", "session-opened"]
    assert len(kinds("--since", first)) == 305
    assert kinds("--since", "2099-01-01T00:00:00Z") == []


def test_show_reads_well(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = audit(state, capsys, "show", "--last", "3")[1].splitlines()
    assert out[0].endswith("write-outcome   plc-7 w0: done in 1.5 ms")
    assert "erp (10.1.0.20) → plc-8" in out[1] and "allowed are 0 to 1500 [c/0]" in out[1]
    assert "pump_speed = 7 rpm" in audit(state, capsys, "show")[1]


def test_a_text_from_the_network_can_not_forge_lines(
    opener: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = opener()
    log.append(
        [Malformed(session="s", source="10.9.9.9", section="x", detail="a\n99 forged\x1b[2J\u202e")], maker="outer"
    )
    log.close()
    code, out = audit(tmp_path, capsys, "show", "--kind", "malformed")
    assert code == 0 and len(out.splitlines()) == 1
    assert "\x1b" not in out and "\u202e" not in out and "a\\n99 forged\\x1b[2J\\u202e" in out


def test_every_kind_has_a_line() -> None:
    from cofferdam.audit.entry import Entry

    made = {
        kind: line(Entry({"kind": kind}, 1, "gate", "", "riverside", "2026-01-01T00:00:00.000000000Z"))
        for kind in KINDS
    }
    assert not [kind for kind, said in made.items() if kind not in said]
    assert set(LINES) <= set(KINDS)


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"kind": "reads-counted", "reads": 1, "cells": 2}, "1 read, 2 cells"),
        ({"kind": "session-closed", "requests": 2, "writes": 1, "refused": 0, "malformed": 0}, "2 requests, 1 write,"),
        ({"kind": "limit-hit", "count": 1}, "(once)"),
        ({"kind": "limit-hit", "count": 2}, "(2 times)"),
        ({"kind": "half-died", "half": "inner", "pid": 7, "status": 3, "expected": True, "reason": "exit code 3"},
         "inner (pid 7): exit code 3, as asked"),
        ({"kind": "policy-refused", "problem": "p", "problems": 1}, " p"),
    ],
)  # fmt: skip
def test_one_is_one_and_nothing_is_said_twice(event: dict[str, Any], said: str) -> None:
    from cofferdam.audit.entry import Entry

    told = line(Entry(event, 1, "gate", "", "riverside", "2026-01-01T00:00:00.000000000Z"))
    assert said in told
    assert event["kind"] not in ("half-died", "policy-refused") or told.endswith(said)


def test_verify_says_good_or_what_is_wrong(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = audit(state, capsys, "verify")
    assert code == 0 and out.startswith("good: all 305 entries of cofferdam/riverside")
    code, out = audit(state, capsys, "verify", "--json")
    assert code == 0 and json.loads(out)["good"] and json.loads(out)["signed_entries"] == 305
    bundle = state / "audit/tile/entries/000"
    bundle.write_bytes(bundle.read_bytes().replace(b'"w9"', b'"w8"'))
    code, out = audit(state, capsys, "verify")
    assert code == 1 and out.startswith("tile/entries/000: entry 11: does not fit its hash")
    assert "WRONG: 1 findings" in out
    code, out = audit(state, capsys, "verify", "--json")
    assert code == 1 and json.loads(out)["findings"][0]["entry"] == 11


def test_a_checkpoint_kept_elsewhere(state: Path, opener: Opener, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(state / "audit", state / "backup")
    log = opener()
    log.append([write()], maker="inner")
    log.close()
    kept = state / "kept"
    assert audit(state, capsys, "export", "--checkpoint", "--output", str(kept))[0] == 0
    assert audit(state, capsys, "verify", "--checkpoint", str(kept))[0] == 0
    shutil.rmtree(state / "audit")
    (state / "backup").rename(state / "audit")
    assert audit(state, capsys, "verify")[0] == 0
    code, out = audit(state, capsys, "verify", "--checkpoint", str(kept))
    assert code == 1 and "once it had 307: cut back" in out


def test_proofs(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = state / "proof.json"
    for what in (["42"], ["--since", "100"]):
        assert audit(state, capsys, "prove", *what, "--output", str(proof))[0] == 0
        code, out = audit(state, capsys, "prove", "--check", str(proof))
        assert code == 0 and out.startswith("good: ")
        assert json.loads(audit(state, capsys, "prove", "--check", str(proof), "--json")[1])["good"]
        proof.write_text(proof.read_text().replace('"w40', '"w41').replace('"size": 100', '"size": 101'))
        code, out = audit(state, capsys, "prove", "--check", str(proof))
        assert code == 1 and out.startswith("WRONG: the proof does not hold")
    assert audit(state, capsys, "prove", "305")[0] == 2
    assert audit(state, capsys, "prove")[0] == 2
    proof.write_text("{}")
    assert audit(state, capsys, "prove", "--check", str(proof))[0] == 1


def test_a_proof_waits_for_the_checkpoint_that_covers_its_entry(
    opener: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`show` prints what stands in the journal; a running gate covers it about a second later."""
    log = opener()
    log.append([write(n) for n in range(3)], maker="inner")
    log.publish()
    log.append([write(3)], maker="inner")
    monkeypatch.setattr("cofferdam.cli.audit.COVERED_SECONDS", 0)
    assert audit(tmp_path, capsys, "prove", "4")[0] == 2
    monkeypatch.setattr("cofferdam.cli.audit.COVERED_SECONDS", 60)
    monkeypatch.setattr("cofferdam.cli.audit.time.sleep", lambda _: log.publish())
    assert audit(tmp_path, capsys, "prove", "4")[0] == 0
    log.close()


def test_export(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = audit(state, capsys, "export")
    assert code == 0 and [json.loads(text)["index"] for text in out.splitlines()] == list(range(305))
    target = state / "out.csv"
    assert audit(state, capsys, "export", "--format", "csv", "--output", str(target))[0] == 0
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 305 and rows[303]["fault"] == "value" and json.loads(rows[0]["event"])["kind"] == "log-opened"


def test_a_spreadsheet_runs_no_formula_from_the_network(
    opener: Opener, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = opener()
    log.append([Malformed(session="s", source="10.9.9.9", section="x", detail='=HYPERLINK("http://x")')], maker="outer")
    log.close()
    rows = list(csv.DictReader(audit(tmp_path, capsys, "export", "--format", "csv")[1].splitlines()))
    assert rows[-1]["detail"].startswith("'=")


def test_bad_input(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb, more, text in [
        ("show", ["--kind", "nonsense"], "no kind of event 'nonsense'"),
        ("show", ["--since", "yesterday"], "is not a time"),
        ("verify", ["--checkpoint", str(state / "none")], "cannot be read"),
        ("show", ["--key", str(state / "none")], "no public key"),
        ("verify", ["--log", str(state / "none")], "no audit log"),
        ("show", ["--log", str(state / "none")], "no audit log"),
        ("show", ["--log", str(state / "audit" / "audit")], f"{state / 'audit'} is an audit log, and no state folder"),
    ]:
        code, out = audit(state, capsys, verb, *more)
        assert code == 2 and text in out, (verb, more, out)


@pytest.mark.parametrize(
    "text", ["5x", "999999999999999d", "²d", "2026-13-01T00:00:00Z", "-5m", "", "0001-01-01T00:00+23:00"]
)
def test_what_is_no_time_is_no_traceback(text: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = audit(state, capsys, "show", f"--since={text}")
    if text:  # nothing is no filter
        assert code == 2 and f"{text!r} is not a time" in out and "15m" in out


def test_times_may_have_an_offset_and_be_long_ago(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, everything = audit(state, capsys, "show")
    assert audit(state, capsys, "show", "--since", "99999999d") == (0, everything)
    first = everything.splitlines()[1].split()
    assert (first[1], first[3]) == ("2026-11-23", "session-opened")
    utc = datetime.fromisoformat(f"{first[1]}T{first[2]}+00:00")
    paris = utc.astimezone(timezone(timedelta(hours=1)))
    for moment in (utc, paris):
        _, out = audit(state, capsys, "show", "--until", (moment + timedelta(seconds=1)).isoformat())
        assert 1 <= len(out.splitlines()) < len(everything.splitlines())
        assert out.splitlines() == everything.splitlines()[: len(out.splitlines())]
    assert audit(state, capsys, "show", "--until", (paris - timedelta(hours=1)).isoformat()) == (0, "")


@pytest.mark.parametrize("text", ["abc", "-1", "99999999999999999999", "²"])
def test_what_is_no_count_is_no_traceback(text: str, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        audit(state, capsys, "show", f"--last={text}")
    assert end.value.code == 2 and "is not a number of entries" in capsys.readouterr().err


def test_tail_follows(state: Path, opener: Opener) -> None:
    command = [sys.executable, "-m", "cofferdam.cli.main", "audit", "tail", "--log", str(state / "audit"), "--json"]
    log = opener()
    child = subprocess.Popen(
        [*command, "--last", "1"], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    try:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["event"]["kind"] == "log-opened"
        for number in range(3):
            log.append([write(number)], maker="inner")
            assert json.loads(child.stdout.readline())["event"]["write"] == f"w{number}"
            log.publish()
    finally:
        child.send_signal(signal.SIGINT)
        child.wait()
        child.stdout.close()  # type: ignore[union-attr]
        log.close()
    assert child.returncode in (130, -signal.SIGINT)
