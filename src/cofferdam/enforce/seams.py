"""Seams: the pipes between parts of two crews that stand on the same side, by which one broker has its clients served
by another. Both ends of each are held by the launcher, so that a crew may come and go.

Not here: what goes through them (brokers.kit.seam), who may have which end (profile, launcher).
"""

from __future__ import annotations

import os
import weakref
from io import FileIO

from cofferdam.crossing.pipe import make_pipe
from cofferdam.enforce.orders import Way

Where = tuple[str, str, int]
"""The network, and the address and port at which others find what the seam leads to."""


class Seams:
    """The pipes, for as long as somebody has an end of one."""

    def __init__(self) -> None:
        self._pipes: dict[tuple[Where, str], tuple[FileIO, FileIO]] = {}
        self._given: dict[tuple[Where, str], weakref.WeakSet[FileIO]] = {}

    def end(self, where: Where, way: Way) -> FileIO:
        """An end of one of its pipes, for the caller to close."""
        name, _, direction = way.partition("-")
        key = (where, name)
        if key not in self._pipes:
            read_end, write_end = make_pipe()
            self._pipes[key] = FileIO(read_end, "rb"), FileIO(write_end, "wb")
        found = self._pipes[key][direction == "out"]
        given = FileIO(os.dup(found.fileno()), found.mode)
        self._given.setdefault(key, weakref.WeakSet()).add(given)
        return given

    def forget(self) -> None:
        """Closes the pipes of which nobody has an end any more."""
        for key, pipe in list(self._pipes.items()):
            if all(given.closed for given in self._given[key]):
                for end in pipe:
                    end.close()
                del self._pipes[key], self._given[key]

    def close(self) -> None:
        for pipe in self._pipes.values():
            for end in pipe:
                end.close()
        self._pipes.clear()
        self._given.clear()
