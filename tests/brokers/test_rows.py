"""What crosses as plain numbers, reads that are asked again and rows of values, is held to what crosses whole: whatever
either half could say, the other stops, or does what policy and the protocol allow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.proxy import records
from cofferdam.brokers.proxy.kept import Keeping, Replying
from cofferdam.errors import CrossingError
from cofferdam.model import Allow
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.machine import Meanings, ModbusServer
from cofferdam.protocols.modbus.operations import Modbus
from tests.brokers.stage import Link, Stage, Wire, answer, read, write
from tests.examples import examples


def asked(stage: Stage) -> list[Any]:
    """What has crossed to the inner half and was let through."""
    said = stage.to_inner.take()
    for record in said:
        stage.inner.take(record)
    return said


def test_what_one_turn_asks_again_crosses_together_and_so_do_its_answers() -> None:
    stage = Stage(asset_extra="outstanding: 8")
    clients = [stage.client(port=40000 + number) for number in range(3)]
    for _ in range(2):
        for client in clients:
            client.arrive(read(1))
        asked(stage)
        if stage.devices[0].on_connected is not None:
            stage.devices[0].on_connected()
            stage.devices[0].on_connected = None
        for question in stage.devices[0].take():
            stage.devices[0].on_data(answer(question, 7, 8))
        for record in stage.to_outer.take():
            stage.outer.take(record)
    for number, client in enumerate(clients):
        client.take()
        client.arrive(read(number))
    (again,) = asked(stage)
    first = stage.outer._next - 2
    assert again == records.Again(first, [1, 1, 2, 1, 3, 1])
    for question in stage.devices[0].take():
        stage.devices[0].on_data(answer(question, 7, 8))
    (rows,) = stage.to_outer.take()
    assert isinstance(rows, records.Rows) and rows.rows == [b"\0\7\0\10"] * 3
    assert rows.numbers[::3] == [first, first + 1, first + 2]
    stage.outer.take(rows)
    assert [client.take() for client in clients] == [[answer(read(number), 7, 8)] for number in range(3)]
    assert stage.outer.busy == stage.inner.busy == 0
    assert stage.outer.figures()["reads"] == {"main": 9}


def test_what_is_gathered_keeps_its_place_among_what_crosses_whole() -> None:
    stage = Stage(asset_extra="outstanding: 8")
    client = stage.client()
    for number in range(3):
        client.arrive(read(number))
        stage.cross()
        if number == 0:
            stage.up()
        wire = stage.devices[0]
        wire.on_data(answer(wire.take()[0], 1, 2))
        stage.cross()
    client.take()
    client.arrive(read(1) + write(2, 200, 5) + read(3) + read(4))
    said = stage.to_inner.take()
    assert [type(one) for one in said] == [records.Again, records.Request, records.Again]
    first = said[0].first
    assert [said[1].id, said[2].first] == [first + 1, first + 2] and len(said[2].asked) == 4
    for record in said:
        stage.inner.take(record)
    stage.cross()
    # The reads behind the write wait for it, and get what it has left.
    device = stage.devices[0]
    order = []
    while questions := device.take():
        for question in questions:
            order.append(question[7])
            device.on_data(answer(question, 1, 2))
        stage.cross()
    assert order == [3, 6, 3, 3]
    assert [data[:2] for data in client.take()] == [b"\0\1", b"\0\2", b"\0\3", b"\0\4"]


def test_more_than_a_record_holds_is_more_records() -> None:
    link = Link(records.to_inner(Stage().policy, "modbus"))
    keeping = Keeping(link)
    flow = Stage().policy.flow("modbus", "127.0.0.1", "plc", ("enterprise",))
    assert isinstance(flow, Flow)
    request = m.ReadHoldingRegisters(1, 0, 2)
    operation = Modbus().operation(request)
    verdict = flow.decide(operation, 1_800_000_000_000_000_000)
    assert isinstance(verdict, Allow)
    flow.remember(request, operation, verdict)
    known = flow.recall(request, 1_800_000_000_000_000_000)
    assert known is not None
    numbers = [1, *range(2, 2 + records.GATHERED + 3), 500]  # the last does not follow on
    for number in numbers:
        keeping.send(9, number, known)
    kept, *again = link.take()
    assert kept == records.Kept(9, 1, request, 1)
    assert [(one.first, len(one.asked) // 2) for one in again] == [
        (2, records.GATHERED),
        (2 + records.GATHERED, 3),
        (500, 1),
    ]
    back = Link(records.to_outer(Stage().policy, "modbus"))
    replying = Replying(back)
    for number in range(1, 41):
        replying.send(number, 5, 0, bytes(250))
    rows = back.take()
    assert [number for one in rows for number in one.numbers[::3]] == list(range(1, 41))
    assert all(len(back._codec.encode(one)) < 4000 for one in rows)


def waiting(frame: bytes, again: int = 0) -> tuple[Stage, Wire]:
    """A client whose request has crossed, and is the last one."""
    stage = Stage(asset_extra="outstanding: 8")
    client = stage.client()
    for number in range(again):
        client.arrive(frame)
        stage.cross()
        if not number:
            stage.up()
        for question in stage.devices[0].take():
            stage.devices[0].on_data(answer(question, 1, 2))
        stage.cross()
    client.take()
    client.arrive(frame)
    stage.reactor.settle()
    return stage, client


@pytest.mark.parametrize("again", [0, 2])
@pytest.mark.parametrize(
    ("numbers", "rows"),
    [
        ([0, 5, 0], [b""]), ([0, 5, 0], [b"\0"]), ([0, 5, 0], [b"\0\1\0"]), ([0, 5, 0], [bytes(6)]),
        ([0, 5, 0], [bytes(252)]), ([0, 5], [bytes(4)]), ([0, 5, 0, 0], [bytes(4)]), ([0, 5, 0], [bytes(4), bytes(4)]),
        ([0, 5, 0, 0, 5, 0], [bytes(4)]),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_its_request_stops_the_half_that_is_told(
    again: int, numbers: list[int], rows: list[bytes]
) -> None:
    stage, client = waiting(read(1), again)
    told = [stage.outer._next if at % 3 == 0 else number for at, number in enumerate(numbers)]
    stage.to_outer.send(records.Rows(told, rows))
    with pytest.raises(CrossingError):
        for record in stage.to_outer.take():
            stage.outer.take(record)
    assert client.take() == []


def test_a_row_answers_only_a_read_of_registers() -> None:
    stage = Stage()
    client = stage.client()
    client.arrive(write(1, 200, 5))
    stage.reactor.settle()
    with pytest.raises(CrossingError, match="row of values as the answer to WriteSingleRegister"):
        stage.outer.take(records.Rows([stage.outer._next, 5, 0], [bytes(4)]))
    assert client.take() == []
    for request in (m.ReadCoils(1, 0, 32), m.ReportServerId(1), m.ReadWriteMultipleRegisters(1, 0, 2, 0, (5,))):
        with pytest.raises(CrossingError, match="row of values"):
            Modbus().spelled(request, bytes(4))


def test_a_row_for_nobody_is_left_out_and_one_for_who_has_gone_is_held_to_its_request() -> None:
    stage, client = waiting(read(1), 2)
    number = stage.outer._next
    stage.outer.take(records.Rows([number + 7, 5, 0], [b"nonsense"]))
    client.on_closed("closed by the peer")
    with pytest.raises(CrossingError, match="does not fit"):
        stage.outer.take(records.Rows([number, 5, 0], [bytes(6)]))


def test_an_answer_needs_no_memory_of_its_request_s_bytes() -> None:
    """The machine forgets all bytes when there are too many; a flow remembers the request longer."""
    stage, client = waiting(read(1), 2)
    stage.cross()
    device = stage.devices[0]
    device.on_data(answer(device.take()[0], 1, 2))
    stage.cross()
    client.take()
    stage.protocol._meanings._requests.clear()  # type: ignore[attr-defined]
    stage.protocol._meanings._forms.clear()  # type: ignore[attr-defined]
    client.arrive(read(9))
    said = asked(stage)
    assert [type(one) for one in said] == [records.Again]
    device.on_data(answer(device.take()[0], 3, 4))
    stage.cross()
    assert client.take() == [answer(read(9), 3, 4)]


def test_a_machine_answers_by_a_row_what_it_answers_by_a_message() -> None:
    meanings = Meanings()
    for function, kind in ((3, m.ReadHoldingRegistersResponse), (4, m.ReadInputRegistersResponse)):
        for count in (1, 2, 125):
            frame = read(77, 5, count, unit=9, function=function)
            row = bytes(range(250))[: 2 * count]
            told: list[bytes] = []
            for way in range(3):
                machine = ModbusServer(meanings)
                machine.receive_data(frame)
                token = machine.next_event().token  # type: ignore[union-attr]
                if way == 2:
                    assert machine.answer(token, row + b"\0\0") == machine.answer(token, row[:-1]) == b""
                told.append(machine.answer(token, row) if way == 2 else machine.send(token, kind(row)))
                assert machine.open == 0
            assert told[0] == told[1] == told[2]


SESSIONS = st.sampled_from([1, 1, 1, 2, 3, 99])
PLACES = st.sampled_from([1, 2, 2, 3, 2048])
MESSAGES = st.sampled_from([
    m.ReadHoldingRegisters(1, 0, 2), m.ReadHoldingRegisters(1, 98, 2), m.ReadHoldingRegisters(1, 98, 3),
    m.ReadInputRegisters(1, 0, 1), m.ReadHoldingRegisters(1, 65535, 2), m.ReadHoldingRegisters(2, 0, 2),
    m.WriteSingleRegister(1, 200, 5), m.WriteSingleRegister(1, 200, 1501), m.ReadCoils(1, 0, 9),
])  # fmt: skip
SAID = st.one_of(
    st.tuples(st.just("kept"), SESSIONS, MESSAGES, PLACES),
    st.tuples(
        st.just("again"), st.lists(st.tuples(SESSIONS, PLACES), min_size=1, max_size=5),
        st.sampled_from([0, 0, 0, -3, 9]),
    ),
    st.tuples(st.just("request"), SESSIONS, MESSAGES),
    st.tuples(st.just("closed"), SESSIONS),
    st.tuples(st.just("pass"), st.sampled_from([0.1, 61.0, 57_600.0])),
)  # fmt: skip


@given(st.lists(SAID, min_size=1, max_size=25))
@examples(150)
def test_whatever_is_kept_and_asked_again_only_what_policy_allows_reaches_the_device(said: list[Any]) -> None:
    stage = Stage(
        asset_extra="outstanding: 8", conduit_extra='window: {days: fri, from: "08:00", to: "08:01", zone: UTC}'
    )
    sources = {1: "127.0.0.1", 2: "127.0.0.1", 3: "10.9.9.9"}
    for number, source in sources.items():
        stage.inner.take(records.Opened(number, f"s{number}", source, "plc"))
    number, open_ones, kept = 0, {1, 2}, set()
    questions = 0
    for what, *rest in said:
        may = 0
        if what == "pass":
            stage.reactor.advance(rest[0])
            continue
        if what == "closed":
            stage.to_inner.send(records.Closed(rest[0]))
            open_ones.discard(rest[0])
        elif what == "kept":
            number += 1
            stage.to_inner.send(records.Kept(rest[0], number, rest[1], rest[2]))
            kept.add(rest[2])
            may = rest[0] in open_ones
        elif what == "request":
            number += 1
            stage.to_inner.send(records.Request(rest[0], number, rest[1]))
            may = rest[0] in open_ones
        else:
            stage.to_inner.send(records.Again(max(1, number + 1 + rest[1]), [one for pair in rest[0] for one in pair]))
            number += rest[1] + len(rest[0])
            may = sum(session in open_ones for session, _ in rest[0])
        try:
            for record in stage.to_inner.take():
                stage.inner.take(record)
        except CrossingError:
            break
        assert what != "again" or (rest[1] >= 0 and {place for _, place in rest[0]} <= kept)
        stage.cross()
        for wire in stage.devices:
            if wire.on_connected is not None:
                wire.on_connected()
                wire.on_connected = None
        stage.cross()
        flow = stage.policy.flow("modbus", "127.0.0.1", "plc", ("enterprise",))
        assert isinstance(flow, Flow)
        for wire in stage.devices:
            for data in wire.take():
                questions += 1
                machine = ModbusServer()
                machine.receive_data(data)
                request = machine.next_event().request  # type: ignore[union-attr]
                assert may > 0, "nobody may ask this"
                may -= 1
                assert isinstance(flow.decide(Modbus().operation(request), stage.inner._wall()), Allow)
                wire.on_data(answer(data, *range(int.from_bytes(data[10:12], "big") % 200)))
    stage.inner.end()
