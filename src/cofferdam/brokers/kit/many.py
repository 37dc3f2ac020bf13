"""What many refusals have in common: who, what, which cells, the least and the greatest value. One entry tells of all.

Not here: which refusals are told one by one (refusals), how much of the log a source may fill (budget).
"""

from __future__ import annotations

from cofferdam.audit.events.access import Cells, OfItem, RefusedMany
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit import telling
from cofferdam.model import Operation

SPANS, ITEMS = 64, 16
"""Distinct cells and items that an entry names; `detail` says if there were more."""


class Many:
    """Refusals that have no entry each. Times: UTC ns."""

    __slots__ = (
        "_faults",
        "_greatest",
        "_items",
        "_last",
        "_least",
        "_more",
        "_principals",
        "_session",
        "_spans",
        "count",
        "first",
        "is_write",
        "number",
    )  # fmt: skip

    def __init__(self, is_write: bool, session: str, number: int = 0) -> None:
        """`number`: by which the auditor knows this count before it is told."""
        self.number = number
        self.count = 0
        self._session = session
        self.is_write = is_write
        self.first = self._last = 0
        self._least, self._greatest = 0xFFFF, 0
        self._principals: tuple[str, ...] = ()
        self._faults: dict[str, int] = {}
        self._spans: dict[Cells, None] = {}
        self._items: dict[tuple[str, str], OfItem] = {}
        self._more = False

    def add(self, fault: str, operation: Operation, principals: tuple[str, ...], session: str, wall: int) -> None:
        """One more."""
        self.count += 1
        self.first, self._last = self.first or wall, wall
        if session != self._session:
            self._session = ""  # of several
        if principals != self._principals:
            self._principals = tuple(dict.fromkeys((*self._principals, *principals)))[:16]
        self._faults[fault] = self._faults.get(fault, 0) + 1
        if not self.is_write:
            return
        for value in telling.raw_values(operation):
            self._least, self._greatest = min(self._least, value), max(self._greatest, value)
        for span in telling.cells(operation):
            self._more |= span not in self._spans and len(self._spans) >= SPANS
            if not self._more:
                self._spans[span] = None
        for item in telling.items(operation, reads=False) if len(self._items) < ITEMS else ():
            self._items.setdefault((item.item, item.act), item)

    def told(self, source: str, asset: str, wall: int) -> RefusedMany:
        """The entry that tells of them."""
        values = self._greatest >= self._least
        return RefusedMany(
            wall_ns=wall,
            session=self._session,
            source=source,
            asset=asset,
            count=self.count,
            faults=tuple(self._faults.items())[:32],
            detail=clip("and further cells") if self._more else "",
            from_ns=self.first,
            to_ns=self._last,
            principals=self._principals,
            is_write=self.is_write,
            spans=tuple(self._spans)[:SPANS],
            least=self._least if values else 0,
            greatest=self._greatest if values else 0,
            items=tuple(self._items.values())[:ITEMS],
        )
