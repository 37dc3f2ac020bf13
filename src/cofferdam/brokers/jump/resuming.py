"""A keeper that comes again while sessions go on: what it had granted is in its store, and is held against what the
other parts say that there is.

What stands in the store and goes on, goes on; it counts for every limit from the first moment. What stands there and
does not go on any more has ended, and gets its entry. What stands nowhere was never granted: whoever says that it goes
on is no honest part. Those who had signed in keep the sessions that they have, and sign in anew for any other.

Not here: what the parts say (standing_records), how they go on without a keeper (outer_without, inner_without).
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from cofferdam.audit.events.base import clip
from cofferdam.audit.events.jump import AccessEnded
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.deciding import Session
from cofferdam.brokers.jump.desk import Desk
from cofferdam.brokers.jump.signin import Connection
from cofferdam.brokers.jump.standing_records import Lives, Stands
from cofferdam.errors import CrossingError, StoreError

PAST = "past"
"""The state of a connection whose person had signed in to a keeper before this one."""


class Of(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A connection, as it is kept."""

    number: int
    name: str
    source: str
    port: int
    nested: str
    user: str
    person: str
    wants: str
    key: bytes
    factors: tuple[str, ...]
    certified: int

    @classmethod
    def from_connection(cls, one: Connection) -> Of:
        return cls(**{name: getattr(one, name) for name in cls.__struct_fields__})

    def connection(self, parent: Connection | None) -> Connection:
        """It proves nothing more and opens nothing more: its session id is none."""
        said = {name: getattr(self, name) for name in self.__struct_fields__}
        return Connection(**said, parent=parent, state=PAST, session_id=PAST.encode())


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session that has a grant, as it is kept."""

    name: str
    connection: Of
    parent: Of | None
    asked: records.Open
    conduit: str
    login: str
    request: int
    opened_wall: int
    terms: str


class ResumeDesk(Desk, Protocol):
    """What is needed of the keeper besides."""

    connections: dict[int, Connection]

    def ended(self, session: Session, reason: str, sent: int, received: int) -> None: ...

    def gone(self, connection: Connection, reason: str = ...) -> None: ...

    def lock(self, session: Session) -> None:
        """Its terminal is locked."""

    def turning(self, number: int, whose: tuple[str, str]) -> None:
        """A password is being changed."""


class Resuming:
    """What stood when this life began. `awaited`: the parts that have not told yet all that there is."""

    def __init__(self, keeper: ResumeDesk, life: int) -> None:
        self._keeper = keeper
        self.awaited = {"outer", "inner"} if life else set()
        self._names: dict[int, str] = {}
        self._connections: set[int] = set()
        self._stand: set[int] = set()
        self._live: set[int] = set()
        self.last_connection = self.last_session = 0
        for number, said in keeper.accounts.live():
            try:
                kept = msgspec.msgpack.decode(said, type=Kept)
            except msgspec.MsgspecError as error:
                raise StoreError(f"{keeper.accounts.path}: session {number}: {error}") from None
            if life:
                self._take(number, kept)
            else:
                self._over(number, kept, "the parts of the gate that carried it had ended")

    def _take(self, number: int, kept: Kept) -> None:
        """One that the other parts may still have."""
        keeper = self._keeper
        self._names[number] = kept.name
        self.last_session = max(self.last_session, number)
        parent = self._connection(kept.parent, None) if kept.parent is not None else None
        connection = self._connection(kept.connection, parent)
        found = keeper.deciding.same(connection.person, kept.asked, kept.conduit, kept.login)
        if not found:
            said = "the policy does not allow it any more"
            keeper.to_inner(records.Revoke(number, said))
            self._over(number, kept, said)
            return
        keeper.live[number] = Session(
            number, kept.name, connection, kept.asked, found[0], kept.request, kept.opened_wall,
            keeper.now - max(0, keeper.wall - kept.opened_wall), terms=kept.terms,
        )  # fmt: skip

    def _connection(self, kept: Of, parent: Connection | None) -> Connection:
        self.last_connection = max(self.last_connection, kept.number)
        self._connections.add(kept.number)
        found = self._keeper.connections.get(kept.number)
        if found is None:
            found = self._keeper.connections[kept.number] = kept.connection(parent)
        return found

    def _over(self, number: int, kept: Kept, reason: str) -> None:
        keeper = self._keeper
        keeper.audit.note(
            AccessEnded(
                wall_ns=keeper.wall, session=kept.name, person=kept.connection.person, asset=kept.asked.asset,
                reason=clip(reason), opened_ns=kept.opened_wall,
            ),
            always=True,
        )  # fmt: skip
        keeper.audit.flush()
        keeper.accounts.forget(number)

    def keep(self, session: Session) -> None:
        """A session is about to get its grant: from now on it is known to the next life."""
        connection = session.connection
        kept = Kept(
            name=session.name, connection=Of.from_connection(connection),
            parent=Of.from_connection(connection.parent) if connection.parent is not None else None,
            asked=session.asked, conduit=session.right.conduit, login=session.right.line.login,
            request=session.request, opened_wall=session.opened_wall, terms=session.terms or "",
        )  # fmt: skip
        self._keeper.accounts.keep(session.number, msgspec.msgpack.encode(kept))

    # --- what the others say ----------------------------------------------------------------------------------------

    def takes(self, source: str, record: Any) -> bool:
        """Whether this was for here. Raises: CrossingError: an honest part does not say that, or not now."""
        if not isinstance(record, Stands | Lives):
            if source == "outer" and source in self.awaited:
                raise CrossingError(f"{type(record).__name__} before it has said what stands")
            return False
        if source not in self.awaited:
            raise CrossingError(f"{type(record).__name__}, and nobody asked for it")
        if isinstance(record, Stands):
            self._stands(record)
        else:
            self._lives(record)
        self._told(source)
        return True

    def _stands(self, said: Stands) -> None:
        keeper = self._keeper
        if said.conn < self.last_connection or said.session < self.last_session:
            raise CrossingError("numbers that go on from before what was granted")
        self.last_connection, self.last_session = said.conn, said.session
        for conn, sessions in said.connections:
            for number in sessions:
                session = keeper.live.get(number)
                if session is not None and session.connection.number != conn:
                    raise CrossingError(f"session {number} on connection {conn}, which is another one's")
            if conn in self._connections:
                self._connections.discard(conn)
                self._stand.update(sessions)
            else:  # the last of its sessions had just ended
                keeper.to_outer(records.Drop(conn, "the gate's keeper has come again: sign in anew"))

    def _lives(self, said: Lives) -> None:
        for number, name, locked in said.sessions:
            if self._names.get(number) != name:
                raise CrossingError(f"it has session {number} ({name}), which was never granted, or has ended")
            self._live.add(number)
            session = self._keeper.live.get(number)
            if locked and session is not None:
                self._keeper.lock(session)
        for number, asset, login in said.changes:
            self._keeper.turning(number, (asset, login))
        self.last_session = max(self.last_session, said.last)

    def _told(self, source: str) -> None:
        """A part has told all. Once both have, what is left is only what both have."""
        keeper = self._keeper
        self.awaited.discard(source)
        if not self.awaited:
            for number in self._names.keys() - self._live:
                if (one := keeper.live.get(number)) is not None:
                    keeper.ended(one, "it ended while the keeper was away", 0, 0)
            for number in self._names.keys() - self._stand:
                if (one := keeper.live.get(number)) is not None:
                    keeper.revoke(one, "the person is gone")
            for number in self._connections:
                if (connection := keeper.connections.get(number)) is not None:
                    keeper.gone(connection)
        keeper.look_again()
