"""The protocols that Cofferdam speaks, by name. A new one is a folder beside this file and a line below.

Not here: anything that one of them does.
"""

from __future__ import annotations

from typing import Any

from cofferdam.protocols.base import Protocol
from cofferdam.protocols.modbus.operations import Modbus

PROTOCOLS: dict[str, Protocol[Any, Any]] = {
    protocol.name: protocol
    for protocol in (Modbus(),)
}  # fmt: skip
