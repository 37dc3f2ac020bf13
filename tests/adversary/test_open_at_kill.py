"""A write that was under way when its part was killed, or the whole gate, has an end in the log."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from tests.gate.conftest import Site
from tests.gate.conftest import site as site
from tests.gate.plant import Client, events, running
from tests.waiting import eventually, kill


def outcomes(state: Path) -> dict[str, str]:
    return {event["write"]: event["outcome"] for event in events(state, "write-outcome")}


def begun(state: Path) -> list[str]:
    return [event["write"] for event in events(state, "write-allowed")]


def test_a_write_that_is_open_at_a_kill_is_closed_as_unknown(site: Site) -> None:
    held = threading.Event()
    reply = site.device._reply

    def hanging(pdu: bytes) -> bytes:
        if pdu[0] == 16:
            site.device.writes.append(0)
            held.wait()
        return reply(pdu)

    site.device._reply = hanging  # type: ignore[method-assign]
    site.policy.write_text(site.text().replace("timeout: 20 s", "timeout: 60 s"))

    def attempt() -> None:
        with contextlib.suppress(OSError), Client(site.port) as client:
            client.write(7)

    try:
        with running(site.state, site.policy) as gate:
            for number, victim in enumerate((gate.pids()["inner"], gate.process.pid), 1):
                writer = threading.Thread(target=attempt, daemon=True)
                writer.start()
                eventually(lambda number=number: len(site.device.writes) == number)  # type: ignore[misc]
                kill(victim)
                writer.join()
                if number == 1:
                    eventually(lambda: list(outcomes(site.state).values()) == ["unknown"])
                    gate.wait_ready()
        with running(site.state, site.policy):
            eventually(lambda: list(outcomes(site.state).values()) == ["unknown"] * 2)
            assert sorted(outcomes(site.state)) == sorted(begun(site.state))
    finally:
        held.set()
