"""The form of a good answer to one read: what it takes and makes is, byte by byte, what is taken and made without it,
outside a connection and in one, and whatever is not exactly of that form it does not take."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cofferdam.model import Item
from cofferdam.protocols.base import BadResponse, RequestReceived, ResponseReceived
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, replies, requests, single, turns, wire
from cofferdam.protocols.enip.values import ATOMIC
from cofferdam.values import Bool, Int32
from tests.examples import examples
from tests.protocols.enip import ASSET, ENIP, PACKER, RESPONSES, client, rr, server, tags
from tests.protocols.test_enip_again import said
from tests.protocols.test_enip_explicit import connected, open_class_3

CODES = sorted(ATOMIC)
READS = st.tuples(tags.map(m.ReadTag), st.sampled_from(CODES))
RUN = m.ReadTag(Item("tag", "run"))
PUMP = m.ReadTag(Item("tag", "pump"))
DINT = b"\xcc\0\0\0\xc4\0\7\0\0\0"


def answer(read: m.ReadTag, code: int, seed: int) -> bytes:
    """What a device says, with a value by chance: any bits that are one, those of a signalling NaN among them."""
    rng = random.Random(seed)
    size = ATOMIC[code][3] * read.item.count
    value = bytes(rng.choices((0, 1, 255), k=size)) if code == 0xC1 else rng.randbytes(size)
    if code == 0xCA and seed % 3 == 0:
        value = b"\1\0\x80\x7f" * read.item.count
    return replies.reply(requests.READ, 0, (), bytes((code, 0)) + value)


@given(READS, st.integers(0, 1 << 60))
@examples(200)
def test_a_value_is_the_same_in_one_step_and_bit_by_bit(asked: tuple[m.ReadTag, int], seed: int) -> None:
    read, code = asked
    cip = answer(read, code, seed)
    held = replies.tag(read, cip[4:])
    form = single.form_of(read.item, bytes((code,)))
    assert form is not None
    data = form.taken(cip)
    assert data is not None and data == form.taken_alone(wire.unconnected(cip)) and form.fault(data) == ""
    said = m.HeldAll(bytes((code,)), data)
    assert repr(form.held(data)) == repr(held)  # NaN is not equal to itself
    assert RESPONSES.decode(PACKER.encode(said)) == said
    assert ENIP.mismatch(read, said) == "" and not ENIP.is_error(said)
    assert repr(ENIP.item_values(read, said)) == repr(ENIP.item_values(read, held))
    made = replies.reply(requests.READ, 0, (), replies.value_head(held) + replies.value_bytes(held))
    assert form.answer(data) == made and form.length == len(made)
    frame = wire.frame(wire.SEND_RR, 77, b"context.", wire.unconnected(made))
    assert form.framed(77, b"context.", data) == frame


@given(READS, st.integers(0, 1 << 60), st.data())
@examples(200)
def test_what_differs_in_one_byte_beside_the_value_is_not_taken(
    asked: tuple[m.ReadTag, int], seed: int, data: st.DataObject
) -> None:
    read, code = asked
    form = single.form_of(read.item, bytes((code,)))
    assert form is not None
    cip = answer(read, code, seed)
    for whole, taken, begin in ((cip, form.taken, 6), (wire.unconnected(cip), form.taken_alone, 22)):
        wrong = bytearray(whole)
        wrong[data.draw(st.integers(0, begin - 1))] ^= data.draw(st.integers(1, 255))
        assert taken(bytes(wrong)) is None
        assert taken(whole[:-1]) is None and taken(whole + b"\0") is None and taken(b"") is None


def test_a_bool_is_taken_as_what_it_means_and_another_byte_is_none() -> None:
    form = single.form_of(RUN.item, b"\xc1")
    assert form is not None
    for byte, taken in ((0, b"\0"), (1, b"\1"), (255, b"\1"), (2, None), (254, None)):
        assert form.taken(b"\xcc\0\0\0\xc1\0" + bytes([byte])) == taken
    assert form.answer(b"\1") == b"\xcc\0\0\0\xc1\0\xff" and form.answer(b"\0")[-1] == 0


@pytest.mark.parametrize(
    ("read", "codes", "data"),
    [
        (RUN, b"\xc1", b"\2"), (RUN, b"\xc1", b"\0\0"), (RUN, b"\xc4", b"\0"), (RUN, b"\xa0", b"\0"),
        (RUN, b"\xc1\xc1", b"\0\0"), (m.ReadTag(Item("tag", "counts", 3, 2)), b"\xc4", bytes(4)),
        (m.ReadTag(Item("tag", "counts", -1, 2)), b"\xc4", bytes(8)),
        (m.ReadTag(Item("tag", "counts", 0, 8192)), b"\xc3", bytes(8192)),
    ],
)  # fmt: skip
def test_a_value_that_is_not_that_of_the_read_does_not_answer_it(read: m.ReadTag, codes: bytes, data: bytes) -> None:
    assert ENIP.mismatch(read, m.HeldAll(codes, data))
    with pytest.raises(ValueError, match="something else"):
        single.held(read, m.HeldAll(codes, data))


@given(tags, st.sampled_from([b"", b"\1\0", b"\1\x07"]), st.integers(1, (1 << 48) - 1), st.integers(1, 0xFFFF_FFFF))
@examples(100)
def test_what_is_sent_is_what_is_made_without_being_remembered(
    item: Item, route: bytes, token: int, session: int
) -> None:
    made = requests.wrapped(requests.read_tag(item), route) if route else requests.read_tag(item)
    frame = wire.frame(wire.SEND_RR, session, turns.context_of(token, 1), wire.unconnected(made))
    assert single.Read(item, route).framed(session, token) == frame


@given(st.binary(max_size=12), st.integers(0, 33), st.integers(0, 255), st.integers(0, 3))
@examples(200)
def test_what_comes_in_a_connection_is_taken_apart_as_without_the_short_way(
    cip: bytes, place: int, byte: int, cut: int
) -> None:
    data = bytearray(wire.connected(0x8000_0007, 77, cip))
    if place < len(data):
        data[place] = byte
    said = bytes(data[: len(data) - cut])
    found = wire.connected_of(said)
    if said == wire.connected(0x8000_0007, 77, cip):
        assert found == (0x8000_0007, 77, cip)
    if found is not None:
        (first, number), (second, body) = wire.items_of(said)
        assert (first, second) == (wire.CONNECTED_ADDRESS, wire.CONNECTED)
        assert found == (int.from_bytes(number, "little"), int.from_bytes(body[:2], "little"), body[2:])


def told(machine: Any, read: m.ReadTag, cip: bytes) -> Any:
    """What comes of a device's answer outside a connection."""
    _, sent = machine.send(read)
    machine.receive_data(rr(cip, 9, sent[12:20]))
    return machine.next_event()


@pytest.mark.parametrize("how", ["alone", "connected"])
def test_a_form_is_learnt_from_a_good_answer_and_forgotten_with_another(how: str) -> None:
    device = connected()
    machine = client() if how == "alone" else device.machine

    def event_of(read: m.ReadTag, cip: bytes) -> Any:
        return told(machine, read, cip) if how == "alone" else device.said(machine.send(read)[1], cip)

    def asked(read: m.ReadTag, cip: bytes) -> Any:
        return event_of(read, cip).response

    assert asked(RUN, b"\xcc\0\0\0\xc4\0\7\0\0\0") == m.Held(0xC4, 0, Int32((7,)))
    assert asked(RUN, b"\xcc\0\0\0\xc4\0\7\0\0\0") == m.HeldAll(b"\xc4", b"\7\0\0\0")
    assert asked(RUN, b"\xcc\0\0\0\xc4\0\xff\0\0\0") == m.HeldAll(b"\xc4", b"\xff\0\0\0")
    assert asked(RUN, b"\xcc\0\5\0") == m.CipError(5)
    assert asked(RUN, b"\xcc\0\xff\1\5\x21") == m.CipError(0xFF, (0x2105,))
    assert asked(RUN, b"\xcc\0\0\0\xc4\0\1\0\0\0") == m.HeldAll(b"\xc4", b"\1\0\0\0")
    assert asked(RUN, b"\xcc\0\0\0\xc1\0\xff") == m.Held(0xC1, 0, Bool((True,)))
    assert asked(RUN, b"\xcc\0\0\0\xc1\0\xff") == m.HeldAll(b"\xc1", b"\1")
    text = b"\xcc\0\0\0\xa0\2\xce\x0f" + (2).to_bytes(4, "little") + b"ab".ljust(84, b"\0")
    assert asked(RUN, text).value.values == asked(RUN, text).value.values == ("ab",)
    assert type(asked(RUN, b"\xcc\0\0\0\xc1\0\1")) is m.Held, "what it had meanwhile has no form"
    for wrong in (b"\xcc\0\0\0\xc1\0\2", b"\xcc\0\0\0\xc1\0", b"\xcc\0\0\0\xc1\0\1\1", b"\xcd\0\0\0\xc1\0\1",
                  b"\xcc\1\0\0\xc1\0\1", b"\xcc\0\0\1\0\0\xc4\0\1\0\0"):  # fmt: skip
        assert isinstance(event_of(RUN, wrong), BadResponse)
        assert asked(RUN, b"\xcc\0\0\0\xc1\0\1") == m.HeldAll(b"\xc1", b"\1")


def test_an_answer_of_the_form_that_is_another_requests_is_not_taken() -> None:
    machine = client()
    for _ in range(2):
        told(machine, RUN, DINT)
    token, sent = machine.send(RUN)
    for context in (turns.context_of(token + 1, 1), turns.context_of(token, 2), turns.context_of(token - 1, 1)):
        machine.receive_data(rr(DINT, 9, context))
        assert not isinstance(machine.next_event(), ResponseReceived)
    machine.receive_data(rr(DINT, 8, sent[12:20]))
    assert not isinstance(machine.next_event(), ResponseReceived), "another session"
    machine.receive_data(rr(DINT, 9, sent[12:20]))
    assert machine.next_event() == ResponseReceived(token, m.HeldAll(b"\xc4", DINT[6:]))
    machine.receive_data(rr(DINT, 9, sent[12:20]))
    assert not isinstance(machine.next_event(), ResponseReceived), "it comes twice"


def test_what_waits_for_a_place_goes_when_a_read_is_answered_in_one_step() -> None:
    machine: Any = client()
    machine._outstanding = 2
    told(machine, RUN, DINT)
    _, first = machine.send(RUN)
    token, second = machine.send(PUMP)
    assert first and not second
    machine.receive_data(rr(DINT, 9, first[12:20]))
    assert machine.next_event().response == m.HeldAll(b"\xc4", DINT[6:])
    sent = machine.take_output()
    machine.receive_data(rr(DINT, 9, sent[12:20]))
    assert machine.next_event() == ResponseReceived(token, m.Held(0xC4, 0, Int32((7,))))


def test_what_one_connection_has_learnt_of_a_device_all_of_that_device_know_on_that_route_alone() -> None:
    common = ENIP.common({})
    first, second = (client(common=common) for _ in range(2))
    other = client(replace(ASSET, name="another"), common=common)
    elsewhere = client(replace(ASSET, route="backplane 3"), common=common)
    machines = (first, second, other, elsewhere)
    found = [type(told(machine, RUN, DINT).response) for machine in machines]
    assert found == [m.Held, m.HeldAll, m.Held, m.Held]
    first.take_asset(replace(ASSET, route="backplane 3"))
    _, sent = first.send(RUN)
    assert sent[-4:] == b"\1\0\1\3", "along the route that the policy has now"


@pytest.mark.parametrize("how", ["alone", "connected"])
def test_a_client_is_told_the_same_of_a_value_whichever_way_it_crossed(how: str) -> None:
    for code, data in ((0xC1, b"\1"), (0xC4, b"\7\0\0\0"), (0xCB, b"\1" * 8)):
        value = m.HeldAll(bytes((code,)), data)
        found = [answered(how, value), answered(how, single.held(RUN, value))]
        assert found[0] == found[1] and len(found[0]) > 30


@pytest.mark.parametrize("first", [requests.READ, requests.READ_PIECE], ids=["whole", "piece"])
def test_a_value_without_room_in_one_answer_is_told_in_pieces_whichever_way_it_crossed(first: int) -> None:
    read = m.ReadTag(Item("tag", "counts", 0, 200))
    value = m.HeldAll(b"\xc4", bytes(range(200)) * 4)
    path = paths.of_tag(Item("tag", "counts"))
    frames: list[list[bytes]] = []
    for one in (value, single.held(read, value)):
        machine = server()
        frames.append([])
        for offset in (0, 496):
            service = requests.READ_PIECE if offset else first
            body = struct.pack("<HI", 200, offset)[: 6 if service == requests.READ_PIECE else 2]
            machine.receive_data(rr(requests.made(service, path, body)))
            event: Any = machine.next_event()
            frames[-1].append(machine.send(event.token, one if isinstance(event, RequestReceived) else event.reply))
    assert frames[0] == frames[1] and [len(frame) for frame in frames[0]] == [542, 350]


def answered(how: str, response: Any) -> bytes:
    """What a client is told to a read."""
    machine = server()
    cip = requests.read_tag(RUN.item)
    if how == "connected":
        event = said(machine, open_class_3(machine)[4:8], 5, cip)
    else:
        machine.receive_data(rr(cip))
        event = machine.next_event()
    return machine.send(event.token, response)
