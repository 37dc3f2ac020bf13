"""The outer half of a proxy: takes clients' connections, understands and judges their requests, answers them.

It refuses early what policy does not allow, so that the answer is quick and the crossing quiet; that it refuses
rightly is not what safety rests on (the inner half decides again). It holds the clients to their limits: principals
who ask faster than they may are not read from until their next turn, so that their flood costs the others nothing.

Not here: sockets' details (brokers.transport), the asset's side (inner), the process around it (brokers.half).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from cofferdam.brokers.kit.figures import Reported, distribution
from cofferdam.brokers.kit.transport import RECEIVE_BYTES
from cofferdam.brokers.proxy.clients import Client, ClientSession, Pending, malformed, opened
from cofferdam.brokers.proxy.outer_door import Door
from cofferdam.brokers.proxy.records import (
    Denied,
    Ended,
    Failed,
    Frame,
    Notice,
    Opened,
    Reply,
    Request,
    Rows,
    Unwatched,
    Watch,
    Watched,
)
from cofferdam.brokers.proxy.standing import opened as opening
from cofferdam.brokers.proxy.standing import watched
from cofferdam.errors import CrossingError, RemoteProtocolError
from cofferdam.model import Allow, Deny, Failure, Fault, Operation
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import (
    NEED_DATA,
    WAITS,
    FrameReceived,
    Goodbye,
    Identified,
    LocalAnswer,
    Over,
    Released,
    Repeated,
    RequestReceived,
    RequestRefused,
)

# Named here, it is found without a look into the module, for each message.
_RECEIVED: Final = RequestReceived
MALFORMED_ENTRIES = 5
"""Malformed requests of one connection that get an audit entry each; further ones are counted when it closes."""


class Outer(Door):
    """The half itself. Besides what the process around it calls, its transports call it back."""

    # --- requests ---------------------------------------------------------------------------------------------

    def _on_data(self, client: Client, data: bytes) -> None:
        client.bytes_in += len(data)
        client.since = self._reactor.now
        if client.held_since:
            # What lay in the socket may have come as soon as reading was stopped. It is read in the turn in which
            # reading is taken up again, and in following ones as long as a read fills its buffer.
            if client.resumed in (0, self._reactor.now):
                client.since = client.held_since
                client.resumed = 0
            if client.resumed or len(data) < RECEIVE_BYTES:
                client.held_since = 0
        if self._speaks:
            self._tell_time(client)
        client.machine.receive_data(data)
        if not client.in_line:
            self._pump(client)

    def _pump(self, client: Client) -> None:
        """Takes requests out of what has arrived, as far as limits and the crossing have room."""
        machine = client.machine
        limit = self._most_outstanding
        inner = self._inner
        pace = client.pace
        pace.fill(self._reactor.now, self._rate, self._burst)
        try:
            while client.outstanding < limit and not inner.full:
                if pace.tokens < 1.0 and machine.buffered:
                    self._stand_in_line(client)
                    break
                event = machine.next_event()
                if type(event) is not _RECEIVED and event is NEED_DATA:
                    self._all_taken(client)
                    return
                client.frame_since = 0
                pace.tokens -= 1.0
                if type(event) is _RECEIVED:
                    self._request(client, event.token, event.request)
                elif isinstance(event, RequestRefused):
                    self._malformed(client, event.section, event.detail)
                    self._answer(client, event.token, event.reply)
                elif event is WAITS:
                    pace.tokens += 1.0
                    break
                elif isinstance(event, Repeated):
                    self._repeated(client, event.token)
                elif isinstance(event, FrameReceived):
                    self._standings.frame_received(client, event)
                elif isinstance(event, Over):
                    self._standings.silent(client, event.standing)
                elif isinstance(event, Goodbye):
                    self._answer_last(client)
                    self.close(client, "closed by the client")
                elif isinstance(event, Identified):
                    self._identified(client, event)
                    pace = client.pace
                elif isinstance(event, (LocalAnswer, Released)):
                    client.requests += 1
                    client.last = self._clock()
                    if isinstance(event, Released):
                        self._standings.released(client, event)
                    self._answer(client, event.token, event.reply)
                if client not in self.clients:
                    return
        except RemoteProtocolError as error:
            self._answer_last(client)
            if client not in self.clients:
                return
            if self._speaks:
                self._write(client, client.machine.take_output())  # its last words, if it has any
            self._malformed(client, error.section, str(error))
            self.close(client, f"protocol violation: {error}")
            return
        except Exception as bug:  # of ours: it ends this session and no other
            self._internal(client, bug)
            return
        # No room: this client waits, held back by its own TCP window.
        if not client.blocked:
            client.blocked = True
            client.held_since = client.held_since or self._reactor.now
            client.transport.pause()
        if self._inner.full:
            self._blocked.add(client)

    def _all_taken(self, client: Client) -> None:
        """Only more bytes can bring its next request."""
        if client.ended:
            self._over(client)
            return
        client.frame_since = 0 if not client.machine.buffered else client.frame_since or self._clock()
        if client.blocked:
            client.blocked = False
            client.resumed = self._reactor.now
            client.transport.resume()
        if self._speaks:
            self._tend(client)

    def _repeated(self, client: Client, token: int) -> None:
        """It asks again what is under way, as a client does that has waited for too long: one answer is for both."""
        client.requests += 1
        client.last = self._clock()
        what = "a request was sent again, word for word, while it was under way: the first one's answer is for both"
        self._limit("repeated_requests", client.source, what)

    def _ended(self, client: Client) -> bool:
        """It sends no more, and may still wait for answers: what it has asked was asked before it said so."""
        if client not in self.clients or self.stopping:
            return False
        client.ended = client.blocked = True
        if not client.in_line:
            self._pump(client)
        return client in self.clients

    def _on_ended(self, client: Client) -> None:
        self._pump(client)

    def _over(self, client: Client) -> None:
        """A client that sends no more: its connection is over once it has all its answers."""
        if not client.outstanding and not client.transport.unsent:
            self.close(client, "closed by the client")

    def _stand_in_line(self, client: Client) -> None:
        self._limit("client_requests_per_second", client.source, "more requests a second than allowed: they wait")
        self._turns.wait(client)

    def _go_on(self, client: Client) -> None:
        """Its turn has come."""
        if client in self.clients:
            self._pump(client)

    def _request(self, client: Client, token: int, request: Any) -> None:
        began = self._clock()
        client.requests += 1
        client.last = began
        wall = self._wall()
        operation: Operation
        session = client.only
        flow = None if session is None else session.flow
        # The same question as before, in the same window, has the same meaning and the same verdict. Only reads that
        # were allowed are recalled: nothing of what is asked about the others concerns them.
        known = flow.recall(request, wall) if isinstance(flow, Flow) and not self.severed else None
        if session is not None and known is not None:
            operation = known.operation
            conduit = known.conduit
            is_write = False
            session.requests += 1
        else:
            operation = self.protocol.operation(request)
            is_write = operation.is_write
            session = session or self._session_for(client, operation)
            judged = self._judge(session, request, operation, wall)
            if isinstance(judged, Deny):
                if is_write or not client.machine.divide(token):  # else each of its parts is judged by itself
                    self._deny(client, session, token, request, operation, judged, wall)
                return
            conduit = judged.conduit
            session.requests += 1
            if not self._may_go(client, session, token, request, operation, began, wall):
                return
        if not session.announced:
            session.announced = True
            shown = client.shown
            who = (shown.user, shown.application, shown.certificate)
            self._inner.send(Opened(session.id, session.name, client.source, session.asset, *who, client.lent))
        self._next += 1
        number = self._next
        client.outstanding += 1
        self._pending[number] = Pending(client, session, token, request, conduit, is_write, began)
        if self._has_watches and (known is None or not known.place) and watched(operation):
            self._inner.send(Watch(session.id, number, request))
        elif known is not None and self._repeats:
            self._keeping.send(session.id, number, known)
        else:
            self._inner.send(Request(session.id, number, request, began if is_write else 0))

    def _deny(
        self,
        client: Client,
        session: ClientSession,
        token: int,
        request: Any,
        operation: Operation,
        verdict: Deny,
        wall: int,
    ) -> None:
        """Records that it was refused, and answers it."""
        session.requests += 1
        if session.refusals is not None:
            session.refusals.add(verdict, operation, session.flow, wall)
        self._count_refusal(client, session, verdict)
        if operation.is_write:
            self._once_told(client, lambda: self._refuse(client, session, token, request, verdict))
        else:
            self._refuse(client, session, token, request, verdict)

    def _once_told(self, client: Client, answer: Callable[[], None]) -> None:
        """Answers a write that was refused when the auditor has heard of it: it is on record then, whatever becomes of
        this process (kit.refusals)."""
        client.outstanding += 1

        def go_on() -> None:
            client.outstanding -= 1
            if client in self.clients:
                answer()
            if client.blocked and not client.in_line and client in self.clients:
                self._pump(client)

        self._audit.when_sent(go_on)

    def _answer_last(self, client: Client) -> None:
        """Before a connection is closed by itself: what was refused is answered now."""
        if client.outstanding:
            client.blocked = False  # nothing more is taken out of it
            self._audit.flush()

    def _may_go(
        self,
        client: Client,
        session: ClientSession,
        token: int,
        request: Any,
        operation: Operation,
        began: int,
        wall: int,
    ) -> bool:
        """Whether what was allowed may cross; else it is answered."""
        try:
            self.protocol.check(request)
        except CrossingError as error:  # a bug of ours: it ends this session, where the inner half would stop
            self._internal(client, error)
            return False
        if not operation.is_write:
            return True
        # Only now: a write that is forbidden is recorded as that, however late it comes.
        if began - client.since > self._longest_wait:
            self._limit("client_wait_seconds", client.source, "a write that had waited too long was not sent")
            if session.refusals is not None:
                session.refusals.turned_away(operation, session.flow, "waited too long at the gate", wall)
            busy = self.protocol.failure(request, Failure.BUSY)
            self._once_told(client, lambda: self._answer(client, token, busy))
            return False
        if not session.told:  # whoever changes the plant is in the log, whatever the budget
            session.told = True
            self._audit.note(opened(client, session, self.crew, wall))
        if not session.named:
            self._tell_identity(client, session)
        return True

    def _session_for(self, client: Client, operation: Operation) -> ClientSession:
        """The session with the asset that answers for this unit; it begins when it is first asked."""
        assets = client.assets
        asset = assets.get(operation.unit) or assets.get(-1) or next(iter(assets.values()))
        return client.sessions.get(asset.name) or self._open_session(client, asset.name)

    def _would(self, client: Client, operation: Operation) -> bool:
        flow = self._session_for(client, operation).flow
        if isinstance(flow, Deny) or self._other_side in self.severed:
            return False
        return isinstance(flow.decide(operation, self._wall()), Allow)

    def _judge(self, session: ClientSession, request: Any, operation: Operation, wall: int) -> Allow | Deny:
        flow = session.flow
        if isinstance(flow, Deny):
            return flow
        if self._other_side in self.severed:
            return Deny("", "", Fault.SEVERED, f"the {self._other_side} side is severed")
        verdict = flow.decide(operation, wall)
        if isinstance(verdict, Allow):
            flow.remember(request, operation, verdict)
        return verdict

    def _count_refusal(self, client: Client, session: ClientSession, verdict: Deny) -> None:
        session.refused += 1
        client.refused += 1
        self.stats.refused(verdict)

    def _refuse(self, client: Client, session: ClientSession, token: int, request: Any, verdict: Deny) -> None:
        if session.silent:
            client.machine.release(token)
            if self._speaks:
                self._tend(client)
        else:
            self._answer(client, token, self.protocol.refusal(request, verdict))
        if client.refused > self.limits.client_refusals_per_connection:
            self._limit("client_refusals_per_connection", client.source, "too many refused requests")
            self.close(client, "too many refused requests")

    def _malformed(self, client: Client, section: str, detail: str) -> None:
        self.malformed += 1
        client.malformed += 1
        if client.malformed <= MALFORMED_ENTRIES and self._budget.spend(client.share, client.stranger, self._wall()):
            self._audit.note(malformed(client, section, detail, self._wall()))
        elif client.malformed > self.limits.client_refusals_per_connection and client in self.clients:
            self._limit("client_refusals_per_connection", client.source, "too many malformed requests")
            self.close(client, "too many malformed requests")

    def _answer(self, client: Client, token: int, response: Any) -> None:
        if client not in self.clients:
            return
        try:
            data = client.machine.send(token, response)
        except Exception as error:  # a bug of ours, or an answer that no answer to this request can be
            self._internal(client, error)
            return
        self._write(client, data)
        if self._speaks and client in self.clients:
            self._tend(client)

    def _internal(self, client: Client, error: Exception) -> None:
        self.close(client, f"internal error: {type(error).__name__}: {error}")
        self._limit("internal_error", client.source, f"{type(error).__name__}: {error}")

    def _write(self, client: Client, data: bytes) -> None:
        if not data:
            return
        client.bytes_out += len(data)
        transport = client.transport
        transport.write(data)
        if transport.unsent > self._most_unsent:
            self._limit("client_unsent_bytes", client.source, "the client does not take its answers")
            self.close(client, "the client does not take its answers")

    def _tend(self, client: Client) -> bool:
        """Sends what its machine has to say by itself, and has the machine told the time when it wants to. Returns
        whether there was something, as far as it goes by datagrams."""
        self._write(client, client.machine.take_output())
        sent = self._datagrams is None or (bool(client.standing) and self._datagrams.send(client))
        due = client.machine.deadline
        if due != client.due and client in self.clients:
            client.due = due
            if client.timer is not None:
                client.timer.cancel()
            client.timer = self._reactor.call_at(due, lambda: self._on_time(client)) if due else None
        return sent

    def _tend_later(self, clients: list[Client]) -> None:
        """At the end of the turn, in which there may be much for each."""
        if not self._to_tend:
            self._reactor.later(self._tend_all)
        self._to_tend.update(dict.fromkeys(clients))

    def _tend_all(self) -> None:
        clients, self._to_tend = self._to_tend, {}
        for client in clients:
            if client in self.clients:
                self._tend(client)

    def _tell_time(self, client: Client) -> None:
        """Has its machine end what is silent, once all that has come by datagrams was read."""
        if self._datagrams is not None and 0 < client.machine.deadline <= self._reactor.now:
            self._datagrams.hear(client)
        client.machine.on_time(self._reactor.now)

    def _on_time(self, client: Client) -> None:
        client.timer, client.due = None, 0
        if client in self.clients:
            self._tell_time(client)
            if client.in_line or client.blocked:
                self._tend(client)  # what follows from it shows when its turn comes
            else:
                self._pump(client)

    # --- answers from the inner half --------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        self.take(record)

    def taker(self, source: str) -> Callable[[Any], None]:
        return self.take

    def take(self, record: Any) -> None:
        """What the inner half says."""
        if type(record) is Rows:
            self._rows(record)
            return
        # A plain answer first, which nearly all are: to be asked what it is not would cost it more than all that it is.
        if type(record) is not Reply and not self._is_answer(record):
            return
        pending = self._pending.pop(record.id, None)
        if pending is None:
            return
        client = pending.client
        client.outstanding -= 1
        if type(record) is Reply or isinstance(record, Watched):
            self._hold_against(pending, record.message)
            shared = False
            if type(record) is Reply:
                shared = record.shared
            elif isinstance(record, Watched):
                self._begin(client, pending, record.handle, record.message)
            if pending.is_write and not self.protocol.is_error(record.message):
                pending.session.writes += 1
            self._answer(client, pending.token, record.message)
            waited, device = record.waited_ns, record.device_ns
            added = self._clock() - pending.began - device - waited
            self.stats.answered(pending.conduit, pending.is_write, shared, added, waited, device)
        elif isinstance(record, Failed):
            self._answer(client, pending.token, self.protocol.failure(pending.request, record.failure))
            self.stats.failed(pending.conduit)
        elif isinstance(record, Denied):
            verdict = Deny(record.conduit, record.rule, record.fault, record.detail)
            if client in self.clients:
                self._count_refusal(client, pending.session, verdict)
                self._refuse(client, pending.session, pending.token, pending.request, verdict)
        if client.blocked:
            self._read_on(client)

    def _read_on(self, client: Client) -> None:
        """There is room again for what it asks."""
        if client.blocked and not client.in_line and client in self.clients:
            self._pump(client)

    def _hold_against(self, pending: Pending, response: Any) -> None:
        misfit = self.protocol.mismatch(pending.request, response)
        if misfit:
            raise CrossingError(f"an answer that does not fit its request: {misfit}")

    def _rows(self, record: Rows) -> None:
        """Answers that are rows of values. What each is, its request says."""
        numbers = record.numbers
        if len(numbers) != 3 * len(record.rows):
            raise CrossingError(f"{len(record.rows)} rows of values come with {len(numbers)} numbers")
        answered: list[Pending | None] = []
        for at, row in enumerate(record.rows):
            pending = self._pending.get(numbers[3 * at])
            answered.append(pending)
            if pending is not None:
                del self._pending[numbers[3 * at]]
                pending.client.outstanding -= 1
                self._answer_row(pending, row)
        now = self._clock()
        for at, pending in enumerate(answered):
            if pending is not None:
                device, waited = numbers[3 * at + 1], numbers[3 * at + 2]
                added = now - pending.began - device - waited
                self.stats.answered(pending.conduit, False, False, added, waited, device)
        for pending in answered:
            if pending is not None and pending.client.blocked:
                self._read_on(pending.client)

    def _answer_row(self, pending: Pending, row: bytes) -> None:
        client = pending.client
        if client in self.clients:
            try:
                data = client.machine.answer(pending.token, row)
            except Exception as error:
                self._internal(client, error)
                return
            if data:  # it knew what the answer has to look like, and this is such a one
                self._write(client, data)
                if self._speaks and client in self.clients:
                    self._tend(client)
                return
        response = self.protocol.spelled(pending.request, row)
        self._hold_against(pending, response)
        self._answer(client, pending.token, response)

    def _is_answer(self, record: Any) -> bool:
        """Whether it answers a request. Does what it says if it does not."""
        if type(record) is Notice:
            reached = self._standings.notices(record)
            if self._speaks:
                self._tend_later(reached)
            return False
        if isinstance(record, Ended):
            found = self._sessions.get(record.session)
            if found is not None:
                self.close(found[0], record.reason)
            return False
        if isinstance(record, (Frame, Unwatched)):
            client = self._standings.take(record)
            if self._speaks and client in self.clients:
                sent = self._tend(client)
                if sent and isinstance(record, Frame):
                    self._standings.sent(record, self._clock())
            return False
        return True

    def _begin(self, client: Client, pending: Pending, handle: int, response: Any) -> None:
        """What was asked for stands from now on."""
        operation = self.protocol.operation(pending.request)
        there = client in self.clients
        stream = opening(operation)
        self._standings.begin(pending, handle, watched(operation) or stream is not None, there, stream, response)
        if self._datagrams is not None and there:
            self._datagrams.expect(client)

    def _on_room(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for client in blocked:
            if client in self.clients and not client.in_line:
                self._pump(client)

    @property
    def busy(self) -> int:
        """Requests that are with the inner half."""
        return len(self._pending)

    def figures(self) -> Reported:
        found = self.stats.report()
        if self.protocol.frame_type is None:
            return found
        held: Reported = {"held": {"outer": distribution(self._reactor.held_up)}}
        return found | self._standings.times.report() | held
