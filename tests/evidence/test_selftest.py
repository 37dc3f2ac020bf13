"""The self-test on a real gate, and that it fails where something in the gate's place only passes bytes on."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.jump import signin
from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.errors import CofferdamError
from cofferdam.evidence import selftest, selftest_jump
from cofferdam.evidence.model import Finding
from cofferdam.evidence.selftest import Asset, Rig
from cofferdam.gate.client import ask
from tests.gate.conftest import Site, live, site
from tests.verbs import cli
from tests.waiting import PATIENT

__all__ = ["live", "site"]


def test_on_a_real_gate_recorded_by_another(live: Site) -> None:
    command = [sys.executable, "-m", "cofferdam.cli.main", "evidence", "selftest", "--json", "--state", str(live.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * PATIENT)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert {one["check"]: one["outcome"] for one in said["checks"]} == {
        "policy.values-checked": "tested", "broker.strict-parse": "tested", "broker.session-break": "tested",
        "broker.flood-limits": "tested", "broker.fail-closed": "tested",
    }  # fmt: skip
    where = selftest.SEPARATED if os.geteuid() == 0 and selftest.can_wire() else selftest.PLAIN
    assert {one["facts"][-1] for one in said["checks"]} == {where}
    assert said["recorded"] == 5
    assert live.device.writes == []
    assert live.device.connections == 0


def test_what_failed_of_a_jump_server_that_is_gone_is_over(live: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else looks at it: its alarm would stand for ever."""
    monkeypatch.setattr(selftest, "apart", lambda: False)
    monkeypatch.setattr(selftest, "run", lambda *_, **__: [])
    bad = Finding(selftest_jump.CHECK, "failed", "it let somebody in", (), selftest_jump.SUBJECT)
    ask(live.state, "findings", found=[msgspec.to_builtins(bad)])
    alarm = f"check-{selftest_jump.CHECK}"
    assert alarm in {one["name"] for one in ask(live.state, "status")["alarms"]}
    assert cli("evidence", "selftest", "--state", live.state)[0] == 0
    assert alarm not in {one["name"] for one in ask(live.state, "status")["alarms"]}
    code, out, _ = cli("evidence", "selftest", "--json", "--state", live.state)
    assert (code, json.loads(out)) == (0, {"recorded": 0, "checks": []}), "once is enough"


class PassesBytesOn:
    """No gate: a relay of bytes between client and asset."""

    def __init__(self, asset: int) -> None:
        self._asset = asset
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:  # it is closed
                return
            try:
                other = socket.create_connection(("127.0.0.1", self._asset))
            except OSError:  # so is the asset
                one.close()
                return
            for source, target in ((one, other), (other, one)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
        source.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(selftest, "STEP_SECONDS", 2.0)
    asset = Asset()
    asset.serve()
    relay = PassesBytesOn(asset.port)
    yield Rig(asset, relay.port, tmp_path, lambda *_: {"malformed": 0, "pairs": []})
    relay.close()
    asset.close()


def test_it_can_fail(fake: Rig) -> None:
    values = selftest._values(fake)
    assert values.outcome == "failed"
    assert "a write of 1501 was answered as done" in values.facts
    broken = selftest._broken(fake)
    assert broken.outcome == "failed"
    assert any("reached the asset" in fact or "went on" in fact for fact in broken.facts)
    session = selftest._session(fake)
    assert (session.outcome, session.facts[0]) == ("failed", "the asset saw the client's own transaction id")
    flood = selftest._flood(fake)
    assert (flood.outcome, flood.says) == ("failed", "all 100 connections of one client were kept")


def test_sessions_that_outlive_a_half(fake: Rig) -> None:
    """What is killed carries none of them; what does goes on, and judges nothing."""
    with contextlib.ExitStack() as ends:
        halves: dict[str, subprocess.Popen[bytes]] = {}

        def status(*_: object) -> dict[str, Any]:
            for role in ("inner", "outer"):
                if role not in halves or halves[role].poll() is not None:
                    halves[role] = ends.enter_context(subprocess.Popen(["sleep", "600"]))
                    ends.callback(halves[role].kill)
            found = [{"role": role, "pid": half.pid, "ready": True} for role, half in halves.items()]
            return {"pairs": [{"working": True, "halves": found}]}

        closed = selftest._killed(fake._replace(ask=status))
    assert closed.outcome == "failed"
    assert {"the session outlived the inner half", "the session outlived the outer half"} <= set(closed.facts)
    assert "with the outer half dead a forbidden write reached the asset" in closed.facts


def test_a_neighbour_who_gets_no_answer(fake: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else holds: what counts is that another one is served."""
    reads = iter((42, 42, 7))
    monkeypatch.setattr(selftest, "_all_they_get", lambda *_: [])
    monkeypatch.setattr(selftest, "NEIGHBOUR_READS", 3)
    monkeypatch.setattr(selftest, "_works", lambda *_: True)
    monkeypatch.setattr(selftest.Client, "read", lambda _: next(reads))
    flood = selftest._flood(fake)
    assert (flood.outcome, flood.says) == ("failed", "the neighbour had 2 of 3 answers")


# --- the jump server's keeper -------------------------------------------------------------------------------------


def test_nobody_is_signed_in_by_a_part_that_was_taken_over() -> None:
    found = selftest_jump.run()
    assert (found.check, found.outcome, found.subject) == ("access.signed-hop", "tested", "self-test")
    assert len(found.facts) == 8


@pytest.mark.parametrize(
    ("what", "named"),
    [
        (
            "signatures are not looked at",
            {"a signature of another connection", "the user's key, with a signature by another"},
        ),
        ("keys are not looked at", {"another person's key and signature"}),
        ("what served serves again", {"the same connection told once more"}),
        ("a key is enough", {"a user's signature without their code"}),
        ("nobody gets in", set()),
    ],
)
def test_a_keeper_that_believes(monkeypatch: pytest.MonkeyPatch, what: str, named: set[str]) -> None:
    """Each of its looks taken away is found, by what got through."""
    if what == "signatures are not looked at":
        monkeypatch.setattr(signin, "_verifies", lambda *_: True)
    elif what == "keys are not looked at":
        owner = Accounts.owner
        monkeypatch.setattr(Accounts, "owner", lambda self, blob: "tester" if owner(self, blob) else "")
    elif what == "what served serves again":
        monkeypatch.setattr(Accounts, "serves", lambda *_: True)
    elif what == "a key is enough":
        monkeypatch.setattr(signin, "_flags", lambda *_: (0xFF, 0))
    else:
        monkeypatch.setattr(signin, "_verifies", lambda *_: False)
    found = selftest_jump.run()
    assert found.outcome == "failed"
    if not named:
        assert found.says.startswith("a person who signs in as they should was not let in")
    assert named <= {fact.removesuffix(" signed somebody in") for fact in found.facts}


def test_a_gate_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "POLICY", "site: {{}}\n# {asset} {listen} {limit}\n")
    with pytest.raises(CofferdamError, match="the gate of the self-test ended"):
        selftest.run(lambda *_: {})
