"""What Modbus messages mean: as operations for policy, as answers for what policy or the asset did not allow.

Spaces of cells: "coil" and "discrete" (bits), "holding" and "input" (registers), "fifo" (the queue that a register
points to), "file:N" (the records of file N).

Not here: bytes (requests, responses), verdicts (policy).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from msgspec import structs

from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.model import Change, Deny, Failure, Fault, Item, Operation, Span
from cofferdam.protocols.base import ClientMachine, Facing, Protocol
from cofferdam.protocols.modbus import requests, responses
from cofferdam.protocols.modbus.dialect import MODBUS
from cofferdam.protocols.modbus.framings import Renamed, client
from cofferdam.protocols.modbus.machine import Meanings, ModbusClient, ModbusServer
from cofferdam.protocols.modbus.messages import (
    BUSY,
    CELLS,
    DIAGNOSTICS_READS,
    FUNCTIONS,
    GATEWAY_NO_PATH,
    GATEWAY_NO_RESPONSE,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    MAX_FILE_READ_BYTES,
    MAX_FILE_WRITE_BYTES,
    MEI_CANOPEN,
    MEI_IDENTIFICATION,
    SERVER_FAILURE,
    CanopenReference,
    CanopenReferenceResponse,
    DeviceObject,
    Diagnostics,
    DiagnosticsResponse,
    ExceptionCode,
    ExceptionResponse,
    GetCommEventCounter,
    GetCommEventCounterResponse,
    GetCommEventLog,
    GetCommEventLogResponse,
    MaskWriteRegister,
    MaskWriteRegisterResponse,
    ModbusRequest,
    ModbusResponse,
    ReadCoils,
    ReadCoilsResponse,
    ReadDeviceIdentification,
    ReadDeviceIdentificationResponse,
    ReadDiscreteInputs,
    ReadDiscreteInputsResponse,
    ReadExceptionStatus,
    ReadExceptionStatusResponse,
    ReadFifoQueue,
    ReadFifoQueueResponse,
    ReadFileRecord,
    ReadFileRecordResponse,
    ReadHoldingRegisters,
    ReadHoldingRegistersResponse,
    ReadInputRegisters,
    ReadInputRegistersResponse,
    ReadWriteMultipleRegisters,
    ReadWriteMultipleRegistersResponse,
    ReportServerId,
    ReportServerIdResponse,
    VendorRead,
    VendorResponse,
    VendorWrite,
    WriteFileRecord,
    WriteFileRecordResponse,
    WriteMultipleCoils,
    WriteMultipleCoilsResponse,
    WriteMultipleRegisters,
    WriteMultipleRegistersResponse,
    WriteSingleCoil,
    WriteSingleCoilResponse,
    WriteSingleRegister,
    WriteSingleRegisterResponse,
)
from cofferdam.protocols.modbus.view import ModbusView

Values = tuple[tuple[str, int, tuple[int, ...]], ...]

# ---- requests as operations ----


def _read(function: int, space: str) -> Callable[[Any], Operation]:
    def operation(request: Any) -> Operation:
        return Operation(function, -1, request.unit, False, (Span(space, request.address, request.count),))

    return operation


def _write_one(function: int, space: str) -> Callable[[Any], Operation]:
    def operation(request: Any) -> Operation:
        change = Change(space, request.address, 1, (request.value,))
        return Operation(function, -1, request.unit, True, (), (change,))

    return operation


def _write_many(function: int, space: str) -> Callable[[Any], Operation]:
    def operation(request: Any) -> Operation:
        change = Change(space, request.address, len(request.values), request.values)
        return Operation(function, -1, request.unit, True, (), (change,))

    return operation


def _by_function(function: int) -> Callable[[Any], Operation]:
    """Functions that touch no cells: policy judges them by their number."""

    def operation(request: Any) -> Operation:
        return Operation(function, -1, request.unit, False)

    return operation


def _diagnostics(request: Diagnostics) -> Operation:
    return Operation(8, request.sub, request.unit, request.sub not in DIAGNOSTICS_READS)


def _read_file(request: ReadFileRecord) -> Operation:
    spans = tuple(Span(f"file:{group.file}", group.record, group.count) for group in request.records)
    return Operation(20, -1, request.unit, False, spans)


def _write_file(request: WriteFileRecord) -> Operation:
    changes = tuple(
        Change(f"file:{group.file}", group.record, len(group.values), group.values) for group in request.records
    )
    return Operation(21, -1, request.unit, True, (), changes)


def _mask_write(request: MaskWriteRegister) -> Operation:
    # What the register becomes depends on what it holds, so no limit on values can be checked.
    change = Change("holding", request.address, 1, (request.and_mask, request.or_mask), False)
    return Operation(22, -1, request.unit, True, (), (change,))


def _read_write(request: ReadWriteMultipleRegisters) -> Operation:
    return Operation(
        23, -1, request.unit, True,
        (Span("holding", request.read_address, request.read_count),),
        (Change("holding", request.write_address, len(request.values), request.values),),
    )  # fmt: skip


def _read_fifo(request: ReadFifoQueue) -> Operation:
    return Operation(24, -1, request.unit, False, (Span("fifo", request.address, 1),))


def _canopen(request: CanopenReference) -> Operation:
    # The bytes may be anything CANopen knows, restarting a node included, so this counts as a write.
    return Operation(43, MEI_CANOPEN, request.unit, True)


def _vendor_read(request: VendorRead) -> Operation:
    return Operation(request.function, -1, request.unit, False)


def _vendor_write(request: VendorWrite) -> Operation:
    return Operation(request.function, -1, request.unit, True, body=request.data)


def _identification(request: ReadDeviceIdentification) -> Operation:
    return Operation(43, MEI_IDENTIFICATION, request.unit, False)


OPERATIONS: Final[dict[type, Callable[[Any], Operation]]] = {
    ReadCoils: _read(1, "coil"),
    ReadDiscreteInputs: _read(2, "discrete"),
    ReadHoldingRegisters: _read(3, "holding"),
    ReadInputRegisters: _read(4, "input"),
    WriteSingleCoil: _write_one(5, "coil"),
    WriteSingleRegister: _write_one(6, "holding"),
    ReadExceptionStatus: _by_function(7),
    Diagnostics: _diagnostics,
    GetCommEventCounter: _by_function(11),
    GetCommEventLog: _by_function(12),
    WriteMultipleCoils: _write_many(15, "coil"),
    WriteMultipleRegisters: _write_many(16, "holding"),
    ReportServerId: _by_function(17),
    ReadFileRecord: _read_file,
    WriteFileRecord: _write_file,
    MaskWriteRegister: _mask_write,
    ReadWriteMultipleRegisters: _read_write,
    ReadFifoQueue: _read_fifo,
    CanopenReference: _canopen,
    ReadDeviceIdentification: _identification,
    VendorRead: _vendor_read,
    VendorWrite: _vendor_write,
}
"""By the type of the request."""

# ---- rules between fields, for messages that came over a crossing ----


def _beyond(space: str, address: int, count: int) -> str:
    return f"{space} {address} + {count} is beyond {CELLS} cells" if address + count > CELLS else ""


def _check_count(message: Any) -> str:
    return _beyond("address", message.address, message.count)


def _check_values(message: Any) -> str:
    return _beyond("address", message.address, len(message.values))


def _check_diagnostics(message: Any) -> str:
    return requests.diagnostics_fault(message.sub, message.data)


def _check_diagnostics_response(message: Any) -> str:
    return f"sub-function {message.sub} answers one word" if message.sub and len(message.data) != 1 else ""


def _check_read_file(message: ReadFileRecord) -> str:
    size = 0
    for group in message.records:
        fault = requests.file_fault(group.file, group.record, group.count)
        if fault:
            return fault
        size += 2 + 2 * group.count
    return f"the answer would have {size} bytes" if size > MAX_FILE_READ_BYTES else ""


def _check_read_file_response(message: ReadFileRecordResponse) -> str:
    size = sum(2 + 2 * len(words) for words in message.records)
    return f"{size} bytes of data" if size > MAX_FILE_READ_BYTES else ""


def _check_write_file(message: WriteFileRecord | WriteFileRecordResponse) -> str:
    size = 0
    for group in message.records:
        fault = requests.file_fault(group.file, group.record, len(group.values))
        if fault:
            return fault
        size += 7 + 2 * len(group.values)
    return f"{size} bytes of data" if size > MAX_FILE_WRITE_BYTES else ""


def _check_read_write(message: ReadWriteMultipleRegisters) -> str:
    return _beyond("read address", message.read_address, message.read_count) or _beyond(
        "write address", message.write_address, len(message.values)
    )


def _check_registers(message: Any) -> str:
    return "half a register" if len(message.words) & 1 else ""


def _check_identification(message: ReadDeviceIdentificationResponse) -> str:
    size = sum(2 + len(item.value) for item in message.objects)
    if size > 246:
        return f"{size} bytes of objects"
    return "" if message.more or not message.next_object_id else "nothing follows, yet there is a next object"


def _check_vendor(message: VendorRead | VendorWrite | VendorResponse) -> str:
    # A public function as opaque bytes would be one that nobody has understood.
    return f"function {message.function} is public" if message.function in FUNCTIONS else ""


_CHECKS: dict[type, Callable[[Any], str]] = {
    ReadCoils: _check_count,
    ReadDiscreteInputs: _check_count,
    ReadHoldingRegisters: _check_count,
    ReadInputRegisters: _check_count,
    Diagnostics: _check_diagnostics,
    WriteMultipleCoils: _check_values,
    WriteMultipleRegisters: _check_values,
    ReadFileRecord: _check_read_file,
    WriteFileRecord: _check_write_file,
    ReadWriteMultipleRegisters: _check_read_write,
    DiagnosticsResponse: _check_diagnostics_response,
    ReadHoldingRegistersResponse: _check_registers,
    ReadInputRegistersResponse: _check_registers,
    ReadWriteMultipleRegistersResponse: _check_registers,
    WriteMultipleCoilsResponse: _check_count,
    WriteMultipleRegistersResponse: _check_count,
    ReadFileRecordResponse: _check_read_file_response,
    WriteFileRecordResponse: _check_write_file,
    ReadDeviceIdentificationResponse: _check_identification,
    VendorRead: _check_vendor,
    VendorWrite: _check_vendor,
    VendorResponse: _check_vendor,
}
"""Types that are not here have no rule between their fields."""

# ---- which response answers which request ----


def _same_count(request: Any, response: Any) -> bool:
    return bool(request.count == len(response.values))


def _same_words(request: Any, response: Any) -> bool:
    return bool(request.count << 1 == len(response.words))


def _same_value(request: Any, response: Any) -> bool:
    return bool(request.address == response.address and request.value == response.value)


def _same_span(request: Any, response: Any) -> bool:
    return bool(request.address == response.address and len(request.values) == response.count)


def _same_diagnostics(request: Any, response: Any) -> bool:
    if request.sub != response.sub or len(request.data) != len(response.data):
        return False
    return request.sub not in responses.ECHO_DIAGNOSTICS or bool(request.data == response.data)


def _same_groups(request: Any, response: Any) -> bool:
    return [group.count for group in request.records] == [len(words) for words in response.records]


def _same_mask(request: Any, response: Any) -> bool:
    return bool(
        request.address == response.address
        and request.and_mask == response.and_mask
        and request.or_mask == response.or_mask
    )


def _same_identification(request: Any, response: Any) -> bool:
    if request.code != response.code:
        return False
    if request.code != 4:
        return True
    return not response.more and [item.id for item in response.objects] == [request.object_id]


def _same_function(request: Any, response: Any) -> bool:
    return bool(request.function == response.function)


def _always(request: Any, response: Any) -> bool:
    return True


_ANSWERS: dict[type, tuple[type, Callable[[Any, Any], bool]]] = {
    ReadCoils: (ReadCoilsResponse, _same_count),
    ReadDiscreteInputs: (ReadDiscreteInputsResponse, _same_count),
    ReadHoldingRegisters: (ReadHoldingRegistersResponse, _same_words),
    ReadInputRegisters: (ReadInputRegistersResponse, _same_words),
    WriteSingleCoil: (WriteSingleCoilResponse, _same_value),
    WriteSingleRegister: (WriteSingleRegisterResponse, _same_value),
    ReadExceptionStatus: (ReadExceptionStatusResponse, _always),
    Diagnostics: (DiagnosticsResponse, _same_diagnostics),
    GetCommEventCounter: (GetCommEventCounterResponse, _always),
    GetCommEventLog: (GetCommEventLogResponse, _always),
    WriteMultipleCoils: (WriteMultipleCoilsResponse, _same_span),
    WriteMultipleRegisters: (WriteMultipleRegistersResponse, _same_span),
    ReportServerId: (ReportServerIdResponse, _always),
    ReadFileRecord: (ReadFileRecordResponse, _same_groups),
    WriteFileRecord: (WriteFileRecordResponse, lambda request, response: bool(request.records == response.records)),
    MaskWriteRegister: (MaskWriteRegisterResponse, _same_mask),
    ReadWriteMultipleRegisters: (
        ReadWriteMultipleRegistersResponse,
        lambda request, response: bool(request.read_count << 1 == len(response.words)),
    ),
    ReadFifoQueue: (ReadFifoQueueResponse, _always),
    CanopenReference: (CanopenReferenceResponse, _always),
    ReadDeviceIdentification: (ReadDeviceIdentificationResponse, _same_identification),
    VendorRead: (VendorResponse, _same_function),
    VendorWrite: (VendorResponse, _same_function),
}

# ---- our own answers ----

REFUSALS: Final[dict[Fault, ExceptionCode]] = {
    Fault.CONDUIT: ILLEGAL_FUNCTION,
    Fault.PRINCIPAL: ILLEGAL_FUNCTION,
    Fault.ASSET: ILLEGAL_FUNCTION,
    Fault.UNIT: GATEWAY_NO_PATH,
    Fault.FUNCTION: ILLEGAL_FUNCTION,
    Fault.ADDRESS: ILLEGAL_ADDRESS,
    Fault.VALUE: ILLEGAL_VALUE,
    Fault.STEP: ILLEGAL_VALUE,
    Fault.RATE: BUSY,
    Fault.WINDOW: ILLEGAL_FUNCTION,
    Fault.EXPIRED: ILLEGAL_FUNCTION,
    Fault.TAKEN: GATEWAY_NO_PATH,
    Fault.SEVERED: GATEWAY_NO_PATH,
    Fault.AUDIT: SERVER_FAILURE,
}
"""The exception code for what policy denies (section 7): 01 what is not allowed at all (now), 02 where, 03 with this
value, 06 not so often, 0A no way to that unit, 04 our own fault."""

FAILURES: Final[dict[Failure, ExceptionCode]] = {
    Failure.UNREACHABLE: GATEWAY_NO_PATH,
    Failure.TIMEOUT: GATEWAY_NO_RESPONSE,
    Failure.BUSY: BUSY,
    Failure.BAD_REPLY: GATEWAY_NO_RESPONSE,
}
"""The exception code for what the asset did not answer."""

_SPACES: dict[type, str] = {
    ReadCoils: "coil",
    ReadDiscreteInputs: "discrete",
    ReadHoldingRegisters: "holding",
    ReadInputRegisters: "input",
}

_READS: dict[str, tuple[Callable[[int, int, int], ModbusRequest], int]] = {
    "coil": (ReadCoils, 2000),
    "discrete": (ReadDiscreteInputs, 2000),
    "holding": (ReadHoldingRegisters, 125),
    "input": (ReadInputRegisters, 125),
}
"""By space: the plain read, and how many cells it can ask for (sections 6.1 to 6.4)."""


_PRINTABLE = bytes(range(0x20, 0x7F))
_SHOWN = bytes(byte if byte in _PRINTABLE else 0x3F for byte in range(256))
_IDENTITY = {0: "vendor", 1: "product", 2: "revision"}
"""Objects of the identification that stay as long as the device and its firmware do."""


class Modbus(Protocol[ModbusRequest, ModbusResponse]):
    """Modbus TCP, as `registry.PROTOCOLS` names it. See `base.Protocol` for the methods' contracts."""

    dialect = MODBUS
    request_type = ModbusRequest
    response_type = ModbusResponse
    functions = FUNCTIONS
    view = ModbusView()
    identifies = frozenset({ReadDeviceIdentificationResponse})

    def __init__(self) -> None:
        self._meanings = Meanings()

    def server(self, *, midway: bool = False) -> ModbusServer:
        return ModbusServer(self._meanings)

    def server_facing(self, facing: Facing) -> ModbusServer:
        machine = self.server()
        machine.take_asset(facing.asset)
        return machine

    def client(
        self, *, quirks: frozenset[str] = frozenset(), outstanding: int = 1, midway: bool = False
    ) -> ModbusClient:
        return client(quirks, outstanding, self._meanings)

    def as_units(
        self, machine: ClientMachine[ModbusRequest, ModbusResponse], units: Mapping[int, int]
    ) -> ClientMachine[ModbusRequest, ModbusResponse]:
        return Renamed(machine, units)

    def check(self, message: ModbusRequest | ModbusResponse) -> None:
        rule = _CHECKS.get(type(message))
        if rule is not None:
            fault = rule(message)
            if fault:
                raise CrossingError(f"{type(message).__name__}: {fault}")

    def mismatch(self, request: ModbusRequest, response: ModbusResponse) -> str:
        expected, same = _ANSWERS[type(request)]
        if type(response) is expected:
            return "" if same(request, response) else f"{expected.__name__} does not fit the request's content"
        if type(response) is ExceptionResponse:
            function = requests.function_of(request)
            if response.function == function:
                return ""
            return f"an exception response for function {response.function}, the request has {function}"
        return f"{type(response).__name__} does not answer {type(request).__name__}"

    rows = frozenset({ReadHoldingRegistersResponse, ReadInputRegistersResponse})
    repeats = True

    def spelled(self, request: ModbusRequest, row: bytes) -> ModbusResponse:
        if type(request) is ReadHoldingRegisters:
            return ReadHoldingRegistersResponse(row)
        if type(request) is ReadInputRegisters:
            return ReadInputRegistersResponse(row)
        raise CrossingError(f"a row of values as the answer to {type(request).__name__}")

    def operation(self, request: ModbusRequest) -> Operation:
        return OPERATIONS[type(request)](request)

    def refusal(self, request: ModbusRequest, deny: Deny) -> ExceptionResponse:
        return ExceptionResponse(requests.function_of(request), REFUSALS[deny.fault])

    def failure(self, request: ModbusRequest, failure: Failure) -> ExceptionResponse:
        return ExceptionResponse(requests.function_of(request), FAILURES[failure])

    def is_error(self, response: ModbusResponse) -> bool:
        return type(response) is ExceptionResponse

    def identity(self, response: ModbusResponse) -> dict[str, str]:
        """Vendor, product and revision, as far as the answer to a read of the identification has them (6.21)."""
        if not isinstance(response, ReadDeviceIdentificationResponse):
            return {}
        return {
            _IDENTITY[one.id]: one.value[:64].decode("ascii", "backslashreplace")
            for one in response.objects
            if one.id in _IDENTITY
        }

    unreached = frozenset({GATEWAY_NO_RESPONSE})

    def error_code(self, response: ModbusResponse) -> int:
        return response.code if isinstance(response, ExceptionResponse) else 0

    def legible(self, response: ModbusResponse) -> ModbusResponse:
        """Objects below 0x80 are text (6.21, basic and regular); what is no printable ASCII in them becomes "?"."""
        if not isinstance(response, ReadDeviceIdentificationResponse):
            return response
        if all(one.id >= 0x80 or not one.value.translate(None, _PRINTABLE) for one in response.objects):
            return response
        objects = tuple(
            one if one.id >= 0x80 else DeviceObject(one.id, one.value.translate(_SHOWN)) for one in response.objects
        )
        return structs.replace(response, objects=objects)

    def read_request(self, unit: int, place: Span | Item) -> ModbusRequest:
        span = place
        kind, most = _READS.get(span.space, (None, 0))
        if kind is None or not 1 <= span.count <= most or span.stop > CELLS:
            raise LocalProtocolError(f"no plain read asks for {span.count} cells of {span.space} from {span.start}")
        return kind(unit, span.start, span.count)

    def bits_request(self, request: ModbusRequest, change: Change, held: int) -> ModbusRequest:
        """See Protocol. Function 22 (6.16), or function 6 with what the register is to hold."""
        if not isinstance(request, (WriteSingleRegister, WriteMultipleRegisters, MaskWriteRegister)):
            raise LocalProtocolError(f"{type(request).__name__} does not write one register")
        and_mask, or_mask = change.values
        if held < 0:
            return MaskWriteRegister(request.unit, change.start, and_mask, or_mask)
        return WriteSingleRegister(request.unit, change.start, (held & and_mask) | (or_mask & ~and_mask))

    def in_place(self, request: ModbusRequest, response: ModbusResponse) -> ModbusResponse:
        """See Protocol."""
        if isinstance(response, ExceptionResponse):
            return ExceptionResponse(requests.function_of(request), response.code)
        if isinstance(request, WriteSingleRegister):
            return WriteSingleRegisterResponse(request.address, request.value)
        if isinstance(request, WriteMultipleRegisters):
            return WriteMultipleRegistersResponse(request.address, len(request.values))
        if isinstance(request, MaskWriteRegister):
            return MaskWriteRegisterResponse(request.address, request.and_mask, request.or_mask)
        raise LocalProtocolError(f"{type(request).__name__} does not write one register")

    def values(self, request: ModbusRequest, response: ModbusResponse) -> Values:
        kind = type(request)
        space = _SPACES.get(kind)
        if space is not None:
            # One attribute for all four, and only one of their answers: an exception response has no values.
            cells: tuple[int, ...] | None = getattr(response, "values", None)
            return () if cells is None else ((space, request.address, cells),)  # type: ignore[union-attr]
        if isinstance(request, ReadWriteMultipleRegisters) and isinstance(response, ReadWriteMultipleRegistersResponse):
            return (("holding", request.read_address, response.values),)
        if isinstance(request, ReadFileRecord) and isinstance(response, ReadFileRecordResponse):
            return tuple(
                (f"file:{group.file}", group.record, words)
                for group, words in zip(request.records, response.records, strict=True)
            )
        return ()

    def share_key(self, request: ModbusRequest) -> Hashable | None:
        kind = type(request)
        if kind in _SPACES:
            return requests.FUNCTION_OF[kind] << 8 | request.unit
        # Reads that can be shared only whole. A queue or an event log is different at each look.
        return request if kind is ReadFileRecord or kind is ReadDeviceIdentification else None

    def slice(
        self, request: ModbusRequest, wider_request: ModbusRequest, wider_response: ModbusResponse
    ) -> ModbusResponse | None:
        if request == wider_request:
            return wider_response
        kind = type(request)
        if kind is not type(wider_request) or kind not in _SPACES or request.unit != wider_request.unit:
            return None
        if type(wider_response) is ExceptionResponse:
            return None
        asked: Any = request
        wider: Any = wider_request
        skip = asked.address - wider.address
        if skip < 0 or skip + asked.count > wider.count:
            return None
        full: Any = wider_response
        part: ModbusResponse
        if kind is ReadHoldingRegisters or kind is ReadInputRegisters:
            part = type(full)(full.words[skip << 1 : skip + asked.count << 1])
        else:
            part = type(full)(full.values[skip : skip + asked.count])
        return part
