"""What commands print with --json is as `cofferdam schema` says: a real gate's status and log, verbs, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from cofferdam.audit.entry import KINDS
from cofferdam.cli.json_schemas import SCHEMAS, schema_of
from cofferdam.cli.main import main
from cofferdam.cli.schema import WHATS
from tests.gate.conftest import Site
from tests.gate.plant import Client

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "riverside-water.yaml"


def holds(what: str, said: Any) -> None:
    validator = jsonschema_rs.validator_for(schema_of(what))
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
    assert ("policy", *SCHEMAS) == WHATS
    for what in SCHEMAS:
        assert printed(capsys, "schema", what) == json.loads(json.dumps(schema_of(what)))
    parts = schema_of("entry")["$defs"].values()
    assert set(KINDS) <= {word for part in parts for word in part.get("properties", {}).get("kind", {}).get("enum", [])}
