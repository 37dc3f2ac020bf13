"""What is remembered of packets has a bound in bytes, of each client's connection and of each flow: whoever asks for
what never comes again drives out what is his own."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.proxy import kept
from cofferdam.model import Allow, Item
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.points import decide
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import RequestReceived
from cofferdam.protocols.enip import messages as m
from cofferdam.protocols.enip import paths, requests, together
from cofferdam.protocols.enip.server import KEPT, EnipServer
from tests.examples import examples
from tests.policy.plant import NOW
from tests.protocols.enip import ENIP, rr, server, tag

PARTS, PACKETS = 160, 60
POLICY = """
site: test
zones: {office: {side: it}, plant: {side: ot}}
assets: {plc: {zone: plant, address: 10.0.0.1, protocol: enip}}
principals:
  erp: {zone: office, addresses: [10.1.0.1]}
  mes: {zone: office, addresses: [10.1.0.2]}
conduits:
  main: {from: office, to: plant, broker: enip, owner: me, reason: tests, expires: 2027-06-30,
         allow: [{who: [erp, mes], asset: plc, registers: ["tag t*"]}]}
"""


class Held:
    """How much more is held now than when it began."""

    def __enter__(self) -> Held:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    @property
    def bytes(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before

    def __exit__(self, *_: object) -> None:
        tracemalloc.stop()


def packet(number: int) -> m.Packet:
    """One of many packets of reads, none of which has a tag of another's."""
    return m.Packet(tuple([m.ReadTag(Item("tag", f"t{number}_{place}")) for place in range(PARTS)]))


def asked(machine: EnipServer, number: int) -> m.Packet:
    """It is asked for by a client, and its answer's form is known."""
    parts = [tag(f"t{number}_{place}") for place in range(PARTS)]
    machine.receive_data(rr(requests.made(requests.PACKET, paths.of_object(2, 1), requests.packet(parts))))
    event = machine.next_event()
    assert isinstance(event, RequestReceived) and isinstance(event.request, m.Packet)
    machine.release(event.token)
    assert together.form_of(event.request, b"\xc4" * PARTS) is not None
    return event.request


def remembered(flow: Flow, number: int) -> bool:
    """Has a flow remember a packet, if it does not; whether it did. All is found out of it that is."""
    request = packet(number)
    known = flow.recall(request, NOW)
    if known is not None:
        return True
    operation = ENIP.operation(request)
    verdict = flow.decide(operation, NOW)
    assert isinstance(verdict, Allow)
    flow.remember(request, operation, verdict)
    for group in together.grouped(request, 480):
        together.of(group.asked).codes = b"\xc4" * len(group.parts)
        assert together.form_of(group.asked, together.of(group.asked).codes) is not None
    return False


def test_a_connection_keeps_so_much_and_no_more_and_nothing_of_anothers_goes_for_it() -> None:
    poller, greedy = server(), server()
    mine = [asked(poller, number) for number in range(2)]
    with Held() as held:
        for number in range(PACKETS):
            for _ in range(2):
                asked(greedy, number)
        assert KEPT // 4 < held.bytes < 3 * KEPT // 2
    assert [asked(poller, number) for number in range(2)] == mine
    assert all(asked(poller, number) is one for number, one in enumerate(mine)), "the very same"


def test_a_flow_remembers_so_much_and_no_more_and_nothing_of_anothers_goes_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decide, "CACHE_BYTES", 1 << 20)
    policy = compile_policy(loads(POLICY), now_ns=NOW)
    poller, greedy = policy.flow("enip", "10.1.0.2", "plc", "office"), policy.flow("enip", "10.1.0.1", "plc", "office")
    assert isinstance(poller, Flow) and isinstance(greedy, Flow) and poller is not greedy
    assert not remembered(poller, 0)
    again = 0
    with Held() as held:
        for number in range(PACKETS):
            remembered(greedy, number)
            again += remembered(greedy, number)
        assert held.bytes < 5 << 20
    assert again == PACKETS and not remembered(greedy, 0), "what was asked last is known, and what was first is not"
    assert remembered(poller, 0)


def test_what_is_refused_is_remembered_within_a_bound_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "CACHE_BYTES", 1 << 20)
    flow: Any = compile_policy(loads(POLICY), now_ns=NOW).flow("enip", "10.1.0.1", "plc", "office")
    with Held() as held:
        for number in range(2 * PACKETS):
            request = m.Packet((*packet(number).parts, m.ReadTag(Item("tag", "secret"))))
            assert not isinstance(flow.decide(ENIP.operation(request), NOW), Allow)
        assert held.bytes < 2 << 20
    assert 0 < len(flow._verdicts) < PACKETS


@examples(100)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 400)), max_size=80))
def test_what_was_kept_first_goes_until_there_is_room(kept_: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "PLACES_BYTES", 1000)
        room = kept.Room()
    there: dict[int, int] = {}
    for place, size in kept_:
        there.pop(place, None)
        gone = room.take(place, size)
        assert gone == list(there)[: len(gone)], "the oldest"
        if gone:
            assert sum(there.values()) - sum(there[one] for one in gone[:-1]) + size > 1000, "and no more than need be"
        for one in gone:
            del there[one]
        there[place] = size
        assert sum(there.values()) <= 1000


def test_a_packet_larger_than_all_the_room_goes_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "PLACES_BYTES", 1000)
    room = kept.Room()
    assert room.take(1, 10) == [] and room.take(2, 5000) == [1] and room.take(3, 10) == [2] and room.take(4, 900) == []
