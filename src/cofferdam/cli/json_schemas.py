"""JSON Schemas of what the commands print with `--json`, from the types that they print.

Not here: the schema of a policy file (policy.reference).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from cofferdam.cli.json_shapes import SHAPES
from cofferdam.policy.difference import Difference
from cofferdam.policy.explain import Explanation
from cofferdam.policy.problems import Problem

DRAFT = "https://json-schema.org/draft/2020-12/schema"


class Refused(Struct):
    """What a command prints where it fails, whatever else it would have printed: exit code 2."""

    error: str
    hint: str
    problems: tuple[str, ...]


class Checked(Struct):
    """`check`. Of a policy with errors there is no site, hash or count."""

    policy: str
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    counts: dict[str, int] = {}
    site: str = ""
    hash: str = ""


class Proved(Struct):
    """`prove`: the report, the SHA-256 of its canonical form, and a signed note that names it."""

    report: Any
    sha256: str
    note: str


def _of(kind: Any) -> dict[str, Any]:
    return msgspec.json.schema(kind)


def _entry() -> dict[str, Any]:
    """A line of `audit show` and `audit tail`, and of an export in the gate's own form."""
    from cofferdam.audit.entry import DRAFTS, TIMES, Entry

    entry = msgspec.json.schema(Entry)["$defs"]["Entry"]
    kinds, parts = msgspec.json.schema_components(DRAFTS, ref_template="#/$defs/{name}")
    for part in parts.values():
        for time in TIMES & part.get("properties", {}).keys():
            part["properties"][time] = {"type": "string", "pattern": "^[0-9]+$", "description": "Nanoseconds, UTC."}
    entry["properties"]["event"] = {"anyOf": list(kinds)}
    return {**entry, "$defs": parts}


def _status() -> dict[str, Any]:
    from cofferdam.gate.watch.report import StatusReport

    return _of(StatusReport)


def _simulated() -> dict[str, Any]:
    from cofferdam.capture.simulate import Simulation

    return _of(Simulation)


def _learned() -> dict[str, Any]:
    from cofferdam.capture.learn import Learned

    return _of(Learned)


def _proved() -> dict[str, Any]:
    from cofferdam.proof.statements import Report

    report = _of(Report)
    proved = _of(Proved)
    proved["$defs"]["Proved"]["properties"]["report"] = {"$ref": report["$ref"]}
    return {**proved, "$defs": {**proved["$defs"], **report["$defs"]}}


def _differing() -> dict[str, Any]:
    """`diff`, and `reload --dry-run`."""
    found = _of(Difference)
    differing = found["$defs"]["Difference"]
    differing["properties"] |= {
        "old": {"type": "string"}, "new": {"type": "string"}, "sessions_ended": {"type": "array"},
    }  # fmt: skip
    return found


def _audit_proof() -> dict[str, Any]:
    """`audit prove INDEX` and `--since SIZE`: what `audit prove --check` takes (docs/audit-format.md)."""
    from cofferdam.audit.proof import Consistency, Inclusion

    return _of(Inclusion | Consistency)


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "audit prove": _audit_proof,
    "check": lambda: _of(Checked),
    "diff": _differing,
    "entry": _entry,
    "error": lambda: _of(Refused),
    "explain": lambda: _of(Explanation),
    "learn": _learned,
    "prove": _proved,
    "simulate": _simulated,
    "status": _status,
    **{words: functools.partial(_of, shape) for words, shape in SHAPES.items()},
}
"""By what is printed: a verb, an entry of the audit log, an error of any verb."""


def schema_of(what: str) -> dict[str, Any]:
    """Raises: KeyError, for none of SCHEMAS."""
    return {"$schema": DRAFT, "title": f"cofferdam {what}", **SCHEMAS[what]()}
