"""What a test leaves to the collector is its own fault, and fails it or its module: never the test that happens to run
when the collector comes by.

A socket, transport, loop, file or process that nobody closed, in a circle of references, warns when it is collected:
now and then, in any test of any subject. So what the collector finds is put aside, and each module ends with a look
through everything: nothing goes over to the next. `--collect` looks after each test; with PYTHONTRACEMALLOC=12 it says
where a thing was made. What is let go without a circle fails the test that runs, as pytest has it.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable, Generator

import pytest


class Leftovers:
    """A plugin of a session."""

    def __init__(self, each_test: bool) -> None:
        self._each_test = each_test
        self._collecting = False
        self._found: list[str] = []
        self._before: Callable[[sys.UnraisableHookArgs], object]

    def pytest_sessionstart(self) -> None:
        self._before, sys.unraisablehook = sys.unraisablehook, self._hook
        gc.callbacks.append(self._turn)

    def pytest_sessionfinish(self) -> None:
        gc.callbacks.remove(self._turn)
        sys.unraisablehook = self._before

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(
        self, item: pytest.Function, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        result = yield
        if self._each_test or nextitem is None or nextitem.path != item.path:
            item.funcargs.clear()  # pytest would keep them for a little longer
            gc.collect()
            gc.freeze()  # what is still there is the session's: it need not be looked through each time
            found, self._found = self._found, []
            if found:
                whose = item.nodeid if self._each_test else f"{item.location[0]} (--collect says which test)"
                pytest.fail(f"left open by {whose}:\n" + "\n".join(found), pytrace=False)
        return result

    def _turn(self, phase: str, info: dict[str, int]) -> None:
        self._collecting = phase == "start"

    def _hook(self, what: sys.UnraisableHookArgs, /) -> None:
        if not self._collecting:
            self._before(what)
            return
        made = tracemalloc.get_object_traceback(what.object) or ()
        where = [str(frame) for frame in made if "_pytest" not in frame.filename]
        self._found.append("\n".join([f"{what.exc_type.__name__}: {what.exc_value}", *where]))
