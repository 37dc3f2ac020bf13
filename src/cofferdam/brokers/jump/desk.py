"""What those who act for people and operators need of the keeper.

Not here: the keeper (keeper_part).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cofferdam.audit.client import AuditClient
from cofferdam.audit.lines import escaped
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.brokers.jump.certified import Certified
from cofferdam.brokers.jump.deciding import Deciding, Session
from cofferdam.brokers.jump.shown import Shown
from cofferdam.brokers.jump.signin import SignIn


class Tell(Protocol):
    """Tells whoever asked what came of it. `refused`: nothing did, and the text says why."""

    def __call__(self, text: str, refused: bool = False, /) -> None: ...


def answers(asked: Asked) -> Tell:
    """The same for an operator."""

    def tell(text: str, refused: bool = False, /) -> None:
        if refused:
            asked.refuse(text)
        else:
            asked.answer(text)

    return tell


def to_sign(what: str, said: Mapping[str, object]) -> str:
    """A text for people to sign: what it is, and a line for each thing that it says."""
    return "\n".join([f"cofferdam {what}", *(f"{name}: {escaped(str(value))}" for name, value in said.items())]) + "\n"


class Desk(Protocol):
    """The keeper, as they see it. `live`: sessions by number. Times: `now` monotonic ns, `wall` UTC ns."""

    accounts: Accounts
    deciding: Deciding
    signin: SignIn
    certified: Certified
    audit: AuditClient
    live: dict[int, Session]
    shown: Shown

    @property
    def now(self) -> int: ...

    @property
    def wall(self) -> int: ...

    def when_recorded(self, entry: Any, act: Callable[[], str], tell: Tell) -> None:
        """Does something once its entry is in the log, and tells what came of it. `act` may raise GateError."""

    def to_outer(self, record: Any) -> None: ...

    def to_inner(self, record: Any) -> None: ...

    def revoke(self, session: Session, reason: str) -> None:
        """Ends a session now."""

    def look_again(self) -> int:
        """Ends the sessions that may not go on. Returns how many."""
