"""How the toy's frames look to a bystander."""

from __future__ import annotations

from cofferdam.protocols.view import View
from tests.protocols.toy.wire import HEAD, LONGEST


class ToyView(View):
    """How frames look from outside."""

    header = HEAD.size

    def size(self, data: bytes | bytearray, at: int) -> int:
        if data[at : at + 1] != b"T":
            return -1
        if len(data) - at < HEAD.size:
            return 0
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        return HEAD.size + size if 0 < size <= LONGEST else -1

    def likely(self, frame: bytes, from_client: bool) -> bool:
        return True

    def key(self, frame: bytes) -> bytes:
        return frame[3:7]

    def unit(self, frame: bytes) -> int:
        return -1

    def rekey(self, frame: bytes, key: bytes) -> bytes:
        return frame[:3] + key + frame[7:]
