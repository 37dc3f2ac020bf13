"""The reactor on an asyncio loop: time, order, and that nothing which fails is passed over."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cofferdam.crossing.loops import LoopReactor
from cofferdam.crossing.reactor import GONE, READ, WRITE


@pytest.fixture
def reactor() -> Iterator[LoopReactor]:
    loop = asyncio.new_event_loop()
    made = LoopReactor(loop)
    yield made
    made.close()
    loop.close()


def test_timers_run_in_order_and_never_early(reactor: LoopReactor) -> None:
    began = time.monotonic()
    seen: list[tuple[str, float]] = []
    for name, seconds in [("c", 0.03), ("a", 0.01), ("b", 0.02)]:
        reactor.call_in(seconds, lambda name=name: seen.append((name, time.monotonic() - began)))  # type: ignore[misc]
    reactor.call_in(0.005, lambda: seen.append(("never", 0))).cancel()
    reactor.call_in(0.04, reactor.stop)
    reactor.run()
    assert [name for name, _ in seen] == ["a", "b", "c"]
    assert all(at >= due for (_, at), due in zip(seen, (0.01, 0.02, 0.03), strict=True))


def test_a_timer_that_a_timer_sets_runs_too(reactor: LoopReactor) -> None:
    seen: list[int] = []

    def again() -> None:
        seen.append(len(seen))
        if len(seen) == 20:
            reactor.stop()
        else:
            reactor.call_in(0.001, again)

    reactor.call_in(0, again)
    reactor.run()
    assert seen == list(range(20))


def test_work_put_off_runs_from_anywhere_and_in_order(reactor: LoopReactor) -> None:
    seen: list[str] = []

    def second() -> None:
        seen.append("second")
        reactor.later(lambda: seen.append("third"))
        reactor.later(reactor.stop)

    async def task() -> None:
        reactor.later(lambda: seen.append("first"))
        reactor.later(second)

    reactor.start(task())
    reactor.run()
    assert seen == ["first", "second", "third"]


def test_time_is_of_now_also_between_turns(reactor: LoopReactor) -> None:
    done: list[float] = []

    def over(asked: float) -> None:
        done.append(time.monotonic() - asked)
        reactor.stop()

    async def task() -> None:
        await asyncio.sleep(0.05)  # no turn of the reactor in between
        asked = time.monotonic()
        reactor.call_in(0.02, lambda: over(asked))

    reactor.start(task())
    reactor.run()
    assert done[0] >= 0.02


def test_a_descriptor_tells_as_it_does_on_the_reactor(reactor: LoopReactor) -> None:
    read_fd, write_fd = os.pipe()
    told: list[int] = []

    def told_of(events: int) -> None:
        told.append(events)
        if events & READ:
            os.read(read_fd, 1)
        if len(told) == 3:
            reactor.change(read_fd, 0)
            os.close(write_fd)
        if events & GONE and not events & READ:
            reactor.remove(read_fd)
            reactor.stop()

    os.write(write_fd, b"abc")
    reactor.add(read_fd, READ, told_of)
    reactor.run()
    assert told[:3] == [READ, READ, READ] and told[3] & GONE and not told[3] & (READ | WRITE)
    os.close(read_fd)


class Bug(Exception):
    """What nobody expects."""


def fail() -> None:
    raise Bug("in a call-back")


async def fails() -> None:
    raise Bug("in a task")


@pytest.mark.parametrize("where", ["call_soon", "later", "timer", "handler", "task", "protocol"])
def test_what_fails_ends_the_loop_before_anything_else_runs(reactor: LoopReactor, where: str) -> None:
    loop = reactor._loop
    after: list[str] = []
    read_fd, write_fd = os.pipe()

    class Talker(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            fail()

    made: list[asyncio.BaseTransport] = []

    async def protocol() -> None:
        made.append((await loop.connect_read_pipe(Talker, os.fdopen(os.dup(read_fd), "rb", 0)))[0])

    os.write(write_fd, b"x")
    if where == "call_soon":
        loop.call_soon(fail)
        loop.call_soon(after.append, "in the same round")
    elif where == "later":
        reactor.later(fail)
        reactor.later(lambda: after.append("in the same turn"))
    elif where == "timer":
        reactor.call_in(0.001, fail)
        reactor.call_in(0.001, lambda: after.append("at the same time"))
    elif where == "handler":
        reactor.add(read_fd, READ, lambda _events: fail())
    elif where == "task":
        reactor.start(fails())
    else:
        reactor.start(protocol())
    loop.call_later(20, after.append, "the loop went on")
    with pytest.raises(Bug):
        reactor.run()
    assert after == []
    for transport in made:
        transport.close()
        loop.run_until_complete(asyncio.sleep(0.01))
    os.close(read_fd)
    os.close(write_fd)


def test_a_task_that_is_cancelled_is_no_fault(reactor: LoopReactor) -> None:
    async def waits() -> None:
        await asyncio.sleep(60)

    def cancel() -> None:
        for task in reactor._tasks:
            task.cancel()

    def look() -> None:
        if reactor._tasks:
            reactor.call_in(0.001, look)
        else:
            reactor.stop()

    reactor.start(waits())
    reactor.call_in(0.001, cancel)
    reactor.call_in(0.002, look)
    reactor.run()
    assert not reactor._tasks


def test_what_is_put_off_between_turns_looks_at_no_descriptor(reactor: LoopReactor) -> None:
    looks: list[float | None] = []
    look = reactor._look

    def counted(longest: float | None) -> Any:
        looks.append(longest)
        return look(longest)

    async def work() -> None:
        reactor.later(reactor.stop)

    reactor._look = counted  # type: ignore[method-assign]
    reactor.start(work())
    reactor.run()
    assert looks == []


def test_a_task_that_has_ended_needs_no_further_round_of_the_loop(reactor: LoopReactor) -> None:
    async def work() -> None:
        reactor.stop()  # this round is the last one

    reactor.start(work())
    reactor.run()
    assert not reactor._tasks
