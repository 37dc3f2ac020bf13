"""Modbus on the wire: the MBAP header, the ways a frame can be wrong, and the packing of bits and words.

Request PDUs are in `requests`, response PDUs in `responses`. Every decoder there takes the whole receive buffer and
the bounds of one PDU in it, so that nothing is copied, and ends with "nothing is left over".

Not here: state (machine), meaning (operations).
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NoReturn

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.protocols.modbus.messages import ILLEGAL_VALUE, MAX_READ_WORDS, ExceptionCode

APPLICATION: Final = "MODBUS Application Protocol V1.1b3, "
GUIDE: Final = "MODBUS Messaging on TCP/IP Implementation Guide V1.0b, "
MBAP_SECTION: Final = GUIDE + "3.1.3"
PDU_SECTION: Final = APPLICATION + "4.1"
FUNCTION_SECTION: Final = APPLICATION + "5.1"
EXCEPTION_SECTION: Final = APPLICATION + "7"

MIN_LENGTH: Final = 2
"""Smallest MBAP length: unit and function code (bytes)."""
MAX_LENGTH: Final = 254
"""Largest MBAP length: unit and a PDU of 253 bytes (bytes)."""
MAX_ADU: Final = 260
"""A whole frame: 6 bytes that the length does not count, unit, PDU (bytes)."""

HEAD: Final = Struct(">HHHBB")
"""Transaction id, protocol id, length, unit, function code."""
H: Final = Struct(">H")
HH: Final = Struct(">HH")
HHH: Final = Struct(">HHH")
HHHH: Final = Struct(">HHHH")
WORDS: Final = tuple(Struct(f">{count}H") for count in range(MAX_READ_WORDS + 1))
"""WORDS[n] packs n registers."""


class RefusedRequest(Exception):
    """A request in a whole frame breaks the standard, which names an exception response for it. Stays in here:
    the server machine makes an event of it."""

    def __init__(self, code: ExceptionCode, section: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.section = section
        self.detail = detail


class Misfit(Exception):
    """A response in a whole frame breaks the standard or does not answer the request. Stays in here: the client
    machine makes an event of it."""

    def __init__(self, section: str, detail: str) -> None:
        super().__init__(detail)
        self.section = section
        self.detail = detail


def refuse(code: ExceptionCode, section: str, detail: str) -> NoReturn:
    """Refuses a request, naming a section of the application protocol."""
    raise RefusedRequest(code, APPLICATION + section, detail)


def refuse_length(section: str, function: int, expected: str, got: int) -> NoReturn:
    """Refuses a request whose PDU is longer or shorter than its content says: exception 03 is for a fault in the
    structure of the request, such as an implied length that is wrong (section 7)."""
    raise RefusedRequest(
        ILLEGAL_VALUE,
        APPLICATION + section,
        f"function {function}: {expected} bytes after the function code expected, {got} found",
    )


def misfit(section: str, detail: str) -> NoReturn:
    """Rejects a response, naming a section of the application protocol."""
    raise Misfit(APPLICATION + section, detail)


def head_error(protocol: int, length: int) -> RemoteProtocolError | None:
    """What is wrong with an MBAP header, if anything."""
    if protocol:
        return RemoteProtocolError(
            f"MBAP protocol id {protocol:#06x}: only 0 is Modbus", section=MBAP_SECTION, offset=2
        )
    if not MIN_LENGTH <= length <= MAX_LENGTH:
        return RemoteProtocolError(
            f"MBAP length {length}: must be {MIN_LENGTH} to {MAX_LENGTH}", section=MBAP_SECTION, offset=4
        )
    return None


def partial_error(data: bytes, at: int) -> RemoteProtocolError | None:
    """What is wrong already with a header of which fewer than 8 bytes are there. A wrong protocol id is seen as soon
    as it can be: a machine that waited for the rest could wait for ever."""
    have = len(data) - at
    if have >= 6:
        _, protocol, length = HHH.unpack_from(data, at)
        return head_error(protocol, length)
    if have >= 4:
        return head_error(HH.unpack_from(data, at)[1], MIN_LENGTH)
    return None


_BITS_OF: Final = tuple(bytes(byte >> place & 1 for place in range(8)) for byte in range(256)).__getitem__
_TO_DIGITS: Final = b"01" + bytes(254)


def unpack_bits(raw: bytes, count: int) -> tuple[int, ...]:
    """The first `count` bits, the lowest bit of the first byte first (6.1). Padding bits are dropped."""
    return tuple(b"".join(map(_BITS_OF, raw))[:count])


def pack_bits(values: tuple[int, ...]) -> bytes:
    """The inverse of `unpack_bits`; padding bits are 0.

    Raises: ValueError if a value is neither 0 nor 1.
    """
    digits = bytes(values).translate(_TO_DIGITS)[::-1]
    return int(digits, 2).to_bytes((len(values) + 7) >> 3, "little")


def unencodable(message: object, why: object) -> LocalProtocolError:
    """Our own side made a message that the wire cannot carry."""
    return LocalProtocolError(f"{type(message).__name__} cannot be encoded: {why}")
