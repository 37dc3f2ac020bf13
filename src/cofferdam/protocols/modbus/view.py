"""How Modbus TCP frames look from outside."""

from __future__ import annotations

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

    def key(self, frame: bytes) -> bytes:
        """The transaction id."""
        return frame[:2]

    def unit(self, frame: bytes) -> int:
        """See View."""
        return frame[6]

    def rekey(self, frame: bytes, key: bytes) -> bytes:
        """See View."""
        return key + frame[2:]
