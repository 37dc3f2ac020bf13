"""For how long a loop was held up: by its own turns, and by whoever had the core when it was to be woken. The clock is
the test's."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from cofferdam.crossing.reactor import HELD_NS, READ, Reactor

MS = 1_000_000


class Clock:
    """Stands still, but for what a test says that things take."""

    def __init__(self) -> None:
        self.now = 1_000 * MS
        self.sleep = self.turn = 0


class Asleep:
    """An epoll set in which each sleep takes as long as the clock says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoll = select.epoll()

    def register(self, fd: int, events: int) -> None:
        self._epoll.register(fd, events)

    def poll(self, _seconds: float, most: int) -> list[tuple[int, int]]:
        self._clock.now += self._clock.sleep
        return self._epoll.poll(0, most)

    def close(self) -> None:
        self._epoll.close()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reactor, Clock]]:
    """A loop that has something to do in each turn."""
    clock = Clock()
    monkeypatch.setattr("cofferdam.crossing.reactor.time.monotonic_ns", lambda: clock.now)
    reactor = Reactor()
    reactor._epoll.close()
    reactor._epoll = Asleep(clock)  # type: ignore[assignment]
    read, write = os.pipe()
    os.write(write, b"!")

    def works(_events: int) -> None:
        clock.now += clock.turn

    reactor.add(read, READ, works)
    yield reactor, clock
    reactor.close()
    os.close(read)
    os.close(write)


def held(reactor: Reactor) -> tuple[int, int]:
    """The longest of late, and how often."""
    return reactor.held.of_late(reactor.now), reactor.held_up.count


def test_a_turn_that_took_long_was_one(loop: tuple[Reactor, Clock]) -> None:
    reactor, clock = loop
    clock.turn = 9 * MS
    reactor.turn(None)
    clock.turn = HELD_NS
    assert held(reactor) == (0, 0), "it is not over"
    reactor.turn(None)
    assert held(reactor) == (9 * MS, 1)
    reactor.turn(None)
    assert held(reactor) == (9 * MS, 1), "a millisecond is none"


def test_sleep_is_none_but_for_what_is_slept_beyond_the_time(loop: tuple[Reactor, Clock]) -> None:
    reactor, clock = loop
    clock.sleep = 500 * MS
    reactor.turn(None)
    assert held(reactor) == (0, 0), "nobody was to wake it"
    reactor.call_at(clock.now + 8 * MS + 1, lambda: None)
    clock.sleep = 9 * MS
    reactor.turn(None)
    assert held(reactor) == (0, 0), "in whole milliseconds"
    reactor.call_at(clock.now + 8 * MS, lambda: None)
    clock.sleep = 17 * MS
    reactor.turn(None)
    assert held(reactor) == (9 * MS, 1)
    clock.sleep = 3 * MS
    reactor.call_at(clock.now + 8 * MS, lambda: None)
    reactor.turn(None)
    assert held(reactor) == (9 * MS, 1), "something came before"


def test_whoever_has_the_core_while_it_looks_holds_it_up(
    loop: tuple[Reactor, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    reactor, clock = loop
    reactor.look_for(100_000)
    reactor.turn(None)
    [fd] = reactor._handlers
    os.read(fd, 1)

    def give_way() -> None:
        clock.now += 7 * MS

    monkeypatch.setattr("cofferdam.crossing.reactor.os.sched_yield", give_way)
    reactor.turn(None)
    assert held(reactor)[0] == 7 * MS


def test_a_loop_within_another_measures_nothing(loop: tuple[Reactor, Clock]) -> None:
    reactor, clock = loop
    for _ in range(3):
        reactor.turn(0)
        clock.now += 50 * MS
    assert held(reactor) == (0, 0)
