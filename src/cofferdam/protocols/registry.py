"""The protocols that Cofferdam speaks, by name. A new one is a folder beside this file and a line below.

Not here: anything that one of them does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cofferdam.protocols.base import Protocol
from cofferdam.protocols.modbus.operations import Modbus

Protocols = Mapping[str, Protocol[Any, Any]]

PROTOCOLS: Protocols = {
    protocol.name: protocol
    for protocol in (Modbus(),)
}  # fmt: skip
"""By name. What speaks a protocol takes such a table, and this one by default: a test may bring another."""
