"""Answers of single numbers that are taken apart and made in one step: as the decoder and the encoder have it, or not
at all."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import CrossingError
from cofferdam.model import Item
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import numbers, together, wire
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import Malformed
from cofferdam.protocols.opcua.names import Namespaces
from cofferdam.protocols.opcua.rendered import plainly
from cofferdam.protocols.registry import PROTOCOLS
from cofferdam.values import Float64

OPCUA = PROTOCOLS["opcua"]
NAMES = Namespaces(("http://opcfoundation.org/UA/", "urn:us"))
WIDTHS = {0: 0, 1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 4, 11: 8}
TIMES = (0, 1, -1, 1 << 62, 133_000_000_000_000_000, 133_000_000_000_000_001)


@st.composite
def data_value(draw: st.DrawFn) -> bytes:
    """Any DataValue that is a single number or none, as it lies on the wire; 0 where it might be left out, too."""
    mask, kind = draw(st.integers(0, 15)), draw(st.sampled_from([*range(12), 11, 11]))
    made = bytes([mask])
    if mask & 1:
        value = draw(st.binary(min_size=WIDTHS[kind], max_size=WIDTHS[kind]))
        made += bytes([kind]) + (bytes([value[0] & 1]) if kind == 1 else value)
    if mask & 2:
        made += draw(st.sampled_from([0, 0, 0x40000000, 0x80310000])).to_bytes(4, "little")
    for bit in (4, 8):
        made += struct.pack("<q", draw(st.sampled_from(TIMES))) if mask & bit else b""
    return made


VALUES = st.lists(data_value(), min_size=1, max_size=8)
BROKEN = st.tuples(st.integers(0, 400), st.integers(1, 255), st.sampled_from(["", "", "byte", "cut", "more"]))


def body(values: list[bytes]) -> bytes:
    return numbers.answer(5, 7, len(values), values)


def plainly_read(data: bytes) -> list[m.Sample] | None:
    """By the decoder; None for what is no good answer."""
    try:
        found = wire.decode(data, request=False)
    except Malformed:
        return None
    good = isinstance(found, s.ReadResponse) and not found.header.result
    return [NAMES.sample(one) for one in found.results] if good else None


def taken(data: bytes, count: int, heads: bytes = b"") -> m.Numbers | None:
    heads = heads or together.heads_of(data, count)
    if not heads:
        return None
    told = together.told_of(heads)
    found = told.taken(data)
    return None if found is None else m.Numbers(told.crossing, found)


def same(samples: Any) -> list[Any]:
    """To compare: a number that is none equals none, itself included, and one that was made quiet is still one."""
    return [repr(one) for one in samples]


@given(VALUES, BROKEN, VALUES)
def test_what_is_taken_apart_is_what_the_decoder_reads(
    values: list[bytes], broken: tuple[int, int, str], before: list[bytes]
) -> None:
    """Also by the form of an answer that was there before, which may be this one's."""
    data, (at, change, how) = body(values), broken
    at %= len(data)
    if how == "byte":
        data = data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]
    elif how:
        data = data[:at] if how == "cut" else data + bytes([change])
    plain = plainly_read(data)
    for heads in (b"", together.heads_of(body(values), len(values)), together.heads_of(body(before), len(before))):
        found = taken(data, len(values), heads)
        if found is not None:
            assert plain is not None and same(together.one_by_one(found).samples) == same(plain)
            OPCUA.check(found)
    if not how and not any(_no_time(one) for one in values):
        assert taken(data, len(values)) is not None, "which is why all this is there"


def _no_time(value: bytes) -> bool:
    """Whether there is a time of 0 in it, which is none."""
    stamps = (value[0] >> 2).bit_count()
    return any(not any(value[-8 * place :][:8]) for place in range(1, stamps + 1))


@given(VALUES, st.integers(0, 3), st.integers(0, (1 << 32) - 1))
def test_what_is_said_is_what_the_encoder_writes(values: list[bytes], stamps: int, handle: int) -> None:
    found = taken(body(values), len(values))
    if found is None:
        return
    form = together.form_of(found.heads)
    assert form is not None and not form.fault(found.data)
    samples = together.one_by_one(found).samples
    told = [numbers.written(one, stamps) or plainly(NAMES.data(one, stamps)) for one in samples]
    pieces = form.pieces(found.data, stamps)
    assert b"".join(pieces) == b"".join(told)
    assert numbers.answer(5, handle, len(values), pieces) == numbers.answer(5, handle, len(told), told)
    assert b"".join(form.pieces(found.data, stamps)) == b"".join(told), "and again"


HEAD = struct.Struct("<BBI")


@pytest.mark.parametrize(
    ("heads", "data", "wrong"),
    [
        (HEAD.pack(1, 11, 0), bytes(8), ""), (HEAD.pack(1, 1, 0) * 2, b"\0\1", ""), (HEAD.pack(0, 0, 0), b"", ""),
        (HEAD.pack(2, 0, 0x80310000), b"", ""), (HEAD.pack(13, 11, 0), bytes(24), ""),
        (HEAD.pack(1, 11, 0), bytes(7), "7 bytes"), (HEAD.pack(13, 11, 0), bytes(25), "25 bytes"),
        (HEAD.pack(1, 1, 0) * 3, b"\0\1\2", "a bool"), (HEAD.pack(1, 1, 0), b"\xff", "a bool"),
        (HEAD.pack(1, 11, 0) + HEAD.pack(1, 1, 0), bytes(8) + b"\2", "a bool"),
        (b"", b"", "without a form"), (HEAD.pack(1, 11, 0)[:-1], bytes(8), "without a form"),
        (HEAD.pack(1, 0, 0), b"", "without a form"), (HEAD.pack(0, 11, 0), b"", "without a form"),
        (HEAD.pack(0, 99, 0), b"", "without a form"), (HEAD.pack(1, 12, 0), bytes(4), "without a form"),
        (HEAD.pack(17, 11, 0), bytes(8), "without a form"), (HEAD.pack(3, 11, 0), bytes(8), "without a form"),
        (HEAD.pack(1, 11, 5), bytes(8), "without a form"),
    ],
)  # fmt: skip
def test_what_no_honest_inner_half_says_is_refused(heads: bytes, data: bytes, wrong: str) -> None:
    message = m.Numbers(heads, data)
    items = tuple(Item("node", f"i={place}") for place in range(max(1, len(heads) // m.HEAD_BYTES)))
    said = OPCUA.mismatch(m.Read(items), message)
    if not wrong:
        assert not said
        OPCUA.check(message)
        assert OPCUA.mismatch(m.Read((*items, items[0])), message), "for another number of nodes"
        assert OPCUA.mismatch(m.Subscribe(items[0], 100_000), message), "for something else"
        return
    assert wrong in said
    with pytest.raises(CrossingError, match=wrong):
        OPCUA.check(message)
    with pytest.raises(ValueError, match="without a form"):
        together.one_by_one(message)


def test_what_items_hold_is_known_from_numbers_that_cross_together() -> None:
    first, second, third = (Item("node", f"i={place}") for place in range(3))
    heads = HEAD.pack(1, 11, 0) + HEAD.pack(3, 11, 0x80310000) + HEAD.pack(5, 11, 0)
    message = m.Numbers(heads, struct.pack("<dddq", 1.5, 2.5, 3.5, 99))
    known = OPCUA.item_values(m.Read((first, second, third)), message)
    assert [(one.item, one.value) for one in known] == [(first, Float64((1.5,))), (third, Float64((3.5,)))]


def test_forms_are_bounded() -> None:
    kept = together._Remembered()
    heads = [bytes([number]) * together.HEAD * 1000 for number in range(50)]
    for one in heads:
        assert kept.keep(one, one) is one and kept.get(one) is one
        assert sum(map(len, kept._known)) <= together.HEAD * together.NODES
    assert kept.get(heads[0]) is None
