"""Counters and latency of a proxy's outer half, by conduit: quicker than the general `Figures`."""

from __future__ import annotations

from cofferdam.brokers.kit.figures import Reported, distribution
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
        """A request was answered by the asset; durations in ns. `added` is what the gate added, without the asset's own
        time (`device`) and without waiting for a place there or for the disk (`waited`)."""
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

    def report(self) -> Reported:
        """A copy for the gate, by the names of the proxies' figures."""
        flows = self._flows.items()
        return {
            "reads": {conduit: flow.reads for conduit, flow in flows},
            "writes": {conduit: flow.writes for conduit, flow in flows},
            "shared": {conduit: flow.shared for conduit, flow in flows},
            "refused": {conduit: flow.refused for conduit, flow in flows},
            "failed": {conduit: flow.failed for conduit, flow in flows},
            "added": {conduit: distribution(flow.added) for conduit, flow in flows},
            "waited": {conduit: distribution(flow.waited) for conduit, flow in flows},
            "device": {conduit: distribution(flow.device) for conduit, flow in flows},
        }
