"""How much of the audit log one source can fill: enough to see what it does, not enough to fill the disk.

Entries about connections, refusals and broken frames come as fast as a client likes. Each source has ENTRIES of them
in an INTERVAL, and all sources together ALL_ENTRIES from those that no principal stands for; what comes above is
counted, and the counts are told. Writes, their outcomes and the ends of sessions that did something are never under
this budget.
"""

from __future__ import annotations

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import LimitHit

ENTRIES = 100
"""Entries of one source in an interval."""
ALL_ENTRIES = 300
"""Entries of all strangers together in an interval: whoever has many addresses gains little by them."""
INTERVAL_NS = 10_000_000_000
"""Length of the interval in ns."""
SOURCES = 4096
"""Sources that are counted apart; what comes above shares one count."""
TOLD = 64
"""Sources whose suppressed entries are told one by one in an interval."""


class LogBudget:
    """Counts entries by source. Times: UTC ns."""

    def __init__(self, audit: AuditClient) -> None:
        self._audit = audit
        self._began = 0
        self._used: dict[str, int] = {}
        self._strangers = 0
        self._untold: dict[str, int] = {}

    def spend(self, source: str, stranger: bool, wall: int, count: int = 1) -> bool:
        """Whether one more entry about `source` may be written; else the `count` events it tells of are counted."""
        if not 0 <= wall - self._began <= INTERVAL_NS:
            self.tell(wall)
            self._began, self._used, self._strangers = wall, {}, 0
        key = source if source in self._used or len(self._used) < SOURCES else "others"
        used = self._used.get(key, 0)
        if used < ENTRIES and not (stranger and self._strangers >= ALL_ENTRIES):
            self._used[key] = used + 1
            self._strangers += stranger
            return True
        key = source if source in self._untold or len(self._untold) < TOLD else "others"
        self._untold[key] = self._untold.get(key, 0) + count
        return False

    def tick(self, wall: int) -> None:
        """Tells the counts once the interval is over."""
        if self._untold and not 0 <= wall - self._began <= INTERVAL_NS:
            self.tell(wall)

    def tell(self, wall: int) -> None:
        """Tells the counts."""
        untold, self._untold = self._untold, {}
        for source, count in untold.items():
            detail = "connections, refusals and broken frames above what one source may have in the log, as a count"
            self._audit.note(LimitHit(wall_ns=wall, limit="log_entries", source=source, detail=detail, count=count))
