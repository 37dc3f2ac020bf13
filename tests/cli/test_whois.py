"""Who an address is, and what an asset is, by a policy alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cofferdam.cli.main import main

POLICY = str(Path(__file__).parents[2] / "examples" / "riverside-water.yaml")


def test_who_an_address_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whois", "10.1.5.9", "--policy", POLICY]) == 0
    told = capsys.readouterr().out
    assert "10.1.5.9 is operators (zone enterprise)" in told
    assert "operators may write plc-7: pump_speed   (conduit pump-setpoint)" in told
    assert main(["whois", "10.1.0.21", "--policy", POLICY, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["near"] == ["erp", "operators"]
    assert main(["whois", "fd00::1", "--policy", POLICY]) == 1
    assert "near" not in capsys.readouterr().out
    assert main(["whois", "scada", "--policy", POLICY]) == 2
    assert "one such as" in capsys.readouterr().err


def test_what_an_asset_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "plc-7", "--policy", POLICY]) == 0
    told = capsys.readouterr().out
    assert "plc-7: modbus at 10.20.0.17:502, zone control" in told
    assert "erp may ask plc-7: function 43/14   (conduit erp-reads-flow)" in told
    assert main(["describe", "plc7", "--policy", POLICY]) == 2
    assert "did you mean plc-7?" in capsys.readouterr().err
