"""kill -9 of either half of the OPC UA proxy, a plant that is not there, and one that comes back with its namespaces in
another order: told, nothing is written twice, and nothing is read under another's name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from asyncua import ua as types
from asyncua.client.client import Client

from tests.gate.plant import Gate, events, running
from tests.ports import held_ports
from tests.protocols.opcua.site import plant, policy
from tests.waiting import PATIENT, eventually, kill

ua: Any = types
LINE = "urn:plant:line"
logging.getLogger("asyncua").setLevel(logging.CRITICAL)


class Site:
    """A gate, and a plant that can be started anew."""

    def __init__(self, gate: Gate, plant_port: int, port: int) -> None:
        self.gate = gate
        self.port = port
        self._plant_port = plant_port
        self._plant = contextlib.ExitStack()

    def start(self, *options: str) -> None:
        self._plant.enter_context(plant(self._plant_port, *options))

    def stop(self) -> None:
        self._plant.close()

    def client(self) -> Client:
        return Client(f"opc.tcp://127.0.0.1:{self.port}", timeout=PATIENT)

    async def once(self, value: float) -> str:
        """Writes a value in a session of its own: "" or why not."""
        try:
            async with self.client() as client:
                await (await node(client, "Speed")).write_value(value)
        except (ua.UaError, OSError, TimeoutError, ConnectionError) as error:
            return type(error).__name__
        return ""


async def node(client: Any, name: str) -> Any:
    index = (await client.get_namespace_array()).index(LINE)
    return client.get_node(ua.NodeId(f"Line1.{name}", index))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("opcua")
    plant_port, port = held_ports(2)
    file = folder / "policy.yaml"
    file.write_text(policy(plant_port, port))
    with running(folder / "state", file) as gate:
        found = Site(gate, plant_port, port)
        found.start()
        try:
            yield found
        finally:
            found.stop()


class Handler:
    """What a subscription brings: whether each value was good, and which."""

    def __init__(self) -> None:
        self.statuses: list[bool] = []
        self.values: list[Any] = []
        self.events: list[str] = []

    def event_notification(self, event: Any) -> None:
        self.events.append(event.Message.Text.split()[0])

    async def event(self, word: str) -> None:
        """Waits for an event whose message begins so."""
        for _ in range(int(PATIENT * 20)):
            if word in self.events:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"no such event: {self.events}")

    def datachange_notification(self, _node: Any, value: Any, data: Any) -> None:
        self.statuses.append(data.monitored_item.Value.StatusCode.is_good())
        self.values.append(value)

    async def until(self, wanted: bool, after: int) -> None:
        for _ in range(int(PATIENT * 20)):
            if wanted in self.statuses[after:]:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"no {'good' if wanted else 'bad'} value came: {self.statuses[after:]}")


def test_an_asset_that_is_away_is_a_status_and_comes_back_with_other_numbers(site: Site) -> None:
    """The plant ends, and comes back with its namespaces swapped: the watch and the reads are of the same node."""

    async def work() -> None:
        async with site.client() as client:
            handler = Handler()
            subscription = await client.create_subscription(100, handler)
            level, speed = await node(client, "Level"), await node(client, "Speed")
            await subscription.subscribe_data_change(level)
            await subscription.subscribe_events(client.get_node(ua.NodeId("Line1", level.nodeid.NamespaceIndex)))
            await handler.until(True, 0)
            await handler.event("jam")
            assert await speed.read_value() >= 100.0
            service = client.get_node(ua.NodeId(2267, 0))
            assert await service.read_value() == 255
            seen = len(handler.statuses)
            await asyncio.to_thread(site.stop)
            await handler.until(False, seen)
            await handler.event("the")  # asset is away
            handler.events.clear()
            with pytest.raises(ua.UaStatusCodeError):
                await speed.read_value()
            assert await service.read_value() == 1, "no data: the plant is away"
            assert await client.get_node(ua.NodeId(2259, 0)).read_value() == 6, "communication fault"
            seen = len(handler.statuses)
            await asyncio.to_thread(site.start, "swap")
            await handler.until(True, seen)
            assert await service.read_value() == 255
            await handler.event("jam")
            assert handler.events[0] == "events", "events come again; some may be missing"
            answered: list[float] = []
            while len(answered) < 20:
                try:
                    answered.append(await speed.read_value())
                except ua.UaStatusCodeError:
                    await asyncio.sleep(0.05)
            assert set(answered) == {100.0}, "the other namespace's Speed is -1"
            assert all(value is None or value >= 0 for value in handler.values), "and so is its Level"

    asyncio.run(work())


def test_a_half_that_is_killed_is_started_anew_and_no_write_is_sent_twice(site: Site) -> None:
    gate = site.gate
    value = 100.0
    for role in ("outer", "inner"):
        before = gate.pid(role)

        async def killed_in_the_middle(role: str = role, value: float = value) -> None:
            async with site.client() as watcher:
                handler = Handler()
                subscription = await watcher.create_subscription(100, handler)
                await subscription.subscribe_data_change(await node(watcher, "Level"))
                async with asyncio.TaskGroup() as group:
                    for number in range(4):
                        group.create_task(site.once(value + number))
                    await asyncio.sleep(0.05)
                    kill(gate.pid(role))

        with contextlib.suppress(ua.UaError, OSError, TimeoutError, ConnectionError):
            asyncio.run(killed_in_the_middle())

        def writes(before: int = before, role: str = role) -> bool:
            return gate.pids().get(role) not in (None, before) and asyncio.run(site.once(150.0)) == ""

        eventually(writes)
    allowed = [entry["write"] for entry in events(gate.state, "write-allowed")]
    assert len(allowed) == len(set(allowed))
    outcomes = [entry["write"] for entry in events(gate.state, "write-outcome")]
    assert len(outcomes) == len(set(outcomes)) and set(outcomes) <= set(allowed)
