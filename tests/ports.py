"""Ports for tests: taken and held. A port that was free when looked at may be somebody else's by the time it is used.

A session of root has a network of its own in each worker (tests/conftest.py): there ports are allotted, one after the
other, below those that the kernel gives to who asks for any, and none is given twice.

Elsewhere the network is everybody's. A port is held there by a socket of this process, bound on all IPv4 addresses,
which never listens: while it is open, the kernel gives the port to nobody who asks for any. What a test starts may
listen on it all the same: both ends say SO_REUSEADDR, as servers do (asyncio, socket.create_server, Go, PostgreSQL,
sshd). So many are held at a time; by then what an older one was for has ended, or listens there itself.

Until something listens, and after it has ended, connections are refused.

Not here: a test that only wants a server of its own needs no held port: it listens on port 0 and asks which one it got.
"""

from __future__ import annotations

import collections
import socket
from pathlib import Path

ALONE = False
"""Whether this process has a network of its own: tests/conftest.py says so."""
_FIRST = 20_000
_HELD_AT_A_TIME = 100
_held: collections.deque[socket.socket] = collections.deque()
_last = _FIRST


def held_port() -> int:
    global _last
    if ALONE:
        kernels = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        _last += 1
        assert _last < kernels, "this session has used up its ports"
        return _last
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("", 0))
    _held.append(holder)
    if len(_held) > _HELD_AT_A_TIME:
        _held.popleft().close()
    return int(holder.getsockname()[1])


def held_ports(count: int) -> list[int]:
    return [held_port() for _ in range(count)]


def held_for_udp_too() -> tuple[socket.socket, socket.socket]:
    """UDP and listening TCP sockets on 127.0.0.1 with the same port: one that is free for TCP may be taken for UDP."""
    for _ in range(100):
        port = held_port()
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(("127.0.0.1", port))
        except OSError:
            udp.close()
            continue
        return udp, socket.create_server(("127.0.0.1", port))
    raise AssertionError("no port is free for both")
