"""What the log has no room for, told together: nobody goes on unseen by having the log full of themselves.

Not here: what has room (quota), when it is told (service). PURE.
"""

from __future__ import annotations

from collections import Counter

import msgspec
from msgspec import structs

from cofferdam.audit.entry import MAX_ENTRY_BYTES, Draft
from cofferdam.audit.events.access import Refused, RefusedMany
from cofferdam.audit.events.base import MAX_SAFE_INTEGER, NAME, clip, kebab
from cofferdam.audit.events.log import Missing, NotRecorded
from cofferdam.audit.quota import whose

ROWS = 64
"""Those (and assets) that are told apart; the last row is all others."""
SHORTER = ((NAME, NAME), (32, 32))
"""Characters that are left of what a row says, and of its names, where all of it would be more than an entry holds.
With the last it fits, whatever the characters are."""
REASON = "the disk is nearly full, or its producer has written its share of the day"

_encode = msgspec.json.Encoder().encode


class LeftOut:
    """Of one producer, since it was last told."""

    def __init__(self, wall: int) -> None:
        self._from = wall
        self._kinds: Counter[str] = Counter()
        self._rows: dict[tuple[str, str], Missing] = {}

    def add(self, draft: Draft) -> None:
        """One more."""
        self._kinds[kebab(type(draft).__name__)] += 1
        key = (clip(whose(draft), NAME), clip(str(getattr(draft, "asset", "")), NAME))
        if key not in self._rows and len(self._rows) >= ROWS - 1:
            key = ("others", "")
        row = self._rows.get(key) or Missing(*key)
        count = int(getattr(draft, "count", 1))
        writes, least, greatest, said = row.writes, row.least, row.greatest, row.said
        if isinstance(draft, Refused | RefusedMany) and draft.is_write:
            values = draft.values if isinstance(draft, Refused) else (draft.least, draft.greatest)
            if values:
                least = min([*values, *([least] if writes else ())])
                greatest = max([*values, *([greatest] if writes else ())])
            cells = [f"{one.space} {one.start}-{one.start + max(one.count, 1) - 1}" for one in draft.spans[:4]]
            items = [f"{one.item} = {' '.join(one.values[:4])}"[:128] for one in draft.items[:4]]
            distinct = dict.fromkeys([*(said.split("; ") if said else ()), *cells, *items])
            writes, said = writes + count, clip("; ".join(distinct))
        total = min(row.count + count, MAX_SAFE_INTEGER)  # whoever lies about counts makes no number that is none
        self._rows[key] = Missing(*key, total, min(writes, MAX_SAFE_INTEGER), least, greatest, said)

    def told(self, producer: str, wall: int) -> NotRecorded:
        """The entry. One that did not fit would be lost, and with it all that it tells of."""
        entry = NotRecorded(
            wall_ns=wall, count=self._kinds.total(), producer=producer, kinds=tuple(self._kinds.items())[:64],
            reason=REASON, from_ns=self._from, to_ns=wall, who=tuple(self._rows.values()),
        )  # fmt: skip
        for said, name in SHORTER:
            if len(_encode(entry)) < MAX_ENTRY_BYTES - 2048:  # room for the members around it
                break
            who = tuple(
                structs.replace(row, who=clip(row.who, name), asset=clip(row.asset, name), said=clip(row.said, said))
                for row in entry.who
            )
            entry = structs.replace(entry, who=who)
        return entry
