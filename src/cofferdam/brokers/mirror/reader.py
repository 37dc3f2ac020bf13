"""The mirror's reader: answers HTTP for the readers of its zone, from the keeper's store, which it sees read-only.

It has no pipe to any other part and dials nobody: whoever owns it reads what the readers may read, and writes nothing.

Not here: the API (api), the store (query), doors and keys (kit.http).
"""

from __future__ import annotations

import mmap
import resource
import time
from collections.abc import Iterable
from typing import Any, Final

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.mirror import HistoryRead
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.figures import Figures, Reported
from cofferdam.brokers.kit.http.connection import Limits
from cofferdam.brokers.kit.http.doors import HttpPart
from cofferdam.brokers.kit.threads import Threads
from cofferdam.brokers.mirror import rows
from cofferdam.brokers.mirror.api import SQL_BYTES, Api
from cofferdam.brokers.mirror.figures import READER
from cofferdam.brokers.mirror.query import Reading
from cofferdam.errors import CrossingError, StoreError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.doors import Door

LIMITS: Final = Limits(body_bytes=SQL_BYTES, rest_bytes=1 << 20, answer_seconds=150.0)
THREADS: Final = 3
MEMORY_BYTES: Final = 4 << 30
"""For all that is reckoned; the files that are mapped are not counted. The database minds its own limit for tables, and
not for a single text or list."""
ROOM_BYTES: Final = 64 << 20
"""What has to be left of it once nothing is reckoned any more."""
NARROW_TICKS: Final = 180
"""It is not waited for longer that nothing is reckoned."""
TELL_SECONDS: Final = 60.0
"""Readings of one kind are told to the audit log together."""
KINDS_MOST: Final = 256


class Reader(HttpPart):
    """The part."""

    api: Api

    def __init__(self, setting: Setting) -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        folder = setting.reads.get("keeper")
        if folder is None:
            raise StoreError("the reader sees no store")
        self._folder = folder
        self._counts: dict[tuple[str, str, str], list[Any]] = {}
        self._figures = Figures([one for one in READER if not one.name.startswith("http_")])
        self._told_at = time.monotonic()
        self._narrow, self._doomed = 0, ""
        super().__init__(setting, LIMITS)

    def make_api(self) -> Api:
        self._threads = Threads(self.loop, THREADS)
        return Api(Reading(self._folder), self._threads, self.note, self._count, self.setting.wall)

    def doors(self, policy: CompiledPolicy) -> Iterable[Door]:
        self.conduit, row = rows.own(policy)
        self.api.row = row
        self._look(policy)
        return row.doors

    def _look(self, policy: CompiledPolicy) -> None:
        conduit = policy.conduits.get(self.conduit)
        self.api.open = conduit is not None and standing(conduit, policy.table.clocks, self.setting.wall()).open

    def on_record(self, source: str, record: Any) -> None:
        raise CrossingError("nobody has a pipe to the reader")

    # --- what is counted

    def _count(
        self, principal: str, key: str, what: str, rows: int, size: int, tags: tuple[str, ...], took_ns: int
    ) -> None:  # fmt: skip
        self._figures.add("queries", 1, principal)
        self._figures.add("query_rows", rows, principal)
        self._figures.add("query_bytes", size, principal)
        self._figures.measure("query", took_ns)
        kind = (principal, key, what)
        if kind in self._counts:
            one = self._counts[kind]
            one[0] += 1
            one[1] += rows
            one[2] = tuple(dict.fromkeys((*one[2], *tags)))[:8]
        elif len(self._counts) < KINDS_MOST:
            self._counts[kind] = [1, rows, tags[:8]]

    def tick(self) -> None:
        super().tick()
        self._mind_statements()
        self._look(self.policy)
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._tell_reads()

    def _mind_statements(self) -> None:
        """Ends this process, so that another one begins, where a statement cannot be ended otherwise; or where large
        ones have taken all addresses, which the database's allocator keeps: nothing could be reckoned any more, while
        all seems to be well. It is told first, and then done. Raises: StoreError."""
        if self._doomed:
            raise StoreError(self._doomed)
        if who := self.api.stuck():
            self._doomed = f"a statement of {who} goes on long after its time was over: another reader begins"
        elif _room():
            self._narrow = 0
        else:
            self._narrow += 1
            if not self.busy or self._narrow > NARROW_TICKS:
                who, self._doomed = "", "statements have used up the reader's memory: another one begins"
        if self._doomed:
            self.note("sql", who, "", "sql", Problem("limit", self._doomed), "")
            self._tell()

    def _tell_reads(self) -> None:
        self._told_at = time.monotonic()
        counts, self._counts = self._counts, {}
        for (principal, key, what), (answers, many, tags) in counts.items():
            self.setting.audit.note(
                HistoryRead(
                    wall_ns=self.setting.wall(), conduit=self.conduit, principal=clip(principal, 128),
                    key=clip(key, 128), what=what, answers=answers, rows=many,
                    tags=tuple(clip(tag, 128) for tag in tags),
                )
            )  # fmt: skip

    def stop(self) -> None:
        super().stop()
        self.api.stopping = True

    def end(self) -> None:
        super().end()
        self._tell_reads()
        self._threads.close()

    @property
    def busy(self) -> int:
        return self._threads.under_way

    def figures(self) -> Reported:
        self._figures.set("streams", self.api.streams)
        return {**super().figures(), **self._figures.report()}


def _room() -> bool:
    """Whether there are addresses left."""
    try:
        mmap.mmap(-1, ROOM_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True
