"""Repair: parity in fixed words, and every choice of what is lost of small blocks."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest

from cofferdam.brokers.diode.coding import COLUMN, encoding, parity, repair, repairing
from cofferdam.errors import RemoteProtocolError
from tests.brokers.diode import second

SMALL = [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (4, 4), (5, 3), (8, 2)]
VECTORS = {
    (1, 3, 64): "6a8a76c6a1390181263d9514f0420dd72960da7b1de242099678c073a655e1f8",
    (3, 2, 64): "4944b32b46712d61971a9019a44c0f7503fa57979f7cd95d076e221e785290b3",
    (8, 8, 128): "b30f28fe282da848290f214693966837c7edea03403c58bb62018c83f12f6890",
    (20, 4, 1408): "72da0c9960afb39cb0d1808d83d35f01a9500099ac82392d6ea892b5fa9db3f1",
    (200, 20, 64): "41ef76204b1bdd676ecdc40b2071bd2c2da3ef753ceb6e5f26e7a8bac80eac26",
    (240, 16, 64): "c0e4183ebd99c7a32f1a56baa34e069889bb8e6aa13a3c7de6d6d0be3898f71a",
    (1000, 100, 128): "bcb6fe4c40b7addbe1b66286f15435e0cbd3ca405aa5e53e6ff2f12e397e3a3b",
}
"""SHA-256 of all parity, by (k, m, bytes of a shard): two ends of different releases have to make the same."""


def data(k: int, size: int) -> list[bytes]:
    """Shards that are the same everywhere: SHA-256 in counter mode."""
    whole = b"".join(hashlib.sha256(f"{k} {at}".encode()).digest() for at in range(k * size // 32))
    return [whole[at : at + size] for at in range(0, k * size, size)]


@pytest.mark.parametrize("k,m,size", VECTORS)
def test_parity_is_the_same_in_every_release(k: int, m: int, size: int) -> None:
    made = parity(data(k, size), m)
    assert [len(shard) for shard in made] == [size] * m
    assert hashlib.sha256(b"".join(made)).hexdigest() == VECTORS[k, m, size]


@pytest.mark.parametrize("k,m", [*SMALL, (5, 8), (8, 5), (3, 8), (20, 4), (200, 20)])
def test_another_implementation_makes_the_same_and_reads_it(k: int, m: int) -> None:
    """So the library can be replaced: the code is what is written down in `second`, and nothing of its own."""
    shards = data(k, 128)
    made = parity(shards, m)
    some = min(m, 3)
    assert second.encode(shards, m)[:some] == made[:some]
    every = dict(enumerate([*shards, *made]))
    lost = random.Random(k).sample(range(k), min(k, some))
    left = {index: shard for index, shard in every.items() if index not in lost}
    chosen = {index: left[index] for index in [*left][:k]}
    assert second.decode(k, m, chosen) == repair(k, m, chosen) == shards


def test_columns_are_worked_on_one_by_one() -> None:
    """Large shards are as many small ones, the last column being narrower."""
    shards = data(5, 2 * COLUMN + 64)
    made = parity(shards, 3)
    for cut in (slice(0, COLUMN), slice(COLUMN, 2 * COLUMN), slice(2 * COLUMN, None)):
        assert parity([shard[cut] for shard in shards], 3) == [shard[cut] for shard in made]
    assert len(list(encoding(shards, 3))) == 3
    found = {0: shards[0], 4: shards[4], **{5 + index: shard for index, shard in enumerate(made)}}
    assert len(list(repairing(5, 3, found))) == 3
    assert repair(5, 3, found) == shards


def test_one_of_one_is_the_shard_itself() -> None:
    assert parity(data(1, 64), 1) == data(1, 64)


@pytest.mark.parametrize("k,m", SMALL)
def test_any_k_of_a_small_block_are_enough(k: int, m: int) -> None:
    """Every choice of k shards gives the block; no choice of k - 1 does."""
    shards = data(k, 64)
    every = dict(enumerate([*shards, *parity(shards, m)]))
    for chosen in itertools.combinations(every, k):
        assert repair(k, m, {index: every[index] for index in chosen}) == shards
    for chosen in itertools.combinations(every, k - 1):
        with pytest.raises(RemoteProtocolError):
            repair(k, m, {index: every[index] for index in chosen})


@pytest.mark.parametrize("k,m", [(20, 4), (200, 20), (300, 30), (1000, 100)])
def test_any_k_of_a_large_block_are_enough(k: int, m: int) -> None:
    """All of the parity, and what chance leaves."""
    shards = data(k, 64)
    every = dict(enumerate([*shards, *parity(shards, m)]))
    chance = random.Random(k)
    for chosen in (range(m, k + m), *(chance.sample(range(k + m), k) for _ in range(5))):
        assert repair(k, m, {index: every[index] for index in chosen}) == shards


def test_parity_adds() -> None:
    """The code is linear: the parity of a sum (exclusive or) is the sum of the parities. And it tells shards apart."""
    one, other = data(20, 64), [bytes(reversed(shard)) for shard in data(20, 64)]
    both = [bytes(x ^ y for x, y in zip(*pair, strict=True)) for pair in zip(one, other, strict=True)]
    sums = [
        bytes(x ^ y for x, y in zip(*pair, strict=True)) for pair in zip(parity(one, 4), parity(other, 4), strict=True)
    ]
    assert parity(both, 4) == sums
    assert parity(one, 4) != parity(other, 4)
