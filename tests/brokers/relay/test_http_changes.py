"""What a request may, where keys and the policy change while it is under way; and requests that no record can carry,
or that need what a part can no longer load: each ends nothing but itself."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.brokers.relay.crew import RunningCrew, crew
from tests.waiting import PATIENT, eventually

COUNTS, ORDERS = "/v1/channels/counts", "/v1/channels/orders"


def _asked(relay: RunningCrew) -> bool:
    """The office side has a request under way, or has had one."""
    requests = relay.children["outer"].status().figures["http_requests"][""]
    return isinstance(requests, int) and requests >= 1


def _slow(relay: RunningCrew, path: str, length: int) -> socket.socket:
    """A push whose body has not come yet; the first byte has, so that the side waits for the rest."""
    sock = relay.raw("outer")
    head = f"PUT {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {relay.keys['erp']}\r\n"
    sock.sendall(f"{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n".encode() + b" ")
    return sock


@pytest.mark.parametrize("how", ["policy", "key"])
def test_a_body_that_was_allowed_when_it_began_is_asked_again(tmp_path: Path, how: str) -> None:
    body = b'{"quantity": 100}'
    with crew(tmp_path / "store") as relay, relay.client("lake") as lake:
        with _slow(relay, f"{ORDERS}/messages/slow", len(body) + 1) as sock:
            eventually(lambda: _asked(relay))
            if how == "policy":
                relay.reload(relay.policy(planner="lake"))
                eventually(lambda: "orders" in lake.get("/v1").json()["channels"])
            else:
                del relay.rows["erp"]
                relay.give("outer", relay.secrets("outer"))
            sock.sendall(body)
            assert sock.recv(16) == (b"HTTP/1.1 404 Not" if how == "policy" else b"HTTP/1.1 401 Una")
        assert lake.get("/v1").status_code == 200
        relay.ends_well()


def test_a_pull_that_waits_gets_nothing_once_its_key_is_revoked(tmp_path: Path) -> None:
    with crew(tmp_path / "store") as relay, relay.client("erp") as erp, relay.client("mes") as mes:
        got: list[Any] = []

        def wait() -> None:
            try:
                got.append(erp.post(f"{COUNTS}/lease", json={"wait": 20}).json())
            except httpx.TransportError as error:
                got.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        eventually(lambda: _asked(relay))
        del relay.rows["erp"]
        relay.give("outer", relay.secrets("outer"))
        assert mes.put(f"{COUNTS}/messages/late", json={"line": "L1", "n": 1}).status_code == 201
        waiting.join(PATIENT)
        assert isinstance(got[0], httpx.TransportError) or "messages" not in got[0], got
        relay.ends_well()


@pytest.mark.parametrize("lease", ["9223372036854775808", "9999999999999999999"])
def test_a_number_that_no_record_holds_is_refused_and_ends_nothing(tmp_path: Path, lease: str) -> None:
    with crew(tmp_path / "store") as relay, relay.client("erp") as erp:
        answer = erp.post(f"{COUNTS}/settle", json={"lease": lease, "done": [1]})
        assert (answer.status_code, answer.json()["type"]) == (400, "urn:cofferdam:relay:request")
        relay.ends_well()


def test_names_beyond_the_basic_plane_are_remade_under_the_filter(tmp_path: Path) -> None:
    message = {"quantity": 100, "\U0001f600": 1, "\ue000": 2, "\uffff": 3}
    with crew(tmp_path / "store") as relay, relay.client("erp") as erp, relay.client("mes") as mes:
        assert erp.put(f"{ORDERS}/messages/astral", json=message).status_code == 201
        [handed] = mes.post(f"{ORDERS}/lease", json={}).json()["messages"]
        assert list(handed["data"]) == ["quantity", "site", "\U0001f600", "\ue000", "\uffff"]
        relay.ends_well()
