"""The plant on a real socket, asked by a real client: values follow the physics, every access is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pymodbus.client import AsyncModbusTcpClient

from cofferdam.errors import CofferdamError
from cofferdam.lab.water import events, plant, registers
from cofferdam.values import ValueType
from tests.waiting import PATIENT, comes_true


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def works(
    log: list[events.Event], clock: Callable[[], float]
) -> AsyncIterator[tuple[plant.RunningPlant, AsyncModbusTcpClient]]:
    async with plant.RunningPlant(plant.Settings(speed_up=1.0), log.append, clock=clock) as running:
        client = AsyncModbusTcpClient(running.address, port=running.port, retries=0, reconnect_delay=0, timeout=PATIENT)
        assert await client.connect()
        try:
            yield running, client
        finally:
            client.close()


def play(
    scene: Callable[[plant.RunningPlant, AsyncModbusTcpClient], Awaitable[None]], clock: Clock | None = None
) -> list[events.Event]:
    log: list[events.Event] = []

    async def main() -> None:
        async with works(log, clock or Clock()) as (running, client):
            await scene(running, client)

    asyncio.run(main())
    return log


def test_registers_follow_the_physics() -> None:
    clock = Clock()

    async def scene(running: plant.RunningPlant, client: AsyncModbusTcpClient) -> None:
        async def total() -> float:
            answer = await client.read_holding_registers(100, count=2, device_id=1)
            return registers.decode(ValueType.UINT32, answer.registers)

        async def level() -> float:
            answer = await client.read_input_registers(12, count=2, device_id=1)
            return registers.decode(ValueType.FLOAT32, answer.registers)

        first = await total()
        assert not (await client.write_register(200, 1500, device_id=1)).isError()
        clock.now += 300
        await comes_true(lambda: running.works.state.time >= clock.now)
        delivered = await total() - first
        assert delivered == pytest.approx(running.works.state.delivered * 1000 - first, abs=1)
        assert delivered > 300 * 60  # litres: more than 60 l/s at full speed
        assert await level() == pytest.approx(running.works.state.level, abs=0.02)
        assert running.works.state.level < 2.5

    play(scene, clock)


def test_every_access_is_on_record_with_its_peer() -> None:
    async def scene(running: plant.RunningPlant, client: AsyncModbusTcpClient) -> None:
        await client.write_register(200, 950, device_id=1)
        await client.write_coils(0, [True, False], device_id=1)
        await client.write_register(100, 1, device_id=1)
        await client.read_coils(0, count=3, device_id=1)

    log = play(scene)
    writes = [event for event in log if isinstance(event, events.Write)]
    assert [(w.function, w.space, w.address, w.values, w.taken) for w in writes] == [
        (6, "holding", 200, (950,), True),
        (15, "coil", 0, (1, 0), True),
        (6, "holding", 100, (1,), False),
    ]
    requests = [event for event in log if isinstance(event, events.Request)]
    assert [(r.peer, r.function, r.exception) for r in requests] == [
        ("127.0.0.1", 6, 0), ("127.0.0.1", 15, 0), ("127.0.0.1", 6, 2), ("127.0.0.1", 1, 0),
    ]  # fmt: skip
    assert requests[-1].values[:3] == (1, 0, 1)
    connections = [event.opened for event in log if isinstance(event, events.Connection)]
    assert connections[0] is True


@pytest.mark.parametrize("address", [99, 102, 201, 302, 0])
def test_cells_that_do_not_exist_are_refused_by_the_device(address: int) -> None:
    async def scene(running: plant.RunningPlant, client: AsyncModbusTcpClient) -> None:
        answer = await client.read_holding_registers(address, count=1, device_id=1)
        assert answer.isError() and answer.exception_code == 2

    play(scene)


def test_the_device_protects_nothing() -> None:
    """What the gate is for: anyone who reaches the device can switch its interlock off."""

    async def scene(running: plant.RunningPlant, client: AsyncModbusTcpClient) -> None:
        assert not (await client.write_coil(8, True, device_id=1)).isError()
        assert running.works.controls.trip_bypassed
        assert not (await client.write_register(200, 60000, device_id=1)).isError()
        assert running.works.controls.pump_speed == 60000

    play(scene)


def test_it_tells_who_it_is() -> None:
    async def scene(running: plant.RunningPlant, client: AsyncModbusTcpClient) -> None:
        answer = await client.read_device_information(read_code=1, device_id=1)
        assert answer.information[0] == b"Riverside Water"  # type: ignore[attr-defined]

    play(scene)


def test_a_taken_port_is_said() -> None:
    async def main() -> None:
        async with plant.RunningPlant(plant.Settings(), lambda _: None) as first:
            with pytest.raises(CofferdamError, match=f"{first.port}: address in use"):
                await plant.RunningPlant(plant.Settings(port=first.port), lambda _: None).__aenter__()

    asyncio.run(main())


def test_events_survive_their_journey() -> None:
    async def scene(running: plant.RunningPlant, client: AsyncModbusTcpClient) -> None:
        await client.write_register(200, 901, device_id=1)

    log = play(scene)
    assert len({type(event) for event in log}) >= 4
    for event in log:
        assert events.parse(events.encode(event)) == event
    with pytest.raises(CofferdamError, match="not an event"):
        events.parse('{"type": "unheard-of"}')
    command = events.Command("write", point="pump_speed", value=900)
    assert events.parse_command(events.command_line(command)) == command
    with pytest.raises(CofferdamError, match="not a command"):
        events.parse_command('{"do": "read", "extra": 1}')
