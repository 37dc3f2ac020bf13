"""What the wire, an owned sender, tickets, the receiver and operators may do wrong: the rows that no other module has.

the wire       false packets, headers, shards, epochs, floods: test_machine; announcements: test_early
the sender     test_hostile, test_inside
tickets        test_tickets, test_hostile
the receiver   full disks, scans: test_hostile; kills: test_machines
operators      wrong files: test_pairing
"""

from __future__ import annotations

import os
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from cofferdam.brokers.diode import pairing, receiver, records
from cofferdam.brokers.diode.inbox import OPEN_BYTES, OPEN_MOST, WINDOW
from cofferdam.brokers.diode.keeper import GRACE_NS
from cofferdam.brokers.diode.ledger import Channel
from cofferdam.brokers.diode.outbox import DIGEST
from cofferdam.brokers.diode.receiver import OVERRUN_BYTES, Batches
from cofferdam.brokers.diode.sender import Sender
from cofferdam.brokers.diode.wire import BULK, DIGESTS, HEAD_BYTES, pack, unpack
from cofferdam.errors import RemoteProtocolError
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from tests.brokers.diode.strand import Strand, lossy
from tests.brokers.diode.test_early import POLICY, Hearing, sent
from tests.brokers.diode.test_hostile import EPOCH, SIGNED, WALL, Outside, beat, file

encode = msgspec.msgpack.encode
HOUR = int(os.environ.get("COFFERDAM_SOAK_BLOCKS", "3000"))
"""Blocks of what is replayed, and of a flood; a million of them in a soak."""


# --- the wire ---------------------------------------------------------------------------------------------------------


def test_a_replayed_hour_brings_nothing_and_costs_nothing() -> None:
    strand = Strand(shard=64, k=1, m=1, interleave=1)
    hour: list[bytes] = []
    for number in range(HOUR):
        strand.out.put(encode(number.to_bytes(8)), strand.now, prompt=False)
        hour += strand.out.bulk(8, strand.now + 10**9)
        strand.out.tick(strand.now + 10**9)
    hour += strand.packets()
    assert len(strand.records(hour)) == HOUR
    held, taken = strand.into.held, strand.into.counts.whole
    assert strand.records(hour) == [] and strand.records(hour[::-1]) == []
    assert (strand.into.held, strand.into.counts.whole) == (held, taken)
    assert strand.into.open <= sum(OPEN_MOST.values())


def test_what_is_older_than_what_is_remembered_is_refused() -> None:
    strand = Strand(shard=64, k=1, m=1)
    strand.out.put(encode(b"first"), 0, prompt=False)
    first = strand.packets()
    assert strand.records(first) == [b"first"]
    strand.into._taken[BULK].add(WINDOW + 2)
    strand.into._taken[BULK]._some.discard(1)
    assert strand.records(first) == []


def test_a_flood_of_open_blocks_is_bounded() -> None:
    strand = Strand()
    chance = random.Random(3)
    for number in range(HOUR):
        packet = pack(BULK, 7, number + 1, 0, 200, 20) + chance.randbytes(8896 // 64 * 64)
        assert strand.records([packet]) == []
    assert strand.into.open <= OPEN_MOST[BULK] and strand.into.held <= OPEN_BYTES
    assert strand.into.counts.evicted == HOUR - OPEN_MOST[BULK]


@pytest.mark.parametrize("bytes_too", [False, True])
def test_a_wire_that_lost_too_much_brings_all_again_once_it_is_whole(
    bytes_too: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of more lost blocks than are collected at a time makes room for true ones."""
    strand = Strand(shard=64, k=100, m=10, interleave=6)
    if bytes_too:
        monkeypatch.setattr("cofferdam.brokers.diode.inbox.OPEN_BYTES", 20 * 64 * 100)
    body = bytes(strand.out.bulk_room - 20)

    def of(blocks: int, share: float) -> int:
        for _ in range(blocks):
            strand.out.put(encode(body), 0, prompt=False)
        return len(strand.records(lossy(share, 1)(strand.packets())))

    assert of(2 * OPEN_MOST[BULK], 0.2) == 0
    assert of(30, 0) == 30


@pytest.mark.parametrize("so_many", [1, 2, 10])
def test_false_blocks_that_are_as_far_as_true_ones_do_not_push_them_out(so_many: int) -> None:
    """As many false packets as true ones, so many of each false block: it is whole then, and fails."""
    strand = Strand(shard=64, k=100, m=10, interleave=6)
    body = bytes(strand.out.bulk_room - 20)
    for _ in range(30):
        strand.out.put(encode(body), 0, prompt=False)
    mixed = []
    for number, packet in enumerate(strand.packets()):
        at = number % so_many
        mixed += [pack(BULK, 7, 1000 + number // so_many, at, so_many, 1) + bytes(64), packet]
    assert len(strand.records(mixed)) == 30


def test_blocks_that_are_whole_faster_than_they_are_opened_wait_within_bounds() -> None:
    """Each once, and not those that were given up: a true one waits for no more of them than are open."""
    strand = Strand(shard=64)
    strand.out.put(encode(bytes(500)), 0, prompt=False)
    true = strand.packets()

    def come(packets: list[bytes]) -> None:
        for packet in packets:
            if strand.into.quick(packet) is None:
                strand.into.feed(unpack(packet), 0)

    for number in range(HOUR):
        come([pack(BULK, 7, 1000 + number, at, 2, 1) + bytes(64) for at in (0, 1)])
    come(true)
    steps = 0
    while not strand.into.work():
        assert (steps := steps + 1) <= 3 * OPEN_MOST[BULK]
    assert strand.into.counts.whole == 1


def test_lists_of_an_owned_sender_are_no_longer_than_their_blocks() -> None:
    strand = Strand(hostile=True)
    seal, inbox = strand.out._seal, strand.into
    for block in range(1, 3):
        for piece in range(24):
            body = seal.close_digests(BULK, block, piece, 20, 4, bytes(1400 if block == 1 else 8))
            inbox.feed(unpack(pack(DIGESTS, 7, block, piece, 20, 4) + body), 0)
    held = [sum(map(len, pieces.values())) for pieces in inbox._lists.values()]
    assert max(held, default=0) <= 24 * DIGEST and inbox.counts.foreign == 24 + 19


@pytest.mark.parametrize("length", [0, 15, 61, 1 << 20, (1 << 32) - 1])
def test_a_length_beyond_the_shards_is_spoiled_and_no_more(length: int) -> None:
    strand = Strand(shard=64)
    packet = pack(BULK, 7, 1, 0, 1, 0) + struct.pack(">I", length) + bytes(60)
    assert strand.records([packet]) == [] and strand.into.counts.spoiled == 1


def test_packets_that_were_cut_cost_what_parity_repairs() -> None:
    """At any length: what is left of them is refused, or is one shard that is false, and nothing false comes out."""
    strand = Strand(shard=256, k=60, m=12, hostile=True)
    said = [number.to_bytes(4) * 60 for number in range(600)]
    for one in said:
        strand.out.put(encode(one), 0, prompt=False)
    chance = random.Random(6)
    came: list[bytes] = []
    refused = cut = 0
    for packet in strand.packets():
        if chance.random() < 0.05:
            whole = HEAD_BYTES + 64 * chance.randrange(1, 4)  # such as one may be
            packet, cut = packet[: chance.choice((whole, chance.randrange(len(packet))))], cut + 1
        try:
            came += strand.records([packet])
        except RemoteProtocolError:
            refused += 1
    assert sorted(came) == said
    assert cut > refused > 0


def test_packets_that_are_ten_thousand_places_away_and_doubled() -> None:
    strand = Strand(shard=64, k=1000, m=100, interleave=8)
    said = [number.to_bytes(4) * 100 for number in range(2000)]
    for one in said:
        strand.out.put(encode(one), 0, prompt=False)
    packets = strand.packets()
    assert len(packets) > 10_000
    chance = random.Random(4)
    order = sorted(range(len(packets)), key=lambda at: at + chance.randrange(10_000))
    mixed = [packet for at in order for packet in [packets[at]] * chance.choice((1, 1, 2))]
    came = strand.records(mixed)
    assert sorted(came) == said, "each once"


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_what_a_wire_loses_beyond_repair_is_told_truly(share: float) -> None:
    """What the ledger says is missing is what did not come, to the number."""
    strand = Strand(shard=64, k=20, m=2)
    for number in range(1, 2001):
        strand.out.put(encode(number.to_bytes(4) * 8), 0, prompt=False)
    came = {int.from_bytes(one[:4]) for one in strand.records(lossy(share, 5)(strand.packets()))}
    channel = Channel("files:reports")
    for number in sorted(came):
        assert channel.take(1, number, 1)
    channel.told(1, 1, 2000, 1)
    missing = {number for gap in channel.look(0) for number in range(gap.first, gap.last + 1)}
    assert missing == set(range(1, 2001)) - came and missing


# --- the receiver -----------------------------------------------------------------------------------------------------


def _ticks(hearing: Hearing) -> list[records.Trouble]:
    for _ in range(2):
        hearing.receiver.tick()
    return [one for one in hearing.records if isinstance(one, records.Trouble)]


def test_a_keeper_that_is_slow_costs_what_it_does_not_take_and_that_is_told(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    seal, hello = hearing.epoch(5)
    hearing.feed(hello)
    keeper: Any = hearing.receiver._keeper
    keeper.backlog = OVERRUN_BYTES + 1
    hearing.feed(*sent(seal, b"one", b"two"))
    assert not [one for one in hearing.records if isinstance(one, records.Piece)]
    (trouble,) = _ticks(hearing)
    assert trouble.overrun == 2
    keeper.backlog = 0


def test_what_a_small_buffer_drops_is_counted(tmp_path: Path) -> None:
    hearing = Hearing(tmp_path)
    hearing.feed(hearing.epoch(5)[1])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sends,
    ):
        hears.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        hears.setsockopt(socket.SOL_SOCKET, 40, 1)  # SO_RXQ_OVFL
        hears.bind(("127.0.0.1", 0))
        batches = Batches(hears.fileno(), 2048)
        hearing.receiver._links[hears] = receiver._Link("", batches)
        for _ in range(2):  # the kernel says with a packet how many it has dropped before
            for _ in range(50):
                sends.sendto(bytes(1000), hears.getsockname())
            hearing.feed(*batches.take())
        hearing.receiver._links[hears].batches.take()
        (trouble,) = _ticks(hearing)
        assert trouble.kernel == batches.drops > 0


def test_a_keeper_without_its_ledger_learns_again(tmp_path: Path) -> None:
    """Its store is gone: epoch and numbers are learnt from the next announcement and heartbeat, what came before is
    missing or lost, and so told; a re-send of it is taken under its old numbers."""
    first = Outside(tmp_path)
    first.say(*file(1, "a.csv", b"1"))
    first.part.halt()
    for path in sorted((tmp_path / "store").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    again = Outside(tmp_path)
    again.say(beat(oldest=3, highest=6))
    again.ticks(GRACE_NS / 1e9 + 1)
    reports = next(one for one in again.part._status()["channels"] if one["channel"] == "files:reports")
    assert reports["epochs"] == [{"epoch": EPOCH, "highest": 6, "lost": 2, "given_up": 0}]
    assert reports["gaps"] == [{"epoch": EPOCH, "first": 3, "last": 6, "since": reports["gaps"][0]["since"]}]
    again.say(*file(3, "b.csv", b"2"), *file(5, "c.csv", b"3"))
    again.ticks(1)
    there = {path.name for path in (tmp_path / "reports-in").iterdir() if path.name[0] != "."}
    assert there == {"a.csv", "b.csv", "c.csv"}
    again.part.halt()


# --- operators --------------------------------------------------------------------------------------------------------


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    policy = compile_policy(loads(POLICY.replace("carries", "rate: 400 Mbit/s, carries")), now_ns=WALL)
    keys = pairing.SenderKeys(pairing.new_signer()[0], (pairing.Good(SIGNED),))
    yield Sender(cast(Any, SimpleNamespace(
        policy=policy, severed=frozenset(), wall=lambda: WALL, zones=(("strand-out",), "strand-in"), reactor=None,
        secrets={pairing.SECRET: msgspec.json.encode(keys)}, senders={},
    )))  # fmt: skip


@pytest.mark.parametrize(("speed", "named"), [(100_000_000, True), (10**9, False), (0, False)])
def test_a_rate_above_the_card_is_named_before_anything_is_sent(sender: Sender, speed: int, named: bool) -> None:
    sender._speed = ("eth2", speed)
    said = sender.alarms()
    assert ("rate" in said) == named
    assert not named or "sends at 400 Mbit/s, and eth2 has 100 Mbit/s" in said["rate"]
