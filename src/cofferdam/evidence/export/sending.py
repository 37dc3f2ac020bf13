"""The work for one collector: from its cursor on, batch after batch, and back to the cursor when a way breaks.

At least once and in order: the cursor moves only past what has surely arrived, and is on disk before anything else is
done; so after a crash or a broken connection some entries go twice, and none is left out. A gap is seen by the index.

Not here: the ways, the process around this (part).
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cofferdam import owned
from cofferdam.audit.events.base import MAX_SAFE_INTEGER
from cofferdam.audit.files import LogReader
from cofferdam.audit.keys import write_file
from cofferdam.errors import AuditError
from cofferdam.evidence.export.forms import Item, item
from cofferdam.evidence.export.ways import Way, WayError

POLL_SECONDS = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a way that broke is tried again, doubled each time."""
IN_FLIGHT = 200_000
"""Entries that may be handed over without having surely arrived."""
LATE_SECONDS = 900.0
"""An entry that has not arrived after so long is late, also where the collector takes a byte now and then."""
CURSOR_BYTES = 1000
"""Of a cursor's file; a longer one is none, and nobody's memory is filled by it."""
SAY_SECONDS = 10.0
"""Between two words on how it stands, where nothing changes."""


class Stood(NamedTuple):
    """How an export stands. `next`: the first entry that has not surely arrived; `behind`: how many there are."""

    name: str
    next: int
    behind: int
    working: bool
    detail: str


class Cursor:
    """Where a collector stands, on disk. `log` is the log's public key: a cursor of another log counts for nothing."""

    def __init__(self, folder: Path, name: str, log: str) -> None:
        self._path = folder / f"{name}.json"
        self._log = log
        self.next = 0
        try:
            data = owned.read(self._path)  # root reads it as well: `export status`
            kept = json.loads(data if len(data) <= CURSOR_BYTES else b"")
            if kept["log"] == log and type(kept["next"]) is int and 0 <= kept["next"] <= MAX_SAFE_INTEGER:
                self.next = kept["next"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # from the beginning: twice is allowed, left out is not

    def save(self, index: int) -> None:
        """Raises: OSError; the old one is still there."""
        write_file(self._path, json.dumps({"log": self._log, "next": index}).encode())
        self.next = index


class Sending:
    """One collector's work. `turn` does what there is to do now and returns how long to wait."""

    def __init__(
        self, way: Way, reader: LogReader, cursor: Cursor, say: Callable[[Stood], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.to, self.reader, self.cursor = way.to, reader, cursor
        self.way = way
        self._say, self._clock = say, clock
        self.at = cursor.next
        self.size = 0
        self._pause = 0.0
        self._said: tuple[bool, str] | None = None
        self._said_at = 0.0
        self._flight: deque[int] = deque()
        """The entry behind each batch that is under way."""
        self._settled = 0
        self._goal = 0
        """The newest entry when `_goal_at` was; `_is_late`: what is said if it has not arrived for long."""
        self._goal_at = self._looked_at = 0.0
        self._is_late = ""
        self._mark: tuple[tuple[str, int], ...] = ()
        """Of the log, when it was read to its end."""

    def turn(self) -> float:
        """Seconds until the next turn. Raises nothing that a collector or a full disk can cause."""
        try:
            more = self._work()
        except WayError as error:
            self._back()
            self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
            self._stand(False, str(error))
            return self._pause
        except (AuditError, OSError) as error:
            self.way.close()
            self._back()
            self._stand(False, f"our own side: {error}")
            return LONGEST_PAUSE / 3
        self._pause = 0.0
        late = self._late()
        self._stand(not late, late)
        return 0.0 if more else POLL_SECONDS

    def _late(self) -> str:
        """What is to be said where it works too slowly: what was the newest entry LATE_SECONDS ago has not arrived."""
        now = self._clock()
        if self._looked_at and now - self._looked_at < SAY_SECONDS:
            return self._is_late
        self._looked_at = now
        if self.cursor.next >= self._goal:
            self._goal, self._goal_at, self._is_late = self._newest(), now, ""
        elif now - self._goal_at >= LATE_SECONDS:
            self._is_late = (
                f"it takes entries, and too slowly: some have waited for {LATE_SECONDS / 60:.0f} min and more"
            )
        return self._is_late

    def _work(self) -> bool:
        """Settles what has arrived and hands over a batch; True if there is more at once."""
        self._settle()
        if self.at - self.cursor.next >= IN_FLIGHT:
            return False
        mark = self.reader.mark()  # a journal is long, also where little is in it
        if mark and mark == self._mark:
            return False
        batch: list[Item] = []
        if self.at > self.size and self.at > (size := self.reader.size()):
            self._put_back(size)
        # A collector that was away for longer than the log keeps entries does not get those: an entry tells it which.
        start = at = self._kept()
        for index, data in self.reader.entries(start):
            if index != at:
                raise AuditError(f"entry {at} is missing in the log")
            at = index + 1
            try:
                one = item(index, data)
            except AuditError:
                continue  # of another version: its index is missing there, and that is seen
            if not self.to.kinds or one.entry.kind in self.to.kinds:
                batch.append(one)
            if len(batch) >= self.way.batch or at - start >= 20 * self.way.batch:
                break
        if batch:
            self.way.send(batch)
            self._flight.append(at)
        elif self._flight:
            self._flight[-1] = at
        elif at > self.cursor.next:
            self.cursor.save(at)
        self.at, self.size = at, max(self.size, at)
        self._settle()
        more = at - start >= self.way.batch
        self._mark = () if more else mark
        return more

    def _put_back(self, size: int) -> None:
        """The log ends before what this collector has had: it was put back to an earlier state, or the cursor says
        what never was. What the log writes from here on has numbers that the collector has seen, so all of it goes
        again. Raises: OSError, WayError."""
        had = (
            f"{self.at:,} entries were given over, and the log has {size:,}: it was put back, or the cursor is damaged"
        )
        self.way.close()
        self._back()
        self.cursor.save(0)
        self.at = 0
        raise WayError(f"{had}; all of it is sent again (cofferdam audit verify --witness)")

    def _kept(self) -> int:
        """From where on there is something to send. A collector that was away for longer than the log is kept misses
        what has gone: that is said, and its indexes are missing there. Raises: AuditError."""
        first = self.reader.first()
        if first > self.at:
            lost = f"entries {self.at:,} to {first - 1:,} have gone from the log and were never given over"
            self._say(Stood(self.to.name, first, 0, working=False, detail=lost))
            self._said = None
            self.at = first
        return self.at

    def _settle(self) -> None:
        """Moves the cursor past the batches that have surely arrived. Raises: WayError, OSError."""
        count = self.way.arrived() - self._settled
        if count > 0 and self._flight:
            last = self.cursor.next
            for _ in range(min(count, len(self._flight))):
                last = self._flight.popleft()
                self._settled += 1
            self.cursor.save(last)

    def _back(self) -> None:
        """To what is sure."""
        self._mark = ()
        self.at = self.cursor.next
        self._flight.clear()
        self._settled = 0

    def _stand(self, working: bool, detail: str) -> None:
        now = self._clock()
        if self._said != (working, detail[:40]) or now - self._said_at >= SAY_SECONDS:
            self._said, self._said_at = (working, detail[:40]), now
            self._say(Stood(self.to.name, self.cursor.next, max(0, self._newest() - self.cursor.next), working, detail))

    def _newest(self) -> int:
        try:
            return max(self.size, self.reader.checkpoint().size)
        except AuditError:
            return self.size
