"""Answers that break the standard in a way that an asset's `quirks` names, and devices that speak RTU frames over TCP.

Nothing here is looked at for a device without such a quirk: what is forgiven was a misfit before, and the two machines
are others than the plain one. What an answer says is never guessed: it is taken for the answer to its request only
where the rest of it fits, and a write whose echo is wrong is known to be answered, no more.

RTU: MODBUS over Serial Line V1.02, 2.5.1. Frames have no length, so an answer's is what its function and byte count
make it, and its CRC has to hold; a stream in which it does not is over. Converters put bytes around frames that were
never on the line (`spare_bytes`), or hear what they send themselves (`rtu_echo`). Not here: the silences of a serial
line, which TCP does not keep (the asset's `pause`), and broadcasts' missing answers.
"""

from __future__ import annotations

from typing import Final

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.modbus import messages as m
from cofferdam.protocols.modbus import requests, responses
from cofferdam.protocols.modbus.wire import HH, HHH, Misfit

SPARE_BYTES: Final = "spare_bytes"
LONG_EXCEPTIONS: Final = "long_exceptions"
WRONG_BYTE_COUNT: Final = "wrong_byte_count"
FULL_ECHO: Final = "full_echo"
LOOSE_ECHO: Final = "loose_echo"
WRONG_LENGTH: Final = "wrong_length"
RTU_OVER_TCP: Final = "rtu_over_tcp"
RTU_ECHO: Final = "rtu_echo"

FORGIVING: Final = frozenset({SPARE_BYTES, LONG_EXCEPTIONS, WRONG_BYTE_COUNT, FULL_ECHO, LOOSE_ECHO})
"""Those under which an answer that does not fit is looked at again."""

RTU_SECTION: Final = "MODBUS over Serial Line Specification V1.02, 2.5.1"
MAX_RTU: Final = 256
"""The longest RTU frame: unit, a PDU of 253 bytes, CRC (bytes)."""

_FIXED: Final = {5: 5, 6: 5, 7: 2, 11: 5, 15: 5, 16: 5, 22: 7}
"""Bytes of an answer's PDU that has always as many."""
_COUNTED: Final = frozenset({1, 2, 3, 4, 12, 17, 20, 21, 23})
"""Functions whose answers begin with a count of the bytes that follow."""


def _body_size(request: m.ModbusRequest) -> int:
    """Bytes after the function code that the answer to a request has; 0 where that is not known beforehand."""
    if isinstance(request, (m.ReadCoils, m.ReadDiscreteInputs)):
        return 1 + (request.count + 7) // 8
    if isinstance(request, (m.ReadHoldingRegisters, m.ReadInputRegisters)):
        return 1 + 2 * request.count
    if isinstance(request, m.ReadWriteMultipleRegisters):
        return 1 + 2 * request.read_count
    size = _FIXED.get(requests.function_of(request), 1)
    return size - 1


def _echo(request: m.ModbusRequest) -> bytes:
    """What the standard has a device answer to a write, after the function code; nothing for other requests."""
    if isinstance(request, m.WriteSingleCoil):
        return HH.pack(request.address, 0xFF00 if request.value else 0)
    if isinstance(request, m.WriteSingleRegister):
        return HH.pack(request.address, request.value)
    if isinstance(request, (m.WriteMultipleCoils, m.WriteMultipleRegisters)):
        return HH.pack(request.address, len(request.values))
    if isinstance(request, m.MaskWriteRegister):
        return HHH.pack(request.address, request.and_mask, request.or_mask)
    return b""


def forgiven(quirks: frozenset[str], pdu: bytes, request: m.ModbusRequest) -> m.ModbusResponse:
    """What a misfit says, as far as these quirks let it say something.

    Raises: Misfit, where it is one all the same.
    """
    kind = type(request)
    asked = requests.function_of(request)
    if pdu[0] == asked | 0x80:
        if LONG_EXCEPTIONS in quirks and len(pdu) > 2:
            pdu = pdu[:2]
        return responses.decode_exception(pdu, 1, len(pdu), asked)
    body, size, echo = pdu[1:], _body_size(request), _echo(request)
    if FULL_ECHO in quirks and echo and body == requests.ENCODERS[kind](0, request)[8:]:
        body = echo
    if SPARE_BYTES in quirks and 0 < size < len(body):
        body = body[:size]
    if WRONG_BYTE_COUNT in quirks and asked in _COUNTED and 1 < size == len(body):
        body = bytes((size - 1,)) + body[1:]
    if LOOSE_ECHO in quirks and echo and len(body) == len(echo):
        body = echo
    return responses.DECODERS[kind](body, 0, len(body), request)


def answer_size(pdu: bytes, request: m.ModbusRequest) -> int:
    """How many bytes the PDU has that begins so; 0 while that cannot be told; -1 where nothing tells it.

    `pdu` begins with the function code; what comes behind the answer may stand in it as well.
    """
    if not pdu:
        return 0
    function = pdu[0]
    if function & 0x80:
        return 2
    if function in _FIXED:
        return _FIXED[function]
    if function in _COUNTED:
        return 0 if len(pdu) < 2 else 2 + pdu[1]
    if function == 8 and isinstance(request, m.Diagnostics):
        return 3 + 2 * len(request.data)
    if function == 24:
        return 0 if len(pdu) < 3 else 3 + int.from_bytes(pdu[1:3], "big")
    if function == 43 and isinstance(request, m.ReadDeviceIdentification):
        if len(pdu) < 7:
            return 0
        at = 7
        for _ in range(pdu[6]):
            if len(pdu) < at + 2:
                return 0
            at += 2 + pdu[at + 1]
        return at
    return -1


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ 0xA001 if byte & 1 else byte >> 1
        found.append(byte)
    return tuple(found)


_CRC: Final = _table()


def crc(data: bytes) -> bytes:
    """The check of an RTU frame, as it stands behind it: low byte first (2.5.1.2)."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value.to_bytes(2, "little")


def rtu_frame(data: bytes, request: m.ModbusRequest) -> bytes | None:
    """The whole frame, without its CRC, at the front of `data`; None while more has to come.

    Raises: RemoteProtocolError, where there is none, and so none can follow.
    """
    size = answer_size(data[1:], request)
    if size == -1:  # nothing says how long it is, but for the check itself
        for end in range(4, min(len(data), MAX_RTU) + 1):
            if crc(data[: end - 2]) == data[end - 2 : end]:
                return data[: end - 2]
        if len(data) < MAX_RTU:
            return None
        raise RemoteProtocolError("an answer without an end: no CRC in it holds", section=RTU_SECTION, offset=0)
    if size == 0 or len(data) < size + 3:
        if size + 3 > MAX_RTU:
            raise RemoteProtocolError(f"an RTU frame of {size + 3} bytes", section=RTU_SECTION, offset=0)
        return None
    frame = data[: size + 1]
    if crc(frame) != data[size + 1 : size + 3]:
        raise RemoteProtocolError("the CRC of an RTU frame does not hold", section=RTU_SECTION, offset=size + 1)
    return frame


__all__ = [
    "FORGIVING", "RTU_ECHO", "RTU_OVER_TCP", "SPARE_BYTES", "WRONG_LENGTH", "Misfit", "answer_size", "crc", "forgiven",
    "rtu_frame",
]  # fmt: skip
