"""A policy seen whole: with every default, and as a drawing."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from cofferdam.cli.main import main

POLICY = """
site: works
zones: {office: {side: it, level: 4}, plant: {side: ot}}
assets: {plc: {zone: plant, address: 10.20.0.17, protocol: modbus, listen: "127.0.0.1:1502"}}
principals: {erp: {zone: office, addresses: 10.1.0.20}}
conduits:
  reads:
    {from: office, to: plant, broker: modbus, owner: someone, reason: tests, grant: {most: 1 h},
      allow: [{who: erp, asset: plc, registers: holding 0}]}
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return str(path)


def test_show_says_every_default(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", policy, "--effective"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert main(["show", policy, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == shown
    assert shown["assets"]["plc"]["port"] == 502 and shown["conduits"]["reads"]["grant"]["most_seconds"] == 3600


def test_the_drawing_has_every_zone_and_conduit(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagram", policy, "--out", str(tmp_path / "d.svg")]) == 0
    words = " ".join(ElementTree.parse(tmp_path / "d.svg").getroot().itertext())
    for word in ("office, level 4", "erp 10.1.0.20/32", "plc 10.20.0.17", "reads (modbus, with a grant)"):
        assert word in words
    capsys.readouterr()
    assert main(["diagram", policy, "--format", "mermaid"]) == 0
    drawn = capsys.readouterr().out
    assert drawn.startswith("flowchart LR") and 'z0 -->|"reads (modbus, with a grant)"| z1' in drawn
    assert main(["diagram", policy, "--out", str(tmp_path / "no" / "d.svg")]) == 2
