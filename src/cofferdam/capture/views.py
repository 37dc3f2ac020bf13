"""What a bystander needs to know of a protocol that its machines, which are ends of a connection, never tell.

A machine sees a stream from its first byte, and gives answers ids of its own. A capture starts anywhere, has holes, and
holds answers with the ids of the original client. So for each protocol a `View` says where a frame may start, how
long it is, and which of its bytes tie an answer to its request. Everything else is the machines' business.

Not here: parsing of requests and answers (protocols), finding the way back into a stream (conversation.py).
"""

from __future__ import annotations

import abc
from typing import Final

from cofferdam.protocols.registry import PROTOCOLS


class View(abc.ABC):
    """How frames of one protocol look from outside. Stateless."""

    header: int
    """Bytes from which a machine can tell a frame from something else."""

    @abc.abstractmethod
    def size(self, data: bytes | bytearray, at: int) -> int:
        """The length in bytes of the frame that starts at `at`; 0 if more bytes are needed to tell; -1 if no frame
        starts there."""

    @abc.abstractmethod
    def likely(self, frame: bytes, from_client: bool) -> bool:
        """Whether a whole frame that was found by searching looks like one of this direction."""

    @abc.abstractmethod
    def key(self, frame: bytes) -> bytes:
        """What an answer repeats of its request."""

    @abc.abstractmethod
    def unit(self, frame: bytes) -> int:
        """The unit that a frame addresses, -1 where the protocol has none."""

    @abc.abstractmethod
    def rekey(self, frame: bytes, key: bytes) -> bytes:
        """The frame with another key."""


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


VIEWS: Final[dict[str, View]] = {"modbus": ModbusView()}
"""Protocol name -> view. A protocol without one cannot be followed in captures; a test holds that none is missing."""


def default_ports() -> dict[int, str]:
    """Server port -> protocol, for every protocol that can be followed."""
    return {PROTOCOLS[name].default_port: name for name in VIEWS}
