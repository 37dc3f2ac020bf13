"""Single keys of whoever watches a live view: read without Enter, and the terminal put back afterwards."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from types import TracebackType
from typing import Any


class Keys:
    """While entered, `wait` returns a key as soon as one is pressed. Where standard input is no terminal, none is."""

    def __init__(self) -> None:
        self._fd = -1
        self._before: list[Any] = []

    def __enter__(self) -> Keys:
        try:
            fd = sys.stdin.fileno()
            self._before = termios.tcgetattr(fd)
            tty.setcbreak(fd)  # Ctrl-C still interrupts
        except (OSError, ValueError, termios.error):
            return self
        self._fd = fd
        return self

    def wait(self, seconds: float) -> str:
        """The key that was pressed within so long, or ""."""
        if self._fd < 0:
            time.sleep(seconds)
            return ""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return ""
        key = os.read(self._fd, 16)
        if not key:  # whoever had the keyboard has gone
            self._fd = -1
        return key.decode("utf-8", "replace")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)
