"""What reaches past a terminal does not reach it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.jump.cleaned import SEQUENCE_BYTES, STRING_BYTES, Cleaner
from tests.waiting import eventually

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
    (b"\x1b\x1b]52;c;ZWNobw==\x07x", b"x"),
    # As terminals read a sequence: controls within it are done, ESC begins anew, numbers are numbers.
    *(
        (b"a\x1b%c]52;c;ZWNobw==\x07b" % byte, b"a%sb" % shown)
        for byte, shown in ((0, b"\0"), (13, b"\r"), (0x7F, b""))
    ),
    (b"a\x1b]5\x002;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1b[\x1b]52;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1b]\x1b]52;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1b[\xc2\x9d52;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1b]\xc2\x9d52;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1b]" + b"0" * 40 + b"52;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1b]4294967348;c;ZWNobw==\x07b", b"ab"),
    (b"a\x1bP\0$qm\x1b\\b", b"ab"),
    (b"a\x1bP" + b"1" * 60 + b"$qm\x1b\\b", b"ab"),
    (b"a\x1bP\0tmux;\x1b\x1b]52;c;ZWNobw==\x07\x1b\\b", b"ab"),
    (b"a\x1b[2\x001tb", b"a\0b"),
    (b"a\x1b[" + b"0" * 40 + b"21tb", b"ab"),
    (b"a\x1b[" + b"0" * 80 + b"21tb", b"a" + b"0" * 17 + b"21tb"),  # without its beginning it is text
    # Nothing that is left waits for what follows a sequence that was left out.
    (b"\x1b\x1b]52;c;x\x07]52;c;ZWNobw==\x07", b"]52;c;ZWNobw==\x07"),
    (b"\xc2\x1b]52;c;x\x07\x9d52;c;ZWNobw==\x07", b"\x9d52;c;ZWNobw==\x07"),
    (b"\x1b[\x1b]52;c;x\x0721t", b"21t"),
    (b"\x1b]52", b""),
    # What other terminals have for the clipboard and for files.
    (b"a\x1b]5522;type=write\x07b", b"ab"),
    (b"a\x1b]1337;Copy=:ZWNobw==\x07b", b"ab"),
    (b"a\x1bP@kitty-cmd{}\x1b\\b", b"ab"),
    (b"\x1b[8;21;80t\x1b]104\x07\x1b]8;;http://a\x1b\\", b"\x1b[8;21;80t\x1b]104\x07\x1b]8;;http://a\x1b\\"),
    (b"\x1b]133;A\x07\x1b[?1049h\x1b[>c\x1b[38:2:1:2:3m", b"\x1b]133;A\x07\x1b[?1049h\x1b[>c\x1b[38:2:1:2:3m"),
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
    assert cleaner.clean(b"\x1b[" + b"1" * 100) == b"1" * (102 - SEQUENCE_BYTES - 1)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_pieces_do_not_matter_and_nothing_is_kept_for_good(data: bytes, step: int) -> None:
    cleaner, whole = Cleaner(), Cleaner()
    pieces = b"".join(cleaner.clean(data[at : at + step]) for at in range(0, len(data), step)) + cleaner.flush()
    assert pieces == whole.clean(data) + whole.flush()
    assert len(pieces) <= len(data)
    assert b"\x1b]52;" not in pieces
    assert whole.clean(pieces) == pieces.removesuffix(b"\xc2")  # nothing is left in it that would be left out


@pytest.mark.skipif(not shutil.which("tmux"), reason="there is no tmux")
def test_a_real_terminal_has_no_clipboard(tmp_path: Path) -> None:
    """tmux reads what was handed on: of all that is tried here, nothing sets its buffer."""
    socket, data = str(tmp_path / "tmux"), tmp_path / "data"

    def tmux(*words: str) -> bytes:
        command = ["tmux", "-f", "/dev/null", "-S", socket, *words]
        return subprocess.run(command, capture_output=True, env={"TERM": "xterm", "PATH": os.environ["PATH"]}).stdout

    def shows(said: bytes, mark: str) -> bytes:
        data.write_bytes(said)
        tmux("new-window", f"cat {data}; tmux -S {socket} wait-for -S {mark}")
        tmux("wait-for", mark)
        return tmux("show-buffer")

    tmux("new-session", "-d", "sleep 600")
    tmux("set", "-g", "set-clipboard", "on")
    try:
        eventually(lambda: shows(b"\x1b\0]52;c;ZWNobw==\x07", "raw") == b"echo")  # it takes it where nobody cleans
        tmux("delete-buffer")
        said = b"".join(one for one, _ in CASES)
        assert shows(Cleaner().clean(said), "cleaned") == b""
    finally:
        tmux("kill-server")
