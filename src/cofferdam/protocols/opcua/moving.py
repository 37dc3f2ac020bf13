"""Sessions that outlive their connection, until their client activates them on another one (OPC 10000-4, 5.7.3), or
their time-out is over.

What is kept is who the session is of, its last nonce, and which subscriptions it had; these are kept as those of any
session that is over (kept), and nothing stands at the asset meanwhile. Whoever activates it has to come from the same
address with the same certificate in the same way, sign with its key over the last nonce, and log in as the same user; a
token alone opens nothing where there is security. A session that still has a connection is taken from it.

Not here: activating (server), subscriptions (kept).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cofferdam.protocols.opcua.builtin_types import NodeId

KEPT, KEPT_OF_ONE = 200, 20
"""Sessions without a connection in a part, and of one whereabouts. The oldest goes."""


@dataclass(frozen=True)
class Where:
    """Where a session is activated: the same has to be said of where it is activated anew."""

    asset: str
    source: str
    certificate: str
    policy: str
    mode: int
    uris: tuple[str, ...]


class Held:
    """One session. `server`: the machine of its connection; None where it has none."""

    __slots__ = (
        "application", "nonce", "server", "session", "subscriptions", "timeout", "token", "until", "user", "where",
    )  # fmt: skip

    def __init__(self, token: NodeId, session: NodeId, where: Where, server: Any) -> None:
        self.token = token
        self.session = session
        self.where = where
        self.server: Any = server
        self.nonce = b""
        self.user = ""
        self.application = ""
        self.subscriptions: tuple[int, ...] = ()
        self.timeout = 0
        self.until = 0


class Sessions:
    """All of a part, by their tokens."""

    def __init__(self) -> None:
        self._held: dict[bytes, Held] = {}
        self._parked: dict[bytes, Held] = {}  # the oldest first

    def hold(self, held: Held) -> None:
        """It is activated, by a connection."""
        self._parked.pop(held.token.id, None)  # type: ignore[arg-type]
        self._held[held.token.id] = held  # type: ignore[index]

    def forget(self, token: NodeId) -> None:
        """It is over."""
        self._held.pop(token.id, None)  # type: ignore[arg-type]
        self._parked.pop(token.id, None)  # type: ignore[arg-type]

    def park(self, held: Held, now: int) -> None:
        """Its connection is gone. `now`: monotonic ns."""
        key: Any = held.token.id
        if self._held.pop(key, None) is None or held.until <= now:
            return
        held.server = None
        self._parked[key] = held
        for old in [token for token, one in self._parked.items() if one.until <= now]:
            del self._parked[old]
        mine = [token for token, one in self._parked.items() if one.where == held.where]
        for old in mine[:-KEPT_OF_ONE]:
            del self._parked[old]
        while len(self._parked) > KEPT:
            del self._parked[next(iter(self._parked))]

    def find(self, token: NodeId, where: Where, now: int) -> Held | None:
        """The session of a token that may be activated there. `now`: monotonic ns."""
        key: Any = token.id
        if not isinstance(key, bytes):
            return None
        found = self._held.get(key) or self._parked.get(key)
        if found is None or found.where != where or (found.server is None and found.until <= now):
            return None
        return found

    def __len__(self) -> int:
        return len(self._parked)
