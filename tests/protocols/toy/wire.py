"""A frame: the letter T, its length after these seven bytes (u16), an id (u32), and one message as MessagePack."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from cofferdam.errors import RemoteProtocolError

HEAD = struct.Struct(">cHI")
LONGEST = 16_384
BOOK = "The toy's book, 1"

_encode = msgspec.msgpack.Encoder().encode


def frame(number: int, message: Any) -> bytes:
    body = _encode(message)
    if len(body) > LONGEST:
        raise ValueError(f"{len(body)} bytes, a frame has at most {LONGEST}")
    return HEAD.pack(b"T", len(body), number) + body


class Frames:
    """Bytes in, frames out."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def next(self) -> tuple[int, bytes] | None:
        """(id, body) of the next frame; None while it is not whole. Raises: RemoteProtocolError."""
        data = self.data
        if data and data[:1] != b"T":
            raise RemoteProtocolError(f"a frame begins with {data[0]:#x}", section=BOOK, offset=0)
        if len(data) < HEAD.size:
            return None
        _, size, number = HEAD.unpack_from(data)
        if size > LONGEST:
            raise RemoteProtocolError(f"a frame of {size} bytes", section=BOOK, offset=1)
        if len(data) < HEAD.size + size:
            return None
        self.data = data[HEAD.size + size :]
        return number, data[HEAD.size : HEAD.size + size]
