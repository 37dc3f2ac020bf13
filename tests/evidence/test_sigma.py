"""Sigma rules: each has a sample that it must match and one that it must not, and names what there is."""

from __future__ import annotations

import collections
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from cofferdam.audit.entry import DRAFTS

FOLDER = Path(__file__).parent.parent.parent / "packaging" / "siem" / "sigma"
RULES: dict[str, Any] = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}
SAMPLES = json.loads((FOLDER / "samples.json").read_text())
BY_NAME = {rule["name"]: rule for rule in RULES.values()}
MEMBERS = {one.__struct_config__.tag: {field.encode_name for field in msgspec.structs.fields(one)} for one in DRAFTS}


def of(entry: dict[str, Any], path: str) -> Any:
    found: Any = entry
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def selected(entry: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """A map of a detection: every field has its value, or one of its values."""
    return all(of(entry, path) in (value if isinstance(value, list) else [value]) for path, value in wanted.items())


def matches(rule: dict[str, Any], entries: list[dict[str, Any]]) -> bool:
    if "correlation" in rule:
        wanted = rule["correlation"]
        (single,) = (BY_NAME[name] for name in wanted["rules"])
        groups = collections.Counter(
            tuple(of(entry, path) for path in wanted["group-by"]) for entry in entries if matches(single, [entry])
        )
        return any(count >= wanted["condition"]["gte"] for count in groups.values())
    detection = rule["detection"]
    first, *rest = detection["condition"].split(" and not ")
    return any(
        selected(entry, detection[first]) and not any(selected(entry, detection[name]) for name in rest)
        for entry in entries
    )


@pytest.mark.parametrize("name", RULES)
def test_rule(name: str) -> None:
    rule, samples = RULES[name], SAMPLES[name]
    assert rule.keys() >= {"title", "id", "name", "status", "description", "level"}
    assert matches(rule, samples["match"])
    assert not matches(rule, samples["not"])
    for entry in (*samples["match"], *samples["not"]):
        assert set(entry["event"]) - {"kind"} <= MEMBERS[entry["event"]["kind"]]
    for part in rule.get("detection", {}).values():
        if isinstance(part, dict):
            kinds = part.get("event.kind", [])
            for kind in kinds if isinstance(kinds, list) else [kinds]:
                assert kind in MEMBERS
                for field in part:
                    assert (
                        field == "event.kind" or field.removeprefix("event.") in MEMBERS[kind] or kind == "refused-many"
                    )


def test_nothing_is_left_over() -> None:
    assert set(RULES) == set(SAMPLES)
    assert len({rule["id"] for rule in RULES.values()}) == len(RULES) == 15
