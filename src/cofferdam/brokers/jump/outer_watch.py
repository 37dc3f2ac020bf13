"""What those who watch a session are shown: the outer part has it in its hands anyway.

A watcher who does not keep up is sent away, and holds up nobody. What they see first is the end of what was shown last,
so that the screen is about what it is there.

Not here: who may watch (watching).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

WAITING_MOST: Final = 1 << 20
"""Bytes that wait for a watcher; one who has more of them does not keep up."""
TAIL_BYTES: Final = 16_384
"""Of what was shown last, kept for those who come later."""


class Watcher(Protocol):
    """One who looks on."""

    def sees(self, data: bytes) -> bool:
        """Shows it. False: they do not keep up, and watch no more."""

    def over(self, reason: str) -> None:
        """They watch no more."""


class Stage:
    """A session, for those who watch it."""

    def __init__(self) -> None:
        self._tail = b""
        self._over = False
        self.watchers: dict[Watcher, Callable[[], None]] = {}
        """With what tells that one has gone."""

    def shown(self, data: bytes) -> None:
        """Something was shown."""
        self._tail = data[-TAIL_BYTES:] if len(data) >= TAIL_BYTES else (self._tail + data)[-TAIL_BYTES:]
        for watcher in list(self.watchers):
            if not watcher.sees(data):
                self.leave(watcher, "you do not keep up with what is shown")

    def come(self, watcher: Watcher, gone: Callable[[], None]) -> None:
        """Somebody watches from now on."""
        self.watchers[watcher] = gone
        if self._over:
            self.end()
        elif self._tail and not watcher.sees(self._tail):
            self.leave(watcher, "you do not keep up with what is shown")

    def leave(self, watcher: Watcher, reason: str) -> None:
        """Somebody watches no more, by their own will or not."""
        if (gone := self.watchers.pop(watcher, None)) is not None:
            watcher.over(reason)
            gone()

    def end(self) -> None:
        """The session has ended."""
        self._over = True
        for watcher in list(self.watchers):
            self.leave(watcher, "the session has ended")
