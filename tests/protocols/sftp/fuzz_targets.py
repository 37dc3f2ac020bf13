"""Fuzz target: the SFTP machine understands, answers or refuses whatever comes, and never holds more than it may."""

from __future__ import annotations

import struct
from collections.abc import Hashable

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.sftp import messages as m
from cofferdam.protocols.sftp.machine import UNDER_WAY_MOST, Server
from tests.fuzz.engine import Target
from tests.protocols.sftp.packets import INIT, packet
from tests.protocols.sftp.test_machine import VECTORS


def seeds() -> list[bytes]:
    packets = [packet(kind, struct.pack(">I", index) + body) for index, (kind, body, _) in enumerate(VECTORS)]
    return [INIT + one for one in packets] + [INIT + b"".join(packets)]


def run(data: bytes) -> Hashable:
    server = Server()
    server.receive_data(data)
    seen: list[str] = []
    try:
        while (found := server.next_operation()) is not None:
            seen.append(type(found[1]).__name__)
            assert server.under_way <= UNDER_WAY_MOST
            server.answer(found[0], m.Status("failure", "no"))
    except RemoteProtocolError:
        seen.append("refused")
    server.data_to_send()
    return frozenset(seen)


TARGETS = [Target("sftp-server", seeds, run, tokens=(b"\0\0\0\x05\x01\0\0\0\x03", b"\0\0\0\x04\0\0\0\x07"))]
