"""Rows that a database tells of, byte by byte as its manual has them; and bytes that no database sends."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.relay.pgoutput import Decoder, Row
from cofferdam.errors import RemoteProtocolError

BEGIN = b"B" + struct.pack(">qqI", 0x1_0000_0A00, 0, 7)
COMMIT = b"C" + struct.pack(">Bqqq", 0, 0x1_0000_0A00, 0x1_0000_0A80, 0)
TYPES = {"n": 23, "price": 1700, "ok": 16, "doc": 114, "note": 25, "at": 1184}


def relation(types: dict[str, int] = TYPES) -> bytes:
    columns = b"".join(b"\0" + name.encode() + b"\0" + struct.pack(">Ii", oid, -1) for name, oid in types.items())
    return b"R" + struct.pack(">I", 5) + b"line\0made\0d" + struct.pack(">h", len(types)) + columns


def values(*said: str | bytes | None) -> bytes:
    """None: NULL; bytes: as they are."""
    row = struct.pack(">h", len(said))
    for one in said:
        data = b"n" if one is None else one if isinstance(one, bytes) else None
        row += data if data is not None else b"t" + struct.pack(">i", len(str(one).encode())) + str(one).encode()
    return row


FULL = values("7", "1.50", "t", '{"a": 1}', 'é"', "2026-01-02 03:04:05+00")
BODY = '{"n":7,"price":1.50,"ok":true,"doc":{"a": 1},"note":"é\\"","at":"2026-01-02 03:04:05+00"}'


def inserted(row: bytes = FULL) -> bytes:
    return b"I" + struct.pack(">I", 5) + b"N" + row


def updated(before: bytes, row: bytes = FULL) -> bytes:
    return b"U" + struct.pack(">I", 5) + before + b"N" + row


def told(*messages: bytes) -> list[Row]:
    decoder = Decoder()
    return [row for each in messages if (row := decoder.take(each)) is not None]


def test_rows_are_numbered_within_their_transaction() -> None:
    decoder = Decoder()
    found = [decoder.take(each) for each in (BEGIN, relation(), inserted(), inserted(values("NaN", *[None] * 5)))]
    assert found[2:] == [
        Row("100000A00/1", "line.made", BODY, oid=5),
        Row("100000A00/2", "line.made", '{"n":NaN,"price":null,"ok":null,"doc":null,"note":null,"at":null}', oid=5),
    ]
    assert decoder.end == 0
    decoder.take(COMMIT)
    assert decoder.end == 0x1_0000_0A80


UNCHANGED = values("7", "1.50", "t", '{"a": 1}', b"u", "2026-01-02 03:04:05+00")
OLD = values("6", "1", "f", "null", 'é"', None)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (updated(b""), Row("100000A00/1", "line.made", BODY, oid=5)),
        (updated(b"K" + values("7", *[None] * 5)), Row("100000A00/1", "line.made", BODY, oid=5)),
        (updated(b"O" + OLD, UNCHANGED), Row("100000A00/1", "line.made", BODY, oid=5)),
        (updated(b"K" + OLD, UNCHANGED), Row("100000A00/1", "line.made", None, "note", 5)),
        (updated(b"", UNCHANGED), Row("100000A00/1", "line.made", None, "note", 5)),
    ],
)
def test_changed_rows(message: bytes, expected: Row) -> None:
    assert told(BEGIN, relation(), message) == [expected]


BROKEN = {
    "a row outside a transaction": (relation(), inserted()),
    "not described": (BEGIN, inserted()),
    "other columns": (BEGIN, relation(), inserted(values("7"))),
    "a message of kind b'Z'": (b"Z",),
    "ends too early": (BEGIN[:-1],),
    "something behind it": (COMMIT + b"x",),
    "without its new values": (BEGIN, relation(), updated(b"O" + OLD)[: 6 + len(OLD)] + b"D"),
    "a value of kind b'b'": (BEGIN, relation({"n": 23}), inserted(struct.pack(">h", 1) + b"b")),
    "a negative number": (BEGIN, relation({"n": 23}), inserted(struct.pack(">hci", 1, b"t", -1))),
    "not UTF-8": (BEGIN, relation({"n": 23}), inserted(struct.pack(">hci", 1, b"t", 1) + b"\xff")),
    "a name without an end": (b"R" + struct.pack(">I", 5) + b"line",),
    "1665 columns": (b"R" + struct.pack(">I", 5) + b"line\0made\0d" + struct.pack(">h", 1665),),
    "more than 1000 tables": tuple(
        b"R" + struct.pack(">I", n) + b"line\0made\0d" + struct.pack(">h", 0) for n in range(1001)
    ),
    "ends too early, empty": (b"",),
}


@pytest.mark.parametrize("words", BROKEN)
def test_what_no_database_sends(words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words.partition(",")[0]):
        told(*BROKEN[words])


@given(st.lists(st.sampled_from([BEGIN, COMMIT, relation(), inserted(), updated(b"O" + OLD, UNCHANGED)]), max_size=6),
       st.binary(max_size=40), st.integers(0, 200))  # fmt: skip
def test_any_bytes_are_a_row_or_an_error_of_the_peer(before: list[bytes], rest: bytes, cut: int) -> None:
    decoder = Decoder()
    for message in (*before, b"".join(before)[:cut] + rest):
        try:
            row = decoder.take(message)
        except RemoteProtocolError:
            return
        assert row is None or (row.body is None) == bool(row.lacks)
