"""The jump server's outer part: SSH with people, and nothing that would let anybody in.

It has no host key, no account, no asset's address or name, and no store. It says what it sees, to the keeper, and moves
the data of sessions that have a grant, to and from the inner part.

While the keeper is away nobody signs in and no session begins, and whoever asks is told so; those that there are go on.

Not here: SSH (outer_ssh), channels (outer_session), what the next keeper makes of what it is told (resuming).
"""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import Callable, Collection
from typing import Any, Final, Literal

import asyncssh
from asyncssh.constants import OPEN_RESOURCE_SHORTAGE
from asyncssh.misc import ChannelOpenError

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.jump import TunnelRefused
from cofferdam.brokers.broker import Part, Setting, boot_of
from cofferdam.brokers.jump import records, standing_records
from cofferdam.brokers.jump.alone import alone, unswallowed
from cofferdam.brokers.jump.outer_files import Front
from cofferdam.brokers.jump.outer_port import Front as SeamFront
from cofferdam.brokers.jump.outer_port import Port
from cofferdam.brokers.jump.outer_scp import Scp
from cofferdam.brokers.jump.outer_session import AssetSession
from cofferdam.brokers.jump.outer_ssh import ChannelTransport, GateConnection, options
from cofferdam.brokers.jump.records import KEY_BYTES, Closed, Verdict
from cofferdam.brokers.jump.turns import Turns
from cofferdam.brokers.kit import aio
from cofferdam.brokers.kit.counted import Counted
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.kit.limit_notes import LimitNotes
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CrossingError, LocalProtocolError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import JumpRows

CONNECTIONS_MOST: Final = 1_000
NESTED_MOST: Final = 3_000
"""Connections, nested ones with them: less than the keeper takes."""
CONNECTIONS_OF_ADDRESS: Final = 100
UNSIGNED_OF_ADDRESS: Final = 20
"""Connections of one address that have not signed in."""
AWAY: Final = "the gate's keeper is away: nobody signs in and nothing begins until it is back; try again in a moment"
BACK: Final = "the gate's keeper has come again: connect once more"


class Outer(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        alone()
        self._setting = setting
        self._loop = asyncio.get_event_loop()
        if setting.start is None:
            raise LocalProtocolError("the outer part of the jump server needs a loop with tasks")
        self._start = setting.start
        self._keeper = setting.senders["keeper"]
        self._inner = setting.senders["inner"]
        self._options: asyncssh.SSHServerConnectionOptions | None = None
        self.in_turn = Turns(self._loop).add
        self._places = aio.Places(CONNECTIONS_MOST, CONNECTIONS_OF_ADDRESS)
        self._notes = LimitNotes(setting.audit, self.limit_hits)
        self._tunnels = Counted(setting.audit, ("connection",))
        self.connections: dict[int, GateConnection] = {}
        self._sessions: dict[int, AssetSession | Port] = {}
        self._seams: dict[tuple[str, int], SeamFront] = {}
        self._fronts: dict[int, Front | Scp] = {}
        self._channels: dict[AssetSession | Port, GateConnection] = {}
        self._waiting: dict[int, asyncio.Future[Verdict]] = {}
        self._asked: dict[int, AssetSession] = {}
        self._watchers: dict[int, AssetSession] = {}
        self._last_connection = self._last_session = 0
        self._refused_tunnels = 0
        self._stopping = False
        self._away = False
        self._boot = setting.boot
        self._severed = False
        self._work_by(setting.policy)
        self.set_severed(setting.severed)

    # --- the gate -----------------------------------------------------------------------------------------------------

    def _work_by(self, policy: CompiledPolicy) -> None:
        self._policy = policy
        rows = [each.terms for each in policy.conduits.values() if isinstance(each.terms, JumpRows)]
        self._clients = {name for row in rows for name in row.clients}
        self._notice = next((row.notice for row in rows if row.notice), "")
        self._sides = {policy.zones[row.outer].side for row in rows}
        self.certificates = any(row.certificates for row in rows)

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._work_by(policy)
        gone = [one for one in self.connections.values() if one.parent is None and not self._known(one.source)]
        for connection in gone:
            connection.drop("the policy does not know you any more")
        return len(gone)

    def _known(self, source: str) -> bool:
        return not self._clients.isdisjoint(self._policy.principals_of(source))

    def set_severed(self, sides: Collection[str]) -> None:
        self._severed = bool(self._sides & set(sides))
        if self._severed:
            for connection in list(self.connections.values()):
                connection.drop("an operator has cut this side off")

    def away(self, other: str) -> None:
        self._away = True
        standing = self._standing()
        for session, whose in list(self._channels.items()):
            if whose in standing and session.number and not session.stands:
                session.refused(AWAY)
            elif session.is_locked:
                session.notice(AWAY)
        for watcher in list(self._watchers.values()):
            watcher.unwatch(AWAY)
        for number, asked in list(self._asked.items()):
            if self.connections.get(number) in standing:
                del self._asked[number]
                asked.told(AWAY, True)
        self._drop_but(standing, AWAY)

    def anew(self, other: str, life: int) -> None:
        self._away, self._boot = False, boot_of(self._setting.boot, life)
        standing = self._standing()
        self._drop_but(standing, BACK)
        said = tuple((connection.number, tuple(numbers)) for connection, numbers in standing.items())
        self._keeper.send(standing_records.Stands(said, self._last_connection, self._last_session))
        for connection in standing:
            if connection.unsigned:
                self.exchange(connection, connection.unsigned)

    def _standing(self) -> dict[GateConnection, list[int]]:
        """The connections that have sessions, or one within them that has, with the numbers of those."""
        found: dict[GateConnection, list[int]] = {}
        for number, session in self._sessions.items():
            whose = self._channels.get(session)
            if whose is not None and session.stands and whose.number in self.connections:
                if whose.parent is not None:
                    found.setdefault(whose.parent, [])
                found.setdefault(whose, []).append(number)
        return found

    def _drop_but(self, standing: Collection[GateConnection], reason: str) -> None:
        for connection in list(self.connections.values()):
            if connection not in standing:
                connection.drop(reason)

    def tick(self) -> None:
        now, wall = time.monotonic_ns(), self._setting.wall()
        self._notes.tick(now, wall)
        self._tunnels.tick(now, wall)

    def stop(self) -> None:
        self._stopping = True
        for connection in list(self.connections.values()):
            if not any(session.number for session in self._sessions.values()):
                connection.drop("the gate stops")

    def end(self) -> None:
        for connection in list(self.connections.values()):
            connection.drop("the gate stops")
        self._tunnels.tell(self._setting.wall())

    @property
    def busy(self) -> int:
        return len(self._sessions)

    def figures(self) -> Reported:
        return {
            "connections": {"": len(self.connections)},
            "tunnels_refused": {"": self._refused_tunnels},
        }

    # --- clients ------------------------------------------------------------------------------------------------------

    def accept_socket(self, sock: socket.socket, source: str, port: int, local: tuple[str, int]) -> None:
        if self._options is None or self._severed or self._stopping or not self._known(source):
            sock.close()
            return
        unsigned = sum(1 for one in self.connections.values() if one.source == source and not one.person)
        if unsigned >= UNSIGNED_OF_ADDRESS:
            sock.close()
            self._notes.add(
                "unsigned_of_address", source, f"more than {UNSIGNED_OF_ADDRESS} at once", self._setting.wall()
            )
            return
        if limit := self._places.take(sock, source):
            self._notes.add(limit, source, "too many connections", self._setting.wall())
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._begin(source, port, self._options)
        self._start(self._serve(sock, connection))

    async def _serve(self, sock: socket.socket, connection: GateConnection) -> None:
        try:
            await aio.serve(sock, lambda: connection)
        except OSError:
            self.lost(connection)

    def _begin(
        self, source: str, port: int, said: asyncssh.SSHServerConnectionOptions, parent: GateConnection | None = None,
        asset: str = "",
    ) -> GateConnection:  # fmt: skip
        self._last_connection += 1
        number = self._last_connection
        connection = GateConnection(self._loop, said, self, number, source, port, self._notice, parent, asset)
        connection.known_as = f"{self._boot}-c{number}"
        self.connections[number] = connection
        self._keeper.send(records.Began(number, source, port, parent.number if parent is not None else 0, asset))
        return connection

    # --- hooks of a connection ----------------------------------------------------------------------------------------

    def exchange(self, connection: GateConnection, digest: bytes) -> None:
        if self._away and not connection.person:
            self._loop.call_soon(connection.drop, AWAY)
        self._keeper.send(records.Exchange(connection.number, digest))

    async def proof(
        self, connection: GateConnection, user: str, algorithm: str, key: bytes, signature: bytes
    ) -> Verdict:
        return await self._verdict(connection, records.Proof(connection.number, user, algorithm, key, signature))

    async def answers(self, connection: GateConnection, user: str, answers: tuple[str, ...]) -> Verdict:
        return await self._verdict(connection, records.Answers(connection.number, user, answers))

    async def _verdict(self, connection: GateConnection, record: Any) -> Verdict:
        number = connection.number
        if self._away or number in self._waiting or number not in self.connections:
            return Verdict(number, "no")
        future: asyncio.Future[Verdict] = self._loop.create_future()
        self._waiting[number] = future
        self._keeper.send(record)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    def session(self, connection: GateConnection) -> AssetSession:
        session = AssetSession(_Link(self, connection))
        self._channels[session] = connection
        return session

    def nested(self, connection: GateConnection, asset: str) -> asyncssh.SSHTCPSession[bytes]:
        if self._options is None:
            raise LocalProtocolError("no host key")
        return _Nested(
            functools.partial(self._begin, connection.source, connection.port, self._options, connection, asset)
        )

    @property
    def ports(self) -> bool:
        return bool(self._seams)

    async def forwarded(self, connection: GateConnection, asset: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        if self._away:
            raise ChannelOpenError(OPEN_RESOURCE_SHORTAGE, AWAY)
        session = Port(self, connection)
        self._channels[session] = connection
        session.number = self._next_session(session)
        self._keeper.send(records.Open(connection.number, session.number, asset, "port", str(port)))
        try:
            return await session.opened()
        except BaseException:
            self.closed(session)
            raise

    def join(self, place: tuple[str, int], sender: Sender[Any]) -> Callable[[Any], None]:
        front = self._seams[place] = SeamFront(sender, self._setting.clock)
        return front.take

    def leave(self, place: tuple[str, int]) -> None:
        self._seams.pop(place).end("the gate has no way to that broker any more")

    def farewell(self, connection: GateConnection, reason: str) -> None:
        """Connections within it end first, since what they are told goes by it."""
        for nested in list(self.connections.values()):
            if nested.parent is connection:
                nested.drop(reason)
        for session, whose in list(self._channels.items()):
            if whose is connection:
                session.farewell(reason)

    def tunnel(self, connection: GateConnection, what: str, target: str) -> None:
        self._refused_tunnels += 1
        self._tunnels.add(
            TunnelRefused(
                wall_ns=self._setting.wall(), connection=connection.known_as,
                person=connection.person, source=connection.source, what=clip(what, 128), target=clip(target),
            )
        )  # fmt: skip

    def failed(self, connection: GateConnection, why: str) -> None:
        self.malformed += 1
        self._notes.add("broken_protocol", connection.source, why, self._setting.wall())

    def room(self, connection: GateConnection) -> None:
        """The client keeps up again: all its sessions go on, in nested connections as well."""
        for session, whose in list(self._channels.items()):
            if connection in (whose, whose.parent):
                session.room()

    def crowded(self) -> bool:
        return len(self.connections) >= NESTED_MOST

    def lost(self, connection: GateConnection) -> None:
        if self.connections.pop(connection.number, None) is None:
            return
        self._keeper.send(records.Gone(connection.number))
        self._asked.pop(connection.number, None)
        if (future := self._waiting.pop(connection.number, None)) is not None and not future.done():
            future.set_result(Verdict(connection.number, "no"))

    # --- hooks of a session -------------------------------------------------------------------------------------------

    def open(
        self, connection: GateConnection, session: AssetSession, what: Literal["shell", "exec", "sftp"], command: str
    ) -> int:
        number = self._next_session(session)
        self._keeper.send(records.Open(connection.number, number, connection.wants, what, command, session.terminal))
        if self._away:
            self._loop.call_soon(session.refused, AWAY)
        return number

    def _next_session(self, session: AssetSession | Port) -> int:
        self._last_session += 1
        self._sessions[self._last_session] = session
        return self._last_session

    def to_inner(self, record: Any) -> None:
        self._inner.send(record)
        if type(record) is records.Send and len(record.data) < KEY_BYTES:
            self._inner.flush()

    def files(self, connection: GateConnection, session: AssetSession) -> None:
        front: Front | Scp
        failed = functools.partial(self.failed, connection)
        if session.scp is not None:
            front = old = Scp(session, session.scp, self.to_inner, failed)
            session.begin, session.end_of_data = lambda: self._start(old.run()), old.eof
        else:
            front = Front(session, self.to_inner, failed)
        self._fronts[session.number] = front
        session.data, session.go_on = front.data, front.go_on

    def unlocking(self, connection: GateConnection, session: AssetSession, answer: str) -> None:
        self._keeper.send(records.Unlocking(connection.number, session.number, answer))
        if self._away:
            session.notice(AWAY)

    def ask(self, connection: GateConnection, line: str, session: AssetSession) -> bool:
        if connection.number in self._asked:
            return False
        if self._away:
            self._loop.call_soon(session.told, AWAY, True)
            return True
        self._asked[connection.number] = session
        self._keeper.send(records.Ask(connection.number, line))
        return True

    def closed(self, session: AssetSession | Port) -> None:
        self._channels.pop(session, None)
        session.stage.end()
        if isinstance(front := self._fronts.pop(session.number, None), Scp):
            front.close()
        if session.number and self._sessions.pop(session.number, None) is not None:
            self._inner.send(records.Close(session.number))

    # --- records ------------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if source == "keeper":
            self._from_keeper(record)
        else:
            self._from_inner(record)

    def _from_keeper(self, record: Any) -> None:
        match record:
            case records.HostKey(blob, certificate):
                self._options = options(blob, certificate)
            case records.Signed(number, signature):
                if (connection := self.connections.get(number)) is not None:
                    connection.signed(signature)
            case Verdict():
                if (future := self._waiting.get(record.conn)) is not None and not future.done():
                    future.set_result(record)
            case records.SessionRefused(number, reason):
                if (session := self._sessions.pop(number, None)) is not None:
                    session.refused(reason)
            case records.Told(number, text, refused):
                if (session := self._asked.pop(number, None)) is not None:
                    session.told(text, refused)
            case records.Watch(number, target, join):
                self._watch(number, target, join)
            case records.Unwatch(number, reason):
                if (session := self._watchers.get(number)) is not None:
                    session.unwatch(reason)
            case records.Wait(number, text):
                if (session := self._sessions.get(number)) is not None:
                    session.notice(text)
            case records.Drop(number, reason):
                if (connection := self.connections.get(number)) is not None:
                    connection.drop(reason)
            case _:
                raise CrossingError(f"{type(record).__name__} from the keeper")

    def _watch(self, number: int, target: int, join: bool) -> None:
        """The line that waits there was to watch a session."""
        watcher, session = self._asked.get(number), self._sessions.get(target)
        if watcher is not None and isinstance(session, AssetSession):
            self._watchers[number] = watcher
            if watcher.watch(session, join):
                return
        self.left(number)

    def left(self, number: int) -> None:
        """Nobody watches by this connection any more."""
        self._watchers.pop(number, None)
        if number in self.connections:
            self._keeper.send(records.Left(number))

    def _from_inner(self, record: Any) -> None:
        session = self._sessions.get(record.session)
        if session is None:
            return  # the client has just gone
        if isinstance(session, Port):
            if isinstance(record, records.Lent):
                session.lent(record, self._seams.get((record.address, record.port)))
            elif isinstance(record, Closed):
                del self._sessions[record.session]
                session.ended(record)
                session.stage.end()
            return
        match record:
            case records.Shown(_, data, error):
                session.shown(data, error)
            case records.Took(_, count):
                session.took(count)
            case records.FileTold(number):
                if (front := self._fronts.get(number)) is not None:
                    front.told(record)
            case records.Started():
                session.started()
            case records.ShownEnd():
                session.shown_end()
            case records.Locked(_, locked):
                session.lock(locked)
            case records.Notice(_, text):
                session.notice(text)
            case Closed():
                del self._sessions[record.session]
                session.ended(record)
                session.stage.end()


class _Link:
    """A session's way to the part."""

    def __init__(self, part: Outer, connection: GateConnection) -> None:
        self._part = part
        self._connection = connection

    @property
    def asset(self) -> str:
        return self._connection.wants

    @property
    def greeting(self) -> str:
        return self._connection.greeting

    @property
    def full(self) -> bool:
        return self._connection.full

    @property
    def waiting(self) -> int:
        return self._connection.waiting

    def open(self, session: AssetSession, what: Literal["shell", "exec", "sftp"], command: str) -> int:
        return self._part.open(self._connection, session, what, command)

    def to_inner(self, record: Any) -> None:
        self._part.to_inner(record)

    def closed(self, session: AssetSession) -> None:
        self._part.closed(session)

    def ask(self, line: str, session: AssetSession) -> bool:
        return self._part.ask(self._connection, line, session)

    def left(self) -> None:
        self._part.left(self._connection.number)

    def unlocking(self, session: AssetSession, answer: str) -> None:
        self._part.unlocking(self._connection, session, answer)

    def files(self, session: AssetSession) -> None:
        self._part.files(self._connection, session)


class _Nested(asyncssh.SSHTCPSession[bytes]):
    """A channel within which another connection comes (`ssh -J`)."""

    def __init__(self, begin: Any) -> None:
        self._begin = begin
        self._inside: GateConnection | None = None

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._chan = chan

    def session_started(self) -> None:
        self._inside = self._begin()
        self._inside.connection_made(ChannelTransport(self._chan, (self._inside.source, self._inside.port)))

    def data_received(self, data: bytes, datatype: Any) -> None:
        if self._inside is not None:
            self._inside.data_received(data)

    def eof_received(self) -> bool:
        if self._inside is not None:
            self._inside.eof_received()
        return False

    def pause_writing(self) -> None:
        if self._inside is not None:
            self._inside.pause_writing()

    def resume_writing(self) -> None:
        if self._inside is not None:
            self._inside.resume_writing()

    @unswallowed
    def connection_lost(self, exc: Exception | None) -> None:
        if self._inside is not None:
            self._inside.connection_lost(exc)
