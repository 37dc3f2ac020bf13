"""Sums over halves and over their lives: a pair that was started anew does not begin counting at nothing."""

from __future__ import annotations

from collections.abc import Iterable

from cofferdam.brokers.kit.supervision import FlowStatus, PartStatus
from cofferdam.histogram import Histogram


class FlowTotal:
    """One conduit. Durations in ns, as in `control.FlowStatus`."""

    def __init__(self) -> None:
        self.reads = self.writes = self.refused = self.failed = self.shared = 0
        self.added = Histogram()
        self.waited = Histogram()
        self.device = Histogram()

    def add(self, flow: FlowStatus) -> None:
        self.reads += flow.reads
        self.writes += flow.writes
        self.refused += flow.refused
        self.failed += flow.failed
        self.shared += flow.shared
        self.added.merge(flow.added, flow.added_sum, flow.added_max)
        self.waited.merge(flow.waited, flow.waited_sum, flow.waited_max)
        self.device.merge(flow.device, flow.device_sum, flow.device_max)

    def merge(self, other: FlowTotal) -> None:
        self.reads += other.reads
        self.writes += other.writes
        self.refused += other.refused
        self.failed += other.failed
        self.shared += other.shared
        for mine, its in ((self.added, other.added), (self.waited, other.waited), (self.device, other.device)):
            mine.merge(its.counts, its.sum, its.max)


class Totals:
    """Counters of any number of halves. Conduits are told by the outer halves, which see a request's whole way."""

    def __init__(self) -> None:
        self.flows: dict[str, FlowTotal] = {}
        self.limits: dict[str, int] = {}
        self.faults: dict[str, int] = {}
        self.malformed = 0

    def add(self, statuses: Iterable[PartStatus]) -> None:
        for status in statuses:
            for name, count in status.limits.items():
                self.limits[name] = self.limits.get(name, 0) + count
            if status.part == "inner":
                continue
            self.malformed += status.malformed
            for flow in status.flows:
                self.flows.setdefault(flow.conduit, FlowTotal()).add(flow)
            for name, count in status.faults.items():
                self.faults[name] = self.faults.get(name, 0) + count

    def merge(self, other: Totals) -> None:
        self.malformed += other.malformed
        for mine, its in ((self.limits, other.limits), (self.faults, other.faults)):
            for name, count in its.items():
                mine[name] = mine.get(name, 0) + count
        for conduit, flow in other.flows.items():
            self.flows.setdefault(conduit, FlowTotal()).merge(flow)
