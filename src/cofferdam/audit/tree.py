"""The Merkle tree of RFC 6962, section 2.1, with SHA-256: hashes, an incremental tree, proofs and their checks.

The incremental tree keeps, per level of tiles (256 to 1), only the hashes of the tile that is not full yet, so its
size is logarithmic in the number of entries. Proofs are made from a function that reads tile hashes.

Not here: where tiles are stored (tiles, log), signatures (checkpoint).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from cofferdam.errors import AuditError

WIDTH = 256
"""Hashes in a full tile (C2SP tlog-tiles)."""
EMPTY_ROOT = sha256(b"").digest()
"""The root of a tree without entries (RFC 6962, 2.1)."""

ReadHashes = Callable[[int, int, int], Sequence[bytes]]
"""(level, first, count) -> that many hashes of a tile level, from the first on; all lie in one tile."""


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one entry (RFC 6962, 2.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node (RFC 6962, 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 1, 2, 4, 8, ... hashes of equal height."""
    digest = sha256
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [digest(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


def edge_root(levels: Sequence[Sequence[bytes]]) -> bytes:
    """The root of a tree, from the hashes of the unfinished tile of each level, lowest level first.

    A tree of any size is a row of perfect subtrees of falling size; RFC 6962 joins them from the right.
    """
    peaks: list[bytes] = []
    for hashes in reversed(levels):
        start, left = 0, len(hashes)
        while left:
            size = 1 << (left.bit_length() - 1)
            peaks.append(perfect_root(hashes[start : start + size]))
            start, left = start + size, left - size
    if not peaks:
        return EMPTY_ROOT
    root = peaks.pop()
    while peaks:
        root = node_hash(peaks.pop(), root)
    return root


class Tree:
    """A tree that grows. `levels[l]` holds the hashes of the unfinished tile at tile level l."""

    def __init__(self, levels: Sequence[Sequence[bytes]] = (), size: int = 0) -> None:
        self.levels: list[list[bytes]] = [list(level) for level in levels] or [[]]
        self.size = size

    def add(self, leaf: bytes) -> list[tuple[int, int, list[bytes]]]:
        """Append a leaf hash. Returns the tiles that this completes: (level, index of the tile, its 256 hashes)."""
        levels = self.levels
        levels[0].append(leaf)
        self.size += 1
        if len(levels[0]) < WIDTH:
            return []
        done: list[tuple[int, int, list[bytes]]] = []
        level, index = 0, self.size
        while len(levels[level]) == WIDTH:
            index //= WIDTH
            done.append((level, index - 1, levels[level]))
            if level + 1 == len(levels):
                levels.append([])
            levels[level + 1].append(perfect_root(levels[level]))
            levels[level] = []
            level += 1
        return done

    def root(self) -> bytes:
        """The root hash of the tree as it stands."""
        return edge_root(self.levels)


def _perfect(level: int, index: int, read: ReadHashes) -> bytes:
    """The hash of leaves [index << level, (index + 1) << level), for any binary level."""
    tile_level, height = divmod(level, 8)
    return perfect_root(read(tile_level, index << height, 1 << height))


def range_root(start: int, stop: int, read: ReadHashes) -> bytes:
    """MTH(D[start:stop]) where the range is a node of some tree: start is a multiple of the range's power of two."""
    peaks: list[bytes] = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        peaks.append(_perfect(level, start >> level, read))
        start += 1 << level
    root = peaks.pop()
    while peaks:
        root = node_hash(peaks.pop(), root)
    return root


def inclusion_proof(index: int, size: int, read: ReadHashes) -> list[bytes]:
    """The audit path of entry `index` in the tree of `size` entries, from the leaf up (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise AuditError(f"there is no entry {index} in a log of {size} entries")
    start, stop = 0, size
    path: list[bytes] = []
    while stop - start > 1:
        half = 1 << ((stop - start - 1).bit_length() - 1)
        middle = start + half
        if index < middle:
            path.append(range_root(middle, stop, read))
            stop = middle
        else:
            path.append(range_root(start, middle, read))
            start = middle
    path.reverse()
    return path


def consistency_proof(old: int, size: int, read: ReadHashes) -> list[bytes]:
    """The proof that the tree of `size` entries begins with the tree of `old` entries (RFC 6962, 2.1.2)."""
    if not 0 <= old <= size:
        raise AuditError(f"a log of {size} entries cannot be compared with one of {old}: give the smaller size first")
    if old in (0, size):
        return []
    start, stop = 0, size
    path: list[bytes] = []
    whole = True  # the old tree is the whole node so far, so its root is known to the verifier
    while stop - start > 1 and old != stop:
        half = 1 << ((stop - start - 1).bit_length() - 1)
        middle = start + half
        if old <= middle:
            path.append(range_root(middle, stop, read))
            stop = middle
        else:
            path.append(range_root(start, middle, read))
            start = middle
            whole = False
    if not whole:
        path.append(range_root(start, stop, read))
    path.reverse()
    return path


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Does `proof` show that `leaf` is entry `index` of the tree with this size and root? (RFC 9162, 2.1.3.2)"""
    if not 0 <= index < size:
        return False
    node, last, current = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            current = node_hash(sibling, current)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            current = node_hash(current, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and current == root


def check_consistency(old: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Does `proof` show that the old tree is the beginning of the new one? (RFC 9162, 2.1.4.2)"""
    if old == size:
        return not proof and old_root == root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if not 0 < old < size:
        return False
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == root
