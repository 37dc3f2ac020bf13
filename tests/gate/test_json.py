"""What commands print with --json is as `cofferdam schema` says: a real gate's status and log, verbs, errors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.audit.entry import KINDS
from cofferdam.audit.lines import escaped_json
from cofferdam.cli.json_schemas import known, schema_of, verbs
from cofferdam.cli.main import build_parser
from tests.gate.conftest import Site
from tests.gate.plant import Client
from tests.json_answers import check, holds
from tests.verbs import cli

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "riverside-water.yaml"


def printed(*words: str | Path) -> Any:
    """What a verb prints with --json, which `cli` holds against its schema."""
    return json.loads(cli(*words, "--json")[1])


def test_each_verb_with_json_has_a_schema() -> None:
    """The parsers are walked: a verb with --json that does not say what it prints ends the walk by KeyError."""
    for what, said in verbs().items():
        schema = schema_of(what, said)
        assert schema.keys() & {"$ref", "anyOf", "items", "type", "properties", "additionalProperties"}, what
    parser = argparse.ArgumentParser()
    parser.add_subparsers().add_parser("new").add_argument("--json", action="store_true")
    with pytest.raises(KeyError, match="new"):
        verbs(parser)


def test_what_takes_no_json() -> None:
    """What plays in a terminal, and the lab's actors, who say all that they do in JSON anyhow; a new one of them is
    written down here."""
    silent = {
        "jump watch", "jump recording play",
        *(f"lab {word}" for word in (
            "plant", "erp", "operator", "intruder", "mes", "erp-desk", "plc", "gateway", "maintenance", "filler",
            "filling-mes", "filling-operator", "vendor",
        )),
    }  # fmt: skip
    assert set(leaves(build_parser())) - verbs().keys() == silent


def leaves(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[str]:
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield " ".join(words)
    for action in below:
        for word, sub in action.choices.items():
            yield from leaves(sub, (*words, word))


def test_a_gate_and_its_log(calm: Site) -> None:
    with Client(calm.port) as client:
        client.read()
        client.write(7)
        client.ask(b"\x03\x00\x63\x00\x01")
        assert printed("status", "--state", calm.state)["sessions"], "one of them is looked at"
    lines = [json.loads(line) for line in cli("audit", "show", "--json", "--state", calm.state)[1].splitlines()]
    assert len({line["event"]["kind"] for line in lines}) > 5
    with pytest.raises(AssertionError):
        holds("entry", {**lines[0], "event": {**lines[0]["event"], "wall_ns": 7}})
    assert printed("prove", "--state", calm.state)["report"]


def test_verbs_and_errors(calm: Site, tmp_path: Path) -> None:
    assert not printed("check", EXAMPLE)["errors"]
    asked = ("--from", "10.1.5.7", "--asset", "plc-7", "--operation", "write pump_speed 1600")
    assert printed("explain", EXAMPLE, *asked)
    changed = tmp_path / "p.yaml"
    text = EXAMPLE.read_text("utf-8").replace("max: 1500", "max: 1400")
    changed.write_text(text.replace("owner: operations", "x: y"))
    assert printed("check", changed)["errors"]
    refused = [printed("status", "--state", tmp_path), printed("explain", changed, *asked[:2])]
    assert refused[1]["problems"]
    assert [one.keys() for one in refused] == [{"error", "hint", "problems"}] * 2
    assert "arguments are required: ASSET" in printed("ping")["error"], "what the parser refuses is an object as well"
    changed.write_text(text)
    assert printed("diff", EXAMPLE, changed)["changed"]


def test_what_does_not_hold_is_found() -> None:
    """Of what a verb prints: a member too many, one of another type, one too few."""
    metric = {"name": "x", "type": "counter", "labels": [], "meaning": "y"}
    check(["metrics", "--json"], 0, json.dumps([metric]))
    for wrong in ({**metric, "more": 1}, {**metric, "labels": "a"}, {"name": "x"}, {"error": "x"}):
        with pytest.raises(AssertionError, match="metrics"):
            check(["metrics", "--json"], 0, json.dumps([wrong]))


def test_there_is_one_of_each_and_all_kinds_of_entries() -> None:
    there = known()
    assert set(cli("schema", "--list")[1].splitlines()) == {"policy", *there}
    for what in ("status", "relay quarantine list", "entry", "error"):
        assert json.loads(cli("schema", *what.split())[1]) == json.loads(json.dumps(schema_of(what, there[what])))
    code, _, err = cli("schema", "stats")
    assert code == 2 and "did you mean status" in err
    parts = schema_of("entry", there["entry"])["$defs"].values()
    assert set(KINDS) <= {word for part in parts for word in part.get("properties", {}).get("kind", {}).get("enum", [])}


def test_the_operators_verbs(calm: Site, tmp_path: Path) -> None:
    """Each verb of the operator's day on a gate that runs, once: what it prints is what its schema says."""
    with Client(calm.port) as client:
        client.read()
        for words in (
            ("up", calm.policy, "--check-only"),
            ("reload", calm.policy),
            ("reload", calm.policy, "--dry-run"),
            ("ping", "plc"),
            ("whois", "127.0.0.1"),
            ("describe", "plc"),
            ("show",),
            ("grant", "list"),
            ("audit", "verify"),
            ("audit", "prove", "2"),
            ("evidence", "run", "clock.sound"),
            ("evidence", "list"),
            ("evidence", "show", "log.whole"),
            ("evidence", "clocks"),
            ("evidence", "report", "--framework", "nis2"),
            ("evidence", "signer", "list"),
            ("evidence", "baseline"),
            ("evidence", "bom"),
            ("evidence", "drill", "restore", "--text", "the log was read from a copy"),
            ("sever", "asset", "plc"),
            ("restore", "asset", "plc"),
            ("sever", "it"),
            ("restore", "it"),
        ):
            said = printed(*words, "--state", calm.state)
            assert not isinstance(said, dict) or "error" not in said, said
    for line in cli("audit", "export", "--json", "--last", "3", "--state", calm.state)[1].splitlines():
        assert json.loads(line)["index"] >= 0
    assert printed("audit", "export", "--checkpoint", "--state", calm.state)["form"] == "signed note"
    assert "leave one" in printed("audit", "export", "--format", "csv", "--state", calm.state)["hint"]
    table = tmp_path / "log.csv"
    said = printed("audit", "export", "--format", "csv", "--output", table, "--state", calm.state)
    assert said == {"form": "csv", "written": str(table)} and table.read_text().startswith("index,")
    proof = tmp_path / "proof.json"
    cli("audit", "prove", "2", "--output", proof, "--state", calm.state)
    assert printed("audit", "prove", "--check", proof, "--state", calm.state)["good"]


def test_verbs_without_a_gate(tmp_path: Path) -> None:
    for words in (
        ("metrics", "refused"),
        ("advise", "switch", EXAMPLE, "--gate-port", "Gi1/0/1", "--vlan", "100"),
        ("install", EXAMPLE, "--root", tmp_path, "--program", "/usr/bin/x"),
        ("install", EXAMPLE, "--print", "--program", "/usr/bin/x"),
        ("whois", "10.1.0.21", "--policy", EXAMPLE),
        ("describe", "plc-7", "--policy", EXAMPLE),
        ("diagram", EXAMPLE),
        ("diagram", EXAMPLE, "--out", tmp_path / "site.svg"),
        ("schema", "--list"),
        ("completion", "fish"),
        ("docs", tmp_path, "--check"),
        ("lab", "policy"),
        ("fmt", EXAMPLE),
    ):
        said = printed(*words)
        assert "error" not in said, said
    untidy = tmp_path / "p.yaml"
    untidy.write_text("site:   works  \n")
    assert printed("fmt", untidy, "--diff") == {
        "files": [str(untidy)], "written": False,
        "diff": f"--- {untidy}\n+++ {untidy} (normal form)\n@@ -1 +1 @@\n-site:   works  \n+site:   works\n",
    }  # fmt: skip
    assert printed("fmt", untidy) == {"files": [str(untidy)], "written": True}
    assert printed("fmt", tmp_path / "none.yaml")["error"].endswith("No such file or directory"), "of the system, too"


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
