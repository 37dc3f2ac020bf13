"""The mirror's spooler: what a source has sent is on its disk before the source is told so, and stays until the keeper
has it, and two hours longer. It has no network, and sends in order: live first, and of the backfill no more at a time
than a live batch may wait for.

Whoever sends here is not believed: each batch is checked again before it is written. What comes back from the keeper
says what it has, and what is to be counted or read again, which goes on to the sources.

Not here: the files (spool).
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Collection
from typing import Any, Final

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.mirror import SamplesLost
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.mirror import rows, told
from cofferdam.brokers.mirror.columns import HOUR_NS, check
from cofferdam.brokers.mirror.records import (
    LANES,
    Begin,
    Count,
    Counted,
    Fetch,
    Held,
    Lane,
    Lost,
    Samples,
    Stored,
    Taken,
)
from cofferdam.brokers.mirror.spool import Spool, facts
from cofferdam.errors import CrossingError, StoreError, StoreFull
from cofferdam.policy.table import CompiledPolicy

KEEP_NS: Final = 2 * HOUR_NS
"""How long what the keeper has stays."""
WINDOW: Final = 32
"""Live batches on their way to the keeper."""
BACKFILL_WINDOW: Final = 2
PENDING_MOST: Final = 64
"""Batches of one source that wait for the disk: a source waits for `Stored` long before."""
FRESH_MOST: Final = 128
"""Batches that need not be read from the disk."""
SAVE_SECONDS: Final = 5.0
"""How often is written down what was handed over to a strand: what is newer is handed over again after a crash."""
RATE_SECONDS: Final = 60.0
ALARM_SECONDS: Final = (4 * 3600, 24 * 3600)
"""An alarm once there is room for less than that."""


class Spooler(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the spooler has no store")
        self._setting = setting
        self.conduit, row = rows.own(setting.policy)
        self._spool = Spool(setting.store, row.spool, KEEP_NS)
        self._acks = row.acks != "none"
        if not self._acks:
            self._blind()
        self._pending: deque[tuple[str, Samples]] = deque()
        self._stored: dict[str, int] = {}
        self._fresh: dict[tuple[Lane, int], Samples] = {}
        self._next: dict[Lane, int] = {lane: self._first(lane) for lane in LANES}
        self._known = not self._acks  # what the keeper has
        self._scheduled = False
        self._stopping = False
        self._full = ""
        self._spooled: dict[str, int] = dict.fromkeys(LANES, 0)
        self._lost = 0
        self._rate = 0.0
        self._saved_at = time.monotonic()
        self._rate_at, self._rate_bytes = time.monotonic(), 0
        for name in self._sources:
            setting.senders[name].send(Begin(dict(self._spool.state.upto)))

    def _blind(self) -> None:
        """Nobody says what has come. The numbers of a new spool are above those of any before it."""
        for lane in LANES:
            if self._spool.last(lane) == 0:
                self._spool.goes_on_after(lane, self._setting.wall() // 10**6)
            self._spool.taken[lane] = max(self._spool.first(lane) - 1, self._spool.state.sent.get(lane, 0))

    @property
    def _sources(self) -> list[str]:
        return [name for name in self._setting.senders if name != "keeper"]

    def _first(self, lane: Lane) -> int:
        """The first batch of a lane that is there."""
        return self._spool.first(lane) if self._acks else self._spool.taken[lane] + 1

    # --- the gate

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self.conduit, row = rows.own(policy)
        if row.spool:
            self._spool.most = row.spool
        return 0

    def set_severed(self, sides: Collection[str]) -> None:
        """It stands on none."""

    def command(self, asked: Asked) -> None:
        if asked.verb != "status":
            super().command(asked)
            return
        answer: told.Spooler = (
            {
                "bytes": self._spool.size, "most": self._spool.most, "left_seconds": self._left(),
                "lanes": facts(self._spool), "upto": self._spool.state.upto, "full": self._full,
                "known": self._known,
            }
        )  # fmt: skip
        asked.answer(answer)

    # --- records

    def on_record(self, source: str, record: Any) -> None:
        if source == "keeper":
            self._from_keeper(record)
        elif isinstance(record, Counted):
            self._setting.senders["keeper"].send(record)
        else:
            if record.number:
                raise CrossingError("a batch of a source with a number, which the spooler gives")
            check(record)
            if len(self._pending) >= PENDING_MOST * len(self._sources):
                raise CrossingError("more batches than a source may have under way")
            self._pending.append((source, record))
            self._soon()

    def _from_keeper(self, record: Any) -> None:
        if isinstance(record, Taken):
            self._taken(record)
        elif isinstance(record, (Count, Fetch, Held)):
            for name in self._sources:  # each knows its own
                self._setting.senders[name].send(record)

    def _taken(self, record: Taken) -> None:
        lanes: tuple[tuple[Lane, int], ...] = (("live", record.live), ("backfill", record.backfill))
        for lane, number in lanes:
            if self._known and number > self._spool.last(lane):
                raise CrossingError(f"the keeper has batch {number} of the lane {lane}, which was never sent")
            if not self._known:
                # After a spool that was removed, numbers go on behind those that the keeper has.
                self._spool.goes_on_after(lane, number)
                self._next[lane] = number + 1
            self._spool.taken[lane] = max(number, self._spool.taken[lane])
            for known in [key for key in self._fresh if key[0] == lane and key[1] <= number]:
                del self._fresh[known]
        self._known = True
        self._soon()

    # --- a turn

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._setting.reactor.later(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._write()
        self._send()

    def _write(self) -> None:
        done: dict[str, int] = {}
        wall = self._setting.wall()
        try:
            while self._pending:
                source, record = self._pending[0]
                if record.upto > wall:  # nobody has read what is to come; who believed it would read nothing until then
                    record = msgspec.structs.replace(record, upto=wall)
                if record.count or record.upto >= 0:
                    kept = self._spool.add(record, wall)
                    if len(self._fresh) < FRESH_MOST:
                        self._fresh[kept.lane, kept.number] = kept
                    self._spooled[record.lane] += record.count
                self._pending.popleft()
                done[source] = done.get(source, 0) + 1
            self._full = ""
        except StoreFull as error:
            self._full = str(error)
        self._spool.sync()
        for source, count in done.items():
            self._stored[source] = self._stored.get(source, 0) + count
            self._setting.senders[source].send(Stored(self._stored[source]))

    def _send(self) -> None:
        """As much as the keeper has room for: live first."""
        sender = self._setting.senders["keeper"]
        while self._known and not sender.closed and not sender.full:
            live = self._next["live"] <= self._spool.last("live") and self._under_way("live") < WINDOW
            backfill = self._next["backfill"] <= self._spool.last("backfill")
            lane: Lane = "live" if live else "backfill"
            if not live and (not backfill or self._under_way("backfill") >= BACKFILL_WINDOW):
                return
            number = self._next[lane]
            record = self._fresh.get((lane, number)) or self._spool.read(lane, number)
            if record is None:
                self._skip(lane, number)
                continue
            sender.send(record)
            self._next[lane] = number + 1
            if not self._acks:
                self._handed(lane, number)

    def _handed(self, lane: Lane, number: int) -> None:
        self._spool.handed(lane, number)
        self._fresh.pop((lane, number), None)

    def _under_way(self, lane: Lane) -> int:
        return self._next[lane] - 1 - self._spool.taken[lane] if self._acks else 0

    def _skip(self, lane: Lane, number: int) -> None:
        """A batch is not there any more: the keeper is told what is lost, up to the next that is."""
        known = [lost for lost in self._spool.state.lost if lost.lane == lane and lost.first <= number <= lost.last]
        if not known:
            upto = self._spool.gap_end(lane, number)
            known = [Lost(lane, number, upto, "*", 0, 0, 0)]
            self._tell_lost(known, "a batch of the spool is damaged or gone")
        for lost in known:
            self._setting.senders["keeper"].send(lost)
        self._next[lane] = max(lost.last for lost in known) + 1
        if not self._acks:
            self._handed(lane, self._next[lane] - 1)

    def _tell_lost(self, lost: Collection[Lost], why: str) -> None:
        for one in lost:
            self._lost += one.points
            self._setting.audit.note(
                SamplesLost(
                    wall_ns=self._setting.wall(), conduit=self.conduit, source=clip(one.source, 128),
                    since_hour=one.since // HOUR_NS, until_hour=one.until // HOUR_NS, points=one.points,
                    why=clip(why),
                )
            )  # fmt: skip

    # --- time

    def tick(self) -> None:
        lost = self._spool.trim(self._setting.wall(), {lane: self._next[lane] - 1 for lane in LANES})
        if lost:
            for one in lost:
                for number in [n for lane, n in self._fresh if lane == one.lane and one.first <= n <= one.last]:
                    del self._fresh[one.lane, number]
            self._tell_lost(lost, f"the spool is full ({self._spool.most} bytes)")
            for lane in LANES:
                gone = [one for one in lost if one.lane == lane]
                if gone and self._next[lane] <= max(one.last for one in gone):
                    self._soon()
        now = time.monotonic()
        if not self._acks and now - self._saved_at >= SAVE_SECONDS:
            self._saved_at = now
            with contextlib.suppress(OSError):  # else more is handed over again after a crash
                self._spool.save()
        if now - self._rate_at >= 1:
            total = self._spool.written
            rate = (total - self._rate_bytes) / (now - self._rate_at)
            share = min(1.0, (now - self._rate_at) / RATE_SECONDS)
            self._rate += share * (rate - self._rate)
            self._rate_at, self._rate_bytes = now, total
        if self._pending or self._known:
            self._soon()

    def _left(self) -> int:
        """Seconds until the spool is full at the present rate, if nothing were taken; -1: no rate is known."""
        return int((self._spool.most - self._spool.size) / self._rate) if self._rate > 1 else -1

    def stop(self) -> None:
        self._stopping = True

    def end(self) -> None:
        self._spool.close()

    def halt(self) -> None:
        """What is on disk stays; nothing else is done."""

    @property
    def busy(self) -> int:
        return len(self._pending)

    def figures(self) -> Reported:
        left = self._left()
        return {
            "spooled": dict(self._spooled),
            "spool": {"": self._spool.size},
            "spool_waiting": {lane: self._spool.waiting(lane) for lane in LANES},
            "spool_left": {"": max(0, left) * 10**9},
            "spool_lost": {"": self._lost},
        }

    def alarms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        waiting = sum(self._spool.waiting(lane) for lane in LANES)
        if self._full:
            found["mirror-spool-full"] = f"the mirror reads nothing more: {self._full}"
        elif waiting > WINDOW and 0 <= (left := self._left()) < ALARM_SECONDS[1]:
            words = f"the store does not take what comes: the spool has room for {left // 3600} h {left // 60 % 60} min"
            found["mirror-spool" if left >= ALARM_SECONDS[0] else "mirror-spool-soon"] = words
        if self._spool.found:
            found["mirror-spool-mended"] = clip(self._spool.found)
        return found
