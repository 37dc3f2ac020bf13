"""The electronic key of a Forward Open: held against who the device says that it is, before anything is opened."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cofferdam.model import Item
from cofferdam.protocols.base import Continues, RequestReceived, RequestRefused, ResponseReceived, Unmatched
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, replies, requests
from cofferdam.protocols.enip.keys import misfit
from tests.protocols.enip import cip_of, client, rr, server

DRIVE = m.Identity(1, 2, 3, 4, 5, 0, 7, "Drive")
FITTING = m.Key(1, 2, 3, 4, 5, compatible=False)
ASSEMBLIES = b"\x20\x04\x24\x97\x2c\x96\x2c\x64"
ROUTER = b"\x20\x02\x24\x01"


@pytest.mark.parametrize(
    ("key", "status"),
    [
        (FITTING, 0),
        (m.Key(0, 0, 0, 0, 0, compatible=False), 0),
        (m.Key(1, 2, 3, 0, 9, compatible=False), 0),
        (m.Key(1, 2, 3, 4, 0, compatible=False), 0),
        (m.Key(9, 2, 3, 4, 5, compatible=False), 0x0114),
        (m.Key(1, 2, 9, 4, 5, compatible=False), 0x0114),
        (m.Key(1, 9, 3, 4, 5, compatible=False), 0x0115),
        (m.Key(1, 2, 3, 5, 5, compatible=False), 0x0116),
        (m.Key(1, 2, 3, 4, 4, compatible=False), 0x0116),
        # With the bit of compatibility an older minor revision fits, and no newer one.
        (m.Key(1, 2, 3, 4, 5, compatible=True), 0),
        (m.Key(0, 0, 0, 4, 1, compatible=True), 0),
        (m.Key(1, 2, 3, 4, 6, compatible=True), 0x0116),
        (m.Key(1, 2, 3, 4, 0, compatible=True), 0x0116),
        (m.Key(1, 2, 3, 3, 5, compatible=True), 0x0116),
        (m.Key(9, 2, 3, 4, 5, compatible=True), 0x0114),
        (m.Key(1, 9, 3, 4, 5, compatible=True), 0x0115),
    ],
)
def test_a_key_fits_or_is_told_why_not(key: m.Key, status: int) -> None:
    assert misfit(key, DRIVE) == status


def segment(key: m.Key) -> bytes:
    major = key.major | (0x80 if key.compatible else 0)
    return b"\x34\4" + struct.pack("<HHHBB", key.vendor, key.device, key.product, major, key.minor)


def asked(machine: Any, path: bytes, transport: int, size: int) -> Any:
    """The event of a Forward Open."""
    body = struct.pack("<BBIIHHIB3xIHIHBB", 10, 14, 0, 5, 1, 77, 4711, 0, 10_000, 0x4800 | size, 10_000, 0x4800 | size,
                       transport, len(path) // 2)  # fmt: skip
    machine.receive_data(rr(requests.made(0x54, paths.of_object(6, 1), body + path)))
    return machine.next_event()


@pytest.mark.parametrize("key", [FITTING, m.Key(1, 2, 3, 4, 1, compatible=True)])
def test_an_io_connection_says_its_key_to_the_other_half(key: m.Key) -> None:
    event = asked(server(), segment(key) + ASSEMBLIES, 1, 10)
    assert event.request == m.OpenIo(Item("io", "drive"), 10_000, 10_000, 0, 1, key)


@pytest.mark.parametrize(("key", "status"), [(FITTING, 0), (m.Key(9, 2, 3, 4, 5, compatible=False), 0x0114)])
def test_the_device_is_asked_who_it_is_before_it_is_opened(key: m.Key, status: int) -> None:
    machine = client()
    token, sent = machine.send(m.OpenIo(Item("io", "drive"), 10_000, 10_000, 0, 1, key))
    # Along the route, so that the controller in the slot is asked and not its rack's adapter.
    assert cip_of(sent)[0] == requests.UNCONNECTED_SEND and b"\1\2\x20\1\x24\1" in cip_of(sent)
    machine.receive_data(rr(b"\x81\0\0\0" + replies.identity_bytes(DRIVE), 9, sent[12:20]))
    event = machine.next_event()
    if status:
        assert event == ResponseReceived(token, m.CipError(1, (status,))) and not machine.take_output()
        return
    assert event == Continues(token)
    opening = machine.take_output()
    assert cip_of(opening)[:6] == b"\x54\x02\x20\x06\x24\x01"
    ours, name = cip_of(opening)[12:16], cip_of(opening)[16:24]
    answer = b"\xd4\0\0\0\x99\0\0\0" + ours + name + struct.pack("<IIH", 10_000, 10_000, 0)
    machine.receive_data(rr(answer, 9, opening[12:20]))
    assert machine.next_event() == ResponseReceived(token, m.IoOpened(10_000, 10_000))


def test_who_has_given_up_meanwhile_has_nothing_opened() -> None:
    machine = client()
    token, sent = machine.send(m.OpenIo(Item("io", "drive"), 10_000, 10_000, 0, 1, FITTING))
    machine.forget(token)
    machine.receive_data(rr(b"\x81\0\0\0" + replies.identity_bytes(DRIVE), 9, sent[12:20]))
    assert isinstance(machine.next_event(), Unmatched)
    assert not machine.take_output()


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (DRIVE, (0,)), (m.Identity(1, 9, 3, 4, 5, 0, 7, "Other"), (1, 0x0115)), (m.CipError(1, (0x0204,)), (1, 0x0204)),
        (m.CipError(0x0F), (0x0F,)),
    ],
)  # fmt: skip
def test_a_connection_for_requests_is_opened_once_the_key_fits(response: Any, status: tuple[int, ...]) -> None:
    machine = server()
    event = asked(machine, segment(FITTING) + ROUTER, 0xA3, 200)
    assert isinstance(event, RequestReceived) and event.request == m.Identify()
    cip = cip_of(machine.send(event.token, response))
    assert (cip[2], *struct.unpack_from(f"<{cip[3]}H", cip, 4)) == status and cip[0] == 0xD4
    # One that is wrong in itself is refused without asking anybody.
    refused = asked(machine, segment(FITTING) + b"\x20\x01\x24\x01", 0xA3, 200)
    assert isinstance(refused, RequestRefused)
