"""Both ends of a strand in one process, and what a wire does in between: for tests of what is pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import msgspec

from cofferdam.brokers.diode.inbox import OPEN_BYTES, Inbox
from cofferdam.brokers.diode.outbox import MS, Outbox
from cofferdam.brokers.diode.sealing import AES, Seal
from cofferdam.brokers.diode.wire import unpack
from cofferdam.errors import RemoteProtocolError

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
            worked(self.out)
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
            whole = self.into.quick(packet)
            if whole is None:
                whole = self.into.feed(unpack(packet), self.now)
            while self.into.has_work:
                whole += self.into.work()
            for _, text in whole:
                found += msgspec.msgpack.decode(text, type=list[bytes])
        return found


def worked(out: Outbox) -> Outbox:
    """With parity for all that was closed."""
    while out.has_work:
        out.work()
    return out


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


def stream() -> bytes:
    """Packets of a short exchange, each behind its length (2 bytes)."""
    strand = Strand(shard=64, k=6, m=2, hostile=True)
    for number in range(6):
        strand.out.put(msgspec.msgpack.encode(bytes([number]) * 40), 0, prompt=number % 2 == 0)
    return b"".join(len(packet).to_bytes(2) + packet for packet in strand.packets())


def heard(data: bytes) -> tuple[int, ...]:
    """Any packets into an inbox: within bounds, no record that was not sent, no exception but one that is allowed."""
    strand = Strand(shard=64, k=6, m=2)
    at = 0
    while at + 2 <= len(data):
        packet = data[at + 2 : at + 2 + int.from_bytes(data[at : at + 2])]
        at += 2 + len(packet)
        try:
            found = strand.records([packet])
        except RemoteProtocolError:
            continue
        assert all(len(one) == 40 and one[0] < 6 for one in found)
        assert strand.into.held <= OPEN_BYTES
    counts = strand.into.counts
    return (min(counts.whole, 3), min(counts.spoiled, 3), min(counts.foreign, 3), min(strand.into.open, 4))
