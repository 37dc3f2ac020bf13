"""Counters and latency of a half, per conduit."""

from __future__ import annotations

from cofferdam.brokers.kit.supervision import FlowStatus
from cofferdam.histogram import Histogram
from cofferdam.model import Deny


class _Flow:
    __slots__ = ("added", "device", "failed", "reads", "refused", "shared", "waited", "writes")

    def __init__(self) -> None:
        self.reads = self.writes = self.refused = self.failed = self.shared = 0
        self.added = Histogram()
        self.waited = Histogram()
        self.device = Histogram()


class FlowStats:
    """What `status` and the metrics show of each conduit. "" stands for requests that no conduit has to do with."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self.faults: dict[str, int] = {}

    def _flow(self, conduit: str) -> _Flow:
        flow = self._flows.get(conduit)
        if flow is None:
            flow = self._flows[conduit] = _Flow()
        return flow

    def answered(self, conduit: str, is_write: bool, shared: bool, added: int, waited: int, device: int) -> None:
        """A request was answered by the asset; durations in ns as in `control.FlowStatus`."""
        flow = self._flow(conduit)
        if is_write:
            flow.writes += 1
        else:
            flow.reads += 1
        if shared:
            flow.shared += 1
        flow.added.add(added)
        flow.waited.add(waited)
        flow.device.add(device)

    def refused(self, verdict: Deny) -> None:
        """A request was refused by policy."""
        self._flow(verdict.conduit).refused += 1
        self.faults[verdict.fault] = self.faults.get(verdict.fault, 0) + 1

    def failed(self, conduit: str) -> None:
        """An allowed request got no answer from the asset."""
        self._flow(conduit).failed += 1

    def status(self) -> tuple[FlowStatus, ...]:
        """A copy for the gate."""
        return tuple(
            FlowStatus(
                conduit=conduit,
                reads=flow.reads,
                writes=flow.writes,
                refused=flow.refused,
                failed=flow.failed,
                shared=flow.shared,
                added=dict(flow.added.counts),
                added_sum=max(0, flow.added.sum),
                added_max=flow.added.max,
                waited=dict(flow.waited.counts),
                waited_sum=flow.waited.sum,
                waited_max=flow.waited.max,
                device=dict(flow.device.counts),
                device_sum=flow.device.sum,
                device_max=flow.device.max,
            )
            for conduit, flow in self._flows.items()
        )
