"""The SFTP machine: vectors, byte by byte as whole, what breaks the form, answers once."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.sftp import messages as m
from cofferdam.protocols.sftp.machine import PACKET_BYTES, UNDER_WAY_MOST, Server
from tests.protocols.sftp.packets import INIT, NOTHING, attributes, packet, string

VECTORS: list[tuple[int, bytes, m.Operation]] = [
    (3, string("/a") + struct.pack(">I", 1) + NOTHING,
     m.Open("/a", True, False, False, False, False, False, m.Attributes())),
    (3, string("/a") + struct.pack(">I", 2 | 8 | 16) + attributes(mode=0o644),
     m.Open("/a", False, True, False, True, True, False, m.Attributes(mode=0o644))),
    (4, string(struct.pack(">I", 7)), m.Close(7)),
    (5, string(struct.pack(">I", 7)) + struct.pack(">QI", 5, 9), m.Read(7, 5, 9)),
    (5, string(struct.pack(">I", 7)) + struct.pack(">QI", 0, 0xFFFFFFFF), m.Read(7, 0, m.DATA_BYTES)),
    (6, string(struct.pack(">I", 7)) + struct.pack(">Q", 5) + string(b"data"), m.Write(7, 5, b"data")),
    (7, string("/a"), m.Stat("/a", False)),
    (17, string("/ü"), m.Stat("/ü", True)),
    (8, string(struct.pack(">I", 7)), m.HandleStat(7)),
    (9, string("/a") + attributes(mode=0o600, times=(1, 2)), m.SetStat("/a", m.Attributes(mode=0o600, times=(1, 2)))),
    (10, string(struct.pack(">I", 7)) + attributes(size=3), m.HandleSetStat(7, m.Attributes(size=3))),
    (11, string("/a"), m.OpenFolder("/a")),
    (12, string(struct.pack(">I", 7)), m.ReadFolder(7)),
    (13, string("/a"), m.Remove("/a")),
    (14, string("/a") + NOTHING, m.MakeFolder("/a")),
    (15, string("/a"), m.RemoveFolder("/a")),
    (16, string("."), m.RealPath(".")),
    (18, string("/a") + string("/b"), m.Rename("/a", "/b", False)),
    (200, string("posix-rename@openssh.com") + string("/a") + string("/b"), m.Rename("/a", "/b", True)),
]  # fmt: skip


def opened() -> Server:
    server = Server()
    server.receive_data(INIT)
    assert server.next_operation() is None
    assert server.data_to_send()[4] == 2
    return server


@pytest.mark.parametrize(("kind", "body", "operation"), VECTORS)
def test_what_is_asked_is_understood(kind: int, body: bytes, operation: m.Operation) -> None:
    whole = packet(kind, struct.pack(">I", 99) + body)
    server = opened()
    server.receive_data(whole)
    assert server.next_operation() == (1, operation)
    pieces = opened()
    for at in range(len(whole)):
        assert pieces.next_operation() is None
        pieces.receive_data(whole[at : at + 1])
    assert pieces.next_operation() == (1, operation)
    pieces.answer(1, m.Status("ok"))
    assert pieces.data_to_send()[4:13] == struct.pack(">BII", 101, 99, 0)
    with pytest.raises(KeyError):
        pieces.answer(1, m.Status("ok"))
    spare = opened()
    spare.receive_data(packet(kind, struct.pack(">I", 99) + body + b"\0"))
    with pytest.raises(RemoteProtocolError, match="left over"):
        spare.next_operation()


@pytest.mark.parametrize(
    "data",
    [
        packet(7, struct.pack(">I", 1) + string("/a")),
        struct.pack(">I", 0),
        struct.pack(">I", PACKET_BYTES + 1),
        struct.pack(">I", 0xFFFFFFFF),
        packet(1, struct.pack(">I", 2)),
        INIT + INIT,
        INIT + packet(7, b"\0\0"),
        INIT + packet(7, struct.pack(">II", 1, 0xFFFFFFFF) + b"/a"),
        INIT + packet(9, struct.pack(">I", 1) + string("/a") + struct.pack(">I", 0x40)),
        INIT + packet(9, struct.pack(">I", 1) + string("/a") + struct.pack(">II", 0x80000000, 4_000_000_000)),
    ],
)
def test_what_breaks_the_form_ends_the_session(data: bytes) -> None:
    server = Server()
    server.receive_data(data)
    with pytest.raises(RemoteProtocolError):
        while server.next_operation() is not None:
            pass
        raise AssertionError(server.data_to_send())


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        (7, string(b"/\xff"), 4),
        (7, string("/a\0b"), 4),
        (7, string("/" + "x" * 5_000), 4),
        (4, string(b"\0\0\0\0"), 4),
        (4, string(b"\0" * 256), 4),
        (5, string(struct.pack(">I", 1)) + struct.pack(">QI", 1 << 63, 9), 4),
        (19, string("/a"), 8),
        (20, string("/a") + string("/b"), 8),
        (99, b"", 8),
        (200, string("statvfs@openssh.com") + string("/"), 8),
    ],
)
def test_what_cannot_be_served_is_answered(kind: int, body: bytes, code: int) -> None:
    server = opened()
    server.receive_data(packet(kind, struct.pack(">I", 5) + body))
    assert server.next_operation() is None
    assert server.data_to_send()[4:13] == struct.pack(">BII", 101, 5, code)


def test_so_many_are_under_way_and_no_more() -> None:
    server = opened()
    server.receive_data(packet(7, struct.pack(">I", 5) + string("/a")) * (UNDER_WAY_MOST + 3))
    found = [number for number in iter(lambda: (server.next_operation() or (0, None))[0], 0)]
    assert found == list(range(1, UNDER_WAY_MOST + 1))
    server.answer(7, m.Status("ok"))
    assert server.next_operation() == (UNDER_WAY_MOST + 1, m.Stat("/a", False))
    assert server.next_operation() is None


def test_answers_in_form() -> None:
    server = opened()
    for body in (string(struct.pack(">I", 7)) + struct.pack(">QI", 0, 9), string(struct.pack(">I", 7))):
        server.receive_data(packet(5 if len(body) > 8 else 12, struct.pack(">I", 5) + body))
    assert server.next_operation() is not None and server.next_operation() is not None
    server.answer(2, m.Names((m.Name("b", m.Attributes(3, (0, 0), 0o100644, (1, 86_400))),)))
    said = server.data_to_send()
    assert b"-rw-r--r-- 1 0 0            3 Jan 02 1970 b" in said
    server.answer(1, m.Content(b"xyz"))
    assert server.data_to_send() == struct.pack(">IBI", 12, 103, 5) + string(b"xyz")


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_understood_answered_or_refused(pieces: list[bytes]) -> None:
    server = Server()
    server.receive_data(INIT)
    try:
        for piece in pieces:
            server.receive_data(struct.pack(">I", len(piece)) + piece)
            while (found := server.next_operation()) is not None:
                server.answer(found[0], m.Status("ok"))
    except RemoteProtocolError:
        pass
