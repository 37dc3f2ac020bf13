"""`cofferdam up --check-only`: what would run, for people and for programs, and which interfaces it would take."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from cofferdam.cli.main import main
from tests.ports import held_port

POLICY = """
site: works
zones: {{office: {{side: it{office}}}, plant: {{side: ot, interface: eth7}}}}
assets: {{plc: {{zone: plant, address: 10.20.0.17, protocol: modbus, listen: "127.0.0.1:1502"}}}}
principals: {{erp: {{zone: office, addresses: 10.1.0.20}}}}
conduits:
  reads:
    {{from: office, to: plant, broker: modbus, owner: someone, reason: tests,
      allow: [{{who: erp, asset: plc, registers: holding 0}}]}}
"""


@pytest.mark.parametrize(
    ("office", "taken", "words"),
    [
        (", interface: eth6", True, "interface eth6: zone office; with namespaces it is taken away"),
        (", interface: eth6, attach: macvlan", False, "interface eth6: zone office; with namespaces it is shared"),
    ],
)
def test_check_only(office: str, taken: bool, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(office=office))
    where = ["--state", str(tmp_path / "state")]
    assert main(["up", str(policy), "--check-only", *where]) == 1, "this machine has no eth7"
    said = capsys.readouterr().out
    assert words in said and "interface eth7: zone plant; with namespaces it is taken away" in said
    assert "127.0.0.1:1502 -> plc (10.20.0.17:502)" in said and "of site works: 1 conduit, 1 asset\n" in said
    assert "NOT READY: zone plant: there is no interface eth7\n  this machine has " in said
    assert main(["up", str(policy), "--check-only", "--json", *where]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ready"] and found["lacks"][0]["hard"]
    assert found["interfaces"]["office"] == {"interface": "eth6", "taken": taken}
    assert found["pairs"][0]["assets"] == {"plc": {"listens": ["127.0.0.1:1502"], "device": ["10.20.0.17", 502]}}


def test_a_zone_without_its_interface_makes_no_namespaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `up` has it: the overlay's address must then be this machine's, and is not."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(office="").replace("127.0.0.1:1502", "192.0.2.9:1502"))
    assert main(["up", str(policy), "--check-only", "--state", str(tmp_path / "state")]) == 1
    said = capsys.readouterr().out
    assert "no namespaces: zone office names no interface" in said and "this machine has no such address" in said


def test_json_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", str(tmp_path), "--json"]) == 2
    assert "--log-format json" in capsys.readouterr().err


def test_check_only_looks_at_ports_and_at_the_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, where = tmp_path / "policy.yaml", ["--state", str(tmp_path / "state")]
    held = socket.create_server(("127.0.0.1", held_port()))
    text = POLICY.format(office="").replace(", interface: eth7", "")
    policy.write_text(text.replace("1502", str(held.getsockname()[1])))
    assert main(["up", str(policy), "--check-only", *where]) == 1
    assert "in use" in capsys.readouterr().out
    held.close()
    assert main(["up", str(policy), "--check-only", *where]) == 0
    assert "ready: a gate could start here" in capsys.readouterr().out
    policy.write_text(text.replace("127.0.0.1:1502", "192.0.2.1:1502"))
    assert main(["up", str(policy), "--check-only", *where]) == 1
    assert "no such address" in capsys.readouterr().out


def test_check_only_says_first_that_it_is_not_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's gate would have made the address that is missing."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(office=", interface: eth6").replace("127.0.0.1:1502", "192.0.2.9:1502"))
    assert main(["up", str(policy), "--check-only", "--state", str(tmp_path / "state")]) == 1
    lacks = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("NOT READY", "note"))]
    assert lacks[0].startswith("NOT READY: not root") and any("no such address" in line for line in lacks[1:])


def test_a_file_in_place_of_the_state_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.format(office=""))
    assert main(["up", str(policy), "--check-only", "--state", str(policy)]) == 1
    said = capsys.readouterr().out
    assert f"{policy} is a file\n  name a folder with --state" in said and "as root" not in said


def _tag(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def test_way_in_names_the_group_that_may_ask() -> None:
    from cofferdam.gate.client import _AT_DOORS, _way_in
    from cofferdam.gate.requests import LOOK, MAY

    tags = {_tag(kind): "look" if kind in LOOK else "sever" for kind in MAY["sever"]}
    assert tags == _AT_DOORS
    assert "--sever GROUP" in _way_in("sever") and "GROUP" not in _way_in("reload")


@pytest.mark.parametrize("verb", ["sever", "restore"])
def test_a_name_without_its_kind_is_told_what_to_type(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([verb, "plc-7"])
    assert f"such as `cofferdam {verb} asset plc-7`" in capsys.readouterr().err
