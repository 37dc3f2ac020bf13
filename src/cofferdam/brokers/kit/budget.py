"""How much of the audit log one source can fill: enough to see what it does, not enough to fill the disk.

Entries about connections, refusals and broken frames come as fast as a client likes. Each source has ENTRIES of them
in an INTERVAL, and WRITES more for refused attempts to change the plant; all sources together that no principal stands
for have ALL_ENTRIES of each. What comes above is counted, and the counts are told: of refused writes with who, which
asset, which cells and between which values; until then the auditor holds them, and outlasts us. Writes, their outcomes
and the ends of sessions that did something are never under this budget.

An IPv6 host has as many addresses as it likes: its network of 64 bits is one source.
"""

from __future__ import annotations

import hashlib
import ipaddress

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import LimitHit, RefusedMany
from cofferdam.audit.events.base import ADDRESS, clip
from cofferdam.brokers.kit.many import Many
from cofferdam.brokers.kit.pace import Bucket, draw, forget_full
from cofferdam.model import Operation

ENTRIES = 100
"""Entries of one source in an interval."""
DAY_ENTRIES = 20_000
"""Entries of one source that it can have at once beyond what a day brings, which is as many: a source that goes on for
hours is told of in counts."""
WRITES = 100
"""Entries of refused writes of one source in an interval."""
ALL_ENTRIES = 300
"""Entries of all strangers together in an interval: whoever has many addresses gains little by them."""
INTERVAL_NS = 10_000_000_000
"""Length of the interval in ns."""
DAY_NS = 86_400_000_000_000
SOURCES = 4096
"""Sources that are counted apart; what comes above shares one count."""
TOLD = 64
"""Sources whose suppressed entries are told one by one in an interval."""
SOON, SOON_NS = 8, 1_000_000_000
"""Where refused writes are those of so few sources, a count of them becomes an entry after no longer."""


def network(source: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in source:
        return source
    try:
        address = ipaddress.IPv6Address(source.partition("%")[0])
    except ValueError:
        return source
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


def share_of(source: str, person: str) -> str:
    """What counts as one source: of those who come by a conduit of the jump server, each person. Of names that are too
    long to stand in it the end differs."""
    whole = f"{source} {person}"
    if len(whole) <= ADDRESS:
        return whole
    end = hashlib.blake2b(whole.encode("utf-8", "replace"), digest_size=8).hexdigest()
    return clip(whole, ADDRESS - len(end)) + end


class LogBudget:
    """Counts entries by source. Times: UTC ns."""

    def __init__(self, audit: AuditClient) -> None:
        self._audit = audit
        self._began = 0
        self._used: tuple[dict[str, int], dict[str, int]] = {}, {}  # of all else, of refused writes
        self._strangers = [0, 0]
        self._days: dict[str, Bucket] = {}
        self._untold: dict[str, int] = {}
        self._writes: dict[tuple[str, str], Many] = {}  # (source, asset)
        self._since = 0
        self._grown: dict[tuple[str, str], Many | None] = {}  # those that the auditor has not heard of as they are
        self._wall = 0
        audit.add_book(self._so_far)

    def spend(self, source: str, stranger: bool, wall: int, count: int = 1) -> bool:
        """Whether one more entry about `source` may be written; else the `count` events it tells of are counted."""
        if self._may(source, stranger, wall, is_write=False):
            return True
        self._count(source, count)
        return False

    def may_refuse(self, source: str, stranger: bool, wall: int, *, is_write: bool) -> bool:
        """Whether one more entry about refusals may be written. What it would have told of is else to be counted."""
        return self._may(source, stranger, wall, is_write=is_write)

    def add(self, source: str, count: int) -> None:
        """So many events of a source have no entry."""
        self._count(source, count)

    def count(
        self,
        source: str,
        asset: str,
        fault: str,
        operation: Operation,
        principals: tuple[str, ...],
        session: str,
        wall: int,
    ) -> None:
        """A refused write that has no entry. The auditor hears of the count at the end of this turn."""
        key = (network(source), asset)
        there = self._writes.get(key)
        if there is None and len(self._writes) >= TOLD:
            key = ("others", "")
            there = self._writes.get(key)
        if there is None:
            self._since = self._since if self._writes else wall
            there = self._writes[key] = Many(True, session, self._audit.new_count())
        there.add(fault, operation, principals, session, wall)
        self._grown[key] = None
        self._wall = wall
        self._audit.counted()

    def _so_far(self, every: bool) -> list[tuple[int, RefusedMany]]:
        grown, self._grown = self._writes if every else self._grown, {}
        found = []
        for key in grown:
            many = self._writes[key]
            found.append((many.number, many.told(*key, self._wall)))
        return found

    def _may(self, source: str, stranger: bool, wall: int, *, is_write: bool) -> bool:
        if not 0 <= wall - self._began <= INTERVAL_NS:
            self.tell(wall)
            forget_full(self._days, wall, DAY_ENTRIES / DAY_NS, DAY_ENTRIES)
            self._began, self._used, self._strangers = wall, ({}, {}), [0, 0]
        used, most = self._used[is_write], WRITES if is_write else ENTRIES
        source = network(source)
        key = source if source in used or len(used) < SOURCES else "others"
        if (
            used.get(key, 0) < most
            and not (stranger and self._strangers[is_write] >= ALL_ENTRIES)
            and (is_write or draw(self._days, key, wall, DAY_ENTRIES / DAY_NS, DAY_ENTRIES))
        ):
            used[key] = used.get(key, 0) + 1
            self._strangers[is_write] += stranger
            return True
        return False

    def _count(self, source: str, count: int) -> None:
        if not count:
            return
        source = network(source)
        key = source if source in self._untold or len(self._untold) < TOLD else "others"
        self._untold[key] = self._untold.get(key, 0) + count

    def tick(self, wall: int) -> None:
        """Tells the counts once their time is over."""
        if (self._untold or self._writes) and not 0 <= wall - self._began <= INTERVAL_NS:
            self.tell(wall)
        elif 0 < len(self._writes) <= SOON and not 0 <= wall - self._since < SOON_NS:
            self._tell_writes(wall)

    def tell(self, wall: int) -> None:
        """Tells the counts."""
        untold, self._untold = self._untold, {}
        for source, count in untold.items():
            detail = "connections, refusals and broken frames above what one source may have in the log, as a count"
            self._audit.note(LimitHit(wall_ns=wall, limit="log_entries", source=source, detail=detail, count=count))
        self._tell_writes(wall)

    def _tell_writes(self, wall: int) -> None:
        writes, self._writes, self._grown = self._writes, {}, {}
        for (source, asset), many in writes.items():
            self._audit.close_count(many.number, many.told(source, asset, wall))
