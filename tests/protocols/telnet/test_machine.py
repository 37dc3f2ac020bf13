"""The telnet machine: RFC 854 and its options, by what a server says and what it is answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.telnet.machine import NEGOTIATIONS_MOST, PARAMETER_BYTES, Client

IAC, SB, SE, WILL, WONT, DO, DONT = (
    b"\xff",
    b"\xff\xfa",
    b"\xff\xf0",
    b"\xff\xfb",
    b"\xff\xfc",
    b"\xff\xfd",
    b"\xff\xfe",
)
SAID: list[tuple[str, bytes, bytes, bytes]] = [
    ("plain text", b"login: ", b"login: ", b""),
    ("CR NUL is CR, CR LF stays (RFC 854, page 11)", b"a\r\0b\r\nc\r", b"a\rb\r\nc\r", b""),
    ("IAC IAC is one byte", b"a\xff\xffb", b"a\xffb", b""),
    ("it may echo (RFC 857)", WILL + b"\1", b"", DO + b"\1"),
    ("and say so twice without a loop (RFC 1143)", WILL + b"\1" + WILL + b"\1", b"", DO + b"\1"),
    ("and stop", WILL + b"\1" + WONT + b"\1", b"", DO + b"\1" + DONT + b"\1"),
    ("we do not echo", DO + b"\1", b"", WONT + b"\1"),
    ("no environment (RFC 1572), no X display (1096), no authentication (2941)",
     DO + b"\x27" + DO + b"\x23" + DO + b"\x25", b"", WONT + b"\x27" + WONT + b"\x23" + WONT + b"\x25"),
    ("nothing unknown of its own", WILL + b"\xc8" + WONT + b"\xc8", b"", DONT + b"\xc8"),
    ("our size (RFC 1073)", DO + b"\x1f", b"", WILL + b"\x1f" + SB + b"\x1f\0\xff\xff\0\x18" + SE),
    ("our terminal (RFC 1091)", DO + b"\x18" + SB + b"\x18\1" + SE, b"", WILL + b"\x18" + SB + b"\x18\0XTERM" + SE),
    ("not where it was not agreed", SB + b"\x18\1" + SE, b"", b""),
    ("a parameter of an option that we have not", SB + b"\x27\1" + IAC + IAC + SE + b"x", b"x", b""),
    ("no bell, go ahead and marks", b"a\xff\xf9\xff\xf1\xff\xf2b", b"ab", b""),
    ("are you there", b"\xff\xf6", b"", b"[yes]\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "said", "shown", "answered"), SAID, ids=[each[0] for each in SAID])
@pytest.mark.parametrize("step", [1, 1000])
def test_what_a_server_says(what: str, said: bytes, shown: bytes, answered: bytes, step: int) -> None:
    client = Client("xterm", 255, 24)
    got = b"".join(client.receive_data(said[at : at + step]) for at in range(0, len(said), step))
    assert (got, client.data_to_send()) == (shown, answered)


@pytest.mark.parametrize(
    "said",
    [
        SB + b"\x18" + b"x" * PARAMETER_BYTES,
        SB + b"\x18" + IAC + b"x",
        b"\xff\x01",
        (WILL + b"\1" + WONT + b"\1") * NEGOTIATIONS_MOST,
        DO + b"\x18" + (SB + b"\x18\1" + SE) * (NEGOTIATIONS_MOST + 1),
    ],
)
def test_what_no_server_says(said: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Client().receive_data(said)


def test_what_is_typed() -> None:
    client = Client("x; rm -rf /")
    client.send(b"ls\r\xff")
    assert client.data_to_send() == b"ls\r\0\xff\xff"
    client.receive_data(DO + b"\0" + DO + b"\x18" + SB + b"\x18\1" + SE + DO + b"\x1f")
    client.data_to_send()
    client.send(b"ls\r")
    client.resize(100, 50)
    assert client.data_to_send() == b"ls\r" + SB + b"\x1f\0\x64\0\x32" + SE


@given(st.binary(max_size=400), st.integers(1, 50))
def test_pieces_do_not_matter(data: bytes, step: int) -> None:
    """However the line cuts it, the same comes out, and answers stay in proportion to what was said."""

    def run(size: int) -> tuple[bytes, bytes] | str:
        client = Client()
        try:
            shown = b"".join(client.receive_data(data[at : at + size]) for at in range(0, len(data), size))
        except RemoteProtocolError as error:
            return str(error)
        assert not client.data_to_send() or len(shown) <= len(data)
        return shown, client.data_to_send()

    assert run(step) == run(1000)
