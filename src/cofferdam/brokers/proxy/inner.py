"""The inner half of a proxy: judges every request again, records it, and asks the asset itself.

The order is: decide, record in the audit log, act. A write leaves for the asset only after its entry is on disk, and
leaves once. Nothing that comes over the crossing is believed: a message is checked as if the outer half were hostile,
because one day it may be.

Not here: queues and connections (device), sharing of reads (sharing), the process around it (brokers.half).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cofferdam.audit.entry import (
    LimitHit,
    Malformed,
    Outcome,
    PointValue,
    ReadsCounted,
    WriteAllowed,
    WriteOutcome,
    Written,
    clip,
)
from cofferdam.brokers.auditing import AuditClient
from cofferdam.brokers.control import AssetStatus
from cofferdam.brokers.proxy.device import Device, Job
from cofferdam.brokers.proxy.records import Denied, Ended, Failed, Opened, Reply, Request
from cofferdam.brokers.proxy.refusals import RefusalLog
from cofferdam.brokers.proxy.sharing import SharedReads
from cofferdam.brokers.transport import Transport
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import CrossingError
from cofferdam.limits import Limits
from cofferdam.model import Allow, Asset, Deny, Failure, Fault, NeedValues, Operation
from cofferdam.policy.decide import Flow
from cofferdam.policy.state import PointState
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.values import decode, show
from cofferdam.protocols.base import Protocol

SESSIONS = 65536
"""Sessions that the outer half may have open; it has its own, lower limit on connections."""
_OUTCOMES: dict[Failure, Outcome] = {
    Failure.UNREACHABLE: "unknown",
    Failure.TIMEOUT: "timeout",
    Failure.BUSY: "not-sent",
    Failure.BAD_REPLY: "bad-reply",
}


class Session:
    """A client's session with one asset, as the outer half announced it."""

    __slots__ = (
        "asset", "cells", "failed", "flow", "from_wall", "id", "name", "reads", "refusals", "shared", "source",
        "under_way",
    )  # fmt: skip

    def __init__(self, record: Opened, flow: Flow | Deny, refusals: RefusalLog) -> None:
        self.id = record.session
        self.name = record.name
        self.source = record.source
        self.asset = record.asset
        self.flow = flow
        self.refusals = refusals
        self.under_way = 0
        self.reads = 0
        self.cells = 0
        self.shared = 0
        self.failed = 0
        self.from_wall = 0


class _Write:
    """A write from its verdict to its outcome."""

    __slots__ = ("asset", "job", "name", "noted", "operation", "record", "session")

    def __init__(self, session: Session, record: Request[Any], operation: Operation, asset: Asset) -> None:
        self.session = session
        self.record = record
        self.operation = operation
        self.asset = asset
        self.name = ""
        self.noted = 0
        self.job: Job | None = None


class _Plant:
    """What the half keeps of one asset besides its device: shared reads, writes under way, writes that wait."""

    __slots__ = ("asset", "device", "parked", "reading", "shared", "writes")

    def __init__(self, asset: Asset, device: Device, shared: SharedReads | None) -> None:
        self.asset = asset
        self.device = device
        self.shared = shared
        self.writes = 0
        # Writes that need a present value first; one after the other, so that each step is from the value before it.
        self.parked: deque[tuple[Session, Request[Any], Operation, int]] = deque()
        self.reading = False


class Inner:
    """The half itself. Driven by its owner: `on_record`, `tick`, and what transports and the audit client call back."""

    def __init__(
        self,
        *,
        pair: str,
        broker: str,
        boot: str,
        protocol: Protocol[Any, Any],
        policy: CompiledPolicy,
        assets: Iterable[str],
        zones: tuple[str, str],
        severed: Iterable[str],
        outer: Sender[Any],
        audit: AuditClient,
        reactor: Reactor,
        connect: Callable[[str, int, Callable[[], None]], Transport],
        wall: Callable[[], int] = time.time_ns,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.pair = pair
        self.broker = broker
        self.protocol = protocol
        self.faults: dict[str, int] = {}
        self.limit_hits: dict[str, int] = {}
        self.malformed = 0
        self._boot = boot
        self._zone, self._other_zone = zones
        self._outer = outer
        self._audit = audit
        self._reactor = reactor
        self._connect = connect
        self._wall = wall
        self._clock = clock
        self._sessions: dict[int, Session] = {}
        self._devices: dict[tuple[str, int], Device] = {}
        self._plants: dict[str, _Plant] = {}
        self._next = 0
        self._last_id = 0
        self._under_way = 0
        self.severed: frozenset[str] = frozenset()
        self._state: PointState = policy.point_state()
        self._take(policy, assets)
        self.set_severed(severed)

    # --- policy and the operator's hand -----------------------------------------------------------------------

    def _take(self, policy: CompiledPolicy, assets: Iterable[str]) -> None:
        self.policy = policy
        self.limits: Limits = policy.limits
        self._audit.policy = policy.hash
        self._state.adopt(policy.assets, policy.limits.known_value_seconds)
        self._own_side = str(policy.zones[self._other_zone].side)
        self._outer_side = str(policy.zones[self._zone].side)
        plants: dict[str, _Plant] = {}
        devices: dict[tuple[str, int], Device] = {}
        for name in assets:
            asset = policy.assets[name]
            key = (asset.address, asset.port)
            device = devices.get(key) or self._devices.get(key)
            if device is None or not _same_device(device.asset, asset):
                device = Device(
                    asset=asset,
                    protocol=self.protocol,
                    limits=policy.limits,
                    reactor=self._reactor,
                    connect=self._connect,
                    report=lambda what, section, detail, asset=asset: self._broken(asset, what, section, detail),  # type: ignore[misc]
                    clock=self._clock,
                )
            devices[key] = device
            shared = SharedReads(self.protocol, asset.share_reads_ms * 1_000_000) if asset.share_reads_ms else None
            old = self._plants.get(name)
            if old is not None and old.device is device:
                old.asset, old.shared = asset, shared
                plants[name] = old
            else:
                plants[name] = _Plant(asset, device, shared)
        for key, device in self._devices.items():
            if devices.get(key) is not device:
                device.close("the policy has changed")
        self._devices, self._plants = devices, plants

    def new_policy(self, policy: CompiledPolicy, assets: Iterable[str]) -> int:
        """Judges by another policy from now on. Returns how many sessions it ended."""
        self._take(policy, assets)
        ended = 0
        for session in list(self._sessions.values()):
            flow = self._flow(session.source, session.asset)
            if isinstance(flow, Deny):
                ended += 1
                self._outer.send(Ended(session.id, "the new policy does not allow this session"))
                self._close(session)
            session.flow = flow
        return ended

    def _flow(self, source: str, asset: str) -> Flow | Deny:
        if asset not in self._plants:
            return Deny("", "", Fault.ASSET, f"{asset} is not served here")
        return self.policy.flow(self.broker, source, asset, self._zone)

    def set_severed(self, sides: Iterable[str]) -> None:
        """Cuts sides off. With the asset's side severed its connections are closed; either side's requests end."""
        self.severed = frozenset(sides)
        held = self._own_side in self.severed
        for device in self._devices.values():
            device.held = held
            if held:
                device.close(f"the {self._own_side} side was severed")

    # --- records from the outer half --------------------------------------------------------------------------

    def on_record(self, record: Any) -> None:
        """What the outer half says.

        Raises:
            CrossingError: it says what no honest outer half would say. The half has to stop.
        """
        if isinstance(record, Request):
            self._request(record)
        elif isinstance(record, Opened):
            if record.session in self._sessions:
                raise CrossingError(f"session {record.session} is opened twice")
            if len(self._sessions) >= SESSIONS:
                raise CrossingError(f"more than {SESSIONS} sessions are open")
            refusals = RefusalLog(self._audit, record.name, record.source, record.asset)
            session = Session(record, self._flow(record.source, record.asset), refusals)
            session.from_wall = self._wall()
            self._sessions[record.session] = session
        else:
            closed = self._sessions.get(record.session)
            if closed is not None:
                self._close(closed)

    def _close(self, session: Session) -> None:
        self._sessions.pop(session.id, None)
        plant = self._plants.get(session.asset)
        if plant is not None:
            plant.device.drop_line(session.id)
            kept = [entry for entry in plant.parked if entry[0] is not session]
            self._under_way -= len(plant.parked) - len(kept)
            plant.parked = deque(kept)
        session.refusals.flush(self._wall())
        self._count_reads(session)

    def _request(self, record: Request[Any]) -> None:
        self.protocol.check(record.message)
        if record.id <= self._last_id:
            raise CrossingError(f"request {record.id} comes after request {self._last_id}")
        self._last_id = record.id
        session = self._sessions.get(record.session)
        if session is None:
            self._outer.send(Denied(record.id, "", "", Fault.CONDUIT, "the session was ended"))
            return
        try:
            self._judge(session, record, self.protocol.operation(record.message), self._clock())
        except Exception as error:
            self._internal(session, error)

    def _internal(self, session: Session, error: Exception) -> None:
        """A bug of ours has shown: it ends this session, is told in the log, and touches no other session."""
        detail = f"{type(error).__name__}: {error}"
        self._limit("internal_error", session.source, clip(detail))
        self._outer.send(Ended(session.id, clip(f"internal error: {detail}")))
        if session.id in self._sessions:
            self._close(session)

    def _guarded(self, session: Session, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self._internal(session, error)

    def _judge(self, session: Session, record: Request[Any], operation: Operation, arrived: int) -> None:
        if session.under_way >= self.limits.client_outstanding * 4:
            self._limit("client_outstanding", session.source, "the outer half let too many requests through")
            self._outer.send(Failed(record.id, Failure.BUSY, 0, 0))
            return
        verdict = self._decide(session, operation)
        if isinstance(verdict, NeedValues):
            self._park(session, record, operation, arrived)
        else:
            self._settle(session, record, operation, verdict, arrived)

    def _decide(self, session: Session, operation: Operation) -> Allow | Deny | NeedValues:
        flow = session.flow
        if isinstance(flow, Deny):
            return flow
        if self.severed:
            cut = self._own_side if self._own_side in self.severed else self._outer_side
            return Deny("", "", Fault.SEVERED, f"the {cut} side is severed")
        if not self._audit.writable and (operation.is_write or not self.policy.audit.reads_without_log):
            return Deny("", "", Fault.AUDIT, f"the audit log can not be written: {self._audit.reason}")
        return flow.decide_full(operation, self._wall(), self._clock(), self._state)

    def _settle(
        self, session: Session, record: Request[Any], operation: Operation, verdict: Allow | Deny, arrived: int
    ) -> None:
        """What is allowed goes on to `_read` or `_record_write`; a refusal is told and recorded."""
        if isinstance(verdict, Allow):
            if operation.is_write:
                self._record_write(session, record, operation, verdict, arrived)
            else:
                self._read(session, record, operation, verdict, arrived)
            return
        self.faults[verdict.fault] = self.faults.get(verdict.fault, 0) + 1
        session.refusals.add(verdict, operation, session.flow, self._wall())
        self._outer.send(
            Denied(record.id, verdict.conduit[:128], verdict.rule[:128], verdict.fault, clip(verdict.detail))
        )

    # --- reads ------------------------------------------------------------------------------------------------

    def _read(self, session: Session, record: Request[Any], operation: Operation, verdict: Allow, arrived: int) -> None:
        session.reads += 1
        for span in operation.reads:
            session.cells += span.count
        plant = self._plants[session.asset]
        shared = plant.shared
        if shared is not None:
            response = shared.find(record.message, arrived)
            if response is not None:
                session.shared += 1
                self._outer.send(Reply(record.id, response, 0, 0, True))
                return
        job = Job(
            verdict,
            record.message,
            session.id,
            arrived,
            plant.asset.timeout_ms * 1_000_000,
            lambda job: self._guarded(session, self._read_done, session, record, plant, job),
        )
        session.under_way += 1
        self._under_way += 1
        if shared is not None:
            if shared.join(job):
                session.shared += 1
                return
            shared.asked(job)
        plant.device.submit(job)

    def _read_done(self, session: Session, record: Request[Any], plant: _Plant, job: Job) -> None:
        session.under_way -= 1
        self._under_way -= 1
        if job.response is not None:
            device_ns = job.finished - job.sent
            self._outer.send(Reply(record.id, job.response, device_ns, max(0, job.sent - job.arrived)))
            for space, start, cells in self.protocol.values(record.message, job.response):
                self._state.note_values(session.asset, space, start, cells, job.sent)
        else:
            session.failed += 1
            self._send_failed(record.id, job)
        if job.generation >= 0 and plant.shared is not None:
            plant.shared.answered(job)
        joined, job.joined = job.joined, None
        for other in joined or ():
            # They share the answer, good or bad; the waiting was theirs, the device's time was not.
            other.response, other.failure, other.detail = job.response, job.failure, job.detail
            other.sent, other.finished = max(job.sent, other.arrived), job.finished
            other.done(other)

    def _send_failed(self, number: int, job: Job) -> None:
        device_ns = max(0, job.finished - job.sent) if job.sent else 0
        waited = max(0, (job.sent or job.finished) - job.arrived)
        self._outer.send(Failed(number, job.failure or Failure.BAD_REPLY, device_ns, waited))

    # --- writes -----------------------------------------------------------------------------------------------

    def _record_write(
        self, session: Session, record: Request[Any], operation: Operation, verdict: Allow, arrived: int
    ) -> None:
        """Record: the write goes on in `_recorded` once its entry is on disk."""
        plant = self._plants[session.asset]
        write = _Write(session, record, operation, plant.asset)
        self._next += 1
        write.name = f"{self._boot}-w{self._next}"
        write.noted = self._clock()
        session.under_way += 1
        self._under_way += 1
        plant.writes += 1
        self._state.note_write(session.asset, operation, write.noted)
        flow = session.flow
        draft = WriteAllowed(
            wall_ns=self._wall(),
            session=session.name,
            write=write.name,
            principals=flow.principals[:16] if isinstance(flow, Flow) else (),
            source=session.source,
            asset=session.asset,
            conduit=verdict.conduit[:128],
            rule=verdict.rule[:128],
            function=operation.function,
            sub=operation.sub,
            unit=operation.unit,
            writes=tuple(Written(change.space, change.start, change.values) for change in operation.writes[:64]),
            points=_point_values(plant.asset, operation),
            exact=all(change.exact for change in operation.writes),
        )
        self._audit.record(
            draft,
            lambda ok, why: self._guarded(session, self._recorded, write, plant, verdict, arrived, ok, why),
        )

    def _recorded(self, write: _Write, plant: _Plant, verdict: Allow, arrived: int, ok: bool, why: str) -> None:
        """Act, if the entry is on disk and nothing has changed since the decision."""
        session = write.session
        if not ok:
            self._not_sent(
                write, plant, f"not recorded: {why}", Fault.AUDIT, f"the audit log can not be written: {why}"
            )
            return
        if session.id not in self._sessions:
            self._not_sent(write, plant, "the session ended before the write was sent", Fault.CONDUIT, "ended")
            return
        if self.severed:
            self._not_sent(write, plant, "severed before the write was sent", Fault.SEVERED, "a side is severed")
            return
        # The entry took a moment to reach the disk. A window may have closed, a new policy may be in force.
        flow = session.flow
        again = flow.decide(write.operation, self._wall()) if isinstance(flow, Flow) else flow
        if isinstance(again, Deny):
            self._not_sent(write, plant, f"no longer allowed: {again.detail}", again.fault, again.detail)
            return
        job = Job(
            verdict,
            write.record.message,
            session.id,
            arrived,
            plant.asset.timeout_ms * 1_000_000,
            lambda job: self._guarded(session, self._write_done, write, plant, job),
        )
        write.job = job
        if plant.shared is not None:
            plant.shared.written()
        plant.device.submit(job)

    def _not_sent(self, write: _Write, plant: _Plant, detail: str, fault: Fault, sentence: str) -> None:
        self._outcome(write, "not-sent", 0, 0, detail)
        self._outer.send(Denied(write.record.id, "", "", fault, clip(sentence)))
        self.faults[fault] = self.faults.get(fault, 0) + 1
        self._finish_write(write, plant)

    def _write_done(self, write: _Write, plant: _Plant, job: Job) -> None:
        if job.response is not None:
            device_ns = job.finished - job.sent
            self._outer.send(Reply(write.record.id, job.response, device_ns, max(0, job.sent - job.arrived)))
            if self.protocol.is_error(job.response):
                self._outcome(write, "exception", self.protocol.error_code(job.response), device_ns, "")
            else:
                self._outcome(write, "done", 0, device_ns, "")
                self._state.note_confirmed(write.session.asset, write.operation, write.noted)
        else:
            failure = job.failure or Failure.BAD_REPLY
            self._send_failed(write.record.id, job)
            outcome: Outcome
            if not job.sent:
                outcome = "unreachable" if failure is Failure.UNREACHABLE else "not-sent"
            else:
                outcome = _OUTCOMES[failure]
            self._outcome(write, outcome, 0, max(0, job.finished - job.sent) if job.sent else 0, job.detail)
        if plant.shared is not None:
            plant.shared.written()
        self._finish_write(write, plant)

    def _outcome(self, write: _Write, outcome: Outcome, code: int, device_ns: int, detail: str) -> None:
        self._audit.note(
            WriteOutcome(
                wall_ns=self._wall(),
                session=write.session.name,
                write=write.name,
                asset=write.session.asset,
                outcome=outcome,
                code=code,
                device_ns=device_ns,
                detail=clip(detail),
            )
        )

    def _finish_write(self, write: _Write, plant: _Plant) -> None:
        write.session.under_way -= 1
        self._under_way -= 1
        plant.writes -= 1
        self._unpark(plant)

    # --- writes that need to know the present value -------------------------------------------------------------

    def _park(self, session: Session, record: Request[Any], operation: Operation, arrived: int) -> None:
        plant = self._plants[session.asset]
        if len(plant.parked) >= self.limits.asset_queue_per_client:
            self._outer.send(Failed(record.id, Failure.BUSY, 0, 0))
            return
        self._under_way += 1
        plant.parked.append((session, record, operation, arrived))
        self._unpark(plant)

    def _unpark(self, plant: _Plant) -> None:
        """Decides the first parked write again, or reads the value that it needs, once no write is under way."""
        while plant.parked and not plant.writes and not plant.reading:
            session, record, operation, arrived = plant.parked[0]
            verdict = self._decide(session, operation)
            if isinstance(verdict, NeedValues):
                self._read_values(plant, verdict, session.flow, operation, arrived)
                return
            plant.parked.popleft()
            self._under_way -= 1
            self._settle(session, record, operation, verdict, arrived)

    def _read_values(
        self,
        plant: _Plant,
        need: NeedValues,
        flow: Flow | Deny,
        operation: Operation,
        arrived: int,
    ) -> None:
        """Reads what a step is judged from. The half asks for itself, of cells that the write is allowed to change."""
        allowed = flow.decide(operation, self._wall()) if isinstance(flow, Flow) else flow
        if isinstance(allowed, Deny):
            self._drop_parked(plant, Failure.BUSY)
            return
        plant.reading = True
        left = len(need.spans)
        good = True

        def done(job: Job, request: Any) -> None:
            nonlocal left, good
            left -= 1
            if job.response is None or self.protocol.is_error(job.response):
                good = False
            else:
                for space, start, cells in self.protocol.values(request, job.response):
                    self._state.note_values(plant.asset.name, space, start, cells, job.sent)
            if left:
                return
            plant.reading = False
            if good and self._clock() - arrived <= plant.asset.timeout_ms * 2_000_000:
                self._unpark(plant)
            else:
                # Without the value the step can not be judged: the write is not sent.
                self._drop_parked(plant, job.failure or Failure.BAD_REPLY)

        for span in need.spans:
            request = self.protocol.read_request(operation.unit, span)
            job = Job(
                allowed,
                request,
                0,
                self._clock(),
                plant.asset.timeout_ms * 1_000_000,
                lambda job, request=request: done(job, request),  # type: ignore[misc]
            )
            plant.device.submit(job)

    def _drop_parked(self, plant: _Plant, failure: Failure) -> None:
        if plant.parked:
            _, record, _, _ = plant.parked.popleft()
            self._under_way -= 1
            self._outer.send(Failed(record.id, failure, 0, 0))
        self._unpark(plant)

    # --- the rest ---------------------------------------------------------------------------------------------

    def _broken(self, asset: Asset, what: str, section: str, detail: str) -> None:
        """A device broke the protocol."""
        self.malformed += 1
        self.limit_hits["asset_malformed"] = self.limit_hits.get("asset_malformed", 0) + 1
        if self.limit_hits["asset_malformed"] % 100 == 1:
            self._audit.note(
                Malformed(
                    wall_ns=self._wall(),
                    session="",
                    source=asset.address,
                    asset=asset.name,
                    section=clip(section),
                    detail=clip(f"{what} by the asset: {detail}"),
                )
            )

    def _limit(self, limit: str, source: str, detail: str) -> None:
        count = self.limit_hits[limit] = self.limit_hits.get(limit, 0) + 1
        if count % 1000 == 1:
            self._audit.note(LimitHit(wall_ns=self._wall(), limit=limit, source=source, detail=detail, count=1))

    def _count_reads(self, session: Session) -> None:
        wall = self._wall()
        if session.reads:
            flow = session.flow
            self._audit.note(
                ReadsCounted(
                    wall_ns=wall,
                    session=session.name,
                    principals=flow.principals[:16] if isinstance(flow, Flow) else (),
                    source=session.source,
                    asset=session.asset,
                    conduit=flow.conduits[0][:128] if isinstance(flow, Flow) and flow.conduits else "",
                    reads=session.reads,
                    cells=session.cells,
                    shared=session.shared,
                    failed=session.failed,
                    from_ns=session.from_wall,
                    to_ns=wall,
                )
            )
        session.reads = session.cells = session.shared = session.failed = 0
        session.from_wall = wall

    def tick(self) -> None:
        """To be called about twice a second."""
        wall = self._wall()
        interval = self.policy.audit.interval_ms * 1_000_000
        for session in self._sessions.values():
            session.refusals.tick(wall)
            if wall - session.from_wall >= interval or wall < session.from_wall:
                self._count_reads(session)
        for device in self._devices.values():
            device.tick()

    def stop(self) -> None:
        """Writes what was counted; ends the connections to the assets."""
        for session in list(self._sessions.values()):
            self._close(session)
        for device in self._devices.values():
            device.close("the gate stops")

    @property
    def busy(self) -> int:
        """Requests that are neither answered nor refused."""
        return self._under_way

    def assets(self) -> tuple[AssetStatus, ...]:
        """For status."""
        return tuple(
            AssetStatus(
                asset=name,
                state=plant.device.state,
                connections=plant.device.connections,
                queued=plant.device.queued,
                in_flight=plant.device.in_flight,
                requests=plant.device.requests,
                failures=plant.device.failures,
                late=plant.device.late,
                detail=plant.device.detail,
            )
            for name, plant in self._plants.items()
        )


def _same_device(old: Asset, new: Asset) -> bool:
    return (old.connections, old.outstanding, old.quirks) == (new.connections, new.outstanding, new.quirks)


def _point_values(asset: Asset, operation: Operation) -> tuple[PointValue, ...]:
    """The values that a write gives to named points."""
    found: list[PointValue] = []
    for change in operation.writes:
        if not change.exact:
            continue
        for point in asset.points:
            span = point.span
            if span.space == change.space and span.start >= change.start and span.stop <= change.stop:
                cells = change.values[span.start - change.start : span.stop - change.start]
                value = decode(point.type, point.word_order, cells)
                found.append(PointValue(point.name[:128], show(value)[:128], point.unit[:128]))
                if len(found) == 256:
                    return tuple(found)
    return tuple(found)
