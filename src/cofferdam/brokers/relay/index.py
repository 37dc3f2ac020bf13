"""Which message has this key already: an index that grows at its end alone, however keys are made.

A unique index in the database would write a page here and there for each key; with random keys and a million messages
that makes a commit many times as dear (measured: 20 times, one by one). Keys are looked up by an 8-byte fingerprint
instead: the newest in a dict, older ones in sealed segments, each a sorted array in memory, whose message ids lie in
the store. 8 bytes of memory a message, and nothing is ever rewritten.

Fingerprints are keyed with the store's own secret, so nobody can choose two keys that meet. Chance may: what is found
is a candidate, to be held against the message itself, and a taken fingerprint moves on to the next number.

Not here: the database (store), what a repeated key means (keeper).
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable
from typing import Final

SEGMENT: Final = 1 << 16
"""Keys of one segment."""
_REST: Final = 52
"""Bits of a fingerprint behind its first 12."""


def next_print(print_: int) -> int:
    """Where a key goes, or is looked for, if another has taken its fingerprint."""
    return print_ + 1 & (1 << 64) - 1


class Segment:
    """`prints` in order, and where those with the same first bits begin (`starts`), so that a look is short. `id`: its
    row in the store, where the message ids stand in the same order."""

    __slots__ = ("id", "prints", "starts")

    def __init__(self, id_: int, prints: bytes) -> None:
        self.id = id_
        self.prints = array("Q")
        self.prints.frombytes(prints)
        self.starts = array("I", (bisect_left(self.prints, first << _REST) for first in range(1 << 64 - _REST)))
        self.starts.append(len(self.prints))


class Index:
    """`message_at(segment, position)` reads one message id of a sealed segment."""

    def __init__(self, secret: bytes, message_at: Callable[[int, int], int]) -> None:
        self._secret = secret
        self._message_at = message_at
        self.newest: dict[int, int] = {}
        self.segments: list[Segment] = []

    def print_of(self, source: int, key: str) -> int:
        """The fingerprint of a producer's key. `source` names channel and principal."""
        said = source.to_bytes(8, "big") + key.encode()
        return int.from_bytes(hashlib.blake2b(said, digest_size=8, key=self._secret).digest(), "big")

    def find(self, print_: int) -> int | None:
        """The message that may have the key of this fingerprint. If it has another, `next_print` is to be looked at."""
        found = self.newest.get(print_)
        if found is not None:
            return found
        first = print_ >> _REST
        for segment in reversed(self.segments):
            prints, end = segment.prints, segment.starts[first + 1]
            at = bisect_left(prints, print_, segment.starts[first], end)
            if at < end and prints[at] == print_:
                return self._message_at(segment.id, at)
        return None

    def add(self, print_: int, message: int) -> int:
        """A message with a new key. Returns the fingerprint that it is found by (and put at, in `newest`)."""
        while self.find(print_) is not None:
            print_ = next_print(print_)
        self.newest[print_] = message
        return print_

    def sealed(self) -> tuple[bytes, bytes]:
        """The newest as a segment: (fingerprints, message ids), in the same order."""
        prints = array("Q", sorted(self.newest))
        return prints.tobytes(), array("Q", map(self.newest.__getitem__, prints)).tobytes()

    def seal(self, id_: int, prints: bytes) -> None:
        """The newest are in the store as segment `id_` now."""
        self.segments.append(Segment(id_, prints))
        self.newest = {}

    def __len__(self) -> int:
        return len(self.newest) + sum(len(segment.prints) for segment in self.segments)
