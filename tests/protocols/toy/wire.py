"""A frame: the letter T, its length after these seven bytes (u16), an id (u32), and one message as MessagePack."""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.view import View

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
