"""Modbus messages: one frozen type for each request and each response of the public function codes.

Requests carry the unit that they address. Responses carry none: a response is only ever the answer to a request, and
the machines compare the unit on the wire. The field types hold every range that a single field has, so a message that
msgspec decoded (from a crossing) is in range; `operations.check` adds the rules between fields. Sections are those of
the MODBUS Application Protocol Specification V1.1b3.

Values are in address order: bits as 0 or 1, registers as 0 to 65535. Registers that were read are kept as the two bytes
which each has on the wire, where every content is a value: most are only handed on, and nobody counts them on the way.

Not here: bytes (wire), and what a message means (operations).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self, TypeAlias

import msgspec
from msgspec import Meta

Byte = Annotated[int, Meta(ge=0, le=0xFF)]
Word = Annotated[int, Meta(ge=0, le=0xFFFF)]
Bit = Annotated[int, Meta(ge=0, le=1)]

MAX_READ_BITS = 2000
MAX_READ_WORDS = 125
MAX_WRITE_BITS = 1968
MAX_WRITE_WORDS = 123
MAX_READ_WRITE_WORDS = 121
MAX_FIFO_WORDS = 31
MAX_FILE_RECORD = 0x270F
MAX_FILE_READ_BYTES = 0xF5
MAX_FILE_WRITE_BYTES = 0xFB
CELLS = 65536

ILLEGAL_FUNCTION: Final = 0x01
ILLEGAL_ADDRESS: Final = 0x02
ILLEGAL_VALUE: Final = 0x03
SERVER_FAILURE: Final = 0x04
ACKNOWLEDGE: Final = 0x05
BUSY: Final = 0x06
MEMORY_PARITY: Final = 0x08
GATEWAY_NO_PATH: Final = 0x0A
GATEWAY_NO_RESPONSE: Final = 0x0B

ExceptionCode = Annotated[int, Meta(ge=1, le=0xFF)]
"""Of an exception response. Devices have codes of their own beside the standard's, and say by them what no other would:
all but 0 are passed on as they came."""

EXCEPTIONS: dict[int, str] = {
    ILLEGAL_FUNCTION: "illegal function",
    ILLEGAL_ADDRESS: "illegal data address",
    ILLEGAL_VALUE: "illegal data value",
    SERVER_FAILURE: "server device failure",
    ACKNOWLEDGE: "acknowledge",
    BUSY: "server device busy",
    MEMORY_PARITY: "memory parity error",
    GATEWAY_NO_PATH: "gateway path unavailable",
    GATEWAY_NO_RESPONSE: "gateway target device failed to respond",
}
"""Exception codes of the standard and their names (section 7)."""

FUNCTIONS: dict[int, str] = {
    1: "read coils",
    2: "read discrete inputs",
    3: "read holding registers",
    4: "read input registers",
    5: "write single coil",
    6: "write single register",
    7: "read exception status",
    8: "diagnostics",
    11: "get comm event counter",
    12: "get comm event log",
    15: "write multiple coils",
    16: "write multiple registers",
    17: "report server id",
    20: "read file record",
    21: "write file record",
    22: "mask write register",
    23: "read/write multiple registers",
    24: "read fifo queue",
    43: "encapsulated interface transport",
}
"""Public function codes and their names (section 5.1)."""

DIAGNOSTICS: dict[int, str] = {
    0: "return query data",
    1: "restart communications option",
    2: "return diagnostic register",
    3: "change ASCII input delimiter",
    4: "force listen only mode",
    10: "clear counters and diagnostic register",
    11: "return bus message count",
    12: "return bus communication error count",
    13: "return bus exception error count",
    14: "return server message count",
    15: "return server no response count",
    16: "return server NAK count",
    17: "return server busy count",
    18: "return bus character overrun count",
    20: "clear overrun counter and flag",
}
"""Sub-functions of function 8 and their names (6.8.1); the others are reserved."""

DIAGNOSTICS_READS = frozenset({0, 2, 11, 12, 13, 14, 15, 16, 17, 18})
"""Sub-functions that change nothing in the device. The others restart, silence, reconfigure or clear it."""

MEI_CANOPEN = 13
MEI_IDENTIFICATION = 14

Sub = Literal[0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20]
Conformity = Literal[0x01, 0x02, 0x03, 0x81, 0x82, 0x83]
More = Literal[0, 0xFF]
FileNumber = Annotated[int, Meta(ge=1, le=0xFFFF)]
RecordNumber = Annotated[int, Meta(ge=0, le=MAX_FILE_RECORD)]
Words = Annotated[tuple[Word, ...], Meta(min_length=1, max_length=MAX_READ_WORDS)]
Raw = Annotated[bytes, Meta(min_length=2, max_length=2 * MAX_READ_WORDS)]
Bits = Annotated[tuple[Bit, ...], Meta(min_length=1, max_length=MAX_READ_BITS)]


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The form that all have: small, immutable, and decoded strictly."""


class _Plain(_Message, frozen=True, cache_hash=True):
    """A plain read, which is looked up by what it is: its hash is made once."""


# ---- requests; the tag is the function code (43/13 and 43/14: 4313 and 4314) ----


class ReadCoils(_Plain, frozen=True, tag=1):
    """6.1: `count` coils from `address` on."""

    unit: Byte
    address: Word
    count: Annotated[int, Meta(ge=1, le=MAX_READ_BITS)]


class ReadDiscreteInputs(_Plain, frozen=True, tag=2):
    """6.2: `count` discrete inputs from `address` on."""

    unit: Byte
    address: Word
    count: Annotated[int, Meta(ge=1, le=MAX_READ_BITS)]


class ReadHoldingRegisters(_Plain, frozen=True, tag=3):
    """6.3: `count` holding registers from `address` on."""

    unit: Byte
    address: Word
    count: Annotated[int, Meta(ge=1, le=MAX_READ_WORDS)]


class ReadInputRegisters(_Plain, frozen=True, tag=4):
    """6.4: `count` input registers from `address` on."""

    unit: Byte
    address: Word
    count: Annotated[int, Meta(ge=1, le=MAX_READ_WORDS)]


class WriteSingleCoil(_Message, frozen=True, tag=5):
    """6.5: sets one coil; 1 is 0xFF00 on the wire."""

    unit: Byte
    address: Word
    value: Bit


class WriteSingleRegister(_Message, frozen=True, tag=6):
    """6.6: sets one holding register."""

    unit: Byte
    address: Word
    value: Word


class ReadExceptionStatus(_Message, frozen=True, tag=7):
    """6.7: eight outputs whose meaning is the device's own (serial line)."""

    unit: Byte


class Diagnostics(_Message, frozen=True, tag=8):
    """6.8: a sub-function with its data, words in order (serial line). Only sub-function 0 takes several words."""

    unit: Byte
    sub: Sub
    data: Words


class GetCommEventCounter(_Message, frozen=True, tag=11):
    """6.9 (serial line)."""

    unit: Byte


class GetCommEventLog(_Message, frozen=True, tag=12):
    """6.10 (serial line)."""

    unit: Byte


class WriteMultipleCoils(_Message, frozen=True, tag=15):
    """6.11: sets coils from `address` on."""

    unit: Byte
    address: Word
    values: Annotated[tuple[Bit, ...], Meta(min_length=1, max_length=MAX_WRITE_BITS)]


class WriteMultipleRegisters(_Message, frozen=True, tag=16):
    """6.12: sets holding registers from `address` on."""

    unit: Byte
    address: Word
    values: Annotated[tuple[Word, ...], Meta(min_length=1, max_length=MAX_WRITE_WORDS)]


class ReportServerId(_Message, frozen=True, tag=17):
    """6.13 (serial line)."""

    unit: Byte


class FileRange(_Message, frozen=True):
    """One sub-request of function 20: `count` words of file `file` from record `record` on."""

    file: FileNumber
    record: RecordNumber
    count: Annotated[int, Meta(ge=1, le=121)]


class FileRecord(_Message, frozen=True):
    """One sub-request of function 21: words that go into file `file` from record `record` on."""

    file: FileNumber
    record: RecordNumber
    values: Annotated[tuple[Word, ...], Meta(min_length=1, max_length=122)]


class ReadFileRecord(_Message, frozen=True, tag=20):
    """6.14: groups of records of files; at most 35 groups fit."""

    unit: Byte
    records: Annotated[tuple[FileRange, ...], Meta(min_length=1, max_length=35)]


class WriteFileRecord(_Message, frozen=True, tag=21):
    """6.15: groups of records of files; at most 27 groups fit."""

    unit: Byte
    records: Annotated[tuple[FileRecord, ...], Meta(min_length=1, max_length=27)]


class MaskWriteRegister(_Message, frozen=True, tag=22):
    """6.16: register = (register AND and_mask) OR (or_mask AND NOT and_mask)."""

    unit: Byte
    address: Word
    and_mask: Word
    or_mask: Word


class ReadWriteMultipleRegisters(_Message, frozen=True, tag=23):
    """6.17: writes `values` from `write_address` on, then reads `read_count` registers from `read_address` on."""

    unit: Byte
    read_address: Word
    read_count: Annotated[int, Meta(ge=1, le=MAX_READ_WORDS)]
    write_address: Word
    values: Annotated[tuple[Word, ...], Meta(min_length=1, max_length=MAX_READ_WRITE_WORDS)]


class ReadFifoQueue(_Message, frozen=True, tag=24):
    """6.18: the queue that the register at `address` points to; reading does not clear it."""

    unit: Byte
    address: Word


class CanopenReference(_Message, frozen=True, tag=4313):
    """6.20: a CANopen request inside a Modbus one. CiA 309-2 says what the bytes mean; we carry them, bounded, and
    take the effect to be unknown."""

    unit: Byte
    data: Annotated[bytes, Meta(max_length=251)]


class VendorRead(_Message, frozen=True, tag=6501):
    """A function that no public document has (5: user-defined, and those that vendors took), of which the policy says
    that it changes nothing. `function` is its code; we carry the bytes, bounded."""

    unit: Byte
    function: Annotated[int, Meta(ge=1, le=0x7F)]
    data: Annotated[bytes, Meta(max_length=252)]


class VendorWrite(_Message, frozen=True, tag=6502):
    """The same, of which the policy says that it may change the device."""

    unit: Byte
    function: Annotated[int, Meta(ge=1, le=0x7F)]
    data: Annotated[bytes, Meta(max_length=252)]


class ReadDeviceIdentification(_Message, frozen=True, tag=4314):
    """6.21: code 1 basic, 2 regular, 3 extended (streams from `object_id` on), 4 the one object."""

    unit: Byte
    code: Annotated[int, Meta(ge=1, le=4)]
    object_id: Byte


# ---- responses; the tag is 1000 + the request's ----


class ReadCoilsResponse(_Message, frozen=True, tag=1001):
    """As many bits as were asked for; the padding of the last byte is gone."""

    values: Bits


class ReadDiscreteInputsResponse(_Message, frozen=True, tag=1002):
    """As many bits as were asked for; the padding of the last byte is gone."""

    values: Bits


class _Registers(_Message, frozen=True):
    """Registers in address order, two bytes each, the high one first (4.2). An odd length answers no request."""

    words: Raw

    @property
    def values(self) -> tuple[int, ...]:
        """Each 0 to 65535."""
        words = self.words
        return struct.unpack(f">{len(words) >> 1}H", words)

    @classmethod
    def of(cls, values: Sequence[int]) -> Self:
        """The answer with these values. Raises: struct.error for one outside 0 to 65535."""
        return cls(struct.pack(f">{len(values)}H", *values))


class ReadHoldingRegistersResponse(_Registers, frozen=True, tag=1003):
    """6.3."""


class ReadInputRegistersResponse(_Registers, frozen=True, tag=1004):
    """6.4."""


class WriteSingleCoilResponse(_Message, frozen=True, tag=1005):
    """The echo of the request."""

    address: Word
    value: Bit


class WriteSingleRegisterResponse(_Message, frozen=True, tag=1006):
    """The echo of the request."""

    address: Word
    value: Word


class ReadExceptionStatusResponse(_Message, frozen=True, tag=1007):
    status: Byte


class DiagnosticsResponse(_Message, frozen=True, tag=1008):
    """Sub-functions 2 and 11 to 18: one word of news. The others: the echo of the request."""

    sub: Sub
    data: Words


class GetCommEventCounterResponse(_Message, frozen=True, tag=1011):
    """`status` is 0xFFFF while the device still works on a command, else 0."""

    status: Literal[0, 0xFFFF]
    events: Word


class GetCommEventLogResponse(_Message, frozen=True, tag=1012):
    """`log` holds up to 64 event bytes, newest first."""

    status: Literal[0, 0xFFFF]
    events: Word
    messages: Word
    log: Annotated[bytes, Meta(max_length=64)]


class WriteMultipleCoilsResponse(_Message, frozen=True, tag=1015):
    address: Word
    count: Annotated[int, Meta(ge=1, le=MAX_WRITE_BITS)]


class WriteMultipleRegistersResponse(_Message, frozen=True, tag=1016):
    address: Word
    count: Annotated[int, Meta(ge=1, le=MAX_WRITE_WORDS)]


class ReportServerIdResponse(_Message, frozen=True, tag=1017):
    """Server id, run indicator and additional data, whose lengths only the device's manual tells."""

    data: Annotated[bytes, Meta(min_length=1, max_length=251)]


class ReadFileRecordResponse(_Message, frozen=True, tag=1020):
    """The words of each group, in the order of the request."""

    records: Annotated[
        tuple[Annotated[tuple[Word, ...], Meta(min_length=1, max_length=121)], ...], Meta(min_length=1, max_length=35)
    ]


class WriteFileRecordResponse(_Message, frozen=True, tag=1021):
    """The echo of the request."""

    records: Annotated[tuple[FileRecord, ...], Meta(min_length=1, max_length=27)]


class MaskWriteRegisterResponse(_Message, frozen=True, tag=1022):
    """The echo of the request."""

    address: Word
    and_mask: Word
    or_mask: Word


class ReadWriteMultipleRegistersResponse(_Registers, frozen=True, tag=1023):
    """6.17: the registers that were read, after the writing."""


class ReadFifoQueueResponse(_Message, frozen=True, tag=1024):
    """The queue, oldest first; it may be empty."""

    values: Annotated[tuple[Word, ...], Meta(max_length=MAX_FIFO_WORDS)]


class CanopenReferenceResponse(_Message, frozen=True, tag=5313):
    """The bytes of a CANopen answer, bounded and not looked into."""

    data: Annotated[bytes, Meta(max_length=251)]


class VendorResponse(_Message, frozen=True, tag=7500):
    """The bytes of an answer to a vendor's function, bounded and not looked into."""

    function: Annotated[int, Meta(ge=1, le=0x7F)]
    data: Annotated[bytes, Meta(max_length=252)]


class DeviceObject(_Message, frozen=True):
    """One object of a device identification: its id and its value."""

    id: Byte
    value: Annotated[bytes, Meta(max_length=244)]


class ReadDeviceIdentificationResponse(_Message, frozen=True, tag=5314):
    """`more` is 0xFF if another request from `next_object_id` on brings more objects, else 0."""

    code: Annotated[int, Meta(ge=1, le=4)]
    conformity: Conformity
    more: More
    next_object_id: Byte
    objects: Annotated[tuple[DeviceObject, ...], Meta(max_length=123)]


class ExceptionResponse(_Message, frozen=True, tag=1128):
    """Section 7: why the request with function code `function` (0 to 127) was not carried out.

    Codes 7 and 9 and those above 0x0B are not in the standard, and devices use them."""

    function: Annotated[int, Meta(ge=0, le=0x7F)]
    code: ExceptionCode


ModbusRequest: TypeAlias = (
    ReadCoils
    | ReadDiscreteInputs
    | ReadHoldingRegisters
    | ReadInputRegisters
    | WriteSingleCoil
    | WriteSingleRegister
    | ReadExceptionStatus
    | Diagnostics
    | GetCommEventCounter
    | GetCommEventLog
    | WriteMultipleCoils
    | WriteMultipleRegisters
    | ReportServerId
    | ReadFileRecord
    | WriteFileRecord
    | MaskWriteRegister
    | ReadWriteMultipleRegisters
    | ReadFifoQueue
    | CanopenReference
    | ReadDeviceIdentification
    | VendorRead
    | VendorWrite
)

ModbusResponse: TypeAlias = (
    ReadCoilsResponse
    | ReadDiscreteInputsResponse
    | ReadHoldingRegistersResponse
    | ReadInputRegistersResponse
    | WriteSingleCoilResponse
    | WriteSingleRegisterResponse
    | ReadExceptionStatusResponse
    | DiagnosticsResponse
    | GetCommEventCounterResponse
    | GetCommEventLogResponse
    | WriteMultipleCoilsResponse
    | WriteMultipleRegistersResponse
    | ReportServerIdResponse
    | ReadFileRecordResponse
    | WriteFileRecordResponse
    | MaskWriteRegisterResponse
    | ReadWriteMultipleRegistersResponse
    | ReadFifoQueueResponse
    | CanopenReferenceResponse
    | ReadDeviceIdentificationResponse
    | VendorResponse
    | ExceptionResponse
)
