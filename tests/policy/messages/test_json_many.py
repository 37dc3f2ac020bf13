"""Many texts in one pass: what each is alone, or no answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.policy.messages.json_many import ODD, read_lines, read_lines_again, written
from cofferdam.policy.messages.json_reading import DEPTH, NotJson, canonical, read, read_again
from tests.policy.messages.test_json_reading import NEAR_JSON, REFUSED, TAKEN, VALUES

PLAIN = b'{"a":[1,2.5,"x",null,true],"b":{"":""}}'
SPACED = b' { "b" : -3 ,\t"a":[ 0.25 ]}\r'


def alone(line: bytes) -> Any:
    """A text's value, as text, so that 1 and True are two; None where it is refused."""
    try:
        return repr(read(line)[0])
    except NotJson:
        return None


def agrees(lines: Sequence[bytes]) -> bool:
    """Whether there is an answer; if so it is the one that each text has alone."""
    found = read_lines(lines)
    if found is not None:
        values, plain = found
        assert [repr(value) for value in values if value is not ODD] == [
            alone(line) for line, value in zip(lines, values, strict=True) if value is not ODD
        ]
        if plain:
            usual = [value for value in values if value is not ODD]
            assert written(usual) == list(map(canonical, usual))
    again = read_lines_again(lines)
    if again is not None:
        assert list(map(repr, again)) == [repr(read_again(line)) for line in lines]
    return found is not None and ODD not in found[0]


def test_usual_texts_are_read_together() -> None:
    lines = [PLAIN, SPACED, b"1", '"\u00e9 \u2028"'.encode(), b'"\\n\\\\"', b"[]"]
    assert agrees(lines)
    found = read_lines(lines)
    assert found is not None and found[1]
    again = [canonical(read(line)[0]) for line in lines]
    assert read_lines_again(again) is not None
    assert read_lines_again(lines) is None, "the second one is in another form"


STRANGE: list[bytes] = [
    b'{"a":1,"b":2,"a":1}', b'{"a":1,"a":1}', b'[{"a":{"b":1,"b":1}}]', b'{"a":1,"\\u0061":2}', b"1.0", b"-0", b"-0.0",
    b"9223372036854775808", b"18446744073709551616", b"1e400", b"1E5", b"NaN", b"Infinity", b"01", b"1.", b'"\\u0000"',
    b'"\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x01"', b"\xef\xbb\xbf1", b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1),
    b"[" * 100_000, b"", b" ", b"1 2", b"1,2", b"{", b"'a'", b'"a', b'{"a":12345678901234567890.5}', b'"\\/"', b"tru",
]  # fmt: skip


@pytest.mark.parametrize("odd", STRANGE, ids=lambda odd: repr(odd)[:40])
def test_one_odd_text_among_others_is_read_by_itself(odd: bytes) -> None:
    for lines in ([odd], [PLAIN, odd, SPACED], [odd, odd]):
        found = read_lines(lines)
        if found is not None:
            assert [value is ODD for value in found[0]] == [line is odd for line in lines]
        assert read_lines_again(lines) is None


def test_what_can_be_read_is_read_together_although_one_beside_it_is_odd() -> None:
    for odd in (b'{"a":1,"a":1}', b"1.0", b'"\\u0000"', b'"\\u00fc"', b"18446744073709551616", b"[" * 65 + b"]" * 65):
        found = read_lines([PLAIN, odd, SPACED])
        assert found is not None
        assert [value is ODD for value in found[0]] == [False, True, False]


@pytest.mark.parametrize("lines", [
    [b"1\n2", b""], [b"", b"1\n2"], [b"1 2", b""], [b'"a', b'b"'], [b'["a', b'","b"]', b"1"], [b"[1,", b"2]"],
    [b"1\n", b"2"], [b'{"a":1}\n{"a":2}', b"", b"3"], [b'"a', b'b",1'],
])  # fmt: skip
def test_texts_that_are_others_when_they_stand_together_are_read_one_by_one(lines: list[bytes]) -> None:
    assert read_lines_again(lines) is None
    if not any(b"\n" in line for line in lines):  # which `read_lines` is not given
        agrees(lines)


def test_what_reading_takes_and_refuses_is_the_same_together() -> None:
    for text in (*(each[0] for each in TAKEN), *(each[1] for each in TAKEN), *(each[0] for each in REFUSED)):
        if b"\n" not in text:
            agrees([PLAIN, text])
            agrees([text, PLAIN, text])


@given(st.lists(VALUES, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_values_come_back(values: list[Any], spaced: bool, ascii_: bool) -> None:
    separators = None if spaced else (",", ":")
    lines = [json.dumps(value, separators=separators, ensure_ascii=ascii_).encode() for value in values]
    agrees(lines)
    again = [canonical(read(line)[0]) for line in lines]
    agrees(again)


NEAR = NEAR_JSON.map(str.encode) | st.binary(max_size=12) | st.sampled_from([PLAIN, SPACED, *STRANGE])


@given(st.lists(NEAR, min_size=1, max_size=4))
def test_near_texts_are_what_they_are_alone(lines: list[bytes]) -> None:
    agrees([line.replace(b"\n", b" ") for line in lines])
    read_again_all = read_lines_again(lines)
    if read_again_all is not None:
        assert list(map(canonical, read_again_all)) == lines
