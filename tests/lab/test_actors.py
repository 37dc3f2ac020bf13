"""The actors against the bare plant, with no gate between: what they report is what the plant saw."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from cofferdam.errors import CofferdamError
from cofferdam.lab.water import actors, events, intruder, plant
from tests.waiting import PATIENT, comes_true

Seen = list[events.Event]


def play(scene: Callable[[actors.Target, Seen], Awaitable[None]]) -> Seen:
    """Run a scene against a plant; what the plant saw."""
    seen: Seen = []

    async def main() -> None:
        async with plant.RunningPlant(plant.Settings(), seen.append) as running:
            await scene(actors.Target(running.address, running.port, "127.10.5.11", timeout=PATIENT), seen)

    asyncio.run(main())
    return seen


def writes(seen: Seen) -> list[events.Write]:
    return [event for event in seen if isinstance(event, events.Write)]


def test_the_erp_reads_what_the_plant_answered() -> None:
    told: Seen = []

    async def scene(target: actors.Target, seen: Seen) -> None:
        session = actors.Session("erp", target, told.append)
        reading = asyncio.get_running_loop().create_task(actors.erp(session, pause=0.01))
        await comes_true(lambda: len(told) >= 10 or reading.done())
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        session.close()

    seen = play(scene)
    read = [event.values for event in told if isinstance(event, events.Experience)]
    answered = [event.values for event in seen if isinstance(event, events.Request)]
    assert len(read) > 6
    assert read[: len(answered) - 1] == answered[: len(answered) - 1]
    assert {event.peer for event in seen if isinstance(event, events.Connection)} == {"127.10.5.11"}


def test_a_driven_operator_does_what_it_is_told_once() -> None:
    told: Seen = []

    async def orders() -> AsyncIterator[events.Command]:
        yield events.Command("write", point="pump_speed", value=940)
        yield events.Command("read", point="pump_speed")
        yield events.Command("write", point="inlet_valve", value=0)
        yield events.Command("read", point="inlet_valve", count=2)

    async def scene(target: actors.Target, seen: Seen) -> None:
        await actors.drive(actors.Session("operator", target, told.append), orders())

    seen = play(scene)
    assert [(w.space, w.address, w.values) for w in writes(seen)] == [("holding", 200, (940,)), ("coil", 1, (0,))]
    outcomes = [(e.action, e.outcome, e.value) for e in told if isinstance(e, events.Experience)]
    assert outcomes == [
        ("write pump_speed", "ok", 940), ("read pump_speed", "ok", 940), ("write inlet_valve", "ok", 0),
        ("read inlet_valve", "ok", 0), ("read inlet_valve", "ok", 0),
    ]  # fmt: skip
    assert [e.command for e in told if isinstance(e, events.Done)] == ["write", "read", "write", "read"]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (events.Command("dance"), "no command 'dance'"),
        (events.Command("read", point="pumpspeed"), "no point 'pumpspeed'"),
        (events.Command("write", point="tank_level"), "cannot be written"),
    ],
)
def test_an_order_that_makes_no_sense_is_said(order: events.Command, words: str) -> None:
    async def orders() -> AsyncIterator[events.Command]:
        yield order

    async def scene(target: actors.Target, seen: Seen) -> None:
        session = actors.Session("operator", target, lambda _: None)
        with pytest.raises(CofferdamError, match=words):
            await actors.drive(session, orders())
        session.close()

    play(scene)


def test_a_device_exception_and_a_dead_end_are_told_apart() -> None:
    async def main() -> None:
        async with plant.RunningPlant(plant.Settings(), lambda _: None) as running:
            good = actors.Target(running.address, running.port, timeout=PATIENT)
            session = actors.Session("erp", good, lambda _: None)
            assert (await session.read("tank_level")).outcome == "ok"
            session.close()
            port = running.port
        dead = actors.Session("erp", actors.Target("127.0.0.1", port), lambda _: None)
        assert (await dead.read("tank_level")).outcome == "unreachable"

    asyncio.run(main())


def test_silence_and_a_closed_connection_are_told_apart() -> None:
    """A listener that takes connections and never answers; then one that closes at the first byte."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as rude:

        def hang_up() -> None:
            peer, _ = rude.accept()
            peer.recv(1)
            peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()

        async def main() -> None:
            for server, outcome, patience in ((silent, "timeout", 2.0), (rude, "closed", PATIENT)):
                target = actors.Target("127.0.0.1", server.getsockname()[1], timeout=patience)
                experience = await actors.Session("erp", target, lambda _: None).write("pump_speed", 900)
                assert experience.outcome == outcome, experience

        asyncio.run(main())
        thread.join()


def test_without_a_gate_the_intruder_gets_through() -> None:
    """The positive control for the tour: the same attempts against the bare device do the harm."""
    told: Seen = []

    async def scene(target: actors.Target, seen: Seen) -> None:
        guest = intruder.Intruder(target, told.append)
        summary = await guest.writes()
        assert summary.counts["ok"] >= 7
        assert str(target.port) in (await guest.ports()).detail.removeprefix("open: ").split(", ")
        assert (await guest.addresses(step=8192)).counts["ok"] > 0
        assert (await guest.functions()).counts["ok"] > 5
        assert (await guest.flood(1.5, connections=4)).counts["ok"] > 0

    seen = play(scene)
    harmed = {(w.space, w.address) for w in writes(seen) if w.taken}
    assert {("coil", 8), ("coil", 2), ("holding", 300), ("holding", 200)} <= harmed


def test_malformed_frames_are_each_named_and_different() -> None:
    frames = intruder.malformed_frames()
    assert len({frame for _, frame in frames}) == len(frames) == len({name for name, _ in frames})
    assert frames == intruder.malformed_frames()
    good = intruder.adu(b"\x03\0\xc8\0\x01")
    assert good not in [frame for _, frame in frames]
