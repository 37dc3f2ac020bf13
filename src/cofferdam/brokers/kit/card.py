"""What a network card says of itself.

Not here: which card (policy).
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import sys
from typing import Final

_SIOCETHTOOL, _ETHTOOL_GSET, _ETHTOOL_BYTES = 0x8946, 1, 44
_UNKNOWN: Final = (0, 0xFFFF, 0xFFFFFFFF)


def speed_of(sock: socket.socket, interface: str) -> int:
    """Bits a second of an interface of the socket's network; 0 where it does not say."""
    said = array.array("B", _ETHTOOL_GSET.to_bytes(4, sys.byteorder) + bytes(_ETHTOOL_BYTES - 4))
    asked = struct.pack("16sP", interface.encode(), said.buffer_info()[0])
    try:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, asked)
    except OSError:
        return 0
    low, high = struct.unpack_from("=H", said, 12)[0], struct.unpack_from("=H", said, 28)[0]
    mbits = low | high << 16
    return 0 if mbits in _UNKNOWN else mbits * 1_000_000
