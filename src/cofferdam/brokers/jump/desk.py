"""What those who act for people and operators need of the keeper.

Not here: the keeper (keeper_part).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cofferdam.audit.client import AuditClient
from cofferdam.brokers.jump.accounts import Accounts
from cofferdam.brokers.jump.certified import Certified
from cofferdam.brokers.jump.deciding import Deciding, Session
from cofferdam.brokers.jump.shown import Shown
from cofferdam.brokers.jump.signin import SignIn


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

    def when_recorded(self, entry: Any, act: Callable[[], str], tell: Callable[[str], None]) -> None:
        """Does something once its entry is in the log, and tells what came of it. `act` may raise GateError."""

    def to_outer(self, record: Any) -> None: ...

    def to_inner(self, record: Any) -> None: ...

    def revoke(self, session: Session, reason: str) -> None:
        """Ends a session now."""

    def look_again(self) -> int:
        """Ends the sessions that may not go on. Returns how many."""
