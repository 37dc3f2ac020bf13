"""Where the parts of the tree stand: the file layout of C2SP tlog-tiles, and the bytes of entry bundles.

    tile/<level>/<index>[.p/<width>]      hashes, 32 bytes each, 256 in a full tile
    tile/entries/<index>[.p/<width>]      entries, each behind its length in two bytes, big-endian

Not here: reading and writing files (log, files).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cofferdam.audit.entry import MAX_ENTRY_BYTES
from cofferdam.audit.tree import WIDTH
from cofferdam.errors import AuditError

HASH_BYTES = 32
ENTRIES = "entries"
"""The "level" of entry bundles in a path."""


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """The path of a tile below the log's folder. `level` is 0-63 or ENTRIES; `width` below 256 makes it partial."""
    parts = [f"{index % 1000:03d}"]
    index //= 1000
    while index:
        parts.append(f"x{index % 1000:03d}")
        index //= 1000
    return f"tile/{level}/{'/'.join(reversed(parts))}" + ("" if width == WIDTH else f".p/{width}")


def parse_path(path: str) -> tuple[int | str, int, int] | None:
    """The inverse of `tile_path`: (level, index, width), or None if the path names no tile."""
    parts = path.split("/")
    if len(parts) < 3 or parts[0] != "tile":
        return None
    width = WIDTH
    if len(parts) > 3 and parts[-2].endswith(".p"):
        if not (parts[-1].isascii() and parts[-1].isdigit()):
            return None
        width = int(parts.pop())
        parts[-1] = parts[-1].removesuffix(".p")
    digits = [part.removeprefix("x") for part in parts[2:]]
    known = parts[1] == ENTRIES or (parts[1].isascii() and parts[1].isdigit())
    if not known or not all(part.isascii() and part.isdigit() for part in digits):
        return None
    level: int | str = ENTRIES if parts[1] == ENTRIES else int(parts[1])
    index = int("".join(digits))
    return (level, index, width) if tile_path(level, index, width) == path else None


def edge(size: int) -> list[tuple[int, int, int]]:
    """The unfinished tiles of a tree of this size: (level, index, width), empty ones left out."""
    found = []
    level = 0
    while size:
        if size % WIDTH:
            found.append((level, size // WIDTH, size % WIDTH))
        size //= WIDTH
        level += 1
    return found


def growth(old: int, new: int, kept: int = 0, *, whole: bool = False) -> Iterator[str]:
    """What a log of `new` entries has, by paths, and one of `old` entries has not: tiles of every level and entries,
    and the unfinished ones at its edge (not where only `whole` ones are asked for). Entries below `kept`, and their
    leaf hashes, are there no more."""
    levels: list[tuple[int | str, int, int]] = [(ENTRIES, old, new)]
    level, low, high = 0, old, new
    while high:
        levels.append((level, low, high))
        level, low, high = level + 1, low // WIDTH, high // WIDTH
    for name, low, high in levels:
        gone = kept // WIDTH if name in (ENTRIES, 0) else 0
        for index in range(max(low // WIDTH, gone), high // WIDTH):
            yield tile_path(name, index)
        if high % WIDTH and not whole:
            yield tile_path(name, high // WIDTH, high % WIDTH)


def split_hashes(data: bytes) -> list[bytes]:
    """The hashes of a tile. Raises: AuditError if the length is no multiple of 32."""
    if len(data) % HASH_BYTES:
        raise AuditError(f"a tile of {len(data)} bytes is not a row of {HASH_BYTES}-byte hashes")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def join_entries(entries: Iterable[bytes]) -> bytes:
    """The bytes of an entry bundle. Raises: AuditError if one entry is too long."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise AuditError(f"an entry of {len(entry)} bytes is too long for a bundle")
        parts.append(len(entry).to_bytes(2, "big"))
        parts.append(entry)
    return b"".join(parts)


def split_entries(data: bytes) -> tuple[list[bytes], int]:
    """The entries of a bundle, and how many bytes are left over because the last entry is cut short."""
    entries: list[bytes] = []
    at, end = 0, len(data)
    while at + 2 <= end:
        stop = at + 2 + (data[at] << 8 | data[at + 1])
        if stop > end:
            break
        entries.append(data[at + 2 : stop])
        at = stop
    return entries, end - at


def join_hashes(hashes: Sequence[bytes]) -> bytes:
    """The bytes of a tile."""
    return b"".join(hashes)
