"""Servers that refuse the next connection for a while after one has ended, as a capture shows them.

Only what leaves no other reading counts: somebody was refused while nobody was connected, was taken later, and nobody
was ever taken as early after an end. A server that restarts refuses as well, so it takes two such times. Not here: what
a policy says about it (learn).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from typing import NamedTuple

from cofferdam.capture.limits import CaptureLimits
from cofferdam.capture.streams import TcpFlow

LONGEST = 30_000
"""The longest that a policy may say (ms)."""
TIMES = 2


class Refusal(NamedTuple):
    """`refused`: the latest after the end of a connection that another was refused; `taken`: the soonest after that
    that one was taken (ms). `times`: how often it was so."""

    times: int
    refused: int
    taken: int

    def __str__(self) -> str:
        return (
            f"{self.times} times it refused the next connection, up to {self.refused} ms after one had ended; it took "
            f"none before {self.taken} ms"
        )

    @property
    def delay(self) -> int:
        """What to say as `reconnect_delay` (ms): what was seen to be long enough, if it is not far too long."""
        enough = self.taken if self.taken <= 4 * self.refused else 2 * self.refused
        return min(max(-(-enough // 10) * 10, 10), LONGEST)


class Reconnects:
    """What the connections of a capture were, by server. Times: ns of the capture."""

    def __init__(self, limits: CaptureLimits) -> None:
        self._limits = limits
        self._servers: OrderedDict[tuple[bytes, int], tuple[list[tuple[int, int]], list[int]]] = OrderedDict()
        self._count = 0

    def ended(self, flow: TcpFlow) -> None:
        """A connection is over, or has never come about."""
        held = flow.from_server.isn >= 0 or flow.from_server.delivered or flow.from_client.delivered
        refused = not held and flow.ended == "reset" and flow.handshake and flow.from_server.seen
        if self._count >= self._limits.flows or not (held or refused):
            return
        self._count += 1
        stood, tried = self._servers.setdefault((flow.server, flow.server_port), ([], []))
        if refused:
            tried.append(flow.first_ns)
        else:
            stood.append((flow.first_ns, flow.ended_ns))

    def of(self, server: bytes, port: int) -> Refusal | None:
        """Whether it refuses the next connection for a while."""
        stood, tried = self._servers.get((server, port), ([], []))
        stood = sorted(stood)
        ends: list[int] = []  # when the last of those that stood together ended
        gaps: list[int] = []  # from there to the next that was taken
        starts: list[int] = []
        for start, end in stood:
            if ends and start <= ends[-1]:
                ends[-1] = max(ends[-1], end)
                continue
            gaps += [start - ends[-1]] if ends else []
            starts.append(start)
            ends.append(end)
        late: dict[int, int] = {}  # by the number of the gap: the latest that was refused in it
        for time in tried:
            at = bisect_left(starts, time) - 1
            if 0 <= at < len(gaps) and time > ends[at]:
                late[at] = max(late.get(at, 0), time - ends[at])
        refused = max(late.values(), default=0)
        if len(late) < TIMES or min(gaps) <= refused or refused > LONGEST * 1_000_000:
            return None
        return Refusal(len(late), refused // 1_000_000, min(gaps) // 1_000_000)
