"""Which message has this key already: an index that grows at its end alone, however keys are made.

A unique index in the database would write a page here and there for each key; with random keys and a million messages
that makes a commit many times as dear (measured: 20 times, one by one). Keys are looked up by an 8-byte fingerprint
instead: the newest in a dict, older ones in sealed segments, each a sorted array in memory, whose message ids lie in
the store. 8 bytes of memory a message and 16 MiB for all, and nothing is ever rewritten.

Fingerprints are keyed with the store's own secret, so nobody can choose two keys that meet. Chance may: what is found
is a candidate, to be held against the message itself, and a taken fingerprint moves on to the next number.

Not here: the database (store), what a repeated key means (keeper).
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

SEGMENT: Final = 1 << 16
"""Keys of one segment."""
_MARKS: Final = 1 << 24
"""Bytes of marks. They are touched, and so take memory, where there are keys."""


def next_print(print_: int) -> int:
    """Where a key goes, or is looked for, if another has taken its fingerprint."""
    return print_ + 1 & (1 << 64) - 1


class Segment:
    """`prints` in order. `id`: its row in the store, where the message ids stand in the same order."""

    __slots__ = ("id", "prints")

    def __init__(self, id_: int, prints: bytes) -> None:
        self.id = id_
        self.prints = array("Q")
        self.prints.frombytes(prints)


class Index:
    """`message_at(segment, position)` reads one message id of a sealed segment."""

    def __init__(self, secret: bytes, message_at: Callable[[int, int], int]) -> None:
        self._keyed = hashlib.blake2b(digest_size=8, key=secret)
        self._message_at = message_at
        self.newest: dict[int, int] = {}
        self.segments: list[Segment] = []
        self._marks = bytearray(_MARKS)
        self._marked = 0
        self._bare: list[Segment] = []
        """Those without marks yet."""

    def print_of(self, source: int, key: str) -> int:
        """The fingerprint of a producer's key. `source` names channel and principal."""
        keyed = self._keyed.copy()
        keyed.update(source.to_bytes(8, "big") + key.encode())
        return int.from_bytes(keyed.digest(), "big")

    def fresh(self, source: int, keys: Iterable[str]) -> list[int] | None:
        """The fingerprints of these keys, if none of them can be there, nor two of them be one."""
        keyed = self._keyed.copy()
        keyed.update(source.to_bytes(8, "big"))
        newest, marks, bare = self.newest, self._marks, self._bare
        prints = []
        for key in keys:
            one = keyed.copy()
            one.update(key.encode())
            print_ = int.from_bytes(one.digest(), "big")
            looked = print_ in newest or bare or marks[print_ >> 40] & 1 << (print_ >> 37 & 7)
            if looked and self.find(print_) is not None:
                return None
            prints.append(print_)
        return prints if len(set(prints)) == len(prints) else None

    def find(self, print_: int) -> int | None:
        """The message that may have the key of this fingerprint. If it has another, `next_print` is to be looked at."""
        found = self.newest.get(print_)
        if found is not None:
            return found
        marked = self._marks[print_ >> 40] & 1 << (print_ >> 37 & 7)
        for segment in reversed(self.segments if marked else self._bare):
            prints = segment.prints
            at = bisect_left(prints, print_)
            if at < len(prints) and prints[at] == print_:
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
        self.load(id_, prints)
        self.mark()
        self.newest = {}

    def load(self, id_: int, prints: bytes) -> None:
        """A segment that is in the store. It has no marks: they take most of the time that a start has."""
        segment = Segment(id_, prints)
        self.segments.append(segment)
        self._bare.append(segment)

    def load_newest(self, found: Iterable[tuple[int, int]]) -> None:
        """Keys that are in no segment, as (fingerprint, message), after all segments."""
        some = list(found)
        newest = dict(some)
        if len(newest) == len(some) and all(newest.keys().isdisjoint(segment.prints) for segment in self.segments):
            self.newest = newest
            return
        for print_, message in some:  # two of them have met
            self.add(print_, message)

    def mark(self) -> None:
        """Marks one more segment, if one has no marks."""
        if self._bare:
            self._mark(self._bare.pop())

    def _mark(self, segment: Segment) -> None:
        """One bit for each key: a look at most new keys ends there, however many segments there are."""
        marks = self._marks
        for print_ in segment.prints:
            marks[print_ >> 40] |= 1 << (print_ >> 37 & 7)
        self._marked += len(segment.prints)

    def drop(self, id_: int) -> None:
        """All messages of a segment are gone."""
        self.segments = [segment for segment in self.segments if segment.id != id_]
        self._bare = [segment for segment in self._bare if segment.id != id_]
        if self._marked > 4 * (len(self) + SEGMENT):  # most marks are of keys that are gone
            self._marks, self._marked = bytearray(_MARKS), 0
            self._bare = list(self.segments)

    def __len__(self) -> int:
        return len(self.newest) + sum(len(segment.prints) for segment in self.segments)
