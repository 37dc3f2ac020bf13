"""The form of a good answer to a packet of reads: what it takes and makes is, byte by byte, what is taken and made
without it, and whatever is not exactly of that form it does not take."""

from __future__ import annotations

import gc
import random
import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.model import Item
from cofferdam.protocols.base import ResponseReceived
from cofferdam.protocols.enip import asked, replies, requests, together
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.values import ATOMIC
from cofferdam.values import Bool, Int32
from tests.examples import examples
from tests.protocols.enip import ENIP, PACKER, RESPONSES, client, rr, tags

CODES = sorted(ATOMIC)
READS = st.lists(st.tuples(tags.map(m.ReadTag), st.sampled_from(CODES)), min_size=1, max_size=30)
TWO = m.Packet((m.ReadTag(Item("tag", "run")), m.ReadTag(Item("tag", "counts", 3, 2))))
BODY = struct.pack("<3H", 2, 6, 13) + b"\xcc\0\0\0\xc1\0\xff" + b"\xcc\0\0\0\xc4\0" + struct.pack("<2i", 7, -1)


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    """What other tests have had remembered."""
    together.memory.clear()


def parts_of(reads: list[tuple[m.ReadTag, int]], seed: int) -> list[bytes]:
    """What a device says to each, with values by chance."""
    rng = random.Random(seed)
    found: list[bytes] = []
    for read, code in reads:
        size = ATOMIC[code][3] * read.item.count
        value = bytes(rng.choices((0, 1, 255), k=size)) if code == 0xC1 else rng.randbytes(size)
        found.append(replies.reply(requests.READ, 0, (), bytes((code, 0)) + value))
    return found


@given(READS, st.integers(0, 1 << 60))
@examples(150)
def test_values_are_the_same_in_one_step_and_bit_by_bit(reads: list[tuple[m.ReadTag, int]], seed: int) -> None:
    packet, codes = m.Packet(tuple(read for read, _ in reads)), bytes(code for _, code in reads)
    parts = parts_of(reads, seed)
    body = requests.packet(parts)
    form = together.form_of(packet, codes)
    if len(body) > 8192:
        assert form is None
        return
    assert form is not None
    data = form.taken(body)
    assert data is not None and form.fault(data) == ""
    held = tuple(replies.tag(read, part[4:]) for (read, _), part in zip(reads, parts, strict=True))
    told = m.HeldAll(codes, data)
    assert repr(form.answers(data)) == repr(m.Answers(held))  # NaN is not equal to itself
    assert RESPONSES.decode(PACKER.encode(told)) == told
    assert ENIP.mismatch(packet, told) == "" and not ENIP.is_error(told)
    assert repr(ENIP.item_values(packet, told)) == repr(ENIP.item_values(packet, m.Answers(held)))
    made = [replies.reply(requests.READ, 0, (), replies.value_head(one) + replies.value_bytes(one)) for one in held]
    assert form.answer(data) == asked.packed(made, 1 << 20)
    assert together.codes_of(list(held)) == codes


@given(READS, st.integers(0, 1 << 60), st.data())
@examples(150)
def test_what_differs_in_one_byte_beside_the_values_is_not_taken(
    reads: list[tuple[m.ReadTag, int]], seed: int, data: st.DataObject
) -> None:
    form = together.form_of(m.Packet(tuple(read for read, _ in reads)), bytes(code for _, code in reads))
    if form is None:
        return
    parts = parts_of(reads, seed)
    body = requests.packet(parts)
    places = [*range(2 + 2 * len(parts))]
    at = len(places)
    for part in parts:
        places += range(at, at + 6)
        at += len(part)
    place = data.draw(st.sampled_from(places))
    wrong = bytearray(body)
    wrong[place] ^= data.draw(st.integers(1, 255))
    assert form.taken(bytes(wrong)) is None
    assert form.taken(body[:-1]) is None and form.taken(body + b"\0") is None and form.taken(b"") is None


def test_a_bool_is_taken_as_what_it_means_and_another_byte_is_none() -> None:
    form = together.form_of(TWO, b"\xc1\xc4")
    assert form is not None
    assert form.taken(BODY) == b"\1" + struct.pack("<2i", 7, -1)
    for byte, taken in ((0, 0), (1, 1), (2, None), (254, None)):
        found = form.taken(BODY[:12] + bytes([byte]) + BODY[13:])
        assert (None if found is None else found[0]) == taken
    assert form.answer(b"\1" + bytes(8))[4:][12] == 255 and form.answer(bytes(9))[4:][12] == 0


@pytest.mark.parametrize(
    ("codes", "data"),
    [
        (b"\xc1\xc4", bytes(8)), (b"\xc1\xc4", bytes(10)), (b"\xc1\xc4", b"\2" + bytes(8)), (b"\xc1", bytes(1)),
        (b"\xc1\xc4\xc4", bytes(13)), (b"\xc1\xa0", bytes(9)), (b"\xc4\xc4", bytes(9)), (b"\xc1\xc0", bytes(9)),
    ],
)  # fmt: skip
def test_values_that_are_not_those_of_the_packet_do_not_answer_it(codes: bytes, data: bytes) -> None:
    assert ENIP.mismatch(TWO, m.HeldAll(codes, data))
    with pytest.raises(ValueError, match="something else"):
        together.one_by_one(TWO, m.HeldAll(codes, data))


def test_side_by_side_are_the_values_of_packets_of_reads_alone() -> None:
    told = m.HeldAll(b"\xc1\xc4", bytes(9))
    assert ENIP.mismatch(TWO, told) == ""
    for request in (
        TWO.parts[0], m.Packet((TWO.parts[0], m.GetAttribute(Item("cip", "1/1/6")))), m.Identify(),
        m.Packet((TWO.parts[0], m.WriteTag(Item("tag", "a"), 0xC4, 0, Int32((1,))))),
        m.Packet((m.ReadTag(Item("tag", "run", -1, 2)), TWO.parts[1])),
    ):  # fmt: skip
        assert ENIP.mismatch(request, told)


def say(machine: Any, request: Any, *bodies: tuple[int, bytes]) -> Any:
    """What is made of a device's answers to the steps of a request."""
    _, sent = machine.send(request)
    event: Any = None
    for status, body in bodies:
        machine.receive_data(rr(bytes((0x8A, 0, status, 0)) + body, 9, sent[12:20]))
        event = machine.next_event()
        sent = machine.take_output() or sent
    assert isinstance(event, ResponseReceived), event
    return event.response


def test_a_form_is_learnt_from_a_good_answer_and_forgotten_with_another() -> None:
    machine = client()
    held = m.Answers((m.Held(0xC1, 0, Bool((True,))), m.Held(0xC4, 0, Int32((7, -1), True))))
    assert say(machine, TWO, (0, BODY)) == held
    assert say(machine, TWO, (0, BODY)) == m.HeldAll(b"\xc1\xc4", b"\1" + struct.pack("<2i", 7, -1))
    assert say(machine, TWO, (0, BODY[:-4] + b"\5\0\0\0")) == m.HeldAll(b"\xc1\xc4", b"\1" + struct.pack("<2i", 7, 5))
    gone = requests.packet([b"\xcc\0\5\0", b"\xcc\0\0\0\xc4\0" + struct.pack("<2i", 7, -1)])
    assert say(machine, TWO, (0x1E, gone)) == m.Answers((m.CipError(5), held.parts[1]))
    assert say(machine, TWO, (0, BODY)) == held
    other = requests.packet([b"\xcc\0\0\0\xc2\0\xff", b"\xcc\0\0\0\xc4\0" + struct.pack("<2i", 7, -1)])
    assert isinstance(say(machine, TWO, (0, other)), m.Answers)
    assert say(machine, TWO, (0, other)) == m.HeldAll(b"\xc2\xc4", b"\xff" + struct.pack("<2i", 7, -1))
    assert say(machine, TWO, (8, b"")) == m.Answers((m.CipError(8), m.CipError(8)))


def test_what_is_learnt_of_a_packet_all_connections_know_as_long_as_that_very_packet_is_kept() -> None:
    first, second = client(), client()
    assert isinstance(say(first, TWO, (0, BODY)), m.Answers)
    assert isinstance(say(second, TWO, (0, BODY)), m.HeldAll)
    equal = m.Packet(TWO.parts)
    assert isinstance(say(second, equal, (0, BODY)), m.Answers), "an equal one is somebody else's"
    assert isinstance(say(second, equal, (0, BODY)), m.HeldAll)
    assert len(together.memory) == 4, "these, and what they are asked in"
    del equal
    gc.collect()
    assert len(together.memory) == 2
    many = [m.Packet(TWO.parts) for _ in range(100)]
    for one in many:
        assert together.form_of(one, b"\xc1\xc4") is not None
    assert len(together.memory) == 102
    many.clear()
    del one
    gc.collect()
    assert len(together.memory) == 2
    for code in CODES:
        assert together.form_of(TWO, bytes((0xC1, code))) is not None
    assert len(together.of(TWO).forms) <= together.FORMS


def test_a_packet_that_is_left_at_the_end_of_a_process_goes_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules' names are gone by then."""
    packet = m.Packet(TWO.parts)
    assert together.form_of(packet, b"\xc1\xc4") is not None
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    monkeypatch.setattr(together, "memory", None)
    del packet
    gc.collect()
    assert not said


def test_what_goes_in_several_packets_comes_back_side_by_side_if_all_of_it_can() -> None:
    reads = tuple(m.ReadTag(Item("tag", f"counts{index:02}")) for index in range(60))
    packet = m.Packet(reads)
    machine = client()
    groups = together.grouped(packet, machine._room())
    assert len(groups) > 1

    def bodies(first: int) -> list[tuple[int, bytes]]:
        return [
            (0, requests.packet([b"\xcc\0\0\0\xc4\0" + struct.pack("<i", first) for _ in group.parts]))
            for group in groups
        ]

    one_by_one = m.Answers(tuple(m.Held(0xC4, 0, Int32((8,))) for _ in reads))
    assert say(machine, packet, *bodies(8)) == one_by_one
    assert say(machine, packet, *bodies(8)) == m.HeldAll(b"\xc4" * 60, struct.pack("<i", 8) * 60)
    last = len(groups[-1].parts)
    partly = [*bodies(8)[:-1], (0x1E, requests.packet([b"\xcc\0\5\0"] * last))]
    mixed = (*one_by_one.parts[:-last], *([m.CipError(5)] * last))
    assert say(machine, packet, *partly) == m.Answers(mixed)


@pytest.mark.parametrize("count", [170, 171])
def test_what_has_no_form_as_a_whole_comes_back_one_by_one(count: int) -> None:
    """Each of the packets that it takes has one; the other half knows the whole alone."""
    reads = tuple(m.ReadTag(Item("tag", "counts", 0, 10)) for _ in range(count))
    packet = m.Packet(reads)
    machine = client()
    value = b"\xcc\0\0\0\xc4\0" + struct.pack("<10i", *range(10))
    bodies = [(0, requests.packet([value for _ in group.parts])) for group in together.grouped(packet, machine._room())]
    found = [say(machine, packet, *bodies) for _ in range(3)]
    assert [ENIP.mismatch(packet, told) for told in found] == [""] * 3
    assert isinstance(found[-1], m.HeldAll if count == 170 else m.Answers)
