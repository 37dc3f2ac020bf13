"""The lines in which requests wait for a device: taken in turns, by source address first, then by session.

A source that opens many connections has no more turns than one with a single connection, and when all places are
taken, who has the most waiting gives one up for who has less. Not here: deadlines, sending (device).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

J = TypeVar("J")

Sessions = OrderedDict[int, deque[J]]


class Lines(Generic[J]):
    """Waiting jobs. A job stands in the line of its session, and the sessions of one source share its turn."""

    __slots__ = ("_counts", "_sources", "count")

    def __init__(self) -> None:
        self._sources: OrderedDict[str, Sessions[J]] = OrderedDict()
        self._counts: dict[str, int] = {}
        self.count = 0

    def length(self, source: str, session: int) -> int:
        """How many jobs of a session wait."""
        line = self._line(source, session)
        return len(line) if line else 0

    def push(self, source: str, session: int, job: J) -> None:
        """Puts a job at the end of its session's line."""
        sessions = self._sources.get(source)
        if sessions is None:
            sessions = self._sources[source] = OrderedDict()
        line = sessions.get(session)
        if line is None:
            line = sessions[session] = deque()
        line.append(job)
        self._counts[source] = self._counts.get(source, 0) + 1
        self.count += 1

    def pop(self) -> J:
        """The job whose turn it is. Raises: IndexError when none waits."""
        if not self.count:
            raise IndexError("no job waits")
        source, sessions = next(iter(self._sources.items()))
        session, line = next(iter(sessions.items()))
        job = line.popleft()
        if line:
            sessions.move_to_end(session)
        else:
            del sessions[session]
        self._took(source)
        if sessions:
            self._sources.move_to_end(source)
        return job

    def make_room(self, source: str, session: int) -> J | None:
        """Takes out the newest job of the longest line of the source that has the most waiting, if that is more than
        `source` would have with one more, or of `source` itself if that line is longer than the session's would be;
        else None."""
        if not self._counts:
            return None
        greedy = max(self._counts, key=self._counts.__getitem__)
        mine = self._counts.get(source, 0)
        if self._counts[greedy] <= mine + 1:
            greedy = source
            if not mine:
                return None
        sessions = self._sources[greedy]
        longest = max(sessions, key=lambda number: len(sessions[number]))
        if greedy == source and len(sessions[longest]) <= self.length(source, session) + 1:
            return None
        job = sessions[longest].pop()
        if not sessions[longest]:
            del sessions[longest]
        self._took(greedy)
        return job

    def drop(self, source: str, session: int) -> list[J]:
        """Takes out all jobs of a session."""
        jobs = list(self._line(source, session) or ())
        if jobs:
            del self._sources[source][session]
        for _ in jobs:
            self._took(source)
        return jobs

    def drain(self) -> list[J]:
        """Takes out all jobs."""
        jobs = [job for line in self._lines() for job in line]
        self._sources.clear()
        self._counts.clear()
        self.count = 0
        return jobs

    def heads(self) -> Iterator[J]:
        """The first job of each line: the oldest of its session."""
        return (line[0] for line in self._lines())

    def take(self, source: str, session: int) -> J:
        """Takes out the first job of one line. Raises: KeyError if there is no such line."""
        sessions = self._sources[source]
        job = sessions[session].popleft()
        if not sessions[session]:
            del sessions[session]
        self._took(source)
        return job

    def places(self) -> list[tuple[str, int]]:
        """The lines that there are, as (source, session)."""
        return [(source, session) for source, sessions in self._sources.items() for session in sessions]

    def head(self, source: str, session: int) -> J | None:
        """The first job of a line, or None."""
        line = self._line(source, session)
        return line[0] if line else None

    def _line(self, source: str, session: int) -> deque[J] | None:
        sessions = self._sources.get(source)
        return None if sessions is None else sessions.get(session)

    def _lines(self) -> Iterator[deque[J]]:
        return (line for sessions in self._sources.values() for line in sessions.values())

    def _took(self, source: str) -> None:
        self.count -= 1
        left = self._counts[source] - 1
        if left:
            self._counts[source] = left
        else:
            del self._counts[source]
            self._sources.pop(source, None)
