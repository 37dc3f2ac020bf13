"""Watches and streams in an inner half: judged when they are made, at each reload, when their verdict lapses, and frame
by frame.

What stands has a handle, which this half gives out. It ends with its session, with its connection to the asset, with
the verdict that permitted it, when a side is severed, when the audit log cannot be written, and when the outer half
does not take what it brings. Nothing is made again by itself: the client is told, and may ask anew.

A notice teaches nothing about a point's present value: nobody knows whether it was sampled before or after a write.

Not here: making a watch's or an opening's request (inner, writes), what the outer half does with it (outer_standing).
"""

from __future__ import annotations

import abc
from typing import Any

from cofferdam.audit.events.access import StreamEnded
from cofferdam.audit.events.base import MAX_SAFE_INTEGER, clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.frame_times import FrameTimes, silence
from cofferdam.brokers.proxy.records import (
    MOST_ALSO,
    Frame,
    Notice,
    Reply,
    Request,
    Unwatch,
    Unwatched,
    Watch,
    Watched,
)
from cofferdam.brokers.proxy.sessions import Served, Session
from cofferdam.brokers.proxy.standing import Standing, form_of, opened, watched
from cofferdam.brokers.proxy.writes import WritePath
from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.model import Allow, Deny, Failure, Fault, Item, NeedValues, Operation, cells_of
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import FrameReceived, NoticeReceived, Over
from cofferdam.protocols.registry import PROTOCOLS, Protocols

REFUSED_FRAMES = 3
"""Frames with a value outside its limits, one after the other, after which a stream is closed."""


class StandingPath(WritePath):
    """What an inner half has of watches and streams."""

    def __init__(self, setting: Setting, protocols: Protocols = PROTOCOLS) -> None:
        super().__init__(setting, protocols)
        self._standings: dict[int, Standing] = {}
        self._standing_at: dict[str, int] = {}  # by asset
        self._standing_of: dict[tuple[str, str], int] = {}  # by asset and principals
        self._last_handle = 0
        self._last_id = 0
        self._times = FrameTimes("outputs")

    # --- making -------------------------------------------------------------------------------------------------

    def _watch(self, record: Watch[Any]) -> None:
        """The outer half asks for a watch, on behalf of a client."""
        session = self._take_id(record)
        self.protocol.check(record.message)
        operation = self.protocol.operation(record.message)
        if not watched(operation) or operation.is_write:
            raise CrossingError(f"request {record.id} is asked as a watch, and is none")
        if session is None:
            return
        if session.waits and self._hold(session, record, operation, self._clock()):
            return
        self._watch_now(session, record, operation)

    def _watch_now(self, session: Session, record: Watch[Any], operation: Operation) -> None:
        request = Request(record.session, record.id, record.message)
        try:
            if self._busy(session, record.id, operation):
                return
            verdict = self._decide(session, operation)
            if isinstance(verdict, NeedValues):
                raise LocalProtocolError("a watch writes nothing, and so depends on no value")
            if isinstance(verdict, Deny):
                self._settle(session, request, operation, verdict, 0)
                return
            if not self._room(session, record.id, operation):
                return
            served = self._served[session.asset]
            tally = session.counts(verdict.conduit)
            tally.reads += 1
            tally.cells += cells_of(operation)
            arrived = self._clock()
            job = Job(
                verdict,
                record.message,
                session.share,
                session.id,
                arrived,
                served.timeout_ns,
                lambda job: self._watch_done(record.id, job),
            )
            job.unit, job.group = operation.unit, session.group
            job.session, job.flow = session, session.flow
            job.standing = Standing(session, served, record.message, operation, verdict)
            session.under_way += 1
            self._under_way += 1
            served.device.submit(job)
        except CrossingError:
            raise
        except Exception as error:
            self._internal(session, record.id, error)

    def _watch_done(self, number: int, job: Job) -> None:
        session = job.session
        session.under_way -= 1
        self._under_way -= 1
        try:
            if job.response is None:
                session.counts(job.allow.conduit).failed += 1
                self._send_failed(number, job)
            else:
                self._send_reply(number, job)
        except Exception as error:
            self._internal(session, number, error)

    @abc.abstractmethod
    def _take_id(self, record: Request[Any] | Watch[Any]) -> Session | None:
        """The session of a request whose number is in order; None where there is none, which is then answered."""

    @abc.abstractmethod
    def _busy(self, session: Session, number: int, operation: Operation) -> bool:
        """Whether too much of the session is under way; the request is then answered."""

    def _room(self, session: Session, number: int, operation: Operation) -> bool:
        """Whether one more, which policy allows, may stand in this session and at this asset; else the request is
        answered. Where the asset has as many as it may, who has most gives one up for who has less."""
        limit = ""
        if session.standing >= self.limits.client_standing:
            limit = "client_standing"
        elif self._standing_at.get(session.asset, 0) >= self.limits.asset_standing:
            limit = "asset_standing"
        if not limit:
            return True
        why = "too many subscriptions and streams stand"
        self._limit(limit, session.source, why)
        if limit == "asset_standing" and self._make_room(session):
            return True
        self._turn_away(session, number, operation, Failure.BUSY, why)
        return False

    def _make_room(self, session: Session) -> bool:
        """Ends the newest that stands at the session's asset of the principals who have most there, if that is more
        than the session's would have."""
        counts = {group: count for (asset, group), count in self._standing_of.items() if asset == session.asset}
        most = max(counts, key=counts.__getitem__)
        if counts[most] <= counts.get(session.group, 0) + 1:
            return False
        for standing in reversed(self._standings.values()):
            if standing.session.asset == session.asset and standing.session.group == most:
                self._end(standing, "others, who have fewer, need its place", None)
                return True
        return False

    def _settle(
        self, session: Session, record: Request[Any], operation: Operation, verdict: Allow | Deny, arrived: int
    ) -> None:
        if isinstance(verdict, Allow):
            if self.protocol.notice_type is not None and watched(operation):
                raise CrossingError(f"request {record.id} is a watch, and is not asked as one")
            stream = opened(operation)
            if stream is not None:
                deny = self._taken(session, stream, record.message, verdict)
                if deny is not None:
                    super()._settle(session, record, operation, deny, arrived)
                    return
                if not self._room(session, record.id, operation):
                    return
        super()._settle(session, record, operation, verdict, arrived)

    def _taken(self, session: Session, stream: Item, request: Any, verdict: Allow) -> Deny | None:
        """Why a stream cannot be this session's: what tells a device something has one owner at a time."""
        if not self.protocol.owned(request, self._served[session.asset].asset):
            return None
        for one in self._standings.values():
            if one.session.asset == session.asset and one.stream is not None and one.stream.space == stream.space:
                owner = f"{stream.space} stands for {one.session.source} (session {one.session.name})"
                return Deny(verdict.conduit, verdict.rule, Fault.TAKEN, clip(owner))
        return None

    def _prepare(self, job: Job, session: Session, served: Served, operation: Operation, write: str) -> None:
        if opened(operation) is not None:
            standing = job.standing = Standing(session, served, job.request, operation, job.allow)
            standing.write = write

    def _send_reply(self, number: int, job: Job) -> None:
        standing: Standing | None = job.standing
        if standing is None or standing.connection is None:
            super()._send_reply(number, job)
            return
        device_ns, waited = job.finished - job.sent, max(0, job.sent - job.arrived)
        session: Session = standing.session
        if self._sessions.get(session.id) is not session:  # its client has left meanwhile
            self._end(standing, "the session has ended", None)
            self._outer.send(Reply(number, job.response, device_ns, waited))
            return
        # Two may have been asked for at once, and a device that minds none has opened both.
        deny = None if standing.stream is None else self._taken(session, standing.stream, job.request, job.allow)
        if deny is not None:
            self._end(standing, deny.detail, deny)
            self._outer.send(Reply(number, self.protocol.refusal(job.request, deny), device_ns, waited))
            return
        self._last_handle += 1
        standing.handle = self._last_handle
        standing.from_wall = self._wall()
        standing.bucket.at = self._clock()
        standing.bucket.tokens = float(self.limits.asset_frames_per_second)
        self._standings[standing.handle] = standing
        if standing.stream is not None:
            cadence = self.protocol.cadence(job.request, job.response)
            if cadence is not None:
                conduit, now = standing.allow.conduit, self._clock()
                standing.times = self._times.begin(session.asset, standing.stream.name, conduit, cadence, now)
        session.standing += 1
        self._standing_at[session.asset] = self._standing_at.get(session.asset, 0) + 1
        place = (session.asset, session.group)
        self._standing_of[place] = self._standing_of.get(place, 0) + 1
        self._outer.send(Watched(number, standing.handle, job.response, device_ns, waited))
        if session.flow is not job.flow:  # another policy has come in force since it was asked for
            self._judge_again(standing)
        early, standing.early = standing.early, []
        for event in early:
            self._news([standing], event)

    # --- what comes from the asset ------------------------------------------------------------------------------

    def _news(self, standings: list[Standing], event: NoticeReceived | FrameReceived | Over) -> None:
        """The asset has sent a notice or a frame, has ended what stood, or is away. Each of those that stand is asked
        whether it may still; what they have in common then crosses once."""
        for standing in standings:
            if not standing.handle:
                standing.early.append(event)
        there = [one for one in standings if self._standings.get(one.handle) is one]
        if type(event) is NoticeReceived:
            self._notice(there, event.message)
            return
        for standing in there:
            if isinstance(event, Over):
                self._end(standing, self._silence(standing, event.detail) if event.silent else event.detail, None)
            elif isinstance(event, FrameReceived) and self._still(standing):
                standing.received += 1
                standing.lost_in += event.lost
                if self._outer.full:
                    standing.dropped += 1  # a frame that is late is worth nothing: the next one follows
                else:
                    self._outer.send(Frame(standing.handle, event.message, self._reactor.now))

    def _silence(self, standing: Standing, what: str) -> str:
        now = self._clock()
        paused = 0 if standing.times is None else standing.times.paused(now)
        return silence(what, "outputs", paused, "inner", self._reactor.held.of_late(now))

    def _notice(self, standings: list[Standing], message: Any) -> None:
        handles: list[int] = []
        wall, full = self._wall(), self._outer.full
        open_ = not self.severed and self._audit.writable  # nothing but the verdicts themselves can end any
        for standing in standings:
            if not (open_ and wall < standing.allow.valid_until) and not self._still(standing):
                continue
            standing.received += 1
            standing.session.counts(standing.allow.conduit).notices += 1
            if full:
                # What is left out would be missed by nobody who does not know of it.
                self._limit("crossing_backlog_bytes", standing.session.source, "the outer half takes no more notices")
                self._end(standing, "its news find no room", None)
            else:
                handles.append(standing.handle)
        for start in range(0, len(handles), MOST_ALSO + 1):
            first, *also = handles[start : start + MOST_ALSO + 1]
            self._outer.send(Notice(first, message, tuple(also)))

    # --- what comes from the outer half -------------------------------------------------------------------------

    def _known(self, handle: int, session: int | None) -> Standing | None:
        """What stands by a handle; None if it did, and ended meanwhile. Raises: CrossingError."""
        standing = self._standings.get(handle)
        if standing is None:
            if handle > self._last_handle:
                raise CrossingError(f"handle {handle} was never given out")
        elif session is not None and standing.session.id != session:
            raise CrossingError(f"handle {handle} is not of session {session}")
        return standing

    def _unwatch(self, record: Unwatch) -> None:
        standing = self._known(record.handle, record.session)
        if standing is None:
            return
        reason = "given up by the client"
        if record.silent:
            what = "the client has sent nothing in time"
            reason = silence(what, "inputs", record.paused, "outer", record.held)
        self._end(standing, reason, None, tell=False)

    def _frame(self, record: Frame[Any]) -> None:
        standing = self._known(record.handle, None)
        self.protocol.check(record.message)
        if standing is None:
            return
        if standing.stream is None:
            raise CrossingError(f"a frame for handle {record.handle}, which is a watch")
        misfit = self.protocol.misfit(standing.request, record.message)
        if misfit:
            raise CrossingError(f"a frame that does not belong to its stream: {misfit}")
        session = standing.session
        standing.lost_out += record.lost
        try:
            if self._still(standing) and self._in_pace(standing):
                self._judge_frame(standing, record.message, record.born)
        except Exception as error:
            self._limit("internal_error", session.source, clip(f"{type(error).__name__}: {error}"))
            self._end(standing, f"internal error: {error}", None)

    def _in_pace(self, standing: Standing) -> bool:
        bucket, rate, now = standing.bucket, self.limits.asset_frames_per_second, self._clock()
        bucket.tokens = min(float(rate), bucket.tokens + (now - bucket.at) * rate * 1e-9)
        bucket.at = now
        if bucket.tokens < 1.0:
            standing.dropped += 1
            self._limit("asset_frames_per_second", standing.session.source, "frames came faster than allowed")
            return False
        bucket.tokens -= 1.0
        return True

    def _judge_frame(self, standing: Standing, message: Any, born: int) -> None:
        session, stream = standing.session, standing.stream
        operation = self.protocol.frame_operation(standing.request, message, standing.served.asset)
        flow = session.flow
        wrong = "no rule allows it any more"
        if isinstance(flow, Flow) and stream is not None:
            wrong = flow.check_frame(stream, operation, self._state, self._clock())
        if not wrong:
            standing.in_a_row = 0
            if standing.served.device.send_frame(standing, message):
                standing.sent += 1
                now = self._clock()
                if standing.times is not None:
                    standing.times.sent(born, now)
                self._state.note_sent(session.asset, operation, now)
            return
        standing.refused += 1
        standing.in_a_row += 1
        verdict = Deny(standing.allow.conduit, standing.allow.rule, Fault.VALUE, wrong)
        self.faults[verdict.fault] = self.faults.get(verdict.fault, 0) + 1
        session.refusals.add(verdict, operation, flow, self._wall())
        if standing.in_a_row >= REFUSED_FRAMES:
            self._end(standing, f"{REFUSED_FRAMES} frames in a row were refused: {wrong}", verdict)

    # --- ending -------------------------------------------------------------------------------------------------

    def _still(self, standing: Standing) -> bool:
        """Whether it may still stand; ends it if not."""
        deny: Deny | None = None
        reads_only = standing.stream is None
        if self.severed:
            cut = self._own_side if self._own_side in self.severed else self._outer_side
            deny = Deny("", "", Fault.SEVERED, f"the {cut} side is severed")
        elif not self._audit.writable and not (reads_only and self.policy.audit.reads_without_log):
            deny = Deny("", "", Fault.AUDIT, f"the audit log cannot be written: {self._audit.reason}")
        elif self._wall() >= standing.allow.valid_until:
            return self._judge_again(standing)
        if deny is not None:
            self._end(standing, deny.detail, deny)
        return deny is None

    def _judge_again(self, standing: Standing) -> bool:
        """Whether the policy in force allows it now; ends it if not."""
        flow = standing.session.flow
        verdict = flow.decide(standing.operation, self._wall()) if isinstance(flow, Flow) else flow
        stream = standing.stream
        if isinstance(verdict, Allow) and stream is not None and standing.form != form_of(flow.asset, stream):
            # It was opened as the policy said it then: its frames go where no rule has a word for them now.
            verdict = Deny(verdict.conduit, verdict.rule, Fault.ASSET, f"the form of {stream.space} has changed")
        if isinstance(verdict, Allow):
            standing.allow = verdict
            return True
        standing.session.refusals.add(verdict, standing.operation, flow, self._wall())
        self.faults[verdict.fault] = self.faults.get(verdict.fault, 0) + 1
        self._end(standing, verdict.detail, verdict)
        return False

    def _judge_all_again(self) -> None:
        """Another policy is in force."""
        for standing in list(self._standings.values()):
            if self._standings.get(standing.handle) is standing:
                self._judge_again(standing)

    def _check_all(self) -> None:
        """Ends what may stand no longer."""
        for standing in list(self._standings.values()):
            if self._standings.get(standing.handle) is standing:
                self._still(standing)

    def _end_all_of(self, session: Session) -> None:
        for standing in [one for one in self._standings.values() if one.session is session]:
            self._end(standing, "the session has ended", None, tell=False)

    def _end(self, standing: Standing, reason: str, deny: Deny | None, *, tell: bool = True) -> None:
        """It stands no longer: the asset is told, the log, and the outer half if it does not know (`tell`)."""
        if standing.handle:
            if self._standings.pop(standing.handle, None) is None:
                return
            session = standing.session
            session.standing -= 1
            self._standing_at[session.asset] -= 1
            left = self._standing_of.pop((session.asset, session.group)) - 1
            if left:
                self._standing_of[session.asset, session.group] = left
            if tell:
                conduit, rule, fault = ("", "", None) if deny is None else (deny.conduit, deny.rule, deny.fault)
                self._outer.send(Unwatched(standing.handle, conduit[:128], rule[:128], fault, clip(reason)))
        self._times.end(standing.times)
        standing.served.device.give_up(standing)
        if standing.stream is not None:
            self._audit.note(
                StreamEnded(
                    wall_ns=self._wall(),
                    session=standing.session.name,
                    write=standing.write,
                    asset=standing.session.asset,
                    reason=clip(reason),
                    sent=standing.sent,
                    received=standing.received,
                    refused=standing.refused,
                    dropped=standing.dropped,
                    lost_out=min(standing.lost_out, MAX_SAFE_INTEGER),
                    lost_in=min(standing.lost_in, MAX_SAFE_INTEGER),
                    from_ns=standing.from_wall,
                    to_ns=self._wall(),
                ),
                always=True,
            )
