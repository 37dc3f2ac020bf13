"""What was seen to expire stays expired, whatever the clock says afterwards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cofferdam.errors import GateError
from cofferdam.gate import expiry, state
from cofferdam.gate.expiry import Expiries
from cofferdam.model import Deny, Fault, Operation, Span
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.zones import end_of_day
from tests.gate.conftest import Site
from tests.gate.plant import Client, cli, policy_text, running

DATE = "2090-01-31"
END = end_of_day(DATE, "UTC")
ROAD = "plc-road"


def policy(date: str = DATE) -> CompiledPolicy:
    text = policy_text({"plc": (502, 1502)}).replace("reason: for the test", f"reason: r\n    expires: {date}")
    return compile_policy(loads(text), now_ns=0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    at = SimpleNamespace(now=END - 1)
    monkeypatch.setattr(expiry, "now_ns", lambda: at.now)
    return at


def allowed(held: CompiledPolicy, wall: int) -> bool:
    flow = held.flow("modbus", "127.0.0.1", "plc")
    assert not isinstance(flow, Deny)
    verdict = flow.decide(Operation(3, -1, 1, False, reads=(Span("holding", 0, 1),)), wall)
    assert not isinstance(verdict, Deny) or verdict.fault is Fault.EXPIRED
    return not isinstance(verdict, Deny)


def test_an_expiry_that_was_seen_once_holds(tmp_path: Path, clock: Any) -> None:
    before = Expiries(tmp_path).hold(policy())
    assert allowed(before, clock.now) and not (tmp_path / "expired.json").exists()
    clock.now = END
    held = Expiries(tmp_path).hold(policy())
    clock.now = END - 10**15  # set back
    for found in (held, CompiledPolicy.from_bytes(held.to_bytes()), Expiries(tmp_path).hold(policy())):
        assert not allowed(found, clock.now)
    assert held.hash == before.hash
    assert allowed(Expiries(tmp_path).hold(policy("2090-02-01")), clock.now)


def test_a_file_that_nobody_understands_opens_nothing(tmp_path: Path, clock: Any) -> None:
    (tmp_path / "expired.json").write_text("{")
    found = Expiries(tmp_path)
    assert found.damage and not allowed(found.hold(policy()), clock.now)
    assert (tmp_path / "expired.json").read_text() == "{"


def test_a_running_gate_sees_it_and_tells_its_crews(
    tmp_path: Path, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    alarms: dict[str, str] = {}
    stopped = asyncio.Event()

    class Crew:
        plan = SimpleNamespace(spots=())

        async def take_policy(self, *_: Any) -> bool:
            told.append(allowed(gate.policy, END - 10**15))
            stopped.set()
            return True

    def alarm(name: str, detail: str) -> None:
        alarms[name] = detail

    def set_policy(fresh: CompiledPolicy, _path: Path) -> None:
        gate.policy = gate.base = fresh

    gate: Any = SimpleNamespace(
        expiries=Expiries(tmp_path), policy=policy(), base=policy(), policy_path=tmp_path, policy_loaded_ns=7,
        changing=asyncio.Lock(), crews={"one": Crew()}, listeners=SimpleNamespace(of=lambda _: {}), alarms={},
        set_policy=set_policy, alarm=alarm,
    )  # fmt: skip
    clock.now = END

    def full(*_: Any) -> None:
        raise GateError("no room")

    monkeypatch.setattr(state, "save_expired", full)
    asyncio.run(expiry.watch(gate, stopped))
    assert told == [False] and gate.policy_loaded_ns == 7
    assert alarms[expiry.NOT_DURABLE] == "no room"


def test_a_gate_that_is_started_with_a_clock_that_was_set_back(site: Site) -> None:
    site.state.mkdir(parents=True)
    text = site.text().replace("reason: for the test", f"reason: r\n    expires: {DATE}")
    (site.state / "expired.json").write_text(json.dumps({"format": 1, "expired": {ROAD: END}}))
    site.policy.write_text(text)
    with running(site.state, site.policy) as gate:
        said = gate.status()["conduits"][0]["standing"]
        assert not said["open"] and said["says"].startswith("EXPIRED")
        with Client(site.port) as client:
            assert client.read()[0] == 0x83
        assert cli("reload", "--state", site.state)[0] == 0
        assert not gate.status()["conduits"][0]["standing"]["open"]
        site.policy.write_text(text.replace(DATE, "2090-02-01"))
        assert cli("reload", "--state", site.state)[0] == 0
        assert gate.status()["conduits"][0]["standing"]["open"]
        with Client(site.port) as client:
            assert client.read()[0] == 3
