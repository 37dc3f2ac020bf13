"""How OPC UA's messages look to a bystander. Not here: what they say (the machines)."""

from __future__ import annotations

import struct

from cofferdam.protocols.view import View

_KINDS = frozenset((b"HEL", b"ACK", b"ERR", b"OPN", b"MSG", b"CLO"))
_CLIENT, _SERVER = frozenset((b"HEL", b"CLO")), frozenset((b"ACK", b"ERR"))


class OpcUaView(View):
    """How frames look from outside."""

    header = 8

    def size(self, data: bytes | bytearray, at: int) -> int:
        head = bytes(data[at : at + 8])
        if len(head) < 8:
            return 0 if not head[:3] or any(kind.startswith(head[:3]) for kind in _KINDS) else -1
        size = struct.unpack_from("<I", head, 4)[0]
        if head[:3] not in _KINDS or head[3:4] not in b"FCA" or not 8 <= size <= 1 << 17:
            return -1
        return int(size)

    def likely(self, frame: bytes, from_client: bool) -> bool:
        return frame[:3] not in (_SERVER if from_client else _CLIENT)

    def key(self, frame: bytes) -> bytes:
        """The request id."""
        return frame[20:24] if frame[:3] in (b"MSG", b"CLO") else b""

    def unit(self, frame: bytes) -> int:
        return -1

    def rekey(self, frame: bytes, key: bytes) -> bytes:
        return frame if frame[:3] != b"MSG" or len(frame) < 24 else frame[:20] + key + frame[24:]
