"""Schemas learnt from samples: all samples fit, what is different does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.cli.main import main
from cofferdam.policy.messages.learning import schema_of

NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.dates().map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_every_sample_fits_what_was_learnt_from_it(samples: list[Any]) -> None:
    validator = jsonschema_rs.validator_for(schema_of(samples), validate_formats=True)
    for sample in samples:
        validator.validate(sample)


def counts(**other: Any) -> list[dict[str, Any]]:
    return [
        {"line": f"L{number % 2}", "good": number, "at": f"2026-11-{number:02}T06:00:00Z", **other}
        for number in range(1, 21)
    ]


def test_the_draft_says_what_a_count_is() -> None:
    schema = schema_of(counts(), "a count")
    assert schema["title"] == "a count" and "20 samples" in schema["$comment"]
    assert schema["required"] == ["line", "good", "at"] and schema["additionalProperties"] is False
    assert schema["properties"] == {
        "line": {"enum": ["L0", "L1"]},
        "good": {"type": "integer", "minimum": 1, "maximum": 20},
        "at": {"type": "string", "format": "date-time"},
    }


@pytest.mark.parametrize(
    "other",
    [{"good": 10_000_000}, {"line": "L9"}, {"at": "yesterday"}, {"more": 1}, {"good": "5"}, {"good": None}],
)
def test_what_was_not_seen_does_not_fit(other: dict[str, Any]) -> None:
    validator = jsonschema_rs.validator_for(schema_of(counts()), validate_formats=True)
    assert not validator.is_valid(counts()[0] | other)


def test_the_verb_reads_folders_and_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(counts()[0]))
    (tmp_path / "b.ndjson").write_text("".join(json.dumps(count) + "\n" for count in counts()))
    assert main(["relay", "learn", str(tmp_path), "--title", "counts"]) == 0
    out, said = capsys.readouterr()
    assert json.loads(out)["title"] == "counts" and "21 messages in 2 files" in said
    assert main(["relay", "learn", str(tmp_path), "--output", str(tmp_path / "a.json")]) == 2
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "c.ndjson").write_text('{"a": 1}\n{"a": 1, "a": 2}\n')
    assert main(["relay", "learn", str(tmp_path)]) == 2
    assert "c.ndjson:2:" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert main(["relay", "learn", str(tmp_path / "none")]) == 2
    assert "no samples" in capsys.readouterr().err
