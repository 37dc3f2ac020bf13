"""Lists in pieces: each piece fits an answer, and all of them together are all, also where a row goes meanwhile."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.jump import lists
from cofferdam.brokers.kit.supervision import RESULT_BYTES
from tests.examples import examples


def row(number: int, size: int) -> dict[str, Any]:
    return {"number": number, "words": ["x" * size, {"more": f"n{number}"}]}


def told(found: list[dict[str, Any]], word: str = "") -> list[dict[str, Any]]:
    """All of it, as the command line asks for it."""
    got: list[dict[str, Any]] = []
    while True:
        after = lists.order(got[-1]["number"]) if got else ""
        rows = ((lists.order(one["number"]), one) for one in found)
        some = lists.piece(rows, lists.Which(search=word, after=after))
        assert len(msgspec.json.encode(some)) <= RESULT_BYTES
        if not some:
            return got
        got += some


@given(st.lists(st.integers(0, 300_000), max_size=40))
@examples(60)
def test_all_pieces_together_are_all(sizes: list[int]) -> None:
    found = [row(number, size) for number, size in enumerate(sizes, 1)]
    assert told(found) == found
    assert told(found, "N7") == [one for one in found if "n7" in str(one["words"])]


def test_one_that_has_gone_meanwhile_loses_nobody_else() -> None:
    found = [row(number, 200_000) for number in range(1, 10)]
    rows = [(lists.order(one["number"]), one) for one in found]
    first = lists.piece(rows, lists.Which())
    last = len(first)
    del rows[last - 1]
    rest = lists.piece(rows, lists.Which(after=lists.order(last)))
    assert rest[0]["number"] == last + 1


def test_a_line_is_one_line_whatever_is_in_it() -> None:
    said = lists.text(["1  vendor [x\n9  granted]", "2  \x1b[2J"], "requests", "nothing")
    assert said == "1  vendor [x\\n9  granted]\n2  \\x1b[2J"


@pytest.mark.parametrize("count", [0, 1, 5, 3_000])
def test_what_the_menu_says_fits_a_record(count: int) -> None:
    lines = [f"{number} " + "word " * 20 for number in range(count)]
    said = lists.text(lines, "requests", "nothing")
    assert len(said) < 60_000
    shown = said.splitlines()
    if count == 0:
        assert said == "nothing"
    elif count <= 5:
        assert shown == lines
    else:
        left = count - (len(shown) - 1)
        assert shown[-1].startswith(f"and {left} more: `requests WORD`") and shown[:-1] == lines[: len(shown) - 1]
    found = json.loads(lists.as_json([{"line": line, "name": "é" * 50} for line in lines]))
    assert len(found["rows"]) + found["more"] == count
    assert len(lists.as_json([{"line": line} for line in lines])) < 60_000
