"""When the leak probe's turn is, by a clock of the test's own; and what is said when it does not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cofferdam.audit.entry import Draft
from cofferdam.audit.events.proof import LeakProbeSet
from cofferdam.enforce.orders import Prepared
from cofferdam.errors import GateError
from cofferdam.gate.log import Log
from cofferdam.gate.watch.leaks import ALARM, FIRST_ROUND_SECONDS, GRACE_SECONDS, LeakProbe, spoken
from tests.gate.conftest import Site

T = TypeVar("T")


@dataclass
class Around:
    """What the probe asks of a gate, and a clock that only the test moves."""

    separation: Prepared = field(default_factory=lambda: Prepared(0, "namespaces", ()))
    log: Log = field(default_factory=Log)
    alarms: dict[str, str] = field(default_factory=dict)
    noted: list[Draft] = field(default_factory=list)
    now: float = 1000.0

    def alarm(self, name: str, detail: str) -> None:
        self.alarms.pop(name, None)
        if detail:
            self.alarms[name] = detail

    def note(self, draft: Draft) -> None:
        self.noted.append(draft)

    def probe(self) -> LeakProbe:
        return LeakProbe(self, lambda: self.now)  # type: ignore[arg-type]


def go(work: Callable[[Around], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work(Around()))


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_first_turn_comes_soon_and_the_next_an_interval_after_it() -> None:
    async def work(around: Around) -> None:
        probe = around.probe()
        probe.set(300)
        around.now += FIRST_ROUND_SECONDS
        assert await probe.turn()
        probe.told("")
        second = start(probe.turn())
        around.now += 299
        probe.told("")  # whatever wakes it, it is not due
        await settle()
        assert not second.done()
        around.now += 1
        probe.told("")
        assert await second

    go(work)


def test_a_shorter_interval_holds_for_a_turn_that_is_waited_for_and_off_holds_it_back() -> None:
    async def work(around: Around) -> None:
        probe = around.probe()
        probe.set(300)
        around.now += FIRST_ROUND_SECONDS
        assert await probe.turn()
        waits = start(probe.turn())
        around.now += 60
        probe.set(0)
        await settle()
        assert not waits.done() and not probe.report().works and "OFF" in probe.report().detail
        around.now += 100_000
        probe.set(600)
        assert await waits, "it was due long ago by any interval"
        waits = start(probe.turn())
        around.now += 30
        probe.set(10)
        assert await waits
        probe.set(10)
        said = [draft.seconds for draft in around.noted if isinstance(draft, LeakProbeSet)]
        assert said == [300, 0, 600, 10], "each interval is recorded once"

    go(work)


def test_rounds_that_do_not_come_are_an_alarm_until_one_does() -> None:
    async def work(around: Around) -> None:
        probe = around.probe()
        probe.set(60)
        watch = start(probe.watch())
        around.now += 60 + GRACE_SECONDS - 1
        probe._wake()
        await settle()
        assert not around.alarms
        around.now += 1
        probe._wake()
        await settle()
        assert "no round of the leak probe for 3 min" in around.alarms[ALARM]
        assert not probe.report().works
        probe.told("")
        assert not around.alarms and probe.report().works and probe.report().last_ns
        probe.told("no right to")
        assert around.alarms == {ALARM: "no right to"} and probe.report().detail == "no right to"
        probe.set(0)
        around.now += 100_000
        await settle()
        assert not around.alarms, "what is off is not missed"
        probe.end()
        await watch

    go(work)


def test_one_process_has_the_turns_and_none_waits_for_a_gate_that_stops() -> None:
    async def work(around: Around) -> None:
        probe = around.probe()
        probe.set(60)
        first = start(probe.turn())
        await settle()
        second = start(probe.turn())
        with pytest.raises(GateError, match="another process"):
            await first
        probe.end()
        with pytest.raises(GateError, match="stops"):
            await second

    go(work)


def test_without_namespaces_there_are_no_turns() -> None:
    async def work(around: Around) -> None:
        around.separation = Prepared(0, "processes", ())
        probe = around.probe()
        probe.set(60)
        assert not await probe.turn()
        assert not around.noted and not probe.report().works and "no IT side" in probe.report().detail

    go(work)


def test_durations_are_spoken_in_the_unit_that_fits() -> None:
    assert [spoken(n) for n in (10, 90, 300, 3600, 5400, 86_400, 4000)] == [
        "10 s", "90 s", "5 min", "1 h", "90 min", "24 h", "66 min",
    ]  # fmt: skip


def test_a_gate_without_namespaces_keeps_no_process_for_it(calm: Site) -> None:
    launcher = calm.up.process.pid
    children = {int(word) for word in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()}
    assert children == set(calm.up.pids().values())
