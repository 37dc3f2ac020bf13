"""EtherNet/IP without a connection: vectors, each rule broken once, both machines, properties, captures."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given

from cofferdam.brokers.proxy.records import MOST_LOST
from cofferdam.capture.learn import learn
from cofferdam.capture.simulate import simulate
from cofferdam.errors import CofferdamError, CrossingError, LocalProtocolError, PolicyError, RemoteProtocolError
from cofferdam.model import Allow, Assign, Deny, Fault, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points.asking import operation as operation_of
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    Continues,
    FrameReceived,
    KeptBack,
    LocalAnswer,
    Over,
    Released,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.enip import io, paths, replies, requests, wire
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.dialect import ENIP as DIALECT
from cofferdam.protocols.enip.lists import FRESH_NS
from cofferdam.protocols.enip.requests import Known
from cofferdam.protocols.enip.server import EnipServer
from cofferdam.values import Bool, Int32, Octets, Text, UInt32
from tests.brokers.test_enip_forged import POLICY as FORGED
from tests.capture.traffic import filled
from tests.examples import examples
from tests.policy.plant import NOW
from tests.protocols import enip as e
from tests.protocols.enip import ASSET, ENIP, cip_of, client, rr, server, tag

TARGETS = {target.name: target for target in e.TARGETS}


def asked(data: bytes) -> list[Any]:
    machine = server()
    machine.receive_data(data)
    found = []
    while (event := machine.next_event()) is not NEED_DATA:
        found.append(event)
    return found


def request_of(data: bytes) -> Any:
    [event] = asked(data)
    assert isinstance(event, RequestReceived), event
    return event.request


# Bytes as pylogix and pycomm3 send them.
VECTORS = [
    ("4c0391045075 6d70 0100", m.ReadTag(Item("tag", "pump"))),
    ("4c04 9106 436f756e7473 0500", m.ReadTag(Item("tag", "counts", 0, 5))),
    ("4c05 9106 436f756e7473 2803 0100", m.ReadTag(Item("tag", "counts", 3, 1))),
    ("4c0a 910c 50726f6772616d3a4d61696e 9104 50756d70 0100", m.ReadTag(Item("tag", "program:main.pump"))),
    ("4d03 9104 50756d70 c400 0100 14050000", m.WriteTag(Item("tag", "pump"), 0xC4, 0, Int32((1300,)))),
    ("4e04 9106 537461747573 0400 08000000 ffffffff", m.WriteBit(Item("tag", "status.3"), 4, True)),
    ("4e04 9106 537461747573 0400 00000000 f7ffffff", m.WriteBit(Item("tag", "status.3"), 4, False)),
    ("4e04 9106 537461747573 0400 08000000 ffffffffffffffff", m.WriteBit(Item("tag", "status.3"), 4, True)),
    ("4e04 9106 537461747573 0400 03000000 ffffffff", m.ModifyTag(Item("tag", "status"), 4, 3, 0xFFFFFFFF)),
    ("0e03 2001 2401 3006", m.GetAttribute(Item("cip", "1/1/6"))),
    ("1003 2001 2401 3006 07000000", m.SetAttribute(Item("cip", "1/1/6"), UInt32((7,)))),
    ("0502 2001 2401", m.Service(5, 1, 1)),
    ("0102 2001 2401", m.Identify()),
]  # fmt: skip


@pytest.mark.parametrize(("cip", "message"), VECTORS, ids=[str(row[0])[:40] for row in VECTORS])
def test_vectors_are_read_and_made(cip: str, message: Any) -> None:
    data = bytes.fromhex(cip)
    assert request_of(rr(data)) == message
    ENIP.check(message)
    _, sent = client().send(message)
    inner = cip_of(sent)  # in an Unconnected Send, along the route that the policy names
    assert inner[:6] == b"\x52\x02\x20\x06\x24\x01" and inner.endswith(b"\x01\x00\x01\x00")
    made = inner[10 : 10 + int.from_bytes(inner[8:10], "little")]
    assert request_of(rr(made)) == message, "made anew it means the same"


# What is sent, the general status and additional words of the answer.
REFUSED = [
    ("4c", (0x13,)),  # no path
    ("4c09 9104 50756d70 0100", (0x26,)),  # a path that ends after its request
    ("4c03 9104 50756d70", (0x13,)),
    ("4c03 9104 50756d70 010000", (0x15,)),
    ("4c03 9104 50756d70 0000", (0x20,)),
    ("4c03 9100 50756d70 0100", (0x04,)),
    ("4c03 9104 50202d70 0100", (0x04,)),  # a name with a blank
    ("4c02 2803 9100 0100", (0x04,)),  # an element before a name
    ("4c02 206b 2405 0100", (0x05,)),  # a symbol's number of no list
    ("4c03 ff04 50756d70 0100", (0x04,)),
    ("4c04 2100 6b00 2500 0500 0100", (0x05,)),
    ("4d03 9104 50756d70 c400", (0x13,)),
    ("4d03 9104 50756d70 c600 0100 0101", (0x15,)),
    ("4d03 9104 50756d70 7700 0100 01", (0xFF, 0x2107)),
    ("4d03 9104 50756d70 c400 0200 01000000", (0x13,)),
    ("4d03 9104 50756d70 c100 0100 07", (0x20,)),  # a bool of 7
    ("4e03 9104 50756d70 0300 000000 ffffff", (0x20,)),
    ("5203 9104 50756d70 0100 04000000", (0xFF, 0x2105)),  # a piece of nothing
    ("5303 9104 50756d70 c400 0100 04000000 01", (0xFF, 0x2105)),
    ("5303 9104 50756d70 c400 0100 00000000 0102030405", (0xFF, 0x2105)),  # past the end
    ("0a02 2002 2401 0200 0600 0600", (0x04,)),
    ("0a02 2002 2401 0000", (0x13,)),
    ("0a02 2002 2401 c900" + "0000" * 201, (0x15,)),
    ("0e02 2001 2401", (0x04,)),
    ("0e03 2001 2401 3006 00", (0x15,)),
    ("8c03 9104 50756d70 0100", (0x08,)),
    ("5202 2006 2401 0728 0800", (0x13,)),
    ("5202 2006 2401 0728 0800 4c01 9102 6161 0100 0100 0103", (0x01, 0x0311)),  # another slot
    # Another network, by an address; and one in an odd number of characters.
    ("5202 2006 2401 0728 0800 4c01 9102 6161 0100 0600 1209 3130 2e30 2e30 2e39 3900", (0x01, 0x0311)),
    ("5202 2006 2401 0728 0800 4c01 9102 6161 0100 0300 0100 1205 3130", (0x01, 0x0315)),  # too short a path
    ("5202 2006 2401 0728 0800 4c01 9102 6161 0100 0200 0100 0100", (0x01, 0x0311)),  # on from the controller
    ("5202 2006 2401 0728 0800 4c01 9102 6161 0100 0100 0f00", (0x01, 0x0315)),  # a port of another form
    ("5202 2006 2401 0728 0600 5202 2006 2401 0000", (0x01, 0x0315)),  # one in another
    ("5502 206b 2400 0100 6300", (0x20,)),
    ("0302 206c 2405 0100 0100", (0x05,)),  # a structure that no tag has
    ("4e02 2006 2401 0a0e 0100 4d00 67120000 0000", (0x01, 0x0107)),
]  # fmt: skip


@pytest.mark.parametrize(("cip", "status"), REFUSED, ids=[row[0][:40] for row in REFUSED])
def test_each_rule_broken_once(cip: str, status: tuple[int, ...]) -> None:
    machine = server()
    machine.receive_data(rr(bytes.fromhex(cip)))
    event = machine.next_event()
    assert isinstance(event, RequestRefused) and event.section and event.detail
    answer = cip_of(machine.send(event.token, event.reply))
    assert (answer[2], *struct.unpack_from(f"<{answer[3]}H", answer, 4)) == status
    assert machine.next_event() is NEED_DATA, "the stream goes on"


def test_what_nobody_serves_is_said_to_be_judged() -> None:
    for cip, words in (
        ("0702 208e 2401 00", "with data"), ("4c02 20b2 2421 0100", "FactoryTalk"), ("4b02 2067 2401 00", "PCCC"),
        ("0502 2001 2401 00", "with data"), ("1003 2004 2464 3003 01", "no point of the policy"),
        ("5a02 2006 2401", "connection manager"),
    ):  # fmt: skip
        request = request_of(rr(bytes.fromhex(cip)))
        assert isinstance(request, m.Unserved) and words in request.why
        operation = ENIP.operation(request)
        assert operation.never and operation.is_write
        with pytest.raises(CrossingError):
            ENIP.check(request)
        assert ENIP.refusal(request, Deny("", "", Fault.FUNCTION, "")) == m.CipError(8)


def test_a_packet_of_reads_is_divided_and_answered_as_one() -> None:
    machine = server()
    parts = [tag("a"), tag("b"), tag("c", body=b"\1")]
    cip = requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet(parts[:2]))
    machine.receive_data(rr(cip))
    event: Any = machine.next_event()
    assert event.request == m.Packet((m.ReadTag(Item("tag", "a")), m.ReadTag(Item("tag", "b"))))
    assert machine.divide(event.token) and not machine.divide(event.token)
    one: Any = machine.next_event()
    two: Any = machine.next_event()
    assert machine.send(two.token, m.CipError(5)) == b""
    answer = cip_of(machine.send(one.token, m.Held(0xC4, 0, Int32((7,)))))
    assert answer[:4] == b"\x8a\0\x1e\0"
    assert replies.parts(answer[4:]) == [b"\xcc\0\0\0\xc4\0\7\0\0\0", b"\xcc\0\5\0"]
    # One that is broken is answered beside the others; with a write in it, all are refused.
    machine.receive_data(rr(requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet(parts))))
    found: list[Any] = []
    while (event := machine.next_event()) is not NEED_DATA:
        found.append(event)
    assert [type(one) for one in found] == [RequestReceived, RequestReceived, RequestRefused]
    for one in found:
        machine.release(one.token)
    write = tag("d", service=requests.WRITE, body=b"\xc4\0\1\0\1\0\0\0")
    machine.receive_data(rr(requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([*parts, write]))))
    event = machine.next_event()
    assert isinstance(event, RequestRefused)
    answer = cip_of(machine.send(event.token, event.reply))
    assert [part[2] for part in replies.parts(answer[4:])] == [15, 15, 19, 15]


def test_a_write_in_pieces_is_one_request() -> None:
    machine = server()
    head = b"\xc4\0\3\0"
    pieces = [(0, b"\1\0\0\0\2\0"), (6, b"\0\0\3\0\0\0")]
    found: list[Any] = []
    for offset, data in pieces:
        body = head + offset.to_bytes(4, "little") + data
        machine.receive_data(rr(tag("counts", service=requests.WRITE_PIECE, body=body)))
        found.append(machine.next_event())
    assert isinstance(found[0], LocalAnswer)
    assert found[1].request == m.WriteTag(Item("tag", "counts", 0, 3), 0xC4, 0, Int32((1, 2, 3), True))


def test_a_value_too_long_is_asked_once_and_fetched_in_pieces() -> None:
    machine = server()
    machine.receive_data(rr(tag("counts", body=b"\x2c\1")))
    event: Any = machine.next_event()
    assert event.request == m.ReadTag(Item("tag", "counts", 0, 300))
    value = tuple(range(300))
    answer = cip_of(machine.send(event.token, m.Held(0xC4, 0, Int32(value, True))))
    data = b""
    while answer[2] == 6:
        data += answer[6:]
        body = b"\x2c\1" + len(data).to_bytes(4, "little")
        machine.receive_data(rr(tag("counts", service=requests.READ_PIECE, body=body)))
        event = machine.next_event()
        assert isinstance(event, LocalAnswer)
        answer = cip_of(machine.send(event.token, event.reply))
    assert struct.unpack("<300i", data + answer[6:]) == value


def test_numbers_of_symbols_are_those_of_the_list_that_was_given() -> None:
    machine = server()
    list_all = requests.made(requests.LIST, paths.of_object(0x6B, 0), struct.pack("<4H", 3, 1, 2, 8))
    by_number = requests.made(requests.READ, paths.of_object(0x6B, 7), b"\1\0")
    machine.receive_data(rr(list_all))
    event: Any = machine.next_event()
    assert event.request == m.ListTags()
    symbols = tuple(m.Symbol(n, f"Tag_{n}", 0xC4, (0, 0, 0)) for n in range(1, 60))
    answer = cip_of(machine.send(event.token, m.TagList(symbols)))
    assert answer[2] == 6, "more than one page"
    machine.receive_data(rr(by_number))
    event = machine.next_event()
    assert event.request == m.ReadTag(Item("tag", "tag_7"))
    machine.send(event.token, m.CipError(5))
    machine.receive_data(rr(requests.made(requests.READ, paths.of_object(0x6B, 61), b"\1\0")))
    assert isinstance(machine.next_event(), RequestRefused)


def test_what_a_part_was_read_as_holds_alone_and_in_packets_until_there_is_another_list() -> None:
    machine = server()
    list_all = requests.made(requests.LIST, paths.of_object(0x6B, 0), struct.pack("<4H", 3, 1, 2, 8))
    by_number = requests.made(requests.READ, paths.of_object(0x6B, 7), b"\1\0")
    piece = requests.made(requests.READ_PIECE, paths.of_object(0x6B, 7), b"\1\0\0\0\0\0")
    packet = requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([by_number, tag("a"), piece]))
    for now, name in ((1, "tag_7"), (1 + FRESH_NS, "another")):
        machine.on_time(now)
        machine.receive_data(rr(list_all))
        event: Any = machine.next_event()
        machine.send(event.token, m.TagList((m.Symbol(7, name, 0xC4, (0, 0, 0)),)))
        one = m.ReadTag(Item("tag", name))
        for data in (packet, by_number, packet, packet):
            machine.receive_data(rr(data))
            event = machine.next_event()
            assert event.request == (one if data is by_number else m.Packet((one, m.ReadTag(Item("tag", "a")), one)))
            machine.send(event.token, m.CipError(5))


def test_structures_are_described_and_strings_are_texts() -> None:
    machine = server()
    machine.receive_data(rr(requests.made(requests.LIST, paths.of_object(0x6B, 0), struct.pack("<4H", 3, 1, 2, 8))))
    event: Any = machine.next_event()
    machine.send(event.token, m.TagList((m.Symbol(1, "Recipe", 0x8FCE, (0, 0, 0)),)))
    where = paths.of_object(0x6C, 0xFCE)
    machine.receive_data(rr(requests.made(3, where, struct.pack("<5H", 4, 4, 5, 2, 1))))
    event = machine.next_event()
    assert event.request == m.DescribeStructure(0xFCE)
    members = (m.Member("LEN", 0, 0xC4, 0), m.Member("DATA", 82, 0xC2, 4))
    text = m.Structure(0x0FCE, 88, "ASCIISTRING82;n", members)
    answer = cip_of(machine.send(event.token, text))
    words = int.from_bytes(answer[10:14], "little")
    machine.receive_data(rr(requests.made(0x4C, where, struct.pack("<IH", 0, words * 4 - 23))))
    event = machine.next_event()
    definition = cip_of(machine.send(event.token, event.reply))[4:]
    assert replies.structure(0x0FCE, 88, 2, definition) == text
    written = tag("recipe", service=requests.WRITE, body=b"\xa0\2\xce\x0f\1\0\3\0\0\0abc" + bytes(81))
    machine.receive_data(rr(written))
    event = machine.next_event()
    assert event.request == m.WriteTag(Item("tag", "recipe"), 0x02A0, 0x0FCE, Text(("abc",)))


def test_encapsulation_is_held_to_its_words() -> None:
    def status(data: bytes) -> int:
        machine = server()
        machine.receive_data(data)
        event: Any = machine.next_event()
        assert isinstance(event, RequestRefused)
        return int.from_bytes(machine.send(event.token, event.reply)[8:12], "little")

    session = e.SESSION
    assert status(wire.frame(0x99, session, bytes(8))) == 1
    assert status(e.REGISTER) == 1
    assert status(rr(tag("a"), session + 1)) == 0x64
    assert status(wire.frame(wire.LIST_SERVICES, 0, bytes(8), b"x")) == 0x65
    assert status(wire.frame(wire.SEND_RR, session, bytes(8), bytes(9))) == 3
    assert status(wire.frame(wire.SEND_UNIT, session, bytes(8), wire.packet(((0xA1, bytes(4)), (0xB1, bytes(9)))))) == 3
    for silent in (
        wire.frame(wire.NOP, session, bytes(8), b"anything"),
        wire.HEADER.pack(wire.LIST_SERVICES, 0, 0, 0, bytes(8), 5),  # options: passed over
    ):
        machine = server()
        machine.receive_data(silent)
        event: Any = machine.next_event()
        assert isinstance(event, LocalAnswer), "it counts as a request, so that a flood of them waits its turn"
        assert machine.send(event.token, event.reply) == b""
    for data in (b"GET /", wire.HEADER.pack(0x6F, 9000, 0, 0, bytes(8), 0)):
        with pytest.raises(RemoteProtocolError):
            asked(data)
    late = EnipServer(e.facing())
    late.on_time(1)
    assert late.deadline == 5_000_000_001
    late.on_time(late.deadline)
    with pytest.raises(RemoteProtocolError):
        late.next_event()


def test_a_question_that_comes_alone_needs_no_session_and_opens_none() -> None:
    for data in (
        e.REGISTER, rr(tag("a")), wire.frame(wire.NOP, 0, bytes(8)), wire.frame(wire.LIST_INTERFACES, 0, bytes(8)),
        wire.frame(wire.LIST_SERVICES, 0, bytes(8), b"x"), wire.HEADER.pack(wire.LIST_SERVICES, 0, 0, 0, bytes(8), 5),
        wire.HEADER.pack(wire.LIST_SERVICES, 0, 0, 1, bytes(8), 0),
    ):  # fmt: skip
        machine = EnipServer(msgspec.structs.replace(e.facing(), alone=True))
        machine.receive_data(data)
        with pytest.raises(RemoteProtocolError):
            machine.next_event()
    machine = EnipServer(msgspec.structs.replace(e.facing(), alone=True))
    machine.on_time(1)
    assert machine.deadline == 0
    machine.receive_data(wire.frame(wire.LIST_IDENTITY, 0, b"somebody"))
    event: Any = machine.next_event()
    assert event.request == m.Identify()
    no = machine.send(event.token, m.CipError(0x0F))
    assert no == wire.frame(wire.LIST_IDENTITY, 0, b"somebody", b"\0\0"), "no longer than the question and a count"


def test_the_client_matches_answers_to_questions() -> None:
    machine = client()
    token, sent = machine.send(m.ReadTag(Item("tag", "pump")))
    context = sent[12:20]
    machine.receive_data(rr(b"\xcc\0\0\0\xc4\0\1\0\0\0", 9, b"stranger"))
    assert isinstance(machine.next_event(), Unmatched)
    machine.receive_data(rr(b"\xcc\0\0\0\xc4\0\1\0\0\0", 9, context))
    assert machine.next_event() == ResponseReceived(token, m.Held(0xC4, 0, Int32((1,))))
    machine.receive_data(rr(b"\xcc\0\0\0\xc4\0\1\0\0\0", 9, context))
    assert isinstance(machine.next_event(), Unmatched), "twice"
    for answer in (
        b"\xcd\0\0\0",
        b"\xcc\0\0\0\xc4\0\1\0\0",
        b"\xcc\0\0\0\x77\0\1",
        b"\xcc\0\0\0\xc4\0" + bytes(8),
        b"",
    ):
        token, sent = machine.send(m.ReadTag(Item("tag", "pump")))
        machine.receive_data(rr(answer, 9, sent[12:20]))
        assert isinstance(machine.next_event(), BadResponse), answer
    token, sent = machine.send(m.ReadTag(Item("tag", "counts", 0, 3)))
    machine.receive_data(rr(b"\xcc\0\6\0\xc4\0\1\0\0\0", 9, sent[12:20]))
    assert machine.next_event() == Continues(token)
    more = machine.take_output()
    assert b"\x52" in cip_of(more)[8:12] and machine.in_flight == 1
    machine.forget(token)
    machine.receive_data(rr(b"\xd2\0\0\0\xc4\0" + bytes(8), 9, more[12:20]))
    assert isinstance(machine.next_event(), Unmatched) and machine.take_output() == b""


def opened(cls: int = 1) -> tuple[EnipServer, int, m.OpenIo]:
    machine = server()
    body = struct.pack("<BBIIHHIB3xIHIHBB", 10, 14, 0, 5, 1, 77, 4711, 0, 10_000, 0x480A, 10_000, 0x480A, cls, 4)
    path = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"
    machine.receive_data(rr(requests.made(0x54, paths.of_object(6, 1), body + path)))
    event: Any = machine.next_event()
    answer = cip_of(machine.send(event.token, m.IoOpened(10_000, 10_000)))
    assert answer[:4] == b"\xd4\0\0\0"
    return machine, event.token, event.request


def datagram(number: int, sequence: int, data: bytes) -> bytes:
    return wire.listed(((0x8002, struct.pack("<II", number, sequence)), (0xB1, data)))


def test_io_is_one_packet_in_and_one_out() -> None:
    machine, token, request = opened()
    assert request == m.OpenIo(Item("io", "drive"), 10_000, 10_000, 0, 1)
    number = int.from_bytes(bytes(range(7, 11)), "little") | 1 << 31
    first = datagram(number, 1, b"\1\0\1\0\0\0\7\0\0\0")
    event = machine.datagram(2222, first, 1)
    assert event == FrameReceived(token, m.IoData(True, True, b"\7\0\0\0"))
    operation = ENIP.frame_operation(request, m.IoData(True, True, b"\7\0\0\0"), ASSET)
    assert operation.writes == (Assign(Item("io", "drive.0"), Int32((7,))),)
    for wrong in (first, datagram(number, 0, b"\1\0\1\0\0\0\7\0\0\0"), datagram(number, 2, b"\1\0\1\0\0\0\7\0\0"),
                  datagram(9, 2, b"\1\0\1\0\0\0\7\0\0\0"), b"", b"\2\0"):  # fmt: skip
        assert machine.datagram(2222, wrong, 1) is None
    assert machine.datagram(2222, datagram(number, 2, b"\1\0\0\0\0\0\7\0\0\0"), 1) == FrameReceived(
        token, m.IoData(False, False, b"\7\0\0\0")
    )
    assert machine.frame(token, m.IoData(True, True, b"ABCDEFGH")) == b""
    [(port, data, _)] = machine.take_datagrams()
    assert port == 2222 and data == datagram(5, 1, b"\1\0ABCDEFGH")
    with pytest.raises(LocalProtocolError):
        machine.frame(token, m.IoData(True, True, b"short"))
    # Four intervals of silence: to be looked for from the first packet on, and not when the opening's time is over.
    assert machine.deadline == 1 + 40_000_000
    machine.on_time(machine.deadline)
    # It is so if nothing has come at a second look, an interval later: this half may have been held up itself.
    assert machine.next_event() is NEED_DATA and machine.deadline == 1 + 50_000_000
    assert machine.datagram(2222, datagram(number, 3, b"\1\0\0\0\0\0\7\0\0\0"), 1 + 49_000_000)
    assert machine.deadline == 1 + 50_000_000
    machine.on_time(machine.deadline)
    assert machine.next_event() is NEED_DATA and machine.deadline == 1 + 89_000_000
    machine.on_time(1 + 95_000_000)
    assert machine.next_event() is NEED_DATA and machine.deadline == 1 + 105_000_000
    machine.on_time(machine.deadline)
    assert machine.next_event() == Over(token, "the client has sent nothing in time", True)


def test_a_stream_after_others_on_the_same_connection_has_a_deadline_of_its_own() -> None:
    links = io.IoLinks()
    for standing, at in ((1, 0), (2, 500_000_000)):
        link = io.IoLink(standing, 1, 5, standing, 10_000, 0, at)
        link.receive_size = 8
        links.add(link)
        assert links.deadline == at + io.FIRST_NS, "the time that the first packet may take"
        assert links.take(datagram(standing, 1, bytes(10)), at + 1)
        assert links.deadline == at + 1 + 40_000_000
        links.remove(standing)
        assert links.deadline == 0


@pytest.mark.parametrize("first", [0xFFFF - 3, 0x7FFF_FFFF - 3, 0xFFFF_FFFF - 3])
def test_numbers_run_over_without_a_gap(first: int) -> None:
    machine, token, _ = opened()
    number = int.from_bytes(bytes(range(7, 11)), "little") | 1 << 31
    for step in range(8):
        at = first + step
        data = (at & 0xFFFF).to_bytes(2, "little") + b"\1\0\0\0\7\0\0\0"
        event = machine.datagram(2222, datagram(number, at & 0xFFFF_FFFF, data), 1 + step * 10_000_000)
        assert event == FrameReceived(token, m.IoData(True, True, b"\7\0\0\0")), at
    old = datagram(number, (first + 3) & 0xFFFF_FFFF, bytes(10))
    assert machine.datagram(2222, old, 1 + 90_000_000) is None, "from before it ran over"


def test_io_faster_than_agreed_is_dropped_and_a_close_gives_it_up() -> None:
    machine, token, _ = opened()
    number = int.from_bytes(bytes(range(7, 11)), "little") | 1 << 31
    taken = [machine.datagram(2222, datagram(number, n, bytes(9) + bytes([n])), 1) for n in range(1, 20)]
    assert [type(one) for one in taken[:4]] == [FrameReceived] * 3 + [KeptBack] and not any(taken[4:])
    assert machine.newest(token, 1) == FrameReceived(token, m.IoData(False, False, bytes([0, 0, 0, 19])))
    assert machine.newest(token, 1) is None
    later = machine.datagram(2222, datagram(number, 23, bytes(10)), 1 + 20_000_000)
    assert isinstance(later, FrameReceived) and later.lost == 3, "what came and was dropped is not lost"
    # Numbers that jump as far as they may, and are dropped for their pace: what is told of it fits a record.
    at = 23
    for _ in range(8):
        at = (at + (1 << 31) - 1) & 0xFFFF_FFFF
        machine.datagram(2222, datagram(number, at, bytes(10)), 1 + 20_000_000)
    far = machine.datagram(2222, datagram(number, (at + 5) & 0xFFFF_FFFF, bytes(10)), 1 + 40_000_000)
    assert isinstance(far, FrameReceived) and far.lost == MOST_LOST
    # One that was kept back gives way to one that comes when there is room again; none outlives its connection.
    at = (at + 5) & 0xFFFF_FFFF
    assert isinstance(machine.datagram(2222, datagram(number, at + 1, bytes(10)), 1 + 40_000_000), FrameReceived)
    assert isinstance(machine.datagram(2222, datagram(number, at + 2, bytes(10)), 1 + 40_000_000), FrameReceived)
    assert isinstance(machine.datagram(2222, datagram(number, at + 3, bytes(10)), 1 + 40_000_000), KeptBack)
    assert isinstance(machine.datagram(2222, datagram(number, at + 4, bytes(10)), 1 + 60_000_000), FrameReceived)
    assert machine.newest(token, 1 + 60_000_000) is None
    found = [machine.datagram(2222, datagram(number, at + n, bytes(10)), 1 + 60_000_000) for n in range(5, 9)]
    assert [type(one) for one in found if one] == [FrameReceived, FrameReceived, KeptBack]
    close = requests.made(0x4E, paths.of_object(6, 1), struct.pack("<BBHHIBx", 10, 14, 1, 77, 4711, 0))
    machine.receive_data(rr(close))
    event = machine.next_event()
    assert isinstance(event, Released) and event.standing == token
    assert machine.newest(token, 1 + 60_000_000) is None
    assert cip_of(machine.send(event.token, event.reply))[2] == 0
    assert machine.datagram(2222, datagram(number, 99, bytes(10)), 1) is None


def open_one(machine: EnipServer, serial: int) -> Any:
    """The event that an opening of the stream makes, which is `serial` of the client's."""
    body = struct.pack(
        "<BBIIHHIB3xIHIHBB", 10, 14, 0, 5 + serial, serial, 77, 4711, 0, 10_000, 0x480A, 10_000, 0x480A, 1, 4
    )
    path = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"
    machine.receive_data(rr(requests.made(0x54, paths.of_object(6, 1), body + path)))
    return machine.next_event()


def test_a_connection_has_64_io_connections_and_each_once() -> None:
    machine = server()

    def refusal(event: Any) -> tuple[int, ...]:
        assert isinstance(event, RequestRefused)
        cip = cip_of(machine.send(event.token, event.reply))
        return cip[2], int.from_bytes(cip[4:6], "little")

    tokens = []
    for serial in range(1, 65):
        event = open_one(machine, serial)
        assert isinstance(event, RequestReceived)
        tokens.append(event.token)
    assert refusal(open_one(machine, 3)) == (1, 0x0100), "being opened already"
    assert refusal(open_one(machine, 65)) == (1, 0x0113)
    # One that the device did not want has a place no longer.
    machine.send(tokens[0], m.CipError(1, (0x0106,)))
    event = open_one(machine, 65)
    assert isinstance(event, RequestRefused) and "a second" in event.detail, "as many at once, then ten a second"
    machine.on_time(200_000_000)
    assert isinstance(open_one(machine, 65), RequestReceived)


def test_of_a_thousand_openings_a_second_ten_are_asked_of_the_device() -> None:
    """The device refuses each, so that none is refused here for want of a place."""
    machine = server()
    asked = []
    for number in range(3000):
        machine.on_time(1 + number * 1_000_000)
        event = open_one(machine, number)
        if isinstance(event, RequestReceived):
            asked.append(number)
            machine.send(event.token, m.CipError(1, (0x0106,)))
            continue
        assert isinstance(event, RequestRefused) and "a second" in event.detail
        assert cip_of(machine.send(event.token, event.reply))[2:4] == b"\2\0"
    seconds = [sum(second * 1000 <= number < (second + 1) * 1000 for number in asked) for second in range(3)]
    assert seconds == [64 + 9, 10, 10], "as many as may be open at once, then ten a second"


def test_our_opening_names_our_own_ids_and_a_late_yes_is_taken_back() -> None:
    request = m.OpenIo(Item("io", "drive"), 10_000, 20_000, 1, 1)
    for late in (False, True):
        machine = client()
        token, sent = machine.send(request)
        cip = cip_of(sent)
        assert cip[:6] == b"\x54\x02\x20\x06\x24\x01" and cip.endswith(b"\x01\x00\x20\x04\x24\x97\x2c\x96\x2c\x64")
        ours, name = cip[12:16], cip[16:24]
        answer = b"\xd4\0\0\0" + b"\x99\0\0\0" + ours + name + struct.pack("<IIH", 10_000, 20_000, 0)
        if late:
            machine.forget(token)
        machine.receive_data(rr(answer, 9, sent[12:20]))
        event = machine.next_event()
        if late:
            assert isinstance(event, Unmatched)
            assert cip_of(machine.take_output())[0] == 0x4E, "a Forward Close"
        else:
            assert event == ResponseReceived(token, m.IoOpened(10_000, 20_000))
            machine.frame(token, m.IoData(True, False, b"\5\0\0\0"))
            assert machine.take_datagrams() == [(2222, datagram(0x99, 1, b"\1\0\0\0\0\0\5\0\0\0"), "")]
            closing = machine.give_up(token)
            assert cip_of(closing)[0] == 0x4E
            for answered in (True, False):  # its answer was asked for, and a second one was not
                machine.receive_data(rr(b"\xce\0\0\0" + name + b"\0\0", 9, closing[12:20]))
                assert (machine.next_event() is NEED_DATA) is answered


@given(e.single)
@examples(300)
def test_what_passes_check_is_made_and_read_as_the_same(request: Any) -> None:
    ENIP.check(request)
    made = requests.encode_request(request)
    service, path, body = requests.split(made)
    about = Known(types={point.at.name: point.type for point in ASSET.points if isinstance(point.at, Item)})
    again = (
        requests.decode_tag(service, path, body, about, {})
        if requests.is_tag(path)
        else requests.decode_object(service, path, body, about)
    )
    assert again == request
    assert ENIP.operation(again).is_write == bool(ENIP.operation(again).writes)


@given(e.tags)
@examples(200)
def test_each_item_shows_as_what_it_is_read_from(item: Item) -> None:
    if item.first < 0 and item.name.endswith("]"):
        return
    assert DIALECT.notation.parse(DIALECT.notation.show(item)) == item


def test_one_spelling() -> None:
    parse = DIALECT.notation.parse
    assert parse("tag Pump.Speed") == parse("tag PUMP.speed") == Item("tag", "pump.speed")
    assert parse("tag Counts[007]") == parse("tag counts[7-7]") == Item("tag", "counts", 7, 1)
    assert parse("tag Status.03") == Item("tag", "status.3")
    assert parse("cip 0x8B/01/011") == Item("cip", "139/1/11")
    assert parse("io Drive.04.3") == Item("io", "drive.4.3")
    read = [request_of(rr(tag(name))) for name in ("counts",)]
    assert read == [m.ReadTag(Item("tag", "counts", 0, 1))], "the policy says that it is an array"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_of_the_fuzzer(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)


# Requests that were understood; those that broke a rule; those that no policy can allow.
SEEN = {
    "icsnpp-enip-cip-example": (544, 0, 1),
    "icsnpp-multiple-service": (11, 0, 0),
    "icsnpp-set-attribute-single": (0, 1, 0),
    "iti-cip-eth-set-2": (0, 0, 0),
    "iti-cip-only": (0, 0, 9428),
    "iti-cip_start_plc": (1, 0, 0),
    "iti-cip_stop_plc": (1, 0, 0),
    "iti-cip_unlock_cpu": (0, 1, 0),
    "iti-enip-test": (1, 0, 0),
}


@pytest.mark.skipif(not e.CAPTURES.is_dir(), reason="no captures beside the checkout (../shared/captures/enip)")
@pytest.mark.parametrize("name", SEEN)
def test_captures_are_understood_or_refused(name: str) -> None:
    [path] = e.CAPTURES.glob(f"{name}.pcap*")
    with path.open("rb") as stream:
        learned = learn(stream, path.name)
    others = sum(int(one.split()[0]) for one in learned.others)
    assert (learned.requests, learned.malformed, others) == SEEN[name]
    if not learned.requests or name == "iti-enip-test":
        return
    policy = compile_policy(loads(filled(learned.text)), now_ns=NOW)
    with path.open("rb") as stream:
        report = simulate(policy, stream, path.name)
    assert report.allowed >= learned.requests - 1


def test_bits_and_masks_of_values() -> None:
    assert ENIP.operation(m.WriteBit(Item("tag", "status.3"), 4, True)).writes == (
        Assign(Item("tag", "status.3"), Bool((True,))),
    )
    assert not ENIP.operation(m.ModifyTag(Item("tag", "status"), 4, 3, 7)).writes[0].exact
    for wrong in (
        m.WriteBit(Item("tag", "status.8"), 1, True), m.WriteBit(Item("tag", "status"), 1, True),
        m.ReadTag(Item("tag", "status.3")), m.ReadTag(Item("tag", "Pump")), m.ReadTag(Item("tag", "a[07].b")),
        m.ReadTag(Item("tag", "counts", 0, 1 << 20)), m.WriteTag(Item("tag", "a"), 0xC3, 0, Int32((1,))),
        m.WriteTag(Item("tag", "a"), 0xC4, 7, Int32((1,))), m.WriteTag(Item("tag", "a"), 0xC4, 0, Int32((1, 2), True)),
        m.WriteTag(Item("tag", "a"), 0x02A0, 0x0FCE, Octets((b"x",))), m.GetAttribute(Item("cip", "1/1")),
        m.GetAttribute(Item("tag", "a")), m.OpenIo(Item("io", "drive.0"), 10_000, 10_000, 0, 1),
        m.ModifyTag(Item("tag", "a"), 1, 256, 0), m.Held(0xC4, 0, Int32((1, 2))), m.Held(0, 3, Int32((1,))),
    ):  # fmt: skip
        with pytest.raises(CrossingError):
            ENIP.check(wrong)


ASK_LIST = struct.pack("<4H", 3, 1, 2, 8)


@pytest.mark.parametrize("program", ["Program:a:b", "Program:" + "x" * 41, "Program:" + "x" * 200])
def test_what_cannot_cross_is_refused_where_it_comes_from(program: str) -> None:
    """The inner half stops, with everybody's sessions, at a record that no honest outer half sends."""
    path = paths.of_program(program) + paths.of_object(0x6B, 0)
    [event] = asked(rr(requests.made(requests.LIST, path, ASK_LIST)))
    assert isinstance(event, RequestRefused) and "the program" in event.detail
    eight = ".".join(f"p{number}" for number in range(8))
    [event] = asked(rr(tag(eight, service=requests.MODIFY, body=b"\4\0\1\0\0\0\xff\xff\xff\xff")))
    assert isinstance(event, RequestRefused) and "9 parts" in event.detail


@pytest.mark.parametrize("name", ["a b", "pump.3", "pump[1]", "pump.", "a..b", "\x1b[31m"])
def test_a_tag_whose_name_is_none_cannot_be_asked_by_its_number(name: str) -> None:
    machine = server()
    machine.receive_data(rr(requests.made(requests.LIST, paths.of_object(0x6B, 0), ASK_LIST)))
    event: Any = machine.next_event()
    machine.send(event.token, m.TagList((m.Symbol(1, "Pump", 0xC4, (0, 0, 0)), m.Symbol(2, name, 0xC4, (0, 0, 0)))))
    for number, body in ((1, b"\1\0"), (2, b"\1\0")):
        machine.receive_data(rr(requests.made(requests.READ, paths.of_object(0x6B, number), body)))
    event = machine.next_event()
    assert event.request == m.ReadTag(Item("tag", "pump"))
    assert isinstance(machine.next_event(), RequestRefused)


def test_a_packet_has_no_more_read_than_its_answer_can_hold() -> None:
    """Each of 200 parts may be an array of 8 KiB: nobody keeps the device busy with what is thrown away."""
    machine = client()
    _, sent = machine.send(m.Packet(tuple(m.ReadTag(Item("tag", "big", 0, 600)) for _ in range(200))))
    steps = 0
    event: Any = None
    while sent:
        steps += 1
        # Unwrapped: the request in the Unconnected Send.
        cip = cip_of(sent)[10:]
        if cip[0] == requests.PACKET:
            count = int.from_bytes(cip[6:8], "little")
            whole = requests.packet([b"\xcc\0\6\0\xc4\0" + bytes(400)] * count)
            answer = b"\x8a\0\x1e\0" + whole
        else:
            at = int.from_bytes(cip[-8:-4], "little") if cip[0] == requests.READ_PIECE else 0
            more = at + 480 < 2400
            answer = bytes([cip[0] | 0x80, 0, 6 if more else 0, 0]) + b"\xc4\0" + bytes(480)
        machine.receive_data(rr(answer, 9, sent[12:20]))
        while (found := machine.next_event()) is not NEED_DATA:
            event = found
        sent = machine.take_output()
    assert isinstance(event, ResponseReceived)
    parts = event.response.parts
    assert isinstance(parts[0], m.Held) and isinstance(parts[1], m.Held) and parts[2] == m.CipError(0x11)
    assert steps < 250, "one for each packet of ours, and the pieces of the first values"


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("{at: io Drive.1, type: dint}", "which have 4 bytes"),
        ("{at: io Drive.0, type: int, elements: 3}", "which have 4 bytes"),
        ("{at: io Drive.4.0, type: bool}", "which have 4 bytes"),
        ("{at: io Drive.0.3, type: dint}", "a bit such as"),
        ("{at: io Drive.0, type: bool}", "a bit such as"),
        ("{at: io Drive.0, type: string}", "a number or a bool"),
        ("{at: io Drove.0, type: dint}", "a part of a stream"),
        ("{at: io Drive.3.7, type: bool}", ""),
        ("{at: io Drive.0, type: int, elements: 2}", ""),
    ],
)
def test_a_point_lies_in_the_outputs_of_a_stream(point: str, expected: str) -> None:
    """Its limits would hold nowhere, or refuse every packet."""
    text = FORGED.replace("{at: io Drive.0, type: dint, min: 0, max: 1500}", point)
    assert point in text
    if not expected:
        compile_policy(loads(text), now_ns=NOW)
        return
    with pytest.raises(PolicyError) as refused:
        compile_policy(loads(text), now_ns=NOW)
    assert expected in "".join(str(problem) for problem in refused.value.problems)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("write-function 76/178", "goes by OPC UA"), ("function 82/114", "goes by OPC UA"),
        ("write-function 75/103", "PCCC"), ("write-function 6/142", "allowed write_functions: none"),
    ],
)  # fmt: skip
def test_explain_says_what_nobody_serves_and_what_to_do_instead(asked: str, words: str) -> None:
    policy = compile_policy(loads(FORGED), now_ns=NOW)
    [name] = policy.assets
    operation = operation_of(asked, policy.assets[name], DIALECT)
    flow = policy.flow("enip", "127.0.0.1", name)
    assert isinstance(flow, Flow)
    verdict = flow.decide(operation, NOW)
    assert isinstance(verdict, Deny) and words in verdict.detail


INNER = {
    "a packet": requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([tag("a")])),
    "an Unconnected Send": requests.made(
        requests.UNCONNECTED_SEND, paths.of_object(6, 1), b"\7\x28\x06\0" + tag("a", body=b"")[:6] + b"\1\0\1\0"
    ),
    "a Forward Open": requests.made(requests.OPEN, paths.of_object(6, 1), bytes(40)),
    "a Forward Close": requests.made(requests.CLOSE, paths.of_object(6, 1), bytes(12)),
    "a piece of a write": tag("a", service=requests.WRITE_PIECE, body=b"\xc4\0\1\0" + bytes(8)),
}


@pytest.mark.parametrize("inner", INNER)
def test_what_has_no_place_in_a_packet_is_refused_in_it(inner: str) -> None:
    machine = server()
    body = requests.packet([tag("b"), INNER[inner]])
    machine.receive_data(rr(requests.made(requests.PACKET, paths.of_object(2, 1), body)))
    event: Any = machine.next_event()
    assert isinstance(event, RequestRefused), "the read beside it goes nowhere either"
    answer = cip_of(machine.send(event.token, event.reply))
    assert [part[2] for part in replies.parts(answer[4:])] == [0x0F, 0x04]
    assert machine.next_event() is NEED_DATA


@pytest.mark.parametrize("places", [(6, 6), (8, 6), (6, 5), (6, 200), (4, 8), (7, 12), (0, 0)])
def test_places_in_a_packet_rise_within_it(places: tuple[int, int]) -> None:
    machine = server()
    body = struct.pack("<3H", 2, *places) + tag("a") + tag("b")
    machine.receive_data(rr(requests.made(requests.PACKET, paths.of_object(2, 1), body)))
    event: Any = machine.next_event()
    assert isinstance(event, RequestRefused)
    assert cip_of(machine.send(event.token, event.reply))[2] in (4, 0x13) and machine.next_event() is NEED_DATA


WRITE = tag("counts", service=requests.WRITE, body=b"\xc4\0\1\0\7\0\0\0")
HIDDEN = {
    "in a packet of reads": (requests.PACKET, (2, 1), requests.packet([tag("a"), WRITE])),
    "in an Unconnected Send": (0x52, (6, 1), b"\7\x28" + bytes([len(WRITE), 0]) + WRITE + b"\1\0\1\0"),
    "as a bit": (0x4E, None, b"\4\0\1\0\0\0\xff\xff\xff\xff"),
    "in one piece": (0x53, None, b"\xc4\0\1\0\0\0\0\0\7\0\0\0"),
    "in Set List": (4, (1, 1), b"\1\0\6\0\7\0\0\0"),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_a_hidden_write_is_judged_as_the_write_that_it_is(where: str) -> None:
    service, place, body = HIDDEN[where]
    path = paths.of_tag(Item("tag", "counts")) if place is None else paths.of_object(*place)
    operation = ENIP.operation(request_of(rr(requests.made(service, path, body))))
    assert operation.is_write and (operation.writes or operation.never)


def test_configuration_and_a_third_hosts_address_open_nothing() -> None:
    machine = server()
    head = (10, 14, 0, 5, 1, 77, 4711, 0, 10_000, 0x480A, 10_000, 0x480A, 1)
    path = b"\x20\x04\x24\x97\x2c\x96\x2c\x64\x80\x01\xaa\xbb"
    body = struct.pack("<BBIIHHIB3xIHIHBB", *head, len(path) // 2) + path
    machine.receive_data(rr(requests.made(0x54, paths.of_object(6, 1), body)))
    event: Any = machine.next_event()
    answer = cip_of(machine.send(event.token, event.reply))
    assert isinstance(event, RequestRefused) and answer[2:6] == b"\1\1\x26\1"


def test_attributes_without_a_point_are_read_as_bytes_one_by_one() -> None:
    request = m.GetAttributes((Item("cip", "172/1/1"), Item("cip", "172/1/2"), Item("cip", "1/1/6")))
    assert request_of(rr(bytes.fromhex("0302 20ac 2401 0200 0100 0200"))) == m.GetAttributes(request.items[:2])
    machine = client()
    event: Any = None
    token, sent = machine.send(request)
    for answer in (b"\x8e\0\0\0abc", b"\x8e\0\x14\0", b"\x8e\0\0\0\7\0\0\0"):
        assert cip_of(sent)[10] == requests.GET_ONE
        machine.receive_data(rr(answer, 9, sent[12:20]))
        event = machine.next_event()
        sent = machine.take_output()
    assert event == ResponseReceived(token, m.HeldList((Octets((b"abc",)), 0x14, UInt32((7,)))))


def test_a_bit_is_read_by_reading_its_tag_and_a_policy_that_says_otherwise_is_told() -> None:
    with pytest.raises(PolicyError) as refused:
        compile_policy(loads(FORGED.replace("read: [pump, level", "read: [alarm, pump, level")), now_ns=NOW)
    [problem] = refused.value.problems
    assert "alarm, which is a part of tag status" in str(problem) and "by reading the whole" in str(problem)
    policy = compile_policy(loads(FORGED.replace("read: [pump, level, counts, serial]", "read: all")), now_ns=NOW)
    [name] = policy.assets
    with pytest.raises(CofferdamError, match="reads tag status whole"):
        operation_of("read alarm", policy.assets[name], DIALECT)
    flow = policy.flow("enip", "127.0.0.1", name)
    assert isinstance(flow, Flow)
    assert isinstance(flow.decide(operation_of("write alarm 1", policy.assets[name], DIALECT), NOW), Allow)
    assert isinstance(flow.decide(ENIP.operation(m.ReadTag(Item("tag", "status"))), NOW), Deny), "all is no more"


def test_many_attributes_are_asked_for_as_far_as_one_answer_holds() -> None:
    """Of 64 attributes each may have thousands of bytes: no record and no frame is longer than it may be."""
    request = m.GetAttributes(tuple(Item("cip", f"172/1/{number}") for number in range(1, 65)))
    machine = client()
    _, sent = machine.send(request)
    asked_for = 0
    event: Any = None
    while sent:
        asked_for += 1
        machine.receive_data(rr(b"\x8e\0\0\0" + bytes(400), 9, sent[12:20]))
        event = machine.next_event()
        sent = machine.take_output()
    assert isinstance(event, ResponseReceived) and asked_for == 10
    values = event.response.values
    assert values[9] == Octets((bytes(400),)) and values[10:] == (0x11,) * 54
    other = server()
    body = struct.pack("<65H", 64, *range(1, 65))
    other.receive_data(rr(requests.made(requests.GET_LIST, paths.of_object(172, 1), body)))
    received: Any = other.next_event()
    assert received.request == request
    assert cip_of(other.send(received.token, event.response))[:4] == b"\x83\0\x11\0"


@pytest.mark.parametrize(("source", "refused"), [("10.1.0.1", ""), ("jump:helps", "has no address")])
def test_io_goes_to_an_address(source: str, refused: str) -> None:
    """Who comes by a port of the jump server has none; nobody looks up what stands there in its place."""
    machine = EnipServer(msgspec.structs.replace(e.facing(), source=source))
    machine.on_time(1)
    body = struct.pack(
        "<BBIIHHIB3xIHIHBB", 10, 14, 0, 0x5CA0_0001, 1, 77, 4711, 2, 20_000, 0x4800 | 10, 20_000, 0x4800 | 10, 1, 4
    ) + bytes.fromhex("2004 2497 2c96 2c64")  # fmt: skip
    machine.receive_data(e.REGISTER)
    machine.receive_data(rr(b"\x54\x02\x20\x06\x24\x01" + body))
    said: list[str] = []
    while (event := machine.next_event()) is not NEED_DATA:
        if isinstance(event, LocalAnswer):
            machine.send(event.token, event.reply)
        elif isinstance(event, (RequestReceived, RequestRefused)):
            said.append(event.detail if isinstance(event, RequestRefused) else "")
            break
    assert len(said) == 1 and refused in said[0] and bool(said[0]) == bool(refused), said
