"""scp as it was: which commands are its own, which lines mean what, and that nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.sftp import scp

COMMANDS = [
    ("scp -t /tmp", scp.Asked(True, ("/tmp",))),
    ("scp -v -r -p -d -t -- -x", scp.Asked(True, ("-x",), True, True, True)),
    ("scp -pf 'a b' c", scp.Asked(False, ("a b", "c"), times=True)),
    ("scp -f ''", scp.Asked(False, (".",))),
    ("scp -f '$(id)'", scp.Asked(False, ("$(id)",))),
    ("/usr/bin/scp -qf x", scp.Asked(False, ("x",))),
    ("scp -f", None),
    ("scp -t a b", None),
    ("scp -t -f a", None),
    ("scp a b", None),
    ("scp -S x -f a", None),
    ("scp -o ProxyCommand=x -f a", None),
    ("scp -f 'a", None),
    ("scpx -f a", None),
    ("SCP -f a", None),
    ("scp -f " + "x" * 5_000, None),
    ("scp -f " + "x " * 65, None),
    ("scp -f a\0b", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "asked"), COMMANDS, ids=[text[:30] for text, _ in COMMANDS])
def test_its_command(text: str, asked: scp.Asked | None) -> None:
    assert scp.command(text) == asked


LINES = [
    (b"C0644 12 a b", scp.Head(False, 0o644, 12, "a b")),
    (b"D4755 0 d", scp.Head(True, 0o4755, 0, "d")),
    (b"C0644 9223372036854775807 x", scp.Head(False, 0o644, (1 << 63) - 1, "x")),
    (b"T1600000001 0 1600000000 0", scp.Times(1_600_000_001, 1_600_000_000)),
    (b"E", scp.End()),
    (b"\1scp: no", scp.Said("scp: no", False)),
    (b"\2gone", scp.Said("gone", True)),
]


@pytest.mark.parametrize(("data", "said"), LINES)
def test_its_lines(data: bytes, said: object) -> None:
    assert scp.line(data) == said


def test_what_is_given_is_understood() -> None:
    for head in (scp.Head(False, 0o644, 5, "a b"), scp.Head(True, 0o755, 0, "中")):
        assert scp.line(scp.head(head).removesuffix(b"\n")) == head
    assert scp.line(scp.times(scp.Times(5, 6)).removesuffix(b"\n")) == scp.Times(5, 6)
    assert scp.complaint("a\nC0644 1 x\x1b") == b"\1scp: a?C0644 1 x?\n"


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda end: b"C0644 1 " + end))
def test_anything_else_is_refused(data: bytes) -> None:
    try:
        said = scp.line(data)
    except RemoteProtocolError:
        return
    if isinstance(said, scp.Head):
        assert said.name
        assert said.name not in (".", "..")
        assert not set("/\0\n") & set(said.name)


@given(st.text(max_size=60).map(lambda text: "scp " + text))
def test_any_command(text: str) -> None:
    found = scp.command(text)
    assert found is None or (found.paths and all("\0" not in path for path in found.paths))
