"""Refusals on their way into the audit log: the first ones whole, a flood as a count.

An intruder must not be able to fill the disk, or to hide one refusal that matters behind a million. So a session
has BUDGET entries per INTERVAL; what comes above is counted by fault and told at the interval's end.
"""

from __future__ import annotations

from collections.abc import Callable

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.access import Refused, RefusedMany
from cofferdam.audit.events.base import NAME, clip
from cofferdam.brokers.kit import telling
from cofferdam.model import Deny, Operation
from cofferdam.policy.points.decide import Flow

BUDGET = 20
"""Refusals of one session that get an entry of their own in an interval."""
INTERVAL_NS = 10_000_000_000
"""Length of the interval in ns."""


class RefusalLog:
    """One session's refusals."""

    __slots__ = (
        "_asset", "_audit", "_began", "_budget", "_faults", "_many", "_many_from", "_session", "_source", "_used",
    )  # fmt: skip

    def __init__(
        self,
        audit: AuditClient,
        session: str,
        source: str,
        asset: str,
        budget: Callable[[int, int], bool] | None = None,
    ) -> None:
        """`budget(wall, count)` says whether the source may have one more entry in the log; if not, it counts those
        that the entry would have told of."""
        self._audit = audit
        self._budget = budget
        self._session = session
        self._source = source
        self._asset = asset
        self._began = 0
        self._used = 0
        self._many = 0
        self._many_from = 0
        self._faults: dict[str, int] = {}

    def add(self, verdict: Deny, operation: Operation, flow: Flow | Deny, wall: int) -> None:
        """Takes one refusal; `wall` is UTC ns."""
        if wall - self._began > INTERVAL_NS or wall < self._began:
            self.flush(wall)
            self._began, self._used = wall, 0
        if self._used >= BUDGET:
            if not self._many:
                self._many_from = wall
            self._many += 1
            self._faults[verdict.fault] = self._faults.get(verdict.fault, 0) + 1
            return
        if self._budget is not None and not self._budget(wall, 1):
            return
        self._used += 1
        self._audit.note(
            Refused(
                wall_ns=wall,
                session=self._session,
                principals=flow.principals[:16] if isinstance(flow, Flow) else (),
                source=self._source,
                asset=self._asset,
                conduit=clip(verdict.conduit, NAME),
                rule=clip(verdict.rule, NAME),
                fault=verdict.fault,
                detail=clip(verdict.detail),
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
        """Tells what was counted, once the interval is over."""
        if self._many and (wall - self._began > INTERVAL_NS or wall < self._began):
            self.flush(wall)

    def flush(self, wall: int) -> None:
        """Tells what was counted."""
        if not self._many:
            return
        if self._budget is None or self._budget(wall, self._many):
            self._audit.note(
                RefusedMany(
                    wall_ns=wall,
                    session=self._session,
                    source=self._source,
                    asset=self._asset,
                    count=self._many,
                    faults=tuple(self._faults.items())[:32],
                    from_ns=self._many_from,
                    to_ns=wall,
                )
            )
        self._many, self._faults = 0, {}
