"""Both ends of a strand in one process, and what a wire does in between: for tests of what is pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import msgspec

from cofferdam.brokers.diode.inbox import Inbox
from cofferdam.brokers.diode.outbox import MS, Outbox
from cofferdam.brokers.diode.sealing import AES, Seal
from cofferdam.brokers.diode.wire import unpack

Wire = Callable[[list[bytes]], Iterable[bytes]]


class Strand:
    """An outbox, an inbox, and a clock that goes when it is told to."""

    def __init__(
        self, *, shard: int = 128, k: int = 20, m: int = 4, hostile: bool = False, interleave: int = 4
    ) -> None:
        key = bytes(range(32))
        self.out = Outbox(Seal(7, AES, key), shard, k=k, m=m, hostile=hostile, interleave=interleave)
        self.into = Inbox(Seal(7, AES, key))
        self.now = 0

    def packets(self) -> list[bytes]:
        """All that leaves, with so much time that everything is closed."""
        found: list[bytes] = []
        for _ in range(400):
            self.now += MS
            self.out.tick(self.now)
            while self.out.has_prompt:
                found.append(self.out.prompt())
            while some := self.out.bulk(64, self.now):
                found += some
        assert not self.out.has_bulk and self.out.due() is None and self.out.waiting == 0
        return found

    def records(self, packets: Iterable[bytes]) -> list[bytes]:
        """The records that come out, in the order in which they do."""
        found: list[bytes] = []
        for packet in packets:
            for _, text in self.into.feed(unpack(packet), self.now):
                found += msgspec.msgpack.decode(text, type=list[bytes])
        return found


def lossy(share: float, seed: int) -> Wire:
    chance = random.Random(seed)
    return lambda packets: [packet for packet in packets if chance.random() >= share]


def burst(at: int, count: int) -> Wire:
    return lambda packets: packets[:at] + packets[at + count :]


def shuffled(seed: int) -> Wire:
    def work(packets: list[bytes]) -> list[bytes]:
        mixed = list(packets)
        random.Random(seed).shuffle(mixed)
        return mixed

    return work
