"""The lines in which requests wait for a device: taken in turns, by source address first, then by session.

A source that opens many connections has no more turns than one with a single connection. Above the sources stand the
groups (`group`), which are principals: turns are weighed by the device's time that a group has used (`charge`), so that
neither many addresses nor requests that take long give anybody more of it. What is urgent (`urgent`) comes before what
is not, but for every fourth turn. When all places are taken, who has the most waiting gives one up for who has less.
Not here: deadlines, sending (device).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

J = TypeVar("J")

Sessions = OrderedDict[int, deque[J]]

URGENT_TURNS = 3
"""So many turns in a row go to what is urgent; then one goes to whoever has waited longest."""
OURS = "\0"
"""What begins so is no source, but what the gate asks for a group's writes: it goes before what the group reads."""
REMEMBERED = 1024
"""Sources whose use of the device is remembered, beyond those that have used it most of late."""


class Lines(Generic[J]):
    """Waiting jobs. A job stands in the line of its session, and the sessions of one source share its turn."""

    __slots__ = ("_counts", "_now", "_sources", "_urgent", "_urgent_turns", "_used", "count", "group", "urgent")

    def __init__(self, urgent: Callable[[J], bool] | None = None, group: Callable[[J], str] | None = None) -> None:
        self.urgent = urgent
        self.group = group
        self._urgent = 0  # urgent jobs that wait
        self._urgent_turns = 0
        # Fair queueing by start times: what each group has used of the device (ns), and where the fair share stands.
        self._used: dict[str, int] = {}
        self._now = 0
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
        if self.urgent is not None and self.urgent(job):
            self._urgent += 1

    def charge(self, group: str, duration_ns: int) -> None:
        """The device has worked so long for a group."""
        used = self._used.get(group, 0)
        if used < self._now:  # it has not asked for a while: that gives no claim on the time of others
            used = self._now
        else:
            self._now = used
        self._used[group] = used + duration_ns
        if len(self._used) > REMEMBERED:
            self._used = {name: at for name, at in self._used.items() if at > self._now}

    def pop(self, ready: Callable[[J], bool] | None = None) -> J:
        """The job whose turn it is, of those that are `ready` to be sent; only the first of a session can be. Raises:
        IndexError when none waits."""
        if not self.count:
            raise IndexError("no job waits")
        if ready is None and not self._urgent and not self._used:
            source = next(iter(self._sources))
            return self._pop(source, next(iter(self._sources[source])))
        place = self._chosen(ready)
        if place is None:
            raise IndexError("no job that waits is ready")
        return self._pop(*place)

    def _pop(self, source: str, session: int) -> J:
        sessions = self._sources[source]
        line = sessions[session]
        job = line.popleft()
        if line:
            sessions.move_to_end(session)
        else:
            del sessions[session]
        self._took(source, job)
        if sessions:
            self._sources.move_to_end(source)
        return job

    def _chosen(self, ready: Callable[[J], bool] | None) -> tuple[str, int] | None:
        """Whose turn it is: the least that a group has used, and of equals who waits longest."""
        best: tuple[bool, int, bool, str, int] | None = None
        wanted = self.urgent if self._urgent and self._urgent_turns < URGENT_TURNS else None
        for source, sessions in self._sources.items():
            group = self._group_of(source)
            used = max(self._used.get(group, 0), self._now)
            ours = source.startswith(OURS)
            for session, line in sessions.items():
                if ready is not None and not ready(line[0]):
                    continue
                # What a group's writes need does not go before the writes that have it, or none of them would leave.
                theirs = not ours and not (self.urgent is not None and self.urgent(line[0]))
                later = wanted is not None and not wanted(line[0])
                if best is None or (later, used, theirs) < best[:3]:
                    best = (later, used, theirs, source, session)
                if not later:
                    break
        if best is None:
            return None
        self._urgent_turns = self._urgent_turns + 1 if wanted is not None and not best[0] else 0
        return best[3], best[4]

    def make_room(self, source: str, session: int, group: str | None = None) -> J | None:
        """Takes out the newest job of the longest line of the source that has the most waiting, if that is more than
        `source` would have with one more, or of `source` itself if that line is longer than the session's would be;
        else None. Where one group has more waiting than `group` would have, one of its sources gives it up."""
        if not self._counts:
            return None
        if self.group is not None and group is not None:
            counts: dict[str, int] = {}
            for other, count in self._counts.items():
                counts[self._group_of(other)] = counts.get(self._group_of(other), 0) + count
            most = max(counts, key=counts.__getitem__)
            if counts[most] > counts.get(group, 0) + 1:
                theirs = [other for other in self._counts if self._group_of(other) == most]
                return self._newest(max(theirs, key=self._counts.__getitem__))
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
        return self._newest(greedy)

    def _group_of(self, source: str) -> str:
        """Sources belong to one group each: their sessions come from one address."""
        if self.group is None:
            return source
        return self.group(next(iter(self._sources[source].values()))[0])

    def _newest(self, source: str) -> J:
        """Takes out the newest job of the longest line of a source."""
        sessions = self._sources[source]
        longest = max(sessions, key=lambda number: len(sessions[number]))
        job = sessions[longest].pop()
        if not sessions[longest]:
            del sessions[longest]
        self._took(source, job)
        return job

    def drop(self, source: str, session: int) -> list[J]:
        """Takes out all jobs of a session."""
        jobs = list(self._line(source, session) or ())
        if jobs:
            del self._sources[source][session]
        for job in jobs:
            self._took(source, job)
        return jobs

    def drop_if(self, gone: Callable[[J], bool]) -> list[J]:
        """Takes out all jobs of which this is true."""
        dropped: list[J] = []
        for source, session in self.places():
            line = self._sources[source][session]
            out = [job for job in line if gone(job)]
            if out:
                left = deque(job for job in line if not gone(job))
                if left:
                    self._sources[source][session] = left
                else:
                    del self._sources[source][session]
                for job in out:
                    self._took(source, job)
                dropped += out
        return dropped

    def count_if(self, wanted: Callable[[J], bool]) -> int:
        """Of how many jobs this is true."""
        return sum(map(wanted, self.jobs()))

    def drain(self) -> list[J]:
        """Takes out all jobs."""
        jobs = list(self.jobs())
        self._sources.clear()
        self._counts.clear()
        self.count = self._urgent = 0
        return jobs

    def jobs(self) -> Iterator[J]:
        """All that wait."""
        return (job for line in self._lines() for job in line)

    def places(self) -> list[tuple[str, int]]:
        """The lines that there are, as (source, session)."""
        return [(source, session) for source, sessions in self._sources.items() for session in sessions]

    def _line(self, source: str, session: int) -> deque[J] | None:
        sessions = self._sources.get(source)
        return None if sessions is None else sessions.get(session)

    def _lines(self) -> Iterator[deque[J]]:
        return (line for sessions in self._sources.values() for line in sessions.values())

    def _took(self, source: str, job: J) -> None:
        self.count -= 1
        if self._urgent and self.urgent is not None and self.urgent(job):
            self._urgent -= 1
        left = self._counts[source] - 1
        if left:
            self._counts[source] = left
        else:
            del self._counts[source]
            self._sources.pop(source, None)
