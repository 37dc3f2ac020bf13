"""Whether a ZIP is one thing, whoever reads it: from its beginning (each entry has a header of its own), by its
directory, or by its end, which says where that is. zipfile believes the directory, and other readers one of the others.

Not here: what an archive may have in it (archives), contents under a password (zip_aes).
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, Final

_LOCAL: Final = struct.Struct("<4s3H4x3I2H")
_END: Final = struct.Struct("<4s4x2HII2x")
_FAR: Final = struct.Struct("<4s4xQ4x")
"""Where the end of a large archive is (ZIP64)."""
_FAR_END: Final = 56
_SEALED, _DESCRIPTOR, _UTF8 = 0x1, 0x8, 0x800
_BEHIND: Final = 24
"""The most that stands behind an entry with a descriptor."""
_ELSEWHERE: Final = 0xFFFFFFFF
_SIZES, _AES, _PATH = 0x0001, 0x9901, 0x7075
_EMPTY: Final = 64
"""Bytes that a folder may have: nothing, packed or under a password."""


def names(info: zipfile.ZipInfo) -> list[str]:
    """All that an entry is called: many readers go by the name in its extra field (APPNOTE, 4.6.9), and zipfile ends
    names where a C program would."""
    return list(dict.fromkeys((info.filename, info.orig_filename, *_paths(_fields(info.extra)))))


def why_not(opened: IO[bytes], archive: zipfile.ZipFile, *, before: bool = False) -> str:
    """ "" if it is. `before`: something else may stand before it, such as the program that unpacks it. Raises:
    struct.error: it is cut off."""
    at = more = 0
    places = sorted(((info.header_offset, info) for info in archive.infolist()), key=lambda each: each[0])
    start = getattr(archive, "start_dir", -1)
    opened.seek(0)
    if before and opened.read(4) != b"PK\3\4":
        at = min([start, *(place for place, _ in places)])
    first = at
    last: tuple[int, zipfile.ZipInfo | None] = (start, None)
    for place, info in [*places, last]:
        if not at <= place <= at + more:
            return "bytes before, between or behind the entries that the directory does not tell of"
        if info is not None:
            opened.seek(place)
            at, why = _entry(opened, info)
            if why:
                return f"{why}: {info.filename[:80]!r}"
            more = _BEHIND if info.flag_bits & _DESCRIPTOR else 0
    return _end(opened, archive, start, first)


def _entry(opened: IO[bytes], info: zipfile.ZipInfo) -> tuple[int, str]:
    """Where it ends, and why its own header says something else than the directory."""
    magic, _, flags, method, crc, packed, size, named, more = _LOCAL.unpack(opened.read(_LOCAL.size))
    name, extra = opened.read(named), opened.read(more)
    end = opened.tell() + info.compress_size
    own, told = _fields(extra), _fields(info.extra)
    if own is None or told is None:
        return end, "an entry with a field that stands twice"
    if packed == _ELSEWHERE and len(own.get(_SIZES, b"")) >= 16:
        size, packed = struct.unpack_from("<QQ", own[_SIZES])
    unsaid = (0, _ELSEWHERE) if flags & _DESCRIPTOR else ()
    same = (
        magic == b"PK\3\4"
        and (flags ^ info.flag_bits) & (_SEALED | _DESCRIPTOR) == 0
        and method == info.compress_type
        and name.decode("utf-8" if info.flag_bits & _UTF8 else "cp437", "replace") == info.orig_filename
        and own.get(_AES) == told.get(_AES)
        and set(_paths(own)) <= set(_paths(told))
        and all(one in (there, *unsaid) for one, there in (
            (crc, info.CRC), (packed, info.compress_size), (size, info.file_size)))
    )  # fmt: skip
    if not same:
        return end, "an entry that says something else of itself than the directory"
    if info.is_dir() and (info.file_size or info.compress_size > _EMPTY):
        return end, "a folder with contents"
    return end, ""


def _fields(extra: bytes) -> dict[int, bytes] | None:
    """None: one of those that count stands twice."""
    found: dict[int, bytes] = {}
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind in found and kind in (_SIZES, _AES, _PATH):
            return None
        found[kind] = extra[4 : 4 + length]
        extra = extra[4 + length :]
    return found


def _paths(fields: dict[int, bytes] | None) -> list[str]:
    return [fields[_PATH][5:].decode("utf-8", "replace")] if fields and _PATH in fields else []


def _end(opened: IO[bytes], archive: zipfile.ZipFile, start: int, first: int) -> str:
    """`first`: where entries begin; places may be told as seen from there."""
    place = opened.seek(-_END.size - len(archive.comment), io.SEEK_END)
    magic, here, count, _, at = _END.unpack(opened.read(_END.size))
    if magic != b"PK\5\6":
        return "bytes behind the end of the archive"
    opened.seek(place + _END.size - 2)
    comment = int.from_bytes(opened.read(2), "little")
    entries = len(archive.infolist())
    there = start - first <= at <= start or at == _ELSEWHERE
    if {here, count} - {entries, 0xFFFF} or not there or comment != len(archive.comment):
        return "an end of the archive that tells of another one"
    if place >= _FAR.size + _FAR_END:
        opened.seek(place - _FAR.size)
        far, where = _FAR.unpack(opened.read(_FAR.size))
        if far == b"PK\6\7" and where != place - _FAR.size - _FAR_END:
            return "an end of the archive that tells of another one"
    return ""
