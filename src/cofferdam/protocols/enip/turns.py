"""Whose frame goes to the device next, where requests of many steps let others go in between.

Theory. A device takes so many requests at a time; `places` of them are on their way. A list of a controller's tags has
hundreds of steps, and with the only place it would keep everybody else waiting until its end. So what goes *aside*
keeps no place between its steps: when an answer comes, first goes what waits with a place of its own, and then the next
step of one that goes aside. Each is thus held up by one step of the other.

Not here: what the steps are (client), who waits for a place (brokers).
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

from cofferdam.protocols.enip import messages as m

LONG: Final = frozenset({m.ListTags, m.DescribeStructure})
"""What has many steps, and lets others go in between."""
ASIDE: Final = 16
"""Requests that go aside at one time; further ones keep their places."""
_CONTEXT: Final = struct.Struct("<IHH")
"""A conversation's token, with its step in between: 48 bits are not used up (32 are, in days, by a busy gate)."""


def context_of(token: int, step: int) -> bytes:
    """The eight bytes by which an answer is known that the device repeats."""
    return _CONTEXT.pack(token & 0xFFFF_FFFF, step, token >> 32 & 0xFFFF)


def named(context: bytes) -> tuple[int, int]:
    """The token and the step by which an answer is known."""
    token, step, high = _CONTEXT.unpack(context)
    return token | high << 32, step


class Turns:
    """Frames of one connection, by the token of their request."""

    __slots__ = ("_places", "_steps", "_under_way", "_waiting", "aside")

    def __init__(self, places: int) -> None:
        self._places = places
        self._under_way: set[int] = set()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._steps: deque[tuple[int, bytes]] = deque()
        self.aside: set[int] = set()
        """Requests that take no place for good."""

    def go(self, token: int, frame: bytes) -> bytes:
        """The frame of a request, if it goes now; else it goes when there is a place."""
        if len(self._under_way) < self._places:
            self._under_way.add(token)
            return frame
        self._waiting.append((token, frame))
        return b""

    def step(self, token: int, frame: bytes, aside: bool) -> bytes:
        """The frames that go now that a request has come to its next step. `aside`: it goes aside, if it can."""
        if aside and (token in self.aside or len(self.aside) < ASIDE):
            self.aside.add(token)
            self._steps.append((token, frame))
            return self.next()
        return self.go(token, frame) + self.next()

    def answered(self, token: int) -> None:
        """A frame has its answer: its place is free."""
        self._under_way.discard(token)

    def ended(self, token: int) -> bytes:
        """What took one step has its answer: the frames that go now."""
        self._under_way.discard(token)
        return self.next() if self._waiting or self._steps else b""

    def over(self, token: int) -> None:
        """A request is over, whatever of it is on its way or waits."""
        self._under_way.discard(token)
        self.aside.discard(token)
        for line in (self._waiting, self._steps):
            for one in [one for one in line if one[0] == token]:
                line.remove(one)

    def next(self) -> bytes:
        """The frames that go now."""
        found = b""
        while len(self._under_way) < self._places and (self._waiting or self._steps):
            token, frame = (self._waiting or self._steps).popleft()
            self._under_way.add(token)
            found += frame
        return found
