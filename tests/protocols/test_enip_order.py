"""Answers of EtherNet/IP go in the order in which the requests came, within one TCP connection."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cofferdam.protocols.base import NEED_DATA, WAITS, LocalAnswer, RequestReceived, RequestRefused
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests, wire
from cofferdam.protocols.enip.encapsulation import ANSWERS
from cofferdam.values import Int32
from tests.examples import examples
from tests.protocols.enip import rr, server, tag
from tests.protocols.test_enip_keys import ASSEMBLIES, asked

HELD = m.Held(0xC4, 0, Int32((7,)))
READ, BROKEN = tag("a"), tag("a", body=b"\1")
PARTS = requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet([tag("b"), BROKEN, tag("c")]))


def context(number: int) -> bytes:
    return b"%08d" % number


def contexts(data: bytes) -> list[int]:
    """Whose answers these bytes are."""
    found = []
    while data:
        found.append(int(data[12:20]))
        data = data[24 + int.from_bytes(data[2:4], "little") :]
    return found


def drained(machine: Any) -> list[Any]:
    found = []
    while (event := machine.next_event()) is not NEED_DATA:
        found.append(event)
    return found


def answered(machine: Any, event: Any) -> bytes:
    assert isinstance(event, (RequestReceived, RequestRefused, LocalAnswer))
    return bytes(machine.send(event.token, HELD if isinstance(event, RequestReceived) else event.reply))


def test_a_refusal_waits_for_the_answer_before_it() -> None:
    machine = server()
    for number, cip in enumerate((READ, BROKEN, READ, BROKEN)):
        machine.receive_data(rr(cip, context=context(number)))
    first, refused, second, last = drained(machine)
    assert answered(machine, refused) == b"" and answered(machine, last) == b"" and answered(machine, second) == b""
    assert contexts(answered(machine, first)) == [0, 1, 2, 3]


@given(st.lists(st.sampled_from(("read", "broken", "packet", "list")), min_size=1, max_size=12), st.randoms())
@examples(50)
def test_whatever_order_they_are_given_in(kinds: list[str], random: Any) -> None:
    """As long as all are given, or given up, each answer goes once, and none before one that was asked earlier."""
    machine = server()
    for number, kind in enumerate(kinds):
        cip = {"read": READ, "broken": BROKEN, "packet": PARTS}.get(kind)
        ours = wire.frame(wire.LIST_SERVICES, 0, context(number))
        machine.receive_data(ours if cip is None else rr(cip, context=context(number)))
    events = drained(machine)
    random.shuffle(events)
    given_up = {event.token for event in events if isinstance(event, RequestReceived) and random.random() < 0.2}
    said = b""
    for event in events:
        if event.token in given_up:
            machine.release(event.token)
        else:
            said += answered(machine, event)
        said += machine.take_output()
    order = contexts(said)
    assert order == sorted(set(order))
    if not given_up:
        assert order == list(range(len(kinds)))


def test_an_io_connections_opening_holds_nobody_up() -> None:
    machine = server()
    opening = asked(machine, ASSEMBLIES, 1, 10)
    machine.receive_data(rr(READ, context=context(1)))
    [read] = drained(machine)
    assert contexts(answered(machine, read)) == [1]
    assert machine.send(opening.token, m.IoOpened(10_000, 10_000))


def test_no_more_are_held_than_so_many() -> None:
    machine = server()
    machine.receive_data(rr(READ, context=context(0)))
    machine.receive_data(b"".join(rr(BROKEN, context=context(number)) for number in range(1, 200)))
    first = machine.next_event()
    for _ in range(ANSWERS):
        assert answered(machine, machine.next_event()) == b""
    assert machine.next_event() is WAITS and machine.next_event() is WAITS
    assert contexts(answered(machine, first)) == list(range(ANSWERS + 1))
    assert contexts(answered(machine, machine.next_event())) == [ANSWERS + 1]
