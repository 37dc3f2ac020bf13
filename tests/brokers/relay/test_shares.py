"""Bodies that come slowly: whose they are is who runs out of room."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from cofferdam.brokers.relay.http_side import LIMITS
from tests.brokers.relay.crew import RunningCrew, crew

ORDERS = "/v1/channels/orders"
SLOW = 7
SIZE = LIMITS.bodies_bytes // SLOW - 4_000
"""Of each slow body: all of them together leave no room for 64 KiB more."""


def slow(relay: RunningCrew) -> socket.socket:
    """A batch of the lake's, of which the last byte does not come."""
    sock = relay.raw()
    head = f"POST {ORDERS}/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {relay.keys['lake']}\r\n"
    head += f"content-type: application/x-ndjson\r\ncontent-length: {SIZE}\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        sock.sendall(head.encode() + b" " * (SIZE - 1))
    return sock


def test_slow_bodies_of_one_principal_take_no_room_of_anothers(tmp_path: Path) -> None:
    with crew(tmp_path / "store", planner="[erp, lake]") as relay, contextlib.ExitStack() as stack:
        for _ in range(SLOW):
            stack.enter_context(slow(relay))
        with relay.client("erp") as erp, relay.client("lake") as lake:
            for number in range(20):
                order = {"quantity": 100, "note": "x" * 400_000}
                answer = erp.put(f"{ORDERS}/messages/large-{number}", json=order)
                assert answer.status_code == 201, answer.text
                # What is small goes even for the one whose share is used up.
                assert lake.post("/v1/channels/counts/lease", json={"max": 1}).status_code == 200
        figures = relay.children["outer"].status()
        assert figures.limits.get("bodies_share", 0) >= 1
