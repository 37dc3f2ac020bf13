"""The auditor's core: takes batches of several producers, makes them durable with one wait, says what became of each.

The loop around it: `submit` whatever has arrived, `commit` once, send the results; `tick` a few times a second.
Fails closed: a batch is acknowledged after it is on disk, and refused for any other reason whatsoever. What a crowd can
cause (quota) is left out, counted and told where a producer has written its share of the day, or the disk is nearly
full: nobody waits for such an entry, and those that somebody waits for keep their room.

Not here: pipes and the reactor (the process around this), files (log).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from cofferdam import disk
from cofferdam.audit.entry import ANYONE, DRAFTS, KINDS, LOG_OWN, MAX_BATCH_DRAFTS, Draft
from cofferdam.audit.events.access import WriteAllowed, WriteOutcome
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import Alarm
from cofferdam.audit.left_out import LeftOut
from cofferdam.audit.log import MAKER, AuditLog, PreparedDrafts, prepare
from cofferdam.audit.open_writes import OpenWrites
from cofferdam.audit.quota import AROUND_BYTES, Quota, Share, share_of, shares_of, whose
from cofferdam.audit.recent import RecentWrites
from cofferdam.audit.records import Counting
from cofferdam.audit.upkeep import Growth, Upkeep
from cofferdam.errors import AuditError, LogUnwritable
from cofferdam.histogram import Histogram

ALARM = "log-unwritable"
"""The name of the alarm while the log cannot be written."""
RESERVE_BYTES = 64 << 20
"""Below so much free space, or a twentieth of a small disk, only what somebody waits for is recorded."""
LOOK_NS = 1_000_000_000
"""How often the disk is looked at."""
TELL_NS = 60_000_000_000
"""How often it is told what was left out."""
OVER_NS = 3_600_000_000_000
"""So long after it last passed its share a producer is named as one that does."""
MAX_QUEUED = 65536
"""Drafts that may wait for a commit; a batch that would go beyond is refused."""

FULL = "its maker has written more than its share of a day"
NO_REST = "the disk is nearly full, and what is left of it is for others than who has written most of late"
HEAVY_BYTES = 16 << 20
"""Of events that one producer has said since the last checkpoint: as long as no checkpoint covers them they are in
memory, more than once, and an honest one says a tenth of that meanwhile."""
MOST_COUNTS = 80
"""Counts that one producer may have open."""
COUNTS = 0
"""The number of a batch that nobody waits for: an entry of what was counted."""


class Result(NamedTuple):
    """What became of one batch: durable if `ok`, else nothing of it is in the log and `reason` says why."""

    producer: str
    batch: int
    ok: bool
    reason: str


class Status(NamedTuple):
    """For `status` and the metrics. `refused` counts drafts that were not recorded, by producer."""

    writable: bool
    reason: str
    entries: int
    published: int
    appended: int
    queued: int
    refused: dict[str, int]
    outages: int
    commits: Histogram
    publications: Histogram
    over: tuple[str, ...]
    """Producers that have written more than their share of the day."""
    free: int
    total: int
    """Bytes of the disk: free, and in all."""
    growth: Growth
    root: bytes
    """Of the entries under the last checkpoint."""
    stuck: str
    """Why the log lives on what it had allocated before the disk was full, or ""."""


class Auditor:
    """Group commit for many producers."""

    def __init__(
        self,
        log: AuditLog,
        *,
        wall_ns: Callable[[], int] = time.time_ns,
        mono_ns: Callable[[], int] = time.monotonic_ns,
        disk: Callable[[], tuple[int, int]] | None = None,
        most: dict[Share, int] | None = None,
    ) -> None:
        """`disk`: its free bytes, and all. `most`: bytes of a day for each producer, where they are not the usual."""
        self._log = log
        self._wall = wall_ns
        self._mono = mono_ns
        self._disk = disk or self._folder_disk
        self._most = most
        self._free, self._total = self._disk()
        self._taken = 0
        """Bytes since then: who says much fills a disk from one look at it to the next."""
        self._rest: Counter[str] = Counter()
        """Bytes of the last of the disk, by producer."""
        self._rested: set[str] = set()
        """Producers that have had their part of it: their writes are refused."""
        self._ending: set[tuple[str, str]] = set()
        """Of open writes, by producer, the outcome is in the queue."""
        self._quotas: dict[str, Quota] = {}  # by producer, over all of its lives
        self._left_out: dict[str, LeftOut] = {}  # by producer, since that was last told
        self._over: dict[str, int] = {}  # producer -> when it last passed its share (monotonic ns)
        self._looked = self._told_at = mono_ns()
        self._queue: list[tuple[str, int, PreparedDrafts]] = []
        self._writes: list[tuple[str, WriteAllowed | WriteOutcome]] = []  # of the batches in the queue, by producer
        self.recent = RecentWrites()
        self.open_writes = OpenWrites()
        self.upkeep = Upkeep(log, wall_ns=wall_ns, mono_ns=mono_ns, background=log.background)
        self._uncovered: Counter[str] = Counter()  # bytes of events by producer, since the log had so many entries
        self._covered = log.published
        self._queued = 0
        self._results: list[Result] = []
        self._counts: dict[str, dict[int, Counting]] = {}  # by producer, those that are not over
        self._refused: Counter[str] = Counter()
        self._allowed: dict[str, frozenset[type]] = {}  # names come from the launcher, and there are few
        self._since = 0  # refused drafts of this outage
        self._outages = 0
        self._reason = ""

    @property
    def writable(self) -> bool:
        """Can entries be recorded, as far as is known?"""
        return not self._reason

    @property
    def reason(self) -> str:
        """Why not, or ""."""
        return self._reason

    def introduce(self, producer: str, says: Collection[str]) -> None:
        """From now on a producer may tell of these kinds of events, and of no others.

        Raises:
            AuditError: no such kind, or one that only the log itself tells of.
        """
        known = {kind: draft for kind, draft in zip(KINDS, DRAFTS, strict=True) if draft not in LOG_OWN}
        unknown = [kind for kind in says if kind not in known]
        if unknown:
            raise AuditError(f"{producer} is to tell of {unknown[0]}, which no producer tells of")
        self._allowed[producer] = frozenset(known[kind] for kind in says) | frozenset(ANYONE)

    def submit(self, producer: str, batch: int, drafts: Sequence[Draft], policy: str = "") -> bool:
        """Queue a batch for the next commit; False if it is refused. `policy` is the hash the producer works by; "" is
        the one last loaded."""
        if self._queued + len(drafts) > MAX_QUEUED:
            self._leave_out(producer, drafts)
            return self._refuse(producer, batch, len(drafts), "too many entries wait for the audit log")
        allowed = self._allowed.get(producer, frozenset())
        for draft in drafts:
            if type(draft) not in allowed:
                whose = "the log itself" if isinstance(draft, LOG_OWN) else "others"
                return self._refuse(producer, batch, len(drafts), f"{type(draft).__name__} is for {whose} to say")
        try:
            prepared = prepare(producer, policy, drafts)
        except AuditError as error:
            return self._refuse(producer, batch, len(drafts), str(error))
        if drafts and not self._has_room(producer, batch, drafts, prepared):
            return False
        self._queue.append((producer, batch, prepared))
        if self._covered != self._log.published:
            self._covered = self._log.published
            self._uncovered.clear()
        self._uncovered[producer] += sum(map(len, prepared.events))
        self._writes += [(producer, draft) for draft in drafts if isinstance(draft, WriteAllowed | WriteOutcome)]
        self._queued += len(prepared.events)
        return True

    def keep_count(self, producer: str, said: Counting) -> bool:
        """Takes what a producer has counted so far, and queues it as an entry when that is over. False: it has more
        counts open than any honest one."""
        counts = self._counts.setdefault(producer, {})
        if said.over:
            counts.pop(said.number, None)
            self.submit(producer, said.batch, (said.draft,), said.policy)
            return True
        if said.number not in counts and len(counts) >= MOST_COUNTS:
            return False
        counts[said.number] = said
        return True

    def close_counts(self, producer: str) -> None:
        """It says nothing any more: what it had counted and not told is queued."""
        for said in self._counts.pop(producer, {}).values():
            self.submit(producer, COUNTS, (said.draft,), said.policy)

    def _has_room(self, producer: str, batch: int, drafts: Sequence[Draft], prepared: PreparedDrafts) -> bool:
        """Leaves out what passes the producer's shares; False if the batch was refused."""
        now = self._mono()
        quota = self._quotas.get(producer)
        if quota is None:
            quota = self._quotas[producer] = Quota(now, self._most or shares_of(self._allowed.get(producer, ())))
        quota.fill(now)
        reserve = min(RESERVE_BYTES, self._total // 20)
        kept, out = [], []
        for draft, event in zip(drafts, prepared.events, strict=True):
            low = bool(self._log.stuck) or self._free - self._taken < reserve
            size = 2 * (len(event) + AROUND_BYTES)  # in journal and tile
            share = share_of(draft)
            is_outcome = isinstance(draft, WriteOutcome)
            rests = not low or (share == "changes" and self._may_have_rest(producer, draft, size))
            if rests and quota.take(share, len(event), whose(draft), last=is_outcome):
                kept.append(event)
                self._taken += size
                if low:
                    self._rest[producer] += size
                continue
            if not low:
                self._over[producer] = now
            if share == "changes":
                self._leave_out(producer, drafts)
                if not rests:
                    self._rested.add(producer)
                self._refuse(producer, batch, len(drafts), FULL if rests else NO_REST)
                return False
            out.append(draft)
        self._leave_out(producer, out)
        prepared.events[:] = kept
        return True

    def _may_have_rest(self, producer: str, draft: Draft, size: int) -> bool:
        """Whether a producer may have so much of the last of the disk: a fourth is for others, however much one of them
        says. What became of a write is recorded in any case, once."""
        if isinstance(draft, WriteOutcome):
            which = (producer, draft.write)
            if which not in self._ending and self.open_writes.has(*which):
                self._ending.add(which)
                return True
        room = max(self._free - self._taken, self._log.journal_room)
        return room - self._rest[producer] // 3 >= size

    def _resting(self) -> str:
        """Whose writes are refused though the log takes entries, and why; or ""."""
        who = ", ".join(sorted(self._rested))
        return f"writes of {who} are refused: {NO_REST}" if who else ""

    def _leave_out(self, producer: str, drafts: Sequence[Draft]) -> None:
        """These are in the log as a count, and with them who and what they were about."""
        if drafts:
            left = self._left_out.get(producer)
            if left is None:
                left = self._left_out[producer] = LeftOut(self._wall())
            for draft in drafts:
                left.add(draft)

    def over(self, producer: str) -> bool:
        """Whether a producer has just passed its share: it is read no faster than it need be."""
        return self._mono() - self._over.get(producer, -OVER_NS) < OVER_NS // 60

    def heavy(self, producer: str) -> bool:
        """Whether it says more than is made lasting in the same time: what memory that takes is for others to have.
        On a full disk, where there is no checkpoint, the journal's room bounds it."""
        late = self._covered == self._log.published and not self._log.stuck
        return late and self._uncovered[producer] > HEAVY_BYTES

    def _folder_disk(self) -> tuple[int, int]:
        return disk.room(self._log.folder)

    def _tell_left_out(self, *, last: bool = False) -> None:
        """Tells what was left out since that was last told. `last`: of less than a minute, too. Raises: AuditError; it
        is tried again, and nothing of it is lost."""
        now, wall = self._mono(), self._wall()
        if not self._left_out or (now - self._told_at < TELL_NS and not last):
            return
        told = [one.told(clip(producer, 128), wall) for producer, one in self._left_out.items()]
        self._log.append_all([prepare(MAKER, "", told)])
        self._told_at, self._left_out = now, {}

    def _tell_lost(self) -> None:
        """Closes writes whose part has ended. Raises: AuditError; it is tried again."""
        lost = self.open_writes.lost[:MAX_BATCH_DRAFTS]
        if lost:
            self._log.append_all([prepare(MAKER, "", lost)])
            self.open_writes.told(len(lost))

    def commit(self) -> list[Result]:
        """Make what is queued durable. Returns a result for each batch submitted since the last call."""
        queue, self._queue, self._queued = self._queue, [], 0
        writes, self._writes = self._writes, []
        self._ending.clear()
        if queue:
            parts = [prepared for _, _, prepared in queue]
            try:
                self._log.append_all([*self._recovered(), *parts])
            except AuditError as error:
                self._lost(error)
                for producer, batch, prepared in queue:
                    self._refuse(producer, batch, len(prepared.events), str(error))
            else:
                self._results += [Result(producer, batch, True, "") for producer, batch, _ in queue]
                for producer, draft in writes:
                    self.open_writes.add(producer, draft)
                    if isinstance(draft, WriteAllowed):
                        self.recent.add(draft, self._mono())
                self._seen()
        results, self._results = self._results, []
        return results

    def tick(self) -> None:
        """Publishes when due, and finds out whether the log can be written (again)."""
        now = self._mono()
        if now - self._looked >= LOOK_NS:
            self._looked = now
            self._free, self._total = self._disk()
            self._taken = 0
            if not self._log.stuck and self._free >= min(RESERVE_BYTES, self._total // 20):
                self._rest.clear()
                self._rested.clear()
            self._over = {producer: at for producer, at in self._over.items() if now - at < OVER_NS}
        try:
            self._log.tick()
            recovered = self._recovered()
            if recovered:
                self._log.append_all(recovered)
                self._seen()
            self._tell_left_out()
            self._tell_lost()
            self.upkeep.tick()
        except AuditError as error:
            self._lost(error)
        else:
            self._seen()

    def ended(self, producer: str) -> None:
        """It says nothing any more: what became of the writes that it has open, nobody knows."""
        self.open_writes.ended(producer, self._wall())

    def close(self) -> None:
        """Publishes and closes the log. Raises: LogUnwritable."""
        self.open_writes.all_ended(self._wall())
        self.upkeep.close()
        try:
            while self.open_writes.lost:
                self._tell_lost()
            self._tell_left_out(last=True)
        finally:
            self._log.close()

    def status(self) -> Status:
        """Counters since the log was opened."""
        log = self._log
        return Status(
            writable=self.writable,
            reason=self._reason or self._resting(),
            entries=log.size,
            published=log.published,
            appended=log.appended,
            queued=self._queued,
            refused=dict(self._refused),
            outages=self._outages,
            commits=log.commits,
            publications=log.publications,
            over=tuple(self._over),
            free=self._free,
            total=self._total,
            growth=self.upkeep.growth,
            root=log.root,
            stuck=log.stuck,
        )

    def _refuse(self, producer: str, batch: int, drafts: int, reason: str) -> bool:
        self._refused[producer] += drafts
        self._results.append(Result(producer, batch, False, clip(reason)))
        return False

    def _lost(self, error: AuditError) -> None:
        if not isinstance(error, LogUnwritable) and not self._log.fault:
            return
        if not self._reason:
            self._outages += 1
            self._since = self._refused.total()
        self._reason = str(error)

    def _recovered(self) -> list[PreparedDrafts]:
        """What has to be told once the log takes entries again."""
        if not self._reason:
            return []
        lost = self._refused.total() - self._since
        detail = clip(f"the log can be written again; {lost} entries were refused meanwhile. It was: {self._reason}")
        return [prepare(MAKER, "", [Alarm(wall_ns=self._wall(), name=ALARM, detail=detail, cleared=True)])]

    def _seen(self) -> None:
        """The log took what it was given; a publication may have failed behind it all the same."""
        if self._log.fault:
            self._lost(LogUnwritable(self._log.fault))
        else:
            self._reason = ""
