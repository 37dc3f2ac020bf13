"""Our side towards an asset's server: a channel and a session of our own, on one connection.

Theory. HEL, OPN, CreateSession, ActivateSession, then the server's namespaces are read: only now is the connection
established, and names mean NodeIds of this session alone. Should the array turn out different later, the connection
ends (a server may number anew only when it restarts; nothing is ever asked by numbers that may have changed). What
takes several questions (the handshake, a survey, a watch) is a generator that yields requests and is sent the answers.

A token is the id of a request. Watches stand on subscriptions of ours, one for each publishing interval; Publish
requests of ours wait at the server and are none of the requests in flight. Not here: what takes several questions
(client_work, client_survey).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any, ClassVar

from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from cofferdam.model import Asset, Item
from cofferdam.protocols.base import (
    NEED_DATA,
    BadResponse,
    ClientEvent,
    ClientMachine,
    Continues,
    Established,
    Facing,
    NoticeReceived,
    Over,
    ResponseReceived,
    Unmatched,
)
from cofferdam.protocols.opcua import channel as ch
from cofferdam.protocols.opcua import client_work as work
from cofferdam.protocols.opcua import messages as m
from cofferdam.protocols.opcua import services as s
from cofferdam.protocols.opcua import wire
from cofferdam.protocols.opcua.builtin_types import NULL_NODE, Malformed
from cofferdam.protocols.opcua.client_survey import survey
from cofferdam.protocols.opcua.names import Namespaces
from cofferdam.protocols.opcua.remembered import Said
from cofferdam.protocols.opcua.security import POLICIES, Policy
from cofferdam.protocols.opcua.watches import Wait, Watches

NS = 1_000_000_000
ALIVE_NS = 5 * NS
"""So often the server's namespaces and state are looked at."""
PUBLISHES = 3
"""Publish requests that wait at the server."""
SECTION = "OPC 10000-4, 5"
_ENDED = frozenset({0x80250000, 0x80260000, 0x80270000, 0x80220000, 0x80200000, 0x80840000})
"""Statuses after which the session is none."""

Work = Generator[Any, Any, Any]


class OpcUaClient(ClientMachine[m.OpcUaRequest, m.OpcUaResponse]):
    """See the top."""

    gathers: ClassVar[bool] = True

    def __init__(self, facing: Facing | None, outstanding: int = 1, quirks: frozenset[str] = frozenset()) -> None:
        self.facing = facing
        self.quirks = quirks
        self.namespaces = Namespaces(())
        self.token = NULL_NODE
        self._outstanding = outstanding
        self._events: deque[Any] = deque()
        self._output: list[bytes] = []
        self._error: RemoteProtocolError | None = None
        self._now = 0
        self._works: dict[int, tuple[int, Work]] = {}  # request id on the wire -> (token or 0 for ours, what waits)
        self._pending: dict[int, m.OpcUaRequest] = {}
        self._reads: dict[int, m.Read] = {}  # reads that were asked before, by their token, which is their id as well
        self._forgotten: set[int] = set()
        self._watching: set[int] = set()  # those that wait for a watch, which are asked for together
        self._publishing = 0
        self._publish_ids: set[int] = set()
        self.watches = Watches(self)
        self.said = Said()
        self.established = False
        self._alive_at = 0
        self._alive = False
        self._renewing = False
        self._soon = False
        self.asset: Asset | None = None if facing is None else facing.asset
        self.structures = _structures(self.asset)
        self.policy, self.mode = _security(self.asset)
        trust = None if facing is None else facing.common
        self._generation = 0 if trust is None else trust.generation
        self.channel = ch.Channel(server=False, own=getattr(trust, "own", None), judge=self._judge)
        self.url = "opc.tcp://localhost" if self.asset is None else f"opc.tcp://{_host(self.asset)}:{self.asset.port}"
        self._wire_id = 0
        if facing is not None and facing.dialled:
            self.channel.called = True
        else:
            self._output.append(self.channel.hello(self.url))

    # --- what the house calls ---------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        self.channel.receive(data)

    def take_asset(self, asset: Asset) -> None:
        self.asset, self.structures = asset, _structures(asset)
        self.said.forget()  # what is not of a structure may be so now

    def on_time(self, now: int) -> None:
        self._now = now
        self.channel.on_time(now)
        self._soon = False
        if not self.established or self._error is not None:
            return
        trust = None if self.facing is None else self.facing.common
        if trust is not None and trust.generation != self._generation:
            self._generation = trust.generation
            if self.channel.peer and not trust.is_trusted(
                self.channel.peer, self.channel.policy, self.wall(), *self._wanted
            ):
                self._error = RemoteProtocolError("the server's certificate is not trusted any more", section=SECTION)
                return
        self.watches.flush()
        if now >= self.channel.renew_at and not self._renewing:
            self._renewing = True
            self.start(0, work.renew(self))
        if now >= self._alive_at:
            if self._alive:
                self._error = RemoteProtocolError("the server does not answer any more", section=SECTION)
                return
            self._alive_at, self._alive = now + ALIVE_NS, True
            self.start(0, work.keep_alive(self))

    @property
    def deadline(self) -> int:
        if self._error is not None or not self.established:
            return 0
        return 1 if self._soon or self.watches.gathered else min(self.channel.renew_at, self._alive_at)

    def take_output(self) -> bytes:
        output, self._output = b"".join(self._output), []
        return output

    def next_event(self) -> ClientEvent[m.OpcUaResponse]:
        while True:
            if self._events:
                event: ClientEvent[m.OpcUaResponse] = self._events.popleft()
                return event
            if self._error is not None:
                raise self._error
            try:
                body = self.channel.next()
                if body is None:
                    return NEED_DATA
                self._body(body)
            except RemoteProtocolError as error:
                self._error = error
            except Malformed as malformed:  # names of their own: compiled code gives a name one type
                self._error = RemoteProtocolError(str(malformed), section=SECTION)
            except LocalProtocolError as local:
                self._error = RemoteProtocolError(f"cannot go on: {local}", section=SECTION)

    def send(self, request: m.OpcUaRequest) -> tuple[int, bytes]:
        if not self.established or self._error is not None:
            raise LocalProtocolError("the connection is not established")
        watch = type(request) is m.Subscribe or type(request) is m.Events
        if not watch and len(self._pending) - len(self._watching) >= self._outstanding:
            raise LocalProtocolError("too many requests are under way")
        token = self._new_id()
        self._pending[token] = request
        if type(request) is m.Read:
            self._wire_id = self._wire_id % 0x7FFFFFFF + 1
            body = self.said.body(request, wire.ticks(self.wall()), self._wire_id)
            if body is not None:
                self._reads[token] = request
                self._output.append(self.channel.send(token, body))
                return token, self.take_output()
        if watch:
            self._watching.add(token)
        asking = survey(self, request) if type(request) is m.Survey else work.ask(self, token, request)
        self.start(token, asking)
        data = self.take_output()
        if self._events:
            self._soon = True  # it was answered here: `next_event` is to be asked
        return token, data

    def _taken(self, token: int) -> m.OpcUaRequest | None:
        self._watching.discard(token)
        return self._pending.pop(token, None)

    def forget(self, token: int) -> None:
        if self._taken(token) is not None:
            self._forgotten.add(token)
            if len(self._forgotten) > 10_000:
                self._error = RemoteProtocolError(
                    "the server leaves too many requests without an answer", section=SECTION
                )

    def give_up(self, standing: int) -> bytes:
        self.watches.give_up(standing)
        return self.take_output()

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    @property
    def buffered(self) -> int:
        return self.channel.buffered

    @property
    def drop_after_timeout(self) -> bool:
        return False

    # --- questions --------------------------------------------------------------------------------------------------

    def wall(self) -> int:
        """UTC in ns."""
        return 0 if self.facing is None else self.facing.wall()

    def random(self, count: int) -> bytes:
        """So many unpredictable bytes."""
        if self.facing is None:
            raise LocalProtocolError("a bystander has no secrets")
        return self.facing.random(count)

    def header(self, timeout_ms: int = 10_000) -> s.RequestHeader:
        """The header of a request of ours."""
        self._wire_id = self._wire_id % 0x7FFFFFFF + 1
        return s.RequestHeader(
            self.token, wire.ticks(self.wall()), self._wire_id, 0, None, timeout_ms, wire.NO_EXTENSION
        )

    def _new_id(self) -> int:
        return self.channel.request_id()

    def start(self, token: int, generator: Work) -> None:
        """Begins something that takes several questions. `token`: of the request that it answers; 0 for none."""
        self._step(token, generator, None)

    def _step(self, token: int, generator: Work, answer: Any) -> None:
        try:
            question = generator.send(answer)
        except StopIteration as stop:
            self._finished(token, stop.value)
            return
        except work.Misfit as error:
            if token and self._taken(token) is not None:
                self._events.append(BadResponse(token, SECTION, str(error)))
            elif not token:
                self._error = RemoteProtocolError(str(error), section=SECTION)
            return
        if type(question) is Wait:
            question.line.append((token, generator))  # it is gone on with by another's answer
            return
        self.ask(token, generator, question)

    def ask(self, token: int, generator: Work, question: Any) -> None:
        """Sends a question of a generator, which is sent the answer."""
        number = self._new_id()
        self._works[number] = (token, generator)
        body = wire.encode(question)
        if type(question) is s.OpenChannelRequest:
            self._output.append(self.channel.open_frame(number, body))
        else:
            self._output.append(self.channel.send(number, body))

    def tell(self, question: Any) -> None:
        """Sends a question whose answer does not matter."""
        self.start(0, work.single(question))

    def goes_on(self, token: int, generator: Work, answer: Any) -> None:
        """Has a generator that waits without a question go on."""
        self._step(token, generator, answer)

    def goes_round(self, waiting: list[int]) -> None:
        """A question for watches is answered; `waiting`: whose turn comes only now."""
        self._events.extend(Continues(token) for token in waiting if token in self._pending)

    def _finished(self, token: int, answer: Any) -> None:
        if not token:
            return
        if self._taken(token) is None:
            self._forgotten.discard(token)
            if isinstance(answer, m.Subscribed):
                self.watches.give_up(token)  # nobody waits for it any more: it must not stand
            self._events.append(Unmatched("a late answer"))
        elif answer is None:
            self._events.append(BadResponse(token, SECTION, "no answer"))
        else:
            self._events.append(ResponseReceived(token, answer))
            if type(answer) is m.Subscribed:
                self.watches.answered(token)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _body(self, body: ch.Body) -> None:
        if body.kind == b"RHE":
            self._called(*ch.take_reverse_hello(body.data))
            return
        if body.kind == b"ACK":
            self.channel.take_ack(body.data)
            self.start(0, work.handshake(self))
            return
        if body.kind == b"ERR":
            code = int.from_bytes(body.data[:4], "little")
            raise RemoteProtocolError(f"the server ended the connection with 0x{code:08X}", section=ch.PART6)
        if body.kind == b"CLO":
            raise RemoteProtocolError("the server closed the channel", section=ch.PART6_CHANNEL)
        if body.request in self._publish_ids:
            self._publish_ids.discard(body.request)
            self._published(body)
            return
        asked = self._reads.pop(body.request, None)
        if asked is not None:
            self._read_again(body, asked)
            return
        found = self._works.pop(body.request, None)
        if found is None:
            self._events.append(Unmatched("an answer to nothing"))
            return
        token, generator = found
        answer = self._answered(token, body)
        if answer is None:
            generator.close()
            return
        self._step(token, generator, answer)

    def _read_again(self, body: ch.Body, request: m.Read) -> None:
        """The answer to a read that was asked before."""
        token = body.request
        # Of what is asked again nothing is a structure, or a part of something (client_work), unless it is so now.
        values = self.said.values(request, body.data) if body.kind == b"MSG" else None
        if values is not None:
            self._finished(token, values)
            return
        answer = self._answered(token, body)
        if answer is None:
            return
        try:
            self._finished(token, work.values_of(self, request, [], answer))
        except work.Misfit as error:
            if self._taken(token) is not None:
                self._events.append(BadResponse(token, SECTION, str(error)))

    def _answered(self, token: int, body: ch.Body) -> Any:
        """What the server has answered; None where that is no answer, which is told. Raises: RemoteProtocolError where
        it says that the session is over."""
        answer: Any = s.ServiceFault(work.EMPTY_HEADER)  # taken back by the server
        if body.kind != b"":
            answer = self._decoded(token, body.data)
        if answer is not None:
            status = answer.header.result
            if status in _ENDED and self.established:
                raise RemoteProtocolError(f"the server has ended the session with 0x{status:08X}", section=SECTION)
        return answer

    def _called(self, uri: str, url: str) -> None:
        """A server has opened the connection. Who it says that it is only spares us one that is certainly another; its
        certificate is judged as ever. Its URL goes back to it, and nowhere else."""
        wanted = self._wanted[0]
        if wanted and uri != wanted:
            raise RemoteProtocolError(
                f"a server that calls itself {uri[:256]!r} has connected, and the policy has {wanted!r}",
                section="OPC 10000-6, 7.1.2.6",
            )
        self.url = url or self.url
        self._output.append(self.channel.hello(self.url))

    def _decoded(self, token: int, data: bytes) -> Any:
        try:
            answer = wire.decode(data, request=False)
            if not hasattr(answer, "header") or not isinstance(answer.header, s.ResponseHeader):
                raise Malformed("no response")
        except Malformed as error:
            if not token or not self.established:
                raise
            if self._taken(token) is not None:
                self._events.append(BadResponse(token, SECTION, str(error)))
            return None
        return answer

    # --- publishing -------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Keeps as many Publish requests at the server as there should be."""
        while self.watches.subscriptions and len(self._publish_ids) < PUBLISHES:
            number = self._new_id()
            self._publish_ids.add(number)
            request = s.PublishRequest(self.header(0), self.watches.take_acknowledged())
            self._output.append(self.channel.send(number, wire.encode(request)))

    def _published(self, body: ch.Body) -> None:
        answer = wire.decode(body.data, request=False)
        if isinstance(answer, s.PublishResponse):
            self.watches.published(answer)
        elif isinstance(answer, s.ServiceFault):
            status = answer.header.result
            if status in _ENDED:
                raise RemoteProtocolError(f"the server has ended the session with 0x{status:08X}", section=SECTION)
            if status == 0x80790000:  # no subscription: what stood on one is over
                self.watches.all_over("the server knows no subscription of ours")
            elif status != 0x80780000:  # too many Publish requests: there are enough
                raise RemoteProtocolError(f"Publish was answered with 0x{status:08X}", section=SECTION)
            return
        else:
            raise Malformed("no answer to Publish")
        self.publish()

    def news(self, standing: int, message: m.Changed | m.Happened, also: tuple[int, ...] = ()) -> None:
        """A watch has news, and others that share its item."""
        self._events.append(NoticeReceived(standing, message, also))

    def over(self, standing: int, why: str) -> None:
        """A watch stands no longer."""
        self._events.append(Over(standing, why))

    # --- the beginning ----------------------------------------------------------------------------------------------

    def is_up(self, uris: tuple[str, ...]) -> None:
        """The handshake is over."""
        self.namespaces = Namespaces(uris)
        self.established = True
        self._alive_at = self._now + ALIVE_NS
        self._events.append(Established())

    def is_alive(self) -> None:
        """The server has answered a sign of life."""
        self._alive = False

    def renewed(self) -> None:
        """A new token is agreed on."""
        self._renewing = False

    def fail(self, error: RemoteProtocolError) -> None:
        """The connection has to end."""
        self._error = error

    def _judge(self, certificate: bytes, policy: Policy) -> Any:
        if self.facing is None or self.facing.common is None:
            raise ch.Fault("no certificates are known here", ch.BAD_SECURITY)
        return self.facing.common.judge(certificate, policy, self.wall(), *self._wanted)

    @property
    def _wanted(self) -> tuple[str, bool]:
        """What the policy says of the server's certificate: the ApplicationUri, whether a revocation list is needed."""
        security = None if self.asset is None else self.asset.security
        return ("", False) if security is None else (security.server, security.revocation)


def _security(asset: Asset | None) -> tuple[Policy, int]:
    word = "none" if asset is None or asset.security is None else asset.security.asset
    name, _, mode = word.partition(" ")
    if name == "none":
        return POLICIES["None"], 1
    return POLICIES[name], 2 if mode == "sign" else 3


def _structures(asset: Asset | None) -> dict[str, tuple[str, int]]:
    """By node: the encoding and the most bytes of structures that may cross as they are."""
    points = () if asset is None else asset.points
    return {
        point.at.name: (point.structure, point.max_length or 0)
        for point in points if point.structure and isinstance(point.at, Item)
    }  # fmt: skip


def _host(asset: Asset) -> str:
    return f"[{asset.address}]" if ":" in asset.address else asset.address
