"""Somebody who is neither in the office nor in the plant: a host with a road to the gate's machine and nowhere else.

    away  net0 ── cdlXaw  the machine on which the gate runs (its own addresses, not those of its sides)

What reaches the office's side from there comes by the gate's WireGuard, or not at all.

Not here: the other hosts (layout), the tunnel at this end (lab.remote.tunnel).
"""

from __future__ import annotations

import secrets

from cofferdam.lab.cable import ip

ROAD = "198.18"
"""Addresses for measurements among devices (RFC 2544), which nobody has."""
FIRST_PORT = 10_000


class Away:
    """A namespace and its road. One random number gives both addresses and the port, so that labs do not meet."""

    def __init__(self, space: str, tag: str) -> None:
        self.space = space
        self._end = f"cdl{tag}aw"
        number = secrets.randbelow(1 << 14)
        self._gate, self._host = (f"{ROAD}.{number >> 6}.{(number & 63) * 4 + last}" for last in (1, 2))
        self.endpoint = f"{self._gate}:{FIRST_PORT + number}"
        """Where a WireGuard there finds the gate: below the ports that the kernel gives to who asks for any."""

    def lay(self) -> None:
        """Makes both. Raises: CofferdamError."""
        ip("netns", "add", self.space)
        ip("-n", self.space, "link", "set", "lo", "up")
        ip("link", "add", self._end, "type", "veth", "peer", "name", "net0", "netns", self.space)
        ip("addr", "add", f"{self._gate}/30", "dev", self._end)
        ip("link", "set", self._end, "up")
        ip("-n", self.space, "addr", "add", f"{self._host}/30", "dev", "net0")
        ip("-n", self.space, "link", "set", "net0", "up")
