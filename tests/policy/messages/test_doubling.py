"""Schemas by which a validator's work doubles with each level of a message, and those that only look like it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cofferdam.policy.messages.checked import Checked, Problem
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.messages.doubling import doubles
from cofferdam.policy.terms.relay_rows import Channel, Relay, RelayRows

NODE: dict[str, Any] = {"$ref": "#/$defs/n"}
V = {"type": "integer"}


def forms(word: str, *forms: dict[str, Any]) -> dict[str, Any]:
    return NODE | {"$defs": {"n": {word: list(forms)}}}


CASES: dict[str, tuple[dict[str, Any], int]] = {
    "two forms hold the same child to the whole": (
        forms("anyOf", {"properties": {"c": NODE, "v": V}}, {"properties": {"c": NODE, "k": V}}), 2,
    ),
    "and three": (forms("allOf", *[{"properties": {"c": NODE, f"v{n}": V}} for n in range(3)]), 3),
    "by name and by whatever else": (forms("oneOf", {"properties": {"c": NODE}}, {"additionalProperties": NODE}), 2),
    "in one schema, behind a condition": (
        {"properties": {"c": {"$ref": "#"}}, "if": {"required": ["v"]}, "then": {"properties": {"c": {"$ref": "#"}}}},
        2,
    ),
    "of lists": (forms("anyOf", {"items": NODE, "minItems": 1}, {"items": NODE, "maxItems": 0}), 2),
    "one after the other": ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {
        "a": {"properties": {"c": {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/a"}]}}},
        "b": {"properties": {"c": {"$ref": "#/$defs/a"}}}}}, 2),
    "by an anchor": ({"$anchor": "top", "anyOf": [{"properties": {"c": {"$ref": "#top"}}}] * 2}, 2),
    "a tree": ({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}, 1),
    "a leaf or a tree": (forms("oneOf", V, {"properties": {"left": NODE, "right": NODE}}), 1),
    "forms with other members": (forms("oneOf", {"properties": {"left": NODE}}, {"properties": {"of": NODE}}), 1),
    "a list of lists": ({"items": {"$ref": "#"}}, 1),
    "much, and no way back": ({"allOf": [{"properties": {"c": V}}] * 9}, 1),
    "into itself without a step": ({"$ref": "#"}, 1),
    "to nowhere": ({"anyOf": [{"$ref": "other.json"}, {"$ref": "#/$defs/none"}, {"$ref": "#none"}]}, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_doubles(name: str) -> None:
    schema, times = CASES[name]
    assert doubles({"s.json": schema}, "s.json") == times


def test_by_way_of_another_file() -> None:
    one = {"anyOf": [{"$ref": "parts/two.json"}, {"properties": {"c": {"$ref": "#"}}}]}
    two = {"$id": "https://example.com/two", "properties": {"c": {"$ref": "../one.json"}}}
    assert doubles({"one.json": one, "parts/two.json": two}, "one.json") == 2
    assert doubles({"one.json": one}, "one.json") == 1


def test_what_is_more_than_can_be_looked_at_counts_as_doubling() -> None:
    """Each definition holds to the next one twice, and the last to the whole: so many ways as nobody counts."""
    many: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    many |= {"d40": {"properties": {"c": {"$ref": "#"}}}}
    assert doubles({"s.json": {"$ref": "#/$defs/d0", "$defs": many}}, "s.json") == 2


def test_a_message_under_such_a_schema_takes_no_hours() -> None:
    schema, _ = CASES["two forms hold the same child to the whole"]
    closed = json.loads(json.dumps(schema))
    for form in closed["$defs"]["n"]["anyOf"]:
        form["additionalProperties"] = False
    channel = Channel(name="c", schema="s.json")
    checks = Checks(Relay([("r", RelayRows(channels=(channel,), schemas={"s.json": json.dumps(closed).encode()}))]))

    def nested(levels: int, value: object) -> bytes:
        return b'{"c": ' * (levels - 1) + json.dumps({"v": value}).encode() + b"}" * (levels - 1)

    assert isinstance(checks("c", nested(10, 1)), Checked)
    deep = "nesting deeper than 10"  # 60 levels would take years
    for levels, words in ((10, "fits none of the forms"), (11, deep), (60, deep)):
        found = checks("c", nested(levels, "x"))
        assert isinstance(found, Problem) and found.fault == "schema" and words in found.detail, found
