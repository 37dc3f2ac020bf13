"""EtherNet/IP without a network: a long list at a device holds up nobody for more than one of its steps."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from cofferdam.errors import LocalProtocolError
from cofferdam.model import Item
from cofferdam.protocols.base import Continues, ResponseReceived
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip.client import EnipClient
from cofferdam.protocols.enip.turns import ASIDE
from tests.protocols.enip import client, rr

READ = m.ReadTag(Item("tag", "pump"))
GOOD = b"\xcc\0\0\0\xc4\0\1\0\0\0"


def page(number: int, more: bool = True) -> bytes:
    """One tag."""
    return b"\xd5\0" + (b"\6\0" if more else b"\0\0") + struct.pack("<IH1sH3I", number, 1, b"a", 0xC4, 0, 0, 0)


def answered(machine: EnipClient, sent: bytes, cip: bytes) -> Any:
    assert len(sent) == 24 + int.from_bytes(sent[2:4], "little"), "one frame is under way, and no more"
    machine.receive_data(rr(cip, 9, sent[12:20]))
    return machine.next_event()


def test_others_go_between_the_steps_of_a_list() -> None:
    machine = client()
    token, sent = machine.send(m.ListTags())
    with pytest.raises(LocalProtocolError):
        machine.send(READ)  # its first step has the only place
    assert answered(machine, sent, page(1)) == Continues(token, aside=True)
    for number in range(2, 50):
        step = machine.take_output()
        read, nothing = machine.send(READ)
        assert nothing == b"", "the device has a request"
        assert answered(machine, step, page(number)) == Continues(token, aside=True)
        event = answered(machine, machine.take_output(), GOOD)
        assert isinstance(event, ResponseReceived) and event.token == read, "first the read, then the list"
    event = answered(machine, machine.take_output(), page(50, more=False))
    assert isinstance(event, ResponseReceived) and len(event.response.symbols) == 50
    assert machine.in_flight == 0
    assert machine.send(READ)[1] != b"", "at once"


def test_what_is_waited_for_no_longer_is_not_sent_and_keeps_nobody() -> None:
    machine = client()
    token, sent = machine.send(m.ListTags())
    answered(machine, sent, page(1))
    machine.take_output()
    first, _ = machine.send(READ)
    machine.forget(first)
    assert machine.take_output() == b"", "it waited, and was never sent"
    machine.send(READ)
    machine.forget(token)
    assert isinstance(answered(machine, machine.take_output(), GOOD), ResponseReceived)
    assert machine.take_output() == b"" and machine.in_flight == 0, "the list takes no further step"


def test_lists_without_number_keep_their_places() -> None:
    machine, pages = client(), 0
    for number in range(ASIDE + 1):
        token, sent = machine.send(m.ListTags())
        sent = sent or machine.take_output()
        while True:
            asked = int.from_bytes(sent[12:16], "little")
            pages += 1
            event = answered(machine, sent, page(pages))
            if asked == token:
                break
            sent = machine.take_output()
        assert event == Continues(token, aside=number < ASIDE)
    with pytest.raises(LocalProtocolError):
        machine.send(READ)
