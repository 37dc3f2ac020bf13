"""The two ends of a connection: a whole server towards clients, a whole client towards an asset.

Not here: their theory, which stands on top of each (server, client).
"""

from __future__ import annotations

from cofferdam.protocols.opcua.client import OpcUaClient
from cofferdam.protocols.opcua.server import OpcUaServer

__all__ = ["OpcUaClient", "OpcUaServer"]
