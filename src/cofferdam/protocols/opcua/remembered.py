"""Reads that come again and again: the same bytes mean the same, but for the time stamp and the handle in their header.

Both stand at fixed places behind the session's token, which is always one of ours. What is remembered is found by all
the other bytes; so nothing is taken for known that a decoder has not seen whole. Not here: decoding (wire).
"""

from __future__ import annotations

import struct
from typing import Any

from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire

MOST, LONGEST = 16, 1024
"""Requests that are remembered of one peer; bytes of one."""
_HEAD = b"\x01\x00\x77\x02\x05\x00\x00\x20\x00\x00\x00"
"""Of a Read with a token of ours (server): the encoding id 631, an opaque NodeId of 32 bytes in namespace 0."""
_AT = len(_HEAD) + 32
_VARIES = struct.Struct("<qI")
_AFTER = _AT + _VARIES.size


class Heard:
    """Requests of one client."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, s.ReadRequest] = {}

    def decode(self, data: bytes) -> Any:
        """What wire.decode makes of a request. Raises: as that does."""
        if len(data) > LONGEST or data[: len(_HEAD)] != _HEAD:
            return wire.decode(data, request=True)
        key = data[:_AT] + data[_AFTER:]
        known = self._known.get(key)
        if known is None:
            found = wire.decode(data, request=True)
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[key] = found
            return found
        timestamp, handle = _VARIES.unpack_from(data, _AT)
        head = known.header
        header = s.RequestHeader(
            head.token, timestamp, handle, head.diagnostics, head.audit, head.timeout, head.additional
        )
        return s.ReadRequest(header, known.age, known.stamps, known.nodes)
