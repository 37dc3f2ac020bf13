"""News as they go to clients: several who watch the same have them at once, in the same bytes.

The last ones are kept until the next come. Not here: what is kept for whom (subscriptions).
"""

from __future__ import annotations

import struct
from typing import Any

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.builtin import Writer
from cofferdam.protocols.opcua.builtin_types import Encoded, Variant
from cofferdam.protocols.opcua.names import Namespaces, weight
from cofferdam.values import Bool, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64


class Rendered:
    """Of all clients of a part."""

    __slots__ = ("_made", "_message")

    def __init__(self) -> None:
        self._message: Any = None
        self._made: dict[tuple[Any, ...], list[tuple[Encoded, int]]] = {}

    def of(self, message: m.Changed, stamps: int, names: Namespaces) -> list[tuple[Encoded, int]]:
        """The DataValues of these news, with about how many bytes each has. `stamps`: as in Namespaces.data."""
        if message is not self._message:
            self._message, self._made = message, {}
        key = (stamps, names.uris)  # a NodeId in a value is another where the namespaces are others
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = [(encoded(names, sample, stamps), weight(sample)) for sample in message.samples]
        return found


_LETTERS: dict[type, tuple[int, str]] = {
    Bool: (1, "?"), Int8: (2, "b"), UInt8: (3, "B"), Int16: (4, "h"), UInt16: (5, "H"), Int32: (6, "i"),
    UInt32: (7, "I"), Int64: (8, "q"), UInt64: (9, "Q"), Float32: (10, "f"), Float64: (11, "d"),
}  # fmt: skip
_FORMS: dict[tuple[str, int], struct.Struct] = {
    (letter, mask): struct.Struct("<BB" + letter + "I" * (mask >> 1 & 1) + "q" * (mask >> 2 & 1) + "q" * (mask >> 3))
    for _, letter in _LETTERS.values() for mask in range(1, 16, 2)
}  # fmt: skip
"""A single number as a DataValue, by its type and the mask of the fields that it has (OPC 10000-6, 5.2.2.17)."""


def encoded(names: Namespaces, sample: m.Sample, stamps: int) -> Encoded:
    """A DataValue, and how it is written."""
    value: Any = sample.value
    known = _LETTERS.get(type(value))
    if known is None or value.array:
        data = names.data(sample, stamps)
        writer = Writer()
        writer.value(data)
        return Encoded(data.value, data.status, data.source_time, data.server_time, writer.made())
    kind, letter = known
    number, status = value.values[0], sample.status
    source = sample.source if stamps in (0, 2) else 0
    server = sample.server if stamps in (1, 2) else 0
    rest = [one for one in (status, source, server) if one]
    mask = 1 | (status != 0) << 1 | (source != 0) << 2 | (server != 0) << 3
    wire = _FORMS[letter, mask].pack(mask, kind, number, *rest)
    return Encoded(Variant(kind, number), status, source, server, wire)
