"""Blocks on their way out: records in, packets out. No I/O, and no clock but what it is told.

Two classes. A *prompt* block is small and closed 2 ms after its first record at the latest; each of its shards has a
parity shard, sent some ms later, so that one burst does not take both. A *bulk* block is large (1000 + 100 unless set),
and several of them are interleaved, so that a burst is spread over them. Prompt packets go first.

Not here: pace (sender), what the records are (records).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import struct
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from cofferdam.brokers.diode.coding import encoding, parity
from cofferdam.brokers.diode.sealing import TAG, Seal
from cofferdam.brokers.diode.wire import (
    AT,
    AT_END,
    BULK,
    DIGESTS,
    HEAD_BYTES,
    PROMPT,
    PROMPT_SHARDS,
    SHARDS_MOST,
    STEP,
    pack,
    parity_most,
)
from cofferdam.errors import LocalProtocolError

MS: Final = 1_000_000
PROMPT_NS: Final = 1 * MS
"""A prompt block is closed so long after its first record, and at most a millisecond later: the loop sleeps for whole
ones."""
PARITY_NS: Final = 5 * MS
"""Parity of a prompt block leaves so much later than its data."""
BULK_NS: Final = 100 * MS
"""A bulk block that does not fill is closed so long after its first record."""
PROMPT_DATA: Final = 8
"""Data shards of a prompt block, where so many hold the largest prompt record; PROMPT_SHARDS halves that otherwise."""
PROMPT_ROOM: Final = (8 << 10) + 128
"""Bytes of that record, encoded, and of what stands around it."""
INTERLEAVE: Final = 8
"""Bulk blocks that leave at the same time, at most."""
WOVEN_BYTES: Final = 8_000_000
"""So much is enough of them: six full blocks of packets of 1,500 bytes, one of 9,000. A burst lasts for a time, and
takes fewer of packets that are larger."""
DIGEST: Final = 8
"""Bytes of a packet's digest."""
_LENGTH: Final = struct.Struct(">I")
_INDEX: Final = tuple(index.to_bytes(2) for index in range(SHARDS_MOST))
_ARRAY: Final = struct.Struct(">BI")


def digest(packet: bytes) -> bytes:
    """What stands for a packet in the list that a hostile wire needs."""
    return hashlib.sha256(packet).digest()[:DIGEST]


def digests_of(shard: int) -> int:
    """How many digests a packet of a list has, for shards of so many bytes."""
    return (shard - TAG - 1) // DIGEST


@functools.cache
def parity_for(k: int, full: int, m: int) -> int:
    """Parity for a block that did not fill: as much as bears the loss that a full one (`full` and `m`) bears, with the
    same certainty. Loss is spread more unevenly over few packets, so they need more for each."""
    share = min(0.45, m / full / 2)
    certain = (m - share * (full + m)) / math.sqrt(share * (1 - share) * (full + m))
    wanted = 2
    while wanted < parity_most(k):
        spread = certain * math.sqrt(share * (1 - share) * (k + wanted))
        if wanted >= share * (k + wanted) + spread:
            break
        wanted += 1
    return min(wanted, SHARDS_MOST - k)


class _Open:
    """A block that records go into. `room`: for all of it, which blocks of a class use one after the other. Records
    stand in it where they will be sealed, behind the length. `at`: what was put of bulk before it."""

    def __init__(self, now: int, room: memoryview, at: int) -> None:
        self.since, self.at = now, at
        self.text = room[_LENGTH.size :]
        self.count = 0
        self.size = _ARRAY.size


def _room(size: int) -> memoryview:
    return memoryview(bytearray(size))


class _Sealed(NamedTuple):
    """A bulk block that has no parity yet."""

    since: int
    at: int
    number: int
    k: int
    m: int
    shards: list[bytes]


class _Ready(NamedTuple):
    """A bulk block that is closed."""

    since: int
    at: int
    total: int
    packets: Iterator[bytes]


def _packets(head: bytes, shards: Sequence[bytes]) -> Iterator[bytes]:
    """Those of a block, each made when it is to leave: a block is large, and a copy of it costs as much as its seal."""
    before, after = head[:AT], head[AT_END:]
    left = deque(shards)
    del shards  # what has left is free, and not only when all has
    for index in range(len(left)):
        yield before + _INDEX[index] + after + left.popleft()


def _woven(blocks: Sequence[_Ready]) -> Iterator[bytes]:
    """They end together: a short one that began with the others would be there long before the records before it."""
    most = max(block.total for block in blocks)
    rows = [itertools.chain(itertools.repeat(None, most - one.total), one.packets) for one in blocks]
    for row in zip(*rows, strict=True):
        for packet in row:
            if packet is not None:
                yield packet


class Outbox:
    """For one epoch."""

    def __init__(
        self,
        seal: Seal,
        shard: int,
        *,
        k: int = 1000,
        m: int = 100,
        hostile: bool = False,
        interleave: int = INTERLEAVE,
    ) -> None:
        """`shard`: bytes; `k` and `m`: of bulk blocks; `hostile`: blocks are sent with lists of their packets."""
        self._seal = seal
        self.shard = shard
        self._k, self._m = k, m
        self._hostile = hostile
        self._interleave = interleave
        self._numbers = {PROMPT: itertools.count(1), BULK: itertools.count(1)}
        self._open: dict[tuple[int, int], _Open] = {}
        """By kind, and the parity of a full block."""
        self._prompt_data = min(PROMPT_SHARDS // 2, max(PROMPT_DATA, -(-PROMPT_ROOM // shard)))
        self._rooms = {(PROMPT, 0): _room(self._prompt_data * shard), (BULK, m): _room(k * shard)}
        self._prompt: deque[tuple[bytes, int]] = deque()
        """Packets, and how many bytes of records have left with each."""
        self.prompt_left = 0
        """Bytes of prompt records that have left."""
        self._late: deque[tuple[int, list[bytes]]] = deque()
        self._sealed: deque[_Sealed] = deque()
        self._making: Generator[None, None, None] | None = None
        self._ready: deque[_Ready] = deque()
        self._bulk: Iterator[bytes] = iter(())
        self._left = 0
        """Packets of the bulk blocks that leave now, and what was put before the first of them."""
        self._leaving = 0
        self.waiting = 0
        """Bytes of bulk records that have not left."""
        self._blocks = 0
        """Bytes of blocks that are ready."""
        self.blocks = 0

    @property
    def prompt_room(self) -> int:
        """Bytes of the largest record that goes by a prompt block."""
        return self._prompt_data * self.shard - TAG - 16

    @property
    def bulk_room(self) -> int:
        """Bytes of the largest record."""
        return self._k * self.shard - TAG - 16

    def put(self, record: bytes, now: int, *, prompt: bool, parity: int = 0, at: int = 0) -> None:
        """A record, encoded; `parity`: of its block, if that is bulk; 0: as all; `at`: bytes of bulk that were put
        before it. Raises: LocalProtocolError, where no block is large enough."""
        kind = PROMPT if prompt and len(record) <= self.prompt_room else BULK
        room = self.prompt_room if kind == PROMPT else self.bulk_room
        if len(record) > room:
            raise LocalProtocolError(f"a record of {len(record)} bytes; a block holds {room}")
        m = 0 if kind == PROMPT else parity or self._m
        block = self._open.get((kind, m))
        if block is not None and block.size + len(record) > room:
            self._close(kind, m, now)
            block = None
        if block is None:
            whole = self._rooms.get((kind, m))
            if whole is None:
                whole = self._rooms[kind, m] = _room(self._k * self.shard)
            block = self._open[kind, m] = _Open(now, whole, at)
        block.text[block.size : block.size + len(record)] = record
        block.count += 1
        block.size += len(record)
        if kind == BULK:
            self.waiting += len(record)

    def tick(self, now: int) -> None:
        """Closes what has waited long enough, and takes up parity that is due."""
        for (kind, m), block in list(self._open.items()):
            if now - block.since >= (PROMPT_NS if kind == PROMPT else BULK_NS):
                self._close(kind, m, now)
        if self._ready and not self._left:
            self._weave(now)
        while self._late and self._late[0][0] <= now:
            self._prompt += ((packet, 0) for packet in self._late.popleft()[1])

    def due(self) -> int | None:
        """When `tick` has something to do; None: never, as it stands."""
        times = [block.since + (PROMPT_NS if kind == PROMPT else BULK_NS) for (kind, _), block in self._open.items()]
        times += [self._late[0][0]] if self._late else []
        times += [self._ready[0].since + BULK_NS // 2] if self._ready and not self._left else []
        return min(times, default=None)

    @property
    def has_prompt(self) -> bool:
        return bool(self._prompt)

    @property
    def has_bulk(self) -> bool:
        return bool(self._left or self._ready)

    def prompt(self) -> bytes:
        """The next prompt packet."""
        packet, left = self._prompt.popleft()
        self.prompt_left += left
        return packet

    def bulk(self, most: int, now: int) -> list[bytes]:
        """The next bulk packets, all of one size but those of lists, at most so many."""
        if not self._left:
            self._weave(now)
        found = list(itertools.islice(self._bulk, most))
        self._left -= len(found)
        return found

    def _weave(self, now: int) -> None:
        """Takes up the next blocks: several at a time, or what there is where no more will come soon."""
        enough = len(self._ready) >= self._interleave or self._blocks >= WOVEN_BYTES
        if not self._ready or (not enough and now - self._ready[0].since < BULK_NS // 2):
            return
        blocks = [self._ready.popleft() for _ in range(min(self._interleave, len(self._ready)))]
        self._left = sum(block.total for block in blocks)
        self._leaving = min(block.at for block in blocks)
        self._blocks -= self._left * self.shard
        self._bulk = _woven(blocks)

    def _close(self, kind: int, full_m: int, now: int) -> None:
        block = self._open.pop((kind, full_m))
        whole = self._rooms[kind, full_m]
        _ARRAY.pack_into(block.text, 0, 0xDD, block.count)
        number = next(self._numbers[kind])
        length = _LENGTH.size + block.size + TAG
        if kind == PROMPT:
            k = -(-length // self.shard)
            size = (-(-length // k) + STEP - 1) // STEP * STEP
            m = k
        else:
            self.waiting -= block.size - _ARRAY.size
            size = self.shard
            k = -(-length // size)
            m = full_m if k == self._k else parity_for(k, self._k, full_m)
        _LENGTH.pack_into(whole, 0, length - _LENGTH.size)
        self._seal.close(kind, number, k, m, size, block.text[: block.size], whole[_LENGTH.size : length])
        whole[length : k * size] = bytes(k * size - length)  # of a larger block
        shards = [bytes(whole[at : at + size]) for at in range(0, k * size, size)]
        self.blocks += 1
        if kind == BULK:
            self._sealed.append(_Sealed(now, block.at, number, k, m, shards))
            return
        shards += parity(shards, m)
        packets = list(_packets(pack(kind, self._seal.epoch, number, 0, k, m), shards))
        lists = self._lists(kind, number, k, m, packets) if self._hostile else []
        self._prompt += ((packet, 0) for packet in packets[: k - 1])
        self._prompt.append((packets[k - 1], block.size - _ARRAY.size))
        self._prompt += ((packet, 0) for packet in lists)
        self._late.append((now + PARITY_NS, packets[k:] + lists))

    @property
    def has_work(self) -> bool:
        """Whether a block waits for `work`."""
        return bool(self._sealed)

    def work(self) -> None:
        """A step of making the parity of a bulk block that was closed, so that what is prompt can leave between."""
        self._making = self._making or self._make(self._sealed[0])
        try:
            next(self._making)
        except StopIteration:
            self._making = None

    def _make(self, block: _Sealed) -> Generator[None, None, None]:
        since, at, number, k, m, shards = block
        shards += yield from encoding(shards, m)
        self._sealed.popleft()
        count, leave = k + m, _packets(pack(BULK, self._seal.epoch, number, 0, k, m), shards)
        if self._hostile:
            packets = list(leave)
            lists = self._lists(BULK, number, k, m, packets)
            half = count // 2
            packets = packets[:half] + lists + packets[half:] + lists
            count, leave = len(packets), iter(packets)
        self._ready.append(_Ready(since, at, count, leave))
        self._blocks += count * self.shard

    def _lists(self, kind: int, number: int, k: int, m: int, packets: list[bytes]) -> list[bytes]:
        """The sealed lists of a block's packets: each packet of them is sealed by itself, so that none can be spoiled
        by another."""
        digests = b"".join(map(digest, packets))
        step = digests_of(self.shard) * DIGEST
        return [
            pack(DIGESTS, self._seal.epoch, number, piece, k, m)
            + self._seal.close_digests(kind, number, piece, k, m, digests[at : at + step])
            for piece, at in enumerate(range(0, len(digests), step))
        ]

    @property
    def pending(self) -> int:
        """Bytes of bulk that have not left, about; 0 where there are none."""
        sealed = sum(block.k + block.m for block in self._sealed)
        return self.waiting + self._blocks + (self._left + sealed) * self.shard

    @property
    def whole(self) -> int | None:
        """What was put of bulk before the first block of which not all has left: nobody can open it yet, and at a low
        rate not for minutes. None: all has left."""
        under_way = [block.at for (kind, _), block in self._open.items() if kind == BULK]
        under_way += [block.at for block in self._sealed] + [block.at for block in self._ready]
        under_way += [self._leaving] if self._left else []
        return min(under_way, default=None)

    @property
    def prompt_pending(self) -> int:
        """Packets of prompt blocks that may leave now."""
        return len(self._prompt)

    @property
    def packet(self) -> int:
        """Bytes of a full bulk packet."""
        return HEAD_BYTES + self.shard


def encode(record: msgspec.Struct) -> bytes:
    """One record as it stands in a block."""
    return _encoder.encode(record)


_encoder = msgspec.msgpack.Encoder()
