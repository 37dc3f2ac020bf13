"""EtherNet/IP without a network: what is sent twice is done once, and what a device was asked to open is closed."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cofferdam.model import Assign, Item
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    LocalAnswer,
    RequestReceived,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests, wire
from cofferdam.protocols.enip.client import MAX_OUTSTANDING
from cofferdam.protocols.enip.server import EnipServer
from cofferdam.values import Int32
from tests.protocols.enip import ENIP, SESSION, cip_of, client, rr, server, tag
from tests.protocols.test_enip_explicit import GOOD, READ, asked, connected, established, open_class_3

WRITE = tag("pump", service=requests.WRITE, body=b"\xc4\0\1\0\7\0\0\0")
PACKET = requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([tag("a"), WRITE]))
READS = requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([tag("a"), tag("b")]))
OPEN_IO = m.OpenIo(Item("io", "drive"), 10_000, 20_000, 1, 1)


def said(machine: EnipServer, number: bytes, sequence: int, cip: bytes, context: bytes = b"abcdefgh") -> Any:
    """What comes of a request in a connection."""
    items = ((wire.CONNECTED_ADDRESS, number), (wire.CONNECTED, sequence.to_bytes(2, "little") + cip))
    machine.receive_data(wire.frame(wire.SEND_UNIT, SESSION, context, wire.packet(items)))
    return machine.next_event()


@pytest.mark.parametrize(
    ("cip", "answer"),
    [(WRITE, m.Done()), (WRITE, m.CipError(0x20)), (PACKET, m.Answers((m.Held(0xC4, 0, Int32((1,))), m.Done())))],
    ids=["done", "refused", "packet"],
)
def test_a_write_that_a_client_repeats_in_its_connection_is_answered_again_and_not_done_again(
    cip: bytes, answer: Any
) -> None:
    machine = server()
    number = open_class_3(machine)[4:8]
    event = said(machine, number, 5, cip)
    assert isinstance(event, RequestReceived)
    under_way = said(machine, number, 5, cip)
    assert isinstance(under_way, LocalAnswer) and machine.send(under_way.token, under_way.reply) == b""
    first = machine.send(event.token, answer)
    again = said(machine, number, 5, cip, b"another.")
    assert isinstance(again, LocalAnswer)
    frame = machine.send(again.token, again.reply)
    assert frame[12:20] == b"another." and frame[24:] == first[24:], "the same, in a frame of its own"
    # Its next number, or another request, is another write.
    assert isinstance(said(machine, number, 6, cip), RequestReceived)
    assert isinstance(said(machine, number, 6, tag("pump", service=requests.WRITE, body=WRITE[-8:-1] + b"\1")),
                      RequestReceived)  # fmt: skip
    # And what comes outside a connection has no number.
    for _ in range(2):
        machine.receive_data(rr(cip))
        assert isinstance(machine.next_event(), RequestReceived)


@pytest.mark.parametrize("cip", [tag("a"), READS], ids=["read", "packet"])
def test_what_changes_nothing_is_asked_anew(cip: bytes) -> None:
    machine = server()
    number = open_class_3(machine)[4:8]
    for _ in range(3):
        event = said(machine, number, 5, cip)
        assert isinstance(event, RequestReceived), "whoever counts no numbers is told no old value"
        machine.send(event.token, m.CipError(5))


def test_a_piece_of_a_write_that_is_repeated_breaks_nothing() -> None:
    machine = server()
    number = open_class_3(machine)[4:8]
    body = b"\xc4\0\2\0"
    first = tag("pump[0]", service=requests.WRITE_PIECE, body=body + bytes(4) + b"\1\0\0\0")
    for _ in range(2):
        event = said(machine, number, 1, first)
        assert isinstance(event, LocalAnswer) and machine.send(event.token, event.reply)[46] == 0xD3
    event = said(machine, number, 2, tag("pump[0]", service=requests.WRITE_PIECE, body=body + b"\4\0\0\0\2\0\0\0"))
    assert event.request == m.WriteTag(Item("tag", "pump", 0, 2), 0xC4, 0, Int32((1, 2), True))


# ---- towards the device


def test_answers_are_known_after_so_many_requests_as_a_busy_gate_makes_in_weeks() -> None:
    machine = client()
    machine._serial = (1 << 32) - 2
    for _ in range(3):
        token, sent = machine.send(READ)
        machine.receive_data(rr(GOOD, 9, sent[12:20]))
        event: Any = machine.next_event()
        assert (event.token, ENIP.item_values(READ, event.response)) == (token, (Assign(READ.item, Int32((1,))),))


def closes(machine: Any, name: bytes) -> bool:
    """Whether what the machine says now closes the connection of this name, and nothing else."""
    said = machine.take_output()
    cip = cip_of(said)
    return said[:1] == b"\x6f" and cip[:6] == b"\x4e\x02\x20\x06\x24\x01" and cip[8:16] == name


def test_a_connection_that_is_not_relied_upon_is_closed_at_the_device() -> None:
    """A device has few, and would keep each for two minutes."""
    device = connected()
    for _ in range(3):  # no answer in time
        asked(device)
        name = device.openings[-1][16:24]
        device.machine.forget(device.machine._serial)
        assert closes(device.machine, name)
        _, opening = device.machine.send(READ)
        device.opened(opening)
        device.said(device.machine.take_output(), GOOD)
    name = device.openings[-1][16:24]
    device.machine.on_time(device.machine.deadline)
    assert closes(device.machine, name), "nobody has used it"
    # One whose opening has no answer in time may be open.
    device = established()
    token, opening = device.machine.send(READ)
    device.machine.forget(token)
    assert closes(device.machine, cip_of(opening)[16:24])
    assert isinstance(device.opened(opening), Unmatched)
    # And one that the device has refused is not.
    device = established()
    token, opening = device.machine.send(READ)
    device.opened(opening, 8)
    device.opened(device.machine.take_output(), 2)
    device.machine.forget(token)
    assert device.machine.take_output() == b""


@pytest.mark.parametrize("wrong", ["interval", "name", "short", "port"])
def test_a_yes_that_cannot_be_taken_is_taken_back(wrong: str) -> None:
    machine = client()
    _, sent = machine.send(OPEN_IO)
    name = cip_of(sent)[16:24]
    body = b"\x99\0\0\0" + cip_of(sent)[12:16] + (name if wrong != "name" else bytes(8))
    body += struct.pack("<IIH", 1 if wrong == "interval" else 10_000, 20_000, 0)
    cip = b"\xd4\0\0\0" + (body if wrong != "short" else b"")
    items = [(wire.NULL_ADDRESS, b""), (wire.UNCONNECTED, cip)]
    if wrong == "port":
        items.append((wire.TO_TARGET, b"\0\2" + (3333).to_bytes(2, "big") + bytes(12)))
    machine.receive_data(wire.frame(wire.SEND_RR, 9, sent[12:20], wire.packet(tuple(items))))
    assert isinstance(machine.next_event(), BadResponse)
    assert closes(machine, name)


def test_a_no_is_not_taken_back_and_too_many_late_ones_are_closed_unheard() -> None:
    machine = client()
    token, sent = machine.send(OPEN_IO)
    machine.receive_data(rr(b"\xd4\0\1\1\6\1", 9, sent[12:20]))
    assert machine.next_event() == ResponseReceived(token, m.CipError(1, (0x0106,))) and machine.take_output() == b""
    names = []
    for _ in range(MAX_OUTSTANDING + 1):
        token, sent = machine.send(OPEN_IO)
        names.append(cip_of(sent)[16:24])
        assert machine.take_output() == b""
        machine.forget(token)
    assert closes(machine, names[0]) and len(machine._opening) == MAX_OUTSTANDING


@pytest.mark.parametrize("body", [b"\xd0\0\3\0abc", b"\xda\0\3abc", b"\xc4\0" + bytes(8), b"\xc1\0\2"])
def test_an_answer_that_nobody_here_can_read_speaks_against_itself_alone(body: bytes) -> None:
    machine = client()
    _, sent = machine.send(READ)
    machine.receive_data(rr(b"\xcc\0\0\0" + body, 9, sent[12:20]))
    event: Any = machine.next_event()
    assert isinstance(event, BadResponse) and event.alone
    _, sent = machine.send(READ)
    machine.receive_data(rr(b"\xcd\0\0\0" + body, 9, sent[12:20]))
    event = machine.next_event()
    assert isinstance(event, BadResponse) and not event.alone, "of another service"
    assert machine.next_event() is NEED_DATA
