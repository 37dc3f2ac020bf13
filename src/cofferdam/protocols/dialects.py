"""Every protocol's dialect, by name. A new protocol adds one line."""

from __future__ import annotations

from cofferdam.protocols.dialect import Family
from cofferdam.protocols.modbus.dialect import MODBUS

FAMILIES: dict[str, Family] = {MODBUS.name: MODBUS}
"""By name: an asset's `protocol`, and the conduit's `broker` that speaks it."""
