"""How many answers a network of askers gets: a bucket for each, and one for all. Knows no clock.

A name server is loved by those who forge addresses: it sends more than it gets. So answers are counted by the network
that they go to (IPv4 /24, IPv6 /56), as resolvers of one site share one. Beyond the rate every second question gets
the short answer "ask by TCP", which a forger can do nothing with and a resolver can; the others get none.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

RATE, BURST = 50.0, 100.0
"""Answers a second for one network, and at once."""
TOTAL_RATE, TOTAL_BURST = 2000.0, 4000.0
NETWORKS = 4096
"""Networks that are remembered; the one that asked longest ago is forgotten first."""
ANSWER, SHORT, NOTHING = 0, 1, 2


class _Bucket:
    __slots__ = ("at", "odd", "tokens")

    def __init__(self, burst: float, now: int) -> None:
        self.tokens = burst
        self.at = now
        self.odd = False

    def take(self, rate: float, burst: float, now: int) -> bool:
        self.tokens = min(burst, self.tokens + (now - self.at) * rate / 1e9)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Pace:
    """Asked once for each question by UDP."""

    def __init__(self, now: int) -> None:
        self._networks: OrderedDict[bytes, _Bucket] = OrderedDict()
        self._all = _Bucket(TOTAL_BURST, now)

    def ask(self, source: str, now: int) -> int:
        """ANSWER, SHORT or NOTHING for a question from this address (text) at `now` (monotonic ns)."""
        packed = ipaddress.ip_address(source.partition("%")[0]).packed
        network = packed[:3] if len(packed) == 4 else packed[:7]
        bucket = self._networks.get(network)
        if bucket is None:
            bucket = self._networks[network] = _Bucket(BURST, now)
            if len(self._networks) > NETWORKS:
                self._networks.popitem(last=False)
        else:
            self._networks.move_to_end(network)
        if not bucket.take(RATE, BURST, now):
            bucket.odd = not bucket.odd
            if not bucket.odd:
                return NOTHING
            return SHORT if self._all.take(TOTAL_RATE, TOTAL_BURST, now) else NOTHING
        return ANSWER if self._all.take(TOTAL_RATE, TOTAL_BURST, now) else NOTHING
