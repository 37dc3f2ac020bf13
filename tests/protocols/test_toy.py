"""The toy protocol itself, by the guide's own list: notation, playbooks, properties. So what the halves are tried with
holds what `base` asks of a protocol.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import CrossingError, LocalProtocolError, RemoteProtocolError
from cofferdam.model import Assign, Item
from cofferdam.protocols.base import (
    NEED_DATA,
    Established,
    FrameReceived,
    LocalAnswer,
    NoticeReceived,
    Over,
    Released,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.dialect import Misread
from cofferdam.values import Int32, Text
from tests.examples import examples
from tests.protocols.playbook import Playbook, recv
from tests.protocols.toy import messages as m
from tests.protocols.toy.dialect import TOY
from tests.protocols.toy.machine import ToyClient, ToyServer
from tests.protocols.toy.operations import Toy
from tests.protocols.toy.wire import frame
from tests.test_model import values

PROTOCOL = Toy()
A = Item("tag", "a")
names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,5}(\.[A-Za-z0-9_]{1,5}){0,3}\Z")
places = st.one_of(
    st.builds(Item, st.sampled_from(["tag", "method", "io"]), names.map(str.lower)),
    st.builds(Item, st.just("tag"), names.map(str.lower), st.integers(0, 10**9 - 1), st.just(1)),
)
writes = st.builds(Assign, places, st.one_of(st.none(), values))
requests = st.one_of(
    st.builds(m.Read, st.lists(places, min_size=1, max_size=3).map(tuple)),
    st.builds(
        m.Write, st.lists(st.builds(Assign, places, st.one_of(st.none(), values)), min_size=1, max_size=3).map(tuple)
    ),
    st.builds(m.CallMethod, places, st.lists(values, max_size=2).map(tuple)),
    st.builds(m.Subscribe, places, st.integers(0, 10**10)),
    st.builds(m.Open, places, st.integers(0, 10**10)),
    st.just(m.Uptime()),
    st.just(m.Restart()),
)


@given(places)
@examples(200)
def test_a_place_is_read_as_it_is_shown(place: Item) -> None:
    assert TOY.notation.parse(TOY.notation.show(place)) == place
    assert TOY.notation.parse(TOY.notation.show(place).upper().replace(place.kind.upper(), place.kind, 1)) == place


@given(st.text(max_size=30))
@examples(300)
def test_any_other_text_is_misread_and_nothing_else(text: str) -> None:
    try:
        TOY.notation.parse(text)
    except Misread as error:
        assert str(error)


def established() -> ToyServer:
    machine = ToyServer()
    Playbook(machine) << recv(frame(0, m.Hello(1))) >> Established() >> NEED_DATA
    assert machine.take_output() == frame(0, m.Welcome())
    return machine


def test_a_server_from_hello_to_frames() -> None:
    machine = established()
    book = Playbook(machine) << recv(frame(1, m.Read((Item("tag", "A"),))))
    event: Any = machine.next_event()
    assert event == RequestReceived(event.token, m.Read((A,))), "names are spelt as everywhere"
    assert machine.send(event.token, m.Values((Int32((1,)),))) == frame(1, m.Values((Int32((1,)),)))
    book << recv(frame(2, m.Open(Item("io", "d"), 0)))
    event = machine.next_event()
    machine.send(event.token, m.Agreed())
    book << recv(frame(2, m.Signals(()))) >> FrameReceived(event.token, m.Signals(()))
    book << recv(frame(9, m.Signals(()))) >> NEED_DATA
    assert machine.frame(event.token, m.Signals(())) == frame(2, m.Signals(()))
    book << recv(frame(3, m.Drop(2)))
    released: Any = machine.next_event()
    assert isinstance(released, Released) and released.standing == event.token
    with pytest.raises(LocalProtocolError):
        machine.frame(event.token, m.Signals(()))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (frame(1, m.Uptime()), "before Hello"),
        (b"X", "a frame begins"),
        (b"T\xff\xff\0\0\0\1", "a frame of 65535 bytes"),
    ],
)
def test_what_ends_a_connection(said: bytes, why: str) -> None:
    Playbook(ToyServer()) << recv(said) >> (RemoteProtocolError, why) >> (RemoteProtocolError, why)


def test_what_is_answered_with_a_refusal() -> None:
    machine = established()
    for number, body in enumerate((b"\x91\x63", b"\x92\x01\x91\x92\x01\xa3", b"\xc0", b""), 1):
        machine.receive_data(b"T" + len(body).to_bytes(2, "big") + number.to_bytes(4, "big") + body)
        event: Any = machine.next_event()
        assert isinstance(event, RequestRefused) and event.reply == m.Refusal(6)
        assert machine.send(event.token, event.reply) == frame(number, m.Refusal(6))
    machine.receive_data(frame(9, m.Read((Item("tag", "no path"),))))
    assert isinstance(machine.next_event(), RequestRefused)
    machine.receive_data(frame(10, m.Who()))
    assert isinstance(machine.next_event(), LocalAnswer)
    machine.receive_data(frame(9, m.Uptime()))
    Playbook(machine) >> (RemoteProtocolError, "the id 9 is in use")


def test_a_server_keeps_time() -> None:
    machine = ToyServer()
    machine.on_time(1)
    assert machine.deadline == 2_000_000_001
    machine.on_time(2_000_000_001)
    Playbook(machine) >> (RemoteProtocolError, "no Hello in time")
    quiet = established()
    quiet.on_time(1)
    assert quiet.deadline == 5_000_000_001
    quiet.on_time(5_000_000_001)
    assert quiet.take_output() == frame(0, m.Ping()) and quiet.deadline == 10_000_000_001
    assert quiet.take_output() == b""


def test_a_client_from_hello_to_news() -> None:
    machine = ToyClient(outstanding=2)
    assert machine.take_output() == frame(0, m.Hello(1))
    with pytest.raises(LocalProtocolError):
        machine.send(m.Uptime())
    book = Playbook(machine) << recv(frame(0, m.Welcome())) >> Established() >> NEED_DATA
    token, data = machine.send(m.Subscribe(A, 5))
    assert data == frame(token, m.Subscribe(A, 5))
    book << recv(frame(token, m.Agreed())) >> ResponseReceived(token, m.Agreed())
    book << recv(frame(token, m.News(Int32((1,))))) >> NoticeReceived(token, m.News(Int32((1,))))
    book << recv(frame(token, m.Over(3))) >> Over(token, "ended by the device with 3")
    event: Any
    for strange in (m.News(Int32((1,))), m.Over(3), m.Seconds(5), m.Name("x")):
        machine.receive_data(frame(token, strange))
        event = machine.next_event()
        assert isinstance(event, Unmatched), strange
    book << recv(frame(0, m.Ping())) >> NEED_DATA
    assert machine.take_output() == frame(0, m.Pong())


@given(st.lists(requests, min_size=1, max_size=4), st.data())
@examples(100)
def test_any_pieces_make_the_same_events(said: list[Any], data: st.DataObject) -> None:
    stream = frame(0, m.Hello(1)) + b"".join(frame(number, request) for number, request in enumerate(said, 1))
    whole, pieces = ToyServer(), ToyServer()
    whole.receive_data(stream)
    expected = []
    while (event := whole.next_event()) is not NEED_DATA:
        expected.append(event)
    found, at = [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, 40))
        pieces.receive_data(stream[at : at + size])
        at += size
        while (event := pieces.next_event()) is not NEED_DATA:
            found.append(event)
    assert repr(found) == repr(expected)


@given(requests)
@examples(300)
def test_what_passes_check_can_be_sent_and_means_something(request: Any) -> None:
    try:
        PROTOCOL.check(request)
    except CrossingError:
        return
    client = ToyClient(midway=True)
    _, data = client.send(request)
    server = ToyServer(midway=True)
    server.receive_data(data)
    event: Any = server.next_event()
    assert repr(event.request) == repr(request)
    operation = PROTOCOL.operation(event.request)
    assert operation.function in PROTOCOL.functions
    assert operation.is_write is bool(operation.writes or operation.function == 8)


@given(st.binary(max_size=60), st.booleans())
@examples(500)
def test_noise_raises_what_it_may_or_nothing(noise: bytes, framed: bool) -> None:
    for machine in (ToyServer(midway=True), ToyServer(), ToyClient(midway=True), ToyClient()):
        data = b"T" + len(noise).to_bytes(2, "big") + b"\0\0\0\1" + noise if framed else noise
        try:
            machine.receive_data(data)
            for _ in range(5):
                if machine.next_event() is NEED_DATA:
                    break
        except RemoteProtocolError as error:
            assert error.section


def test_the_dialect_and_the_protocol_say_the_same() -> None:
    codes = {kind.read for kind in TOY.kinds} | {kind.write for kind in TOY.kinds} | {kind.watch for kind in TOY.kinds}
    codes |= {kind.call for kind in TOY.kinds} | {kind.open for kind in TOY.kinds}
    assert codes - {0} == TOY.place_codes and TOY.place_codes | set(TOY.codes) == set(PROTOCOL.functions)
    assert PROTOCOL.operation(m.Restart()).is_write is TOY.changes(8, -1)
    assert PROTOCOL.misfit(m.Subscribe(A, 0), m.Signals(())) and not PROTOCOL.misfit(m.Open(A, 0), m.Signals(()))
    assert PROTOCOL.mismatch(m.Uptime(), m.Done()) and not PROTOCOL.mismatch(m.Uptime(), m.Refusal(1))
    assert not PROTOCOL.item_values(m.Uptime(), m.Seconds(1))
    assert PROTOCOL.item_values(m.Read((A,)), m.Values((Text(("x",)),))) == (Assign(A, Text(("x",))),)
