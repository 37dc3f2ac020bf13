"""The protocols that Cofferdam speaks, by name. A new one is a folder beside this file and a line below.

A protocol is loaded when it is asked for: a part has that of its own broker, and none of the libraries of others.

Not here: anything that one of them does.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from cofferdam.protocols.base import Protocol

Protocols = Mapping[str, Protocol[Any, Any]]

PLACES = {
    "enip": "cofferdam.protocols.enip.operations:Enip",
    "modbus": "cofferdam.protocols.modbus.operations:Modbus",
    "opcua": "cofferdam.protocols.opcua.operations:OpcUa",
}
"""Where each is: "module:name"."""


class _Loaded(Mapping[str, Protocol[Any, Any]]):
    """Protocols that are made when they are first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Protocol[Any, Any]] = {}

    def __getitem__(self, key: str) -> Protocol[Any, Any]:
        found = self._made.get(key)
        if found is None:
            module, _, name = PLACES[key].partition(":")
            found = self._made[key] = getattr(importlib.import_module(module), name)()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


PROTOCOLS: Protocols = _Loaded()
"""By name. What speaks a protocol takes such a table, and this one by default: a test may bring another."""
