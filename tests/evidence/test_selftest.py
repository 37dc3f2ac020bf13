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

import pytest

from cofferdam.errors import CofferdamError
from cofferdam.evidence import selftest
from cofferdam.evidence.selftest import Asset, Rig
from tests.gate.conftest import Site, live, site
from tests.waiting import PATIENT

__all__ = ["live", "site"]


def test_on_a_real_gate_recorded_by_another(live: Site) -> None:
    command = [sys.executable, "-m", "cofferdam.cli.main", "evidence", "selftest", "--json", "--state", str(live.state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=2 * PATIENT)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert {one["check"]: one["outcome"] for one in said["checks"]} == {
        "policy.values-checked": "tested", "broker.strict-parse": "tested", "broker.session-break": "tested",
        "broker.fail-closed": "tested",
    }  # fmt: skip
    where = selftest.SEPARATED if os.geteuid() == 0 and selftest.can_wire() else selftest.PLAIN
    assert {one["facts"][-1] for one in said["checks"]} == {where}
    assert said["recorded"] == 4
    assert live.device.writes == []
    assert live.device.connections == 0


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
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self._asset))
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
    monkeypatch.setattr(selftest, "STEP_SECONDS", 1.0)
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
    assert session.facts[0] == "the asset saw the client's own transaction id"


def test_a_gate_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "POLICY", "site: {{}}\n# {asset} {listen} {limit}\n")
    with pytest.raises(CofferdamError, match="the gate of the self-test ended"):
        selftest.run(lambda *_: {})
