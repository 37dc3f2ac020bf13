"""Blocks on their way in: packets in, what was sealed out. No I/O, and no clock but what it is told.

What a packet says is not believed: shards are collected under all that their header says (class, number, k, m, size),
so that a false header makes a collection of its own, and a block counts when its seal holds. Then, and only then, its
number is taken, and no second block of that number is. Collections are bounded in number and in bytes; where there are
too many, the one with the fewest shards for the time since its last one goes first (time counts in packets that came):
one of a flood of false packets, or of a block that was lost beyond repair; a true block that is coming has more.

A false shard under a true header spoils a block. Where the sender adds lists of packets (`hostile_wire`), the shards
that are not on them are thrown out once a seal has failed, and the block is whole all the same.

Not here: repair (coding), the records in a block (records), numbers of records (ledger).
"""

from __future__ import annotations

import struct
import sys
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final

from cofferdam.brokers.diode.coding import finish, repairing
from cofferdam.brokers.diode.outbox import DIGEST, digest, digests_of
from cofferdam.brokers.diode.sealing import TAG, Seal
from cofferdam.brokers.diode.wire import AT, AT_END, BULK, DIGESTS, HEAD_BYTES, PROMPT, SHARDS_MOST, STEP, Packet, pack
from cofferdam.errors import RemoteProtocolError

OPEN_MOST: Final = {PROMPT: 256, BULK: 64}
"""Blocks of a class that are being collected."""
OPEN_BYTES: Final = 128 << 20
"""Shards of all of them together."""
CANDIDATES: Final = 4
"""Different shards under one index."""
TRIES: Final = 6
"""How often a block is tried without its list."""
WINDOW: Final = 1 << 16
"""Numbers below the highest one that are remembered singly; what is older is refused."""
EARLY_BYTES: Final = 32 << 20
"""Of packets whose epoch is not known yet."""
EARLY_NS: Final = 2_500_000_000
"""So long they wait for its announcement, which comes each second."""
PACKET_COST: Final = 256
"""What a packet that waits costs beside its bytes, about."""
_LENGTH: Final = struct.Struct(">I")

Key = tuple[int, int, int, int, int]
_Steps = Generator[None, None, list[tuple[int, bytes]]]


@dataclass
class Counts:
    """What happened to packets and blocks."""

    packets: int = 0
    foreign: int = 0
    """Another epoch, out of bounds, or of a block that is done and says something else."""
    repeated: int = 0
    repaired: int = 0
    """Shards that were missing in blocks that are whole."""
    whole: int = 0
    spoiled: int = 0
    """Attempts at a block whose seal did not hold."""
    evicted: int = 0
    """Collections that were given up, false ones among them."""


class _Taken:
    """The numbers of a class that are done."""

    def __init__(self) -> None:
        self.highest = 0
        self._some: set[int] = set()

    def __contains__(self, number: int) -> bool:
        return number in self._some or number <= self.highest - WINDOW

    def add(self, number: int) -> None:
        self._some.add(number)
        if number > self.highest:
            self.highest = number
            if len(self._some) > 2 * WINDOW:
                self._some = {one for one in self._some if one > number - WINDOW}


@dataclass
class _Block:
    """A collection of shards that claim to be of one block."""

    key: Key
    shards: dict[int, list[bytes]] = field(default_factory=dict)
    count: int = 0
    touched: int = 0
    """How many packets had come when its last one came."""
    next_try: int = 0
    tries: int = 0


class Early:
    """Packets of an epoch above the known one, until its announcement comes: that may be lost, or be said before this
    end stood. The oldest go first where there are too many, or where nothing comes."""

    def __init__(self) -> None:
        self._packets: deque[tuple[int, Packet]] = deque()
        self.held = 0
        """Bytes."""
        self.foreign = 0
        """Packets that waited in vain."""

    def keep(self, packet: Packet, now: int) -> None:
        self._packets.append((now, packet))
        self.held += len(packet.body) + PACKET_COST
        while self.held > EARLY_BYTES:
            self._drop()

    def take(self, epoch: int) -> list[Packet]:
        """What came of this epoch, in its order. What is of a higher one waits on; the rest is foreign."""
        found = [packet for _, packet in self._packets if packet.epoch == epoch]
        higher = [one for one in self._packets if one[1].epoch > epoch]
        self.foreign += len(self._packets) - len(found) - len(higher)
        self._packets = deque(higher)
        self.held = sum(len(packet.body) + PACKET_COST for _, packet in higher)
        return found

    def expire(self, now: int) -> None:
        while self._packets and now - self._packets[0][0] > EARLY_NS:
            self._drop()

    def _drop(self) -> None:
        self.held -= len(self._packets.popleft()[1].body) + PACKET_COST
        self.foreign += 1


class Inbox:
    """For one epoch."""

    def __init__(self, seal: Seal) -> None:
        self._seal = seal
        self.epoch = seal.epoch
        self.counts = Counts()
        self._taken = {PROMPT: _Taken(), BULK: _Taken()}
        self._open: dict[int, dict[Key, _Block]] = {PROMPT: {}, BULK: {}}
        self._lists: dict[tuple[int, int, int, int], dict[int, bytes]] = {}
        self._bytes = 0
        self._due: dict[Key, None] = {}
        """Collections that wait for `work`, in that order: each once, and none that was given up."""
        self._opening: _Steps | None = None
        self._known: dict[bytes, _Block] = {}
        """Collections by what the headers of their packets have in common."""

    @property
    def open(self) -> int:
        """Collections."""
        return sum(map(len, self._open.values()))

    @property
    def held(self) -> int:
        """Bytes of shards."""
        return self._bytes

    def quick(self, data: bytes) -> list[tuple[int, bytes]] | None:
        """What `feed` makes of a packet as it came, where that is the next shard of a collection that is known, as
        nearly all are. None: it is for `feed`, and nothing was done. A bulk block that it completes is `work`'s: woven
        blocks are whole all at once, and opening them takes milliseconds that no prompt packet should wait for."""
        block = self._known.get(data[:AT] + data[AT_END:HEAD_BYTES])
        if block is None:
            return None
        _, _, k, m, size = key = block.key
        at = data[AT] << 8 | data[AT + 1]
        shards = block.shards
        if len(data) != HEAD_BYTES + size or at >= k + m or at in shards or self._bytes + size > OPEN_BYTES:
            return None
        self.counts.packets = block.touched = self.counts.packets + 1
        shards[at] = [data[HEAD_BYTES:]]
        block.count += 1
        self._bytes += size
        if len(shards) < k or block.count < block.next_try:
            return []
        if key[0] != BULK:
            return self._try(key, block)
        block.next_try = sys.maxsize
        self._due[key] = None
        return []

    @property
    def has_work(self) -> bool:
        """Whether a block waits for `work`."""
        return bool(self._due or self._opening)

    @property
    def waiting(self) -> int:
        """Blocks that wait for `work`."""
        return len(self._due)

    def work(self) -> list[tuple[int, bytes]]:
        """A step of opening one of the blocks that `quick` has completed; as `feed`."""
        if self._opening is None:
            key = next(iter(self._due))
            del self._due[key]
            self._opening = self._tries(key, self._open[key[0]][key])
        try:
            next(self._opening)
        except StopIteration as end:
            self._opening = None
            found: list[tuple[int, bytes]] = end.value
            return found
        return []

    def feed(self, packet: Packet, now: int) -> list[tuple[int, bytes]]:
        """(class, what was sealed) of each block that this packet completes: one at most."""
        counts = self.counts
        counts.packets += 1
        if packet.epoch != self.epoch:
            counts.foreign += 1
            return []
        if packet.kind == DIGESTS:
            return self._list(packet)
        kind = packet.kind
        if packet.block in self._taken[kind]:
            counts.repeated += 1
            return []
        key = (kind, packet.block, packet.k, packet.m, len(packet.body))
        blocks = self._open[kind]
        block = blocks.get(key)
        if block is None:
            self._room(kind)
            block = blocks[key] = _Block(key, next_try=packet.k)
            self._known[self._common(key)] = block
        same = block.shards.get(packet.at)
        if same is None:
            block.shards[packet.at] = [packet.body]
        elif packet.body in same or len(same) >= CANDIDATES:
            counts.repeated += 1
            return []
        else:
            same.append(packet.body)
        block.count += 1
        block.touched = counts.packets
        self._bytes += len(packet.body)
        if self._bytes > OPEN_BYTES:
            self._evict()
            if key not in blocks:
                return []
        if len(block.shards) < packet.k or block.count < block.next_try:
            return []
        return self._try(key, block)

    def _try(self, key: Key, block: _Block) -> list[tuple[int, bytes]]:
        return finish(self._tries(key, block))

    def _tries(self, key: Key, block: _Block) -> _Steps:
        """In steps, between which other packets may come, of this block too."""
        kind, number, k, m, _ = key
        text = None
        shards = self._listed(key, block)
        if shards is None:
            if block.tries >= TRIES:
                return []
            block.tries += 1
            # A later shard takes the place of one that may be false: the newest candidates first, then the oldest.
            pick = -1 if block.tries % 2 == 0 else 0
            some = {index: some[pick] for index, some in block.shards.items()}
            block.next_try = block.count + max(1, m // TRIES)
            text = yield from self._unsealing(key, some)
            shards = some if text is not None else self._listed(key, block)
        if text is None and shards is not None:
            block.next_try = block.count + max(1, k - len(shards))
            text = yield from self._unsealing(key, shards)
        if text is None or shards is None or number in self._taken[kind]:
            return []
        self.counts.whole += 1
        self.counts.repaired += k - sum(1 for index in shards if index < k)
        self._taken[kind].add(number)
        for other in [other for other in self._open[kind] if other[1] == number]:
            self._drop(kind, other)
        for at in [at for at in self._lists if at[:2] == (kind, number)]:
            del self._lists[at]
        return [(kind, text)]

    def _unsealing(self, key: Key, shards: dict[int, bytes]) -> Generator[None, None, bytes | None]:
        """What a block holds, in steps; None, where it does not come of these shards."""
        kind, number, k, m, size = key
        if len(shards) < k:
            return None
        try:
            data = yield from repairing(k, m, shards)
            whole = memoryview(b"".join(data))
            yield
            (length,) = _LENGTH.unpack_from(whole)
            if not TAG <= length <= len(whole) - _LENGTH.size:
                raise RemoteProtocolError("a length beyond the shards", section="diode")
            return self._seal.open(kind, number, k, m, size, whole[_LENGTH.size : _LENGTH.size + length])
        except RemoteProtocolError:
            self.counts.spoiled += 1
            return None

    # --- lists

    def _list(self, packet: Packet) -> list[tuple[int, bytes]]:
        """Part of the list of a block's packets: it is believed, since it is sealed by itself."""
        try:
            kind, digests = self._seal.open_digests(packet.block, packet.at, packet.k, packet.m, packet.body)
        except RemoteProtocolError:
            self.counts.foreign += 1
            return []
        at = (kind, packet.block, packet.k, packet.m)
        if packet.block in self._taken[kind] or packet.at in self._lists.get(at, ()):
            self.counts.repeated += 1
            return []
        count = packet.k + packet.m
        held = sum(map(len, self._lists.get(at, {}).values()))
        if packet.at >= -(-count // digests_of(STEP)) or held + len(digests) > count * DIGEST:
            self.counts.foreign += 1  # more than a list has: the sender itself says so
            return []
        while len(self._lists) >= sum(OPEN_MOST.values()):
            del self._lists[next(iter(self._lists))]
        self._lists.setdefault(at, {})[packet.at] = digests
        for key, block in list(self._open[kind].items()):
            if (key[0], key[1], key[2], key[3]) == at and block.tries and (done := self._try(key, block)):
                return done
        return []

    def _listed(self, key: Key, block: _Block) -> dict[int, bytes] | None:
        """The shards of a block that are on its list; None, if nothing makes one doubt them or there is no list."""
        kind, number, k, m, size = key
        pieces = self._lists.get((kind, number, k, m))
        if not pieces or not (block.tries or block.count > len(block.shards)):
            return None
        step = SHARDS_MOST if kind == PROMPT else digests_of(size)
        found: dict[int, bytes] = {}
        for index, some in block.shards.items():
            piece = pieces.get(index // step)
            wanted = piece[index % step * DIGEST :][:DIGEST] if piece is not None else b""
            head = pack(kind, self.epoch, number, index, k, m)
            for shard in some:
                if digest(head + shard) == wanted:
                    found[index] = shard
                    break
        return found

    def _common(self, key: Key) -> bytes:
        """What the headers of a collection's packets have in common. Two collections that differ in the size of their
        shards alone have the same: the later one is found by it."""
        head = pack(key[0], self.epoch, key[1], 0, key[2], key[3])
        return head[:AT] + head[AT_END:]

    # --- bounds

    def _room(self, kind: int) -> None:
        blocks = self._open[kind]
        while len(blocks) >= OPEN_MOST[kind]:
            victim = min(blocks, key=lambda key: self._worth(blocks[key]))
            self._drop(kind, victim)
            self.counts.evicted += 1

    def _evict(self) -> None:
        while self._bytes > OPEN_BYTES:
            victims = (block for blocks in self._open.values() for block in blocks.values())
            victim = min(victims, key=lambda block: self._worth(block) / block.key[2])
            self._drop(victim.key[0], victim.key)
            self.counts.evicted += 1

    def _worth(self, block: _Block) -> float:
        return block.count / (self.counts.packets - block.touched + 1)

    def _drop(self, kind: int, key: Key) -> None:
        block = self._open[kind].pop(key)
        self._due.pop(key, None)
        self._known.pop(self._common(key), None)
        self._bytes -= block.count * key[4]
