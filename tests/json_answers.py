"""What a verb has printed with --json is what its schema says. `tests.verbs.cli` asks of each verb that any test runs.

Stricter than the schemas that ship: an object has no member that its schema does not name. Those that ship allow more,
so that a later version may add some.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import jsonschema_rs

from cofferdam.cli.json_schemas import REFUSED, known, schema_of


@functools.cache
def _known() -> dict[str, tuple[str, str]]:
    return known()


@functools.cache
def _validator(what: str) -> Any:
    schema = schema_of(what, _known()[what])
    for part in schema.get("$defs", {}).values():
        if "properties" in part:
            part.setdefault("additionalProperties", False)
    return jsonschema_rs.validator_for(schema)


def holds(what: str, said: Any) -> None:
    """It is as the schema says."""
    wrong = [f"{error.instance_path}: {error.message}" for error in _validator(what).iter_errors(said)]
    assert not wrong, f"cofferdam {what} --json printed what its schema does not say: {wrong[:5]}"


def check(arguments: Sequence[str], code: int, out: str) -> None:
    """What one verb has printed: an error, or its answer, or a line of it each."""
    found = max((what for what in _known() if _begins(arguments, what)), key=len, default="")
    if not found or not out.strip():
        return
    try:
        answers = [json.loads(out)]
    except ValueError:
        answers = [json.loads(line) for line in out.splitlines()]
    for answer in answers:
        refused = code == 2 and isinstance(answer, dict) and "error" in answer
        holds(REFUSED if refused else found, answer)


def _begins(arguments: Sequence[str], what: str) -> bool:
    return list(arguments[: what.count(" ") + 1]) == what.split()
