"""kill -9 of either half of the OPC UA proxy, and a plant that is not there: told, and nothing is written twice."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua as types
from asyncua.client.client import Client

from tests.gate.plant import events, running
from tests.ports import held_ports
from tests.protocols.opcua.site import plant, policy
from tests.waiting import PATIENT, eventually

ua: Any = types
LINE = "urn:plant:line"
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


async def speed(client: Any) -> Any:
    index = (await client.get_namespace_array()).index(LINE)
    return client.get_node(ua.NodeId("Line1.Speed", index))


async def once(port: int, value: float) -> str:
    """Writes a value in a session of its own: "" or why not."""
    try:
        async with Client(f"opc.tcp://127.0.0.1:{port}", timeout=PATIENT) as client:
            await (await speed(client)).write_value(value)
    except (ua.UaError, OSError, TimeoutError, ConnectionError) as error:
        return type(error).__name__
    return ""


async def read(port: int) -> float:
    async with Client(f"opc.tcp://127.0.0.1:{port}", timeout=PATIENT) as client:
        return float(await (await speed(client)).read_value())


def test_a_half_that_is_killed_is_started_anew_and_no_write_is_sent_twice(tmp_path: Path) -> None:
    plant_port, port = held_ports(2)
    file, state = tmp_path / "policy.yaml", tmp_path / "state"
    file.write_text(policy(plant_port, port))
    with plant(plant_port), running(state, file) as gate:
        value = 100.0
        for role in ("outer", "inner"):
            before = gate.pids()[role]

            async def killed_in_the_middle(role: str = role, value: float = value) -> None:
                async with asyncio.TaskGroup() as group:
                    for number in range(4):
                        group.create_task(once(port, value + number))
                    await asyncio.sleep(0.05)
                    os.kill(gate.pids()[role], signal.SIGKILL)

            asyncio.run(killed_in_the_middle())

            def writes(before: int = before, role: str = role) -> bool:
                return gate.pids().get(role) not in (None, before) and asyncio.run(once(port, 150.0)) == ""

            eventually(writes)
            assert asyncio.run(read(port)) == 150.0
        allowed = [entry["write"] for entry in events(state, "write-allowed")]
        assert len(allowed) == len(set(allowed))
        outcomes = [entry["write"] for entry in events(state, "write-outcome")]
        assert len(outcomes) == len(set(outcomes)) and set(outcomes) <= set(allowed)


def test_an_asset_that_is_away_is_a_status_and_the_watch_comes_back(tmp_path: Path) -> None:
    plant_port, port = held_ports(2)
    file = tmp_path / "policy.yaml"
    file.write_text(policy(plant_port, port))

    class Handler:
        def __init__(self) -> None:
            self.statuses: list[bool] = []

        def datachange_notification(self, _node: Any, _value: Any, data: Any) -> None:
            self.statuses.append(data.monitored_item.Value.StatusCode.is_good())

    async def until(handler: Handler, wanted: bool, after: int) -> None:
        for _ in range(int(PATIENT * 20)):
            if wanted in handler.statuses[after:]:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"no {'good' if wanted else 'bad'} value came: {handler.statuses[after:]}")

    async def work() -> None:
        first, second = plant(plant_port), plant(plant_port)
        await asyncio.to_thread(first.__enter__)
        async with Client(f"opc.tcp://127.0.0.1:{port}", timeout=PATIENT) as client:
            handler = Handler()
            subscription = await client.create_subscription(100, handler)
            index = (await client.get_namespace_array()).index(LINE)
            await subscription.subscribe_data_change(client.get_node(ua.NodeId("Line1.Level", index)))
            await until(handler, True, 0)
            await asyncio.to_thread(first.__exit__, None, None, None)
            seen = len(handler.statuses)
            await until(handler, False, seen)
            with pytest.raises(ua.UaStatusCodeError):
                await (await speed(client)).read_value()
            await asyncio.to_thread(second.__enter__)
            try:
                seen = len(handler.statuses)
                await until(handler, True, seen)
            finally:
                await asyncio.to_thread(second.__exit__, None, None, None)

    with running(tmp_path / "state", file):
        asyncio.run(work())
