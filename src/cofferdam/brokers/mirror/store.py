"""The keeper's store: hot log, sealed files, catalogue; what was taken, what a tag has, what there is of an hour.

Not here: when a thing is done, and what is told of it (keeper).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cofferdam import disk
from cofferdam.brokers.mirror import anew, catalogue, hot, partials, sealing
from cofferdam.brokers.mirror.catalogue import File, Hold, Loss, Reckoned, Tag
from cofferdam.brokers.mirror.columns import HOUR_NS, NO_TIME, STORED, Summary, stored, summary, tidy
from cofferdam.brokers.mirror.records import LANES, Lane, Samples
from cofferdam.errors import StoreError
from cofferdam.policy.terms.mirror_rows import Qualities

TAGS_MOST: Final = 100_000
UNCOUNTED_MOST: Final = 16
"""Commits whose tags are not counted yet, and of which each has its own names in memory."""
LOSSES_MOST: Final = 10_000
"""Losses that are listed; of more, the latest."""


class Store:
    """The folder. Reads what is there; cuts the hot log at the first batch that does not verify."""

    def __init__(self, folder: Path) -> None:
        """Raises: StoreError."""
        self.folder = folder
        self._catalogue = catalogue.load(folder)
        self.names = set(self._catalogue.tags)
        """Of all tags."""
        self._uncounted: list[hot.Commit] = []
        self.commit = self.catalogue.sealed
        self.taken: dict[Lane, int] = {lane: self.catalogue.taken.get(lane, 0) for lane in LANES}
        self.hot: list[hot.Commit] = []
        self.hot_rows = 0
        self.hot_days: dict[int, int] = {}
        """Days since 1970 of which something is hot, and the last commit that has it."""
        self.newest = NO_TIME
        self.newest_of: dict[str, int] = {}
        """By source: the newest of its samples."""
        self.found = self._catalogue.found
        self._catalogue.found = ""
        self._settled = True
        self.log = hot.HotLog(folder)
        self._lingering: list[tuple[float, str]] = []
        self._note_has = 0
        """Up to which commit the note says that all is sealed."""
        self.unnoted = ""
        """Why it does not say all, "" if it does."""
        with contextlib.suppress(StoreError):
            self._note_has = catalogue.load(folder, catalogue.NOTE).sealed
        try:
            self._open()
        except OSError as error:
            raise StoreError(f"the store {folder} cannot be read: {error.strerror or error}") from None

    def _open(self) -> None:
        made = self._catalogue.reckoned  # of an earlier form they are made anew, and samples are read until then
        self._catalogue.reckoned = [one for one in made if one.form == partials.FORM]
        for tag in self._catalogue.tags.values():
            self.newest_of[tag.source] = max(self.newest_of.get(tag.source, tag.last), tag.last)
        known = {file.name for file in self.catalogue.files}
        named = known | {one.name for one in self.catalogue.reckoned}
        self._clean(known, named)
        missing = [name for name in known if not (self.folder / name).exists()]
        if missing:
            self.found = f"{len(missing)} sealed files are gone: {', '.join(sorted(missing)[:3])}"
            self._lose([file for file in self.catalogue.files if file.name in missing], "its file is gone")
        torn = False
        for path in hot.files(self.folder, 0):
            whole = False
            for one in hot.read(path):
                whole = True
                if one.commit <= self.catalogue.sealed:
                    continue
                if one.commit != self.commit + 1:
                    torn = True
                    break
                self._note(one)
            if torn:  # one before it is damaged: what follows is sent again by the spool, and kept beside until then
                path.rename(path.with_name(f"{path.name}.damaged"))
                self.found = f"{path.name} and later files of the hot log follow on a damaged one and were set aside"
            elif not whole:
                path.unlink()
        self._drop_hot()

    def _clean(self, known: Collection[str], named: Collection[str]) -> None:
        """Removes what a crash has left: what nothing in the catalogue names, and that is elsewhere as well. Raises:
        StoreError, where it is not: then the catalogue is older than its files."""
        odd = []
        for path in self.folder.iterdir():
            if path.suffix == ".new" or (path.suffix == partials.SUFFIX and path.name not in named):
                path.unlink()
            elif sealing.is_name(path.name) and path.name not in named:
                odd.append(path)
        if not odd:
            return
        upto = anew.reach(self.folder, self.catalogue.sealed)
        there = all((self.folder / name).exists() for name in known)
        for path in odd:
            if not there or sealing.commit_in(path.name) > upto:
                raise StoreError(
                    f"the catalogue of {self.folder} is older than {path.name}, which it does not name",
                    hint=catalogue.REBUILD,
                )
        for path in odd:
            path.unlink()

    @property
    def reach(self) -> int:
        """Up to when there are samples (UTC ns), to the hour for what is sealed; NO_TIME for a store without any."""
        return max([self.newest, *((file.last + 1) * HOUR_NS for file in self._catalogue.files)])

    @property
    def catalogue(self) -> catalogue.Catalogue:
        """With all that was taken in it."""
        if self._uncounted:
            self._count()
        return self._catalogue

    @property
    def holds(self) -> list[Hold]:
        """What is held."""
        return self._catalogue.holds

    def _note(self, one: hot.Commit, names: Iterable[str] | None = None) -> None:
        """`names`: all that its samples may have, where that is known."""
        self.hot.append(one)
        self.hot_rows += one.batch.num_rows
        self.commit = one.commit
        self.taken[one.lane] = max(self.taken[one.lane], one.number)
        if one.batch.num_rows:
            newest = pc.max(one.batch.column(1)).as_py()
            self.newest = max(self.newest, newest)
            self.newest_of[one.source] = max(self.newest_of.get(one.source, newest), newest)
            self.hot_days.update(dict.fromkeys(sealing.days_of(one.batch.column(1)), one.commit))
            if names is None or not self.names.issuperset(names):
                self.names.update(one.batch.column(0).dictionary.to_pylist())
            self._uncounted.append(one)
            if len(self._uncounted) >= UNCOUNTED_MOST:
                self._count()

    def _count(self) -> None:
        """What the tags of the last commits have now: of many at once, since each has most tags. From here on they
        share their names in memory."""
        commits, self._uncounted = self._uncounted, []
        shared: dict[int, hot.Commit] = {}
        by_source: dict[str, list[hot.Commit]] = {}
        for one in commits:
            by_source[one.source] = [*by_source.pop(one.source, ()), one]  # who came last, counts last
        for source, some in by_source.items():
            table = pa.Table.from_batches([one.batch for one in some]).unify_dictionaries()
            self._tags(source, table)
            for one, batch in zip(some, table.to_batches(), strict=True):
                shared[one.commit] = one._replace(batch=batch)
        for at in range(len(self.hot) - 1, -1, -1):
            if self.hot[at].commit < commits[0].commit:
                break
            self.hot[at] = shared.get(self.hot[at].commit, self.hot[at])

    def _tags(self, source: str, table: pa.Table) -> None:
        """What the tags of a source's samples have now."""
        tags = table.column("tag")
        plain = pa.table({
            "tag": pa.chunked_array([chunk.indices for chunk in tags.chunks]), "time": table["time"],
            "kind": table["kind"],
        })  # fmt: skip
        found = plain.group_by("tag", use_threads=False).aggregate(
            [("time", "min"), ("time", "max"), ("time", "count"), ("kind", "last")]
        ).to_pydict()  # fmt: skip
        names, known = tags.chunk(0).dictionary.to_pylist(), self._catalogue.tags
        for index, low, high, count, kind in zip(
            found["tag"], found["time_min"], found["time_max"], found["time_count"], found["kind_last"], strict=True
        ):
            tag = known.get(names[index])
            if tag is None:
                tag = known[names[index]] = Tag(source, kind, low, high, 0)
            tag.source, tag.kind = source, kind
            if low < tag.first:
                tag.first = low
            if high > tag.last:
                tag.last = high
            tag.points += count

    def save(self) -> None:
        """Puts the catalogue in place, with as many samples of each tag as are sealed: readers, and a start, add what
        is hot to them. Raises: StoreError."""
        found = self.catalogue
        of = [one.batch.column(0) for one in self.hot if one.commit > found.sealed and one.batch.num_rows]
        tags = pa.chunked_array(of).unify_dictionaries() if of else None
        counts: dict[str, int] = {}
        if tags is not None:
            names = tags.chunk(0).dictionary.to_pylist()
            places = pa.chunked_array([chunk.indices for chunk in tags.chunks])
            counts = {names[one["values"]]: one["counts"] for one in pc.value_counts(places).to_pylist()}
        for name, count in counts.items():
            found.tags[name].points -= count
        try:
            catalogue.save(self.folder, found)
        finally:
            for name, count in counts.items():
                found.tags[name].points += count

    def _drop_hot(self) -> None:
        """Hot files whose every commit is sealed."""
        needed = {path.name for path in hot.files(self.folder, self.catalogue.sealed)} if self.hot else set()
        for path in self.folder.glob("hot-*.arrows"):
            if path.name not in needed:
                self._lingering.append((0.0, path.name))
        self.sweep()

    def _noted(self) -> bool:
        """Whether the note beside the catalogue says all that is sealed; where it does not, it is put right. As long as
        it is behind, the hot log stays: where catalogue and copy are lost, nobody could tell the files of a sealing
        from those of one that was killed."""
        sealed = self._catalogue.sealed
        if self._note_has < sealed:
            try:
                catalogue.note(self.folder, self._catalogue)
                self._note_has, self.unnoted = sealed, ""
            except OSError as error:
                self.unnoted = f"{catalogue.NOTE} cannot be written: {error.strerror}"
        return self._note_has >= sealed

    # --- taking

    def add(self, record: Samples, batch: pa.RecordBatch) -> None:
        """Takes a batch; `sync` makes it last. Raises: StoreFull, StoreError."""
        one = hot.Commit(self.commit + 1, record.lane, record.number, record.source, batch)
        self.log.add(*one)
        self._note(one, record.names)

    def sync(self) -> None:
        """What was taken is on disk, and readable. Raises: StoreError."""
        self.log.sync()

    # --- sealing

    def to_seal(self) -> list[hot.Commit]:
        """What is hot now; what comes from here on is not among it. Raises: StoreError."""
        self.log.roll()
        return list(self.hot)

    def sealed(self, commits: list[hot.Commit], files: list[File]) -> None:
        """Files are there for these commits. Raises: StoreError."""
        last = commits[-1].commit
        before = (self.catalogue.sealed, dict(self.catalogue.taken), list(self.catalogue.files))
        self.catalogue.sealed = last
        for one in commits:
            self.catalogue.taken[one.lane] = max(self.catalogue.taken.get(one.lane, 0), one.number)
        self.catalogue.files += files
        try:
            self.save()
        except StoreError:
            self.catalogue.sealed, self.catalogue.taken, self.catalogue.files = before
            raise
        self._noted()  # not before: what a crash leaves unsealed is not to be noted
        self.hot = [one for one in self.hot if one.commit > last]
        self.hot_rows = sum(one.batch.num_rows for one in self.hot)
        self.hot_days = {day: commit for day, commit in self.hot_days.items() if commit > last}
        for path in self.folder.glob("hot-*.arrows"):
            if int(path.stem.split("-")[1]) <= last:
                self.leave(path.name)

    def replaced(self, some: Iterable[tuple[Sequence[File], File]]) -> None:
        """Files stand for several others each. Raises: StoreError."""
        pairs = list(some)
        gone = {file.name for old, _ in pairs for file in old}
        before = self.catalogue.files
        self.catalogue.files = [*(file for file in before if file.name not in gone), *(new for _, new in pairs)]
        try:
            self.save()
        except StoreError:
            self.catalogue.files = before
            raise
        for name in gone:
            self.leave(name)

    def dropped(self, files: Iterable[File], upto: int) -> None:
        """These are no longer kept. Raises: StoreError."""
        gone = {file.name for file in files}
        before = (self.catalogue.files, self.catalogue.dropped)
        self.catalogue.files = [file for file in self.catalogue.files if file.name not in gone]
        self.catalogue.dropped = max(self.catalogue.dropped, upto)
        try:
            self.save()
        except StoreError:
            self.catalogue.files, self.catalogue.dropped = before
            raise
        for name in gone:
            self.leave(name)

    def reckoned(self, fresh: Collection[Reckoned], gone: Collection[str]) -> None:
        """Aggregates are there, and others not any more: of sealed files that are gone, too. Raises: StoreError."""
        before = self.catalogue.reckoned
        names = {file.name for file in self.catalogue.files}
        now = [one for one in (*before, *fresh) if one.name not in gone and not names.isdisjoint(one.of)]
        if now == before:
            return
        self.catalogue.reckoned = now
        try:
            self.save()
        except StoreError:
            self.catalogue.reckoned = before
            raise
        for name in {one.name for one in (*before, *fresh)} - {one.name for one in now}:
            self.leave(name)

    def means(self, qualities: tuple[Qualities, ...]) -> None:
        """What qualities mean from now on. What was reckoned by another meaning is no more. Raises: StoreError."""
        before = (self.catalogue.qualities, self.catalogue.reckoned)
        if qualities == before[0]:
            return
        self.catalogue.qualities, self.catalogue.reckoned = qualities, []
        try:
            self.save()
        except StoreError:
            self.catalogue.qualities, self.catalogue.reckoned = before
            raise
        for one in before[1]:
            self.leave(one.name)

    def lost(self, loss: Loss, lane: Lane, last: int) -> None:
        """Batches of a lane up to `last` will not come. Raises: StoreError."""
        self.sync()  # what came before them is on disk before the catalogue says so
        before = (self.catalogue.losses, dict(self.catalogue.taken))
        self.catalogue.losses = [*self.catalogue.losses[-LOSSES_MOST:], loss]
        self.catalogue.taken[lane] = max(self.catalogue.taken.get(lane, 0), last)
        try:
            self.save()
        except StoreError:
            self.catalogue.losses, self.catalogue.taken = before
            raise
        self.taken[lane] = max(self.taken[lane], last)

    def is_lost(self, lane: Lane, number: int) -> bool:
        """Whether this batch is one that a strand has lost, and is welcome if it comes."""
        return self._loss(lane, number) is not None

    def _loss(self, lane: Lane, number: int) -> Loss | None:
        found = (one for one in self._catalogue.losses if one.lane == lane and one.first <= number <= one.last)
        return next(found, None)

    def came(self, lane: Lane, number: int, low: int, high: int) -> None:
        """A batch that was lost has come after all, with samples between two times: what is lost is less by it, or by
        as much as is known. `settle` writes that down."""
        loss = self._loss(lane, number)
        if loss is None:
            return
        at = self.catalogue.losses.index(loss)
        rest = []
        if loss.first < number:
            rest.append(msgspec.structs.replace(loss, last=number - 1, until=max(loss.since, min(loss.until, low))))
        if number < loss.last:
            rest.append(msgspec.structs.replace(loss, first=number + 1, since=min(loss.until, max(loss.since, high))))
        self.catalogue.losses[at : at + 1] = rest
        self._settled = False

    def settle(self) -> None:
        """Writes down what has come after all. Raises: StoreError."""
        if not self._settled:
            self.sync()  # it is on disk before the catalogue says so
            self.save()
            self._settled = True

    def _lose(self, files: list[File], why: str) -> None:
        gone, now = {file.name for file in files}, time.time_ns()
        before = (self.catalogue.files, self.catalogue.losses)
        self.catalogue.files = [file for file in self.catalogue.files if file.name not in gone]
        self.catalogue.losses = self.catalogue.losses + [
            Loss("*", file.first * HOUR_NS, (file.last + 1) * HOUR_NS, file.rows, why, now) for file in files
        ]
        try:
            self.save()
        except StoreError:
            self.catalogue.files, self.catalogue.losses = before
            raise

    def set_aside(self, file: File, why: str) -> None:
        """A damaged file counts no more; it stays, under another name. Raises: StoreError."""
        with contextlib.suppress(OSError):
            (self.folder / file.name).rename(self.folder / f"{file.name}.damaged")
        self._lose([file], why)

    def leave(self, name: str) -> None:
        """A file that readers may still have open goes later."""
        self._lingering.append((time.monotonic() + catalogue.LINGER_SECONDS, name))

    def sweep(self) -> None:
        """Removes what has lingered long enough."""
        now = time.monotonic()
        due = [name for until, name in self._lingering if until <= now]
        if not due:
            return
        self._lingering = [one for one in self._lingering if one[0] > now]
        reckoned = {one.name for one in self.catalogue.reckoned}  # some were made anew meanwhile
        for name in due:
            if name.startswith("hot-") and not self._noted():
                self._lingering.append((now + catalogue.LINGER_SECONDS, name))
            elif name not in reckoned:
                with contextlib.suppress(FileNotFoundError):
                    (self.folder / name).unlink()

    # --- what is there

    def hours(self) -> Iterator[tuple[int, int]]:
        """First and last hours of all that has samples."""
        yield from ((file.first, file.last) for file in self._catalogue.files)
        yield from ((day * 24, day * 24 + 23) for day in self.hot_days)

    def files_of(self, first: int, last: int) -> list[File]:
        """The files that may have samples of these hours."""
        return [file for file in self._catalogue.files if file.first <= last and file.last >= first]

    def hour(self, hour: int) -> Callable[[], pa.Table]:
        """What reads all samples of an hour, tidy, as it is now: in a thread, if need be. It raises StoreError."""
        low, high = hour * HOUR_NS, (hour + 1) * HOUR_NS
        commits, paths = list(self.hot), [self.folder / file.name for file in self.files_of(hour, hour)]

        def read() -> pa.Table:
            found = [_within(stored([(one.commit, one.batch) for one in commits]), low, high)]
            found += [_within(group.cast(STORED), low, high) for path in paths for group in sealing.read_groups(path)]
            return tidy(pa.concat_tables(found))

        return read

    def is_hot(self, first: int, last: int) -> bool:
        """Whether something of the days of these hours is not sealed yet."""
        return any(day in self.hot_days for day in range(first // 24, last // 24 + 1))

    def summed(self, first: int, last: int) -> Callable[[], dict[str, Summary]]:
        """What reads how much each tag has of these hours in sealed files, of each time the last revision, some tags at
        a time. It raises StoreError."""
        low, high = first * HOUR_NS, (last + 1) * HOUR_NS
        paths = [self.folder / file.name for file in self.files_of(first, last)]

        def read() -> dict[str, Summary]:
            found: dict[str, Summary] = {}
            for table in sealing.merged(paths):  # all of a tag is in one of them
                found |= summary(tidy(_within(table, low, high), latest=True))
            return found

        return read

    def room(self) -> tuple[int, int]:
        """Bytes free for the store's user, and of the whole disk."""
        return disk.room(self.folder)


def _within(table: pa.Table, low: int, high: int) -> pa.Table:
    times = table["time"].cast(pa.int64())
    return table.filter(pc.and_(pc.greater_equal(times, low), pc.less(times, high)))
