"""The log in the long run: seals what is old, drops or moves away what the policy no longer keeps, says how it grows.

One thing at a time, in a thread of little priority, and never what an append would wait for. Each step can be cut short
by a kill at any moment:

- A range is packed, compared with what it was packed from, put in place under its name; then the plain files go.
- What is to be dropped is first copied away if it is to be moved. Then an entry says that it is dropped, up to which
  entry and with which root; when a checkpoint covers that entry, `dropped` names it, and only then the files go.

Not here: the bytes (sealed, dropped), appending (log).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from cofferdam.audit.dropped import DROPPED, Dropped, dropped_text, parse_dropped, root_text
from cofferdam.audit.entry import EntryHead, parse_time
from cofferdam.audit.events.log import EntriesDropped
from cofferdam.audit.files import DirFiles, LogReader
from cofferdam.audit.keys import sync_folder, write_file
from cofferdam.audit.log import MAKER, AuditLog, prepare
from cofferdam.audit.sealed import (
    BLOCK,
    FOLDER,
    SEAL,
    Head,
    Sealed,
    join_sealed,
    pack_block,
    parse_sealed,
    sealed_path,
)
from cofferdam.audit.tiles import ENTRIES, join_hashes, split_entries, tile_path
from cofferdam.audit.tree import WIDTH, ReadHashes, leaf_hash, perfect_root, range_root
from cofferdam.errors import AuditError

SECOND = 1_000_000_000
LOOK_NS = 60 * SECOND
"""How often it is looked how large the log is, and what is too old; and when to try again after a failure."""
AGE_NS = 3600 * SECOND
"""At most one file goes in so long because it is old, and none so shortly after the start: a clock that went wrong by
years must not empty the log before somebody has seen it."""
DAY_NS = 86_400 * SECOND
WHOLE_NS = 600 * SECOND
"""A log that is younger says nothing of how it grows."""
PLAIN_RATIO = 12
"""So many times larger are entries before they are sealed: for the forecast, where none have been."""
_heads = msgspec.json.Decoder(EntryHead)


class Retention(msgspec.Struct, frozen=True):
    """What the policy keeps of the log: `keep_ns` of time and `most` bytes on disk (0: no bound). `move`: what goes is
    moved into the archive."""

    keep_ns: int = 0
    most: int = 0
    move: bool = False


class Growth(msgspec.Struct, frozen=True):
    """What was seen last: bytes on disk, in a day (-1: not known yet), the first entry that is kept and its time, the
    index behind the last that is sealed, and what does not succeed."""

    bytes: int = 0
    per_day: int = -1
    first: int = 0
    since: str = ""
    sealed: int = 0
    trouble: str = ""


class Seen(msgspec.Struct):
    """What a look at the folder found. `archives`: first, stop and bytes of each sealed file, in order."""

    bytes: int
    archives: list[tuple[int, int, int]]
    since: str
    recent: tuple[int, str]  # an entry from which on the growth is reckoned, and its time
    until: list[str]  # times of the last entries of the oldest files


class _Job:
    """A thread's work, and what became of it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self.done = False
        self.result: object = None
        self.error = ""
        self.thread = threading.Thread(target=self._run, name="audit-upkeep", daemon=True)

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            self.result = self._work()
        except Exception as error:  # whatever it is: an alarm, and the next try; appends go on
            self.error = str(error) or type(error).__name__
        self.done = True


class Upkeep:
    """Of one open log. `tick` is called a few times a second by whoever appends, and may append."""

    def __init__(
        self,
        log: AuditLog,
        *,
        wall_ns: Callable[[], int],
        mono_ns: Callable[[], int],
        archive: Path | None = None,
        seal: int = SEAL,
        age_ns: int = AGE_NS,
        background: bool = True,
    ) -> None:
        """`seal`: entries of one sealed file, and so many are always left plain."""
        self.retention = Retention()
        self.growth = Growth()
        self._log, self._wall, self._mono = log, wall_ns, mono_ns
        self._archive = archive or log.folder.parent / "archive"
        self._seal, self._age, self._background = seal, age_ns, background
        self._folder = log.folder
        self._job: tuple[_Job, Callable[[object], None]] | None = None
        self._look_at = mono_ns()
        self._aged_at = mono_ns()
        self._pause_until = 0
        self._ending = threading.Event()
        self._drop: Dropped | None = None  # said in the log, not done yet
        self._dropped = parse_dropped(DirFiles(self._folder).read(DROPPED), log.origin)
        self._sealed = max([self._dropped.stop, *(stop for _, stop, _ in self._archives())])

    def tick(self) -> None:
        """Goes on with what there is to do. Raises: LogUnwritable: an entry could not be appended."""
        now = self._mono()
        if self._job is not None:
            job, then = self._job
            if not job.done:
                return
            self._job = None
            trouble = job.error
            if not trouble:
                then(job.result)
            else:
                self._pause_until = now + LOOK_NS
            self.growth = msgspec.structs.replace(self.growth, trouble=trouble)
            return
        if now < self._pause_until or self._ending.is_set() or not self._log.published:
            return
        drop = self._drop
        if drop is not None:
            if self._log.published > drop.entry:
                self._start(lambda: self._remove(drop), self._removed)
        elif now >= self._look_at:
            self._look_at = now + LOOK_NS
            self._log.keep_reserve()
            self._start(self._look, self._looked)
        elif self._log.published - self._sealed >= 2 * self._seal:
            first = self._sealed
            self._start(lambda: self._pack(first, first + self._seal), self._packed)

    def close(self) -> None:
        """What is under way is given up, or waited for."""
        self._ending.set()
        if self._job is not None:
            job, _ = self._job
            if job.thread.ident is not None:
                job.thread.join()
            self._job = None

    def _start(self, work: Callable[[], object], then: Callable[[object], None]) -> None:
        job = _Job(work)
        self._job = (job, then)
        if self._background:
            job.thread.start()
        else:
            job._run()

    # --- sealing

    def _pack(self, first: int, stop: int) -> bool:
        """In a thread. Raises: AuditError, OSError."""
        files = DirFiles(self._folder)
        blocks: list[bytes] = []
        ends: list[bytes] = []
        for block in range(first, stop, BLOCK):
            if self._ending.wait(0.01):  # others have their turn
                return False
            bundles = []
            for index in range(block // WIDTH, min(block + BLOCK, stop) // WIDTH):
                data = files.read(tile_path(ENTRIES, index))
                hashes = files.read(tile_path(0, index))
                entries, left = split_entries(data or b"")
                if data is None or left or len(entries) != WIDTH or join_hashes(map_leaves(entries)) != hashes:
                    raise AuditError(f"{tile_path(ENTRIES, index)} was changed: it is not sealed")
                bundles.append(data)
                ends = [ends[0] if ends else entries[0], entries[-1]]
            blocks.append(pack_block(bundles))
        since, until = (_heads.decode(entry).time for entry in ends)
        path = sealed_path(first, stop)
        data = join_sealed(Head(self._log.origin, first, stop, since, until), blocks)
        made = Sealed(path, data)
        for index in range(first // WIDTH, stop // WIDTH):
            if join_hashes(map_leaves(made.bundle(index))) != files.read(tile_path(0, index)):
                raise AuditError(f"{path} does not unpack to what it was made of")
            if self._ending.is_set():
                return False
        (self._folder / FOLDER).mkdir(exist_ok=True)
        write_file(self._folder / path, data, 0o644)
        sync_folder(self._folder)
        remove_plain(self._folder, first, stop)
        return True

    def _packed(self, result: object) -> None:
        if result:
            self._sealed += self._seal

    # --- looking

    def _archives(self) -> list[tuple[int, int, int]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._folder / FOLDER):
                place = parse_sealed(f"{FOLDER}/{entry.name}")
                if place is not None:
                    found.append((*place, entry.stat(follow_symlinks=False).st_blocks * 512))
        return sorted(found)

    def _head(self, first: int, stop: int) -> Head:
        path = sealed_path(first, stop)
        return Sealed(path, DirFiles(self._folder).read(path) or b"").head

    def _time_of(self, reader: LogReader, index: int) -> str:
        return _heads.decode(next(entry for _, entry in reader.entries(index))).time

    def _look(self) -> Seen:
        """In a thread. Raises: AuditError, OSError."""
        size = 0
        for root, _, names in os.walk(self._folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    size += os.lstat(os.path.join(root, name)).st_blocks * 512  # noqa: PTH118  # many files
        archives = self._archives()
        reader = LogReader(self._folder, self._log.key.verifier)
        recent = archives[-1][0] if archives else self._dropped.stop
        retention = self.retention
        until = [self._head(first, stop).until for first, stop, _ in archives[:1]] if retention.keep_ns else []
        return Seen(
            size, archives, self._time_of(reader, archives[0][0] if archives else self._dropped.stop),
            (recent, self._time_of(reader, recent)), until,
        )  # fmt: skip

    def _looked(self, result: object) -> None:
        if not isinstance(result, Seen):
            return
        seen, now = result, self._wall()
        held = sum(stop - first for first, stop, _ in seen.archives)
        first = seen.archives[0][0] if seen.archives else self._dropped.stop
        took = sum(size for _, _, size in seen.archives)
        each = took / held if held else seen.bytes / PLAIN_RATIO / max(1, self._log.size - first)
        passed = now - parse_time(seen.recent[1])
        per_day = int((self._log.size - seen.recent[0]) * each * DAY_NS / passed) if passed >= WHOLE_NS else -1
        self.growth = Growth(seen.bytes, per_day, first, seen.since, self._sealed)
        self._choose(seen, now)

    # --- what goes

    def _choose(self, seen: Seen, now: int) -> None:
        keep, most, move = self.retention.keep_ns, self.retention.most, self.retention.move
        going: list[tuple[int, int, int]] = []
        size = seen.bytes
        for one in seen.archives:
            if not most or size <= most:
                break
            going.append(one)
            size -= one[2]
        why = "at-most"
        old = keep and seen.until and now - parse_time(seen.until[0]) > keep
        if not going and old and self._mono() - self._aged_at >= self._age:
            going, why = seen.archives[:1], "keep"
            self._aged_at = self._mono()
        if going and self._drop is None:
            self._start(lambda: self._prepare(going, why, move), self._prepared)

    def _prepare(self, going: list[tuple[int, int, int]], why: str, move: bool) -> EntriesDropped:
        """In a thread: copies what is moved; what the log has to say of it. Raises: AuditError, OSError."""
        first, stop = going[0][0], going[-1][1]
        for one in going if move else []:
            path = sealed_path(one[0], one[1])
            data = DirFiles(self._folder).read(path)
            if data is None:
                raise AuditError(f"{path} is missing")
            _leave(self._archive, path, data)
        reader = LogReader(self._folder, self._log.key.verifier)
        hashes = reader.hashes(reader.checkpoint().size)
        since, until = self._vouched(going[0], 0, hashes), self._vouched(going[-1], -1, hashes)
        if why == "keep" and self._wall() - parse_time(until) <= self.retention.keep_ns:
            raise AuditError(f"{sealed_path(*going[-1][:2])} says that it is older than it is: it is not dropped")
        root = range_root(0, stop, hashes)
        return EntriesDropped(
            wall_ns=self._wall(), first=first, stop=stop, root=root_text(root), why=why, moved=move,
            since=since, until=until,
            bytes=sum(size for _, _, size in going),
        )  # fmt: skip

    def _vouched(self, one: tuple[int, int, int], end: int, hashes: ReadHashes) -> str:
        """The time of a sealed file's first or last entry, by the entry itself, which the tree vouches for: a head can
        be changed by who wants the log to drop something. Raises: AuditError, OSError."""
        path = sealed_path(one[0], one[1])
        index = one[0] // WIDTH if end == 0 else one[1] // WIDTH - 1
        entries = Sealed(path, DirFiles(self._folder).read(path) or b"").bundle(index)
        if perfect_root(map_leaves(entries)) != hashes(1, index, 1)[0]:
            raise AuditError(f"{path} was changed: it is not dropped")
        return _heads.decode(entries[end]).time

    def _prepared(self, result: object) -> None:
        if isinstance(result, EntriesDropped):
            [place] = self._log.append_all([prepare(MAKER, "", [result])])
            self._drop = Dropped(result.stop, place.start)

    def _remove(self, drop: Dropped) -> Dropped:
        """In a thread. Raises: OSError."""
        write_file(self._folder / DROPPED, dropped_text(self._log.origin, drop), 0o644)
        sync_folder(self._folder)
        remove_sealed(self._folder, drop.stop)
        return drop

    def _removed(self, result: object) -> None:
        if isinstance(result, Dropped):
            self._dropped, self._drop = result, None
            self._look_at = self._mono()


def map_leaves(entries: list[bytes]) -> list[bytes]:
    """Their leaf hashes."""
    return [leaf_hash(entry) for entry in entries]


def _leave(archive: Path, path: str, data: bytes) -> None:
    """A copy that is durable. Raises: AuditError, OSError."""
    archive.mkdir(mode=0o750, exist_ok=True)
    target = archive / path
    target.parent.mkdir(exist_ok=True)
    write_file(target, data, 0o644)
    sync_folder(archive)
    there = DirFiles(archive).read(path)
    if there is None or sha256(there).digest() != sha256(data).digest():
        raise AuditError(f"{target} is not what was written there")


def remove_plain(folder: Path, first: int, stop: int) -> None:
    """The plain files of entries that are sealed. Raises: OSError."""
    for index in range(first // WIDTH, stop // WIDTH):
        for level in (0, ENTRIES):
            with contextlib.suppress(FileNotFoundError):
                (folder / tile_path(level, index)).unlink()
    for level in (ENTRIES, 0):
        last = (folder / tile_path(level, stop // WIDTH - 1)).parent
        with contextlib.suppress(OSError):  # others are still in it
            last.rmdir()


def remove_sealed(folder: Path, stop: int) -> None:
    """The sealed files of entries that were dropped. Raises: OSError."""
    for path in DirFiles(folder).paths():
        place = parse_sealed(path)
        if place is not None and place[1] <= stop:
            (folder / path).unlink(missing_ok=True)


def finish(folder: Path, dropped: Dropped) -> None:
    """What a kill left half done: plain files of what is sealed, sealed files of what was dropped. Raises: OSError."""
    remove_sealed(folder, dropped.stop)
    files = DirFiles(folder)
    for path in files.paths():
        place = parse_sealed(path)
        if place is not None and files._read(f"{folder}/{tile_path(ENTRIES, place[1] // WIDTH - 1)}") is not None:
            remove_plain(folder, *place)
