"""`cofferdam diff running NEW` and `reload`, which tells what it has changed, on a real gate."""

from __future__ import annotations

import json

import pytest

from cofferdam.cli.main import main
from tests.gate.conftest import Site
from tests.gate.plant import Client
from tests.waiting import eventually


def test_what_a_reload_would_change_and_then_does(live: Site, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(live.state)]
    new = live.folder / "new.yaml"
    new.write_text(live.text().replace("addresses: [127.0.0.1]", "addresses: [127.0.0.9]"))
    assert main(["diff", "running", str(live.policy), *state]) == 0
    capsys.readouterr()
    with Client(live.port) as client:
        client.read()
        assert main(["diff", "running", str(new), *state]) == 1
        told = capsys.readouterr().out
        assert "~ principals / erp / networks: 127.0.0.1/32 -> 127.0.0.9/32" in told
        assert "ends: session" in told and "of erp with plc" in told
        assert main(["reload", str(new), "--dry-run", "--json", *state]) == 1
        document = json.loads(capsys.readouterr().out)
        assert [one["asset"] for one in document["sessions_ended"]] == ["plc"]
        assert document["new"] != document["old"]
        client.read()  # nothing has changed
        capsys.readouterr()
        assert main(["whois", "127.0.0.1", *state]) == 0
        told = capsys.readouterr().out
        assert "127.0.0.1 is erp (zone enterprise)" in told and "erp may read plc: level" in told
        assert "open: session" in told
        assert main(["describe", "plc", *state]) == 0
        told = capsys.readouterr().out
        assert f"clients find it at 127.0.0.1:{live.port}" in told and "open: session" in told
        assert main(["whois", "127.0.0.77", "--json", *state]) == 1
        assert json.loads(capsys.readouterr().out)["near"] == ["erp"]
        live.device.close()  # a device that is dead is told
        eventually(lambda: client.read() and main(["describe", "plc", *state]) == 1)
        told = capsys.readouterr().out
        assert "silent:" in told or "backing-off:" in told  # as it is now, or a moment later
    new.write_text(live.text(allow="write: [level]"))
    assert main(["reload", str(new), *state]) == 0
    told = capsys.readouterr().out
    assert "+ erp may write plc: level" in told and "- erp may no longer write plc: speed" in told
    assert main(["reload", "--dry-run", *state]) == 0
    capsys.readouterr()
    new.write_text("site: x\nzons: {}\n")
    assert main(["diff", "running", str(new), *state]) == 2
    assert "did you mean zones" in capsys.readouterr().err
