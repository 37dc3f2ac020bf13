"""An ICMP echo (RFC 792, RFC 4443), by the kind of socket that takes no right of its own: the kernel fills in
identifier and checksum, and lets nothing else be sent by it.

Not here: who may have such a socket (the namespace's ping_group_range, the firewall's rules).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Final

_HEAD: Final = struct.Struct(">BBHHH")
PAYLOAD_BYTES: Final = 32
LONGEST: Final = 2048
_KINDS: Final = {
    socket.AF_INET: (socket.IPPROTO_ICMP, 8, 0),
    socket.AF_INET6: (socket.IPPROTO_ICMPV6, 128, 129),
}
"""Protocol, type of the question, type of the answer."""


async def ask(address: str) -> None:
    """Until the answer is there: with the question's identifier, number and content. Whatever else comes is none.

    Raises:
        OSError: there is no way to the address, or this part is given no such socket.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    protocol, question, wanted = _KINDS[family]
    number, payload = int.from_bytes(os.urandom(2), "big"), os.urandom(PAYLOAD_BYTES)
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
    except PermissionError:
        raise OSError("no echo can be asked for: the kernel gives us no ICMP socket (ping_group_range)") from None
    with sock:
        sock.setblocking(False)
        sock.connect((address, 0))
        sock.send(_HEAD.pack(question, 0, 0, 0, number) + payload)
        identifier = sock.getsockname()[1]
        while True:
            data = await asyncio.get_running_loop().sock_recv(sock, LONGEST)
            if is_answer(data, wanted, identifier, number, payload):
                return
            await asyncio.sleep(0)  # a flood of others has no turn to itself


def is_answer(data: bytes, wanted: int, identifier: int, number: int, payload: bytes) -> bool:
    if len(data) < _HEAD.size:
        return False
    kind, code, _, its, counted = _HEAD.unpack_from(data)
    return (kind, code, its, counted) == (wanted, 0, identifier, number) and data[_HEAD.size :] == payload
