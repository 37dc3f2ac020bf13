"""Request PDUs: decoded by the server machine, encoded by the client machine.

A decoder checks in the order of the standard's state diagrams: function code (exception 01), then structure,
quantities and values (03), then addresses (02).

Not here: responses (responses), framing (wire), state (machine).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Any, Final

from cofferdam.protocols.modbus.messages import (
    CELLS,
    DIAGNOSTICS,
    ILLEGAL_ADDRESS,
    ILLEGAL_FUNCTION,
    ILLEGAL_VALUE,
    MAX_FILE_READ_BYTES,
    MAX_FILE_RECORD,
    MAX_FILE_WRITE_BYTES,
    MAX_READ_BITS,
    MAX_READ_WORDS,
    MAX_READ_WRITE_WORDS,
    MAX_WRITE_BITS,
    MAX_WRITE_WORDS,
    MEI_CANOPEN,
    MEI_IDENTIFICATION,
    CanopenReference,
    Diagnostics,
    FileRange,
    FileRecord,
    GetCommEventCounter,
    GetCommEventLog,
    MaskWriteRegister,
    ModbusRequest,
    ReadCoils,
    ReadDeviceIdentification,
    ReadDiscreteInputs,
    ReadExceptionStatus,
    ReadFifoQueue,
    ReadFileRecord,
    ReadHoldingRegisters,
    ReadInputRegisters,
    ReadWriteMultipleRegisters,
    ReportServerId,
    VendorRead,
    VendorWrite,
    WriteFileRecord,
    WriteMultipleCoils,
    WriteMultipleRegisters,
    WriteSingleCoil,
    WriteSingleRegister,
)
from cofferdam.protocols.modbus.wire import (
    APPLICATION,
    FUNCTION_SECTION,
    HH,
    HHH,
    HHHH,
    MAX_ADU,
    MAX_LENGTH,
    PDU_SECTION,
    WORDS,
    H,
    RefusedRequest,
    pack_bits,
    refuse,
    refuse_length,
    unencodable,
    unpack_bits,
)

Decoder = Callable[[bytes, int, int, int], ModbusRequest]
"""(buffer, first byte after the function code, first byte after the PDU, unit) -> message; raises RefusedRequest."""


# ---- decoding ----


def _quantity(section: str, function: int, count: int, most: int) -> None:
    refuse(ILLEGAL_VALUE, section, f"function {function}: quantity {count}, must be 1 to {most}")


def _beyond(section: str, function: int, address: int, count: int) -> None:
    refuse(
        ILLEGAL_ADDRESS, section, f"function {function}: address {address} + quantity {count} is beyond {CELLS} cells"
    )


def _reader(kind: Callable[[int, int, int], ModbusRequest], function: int, most: int) -> Decoder:
    """Functions 1 to 4, which differ in their number and in the largest quantity."""
    section = f"6.{function}"

    def decode(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
        if end - at != 4:
            refuse_length(section, function, "4", end - at)
        address, count = HH.unpack_from(data, at)
        if not 0 < count <= most:
            _quantity(section, function, count, most)
        if address + count > CELLS:
            _beyond(section, function, address, count)
        return kind(unit, address, count)

    return decode


def _write_single_coil(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    if end - at != 4:
        refuse_length("6.5", 5, "4", end - at)
    address, value = HH.unpack_from(data, at)
    if value == 0xFF00:
        return WriteSingleCoil(unit, address, 1)
    if value:
        refuse(ILLEGAL_VALUE, "6.5", f"function 5: value {value:#06x}, must be 0x0000 or 0xff00")
    return WriteSingleCoil(unit, address, 0)


def _write_single_register(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    if end - at != 4:
        refuse_length("6.6", 6, "4", end - at)
    address, value = HH.unpack_from(data, at)
    return WriteSingleRegister(unit, address, value)


def _bare(kind: Callable[[int], ModbusRequest], section: str, function: int) -> Decoder:
    """Functions that are a function code and nothing else."""

    def decode(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
        if end != at:
            refuse_length(section, function, "0", end - at)
        return kind(unit)

    return decode


def diagnostics_fault(sub: int, data: tuple[int, ...]) -> str:
    """Why these words cannot be the data of a diagnostics request (6.8.1), or ""."""
    if sub == 0:
        return ""
    if len(data) != 1:
        return f"sub-function {sub} takes one word, not {len(data)}"
    word = data[0]
    if sub == 1:
        return "" if word in (0, 0xFF00) else f"sub-function 1 takes 0x0000 or 0xff00, not {word:#06x}"
    if sub == 3:
        return "" if not word & 0xFF else f"sub-function 3 takes a character and a zero byte, not {word:#06x}"
    return f"sub-function {sub} takes 0x0000, not {word:#06x}" if word else ""


def _diagnostics(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    size = end - at
    if size < 2:
        refuse_length("6.8", 8, "2 + 2n", size)
    (sub,) = H.unpack_from(data, at)
    if sub not in DIAGNOSTICS:
        refuse(ILLEGAL_FUNCTION, "6.8.1", f"function 8: sub-function {sub} is reserved")
    if size < 4 or size & 1:
        refuse_length("6.8", 8, "2 + 2n", size)
    words = WORDS[(size - 2) >> 1].unpack_from(data, at + 2)
    fault = diagnostics_fault(sub, words)
    if fault:
        refuse(ILLEGAL_VALUE, "6.8.1", f"function 8: {fault}")
    return Diagnostics(unit, sub, words)


def _write_multiple_coils(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    size = end - at
    if size < 6:
        refuse_length("6.11", 15, "5 + n", size)
    address, count = HH.unpack_from(data, at)
    if not 0 < count <= MAX_WRITE_BITS:
        _quantity("6.11", 15, count, MAX_WRITE_BITS)
    need = (count + 7) >> 3
    if data[at + 4] != need:
        refuse(ILLEGAL_VALUE, "6.11", f"function 15: byte count {data[at + 4]}, must be {need} for {count} coils")
    if size != 5 + need:
        refuse_length("6.11", 15, str(5 + need), size)
    if address + count > CELLS:
        _beyond("6.11", 15, address, count)
    return WriteMultipleCoils(unit, address, unpack_bits(data[at + 5 : end], count))


def _write_multiple_registers(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    size = end - at
    if size < 7:
        refuse_length("6.12", 16, "5 + 2n", size)
    address, count = HH.unpack_from(data, at)
    if not 0 < count <= MAX_WRITE_WORDS:
        _quantity("6.12", 16, count, MAX_WRITE_WORDS)
    if data[at + 4] != count << 1:
        refuse(
            ILLEGAL_VALUE, "6.12", f"function 16: byte count {data[at + 4]}, must be {2 * count} for {count} registers"
        )
    if size != 5 + (count << 1):
        refuse_length("6.12", 16, str(5 + 2 * count), size)
    if address + count > CELLS:
        _beyond("6.12", 16, address, count)
    return WriteMultipleRegisters(unit, address, WORDS[count].unpack_from(data, at + 5))


def file_fault(file: int, record: int, count: int) -> str:
    """Why these records of a file cannot exist (6.14), or ""."""
    if file == 0:
        return "file number 0, must be 1 to 65535"
    if record > MAX_FILE_RECORD:
        return f"record number {record}, must be 0 to {MAX_FILE_RECORD}"
    if count == 0:
        return "record length 0"
    if record + count > MAX_FILE_RECORD + 1:
        return f"record {record} + length {count} is beyond record {MAX_FILE_RECORD}"
    return ""


def _read_file_record(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    size = end - at
    if size < 1:
        refuse_length("6.14", 20, "1 + 7n", size)
    length = data[at]
    if not 7 <= length <= MAX_FILE_READ_BYTES or length % 7:
        refuse(ILLEGAL_VALUE, "6.14", f"function 20: byte count {length}, must be 7 to 245 and a multiple of 7")
    if size != 1 + length:
        refuse_length("6.14", 20, str(1 + length), size)
    records = []
    answer = 0
    for start in range(at + 1, end, 7):
        file, record, count = HHH.unpack_from(data, start + 1)
        if data[start] != 6:
            refuse(ILLEGAL_ADDRESS, "6.14", f"function 20: reference type {data[start]}, must be 6")
        fault = file_fault(file, record, count)
        if fault:
            refuse(ILLEGAL_ADDRESS, "6.14", f"function 20: {fault}")
        answer += 2 + 2 * count
        records.append(FileRange(file, record, count))
    if answer > MAX_FILE_READ_BYTES:
        refuse(ILLEGAL_VALUE, "6.14", f"function 20: the answer would have {answer} bytes of data, at most 245 fit")
    return ReadFileRecord(unit, tuple(records))


def decode_file_records(data: bytes, at: int, end: int) -> tuple[FileRecord, ...] | str:
    """The groups of function 21, whose request and response look alike, or what is wrong with them."""
    records = []
    while at < end:
        if end - at < 9:
            return f"a group of {end - at} bytes, the smallest has 9"
        file, record, count = HHH.unpack_from(data, at + 1)
        if data[at] != 6:
            return f"reference type {data[at]}, must be 6"
        fault = file_fault(file, record, count)
        if fault:
            return fault
        if at + 7 + 2 * count > end:
            return f"record length {count} is more than the request holds"
        records.append(FileRecord(file, record, WORDS[count].unpack_from(data, at + 7)))
        at += 7 + 2 * count
    return tuple(records)


def _write_file_record(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    size = end - at
    if size < 1:
        refuse_length("6.15", 21, "1 + n", size)
    length = data[at]
    if not 9 <= length <= MAX_FILE_WRITE_BYTES:
        refuse(ILLEGAL_VALUE, "6.15", f"function 21: byte count {length}, must be 9 to 251")
    if size != 1 + length:
        refuse_length("6.15", 21, str(1 + length), size)
    records = decode_file_records(data, at + 1, end)
    if isinstance(records, str):
        refuse(ILLEGAL_ADDRESS, "6.15", f"function 21: {records}")
    return WriteFileRecord(unit, records)


def _mask_write_register(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    if end - at != 6:
        refuse_length("6.16", 22, "6", end - at)
    return MaskWriteRegister(unit, *HHH.unpack_from(data, at))


def _read_write_multiple_registers(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    size = end - at
    if size < 11:
        refuse_length("6.17", 23, "9 + 2n", size)
    read_address, read_count, write_address, write_count = HHHH.unpack_from(data, at)
    if not 0 < read_count <= MAX_READ_WORDS:
        refuse(ILLEGAL_VALUE, "6.17", f"function 23: read quantity {read_count}, must be 1 to {MAX_READ_WORDS}")
    if not 0 < write_count <= MAX_READ_WRITE_WORDS:
        refuse(ILLEGAL_VALUE, "6.17", f"function 23: write quantity {write_count}, must be 1 to 121")
    if data[at + 8] != write_count << 1:
        refuse(ILLEGAL_VALUE, "6.17", f"function 23: byte count {data[at + 8]}, must be {2 * write_count}")
    if size != 9 + (write_count << 1):
        refuse_length("6.17", 23, str(9 + 2 * write_count), size)
    if read_address + read_count > CELLS:
        _beyond("6.17", 23, read_address, read_count)
    if write_address + write_count > CELLS:
        _beyond("6.17", 23, write_address, write_count)
    return ReadWriteMultipleRegisters(
        unit, read_address, read_count, write_address, WORDS[write_count].unpack_from(data, at + 9)
    )


def _read_fifo_queue(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    if end - at != 2:
        refuse_length("6.18", 24, "2", end - at)
    return ReadFifoQueue(unit, H.unpack_from(data, at)[0])


def _encapsulated(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
    size = end - at
    if size < 1:
        refuse_length("6.19", 43, "1 + n", size)
    mei = data[at]
    if mei == MEI_IDENTIFICATION:
        if size != 3:
            refuse_length("6.21", 43, "3", size)
        code = data[at + 1]
        if not 1 <= code <= 4:
            refuse(ILLEGAL_VALUE, "6.21", f"function 43/14: read device id code {code}, must be 1 to 4")
        return ReadDeviceIdentification(unit, code, data[at + 2])
    if mei == MEI_CANOPEN:
        return CanopenReference(unit, data[at + 1 : end])
    raise RefusedRequest(
        ILLEGAL_FUNCTION,
        APPLICATION + "6.19",
        f"function 43: MEI type {mei} is reserved, only 13 and 14 are public",
    )


def _not_public(function: int) -> Decoder:
    if function == 0:
        section, what = PDU_SECTION, "is not valid"
    elif function > 127:
        section, what = PDU_SECTION, "is for exception responses only"
    elif 65 <= function <= 72 or 100 <= function <= 110:
        section, what = APPLICATION + "5", "is user-defined, not public"
    else:
        section, what = FUNCTION_SECTION, "is reserved or not assigned"

    def decode(data: bytes, at: int, end: int, unit: int) -> ModbusRequest:
        raise RefusedRequest(ILLEGAL_FUNCTION, section, f"function {function} {what}")

    return decode


_PUBLIC: dict[int, Decoder] = {
    1: _reader(ReadCoils, 1, MAX_READ_BITS),
    2: _reader(ReadDiscreteInputs, 2, MAX_READ_BITS),
    3: _reader(ReadHoldingRegisters, 3, MAX_READ_WORDS),
    4: _reader(ReadInputRegisters, 4, MAX_READ_WORDS),
    5: _write_single_coil,
    6: _write_single_register,
    7: _bare(ReadExceptionStatus, "6.7", 7),
    8: _diagnostics,
    11: _bare(GetCommEventCounter, "6.9", 11),
    12: _bare(GetCommEventLog, "6.10", 12),
    15: _write_multiple_coils,
    16: _write_multiple_registers,
    17: _bare(ReportServerId, "6.13", 17),
    20: _read_file_record,
    21: _write_file_record,
    22: _mask_write_register,
    23: _read_write_multiple_registers,
    24: _read_fifo_queue,
    43: _encapsulated,
}

DECODERS: Final[tuple[Decoder, ...]] = tuple(_PUBLIC.get(code) or _not_public(code) for code in range(256))
"""DECODERS[function code]; a decoder for every value of the byte."""


def decode_request(pdu: bytes, unit: int) -> ModbusRequest:
    """A request from a whole PDU (function code and data).

    Raises: RefusedRequest (wire), which names the exception code, the section and the reason.
    """
    if not pdu or len(pdu) >= MAX_LENGTH:
        refuse_length("4.1", pdu[0] if pdu else 0, "0 to 252", len(pdu) - 1)
    return DECODERS[pdu[0]](pdu, 1, len(pdu), unit)


# ---- encoding: transaction id and message in, whole frame out ----

_ADU_HH = Struct(">HHHBBHH")
_ADU_HHH = Struct(">HHHBBHHH")
_ADU_H = Struct(">HHHBBH")
_ADU = Struct(">HHHBB")
_ADU_HHB_WORDS = tuple(Struct(f">HHHBBHHB{count}H") for count in range(MAX_WRITE_WORDS + 1))
_ADU_HHHHB_WORDS = tuple(Struct(f">HHHBBHHHHB{count}H") for count in range(MAX_READ_WRITE_WORDS + 1))


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A whole frame around a PDU."""
    return HHH.pack(transaction, 0, len(pdu) + 1) + bytes((unit,)) + pdu


def _encode_read(function: int, most: int) -> Callable[[int, Any], bytes]:
    def encode(transaction: int, message: Any) -> bytes:
        if not 0 < message.count <= most:
            raise unencodable(message, f"count {message.count}")
        return _ADU_HH.pack(transaction, 0, 6, message.unit, function, message.address, message.count)

    return encode


def _encode_write_single_coil(transaction: int, message: WriteSingleCoil) -> bytes:
    return _ADU_HH.pack(transaction, 0, 6, message.unit, 5, message.address, 0xFF00 if message.value else 0)


def _encode_write_single_register(transaction: int, message: WriteSingleRegister) -> bytes:
    return _ADU_HH.pack(transaction, 0, 6, message.unit, 6, message.address, message.value)


def _encode_bare(function: int) -> Callable[[int, Any], bytes]:
    def encode(transaction: int, message: Any) -> bytes:
        return _ADU.pack(transaction, 0, 2, message.unit, function)

    return encode


def _encode_diagnostics(transaction: int, message: Diagnostics) -> bytes:
    return frame(
        transaction, message.unit, b"\x08" + H.pack(message.sub) + WORDS[len(message.data)].pack(*message.data)
    )


def _encode_write_multiple_coils(transaction: int, message: WriteMultipleCoils) -> bytes:
    count = len(message.values)
    if not 0 < count <= MAX_WRITE_BITS:
        raise unencodable(message, f"{count} coils")
    raw = pack_bits(message.values)
    head = _ADU_HH.pack(transaction, 0, 7 + len(raw), message.unit, 15, message.address, count)
    return head + bytes((len(raw),)) + raw


def _encode_write_multiple_registers(transaction: int, message: WriteMultipleRegisters) -> bytes:
    values = message.values
    count = len(values)
    if not 0 < count <= MAX_WRITE_WORDS:
        raise unencodable(message, f"{count} registers")
    size = count << 1
    return _ADU_HHB_WORDS[count].pack(transaction, 0, 7 + size, message.unit, 16, message.address, count, size, *values)


def _encode_read_file_record(transaction: int, message: ReadFileRecord) -> bytes:
    groups = b"".join(b"\x06" + HHH.pack(group.file, group.record, group.count) for group in message.records)
    return frame(transaction, message.unit, bytes((20, len(groups))) + groups)


def encode_file_records(records: tuple[FileRecord, ...]) -> bytes:
    """The groups of function 21, in a request as in a response."""
    return b"".join(
        b"\x06" + HHH.pack(group.file, group.record, len(group.values)) + WORDS[len(group.values)].pack(*group.values)
        for group in records
    )


def _encode_write_file_record(transaction: int, message: WriteFileRecord) -> bytes:
    groups = encode_file_records(message.records)
    return frame(transaction, message.unit, bytes((21, len(groups))) + groups)


def _encode_mask_write_register(transaction: int, message: MaskWriteRegister) -> bytes:
    return _ADU_HHH.pack(
        transaction, 0, 8, message.unit, 22, message.address, message.and_mask, message.or_mask
    )  # fmt: skip


def _encode_read_write(transaction: int, message: ReadWriteMultipleRegisters) -> bytes:
    count = len(message.values)
    if not 0 < count <= MAX_READ_WRITE_WORDS or not 0 < message.read_count <= MAX_READ_WORDS:
        raise unencodable(message, f"reads {message.read_count} registers, writes {count}")
    return _ADU_HHHHB_WORDS[count].pack(
        transaction, 0, 11 + 2 * count, message.unit, 23,
        message.read_address, message.read_count, message.write_address, count, 2 * count, *message.values,
    )  # fmt: skip


def _encode_read_fifo_queue(transaction: int, message: ReadFifoQueue) -> bytes:
    return _ADU_H.pack(transaction, 0, 4, message.unit, 24, message.address)


def _encode_canopen(transaction: int, message: CanopenReference) -> bytes:
    return frame(transaction, message.unit, bytes((43, MEI_CANOPEN)) + message.data)


def _encode_identification(transaction: int, message: ReadDeviceIdentification) -> bytes:
    return frame(
        transaction, message.unit, bytes((43, MEI_IDENTIFICATION, message.code, message.object_id))
    )  # fmt: skip


def _encode_vendor(transaction: int, message: VendorRead | VendorWrite) -> bytes:
    return frame(transaction, message.unit, bytes((message.function,)) + message.data)


ENCODERS: Final[dict[type, Callable[[int, Any], bytes]]] = {
    ReadCoils: _encode_read(1, MAX_READ_BITS),
    ReadDiscreteInputs: _encode_read(2, MAX_READ_BITS),
    ReadHoldingRegisters: _encode_read(3, MAX_READ_WORDS),
    ReadInputRegisters: _encode_read(4, MAX_READ_WORDS),
    WriteSingleCoil: _encode_write_single_coil,
    WriteSingleRegister: _encode_write_single_register,
    ReadExceptionStatus: _encode_bare(7),
    Diagnostics: _encode_diagnostics,
    GetCommEventCounter: _encode_bare(11),
    GetCommEventLog: _encode_bare(12),
    WriteMultipleCoils: _encode_write_multiple_coils,
    WriteMultipleRegisters: _encode_write_multiple_registers,
    ReportServerId: _encode_bare(17),
    ReadFileRecord: _encode_read_file_record,
    WriteFileRecord: _encode_write_file_record,
    MaskWriteRegister: _encode_mask_write_register,
    ReadWriteMultipleRegisters: _encode_read_write,
    ReadFifoQueue: _encode_read_fifo_queue,
    CanopenReference: _encode_canopen,
    ReadDeviceIdentification: _encode_identification,
    VendorRead: _encode_vendor,
    VendorWrite: _encode_vendor,
}

FUNCTION_OF: Final[dict[type, int]] = {
    ReadCoils: 1,
    ReadDiscreteInputs: 2,
    ReadHoldingRegisters: 3,
    ReadInputRegisters: 4,
    WriteSingleCoil: 5,
    WriteSingleRegister: 6,
    ReadExceptionStatus: 7,
    Diagnostics: 8,
    GetCommEventCounter: 11,
    GetCommEventLog: 12,
    WriteMultipleCoils: 15,
    WriteMultipleRegisters: 16,
    ReportServerId: 17,
    ReadFileRecord: 20,
    WriteFileRecord: 21,
    MaskWriteRegister: 22,
    ReadWriteMultipleRegisters: 23,
    ReadFifoQueue: 24,
    CanopenReference: 43,
    ReadDeviceIdentification: 43,
    VendorRead: 0,
    VendorWrite: 0,
}
"""The function code of each request type; 0 where the message itself says it (`function_of`)."""


def function_of(request: ModbusRequest) -> int:
    """The function code of a request."""
    if isinstance(request, (VendorRead, VendorWrite)):
        return request.function
    return FUNCTION_OF[type(request)]


def encode_request(transaction: int, message: ModbusRequest) -> bytes:
    """A whole frame.

    Raises: LocalProtocolError for a message that the wire cannot carry.
    """
    try:
        adu = ENCODERS[type(message)](transaction, message)
    except (StructError, ValueError, IndexError, KeyError, TypeError) as error:
        raise unencodable(message, error) from None
    if len(adu) > MAX_ADU:
        raise unencodable(message, f"{len(adu)} bytes, a frame has at most {MAX_ADU}")
    return adu
