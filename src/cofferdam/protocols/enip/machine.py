"""The two sides of a connection, without the connection: `EnipServer` towards clients, `EnipClient` towards assets.

The theory of each stands in its module (server, client).
"""

from cofferdam.protocols.enip.client import EnipClient
from cofferdam.protocols.enip.server import EnipServer

__all__ = ["EnipClient", "EnipServer"]
