"""When the leak probe's turn is, by a clock of the test's own; and what is said when it does not come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cofferdam.audit.entry import Draft
from cofferdam.audit.events.proof import LeakFound, LeakProbeSet
from cofferdam.enforce.orders import Prepared
from cofferdam.enforce.statefolder import BUSY
from cofferdam.errors import GateError
from cofferdam.gate.log import Log
from cofferdam.gate.watch import leaks
from cofferdam.gate.watch.leaks import ALARM, FIRST_ROUND_SECONDS, GRACE_SECONDS, LeakProbe, spoken
from tests.gate.conftest import Site
from tests.waiting import comes_true

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

    rounds: int = 0
    ended: int = 0
    hangs: bool = False
    answer: tuple[list[str], dict[str, str]] | GateError = field(default_factory=lambda: (["plc"], {}))
    made: list[LeakProbe] = field(default_factory=list)

    async def round(self, _: object) -> tuple[list[str], dict[str, str]]:
        self.rounds += 1
        try:
            if self.hangs:
                await asyncio.sleep(3600)
        finally:
            self.ended += 1
        if isinstance(self.answer, GateError):
            raise self.answer
        return self.answer

    def probe(self) -> LeakProbe:
        self.made.append(LeakProbe(self, lambda: self.now, self.round))  # type: ignore[arg-type]
        return self.made[0]

    async def later(self, seconds: float) -> None:
        """So much later."""
        await settle()
        self.now += seconds
        self.made[0]._wake()
        await settle()


def go(work: Callable[[Around], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work(Around()))


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_first_round_comes_soon_and_the_next_an_interval_after_it() -> None:
    async def work(around: Around) -> None:
        probe = around.probe()
        probe.set(300)
        working = start(probe.work())
        await around.later(FIRST_ROUND_SECONDS - 1)
        assert around.rounds == 0
        await around.later(1)
        assert around.rounds == 1 and probe.report().works and probe.report().last_ns
        await around.later(299)
        assert around.rounds == 1
        await around.later(1)
        assert around.rounds == 2
        probe.end()
        await working

    go(work)


def test_a_shorter_interval_holds_at_once_and_off_holds_rounds_back() -> None:
    async def work(around: Around) -> None:
        probe = around.probe()
        probe.set(300)
        working = start(probe.work())
        await around.later(FIRST_ROUND_SECONDS)
        await around.later(60)
        probe.set(0)
        await around.later(100_000)
        assert around.rounds == 1 and not probe.report().works and "OFF" in probe.report().detail
        probe.set(600)
        await settle()
        assert around.rounds == 2, "it was due long ago by any interval"
        await around.later(30)
        probe.set(10)
        await settle()
        assert around.rounds == 3
        probe.set(10)
        said = [draft.seconds for draft in around.noted if isinstance(draft, LeakProbeSet)]
        assert said == [300, 0, 600, 10], "each interval is recorded once"
        probe.end()
        await working

    go(work)


def test_a_round_that_cannot_be_is_an_alarm_until_one_can() -> None:
    async def work(around: Around) -> None:
        around.answer = GateError("no packet socket")
        probe = around.probe()
        probe.set(60)
        working = start(probe.work())
        await around.later(FIRST_ROUND_SECONDS)
        assert around.alarms == {ALARM: "no packet socket"} and not probe.report().works
        assert probe.report().detail == "no packet socket"
        around.answer = (["plc"], {})
        await around.later(60)
        assert not around.alarms and probe.report().works
        probe.end()
        await working

    go(work)


def test_what_leaks_is_an_alarm_and_one_entry_until_it_is_over() -> None:
    async def work(around: Around) -> None:
        around.answer = (["plc", "drive"], {"plc": "ARP"})
        probe = around.probe()
        probe.set(60)
        working = start(probe.work())
        await around.later(FIRST_ROUND_SECONDS)
        await around.later(60)
        assert around.alarms == {"leak-plc": "ARP"}
        assert [draft.asset for draft in around.noted if isinstance(draft, LeakFound)] == ["plc"]
        assert probe.found(["drive"], {"drive": "TCP"}) == 1, "a proof has found another"
        assert set(around.alarms) == {"leak-plc", "leak-drive"}
        around.answer = (["plc", "drive"], {})
        await around.later(60)
        assert not around.alarms
        around.answer = (["plc"], {"plc": "ARP again"})
        await around.later(60)
        assert [draft.asset for draft in around.noted if isinstance(draft, LeakFound)] == ["plc", "drive", "plc"]
        probe.end()
        await working

    go(work)


def test_a_round_waits_for_a_proof_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "AGAIN_SECONDS", 0.001)

    async def work(around: Around) -> None:
        around.answer = GateError(BUSY)
        probe = around.probe()
        probe.set(60)
        working = start(probe.work())
        await around.later(FIRST_ROUND_SECONDS)
        await comes_true(lambda: around.rounds > 2)
        assert not around.alarms
        around.now += GRACE_SECONDS + 1
        await comes_true(lambda: around.alarms)
        assert around.alarms == {ALARM: BUSY}
        probe.end()
        await working

    go(work)


def test_a_gate_that_stops_does_not_wait_for_a_round() -> None:
    async def work(around: Around) -> None:
        around.hangs = True
        probe = around.probe()
        probe.set(60)
        working = start(probe.work())
        await around.later(FIRST_ROUND_SECONDS)
        assert around.rounds == 1 and not working.done()
        probe.end()
        await working
        assert around.ended == 1, "what the round holds was given back"

    go(work)


def test_without_namespaces_there_are_no_rounds() -> None:
    async def work(around: Around) -> None:
        around.separation = Prepared(0, "processes", ())
        probe = around.probe()
        probe.set(60)
        await probe.work()
        assert not around.rounds
        assert not around.noted and not probe.report().works and "no IT side" in probe.report().detail

    go(work)


def test_durations_are_spoken_in_the_unit_that_fits() -> None:
    assert [spoken(n) for n in (10, 90, 300, 3600, 5400, 86_400, 4000)] == [
        "10 s", "90 s", "5 min", "1 h", "90 min", "24 h", "66 min",
    ]  # fmt: skip


def test_a_gate_without_namespaces_keeps_no_process_for_it(calm: Site) -> None:
    launcher = calm.up.process.pid
    children = {int(word) for word in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()}
    others = children - set(calm.up.pids().values())
    own = Path(f"/proc/{launcher}/cmdline").read_bytes()
    # One more is the launcher's own, which reads what parts say on stderr (enforce.messages).
    assert [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in others] == [own]
