"""Whether the mirror has what it should: its files as they were sealed, and each hour as its source has it.

Each hour, once it is over, is counted at the source by itself, and where something had come late, so are the hours
before it, back to one that is whole; each night the day before is, and there values are compared as well: by a digest
over the samples of each tag and hour. A tag that has fewer samples here than there, or others, makes the hour be read
again, by the backfill lane, where repetitions vanish; then it is counted once more. A source that has fewer than the
mirror is told of and changes nothing: a source that was emptied empties no mirror.

Days are counted, and compared, as wholes first, and halved, down to hours, where they differ or are too much for the
source.

Not here: how a source counts (postgres), what a digest is (columns).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.mirror import MirrorVerified
from cofferdam.brokers.mirror import partials, sealing, sound
from cofferdam.brokers.mirror.catalogue import Loss
from cofferdam.brokers.mirror.columns import HOUR_NS, Summary, summary, tidy
from cofferdam.brokers.mirror.keeping import Keeping
from cofferdam.brokers.mirror.records import HOURS_MOST, Count, Counted, Fetch
from cofferdam.brokers.mirror.told import Run as Told
from cofferdam.errors import CrossingError, StoreError
from cofferdam.policy.terms.mirror_rows import Device, Postgres

SILENT_SECONDS: Final = 360.0
"""For a source to answer, or to be heard of: somewhat more than it may take for one statement."""
AWAY_SECONDS, AGAIN_SECONDS = 60.0, 2.0
"""A source that breaks off is asked again for so long, and this often; then the run says so and ends."""
SETTLE_SECONDS: Final = 1.0
"""For what was asked for again to come, before it is counted once more."""
ROOM_SECONDS: Final = 60.0
"""For a full disk, before it is looked again at what could not be written down."""
ROUNDS, FETCH_EVERY = 15, 5
"""So often an hour is counted in one run, and read again at each fifth."""
DIFFERENCES_MOST: Final = 200
RUNS_MOST: Final = 16
HOURLY_AFTER_NS: Final = 300 * 10**9
"""How long after an hour's end it is counted."""
BACK_HOURS: Final = 31 * 24
"""So far what came late is followed."""
NIGHTLY_HOUR: Final = 1
"""UTC."""
NIGHTS_MOST: Final = 7
"""Days that are compared together, after nights in which nothing ran."""


class Question(NamedTuple):
    """What a run wants to know: of `hours` hours, for the how-manieth time."""

    run: Run
    hour: int
    source: str
    turn: int = 0
    hours: int = 1

    def halves(self) -> tuple[Question, Question]:
        """The same in two."""
        half = self.hours // 2
        return self._replace(hours=half), self._replace(hour=self.hour + half, hours=self.hours - half)


class Asked(NamedTuple):
    """A question that a source has not answered yet; times are monotonic."""

    question: Question
    request: int
    began: float
    deadline: float


_NOTHING: Final = Summary(0, 0, 0)


class Run:
    """One run. `differ`: (tag, hour, here, there) that are not equal now; where both are equal, their values are
    not."""

    def __init__(self, number: int, first: int, last: int, against: str, by: str, tags: frozenset[str]) -> None:
        self.number = number
        self.first, self.last = first, last
        self.against = against
        self.by = by
        self.tags = tags
        self.seen: set[str] = set()
        self.points = 0
        self.differ: list[tuple[str, int, int, int]] = []
        self.more: list[tuple[str, int, int, int]] = []
        """What the source has less of."""
        self.damaged: list[str] = []
        self.failed = ""
        self.gaps = 0
        """Times of which a strand has not brought all: nobody can count at the source there, but numbers tell it."""
        self.ended = False
        self.done = 0
        self.total = last - first + 1
        self.oldest: dict[str, int] = {}
        """By source: the first hour that it is asked for."""
        self.away = dict[str, float]()
        """By source, where it has not answered: since when (monotonic)."""
        self.at_once = dict[str, int]()
        """By source, where it is less than HOURS_MOST: so many hours can be counted together."""
        self.back = first
        """Hours before `first`, down to this one, are counted where the one behind them was not whole."""

    def told(self) -> Told:
        """For an operator."""
        return {
            "number": self.number, "first": self.first, "last": self.last, "against": self.against, "ended": self.ended,
            "done": self.done, "total": self.total, "tags": len(self.seen), "points": self.points,
            "differ": self.differ[:DIFFERENCES_MOST], "differences": len(self.differ),
            "source_has_less": self.more[:DIFFERENCES_MOST], "damaged": self.damaged, "failed": self.failed,
            "gaps": self.gaps,
        }  # fmt: skip


class Verifying:
    """The keeper's."""

    def __init__(self, keeper: Keeping) -> None:
        self._keeper = keeper
        self._number = 0
        self._request = 0
        self.runs: dict[int, Run] = {}
        self.alarms: dict[str, str] = {}
        self._queue: deque[Question] = deque()
        self._asked: Asked | None = None
        self._not_before = 0.0
        wall = keeper.setting.wall()
        self._hourly = wall // HOUR_NS
        found = keeper.store.catalogue  # of nights in which no gate ran: it is written with whatever is written next
        found.night = found.night or self._day(wall)

    @staticmethod
    def _day(wall: int) -> int:
        return (wall - NIGHTLY_HOUR * HOUR_NS) // (24 * HOUR_NS)

    def begin(self, first: int, last: int, against: str, by: str, tags: frozenset[str] = frozenset()) -> Run:
        """Starts a run over these hours."""
        self._number += 1
        run = self.runs[self._number] = Run(self._number, first, last, against, by, tags)
        for number in sorted(self.runs)[:-RUNS_MOST]:
            del self.runs[number]
        sources = [one.name for one in self._keeper.row.sources if isinstance(one, Postgres)]
        if against != "store" and not sources:
            run.failed = "the mirror has no source that can count"
        if against == "store":
            sources = [""]
        run.total = (last - first + 1) * len(sources)
        run.oldest = dict.fromkeys(sources, first)
        hour = first
        while hour <= last:
            hours = HOURS_MOST if hour % HOURS_MOST == 0 and hour + HOURS_MOST - 1 <= last else 1
            self._queue += [Question(run, hour, source, hours=hours) for source in sources]
            hour += hours
        if not run.total or run.failed:
            self._end(run)
        return run

    @property
    def busy(self) -> bool:
        return bool(self._queue) or self._asked is not None

    # --- a turn

    def tick(self) -> None:
        """Called often while there is something to do, and twice a second otherwise."""
        wall = self._keeper.setting.wall()
        if self._keeper.row.nightly and self._keeper.acks and not self.busy:
            found, night = self._keeper.store.catalogue, self._day(wall)
            if night > found.night:
                self.begin(max(found.night, night - NIGHTS_MOST) * 24, night * 24 - 1, "source", "")
                found.night = night
            elif (hour := (wall - HOURLY_AFTER_NS) // HOUR_NS) > self._hourly:
                self._hourly = hour
                self.begin(hour - 2, hour - 1, "counts", "").back = hour - BACK_HOURS
        if self._asked is not None and time.monotonic() > self._asked.deadline:
            (question, _, began, _), self._asked = self._asked, None
            self._failed(question, f"{question.source}: nothing was heard of it for {SILENT_SECONDS:g} s", began)
        if self._asked is None and self._queue and time.monotonic() >= self._not_before:
            question = self._queue.popleft()
            while question.hours > 1 and self._too_long(question):
                question, rest = question.halves()
                self._queue.appendleft(rest)
            if question.run.against == "store":
                if not self._keeper.in_thread(*self._look(question)):
                    self._queue.appendleft(question)
                return
            self._request += 1
            values, now = question.run.against == "source", time.monotonic()
            self._asked = Asked(question, self._request, now, now + SILENT_SECONDS)
            count = Count(self._request, question.source, question.hour, values, question.hours)
            self._keeper.setting.senders["spooler"].send(count)

    def _too_long(self, one: Question) -> bool:
        """Whether it is to be asked in two."""
        if one.hours > one.run.at_once.get(one.source, HOURS_MOST):
            return True
        return self._keeper.store.is_hot(one.hour, one.hour + one.hours - 1)

    def _here(self, question: Question) -> Callable[[], dict[str, Summary]]:
        """What reads what there is here of some hours; of one that is not sealed yet, too."""
        store = self._keeper.store
        if question.hours > 1:
            return store.summed(question.hour, question.hour + question.hours - 1)
        read = store.hour(question.hour)
        return lambda: summary(tidy(read(), latest=True))

    def _look(self, question: Question) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        """Some hours in the store alone: their files are as they were sealed, and can be read."""
        store, run = self._keeper.store, question.run
        files = store.files_of(question.hour, question.hour + question.hours - 1)
        names, read = {file.name for file in files}, self._here(question)
        reckoned = [one for one in store.catalogue.reckoned if not names.isdisjoint(one.of)]

        def work() -> tuple[list[str], list[str], dict[str, Summary]]:
            anew = partials.damaged(store.folder, reckoned)
            if bad := sealing.damaged(store.folder, files):
                return bad, anew, {}
            found = sound.of_files(store.folder, files, read)
            return (found, anew, {}) if isinstance(found, sound.Unsound) else ([], anew, found)

        def done(found: tuple[list[str], list[str], dict[str, Summary]]) -> None:
            bad, anew, tags = found
            if anew:  # what was reckoned beforehand is made again from the samples
                self._or_later(question, lambda: store.reckoned([], anew))
            if bad:  # the others of these hours are looked at without them
                self._without(question, bad)
                return
            self._add(run, tags)
            run.done += question.hours
            self._perhaps_end(run)

        return work, done

    def _without(self, question: Question, names: Collection[str]) -> None:
        """Damaged files are set aside, and it is looked again. Raises: StoreError."""
        question.run.damaged += [name for name in names if name not in question.run.damaged]
        for name in names:
            self._or_later(question, lambda name=name: self.damaged(name))  # type: ignore[misc]
        self._queue.appendleft(question)

    def _or_later(self, question: Question, work: Callable[[], None]) -> None:
        """Raises: StoreError, where it cannot be written down: it is looked again later, or the run would not end."""
        try:
            work()
        except StoreError:
            self._queue.appendleft(question)
            self._not_before = time.monotonic() + ROOM_SECONDS
            raise

    def damaged(self, name: str) -> None:
        """A sealed file is not as it was, or cannot be read: it is set aside, and its hours are read again at the
        sources."""
        store = self._keeper.store
        file = next((each for each in store.catalogue.files if each.name == name), None)
        if file is None:
            return
        store.set_aside(file, "its file is damaged")
        self._keeper.tell_damaged(file)
        for source in self._keeper.row.sources:
            again = isinstance(source, Postgres) or (isinstance(source, Device) and source.history)
            if again and self._keeper.acks:
                fetch = Fetch(source.name, file.first * HOUR_NS, (file.last + 1) * HOUR_NS)
                self._keeper.setting.senders["spooler"].send(fetch)

    def _add(self, run: Run, tags: Mapping[str, Summary]) -> None:
        for tag, found in tags.items():
            if not run.tags or tag in run.tags:
                run.seen.add(tag)
                run.points += found.times

    # --- against the source

    def counted(self, record: Counted) -> None:
        """A source's answer. Raises: CrossingError, where it is none."""
        if len(record.names) != len(record.counts) or len(record.digests) not in (0, len(record.names)):
            raise CrossingError("a count with names and numbers of unequal length")
        asked = self._asked
        if asked is None or asked.request != record.request:
            return  # too late
        question = asked.question
        source, hour = question.source, question.hour
        if (record.source, record.hour) != (source, hour):
            raise CrossingError(f"{record.source} answers for hour {record.hour}, and {source}, {hour} was asked")
        now = time.monotonic()
        if record.state == "going":
            self._asked = asked._replace(deadline=now + SILENT_SECONDS)
            return
        if record.state != "away":
            question.run.away.pop(source, None)
        # It is asked no more than half of the time: others have to read there, too.
        self._not_before = max(self._not_before, 2 * now - asked.began)
        if record.failed or record.state:
            self._asked = None
            self._failed(question, f"{source}: {record.failed}", asked.began if record.state else None)
            return
        if question.hours > 1 and None in record.digests:
            # Where one time has several samples, values are not compared: that is to be an hour's, and not a day's.
            self._asked = None
            question.run.at_once[source] = 1
            self._queue.appendleft(question)
            return
        digests = record.digests or (None,) * len(record.names)
        there = {name: (n, d) for name, n, d in zip(record.names, record.counts, digests, strict=True)}
        store, work = self._keeper.store, self._here(question)
        files = store.files_of(hour, hour + question.hours - 1)

        def done(found: dict[str, Summary] | sound.Unsound | str) -> None:
            self._asked = None
            if isinstance(found, str):
                self._failed(question, found)
            elif isinstance(found, sound.Unsound):
                self._without(question, found)
            else:
                self._compare(question, there, found)

        if not self._keeper.in_thread(lambda: _try(lambda: sound.of_files(store.folder, files, work)), done):
            # Something is being sealed: the source is asked again.
            self._asked = None
            self._queue.appendleft(question)

    def _compare(
        self, question: Question, there: Mapping[str, tuple[int, int | None]], here: dict[str, Summary]
    ) -> None:
        run, hour, source, turn, hours = question
        tags = self._keeper.store.catalogue.tags
        own = {tag: found for tag, found in here.items() if tag in there or tags[tag].source == source}
        known = sorted(tag for tag in there.keys() | own.keys() if not run.tags or tag in run.tags)
        fewer, more = [], []
        for tag in known:
            has, digest = there.get(tag, (0, None))
            mine = own.get(tag, _NOTHING)
            if mine.times < has or (mine.times == has and digest is not None and digest != mine.digest):
                fewer.append((tag, hour, mine.times, has))
            elif mine.times > has:
                more.append((tag, hour, mine.times, has))
        if (fewer or more) and hours > 1:
            self._queue.extendleft(reversed(question.halves()))
            return
        if fewer and hour == run.oldest[source] > run.back:
            run.oldest[source] = hour - 1
            run.first = min(run.first, hour - 1)
            run.total += 1
            self._queue.append(Question(run, hour - 1, source))
        if fewer and turn < ROUNDS:
            if turn % FETCH_EVERY == 0:
                fetch = Fetch(source, hour * HOUR_NS, (hour + 1) * HOUR_NS)
                self._keeper.setting.senders["spooler"].send(fetch)
            self._queue.append(question._replace(turn=turn + 1))
            self._not_before = time.monotonic() + SETTLE_SECONDS
            return
        run.differ += fewer
        run.more += more
        run.seen.update(known)
        run.points += sum(own.get(tag, _NOTHING).times for tag in known)
        run.done += hours
        self._perhaps_end(run)

    def _failed(self, question: Question, why: str, away: float | None = None) -> None:
        """A source cannot be counted at: no more of it is asked, and the others are counted all the same. What was much
        at once may have been too much, unless it has not answered at all since a time (`away`)."""
        run, source, now = question.run, question.source, time.monotonic()
        if away is not None:
            if now - run.away.setdefault(source, away) < AWAY_SECONDS:
                self._queue.appendleft(question)
                self._not_before = max(self._not_before, now + AGAIN_SECONDS)
                return
        elif question.hours > 1:
            run.at_once[source] = question.hours // 2
            self._queue.extendleft(reversed(question.halves()))
            return
        if why not in run.failed:
            run.failed += f"; {why}" if run.failed else why
        gone = [one for one in self._queue if one.run is run and one.source == source]
        run.done += question.hours + sum(one.hours for one in gone)
        self._queue = deque(one for one in self._queue if one.run is not run or one.source != source)
        self._perhaps_end(run)

    def _perhaps_end(self, run: Run) -> None:
        if run.done >= run.total:
            self._end(run)

    def _end(self, run: Run) -> None:
        run.ended = True
        keeper = self._keeper
        since, until = run.first * HOUR_NS, (run.last + 1) * HOUR_NS
        lost = [one for one in keeper.store.catalogue.losses if one.lane and one.known and _meets(one, since, until)]
        of_strand = keeper.strand_gaps(lost)
        run.gaps = len(lost) + sum(_meets(one, since, until) for one in of_strand)
        why = run.failed or (f"{run.gaps} times of which the strand has not brought all" if run.gaps else "")
        keeper.setting.audit.note(
            MirrorVerified(
                wall_ns=keeper.setting.wall(), conduit=keeper.conduit,
                against="store" if run.against == "store" else "source", first=run.first, last=run.last,
                tags=len(run.seen), points=run.points, differ=len(run.differ), damaged=len(run.damaged),
                by=clip(run.by, 128), detail=clip(why),
            )
        )  # fmt: skip
        self.alarms.pop("mirror-differs", None)
        if run.differ:
            tag, hour, here, there = run.differ[0]
            self.alarms["mirror-differs"] = (
                f"{len(run.differ)} hours of tags are not as their source has them: {tag} has "
                + (f"{here} of {there} samples" if here != there else "other values")
                + f" in hour {hour} (cofferdam mirror verify)"
            )


def _meets(loss: Loss, since: int, until: int) -> bool:
    return loss.since < until and loss.until >= since


def _try(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (StoreError, pa.ArrowException) as error:
        return str(error)
