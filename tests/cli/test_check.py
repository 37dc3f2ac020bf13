"""`cofferdam check` finds what a gate would refuse at its start."""

from __future__ import annotations

from pathlib import Path

import pytest

from cofferdam.cli import old_export
from cofferdam.cli.main import main
from cofferdam.policy.load import load

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


OLD = """
collectors:
  soc: {to: "tls://10.1.0.50:6514", ca: /etc/cofferdam/soc-ca.pem, name: soc.example, form: ocsf,
        kinds: [alarm, refused], certificate: /c.pem, key: /k.pem}
  lake: {to: "https://10.1.0.51:8443/in", ca: /etc/cofferdam/soc-ca.pem, header: {Authorization: "file:/lake.token"}}
  archive: {to: "file:///var/spool/siem/cofferdam.jsonl"}
"""


def test_collectors_of_an_earlier_release_are_named_with_the_way_to_write_them_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, old = tmp_path / "policy.yaml", tmp_path / "export.yaml"
    good = TWO_SIDES[: TWO_SIDES.index("  from-field")]
    policy.write_text(good)
    assert main(["check", "--strict", str(policy)]) in (0, 1)
    assert "export.yaml" not in capsys.readouterr().out
    old.write_text(OLD)
    assert main(["check", "--strict", str(policy)]) == 1
    said = capsys.readouterr().out
    assert "which nothing reads any more" in said
    assert "cofferdam export secret lake --token /lake.token" in said
    assert "cofferdam export secret soc --certificate /c.pem --key /k.pem" in said
    now = [line[4:] for line in said.split("\n") if line.startswith("    ") and " | " not in line]
    (tmp_path / "soc-ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    lines = now[now.index("audit:") :]
    text = "\n".join(lines[: next(at for at, line in enumerate(lines) if line.startswith(("cp ", "cofferdam ")))])
    policy.write_text(f"{good}{text}\n")
    assert set(load(policy).policy.audit.collectors) == {"soc", "lake", "archive"}
    for damaged in ("", "collectors: 7", "{", "collectors: {a: 1}", "\x00"):
        old.write_text(damaged)
        assert old_export.rewritten(old) == ()
        assert main(["check", str(policy)]) == 0
        assert "which nothing reads" in capsys.readouterr().out
