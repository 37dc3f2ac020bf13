"""A spooler and a keeper in this process, with real stores and a real loop; what they say to each other waits in queues
until a test lets it through."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any, cast

import msgspec

from cofferdam.audit.client import AuditClient
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.mirror import records
from cofferdam.brokers.mirror.columns import HOUR_NS, Sample, pack, summary
from cofferdam.brokers.mirror.keeper import Keeper
from cofferdam.brokers.mirror.records import Lane, Samples, Stored
from cofferdam.brokers.mirror.spooler import Spooler
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.mirror.test_docs import compiled

NOW = 1_795_404_737_000_000_000


class Queue(Sender[Any]):
    """The sending end of a pipe that a test empties. Each record is encoded and decoded, as on a real one."""

    def __init__(self, codec: Any) -> None:
        super().__init__(1 << 20)
        self._codec = codec
        self.waiting: deque[Any] = deque()

    def send(self, record: Any) -> None:
        self.waiting.append(self._codec.decode(self._codec.encode(record)))

    def close(self) -> None:
        self.waiting.clear()


class Log:
    """Takes what is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def note(self, draft: Any, *, always: bool = False) -> None:
        self.told.append(msgspec.json.decode(msgspec.json.encode(draft), type=type(draft)))


class Pair:
    """Both, over one folder. `born` makes them anew, as after a crash."""

    def __init__(self, folder: Path, policy: CompiledPolicy | None = None) -> None:
        self.folder = folder
        self.policy = policy or compiled()
        self.wall = NOW
        self.log = Log()
        for part in ("spooler", "keeper"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.stored = 0
        self.alive = False
        self.born()

    def born(self) -> None:
        if self.alive:
            self._gone()
        self.loop, self.alive = Reactor(), True
        self.to_keeper, self.to_spooler = Queue(records.to_keeper()), Queue(records.from_keeper())
        self.to_source = Queue(records.to_source())
        self.keeper = Keeper(self._setting("keeper", {"spooler": self.to_spooler}))
        self.spooler = Spooler(self._setting("spooler", {"keeper": self.to_keeper, "collector": self.to_source}))
        self.stored = 0
        self.turn()

    def _setting(self, part: str, senders: dict[str, Any]) -> Setting:
        return Setting(
            crew="mirror", part=part, broker="mirror", boot="t", again=False, policy=self.policy, severed=frozenset(),
            assets=(), zones=(("enterprise",), "control"), reactor=self.loop, audit=cast(AuditClient, self.log),
            senders=senders, dial=cast(Any, None), store=self.folder / part, wall=lambda: self.wall,
        )  # fmt: skip

    def turn(self) -> None:
        self.loop.turn(0)
        while self.to_source.waiting:
            record = self.to_source.waiting.popleft()
            if isinstance(record, Stored):
                self.stored = record.count

    def offer(self, record: Samples) -> None:
        """A source hands a batch over; it is on disk after the turn."""
        codec = records.from_source()
        self.spooler.on_record("collector", codec.decode(codec.encode(record)))
        self.turn()

    def forth(self, most: int = 1 << 30) -> None:
        """Lets records through to the keeper, which does a turn."""
        while self.to_keeper.waiting and most:
            self.keeper.on_record("spooler", self.to_keeper.waiting.popleft())
            most -= 1
        self.turn()

    def back(self) -> None:
        """Lets the keeper's words through."""
        while self.to_spooler.waiting:
            self.spooler.on_record("keeper", self.to_spooler.waiting.popleft())
        self.turn()

    def seal(self) -> None:
        """Seals what is hot, and waits for it."""
        self.keeper.seal_now()
        self.settle()

    def settle(self) -> None:
        """Whatever runs beside the keeper ends."""
        while self.keeper._job is not None:
            self.keeper._job.wait()
            self.keeper.tick()
            self.turn()

    def all(self) -> None:
        """Until nothing more moves."""
        for _ in range(10_000):
            before = (self.spooler._spool.waiting("live"), self.spooler._spool.waiting("backfill"))
            self.back()
            self.forth()
            if before == (0, 0) and not self.to_spooler.waiting:
                return
        raise AssertionError("batches still wait")

    def has(self, first: int, last: int) -> dict[str, int]:
        """By tag: samples of different times in these hours."""
        found: dict[str, int] = {}
        for hour in range(first, last + 1):
            for tag, one in summary(self.keeper.store.hour(hour)()).items():
                found[tag] = found.get(tag, 0) + one.times
        return found

    def close(self) -> None:
        self.settle()
        self.spooler.end()
        self.keeper.end()
        self._gone()

    def _gone(self) -> None:
        """The descriptors of both go, as with their processes; nothing is written by it."""
        spool, log = self.spooler._spool, self.keeper.store.log
        for file in (*spool._files.values(), *(cursor._file for cursor in spool._reading.values())):
            os.close(file)
        spool._files.clear()
        spool._reading.clear()
        log._end()
        self.loop.close()


def batch(lane: Lane, samples: list[tuple[str, int, float]], source: str = "historian") -> Samples:
    return pack(lane, source, [Sample(tag, at, value) for tag, at, value in samples])


HOUR = NOW // HOUR_NS
__all__ = ["HOUR", "NOW", "Pair", "batch"]
