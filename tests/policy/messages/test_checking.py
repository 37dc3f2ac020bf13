"""The judge of messages: what passes in which form, what is refused in which words and where."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.policy.messages.checked import Checked, Problem, Step
from cofferdam.policy.messages.checking import Checks, pointer
from cofferdam.policy.messages.schemas import SchemaError, Schemas, named_files
from cofferdam.policy.terms.relay_rows import Channel, Limit, Relay, RelayRows

COUNT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["line", "good"],
    "additionalProperties": False,
    "properties": {
        "line": {"type": "string", "pattern": "^[a-z]+-[0-9]+$"},
        "good": {"type": "integer", "minimum": 0},
        "at": {"type": "string", "format": "date-time"},
        "site": {"type": "string", "maxLength": 20},
        "shift": {"enum": ["early", "late"]},
        "parts": {"type": "array", "maxItems": 3, "uniqueItems": True, "items": {"$ref": "part.json"}},
        "either": {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 2}]},
        "third": {"const": 3},
        "half": {"multipleOf": 0.5},
        "not": {"not": {"type": "null"}},
        "none": False,
    },
}
PART = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string", "minLength": 1}}}
FILES = {"count.json": json.dumps(COUNT).encode(), "part.json": json.dumps(PART).encode()}


def checks(**channel: Any) -> Checks:
    """The checks of a relay with one channel, `c`."""
    row = Channel(name="c", **{"schema": "count.json", **channel})
    return Checks(Relay([("conduit", RelayRows(channels=(row,), schemas=FILES))]))


def passed(found: Checked | Problem) -> Checked:
    assert isinstance(found, Checked), found
    return found


def refused(found: Checked | Problem) -> Problem:
    assert isinstance(found, Problem), found
    return found


def test_what_passes_is_remade() -> None:
    found = passed(checks()("c", b'{ "line": "filler-1",\n "good": 5.0 }'))
    assert found.body == b'{"good":5,"line":"filler-1"}'
    assert found.stamp_ns == -1
    assert found.steps == ()


@pytest.mark.parametrize(
    ("more", "place", "words"),
    [
        ({"good": "x"}, "/good", 'the value is not of type "integer"'),
        ({"good": 1.5}, "/good", '1.5 is not of type "integer"'),
        ({"good": True}, "/good", 'true is not of type "integer"'),
        ({"good": -1}, "/good", "-1 is less than the minimum of 0"),
        ({"line": "Filler"}, "/line", 'the value does not match "^[a-z]+-[0-9]+$"'),
        ({"at": "yesterday"}, "/at", 'the value is not a "date-time"'),
        ({"site": "s" * 21}, "/site", "the value is longer than 20 characters"),
        ({"shift": "night"}, "/shift", 'the value is not one of "early" or "late"'),
        ({"parts": [{"id": "a"}, {"id": ""}]}, "/parts/1/id", "the value is shorter than 1 character"),
        ({"parts": [{}]}, "/parts/0", '"id" is a required property'),
        ({"parts": [{"id": "a"}, {"id": "a"}]}, "/parts", "the value has non-unique elements"),
        ({"parts": [1, 2, 3, 4]}, "/parts", "the value has more than 3 items"),
        ({"either": 1.5}, "/either", "the value fits none of the forms that anyOf allows"),
        ({"third": 4}, "/third", "3 was expected"),
        ({"half": 0.3}, "/half", "0.3 is not a multiple of 0.5"),
        ({"not": None}, "/not", '{"type":"null"} is not allowed for the value'),
        ({"none": 1}, "/none", "nothing is allowed here"),
        ({"secret": 1}, "", "Additional properties are not allowed ('secret' was unexpected)"),
        ({"__proto__": 1}, "", "Additional properties are not allowed ('__proto__' was unexpected)"),
    ],
)
def test_what_a_schema_refuses_is_named_with_its_place(more: dict[str, Any], place: str, words: str) -> None:
    body = json.dumps({"line": "filler-1", "good": 5, **more}, indent=1)
    problem = refused(checks()("c", body.encode()))
    assert (problem.fault, problem.place) == ("schema", place)
    assert problem.detail.startswith(words)
    name = place.rpartition("/")[2]
    if name and not name.isdigit():
        assert f'"{name}": ' in body.splitlines()[problem.line - 1][: problem.column]


def test_no_text_of_a_message_is_told() -> None:
    """Reasons go into the audit log."""
    for body in ({"line": "Secret Recipe", "good": 1}, {"line": ["Secret Recipe"], "good": 1}):
        assert "Secret" not in refused(checks()("c", json.dumps(body).encode())).detail


def test_what_cannot_be_read_or_is_too_large() -> None:
    problem = refused(checks()("c", b'{"line": "a-1",\n "line": "a-2", "good": 1}'))
    assert (problem.fault, problem.place, problem.line, problem.column) == ("syntax", "/line", 2, 2)
    assert refused(checks(most=20)("c", b'{"line":"a-1","good":1}')).fault == "size"
    amplified = checks(schema="", most=100)
    body = b"[" + b",".join([b"1e20"] * 10) + b"]"
    assert refused(amplified("c", body)).fault == "size"
    assert isinstance(amplified.readable("c", body), Problem)
    assert amplified.readable("c", b' {"b":1,"a":2}') == b'{"a":2,"b":1}'


def test_an_order_for_ten_million_bottles_is_refused_though_its_type_is_right() -> None:
    limit = Limit(at="/good", min=0, max=10_000)
    problem = refused(checks(limits=(limit,))("c", b'{"line":"filler-1","good":10000000}'))
    assert (problem.fault, problem.place, problem.line, problem.column) == ("limit", "/good", 1, 27)
    assert problem.detail == "10000000 is asked; 0 to 10000 is allowed"
    passed(checks(limits=(limit,))("c", b'{"line":"filler-1","good":10000}'))


@pytest.mark.parametrize("value", ["12", True, None, [1], {"a": 1}])
def test_what_is_no_number_is_not_within_limits(value: Any) -> None:
    problem = refused(checks(schema="", limits=(Limit(at="/n", max=10),))("c", json.dumps({"n": value}).encode()))
    assert (problem.fault, problem.place) == ("limit", "/n")


def test_limits_on_every_element_and_their_series() -> None:
    judge = checks(
        schema="",
        limits=(
            Limit(at="/lines/*/quantity", max=100, max_step=10, key="/lines/*/article"),
            Limit(at="", per_minute=6),
            Limit(at="/lines/0/quantity", max=5),
        ),
    )
    body: dict[str, Any] = {
        "lines": [{"article": "a", "quantity": 1}, {"article": 7, "quantity": 2.5}, {"quantity": 3}]
    }
    assert passed(judge("c", json.dumps(body).encode())).steps == (
        Step(0, '"a"', 1), Step(0, "7", 2.5), Step(0, "null", 3), Step(1, "", 0),
    )  # fmt: skip
    body["lines"][1]["quantity"] = 101
    assert refused(judge("c", json.dumps(body).encode())).place == "/lines/1/quantity"
    body["lines"] = [{"quantity": 6}]
    assert refused(judge("c", json.dumps(body).encode())).place == "/lines/0/quantity"
    body["lines"] = [{"quantity": 1, "article": ["x"]}]
    assert refused(judge("c", json.dumps(body).encode())).place == "/lines/0/article"
    body["lines"] = [{"quantity": 1, "article": "x" * 300}]
    assert "302 characters" in refused(judge("c", json.dumps(body).encode())).detail


def test_fields_let_through_what_they_name() -> None:
    fields = ("/a", "/b/c", "/list/*/x", "/list/*/y/z", "/a~1b")
    body = {"a": {"deep": [1]}, "b": {"c": 1, "d": 2}, "list": [{"x": 1, "no": 2}, 5, {"y": {"z": 1, "q": 2}}], "e": 1,
            "a/b": 3}  # fmt: skip
    dropping = checks(schema="", fields=fields, others="drop")
    found = passed(dropping("c", json.dumps(body).encode()))
    assert json.loads(found.body) == {"a": {"deep": [1]}, "b": {"c": 1}, "list": [{"x": 1}, {"y": {"z": 1}}], "a/b": 3}
    assert passed(dropping("c", found.body)).body == found.body
    assert passed(dropping("c", b"5")).body == b"{}"
    refusing = checks(schema="", fields=fields)
    problem = refused(refusing("c", json.dumps(body).encode()))
    assert (problem.fault, problem.place) == ("fields", "/b/d")
    assert refused(refusing("c", b'{"list": [{"x":1}, 5]}')).place == "/list/1"
    assert refused(refusing("c", b"5")).fault == "fields"
    passed(refusing("c", b'{"a": 1, "b": {}}'))


def test_the_wider_of_two_fields_wins() -> None:
    for fields in (("/a", "/a/b"), ("/a/b", "/a")):
        found = passed(checks(schema="", fields=fields, others="drop")("c", b'{"a":{"b":1,"c":2}}'))
        assert json.loads(found.body) == {"a": {"b": 1, "c": 2}}
    assert json.loads(passed(checks(schema="", fields=("",))("c", b'{"a":1}')).body) == {"a": 1}


def test_constants_are_added_whatever_came() -> None:
    sets = (("/from", '{"relay":true}'), ("/from/gate", '"one"'), ("/site", '"riverside"'))
    judge = checks(schema="", fields=("/line",), set=sets, others="refuse")
    for body in (b'{"line":1}', b'{"line":1,"site":"elsewhere","from":{"relay":false}}'):
        found = passed(judge("c", body))
        assert json.loads(found.body) == {"line": 1, "site": "riverside", "from": {"relay": True, "gate": "one"}}
        assert passed(judge("c", found.body)).body == found.body
    problem = refused(checks(schema="", set=(("/a/b", "1"),))("c", b'{"a":5}'))
    assert (problem.fault, problem.place) == ("fields", "/a")


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-05-01T12:00:00.5+02:00", 1_777_629_600_500_000_000),
        ("2026-05-01t10:00:00.000000001z", 1_777_629_600_000_000_001),
        ("2026-05-01T06:30:00-03:30", 1_777_629_600_000_000_000),
        ("1969-12-31T23:59:59Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("2026-05-01T12:00:00", None),
        ("2026-13-01T12:00:00Z", None),
        ("2026-05-01T12:00:00+99:00", None),
        ("٢026-05-01T12:00:00Z", None),
        (1_777_629_600, None),
    ],
)
def test_time_stamps(text: object, ns: int | None) -> None:
    found = checks(schema="", stamp="/at")("c", json.dumps({"at": text}).encode())
    if ns is None:
        assert (refused(found).fault, refused(found).place) == ("stamp", "/at")
    else:
        assert passed(found).stamp_ns == ns
    assert refused(checks(schema="", stamp="/at")("c", b"{}")).fault == "stamp"


S = "Secret"
KEYWORDS: list[tuple[dict[str, Any], Any, str, str]] = [
    ({"type": ["integer", "null"]}, S, "", 'not of types "null", "integer"'),
    ({"enum": [1, 2]}, S, "", "the value is not one of 1 or 2"),
    ({"const": {"a": 1}}, {"a": S}, "", '{"a":1} was expected'),
    ({"multipleOf": 7}, 8, "", "8 is not a multiple of 7"),
    ({"maximum": 5}, 6, "", "6 is greater than the maximum of 5"),
    ({"exclusiveMaximum": 5}, 5, "", "5 is greater than or equal to the maximum of 5"),
    ({"minimum": 5}, 4, "", "4 is less than the minimum of 5"),
    ({"exclusiveMinimum": 5}, 5, "", "5 is less than or equal to the minimum of 5"),
    ({"maxLength": 2}, S, "", "longer than 2 characters"),
    ({"minLength": 9}, S, "", "shorter than 9 characters"),
    ({"pattern": "^x"}, S, "", 'does not match "^x"'),
    ({"format": "ipv4"}, S, "", 'not a "ipv4"'),
    ({"items": {"type": "integer"}}, [1, S], "/1", 'not of type "integer"'),
    ({"prefixItems": [{"type": "integer"}]}, [S], "/0", 'not of type "integer"'),
    ({"prefixItems": [True], "items": False}, [1, S], "/1", "nothing is allowed here"),
    ({"maxItems": 1}, [1, S], "", "more than 1 item"),
    ({"minItems": 3}, [1, S], "", "less than 3 items"),
    ({"uniqueItems": True}, [S, S], "", "non-unique elements"),
    ({"contains": {"type": "integer"}}, [S], "", "no element is as contains asks for"),
    ({"contains": {"type": "string"}, "minContains": 3}, [S, S], "", "fewer elements are as contains asks for"),
    ({"contains": {"type": "string"}, "maxContains": 1}, [S, S], "", "more elements are as contains asks for"),
    ({"maxProperties": 1}, {"a": S, "b": 1}, "", "more than 1 property"),
    ({"minProperties": 3}, {"a": S, "b": 1}, "", "less than 3 properties"),
    ({"required": ["c"]}, {"a": S}, "", '"c" is a required property'),
    ({"dependentRequired": {"a": ["b"]}}, {"a": S}, "", '"b" is a required property'),
    ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": S}, "", '"b" is a required property'),
    ({"properties": {"a": {"type": "integer"}}}, {"a": S}, "/a", 'not of type "integer"'),
    ({"patternProperties": {"^a": {"type": "integer"}}}, {"a": S}, "/a", 'not of type "integer"'),
    ({"additionalProperties": {"type": "integer"}}, {"a": S}, "/a", 'not of type "integer"'),
    ({"propertyNames": {"maxLength": 2}}, {"abc": S}, "", '"abc" is longer than 2 characters'),
    ({"allOf": [True, {"type": "integer"}]}, S, "", 'not of type "integer"'),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, S, "", "fits none of the forms that anyOf allows"),
    ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, S, "", "fits none of the forms that oneOf allows"),
    ({"oneOf": [True, {"type": "null"}, {"type": "string"}]}, S, "", "fits several of the forms that oneOf allows"),
    ({"not": {"type": "string"}}, S, "", '{"type":"string"} is not allowed'),
    ({"if": {"type": "string"}, "then": {"maxLength": 2}}, S, "", "longer than 2 characters"),
    ({"if": {"type": "integer"}, "else": {"maxLength": 2}}, S, "", "longer than 2 characters"),
    ({"properties": {"a": True}, "unevaluatedProperties": False}, {"a": 1, "b": S}, "", "('b' was unexpected)"),
    ({"prefixItems": [True], "unevaluatedItems": False}, [1, S], "", "Unevaluated items are not allowed"),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, S, "", 'not of type "integer"'),
    ({"$dynamicRef": "#x", "$defs": {"y": {"$dynamicAnchor": "x", "type": "integer"}}}, S, "", 'type "integer"'),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value", "place", "words"), KEYWORDS)
def test_each_keyword_says_what_is_wrong_and_no_text(
    schema: dict[str, Any], value: Any, place: str, words: str
) -> None:
    """Every keyword of JSON Schema 2020-12 that can refuse."""
    files = {"x.json": json.dumps(schema).encode()}
    judge = Checks(Relay([("k", RelayRows(channels=(Channel(name="c", schema="x.json"),), schemas=files))]))
    problem = refused(judge("c", json.dumps(value).encode()))
    assert (problem.fault, problem.place) == ("schema", place)
    assert words in problem.detail
    assert S not in problem.detail


def test_no_pattern_hangs() -> None:
    files = {"x.json": b'{"pattern": "^(a+)+$"}'}
    judge = Checks(Relay([("k", RelayRows(channels=(Channel(name="c", schema="x.json"),), schemas=files))]))
    assert refused(judge("c", json.dumps("a" * 500_000 + "b").encode())).fault == "schema"


SCHEMAS: list[tuple[str, str, str, tuple[int, int]]] = [
    ('{\n "$ref": "http://127.0.0.1:9/x"}', "a reference to http://127.0.0.1:9/x", "nothing is fetched", (2, 10)),
    ('{"$id": "http://127.0.0.1:9/a", "$ref": "b.json"}', "a reference to b.json", "nothing is fetched", (1, 41)),
    ('{"$ref": "file:///etc/passwd"}', "a reference to file:///etc/passwd", "nothing is fetched", (1, 10)),
    ('{"items": {"$ref": "../other.json#/x"}}', "a reference to ../other.json#/x", "nothing is fetched", (1, 20)),
    ('{"$ref": "#/$defs/no"}', "", "", (1, 1)),
    ('{"properties": {"a": {"pattern": "(?=a)b"}}}', "the pattern '(?=a)b'", "no look-around", (1, 34)),
    ('{"pattern": "(a)\\\\1"}', "the pattern", "no back-reference", (1, 13)),
    ('{"pattern": "a{1000}{1000}{1000}"}', "the pattern", "in proportion", (1, 13)),
    ('{"pattern": "("}', "the pattern '('", "in proportion", (1, 13)),
    ('{"patternProperties": {"(?!x)": true}}', "", "", (1, 33)),
    ('{"format": "nonsense"}', "", "", (1, 12)),
    ('{"type": "number", "minimum": "5"}', "not of type", "a schema of JSON Schema 2020-12", (1, 31)),
    ('{"type": "strnig"}', "", "a schema of JSON Schema 2020-12", (1, 10)),
    ('{"$schema": "http://json-schema.org/draft-07/schema#"}', "the draft", "2020-12", (1, 13)),
    ('{"a": 1, "a": 2}', "twice", "JSON, strictly", (1, 10)),
    ("[]", "a schema that is list", "an object", (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found", "expected", "place"), SCHEMAS)
def test_a_schema_that_is_wrong_is_named_with_its_place(
    text: str, found: str, expected: str, place: tuple[int, int]
) -> None:
    with pytest.raises(SchemaError) as wrong:
        Schemas({"s.json": text.encode()}).validator("s.json")
    assert found in wrong.value.found
    assert expected in wrong.value.expected
    if found or place != (1, 1):
        assert (wrong.value.line, wrong.value.column) == place


def test_a_fault_in_a_file_that_is_referred_to_is_found_there() -> None:
    files = {"a/s.json": b'{"$ref": "../t.json"}', "t.json": b'{"x": 1,\n "pattern": "("}'}
    with pytest.raises(SchemaError) as wrong:
        Schemas(files).validator("a/s.json")
    assert (wrong.value.file, wrong.value.line) == ("t.json", 2)


def test_files_that_a_schema_needs() -> None:
    schema = {"$ref": "../t.json#/a", "items": [{"$dynamicRef": "u.json"}, {"$ref": "#/x"}, {"$ref": "http://x/y.json"}],
              "not": {"$ref": "../../../etc/passwd"}}  # fmt: skip
    assert set(named_files("a/s.json", json.dumps(schema).encode())) == {"t.json", "a/u.json"}


def test_schemas_may_call_themselves() -> None:
    files = {"s.json": b'{"type":"object","additionalProperties":{"$ref":"#"}}', "loop.json": b'{"$ref":"loop.json"}'}
    validator = Schemas(files).validator("s.json")
    deep: dict[str, Any] = {}
    for _ in range(63):
        deep = {"a": deep}
    assert validator.is_valid(deep)
    assert Schemas(files).validator("loop.json").is_valid({"a": 1})


JUDGES = [
    checks(),
    checks(schema="", fields=("/a", "/b/*/c", "/ä"), others="drop", set=(("/s", "1"),), stamp=""),
    checks(
        schema="",
        limits=(Limit(at="/a", min=-1, max=1, max_step=0.5, key="/b"), Limit(at="/b/*", per_minute=3, key="/b/*")),
    ),
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "s", "line", "good", "at", "parts", "ä"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON.map(json.dumps).map(str.encode) | st.binary(max_size=60), st.sampled_from(JUDGES))
def test_any_bytes_pass_or_are_refused_and_what_passes_passes_again(body: bytes, judge: Checks) -> None:
    found = judge("c", body)
    msgspec.convert(msgspec.to_builtins(found), type(found))  # within the ranges that a record has
    if isinstance(found, Checked):
        assert passed(judge("c", found.body)) == found
        assert passed(judge.again("c", found.body)) == found
    else:
        assert found.detail
        assert len(found.place) <= 512


@pytest.mark.parametrize("text", ["a", "/~", "/~2", "#/a"])
def test_pointers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON Pointer"):
        pointer(text)
