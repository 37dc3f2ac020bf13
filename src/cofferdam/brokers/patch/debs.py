"""Debian packages as a scanner has to be shown them: clamd does not open the archive (`ar`) that a package is, and
calls whatever is packed in it clean.

Not here: whether a package is its maker's (apt_bundle, origin).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Final

from cofferdam.brokers.kit.clamd import NotScanned
from cofferdam.brokers.kit.source import Source

MAGIC: Final = b"!<arch>\n"
PIECE: Final = 1 << 20
_HEAD: Final = 60
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


def of(file: Source) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What a file is made of. Raises: OSError, NotScanned."""
    with file.open("rb") as opened:
        yield from members(opened, "the package")


def members(opened: IO[bytes], name: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What a package is made of: names, and contents that are read one after the other.

    Raises:
        NotScanned: it is no such archive, or has something in it that scanners do not open (zstd).
    """
    if opened.read(len(MAGIC)) != MAGIC:
        raise NotScanned(f"{name} is no Debian package")
    while head := opened.read(_HEAD):
        size = head[48:58].strip()
        if len(head) != _HEAD or head[58:] != b"`\n" or not size.isdigit():
            raise NotScanned(f"{name} is a Debian package that is damaged")
        member = head[:16].decode("ascii", "replace").strip().rstrip("/")
        first = opened.read(min(PIECE, int(size)))
        if first.startswith(_ZSTD):
            raise NotScanned(f"{name}: the scanner does not open {member!r}, which is packed by zstd")
        yield f"{name}, {member}", _pieces(opened, first, int(size), name)
        if int(size) % 2:
            opened.read(1)


def _pieces(opened: IO[bytes], first: bytes, size: int, name: str) -> Iterator[bytes]:
    left, data = size, first
    while left:
        if not data:
            raise NotScanned(f"{name} is a Debian package that is cut off")
        left -= len(data)
        yield data
        data = opened.read(min(PIECE, left))
