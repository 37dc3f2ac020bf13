"""Builtin types as values (OPC 10000-6, 5.2.2), and what is wrong with bytes that are none.

NodeIds here are as on the wire, with the index of a namespace: what an index means is its owner's business (names).
Apart from their reader and writer (builtin), which are compiled: msgspec's structures are C already, and a module that
defines them cannot be (docs/adr/0020).
"""

from __future__ import annotations

import base64
import uuid
from typing import Any

import msgspec

from cofferdam.errors import CofferdamError

DEPTH = 10
"""Nesting of Variants, DiagnosticInfos and the like."""
OBJECTS = 20_000
"""Structures in one message: one byte on the wire can be an object in memory."""
TEXT_BYTES = 65_536
"""Of a string or byte string."""
SECTION = "OPC 10000-6, 5.2.2"
GOOD, BAD_DECODING, BAD_LIMITS = 0, 0x80070000, 0x80080000


class Malformed(CofferdamError):
    """A body that is no message. `status`: the code of the standard for it."""

    def __init__(self, message: str, status: int = BAD_DECODING) -> None:
        super().__init__(message)
        self.status = status


class NodeId(msgspec.Struct, frozen=True, gc=False):
    """As on the wire. `id`: a number, a text, 16 bytes with `kind` "g", bytes with "b". `uri` and `server` belong to
    ExpandedNodeIds alone."""

    ns: int
    id: int | str | bytes
    kind: str = "i"
    uri: str = ""
    server: int = 0


class QualifiedName(msgspec.Struct, frozen=True, gc=False):
    ns: int
    name: str | None


class LocalizedText(msgspec.Struct, frozen=True, gc=False):
    locale: str | None
    text: str | None


class Extension(msgspec.Struct, frozen=True, gc=False):
    """An ExtensionObject: its type and its body, or None."""

    type: NodeId
    body: bytes | None


class Variant(msgspec.Struct, frozen=True, gc=False):
    """`type` 1-25, 0 for null; `value` a list where `array`. `dimensions`: of a matrix."""

    type: int
    value: Any
    array: bool = False
    dimensions: tuple[int, ...] = ()


class Data(msgspec.Struct, frozen=True, gc=False):
    """A DataValue. Times in 100 ns since 1601; 0: none."""

    value: Variant | None = None
    status: int = 0
    source_time: int = 0
    server_time: int = 0


class Encoded(Data, frozen=True, gc=False):
    """One of which it is known how it is written."""

    wire: bytes = b""


NULL_NODE = NodeId(0, 0)
NULL = Variant(0, None)
EMPTY = Extension(NULL_NODE, None)


def show_node(node: NodeId) -> str:
    """A NodeId as people write it, with its index."""
    ident = node.id
    if isinstance(ident, bytes):
        ident = str(uuid.UUID(bytes_le=ident)) if node.kind == "g" else base64.b64encode(ident).decode()
    return f"ns={node.ns};{node.kind}={ident}"
