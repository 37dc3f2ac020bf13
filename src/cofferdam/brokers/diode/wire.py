"""Packets of the diode: a header of 26 bytes, and after it one shard of a block, an announcement, or a list of digests.

    offset  0  magic "CD", version, kind
            4  epoch (8), block (8)
           20  index, k, m (2 each)

A packet proves nothing by itself: whoever is on the wire can make one. It is held to the bounds here, and what it says
is trusted only when the seal of its block holds.

Not here: what is in a block (blocks), seals and keys (sealing), repair (coding).
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from cofferdam.errors import RemoteProtocolError

MAGIC: Final = b"CD\x01"
HEAD: Final = struct.Struct(">3sBQQHHH")
HEAD_BYTES: Final = HEAD.size
AT, AT_END = 20, 22
"""Where the index stands."""
PROMPT, BULK, HELLO, DIGESTS = 0, 1, 2, 3
"""Kinds of packets: shards of the two classes, the announcement of an epoch, digests of a block's packets."""
UDP_BYTES: Final = 28
"""Headers of IPv4 and UDP."""
STEP: Final = 64
"""Leopard's shards have a multiple of so many bytes."""
SHARD_MOST: Final = 8896
"""Bytes of the largest shard: a frame of 9,000."""
SHARDS_MOST: Final = 4096
"""Of one block, parity among them."""
BLOCK_BYTES: Final = 16 << 20
"""The largest block, sealed."""
PROMPT_SHARDS: Final = 32
"""Of one prompt block."""


def parity_most(k: int) -> int:
    """So many parity shards has a block of `k`, at most. To repair a block of few from thousands takes 50 ms, and two
    false packets would ask for it."""
    return 3 * k + 2


class Packet(NamedTuple):
    """One packet, within bounds."""

    kind: int
    epoch: int
    block: int
    at: int
    k: int
    m: int
    body: bytes


def shard_bytes(mtu: int, *, jumbo: bool = False) -> int:
    """The size of a shard for an interface's MTU. `jumbo`: frames larger than 1,500 bytes are used where they fit.

    Raises: ValueError, where not even the smallest shard fits.
    """
    room = min(mtu, 9000 if jumbo else 1500) - UDP_BYTES - HEAD_BYTES
    if room < STEP:
        raise ValueError(f"an MTU of {mtu} bytes is too small")
    return min(SHARD_MOST, room // STEP * STEP)


def pack(kind: int, epoch: int, block: int, index: int, k: int, m: int) -> bytes:
    """A header."""
    return HEAD.pack(MAGIC, kind, epoch, block, index, k, m)


def unpack(data: bytes) -> Packet:
    """One packet from exactly these bytes.

    Raises:
        RemoteProtocolError: it is none, or out of bounds.
    """
    if len(data) <= HEAD_BYTES:
        raise RemoteProtocolError("shorter than a header and something in it", section="diode")
    magic, kind, epoch, block, index, k, m = HEAD.unpack_from(data)
    if magic != MAGIC or kind > DIGESTS:
        raise RemoteProtocolError("no packet of this version", section="diode")
    size = len(data) - HEAD_BYTES
    if kind == HELLO:
        if block or index or k or m:
            raise RemoteProtocolError("an announcement with a block", section="diode")
        return Packet(kind, epoch, 0, 0, 0, 0, data[HEAD_BYTES:])
    most = SHARDS_MOST if kind != PROMPT else PROMPT_SHARDS
    if not k or k + m > most or m > parity_most(k) or index >= k + m:
        raise RemoteProtocolError(f"shard {index} of {k} + {m}", section="diode")
    if kind != DIGESTS and (size % STEP or size > SHARD_MOST or k * size > BLOCK_BYTES):
        raise RemoteProtocolError(f"{k} shards of {size} bytes", section="diode")
    return Packet(kind, epoch, block, index, k, m, data[HEAD_BYTES:])
