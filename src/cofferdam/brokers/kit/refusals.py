"""Refusals on their way into the audit log: the first ones whole, a flood as a count.

An intruder must not be able to fill the disk, or to hide one refusal that matters behind a million. So a session
has BUDGET entries per INTERVAL for what would only have been read, and WRITES for attempts to change the plant, which
nothing else can use up; what comes above is told together (many): of reads at the interval's end, of writes a second
after the first of them, with the cells that they named and the values between which they lay. Until then it is in
memory alone, and a half that is killed has forgotten it.
"""

from __future__ import annotations

from collections.abc import Callable

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import Refused
from cofferdam.audit.events.base import NAME, clip
from cofferdam.brokers.kit import telling
from cofferdam.brokers.kit.many import Many
from cofferdam.model import Deny, Operation
from cofferdam.policy.points.decide import Flow

BUDGET = 20
"""Refusals of one session that get an entry of their own in an interval."""
WRITES = 50
"""Refused writes of one session that do."""
INTERVAL_NS = 10_000_000_000
"""Length of the interval in ns."""
WRITES_NS = 1_000_000_000
"""Refused writes are in memory alone for no longer."""
BUSY = "busy"
"""The fault of a write that nothing is wrong with, and that was not sent."""


class RefusalLog:
    """One session's refusals."""

    __slots__ = ("_asset", "_audit", "_began", "_budget", "_many", "_session", "_since", "_source", "_used")

    def __init__(
        self,
        audit: AuditClient,
        session: str,
        source: str,
        asset: str,
        budget: Callable[[int, Many | None, bool], bool] | None = None,
    ) -> None:
        """`budget(wall, many, is_write)` says whether the source may have one more entry in the log. If not, it keeps
        `many`, which the entry would have told of, and tells it with others."""
        self._audit = audit
        self._budget = budget
        self._session = session
        self._source = source
        self._asset = asset
        self._began = 0
        self._used = [0, 0]  # of reads, of writes
        self._many: list[Many | None] = [None, None]
        self._since = 0

    def add(self, verdict: Deny, operation: Operation, flow: Flow | Deny, wall: int) -> None:
        """Takes one refusal; `wall` is UTC ns."""
        self._take(verdict.conduit, verdict.rule, verdict.fault, verdict.detail, operation, flow, wall)

    def turned_away(self, operation: Operation, flow: Flow | Deny, why: str, wall: int) -> None:
        """Takes a write that was not refused by policy, and not sent either."""
        conduit = flow.conduits[0] if isinstance(flow, Flow) and len(flow.conduits) == 1 else ""
        self._take(conduit, "", BUSY, why, operation, flow, wall)

    def _take(
        self, conduit: str, rule: str, fault: str, detail: str, operation: Operation, flow: Flow | Deny, wall: int
    ) -> None:
        if wall - self._began > INTERVAL_NS or wall < self._began:
            self.flush(wall)
            self._began, self._used = wall, [0, 0]
        principals = flow.principals[:16] if isinstance(flow, Flow) else ()
        kind = int(operation.is_write)
        most = WRITES if kind else BUDGET
        if self._used[kind] >= most or (self._budget is not None and not self._budget(wall, None, operation.is_write)):
            many = self._many[kind]
            if many is None:
                many = self._many[kind] = Many(operation.is_write)
                self._since = wall if kind else self._since
            many.add(fault, operation, principals, wall)
            return
        self._used[kind] += 1
        self._audit.note(
            Refused(
                wall_ns=wall,
                session=self._session,
                principals=principals,
                source=self._source,
                asset=self._asset,
                conduit=clip(conduit, NAME),
                rule=clip(rule, NAME),
                fault=fault,
                detail=clip(detail),
                function=operation.function,
                sub=operation.sub,
                unit=operation.unit,
                is_write=operation.is_write,
                spans=telling.cells(operation),
                values=telling.raw_values(operation)[:128],
                items=telling.items(operation),
            )
        )

    def tick(self, wall: int) -> None:
        """Tells what was counted, once its time is over."""
        if self._many[1] is not None and not 0 <= wall - self._since < WRITES_NS:
            self._tell(1, wall)
        if self._many[0] is not None and not 0 <= wall - self._began <= INTERVAL_NS:
            self._tell(0, wall)

    def flush(self, wall: int) -> None:
        """Tells what was counted."""
        self._tell(0, wall)
        self._tell(1, wall)

    def _tell(self, kind: int, wall: int) -> None:
        many, self._many[kind] = self._many[kind], None
        if many is not None and (self._budget is None or self._budget(wall, many, many.is_write)):
            self._audit.note(many.told(self._session, self._source, self._asset, wall))
