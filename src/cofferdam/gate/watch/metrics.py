"""The Prometheus metrics, each with its meaning: the gate's own, and those of the figures that brokers declare.

Values are those of the last reports of the halves (at most a second old); scraping disturbs nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.figures import Figure
from cofferdam.brokers.kit.figures import Metric as Named
from cofferdam.brokers.registry import BROKERS
from cofferdam.gate.watch.report import StatusReport
from cofferdam.gate.watch.totals import Totals
from cofferdam.histogram import Histogram, upper
from cofferdam.model import Fault

BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the histograms' buckets, in seconds."""


WHOLE_ALARMS = ("auditor-down", "log-unwritable", "log-reserve", "strangers", "clock-jumped", "leak-probe")
"""Alarms that have no subject: they are there from the start, at 0, for whoever asks for a change."""
LIMITS = ("client_connections", "client_requests_per_second", "client_refusals_per_connection", "client_idle_seconds",
          "client_frame_seconds", "internal_error")  # fmt: skip
"""Limits that any proxy may hit: the same."""


class Described(NamedTuple):
    """A metric: its type, what it means, and its labels."""

    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


OWN: dict[str, Described] = {
    "cofferdam_build_info": Described("gauge", "1, with the version", ("version",)),
    "cofferdam_start_time_seconds": Described("gauge", "when the gate started (Unix time)"),
    "cofferdam_policy_info": Described("gauge", "1, with the hash of the policy in force", ("site", "hash")),
    "cofferdam_policy_loaded_timestamp_seconds": Described("gauge", "when that policy was loaded (Unix time)"),
    "cofferdam_separation": Described("gauge", "1 if this fact of the separation is in force, else 0", ("fact",)),
    "cofferdam_severed": Described("gauge", "1 if the side is cut off, else 0", ("side",)),
    "cofferdam_alarm": Described("gauge", "1 for each alarm that stands", ("name",)),
    "cofferdam_severed_parts": Described("gauge", "zones, conduits, principals and assets that are severed"),
    "cofferdam_grants": Described("gauge", "grants that stand"),
    "cofferdam_healthy": Described("gauge", "1 if `cofferdam status` says ok, else 0"),
    "cofferdam_asset_answers": Described("gauge", "0 if the asset did not answer what it was asked last", ("asset",)),
    "cofferdam_zone_link": Described("gauge", "1 if the zone's interface is up and has a link, else 0", ("zone",)),
    "cofferdam_zone_addresses": Described("gauge", "addresses that the zone's interface has", ("zone",)),
    "cofferdam_conduit_open": Described("gauge", "1 if the conduit is open now (window, expiry, grant)", ("conduit",)),
    "cofferdam_conduit_expires_timestamp_seconds": Described(
        "gauge", "when the conduit ends for good (Unix time); only of conduits that do", ("conduit",)
    ),
    "cofferdam_strangers": Described("gauge", "clients without a principal that were dropped in the last ten minutes"),
    "cofferdam_leak_probe_interval_seconds": Described("gauge", "from one round of the leak probe to the next; 0: off"),
    "cofferdam_leak_probe_last_timestamp_seconds": Described(
        "gauge", "when its last round was (Unix time); 0: none yet"
    ),
    "cofferdam_dropped_packets_total": Described(
        "counter",
        "packets that a side's firewall dropped; hook is input, output or forward (they belong to no conduit), or "
        "openings (a client asked for connections faster than one may)",
        ("side", "hook"),
    ),
    "cofferdam_pair_working": Described("gauge", "1 if both halves of the pair take work, else 0", ("pair",)),
    "cofferdam_pair_restarts_total": Described("counter", "how often the pair was started anew", ("pair",)),
    "cofferdam_sessions": Described("gauge", "open client sessions", ("asset",)),
    "cofferdam_refused_by_fault_total": Described(
        "counter", "requests refused by policy, by the field of the nearest rule that failed", ("fault",)
    ),
    "cofferdam_malformed_total": Described("counter", "frames from clients that break the protocol"),
    "cofferdam_limit_hits_total": Described("counter", "how often a limit turned something away", ("limit",)),
    "cofferdam_latency_budget_seconds": Described("gauge", "the conduit's latency budget, if it has one", ("conduit",)),
    "cofferdam_check_failed": Described("gauge", "1 if this check of the evidence failed, else 0", ("check",)),
    "cofferdam_check_last_timestamp_seconds": Described("gauge", "when it was found last (Unix time)", ("check",)),
    "cofferdam_audit_entries": Described("gauge", "entries in the audit log"),
    "cofferdam_audit_unsigned_entries": Described("gauge", "entries that no signed checkpoint covers yet"),
    "cofferdam_audit_writable": Described("gauge", "1 if the audit log takes entries, else 0"),
    "cofferdam_audit_bytes": Described("gauge", "what the audit log takes on its disk, as seen once a minute"),
    "cofferdam_audit_bytes_per_day": Described(
        "gauge", "how much the log grows in a day once sealed; -1: not known yet"
    ),
    "cofferdam_audit_disk_free_bytes": Described("gauge", "free bytes of the audit log's disk"),
    "cofferdam_audit_left_seconds": Described("gauge", "until the log's room is full at this rate; -1: not known"),
    "cofferdam_audit_first_entry": Described("gauge", "the oldest entry that is still kept"),
    "cofferdam_audit_restarts_total": Described("counter", "how often the auditor was started anew"),
    "cofferdam_audit_commit_max_seconds": Described("gauge", "the longest wait for the disk since the auditor started"),
}


def of_figure(broker: Broker, figure: Figure) -> tuple[str, Described]:
    """What Prometheus calls a figure, and what it means there."""
    metric = figure.metric or Named(default_name(broker.name, figure))
    labels = (*((figure.by,) if figure.by else ()), *metric.labels)
    return metric.name, Described(figure.kind, metric.meaning or figure.meaning, labels)


def default_name(broker: str, figure: Figure) -> str:
    """As Prometheus names things: with the unit, and `_total` behind a counter."""
    unit = {"": "", "bytes": "_bytes", "seconds": "_seconds", "time": "_seconds"}[figure.unit]
    return f"cofferdam_{broker}_{figure.name}{unit}{'_total' if figure.kind == 'counter' else ''}"


def described(brokers: Iterable[Broker]) -> dict[str, Described]:
    """The metrics of brokers' figures."""
    return dict(of_figure(broker, figure) for broker in brokers for figure in broker.declared.values())


class Metrics(Collector):
    """Turns a status and the counters behind it into families; nothing is kept between scrapes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._now: tuple[StatusReport, Totals] | None = None

    def render(self, status: StatusReport, counted: Totals) -> bytes:
        """The text exposition."""
        self._now = (status, counted)
        try:
            return generate_latest(self._registry)
        finally:
            self._now = None

    def collect(self) -> Iterator[Metric]:
        if self._now is None:
            return
        status, counted = self._now
        yield from _gate(status)
        yield from _halves(status)
        yield from _refusals(status, counted)
        yield from _figures(status, counted)
        yield from _audit(status)


def _gauge(name: str, values: Mapping[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, OWN[name].meaning, labels=OWN[name].labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(name: str, values: Mapping[Any, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, OWN[name].meaning, labels=OWN[name].labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """How many values lie at or below each bound of BUCKETS. A value counts for the bound above its own bucket's end,
    so a figure is never better than the truth."""
    result: list[tuple[str, float]] = []
    counts = sorted((upper(index), count) for index, count in histogram.counts.items())
    at = seen = 0
    for bound in BUCKETS:
        while at < len(counts) and counts[at][0] <= bound * 1e9:
            seen += counts[at][1]
            at += 1
        result.append((str(bound), seen))
    result.append(("+Inf", histogram.count))
    return result


def _gate(status: StatusReport) -> Iterator[Metric]:
    severed = {cut.side for cut in status.severed}
    yield _gauge("cofferdam_build_info", {(status.version,): 1})
    yield _gauge("cofferdam_start_time_seconds", {(): status.started_ns / 1e9})
    yield _gauge("cofferdam_policy_info", {(status.site, status.policy.hash): 1})
    yield _gauge("cofferdam_policy_loaded_timestamp_seconds", {(): status.policy.loaded_ns / 1e9})
    yield _gauge("cofferdam_separation", {(fact.name,): float(fact.in_force) for fact in status.facts})
    yield _gauge("cofferdam_severed", {(side,): float(side in severed) for side in ("it", "ot")})
    yield _gauge("cofferdam_alarm", {(name,): 0.0 for name in WHOLE_ALARMS} | {(a.name,): 1 for a in status.alarms})
    yield _gauge("cofferdam_severed_parts", {(): len(status.closures)})
    yield _gauge("cofferdam_grants", {(): sum(bool(one.agreed_by) for one in status.grants)})
    yield _gauge("cofferdam_healthy", {(): float(status.ok)})
    yield _gauge("cofferdam_asset_answers", {(one.name,): float(one.state != "silent") for one in status.assets})
    yield _gauge("cofferdam_zone_link", {(one.zone,): float(one.up and one.carrier) for one in status.wires})
    yield _gauge("cofferdam_zone_addresses", {(one.zone,): one.addresses for one in status.wires})
    yield _gauge(
        "cofferdam_conduit_open", {(c.name,): float(c.standing.open and not c.severed) for c in status.conduits}
    )
    ends = {(c.name,): c.standing.expires_ns / 1e9 for c in status.conduits if c.standing.expires}
    yield _gauge("cofferdam_conduit_expires_timestamp_seconds", ends)
    yield _gauge("cofferdam_strangers", {(): len(status.strangers)})
    dropped = {(one.side, hook): count for one in status.dropped for hook, count in one.packets.items()}
    yield _counter("cofferdam_dropped_packets_total", dropped)
    yield _gauge("cofferdam_leak_probe_interval_seconds", {(): status.leak_probe.seconds})
    yield _gauge("cofferdam_leak_probe_last_timestamp_seconds", {(): status.leak_probe.last_ns / 1e9})
    yield _gauge("cofferdam_check_failed", {(one.name,): float(one.failed) for one in status.checks})
    yield _gauge("cofferdam_check_last_timestamp_seconds", {(one.name,): one.last_ns / 1e9 for one in status.checks})


def _halves(status: StatusReport) -> Iterator[Metric]:
    yield _gauge("cofferdam_pair_working", {(pair.name,): float(pair.working) for pair in status.pairs})
    yield _counter("cofferdam_pair_restarts_total", {(pair.name,): pair.restarts for pair in status.pairs})
    sessions: dict[tuple[str, ...], float] = {(asset,): 0 for pair in status.pairs for asset in pair.assets}
    sessions |= {(asset,): count for asset, count in status.open.items()}
    yield _gauge("cofferdam_sessions", sessions)


def _refusals(status: StatusReport, counted: Totals) -> Iterator[Metric]:
    faults, limits = counted.faults.values, counted.limits.values
    by_fault = dict.fromkeys(map(str, Fault), 0) | faults
    yield _counter("cofferdam_refused_by_fault_total", {(name,): count for name, count in by_fault.items()})
    yield _counter("cofferdam_malformed_total", {(): counted.malformed})
    hits = dict.fromkeys(LIMITS, 0) | limits
    yield _counter("cofferdam_limit_hits_total", {(name,): count for name, count in hits.items()})
    budgets = {(conduit.name,): conduit.budget / 1e6 for conduit in status.conduits if conduit.budget}
    yield _gauge("cofferdam_latency_budget_seconds", budgets)


_FAMILIES: dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


def _figures(status: StatusReport, counted: Totals) -> Iterator[Metric]:
    """What brokers declare. Several figures may be one metric: reads and writes are both requests."""
    families: dict[str, Any] = {}
    for report in status.figures:
        broker = BROKERS[report.broker]
        figure = broker.declared[report.name]
        name, metric = of_figure(broker, figure)
        if name not in families:
            families[name] = _FAMILIES[figure.kind](name, metric.meaning, labels=metric.labels)
        fixed = tuple(figure.metric.labels.values()) if figure.metric is not None else ()
        scale = 1e9 if figure.unit in ("seconds", "time") else 1
        measured = counted.durations(broker.name, figure.name)
        for label, value in report.values.items():
            labels = (*((label,) if figure.by else ()), *fixed)
            if isinstance(value, int):
                families[name].add_metric(labels, value / scale)
            else:
                durations = measured.get(label) or Histogram()
                families[name].add_metric(labels, cumulative(durations), durations.sum / 1e9)
    yield from families.values()


def _audit(status: StatusReport) -> Iterator[Metric]:
    audit = status.audit
    yield _gauge("cofferdam_audit_entries", {(): audit.size})
    yield _gauge("cofferdam_audit_unsigned_entries", {(): max(0, audit.size - audit.signed)})
    yield _gauge("cofferdam_audit_writable", {(): float(audit.writable)})
    yield _gauge("cofferdam_audit_bytes", {(): audit.disk.bytes})
    yield _gauge("cofferdam_audit_bytes_per_day", {(): audit.disk.per_day})
    yield _gauge("cofferdam_audit_disk_free_bytes", {(): audit.disk.free})
    days = audit.disk.days
    yield _gauge("cofferdam_audit_left_seconds", {(): 86400 * days if days >= 0 else -1})
    yield _gauge("cofferdam_audit_first_entry", {(): audit.disk.first})
    yield _counter("cofferdam_audit_restarts_total", {(): audit.restarts})
    yield _gauge("cofferdam_audit_commit_max_seconds", {(): audit.commit_max / 1e6})
