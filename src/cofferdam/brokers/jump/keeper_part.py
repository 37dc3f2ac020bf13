"""The jump server's keeper: the process that knows people and secrets, signs people in, decides, and gives grants.

It has no network. The outer part tells it what a client shows, and gets back signatures and verdicts; the inner part
gets grants, which say all that is needed at the asset, and nothing else ever tells it to begin a session. What may
begin is in the audit log before it begins.

Not here: signing in (signin), deciding (deciding), the store (accounts), what people type at the menu (menu), what
operators do (keeper_verbs), how it finds again what goes on without it (resuming).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Part, Setting, boot_of
from cofferdam.brokers.jump import file_records, records
from cofferdam.brokers.jump.accounts import DAY_NS, Accounts, key_name
from cofferdam.brokers.jump.broker import STORE_KEY
from cofferdam.brokers.jump.certified import Certified
from cofferdam.brokers.jump.deciding import LONGEST_SECONDS, Deciding, Session, Yes
from cofferdam.brokers.jump.desk import Tell
from cofferdam.brokers.jump.glass import Glass
from cofferdam.brokers.jump.keeper_verbs import Verbs
from cofferdam.brokers.jump.locking import Locking
from cofferdam.brokers.jump.menu import Menu
from cofferdam.brokers.jump.releasing import Releasing
from cofferdam.brokers.jump.reserve import FULL
from cofferdam.brokers.jump.resuming import PAST, Resuming
from cofferdam.brokers.jump.rotating import Rotating
from cofferdam.brokers.jump.shown import Shown
from cofferdam.brokers.jump.signin import TRIES_A_CONNECTION, Connection, Outcome, SignIn
from cofferdam.brokers.jump.watching import Watching
from cofferdam.brokers.kit.counted import Counted
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.kit.sealed import NotOpened
from cofferdam.brokers.kit.supervision import SessionStatus
from cofferdam.crossing.channel import Sender
from cofferdam.errors import CrossingError, GateError, StoreError
from cofferdam.model import NEVER
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.jump_rows import fits

CONNECTIONS_MOST: Final = 4_096
"""More than the outer part lets in."""
ANEW: Final = "sign in anew"
REST_SECONDS: Final = 0.05
"""Between two passwords: for all else."""
WARNINGS: Final = (600, 300, 60)
"""Seconds before its end at which a session is warned."""


class Keeper(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        if setting.store is None:
            raise StoreError("the keeper has no folder")
        self._setting = setting
        self._boot = boot_of(setting.boot, setting.life)
        self.audit = setting.audit
        self._outer: Sender[Any] = setting.senders["outer"]
        self._inner: Sender[Any] = setting.senders["inner"]
        self.accounts = Accounts(setting.store, setting.secrets.get(STORE_KEY, b""))
        self.certified = Certified(self.accounts)
        self.signin = SignIn(self.accounts, certified=self.certified)
        self.deciding = Deciding(self.accounts, setting.policy)
        self.certified.seconds = self.deciding.certificates
        self.connections: dict[int, Connection] = {}
        self.live: dict[int, Session] = {}
        self._last_connection = self._last_session = 0
        self._resuming = Resuming(self, setting.life)
        self._refused = Counted(setting.audit, ("connection",))
        self.watching = Watching(self)
        self._locking = Locking(self, self._refused)
        self._menu = Menu(self, self.watching)
        self._glass = Glass(self)
        self._rotating = Rotating(self)
        self._rotating.waits = "inner" in self._resuming.awaited
        self._releasing = Releasing(self, self._menu)
        self._menu.files = self._releasing.of
        self._verbs = Verbs(self, self._menu, self._rotating, self._glass.verbs | self._releasing.verbs)
        self._counts = {"signed_in": 0, "sign_in_refused": 0, "sessions_opened": 0, "sessions_refused": 0}
        self._stopping = False
        self._typed: dict[str, deque[records.Answers]] = {}
        self._verifying = False
        self._last: Reported = {}
        self._zones = setting.policy.zones
        self.set_severed(setting.severed)
        self.shown = Shown(self.accounts)
        self._show()

    @property
    def now(self) -> int:
        return self._setting.clock()

    @property
    def wall(self) -> int:
        return self._setting.wall()

    def _show(self) -> None:
        """Tells the outer part by what the gate shows itself, where that is new."""
        certificate = self.shown.due(self.deciding.policy, self.wall)
        if certificate is not None:
            self._outer.send(records.HostKey(self.accounts.host_key.public_data, certificate))

    def to_outer(self, record: Any) -> None:
        self._outer.send(record)

    def to_inner(self, record: Any) -> None:
        self._inner.send(record)

    # --- the gate -----------------------------------------------------------------------------------------------------

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self.deciding.take_policy(policy)
        self.certified.seconds = self.deciding.certificates
        self._show()
        return self.look_again()

    def set_severed(self, sides: Collection[str]) -> None:
        self.deciding.severed = bool(sides)
        self.look_again()

    def end_sessions(self, sessions: Collection[str], reason: str) -> None:
        for session in list(self.live.values()):
            if session.name in sessions:
                self.revoke(session, reason)

    def command(self, asked: Asked) -> None:
        self._verbs.command(asked)

    def tick(self) -> None:
        self._show()
        self.look_again()
        self.deciding.settle(self.wall, self.now)
        self._rotating.tick()
        self.accounts.reserve.keep()
        self._refused.tick(self.now, self.wall)

    def stop(self) -> None:
        self._stopping = True
        for session in list(self.live.values()):
            self.revoke(session, "the gate stops")

    def end(self) -> None:
        self._refused.tell(self.wall)
        for session in list(self.live.values()):
            self.ended(session, "the gate stops", 0, 0)
        self._last = self.figures()  # told once more, after the store is closed
        self.accounts.close()

    @property
    def busy(self) -> int:
        return len(self.live)

    def sessions(self) -> tuple[SessionStatus, ...]:
        return tuple(
            SessionStatus(
                session=session.name, asset=session.asset, source=session.connection.source,
                port=session.connection.port, principals=(session.connection.person,), since=session.opened_wall,
                requests=0, refused=0, last=session.opened_wall,
            )
            for session in self.live.values()
        )  # fmt: skip

    def figures(self) -> Reported:
        if self._last:
            return self._last
        return {
            "people_in": {"": sum(1 for one in self.connections.values() if one.state in ("in", PAST))},
            "sessions": {"": len(self.live)},
            "requests_waiting": {"": self.accounts.waiting()},
            **{name: {"": count} for name, count in self._counts.items()},
        }

    def alarms(self) -> dict[str, str]:
        if self._last:
            return {}
        waiting = self.accounts.waiting()
        said = f"{waiting} request{' waits' if waiting == 1 else 's wait'} for an approval (cofferdam jump requests)"
        asked = {"jump-requests": said} if waiting else {}
        if short := self.accounts.reserve.short():
            asked["jump-store"] = f"{short}: nobody signs in, and nothing is asked for, approved or added; make room"
        return asked | self._glass.alarm() | self._rotating.alarms() | self._releasing.alarm()

    # --- records ------------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        if self._resuming.takes(source, record):
            self._last_connection = max(self._last_connection, self._resuming.last_connection)
            self._last_session = max(self._last_session, self._resuming.last_session)
            self._rotating.waits = "inner" in self._resuming.awaited
            return
        if source == "inner":
            if isinstance(record, records.Rotated):
                self._rotating.came_of_it(record)
                return
            if isinstance(record, records.Used):
                self.accounts.use(record.person, record.conduit, self.wall // DAY_NS, record.count)
                return
            session = self.live.get(record.session)
            if isinstance(record, file_records.Unclean):
                nobody = file_records.Cleared(record.file, "", 0)
                self._inner.send(self._releasing.came(session, record) if session is not None else nobody)
                return
            if session is None:
                return
            if isinstance(record, records.Idle):
                self._locking.locked(session)
            else:
                self.ended(session, record.reason, record.sent, record.received)
            return
        if isinstance(record, records.Began):
            self._began(record)
            return
        connection = self.connections.get(record.conn)
        if connection is None:
            if record.conn > self._last_connection:
                raise CrossingError(f"speaks of connection {record.conn}, which never began")
            if isinstance(record, records.Open):  # it was dropped while that was on its way
                self._next_session(record)
                self._outer.send(records.SessionRefused(record.session, "the connection has ended"))
            elif isinstance(record, records.Exchange):  # it began while there was no keeper
                self._outer.send(records.Drop(record.conn, "connect once more"))
            return
        match record:
            case records.Exchange(_, digest):
                self._outer.send(records.Signed(connection.number, self.signin.exchange(connection, digest)))
            case records.Proof() | records.Answers() if connection.state in ("recording", "in", PAST):
                # A client may send one before it hears what became of the last: it would count for somebody else.
                self._verdict(connection, record.user, Outcome("no", "a proof beside one that has served"))
                self.drop(connection, "one proof at a time")
            case records.Proof(_, user, algorithm, key, signature):
                assets = self.deciding.assets
                outcome = self.signin.proof(connection, user, algorithm, key, signature, assets, self.now, self.wall)
                self._verdict(connection, user, outcome)
            case records.Answers(_, _, answers) if len(answers) > 1:
                waiting = self._typed.setdefault(connection.source, deque())
                if any(one.conn == record.conn for one in waiting):  # also a client's own haste: it ends that one alone
                    self.drop(connection, "one proof at a time")
                    return
                waiting.append(record)
                if not self._verifying:
                    self._verify()
            case records.Answers():
                self._answers(connection, record)
            case records.Open():
                self._open(connection, record)
            case records.Ask(_, line):
                self._ask(connection, line)
            case records.Unlocking(_, number, answer):
                session = self.live.get(number)
                if session is not None and session.connection is not connection:
                    raise CrossingError(f"unlocks session {number}, which is another connection's")
                if session is not None:
                    self._locking.answers(session, answer)
            case records.Gone():
                self.gone(connection)
            case records.Left(conn):
                self.watching.left(conn)

    def _began(self, record: records.Began) -> None:
        if record.conn != self._last_connection + 1:
            raise CrossingError(f"connection {record.conn} after {self._last_connection}")
        if len(self.connections) >= CONNECTIONS_MOST:
            raise CrossingError(f"more than {CONNECTIONS_MOST} connections")
        self._last_connection = record.conn
        parent = None
        if record.parent:
            parent = self.connections.get(record.parent)
            if parent is None or parent.state != "in" or parent.parent is not None:
                # It may have ended a moment ago; what comes of it is a connection that nobody can sign in by.
                parent = Connection(0, "", record.source, record.port)
            record = records.Began(record.conn, parent.source, parent.port, record.parent, record.asset)
        name = f"{self._boot}-c{record.conn}"
        self.connections[record.conn] = Connection(
            record.conn, name, record.source, record.port, parent, record.asset if parent is not None else ""
        )

    def gone(self, connection: Connection, reason: str = "the person is gone") -> None:
        """A connection is no more: neither are its sessions, nor those within it."""
        self.watching.left(connection.number)
        self.connections.pop(connection.number, None)
        if waiting := self._typed.pop(connection.source, None):
            left = deque(one for one in waiting if one.conn != connection.number)
            if left:
                self._typed[connection.source] = left
        for other in list(self.connections.values()):
            if other.parent is connection:
                self.drop(other, reason)
        for session in list(self.live.values()):
            if session.connection is connection:
                self.revoke(session, reason)

    def drop(self, connection: Connection, reason: str) -> None:
        """Ends a connection."""
        self._outer.send(records.Drop(connection.number, clip(reason)))
        self.gone(connection, reason)

    # --- signing in ---------------------------------------------------------------------------------------------------

    def _answers(self, connection: Connection, said: records.Answers) -> None:
        assets = self.deciding.assets
        outcome = self.signin.answers(connection, said.user, said.answers, assets, self.now, self.wall)
        self._verdict(connection, said.user, outcome)

    def _verify(self) -> None:
        """One of the passwords that were typed, addresses in turns: it takes a tenth of a second, or what the machine
        makes of that, and whoever has signed in, and the gate, are not to wait for all that strangers type."""
        self._verifying = False
        while self._typed:
            source = next(iter(self._typed))
            waiting = self._typed.pop(source)
            said = waiting.popleft()
            if waiting:
                self._typed[source] = waiting
            connection = self.connections.get(said.conn)
            if connection is None:
                continue
            if connection.state in ("recording", "in", PAST):
                self._verdict(connection, said.user, Outcome("no", "a proof beside one that has served"))
                self.drop(connection, "one proof at a time")
            else:
                self._answers(connection, said)
            self._verifying = True
            self._setting.reactor.call_in(REST_SECONDS, self._verify)
            return

    def _verdict(self, connection: Connection, user: str, outcome: Outcome) -> None:
        if outcome.why:
            self._counts["sign_in_refused"] += 1
            self._refused.add(
                events.SignInRefused(
                    wall_ns=self.wall, connection=connection.name, user=clip(user, 128), source=connection.source,
                    reason=clip(outcome.why),
                )
            )  # fmt: skip
        if outcome.state != "in":
            self._outer.send(records.Verdict(connection.number, outcome.state, text=outcome.text))  # type: ignore[arg-type]
            if outcome.why == FULL:
                self.drop(connection, FULL)
            elif connection.tries >= TRIES_A_CONNECTION:
                self.drop(connection, "too many tries")
            return
        entry = events.SignedIn(
            wall_ns=self.wall, connection=connection.name, person=connection.person, source=connection.source,
            port=connection.port, factors=connection.factors, key=key_name(connection.key),
        )  # fmt: skip
        connection.state = "recording"

        def done(ok: bool, why: str) -> None:
            if self.connections.get(connection.number) is not connection or connection.state != "recording":
                return
            if not ok:
                connection.state, connection.person, connection.wants = "began", "", ""
                self._outer.send(records.Verdict(connection.number, "no", text="nobody is let in: nothing is recorded"))
                return
            connection.state = "in"
            self._counts["signed_in"] += 1
            self._outer.send(
                records.Verdict(connection.number, "in", connection.person, connection.wants, outcome.text)
            )

        self.audit.record(entry, done)

    # --- sessions -----------------------------------------------------------------------------------------------------

    def _next_session(self, asked: records.Open) -> None:
        if asked.session != self._last_session + 1:
            raise CrossingError(f"session {asked.session} after {self._last_session}")
        self._last_session = asked.session

    def _open(self, connection: Connection, asked: records.Open) -> None:
        self._next_session(asked)
        if connection.state == PAST:
            self._refuse(connection, asked, f"the gate's keeper has come again since you signed in: {ANEW}")
            return
        if connection.state != "in":
            raise CrossingError("a session for somebody who has not signed in")
        by_port = asked.what == "port" and connection.parent is None and not connection.wants
        if not by_port and (not connection.wants or asked.asset != connection.wants):
            raise CrossingError(f"a session at {asked.asset!r} for a connection to {connection.wants}")
        standing = sum(1 for one in self.live.values() if one.connection.person == connection.person)
        there = sum(1 for one in self.live.values() if one.asset == asked.asset)
        found = FULL if self.accounts.reserve.short() else (
            self.deciding.session(connection, asked, standing, there, self.wall, self.now)
        )  # fmt: skip
        if isinstance(found, str) or self._stopping:
            self._refuse(connection, asked, found if isinstance(found, str) else "the gate stops")
            return
        right = found.right
        session = Session(
            asked.session, f"{self._boot}-{asked.session}", connection, asked, right, found.request,
            self.wall, self.now,
        )  # fmt: skip
        self.live[asked.session] = session
        if right.row.approval is not None and right.row.approval.watched and not self._glass.covers(found.request):
            session.waits = True
            by = " or ".join(right.row.approval.by)
            self.watching.tell(session, f"this waits for somebody of {by} to watch: ssh gate watch {session.number}")
            return
        self.watched(session)

    def alone(self, session: Session) -> bool:
        return self._glass.covers(session.request)

    def watched(self, session: Session) -> None:
        """Nothing is waited for any more: once its entry is in the log, it begins."""
        asked, connection, right = session.asked, session.connection, session.right
        entry = events.AccessOpened(
            wall_ns=self.wall, session=session.name, connection=connection.name, person=connection.person,
            source=connection.source, asset=asked.asset, login=right.line.login, what=asked.what,
            conduit=right.conduit, rule=right.rule, request=session.request, command=clip(asked.command),
            recorded=asked.what not in ("sftp", "port") and (
                right.row.record or (asked.what == "exec" and not fits(asked.command, right.line.commands))
            ),
        )  # fmt: skip
        self.audit.record(entry, functools.partial(self._recorded, session))

    def _recorded(self, session: Session, ok: bool, why: str) -> None:
        """Its entry is in the log, or not."""
        if self.live.get(session.number) is not session:
            return
        still = self.deciding.still(session, self.wall, self.now) if ok else f"it cannot be recorded: {why}"
        try:
            by_port = session.asked.what == "port"
            credential = ("none", b"") if by_port else self.accounts.credential(session.asset, session.right.line.login)
        except NotOpened as error:
            still, credential = str(error), None
        if isinstance(still, str) or credential is None:
            reason = still if isinstance(still, str) else "the credential was taken away"
            if ok:
                self.ended(session, reason, 0, 0)
            self.live.pop(session.number, None)
            self._refuse(session.connection, session.asked, reason)
            return
        self._counts["sessions_opened"] += 1
        asked, line, row = session.asked, session.right.line, session.right.row
        kind, secret = credential
        up, down = self.deciding.files(session.connection.person, session.right, session.asset)
        session.terms = self.deciding.terms(session, session.right)
        opaque = asked.what == "exec" and not fits(asked.command, line.commands)
        self._resuming.keep(session)
        self._inner.send(
            records.Grant(
                session=session.number, name=session.name, person=session.connection.person,
                source=session.connection.source, conduit=session.right.conduit, asset=session.asset,
                login=line.login, credential=self._rotating.grant(session, kind, secret),
                host_key=self.accounts.asset_key(session.asset), what=asked.what,
                seconds=min(LONGEST_SECONDS, max(0.001, (still.until_ns - self.wall) / 1e9)),
                record=(row.record or opaque) and asked.what not in ("sftp", "port"),
                command=asked.command, terminal=asked.terminal,
                up=up, down=down, opaque=opaque, left=self._left(session),
                watched=row.approval is not None and row.approval.watched and not self.alone(session),
            )
        )  # fmt: skip
        self.watching.began(session)

    def _left(self, session: Session) -> int:
        """Bytes of files that its person may still move today, where that has a limit."""
        most, conduit = session.right.row.files.day, session.right.conduit
        return max(0, most - self.accounts.used(session.connection.person, conduit, self.wall // DAY_NS))

    def _refuse(self, connection: Connection, asked: records.Open, reason: str) -> None:
        self._counts["sessions_refused"] += 1
        self._outer.send(records.SessionRefused(asked.session, clip(reason)))
        self._refused.add(
            events.AccessRefused(
                wall_ns=self.wall, connection=connection.name, person=connection.person, source=connection.source,
                asset=clip(asked.asset, 128), what=asked.what, reason=clip(reason),
            )
        )  # fmt: skip

    def revoke(self, session: Session, reason: str) -> None:
        """Ends a session at the asset; the inner part tells the outer one, and says when it has. One that waits for its
        entry in the log has no grant: the inner part knows nothing of it, and the outer one is told here."""
        if session.terms is not None:
            self._inner.send(records.Revoke(session.number, clip(reason)))
            self._inner.flush()  # before it is forgotten
        else:
            self._refuse(session.connection, session.asked, reason)
        self.ended(session, reason, 0, 0)

    def ended(self, session: Session, reason: str, sent: int, received: int) -> None:
        if self.live.pop(session.number, None) is None:
            return
        self.watching.ended(session)
        if session.waits:
            return  # it never began
        self.audit.note(
            events.AccessEnded(
                wall_ns=self.wall, session=session.name, person=session.connection.person, asset=session.asset,
                reason=clip(reason), sent=sent, received=received, opened_ns=session.opened_wall,
            ),
            always=True,
        )  # fmt: skip
        if session.terms is not None:
            self.audit.flush()  # what has left outlasts us: rather told twice than never
            self.accounts.forget(session.number)

    def lock(self, session: Session) -> None:
        self._locking.locked(session)

    def turning(self, number: int, whose: tuple[str, str]) -> None:
        self._rotating.turning(number, whose)

    def look_again(self) -> int:
        """Ends the sessions that may not go on, and warns those that soon may not. Returns how many ended."""
        ended = 0
        for session in list(self.live.values()):
            still = self.deciding.still(session, self.wall, self.now)
            if session.waits and self.now - session.opened_ns > session.right.row.idle * 10**9:
                still = "nobody came to watch"
            if isinstance(still, str):
                self.revoke(session, still)
                ended += 1
            elif still.until_ns != NEVER:
                self._warn(session, still)
        self.watching.look_again()
        for connection in list(self.connections.values()):
            if connection.state in ("in", PAST) and (why := self._unknown(connection)):
                self.drop(connection, why)
        return ended

    def _unknown(self, connection: Connection) -> str:
        """Why somebody who has signed in is not let in any more."""
        person = self.accounts.person(connection.person)
        if person is None or not person.active:
            return "you are not known any more"
        owned = not connection.key or self.accounts.owner(connection.key) == connection.person
        return "" if owned else "your key was taken away"

    def _warn(self, session: Session, still: Yes) -> None:
        left = (still.until_ns - self.wall) / 1e9
        due = [mark for mark in WARNINGS if left <= mark and mark not in session.warned]
        if due and (self.now - session.opened_ns) > 2 * 10**9:
            session.warned.update(due)
            minutes = max(1, round(left / 60))
            said = f"this session ends in {minutes} minute{'s' if minutes > 1 else ''}"
            self._inner.send(records.Warn(session.number, said))

    # --- acts that need an entry --------------------------------------------------------------------------------------

    def _ask(self, connection: Connection, line: str) -> None:
        if connection.state == PAST:
            self._outer.send(records.Told(connection.number, f"the keeper has come again: {ANEW}", True))
            return
        if connection.state != "in":
            raise CrossingError("a line at the menu of somebody who has not signed in")
        if connection.parent is not None:
            raise CrossingError("a line at the menu of a nested connection")

        def tell(text: str, refused: bool = False, /) -> None:
            if self.connections.get(connection.number) is connection:
                self._outer.send(records.Told(connection.number, clip(text, 60_000), refused))

        try:
            self._menu.line(connection, line, tell)
        except GateError as error:
            tell(f"{error}" + (f" ({error.hint})" if error.hint else ""), True)

    def when_recorded(self, entry: Any, act: Callable[[], str], tell: Tell) -> None:
        """Does something once its entry is in the log, and tells what came of it. `act` may raise GateError."""

        def done(ok: bool, why: str) -> None:
            if not ok:
                tell(f"not done, since it cannot be recorded: {why}", True)
                return
            try:
                said, refused = act(), False
            except GateError as error:
                said, refused = str(error), True
            tell(said, refused)
            self.look_again()

        self.audit.record(entry, done)
