"""Every protocol's dialect, by name. A new protocol adds one line.

Functions that read a policy take such a table and use this one by default: a test may bring another.
"""

from __future__ import annotations

from collections.abc import Mapping

from cofferdam.protocols.dialect import Dialect
from cofferdam.protocols.enip.dialect import ENIP
from cofferdam.protocols.modbus.dialect import MODBUS
from cofferdam.protocols.opcua.dialect import OPCUA

Dialects = Mapping[str, Dialect]

DIALECTS: Dialects = {
    dialect.name: dialect
    for dialect in (MODBUS, ENIP, OPCUA)
}  # fmt: skip
"""By name: an asset's `protocol`, and the conduit's `broker` that speaks it."""
