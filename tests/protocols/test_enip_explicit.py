"""EtherNet/IP without a network: connections of class 3 on both sides, and structures that come in pieces."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cofferdam.errors import PolicyError
from cofferdam.model import Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.lint import lint
from cofferdam.policy.load import loads
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    Continues,
    LocalAnswer,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.enip import explicit, paths, requests, wire
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.client import EnipClient
from cofferdam.protocols.enip.server import EnipServer
from cofferdam.values import Int32, Octets
from tests.policy.plant import NOW
from tests.protocols.enip import ASSET, CONNECTED, cip_of, client, rr, server, tag

READ = m.ReadTag(Item("tag", "pump"))
GOOD = b"\xcc\0\0\0\xc4\0\1\0\0\0"


class Device:
    """Answers of a device to one machine of ours, in and outside a connection."""

    def __init__(self, machine: EnipClient) -> None:
        self.machine = machine
        self.openings: list[bytes] = []

    def tell(self, frame: bytes) -> Any:
        self.machine.receive_data(frame)
        return self.machine.next_event()

    def opened(self, sent: bytes, status: int = 0) -> Any:
        """Answers a Forward Open."""
        cip = cip_of(sent)
        self.openings.append(cip)
        body = b"\x99\0\0\0" + cip[12:16] + cip[16:24] + struct.pack("<IIBx", 2_000_000, 2_000_000, 0)
        return self.tell(rr(bytes([cip[0] | 0x80, 0, status, 0]) + (body if not status else b""), 9, sent[12:20]))

    def said(self, sent: bytes, cip: bytes, *, sequence: bytes = b"", number: bytes = b"") -> Any:
        """Answers a request in the connection, with no word of the context."""
        ours = self.openings[-1][12:16]
        items = ((wire.CONNECTED_ADDRESS, number or ours), (wire.CONNECTED, (sequence or sent[44:46]) + cip))
        return self.tell(wire.frame(wire.SEND_UNIT, 9, bytes(8), wire.packet(items)))


def asked(device: Device, request: Any = READ) -> bytes:
    """A request of ours on a connection that is open."""
    _, sent = device.machine.send(request)
    assert sent[:2] == b"\x70\0" and sent[36:40] == b"\x99\0\0\0", "in the device's connection"
    return sent


def established(asset: Any = CONNECTED) -> Device:
    machine = client(asset)
    machine.on_time(1)
    return Device(machine)


def connected() -> Device:
    device = established()
    _, sent = device.machine.send(READ)
    assert isinstance(device.opened(sent), Continues)
    assert isinstance(device.said(device.machine.take_output(), GOOD), ResponseReceived)
    return device


def test_the_first_request_opens_a_large_connection_and_goes_in_it() -> None:
    device = established()
    token, sent = device.machine.send(READ)
    opening = cip_of(sent)
    assert opening[:6] == b"\x5b\x02\x20\x06\x24\x01" and opening[-6:] == b"\x01\x00\x20\x02\x24\x01", "with the route"
    assert device.opened(sent) == Continues(token)
    step = device.machine.take_output()
    assert step[:2] == b"\x70\0" and step[46:48] == b"\x4c\x03", "in no Unconnected Send"
    assert device.said(step, GOOD) == ResponseReceived(token, m.Held(0xC4, 0, Int32((1,))))
    first, second = asked(device)[44:46], asked_after(device)[44:46]
    assert first != second, "each request has a number of its own"


def asked_after(device: Device) -> bytes:
    """The next one, once the one before was answered."""
    number = device.machine._explicit
    assert number is not None
    last = number._sequence.to_bytes(2, "little")
    device.said(b"", GOOD, sequence=last)
    return asked(device)


def test_a_device_without_large_ones_is_asked_once_for_them() -> None:
    device = established()
    token, sent = device.machine.send(READ)
    assert isinstance(device.opened(sent, 8), Continues)
    plain = device.machine.take_output()
    assert cip_of(plain)[0] == requests.OPEN
    assert device.opened(plain) == Continues(token)
    assert isinstance(device.said(device.machine.take_output(), GOOD), ResponseReceived)
    sent = asked(device)
    device.machine.forget(device.machine._serial)  # no answer in time: the connection is not relied upon
    _, again = device.machine.send(READ)
    assert cip_of(again)[0] == requests.OPEN, "and not for a large one again"
    assert isinstance(device.said(sent, GOOD), Unmatched), "late"


def test_a_device_that_opens_none_says_so_to_whoever_asked() -> None:
    device = established()
    token, sent = device.machine.send(READ)
    device.opened(sent, 8)
    refused = device.opened(device.machine.take_output(), 2)
    assert refused == ResponseReceived(token, m.CipError(2)) and not device.machine.in_flight
    assert device.machine.take_output() == b"", "what was asked for is not sent"


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": b"\1\2\3\4"}, {"sequence": b"\x77\x77"}, {"number": b"\1\2\3"},
    ],
    ids=str,
)  # fmt: skip
def test_what_belongs_to_no_request_answers_none(wrong: dict[str, bytes]) -> None:
    device = connected()
    sent = asked(device)
    assert isinstance(device.said(sent, GOOD, **wrong), Unmatched)
    if "sequence" not in wrong and len(wrong["number"]) == 4:
        return  # its number is used up: the answer will not come a second time
    assert device.machine.in_flight == 1


def test_a_connection_that_the_device_has_forgotten_is_opened_anew() -> None:
    device = connected()
    sent = asked(device)
    gone = device.tell(wire.frame(wire.SEND_UNIT, 9, sent[12:20], b"", wire.BAD_DATA))
    assert isinstance(gone, BadResponse)
    _, again = device.machine.send(READ)
    assert cip_of(again)[0] == requests.LARGE_OPEN
    # And so is one of which nobody has made use for most of its time.
    device = connected()
    assert device.machine.deadline == 1 + explicit.LAPSE_NS
    device.machine.on_time(device.machine.deadline)
    assert device.machine.deadline == 0
    _, again = device.machine.send(READ)
    assert cip_of(again)[0] == requests.LARGE_OPEN


def test_long_values_go_in_fewer_pieces() -> None:
    value = m.WriteTag(Item("tag", "big", 0, 1500), 0xC4, 0, Int32(tuple(range(1500)), True))

    def pieces(device: Device) -> list[bytes]:
        found: list[bytes] = []
        _, sent = device.machine.send(value)
        while True:
            inside = sent[:1] == b"\x70"
            cip = sent[46:] if inside else cip_of(sent)
            if not inside and cip[0] == requests.LARGE_OPEN:
                event = device.opened(sent)
            else:
                assert len(cip) <= (4000 if inside else 504)
                found.append(cip)
                done = bytes([requests.WRITE_PIECE | 0x80, 0, 0, 0])
                event = device.said(sent, done) if inside else device.tell(rr(done, 9, sent[12:20]))
            if isinstance(event, ResponseReceived):
                assert event.response == m.Done()
                return found
            sent = device.machine.take_output()

    assert len(pieces(established())) == 2
    assert len(pieces(established(ASSET))) == 13, "outside a connection"


def test_a_policy_says_so_where_it_can() -> None:
    text = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  one: {zone: plant, address: 10.0.0.9, protocol: PROTOCOL, explicit: connectedMORE, points: {p: {at: AT, type: TYPE}}}
"""

    def problems(protocol: str, more: str = "") -> str:
        at = ("tag Pump", "dint") if protocol == "enip" else ("holding 1", "uint16")
        found = text.replace("PROTOCOL", protocol).replace("MORE", more).replace("AT", at[0]).replace("TYPE", at[1])
        try:
            asset = compile_policy(loads(found), now_ns=NOW).assets["one"]
        except PolicyError as error:
            return "".join(map(str, error.problems))
        assert asset.connected
        return ""

    assert problems("enip") == ""
    assert "modbus has none" in problems("modbus")
    assert "one request after the other" in problems("enip", ", outstanding: 2")


def test_two_assets_of_one_address_are_two_devices_by_their_routes_alone() -> None:
    text = """
site: works
zones: {office: {side: it}, plant: {side: ot}}
assets:
  one: {zone: plant, address: 10.0.0.9, protocol: enip, FIRST points: {p: {at: tag Pump, type: dint, min: 0, max: 9}}}
  two: {zone: plant, address: 10.0.0.9, protocol: enip, SECOND points: {p: {at: tag Pump, type: dint, min: 0, max: 9}}}
principals: {scada: {zone: office, addresses: [10.1.0.1]}}
conduits:
  road:
    {from: office, to: plant, broker: enip, owner: me, reason: a test,
     allow: [{who: scada, asset: [one, two], write: p}]}
"""

    def said(first: str, second: str) -> str:
        found = text.replace("FIRST", first).replace("SECOND", second)
        try:
            compile_policy(loads(found), now_ns=NOW)
            shared = [warning for warning in lint(loads(found), now_ns=NOW) if warning.check == "shared-address"]
        except PolicyError as error:
            return "".join(map(str, error.problems))
        return "".join(map(str, shared))

    assert said("route: backplane 0,", "route: backplane 1,") == ""
    for first, second in (("", ""), ("route: backplane 0,", ""), ("route: backplane 2,", "route: backplane 2,")):
        assert "the device of one" in said(first, second), (first, second)


# ---- towards clients


def open_class_3(machine: EnipServer, serial: int = 1, rpi: int = 2_000_000, multiplier: int = 0) -> bytes:
    body = struct.pack(
        "<BBIIHHIB3xIHIHBB", 10, 14, 0, 5, serial, 77, 4711, multiplier, rpi, 0x43F4, rpi, 0x43F4, 0xA3, 2
    )
    machine.receive_data(rr(requests.made(requests.OPEN, paths.of_object(6, 1), body + b"\x20\x02\x24\x01")))
    event: Any = machine.next_event()
    return cip_of(machine.send(event.token, event.reply))


def in_connection(machine: EnipServer, number: bytes, sequence: int = 1) -> Any:
    items = ((wire.CONNECTED_ADDRESS, number), (wire.CONNECTED, sequence.to_bytes(2, "little") + tag("a")))
    session = 1 + int.from_bytes(b"12345678", "little") % 0x7FFF_FFFF
    machine.receive_data(wire.frame(wire.SEND_UNIT, session, bytes(8), wire.packet(items)))
    return machine.next_event()


def test_a_clients_connection_lives_as_long_as_it_is_used() -> None:
    machine = server()
    number = open_class_3(machine, rpi=3_000_000)[4:8]
    # Four of its intervals: 12 s. No connection has less than ten.
    for at in (11_900_000_000, 23_800_000_000, 35_700_000_000):
        machine.on_time(1 + at)
        event = in_connection(machine, number)
        assert isinstance(event, RequestReceived), at
        machine.send(event.token, m.CipError(5))
    machine.on_time(35_700_000_002 + 12_000_000_000)
    event = in_connection(machine, number)
    assert isinstance(event, RequestRefused) and "the connection" in event.detail
    machine.send(event.token, event.reply)
    # Those that are over keep no place from others.
    for serial in range(2, 6):
        assert open_class_3(machine, serial, rpi=1)[2] == 0
    assert open_class_3(machine, 6)[2] == 1
    machine.on_time(47_700_000_003 + 10_000_000_000)
    assert open_class_3(machine, 6)[2] == 0


def described(machine: EnipServer, size: int) -> None:
    """The machine has given its client the tag list and one structure of this size."""
    machine.receive_data(rr(requests.made(requests.LIST, paths.of_object(0x6B, 0), struct.pack("<4H", 3, 1, 2, 8))))
    event: Any = machine.next_event()
    machine.send(event.token, m.TagList((m.Symbol(1, "Wide", 0x8234, (0, 0, 0)),)))
    machine.receive_data(rr(requests.made(3, paths.of_object(0x6C, 0x234), struct.pack("<5H", 4, 4, 5, 2, 1))))
    event = machine.next_event()
    machine.send(event.token, m.Structure(0x51DE, size, "Wide;n", (m.Member("Count", 0, 0xC4, 0),)))


def test_a_structure_that_was_described_is_written_in_pieces_and_held_to_its_size() -> None:
    head = b"\xa0\2\xde\x51\1\0"

    def piece(offset: int, data: bytes) -> bytes:
        return rr(tag("wide", service=requests.WRITE_PIECE, body=head + offset.to_bytes(4, "little") + data))

    machine = server()
    machine.receive_data(piece(0, bytes(400)))
    event: Any = machine.next_event()
    assert isinstance(event, RequestRefused) and "its size is not known" in event.detail
    machine.release(event.token)
    described(machine, 900)
    value = bytes(range(250)) * 3 + bytes(150)
    for offset in (0, 400, 800):
        machine.receive_data(piece(offset, value[offset : offset + 400]))
        event = machine.next_event()
        assert isinstance(event, LocalAnswer) == (offset < 800)
        machine.release(event.token)
    assert event.request == m.WriteTag(Item("tag", "wide"), 0x02A0, 0x51DE, Octets((value,)))
    machine.receive_data(piece(0, bytes(901)))
    event = machine.next_event()
    assert isinstance(event, RequestRefused) and "after its value" in event.detail
    machine.release(event.token)
    for size, status in ((899, 0x13), (901, 0x15)):
        machine.receive_data(rr(tag("wide", service=requests.WRITE, body=head + bytes(size))))
        event = machine.next_event()
        assert cip_of(machine.send(event.token, event.reply))[2] == status, "whole, of another size"
    assert machine.next_event() is NEED_DATA
