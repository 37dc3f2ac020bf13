"""Answers that break the standard: each is a misfit, and with its quirk it is what it says. Frames of RTU besides."""

from __future__ import annotations

import pytest

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.base import NEED_DATA, BadResponse, ResponseReceived, Unmatched
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.dialect import MODBUS
from cofferdam.protocols.modbus.framings import client
from cofferdam.protocols.modbus.machine import ModbusClient
from cofferdam.protocols.modbus.quirks import crc

READ = m.ReadHoldingRegisters(1, 10, 2)
SIX = m.WriteSingleRegister(1, 500, 1)
SIXTEEN = m.WriteMultipleRegisters(1, 5, (1, 2))
READ_DONE = m.ReadHoldingRegistersResponse.of((7, 8))

CASES = [
    ("spare_bytes", READ, "03 04 0007 0008 5f", READ_DONE),
    ("spare_bytes", SIX, "06 01f4 0001 1234", m.WriteSingleRegisterResponse(500, 1)),
    ("spare_bytes", m.ReadCoils(1, 0, 9), "01 02 ff01 00", m.ReadCoilsResponse((1,) * 9)),
    ("long_exceptions", READ, "83 02 0000 00", m.ExceptionResponse(3, 2)),
    ("wrong_byte_count", READ, "03 02 0007 0008", READ_DONE),
    ("full_echo", SIXTEEN, "10 0005 0002 04 0001 0002", m.WriteMultipleRegistersResponse(5, 2)),
    ("loose_echo", SIX, "06 0000 0001", m.WriteSingleRegisterResponse(500, 1)),
    ("loose_echo", SIXTEEN, "10 0000 0000", m.WriteMultipleRegistersResponse(5, 2)),
]


def frame(pdu: bytes, transaction: int = 1, length: int | None = None, unit: int = 1) -> bytes:
    head = transaction.to_bytes(2, "big") + b"\0\0" + (len(pdu) + 1 if length is None else length).to_bytes(2, "big")
    return head + bytes([unit]) + pdu


@pytest.mark.parametrize(("quirk", "request_", "pdu", "expected"), CASES)
def test_an_answer_is_forgiven_by_its_quirk_and_by_no_other(
    quirk: str, request_: m.ModbusRequest, pdu: str, expected: m.ModbusResponse
) -> None:
    # A whole echo is a right one with spare bytes behind it, too.
    others = MODBUS.quirks - {quirk, "spare_bytes" if quirk == "full_echo" else quirk} - MODBUS.lone_quirks
    for quirks in (frozenset({quirk}), others, frozenset[str]()):
        machine = ModbusClient(quirks=quirks)
        token, _ = machine.send(request_)
        machine.receive_data(frame(bytes.fromhex(pdu)))
        event = machine.next_event()
        if quirk in quirks:
            assert event == ResponseReceived(token, expected)
        else:
            assert isinstance(event, BadResponse)
        assert machine.next_event() is NEED_DATA


@pytest.mark.parametrize("quirk", sorted(MODBUS.quirks - MODBUS.lone_quirks))
def test_what_is_no_answer_stays_none(quirk: str) -> None:
    for pdu in ("03 04 0007", "04 04 0007 0008", "83", "90 01", "03"):
        machine = ModbusClient(quirks=frozenset({quirk}))
        machine.send(READ)
        machine.receive_data(frame(bytes.fromhex(pdu)))
        assert isinstance(machine.next_event(), BadResponse), pdu


@pytest.mark.parametrize("late", [False, True])
def test_a_second_copy_of_an_answer_is_dropped_once(late: bool) -> None:
    machine = ModbusClient(quirks=frozenset({"answers_twice"}))
    answer = bytes.fromhex("03 04 0007 0008")
    token, _ = machine.send(READ)
    copies = frame(answer, token) * 2
    if late:  # the copies come when the next one is under way
        machine.forget(token)
        token, _ = machine.send(READ)
        machine.receive_data(copies)
        assert isinstance(machine.next_event(), Unmatched)
        assert machine.next_event() is NEED_DATA
        copies = frame(answer, token) * 2
    machine.receive_data(copies + frame(answer, token))
    assert machine.next_event() == ResponseReceived(token, READ_DONE)
    assert isinstance(machine.next_event(), Unmatched)  # the third
    assert machine.next_event() is NEED_DATA


RTU = [
    (READ, "01 03 000a 0002", "01 03 04 0007 0008", READ_DONE),
    (SIX, "01 06 01f4 0001", "01 06 01f4 0001", m.WriteSingleRegisterResponse(500, 1)),
    (READ, "01 03 000a 0002", "01 83 02", m.ExceptionResponse(3, 2)),
    (m.ReadExceptionStatus(1), "01 07", "01 07 55", m.ReadExceptionStatusResponse(0x55)),
    (m.Diagnostics(1, 0, (0xA537,)), "01 08 0000 a537", "01 08 0000 a537", m.DiagnosticsResponse(0, (0xA537,))),
    (m.ReadFifoQueue(1, 4), "01 18 0004", "01 18 0004 0001 0009", m.ReadFifoQueueResponse((9,))),
    (
        m.ReadDeviceIdentification(1, 1, 0), "01 2b0e 01 00", "01 2b0e 01 01 00 00 01 00 02 4142",
        m.ReadDeviceIdentificationResponse(1, 1, 0, 0, (m.DeviceObject(0, b"AB"),)),
    ),
    (m.CanopenReference(1, b"\1\2"), "01 2b0d 0102", "01 2b0d 0304", m.CanopenReferenceResponse(b"\3\4")),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "sent", "answer", "expected"), RTU)
@pytest.mark.parametrize("step", [1, 3, 300])
def test_rtu_over_tcp(request_: m.ModbusRequest, sent: str, answer: str, expected: m.ModbusResponse, step: int) -> None:
    machine = client(frozenset({"rtu_over_tcp"}), 1)
    for _ in range(2):
        token, data = machine.send(request_)
        assert data == bytes.fromhex(sent) + crc(bytes.fromhex(sent))
        raw = bytes.fromhex(answer) + crc(bytes.fromhex(answer))
        events = []
        for at in range(0, len(raw), step):
            machine.receive_data(raw[at : at + step])
            events.append(machine.next_event())
        assert events[:-1] == [NEED_DATA] * (len(events) - 1)
        assert events[-1] == ResponseReceived(token, expected)


def test_the_crc_of_the_serial_line() -> None:
    assert crc(bytes.fromhex("02 07")) == bytes.fromhex("4112")  # serial line guide 1.02, 6.2.2


@pytest.mark.parametrize(
    "raw",
    [
        bytes.fromhex("01 03 04 0007 0008 0000"),
        bytes.fromhex("01 2b0d") + bytes(300),
        bytes.fromhex("01 18 ffff") + bytes(300),
    ],
)
def test_a_stream_of_rtu_that_is_lost_is_over(raw: bytes) -> None:
    machine = client(frozenset({"rtu_over_tcp"}), 1)
    machine.send(READ)
    machine.receive_data(raw)
    with pytest.raises(RemoteProtocolError):
        machine.next_event()
    with pytest.raises(RemoteProtocolError):
        machine.next_event()


def test_an_answer_of_another_unit_or_to_nothing() -> None:
    machine = client(frozenset({"rtu_over_tcp"}), 1)
    token, _ = machine.send(READ)
    other = bytes.fromhex("02 03 04 0007 0008")
    machine.receive_data(other + crc(other))
    event = machine.next_event()
    assert isinstance(event, BadResponse)
    assert event.token == token
    machine.receive_data(b"\0")
    with pytest.raises(RemoteProtocolError, match="while nothing was asked"):
        machine.next_event()


@pytest.mark.parametrize("step", [1, 3, 300])
@pytest.mark.parametrize(("before", "behind"), [("00", ""), ("0000", "000000"), ("", "00"), ("", "5f")])
def test_bytes_that_were_never_on_the_line(before: str, behind: str, step: int) -> None:
    """Converters that put NULs before answers (eModbus 308) or behind them (home-assistant/core 69742)."""
    if behind == "5f" and step != 300:
        pytest.skip("what comes later than its answer has to be NULs")
    machine = client(frozenset({"rtu_over_tcp", "spare_bytes"}), 1)
    body = bytes.fromhex("01 03 04 0007 0008")
    raw = bytes.fromhex(before) + body + crc(body) + bytes.fromhex(behind)
    for _ in range(3):
        token, _ = machine.send(READ)
        events = []
        for at in range(0, len(raw), step):
            machine.receive_data(raw[at : at + step])
            events.append(machine.next_event())
        assert [event for event in events if event is not NEED_DATA] == [ResponseReceived(token, READ_DONE)]
        assert machine.next_event() is NEED_DATA
        assert machine.buffered == 0


@pytest.mark.parametrize("behind", [b"\0\0\0", b"\r"])
def test_bytes_behind_a_frame_that_its_header_does_not_count(behind: bytes) -> None:
    machine = client(frozenset({"wrong_length", "spare_bytes"}), 1)
    for _ in range(3):
        token, _ = machine.send(READ)
        machine.receive_data(frame(bytes.fromhex("03 04 0007 0008"), token) + behind)
        assert machine.next_event() == ResponseReceived(token, READ_DONE)
        assert machine.next_event() is NEED_DATA


def test_spare_bytes_forgive_no_answer_to_nothing() -> None:
    machine = client(frozenset({"rtu_over_tcp", "spare_bytes"}), 1)
    machine.receive_data(b"\0\0")
    assert machine.next_event() is NEED_DATA
    machine.receive_data(b"\0\1")
    with pytest.raises(RemoteProtocolError, match="while nothing was asked"):
        machine.next_event()


@pytest.mark.parametrize("step", [1, 3, 300])
@pytest.mark.parametrize("echoes", [True, False])
def test_a_converter_that_hears_itself(step: int, echoes: bool) -> None:
    """Before its answer comes the request (tiagocoutinho/modbus-proxy PR 55); a write's answer is the same bytes."""
    machine = client(frozenset({"rtu_echo"}), 1)
    for request_, body, done in (
        (READ, bytes.fromhex("01 03 04 0007 0008"), READ_DONE),
        (SIX, bytes.fromhex("01 06 01f4 0001"), m.WriteSingleRegisterResponse(500, 1)),
        (READ, bytes.fromhex("01 83 02"), m.ExceptionResponse(3, 2)),
    ):
        if not echoes and request_ is SIX:
            continue  # it would be taken for the echo, and the answer waited for: docs/protocol-modbus.md
        token, data = machine.send(request_)
        raw = (data if echoes else b"") + body + crc(body)
        events = []
        for at in range(0, len(raw), step):
            machine.receive_data(raw[at : at + step])
            events.append(machine.next_event())
        assert events[:-1] == [NEED_DATA] * (len(events) - 1)
        assert events[-1] == ResponseReceived(token, done)


@pytest.mark.parametrize("length", [0, 2, 6, 6000])
def test_a_length_that_is_wrong(length: int) -> None:
    machine = client(frozenset({"wrong_length"}), 1)
    for _ in range(2):
        token, _ = machine.send(READ)
        raw = frame(bytes.fromhex("03 04 0007 0008"), 99, length)
        for at in range(len(raw) - 1):
            machine.receive_data(raw[at : at + 1])
            assert machine.next_event() is NEED_DATA
        machine.receive_data(raw[-1:])
        assert machine.next_event() == ResponseReceived(token, READ_DONE)


def test_no_header_at_all_is_over_all_the_same() -> None:
    machine = client(frozenset({"wrong_length"}), 1)
    machine.send(READ)
    machine.receive_data(b"GET / HTTP/1.1\r\n")
    with pytest.raises(RemoteProtocolError):
        machine.next_event()
