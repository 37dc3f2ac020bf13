"""Ports for tests: taken and held. A port that was free when looked at may be somebody else's by the time it is used.

A held port is bound by a socket of this process, on all IPv4 addresses, which never listens. Until the process ends the
kernel gives it to nobody who asks for any port, neither a server nor a client, in this network. What a test starts may
listen on it all the same: both ends say SO_REUSEADDR, as servers do (asyncio, socket.create_server, Go, PostgreSQL,
sshd). Until then, and after, connections to it are refused. No port is given twice.

Not here: a test that only wants a server of its own needs no held port: it listens on port 0 and asks which one it got.
"""

from __future__ import annotations

import socket

_HELD: list[socket.socket] = []


def held_port() -> int:
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("", 0))
    _HELD.append(holder)
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
