"""The terminal's screen: what somebody saw, whatever way it was drawn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.protocols.terminals.screen import Screen

SCREENS = [
    ("a\r\nb", ["a", "b", "", ""]),
    ("\x1b[2;3Hpu\x1b[3;1Hx\x1b[2;5Hmp 7", ["", "  pump 7", "x", ""]),
    ("0123456789abc", ["0123456789", "abc", "", ""]),
    ("0123456789\r\nx", ["0123456789", "x", "", ""]),
    ("1\r\n2\r\n3\r\n4\r\n5", ["2", "3", "4", "5"]),
    ("secret\rpublic", ["public", "", "", ""]),
    ("abc\x1b[2Dx\x1b[K", ["ax", "", "", ""]),
    ("abc\b\b\x1b[@-", ["a-bc", "", "", ""]),
    ("abcd\r\x1b[2Px\x1b[X", ["x", "", "", ""]),
    ("1\r\n2\r\n3\x1b[H\x1b[L0", ["0", "1", "2", "3"]),
    ("1\r\n2\r\n3\x1b[H\x1b[M", ["2", "3", "", ""]),
    ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n5", ["1", "3", "5", "4"]),
    ("1\x1b[H\x1bM0", ["0", "1", "", ""]),
    ("before\x1b[?1049h\x1b[Hfull\x1b[?1049l after", ["before aft", "er", "", ""]),
    ("a\x1b[2Jb", [" b", "", "", ""]),
    ("\x1b[31;1mred\x1b[0m\x1b]0;title\x07\x1b]52;c;eA==\x1b\\!", ["red!", "", "", ""]),
    ("a\tb\x1b7\r\nc\x1b8d", ["a       bd", "c", "", ""]),
    ("\u4e2d\u6587e\u0301.", ["\u4e2d\u6587e\u0301.", "", "", ""]),
    ("x\x1b[3b.", ["xxxx.", "", "", ""]),
    ("\x1b[99;99Hz\x1b[99A\x1b[99D.", [".", "", "", "         z"]),
]


@pytest.mark.parametrize(("text", "screen"), SCREENS)
def test_where_letters_stand(text: str, screen: list[str]) -> None:
    whole, single = Screen(10, 4), Screen(10, 4)
    whole.feed(text)
    for letter in text:
        single.feed(letter)
    assert whole.lines() == screen
    assert single.lines() == screen


def test_what_was_seen_is_told_once() -> None:
    """As it stood: also what has left the screen, and a line that took two rows as one."""
    screen = Screen(10, 3)
    screen.feed("a line of thirty letters, nearly\r\nb\r\nc\r\nd")
    assert screen.seen() == ["a line of thirty letters, nearly", "b", "c", "d"]
    assert screen.seen() == []
    screen.feed("e")
    assert screen.seen() == ["de"]
    screen.feed("\rf\x1b[2J\x1b[?1049h\x1b[Hgone\x1b[2J")
    assert screen.seen() == ["fe", "gone"]
    screen.feed("x" * 50_000)
    assert sum(map(len, screen.seen())) >= 50_000


LETTERS = "ab\r\n\t\b\x1b[];?0123456789HJKLMPrhlST@XbABCD78c\u4e2d\u0301\x9b\ud800"


@given(st.text(st.sampled_from(LETTERS), max_size=200), st.integers(1, 12), st.integers(1, 6))
def test_whatever_comes(text: str, columns: int, rows: int) -> None:
    screen = Screen(columns, rows)
    screen.feed(text)
    screen.resize(rows, columns)
    screen.feed(text)
    assert len(screen.lines()) == columns
    assert all(len(row.cells) == rows for row in screen._rows)
    screen.seen()
