"""What becomes of the firewall's counters of dropped packets: sums over restarts of counting, entries now and then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from cofferdam.audit.entry import Draft
from cofferdam.audit.events.proof import PacketsDropped
from cofferdam.enforce.orders import DroppedCounter, DroppedState, Prepared
from cofferdam.errors import GateError
from cofferdam.gate.log import Log
from cofferdam.gate.watch.drops import RECORD_SECONDS, Drops


@dataclass
class Around:
    """A gate's surroundings whose launcher says what the test wants to hear."""

    separation: Prepared = field(default_factory=lambda: Prepared(0, "namespaces", ()))
    log: Log = field(default_factory=Log)
    noted: list[Draft] = field(default_factory=list)
    says: list[tuple[str, str, int]] = field(default_factory=list)
    fails: bool = False
    asked: int = 0

    @property
    def launcher(self) -> Around:
        return self

    async def ask_dropped(self) -> DroppedState:
        self.asked += 1
        if self.fails:
            raise GateError("the kernel does not say")
        return DroppedState(0, tuple(DroppedCounter(side, f"dropped-{hook}", count) for side, hook, count in self.says))

    def note(self, draft: Draft) -> None:
        self.noted.append(draft)

    def drops(self) -> Drops:
        return Drops(self, lambda _packets: None)  # type: ignore[arg-type]

    def entries(self) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
        return [(draft.side, draft.packets) for draft in self.noted if isinstance(draft, PacketsDropped)]


def test_what_grew_is_summed_also_after_a_counter_began_anew() -> None:
    async def work() -> None:
        around = Around()
        drops = around.drops()
        for count in (5, 5, 7, 2, 4):  # flushed after 7
            around.says = [("it", "input", count), ("ot", "input", 0)]
            await drops.refresh()
        around.says = []  # no rules at all
        await drops.refresh()
        it, ot = drops.reports()
        assert (it.side, it.packets) == ("it", {"input": 11}) and it.last_ns > 0
        assert (ot.side, ot.packets, ot.last_ns) == ("ot", {"input": 0}, 0)

    asyncio.run(work())


def test_one_entry_for_what_grew_and_the_next_not_before_its_time() -> None:
    async def work() -> None:
        around = Around()
        drops = around.drops()
        around.says = [("it", "input", 3), ("it", "forward", 0), ("ot", "input", 0)]
        await drops.refresh()
        drops.record()
        assert around.entries() == [("it", (("input", 3),))], "a side that dropped nothing has no entry"
        around.says = [("it", "input", 1003), ("it", "forward", 1), ("ot", "input", 1)]
        await drops.refresh()
        drops.record()
        drops.record()
        assert around.entries()[1:] == [("ot", (("input", 1),))], "the it side had an entry just now"
        drops._sides["it"].recorded_at -= RECORD_SECONDS
        drops.record()
        drops.record()
        assert around.entries()[2:] == [("it", (("forward", 1), ("input", 1000)))]
        around.says = [("it", "input", 1004), ("it", "forward", 1), ("ot", "input", 1)]
        await drops.end()
        assert around.entries()[3:] == [("it", (("input", 1),))], "the last entry does not wait"
        first, last = (draft for draft in (around.noted[0], around.noted[2]) if isinstance(draft, PacketsDropped))
        assert first.from_ns <= first.to_ns == last.from_ns <= last.to_ns, "no time is left out"

    asyncio.run(work())


def test_what_can_not_be_read_is_no_zero() -> None:
    async def work() -> None:
        around = Around()
        drops = around.drops()
        around.says = [("it", "input", 3)]
        await drops.refresh()
        around.fails = True
        await drops.refresh()
        assert drops.reports()[0].packets == {"input": 3}

    asyncio.run(work())


def test_without_namespaces_nobody_is_asked() -> None:
    async def work() -> None:
        around = Around(separation=Prepared(0, "processes", ()))
        drops = around.drops()
        await drops.refresh()
        await drops.end()
        assert around.asked == 0 and drops.reports() == ()

    asyncio.run(work())
