"""Fuzz target: the telnet machine shows, answers or refuses whatever an asset says, and holds little."""

from __future__ import annotations

from collections.abc import Hashable

from cofferdam.errors import RemoteProtocolError
from cofferdam.protocols.telnet.machine import Client
from tests.fuzz.engine import Target
from tests.protocols.telnet.test_machine import SAID


def seeds() -> list[bytes]:
    return [said for _, said, _, _ in SAID]


def run(data: bytes) -> Hashable:
    client = Client("xterm")
    try:
        shown = client.receive_data(data)
    except RemoteProtocolError:
        return "refused"
    answer = client.data_to_send()
    assert len(shown) <= len(data)
    assert len(answer) <= 16 * len(data) + 64
    return frozenset({(answer[at : at + 2]) for at in range(0, len(answer), 3)}), bool(shown)


TARGETS = [Target("telnet-client", seeds, run, tokens=(b"\xff\xfa", b"\xff\xf0", b"\xff\xfd\x18"))]
