"""`cofferdam check` finds what a gate would refuse at its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.cli.main import main

TWO_SIDES = """
site: works
zones:
  office: {side: it}
  field: {side: ot}
  plant: {side: ot}
assets:
  plc: {zone: plant, address: 10.20.0.17, protocol: modbus, unit: 1, listen: "10.1.0.7:502"}
principals:
  erp: {zone: office, addresses: 10.1.0.20}
  panel: {zone: field, addresses: 10.30.0.20}
conduits:
  from-office:
    {from: office, to: plant, broker: modbus, owner: o, reason: r,
     allow: [{who: erp, asset: plc, registers: [holding 0-9]}]}
  from-field:
    {from: field, to: plant, broker: modbus, owner: o, reason: r,
     allow: [{who: panel, asset: plc, registers: [holding 0-9]}]}
"""


def test_a_road_that_no_pair_can_serve_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(TWO_SIDES)
    assert main(["check", str(policy)]) == 2
    assert "different sides and reach the same device" in capsys.readouterr().err
