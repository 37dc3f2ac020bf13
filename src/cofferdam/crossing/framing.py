"""How records lie in the packets of a channel. PURE.

A channel moves packets of at most PACKET bytes, each whole or not at all. A packet is a batch or a run of frames.
A batch, which is what a busy crossing carries, is

    BATCH  (1 byte), then a MessagePack array of records: made of records that are encoded already, decoded in one go

A frame is a kind (1 byte), a length (2 bytes, big-endian) and so many bytes:

    WHOLE  one record
    FIRST  the first chunk of a large record, behind the record's full length (4 bytes, big-endian)
    MORE   the next chunk of it; the record is complete when its full length is there

Chunks of one record follow each other with nothing in between. Whatever else arrives is a `CrossingError`.

Where a process at one end is another than before (a part that is born again by itself), a packet says so: ANEW (1 byte)
and the number of its life (4 bytes). What was begun before it is nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cofferdam.errors import CrossingError

PACKET: Final = 4096
"""Bytes. The kernel writes a pipe packet of up to PIPE_BUF = 4096 bytes atomically (pipe(7))."""
WHOLE, FIRST, MORE, BATCH, ANEW = 0, 1, 2, 3, 4
HEADER = 3
BATCH_HEADER: Final = 4
"""Bytes before the records of a batch: its kind, and MessagePack's "array 16" with the count."""
LARGEST_WHOLE = PACKET - HEADER


def mark(life: int) -> bytes:
    """The packet by which a life begins."""
    return bytes((ANEW,)) + life.to_bytes(4)


def frame(record: bytes) -> bytes:
    """The frame of a record that fits into one packet."""
    return b"\x00" + len(record).to_bytes(2, "big") + record


def pack(records: Sequence[bytes]) -> list[bytes]:
    """Packets that carry the records in order: small ones share a packet, large ones are chunked."""
    packets: list[bytes] = []
    current: list[bytes] = []
    room = PACKET
    for record in records:
        size = len(record) + HEADER
        if size > PACKET:
            if current:
                packets.append(b"".join(current))
                current, room = [], PACKET
            packets += _chunks(record)
            continue
        if size > room:
            packets.append(b"".join(current))
            current, room = [], PACKET
        current.append(frame(record))
        room -= size
    if current:
        packets.append(b"".join(current))
    return packets


def pack_batches(records: Sequence[bytes]) -> list[bytes]:
    """Packets that carry MessagePack-encoded records in order: small ones in batches, large ones chunked."""
    if len(records) == 1 and len(records[0]) <= PACKET - BATCH_HEADER:  # the rule where little is said
        return [b"\x03\xdc\x00\x01" + records[0]]
    packets: list[bytes] = []
    current: list[bytes] = []
    room = PACKET - BATCH_HEADER
    for record in records:
        size = len(record)
        if size > room:
            if current:
                packets.append(_batch(current))
                current, room = [], PACKET - BATCH_HEADER
            if size > room:
                packets += _chunks(record)
                continue
        current.append(record)
        room -= size
    if current:
        packets.append(_batch(current))
    return packets


def _batch(records: list[bytes]) -> bytes:
    return b"\x03\xdc" + len(records).to_bytes(2, "big") + b"".join(records)


def _chunks(record: bytes) -> list[bytes]:
    first = PACKET - HEADER - 4
    packets = [b"\x01" + (first + 4).to_bytes(2, "big") + len(record).to_bytes(4, "big") + record[:first]]
    for start in range(first, len(record), LARGEST_WHOLE):
        chunk = record[start : start + LARGEST_WHOLE]
        packets.append(b"\x02" + len(chunk).to_bytes(2, "big") + chunk)
    return packets


class Assembler:
    """Packets to records. `limit` bounds the size of one record in bytes."""

    __slots__ = ("_chunks", "_limit", "_total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._chunks = bytearray()  # one buffer: many small chunks must not cost more than they carry
        self._total = 0

    @property
    def between(self) -> bool:
        """No record has begun that is not complete."""
        return not self._total

    def feed(self, packet: bytes) -> list[bytes]:
        """The records that this packet completes.

        Raises:
            CrossingError: the packet is not a run of frames, or a record passes the limit.
        """
        size = len(packet)
        # Most packets hold one small record: the whole packet is its frame.
        if size >= HEADER and packet[0] == WHOLE and not self._total and (packet[1] << 8 | packet[2]) == size - HEADER:
            if size - HEADER > self._limit:
                raise CrossingError(f"a record of {size - HEADER} bytes; at most {self._limit} are allowed")
            return [packet[HEADER:]]
        records: list[bytes] = []
        at = 0
        while at < size:
            if size - at < HEADER:
                raise CrossingError(f"a packet ends within a frame's header, {size - at} bytes left over")
            kind = packet[at]
            length = packet[at + 1] << 8 | packet[at + 2]
            at += HEADER
            if length > size - at:
                raise CrossingError(f"a frame of {length} bytes in a packet that has {size - at} left")
            self._take(kind, packet[at : at + length], records)
            at += length
        return records

    def _take(self, kind: int, body: bytes, records: list[bytes]) -> None:
        if kind == WHOLE:
            if self._total:
                raise CrossingError("a record in the middle of another one's chunks")
            if len(body) > self._limit:
                raise CrossingError(f"a record of {len(body)} bytes; at most {self._limit} are allowed")
            records.append(body)
        elif kind == FIRST:
            if self._total:
                raise CrossingError("a record begins in the middle of another one's chunks")
            if len(body) < 5:
                raise CrossingError("a first chunk without its record's length")
            self._total = int.from_bytes(body[:4], "big")
            if self._total > self._limit:
                raise CrossingError(f"a record of {self._total} bytes; at most {self._limit} are allowed")
            self._chunks = bytearray(body[4:])
            self._finish(records)
        elif kind == MORE:
            if not self._total:
                raise CrossingError("a chunk that belongs to no record")
            if not body:
                raise CrossingError("an empty chunk")
            self._chunks += body
            self._finish(records)
        else:
            raise CrossingError(f"a frame of unknown kind {kind}")

    def _finish(self, records: list[bytes]) -> None:
        have = len(self._chunks)
        if have > self._total:
            raise CrossingError(f"chunks of {have} bytes for a record of {self._total}")
        if have == self._total:
            records.append(bytes(self._chunks))
            self._chunks, self._total = bytearray(), 0
