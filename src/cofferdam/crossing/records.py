"""Typed records to bytes and back, strictly.

A crossing carries members of one closed union of msgspec Structs. Decoding refuses an unknown type, a missing or
extra field, a value out of range and spare bytes; the half that meets one stops (`CrossingError`).
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from cofferdam.errors import CrossingError

R = TypeVar("R")


class RecordCodec(Generic[R]):
    """Encodes and decodes the members of one union. `limit` bounds a record's encoded size in bytes."""

    __slots__ = ("_decode", "encode", "limit")

    def __init__(self, union: Any, *, limit: int = 1 << 20) -> None:
        self._decode = msgspec.msgpack.Decoder(union).decode
        self.encode = msgspec.msgpack.Encoder().encode
        self.limit = limit

    def decode(self, data: bytes | memoryview) -> R:
        """One record from exactly these bytes.

        Raises:
            CrossingError: the bytes are not one record of the union.
        """
        try:
            record: R = self._decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CrossingError(f"a record was refused: {error}") from None
        return record
