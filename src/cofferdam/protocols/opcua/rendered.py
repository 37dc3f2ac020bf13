"""News as they go to clients: several who watch the same have them at once, in the same bytes.

The last ones are kept until the next come. Not here: what is kept for whom (subscriptions).
"""

from __future__ import annotations

from typing import Any

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import numbers
from cofferdam.protocols.opcua.builtin import Writer
from cofferdam.protocols.opcua.builtin_types import Data, Encoded, Variant
from cofferdam.protocols.opcua.names import Namespaces, weight


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


def encoded(names: Namespaces, sample: m.Sample, stamps: int) -> Encoded:
    """A DataValue, and how it is written."""
    wire = numbers.written(sample, stamps)
    if wire is None:
        data = names.data(sample, stamps)
        return Encoded(data.value, data.status, data.source_time, data.server_time, plainly(data))
    value: Any = sample.value
    source = sample.source if stamps in (0, 2) else 0
    server = sample.server if stamps in (1, 2) else 0
    return Encoded(Variant(numbers.KINDS[type(value)], value.values[0]), sample.status, source, server, wire)


def plainly(data: Data) -> bytes:
    """How any DataValue is written."""
    writer = Writer()
    writer.value(data)
    return writer.made()
