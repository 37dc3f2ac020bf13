"""Which times of samples the keeper takes: none that it would drop at once for its age, none far ahead of the clock.
Each day that has samples is a sealed file, so times of any year would be some 200,000 of them; and of new days no more
are begun within an hour than the longest history that a source is read back for at first. What begins more waits, for
it may be honest, and is lost to nobody.

Not here: rows and columns of files that have such times (dropped), what is told of it (keeper).
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from cofferdam.audit.events.base import clip
from cofferdam.brokers.mirror import sealing
from cofferdam.brokers.mirror.catalogue import Hold
from cofferdam.brokers.mirror.columns import DAY_NS, HOUR_NS
from cofferdam.brokers.mirror.records import Lane, Samples
from cofferdam.policy.syntax import show_span
from cofferdam.policy.terms.mirror_rows import MirrorRows

SPARE_NS: Final = 25 * HOUR_NS
"""The collector judged by the clock as it was then: it may have been put back since, and what waits is no less true.
And what is old goes by whole days."""
BEYOND_NS: Final = 2 * DAY_NS
"""So far beyond the time that is known, at most, history is said to grow old."""
DOUBT_NS: Final = 31 * DAY_NS
"""Whoever starts a gate after a month is told that nothing but its clock says so."""
DAYS_MOST: Final = 12_000
"""New days within an hour: thirty years and more (`since`) pass in one go."""
ALARM_SECONDS: Final = 3600.0
"""So long an alarm stays after the last that was not taken."""
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def oldest(row: MirrorRows, wall: int) -> int:
    """The earliest time (UTC ns) that is kept."""
    return wall - row.keep * 10**9 - SPARE_NS if row.keep else -(1 << 63)


def goes(row: MirrorRows, wall: int, held: Iterable[tuple[int, int]]) -> Callable[[int], bool]:
    """Whether what is of a time (UTC ns) would go at once: too old, and not in hours that are `held`."""
    least = oldest(row, wall)
    spans = [(first * HOUR_NS, (last + 1) * HOUR_NS) for first, last in held]

    def found(at: int) -> bool:
        return at < least and not any(low <= at < high for low, high in spans)

    return found


class Refused(NamedTuple):
    """Samples that are not taken for their times; `tag` and `detail` are of the first."""

    fault: str
    rows: int
    tag: str
    detail: str


class Times:
    """The keeper's."""

    def __init__(self, known_at: int = 0) -> None:
        self.known_at = known_at
        """A time (UTC ns) that is over, whatever the clock says; 0: none is known. It outlives the keeper."""
        self.known: set[int] | None = None
        """Days since 1970 that have samples; None: nobody has looked since some were dropped."""
        self._left = float(DAYS_MOST)
        self._at = time.monotonic()
        self._alarms: dict[str, tuple[str, float]] = {}
        self._waits: dict[tuple[str, Lane], str] = {}
        self._seen: tuple[int, int] | None = None
        self._begun = (0, 0)
        self._ahead = self._doubt = 0

    def aged(self, wall: int, others: int, ran: int | None = None) -> int:
        """The time (UTC ns) by which history grows old: the clock's, but for a clock that is ahead, by which all of it
        would go at once. What was set ahead by more than a day while the keeper ran does not count; and what was so
        when it began counts by two days, by what `others` (the newest sample that has not its time from this clock)
        say, and for the rest no faster than twice the time that really passes. A clock that was behind what is known,
        and is put right, was not set ahead. `ran`: nanoseconds that only grow."""
        ran = time.clock_gettime_ns(time.CLOCK_BOOTTIME) if ran is None else ran
        if self._seen is None:
            self._begun = (self.known_at or wall, ran)
        elif abs(jump := wall - self._seen[0] - (ran - self._seen[1])) > DAY_NS:
            self._ahead = max(0, self._ahead + jump)
        self._seen = (wall, ran)
        at, since = self._begun
        right = max(wall - self._ahead, min(wall, at + ran - since))
        self._ahead = wall - right
        sure = max(at + 2 * (ran - since), others)
        self.known_at = max(self.known_at, min(right, sure))
        self._doubt = right - sure
        return min(right, sure + BEYOND_NS)

    def fit(
        self, batch: pa.RecordBatch, row: MirrorRows, wall: int, aged: Callable[[], int], holds: Iterable[Hold]
    ) -> tuple[pa.RecordBatch, list[Refused]]:
        """Those samples of a batch (HOT) that are taken, and what is not. `aged`: gives the time by which history grows
        old, which is never later than the clock's, and is asked only where something is old by that."""
        times = batch.column(1)
        high = wall + row.future * 10**9 + SPARE_NS
        ends = pc.min_max(times).as_py()
        if batch.num_rows == 0 or (oldest(row, wall) <= ends["min"] and ends["max"] <= high):
            return batch, []
        low = oldest(row, aged())
        old = pc.less(times, low)
        for hold in holds:
            held = pc.and_(pc.greater_equal(times, hold.first * HOUR_NS), pc.less(times, (hold.last + 1) * HOUR_NS))
            old = pc.and_not(old, held)
        ahead = pc.greater(times, high)
        found = []
        for fault, which, why in (
            ("old", old, f"older than `keep` ({show_span(row.keep)})"),
            ("future", ahead, "more than a day ahead of the clock"),
        ):
            some = batch.filter(which)
            if some.num_rows:
                at = _EPOCH + datetime.timedelta(microseconds=some.column(1)[0].as_py() // 1000)
                detail = f"{why}, such as {at.isoformat(timespec='seconds')}"
                found.append(Refused(fault, some.num_rows, some.column(0)[0].as_py(), detail))
        return batch.filter(pc.invert(pc.or_(old, ahead))), found

    def tell(self, source: str, refused: Refused) -> None:
        """Some were not taken: an alarm tells of the first."""
        words = clip(f"{source} has samples that are not taken, such as of {refused.tag}: {refused.detail}")
        name = f"mirror-{source}-{refused.fault}"
        self._alarms[name] = (self._alarms[name][0] if name in self._alarms else words, time.monotonic())

    def begins(self, record: Samples, batch: pa.RecordBatch, known: Iterable[tuple[int, int]], *, waits: bool) -> bool:
        """Whether the new days of a batch, which is what is taken of a record, may be begun; they count as begun then.
        `known`: first and last hours that have samples. With `waits` False they always may."""
        if batch.num_rows == 0:
            return True
        if self.known is None:
            self.known = {day for first, last in known for day in range(first // 24, last // 24 + 1)}
        fresh = sealing.days_of(batch.column(1)) - self.known
        now = time.monotonic()
        self._left = min(float(DAYS_MOST), self._left + (now - self._at) / 3600 * DAYS_MOST)
        self._at = now
        if waits and len(fresh) > 1 and self._left < min(len(fresh), DAYS_MOST):
            self._waits[record.source, record.lane] = clip(
                f"{record.source} has samples of {len(fresh)} new days at once: no more than {DAYS_MOST} are begun"
                " within an hour, and the rest waits in the spool"
            )
            return False
        self._waits.pop((record.source, record.lane), None)
        self._left -= len(fresh)
        self.known |= fresh
        return True

    def alarms(self) -> dict[str, str]:
        """What is not taken, and what waits."""
        now = time.monotonic()
        self._alarms = {name: one for name, one in self._alarms.items() if now - one[1] < ALARM_SECONDS}
        found = {name: words for name, (words, _) in self._alarms.items()}
        if self._ahead:
            found["mirror-clock"] = (
                f"the clock was set ahead by {self._ahead // DAY_NS} days: history grows old by the time of before, "
                "so that none of it goes for a clock that is wrong; if it is right now, start the gate anew"
            )
        elif self._doubt > DOUBT_NS:
            found["mirror-clock"] = (
                f"the clock is {self._doubt // DAY_NS} days ahead of all that is known here of the time, and what "
                "devices have is written down by it. If it is wrong, set it right; until something with a clock of its "
                "own says the same, history grows old no faster than twice the time that passes"
            )
        return found | {f"mirror-{source}-days": words for (source, _), words in self._waits.items()}
