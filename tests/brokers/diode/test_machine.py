"""Blocks, seals and repair, without a socket: what comes out is what went in, or nothing."""

from __future__ import annotations

import math
import os
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.brokers.diode.figures import Speed
from cofferdam.brokers.diode.inbox import OPEN_BYTES, OPEN_MOST, Inbox
from cofferdam.brokers.diode.outbox import parity_for
from cofferdam.brokers.diode.sealing import AES, CHACHA, TAG, Seal, announce, believe, named, new_seal
from cofferdam.brokers.diode.spool_lanes import CREDIT_BYTES
from cofferdam.brokers.diode.wire import (
    BULK,
    HEAD_BYTES,
    HELLO,
    PROMPT,
    SHARDS_MOST,
    pack,
    shard_bytes,
    unpack,
)
from cofferdam.errors import LocalProtocolError, RemoteProtocolError
from tests.brokers.diode.strand import Strand, burst, lossy, shuffled, worked

encode = msgspec.msgpack.encode


def closed(seal: Seal, kind: int, block: int, text: bytes) -> bytes:
    into = bytearray(len(text) + TAG)
    seal.close(kind, block, 1, 1, 64, text, memoryview(into))
    return bytes(into)


def test_shards_follow_from_the_interface() -> None:
    assert [shard_bytes(1500), shard_bytes(9000), shard_bytes(9000, jumbo=True)] == [1408, 1408, 8896]
    assert shard_bytes(65536, jumbo=True) == 8896
    with pytest.raises(ValueError):
        shard_bytes(100)


def test_what_is_said_to_be_prompt_is_with_a_small_mtu() -> None:
    """It went as bulk, and what came behind it overtook it."""
    strand = Strand(shard=shard_bytes(630))
    strand.out.put(encode(bytes(8 << 10)), 0, prompt=True)
    packets = strand.packets()
    assert {unpack(packet).kind for packet in packets} == {PROMPT}
    assert strand.records(packets[::2]) == [bytes(8 << 10)]


def test_a_prompt_record_is_small_on_the_wire_and_has_its_parity_later() -> None:
    strand = Strand(shard=1408)
    strand.out.put(encode(bytes(100)), 0, prompt=True)
    strand.out.tick(999_999)
    assert not strand.out.has_prompt
    strand.out.tick(1_000_000)
    first = strand.out.prompt()
    assert not strand.out.has_prompt
    strand.out.tick(6_000_000)
    second = strand.out.prompt()
    assert len(first) + len(second) + 2 * 42 <= 1000  # two frames, headers of Ethernet, IP and UDP among them
    for one in (first, second):
        other = Strand(shard=1408)
        assert other.records([one]) == [bytes(100)]


def test_blocks_that_did_not_fill_bear_the_same_loss() -> None:
    """The chance (binomial) that a block is lost at 5 % loss is no larger for a small one than for 1000 + 100."""

    def lost(k: int, m: int) -> float:
        return sum(math.comb(k + m, n) * 0.05**n * 0.95 ** (k + m - n) for n in range(m + 1, k + m + 1))

    assert parity_for(1000, 1000, 100) == 100
    for k in (1, 2, 5, 20, 100, 500, 900):
        m = parity_for(k, 1000, 100)
        assert lost(k, m) < 1e-5 and k + m <= SHARDS_MOST, (k, m, lost(k, m))


def test_blocks_of_one_weave_are_whole_in_their_order() -> None:
    """The last one, which did not fill, would else be there long before them, and they be named as missing."""
    strand = Strand()
    sent = [number.to_bytes(2) * 100 for number in range(40)]  # three blocks and a little
    for one in sent:
        strand.out.put(encode(one), 0, prompt=False)
    strand.out.tick(10**9)
    assert strand.records(strand.packets()) == sent


def test_what_is_in_a_block_that_has_left_in_part_is_under_way() -> None:
    strand, size = Strand(interleave=8), 200
    for number in range(40):
        strand.out.put(encode(bytes(size)), 0, prompt=False, at=number * size)
    assert strand.out.whole == 0
    strand.out.tick(10**9)
    worked(strand.out)
    found = []
    while strand.out.bulk(1, 2 * 10**9):
        found.append(strand.out.whole)
    assert len(found) > 60 and set(found[:-1]) == {0} and found[-1] is None


def test_a_burst_of_five_hundred_is_repaired_where_eight_blocks_are_woven() -> None:
    strand = Strand(shard=64, k=1000, m=100, interleave=8)
    said = [os.urandom(100) for _ in range(8 * 600)]
    for one in said:
        strand.out.put(encode(one), 0, prompt=False)
    packets = strand.packets()
    assert strand.out.blocks == 8
    assert sorted(strand.records(burst(2000, 500)(packets))) == sorted(said)
    assert strand.into.counts.repaired > 400


@pytest.mark.parametrize(("shard", "blocks", "burst_of"), [(1408, 6, 500), (8896, 1, 90)])
def test_blocks_leave_once_there_are_enough_for_a_burst(shard: int, blocks: int, burst_of: int) -> None:
    """Whatever their size, without waiting for more than a spool hands over at once."""
    strand = Strand(shard=shard, k=1000, m=100, interleave=8)
    body = os.urandom(40_000)
    packets: list[bytes] = []
    while not packets:
        strand.out.put(encode(body), 0, prompt=False)  # no time goes by
        packets = worked(strand.out).bulk(10_000, 0)
    assert strand.out.blocks == blocks and shard * 1000 * blocks < CREDIT_BYTES
    came = strand.records(burst(300, burst_of)(packets))
    assert len(came) == blocks * (shard * 1000 // 40_000) and set(came) == {body}


@given(
    sizes=st.lists(st.integers(1, 400), max_size=60), prompts=st.randoms(use_true_random=False),
    loss=st.sampled_from([0, 0.02, 0.1, 0.5]), twice=st.booleans(), seed=st.integers(0, 1000), hostile=st.booleans(),
)  # fmt: skip
def test_what_comes_out_went_in_and_comes_once(
    sizes: list[int], prompts: random.Random, loss: float, twice: bool, seed: int, hostile: bool
) -> None:
    """Any loss, order and repetition: no record that was not sent, none twice; all of them, where nothing is lost."""
    strand = Strand(hostile=hostile)
    said = [bytes([number % 256]) * size + number.to_bytes(2) for number, size in enumerate(sizes)]
    for one in said:
        strand.out.put(encode(one), strand.now, prompt=prompts.random() < 0.5)
    packets = strand.packets()
    arrived = list(lossy(loss, seed)(packets)) if loss else packets
    came = strand.records(shuffled(seed)(arrived * 2 if twice else arrived))
    assert len(came) == len(set(came)) and set(came) <= set(said)
    if not loss:
        assert set(came) == set(said)
    assert strand.into.held <= OPEN_BYTES
    if not loss:
        assert strand.into.open == strand.into.held == 0


@given(data=st.binary(max_size=200), head=st.tuples(*[st.integers(0, 2**16 - 1)] * 3), kind=st.integers(0, 255))
def test_any_packet_is_within_bounds_or_refused(data: bytes, head: tuple[int, int, int], kind: int) -> None:
    strand = Strand()
    for packet in (data, pack(kind, 7, 1, *head) + data):
        try:
            strand.into.feed(unpack(packet), 0)
        except RemoteProtocolError:
            continue
        assert strand.into.held <= OPEN_BYTES


@pytest.mark.parametrize(
    "packet",
    [
        b"", bytes(26), b"CD\x02" + bytes(100), pack(PROMPT, 7, 1, 0, 0, 1) + bytes(64),
        pack(BULK, 7, 1, 3, 2, 1) + bytes(64), pack(BULK, 7, 1, 0, 2, 9) + bytes(64),
        pack(BULK, 7, 1, 0, 2, 1) + bytes(63), pack(BULK, 7, 1, 0, SHARDS_MOST, 1) + bytes(64),
        pack(BULK, 7, 1, 0, 4000, 1) + bytes(8896), pack(PROMPT, 7, 1, 0, 40, 1) + bytes(64),
        pack(HELLO, 7, 1, 0, 0, 0) + bytes(64), pack(9, 7, 1, 0, 1, 1) + bytes(64), pack(PROMPT, 7, 1, 0, 1, 1),
    ],
)  # fmt: skip
def test_packets_out_of_bounds(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(packet)


def test_another_epoch_and_a_block_again_are_counted_and_no_more() -> None:
    strand = Strand()
    strand.out.put(encode(b"once"), 0, prompt=True)
    packets = strand.packets()
    assert strand.records(packets) == [b"once"]
    assert strand.records(packets) == []
    assert strand.into.counts.repeated >= 2
    other = Inbox(Seal(8, AES, bytes(range(32))))
    assert other.feed(unpack(packets[0]), 0) == [] and other.counts.foreign == 1


def _flood(rounds: int, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    return [
        pack(BULK, 7, chance.randrange(1, 2**40), chance.randrange(24), 20, 4) + chance.randbytes(128)
        for _ in range(rounds)
    ]


def test_a_flood_of_false_blocks_is_bounded_and_true_ones_pass() -> None:
    strand = Strand()
    said = [os.urandom(300) for _ in range(60)]
    for one in said:
        strand.out.put(encode(one), 0, prompt=False)
    packets = strand.packets()
    false = _flood(10 * len(packets), 1)
    mixed = [one for number, packet in enumerate(packets) for one in (*false[10 * number : 10 * number + 10], packet)]
    assert sorted(strand.records(mixed)) == sorted(said)
    assert strand.into.open <= sum(OPEN_MOST.values())


def test_false_shards_under_a_true_header() -> None:
    """Where the wire is hostile, lists of packets let the true ones through; without them the loss is a loss."""
    for hostile in (True, False):
        strand = Strand(hostile=hostile, shard=256, k=60, m=6)
        said = [os.urandom(500) for _ in range(200)]
        for one in said:
            strand.out.put(encode(one), 0, prompt=False)
        mixed = []
        chance = random.Random(2)
        for packet in strand.packets():
            pair = [packet]
            if chance.random() < 0.2 and packet[3] == BULK:
                pair.append(packet[:HEAD_BYTES] + chance.randbytes(len(packet) - HEAD_BYTES))
            chance.shuffle(pair)
            mixed += pair
        came = strand.records(mixed)
        assert set(came) <= set(said)
        assert (len(came) == len(said)) == hostile
        assert (strand.into.counts.spoiled == 0) == hostile  # two for one place: the list is looked at first


@pytest.mark.parametrize("instead", [False, True])
def test_false_shards_where_blocks_wait_to_be_opened(instead: bool) -> None:
    """All of a block has come, its lists too, before it is opened for the first time: nothing comes to try it again.
    `instead`: the true ones are lost."""
    strand = Strand(hostile=True, shard=256, k=60, m=6)
    said = [os.urandom(500) for _ in range(200)]
    for one in said:
        strand.out.put(encode(one), 0, prompt=False)
    chance = random.Random(3)
    whole = []
    for packet in strand.packets():
        pair = [packet]
        if packet[3] == BULK and chance.random() < (0.03 if instead else 0.1):
            pair = [packet[:HEAD_BYTES] + chance.randbytes(256), packet][: 1 if instead else 2]
        for one in pair:
            found = strand.into.quick(one)
            whole += strand.into.feed(unpack(one), 0) if found is None else found
    while strand.into.has_work:
        whole += strand.into.work()
    came = [one for _, text in whole for one in msgspec.msgpack.decode(text, type=list[bytes])]
    assert sorted(came) == sorted(said)
    assert (strand.into.counts.spoiled > 0) == instead


def test_a_record_that_no_block_holds() -> None:
    strand = Strand()
    with pytest.raises(LocalProtocolError):
        strand.out.put(bytes(20 * 128), 0, prompt=False)


@pytest.mark.parametrize("cipher", [AES, CHACHA])
def test_a_seal_holds_for_its_own_block_alone(cipher: int) -> None:
    seal = Seal(5, cipher, bytes(32))
    sealed = closed(seal, PROMPT, 3, b"text")
    assert seal.open(PROMPT, 3, 1, 1, 64, sealed) == b"text"
    for other in ((BULK, 3, 1, 1, 64), (PROMPT, 4, 1, 1, 64), (PROMPT, 3, 2, 1, 64), (PROMPT, 3, 1, 1, 128)):
        with pytest.raises(RemoteProtocolError):
            seal.open(*other, sealed)
    with pytest.raises(RemoteProtocolError):
        Seal(6, cipher, bytes(32)).open(PROMPT, 3, 1, 1, 64, sealed)


def test_an_epoch_is_believed_of_whom_it_should() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    signer, receiver = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    public, to = signer.public_key().public_bytes_raw(), receiver.public_key().public_bytes_raw()
    own = {named(to): receiver.private_bytes_raw()}
    seal = new_seal(9, aes=True)
    (body, other) = announce(seal, 1234, [signer.private_bytes_raw()], [to, bytes(31) + b"\x09"])
    assert believe(other, own, {public: 100}, 1) is None  # for another receiver, by one who is known
    hello = believe(body, own, {public: 100}, 99)
    assert hello is not None and (hello.epoch, hello.wall_ns, hello.sender) == (9, 1234, public)
    assert hello.seal.open(BULK, 1, 1, 1, 64, closed(seal, BULK, 1, b"x")) == b"x"
    for wrong_body, keys, senders, now in (
        (body, own, {public: 100}, 100), (body, own, {}, 1), (other, own, {}, 1),
        (body[:-1] + bytes([body[-1] ^ 1]), own, {public: 100}, 1), (bytes([1]) + body[1:], own, {public: 100}, 1),
        (body + b"x", own, {public: 100}, 1), (other[:-1], own, {public: 100}, 1),
    ):  # fmt: skip
        with pytest.raises(RemoteProtocolError):
            believe(wrong_body, keys, senders, now)


def test_speed_is_of_what_went_by_since_the_last_look() -> None:
    speed = Speed()
    assert [speed.look(at, size) for at, size in ((10**9, 0), (2 * 10**9, 10**6), (2 * 10**9, 10**6))] == [
        0,
        8 * 10**6,
        0,
    ]
    assert speed.look(4 * 10**9, 2 * 10**6) == 4 * 10**6


def test_records_of_a_channel_with_parity_of_its_own_have_blocks_of_their_own() -> None:
    """Where a fifth is lost those come through, and the others do not."""
    strand = Strand(shard=64, k=100, m=5)
    said = {parity: [os.urandom(100) for _ in range(200)] for parity in (0, 60)}
    for pair in zip(*said.values(), strict=True):
        for parity, one in zip(said, pair, strict=True):
            strand.out.put(encode(one), 0, prompt=False, parity=parity)
    came = set(strand.records(lossy(0.2, 3)(strand.packets())))
    assert came >= set(said[60]) and not came >= set(said[0])
