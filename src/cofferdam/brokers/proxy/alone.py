"""Questions that come alone, by UDP: each is a client of its own, for as long as its answer takes.

So a question has a principal, a verdict, and an end as any other has. Its sender may be somebody else than the address
says, so that few are taken of one address, none has more than one answer, and what is no question has none.

Not here: what may be asked so (the protocol's machine, `Facing.alone`), sockets (outer_datagrams).
"""

from __future__ import annotations

from collections.abc import Callable

from cofferdam.brokers.kit.pace import Bucket, draw, forget_full
from cofferdam.brokers.kit.transport import Transport
from cofferdam.crossing.reactor import Reactor

A_SECOND = 10
"""Questions of one address that are taken in a second."""
AT_ONCE = 4
"""Those of one address that wait for the asset."""
OF_ALL = 32
"""Those of all addresses that wait: whoever asks in many names takes no more places from those who have connected."""
ADDRESSES = 1024
"""Addresses whose pace is remembered."""
LIFE_SECONDS = 10.0
"""One that has no answer after so long gets none."""


class Alone(Transport):
    """One question. `send`: puts its answer into a datagram; `ended`: it is over, however."""

    def __init__(self, reactor: Reactor, send: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._reactor = reactor
        self._send = send
        self._ended = ended
        self._open = True
        self._timer = reactor.call_in(LIFE_SECONDS, lambda: self.over("no answer in time"))

    def write(self, data: bytes) -> None:
        if self._open:
            self._open = False
            self._send(data)
            self._reactor.later(lambda: self._finish("answered"))

    def close(self) -> None:
        self._open = False
        self._timer.cancel()
        self._ended()

    def over(self, reason: str) -> None:
        """There will be no answer."""
        if self._open:
            self._open = False
            self._finish(reason)

    def _finish(self, reason: str) -> None:
        self._timer.cancel()
        self._ended()
        self.on_closed(reason)

    def pause(self) -> None:
        """One datagram is all that comes."""

    def resume(self) -> None:
        """See pause."""


class Askers:
    """Who asks so, and how fast."""

    def __init__(self) -> None:
        self._paces: dict[str, Bucket] = {}
        self._waiting: dict[str, int] = {}
        self._count = 0

    def take(self, source: str, now: int) -> bool:
        """Whether one more question of an address is taken. `now`: monotonic ns."""
        rate, burst = A_SECOND * 1e-9, float(A_SECOND)
        if len(self._paces) >= ADDRESSES and source not in self._paces:
            forget_full(self._paces, now, rate, burst)
            if len(self._paces) >= ADDRESSES:
                return False
        if self._count >= OF_ALL or self._waiting.get(source, 0) >= AT_ONCE:
            return False
        return draw(self._paces, source, now, rate, burst)

    def begin(self, source: str) -> Callable[[], None]:
        """One waits; the call ends that, and does nothing a second time."""
        self._waiting[source] = self._waiting.get(source, 0) + 1
        self._count += 1
        left = [1]

        def end() -> None:
            if left:
                left.clear()
                self._count -= 1
                self._waiting[source] -= 1
                if not self._waiting[source]:
                    del self._waiting[source]

        return end
