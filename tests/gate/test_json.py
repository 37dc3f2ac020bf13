"""What commands print with --json is as `cofferdam schema` says: a real gate's status and log, verbs, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from cofferdam.audit.entry import KINDS
from cofferdam.audit.lines import escaped_json
from cofferdam.cli.json_schemas import SCHEMAS, schema_of
from cofferdam.cli.json_shapes import SHAPES
from cofferdam.cli.main import main
from tests.gate.conftest import Site
from tests.gate.plant import Client

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "riverside-water.yaml"


def holds(what: str, said: Any) -> None:
    """It is as the schema says, and has nothing that the schema does not name."""
    schema = schema_of(what)
    if what in SHAPES:
        for part in schema.get("$defs", {}).values():
            part.setdefault("additionalProperties", what == "show")
    validator = jsonschema_rs.validator_for(schema)
    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(said)] == []


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Any:
    main([*map(str, words)])
    return json.loads(capsys.readouterr().out)


def test_a_gate_and_its_log(calm: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with Client(calm.port) as client:
        client.read()
        client.write(7)
        client.ask(b"\x03\x00\x63\x00\x01")
        status = printed(capsys, "status", "--json", "--state", calm.state)
    holds("status", status)
    assert status["sessions"], "one of them is looked at"
    main(["audit", "show", "--json", "--state", str(calm.state)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({line["event"]["kind"] for line in lines}) > 5
    for line in lines:
        holds("entry", line)
    with pytest.raises(AssertionError):
        holds("entry", {**lines[0], "event": {**lines[0]["event"], "wall_ns": 7}})
    holds("prove", printed(capsys, "prove", "--json", "--state", calm.state))


def test_verbs_and_errors(calm: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    holds("check", printed(capsys, "check", EXAMPLE, "--json"))
    asked = ("--from", "10.1.5.7", "--asset", "plc-7", "--operation", "write pump_speed 1600")
    holds("explain", printed(capsys, "explain", EXAMPLE, *asked, "--json"))
    changed = tmp_path / "p.yaml"
    changed.write_text(
        EXAMPLE.read_text("utf-8").replace("max: 1500", "max: 1400").replace("owner: operations", "x: y")
    )
    wrong = printed(capsys, "check", changed, "--json")
    holds("check", wrong)
    assert wrong["errors"]
    changed.write_text(EXAMPLE.read_text("utf-8").replace("max: 1500", "max: 1400"))
    differing = printed(capsys, "diff", EXAMPLE, changed, "--json")
    holds("diff", differing)
    assert differing["changed"]
    for words in (
        ("status", "--state", tmp_path),
        ("explain", changed, *asked[:2], "--json"),
        ("ping", "x", "--state", tmp_path),
    ):
        holds("error", printed(capsys, *words, "--json"))


def test_there_is_one_of_each_and_all_kinds_of_entries(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema", "--list"])
    assert set(capsys.readouterr().out.splitlines()) == {"policy", *SCHEMAS}
    for what in SCHEMAS:
        assert printed(capsys, "schema", *what.split()) == json.loads(json.dumps(schema_of(what)))
    assert main(["schema", "stats"]) == 2
    assert "did you mean status" in capsys.readouterr().err
    parts = schema_of("entry")["$defs"].values()
    assert set(KINDS) <= {word for part in parts for word in part.get("properties", {}).get("kind", {}).get("enum", [])}


def test_the_operators_verbs(calm: Site, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each verb of the operator's day on a gate that runs, once: what it prints is what its schema says."""
    with Client(calm.port) as client:
        client.read()
        asked = {
            "up": ("up", calm.policy, "--check-only"),
            "reload": ("reload", calm.policy),
            "ping": ("ping", "plc"),
            "whois": ("whois", "127.0.0.1"),
            "describe": ("describe", "plc"),
            "show": ("show",),
            "audit verify": ("audit", "verify"),
            "audit prove": ("audit", "prove", "2"),
            "evidence run": ("evidence", "run", "clock.sound"),
            "evidence list": ("evidence", "list"),
            "evidence show": ("evidence", "show", "log.whole"),
            "evidence clocks": ("evidence", "clocks"),
            "evidence report": ("evidence", "report", "--framework", "nis2"),
            "evidence bom": ("evidence", "bom"),
            "sever": ("sever", "asset", "plc"),
            "restore": ("restore", "asset", "plc"),
        }
        for what, words in asked.items():
            holds(what, printed(capsys, *words, "--json", "--state", calm.state))
        holds("sever", printed(capsys, "sever", "it", "--json", "--state", calm.state))
        holds("restore", printed(capsys, "restore", "it", "--json", "--state", calm.state))
    proof = tmp_path / "proof.json"
    main(["audit", "prove", "2", "--output", str(proof), "--state", str(calm.state)])
    capsys.readouterr()
    holds("audit prove check", printed(capsys, "audit", "prove", "--check", proof, "--json", "--state", calm.state))


def test_verbs_without_a_gate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    holds("metrics", printed(capsys, "metrics", "refused", "--json"))
    switch = ("advise", "switch", EXAMPLE, "--gate-port", "Gi1/0/1", "--vlan", "100")
    holds("advise switch", printed(capsys, *switch, "--json"))
    holds("install", printed(capsys, "install", EXAMPLE, "--root", tmp_path, "--program", "/usr/bin/x", "--json"))
    holds("whois", printed(capsys, "whois", "10.1.0.21", "--policy", EXAMPLE, "--json"))
    holds("describe", printed(capsys, "describe", "plc-7", "--policy", EXAMPLE, "--json"))


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("a\x9bb", "a\\u009bb"),
        ("x\u202ey", "x\\u202ey"),
        ("\x7f", "\\u007f"),
        ("\U000e0001", "\\udb40\\udc01"),
        ("m\xb3\n", "m\xb3\n"),
    ],
)
def test_json_drives_no_terminal(raw: str, safe: str) -> None:
    assert escaped_json(raw) == safe
    if "\n" not in raw:
        assert json.loads(f'"{safe}"') == raw
