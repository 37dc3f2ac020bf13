"""Events that a stranger can cause as often as they like: the first of a kind at once, then as counts.

For events with a `count`. Two are alike if they differ in nothing but time, count and what `apart` leaves out.

Not here: refusals of operations, which have a form of their own (refusals); limits (limit_notes).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from msgspec.structs import replace

from cofferdam.audit.client import AuditClient

INTERVAL_NS: Final = 10_000_000_000
KINDS: Final = 64
"""Kinds that are told apart in an interval; of what comes above, one entry tells the number."""


class Counted:
    """Counts alike events. Times: UTC ns, but for `tick`."""

    def __init__(self, audit: AuditClient, blank: Collection[str] = ()) -> None:
        """`blank`: text fields that do not tell events apart; they are the first one's."""
        self._audit = audit
        self._blank = dict.fromkeys(blank, "")
        self._seen: dict[Any, list[Any]] = {}
        self._rest = 0
        self._last: Any = None
        self._told = 0

    def add(self, event: Any) -> None:
        """Tells it now, if it is the first of its kind in this interval."""
        alike = replace(event, wall_ns=0, **self._blank)
        found = self._seen.get(alike)
        if found is not None:
            found[1] += 1
        elif len(self._seen) < KINDS:
            self._seen[alike] = [event, 0]
            self._audit.note(event)
        else:
            self._rest += 1
            self._last = event

    def tick(self, now: int, wall: int) -> None:
        """Tells the counts once the interval is over. `now`: monotonic ns."""
        if now - self._told >= INTERVAL_NS:
            self._told = now
            self.tell(wall)

    def tell(self, wall: int) -> None:
        """Tells the counts."""
        seen, self._seen = self._seen, {}
        for event, count in seen.values():
            if count:
                self._audit.note(replace(event, wall_ns=wall, count=count))
        if self._last is not None:
            self._audit.note(replace(self._last, wall_ns=wall, count=self._rest))
            self._rest, self._last = 0, None
