"""JSON Schemas of what the verbs print with `--json`, from the types that the verbs say they print.

A verb says it where it declares the option (gate_options.add_json), so that a new one has its schema by that. Not here:
the schema of a policy file (policy.reference).
"""

from __future__ import annotations

import argparse
import importlib
import types
import typing
from typing import Any

import msgspec

from cofferdam.audit.entry import DRAFTS, TIMES, Entry

DRAFT = "https://json-schema.org/draft/2020-12/schema"
REFUSED, ENTRY = "error", "entry"
"""What is of no verb alone: an error of any, and a line of `audit show`, `audit tail` and the exports."""
_OWN = {
    REFUSED: ("cofferdam.cli.json_shapes", "Refused"),
    ENTRY: ("cofferdam.audit.entry", "Entry"),
}


def verbs(parser: argparse.ArgumentParser | None = None, words: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    """Of each verb that takes --json (its words, with a space between) the module and the annotation of what it
    prints. Raises: KeyError, for one that does not say it."""
    if parser is None:
        from cofferdam.cli.main import build_parser

        parser = build_parser()
    found: dict[str, tuple[str, str]] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                found |= verbs(sub, (*words, word))
        elif "--json" in action.option_strings:
            said = parser.get_default("prints")
            if said is None:
                raise KeyError(" ".join(words))
            found[" ".join(words)] = said
    return found


def known() -> dict[str, tuple[str, str]]:
    """All that there are schemas of, by their words."""
    return {**_OWN, **verbs()}


def schema_of(what: str, said: tuple[str, str]) -> dict[str, Any]:
    """The schema of what is printed; `said` is one of `known`."""
    return {"$schema": DRAFT, "title": f"cofferdam {what}", **_schema(_kind(*said))}


def _kind(module: str, annotation: str) -> Any:
    names = vars(importlib.import_module(module))
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, {**vars(typing), **names})["it"]


def _schema(kind: Any) -> dict[str, Any]:
    """One of several types is not among what msgspec knows of objects: it makes their schemas one by one."""
    if kind is Entry:
        return _entry()
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        several = typing.get_args(kind)
        if Entry in several:
            schemas = [_schema(one) for one in several]
            defined = {name: part for one in schemas for name, part in one.pop("$defs", {}).items()}
            return {"anyOf": schemas, "$defs": defined}
        found, parts = msgspec.json.schema_components(several, ref_template="#/$defs/{name}")
        return {"anyOf": list(found), "$defs": parts}
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        made = _schema(item)
        parts = made.pop("$defs", {})
        return {"type": "array", "items": made, "$defs": parts}
    return msgspec.json.schema(kind)


def _entry() -> dict[str, Any]:
    """Nanoseconds are texts in the log: JSON's numbers do not hold them."""
    entry = msgspec.json.schema(Entry)["$defs"]["Entry"]
    kinds, parts = msgspec.json.schema_components(DRAFTS, ref_template="#/$defs/{name}")
    for part in parts.values():
        for time in TIMES & part.get("properties", {}).keys():
            part["properties"][time] = {"type": "string", "pattern": "^[0-9]+$", "description": "Nanoseconds, UTC."}
    entry["properties"]["event"] = {"anyOf": list(kinds)}
    return {**entry, "$defs": parts}
