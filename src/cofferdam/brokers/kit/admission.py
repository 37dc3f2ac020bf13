"""Who may open one more connection: limits by source, and places apart for those whom policy does not know.

An address that no principal stands for gets refusals and a place in the log; it must not get the places of others.

Not here: what a connection may ask (brokers), how the limits are told (limit_notes).
"""

from __future__ import annotations

from cofferdam.brokers.kit.pace import Bucket, draw, forget_full, is_empty
from cofferdam.limits import Limits

TOO_FAST = ("client_connects_per_second", "too many new connections a second")


class Admission:
    """The open connections of strangers, and how fast each source connects. Times: monotonic ns."""

    def __init__(self) -> None:
        self._strangers: dict[str, int] = {}
        self._connects: dict[str, Bucket] = {}

    def too_fast(self, source: str, limits: Limits, now: int) -> tuple[str, str] | None:
        """Takes note of a connection; the limit that it hits, and its sentence, if it comes too soon after others."""
        rate = limits.client_connects_per_second
        if draw(self._connects, source, now, rate * 1e-9, rate * 4):
            return None
        return TOO_FAST

    def is_hasty(self, source: str, limits: Limits, now: int) -> bool:
        """Whether one more connection of a source would come too soon. Takes note of nothing."""
        return is_empty(self._connects, source, now, limits.client_connects_per_second * 1e-9)

    def no_room(
        self, source: str, stranger: bool, limits: Limits, connections: int, of_source: int
    ) -> tuple[str, str] | None:
        """The limit that one more connection would pass, and its sentence. `connections` are open in all, `of_source`
        from this address."""
        if stranger and sum(self._strangers.values()) >= limits.stranger_connections:
            return "stranger_connections", f"more than {limits.stranger_connections}"
        if stranger and self._strangers.get(source, 0) >= limits.stranger_connections_per_address:
            return "stranger_connections_per_address", f"more than {limits.stranger_connections_per_address}"
        if connections >= limits.client_connections:
            return "client_connections", f"more than {limits.client_connections}"
        if of_source >= limits.client_connections_per_address:
            return "client_connections_per_address", f"more than {limits.client_connections_per_address}"
        return None

    def opened(self, source: str, stranger: bool) -> None:
        """The connection is open."""
        if stranger:
            self._strangers[source] = self._strangers.get(source, 0) + 1

    def closed(self, source: str, stranger: bool) -> None:
        """A connection that was opened is closed."""
        if stranger:
            left = self._strangers[source] - 1
            if left:
                self._strangers[source] = left
            else:
                del self._strangers[source]

    def tick(self, limits: Limits, now: int) -> None:
        """Forgets what says nothing any more."""
        rate = limits.client_connects_per_second
        forget_full(self._connects, now, rate * 1e-9, rate * 4)
