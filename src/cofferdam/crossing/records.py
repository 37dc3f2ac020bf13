"""Typed records to bytes and back, strictly.

A crossing carries members of one closed union of msgspec Structs. Decoding refuses an unknown type, a missing or
extra field, a value out of range and spare bytes; the half that meets one stops (`CrossingError`).
"""

from __future__ import annotations

from types import GenericAlias
from typing import Any, Generic, TypeVar

import msgspec

from cofferdam.crossing.framing import BATCH, Assembler
from cofferdam.errors import CrossingError

R = TypeVar("R")


class RecordCodec(Generic[R]):
    """Encodes and decodes the members of one union. `limit` bounds a record's encoded size in bytes.

    What decodes is made when the first comes: for all drafts that takes 12 ms, and most who hold the codec only send.
    """

    __slots__ = ("_decode", "_decode_many", "encode", "limit", "union")

    def __init__(self, union: Any, *, limit: int = 1 << 20) -> None:
        self.union = union
        self._decode: Any = None
        self._decode_many: Any = None
        self.encode = msgspec.msgpack.Encoder().encode
        self.limit = limit

    def decode(self, data: bytes | memoryview) -> R:
        """One record from exactly these bytes.

        Raises:
            CrossingError: the bytes are not one record of the union.
        """
        if self._decode is None:
            self._decode = msgspec.msgpack.Decoder(self.union).decode
        try:
            record: R = self._decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CrossingError(f"a record was refused: {error}") from None
        return record

    def decode_many(self, data: bytes | memoryview) -> list[R]:
        """The records of a batch, which is one MessagePack array of them. One that is wrong refuses them all.

        Raises:
            CrossingError: the bytes are not an array of records of the union.
        """
        if self._decode_many is None:
            self._decode_many = msgspec.msgpack.Decoder(GenericAlias(list, (self.union,))).decode
        try:
            records: list[R] = self._decode_many(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CrossingError(f"a batch of records was refused: {error}") from None
        return records


class Unpacker(Generic[R]):
    """The receiving end of a channel: packets to records, batches and frames alike."""

    __slots__ = ("_assembler", "_codec")

    def __init__(self, codec: RecordCodec[R]) -> None:
        self._codec = codec
        self._assembler = Assembler(codec.limit)

    def feed(self, packet: bytes) -> list[R]:
        """The records that this packet completes.

        Raises:
            CrossingError: the packet is no packet of this channel.
        """
        if packet[0] == BATCH:
            if not self._assembler.between:
                raise CrossingError("a batch in the middle of a record's chunks")
            return self._codec.decode_many(packet[1:])
        decode = self._codec.decode
        return [decode(data) for data in self._assembler.feed(packet)]
