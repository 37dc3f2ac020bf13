"""Response PDUs: decoded by the client machine, encoded by the server machine.

A response is decoded against the request that it answers: byte count, quantity, echo of address and value must be
what that request makes them, else it is a misfit. So there is no decoder here that takes a response alone.

Not here: requests (requests), framing (wire), state (machine).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Any, Final, cast

from cofferdam.protocols.modbus.messages import (
    MAX_FIFO_WORDS,
    MAX_READ_BITS,
    MAX_READ_WORDS,
    MEI_CANOPEN,
    MEI_IDENTIFICATION,
    CanopenReference,
    CanopenReferenceResponse,
    Conformity,
    DeviceObject,
    Diagnostics,
    DiagnosticsResponse,
    ExceptionResponse,
    GetCommEventCounter,
    GetCommEventCounterResponse,
    GetCommEventLog,
    GetCommEventLogResponse,
    MaskWriteRegister,
    MaskWriteRegisterResponse,
    ModbusRequest,
    ModbusResponse,
    More,
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
from cofferdam.protocols.modbus.requests import decode_file_records, encode_file_records, frame, function_of
from cofferdam.protocols.modbus.wire import (
    EXCEPTION_SECTION,
    HH,
    HHH,
    MAX_ADU,
    PDU_SECTION,
    WORDS,
    H,
    Misfit,
    misfit,
    pack_bits,
    unencodable,
    unpack_bits,
)

Decoder = Callable[[bytes, int, int, Any], ModbusResponse]
"""(buffer, first byte after the function code, first byte after the PDU, request) -> message; raises Misfit."""

ECHO_DIAGNOSTICS: Final = frozenset({0, 1, 3, 4, 10, 20})
"""Diagnostics sub-functions whose response is the echo of the request (6.8.1)."""


# ---- decoding ----


def _size(section: str, function: int, expected: int, got: int) -> None:
    misfit(section, f"function {function}: {expected} bytes after the function code expected, {got} found")


def _byte_count(section: str, function: int, expected: int, got: int) -> None:
    misfit(section, f"function {function}: byte count {got}, the request makes it {expected}")


def _words_reader(kind: Callable[[bytes], ModbusResponse], function: int) -> Decoder:
    """Functions 3 and 4."""
    section = f"6.{function}"

    def decode(data: bytes, at: int, end: int, request: Any) -> ModbusResponse:
        count: int = request.count
        size = count << 1
        if end - at != size + 1:
            _size(section, function, size + 1, end - at)
        if data[at] != size:
            _byte_count(section, function, size, data[at])
        return kind(data[at + 1 : end])

    return decode


def _bits_reader(kind: Callable[[tuple[int, ...]], ModbusResponse], function: int) -> Decoder:
    """Functions 1 and 2."""
    section = f"6.{function}"

    def decode(data: bytes, at: int, end: int, request: Any) -> ModbusResponse:
        count: int = request.count
        size = (count + 7) >> 3
        if end - at != size + 1:
            _size(section, function, size + 1, end - at)
        if data[at] != size:
            _byte_count(section, function, size, data[at])
        return kind(unpack_bits(data[at + 1 : end], count))

    return decode


def _write_single_coil(data: bytes, at: int, end: int, request: WriteSingleCoil) -> ModbusResponse:
    if end - at != 4:
        _size("6.5", 5, 4, end - at)
    address, value = HH.unpack_from(data, at)
    if address != request.address or value != (0xFF00 if request.value else 0):
        misfit("6.5", f"function 5: address {address} value {value:#06x} is no echo of the request")
    return WriteSingleCoilResponse(address, request.value)


def _write_single_register(data: bytes, at: int, end: int, request: WriteSingleRegister) -> ModbusResponse:
    if end - at != 4:
        _size("6.6", 6, 4, end - at)
    address, value = HH.unpack_from(data, at)
    if address != request.address or value != request.value:
        misfit("6.6", f"function 6: address {address} value {value} is no echo of the request")
    return WriteSingleRegisterResponse(address, value)


def _read_exception_status(data: bytes, at: int, end: int, request: ReadExceptionStatus) -> ModbusResponse:
    if end - at != 1:
        _size("6.7", 7, 1, end - at)
    return ReadExceptionStatusResponse(data[at])


def _diagnostics(data: bytes, at: int, end: int, request: Diagnostics) -> ModbusResponse:
    size = 2 + 2 * len(request.data)
    if end - at != size:
        _size("6.8", 8, size, end - at)
    (sub,) = H.unpack_from(data, at)
    words = WORDS[len(request.data)].unpack_from(data, at + 2)
    if sub != request.sub:
        misfit("6.8", f"function 8: sub-function {sub}, the request has {request.sub}")
    if sub in ECHO_DIAGNOSTICS and words != request.data:
        misfit("6.8.1", f"function 8: the data of sub-function {sub} is no echo of the request")
    return DiagnosticsResponse(request.sub, words)


def _event_counter(data: bytes, at: int, end: int, request: GetCommEventCounter) -> ModbusResponse:
    if end - at != 4:
        _size("6.9", 11, 4, end - at)
    status, events = HH.unpack_from(data, at)
    if status not in (0, 0xFFFF):
        misfit("6.9", f"function 11: status {status:#06x}, must be 0x0000 or 0xffff")
    return GetCommEventCounterResponse(status, events)


def _event_log(data: bytes, at: int, end: int, request: GetCommEventLog) -> ModbusResponse:
    size = end - at
    if not 7 <= size <= 71:
        misfit("6.10", f"function 12: 7 to 71 bytes after the function code expected, {size} found")
    if data[at] != size - 1:
        misfit("6.10", f"function 12: byte count {data[at]}, {size - 1} bytes follow")
    status, events, messages = HHH.unpack_from(data, at + 1)
    if status not in (0, 0xFFFF):
        misfit("6.10", f"function 12: status {status:#06x}, must be 0x0000 or 0xffff")
    return GetCommEventLogResponse(status, events, messages, data[at + 7 : end])


def _write_multiple_coils(data: bytes, at: int, end: int, request: WriteMultipleCoils) -> ModbusResponse:
    if end - at != 4:
        _size("6.11", 15, 4, end - at)
    address, count = HH.unpack_from(data, at)
    if address != request.address or count != len(request.values):
        misfit("6.11", f"function 15: address {address} quantity {count} is no echo of the request")
    return WriteMultipleCoilsResponse(address, count)


def _write_multiple_registers(data: bytes, at: int, end: int, request: WriteMultipleRegisters) -> ModbusResponse:
    if end - at != 4:
        _size("6.12", 16, 4, end - at)
    address, count = HH.unpack_from(data, at)
    if address != request.address or count != len(request.values):
        misfit("6.12", f"function 16: address {address} quantity {count} is no echo of the request")
    return WriteMultipleRegistersResponse(address, count)


def _report_server_id(data: bytes, at: int, end: int, request: ReportServerId) -> ModbusResponse:
    size = end - at
    if size < 2 or data[at] != size - 1:
        misfit("6.13", f"function 17: byte count and data do not fit in {size} bytes after the function code")
    return ReportServerIdResponse(data[at + 1 : end])


def _read_file_record(data: bytes, at: int, end: int, request: ReadFileRecord) -> ModbusResponse:
    size = 1 + sum(2 + 2 * group.count for group in request.records)
    if end - at != size:
        _size("6.14", 20, size, end - at)
    if data[at] != size - 1:
        _byte_count("6.14", 20, size - 1, data[at])
    at += 1
    records = []
    for group in request.records:
        length = 1 + 2 * group.count
        if data[at] != length:
            misfit("6.14", f"function 20: a group of {data[at]} bytes, the request makes it {length}")
        if data[at + 1] != 6:
            misfit("6.14", f"function 20: reference type {data[at + 1]}, must be 6")
        records.append(WORDS[group.count].unpack_from(data, at + 2))
        at += 1 + length
    return ReadFileRecordResponse(tuple(records))


def _write_file_record(data: bytes, at: int, end: int, request: WriteFileRecord) -> ModbusResponse:
    if end == at or data[at] != end - at - 1:
        misfit("6.15", f"function 21: the byte count does not fit in {end - at} bytes after the function code")
    records = decode_file_records(data, at + 1, end)
    if records != request.records:
        misfit("6.15", "function 21: the response is no echo of the request")
    return WriteFileRecordResponse(request.records)


def _mask_write_register(data: bytes, at: int, end: int, request: MaskWriteRegister) -> ModbusResponse:
    if end - at != 6:
        _size("6.16", 22, 6, end - at)
    address, and_mask, or_mask = HHH.unpack_from(data, at)
    if address != request.address or and_mask != request.and_mask or or_mask != request.or_mask:
        misfit("6.16", f"function 22: address {address} masks {and_mask:#06x} {or_mask:#06x} is no echo of the request")
    return MaskWriteRegisterResponse(address, and_mask, or_mask)


def _read_write(data: bytes, at: int, end: int, request: ReadWriteMultipleRegisters) -> ModbusResponse:
    size = request.read_count << 1
    if end - at != size + 1:
        _size("6.17", 23, size + 1, end - at)
    if data[at] != size:
        _byte_count("6.17", 23, size, data[at])
    return ReadWriteMultipleRegistersResponse(data[at + 1 : end])


def _read_fifo_queue(data: bytes, at: int, end: int, request: ReadFifoQueue) -> ModbusResponse:
    size = end - at
    if size < 4:
        misfit("6.18", f"function 24: at least 4 bytes after the function code expected, {size} found")
    length, count = HH.unpack_from(data, at)
    if count > MAX_FIFO_WORDS:
        misfit("6.18", f"function 24: fifo count {count}, must be at most {MAX_FIFO_WORDS}")
    if length != 2 + 2 * count or size != 2 + length:
        misfit("6.18", f"function 24: byte count {length} for {count} registers in {size} bytes")
    return ReadFifoQueueResponse(WORDS[count].unpack_from(data, at + 4))


def _canopen(data: bytes, at: int, end: int, request: CanopenReference) -> ModbusResponse:
    if end == at or data[at] != MEI_CANOPEN:
        misfit("6.20", "function 43/13: the response has another MEI type or none")
    return CanopenReferenceResponse(data[at + 1 : end])


def _identification(data: bytes, at: int, end: int, request: ReadDeviceIdentification) -> ModbusResponse:
    if end - at < 6:
        misfit("6.21", f"function 43/14: at least 6 bytes after the function code expected, {end - at} found")
    mei, code, conformity, more, following, count = data[at : at + 6]
    if mei != MEI_IDENTIFICATION or code != request.code:
        misfit("6.21", f"function 43/14: MEI type {mei} and read device id code {code} are no echo of the request")
    if conformity not in (1, 2, 3, 0x81, 0x82, 0x83):
        misfit("6.21", f"function 43/14: conformity level {conformity:#04x} is not defined")
    if more not in (0, 0xFF):
        misfit("6.21", f"function 43/14: more follows {more:#04x}, must be 0x00 or 0xff")
    if not more and following:
        misfit("6.21", f"function 43/14: nothing follows, yet the next object id is {following}")
    at += 6
    objects = []
    for _ in range(count):
        if end - at < 2 or end - at < 2 + data[at + 1]:
            misfit("6.21", f"function 43/14: {count} objects do not fit in the response")
        size = data[at + 1]
        objects.append(DeviceObject(data[at], data[at + 2 : at + 2 + size]))
        at += 2 + size
    if at != end:
        misfit("6.21", f"function 43/14: {end - at} bytes are left over after {count} objects")
    if code == 4 and (more or len(objects) != 1 or objects[0].id != request.object_id):
        misfit("6.21", f"function 43/14: the response is not the one object {request.object_id} that was asked for")
    return ReadDeviceIdentificationResponse(
        code, cast(Conformity, conformity), cast(More, more), following, tuple(objects)
    )


def _vendor(data: bytes, at: int, end: int, request: VendorRead | VendorWrite) -> ModbusResponse:
    return VendorResponse(request.function, data[at:end])


DECODERS: Final[dict[type, Decoder]] = {
    ReadCoils: _bits_reader(ReadCoilsResponse, 1),
    ReadDiscreteInputs: _bits_reader(ReadDiscreteInputsResponse, 2),
    ReadHoldingRegisters: _words_reader(ReadHoldingRegistersResponse, 3),
    ReadInputRegisters: _words_reader(ReadInputRegistersResponse, 4),
    WriteSingleCoil: _write_single_coil,
    WriteSingleRegister: _write_single_register,
    ReadExceptionStatus: _read_exception_status,
    Diagnostics: _diagnostics,
    GetCommEventCounter: _event_counter,
    GetCommEventLog: _event_log,
    WriteMultipleCoils: _write_multiple_coils,
    WriteMultipleRegisters: _write_multiple_registers,
    ReportServerId: _report_server_id,
    ReadFileRecord: _read_file_record,
    WriteFileRecord: _write_file_record,
    MaskWriteRegister: _mask_write_register,
    ReadWriteMultipleRegisters: _read_write,
    ReadFifoQueue: _read_fifo_queue,
    CanopenReference: _canopen,
    ReadDeviceIdentification: _identification,
    VendorRead: _vendor,
    VendorWrite: _vendor,
}
"""By the type of the request."""


def decode_exception(data: bytes, at: int, end: int, function: int) -> ModbusResponse:
    """An exception response, whose function code was received with its highest bit set. Raises: Misfit."""
    if end - at != 1:
        raise Misfit(EXCEPTION_SECTION, f"an exception response of {end - at + 1} bytes, must be 2")
    code = data[at]
    if not code:
        raise Misfit(EXCEPTION_SECTION, "exception code 0x00, which says nothing")
    return ExceptionResponse(function, code)


def decode_response(pdu: bytes, request: ModbusRequest) -> ModbusResponse:
    """The answer to `request` from a whole PDU (function code and data).

    Raises: Misfit (wire), which names the section and the reason.
    """
    if not pdu:
        misfit("4.1", "an empty PDU")
    function = function_of(request)
    if pdu[0] == function:
        return DECODERS[type(request)](pdu, 1, len(pdu), request)
    if pdu[0] == function | 0x80:
        return decode_exception(pdu, 1, len(pdu), function)
    raise Misfit(PDU_SECTION, f"function code {pdu[0]}, the request has {function}")


# ---- encoding: transaction id, unit and message in, whole frame out ----

_ADU_HH = Struct(">HHHBBHH")
_ADU_BB = Struct(">HHHBBB")


def _encode_words(function: int) -> Callable[[int, int, Any], bytes]:
    def encode(transaction: int, unit: int, message: Any) -> bytes:
        words: bytes = message.words
        size = len(words)
        if size & 1 or not 0 < size <= 2 * MAX_READ_WORDS:
            raise unencodable(message, f"{size} bytes of registers")
        return _ADU_BB.pack(transaction, 0, size + 3, unit, function, size) + words

    return encode


def _encode_bits(function: int) -> Callable[[int, int, Any], bytes]:
    def encode(transaction: int, unit: int, message: Any) -> bytes:
        count = len(message.values)
        if not 0 < count <= MAX_READ_BITS:
            raise unencodable(message, f"{count} bits")
        raw = pack_bits(message.values)
        return _ADU_BB.pack(transaction, 0, len(raw) + 3, unit, function, len(raw)) + raw

    return encode


def _encode_single_coil(transaction: int, unit: int, message: WriteSingleCoilResponse) -> bytes:
    return _ADU_HH.pack(transaction, 0, 6, unit, 5, message.address, 0xFF00 if message.value else 0)


def _encode_single_register(transaction: int, unit: int, message: WriteSingleRegisterResponse) -> bytes:
    return _ADU_HH.pack(transaction, 0, 6, unit, 6, message.address, message.value)


def _encode_status(transaction: int, unit: int, message: ReadExceptionStatusResponse) -> bytes:
    return _ADU_BB.pack(transaction, 0, 3, unit, 7, message.status)


def _encode_diagnostics(transaction: int, unit: int, message: DiagnosticsResponse) -> bytes:
    return frame(transaction, unit, b"\x08" + H.pack(message.sub) + WORDS[len(message.data)].pack(*message.data))


def _encode_event_counter(transaction: int, unit: int, message: GetCommEventCounterResponse) -> bytes:
    return _ADU_HH.pack(transaction, 0, 6, unit, 11, message.status, message.events)


def _encode_event_log(transaction: int, unit: int, message: GetCommEventLogResponse) -> bytes:
    if len(message.log) > 64:
        raise unencodable(message, f"{len(message.log)} events")
    body = HHH.pack(message.status, message.events, message.messages) + message.log
    return frame(transaction, unit, bytes((12, len(body))) + body)


def _encode_written(function: int) -> Callable[[int, int, Any], bytes]:
    def encode(transaction: int, unit: int, message: Any) -> bytes:
        return _ADU_HH.pack(transaction, 0, 6, unit, function, message.address, message.count)

    return encode


def _encode_server_id(transaction: int, unit: int, message: ReportServerIdResponse) -> bytes:
    return frame(transaction, unit, bytes((17, len(message.data))) + message.data)


def _encode_read_file(transaction: int, unit: int, message: ReadFileRecordResponse) -> bytes:
    groups = b"".join(
        bytes((1 + 2 * len(words), 6)) + WORDS[len(words)].pack(*words) for words in message.records
    )  # fmt: skip
    return frame(transaction, unit, bytes((20, len(groups))) + groups)


def _encode_write_file(transaction: int, unit: int, message: WriteFileRecordResponse) -> bytes:
    groups = encode_file_records(message.records)
    return frame(transaction, unit, bytes((21, len(groups))) + groups)


def _encode_mask(transaction: int, unit: int, message: MaskWriteRegisterResponse) -> bytes:
    return frame(transaction, unit, b"\x16" + HHH.pack(message.address, message.and_mask, message.or_mask))


def _encode_fifo(transaction: int, unit: int, message: ReadFifoQueueResponse) -> bytes:
    count = len(message.values)
    if count > MAX_FIFO_WORDS:
        raise unencodable(message, f"{count} registers")
    return frame(transaction, unit, b"\x18" + HH.pack(2 + 2 * count, count) + WORDS[count].pack(*message.values))


def _encode_canopen(transaction: int, unit: int, message: CanopenReferenceResponse) -> bytes:
    return frame(transaction, unit, bytes((43, MEI_CANOPEN)) + message.data)


def _encode_identification(transaction: int, unit: int, message: ReadDeviceIdentificationResponse) -> bytes:
    head = bytes(
        (43, MEI_IDENTIFICATION, message.code, message.conformity, message.more, message.next_object_id,
         len(message.objects))
    )  # fmt: skip
    return frame(
        transaction, unit, head + b"".join(bytes((item.id, len(item.value))) + item.value for item in message.objects)
    )


def _encode_exception(transaction: int, unit: int, message: ExceptionResponse) -> bytes:
    return _ADU_BB.pack(transaction, 0, 3, unit, message.function | 0x80, message.code)


def _encode_vendor(transaction: int, unit: int, message: VendorResponse) -> bytes:
    return frame(transaction, unit, bytes((message.function,)) + message.data)


ENCODERS: Final[dict[type, tuple[int, Callable[[int, int, Any], bytes]]]] = {
    ReadCoilsResponse: (1, _encode_bits(1)),
    ReadDiscreteInputsResponse: (2, _encode_bits(2)),
    ReadHoldingRegistersResponse: (3, _encode_words(3)),
    ReadInputRegistersResponse: (4, _encode_words(4)),
    WriteSingleCoilResponse: (5, _encode_single_coil),
    WriteSingleRegisterResponse: (6, _encode_single_register),
    ReadExceptionStatusResponse: (7, _encode_status),
    DiagnosticsResponse: (8, _encode_diagnostics),
    GetCommEventCounterResponse: (11, _encode_event_counter),
    GetCommEventLogResponse: (12, _encode_event_log),
    WriteMultipleCoilsResponse: (15, _encode_written(15)),
    WriteMultipleRegistersResponse: (16, _encode_written(16)),
    ReportServerIdResponse: (17, _encode_server_id),
    ReadFileRecordResponse: (20, _encode_read_file),
    WriteFileRecordResponse: (21, _encode_write_file),
    MaskWriteRegisterResponse: (22, _encode_mask),
    ReadWriteMultipleRegistersResponse: (23, _encode_words(23)),
    ReadFifoQueueResponse: (24, _encode_fifo),
    CanopenReferenceResponse: (43, _encode_canopen),
    ReadDeviceIdentificationResponse: (43, _encode_identification),
    VendorResponse: (-1, _encode_vendor),
    ExceptionResponse: (-1, _encode_exception),
}
"""By the type of the response: the function code that it answers (-1: any), and its encoder."""


def encode_response(transaction: int, unit: int, message: ModbusResponse) -> bytes:
    """A whole frame.

    Raises: LocalProtocolError for a message that the wire cannot carry.
    """
    try:
        adu = ENCODERS[type(message)][1](transaction, unit, message)
    except (StructError, ValueError, IndexError, KeyError, TypeError) as error:
        raise unencodable(message, error) from None
    if len(adu) > MAX_ADU:
        raise unencodable(message, f"{len(adu)} bytes, a frame has at most {MAX_ADU}")
    return adu
