"""The two machines, by playbook: framing, matching, quirks, and what ends a connection."""

from __future__ import annotations

from typing import Any

import pytest

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.protocols.base import (
    NEED_DATA,
    WAITS,
    BadResponse,
    Repeated,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.machine import BY_ORDER, QUIRKS, ModbusClient, ModbusServer
from tests.protocols.playbook import ANY, Playbook, recv
from tests.protocols.vectors import adu

READ = m.ReadHoldingRegisters(1, 0, 1)
READ_PDU = "03 0000 0001"
ANSWER = m.ReadHoldingRegistersResponse.of((7,))
ANSWER_PDU = "03 02 0007"


def received(event: object) -> RequestReceived[Any]:
    assert isinstance(event, RequestReceived)
    return event


# ---- server ----


def test_several_frames_in_one_segment() -> None:
    frames = b"".join(adu(READ_PDU, transaction=number) for number in range(20))
    book = Playbook(ModbusServer()) << recv(frames)
    for _ in range(20):
        book = book >> RequestReceived(ANY, READ)
    _ = book >> NEED_DATA


def test_one_frame_over_many_segments() -> None:
    machine = ModbusServer()
    book = Playbook(machine)
    frame = adu("10 0001 0002 04 000A 0102")
    for at in range(len(frame) - 1):
        book = book << recv(frame[at : at + 1]) >> NEED_DATA
        assert machine.buffered == at + 1
    _ = book << recv(frame[-1:]) >> RequestReceived(ANY, m.WriteMultipleRegisters(1, 1, (10, 0x102))) >> NEED_DATA
    assert machine.buffered == 0


def test_a_frame_and_a_half() -> None:
    machine = ModbusServer()
    second = adu(READ_PDU, transaction=2)
    book = Playbook(machine) << recv(adu(READ_PDU) + second[:5]) >> RequestReceived(ANY, READ) >> NEED_DATA
    assert machine.buffered == 5
    book = book << recv(second[5:] + second[:0]) >> RequestReceived(ANY, READ) >> NEED_DATA


def test_answers_may_come_in_any_order_and_carry_their_own_ids() -> None:
    machine = ModbusServer()
    machine.receive_data(b"".join(adu(READ_PDU, transaction=number, unit=number) for number in (5, 6, 7)))
    tokens = [received(machine.next_event()).token for _ in range(3)]
    assert machine.open == 3
    for number, token in reversed(list(zip((5, 6, 7), tokens, strict=True))):
        assert machine.send(token, ANSWER) == adu(ANSWER_PDU, transaction=number, unit=number)
    assert machine.open == 0


def test_a_wrong_protocol_id_ends_the_stream_at_once_and_for_good() -> None:
    wrong = (RemoteProtocolError, "protocol id 0x0001")
    book = Playbook(ModbusServer()) << recv(b"\0\1\0") >> NEED_DATA << recv(b"\1") >> wrong >> wrong
    _ = book << recv(adu(READ_PDU)) >> wrong


@pytest.mark.parametrize("length", [0, 1, 255, 256, 0xFFFF])
def test_an_impossible_length_ends_the_stream(length: int) -> None:
    head = b"\0\1\0\0" + length.to_bytes(2)
    machine = ModbusServer()
    machine.receive_data(head)
    with pytest.raises(RemoteProtocolError, match=f"length {length}") as caught:
        machine.next_event()
    assert caught.value.section.endswith("Guide V1.0b, 3.1.3") and caught.value.offset == 4


def test_the_smallest_and_the_largest_frame_are_frames() -> None:
    largest = b"\0\2\0\0\0\xfe\1\x2b\x0d" + bytes(251)
    book = Playbook(ModbusServer()) << recv(adu("07") + largest)
    _ = (
        book
        >> RequestReceived(ANY, m.ReadExceptionStatus(1))
        >> RequestReceived(ANY, m.CanopenReference(1, bytes(251)))
    )


def test_a_bad_frame_between_good_ones_is_refused_and_the_others_go_on() -> None:
    frames = adu(READ_PDU) + adu("03 0000 0000", transaction=2) + adu(READ_PDU, transaction=3)
    refused = RequestRefused(ANY, m.ExceptionResponse(3, 3), "MODBUS Application Protocol V1.1b3, 6.3", ANY, 3)
    _ = (
        Playbook(ModbusServer())
        << recv(frames)
        >> RequestReceived(ANY, READ)
        >> refused
        >> RequestReceived(ANY, READ)
        >> NEED_DATA
    )


def test_another_request_with_an_id_that_is_under_way_waits_and_the_same_one_joins() -> None:
    """Two requests with one id could be given each other's answers; that must not be left to chance."""
    machine = ModbusServer()
    machine.receive_data(adu(READ_PDU, transaction=9) * 2 + adu("03 0001 0001", transaction=9))
    first = machine.next_event()
    assert isinstance(first, RequestReceived)
    assert machine.next_event() == Repeated(first.token)
    assert [machine.next_event() for _ in range(2)] == [WAITS, WAITS]
    assert machine.open == 1
    machine.release(first.token)
    other = machine.next_event()
    assert isinstance(other, RequestReceived)
    assert machine.next_event() is NEED_DATA
    assert other.token != first.token


@pytest.mark.parametrize("ending", ["send", "release"])
def test_an_id_is_free_again_after_its_answer(ending: str) -> None:
    """Clients that always use id 0 are common."""
    machine = ModbusServer()
    for _ in range(3):
        machine.receive_data(adu(READ_PDU, transaction=0))
        event = received(machine.next_event())
        if ending == "send":
            machine.send(event.token, ANSWER)
        else:
            machine.release(event.token)


def test_a_token_is_good_once() -> None:
    machine = ModbusServer()
    machine.receive_data(adu(READ_PDU))
    first = received(machine.next_event()).token
    machine.send(first, ANSWER)
    with pytest.raises(LocalProtocolError, match="not open"):
        machine.send(first, ANSWER)
    machine.receive_data(adu(READ_PDU))
    second = received(machine.next_event()).token
    with pytest.raises(LocalProtocolError, match="not open"):
        machine.send(first, ANSWER)
    machine.release(first)
    assert machine.open == 1
    machine.release(second)
    with pytest.raises(LocalProtocolError, match="not open"):
        machine.send(second, ANSWER)


@pytest.mark.parametrize(
    "response", [m.ReadInputRegistersResponse.of((1,)), m.ExceptionResponse(4, 2), m.WriteSingleRegisterResponse(0, 1)]
)
def test_an_answer_of_another_function_is_not_sent(response: m.ModbusResponse) -> None:
    machine = ModbusServer()
    machine.receive_data(adu(READ_PDU))
    token = received(machine.next_event()).token
    with pytest.raises(LocalProtocolError, match="does not answer"):
        machine.send(token, response)
    assert machine.send(token, m.ExceptionResponse(3, 2)) == adu("83 02")


# ---- client ----


def test_a_request_and_its_answer() -> None:
    machine = ModbusClient()
    token, frame = machine.send(READ)
    assert frame == adu(READ_PDU, transaction=token) and machine.in_flight == 1
    _ = Playbook(machine) << recv(adu(ANSWER_PDU, transaction=token)) >> ResponseReceived(token, ANSWER) >> NEED_DATA
    assert machine.in_flight == 0


def test_sixteen_under_way_answered_backwards_in_one_segment() -> None:
    machine = ModbusClient(outstanding=16)
    asked = [machine.send(m.ReadHoldingRegisters(1, number, 1))[0] for number in range(16)]
    assert len(set(asked)) == machine.in_flight == 16
    with pytest.raises(LocalProtocolError, match="at most 16"):
        machine.send(READ)
    book = Playbook(machine) << recv(
        b"".join(adu(f"03 02 {token:04x}", transaction=token) for token in reversed(asked))
    )
    for token in reversed(asked):
        book = book >> ResponseReceived(token, m.ReadHoldingRegistersResponse.of((token,)))
    _ = book >> NEED_DATA
    assert machine.in_flight == 0


@pytest.mark.parametrize("outstanding", [0, 17, -1])
def test_outstanding_is_one_to_sixteen(outstanding: int) -> None:
    with pytest.raises(LocalProtocolError, match="must be 1 to 16"):
        ModbusClient(outstanding=outstanding)


def test_an_answer_that_nobody_asked_for() -> None:
    _ = Playbook(ModbusClient()) << recv(adu(ANSWER_PDU, transaction=77)) >> Unmatched(ANY) >> NEED_DATA


def test_an_answer_that_comes_twice() -> None:
    machine = ModbusClient()
    token, _ = machine.send(READ)
    frame = adu(ANSWER_PDU, transaction=token)
    _ = Playbook(machine) << recv(frame + frame) >> ResponseReceived(token, ANSWER) >> Unmatched(ANY) >> NEED_DATA


def test_a_late_answer_never_reaches_the_next_request() -> None:
    machine = ModbusClient()
    late, _ = machine.send(READ)
    machine.forget(late)
    assert machine.in_flight == 0 and not machine.drop_after_timeout
    token, _ = machine.send(READ)
    assert token != late
    other = m.ReadHoldingRegistersResponse.of((8,))
    book = Playbook(machine) << recv(adu(ANSWER_PDU, transaction=late)) >> Unmatched(ANY) >> NEED_DATA
    assert machine.in_flight == 1
    _ = book << recv(adu("03 02 0008", transaction=token)) >> ResponseReceived(token, other)


def test_forgetting_what_is_not_under_way_does_nothing() -> None:
    machine = ModbusClient()
    machine.forget(4)
    token, _ = machine.send(READ)
    machine.forget(token)
    machine.forget(token)
    assert machine.in_flight == 0


def test_ids_wrap_and_pass_over_those_under_way() -> None:
    machine = ModbusClient(outstanding=2, first=0xFFFF)
    slow, _ = machine.send(READ)
    seen = set()
    for _ in range(65535):
        token, _ = machine.send(READ)
        seen.add(token)
        machine.receive_data(adu(ANSWER_PDU, transaction=token))
        assert isinstance(machine.next_event(), ResponseReceived)
    assert slow == 0xFFFF and slow not in seen and len(seen) == 65535
    assert machine.send(READ)[0] == 0


def test_a_forgotten_id_is_used_again_only_after_all_others() -> None:
    machine = ModbusClient(first=5)
    lost, _ = machine.send(READ)
    machine.forget(lost)
    for _ in range(65535):
        token, _ = machine.send(READ)
        assert token != lost
        machine.receive_data(adu(ANSWER_PDU, transaction=token))
        machine.next_event()
    assert machine.send(READ)[0] == lost
    _ = Playbook(machine) << recv(adu(ANSWER_PDU, transaction=lost)) >> ResponseReceived(lost, ANSWER)


@pytest.mark.parametrize(
    ("pdu", "unit", "section", "word"),
    [
        (ANSWER_PDU, 2, "MODBUS Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3", "unit 2"),
        ("04 02 0007", 1, "MODBUS Application Protocol V1.1b3, 4.1", "function code 4"),
        ("03 04 0007 0008", 1, "MODBUS Application Protocol V1.1b3, 6.3", "5 found"),
        ("83 00", 1, "MODBUS Application Protocol V1.1b3, 7", "0x00"),
    ],
)
def test_an_answer_that_does_not_fit_ends_its_request_only(pdu: str, unit: int, section: str, word: str) -> None:
    machine = ModbusClient(outstanding=2)
    token, _ = machine.send(READ)
    other, _ = machine.send(READ)
    machine.receive_data(adu(pdu, transaction=token, unit=unit) + adu(ANSWER_PDU, transaction=other))
    event = machine.next_event()
    assert isinstance(event, BadResponse)
    assert (event.token, event.section) == (token, section) and word in event.detail
    assert machine.next_event() == ResponseReceived(other, ANSWER)


def test_an_answer_to_another_request_under_way_does_not_pass_for_this_one() -> None:
    """The id matches, the content is that of the neighbour: a device that mixes up its answers."""
    machine = ModbusClient(outstanding=2)
    one, _ = machine.send(m.WriteSingleRegister(1, 10, 1))
    two, _ = machine.send(m.WriteSingleRegister(1, 11, 2))
    machine.receive_data(adu("06 000B 0002", transaction=one) + adu("06 000A 0001", transaction=two))
    events = [machine.next_event(), machine.next_event()]
    assert [type(event) for event in events] == [BadResponse, BadResponse]


def test_a_broken_header_from_the_asset_ends_the_connection() -> None:
    machine = ModbusClient(outstanding=2)
    machine.send(READ)
    wrong = (RemoteProtocolError, "protocol id 0x0203")
    _ = Playbook(machine) << recv(b"\0\1\2\3\0\3\1\3\2") >> wrong >> wrong
    with pytest.raises(LocalProtocolError, match="must be closed"):
        machine.send(READ)


# ---- quirks ----


def test_quirks_are_known_by_name() -> None:
    with pytest.raises(LocalProtocolError, match="unknown quirk any_unti"):
        ModbusClient(quirks=frozenset({"any_unti"}))


@pytest.mark.parametrize("quirk", sorted(BY_ORDER))
def test_matching_by_order_needs_one_at_a_time(quirk: str) -> None:
    with pytest.raises(LocalProtocolError, match="needs outstanding 1"):
        ModbusClient(quirks=frozenset({quirk}), outstanding=2)
    assert ModbusClient(quirks=frozenset({quirk})).drop_after_timeout


def test_any_unit() -> None:
    machine = ModbusClient(quirks=frozenset({"any_unit"}))
    token, _ = machine.send(READ)
    _ = Playbook(machine) << recv(adu(ANSWER_PDU, transaction=token, unit=255)) >> ResponseReceived(token, ANSWER)


@pytest.mark.parametrize(
    ("quirk", "transaction", "taken"),
    [
        ("", 0, False),
        ("any_unit", 0, False),
        ("zero_transaction_id", 0, True),
        ("zero_transaction_id", 1, True),
        ("zero_transaction_id", 999, False),
        ("wrong_transaction_id", 0, True),
        ("wrong_transaction_id", 1, True),
        ("wrong_transaction_id", 999, True),
    ],
)
def test_which_ids_a_quirk_lets_pass(quirk: str, transaction: int, taken: bool) -> None:
    machine = ModbusClient(quirks=frozenset({quirk}) & QUIRKS)
    token, _ = machine.send(READ)
    assert token == 1
    expected = ResponseReceived(token, ANSWER) if taken else Unmatched(ANY)
    _ = Playbook(machine) << recv(adu(ANSWER_PDU, transaction=transaction)) >> expected
    assert machine.in_flight == (0 if taken else 1)


@pytest.mark.parametrize("quirk", sorted(BY_ORDER))
def test_by_order_still_checks_the_content(quirk: str) -> None:
    machine = ModbusClient(quirks=frozenset({quirk}))
    token, _ = machine.send(READ)
    machine.receive_data(adu("04 02 0007", transaction=0))
    event = machine.next_event()
    assert isinstance(event, BadResponse) and event.token == token


@pytest.mark.parametrize("quirk", sorted(BY_ORDER))
def test_by_order_no_request_follows_a_timeout(quirk: str) -> None:
    machine = ModbusClient(quirks=frozenset({quirk}))
    token, _ = machine.send(READ)
    machine.forget(token)
    with pytest.raises(LocalProtocolError, match="must be closed"):
        machine.send(READ)


def test_by_order_an_answer_too_many_ends_the_connection() -> None:
    machine = ModbusClient(quirks=frozenset({"wrong_transaction_id"}))
    token, _ = machine.send(READ)
    frame = adu(ANSWER_PDU, transaction=500)
    book = Playbook(machine) << recv(frame + frame) >> ResponseReceived(token, ANSWER)
    _ = book >> (RemoteProtocolError, "while nothing was asked")


def test_a_playbook_can_fail() -> None:
    """The helper itself: a wrong event, a missing error, a wrong word."""
    for expected in (Unmatched(ANY), RequestReceived(ANY, m.ReadCoils(1, 0, 1)), (RemoteProtocolError, "x"), NEED_DATA):
        with pytest.raises(AssertionError, match="found"):
            _ = Playbook(ModbusServer()) << recv(adu(READ_PDU)) >> expected
