"""Compound files ([MS-CFB]), as Windows installer packages (MSI) are: a tree of storages and streams within one file.

A strict reader: what is not as the format has it is refused, and so is anything behind the last sector in use (the
well-known way to make a signed package a second kind of file). Runs in the examiner. Not here: what is signed of it
(authenticode).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Final

from msgspec import Struct

from cofferdam.errors import CofferdamError

MAGIC: Final = bytes.fromhex("d0cf11e0a1b11ae1")
ENTRIES_MOST: Final = 65_536
MINI_BYTES: Final = 64 << 20
"""The most that all small streams have together; they are held in memory."""
DEEP: Final = 32
PIECE: Final = 1 << 20
_ENTRY: Final = 128
_MINI: Final = 64
_CUTOFF: Final = 4096
_REGULAR: Final = 0xFFFFFFFA
_END: Final = 0xFFFFFFFE
_NONE: Final = 0xFFFFFFFF
STORAGE, STREAM, ROOT = 1, 2, 5
_ROOT: Final = "Root Entry\0".encode("utf-16-le")


class NotCompound(CofferdamError):
    """It is no compound file, or a damaged one."""


class Entry(Struct, frozen=True):
    """A storage or stream. `name`: UTF-16 with its end; `about`: what its maker wrote of it, as it stands there."""

    name: bytes
    kind: int
    left: int
    right: int
    child: int
    clsid: bytes
    state: bytes
    times: bytes
    start: int
    size: int


class Compound:
    """An open file."""

    def __init__(self, opened: IO[bytes], length: int) -> None:
        """Raises: NotCompound."""
        self._opened = opened
        head = opened.read(512)
        if len(head) != 512 or head[:8] != MAGIC:
            raise NotCompound("it is no compound file")
        major, order, shift, mini = struct.unpack_from("<HHHH", head, 26)
        if (major, shift) not in ((3, 9), (4, 12)) or order != 0xFFFE or mini != 6:
            raise NotCompound("a compound file of a kind that there is not")
        self._size = 1 << shift
        if any(opened.read(self._size - 512)):
            raise NotCompound("what is signed is not all of it: data behind the header")
        self._wide = major == 4
        self._count = length // self._size - 1
        if length % self._size or self._count < 2:
            raise NotCompound("what is signed is not all of it: the package does not end with a sector")
        folders, fats, directory, _, cutoff, minifat, minifats, difat, difats = struct.unpack_from("<9I", head, 40)
        if cutoff != _CUTOFF or any(head[8:24]) or any(head[34:40]) or (folders and not self._wide):
            raise NotCompound("a compound file of a kind that there is not")
        self._used = bytearray(self._count)
        """Which sectors something is in."""
        self._fat = self._table(self._fat_sectors(head, fats, difat, difats))
        self._entries = self._list(directory, ENTRIES_MOST * _ENTRY)
        self._minifat = array("I")
        if minifat < _REGULAR:
            self._minifat = _words(self._list(minifat, MINI_BYTES // _MINI * 4))
        if len(self._minifat) * 4 != minifats * self._size:
            raise NotCompound("a compound file whose table of sectors is damaged")
        self.root = self.entry(0)
        if self.root.kind != ROOT or self.root.size > MINI_BYTES:
            raise NotCompound("a compound file without a root, or with too much in small streams")
        self._ministream = b"".join(self._chain(self.root.start, self.root.size)) if self.root.size else b""

    def _fat_sectors(self, head: bytes, fats: int, difat: int, difats: int) -> list[int]:
        found = list(struct.unpack_from("<109I", head, 76))
        each = self._size // 4 - 1
        if fats > 16 + 2 * self._count // each or difats > 1 + fats // each:
            raise NotCompound("a compound file whose table of sectors is larger than it can need")
        for _ in range(difats):
            words = _words(self._sector(difat))
            found += words[:each]
            difat = words[each]
        found = [sector for sector in found if sector != _NONE]
        if len(found) != fats or not found:
            raise NotCompound("a compound file whose table of sectors is damaged")
        return found

    def _table(self, sectors: list[int]) -> array[int]:
        found: array[int] = array("I")
        for sector in sectors:
            found += _words(self._sector(sector))
        return found

    def _sector(self, number: int) -> bytes:
        return self._run(number, 1)

    def _run(self, number: int, count: int) -> bytes:
        """So many sectors, from one on."""
        if number + count > self._count:
            raise NotCompound("a compound file that is cut off")
        for each in range(number, number + count):
            if self._used[each]:
                raise NotCompound("a compound file in which two things share a sector")
            self._used[each] = 1
        self._opened.seek((number + 1) * self._size)
        data = self._opened.read(count * self._size)
        if len(data) != count * self._size:
            raise NotCompound("a compound file that is cut off")
        return data

    def _next(self, sector: int) -> int:
        if sector >= len(self._fat):
            raise NotCompound("a compound file whose table of sectors is damaged")
        return self._fat[sector]

    def _chain(self, sector: int, size: int | None) -> Iterator[bytes]:
        """What is in a chain of sectors; `size`: so many bytes of it, which is all that it may have."""
        left = size
        while sector < _REGULAR:
            count = 1
            while count * self._size < PIECE and self._next(sector + count - 1) == sector + count:
                count += 1
            data = self._run(sector, count)
            sector = self._next(sector + count - 1)
            if left is not None:
                if left <= 0 or (left < len(data) and len(data) - left >= self._size):
                    raise NotCompound("a stream with more sectors than it needs")
                data = data[:left]
                left -= len(data)
            yield data
        if sector != _END or left:
            raise NotCompound("a stream that is cut off")

    def _list(self, sector: int, most: int) -> bytes:
        """A chain that says its end itself, and is held in memory."""
        found = bytearray()
        for piece in self._chain(sector, None):
            found += piece
            if len(found) > most:
                raise NotCompound(f"a compound file of more than {ENTRIES_MOST} entries, or too many small streams")
        return bytes(found)

    def _small(self, sector: int, size: int) -> bytes:
        found = bytearray()
        while sector < _REGULAR and len(found) < size:
            if sector >= len(self._minifat) or (sector + 1) * _MINI > len(self._ministream) + _MINI - 1:
                raise NotCompound("a small stream that is cut off")
            found += self._ministream[sector * _MINI : (sector + 1) * _MINI]
            sector = self._minifat[sector]
        if sector != _END or len(found) < size:
            raise NotCompound("a small stream that is cut off")
        return bytes(found[:size])

    def entry(self, number: int) -> Entry:
        """Raises: NotCompound."""
        raw = self._entries[number * _ENTRY : (number + 1) * _ENTRY]
        if len(raw) != _ENTRY:
            raise NotCompound("an entry that is not there")
        (length,) = struct.unpack_from("<H", raw, 64)
        kind = raw[66]
        left, right, child = struct.unpack_from("<3I", raw, 68)
        name = raw[:length]
        units = _units(name) if length % 2 == 0 and 4 <= length <= 64 else []
        if not units or units[-1] or 0 in units[:-1] or kind not in (STORAGE, STREAM, ROOT):
            raise NotCompound("an entry without a name, or of a kind that there is not")
        alone = name == _ROOT and (left, right) == (_NONE, _NONE) and not any(raw[100:108])
        if (kind == STREAM and child != _NONE) or (kind == ROOT and not alone):
            raise NotCompound("an entry with something beneath or beside it that it cannot have")
        start, low, high = struct.unpack_from("<3I", raw, 116)
        size = low | (high << 32 if self._wide else 0)
        return Entry(name, kind, left, right, child, raw[80:96], raw[96:100], raw[100:116], start, size)

    def children(self, storage: Entry, seen: set[int]) -> list[Entry]:
        """What is in a storage, in the order in which it is signed. `seen`: numbers that were found before.

        Raises:
            NotCompound: two of one name, a tree that is none, or one in which Windows would not find what is there.
        """
        found: list[Entry] = []
        waiting: list[Entry] = []
        number = storage.child
        while waiting or number != _NONE:
            while number != _NONE:
                if number in seen or number == 0:
                    raise NotCompound("a compound file whose entries go round in a circle")
                seen.add(number)
                waiting.append(self.entry(number))
                number = waiting[-1].left
            found.append(waiting.pop())
            number = found[-1].right
        if any(one.kind == ROOT for one in found):
            raise NotCompound("a second root in the package")
        keys = [_key(one.name) for one in found]
        if any(after <= before for before, after in pairwise(keys)):
            raise NotCompound("two entries of one name in the package, or entries that are not in order")
        return sorted(found, key=_name)

    def alone(self, seen: set[int]) -> None:
        """Whether these entries, and the root, are all. Raises: NotCompound."""
        for number in range(1, len(self._entries) // _ENTRY):
            raw = self._entries[number * _ENTRY : (number + 1) * _ENTRY]
            if number not in seen and (any(raw[:68]) or any(raw[80:])):
                raise NotCompound("what is signed is not all of it: an entry that is in no storage")

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Piece by piece. Raises: NotCompound."""
        if not entry.size:
            return
        if entry.size < _CUTOFF:
            yield self._small(entry.start, entry.size)
        else:
            yield from self._chain(entry.start, entry.size)

    def end(self) -> None:
        """Once all was read: whether something stands behind it. Raises: NotCompound."""
        last = self._used.rfind(1)
        self._opened.seek((last + 2) * self._size)
        while piece := self._opened.read(PIECE):
            if any(piece):
                raise NotCompound("what is signed is not all of it: data behind the package")


def _name(entry: Entry) -> bytes:
    return entry.name


def _key(name: bytes) -> tuple[int, list[str]]:
    """By which a tree is in order: what is searched for by it is found. Names in large and small letters are one."""
    return len(name), [large if len(large := chr(unit).upper()) == 1 else chr(unit) for unit in _units(name)]


def _words(data: bytes) -> array[int]:
    found = array("I")
    if found.itemsize != 4:  # pragma: no cover
        raise NotCompound("a machine without numbers of 32 bits")
    found.frombytes(data)
    if struct.pack("=I", 1) != struct.pack("<I", 1):  # pragma: no cover
        found.byteswap()
    return found


def _units(name: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(name) // 2}H", name))


def is_one(file: Path) -> bool:
    """By its first bytes."""
    with file.open("rb") as opened:
        return opened.read(8) == MAGIC
