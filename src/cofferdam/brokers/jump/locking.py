"""Terminals that are locked because nobody typed, and what unlocks them: a code or the password of their person.

The inner part locks by itself, by its own clock: nothing goes either way then. The outer part blanks the screen and
brings what is typed; whether that counts is judged here, and nobody but the keeper can have the inner part go on.

Not here: the end of a session that idles longer (inner_session).
"""

from __future__ import annotations

from typing import Final

from cofferdam.audit.events import jump as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.deciding import Session
from cofferdam.brokers.jump.desk import Desk
from cofferdam.brokers.kit.counted import Counted

TRIES_MOST: Final = 10
"""Wrong ones in one session, after which it ends."""


class Locking:
    """Those that are locked."""

    def __init__(self, keeper: Desk, refused: Counted) -> None:
        self._keeper = keeper
        self._refused = refused

    def locked(self, session: Session) -> None:
        """The inner part has locked it."""
        keeper, person = self._keeper, self._keeper.accounts.person(session.connection.person)
        session.locked = True
        keeper.audit.note(
            events.AccessLocked(
                wall_ns=keeper.wall, session=session.name, person=session.connection.person, how="locked"
            ),
            always=True,
        )  # fmt: skip
        if person is None or not (person.totp or person.password):
            keeper.revoke(session, "nobody typed, and you have no code and no password to unlock it by: come anew")

    def answers(self, session: Session, answer: str) -> None:
        """Something was typed there."""
        keeper, connection = self._keeper, session.connection
        if not session.locked:
            return
        factor, why = keeper.signin.unlock(connection.person, answer, keeper.now, keeper.wall)
        if why:
            session.unlock_tries += 1
            self._refused.add(
                events.SignInRefused(
                    wall_ns=keeper.wall, connection=connection.name, user=clip(connection.person, 128),
                    source=connection.source, reason=clip(f"at a locked terminal: {why}"),
                )
            )  # fmt: skip
            if session.unlock_tries >= TRIES_MOST:
                keeper.revoke(session, "too many tries to unlock it")
            else:
                keeper.to_outer(records.Wait(session.number, "that does not unlock it"))
            return
        session.locked, session.unlock_tries = False, 0  # one answer serves once
        entry = events.AccessLocked(
            wall_ns=keeper.wall, session=session.name, person=connection.person, how="unlocked", factor=factor
        )

        def act() -> str:
            if keeper.live.get(session.number) is session:
                keeper.to_inner(records.Unlock(session.number))
            return ""

        def told(text: str, _: bool = False, /) -> None:
            if text and keeper.live.get(session.number) is session:  # it could not be recorded
                session.locked = True
                keeper.to_outer(records.Wait(session.number, clip(text)))

        keeper.when_recorded(entry, act, told)
