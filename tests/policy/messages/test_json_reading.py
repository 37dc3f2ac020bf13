"""Strict reading: what is refused, with its place; and the one form that is left."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.policy.messages.json_reading import (
    INT64_MAX,
    INT64_MIN,
    NotJson,
    canonical,
    line_and_column,
    number,
    place_of,
    read,
    read_again,
)
from tests.steps import steps

TAKEN: list[tuple[bytes, bytes]] = [
    (b' {"b": 1, "a": [1.0, -0.0, 1e2, 0.10]} \n', b'{"a":[1,0,100,0.1],"b":1}'),
    (b"[9223372036854775807, -9223372036854775808]", b"[9223372036854775807,-9223372036854775808]"),
    (b"9223372036854775808.0", b"9223372036854776000"),
    (b"[9007199254740993.0, 9007199254740993e0]", b"[9007199254740993,9007199254740993]"),
    (b"[0.10000000000000001, 0.1000000000000000055511151231257827, 0.10]", b"[0.1,0.1,0.1]"),  # 0.1, by other programs
    (b"9223372036854776000", b"9223372036854776000"),
    (b"[1e20, 1e21, 1e-6, 1e-7, 5e-324]", b"[100000000000000000000,1e+21,0.000001,1e-7,5e-324]"),
    (b'"\\ud83d\\ude00\\u2028\\u001F\\/\\b"', '"\U0001f600\u2028\\u001f/\\b"'.encode()),
    (
        '{"\ue000":1,"\U0001f600":{"y":1.5,"x":[]},"a":3}'.encode(),
        '{"a":3,"\U0001f600":{"x":[],"y":1.5},"\ue000":1}'.encode(),
    ),
    (b'"\\\\u0000"', b'"\\\\u0000"'),
    (b'{"__proto__": {"constructor": 1}}', b'{"__proto__":{"constructor":1}}'),
    (b"[" * 64 + b"]" * 64, b"[" * 64 + b"]" * 64),
    (b'["' + b"[" * 100 + b'"]', b'["' + b"[" * 100 + b'"]'),
    (b"0e1000", b"0"),
]

REFUSED: list[tuple[bytes, str, str, tuple[int, int]]] = [
    (b'{"a":1,\n "a":2}', 'the name "a" twice', "/a", (2, 2)),
    (b'[1,\n {"x":[{"b":1,"b":2}]}]', 'the name "b" twice', "/1/x/0/b", (2, 15)),
    (b'{"a":1,"\\u0061":2}', 'the name "a" twice', "/a", (1, 8)),
    (b'{"":1,"":"","":1e400d', "more than a double holds", "/", (1, 16)),
    (b'{"a":[{"b":1e400', "more than a double holds", "/a/0/b", (1, 12)),
    (b'{"":[{"a":1,"a":2}n', 'the name "a" twice', "//0/a", (1, 13)),
    (b"NaN", "NaN, which is no JSON number", "", (1, 1)),
    (b'{"x": [1, -Infinity]}', "-Infinity", "/x/1", (1, 11)),
    (b"[1e400]", "more than a double holds", "/0", (1, 2)),
    (b"[1e-400]", "as 0 only", "/0", (1, 2)),
    (b'{"a":[1180591620717411303424]}', "neither 64 bits nor a double", "/a/0", (1, 7)),
    (b"9223372036854775808", "neither 64 bits nor a double", "", (1, 1)),
    (b'{"a":123456789012345678.5}', "neither 64 bits nor a double", "/a", (1, 6)),
    (b"[1, 90071992547409931.5e-2]", "neither 64 bits nor a double", "/1", (1, 5)),
    (b"9" * 5000, "a number of 5000 characters", "", (1, 1)),
    (b"0." + b"1" * 5000, "a number of 5002 characters", "", (1, 1)),
    (b"[" * 100_000, "nesting deeper than 64", "", (1, 65)),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "nesting deeper than 64", "", (1, 321)),
    (b'{"a": "\\ud800"}', "half a surrogate pair", "/a", (1, 7)),
    (b'{"\\udc00": 1}', "half a surrogate pair in a name", "", (1, 1)),
    (b'["x", "a\\u0000b"]', "NUL in a text", "/1", (1, 7)),
    (b'["\\u0000"', "the end of the text", "", (1, 10)),
    (b"\xef\xbb\xbf{}", "a byte order mark", "", (1, 1)),
    (b'"\xff"', "the byte 0xff, which is not UTF-8", "", (1, 2)),
    (b'"\xed\xa0\x80"', "the byte 0xed, which is not UTF-8", "", (1, 2)),
    ('"é'.encode("utf-16"), "not UTF-8", "", (1, 1)),
    (b"", "an empty text", "", (1, 1)),
    (b"1 2", "more after the value's end", "", (1, 3)),
    (b'{"a":1,}', "expecting property name", "", (1, 8)),
    (b'{"a":1', "the end of the text", "", (1, 7)),
    (b'"\x01"', "invalid control character", "", (1, 2)),
    (b'"\x00"', "invalid control character", "", (1, 2)),
    (b"01", "more after", "", (1, 2)),
    (b"{'a':1}", "expecting property name", "", (1, 2)),
    (b"/* x */ 1", "expecting value", "", (1, 1)),
    (b"\xa01", "not UTF-8", "", (1, 1)),
    ("\u00a01".encode(), "expecting value", "", (1, 1)),
]


@pytest.mark.parametrize(("data", "form"), TAKEN)
def test_what_is_read_is_remade_in_one_form(data: bytes, form: bytes) -> None:
    value, _ = read(data)
    assert canonical(value) == form
    again, _ = read(form)
    assert canonical(again) == form


@pytest.mark.parametrize(("data", "words", "pointer", "place"), REFUSED)
def test_what_is_refused_is_named_with_its_place(data: bytes, words: str, pointer: str, place: tuple[int, int]) -> None:
    with pytest.raises(NotJson) as refused:
        read(data)
    assert words in refused.value.words
    assert refused.value.pointer == pointer
    assert line_and_column(data.decode("utf-8", "replace"), refused.value.at) == place


def test_a_large_text_with_a_fault_in_its_depth_is_answered_soon() -> None:
    """To say where something stands is bounded work: whoever sends such texts must not hold up the others."""
    count = 30_000
    inner = b",".join(b'{"n":%d}' % n for n in range(count))
    data = b"[" * 60 + inner + b',{"n":1,"n":2}' + b"]" * 60

    def refused() -> None:
        with pytest.raises(NotJson, match="twice"):
            read(data)

    assert steps(refused) < 10 * count


def test_places_of_values() -> None:
    text = '{"a~b/c" : [10, {"d" :\n "x"}], "\\u0065": null}'
    assert text[place_of(text, ("a~b/c", 1, "d")) :].startswith('"x"')
    assert text[place_of(text, ("e",)) :].startswith("null")
    assert text[place_of(text, ("a~b/c", 7)) :].startswith("[10")
    assert place_of(text, ("nowhere",)) == 0


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(INT64_MIN, INT64_MAX) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(
        exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
def test_any_value_has_one_form_and_reading_it_gives_it_again(value: Any) -> None:
    found, _ = read(json.dumps(value).encode())
    form = canonical(found)
    again, _ = read(form)
    assert again == found == value
    assert canonical(again) == form


@given(VALUES)
def test_the_form_is_that_of_rfc_8785_but_for_large_whole_numbers(value: Any) -> None:
    found, _ = read(json.dumps(value).encode())

    def small(item: Any) -> bool:
        if isinstance(item, dict):
            return all(small(each) for each in item.values())
        if isinstance(item, list):
            return all(small(each) for each in item)
        return not isinstance(item, int) or abs(item) < 1 << 53

    if small(found):
        assert canonical(found) == rfc8785.dumps(found)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.binary(min_size=8, max_size=8).map(
    lambda data: struct.unpack(">d", data)[0]).filter(lambda value: value - value == 0))  # fmt: skip
def test_numbers_are_written_as_ecmascript_writes_them(value: float) -> None:
    assert number(value) == rfc8785.dumps(value).decode()


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0d8e1.- \n', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value, _ = read(data)
    except NotJson as error:
        assert error.words
        assert 0 <= error.at <= len(data)
        return
    assert json.loads(canonical(value)) == json.loads(data)


PIECES = [
    "{", "}", "[", "]", ",", ":", '"a"', '"b"', '""', '"\\u0061"', '"\\n"', '"\\""', "1", "-0", "1.0", "0.5", "1e2",
    "01", "+1", "123456789012345678", "9223372036854775808", "0.1234567890123456789", "true", "null", " ", "\n", "NaN",
    "1e16", "1e22", "1e-7", "100000.0",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)
NEAR_JSON = TEXTS | VALUES.map(json.dumps) | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1))


@given(NEAR_JSON.map(str.encode) | st.binary(max_size=40))
def test_what_was_remade_is_read_again_and_nothing_else_is(data: bytes) -> None:
    try:
        value, _ = read(data)
    except NotJson:
        with pytest.raises(NotJson):
            read_again(data)
        return
    form = canonical(value)
    assert repr(read_again(form)) == repr(read(form)[0])
    if form != data:
        with pytest.raises(NotJson):
            read_again(data)


@pytest.mark.parametrize(
    "data", [b"1e16", b"[1e22]", b'{"a":1E16}', b"100000.0", b"[1e5]", b"-0", b'{"b":1,"a":2}', b'{"a":1,"a":1}', b" 1"]
)
def test_a_form_that_only_a_library_would_write_is_another_one(data: bytes) -> None:
    """msgspec writes 1e16 where RFC 8785 has 10000000000000000: what it wrote itself must not pass for remade."""
    with pytest.raises(NotJson):
        read_again(data)
