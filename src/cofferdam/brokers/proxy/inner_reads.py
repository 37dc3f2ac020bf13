"""How an inner half carries out reads that are allowed: counts them, asks the device or shares an answer, and says what
it was.

Not here: verdicts (inner), queues and connections (device), what reads that are kept are (kept).
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Mapping
from typing import Any

from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.proxy.connection import Job
from cofferdam.brokers.proxy.device import CLIENT_GONE, TOO_LATE
from cofferdam.brokers.proxy.inner_told import Telling
from cofferdam.brokers.proxy.kept import KeptReads, Replying
from cofferdam.brokers.proxy.records import MOST_ID, Again, Kept, Reply, Request
from cofferdam.brokers.proxy.sessions import Served, Session
from cofferdam.brokers.proxy.sharing import SharedReads
from cofferdam.errors import CrossingError
from cofferdam.model import Allow, Failure
from cofferdam.policy.points.decide import Flow, Known
from cofferdam.protocols.registry import PROTOCOLS, Protocols


class _ReadJob(Job):
    """A read of a session. A class and not a closure, since there is one for each transaction."""

    __slots__ = ("number", "served")

    def __init__(
        self,
        allow: Allow,
        request: Any,
        arrived: int,
        done: Callable[[Job], None],
        session: Session,
        number: int,
        served: Served,
    ) -> None:
        super().__init__(allow, request, session.share, session.id, arrived, served.timeout_ns, done)
        self.group = session.group
        self.session = session
        self.flow = session.flow
        self.number = number
        self.served = served


class Reads(Telling):
    """An inner half as far as it reads."""

    def __init__(self, setting: Setting, protocols: Protocols = PROTOCOLS) -> None:
        super().__init__(setting, protocols)
        self._on_read_done = self._read_done
        self._kept = KeptReads(self.protocol)
        self._replying = Replying(self._outer)
        self._rows = self.protocol.rows
        self._named = bool(self.protocol.dialect.kinds)
        self._identifies = self.protocol.identifies
        self._browses = self.protocol.browses
        self._most_under_way = 0

    @abc.abstractmethod
    def _request(self, record: Request[Any]) -> None:
        """A request that crossed whole."""

    @abc.abstractmethod
    def _permitted(self, job: Job) -> bool:
        """Whether a job that has waited may still be sent."""

    def _keep(self, record: Kept[Any]) -> None:
        """A read that is to be kept, and is asked for."""
        session = self._sessions.get(record.session)
        flow = None if session is None else session.flow
        known = flow.recall(record.message, self._wall()) if isinstance(flow, Flow) else None
        self._request(Request(record.session, record.id, self._kept.keep(record, known)))

    def _again(self, record: Again) -> None:
        """Reads that are kept are asked for. All came at one time, which is looked up once."""
        asked = record.asked
        number = record.first
        if len(asked) & 1 or number > MOST_ID - len(asked):
            raise CrossingError("a session asks again, and does not say for what, or its numbers are at their end")
        wall, now = self._wall(), self._clock()
        sure: Flow | None = None  # in whose window this is, as has been looked up
        for at in range(0, len(asked), 2):
            kept = self._kept.at(asked[at + 1])
            session = self._sessions.get(asked[at])
            flow = None if session is None else session.flow
            known: Known | None = None
            if isinstance(flow, Flow):
                if flow is not sure and flow.since <= wall < flow.until:
                    sure = flow
                if flow is sure and flow is kept.flow and kept.since == flow.since:
                    known = kept.known  # the same question as before, in the same window
                else:
                    known = kept.recalled(flow, wall)
            if (
                session is None or known is None or session.waits or self.severed or not self._audit.writable
                or session.under_way >= self._most_under_way or number <= self._last_id
            ):  # fmt: skip
                self._request(Request(asked[at], number, kept.message))
            else:
                self._last_id = number
                try:
                    self._read(session, number, known, now)
                except CrossingError:
                    raise
                except Exception as error:
                    self._internal(session, number, error)
            number += 1

    def _read(self, session: Session, number: int, known: Known, arrived: int) -> None:
        tally = session.tally
        if tally.conduit is not known.conduit:
            tally = session.counts(known.conduit)
        tally.reads += 1
        tally.cells += known.cells
        served = self._served[session.asset]
        shared = served.shared
        if shared is not None:
            response = shared.find(known.request, arrived)
            if response is not None:
                tally.shared += 1
                self._outer.send(Reply(number, response, 0, 0, True))
                return
        job = _ReadJob(known.verdict, known.request, arrived, self._on_read_done, session, number, served)
        job.unit = known.unit
        session.under_way += 1
        self._under_way += 1
        if shared is not None:
            self._ask_shared(job, served, shared)
            return
        served.device.submit(job)

    def _ask_shared(self, job: _ReadJob, served: Served, shared: SharedReads) -> None:
        if shared.join(job):
            job.session.counts(job.allow.conduit).shared += 1
            return
        shared.asked(job)
        served.device.submit(job)

    def _ask_all_again(self, jobs: list[Job], served: Served, shared: SharedReads) -> None:
        for job in jobs:
            if isinstance(job, _ReadJob):
                self._ask_again(job, served, shared)

    def _ask_again(self, job: _ReadJob, served: Served, shared: SharedReads) -> None:
        now = self._clock()
        late = now - job.arrived > job.timeout_ns
        if self._sessions.get(job.session.id) is job.session and self._permitted(job) and not late:
            self._ask_shared(job, served, shared)
            return
        job.failure, job.detail, job.finished = Failure.BUSY, TOO_LATE if late else CLIENT_GONE, now
        job.done(job)

    def _read_done(self, job: Job) -> None:
        if isinstance(job, _ReadJob):
            try:
                self._answer(job)
            except Exception as error:
                self._internal(job.session, job.number, error)

    def _answer(self, job: _ReadJob) -> None:
        session: Session = job.session
        served = job.served
        response = job.response
        session.under_way -= 1
        self._under_way -= 1
        if response is not None:
            sent = job.sent
            waited = sent - job.arrived
            if type(response) in self._rows:
                self._replying.send(job.number, job.finished - sent, waited if waited > 0 else 0, response.words)
            else:
                if type(response) in self._identifies:
                    self._look_at_identity(served, self.protocol.identity(response))
                    response = self.protocol.legible(response)
                if self._browses:
                    response = self._seen(job, response)
                self._outer.send(Reply(job.number, response, job.finished - sent, waited if waited > 0 else 0))
            if served.steps:
                for space, start, cells in self.protocol.values(job.request, response):
                    self._state.note_values(session.asset, space, start, cells, sent)
                if self._named:
                    held = self.protocol.item_values(job.request, response)
                    self._state.note_items(session.asset, held, sent)
        else:
            session.counts(job.allow.conduit).failed += 1
            self._send_failed(job.number, job)
        if job.generation >= 0 and served.shared is not None:
            served.shared.answered(job)
        joined = job.joined
        if joined is None:
            return
        job.joined = None
        if joined and not job.sent and job.failure is Failure.BUSY and served.shared is not None:
            # Its question was never sent: its client has left, it has waited too long, or had to give way. The others
            # ask for themselves, if they may, once this turn is over: we may be in the midst of all that waits.
            self._reactor.later(functools.partial(self._ask_all_again, joined, served, served.shared))
            return
        for other in joined:
            # They share the answer, good or bad; the waiting was theirs, the device's time was not.
            other.response, other.failure, other.detail = job.response, job.failure, job.detail
            other.sent, other.finished = max(job.sent, other.arrived), job.finished
            other.done(other)

    def _look_at_identity(self, served: Served, identity: Mapping[str, str]) -> None:
        """What a device says of itself is compared with what it said before, as far as it says it both times."""
        known = served.identity
        other = [name for name, value in identity.items() if known.get(name, value) != value]
        if other:
            said = ", ".join(f"{name} {known[name]!r} is now {identity[name]!r}" for name in other)
            served.device.conduct.changed(clip(f"its identity changed: {said}"), self._clock())
        known.update(identity)

    def _seen(self, job: _ReadJob, response: Any) -> Any:
        """An answer without what its client may do nothing with."""
        flow = job.session.flow
        return self.protocol.filtered(job.request, response, flow.sees if isinstance(flow, Flow) else lambda _: False)
