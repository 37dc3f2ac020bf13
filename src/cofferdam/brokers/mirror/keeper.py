"""The mirror's keeper: takes batches into the store, in order, once; says what it has; seals, merges, drops, counts.

It has no network. Each batch is checked again as if an attacker had sent it: a source that the policy has, a tag that
the source may have, columns that fit, a number that follows. What it says it has is on disk. Sealing and merging run in
one thread beside it, on files that nothing else touches; the catalogue changes in the keeper's own turn alone.

Not here: files (hot, sealing, catalogue, store), verifying against the source (verifying).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from cofferdam.audit.events import mirror as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.mirror import merging, partials, rows, sealing, sound
from cofferdam.brokers.mirror.catalogue import File, Loss, Reckoned
from cofferdam.brokers.mirror.columns import HOUR_NS, NO_TIME, check, span, to_batch, without
from cofferdam.brokers.mirror.figures import KEEPER
from cofferdam.brokers.mirror.job import Job
from cofferdam.brokers.mirror.keeper_verbs import Verbs
from cofferdam.brokers.mirror.records import Counted, Lane, Lost, Samples, Taken
from cofferdam.brokers.mirror.store import TAGS_MOST, Store
from cofferdam.brokers.mirror.times import Refused, Times
from cofferdam.brokers.mirror.verifying import Verifying
from cofferdam.crossing import strand_missing
from cofferdam.errors import CrossingError, StoreError, StoreFull
from cofferdam.limits import is_strand_end
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.mirror_rows import Device, Matcher, names_of, qualities_of

HOT_ROWS: Final = 1_000_000
"""Unsealed samples: more are sealed at once, and the next hour begins with none."""
SEAL_AFTER_NS: Final = 60 * 10**9
"""How long after an hour's end its samples are sealed."""
PATIENCE_NS: Final = 10 * 10**9
"""A policy reaches each part in its own time: what only the next one allows is not refused at once."""
FOUND_SPARE_NS: Final = 5 * 10**9
"""The strand looks for gaps twice a second, and a batch behind one may be here before it has."""
PENDING_MOST: Final = 256
LOOK_SECONDS: Final = 0.02
"""How often it is looked whether a thread has ended, and what is to be counted next."""
FREE_LEAST: Final = 256 << 20
"""Bytes of the disk that are left free: the oldest history goes first."""


class Keeper(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the keeper has no store")
        self.setting = setting
        self.store = Store(setting.store)
        self.acks = True
        self._pending: deque[tuple[Samples | Lost, int]] = deque()
        self._seen: dict[Lane, int] = dict(self.store.taken)
        self._scheduled = False
        self._full = ""
        self._figures = Figures(KEEPER)
        self._job: Job | None = None
        self._stopping = self._looks = False
        reach = self.store.reach
        self._times = Times(self.store.catalogue.known_at or (reach if reach != NO_TIME else 0))
        self._came = merging.Came()
        self._work_by(setting.policy)
        self.verifying = Verifying(self)
        self._verbs = Verbs(self, self.verifying)
        self._say_taken()
        self._verbs.say_held()
        setting.audit.note(
            events.MirrorOpened(
                wall_ns=setting.wall(), conduit=self.conduit, generation=self.store.catalogue.generation,
                commit=self.store.commit, files=len(self.store.catalogue.files), tags=len(self.store.catalogue.tags),
                found=clip(self.store.found),
            )
        )  # fmt: skip

    def _work_by(self, policy: CompiledPolicy) -> None:
        self.conduit, self.row = rows.own(policy)
        self.acks = self.row.acks != "none"
        self._foreign_at = 0
        self._sources: dict[str, Matcher] = {}
        self._own: dict[str, set[str]] = {}
        """By source: names that were found to be its own."""
        self._qualities = qualities_of(self.row.sources)
        for source in self.row.sources:
            self._sources[source.name] = Matcher(names_of(source))

    # --- the gate

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._work_by(policy)
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """It stands on none."""

    def command(self, asked: Asked) -> None:
        self._verbs.command(asked)
        self._look_soon()

    # --- records

    def on_record(self, source: str, record: Any) -> None:
        if isinstance(record, Counted):
            self.verifying.counted(record)
            self._look_soon()
            return
        if isinstance(record, Lost):
            self._seen[record.lane] = self._expect(record.lane, record.first, record.last)
        else:
            late = not self.acks and self.store.is_lost(record.lane, record.number)
            if record.number <= self._seen[record.lane] and not late:
                self._figures.add("repeated_batches")
                self._soon()  # it is told again what is here
                return
            check(record)
            self._seen[record.lane] = self._expect(record.lane, record.number, record.number)
        if len(self._pending) >= PENDING_MOST:
            raise CrossingError("more batches than may be under way")
        self._pending.append((record, time.monotonic_ns()))
        self._soon()

    def _expect(self, lane: Lane, first: int, last: int) -> int:
        seen = self._seen[lane]
        if (first > seen + 1 and self.acks) or last < first:
            raise CrossingError(f"batches {first} to {last} of the lane {lane} after {seen}: one is left out")
        return max(seen, last)

    def _judge(self, record: Samples) -> tuple[set[str], tuple[str, str]]:
        """Which tags of a batch are not taken, and why (fault, detail).

        It is passed over and told, and ends nothing: the spool would send the same again to every keeper to come. A
        policy that has just lost a tag is enough for that."""
        match = self._sources.get(record.source)
        if match is None:
            return set(record.names), ("source", f"{record.source} is no source of the policy")
        own = self._own.setdefault(record.source, set())
        if not own.issuperset(record.names):
            foreign = {name for name in record.names if name not in own and not match(name)}
            if foreign:
                return foreign, ("tag", f"the policy has no such tag of {record.source}")
            if len(own) < TAGS_MOST:
                own.update(record.names)
        known = self.store.names
        if known.issuperset(record.names):
            return set(), ("", "")
        room = TAGS_MOST - len(known)
        fresh = [name for name in record.names if name not in known]
        return set(fresh[max(0, room) :]), ("tags", f"more than {TAGS_MOST} tags")

    def _take(self, record: Samples) -> bool:
        """Takes a batch, or what of it may be taken. False: it waits, since a new policy may be on its way, or it would
        begin too many days."""
        refused, (fault, detail) = self._judge(record)
        if refused and fault != "tags":
            now = time.monotonic_ns()
            self._foreign_at = self._foreign_at or now
            if now - self._foreign_at < PATIENCE_NS:
                return False
        batch = to_batch(record)
        whole = batch.num_rows
        if refused:
            batch = without(batch, refused)
        told = [Refused(fault, whole - batch.num_rows, min(refused), detail)] if refused else []
        batch, of_times = self._times.fit(batch, self.row, self.setting.wall(), self._aged, self.store.holds)
        if not self._times.begins(record, batch, self.store.hours(), waits=self.acks):
            return False
        for one in of_times:
            self._times.tell(record.source, one)
        for one in told + of_times:
            self._tell_refused(record.source, one)
        if batch.num_rows and self.store.newest != NO_TIME:
            late = pc.sum(pc.less(batch.column(1), self.store.newest - HOUR_NS)).as_py()
            if late:
                self._figures.add("late", late)
        self.store.add(record, batch)
        self._figures.add("taken", batch.num_rows, record.lane)
        return True

    def _aged(self) -> int:
        """The time by which history grows old (UTC ns). Of devices only this clock says when they were read."""
        own = {source.name for source in self.row.sources if isinstance(source, Device)}
        others = [at for source, at in self.store.newest_of.items() if source not in own]
        found = self._times.aged(self.setting.wall(), max(others, default=NO_TIME))
        self.store.catalogue.known_at = self._times.known_at  # it is written with whatever is written next
        return found

    def _tell_refused(self, source: str, one: Refused) -> None:
        self._figures.add("passed_over", one.rows, source)
        self.setting.audit.note(
            events.SamplesRefused(
                wall_ns=self.setting.wall(), conduit=self.conduit, source=clip(source, 128), fault=one.fault,
                count=one.rows, tag=clip(one.tag), detail=clip(one.detail),
            )
        )  # fmt: skip

    # --- a turn

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.setting.reactor.later(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        done: list[tuple[Samples | Lost, int]] = []
        waiting: deque[tuple[Samples | Lost, int]] = deque()
        try:
            while self._pending:
                record, came = self._pending[0]
                if any(one.lane == record.lane for one, _ in waiting):  # a lane that waits holds up no other
                    waiting.append(self._pending.popleft())
                    continue
                if not self.acks:
                    self._left_out(record)
                if isinstance(record, Lost):
                    self._lose(record)
                else:
                    late = record.number <= self.store.taken[record.lane]
                    if not late or self.store.is_lost(record.lane, record.number):
                        if not self._take(record):
                            waiting.append(self._pending.popleft())
                            continue
                        if late:
                            self.store.came(record.lane, record.number, *(span(record) if record.count else (0, 0)))
                self._pending.popleft()
                done.append((record, came))
            self._full = ""
        except StoreFull as error:
            self._full = str(error)
        self._pending.extendleft(reversed(waiting))
        self.store.sync()
        try:
            self.store.settle()
        except StoreFull as error:
            self._full = str(error)
        self._say_taken()
        now, wall = time.monotonic_ns(), self.setting.wall()
        for record, came in done:
            self._figures.measure("commit", now - came)
            if isinstance(record, Samples) and record.lane == "live" and record.count:
                self._figures.measure("lag", max(0, wall - span(record)[1]))
        if self.store.hot_rows >= HOT_ROWS:
            self._seal()

    def _say_taken(self) -> None:
        sender = self.setting.senders.get("spooler")
        if sender is not None and self.acks:
            sender.send(Taken(self.store.taken["live"], self.store.taken["backfill"]))

    def _left_out(self, record: Samples | Lost) -> None:
        """Nobody says over a strand that a batch is missing, but the number of the next one."""
        taken = self.store.taken[record.lane]
        first = record.first if isinstance(record, Lost) else record.number
        if first <= taken + 1:
            return
        wall = self.setting.wall()
        until = record.since if isinstance(record, Lost) else span(record)[0] if record.count else wall
        if not taken:  # this end stands for the first time, or without its store: nobody can say what there was
            since = until = 0
        else:
            since = self._last_by(until, until) if record.lane == "live" else until
        why = "the strand has not brought it" if taken else "sent before the first that came"
        loss = Loss("*", since, until, 0, why, wall, record.lane, taken + 1, first - 1)
        self.store.lost(loss, record.lane, first - 1)
        if taken:
            self.setting.audit.note(
                events.SamplesLost(
                    wall_ns=wall, conduit=self.conduit, source="*", points=0, since_hour=since // HOUR_NS,
                    until_hour=until // HOUR_NS, why=f"{why}: batches {loss.first} to {loss.last} of {record.lane}",
                )
            )  # fmt: skip

    def _last_by(self, time: int, otherwise: int) -> int:
        """The newest time of a sample that is not after this one: one of a clock that is ahead says nothing of what has
        come, and would make a gap of no length."""
        return max((tag.last for tag in self.store.catalogue.tags.values() if tag.last <= time), default=otherwise)

    def strand_gaps(self, known: Collection[Loss]) -> list[Loss]:
        """What a strand says that it has not brought, as gaps. What is `known` by the numbers of batches is not said
        again: a batch is found to be missing once the strand has found it, and hardly before."""
        folder = next((path for name, path in self.setting.folders.items() if is_strand_end(name, "in")), None)
        if folder is None:
            return []
        wall = self.setting.wall()
        try:
            said = strand_missing.missing(folder)
        except (CrossingError, OSError) as error:
            return [Loss("*", 0, wall, 0, clip(f"nobody can read what the strand has not brought: {error}"), wall)]
        found = []
        if said.behind:
            since = self._last_by(wall, 0)
            why = f"the strand has not brought the last that were sent ({said.behind} of its records)"
            found.append(Loss("*", since, wall, 0, why, wall))
        newest = max((loss.at for loss in known if loss.lane), default=0)
        if said.missing > said.behind and not (newest and newest + FOUND_SPARE_NS >= said.since):
            count = said.missing - said.behind
            why = f"the strand has not brought {count} of its records: nobody knows of what time all of them are"
            found.append(Loss("*", 0, wall, 0, why, wall))
        if said.waits:
            why = f"{said.waits} records wait inside to be sent over the strand: nobody knows of what time they are"
            found.append(Loss("*", 0, wall, 0, why, wall))
        if said.stopped:
            why = "the strand takes nothing more of it, since its sender said what no honest one says: `diode status`"
            found.append(Loss("*", 0, wall, 0, why, wall))
        if said.silent:
            why = "nothing is heard from the inside over the strand, so that nobody knows what is missing"
            found.append(Loss("*", said.heard, wall, 0, why, wall))
        return found

    def _lose(self, record: Lost) -> None:
        if record.last <= self.store.taken[record.lane]:
            return
        why = "the spool had no room for it" if record.points else "a batch of the spool was damaged or gone"
        loss = Loss(record.source, record.since, record.until, record.points, why, self.setting.wall())
        self.store.lost(loss, record.lane, record.last)
        self.setting.audit.note(
            events.SamplesLost(
                wall_ns=self.setting.wall(), conduit=self.conduit, source=record.source, points=record.points,
                since_hour=record.since // HOUR_NS, until_hour=record.until // HOUR_NS, why=why,
            )
        )  # fmt: skip

    # --- sealing, merging, dropping

    def _seal(self) -> None:
        if self._job is not None or not self.store.hot:
            return
        commits = self.store.to_seal()
        folder = self.store.folder
        seen: Counter[str] = Counter()
        before = sealing.Before(folder, self.store.catalogue.files)

        def done(files: list[File]) -> None:
            for name in sorted(before.unreadable):  # else it would be there twice
                self.verifying.damaged(name)
            self.store.sealed(commits, files)
            for name, count in seen.items():
                self._figures.add(name, count)
            for file in files:
                self._tell_sealed(file, 0)
                self._came.note(file.first // 24)

        self._job = Job(lambda: sealing.seal(folder, commits, seen, before), done)

    def _merge(self, some: list[list[File]]) -> None:
        folder = self.store.folder
        of_day = Counter(file.first // 24 for file in self.store.catalogue.files)
        days = [(files, len(files) == of_day[files[0].first // 24]) for files in some]

        def done(found: list[File | list[str]]) -> None:
            made = [(files, one) for files, one in zip(some, found, strict=False) if isinstance(one, File)]
            if made:
                self.store.replaced(made)
            for files, one in made:
                self._figures.add("repeated", sum(file.rows for file in files) - one.rows)
                self._tell_sealed(one, len(files))
            for names in found:
                for name in names if isinstance(names, list) else ():
                    self.verifying.damaged(name)

        self._job = Job(lambda: sound.merge_days(folder, days), done)

    def _reckon(self, what: partials.Wanted) -> None:
        folder, qualities = self.store.folder, self.store.catalogue.qualities

        def done(found: list[Reckoned] | tuple[Collection[str], Collection[str]]) -> None:
            if isinstance(found, tuple):
                of_hours, of_samples = found
                if of_hours:
                    self.store.reckoned([], of_hours)
                for name in of_samples:
                    self.verifying.damaged(name)
                return
            if qualities != self.store.catalogue.qualities:  # the policy has changed meanwhile
                for one in found:
                    self.store.leave(one.name)
                return
            self.store.reckoned(found, [what.joined.name] if what.joined is not None else [])

        self._job = Job(lambda: sound.make(folder, what, qualities), done)

    def _tell_sealed(self, file: File, merged: int) -> None:
        self.setting.audit.note(
            events.HistorySealed(
                wall_ns=self.setting.wall(), conduit=self.conduit, file=file.name, sha256=file.sha256,
                first=file.first, last=file.last, rows=file.rows, tags=file.tags, size=file.size, commit=file.commits,
                merged=merged,
            )
        )  # fmt: skip

    def tell_damaged(self, file: File) -> None:
        """A file was set aside."""
        self.setting.audit.note(
            events.HistoryDropped(
                wall_ns=self.setting.wall(), conduit=self.conduit, file=file.name, first=file.first, last=file.last,
                rows=file.rows, why="damaged", detail="its bytes are not those that were sealed, or cannot be read",
            )
        )  # fmt: skip

    def seal_now(self) -> None:
        """What is hot is sealed now, as an operator asks."""
        self._seal()

    def _to_merge(self) -> list[list[File]]:
        """Files of one day each that are to become one."""
        return merging.due(self.store.catalogue.files, self.setting.wall() // HOUR_NS, self._came.quiet)

    def _drop(self) -> None:
        """What is too old, and the oldest while there is too much, or too little room beside it."""
        now = self._aged() // HOUR_NS
        files, held = sorted(self.store.catalogue.files, key=lambda file: file.last), self.store.holds
        loose = [file for file in files if not any(one.first <= file.last and one.last >= file.first for one in held)]
        old = [file for file in loose if file.last < now - self.row.keep // 3600]
        size = sum(file.size for file in files) - sum(file.size for file in old)
        free, _ = self.store.room()
        rest = loose[len(old) :]  # they are in the order of their ends
        room: list[File] = []
        while rest and ((self.row.most and size > self.row.most) or free < FREE_LEAST) and len(rest) > 1:
            file = rest.pop(0)
            room.append(file)
            size -= file.size
            free += file.size
        for why, gone in (("age", old), ("room", room)):
            if gone:
                try:
                    self.store.dropped(gone, max(file.last for file in gone) + 1)
                except StoreFull as error:
                    self._full = str(error)
                    return
                self._times.known = None
                for file in gone:
                    self.setting.audit.note(
                        events.HistoryDropped(
                            wall_ns=self.setting.wall(), conduit=self.conduit, file=file.name, first=file.first,
                            last=file.last, rows=file.rows, why=why,  # type: ignore[arg-type]
                        )
                    )  # fmt: skip

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        """Runs something beside the keeper, and `done` with what it gave in the keeper's own turn. False: something
        else is running."""
        if self._job is not None:
            return False
        self._job = Job(work, done)
        return True

    # --- time

    def tick(self) -> None:
        self._finish()
        self.store.sweep()
        if self._pending:
            self._soon()
        if self.store.hot and self._job is None:
            wall = self.setting.wall()
            oldest = span_of(self.store.hot[0])
            if oldest // HOUR_NS < (wall - SEAL_AFTER_NS) // HOUR_NS and self._sealed_hour != wall // HOUR_NS:
                self._sealed_hour = wall // HOUR_NS
                self._seal()
        if self._job is None and (some := self._to_merge()):
            self._merge(some)
        if self._job is None and self.row.keep:
            self._drop()
        if self.row.sources:  # none where a reload has just taken the mirror away
            self.store.means(self._qualities)
        if self._job is None:
            found, today = self.store.catalogue, self.setting.wall() // HOUR_NS // 24 * 24
            if (what := partials.wanted(found.files, found.reckoned, today, self.store.hot_days)) is not None:
                self._reckon(what)
            else:
                self.store.reckoned([], [])
        self.verifying.tick()
        self._look_soon()

    def _look_soon(self) -> None:
        if not self._looks and (self._job is not None or self.verifying.busy):
            self._looks = True
            self.setting.reactor.call_in(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looks = False
        self._finish()
        self.verifying.tick()
        self._look_soon()

    _sealed_hour = 0
    """The hour in which the last hour's samples were sealed: what comes late waits for the next."""

    def _finish(self) -> None:
        """Raises: whatever the thread met."""
        job = self._job
        if job is not None and job.ended:
            self._job = None
            self._figures.measure("sealing", job.took)
            pa.default_memory_pool().release_unused()
            try:
                job.finish()
            except StoreFull as error:
                self._full = str(error)

    def stop(self) -> None:
        self._stopping = True

    def end(self) -> None:
        if self._job is not None:
            self._job.wait()
            self._finish()
        self.store.sync()

    def halt(self) -> None:
        """What is on disk stays; nothing is said any more."""
        self._pending.clear()

    @property
    def busy(self) -> int:
        return len(self._pending) + (self._job is not None)

    @property
    def full(self) -> str:
        """Why nothing can be taken, "" if it can."""
        return self._full

    def figures(self) -> Reported:
        catalogue = self.store.catalogue
        newest = self.store.newest
        free, _ = self.store.room()
        for name, value in (
            ("generation", catalogue.generation), ("hot", self.store.hot_rows), ("files", len(catalogue.files)),
            ("sealed_rows", sum(file.rows for file in catalogue.files)),
            ("sealed_size", sum(file.size for file in catalogue.files)), ("tags", len(catalogue.tags)),
            ("gaps", sum(loss.known for loss in catalogue.losses)), ("newest", max(0, newest)), ("store_free", free),
        ):  # fmt: skip
            self._figures.set(name, value)
        return self._figures.report()

    def alarms(self) -> dict[str, str]:
        found = self.verifying.alarms | self._times.alarms()
        free, size = self.store.room()
        if self._full:
            found["mirror-store-full"] = f"the mirror takes no more: {self._full}: make room on its disk"
        elif free < FREE_LEAST:
            found["mirror-store"] = (
                f"{free >> 20} MiB of {size >> 20} are left in {self.store.folder}, where the mirror keeps its history:"
                " the oldest goes first; make room on that disk, or `keep` it for less long"
            )
        if self.store.unnoted:
            found["mirror-store-note"] = (
                f"the hot log of {self.store.folder} stays there and grows, although it is sealed: {self.store.unnoted}"
                ": make room there, or put right whose file that is; then it goes by itself within twenty minutes"
            )
        if self.store.found:
            found["mirror-store-mended"] = clip(self.store.found)
        return found


def span_of(one: Any) -> int:
    """The earliest time of a commit's samples."""
    found = pc.min(one.batch.column(1)).as_py() if one.batch.num_rows else None
    return int(found) if found is not None else 1 << 62
