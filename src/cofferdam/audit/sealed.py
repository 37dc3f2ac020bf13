"""Entries for the long run: what is old and whole is packed, many bundles in one file, and their leaf hashes are left
out, since they follow from the entries.

    sealed/<index of its first entry, 20 digits>-<index behind its last, 20 digits>

    "cofferdam sealed v1" LF origin LF first LF stop LF time of the first entry LF time of the last entry LF LF
    for each block of 1,024 entries: its length, four bytes, big-endian
    the blocks: each one xz stream (with CRC64) of four entry bundles, one behind the other (tiles.join_entries)

The tiles from level 1 on stay as they are, so each bundle has its hash there, and no byte of a block can be changed
unseen. PURE.

Not here: when that is done (upkeep), what is dropped (dropped).
"""

from __future__ import annotations

import lzma
import struct

import msgspec

from cofferdam.audit.tiles import join_entries, split_entries
from cofferdam.audit.tree import WIDTH
from cofferdam.errors import AuditError

FOLDER = "sealed"
FIRST_LINE = "cofferdam sealed v1"
BLOCK = 4 * WIDTH
"""Entries that are packed together: to read one, so many are unpacked (a few milliseconds)."""
SEAL = WIDTH * WIDTH
"""Entries of one file, where nothing else is said."""
PRESET = 0
"""Entries are so like one another that a higher one gains a tenth and takes ten times as long."""
BLOCK_BYTES = BLOCK * (1 << 16)
"""The most that a block unpacks to."""
UNPACK_BYTES = 64 << 20
"""Memory that unpacking may take."""
HEAD_BYTES = 1024


class Head(msgspec.Struct, frozen=True):
    """What a file says of itself: the indexes of its first entry and behind its last, and their times."""

    origin: str
    first: int
    stop: int
    since: str
    until: str

    def encode(self) -> bytes:
        """Its bytes in the file."""
        lines = (FIRST_LINE, self.origin, str(self.first), str(self.stop), self.since, self.until, "", "")
        return "\n".join(lines).encode()


def sealed_path(first: int, stop: int) -> str:
    """The path of the file that holds these entries."""
    return f"{FOLDER}/{first:020d}-{stop:020d}"


def parse_sealed(path: str) -> tuple[int, int] | None:
    """The inverse of `sealed_path`, or None."""
    folder, _, name = path.rpartition("/")
    first, dash, stop = name.partition("-")
    if folder != FOLDER or not dash or not (name.isascii() and first.isdigit() and stop.isdigit()):
        return None
    found = int(first), int(stop)
    good = sealed_path(*found) == path and found[0] < found[1] and not found[0] % WIDTH and not found[1] % WIDTH
    return found if good else None


def pack_block(bundles: list[bytes]) -> bytes:
    """One block. Each bundle is the bytes of 256 entries."""
    return lzma.compress(b"".join(bundles), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=PRESET)


def join_sealed(head: Head, blocks: list[bytes]) -> bytes:
    """The bytes of the whole file."""
    return b"".join((head.encode(), *(len(block).to_bytes(4, "big") for block in blocks), *blocks))


class Sealed:
    """A file that was read. Blocks are unpacked when they are asked for; the last one is kept."""

    def __init__(self, path: str, data: bytes) -> None:
        """Raises: AuditError: it is not whole, or not what its name says."""
        self.path = path
        lines = data[:HEAD_BYTES].split(b"\n", 7)
        place = parse_sealed(path)
        try:
            texts = [line.decode() for line in lines[1:6]]
            self.head = Head(texts[0], int(texts[1]), int(texts[2]), texts[3], texts[4])
        except (IndexError, ValueError):
            raise AuditError(f"{path}: its head is missing or was changed") from None
        start = self.head.encode()
        if not data.startswith(start) or place != (self.head.first, self.head.stop):
            raise AuditError(f"{path}: its head was changed, or it is not in its place")
        count = -(-(self.head.stop - self.head.first) // BLOCK)
        table = len(start) + 4 * count
        if len(data) < table:
            raise AuditError(f"{path}: it is cut short")
        at = table
        self._spans: list[tuple[int, int]] = []
        for (length,) in struct.iter_unpack(">I", data[len(start) : table]):
            self._spans.append((at, at + length))
            at += length
        if at != len(data):
            raise AuditError(f"{path}: it has {len(data)} bytes and says {at}: it is cut short, padded or changed")
        self._data = data
        self._block = -1
        self._entries: list[bytes] = []

    def covers(self, bundle: int) -> bool:
        """Whether it holds the entries of this bundle."""
        return self.head.first <= bundle * WIDTH < self.head.stop

    def bundle(self, bundle: int) -> list[bytes]:
        """The entries of a bundle that it covers. Raises: AuditError: the block cannot be unpacked to what it must."""
        block, at = divmod(bundle * WIDTH - self.head.first, BLOCK)
        if block != self._block:
            self._entries = self._unpack(block)
            self._block = block
        return self._entries[at : at + WIDTH]

    def _unpack(self, block: int) -> list[bytes]:
        first = self.head.first + block * BLOCK
        begin, end = self._spans[block]
        count = min(BLOCK, self.head.stop - first)
        where = f"{self.path}: entries {first} to {first + count - 1}"
        unpack = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=UNPACK_BYTES)
        try:
            data = unpack.decompress(self._data[begin:end], BLOCK_BYTES + 1)
        except (lzma.LZMAError, MemoryError, EOFError):
            raise AuditError(f"{where} cannot be unpacked: changed") from None
        if not unpack.eof or unpack.unused_data or len(data) > BLOCK_BYTES:
            raise AuditError(f"{where} do not end as they should: changed")
        entries, left = split_entries(data)
        if left or len(entries) != count:
            raise AuditError(f"{where} are {len(entries)}: changed")
        return entries


def bundle_bytes(sealed: Sealed, bundle: int) -> bytes:
    """A bundle as it was before it was sealed. Raises: AuditError."""
    return join_entries(sealed.bundle(bundle))
