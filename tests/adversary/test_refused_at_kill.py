"""A refused write that was answered is on record, one by one or as one of a count, though what refused it is killed."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.conftest import Site
from tests.gate.plant import SPEED, events, running
from tests.waiting import PATIENT, eventually, kill

NOWHERE = 4000
"""A register that no rule names: the outer half refuses it."""
AT_ONCE = 8
ANSWERED = 600
"""Refused writes that were answered before the kill: far more than have entries of their own."""


class Flood(threading.Thread):
    """Writes that are refused, several at once on one connection, until that ends."""

    def __init__(self, port: int, register: int) -> None:
        super().__init__(daemon=True)
        self.sent = self.refused = 0
        self._register = register
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENT)

    def run(self) -> None:
        frames = b"".join(
            struct.pack(">HHHBBHHBI", number, 0, 11, 1, 16, self._register, 2, 4, number) for number in range(AT_ONCE)
        )
        with contextlib.suppress(OSError), self._socket as sock:
            while True:
                self.sent += AT_ONCE
                sock.sendall(frames)
                for _ in range(AT_ONCE):
                    self._answer(sock)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _answer(self, sock: socket.socket) -> None:
        data = b""
        while len(data) < 9:
            piece = sock.recv(9 - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        if data[7] == 0x90:
            self.refused += 1
        else:  # the few that are done
            sock.recv(3, socket.MSG_WAITALL)


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("flooded"))
    text = site.text(extra="limits: {client_refusals_per_connection: 1000000}")
    site.policy.write_text(text.replace("type: uint32}", "type: uint32, writes_per_minute: 1}"))
    with running(site.state, site.policy) as gate:
        site.gate = gate
        yield site
    site.device.close()


def recorded(state: Path) -> int:
    """Refused writes that the log knows of."""
    one_by_one = sum(bool(event["is_write"]) for event in events(state, "refused"))
    return one_by_one + sum(int(event["count"]) for event in events(state, "refused-many") if event.get("is_write"))


@pytest.mark.parametrize(
    ("victim", "register"), [("outer", NOWHERE), ("inner", SPEED), ("auditor", NOWHERE), ("gate", NOWHERE)]
)
def test_what_was_answered_is_on_record_after_a_kill(flooded: Site, victim: str, register: int) -> None:
    site = flooded
    site.up.wait_ready()
    before = recorded(site.state)
    floods = [Flood(site.port, register) for _ in range(3)]
    for flood in floods:
        flood.start()
    eventually(lambda: sum(flood.refused for flood in floods) >= ANSWERED)
    kill(site.up.pid(victim))
    if victim == "auditor":  # which its clients do not notice
        site.up.wait_ready()
        for flood in floods:
            flood.hang_up()
    for flood in floods:
        flood.join(PATIENT)
    answered, sent = sum(flood.refused for flood in floods), sum(flood.sent for flood in floods)
    if victim == "gate":  # the last of them: the launcher ends all, and nobody starts anything anew
        assert site.up.process.wait(PATIENT)
        assert answered <= recorded(site.state) - before <= sent
        return
    eventually(lambda: recorded(site.state) - before >= answered)
    site.up.wait_ready()
    assert recorded(site.state) - before <= sent
