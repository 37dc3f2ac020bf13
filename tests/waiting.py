"""Waiting for what comes by itself: by condition, and for longer than any busy machine needs.

A deadline here is where a test gives up, and nothing that a test asserts: how long something took is `make bench`'s
business. So it costs nothing to be generous. What must not come is waited for as briefly as possible, and on a sign of
its own where there is one (an answer to a later question, say) rather than for a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from selectors import BaseSelector
from typing import Protocol, TypeVar


class _Numbered(Protocol):
    def fileno(self) -> int: ...


T = TypeVar("T", bound=int | _Numbered)

PATIENCE = float(os.environ.get("COFFERDAM_TEST_PATIENCE", "1"))
"""How many times longer than usual everything may take: on an emulated machine, say."""
PATIENT = 180.0 * PATIENCE
"""Seconds after which something that should have come by itself is given up. With forty programs on two cores
two gates took more than 60 to start."""
PAUSE, LONGEST_PAUSE = 0.01, 0.25
"""Seconds between two looks. A look that takes long, such as a command, waits four times as long for the next, and who
has waited long waits an eighth of that: what is waited for needs the processor more than who waits."""


def eventually(condition: Callable[[], object], seconds: float = PATIENT) -> None:
    """Raises: AssertionError when the condition has not come true."""
    began = asked = time.monotonic()
    while not condition():
        now = time.monotonic()
        if now > began + seconds:
            raise AssertionError(f"it did not happen within {seconds:g} s")
        time.sleep(min(max(PAUSE, 4 * (now - asked), (now - began) / 8), LONGEST_PAUSE))
        asked = time.monotonic()


async def comes_true(condition: Callable[[], object], seconds: float = PATIENT) -> None:
    """The same where a loop runs. Raises: AssertionError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {seconds:g} s")
        await asyncio.sleep(0.001)


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """A signal to whom a status, a list or a log has named: it may have gone by itself since. Whether it was there."""
    assert pid > 0, "no process: 0 is everybody of this session"
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


async def gone() -> None:
    """Before a loop that served ends: what it has closed, or its peers have left, is gone. (A transport that is closed
    lets its socket go in a later turn of the loop, and there is none behind the last.)"""
    loop = asyncio.get_running_loop()
    selector: BaseSelector = loop._selector  # type: ignore[attr-defined]
    await comes_true(lambda: len(selector.get_map()) == 1)  # by which it is woken
    await asyncio.sleep(0)


def readable(watched: Sequence[T], seconds: float) -> list[T]:
    """Those that can be read, after waiting for one. (select() knows no descriptor beyond 1,023.)"""
    poll = select.poll()
    numbers = {one if isinstance(one, int) else one.fileno(): one for one in watched}
    for number in numbers:
        poll.register(number, select.POLLIN)
    return [numbers[number] for number, _ in poll.poll(seconds * 1000)]


@contextlib.contextmanager
def alone(program: str, *, among: bool = False) -> Iterator[None]:
    """For a program of which one machine can run one at a time, by the path of a socket that is compiled in, say: waits
    until no other test has it, in whatever process that runs. `among`: until none has it who is alone with it."""
    with (Path(tempfile.gettempdir()) / f"cofferdam-tests-{program}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if among else fcntl.LOCK_EX)
        yield
