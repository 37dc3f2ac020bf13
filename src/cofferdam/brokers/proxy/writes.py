"""The write path of an inner half: decide, record in the audit log, act.

A write leaves for the asset only after its entry is on disk, and leaves once. A write whose verdict needs the asset's
present value waits until that was read.

Requests of one session leave in the order in which they came: behind a write that waits for a value everything of its
session waits, and behind one that waits for the disk its reads do. Each has its own deadline, the asset's timeout.
Other sessions do not notice.

Not here: sessions, reads, what the outer half may say (inner); queues and connections (device).
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable
from typing import Any

from cofferdam.audit.events.access import LimitHit, Outcome, PointValue, WriteAllowed, WriteOutcome
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Part, Setting
from cofferdam.brokers.kit import telling
from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.lines import OURS
from cofferdam.brokers.proxy.records import Denied, Ended, Failed, Reply, Request, Watch
from cofferdam.brokers.proxy.sessions import Parked, Served, Session
from cofferdam.errors import CrossingError
from cofferdam.limits import Limits
from cofferdam.model import Allow, AllowBits, Asset, Change, Deny, Failure, Fault, NeedValues, Operation
from cofferdam.policy.points.decide import Flow, Known
from cofferdam.policy.points.state import PointState
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.registry import PROTOCOLS, Protocols

SETTLE_TIMEOUTS = 2
"""For so many of the asset's timeouts after a write that was not answered, what its points hold is taken as unknown."""
MANY_PARKED = "too many writes wait for a present value"
NO_VALUE = "no present value in time, which its step is judged from"
_OUTCOMES: dict[Failure, Outcome] = {
    Failure.UNREACHABLE: "unknown",
    Failure.TIMEOUT: "timeout",
    Failure.BUSY: "not-sent",
    Failure.BAD_REPLY: "bad-reply",
}


class _Write:
    """A write from its verdict to its outcome."""

    __slots__ = ("asset", "ended", "instead", "job", "judged", "name", "noted", "operation", "record", "session")

    def __init__(self, session: Session, record: Request[Any], operation: Operation, asset: Asset) -> None:
        self.session = session
        self.record = record
        self.operation = operation
        self.asset = asset
        self.name = ""
        self.noted = 0
        self.ended = False
        self.job: Job | None = None
        self.instead: Any = None  # what is asked of the asset in place of the client's message: bits of a word
        self.judged = False  # by a value that was read


class BitJob(Job):
    """A write of bits of a word, by whatever message: what it means is `operation`."""

    __slots__ = ("operation",)

    operation: Operation


class WritePath(Part):
    """What reads and writes of an inner half share, and all that happens to a write."""

    policy: CompiledPolicy
    limits: Limits
    _own_side: str
    _outer_side: str

    def __init__(self, setting: Setting, protocols: Protocols = PROTOCOLS) -> None:
        super().__init__(setting)
        self.protocol = protocols[setting.broker]
        self.severed: frozenset[str] = frozenset()
        self._boot = setting.boot
        self._reactor = setting.reactor
        self._outer = setting.senders["outer"]
        self._audit = setting.audit
        self._wall = setting.wall
        self._clock = setting.clock
        self._state: PointState = setting.policy.point_state()
        self._sessions: dict[int, Session] = {}
        self._served: dict[str, Served] = {}
        self._next = 0
        self._under_way = 0
        self._by_value = False  # what is judged now, is so by a value that was read for it

    @abc.abstractmethod
    def _close(self, session: Session) -> None:
        """Ends a session."""

    @abc.abstractmethod
    def _read(self, session: Session, number: int, known: Known, arrived: int) -> None:
        """Carries out a read that is allowed."""

    def _internal(self, session: Session, number: int, error: Exception) -> None:
        """A bug of ours has shown in request `number`: it ends this session, is told in the log, and touches no other
        session."""
        detail = f"{type(error).__name__}: {error}"
        self._limit("internal_error", session.source, clip(detail))
        self._outer.send(Failed(number, Failure.BAD_REPLY, 0, 0))
        self._outer.send(Ended(session.id, clip(f"internal error: {detail}")))
        if self._sessions.get(session.id) is session:
            self._close(session)

    def _guarded(self, write: _Write, served: Served, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(write, served, *arguments)
        except Exception as error:
            if not write.ended:
                sent = write.job is not None and bool(write.job.sent)
                self._outcome(write, "unknown" if sent else "not-sent", 0, 0, f"internal error: {error}")
                self._end_write(write, served)
            self._internal(write.session, write.record.id, error)

    def _limit(self, limit: str, source: str, detail: str) -> None:
        count = self.limit_hits[limit] = self.limit_hits.get(limit, 0) + 1
        if count % 1000 == 1:
            self._audit.note(LimitHit(wall_ns=self._wall(), limit=limit, source=source, detail=detail, count=1))

    def _decide(self, session: Session, operation: Operation, since_ns: int | None = None) -> Allow | Deny | NeedValues:
        flow = session.flow
        if isinstance(flow, Deny):
            return flow
        if self.severed:
            cut = self._own_side if self._own_side in self.severed else self._outer_side
            return Deny("", "", Fault.SEVERED, f"the {cut} side is severed")
        if not self._audit.writable and (operation.is_write or not self.policy.audit.reads_without_log):
            return Deny("", "", Fault.AUDIT, f"the audit log cannot be written: {self._audit.reason}")
        untold = telling.untold(operation)
        if untold:
            return Deny("", "", Fault.AUDIT, untold)
        return flow.decide_full(operation, self._wall(), self._clock(), self._state, since_ns)

    def _settle(
        self, session: Session, record: Request[Any], operation: Operation, verdict: Allow | Deny, arrived: int
    ) -> None:
        """What is allowed goes on to `_read` or `_record_write`; a refusal is told and recorded."""
        if isinstance(verdict, Allow):
            if operation.is_write:
                self._record_write(session, record, operation, verdict, arrived)
            else:
                self._read(session, record.id, Known(record.message, operation, verdict), arrived)
            return
        self.faults[verdict.fault] = self.faults.get(verdict.fault, 0) + 1
        session.refusals.add(verdict, operation, session.flow, self._wall())
        denied = Denied(record.id, verdict.conduit[:128], verdict.rule[:128], verdict.fault, clip(verdict.detail))
        self._answer_refused(operation, denied)

    def _answer_refused(self, operation: Operation, answer: Denied | Failed) -> None:
        """Answers what was refused. Of a write the auditor has heard by then, so that it is on record whatever becomes
        of this process (refusals)."""
        if operation.is_write:
            self._audit.when_sent(lambda: self._outer.send(answer))
        else:
            self._outer.send(answer)

    def _send_reply(self, number: int, job: Job) -> None:
        """The asset has answered."""
        self._outer.send(Reply(number, job.response, job.finished - job.sent, max(0, job.sent - job.arrived)))

    def _prepare(self, job: Job, session: Session, served: Served, operation: Operation, write: str) -> None:
        """A write is about to be sent: what else belongs to its job."""

    def _send_failed(self, number: int, job: Job) -> None:
        device_ns = max(0, job.finished - job.sent) if job.sent else 0
        waited = max(0, (job.sent or job.finished) - job.arrived)
        failure = job.failure or Failure.BAD_REPLY
        if job.writes and job.sent and failure is Failure.UNREACHABLE:
            failure = Failure.TIMEOUT  # it may have been done: no client may take that for "never sent"
        self._outer.send(Failed(number, failure, device_ns, waited))

    # --- order ------------------------------------------------------------------------------------------------

    def _hold(self, session: Session, record: Request[Any] | Watch[Any], operation: Operation, arrived: int) -> bool:
        """Whether a request has to wait for one of its session before it; it is kept, then, until `_go_on`."""
        if not session.held and not session.parked and (operation.is_write or not session.recording):
            return False
        if len(session.held) >= self.limits.client_outstanding * 4:
            self._turn_away(session, record.id, operation, Failure.BUSY, "too many requests of its session wait")
            return True
        session.held.append((record, operation, arrived))
        self._under_way += 1
        if len(session.held) == 1:
            self._mind_held(session)
        return True

    def _go_on(self, session: Session) -> None:
        """A request for which others of its session may have waited has left, or has failed: takes them up, in order,
        as far as they need not wait for another."""
        held = session.held
        while held and not session.parked:
            record, operation, arrived = held[0]
            if session.recording and not operation.is_write:
                break
            held.popleft()
            self._under_way -= 1
            try:
                if isinstance(record, Request):
                    self._judge(session, record, operation, arrived)
                else:
                    self._watch_now(session, record, operation)
            except CrossingError:
                raise
            except Exception as error:
                self._internal(session, record.id, error)
        session.waits = bool(session.recording or session.parked or held)

    def _forget_held(self, session: Session) -> None:
        """The session is over."""
        held, session.held = session.held, deque()
        for record, operation, _ in held:
            self._under_way -= 1
            self._turn_away(session, record.id, operation, Failure.BUSY, "its session ended before its turn came")

    def _mind_held(self, session: Session) -> None:
        """Has `_expire_held` called when the first of what is held has waited for as long as it may. A session has one
        such timer: one for each that was ever held would be there for as long as the asset may take."""
        due = session.held[0][2] + self._timeout_of(session)
        timer = session.minded
        if timer is not None:
            if timer.due <= due:
                return
            timer.cancel()
        session.minded = self._reactor.call_at(due, lambda: self._expire_held(session))

    def _expire_held(self, session: Session) -> None:
        session.minded = None
        now, timeout_ns = self._clock(), self._timeout_of(session)
        while session.held and now - session.held[0][2] >= timeout_ns:
            record, operation, _ = session.held.popleft()
            self._under_way -= 1
            self._turn_away(session, record.id, operation, Failure.BUSY, "waited too long for a request before it")
        if session.held:
            self._mind_held(session)
        self._go_on(session)

    def _timeout_of(self, session: Session) -> int:
        """How long its asset may take (ns); 0 where it is served no longer."""
        served = self._served.get(session.asset)
        return 0 if served is None else served.timeout_ns

    def _turn_away(self, session: Session, number: int, operation: Operation, failure: Failure, why: str) -> None:
        """A request that will not be sent, and that policy did not refuse: it is answered, and a write is on record."""
        if operation.is_write:
            session.refusals.turned_away(operation, session.flow, why, self._wall())
        self._answer_refused(operation, Failed(number, failure, 0, 0))

    @abc.abstractmethod
    def _judge(self, session: Session, record: Request[Any], operation: Operation, arrived: int) -> None:
        """Decides on a request, and carries it out or refuses it."""

    @abc.abstractmethod
    def _watch_now(self, session: Session, record: Watch[Any], operation: Operation) -> None:
        """The same for a watch."""

    # --- writes -----------------------------------------------------------------------------------------------

    def _record_write(
        self, session: Session, record: Request[Any], operation: Operation, verdict: Allow, arrived: int
    ) -> None:
        """Record: the write goes on in `_recorded` once its entry is on disk."""
        served = self._served[session.asset]
        instead: Any = None
        if isinstance(verdict, AllowBits):
            operation = verdict.operation
            change = operation.writes[0]
            if isinstance(change, Change):
                instead = self.protocol.bits_request(record.message, change, verdict.held)
        write = _Write(session, record, operation, served.asset)
        write.instead = instead
        self._next += 1
        write.name = f"{self._boot}-w{self._next}"
        write.noted = self._clock()
        session.under_way += 1
        session.recording += 1
        session.waits = True
        self._under_way += 1
        served.writes += 1
        before = self._before(session.asset, operation)
        write.judged = self._by_value or bool(before) or instead is not None or served.scales(operation)
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
            writes=telling.written(operation),
            points=telling.points(served.asset, operation),
            exact=all(change.exact for change in operation.writes),
            items=telling.items(operation, reads=False),
            before=before,
            body=operation.body.hex(),
        )
        self._audit.record(
            draft,
            lambda ok, why: self._guarded(write, served, self._recorded, arrived, ok, why),
        )

    def _before(self, asset: str, operation: Operation) -> tuple[PointValue, ...]:
        """The present values that its step, or how fast it moves, was judged from."""
        return telling.before(self._state.held(asset, operation))

    def _recorded(self, write: _Write, served: Served, arrived: int, ok: bool, why: str) -> None:
        """The entry is on disk, or cannot be: the write leaves or has failed, and what waited behind it goes on."""
        write.session.recording -= 1
        try:
            self._act(write, served, arrived, ok, why)
        finally:
            self._go_on(write.session)

    def _act(self, write: _Write, served: Served, arrived: int, ok: bool, why: str) -> None:
        """Act, if the entry is on disk and nothing has changed since the decision."""
        session = write.session
        if not ok:
            self._not_sent(
                write, served, f"not recorded: {why}", Fault.AUDIT, f"the audit log cannot be written: {why}"
            )
            return
        if self._sessions.get(session.id) is not session:
            self._not_sent(write, served, "the session ended before the write was sent", Fault.CONDUIT, "ended")
            return
        if self.severed:
            self._not_sent(write, served, "severed before the write was sent", Fault.SEVERED, "a side is severed")
            return
        if self._served.get(session.asset) is not served:
            why = "the policy changed before the write was sent"
            self._not_sent(write, served, why, Fault.ASSET, why)
            return
        # The entry took a moment to reach the disk. A window may have closed, a new policy may be in force.
        flow = session.flow
        again = flow.decide(write.operation, self._wall()) if isinstance(flow, Flow) else flow
        if isinstance(again, Deny):
            self._not_sent(write, served, f"no longer allowed: {again.detail}", again.fault, again.detail)
            return
        message, kind = write.record.message, Job
        if write.instead is not None:
            message, kind = write.instead, BitJob
        job = kind(
            again,  # the newer verdict: it lapses when the policy in force now says so
            message,
            session.share,
            session.id,
            arrived,
            served.asset.timeout_ms * 1_000_000,
            lambda job: self._guarded(write, served, self._write_done, job),
        )
        if isinstance(job, BitJob):
            job.operation = write.operation
        job.session, job.flow = session, flow
        job.unit, job.writes, job.group = write.operation.unit, True, session.group
        job.judged = write.judged
        self._prepare(job, session, served, write.operation, write.name)
        write.job = job
        if served.shared is not None:
            served.shared.written()
        served.device.submit(job)

    def _not_sent(self, write: _Write, served: Served, detail: str, fault: Fault, sentence: str) -> None:
        self._outcome(write, "not-sent", 0, 0, detail)
        self._outer.send(Denied(write.record.id, "", "", fault, clip(sentence)))
        self.faults[fault] = self.faults.get(fault, 0) + 1
        self._finish_write(write, served)

    def _write_done(self, write: _Write, served: Served, job: Job) -> None:
        if job.response is not None:
            device_ns = job.finished - job.sent
            if write.instead is not None:
                job.response = self.protocol.in_place(write.record.message, job.response)
            self._send_reply(write.record.id, job)
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
        if served.shared is not None:
            served.shared.written()
        self._finish_write(write, served)

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
            ),
            always=True,
        )

    def _finish_write(self, write: _Write, served: Served) -> None:
        self._end_write(write, served)
        self._unpark(served)

    def _end_write(self, write: _Write, served: Served) -> None:
        write.ended = True
        job = write.job
        # A write that was sent and not answered may take effect later: for a while no read says what it left.
        open_end = job is not None and job.sent and job.response is None
        settle_ns = SETTLE_TIMEOUTS * served.timeout_ns if open_end else 0
        write.session.under_way -= 1
        self._under_way -= 1
        served.writes -= 1
        self._state.note_ended(write.session.asset, write.operation, self._clock() + settle_ns)

    # --- writes that need to know the present value -------------------------------------------------------------

    def _park(self, session: Session, record: Request[Any], operation: Operation, arrived: int) -> None:
        served = self._served[session.asset]
        parked = Parked(session, record, operation, arrived)
        gives_way: Parked | None = None
        if served.parked.count >= self.limits.asset_queue:
            gives_way = served.parked.make_room(session.share, session.id, session.group)
            if gives_way is None:
                self._turn_away(session, record.id, operation, Failure.BUSY, MANY_PARKED)
                return
        self._under_way += 1
        session.parked += 1
        session.waits = True
        served.parked.push(session.share, session.id, parked)
        parked.timer = self._reactor.call_at(arrived + served.timeout_ns, lambda: self._expire_parked(served, parked))
        if gives_way is not None:
            self._let_go(served, gives_way, Failure.BUSY, MANY_PARKED)
        self._unpark(served)

    def _unpark(self, served: Served) -> None:
        """Decides the parked write again whose turn it is, or reads the value that it needs: of those of whose points
        no write is under way, one after the other for each principal. Each waits for as long as its asset may take to
        answer, whoever else writes meanwhile."""
        if served.unparking or not (served.parked.count or served.judging):
            return
        served.unparking = True  # what is decided here may end others, and lead back here
        try:
            name = served.asset.name
            while True:
                parked = self._next_parked(served, name)
                if parked is None:
                    return
                self._judge_parked(served, parked)
        finally:
            served.unparking = False

    def _next_parked(self, served: Served, name: str) -> Parked | None:
        """Whose turn it is: first those whose value was read, and that another write came before. Of writes of one
        point the next one's value is read after the one before has ended, unless that one still waits for its turn."""
        for group, parked in served.judging.items():
            if parked.passed and not self._state.in_doubt(name, parked.operation):
                del served.judging[group]
                return parked
        asked = [one.operation for one in served.judging.values() if any(job.sent for job in one.reads)]

        def ready(parked: Parked) -> bool:
            operation = parked.operation
            return (
                parked.session.group not in served.judging
                and not self._state.in_doubt(name, operation)
                and not any(self._state.meet(name, operation, other) for other in asked)
            )

        try:
            return served.parked.pop(ready)
        except IndexError:
            return None

    def _judge_parked(self, served: Served, parked: Parked) -> None:
        session, operation = parked.session, parked.operation
        parked.passed = False
        if self._clock() - parked.arrived >= served.timeout_ns:  # its client has given up
            self._let_go(served, parked, Failure.BUSY, NO_VALUE)
            return
        # A value that was read for this write is as new as one can be, however long its judgement then took.
        verdict = self._decide(session, operation, parked.tried_at or None)
        if not isinstance(verdict, NeedValues):
            self._unparked(parked)
            self._by_value = True
            self._settle(session, parked.record, operation, verdict, parked.arrived)
            self._by_value = False
            self._go_on(session)
        elif parked.tried_at:  # its value was read, and still says nothing: a write before it is in doubt
            self._let_go(served, parked, Failure.BUSY, "its present value is in doubt")
        else:
            parked.tried_at = self._clock()
            self._read_values(served, verdict, session.flow, parked)

    def _unparked(self, parked: Parked) -> None:
        parked.over = True
        if parked.timer is not None:
            parked.timer.cancel()
        self._under_way -= 1
        parked.session.parked -= 1

    def _let_go(self, served: Served, parked: Parked, failure: Failure, why: str) -> None:
        """A parked write is not sent."""
        session = parked.session
        served.parked.drop(session.share, session.id)  # of a session one write is parked at a time
        if parked.passed and served.judging.get(session.group) is parked:
            del served.judging[session.group]
        self._unparked(parked)
        self._turn_away(session, parked.record.id, parked.operation, failure, why)
        self._go_on(session)

    def _expire_parked(self, served: Served, parked: Parked) -> None:
        if not parked.over:
            # Where its value has been asked for, it is the device that does not answer.
            asked = served.judging.get(parked.session.group) is parked and not parked.passed
            failure = Failure.TIMEOUT if asked else Failure.BUSY
            self._let_go(served, parked, failure, NO_VALUE)
            self._unpark(served)

    def _forget_parked(self, served: Served, session: Session | None) -> None:
        """Turns away the parked writes of a session, or of all (None): they are not sent."""
        if session is None:
            gone = served.parked.drain()
        else:
            gone = served.parked.drop(session.share, session.id)
        gone += [one for one in served.judging.values() if not one.over and session in (None, one.session)]
        for parked in gone:
            self._let_go(served, parked, Failure.BUSY, "its session, or its asset, is no more")

    def _read_values(self, served: Served, need: NeedValues, flow: Flow | Deny, parked: Parked) -> None:
        """Reads what a step is judged from. The half asks for itself, of cells that the write is allowed to change; the
        device's time is the principal's."""
        session, operation = parked.session, parked.operation
        allowed = flow.decide(operation, self._wall()) if isinstance(flow, Flow) else flow
        if isinstance(allowed, Deny):
            self._let_go(served, parked, Failure.BUSY, "its present value cannot be read")
            return
        requests = [self.protocol.read_request(operation.unit, span) for span in need.spans]
        left = len(requests)
        good = True

        def done(job: Job) -> None:
            nonlocal left, good
            left -= 1
            if job.sent:
                served.parked.charge(session.group, job.finished - job.sent)
            if job.response is None or self.protocol.is_error(job.response):
                good = False
            else:
                for space, start, cells in self.protocol.values(job.request, job.response):
                    self._state.note_values(served.asset.name, space, start, cells, job.sent)
                held = self.protocol.item_values(job.request, job.response)
                self._state.note_items(served.asset.name, held, job.sent)
            if left:
                return
            if not parked.over and good and self._state.in_doubt(session.asset, operation):
                # It keeps its principal's place; what was read is what the other write may have changed.
                parked.passed, parked.tried_at, parked.reads = True, 0, []
                self._unpark(served)
                return
            del served.judging[session.group]
            if parked.over:  # its session has ended meanwhile, or it waited too long: it was answered then
                pass
            elif not good:
                # Without the value the step cannot be judged: the write is not sent.
                self._let_go(served, parked, job.failure or Failure.BAD_REPLY, "its present value cannot be read")
            else:
                self._judge_parked(served, parked)
            self._unpark(served)

        served.judging[session.group] = parked
        parked.reads = []
        for request in requests:
            job = Job(allowed, request, "", session.id, self._clock(), served.timeout_ns, done)
            job.unit, job.group, job.source = operation.unit, session.group, OURS + session.group
            parked.reads.append(job)
            served.device.submit(job)
