"""How EtherNet/IP frames look from outside."""

from __future__ import annotations

from typing import Any

from cofferdam.model import Asset
from cofferdam.protocols.enip import wire
from cofferdam.protocols.enip.io import form_for
from cofferdam.protocols.enip.messages import LONGEST, IoData, OpenIo
from cofferdam.protocols.view import View

_SEQUENCE = 44
"""Where the sequence number of a SendUnitData stands, with its connection's address before it."""


class EnipView(View):
    """Frames of encapsulation. What ties an answer to a request is the sender context, or within a connection the
    sequence number; the answer is shown to a machine as if it had come outside a connection."""

    header = wire.SIZE

    def size(self, data: bytes | bytearray, at: int) -> int:
        """See View."""
        have = len(data) - at
        if (have > 1 and data[at + 1]) or (have > 0 and data[at] not in wire.COMMANDS):
            return -1
        if have >= 4 and int.from_bytes(data[at + 2 : at + 4], "little") > wire.MOST_DATA:
            return -1
        if have >= wire.SIZE and data[at + 20 : at + 24] != b"\0\0\0\0":
            return -1
        return wire.SIZE + int.from_bytes(data[at + 2 : at + 4], "little") if have >= wire.SIZE else 0

    def likely(self, frame: bytes, from_client: bool) -> bool:
        """See View. A reply's service has its highest bit, where there is a service."""
        service = _service(frame)
        return service < 0 or (service >= 0x80) != from_client

    def key(self, frame: bytes) -> bytes:
        """See View: session, and context or sequence number."""
        if frame[0] == wire.SEND_UNIT:
            return b"U" + frame[4:8] + frame[_SEQUENCE : _SEQUENCE + 2]
        return frame[:1] + frame[4:8] + frame[12:20]

    def unit(self, frame: bytes) -> int:
        """See View."""
        return -1

    def datagram(self, data: bytes) -> tuple[int, int] | None:
        """See View."""
        found = _packet(data)
        return None if found is None else (int.from_bytes(found[0][:4], "little"), len(found[1]))

    def stream_ids(self, frame: bytes) -> tuple[int, ...]:
        """See View: the two ids that a Forward Open's answer begins with."""
        at = 44  # after the CIP answer's four bytes, outside a connection
        if frame[0] != wire.SEND_RR or len(frame) < at + 8:
            return ()
        return int.from_bytes(frame[at : at + 4], "little"), int.from_bytes(frame[at + 4 : at + 8], "little")

    def frame_of(self, request: Any, asset: Asset | None, data: bytes) -> IoData | None:
        """See View."""
        found = _packet(data)
        form = form_for(request.item, asset) if isinstance(request, OpenIo) else None
        if found is None or form is None:
            return None
        skip = (2 if request.cls else 0) + (4 if form.run else 0)
        body = found[1]
        if len(body) != skip + form.out_size or form.out_size > LONGEST:
            return None
        return IoData(True, bool(body[skip - 4] & 1) if form.run else True, body[skip:])

    def rekey(self, frame: bytes, key: bytes) -> bytes:
        """See View: the answer as a SendRRData with another's context."""
        if key[:1] == b"U":
            return frame
        if frame[0] == wire.SEND_UNIT and len(frame) > _SEQUENCE + 2:
            body = wire.packet(((wire.NULL_ADDRESS, b""), (wire.UNCONNECTED, frame[_SEQUENCE + 2 :])))
            return wire.frame(wire.SEND_RR, int.from_bytes(key[1:5], "little"), key[5:13], body)
        return frame[:4] + key[1:5] + frame[8:12] + key[5:13] + frame[20:]


def _packet(data: bytes) -> tuple[bytes, bytes] | None:
    """The address and the data of an I/O packet."""
    try:
        items = wire.items_at(data, 0)
    except wire.BadPacket:
        return None
    if [kind for kind, _ in items] != [wire.SEQUENCED_ADDRESS, wire.CONNECTED] or len(items[0][1]) != 8:
        return None
    return items[0][1], items[1][1]


def _service(frame: bytes) -> int:
    """The service that a frame carries, as it stands there; -1 for none."""
    at = {wire.SEND_UNIT: _SEQUENCE + 2, wire.SEND_RR: 40}.get(frame[0], len(frame))
    return frame[at] if at < len(frame) else -1
