"""When the next connection to a device may be opened: pauses after failures, and those that the device wants.

A pause after failures fails what waits; while the device is left alone because the policy says that it wants it so,
what waits goes on waiting. Not here: opening connections, and what waits (device).
"""

from __future__ import annotations

from collections.abc import Callable

from cofferdam.crossing.reactor import Reactor, Timer
from cofferdam.limits import Limits
from cofferdam.model import Manners


class Approach:
    """Times: monotonic ns. `again`: called when the device has been left alone for long enough."""

    __slots__ = ("_again", "_alone", "_backoff", "_clock", "_limits", "_reactor", "retry_at", "shut_until")

    def __init__(self, limits: Limits, reactor: Reactor, clock: Callable[[], int], again: Callable[[], None]) -> None:
        self._limits = limits
        self._reactor = reactor
        self._clock = clock
        self._again = again
        self._backoff = 0.0
        self._alone: Timer | None = None
        self.retry_at = 0
        """Until then what wants a connection fails."""
        self.shut_until = 0
        """For what it has done, nothing is taken from the device either."""

    @property
    def alone(self) -> bool:
        """The device is left alone: no connection is opened now, and what waits, waits."""
        return self._alone is not None

    def ended(self, manners: Manners) -> None:
        """A connection has ended, whoever ended it."""
        if not manners.reconnect_delay_ms:
            return
        if self._alone is not None:
            self._alone.cancel()
        self._alone = self._reactor.call_at(self._clock() + manners.reconnect_delay_ms * 1_000_000, self._over)

    def _over(self) -> None:
        self._alone = None
        self._again()

    def failed(self, manners: Manners) -> bool:
        """No connection came about. Whether what waits goes on waiting: once, where the device refuses for a while. Its
        clock may have started after ours, or the gate before this one has just left it."""
        first = not self._backoff
        limits = self._limits
        self._backoff = min(self._backoff * 2 or limits.asset_backoff_seconds, limits.asset_backoff_max_seconds)
        if first and manners.reconnect_delay_ms:
            self.ended(manners)
            return True
        self.retry_at = self._clock() + int(self._backoff * 1e9)
        return False

    def up(self) -> None:
        """A connection is up."""
        self._backoff, self.retry_at = 0.0, 0

    def shut(self, until: int) -> None:
        """Nothing is opened, and nothing taken, until then."""
        self.retry_at = self.shut_until = max(self.retry_at, until)
