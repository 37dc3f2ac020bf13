"""What the keeper has done beside it: one thing at a time, in a thread of its own.

Not here: what is done (sealing, partials), when (keeper).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any


class Job:
    """Work in a thread. An error of it is raised where its end is seen."""

    def __init__(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._work = work
        self._done = done
        self._found: Any = None
        self._error: BaseException | None = None
        self._began = time.monotonic_ns()
        self.took = 0
        self._thread = threading.Thread(target=self._run, name="sealing", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._work()
        except BaseException as error:
            self._error = error
        self.took = time.monotonic_ns() - self._began

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        self._thread.join()

    def finish(self) -> None:
        """Raises: what the work raised."""
        if self._error is not None:
            raise self._error
        self._done(self._found)
