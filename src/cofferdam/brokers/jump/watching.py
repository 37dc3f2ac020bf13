"""Who looks on: watching a session live, joining it with hands of one's own, and words to whoever sits there.

Whoever may approve sessions of a conduit may watch them, and that somebody does stands in the log before they see
anything; the person who is watched is told, and so is the recording. Where an approval says `watched`, a session begins
when the first watcher is there, and ends when the last one is gone.

Not here: carrying what is shown to those who watch (outer_watch).
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.audit.lines import escaped
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.deciding import Session
from cofferdam.brokers.jump.desk import Desk
from cofferdam.brokers.jump.signin import Connection
from cofferdam.errors import GateError

WATCHERS_MOST = 8
"""Of one session."""


class WatchDesk(Desk, Protocol):
    """What watching needs of the keeper besides."""

    connections: dict[int, Connection]

    def alone(self, session: Session) -> bool:
        """Whether a session may go on with nobody who watches, whatever its approval says."""

    def watched(self, session: Session) -> None:
        """A session that waited for a watcher has one."""


class Watching:
    """Those who watch, by their connection: one session each."""

    def __init__(self, keeper: WatchDesk) -> None:
        self._keeper = keeper
        self._of: dict[int, tuple[Session, str]] = {}

    def names(self, session: Session) -> list[str]:
        """Who watches it, and how."""
        return [f"{self._who(conn)} {how}" for conn, (one, how) in self._of.items() if one is session]

    def _who(self, conn: int) -> str:
        connection = self._keeper.connections.get(conn)
        return connection.person if connection is not None else "?"

    def may(self, person: str, session: Session) -> None:
        """Raises: GateError: this person may not watch it."""
        self._keeper.deciding.overseer(self._keeper.accounts.known(person), session)

    def begin(self, connection: Connection, number: int, join: bool, tell: Any) -> None:
        """Somebody wants to watch. Raises: GateError."""
        session = self._keeper.live.get(number)
        if session is None:
            raise GateError(f"there is no session {number}", hint="who; at the gate `cofferdam jump sessions`")
        self.may(connection.person, session)
        if connection.number in self._of:
            raise GateError("you watch a session already")
        if sum(1 for one, _ in self._of.values() if one is session) >= WATCHERS_MOST:
            raise GateError(f"{WATCHERS_MOST} people watch it already")
        if join and session.asked.what != "shell":
            raise GateError("only a terminal can be joined", hint=f"watch {number}")
        how: Literal["joined", "watches"] = "joined" if join else "watches"
        entry = events.AccessWatched(
            wall_ns=self._keeper.wall, session=session.name, by=connection.person, source=connection.source, how=how,
        )  # fmt: skip

        def act() -> str:
            if self._keeper.live.get(number) is not session or connection.number not in self._keeper.connections:
                raise GateError(f"session {number} has ended")
            self.may(connection.person, session)
            self._of[connection.number] = (session, how)
            self._keeper.to_outer(records.Watch(connection.number, number, join))
            if session.waits:
                session.waits = False
                self._keeper.watched(session)
            else:
                self.tell(session, f"{connection.person} {how}")
            keys = "Ctrl-] leaves" if join else "Ctrl-C leaves"
            person = session.connection.person
            return f"you {'have joined' if join else 'watch'} {person} at {session.asset}; {keys}"

        self._keeper.when_recorded(entry, act, tell)

    def tell(self, session: Session, text: str) -> None:
        """Words for a session's person, which its recording has as well."""
        if session.terms is not None:
            self._keeper.to_inner(records.Warn(session.number, clip(text)))
        else:
            self._keeper.to_outer(records.Wait(session.number, clip(text)))

    def began(self, session: Session) -> None:
        """A session that was waited for has begun: its recording says who watches."""
        for name in self.names(session):
            self.tell(session, name)

    def say(self, by: str, session: Session, text: str) -> str:
        """A message. Raises: GateError."""
        if not text.strip():
            raise GateError("a message has words", hint="say N TEXT")
        self.tell(session, f"{by} says: {escaped(text.strip())}")
        return f"{session.connection.person} is told"

    def left(self, conn: int) -> None:
        """Somebody watches no more."""
        found = self._of.pop(conn, None)
        if found is None:
            return
        session, _ = found
        who = self._who(conn)
        live = self._keeper.live.get(session.number) is session
        self._keeper.audit.note(
            events.AccessWatched(wall_ns=self._keeper.wall, session=session.name, by=who, how="left"), always=True
        )
        if not live:
            return
        self.tell(session, f"{who} watches no more")
        approval = session.right.row.approval
        if approval is not None and approval.watched and not self.names(session) and not self._keeper.alone(session):
            self._keeper.revoke(session, "nobody watches any more")

    def ended(self, session: Session) -> None:
        """A session has ended. The outer part tells those who watched, after the last that was shown."""
        for conn, (one, _) in list(self._of.items()):
            if one is session:
                self.left(conn)

    def look_again(self) -> None:
        """Those who may watch no more are told, and do not."""
        for conn, (session, _) in list(self._of.items()):
            connection = self._keeper.connections.get(conn)
            try:
                if connection is not None:
                    self.may(connection.person, session)
            except GateError as error:
                self._keeper.to_outer(records.Unwatch(conn, clip(str(error))))
                self.left(conn)
