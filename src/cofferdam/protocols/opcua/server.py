"""The side towards a client: a whole server, of which only questions about named things cross.

Theory. HEL within 5 s, OPN within 10 s, a session within 30 s; one channel and one session on a connection, both end
with it. A session is created and then activated, by the same channel; until then it gets nothing. Identities end here:
a password is looked at (trust), an anonymous client is its address. Each request on the wire is a `Job`, answered once
all its parts are: parts that cross have a token, others are made here. What needs no crossing comes out as a
LocalAnswer, so that it counts in its source's pace like everything else.

Whatever a client must not learn the cause of has one answer. Not here: services on nodes (server_work), subscriptions'
turns (subscriptions), what is visible (space).
"""

from __future__ import annotations

import hmac
from collections import deque
from typing import Any

import msgspec

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.model import Asset, Deny
from cofferdam.protocols.base import (
    NEED_DATA,
    Established,
    Facing,
    Goodbye,
    Identified,
    LocalAnswer,
    RequestReceived,
    RequestRefused,
    ServerEvent,
)
from cofferdam.protocols.opcua import channel as ch
from cofferdam.protocols.opcua import jobs, wire
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import server_work as work
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua.builtin_types import GOOD, NULL_NODE, Malformed, NodeId
from cofferdam.protocols.opcua.identity import identity_of
from cofferdam.protocols.opcua.moving import Held, Where
from cofferdam.protocols.opcua.names import Namespaces
from cofferdam.protocols.opcua.offering import Offering, uris_of
from cofferdam.protocols.opcua.remembered import Heard, Known, varies
from cofferdam.protocols.opcua.security import NONE, Policy, SecurityError, leaf_of
from cofferdam.protocols.opcua.trust import chain_mark

NS = 1_000_000_000
HELLO_NS, OPEN_NS, SESSION_NS = 5 * NS, 10 * NS, 30 * NS
CALLED_NS = 120 * NS
"""For HEL of a client that we have connected to: it may have nobody who wants us just then."""
OPENS_PER_SECOND = 5
LEAST_LIFE_MS, MOST_LIFE_MS = 60_000, 3_600_000
LEAST_SESSION_MS, MOST_SESSION_MS = 10_000.0, 3_600_000.0
CLOCK_TICKS = 3600 * 10_000_000
"""A request's time stamp may be so far from ours."""
OPEN_JOBS = 100
SECTION4, SECTION6 = "OPC 10000-4, 5", "OPC 10000-6, 6.7"

BAD_SESSION, BAD_NOT_ACTIVATED, BAD_TOO_MANY_SESSIONS = 0x80250000, 0x80270000, 0x80560000
BAD_IDENTITY, BAD_IDENTITY_REJECTED, BAD_SIGNATURE = 0x80200000, 0x80210000, 0x80580000
BAD_NONCE, BAD_CERTIFICATE_URI, BAD_TIMESTAMP, BAD_SERVICE = 0x80240000, 0x80170000, 0x80230000, 0x800B0000
BAD_SERVER_BUSY, BAD_AWAY = 0x80EE0000, 0x80310000
BAD_CERTIFICATE, BAD_TOO_MANY_OPERATIONS, BAD_RESPONSE_TOO_LARGE = 0x80120000, 0x80100000, 0x80B90000


class OpcUaServer(Offering):
    """See the top."""

    def __init__(self, facing: Facing | None) -> None:
        self.facing = facing
        self.trust = None if facing is None else facing.common
        self._events: deque[Any] = deque()
        self._output: list[bytes] = []
        self._error: RemoteProtocolError | None = None
        self.now = 0
        self._started = 0
        self._opens: list[int] = []
        self.url = ""
        self.channel = ch.Channel(server=True, own=getattr(self.trust, "own", None), judge=self._judge,
                                  spend=self._spend_open)  # fmt: skip
        self.heard = Heard()
        self._takes_none = "none" in self._words()
        self._request_nonce = b""
        self._open: dict[int, tuple[jobs.Waiting, int]] = {}
        self.jobs = 0
        self._serial = 0
        self._soon = False  # events have come of an answer: `next_event` is to be asked
        self._generation = 0 if self.trust is None else self.trust.generation
        # the session
        self.session = NULL_NODE
        self.token = NULL_NODE
        self.activated = False
        self.client_uri = ""
        self.user = ""
        self._credential: object = None
        self._held: Held | None = None
        self._nonce = b""
        self._session_ns = 0
        self._last = 0
        self._look_at = 0  # when it is looked whether the session is over
        self._greeted = False
        uris = uris_of(facing)
        self.uri = uris[1]
        self.names = Namespaces(uris)
        self.services = work.Services(self)
        self._hello_ns = HELLO_NS
        if facing is not None and facing.dialled:
            self._hello_ns = CALLED_NS
            self._output.append(ch.reverse_hello(self.uri, self._own_url()))

    # --- what the house calls ---------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        self.channel.receive(data)

    def on_time(self, now: int) -> None:
        self.now = now
        self._soon = False
        self.channel.on_time(now)
        if not self._started:
            self._started = now
        if self._error is not None:
            return
        trust = self.trust
        if trust is not None and trust.generation != self._generation:
            self._generation = trust.generation
            policy = self.channel.policy
            if self.channel.peer and not trust.is_trusted(self.channel.peer, policy, self.wall(), "", self._strict):
                self._fail(ch.Fault("the client's certificate is not trusted any more", ch.BAD_SECURITY, SECTION6))
                return
            if self.user and trust.credential(self.user) != self._credential:
                self._fail(ch.Fault("what the user has logged in by is not good any more", ch.BAD_SECURITY, SECTION4))
                return
        if now >= self._limit():
            self._fail(ch.Fault("no HEL, no channel, or no session in time", ch.BAD_TIMEOUT))
            return
        if self.activated:
            if now - self._last > self._session_ns:
                self._close_session()
            elif now >= self._look_at:
                self._look_at = self._last + self._session_ns + 1
            self.services.on_time(now)

    def take_asset(self, asset: Asset) -> None:
        """What is shown follows at the next look; namespaces stay as they were shown. A channel of a kind that is no
        longer offered ends."""
        if self.facing is None:
            return
        self.facing = msgspec.structs.replace(self.facing, asset=asset)
        self._takes_none = "none" in self._words()
        channel = self.channel
        looks = channel.policy is NONE and not self.activated  # anybody may look which endpoints there are
        if channel.opened and not looks and not self._offers(channel.policy, channel.mode) and self._error is None:
            self._fail(ch.Fault("the policy offers no such channel any more", ch.BAD_POLICY, SECTION6))
            self._soon = True

    def _limit(self) -> int:
        channel = self.channel
        if not channel.greeted:
            return self._started + self._hello_ns
        if not channel.opened:
            return self._started + OPEN_NS
        return 1 << 63 if self.activated else self._started + OPEN_NS + SESSION_NS

    @property
    def deadline(self) -> int:
        if self._soon:
            return 1
        if self._error is not None:
            return 0
        if self.activated:
            due = self.services.deadline
            # Not moved with each request, which would have a timer set anew each time.
            return min(due, self._look_at) if due else self._look_at
        return self._limit()

    def take_output(self) -> bytes:
        output, self._output = b"".join(self._output), []
        return output

    def next_event(self) -> ServerEvent[m.OpcUaRequest, m.OpcUaResponse]:
        while True:
            if self._events:
                event: ServerEvent[m.OpcUaRequest, m.OpcUaResponse] = self._events.popleft()
                return event
            if self._error is not None:
                raise self._error
            try:
                body = self.channel.next()
                if body is None:
                    return NEED_DATA
                self._body(body)
            except ch.Fault as fault:
                self._fail(fault)

    def _fail(self, fault: ch.Fault) -> None:
        self._error = fault
        self.services.end()
        self._output.append(ch.error_frame(fault.status))

    def send(self, token: int, response: Any) -> bytes:
        found = self._open.pop(token, None)
        if found is None:
            raise LocalProtocolError(f"token {token} is not open")
        if isinstance(response, jobs.Ready):
            return response.data
        if type(response) is m.Refused:
            if response.status == BAD_AWAY:
                self._is_away(True)
        elif self.away:
            self._is_away(False)
        job, slot = found
        before = len(self._events)
        job.answer(slot, token, response)
        self._soon = len(self._events) > before
        return self.take_output()

    def release(self, token: int) -> None:
        found = self._open.pop(token, None)
        if found is not None:
            found[0].abandon()

    @property
    def buffered(self) -> int:
        return self.channel.buffered + len(self._events)

    @property
    def open(self) -> int:
        return len(self._open)

    def gone(self) -> None:
        held, trust = self._held, self.trust
        if held is not None and trust is not None:
            if self.activated and self._error is None:
                self.say_where(held)
                trust.sessions.park(held, self.now)
            else:
                trust.sessions.forget(self.token)
        self.services.end()
        self.channel.let_go()  # it and the next hold this, as this holds them
        self.services.let_go()
        self._open, self._events = {}, deque()

    def notice(self, standing: int, message: Any) -> bytes:
        self.services.notice(standing, message)
        return self.take_output()

    @property
    def away(self) -> bool:
        """Whether the asset did not answer when it was asked last, by whatever session."""
        return self.trust is not None and self.facing is not None and self.facing.asset.name in self.trust.away

    def _is_away(self, away: bool) -> None:
        if self.trust is not None and self.facing is not None:
            (self.trust.away.add if away else self.trust.away.discard)(self.facing.asset.name)

    def over(self, standing: int, deny: Deny | None) -> bytes:
        if deny is None:
            self._is_away(True)
        self.services.over(standing, deny)
        return self.take_output()

    # --- events and answers -----------------------------------------------------------------------------------------

    def ask(self, job: jobs.Waiting, slot: int, request: m.OpcUaRequest) -> int:
        """Has a part of a job cross. Its token."""
        self._serial += 1
        self._open[self._serial] = (job, slot)
        self._events.append(RequestReceived(self._serial, request))
        return self._serial

    def event(self, event: Any) -> None:
        """Something for the house."""
        self._events.append(event)

    def new_token(self) -> int:
        """A token that is answered at once."""
        self._serial += 1
        self._open[self._serial] = (jobs.NO_JOB, 0)
        return self._serial

    def reply(self, request: int, handle: int, kind: type, *fields: Any) -> None:
        """Sends a response."""
        header = s.ResponseHeader(wire.ticks(self.wall()), handle, GOOD, 0, [], wire.NO_EXTENSION)
        self.say(request, handle, wire.encode(kind(header, *fields)))

    def say(self, request: int, handle: int, body: bytes) -> None:
        """Sends what a response is written as."""
        try:
            data = self.channel.send(request, body)
        except LocalProtocolError:
            self.fault(request, handle, BAD_RESPONSE_TOO_LARGE)
            return
        self._output.append(data)

    def fault(self, request: int, handle: int, status: int) -> None:
        """Sends a ServiceFault: a bare status, and nothing of why."""
        header = s.ResponseHeader(wire.ticks(self.wall()), handle, status, 0, [], wire.NO_EXTENSION)
        self._output.append(self.channel.send(request, wire.encode(s.ServiceFault(header))))

    def wall(self) -> int:
        """UTC in ns."""
        return 0 if self.facing is None else self.facing.wall()

    def _random(self, count: int) -> bytes:
        if self.facing is None:
            raise LocalProtocolError("a bystander has no secrets")
        return self.facing.random(count)

    # --- messages ---------------------------------------------------------------------------------------------------

    def _body(self, body: ch.Body) -> None:
        if body.kind == b"HEL":
            self.url, answer = self.channel.take_hello(body.data)
            if self._hello_ns == CALLED_NS:
                self._started = self.now
            self._output.append(answer)
        elif body.kind == b"OPN":
            self._open_channel(body)
        elif body.kind == b"CLO":
            self.services.end()
            self._events.append(Goodbye())
        elif body.kind == b"MSG":
            self._message(body)

    def _message(self, body: ch.Body) -> None:
        known = self.heard.again(body.data)
        if known is not None and self._read_again(body, known):
            return
        before = len(self._events)
        number = -1
        try:
            if self.jobs >= OPEN_JOBS:
                raise Malformed("too many requests are under way", 0x80EE0000)
            request = self.heard.decode(body.data)
            if type(request) is not s.ReadRequest and not isinstance(getattr(request, "header", None), s.RequestHeader):
                raise Malformed("a response where a request is due")
            number = s.WRITERS[type(request)][0]
            self._request(body.request, request)
        except wire.Unsupported as error:
            self._refuse(body.request, error.header.handle, error.status, str(error), error.number)
            return
        except Malformed as malformed:  # a name of its own: compiled code gives a name one type
            header = wire.header_of(body.data)
            handle = header.handle if header is not None else 0
            self._refuse(body.request, handle, malformed.status, str(malformed), number)
            return
        if len(self._events) == before:
            # Answered here: for the house, that it counts.
            self._events.append(LocalAnswer(self.new_token(), jobs.Ready(self.take_output())))

    def _read_again(self, body: ch.Body, known: Known) -> bool:
        """A read that is asked once more in its session, if it may cross as it is; for all else it is a request as any
        other is."""
        if known.token is not self.token or not self.activated or self.jobs >= OPEN_JOBS:
            return False
        timestamp, handle = varies(body.data)
        if self._is_bare() or _late(timestamp, self.wall()) or not self.services.hopes(known):
            return False
        self._last = self.now
        self.services.read_again(body.request, handle, known)
        return True

    def _is_bare(self) -> bool:
        """Whether the channel is good for discovery alone."""
        return self.channel.policy is NONE and not self._takes_none

    def _refuse(self, request: int, handle: int, status: int, why: str, number: int) -> None:
        self.fault(request, handle, status)
        ready: Any = jobs.Ready(self.take_output())
        self._events.append(RequestRefused(self.new_token(), ready, SECTION4, why, number))

    def _request(self, number: int, request: Any) -> None:
        header, kind = request.header, type(request)
        if kind is s.FindServersRequest or kind is s.GetEndpointsRequest:
            self._discovery(number, request)
            return
        if self._is_bare():
            raise ch.Fault("a channel without security is for discovery alone", ch.BAD_SECURITY, SECTION6)
        if _late(header.timestamp, self.wall()):
            raise Malformed("a time stamp more than an hour from ours", BAD_TIMESTAMP)
        if kind is s.CreateSessionRequest:
            self._create_session(number, request)
            return
        if self.token == NULL_NODE or not _same(header.token, self.token):
            moved = self._elsewhere(header.token) if kind is s.ActivateSessionRequest else None
            if moved is None:
                raise Malformed("no such session", BAD_SESSION)
            self._activate(number, request, moved)
            return
        if kind is s.ActivateSessionRequest:
            self._activate(number, request, None)
            return
        if not self.activated and kind is not s.CloseSessionRequest:
            self._close_session()
            raise Malformed("the session is not activated", BAD_NOT_ACTIVATED)
        self._last = self.now
        if kind is s.CloseSessionRequest:
            self.services.end(keep=not request.delete)
            self.services.subscriptions.end()  # waiting Publish requests have their answer before
            self._close_session()
            self.reply(number, header.handle, s.CloseSessionResponse)
            return
        self.services.request(number, request)

    # --- channel ----------------------------------------------------------------------------------------------------

    def _judge(self, certificate: bytes, policy: Policy) -> Any:
        if self.trust is None:
            raise ch.Fault("no certificates are known here", ch.BAD_SECURITY)
        return self.trust.judge(certificate, policy, self.wall(), "", self._strict)

    @property
    def _strict(self) -> bool:
        security = None if self.facing is None else self.facing.asset.security
        return security is not None and security.revocation

    def may_work(self) -> bool:
        """Whether our private key may work for this client once more."""
        source = "" if self.facing is None else self.facing.source
        return self.trust is None or bool(self.trust.may_work(source, self.now))

    def _spend_open(self) -> None:
        if len(self._opens) >= OPENS_PER_SECOND and self.now - self._opens[-OPENS_PER_SECOND] < NS:
            raise ch.Fault("OPN again and again", ch.BAD_TIMEOUT, SECTION6)
        if not self.may_work():
            raise ch.Fault("more OPN from this source, or from all, than are looked at", BAD_SERVER_BUSY, SECTION6)

    def _open_channel(self, body: ch.Body) -> None:
        self._opens = [at for at in self._opens if self.now - at < NS]
        if len(self._opens) >= OPENS_PER_SECOND:
            raise ch.Fault("OPN again and again", ch.BAD_TIMEOUT, SECTION6)
        self._opens.append(self.now)
        try:
            request = wire.decode(body.data, request=True)
        except Malformed as error:
            raise ch.Fault(f"OPN: {error}", error.status, SECTION6) from None
        channel = self.channel
        if not isinstance(request, s.OpenChannelRequest) or request.kind != (1 if channel.opened else 0):
            raise ch.Fault("no OPN that may come now", ch.BAD_SECURITY, SECTION6)
        policy = channel.policy
        if (policy is NONE) != (request.mode == 1) or request.mode not in (1, 2, 3):
            raise ch.Fault(f"mode {request.mode} with the policy {policy.name}", ch.BAD_MODE, SECTION6)
        # Without security anybody may look which endpoints there are, and nothing else.
        if policy is not NONE and not self._offers(policy, request.mode):
            raise ch.Fault(f"{policy.name} in mode {request.mode} is not offered", ch.BAD_POLICY, SECTION6)
        if channel.opened and request.mode != channel.mode:
            raise ch.Fault("a renewal in another mode", ch.BAD_SECURITY, SECTION6)
        nonce = request.nonce or b""
        if (len(nonce) != policy.nonce and policy is not NONE) or (nonce and nonce == self._request_nonce):
            raise ch.Fault("a nonce that is too short, or was there before", BAD_NONCE, SECTION6)
        self._request_nonce = nonce
        channel.mode = request.mode
        own = self._random(policy.nonce) if policy.nonce else b""
        life = min(max(request.lifetime, LEAST_LIFE_MS), MOST_LIFE_MS)
        if not channel.opened:
            channel.id = int.from_bytes(self._random(4), "little") | 1
        number = 1 + int.from_bytes(self._random(3), "little") * 128 + len(self._opens)
        header = s.ResponseHeader(wire.ticks(self.wall()), request.header.handle, GOOD, 0, [], wire.NO_EXTENSION)
        answer = s.OpenChannelResponse(header, 0, channel.id, number, wire.ticks(self.wall()), life, own or None)
        frame = channel.open_frame(body.request, wire.encode(answer))
        channel.opened_token(number, life * 1_000_000, own, nonce)
        self._output.append(frame)
        if not self._greeted:
            self._greeted = True
            self._events.append(Established())

    # --- session ----------------------------------------------------------------------------------------------------

    def _create_session(self, number: int, request: s.CreateSessionRequest) -> None:
        channel = self.channel
        if self.token != NULL_NODE:
            raise Malformed("a second session on one connection", BAD_TOO_MANY_SESSIONS)
        nonce = request.nonce or b""
        signature = s.SignatureData(None, None)
        if channel.policy is not NONE:
            if not 32 <= len(nonce) <= 128:
                raise Malformed("a client nonce of less than 32 bytes", BAD_NONCE)
            # Either may have its authorities behind it; what is signed and compared is the certificate alone.
            given = leaf_of(request.certificate or b"")
            if given != leaf_of(channel.peer):
                raise Malformed("another certificate than the channel's", BAD_CERTIFICATE)
            uri = work.uri_of(given)
            if uri != (request.client.uri or ""):
                raise Malformed("an ApplicationUri that is not the certificate's", BAD_CERTIFICATE_URI)
            if channel.own is not None:
                if not self.may_work():
                    raise Malformed("more sessions than are looked at are begun from this source", BAD_SERVER_BUSY)
                signed = channel.policy.sign(channel.own.key, given + nonce)
                signature = s.SignatureData(channel.policy.signature_uri, signed)
        timeout = request.timeout if request.timeout == request.timeout else 0.0
        timeout = min(max(timeout or MOST_SESSION_MS / 60, LEAST_SESSION_MS), MOST_SESSION_MS)
        self.client_uri = (request.client.uri or "")[:256]
        self._session_ns = int(timeout * 1e6)
        self._nonce = self._random(32)
        self.session = NodeId(1, self._random(16), "b")
        self.token = NodeId(0, self._random(32), "b")
        certificate = None if channel.own is None else channel.own.sent
        self.reply(
            number, request.header.handle, s.CreateSessionResponse, self.session, self.token, timeout, self._nonce,
            certificate, self._endpoints(), [], signature, ch.MESSAGE_BYTES,
        )  # fmt: skip

    def _elsewhere(self, token: NodeId) -> Held | None:
        """A session that had, or has, another connection, and may be activated on this one."""
        if self.trust is None or self.token != NULL_NODE:
            return None
        found: Held | None = self.trust.sessions.find(token, self._where(), self.now)
        if found is not None and found.server is not None:
            found.server.say_where(found)
        return found

    def _where(self) -> Where:
        channel, facing = self.channel, self.facing
        certificate = chain_mark(channel.peer) if channel.peer else ""
        asset, source = ("", "") if facing is None else (facing.asset.name, facing.source)
        return Where(asset, source, certificate, channel.policy.uri, channel.mode, self.names.uris)

    def say_where(self, held: Held) -> None:
        """What the session holds just now, for another connection to go on with."""
        held.nonce, held.user, held.application, held.timeout = (
            self._nonce, self.user, self.client_uri, self._session_ns,
        )  # fmt: skip
        held.subscriptions = tuple(self.services.subscriptions.all)
        held.until = self._last + self._session_ns

    def _activate(self, number: int, request: s.ActivateSessionRequest, moved: Held | None) -> None:
        """`moved`: the session that this is to become; nothing changes for it before all is proven."""
        channel = self.channel
        nonce = self._nonce if moved is None else moved.nonce
        if channel.policy is not NONE and channel.own is not None and channel.peer_key is not None:
            signed = channel.own.certificate + nonce
            try:
                if request.signature.algorithm != channel.policy.signature_uri:
                    raise SecurityError("another algorithm")
                channel.policy.verify(channel.peer_key, request.signature.signature or b"", signed)
            except SecurityError:
                if moved is None:
                    self._close_session()
                raise Malformed("the client has not signed for its session", BAD_SIGNATURE) from None
        user = identity_of(self, nonce, request)
        if (self.activated and user != self.user) or (moved is not None and user != moved.user):
            raise Malformed("a session of another user", BAD_IDENTITY_REJECTED)
        self._nonce = self._random(32)
        self.user, self.activated, self._last = user, True, self.now
        if moved is not None:
            self._go_on_with(moved)
        self._look_at = self.now + self._session_ns + 1
        self._credential = self.trust.credential(user) if user and self.trust is not None else None
        if self.trust is not None and moved is None:
            self._held = Held(self.token, self.session, self._where(), self)
            self.trust.sessions.hold(self._held)
        mark = "" if not channel.peer else chain_mark(channel.peer)
        self._events.append(Identified(user, self.client_uri if channel.peer else "", mark))
        self.reply(number, request.header.handle, s.ActivateSessionResponse, self._nonce, [], [])
        self._events.append(LocalAnswer(self.new_token(), jobs.Ready(self.take_output())))

    def _go_on_with(self, moved: Held) -> None:
        """Takes a session over, and its subscriptions."""
        self.token, self.session, self.client_uri = moved.token, moved.session, moved.application
        self._session_ns = moved.timeout
        before, moved.server = moved.server, self
        for one in moved.subscriptions:
            self.services.take(one)
        if before is not None:
            before.surrender_session()
        self._held = moved
        if self.trust is not None:
            self.trust.sessions.hold(moved)

    def surrender_session(self) -> None:
        """Another connection of the same client has the session."""
        self._held = None
        self._close_session()

    def _close_session(self) -> None:
        self.services.end()
        if self._held is not None and self.trust is not None:
            self.trust.sessions.forget(self.token)
            self._held = None
        self.token = self.session = NULL_NODE
        self.activated = False
        self._started = self.now - OPEN_NS  # the time for a new one runs
        self.services = work.Services(self)


def _late(timestamp: int, wall: int) -> bool:
    """Whether a request's time stamp is too far from ours."""
    return timestamp != 0 and abs(timestamp - wire.ticks(wall)) > CLOCK_TICKS


def _same(one: NodeId, other: NodeId) -> bool:
    """Whether two tokens are equal, in a time that does not tell where they differ."""
    if one.ns != other.ns or one.kind != other.kind or not isinstance(one.id, bytes) or not isinstance(other.id, bytes):
        return False
    return hmac.compare_digest(one.id, other.id)
