"""How Modbus TCP frames look from outside."""

from __future__ import annotations

from cofferdam.protocols.modbus.quirks import crc
from cofferdam.protocols.view import View


class ModbusView(View):
    """Modbus TCP frames: an MBAP header of seven bytes, then function code and data (Messaging guide 1.0b, 3.1.3)."""

    header = 7

    def size(self, data: bytes | bytearray, at: int) -> int:
        """See View. Protocol id 0, length 2 to 254 (unit and 1 to 253 bytes of PDU)."""
        have = len(data) - at
        if (have > 2 and data[at + 2]) or (have > 3 and data[at + 3]) or (have > 4 and data[at + 4]):
            return -1
        if have < 6:
            return 0
        length = data[at + 5]
        return 6 + length if 2 <= length <= 254 else -1

    def likely(self, frame: bytes, from_client: bool) -> bool:
        """See View. A request's function code is 1 to 127, an answer's may have the exception bit."""
        function = frame[7] if from_client else frame[7] & 0x7F
        return 1 <= function <= 127

    def foreign(self, segment: bytes) -> str:
        """See View. A request of functions 1 to 6, 15 or 16 in an RTU frame, of its right length and with its CRC. A
        frame of Modbus TCP would have both by chance once in 65,536 of those that are 8 bytes long, which few are."""
        if not 8 <= len(segment) <= 256 or not 1 <= segment[1] <= 16:
            return ""
        size = 8 if segment[1] <= 6 else 9 + segment[6] if segment[1] in (15, 16) else 0
        if len(segment) != size or crc(segment[:-2]) != segment[-2:]:
            return ""
        return "Modbus RTU over TCP (serial frames with CRC), which is not read from captures"

    def key(self, frame: bytes) -> bytes:
        """The transaction id."""
        return frame[:2]

    def unit(self, frame: bytes) -> int:
        """See View."""
        return frame[6]

    def rekey(self, frame: bytes, key: bytes) -> bytes:
        """See View."""
        return key + frame[2:]
