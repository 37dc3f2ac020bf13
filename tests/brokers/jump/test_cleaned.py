"""What reaches past a terminal does not reach it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.jump.cleaned import STRING_BYTES, Cleaner

CASES = [
    (b"plain \xc3\xa9 text\r\n", b"plain \xc3\xa9 text\r\n"),
    (b"a\x1b]52;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1b]52;c;ZWNobw==\x1b\\b", b"ab"),
    (b"a\x1b]052;c;?\x07b", b"ab"),
    (b"a\xc2\x9d52;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1bPtmux;\x1b\x1b]52;c;ZWNobw==\x07\x1b\\b", b"ab"),
    (b"a\x1bP\x1b]52;c;ZWNobw==\x07\x1b\\b", b"ab"),
    (b"a\x1bP$qm\x1b\\b", b"ab"),
    (b"a\x1bP1$qm\x1b\\b", b"ab"),
    (b"a\x1bP+q544e\x1b\\b", b"ab"),
    (b"a\x1b[21tb", b"ab"),
    (b"a\x1b[20tb", b"ab"),
    (b"a\xc2\x9b21tb", b"ab"),
    (b"\x1b]0;title\x07", b"\x1b]0;title\x07"),
    (b"\x1b]520;x\x07", b"\x1b]520;x\x07"),
    (b"\x1b]5;x\x07", b"\x1b]5;x\x07"),
    (b"\x1b[31mred\x1b[0m\x1b[18t\x1b[2J\x1b7", b"\x1b[31mred\x1b[0m\x1b[18t\x1b[2J\x1b7"),
    (b"\x1bPq#0;2;0;0;0#0~~\x1b\\", b"\x1bPq#0;2;0;0;0#0~~\x1b\\"),  # a picture (sixel)
    (b"\x1b\x1b]52;c;ZWNobw==\x07x", b"\x1bx"),
    (b"\xc2\xa9 \xc2\xb0C \xc2", b"\xc2\xa9 \xc2\xb0C "),
]


@pytest.mark.parametrize(("said", "shown"), CASES)
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_what_is_shown(said: bytes, shown: bytes, step: int) -> None:
    cleaner = Cleaner()
    assert b"".join(cleaner.clean(said[at : at + step]) for at in range(0, len(said), step)) == shown


def test_a_string_without_an_end_hides_no_more_than_so_much() -> None:
    cleaner = Cleaner()
    assert cleaner.clean(b"\x1b]52;c;" + b"x" * (STRING_BYTES + 10)) == b"x" * 11
    assert cleaner.clean(b"\x1b[" + b"1" * 100) != b""


@given(st.binary(max_size=200), st.integers(1, 20))
def test_pieces_do_not_matter_and_nothing_is_kept_for_good(data: bytes, step: int) -> None:
    cleaner, whole = Cleaner(), Cleaner()
    pieces = b"".join(cleaner.clean(data[at : at + step]) for at in range(0, len(data), step)) + cleaner.flush()
    assert pieces == whole.clean(data) + whole.flush()
    assert len(pieces) <= len(data)
    assert b"\x1b]52;" not in pieces
