"""The Merkle tree against RFC 6962's own definition, written down as plainly as it stands there."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cofferdam.audit.tiles import edge, parse_path, tile_path
from cofferdam.audit.tree import (
    EMPTY_ROOT,
    WIDTH,
    Tree,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_root,
)
from cofferdam.errors import AuditError


def split(n: int) -> int:
    return 1 << ((n - 1).bit_length() - 1)


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, 2.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """RFC 6962, 2.1.2."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


class Grown:
    """A tree with its tiles kept, as the log keeps them in files."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.tree = Tree()
        self.tiles: dict[tuple[int, int], list[bytes]] = {}
        for leaf in leaves:
            for level, index, hashes in self.tree.add(leaf):
                self.tiles[level, index] = hashes
        for level, hashes in enumerate(self.tree.levels):
            self.tiles[level, len(leaves) // WIDTH ** (level + 1)] = hashes

    def read(self, level: int, first: int, count: int) -> list[bytes]:
        hashes = self.tiles[level, first // WIDTH][first % WIDTH : first % WIDTH + count]
        assert len(hashes) == count
        return hashes


SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 255, 256, 257, 511, 512, 513, 700, 1024]


@pytest.mark.parametrize("size", [*SIZES, 65535, 65536, 65537, 65537 + 300])
def test_root_is_the_rfcs(size: int) -> None:
    leaves = leaves_of(size)
    grown = Grown(leaves)
    assert grown.tree.root() == mth(leaves)
    assert grown.tree.size == size


def test_known_vectors() -> None:
    """Roots of the test vectors that Certificate Transparency implementations share."""
    data = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    tree = Tree()
    assert tree.root() == EMPTY_ROOT
    for item, root in zip(data, roots, strict=True):
        tree.add(leaf_hash(bytes.fromhex(item)))
        assert tree.root().hex() == root


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 100, 256, 257, 700])
def test_inclusion_proofs(size: int) -> None:
    leaves = leaves_of(size)
    grown, root = Grown(leaves), mth(leaves)
    for index in range(size):
        proof = inclusion_proof(index, size, grown.read)
        assert proof == path(index, leaves)
        assert check_inclusion(leaves[index], index, size, proof, root)
        assert not check_inclusion(leaves[index - 1], index, size, proof, root) or size == 1
        assert not check_inclusion(leaves[index], index, size, [*proof, root], root)
        if proof:
            assert not check_inclusion(leaves[index], index, size, proof[:-1], root)


@given(st.integers(1, 1200), st.data())
def test_consistency_proofs(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(0, size))
    leaves = leaves_of(size)
    grown, root = Grown(leaves), mth(leaves)
    proof = consistency_proof(old, size, grown.read)
    if 0 < old < size:
        assert proof == subproof(old, leaves, True)
    old_root = range_root(0, old, grown.read) if old else EMPTY_ROOT
    assert old_root == mth(leaves[:old])
    assert check_consistency(old, old_root, size, root, proof)
    assert not check_consistency(old, leaf_hash(b"other"), size, root, proof)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong = [*proof]
        wrong[at] = leaf_hash(b"other")
        assert not check_consistency(old, old_root, size, root, wrong)
        assert not check_consistency(old, old_root, size, root, proof[:-1])


def test_proofs_of_what_is_not_there() -> None:
    grown = Grown(leaves_of(5))
    with pytest.raises(AuditError, match="no entry 5"):
        inclusion_proof(5, 5, grown.read)
    with pytest.raises(AuditError, match="smaller size first"):
        consistency_proof(6, 5, grown.read)


def test_tile_paths() -> None:
    """The examples of C2SP tlog-tiles."""
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path("entries", 1234067, 17) == "tile/entries/x001/x234/067.p/17"
    assert edge(70000) == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]
    assert edge(256) == [(1, 0, 1)]
    for found in [(0, 0, 256), (3, 999, 1), ("entries", 1000, 255), (0, 10**9, 256)]:
        assert parse_path(tile_path(*found)) == found  # type: ignore[arg-type]
    for wrong in [
        "tile/0/0",
        "tile/00/000",
        "tile/0/000.p/256",
        "tile/x/000",
        "tile/0/001/000",
        "checkpoint",
        "tile/0",
    ]:
        assert parse_path(wrong) is None
