"""What `cofferdam status` shows: one typed document, and how it is put together from what the processes reported.

Durations are in microseconds, times in ns since 1970 (UTC). Counters run since the gate started, over all lives of
its halves; those of a life's last second may be missing.
"""

from __future__ import annotations

import time

import msgspec

from cofferdam.audit.supervision import LogStatus
from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.supervision import SessionStatus
from cofferdam.brokers.registry import BROKERS
from cofferdam.gate.crew.crew import Crew
from cofferdam.gate.crew.part import Part
from cofferdam.gate.state import Closure, Cut, Granted
from cofferdam.gate.watch.drops import DroppedReport
from cofferdam.gate.watch.evidence import CheckReport
from cofferdam.gate.watch.leaks import LeakProbeReport
from cofferdam.gate.watch.recent import RECENT_SECONDS, Recent
from cofferdam.gate.watch.totals import MOST, Totals
from cofferdam.gate.watch.troubles import StrangerReport, WireReport
from cofferdam.histogram import Histogram
from cofferdam.policy.standing import Standing, standing
from cofferdam.policy.table import CompiledPolicy


class Spread(msgspec.Struct, frozen=True):
    """A distribution of durations in µs."""

    count: int
    median: float
    p99: float
    p999: float
    max: float


PACKETS = "packets"
"""What is kept of streams' packets, beside a conduit's name."""
NONE = Spread(0, 0.0, 0.0, 0.0, 0.0)


class ConduitReport(msgspec.Struct, frozen=True):
    """One conduit. `added`: by the gate; `waited`: for a free place at the device and for the disk; `device`: its own
    time; all since the gate started. `recent`: `added` of the last `recent_seconds`. `packets`, `recent_packets`: the
    same of streams' packets. `over_budget`, `recent_over_budget`: the 99th percentile of requests or packets is above
    `budget` (0: none is set). `standing`: whether it is open now."""

    name: str
    source: str
    target: str
    broker: str
    owner: str
    severed: bool
    sessions: int
    reads: int
    writes: int
    refused: int
    failed: int
    shared: int
    added: Spread
    waited: Spread
    device: Spread
    budget: int
    over_budget: bool
    recent: Spread
    recent_over_budget: bool
    standing: Standing
    packets: Spread = NONE
    recent_packets: Spread = NONE


class HalfReport(msgspec.Struct, frozen=True):
    """One process."""

    name: str
    role: str
    pid: int
    ready: bool
    started_ns: int
    policy: str
    backlog: int
    listens: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """The site's folders that it reads and writes."""


class PairReport(msgspec.Struct, frozen=True):
    """One crew. `listens` is where its parts listen, `assets` are the devices that it serves."""

    name: str
    broker: str
    working: bool
    restarts: int
    listens: tuple[str, ...]
    assets: tuple[str, ...]
    halves: tuple[HalfReport, ...]


class SessionReport(msgspec.Struct, frozen=True):
    """One client's session."""

    session: str
    asset: str
    source: str
    port: int
    principals: tuple[str, ...]
    since_ns: int
    last_ns: int
    requests: int
    refused: int


class AssetReport(msgspec.Struct, frozen=True):
    """One device."""

    name: str
    state: str
    connections: int
    queued: int
    in_flight: int
    requests: int
    failures: int
    late: int
    detail: str


class LogDisk(msgspec.Struct, frozen=True):
    """The log on its disk. `bytes`: it takes, `per_day` (-1: not known yet) as it grows when sealed; `free` and `total`
    of the disk, `most` by the policy (0: no bound). `days` until that or the disk is full, -1 where nobody can say.
    `first`: the oldest entry that is kept, of the time `since`; those below `sealed` are packed."""

    bytes: int
    per_day: int
    free: int
    total: int
    most: int
    days: int
    first: int
    since: str
    sealed: int


UNKNOWN_DISK = LogDisk(0, -1, 0, 0, 0, -1, 0, "", 0)


def log_disk(log: LogStatus | None, most: int) -> LogDisk:
    """What the auditor said of it."""
    if log is None:
        return LogDisk(0, -1, 0, 0, most, -1, 0, "", 0)
    room = min(log.free, max(0, most - log.bytes)) if most else log.free
    days = room // log.per_day if log.per_day > 0 else -1
    return LogDisk(log.bytes, log.per_day, log.free, log.total, most, days, log.first, log.since, log.sealed)


class AuditReport(msgspec.Struct, frozen=True):
    """The audit log. `signed`: entries under the last checkpoint; `commit_mean` and `commit_max` in µs."""

    running: bool
    writable: bool
    reason: str
    size: int
    signed: int
    key: str
    pid: int
    restarts: int
    commit_mean: float
    commit_max: float
    disk: LogDisk = UNKNOWN_DISK


class AlarmReport(msgspec.Struct, frozen=True):
    """What needs a person, and what to do about it."""

    name: str
    detail: str
    since_ns: int
    way_out: str = ""


class FactReport(msgspec.Struct, frozen=True):
    """One fact about the separation that is in force."""

    name: str
    in_force: bool
    detail: str


class PolicyReport(msgspec.Struct, frozen=True):
    """The policy in force."""

    hash: str
    path: str
    loaded_ns: int


class FigureReport(msgspec.Struct, frozen=True):
    """A figure of a broker: what is counted or measured, by the label `by` ("": one value under ""). Histograms in µs,
    other durations (`unit` "seconds") and points in time ("time") in ns."""

    broker: str
    name: str
    kind: str
    unit: str
    by: str
    meaning: str
    values: dict[str, int | Spread]


class StatusReport(msgspec.Struct, frozen=True):
    """All of it."""

    version: str
    site: str
    pid: int
    started_ns: int
    now_ns: int
    policy: PolicyReport
    separation: str
    facts: tuple[FactReport, ...]
    severed: tuple[Cut, ...]
    conduits: tuple[ConduitReport, ...]
    unmatched: int  # requests refused that no conduit has to do with
    pairs: tuple[PairReport, ...]
    sessions: tuple[SessionReport, ...]  # some of those that are open
    open: dict[str, int]  # all of them, by asset
    assets: tuple[AssetReport, ...]
    audit: AuditReport
    limits: dict[str, int]
    faults: dict[str, int]
    malformed: int
    alarms: tuple[AlarmReport, ...]
    management: str
    leak_probe: LeakProbeReport
    dropped: tuple[DroppedReport, ...] = ()  # one for each side that has a firewall of ours
    recent_seconds: int = RECENT_SECONDS
    figures: tuple[FigureReport, ...] = ()  # what the brokers in use declare
    checks: tuple[CheckReport, ...] = ()  # of the evidence, as far as this life of the gate knows
    machine: str = ""  # which of the policy's machines this is
    strangers: tuple[StrangerReport, ...] = ()  # who was dropped lately as nobody's
    wires: tuple[WireReport, ...] = ()  # the zones' interfaces, where the gate has taken them
    closures: tuple[Closure, ...] = ()  # severed, and less than a side
    grants: tuple[Granted, ...] = ()  # asked for, or standing
    ok: bool = False
    verdict: str = ""  # in one line: that all is well, or what is not
    way_out: str = ""  # of the first thing that is not


def spread(histogram: Histogram) -> Spread:
    """A histogram (ns) as a few figures (µs)."""
    median, p99, p999 = (round(histogram.quantile(q) / 1000, 1) for q in (0.5, 0.99, 0.999))
    return Spread(histogram.count, median, p99, p999, round(histogram.max / 1000, 1))


def totals(crews: list[Crew], earlier: Totals) -> Totals:
    """Over all crews and lives; `earlier` are those of crews that are no more."""
    result = Totals()
    result.merge(earlier)
    for crew in crews:
        result.merge(crew.totals)
        for part in crew.parts:
            if part.status is None:
                continue
            try:
                result.add(part.broker, part.born.part, part.status, lives=True)
            except Exception as error:  # nothing that a part reports may end more than that part
                part.status = None
                part.broke(f"what it reports cannot be summed: {type(error).__name__}: {error}")
    return result


def conduit_reports(
    policy: CompiledPolicy,
    counted: Totals,
    recent: Recent,
    sessions: tuple[SessionReport, ...],
    severed: tuple[str, ...],
) -> tuple[ConduitReport, ...]:
    """One for each conduit of the policy."""
    mono, wall_ns = time.monotonic(), time.time_ns()
    reports = []
    for conduit in policy.conduits.values():
        served = {(who, rule.asset) for rule in conduit.rules for who in rule.who}
        mine = sum(1 for s in sessions if any((who, s.asset) in served for who in s.principals))
        sides = {policy.zones[conduit.from_zone].side.value, policy.zones[conduit.to_zone].side.value}
        added, waited, device = (
            counted.durations(conduit.broker, name).get(conduit.name, Histogram())
            for name in ("added", "waited", "device")
        )
        total, lately = spread(added), spread(recent.since(mono, conduit.name, added))
        aged = counted.durations(conduit.broker, "packets").get(conduit.name, Histogram())
        packets, late = spread(aged), spread(recent.since(mono, f"{conduit.name} {PACKETS}", aged))
        reads, writes, refused, failed, shared = (
            counted.counts(conduit.broker, name).get(conduit.name, 0)
            for name in ("reads", "writes", "refused", "failed", "shared")
        )
        reports.append(
            ConduitReport(
                name=conduit.name,
                source=conduit.from_zone,
                target=conduit.to_zone,
                broker=conduit.broker,
                owner=conduit.owner,
                severed=bool(sides & set(severed)) or conduit.expires_text.startswith("severed"),
                sessions=mine,
                reads=reads,
                writes=writes,
                refused=refused,
                failed=failed,
                shared=shared,
                added=total,
                waited=spread(waited),
                device=spread(device),
                budget=conduit.latency_budget_us,
                over_budget=0 < conduit.latency_budget_us < max(total.p99, packets.p99),
                recent=lately,
                recent_over_budget=0 < conduit.latency_budget_us < max(lately.p99, late.p99),
                standing=standing(conduit, policy.table.clocks, wall_ns),
                packets=packets,
                recent_packets=late,
            )
        )
    return tuple(reports)


def unmatched(counted: Totals) -> int:
    """Requests that were refused and belong to no conduit."""
    return sum(counted.counts(broker, "refused").get("", 0) for broker in BROKERS)


def session_reports(sessions: tuple[SessionStatus, ...]) -> tuple[SessionReport, ...]:
    return tuple(
        SessionReport(s.session, s.asset, s.source, s.port, s.principals, s.since, s.last, s.requests, s.refused)
        for s in sessions
    )


def open_by_asset(crews: list[Crew]) -> dict[str, int]:
    """How many sessions are open with each asset that has some."""
    counts: dict[str, int] = {}
    for part in (part for crew in crews for part in crew.parts if part.status is not None):
        for asset, count in part.status.open.items() if part.status is not None else ():
            if count:
                counts[asset] = min(counts.get(asset, 0) + count, MOST)
    return counts


def open_sessions(crews: list[Crew]) -> int:
    """How many sessions are open."""
    return sum(open_by_asset(crews).values())


def asset_reports(crews: list[Crew], counted: Totals) -> tuple[AssetReport, ...]:
    names = ("connections", "queued", "in_flight", "requests", "failures", "late")
    found = []
    for crew in crews:
        for part in crew.parts:
            for told in part.status.assets if part.status is not None else ():
                numbers = {name: counted.counts(part.broker.name, name).get(told.asset, 0) for name in names}
                found.append(AssetReport(name=told.asset, state=told.state, detail=told.detail, **numbers))
    return tuple(sorted(found, key=lambda asset: asset.name))


def figure_reports(policy: CompiledPolicy, crews: list[Crew], counted: Totals) -> tuple[FigureReport, ...]:
    """Every figure of every broker that the policy uses; what nobody has counted yet stands at 0."""
    reports = []
    for broker in brokers_in_use(policy, crews):
        known = {
            "": ("",),
            "conduit": tuple(c.name for c in policy.conduits.values() if c.broker == broker.name),
            "asset": tuple(a for crew in crews if crew.plan.broker == broker.name for a in _assets(policy, crew)),
        }
        for figure in broker.declared.values():
            values: dict[str, int | Spread]
            if figure.kind == "histogram":
                nothing = dict.fromkeys(known.get(figure.by, ()), Histogram())
                found = nothing | counted.durations(broker.name, figure.name)
                values = {label: spread(one) for label, one in found.items()}
            else:
                counts = dict.fromkeys(known.get(figure.by, ()), 0) | counted.counts(broker.name, figure.name)
                values = dict(counts)
            reports.append(
                FigureReport(broker.name, figure.name, figure.kind, figure.unit, figure.by, figure.meaning, values)
            )
    return tuple(reports)


def brokers_in_use(policy: CompiledPolicy, crews: list[Crew]) -> list[Broker]:
    """Those that conduits name, and those whose crews have not ended yet."""
    words = {conduit.broker for conduit in policy.conduits.values()} | {crew.plan.broker for crew in crews}
    return [broker for word, broker in BROKERS.items() if word in words]


def crew_report(policy: CompiledPolicy, crew: Crew) -> PairReport:
    return PairReport(
        name=crew.plan.name,
        broker=crew.plan.broker,
        working=crew.working,
        restarts=crew.restarts,
        listens=tuple(str(spot) for spot in crew.plan.spots if not spot.is_seam),
        assets=_assets(policy, crew),
        halves=tuple(_part_report(crew, part) for part in crew.parts),
    )


def _assets(policy: CompiledPolicy, crew: Crew) -> tuple[str, ...]:
    """What a crew serves alone may be other things than assets."""
    return tuple(name for name in crew.plan.asset_names if name in policy.assets)


def _part_report(crew: Crew, part: Part) -> HalfReport:
    plan = crew.plan.parts.get(part.born.part)
    return HalfReport(
        name=part.name,
        role=part.born.part,
        pid=part.born.pid,
        ready=part.ready is not None,
        started_ns=part.started_ns,
        policy=part.policy,
        backlog=part.status.backlog if part.status is not None else 0,
        listens=plan.published if plan is not None else (),
        folders=tuple(part.born.folders.values()),
    )


def part_facts(crews: list[Crew]) -> list[FactReport]:
    """What the parts say of their own separation: in force if it is in every part, with the first detail."""
    found: dict[str, list[tuple[bool, str]]] = {}
    parts = [part for crew in crews for part in crew.parts if part.ready is not None]
    for part in parts:
        for name, in_force, detail in part.ready.facts if part.ready is not None else ():
            found.setdefault(name, []).append((in_force, detail))
    return [
        FactReport(
            name,
            len(said) == len(parts) and all(on for on, _ in said),
            next((d for on, d in said if not on), said[0][1]),
        )
        for name, said in found.items()
    ]
