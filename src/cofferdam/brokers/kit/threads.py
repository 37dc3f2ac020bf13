"""A few threads for a part of asyncio whose profile has Can.READ: work that reads and reckons, beside its loop.

The part's loop is woken by a counter of the kernel's (eventfd) that is made with the pool, before the filter is on:
not by a pipe, since every pipe of a part leads somewhere. Threads are made after it, so that they are under it as well.
What a thread does must touch nothing of the loop's.

Not here: what is done (each broker).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

WAITING_MOST: Final = 64


class Busy(Exception):
    """Too much waits for a thread."""


class Threads:
    """The pool. To be made in a part's constructor."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, waiting: int = WAITING_MOST) -> None:
        self._loop = loop
        self._count = count
        self._most = count + waiting
        self._under_way = 0
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._threads: list[threading.Thread] = []
        loop.add_reader(self._wake, self._take)

    @property
    def under_way(self) -> int:
        """What waits, and what is being done."""
        return self._under_way

    async def run(self, work: Callable[[], T]) -> T:
        """Does it in a thread; whoever waits may be cancelled, the work goes on. Raises: Busy; what the work raises."""
        if self._under_way >= self._most:
            raise Busy
        while len(self._threads) < self._count:  # all at the first: later there may be no memory for one
            thread = threading.Thread(target=self._serve, name="reading", daemon=True)
            self._threads.append(thread)
            thread.start()
        future: asyncio.Future[T] = self._loop.create_future()
        self._under_way += 1
        self._work.put((work, future))
        return await future

    def _serve(self) -> None:
        while (one := self._work.get()) is not None:
            work, future = one
            found: Any = None
            error: BaseException | None = None
            try:
                found = work()
            except BaseException as raised:
                error = raised
            self._done.append((future, found, error))
            os.eventfd_write(self._wake, 1)

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._done:
            future, found, error = self._done.popleft()
            self._under_way -= 1
            if future.done():
                continue  # nobody waits any more
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(found)

    def close(self) -> None:
        """Threads end after what they do."""
        for _ in self._threads:
            self._work.put(None)
