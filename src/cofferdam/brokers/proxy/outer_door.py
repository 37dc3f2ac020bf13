"""The door of an outer half: who may come in, what it is told of, and when it has to go.

Places are shared by principal, as far as clients have one: when all are taken, who has the most loses its idlest
connection to who has less, so that no principal, from however many addresses, keeps another out. Not here: what clients
ask (outer).
"""

from __future__ import annotations

import abc
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.admission import TOO_FAST, Admission
from cofferdam.brokers.kit.budget import LogBudget, network, share_of
from cofferdam.brokers.kit.limit_notes import LimitNotes
from cofferdam.brokers.kit.refusals import RefusalLog
from cofferdam.brokers.kit.seam import Come
from cofferdam.brokers.kit.seam_ends import BackOuter, SeamTransport
from cofferdam.brokers.kit.supervision import Listener, SessionStatus
from cofferdam.brokers.kit.transport import Transport
from cofferdam.brokers.proxy.clients import (
    Client,
    ClientSession,
    Pace,
    Pending,
    Turns,
    closed,
    counted,
    forget_full,
    identified,
    opened,
    statuses,
)
from cofferdam.brokers.proxy.face import Face, shown_by
from cofferdam.brokers.proxy.kept import Keeping
from cofferdam.brokers.proxy.outer_calls import Calls
from cofferdam.brokers.proxy.outer_datagrams import ClientDatagrams
from cofferdam.brokers.proxy.outer_standing import Standings
from cofferdam.brokers.proxy.records import (
    Closed,
)
from cofferdam.brokers.proxy.stats import FlowStats
from cofferdam.crossing.channel import Sender
from cofferdam.limits import Limits
from cofferdam.model import NOBODY, Asset, Deny, Fault, Operation, Shown
from cofferdam.policy.points.decide import Flow
from cofferdam.policy.rows import BY_JUMP
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.base import Identified
from cofferdam.protocols.registry import PROTOCOLS, Protocols

FULL_NS = 60_000_000_000
"""For so long after somebody had to give a place up, or was turned away, an alarm stands."""


class Door(Part):
    """What the outer half has of its clients' coming and going."""

    def __init__(self, setting: Setting, protocols: Protocols = PROTOCOLS) -> None:
        super().__init__(setting)
        self.urgent = setting.policy.urgent(setting.broker, setting.policy.conduits)
        self.crew = setting.crew
        self.broker = setting.broker
        self.protocol = protocols[setting.broker]
        self._common = self.protocol.common(setting.secrets)
        self._speaks = self.protocol.speaks
        self._has_watches = self.protocol.notice_type is not None
        self._repeats = self.protocol.repeats
        self.clients: set[Client] = set()
        self.stats = FlowStats()
        self.faults = self.stats.faults
        self._boot = setting.boot
        self._zones, self._other_zone = setting.zones
        self._inner = setting.senders["inner"]
        self._keeping = Keeping(self._inner)
        self._audit = setting.audit
        self._wall = setting.wall
        self._clock = setting.clock
        self._reactor = setting.reactor
        self._next = 0
        self._pending: dict[int, Pending] = {}
        self._sessions: dict[int, tuple[Client, ClientSession]] = {}
        self._paces: dict[str, Pace] = {}  # by group (clients)
        self._of_source: dict[str, int] = {}  # connections by share
        self._turns = Turns(setting.reactor, self._go_on)
        self._admission = Admission()
        self._hasty: set[str] = set()  # who was turned away unlooked at since the last tick
        self._budget = LogBudget(setting.audit)
        self._blocked: set[Client] = set()
        self._to_tend: dict[Client, None] = {}
        self._limit_notes = LimitNotes(setting.audit, self.limit_hits)
        self.stopping = False
        self.severed = setting.severed
        self._standings = Standings(self._inner, self._write, self._internal, self.protocol, setting.reactor)
        self._inner.on_room = self._on_room
        self._datagrams: ClientDatagrams | None = None
        if self.protocol.dialect.datagrams:
            self._datagrams = ClientDatagrams(
                setting.reactor, self.clients, self._standings, self._inner, self.limit_hits,
                self.protocol.dialect.datagrams, self._accept_alone, self._tend,
            )  # fmt: skip
        self._calls = Calls(setting.dial, self._take_in, self.close, self.clients, setting.clock)
        self._full = (0, "")  # when all places were taken last, and by whom most
        self._turned = (0, "")  # when somebody whom the policy knows was turned away last, and who by which limit
        self._seams: dict[tuple[str, int], BackOuter] = {}
        self._securing: Any = None
        if any(asset.tls is not None and asset.tls.clients for asset in setting.policy.assets.values()):
            from cofferdam.brokers.proxy.securing import Securing  # most halves need no TLS

            self._securing = Securing(setting.secrets, True)
        self._take(setting.policy, setting.assets)

    # --- policy and the operator's hand -----------------------------------------------------------------------

    def _take(self, policy: CompiledPolicy, assets: Iterable[str]) -> None:
        self.policy = policy
        self.limits: Limits = policy.limits
        # Asked for each request, and so kept where that is quick.
        self._most_outstanding = policy.limits.client_outstanding
        self._most_unsent = policy.limits.client_unsent_bytes
        self._rate = policy.limits.client_requests_per_second * 1e-9
        self._burst = float(policy.limits.client_requests_burst)
        self._turns.rate, self._turns.burst = self._rate, self._burst
        self._longest_wait = int(policy.limits.client_wait_seconds * 1e9)
        self._own_side = str(policy.zones[self._zones[0]].side)
        self._other_side = str(policy.zones[self._other_zone].side)
        self._by_listener: dict[tuple[str, int], dict[int, Asset]] = {}
        for name in assets:
            asset = policy.assets[name]
            for place in asset.places:
                self._by_listener.setdefault(place, {})[asset.unit] = asset
        self._calls.take(policy.assets[name] for name in assets)
        if self._datagrams is not None:
            streams = [stream for name in assets for stream in policy.assets[name].streams]
            self._datagrams.groups = frozenset(stream.group for stream in streams if stream.group)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        """Judges by another policy from now on. Returns how many sessions it ended."""
        self._take(policy, assets)
        ended = 0
        for client in list(self.clients):
            secured = self._in_tls(self._by_listener.get(client.place, client.assets))
            lost = not client.lent and client.transport.secure != secured
            for session in client.sessions.values():
                flow: Flow | Deny
                if session.asset not in policy.assets:
                    flow = Deny("", "", Fault.ASSET, f"the asset {session.asset} is not in the policy any more")
                else:
                    flow = policy.flow(self.broker, client.source, session.asset, self._zones, client.shown)
                if isinstance(flow, Deny) and isinstance(session.flow, Flow):
                    lost = True
                session.judge_by(flow)
            self._regroup(client, policy.principals_of(client.source, self._zones, client.shown))
            # Where several units answer, what the machine needs to know is the same of all.
            one = client.only.asset if client.only is not None else next(iter(client.assets.values())).name
            if one in policy.assets:
                client.machine.take_asset(policy.assets[one])
            if lost:
                ended += 1
                self.close(client, "the new policy does not allow this session")
        return ended

    def take_secrets(self, secrets: Mapping[str, bytes]) -> None:
        if self._securing is not None:
            self._securing.take(secrets)

    def _in_tls(self, assets: Mapping[int, Asset]) -> bool:
        """Whether clients have to use TLS for what answers at a place: where one of several units asks for it."""
        return any(asset.tls is not None and asset.tls.clients for asset in assets.values())

    def _secured(self, client: Client, transport: Transport) -> None:
        """A client has shown its certificate."""
        if client in self.clients:
            self._identified(client, self._securing.shown(transport))

    def set_severed(self, sides: Collection[str]) -> None:
        """Cuts sides off. Clients of a severed side are ended; requests to a severed side are refused."""
        self.severed = frozenset(sides)
        if self._own_side in self.severed:
            for client in list(self.clients):
                self.close(client, f"the {self._own_side} side was severed")

    def command(self, asked: Asked) -> None:
        asked.answer(self.protocol.command(self._common, asked.verb, asked.arguments))

    def serve_datagrams(self, sock: socket.socket, listener: Listener) -> None:
        if self._datagrams is not None:
            self._datagrams.serve(sock, listener)

    def end_datagrams(self, sock: socket.socket) -> None:
        if self._datagrams is not None:
            self._datagrams.end(sock)

    def end_sessions(self, sessions: Collection[str], reason: str) -> None:
        """Ends the connections that hold these sessions."""
        wanted = set(sessions)
        for client in list(self.clients):
            if any(session.name in wanted for session in client.sessions.values()):
                self.close(client, reason)

    # --- connections ------------------------------------------------------------------------------------------

    def is_hasty(self, source: str) -> bool:
        if not self._admission.is_hasty(network(source), self.limits, self._clock()):
            return False
        if source not in self._hasty:  # to look up who it is takes longer than all the rest
            self._hasty.add(source)
            principals = self.policy.principals_of(source, self._zones, None)
            if principals:
                self._tell_turned(" ".join(principals), source, TOO_FAST)
        self._limit(TOO_FAST[0], source, TOO_FAST[1])
        return True

    def _tell_turned(self, group: str, source: str, limit: tuple[str, str]) -> None:
        """Somebody whom the policy knows was turned away: for a while there is an alarm."""
        self._turned = (self._clock(), f"{group} at {source}: {limit[0]}, {limit[1]}")

    def accept(self, transport: Transport, source: str, port: int, local: tuple[str, int]) -> None:
        """A client has connected to a listener bound to, or reached at, `local`."""
        self._take_in(transport, source, port, local)

    def _accept_alone(self, transport: Transport, source: str, port: int, local: tuple[str, int]) -> Client | None:
        return self._take_in(transport, source, port, local, alone=True)

    def join(self, place: tuple[str, int], sender: Sender[Any]) -> Callable[[Any], None]:
        def serve(transport: SeamTransport, come: Come) -> None:
            self._take_in(transport, BY_JUMP + come.conduit, come.port, place, lent=come)

        back = self._seams[place] = BackOuter(sender, serve)
        return back.take

    def leave(self, place: tuple[str, int]) -> None:
        self._seams.pop(place).end("the broker that brought it is gone")

    def _take_in(
        self, transport: Transport, source: str, port: int, local: tuple[str, int], *, alone: bool = False,
        dialled: bool = False, lent: Come | None = None,
    ) -> Client | None:  # fmt: skip
        limits = self.limits
        if self.stopping or self._own_side in self.severed:
            self._turn_away(transport, source, "severed", f"the {self._own_side} side is severed")
            return None
        everywhere = ("::" if ":" in local[0] else "0.0.0.0", local[1])  # noqa: S104 - looked up, not bound to
        assets = self._by_listener.get(local) or self._by_listener.get(everywhere)
        if assets is None:
            self._turn_away(transport, source, "listener", f"no asset is published at {local[0]}:{local[1]}")
            return None
        now = self._clock()
        share = network(source) if lent is None else share_of(source, lent.person)
        too_much = self._admission.too_fast(share, limits, now)
        shown = NOBODY if lent is None else Shown(lent.person)
        principals = self.policy.principals_of(source, self._zones, None)
        stranger = not principals
        group = (" ".join(principals) if lent is None else "") or share
        if too_much is None:
            of_source = self._of_source.get(share, 0)
            count = len(self.clients)
            if count >= limits.client_connections and not stranger and self._make_room(group, now):
                count -= 1
            too_much = self._admission.no_room(share, stranger, limits, count, of_source)
        if too_much is not None:
            if not stranger:
                self._tell_turned(group, source, too_much)
            self._turn_away(transport, source, *too_much)
            return None
        holder: list[Client] = []
        if self._in_tls(assets) and lent is None:
            secure = None
            if self._securing is not None:
                secure = self._securing.serve(transport, lambda: self._secured(holder[0], holder[0].transport))
            if secure is None:
                self._turn_away(transport, source, "tls", "TLS is asked for, and the gate has no certificate to show")
                return None
            transport = secure
        pace = self._pace_of(group, now)
        self._of_source[share] = self._of_source.get(share, 0) + 1
        first = next(iter(assets.values()))
        face = Face(self._would)
        facing = face.facing(self._common, first, self._wall, source, local, alone=alone, dialled=dialled)
        client = face.client = Client(transport, self.protocol.server_facing(facing), source, port, pace)
        client.face = face
        holder.append(client)
        client.share, client.group = share, group
        client.shown, client.lent = shown, "" if lent is None else lent.session
        client.assets, client.local, client.place = (
            assets,
            local[0],
            local if local in self._by_listener else everywhere,
        )
        client.last = now
        client.opened_wall = self._wall()
        client.stranger = stranger
        self._admission.opened(share, stranger)
        self.clients.add(client)
        transport.on_data = lambda data: self._on_data(client, data)
        transport.on_closed = lambda reason: self._forget(client, reason)
        if not self._speaks and not transport.secure:
            transport.on_end = lambda: self._ended(client)
        # Where several units answer, a session with one begins when it is asked; until then the connection stands for
        # itself, so that one that asks nothing is told of once.
        session = self._open_session(client, first.name if len(assets) == 1 else "")
        client.only = session if len(assets) == 1 else None
        if self._speaks:
            client.machine.on_time(now)
            self._tend(client)
        return client

    def _open_session(self, client: Client, asset: str) -> ClientSession:
        self._next += 1
        number = self._next
        flow: Flow | Deny = Deny("", "", Fault.ASSET, "no unit was asked")
        if asset:
            flow = self.policy.flow(self.broker, client.source, asset, self._zones, client.shown)
        session = ClientSession(number, f"{self._boot}-{number}", asset, flow)
        session.refusals = RefusalLog(
            self._audit, self._budget, session.name, client.source, client.stranger, asset, client.share
        )
        session.told = self._budget.spend(client.share, client.stranger, self._wall())
        client.sessions[asset] = session
        self._sessions[number] = (client, session)
        if session.told:
            self._audit.note(opened(client, session, self.crew, self._wall()))
        if client.lent:
            session.named = True  # who it is says the inner half, which knows
        return session

    def _identified(self, client: Client, event: Identified) -> None:
        """A client has shown who it is, and is judged as that from now on."""
        shown = shown_by(event)
        if client.lent:  # it has signed in with the gate, and is nobody else by what it says besides
            shown = msgspec.structs.replace(shown, user=client.shown.user)
        if shown == client.shown:
            return
        client.shown = shown
        principals = self.policy.principals_of(client.source, self._zones, client.shown)
        self._regroup(client, principals)
        for session in client.sessions.values():
            if session.announced:
                self.close(client, "the client shows to be somebody else")
                return
            if session.asset:
                flow = self.policy.flow(self.broker, client.source, session.asset, self._zones, client.shown)
                session.judge_by(flow)
            session.named = False
            if session.told and self._budget.spend(client.share, client.stranger, self._wall()):
                self._tell_identity(client, session)

    def _pace_of(self, group: str, now: int) -> Pace:
        """How fast the principals, or the address that is nobody's, may ask: whatever connection it is by. One more
        connection has it from now on."""
        pace = self._paces.get(group)
        if pace is None:
            pace = self._paces[group] = Pace(self._burst, now)
        pace.connections += 1
        return pace

    def _regroup(self, client: Client, principals: tuple[str, ...]) -> None:
        """A client counts as these principals from now on. A turn that it waits for is still that of its old ones."""
        group = (" ".join(principals) if not client.lent else "") or client.share
        if group != client.group:
            client.group = group
            client.pace.connections -= 1
            client.pace = self._pace_of(group, self._clock())

    def _tell_identity(self, client: Client, session: ClientSession) -> None:
        """Has the log say who a client has shown to be, if it has shown anything."""
        session.named = True
        if client.shown != NOBODY:
            principals = self.policy.principals_of(client.source, self._zones, client.shown)
            self._audit.note(identified(client, session, principals, self._wall()))

    def _make_room(self, group: str, now: int) -> bool:
        """All places are taken: has the principals that have the most give one up, if they have more than these would
        have. The connection that goes is the one that has asked nothing for the longest time."""
        counts: dict[str, int] = {}
        for client in self.clients:
            if not client.stranger:
                counts[client.group] = counts.get(client.group, 0) + 1
        greedy = max(counts, key=counts.__getitem__, default="")
        if not greedy or counts[greedy] <= counts.get(group, 0) + 1:
            return False
        theirs = [client for client in self.clients if client.group == greedy and not client.stranger]
        idlest = min(theirs, key=lambda client: (client.outstanding + len(client.standing) > 0, client.last))
        self._full = (now, greedy)
        self._limit("client_connections", idlest.source, f"{greedy} had the most connections and gave one up")
        self.close(idlest, "its place was needed for others, who have fewer")
        return True

    def alarms(self) -> dict[str, str]:
        found = self.protocol.alarms(self._common, self._wall()) | self._standings.times.alarms(self._clock())
        said = "" if self._securing is None else self._securing.alarm(self._wall())
        if self._securing is None and any(self._in_tls(assets) for assets in self._by_listener.values()):
            said = "this half was started without TLS: restart the gate"
        if said:
            found = found | {"tls-clients": f"clients by TLS: {said}"[:512]}
        since, who = self._turned
        if who and self._clock() - since <= FULL_NS:
            found = found | {"clients-turned-away": f"connections of {who}"[:512]}
        since, greedy = self._full
        if not greedy or self._clock() - since > FULL_NS:
            return found
        return found | {"connections-full": f"all places for clients are taken, most of them by {greedy}"[:512]}

    def _is_known(self, source: str) -> bool:
        """Whether some principal comes from this address, as far as addresses tell."""
        return bool(self.policy.principals_of(source, self._zones, None))

    def _turn_away(self, transport: Transport, source: str, limit: str, detail: str) -> None:
        transport.close()
        self._limit(limit, source, detail)

    def _limit(self, limit: str, source: str, detail: str) -> None:
        self._limit_notes.add(limit, source, detail, self._wall())

    def close(self, client: Client, reason: str) -> None:
        """Ends one connection, with the reason for the audit log."""
        client.transport.close()
        self._forget(client, reason)

    def _forget(self, client: Client, reason: str) -> None:
        if client not in self.clients:
            return
        self.clients.discard(client)
        client.machine.gone()
        client.transport.deafen()
        if client.face is not None:
            client.face.turn_away()
        if client.standing:
            self._standings.forget(client)
        if client.timer is not None:
            client.timer.cancel()
        client.pace.connections -= 1  # the rest of it is forgotten by `tick`, when it is full again
        left = self._of_source[client.share] - 1
        if left:
            self._of_source[client.share] = left
        else:
            del self._of_source[client.share]
        self._admission.closed(client.share, client.stranger)
        wall = self._wall()
        for session in client.sessions.values():
            self._sessions.pop(session.id, None)
            if session.refusals is not None:
                session.refusals.flush(wall)
            if session.announced:
                self._inner.send(Closed(session.id))
            if not session.told:
                continue  # it stands in a count (log_entries), like its opening
            self._audit.note(closed(client, session, reason, wall))

    # --- time -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """To be called about twice a second: closes what is idle or dawdles, and writes what was counted."""
        now = self._clock()
        wall = self._wall()
        limits = self.limits
        idle_ns = int(limits.client_idle_seconds * 1e9)
        stranger_ns = int(min(limits.client_idle_seconds, limits.stranger_idle_seconds) * 1e9)
        frame_ns = int(limits.client_frame_seconds * 1e9)
        for client in list(self.clients):
            if client.ended and not client.in_line:
                self._on_ended(client)
                if client not in self.clients:
                    continue
            if client.frame_since and now - client.frame_since > frame_ns:
                self._limit("client_frame_seconds", client.source, "a frame that was begun was not completed in time")
                self.close(client, "a frame that was begun was not completed in time")
            elif (
                not client.outstanding
                and not client.standing
                and now - client.last > (stranger_ns if client.stranger else idle_ns)
            ):
                self._limit("client_idle_seconds", client.source, "no complete request for too long")
                self.close(client, "idle for too long")
            else:
                for session in client.sessions.values():
                    if session.refusals is not None:
                        session.refusals.tick(wall)
        if self._calls.wanted and not self.stopping and self._own_side not in self.severed:
            self._calls.tick(self._is_known)
        self._limit_notes.tick(now, wall)
        self._budget.tick(wall)
        self._hasty.clear()
        forget_full(self._paces, now, self._rate, self._burst)
        self._admission.tick(limits, now)

    def end(self) -> None:
        for client in list(self.clients):
            self.close(client, "the gate stops")
        wall = self._wall()
        self._limit_notes.tell(wall)
        self._budget.tell(wall)

    def stop(self) -> None:
        """Takes no new connections and ends those that wait for nothing."""
        self.stopping = True
        for client in list(self.clients):
            if not client.outstanding:
                self.close(client, "the gate stops")

    def open_sessions(self) -> dict[str, int]:
        return counted(self.clients)

    def sessions(self) -> tuple[SessionStatus, ...]:
        return statuses(self.clients, self._wall() - self._clock())

    # --- what a request becomes (outer) --------------------------------------------------------------------------

    @abc.abstractmethod
    def _on_data(self, client: Client, data: bytes) -> None:
        """Bytes from a client."""

    @abc.abstractmethod
    def _go_on(self, client: Client) -> None:
        """Its turn has come."""

    @abc.abstractmethod
    def _ended(self, client: Client) -> bool:
        """A client sends no more. Whether it is still to be answered."""

    @abc.abstractmethod
    def _on_ended(self, client: Client) -> None:
        """Such a client is looked at again."""

    @abc.abstractmethod
    def _on_room(self) -> None:
        """The crossing takes records again."""

    @abc.abstractmethod
    def _write(self, client: Client, data: bytes) -> None:
        """Bytes to a client."""

    @abc.abstractmethod
    def _tend(self, client: Client) -> bool:
        """Sends what its machine has to say by itself."""

    @abc.abstractmethod
    def _internal(self, client: Client, error: Exception) -> None:
        """A bug of ours has shown with this client."""

    @abc.abstractmethod
    def _would(self, client: Client, operation: Operation) -> bool:
        """Whether policy would allow the client this."""
