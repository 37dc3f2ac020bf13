"""News as they go to clients: several who watch the same have them at once, in the same bytes.

The last ones are kept until the next come. Not here: what is kept for whom (subscriptions).
"""

from __future__ import annotations

from typing import Any

from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua.builtin import Writer
from cofferdam.protocols.opcua.builtin_types import Encoded
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
    data = names.data(sample, stamps)
    writer = Writer()
    writer.value(data)
    return Encoded(data.value, data.status, data.source_time, data.server_time, writer.made())
