"""What messages mean: operations, our own answers, values, read sharing, rules over a crossing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.model import Change, Deny, Failure, Fault, Operation, Read, Span, Write
from cofferdam.protocols.dialects import DIALECTS
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus.requests import FUNCTION_OF, function_of
from cofferdam.protocols.registry import PROTOCOLS
from tests.examples import examples
from tests.protocols import strategies
from tests.protocols.vectors import VECTORS

MODBUS = PROTOCOLS["modbus"]

OPERATIONS: list[tuple[m.ModbusRequest, Operation]] = [
    (
        m.ReadCoils(3, 5, 9),
        Operation(1, -1, 3, False, (Span("coil", 5, 9),)),
    ),
    (
        m.ReadDiscreteInputs(3, 5, 1),
        Operation(2, -1, 3, False, (Span("discrete", 5, 1),)),
    ),
    (
        m.ReadHoldingRegisters(1, 100, 2),
        Operation(3, -1, 1, False, (Span("holding", 100, 2),)),
    ),
    (
        m.ReadInputRegisters(0, 0, 125),
        Operation(4, -1, 0, False, (Span("input", 0, 125),)),
    ),
    (
        m.WriteSingleCoil(1, 7, 1),
        Operation(5, -1, 1, True, (), (Change("coil", 7, 1, (1,)),)),
    ),
    (
        m.WriteSingleRegister(1, 200, 800),
        Operation(6, -1, 1, True, (), (Change("holding", 200, 1, (800,)),)),
    ),
    (m.ReadExceptionStatus(1), Operation(7, -1, 1, False)),
    (m.Diagnostics(1, 0, (1, 2)), Operation(8, 0, 1, False)),
    (m.Diagnostics(1, 1, (0,)), Operation(8, 1, 1, True)),
    (m.Diagnostics(1, 4, (0,)), Operation(8, 4, 1, True)),
    (m.GetCommEventCounter(1), Operation(11, -1, 1, False)),
    (m.GetCommEventLog(1), Operation(12, -1, 1, False)),
    (
        m.WriteMultipleCoils(1, 7, (1, 0, 1)),
        Operation(15, -1, 1, True, (), (Change("coil", 7, 3, (1, 0, 1)),)),
    ),
    (
        m.WriteMultipleRegisters(1, 7, tuple(range(20))),
        Operation(16, -1, 1, True, (), (Change("holding", 7, 20, tuple(range(20))),)),
    ),
    (m.ReportServerId(1), Operation(17, -1, 1, False)),
    (
        m.ReadFileRecord(1, (m.FileRange(4, 1, 2), m.FileRange(3, 9, 1))),
        Operation(20, -1, 1, False, (Span("file:4", 1, 2), Span("file:3", 9, 1))),
    ),
    (
        m.WriteFileRecord(1, (m.FileRecord(4, 7, (1, 2)),)),
        Operation(21, -1, 1, True, (), (Change("file:4", 7, 2, (1, 2)),)),
    ),
    (
        m.MaskWriteRegister(1, 4, 0xF2, 0x25),
        Operation(22, -1, 1, True, (), (Change("holding", 4, 1, (0xF2, 0x25), False),)),
    ),
    (
        m.ReadWriteMultipleRegisters(1, 3, 6, 14, (255,)),
        Operation(23, -1, 1, True, (Span("holding", 3, 6),), (Change("holding", 14, 1, (255,)),)),
    ),
    (
        m.ReadFifoQueue(1, 1246),
        Operation(24, -1, 1, False, (Span("fifo", 1246, 1),)),
    ),
    (m.CanopenReference(1, b"abc"), Operation(43, 13, 1, True)),
    (m.ReadDeviceIdentification(1, 1, 0), Operation(43, 14, 1, False)),
]


@pytest.mark.parametrize(("request_", "operation"), OPERATIONS, ids=[type(o[0]).__name__ for o in OPERATIONS])
def test_what_a_request_means(request_: m.ModbusRequest, operation: Operation) -> None:
    assert MODBUS.operation(request_) == operation


def test_the_dialect_knows_the_same_functions_and_spaces() -> None:
    """The dialect states facts of the protocol without importing it; they must be the same facts."""
    dialect = DIALECTS["modbus"]
    assert MODBUS.dialect is dialect and MODBUS.name == dialect.name
    for quirk in dialect.quirks:
        if quirk in dialect.lone_quirks:
            with pytest.raises(LocalProtocolError):
                MODBUS.client(quirks=frozenset({quirk}), outstanding=2)
        else:
            MODBUS.client(quirks=frozenset({quirk}), outstanding=2)
    assert set(dialect.codes) | dialect.place_codes == set(m.FUNCTIONS)
    for request, operation in OPERATIONS:
        cells: list[Read | Write] = [*operation.reads, *operation.writes]
        assert (operation.function in dialect.place_codes) is bool(cells), request
        for part in cells:
            assert dialect.space(part.space) is not None, request
        if not cells:
            assert dialect.changes(operation.function, operation.sub) is operation.is_write, request
    for sub in m.DIAGNOSTICS:
        assert dialect.changes(8, sub) is (sub not in m.DIAGNOSTICS_READS)
    for space in dialect.spaces:
        for code, is_write in ((space.read, False), (space.write_one, True), (space.write_many, True)):
            operations = [operation for _, operation in OPERATIONS if operation.function == code]
            for operation in operations:
                parts = operation.writes if is_write else operation.reads
                assert [part.space.partition(":")[0] for part in parts[:1]] == [space.name]


def test_every_request_has_a_meaning_here() -> None:
    assert {type(case[0]) for case in OPERATIONS} == {kind for kind, code in FUNCTION_OF.items() if code}


@pytest.mark.parametrize("sub", sorted(m.DIAGNOSTICS))
def test_diagnostics_that_change_something_are_writes(sub: Any) -> None:
    assert MODBUS.operation(m.Diagnostics(1, sub, (0,))).is_write is (sub in {1, 3, 4, 10, 20})


@given(strategies.sound_requests())
@examples(200)
def test_an_operation_names_every_cell_and_only_existing_ones(request: Any) -> None:
    operation = MODBUS.operation(request)
    assert operation.function == function_of(request) and operation.unit == request.unit
    for span in operation.reads:
        assert 0 <= span.start < span.stop <= 65536
    for change in operation.writes:
        assert 0 <= change.start < change.stop <= 65536
    for change in operation.writes:
        assert isinstance(change, Change)
        assert operation.is_write and (len(change.values) == change.count or not change.exact)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_our_own_answers_answer(vector: Any) -> None:
    for fault in Fault:
        refusal = MODBUS.refusal(vector.request, Deny("c", "c/0", fault, "why"))
        assert MODBUS.mismatch(vector.request, refusal) == "" and MODBUS.is_error(refusal)
    for failure in Failure:
        answer = MODBUS.failure(vector.request, failure)
        assert MODBUS.mismatch(vector.request, answer) == "" and MODBUS.is_error(answer)
    assert not MODBUS.is_error(vector.response)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.FUNCTION, 1),
        (Fault.CONDUIT, 1),
        (Fault.WINDOW, 1),
        (Fault.ADDRESS, 2),
        (Fault.VALUE, 3),
        (Fault.STEP, 3),
        (Fault.RATE, 6),
        (Fault.UNIT, 0x0A),
        (Fault.SEVERED, 0x0A),
        (Fault.AUDIT, 4),
    ],
)
def test_refusals_in_the_words_of_the_standard(fault: Fault, code: int) -> None:
    refusal = MODBUS.refusal(m.WriteSingleRegister(1, 0, 0), Deny("c", "c/0", fault, ""))
    assert refusal == m.ExceptionResponse(6, code)


@pytest.mark.parametrize(
    ("failure", "code"),
    [(Failure.UNREACHABLE, 0x0A), (Failure.TIMEOUT, 0x0B), (Failure.BUSY, 6), (Failure.BAD_REPLY, 0x0B)],
)
def test_failures_in_the_words_of_the_standard(failure: Failure, code: int) -> None:
    assert MODBUS.failure(m.ReadCoils(1, 0, 1), failure) == m.ExceptionResponse(1, code)


@pytest.mark.parametrize(
    ("request_", "response", "values"),
    [
        (m.ReadCoils(1, 5, 2), m.ReadCoilsResponse((1, 0)), (("coil", 5, (1, 0)),)),
        (m.ReadDiscreteInputs(1, 5, 1), m.ReadDiscreteInputsResponse((1,)), (("discrete", 5, (1,)),)),
        (m.ReadHoldingRegisters(1, 5, 1), m.ReadHoldingRegistersResponse.of((9,)), (("holding", 5, (9,)),)),
        (m.ReadInputRegisters(1, 5, 1), m.ReadInputRegistersResponse.of((9,)), (("input", 5, (9,)),)),
        (m.ReadInputRegisters(1, 5, 1), m.ExceptionResponse(4, 2), ()),
        (
            m.ReadWriteMultipleRegisters(1, 3, 2, 9, (1,)),
            m.ReadWriteMultipleRegistersResponse.of((7, 8)),
            (("holding", 3, (7, 8)),),
        ),
        (
            m.ReadFileRecord(1, (m.FileRange(4, 1, 2), m.FileRange(3, 9, 1))),
            m.ReadFileRecordResponse(((1, 2), (3,))),
            (("file:4", 1, (1, 2)), ("file:3", 9, (3,))),
        ),
        (m.WriteSingleRegister(1, 0, 5), m.WriteSingleRegisterResponse(0, 5), ()),
        (m.ReadFifoQueue(1, 0), m.ReadFifoQueueResponse((1,)), ()),
    ],
)
def test_what_an_answer_teaches(request_: Any, response: Any, values: Any) -> None:
    assert MODBUS.values(request_, response) == values


# ---- read sharing ----


def test_what_may_be_shared() -> None:
    read = m.ReadHoldingRegisters(1, 0, 10)
    assert MODBUS.share_key(read) == MODBUS.share_key(m.ReadHoldingRegisters(1, 500, 1)) is not None
    assert MODBUS.share_key(read) != MODBUS.share_key(m.ReadHoldingRegisters(2, 0, 10))
    assert MODBUS.share_key(read) != MODBUS.share_key(m.ReadInputRegisters(1, 0, 10))
    for vector in VECTORS:
        if MODBUS.operation(vector.request).is_write or FUNCTION_OF[type(vector.request)] in (7, 8, 11, 12, 17, 24):
            assert MODBUS.share_key(vector.request) is None


wide = st.tuples(st.integers(0, 65000), st.integers(1, 125))


@given(wide, wide, st.sampled_from(["words", "bits"]))
@examples(300)
def test_a_slice_is_what_the_device_would_have_said(wider: tuple[int, int], narrow: tuple[int, int], kind: str) -> None:
    types: dict[str, tuple[Any, Any]] = {
        "words": (m.ReadHoldingRegisters, m.ReadHoldingRegistersResponse.of),
        "bits": (m.ReadCoils, m.ReadCoilsResponse),
    }
    request_type, response_type = types[kind]
    (start, count), (offset, length) = wider, narrow
    cells = {address: address % 2 for address in range(start, start + count)}
    asked = request_type(1, start + offset % 130, length)
    answer = MODBUS.slice(asked, request_type(1, start, count), response_type(tuple(cells.values())))
    if asked.address + asked.count <= start + count:
        assert answer == response_type(tuple(cells[asked.address + index] for index in range(length)))
    else:
        assert answer is None
    below = request_type(1, start - 1, 1) if start else None
    if below is not None:
        assert MODBUS.slice(below, request_type(1, start, count), response_type(tuple(cells.values()))) is None


def test_an_exception_is_shared_only_with_the_same_question() -> None:
    whole, part = m.ReadCoils(1, 0, 10), m.ReadCoils(1, 0, 5)
    refused = m.ExceptionResponse(1, 2)
    assert MODBUS.slice(whole, whole, refused) == refused
    assert MODBUS.slice(part, whole, refused) is None


def test_units_and_functions_are_not_mixed() -> None:
    answer = m.ReadCoilsResponse((1,) * 10)
    assert MODBUS.slice(m.ReadCoils(2, 0, 5), m.ReadCoils(1, 0, 10), answer) is None
    assert MODBUS.slice(m.ReadDiscreteInputs(1, 0, 5), m.ReadCoils(1, 0, 10), answer) is None


# ---- messages from a crossing ----

UNSOUND: list[tuple[Any, str]] = [
    (m.ReadCoils(1, 65535, 2), "beyond"),
    (m.ReadDiscreteInputs(1, 64000, 2000), "beyond"),
    (m.ReadHoldingRegisters(1, 65500, 125), "beyond"),
    (m.ReadInputRegisters(1, 65535, 2), "beyond"),
    (m.WriteMultipleCoils(1, 65535, (1, 1)), "beyond"),
    (m.WriteMultipleRegisters(1, 65535, (1, 1)), "beyond"),
    (m.ReadWriteMultipleRegisters(1, 65535, 2, 0, (1,)), "read address"),
    (m.ReadWriteMultipleRegisters(1, 0, 1, 65535, (1, 1)), "write address"),
    (m.Diagnostics(1, 11, (1,)), "takes 0x0000"),
    (m.Diagnostics(1, 11, (0, 0)), "one word"),
    (m.ReadFileRecord(1, (m.FileRange(1, 9999, 2),)), "beyond record"),
    (m.ReadFileRecord(1, (m.FileRange(1, 0, 121), m.FileRange(1, 0, 1))), "248 bytes"),
    (m.WriteFileRecord(1, (m.FileRecord(1, 9999, (1, 2)),)), "beyond record"),
    (m.WriteFileRecord(1, (m.FileRecord(1, 0, (0,) * 122), m.FileRecord(1, 0, (0,)))), "bytes of data"),
    (m.DiagnosticsResponse(11, (1, 2)), "one word"),
    (m.WriteMultipleCoilsResponse(65535, 2), "beyond"),
    (m.WriteMultipleRegistersResponse(65535, 2), "beyond"),
    (m.ReadHoldingRegistersResponse(b"\0\7\0"), "half a register"),
    (m.ReadInputRegistersResponse(b"\0\7\0"), "half a register"),
    (m.ReadWriteMultipleRegistersResponse(b"\0\7\0"), "half a register"),
    (m.ReadFileRecordResponse(((0,) * 121, (0,))), "248 bytes"),
    (m.WriteFileRecordResponse((m.FileRecord(1, 9999, (1, 2)),)), "beyond record"),
    (m.ReadDeviceIdentificationResponse(1, 1, 0, 0, (m.DeviceObject(0, bytes(244)), m.DeviceObject(1, b""))), "248"),
    (m.ReadDeviceIdentificationResponse(1, 1, 0, 5, ()), "nothing follows"),
]


@pytest.mark.parametrize(("message", "word"), UNSOUND, ids=[repr(case[0])[:60] for case in UNSOUND])
def test_rules_between_fields(message: Any, word: str) -> None:
    union: Any = m.ModbusRequest if type(message) in FUNCTION_OF else m.ModbusResponse
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=union) == message
    with pytest.raises(CrossingError, match=word):
        MODBUS.check(message)


OUT_OF_RANGE: list[Any] = [
    [3, 256, 0, 1],
    [3, -1, 0, 1],
    [3, 1, 65536, 1],
    [3, 1, 0, 0],
    [3, 1, 0, 126],
    [1, 1, 0, 2001],
    [5, 1, 0, 2],
    [6, 1, 0, 65536],
    [6, 1, 0, 1.0],
    [6, 1, 0, "1"],
    [6, 1, 0, True],
    [8, 1, 5, [0]],
    [8, 1, 0, []],
    [15, 1, 0, []],
    [15, 1, 0, [2]],
    [15, 1, 0, [0] * 1969],
    [16, 1, 0, [65536]],
    [16, 1, 0, [0] * 124],
    [20, 1, []],
    [20, 1, [[0, 0, 1]]],
    [20, 1, [[1, 10000, 1]]],
    [20, 1, [[1, 0, 122]]],
    [21, 1, [[1, 0, []]]],
    [22, 1, 0, 0],
    [23, 1, 0, 1, 0, [0] * 122],
    [4313, 1, bytes(252)],
    [4314, 1, 5, 0],
    [4314, 1, 0, 0],
    [3, 1, 0, 1, 0],
    [3, 1, 0],
    [9, 1],
    [1003, [1]],
    [],
]


@pytest.mark.parametrize("wire", OUT_OF_RANGE, ids=lambda wire: repr(wire)[:40])
def test_ranges_are_held_by_the_types(wire: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(wire), type=m.ModbusRequest)


def test_a_mismatch_is_named() -> None:
    request = m.ReadHoldingRegisters(1, 0, 2)
    assert "content" in MODBUS.mismatch(request, m.ReadHoldingRegistersResponse.of((1,)))
    assert "ReadCoilsResponse" in MODBUS.mismatch(request, m.ReadCoilsResponse((1, 1)))
    assert "function 4" in MODBUS.mismatch(request, m.ExceptionResponse(4, 1))
