"""Packets of streams that a capture shows, beside the connections that opened them: how many, and of which nobody knows
what opened them.

Not here: whose they are (conversation), what they write (simulate).
"""

from __future__ import annotations

from collections.abc import Iterator

from cofferdam.capture.conversation import FrameSeen
from cofferdam.capture.frames import address_text
from cofferdam.capture.limits import CaptureLimits

SHOWN = 24
"""Streams without an opening that are told one by one."""


class _Stream:
    __slots__ = ("count", "first_ns", "last_ns", "size")

    def __init__(self, size: int, first_ns: int) -> None:
        self.count = 0
        self.size = size
        self.first_ns = self.last_ns = first_ns


class SeenStreams:
    """All of one capture. `frames`: packets."""

    def __init__(self, limits: CaptureLimits) -> None:
        self.frames = 0
        self._most = limits.groups
        self._unknown: dict[tuple[bytes, bytes, int], _Stream] = {}  # by source, target, id

    def add(self, frame: FrameSeen) -> None:
        """One packet."""
        self.frames += 1
        key = (frame.source, frame.target, frame.number)
        if frame.asked is not None or (key not in self._unknown and len(self._unknown) >= self._most):
            return
        seen = self._unknown.setdefault(key, _Stream(frame.size, frame.time_ns))
        seen.count, seen.last_ns = seen.count + 1, frame.time_ns

    def lines(self) -> Iterator[str]:
        """What is to be said of those that nothing in the capture has opened, as comments of a policy."""
        if not self._unknown:
            return
        total = sum(seen.count for seen in self._unknown.values())
        yield f"# {total} packets are of streams whose opening is not in the capture: what is in them, nobody knows."
        yield "# Capture again from before the client starts. By the bytes of a packet, and how often one came:"
        for (source, target, number), seen in [*self._unknown.items()][:SHOWN]:
            every = (seen.last_ns - seen.first_ns) / 1e6 / max(1, seen.count - 1)
            often = f", every {every:.1f} ms" if seen.count > 1 else ""
            ends = f"{address_text(source)} to {address_text(target)}"
            yield f"#   {ends}, connection {number:#010x}: {seen.count} of {seen.size} bytes{often}"
        if len(self._unknown) > SHOWN:
            yield f"#   and {len(self._unknown) - SHOWN} more"
