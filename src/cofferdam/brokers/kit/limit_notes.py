"""Limits that turned something away, on their way into the audit log: the first of a source at once, then as counts.

Not here: the limits (limits), how much of the log a source may fill (budget).
"""

from __future__ import annotations

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import LimitHit
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.budget import INTERVAL_NS

NOTES = 64
"""Sources and limits that are told apart in an interval; what comes above is told together."""


class LimitNotes:
    """Counts by limit and source. `hits` are all since the start, by limit. Times: UTC ns, but for `tick`."""

    def __init__(self, audit: AuditClient, hits: dict[str, int]) -> None:
        self._audit = audit
        self._hits = hits
        self._notes: dict[tuple[str, str], int] = {}
        self._told = 0

    def add(self, limit: str, source: str, detail: str, wall: int) -> None:
        """A limit was hit. The first of a source is told at once."""
        self._hits[limit] = self._hits.get(limit, 0) + 1
        key = (limit, source)
        if key not in self._notes and len(self._notes) >= NOTES:
            key = (limit, "others")
        if key in self._notes:
            self._notes[key] += 1
        else:
            self._notes[key] = 0
            self._audit.note(LimitHit(wall_ns=wall, limit=limit, source=source, detail=clip(detail)))

    def tick(self, now: int, wall: int) -> None:
        """Tells the counts once the interval is over. `now`: monotonic ns."""
        if now - self._told >= INTERVAL_NS:
            self._told = now
            self.tell(wall)

    def tell(self, wall: int) -> None:
        """Tells the counts."""
        notes, self._notes = self._notes, {}
        for (limit, source), count in notes.items():
            if count:
                self._audit.note(
                    LimitHit(wall_ns=wall, limit=limit, source=source, detail="again, in 10 seconds", count=count)
                )
