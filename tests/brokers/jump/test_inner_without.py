"""The inner part without its keeper: what it ends by itself, what it tells the next, and files that wait for a word."""

from __future__ import annotations

import asyncio
from typing import Any

from cofferdam.brokers.jump import file_records, records
from cofferdam.brokers.jump.inner_held import Quarantine
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.brokers.jump.inner_without import CLOCK_NS, LOOKS_KEPT, UNJUDGED_NS, Without
from cofferdam.brokers.jump.standing_records import Lives

SECOND = 10**9


class Scene:
    """Sessions by their numbers, two clocks, and what the keeper was told."""

    def __init__(self, *watched: bool) -> None:
        self.told: list[Any] = []
        self.mono, self.utc = 5 * SECOND, 1_000 * SECOND
        self.live: dict[int, Live] = {}
        self.without = Without(self.live, self.told.append, lambda: self.mono, lambda: self.utc)
        for number, each in enumerate(watched, 1):
            self.live[number] = Live(grant(number, each), self)

    def to_outer(self, record: Any) -> None: ...

    def to_archivist(self, record: Any) -> None: ...

    def idle(self, live: Live) -> None: ...

    def now(self) -> int:
        return self.mono

    def ended(self, live: Live, reason: str) -> None:
        del self.live[live.number]
        self.without.ended(records.Ended(live.number, reason))


def grant(number: int, watched: bool) -> records.Grant:
    return records.Grant(
        session=number, name=f"t-{number}", person="tech", source="10.1.0.9", conduit="c", asset="plc", login="svc",
        credential=records.Credential("none", b""), host_key=b"", what="shell", seconds=3600.0, record=False,
        watched=watched,
    )  # fmt: skip


def test_a_clock_that_is_set_ends_all_while_nobody_could_judge() -> None:
    scene = Scene(False, False)
    scene.without.tick()
    scene.utc += 3600 * SECOND  # with a keeper that is its to judge
    for _ in range(LOOKS_KEPT):
        scene.without.tick()
    scene.without.begin()
    scene.mono += 60 * SECOND
    scene.utc += 60 * SECOND + CLOCK_NS  # it drifts
    scene.without.tick()
    assert set(scene.live) == {1, 2}
    scene.utc -= 2 * CLOCK_NS + 1
    scene.without.tick()
    assert not scene.live
    assert {one.reason.partition(",")[0] for one in scene.told} == {"the clock was set"}


def test_a_clock_that_was_set_before_it_was_known_that_nobody_judges() -> None:
    """The keeper hung, or was dead and nobody had said so. What was set long before it has judged."""
    for since, left in ((4.0, set()), (60.0, {1})):
        scene = Scene(False)
        scene.without.tick()
        scene.utc += 3600 * SECOND
        for _ in range(int(2 * since)):
            scene.mono += SECOND // 2
            scene.utc += SECOND // 2
            scene.without.tick()
        scene.without.begin()
        scene.without.tick()
        assert set(scene.live) == left


def test_a_policy_that_came_before_it_was_known_that_nobody_judges() -> None:
    """What began by it was granted by it."""
    scene = Scene(False, False)
    scene.mono += SECOND
    assert scene.without.loaded() == 0
    scene.mono += SECOND
    scene.live[3] = Live(grant(3, False), scene)
    scene.without.begin()
    assert set(scene.live) == {3}
    assert {one.reason.partition(",")[0] for one in scene.told} == {"the policy was loaded"}
    assert scene.without.loaded() == 1
    assert not scene.live
    scene = Scene(False)
    scene.without.loaded()
    scene.mono += UNJUDGED_NS
    scene.without.begin()
    assert set(scene.live) == {1}, "it was judged"


def test_what_has_to_be_watched_ends_at_once() -> None:
    scene = Scene(True, False)
    scene.without.begin()
    assert set(scene.live) == {2}
    assert "nobody watches any more" in scene.told[0].reason


def test_the_next_one_is_told_all_and_what_the_last_may_not_have_read() -> None:
    scene = Scene(False, False, False)
    scene.live[1].end("before")
    turns = records.Rotate(
        number=4, conduit="c", asset="plc", login="svc", credential=records.Credential("password", b"a"),
        fresh=records.Credential("password", b"b"), host_key=b"", command="", lines=(),
    )  # fmt: skip
    scene.without.turns(turns)
    scene.without.begin()
    scene.live[2].end("meanwhile")
    done = records.Rotated(4, "changed", "")
    scene.without.turned(done)
    scene.live[3].lock()
    scene.told.clear()
    scene.without.over(7)
    assert scene.told == [
        records.Ended(1, "before"), records.Ended(2, "meanwhile"),
        Lives(((3, "t-3", True),), ((4, "plc", "svc"),), 7), done,
    ]  # fmt: skip
    scene.without.turned(done)
    assert scene.told[-2:] == [done, done], "and from now on as it comes"


def test_a_file_that_is_not_clean_waits_for_nobody_who_is_away() -> None:
    """It does not pass, whether its keeper was asked already or not; the next one is told of both."""

    async def run(group: asyncio.TaskGroup) -> None:
        told: list[Any] = []
        quarantine = Quarantine(lambda _: None, told.append)

        async def judged(number: int) -> Any:
            task = group.create_task(quarantine.judge(number, 1, "up", "/a", 3, "0" * 64))
            await asyncio.sleep(0)
            quarantine.on_record(records.Judged(number, "not scanned", "a password", f"kept-{number}", partly=True))
            await asyncio.sleep(0)
            return task

        asked = await judged(quarantine.new("tech"))
        assert [one.file for one in told] == [1] and not asked.done()
        quarantine.away()
        for task in (asked, await judged(quarantine.new("tech"))):
            found = await task
            assert found.reason.startswith("it was not scanned") and not found.scan
        assert [one.file for one in told] == [1]
        quarantine.anew()
        assert [one.file for one in told] == [1, 1, 2]
        quarantine.on_record(file_records.Cleared(1, "lead", 5))  # comes too late for what was refused
        passes = await judged(quarantine.new("tech"))
        quarantine.on_record(file_records.Cleared(3, "lead", 6))
        assert (await passes).scan == "released by lead"
        quarantine.away()
        quarantine.anew()
        assert [one.file for one in told] == [1, 1, 2, 3]

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            await run(group)

    asyncio.run(main())
