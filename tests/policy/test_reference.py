"""The generated pages are current, every field is described, and the JSON Schema says what the loader does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.cli.docs import SCHEMA, pages
from cofferdam.cli.main import main
from cofferdam.limits import Limits
from cofferdam.policy import rows, schema
from cofferdam.policy.reference import PARTS, broker_parts, json_schema, policy_reference
from cofferdam.policy.terms.kinds import KINDS

ROOT = Path(__file__).parent.parent.parent


MODELS = [
    *(model for _, model, _ in PARTS),
    *dict.fromkeys(part.model for terms in KINDS.values() for part in broker_parts(terms)),
]


def fields() -> Iterator[tuple[str, str, str]]:
    for model in MODELS:
        for name, field in model.model_fields.items():
            yield model.__name__, field.alias or name, field.description or ""


def test_every_field_is_described() -> None:
    text = policy_reference()
    wrong = [
        f"{model}.{name}: {description!r}"
        for model, name, description in fields()
        if len(description) <= 15 or not description.endswith((".", "`")) or f"| `{name}` |" not in text
    ]
    assert not wrong
    assert len(list(fields())) > 600


def test_every_part_of_the_schema_has_a_heading() -> None:
    assert {model.__name__ for model in MODELS} - {"Conduit"} == {"Policy", *json_schema()["$defs"]}


def test_generated_pages_are_current() -> None:
    for path, text in pages(ROOT / "docs").items():
        assert path.read_text("utf-8") == text, f"{path} is not current: run make docs"


def test_the_shipped_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert printed == SCHEMA.read_text("utf-8")
    assert json.loads(printed)["required"] == ["site", "zones"]


def test_limits_are_the_limits() -> None:
    assert list(schema.LimitsSection.model_fields) == list(Limits.__struct_fields__)
    assert msgspec.structs.asdict(Limits()) == {
        name: field.default for name, field in schema.LimitsSection.model_fields.items()
    }
    assert rows.Audit().interval_ms == schema.Audit.model_fields["interval"].default


def test_docs_check_and_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", str(tmp_path / "d"), "--check"]) == 1
    assert main(["docs", str(tmp_path / "d")]) == 0
    assert main(["docs", str(tmp_path / "d"), "--check"]) == 0
    assert (tmp_path / "d" / "policy-reference.md").read_text("utf-8") == policy_reference()
    assert "## cofferdam explain" in (tmp_path / "d" / "cli.md").read_text("utf-8")
    capsys.readouterr()


def walk(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from walk(value)
    elif isinstance(part, list):
        for value in part:
            yield from walk(value)


def test_the_schema_is_whole() -> None:
    found = json_schema()
    references = {node["$ref"] for node in walk(found) if isinstance(node.get("$ref"), str)}
    assert references == {f"#/$defs/{name}" for name in found["$defs"]}
    assert all(part["additionalProperties"] is False for part in [found, *found["$defs"].values()])
