"""Bodies of messages: an encoding id, a structure, nothing after it (OPC 10000-6, 5.2.9). Not here: chunks
(channel)."""

from __future__ import annotations

from typing import Any

from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin import Reader, Writer
from cofferdam.protocols.opcua.builtin_types import EMPTY, Extension, Malformed, NodeId

EPOCH = 116_444_736_000_000_000
"""1970 in 100 ns since 1601."""
NO_EXTENSION = EMPTY
FAULT = 397


class Unsupported(Malformed):
    """A request for a service that is not spoken here; `header` is its header."""

    def __init__(self, number: int, header: s.RequestHeader) -> None:
        super().__init__(f"the service of encoding id {number} is not offered", 0x800B0000)
        self.header = header
        self.number = number


def encode(message: Any) -> bytes:
    """The body of a message."""
    number, write = s.WRITERS[type(message)]
    writer = Writer()
    writer.node(NodeId(0, number))
    write(writer, message)
    return writer.made()


def decode(data: bytes, *, request: bool) -> Any:
    """The message of a body. Raises: Malformed, and for a request of another service Unsupported."""
    reader = Reader(data)
    kind = reader.node()
    number = kind.id if kind.ns == 0 and isinstance(kind.id, int) else -1
    read = s.READERS.get(number)
    if read is None or number in _PARTS:
        if request:
            raise Unsupported(number, s.read_RequestHeader(reader))
        raise Malformed(f"a message of encoding id {number}")
    found = read(reader)
    reader.done()
    return found


_PARTS = frozenset({321, 324, 327, 649, 658, 811, 820, 724, 727, 736, 916, 594, 597, 603, 340, 864, 298})
"""Structures that stand in extension objects alone."""


def header_of(data: bytes) -> s.RequestHeader | None:
    """The header of a request that is no request otherwise: enough to answer it."""
    try:
        reader = Reader(data)
        reader.node()
        return s.read_RequestHeader(reader)
    except Malformed:
        return None


def pack(message: Any) -> Extension:
    """A structure in an ExtensionObject."""
    number, write = s.WRITERS[type(message)]
    writer = Writer()
    write(writer, message)
    return Extension(NodeId(0, number), writer.made())


def unpack(extension: Extension) -> Any:
    """The structure in an ExtensionObject, which fills it exactly; None for an empty one. Raises: Malformed."""
    number = extension.type.id
    if extension.body is None:
        return None
    if extension.type.ns or number not in _PARTS or not isinstance(number, int):
        raise Malformed(f"an ExtensionObject of type {number!r}")
    reader = Reader(extension.body)
    found = s.READERS[number](reader)
    reader.done()
    return found


def ticks(wall: int) -> int:
    """UTC ns in 100 ns since 1601."""
    return wall // 100 + EPOCH
