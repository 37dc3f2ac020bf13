"""Refusals on their way into the audit log: the first ones whole, a flood as a count.

An intruder must not be able to fill the disk, or to hide one refusal that matters behind a million. So a session
has BUDGET entries per INTERVAL for what would only have been read, and WRITES for attempts to change the plant, which
nothing else can use up; what comes above is told together (many): of reads at the interval's end, of writes by their
source (budget), with the cells that they named and the values between which they lay.

A refused write is answered when its entry, or the count of which it is one, has left for the auditor (`when_sent` of
the audit client): so a half that is killed has forgotten nothing that it answered. Whoever refuses keeps to that.
"""

from __future__ import annotations

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import Refused
from cofferdam.audit.events.base import NAME, clip
from cofferdam.brokers.kit import telling
from cofferdam.brokers.kit.budget import LogBudget
from cofferdam.brokers.kit.many import Many
from cofferdam.model import Deny, Operation
from cofferdam.policy.points.decide import Flow

BUDGET = 20
"""Refusals of one session that get an entry of their own in an interval."""
WRITES = 50
"""Refused writes of one session that do."""
INTERVAL_NS = 10_000_000_000
"""Length of the interval in ns."""
BUSY = "busy"
"""The fault of a write that nothing is wrong with, and that was not sent."""


class RefusalLog:
    """One session's refusals."""

    __slots__ = (
        "_asset", "_audit", "_began", "_budget", "_reads", "_session", "_share", "_source", "_stranger", "_used",
    )  # fmt: skip

    def __init__(
        self, audit: AuditClient, budget: LogBudget, session: str, source: str, stranger: bool, asset: str,
        share: str = "",
    ) -> None:  # fmt: skip
        """`share`: by which the budget counts, where that is not the source: who comes by a conduit of the jump server
        does so with others."""
        self._audit = audit
        self._budget = budget
        self._session = session
        self._source = source
        self._share = share or source
        self._stranger = stranger
        self._asset = asset
        self._began = 0
        self._used = [0, 0]  # of reads, of writes
        self._reads: Many | None = None

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
        is_write = operation.is_write
        if not self._may_tell(is_write, wall):
            if is_write:
                self._budget.count(self._share, self._asset, fault, operation, principals, self._session, wall)
                return
            if self._reads is None:
                self._reads = Many(False, self._session)
            self._reads.add(fault, operation, principals, self._session, wall)
            return
        self._used[is_write] += 1
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
                is_write=is_write,
                spans=telling.cells(operation),
                values=telling.raw_values(operation)[:128],
                items=telling.items(operation),
            )
        )

    def _may_tell(self, is_write: bool, wall: int) -> bool:
        """Whether one more has an entry of its own. Where the auditor does not keep up a write is counted, which takes
        no room, and not dropped."""
        if self._used[is_write] >= (WRITES if is_write else BUDGET) or (is_write and not self._audit.has_room):
            return False
        return self._budget.may_refuse(self._share, self._stranger, wall, is_write=is_write)

    def tick(self, wall: int) -> None:
        """Tells the reads that were counted, once their time is over."""
        if self._reads is not None and not 0 <= wall - self._began <= INTERVAL_NS:
            self.flush(wall)

    def flush(self, wall: int) -> None:
        """Tells the reads that were counted."""
        many, self._reads = self._reads, None
        if many is None:
            return
        if self._budget.may_refuse(self._share, self._stranger, wall, is_write=False):
            self._audit.note(many.told(self._source, self._asset, wall))
        else:
            self._budget.add(self._share, many.count)
