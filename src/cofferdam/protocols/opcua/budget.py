"""How often strangers may have us do what is dear: work of a private key, looks at a password.

There is a bound for each source, and one for all.

Not here: what is dear (trust), requests in general (brokers.kit.pace).
"""

from __future__ import annotations

import ipaddress

SOURCES = 10_000
"""Sources that are remembered."""


class Budget:
    """`each` in a second of one source, `together` of all; at once those of `seconds`. Times: monotonic ns."""

    __slots__ = ("_all", "_each", "_seconds", "_sources", "_together")

    def __init__(self, each: int, together: int, seconds: int = 1) -> None:
        self._each, self._together, self._seconds = float(each), float(together), seconds
        self._sources: dict[str, tuple[float, int]] = {}  # what is left, and of when
        self._all = (self._together * seconds, 0)

    def spend(self, source: str, now: int) -> bool:
        """Whether this source may have one more. What a source is refused costs the others nothing."""
        source = _network(source)
        full = self._each * self._seconds
        left = self._left(self._sources.get(source, (full, now)), now, self._each)
        left_all = self._left(self._all, now, self._together)
        if left < 1.0 or left_all < 1.0:
            return False
        if len(self._sources) >= SOURCES:
            # Those that are full again say nothing that a new one would not.
            self._sources = {
                name: one for name, one in self._sources.items() if self._left(one, now, self._each) < full
            }
        self._sources[source], self._all = (left - 1.0, now), (left_all - 1.0, now)
        return True

    def _left(self, kept: tuple[float, int], now: int, rate: float) -> float:
        return min(rate * self._seconds, kept[0] + (now - kept[1]) * rate * 1e-9)


def _network(source: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in source:
        return source
    try:
        return str(int(ipaddress.IPv6Address(source.partition("%")[0])) >> 64)
    except ValueError:
        return source
