"""What an outer half keeps of its clients: connections, sessions, requests under way, and how fast a source may ask."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cofferdam.audit.events.access import ClientIdentified, Malformed, SessionClosed, SessionOpened
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.refusals import RefusalLog
from cofferdam.brokers.kit.supervision import SessionStatus
from cofferdam.brokers.kit.transport import Transport
from cofferdam.crossing.reactor import Reactor, Timer
from cofferdam.model import NOBODY, Asset, Deny
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import ServerMachine

TURN_NS = 1_000_000
"""Sources that wait for their turn are looked at no more often than this."""


class ClientSession:
    """One client's dealings with one asset. `flow` is what policy allows in it, or why it allows nothing."""

    __slots__ = (
        "announced",
        "asset",
        "flow",
        "id",
        "name",
        "named",
        "refusals",
        "refused",
        "requests",
        "silent",
        "told",
        "writes",
    )

    def __init__(self, number: int, name: str, asset: str, flow: Flow | Deny) -> None:
        self.id = number
        self.name = name
        self.named = True  # the log knows who the client has shown to be
        self.asset = asset
        self.refusals: RefusalLog | None = None
        self.announced = False
        self.told = False  # its opening is in the log
        self.requests = 0
        self.refused = 0
        self.writes = 0
        self.judge_by(flow)

    def judge_by(self, flow: Flow | Deny) -> None:
        """Takes the flow of the policy in force."""
        self.flow = flow
        self.silent = isinstance(flow, Flow) and flow.silent


class Client:
    """One connection from a client."""

    __slots__ = (
        "assets",
        "blocked",
        "bytes_in",
        "bytes_out",
        "due",
        "ended",
        "face",
        "frame_since",
        "group",
        "held_since",
        "in_line",
        "last",
        "lent",
        "local",
        "machine",
        "malformed",
        "only",
        "opened_wall",
        "outstanding",
        "pace",
        "place",
        "port",
        "refused",
        "requests",
        "resumed",
        "sessions",
        "share",
        "shown",
        "since",
        "source",
        "standing",
        "stranger",
        "timer",
        "transport",
    )  # fmt: skip

    def __init__(
        self, transport: Transport, machine: ServerMachine[Any, Any], source: str, port: int, pace: Pace
    ) -> None:
        self.transport: Transport = transport
        self.machine = machine
        self.source = source
        self.port = port
        self.face: Any = None  # what its machine knows of where it stands (face)
        self.local = ""  # the address of ours to which it has connected
        self.place = ("", 0)  # the listener
        self.assets: dict[int, Asset] = {}  # by unit; -1: any unit
        self.sessions: dict[str, ClientSession] = {}  # by asset
        self.only: ClientSession | None = None  # where a single asset answers at the listener, which is the rule
        self.pace = pace
        self.outstanding = 0
        self.blocked = False  # nothing more is read from it
        self.ended = False  # it has closed its sending half, and waits for its answers; it is `blocked`, too
        self.in_line = False  # it waits for its source's next turn
        self.held_since = 0  # since when bytes may lie in its socket unread (monotonic ns); 0: none do
        self.resumed = 0  # when reading was taken up again; 0: what had lain there is still being read
        self.since = 0  # what was read last came no earlier than this
        self.requests = 0
        self.refused = 0
        self.malformed = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.last = 0
        self.opened_wall = 0
        self.frame_since = 0
        self.stranger = False  # no principal stands for its address
        self.shown = NOBODY
        self.lent = ""  # the session of another broker by which it has come
        self.share = source  # the network that counts as one source
        self.group = source  # whom it comes from: principals, or that network
        self.standing: dict[int, int] = {}  # watches and streams: token of the request -> handle
        self.due = 0  # when its machine wants to be told the time
        self.timer: Timer | None = None


def opened(client: Client, session: ClientSession, crew: str, wall: int) -> SessionOpened:
    """What the log is told of a session's beginning. `wall`: UTC ns."""
    flow = session.flow
    return SessionOpened(
        wall_ns=wall,
        session=session.name,
        half=f"{crew}/outer",
        source=client.source,
        source_port=client.port,
        asset=session.asset,
        principals=flow.principals[:16] if isinstance(flow, Flow) else (),
        conduits=flow.conduits[:16] if isinstance(flow, Flow) else (),
    )


def identified(client: Client, session: ClientSession, principals: tuple[str, ...], wall: int) -> ClientIdentified:
    """What the log is told of who a client has shown to be. `wall`: UTC ns."""
    shown = client.shown
    return ClientIdentified(
        wall_ns=wall,
        session=session.name,
        source=client.source,
        user=shown.user,
        application=shown.application,
        certificate=shown.certificate,
        principals=principals[:16],
    )


def closed(client: Client, session: ClientSession, reason: str, wall: int) -> SessionClosed:
    """What the log is told of its end."""
    return SessionClosed(
        wall_ns=wall,
        session=session.name,
        reason=clip(reason),
        requests=session.requests,
        refused=session.refused,
        malformed=client.malformed,
        writes=session.writes,
        bytes_in=client.bytes_in,
        bytes_out=client.bytes_out,
        opened_ns=client.opened_wall,
    )


def counted(clients: Iterable[Client]) -> dict[str, int]:
    """How many sessions these clients have, by asset."""
    counts: dict[str, int] = {}
    for client in clients:
        for asset in client.sessions:
            counts[asset] = counts.get(asset, 0) + 1
    return counts


def statuses(clients: Iterable[Client], offset: int) -> tuple[SessionStatus, ...]:
    """What `status` shows of these clients. `offset`: from monotonic ns to UTC ns."""
    return tuple(
        SessionStatus(
            session=session.name,
            asset=session.asset,
            source=client.source,
            port=client.port,
            principals=session.flow.principals if isinstance(session.flow, Flow) else (),
            since=client.opened_wall,
            requests=session.requests,
            refused=session.refused,
            last=max(0, client.last + offset),
        )
        for client in clients
        for session in client.sessions.values()
    )


def malformed(client: Client, section: str, detail: str, wall: int) -> Malformed:
    """What the log is told of what breaks the protocol."""
    return Malformed(
        wall_ns=wall,
        session=next(iter(client.sessions.values())).name if client.sessions else "",
        source=client.source,
        section=clip(section),
        detail=clip(detail),
    )


class Pending:
    """A request that is with the inner half. `began`: monotonic ns."""

    __slots__ = ("began", "client", "conduit", "is_write", "request", "session", "token")

    def __init__(
        self, client: Client, session: ClientSession, token: int, request: Any, conduit: str, is_write: bool, began: int
    ) -> None:
        self.client = client
        self.session = session
        self.token = token
        self.request = request
        self.conduit = conduit
        self.is_write = is_write
        self.began = began


class Pace:
    """What the principals that a client stands for may ask, or an address that is nobody's: a token bucket of requests,
    and the connections that wait for more."""

    __slots__ = ("at", "connections", "line", "tokens")

    def __init__(self, burst: float, now: int) -> None:
        self.tokens = burst
        self.at = now
        self.connections = 0
        self.line: deque[Client] = deque()

    def fill(self, now: int, rate: float, burst: float) -> None:
        """Adds the tokens that have come since the last time. `rate` is per ns."""
        tokens = self.tokens + (now - self.at) * rate
        self.at = now
        self.tokens = tokens if tokens < burst else burst

    def due(self, rate: float) -> int:
        """When there will be a token (monotonic ns)."""
        return self.at + int(max(0.0, 1.0 - self.tokens) / rate)


def forget_full(paces: dict[str, Pace], now: int, rate: float, burst: float) -> None:
    """Drops what says nothing any more: those without connections, that may ask as much as anybody."""
    for group, pace in list(paces.items()):
        if not pace.connections:
            pace.fill(now, rate, burst)
            if pace.tokens >= burst:
                del paces[group]


class Turns:
    """The connections that wait until their principals may ask more. Those of the same principals take turns, in the
    order in which they came; `go_on` is called with the one whose turn it is, and may have it wait again. `rate` (per
    ns) and `burst` are the policy's, set by the owner."""

    def __init__(self, reactor: Reactor, go_on: Callable[[Client], None]) -> None:
        self._reactor = reactor
        self._go_on = go_on
        self.rate = 0.0
        self.burst = 0.0
        self._waiting: dict[Pace, None] = {}  # in the order in which they came
        self._timer: Timer | None = None

    def wait(self, client: Client) -> None:
        """It has asked, or others of its principals have, as much as they may for now."""
        client.in_line = True
        client.pace.line.append(client)
        self._waiting[client.pace] = None
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            due = min(pace.due(self.rate) for pace in self._waiting)
            self._timer = self._reactor.call_at(max(due, self._reactor.now + TURN_NS), self._take)

    def _take(self) -> None:
        self._timer = None
        now = self._reactor.now
        for pace in list(self._waiting):
            pace.fill(now, self.rate, self.burst)
            while pace.line and pace.tokens >= 1.0:
                client = pace.line.popleft()
                client.in_line = False
                self._go_on(client)
            if not pace.line:
                del self._waiting[pace]
        self._arm()
