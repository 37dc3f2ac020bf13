"""The loop of a half: waits for descriptors and timers, calls back, and nothing else.

A half does one thing at a time and never waits in a call-back. That needs no tasks, no futures and no thread, and
leaves a short list of system calls for the sandbox: epoll_wait, read, write, and what the call-backs do.

An exception that leaves a call-back leaves `run()` too: a half that met a bug stops, it does not go on.
"""

from __future__ import annotations

import heapq
import os
import select
import time
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from cofferdam.crossing.longest import Longest
from cofferdam.crossing.looking import SCARCE_NS, Looking
from cofferdam.histogram import Histogram

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
GONE: Final = select.EPOLLHUP | select.EPOLLERR
HELD_NS: Final = 1_000_000
"""A loop that does not look for longer than this was held up: by a turn of its own, or by whatever had the core when it
was to be woken."""

Handler = Callable[[int], None]


def unlooked(before: int, left: int, asked: int, now: int) -> int:
    """For how long a loop did not look whose last turn began at `before`: it went to look or to sleep at `left` (0: it
    did not), was to be woken at `asked` at the latest (0: by nobody), and looks `now` (monotonic ns). What came while
    it slept may have waited for longer: nobody knows since when."""
    return max((left or now) - before, now - asked if asked else 0)


class Timer:
    """A call that is due at `due` (monotonic ns). `cancel()` it, or let it run once."""

    __slots__ = ("call", "due")

    def __init__(self, due: int, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """The call will not be made."""
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


@mypyc_attr(allow_interpreted_subclasses=True)
class Reactor:
    """Level-triggered epoll, timers, and work put off to the end of the turn.

    `now` is the monotonic time in ns at which the present turn began: call-backs use it instead of asking the clock.

    `spin_ns`: after a turn that had work the loop looks for more without sleeping for so long, giving way to other
    processes between two looks, where it has found that to pay (looking). An idle loop sleeps.
    """

    def __init__(self, spin_ns: int = 0) -> None:
        self.spin_ns = spin_ns
        self._looking = Looking(spin_ns)
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[Timer] = []
        self._later: list[Callable[[], None]] = []
        self._running = False
        self._busy = False  # the loop has had work since it last slept
        self._several = False  # the last turn had several events
        self.alone = False
        """Whether the event that is being handled is its turn's only one: what follows from it need not wait for what
        others have to say. Who makes use of that takes it away, so that the rest of what it brings leaves in one go."""
        self.now = time.monotonic_ns()
        self.held = Longest(HELD_NS)
        """Of late, for `run()`; `held_up` is all since it began."""
        self.held_up = Histogram()
        self._left = 0  # when it began to look or to sleep in this turn; 0: there was something at once
        self._asked = 0  # when it was to look again at the latest; 0: nobody said

    def add(self, fd: int, events: int, handler: Handler) -> None:
        """Calls `handler(events)` whenever one of `events` (READ, WRITE) or GONE holds for `fd`."""
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Waits for other events of `fd` from now on; 0 waits for GONE alone."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forgets `fd`. To be called before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, due: int, call: Callable[[], None]) -> Timer:
        """Calls once at monotonic time `due` (ns) or soon after (the resolution is about 1 ms)."""
        timer = Timer(due, call)
        heapq.heappush(self._timers, timer)
        return timer

    def call_in(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Calls once, so many seconds from the beginning of this turn."""
        return self.call_at(self.now + int(seconds * 1e9), call)

    def later(self, call: Callable[[], None]) -> None:
        """Calls at the end of this turn, before the next wait."""
        self._later.append(call)

    def stop(self) -> None:
        """`run()` returns at the end of this turn."""
        self._running = False

    def run(self) -> None:
        """Runs until `stop()`."""
        self._running = True
        self.now = time.monotonic_ns()
        while self._running:
            self.turn(None)

    def turn(self, longest: float | None) -> None:
        """Waits for at most `longest` seconds (None: as long as it takes) and makes the calls that are due."""
        before = self.now
        self._left = self._asked = 0
        # Where many came last time more are likely to wait. After a single one it is the peer's turn first.
        events = self._epoll.poll(0, 256) if self._several else []
        if not events:
            events = self._look(longest)
        self._several = len(events) > 1
        self.alone = len(events) == 1
        if events and self.spin_ns:
            self._busy = True
        now = self.now = time.monotonic_ns()
        if longest is None:
            held = unlooked(before, self._left, self._asked, now)
            if held > HELD_NS:
                self.held.note(held, now)
                self.held_up.add(held)
        handlers = self._handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:  # an earlier call-back of this turn may have removed it
                handler(mask)
        self.alone = False
        if self._timers and self._timers[0].due <= self.now:
            self._run_timers()
        while self._later:
            calls, self._later = self._later, []
            for call in calls:
                call()

    def look_for(self, spin_ns: int) -> None:
        """Looks for so long from now on, where that pays."""
        self.spin_ns = spin_ns
        self._looking = Looking(spin_ns)

    def _look(self, longest: float | None) -> list[tuple[int, int]]:
        """Looks for events: after work without sleeping for a while, where that pays, then asleep. With `longest` 0 it
        only looks: it is another loop that sleeps."""
        poll = self._epoll.poll
        if not self._busy or longest == 0 or self._later:
            return poll(self._wait(longest), 256)
        looking = self._looking
        began = time.monotonic_ns() if looking.trying else 0
        events = self._spin() if looking.on else []
        if not events:
            self._busy = False
            events = poll(self._wait(longest), 256)
        if began and looking.trying:  # not one in which the core was found scarce
            looking.waited(time.monotonic_ns() - began)
        else:
            looking.passed()
        return events

    def _spin(self) -> list[tuple[int, int]]:
        """Looks again and again; nothing, where nothing came in time."""
        poll = self._epoll.poll
        until = last = 0
        while True:
            os.sched_yield()
            events = poll(0, 256)
            if events:
                return events
            now = self._asked = time.monotonic_ns()
            self._left = self._left or now
            if not until:  # only now: an answer that is there at once needs no clock
                until = now + self.spin_ns
            elif now - last > SCARCE_NS:
                self._looking.scarce()
                return []
            last = now
            if now >= until or (self._timers and self._timers[0].due <= now):
                return []

    def _wait(self, longest: float | None) -> float:
        if self._later:
            return 0
        timers = self._timers
        while timers and timers[0].call is None:
            heapq.heappop(timers)
        now = time.monotonic_ns()
        self._left, self._asked = self._left or now, 0
        if not timers:
            return -1 if longest is None else longest
        # Rounded up to a whole millisecond by epoll: a timer is never early.
        left = max(0, timers[0].due - now)
        self._asked = now - -left // 1_000_000 * 1_000_000
        until = left / 1e9
        return until if longest is None else min(until, longest)

    def _run_timers(self) -> None:
        due: list[Timer] = []
        while self._timers and self._timers[0].due <= self.now:
            due.append(heapq.heappop(self._timers))
        for timer in due:
            if timer.call is not None:
                timer.call()

    def close(self) -> None:
        """Gives the epoll descriptor back."""
        self._handlers.clear()
        self._epoll.close()
