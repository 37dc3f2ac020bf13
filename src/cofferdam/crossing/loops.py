"""The reactor's interface on an asyncio loop, so that pipes and the audit client are the same code on both.

The reactor keeps its own epoll set, and asyncio watches that one descriptor (epoll sets nest): whenever something in it
is ready, a timer is due or work was put off, a turn of the reactor runs as one call-back of the loop. What a descriptor
tells, levels and order are therefore exactly the reactor's own.

Not here: which loop it is (brokers.kit.aio has the one of parts; the gate has asyncio's).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from cofferdam.crossing.reactor import Reactor, Timer


class Ended(SystemExit):
    """Leaves the loop at once, where an exception in a call-back would be logged and forgotten. `SystemExit` and
    `KeyboardInterrupt` are what asyncio lets through."""


class LoopReactor(Reactor):
    """A reactor whose turns run inside an asyncio loop.

    In a loop that other code runs (the gate's), call-backs' exceptions are the business of that loop's exception
    handler. A part calls `run()`: then the first exception that nobody takes, in a call-back or in a task, ends the
    loop before anything else runs, and leaves `run()`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._inside = False
        self._soon = False
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        loop.add_reader(self._epoll.fileno(), self._turn)

    # --- the reactor's interface --------------------------------------------------------------------------------

    def call_at(self, due: int, call: Callable[[], None]) -> Timer:
        timer = super().call_at(due, call)
        if not self._inside:
            self._arm()
        return timer

    def call_in(self, seconds: float, call: Callable[[], None]) -> Timer:
        # Whoever calls may do so between two turns: `now` is of the last one.
        return self.call_at(time.monotonic_ns() + int(seconds * 1e9), call)

    def later(self, call: Callable[[], None]) -> None:
        super().later(call)
        if not self._inside and not self._soon:
            self._soon = True
            self._loop.call_soon(self._put_off)

    def _put_off(self) -> None:
        """What was put off between two turns; nothing else is looked at."""
        self._soon = False
        self._inside = True
        self.now = time.monotonic_ns()
        try:
            while self._later:
                calls, self._later = self._later, []
                for call in calls:
                    call()
        finally:
            self._inside = False
        self._arm()

    def _turn(self) -> None:
        self._inside = True
        try:
            self.turn(0)
        finally:
            self._inside = False
        self._arm()

    def _arm(self) -> None:
        """Has the loop call when the next timer is due."""
        timers = self._timers
        if not timers or (self._wake is not None and self._wake_at == timers[0].due):
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_at = timers[0].due
        self._wake = self._loop.call_at(self._wake_at / 1e9, self._on_time)

    def _on_time(self) -> None:
        self._wake = None
        if not self._loop.is_closed():
            self._turn()

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        if self._wake is not None:
            self._wake.cancel()
        super().close()

    # --- the loop of a part -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Runs the loop until `stop()`, or until something fails that nobody takes, which this raises."""
        self._loop.set_exception_handler(self._unhandled)
        try:
            self._loop.run_forever()
        except Ended:
            pass
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        super().stop()
        self._loop.stop()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task. One that fails ends the loop; one that is cancelled does not."""
        task: asyncio.Task[None] = self._loop.create_task(self._watched(work))
        self._tasks.add(task)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        """(A call-back of the task would cost a round of the loop for each.)"""
        try:
            await work
        except Exception as error:
            self._loop.call_soon(_raise, error)
        finally:
            if (task := asyncio.current_task(self._loop)) is not None:
                self._tasks.discard(task)

    def _unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self._error is None:
            found = context.get("exception")
            self._error = found if isinstance(found, BaseException) else RuntimeError(str(context.get("message")))
        # Raised here it leaves the loop at once. Of a task that was thrown away it cannot (the collector calls), and
        # the loop ends with this round of call-backs.
        loop.stop()
        raise Ended


def _raise(error: Exception) -> None:
    """Into the loop's exception handler."""
    raise error
