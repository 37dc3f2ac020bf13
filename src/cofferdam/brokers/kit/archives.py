"""Archives: read through and counted, and refused by rule. Nothing is written anywhere. Runs in a process for one file.

Refused: too many entries, too many bytes unpacked, archives in archives deeper than DEPTH, entries that need a password
(but for those of the ZIP itself, where the site has that), what is damaged, a ZIP whose directory and entries differ.
Of what is to be installed also absolute names and `..`, links and devices, two entries of one name, and a ZIP that is
something else as well; people's own files may have those (`strict`).

Not here: what is in the files (clamd), how an entry under AES is opened (zip_aes), whether a ZIP says the same to
whoever reads it (zip_whole), archives of other kinds: those are opaque, and said to be.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import IO, Any, Final

from cofferdam.brokers.kit import zip_aes, zip_whole
from cofferdam.brokers.kit.source import Source
from cofferdam.errors import CofferdamError

ENTRIES_MOST: Final = 20_000
UNPACKED_BYTES: Final = 8 << 30
INNER_BYTES: Final = 256 << 20
"""Of archives within archives that are held in memory at a time, one in another. A tar is read as it comes."""
HEADER_BYTES: Final = 1 << 20
"""Of a tar: names and such of one entry."""
DIRECTORY_BYTES: Final = 8 << 20
"""Of a ZIP: 400 for each entry that it may have."""
DEPTH: Final = 8
RATIO: Final = 200
"""Unpacked bytes for one packed one, beyond the first SLACK."""
SLACK: Final = 64 << 20
PIECE: Final = 1 << 20
_PACKED: Final = 16 << 10
"""What is behind a stream is copied for each: there may be many small ones."""
_BOUNDED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What zipfile unpacks piece by piece: of bzip2, 100 bytes become 150 MB at once, whatever is asked for."""
_HEADERS: Final = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
"""Of a tar: entries that say something of the next one."""
_SEALED, _STRONG = 0x1, 0x40
"""Flags of an entry (APPNOTE, 4.4.4): it needs a password; by an encryption that is not known here."""
_ZIP, _GZIP, _XZ, _BZIP2 = b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ\x00", b"BZh"


class ArchiveRefused(CofferdamError):
    """An archive that is not let in."""


See = Callable[[bytes], None]
"""Is shown what an archive has in it, entry by entry, whole."""
SEEN_BYTES: Final = 128 << 20
"""The largest entry that can be shown; it is held in memory."""


class Counting:
    """What was read so far, over all archives in the file."""

    def __init__(self, packed: int, see: See | None = None, password: str = "", *, strict: bool = True) -> None:
        self.strict = strict
        self.password = password.encode()
        """Of entries of the file itself; none of archives within it may need one."""
        self.sealed = False
        """Some entry needed it: a scanner is shown each, and not the file."""
        self.entries = 0
        self.unpacked = 0
        self.deepest = 0
        self.held = 0
        """Bytes of archives in memory."""
        self.largest = 0
        """Bytes of the largest entry, however deep."""
        self._packed = packed
        self.see = see

    def entry(self, names: Sequence[str], seen: set[str]) -> None:
        """`names`: all that readers may call it."""
        self.entries += 1
        if self.entries > ENTRIES_MOST:
            raise ArchiveRefused(f"an archive of more than {ENTRIES_MOST} entries")
        if not self.strict:
            return
        mine = set()
        for name in names:
            parts = name.replace("\\", "/").split("/")
            if name.startswith(("/", "\\")) or ".." in parts or (len(name) > 1 and name[1] == ":") or "\0" in name:
                raise ArchiveRefused(f"an entry that leads out of the archive: {name[:80]!r}")
            # As systems without case, with Unicode's other form, or without final dots would see it.
            plain = "/".join(part.rstrip(" .") for part in parts if part not in ("", "."))
            plain = unicodedata.normalize("NFKC", plain).casefold()
            if plain in seen:
                raise ArchiveRefused(f"two entries of one name: {name[:80]!r}")
            mine.add(plain)
        seen |= mine

    def bytes(self, count: int) -> None:
        self.unpacked += count
        if self.unpacked > UNPACKED_BYTES or self.unpacked > SLACK + RATIO * self._packed:
            raise ArchiveRefused("an archive that unpacks to too much (a bomb)")


def look(file: Source, see: See | None = None, password: str = "", *, strict: bool = True) -> Counting:
    """Reads all archives in the file. Raises: ArchiveRefused; what `see` raises, if that is a CofferdamError."""
    counting = Counting(file.stat().st_size, see, password, strict=strict)
    with file.open("rb") as opened:
        try:
            _look(opened, counting, 0)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
            raise ArchiveRefused(f"an archive that is damaged: {error}") from None
        except (CofferdamError, MemoryError):
            raise
        except Exception as error:  # the readers raise whatever a wrong file leads them to (an IndexError, say)
            raise ArchiveRefused(f"an archive that cannot be read: {error}") from None
    return counting


def _look(opened: IO[bytes], counting: Counting, depth: int) -> None:
    head = opened.read(512)
    opened.seek(0)
    hides = depth == 0 and not _is_archive(head) and _hides_zip(opened, head, counting.strict)
    if not _is_archive(head) and not hides:
        return
    _deeper(counting, depth)
    if head[:4] == _ZIP or hides:
        _zip(opened, counting, depth)
    elif head[257:262] == b"ustar":
        _tar(opened, counting, depth)
    else:
        _packed(opened, head, counting, depth)


def _deeper(counting: Counting, depth: int) -> None:
    if depth > DEPTH:
        raise ArchiveRefused(f"archives in archives, deeper than {DEPTH}")
    counting.deepest = max(counting.deepest, depth + 1)


def _is_archive(head: bytes) -> bool:
    return head[:4] == _ZIP or head[:2] == _GZIP or head[:6] == _XZ or head[:3] == _BZIP2 or head[257:262] == b"ustar"


def _hides_zip(opened: IO[bytes], head: bytes, strict: bool) -> bool:
    """Whether a file that begins as something else is a ZIP as well (they are read from their end)."""
    is_zip = zipfile.is_zipfile(opened)
    opened.seek(0)
    if strict and is_zip and head[:2] != b"PK":
        raise ArchiveRefused("two kinds of file at once: it is a ZIP as well")
    return is_zip


class _Bounded:
    """A file of which only so much is read at once: a ZIP's directory is, before anything can be counted."""

    def __init__(self, opened: IO[bytes]) -> None:
        self._opened = opened
        self.seek, self.tell, self.seekable = opened.seek, opened.tell, opened.seekable

    def read(self, count: int = -1) -> bytes:
        if count > DIRECTORY_BYTES:
            raise ArchiveRefused(f"the directory of an archive, of {count} bytes")
        return self._opened.read(count)


def _zip(opened: IO[bytes], counting: Counting, depth: int) -> None:
    seen: set[str] = set()
    bounded: Any = _Bounded(opened)
    with zipfile.ZipFile(bounded) as archive:
        infos = archive.infolist()
        for info in infos:
            counting.entry(zip_whole.names(info), seen)
            aes = info.compress_type == zip_aes.METHOD
            if info.compress_type not in _BOUNDED and not aes:
                raise ArchiveRefused(f"an entry that is packed in a way that is not known here: {info.filename[:80]!r}")
            sealed = bool(info.flag_bits & _SEALED) or aes
            if sealed and (depth or not counting.password or info.flag_bits & _STRONG):
                raise ArchiveRefused(f"an entry that needs a password: {info.filename[:80]!r}")
            counting.sealed = counting.sealed or sealed
            kind = (info.external_attr >> 16) & 0o170000
            # The last of them: Maven's way to say that it does not know.
            if counting.strict and kind not in (0, 0o100000, 0o040000, 0o170000):
                raise ArchiveRefused(f"a link or device: {info.filename[:80]!r}")
            if not info.is_dir():
                with _entry(archive, info, counting.password) as inner:
                    _inner(inner, counting, depth)
        if why := zip_whole.why_not(opened, archive, before=not counting.strict):
            raise ArchiveRefused(why)


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, password: bytes) -> IO[bytes]:
    """Raises: ArchiveRefused."""
    try:
        if info.compress_type == zip_aes.METHOD:
            return zip_aes.opened(archive, info, password)
        return archive.open(info, pwd=password if info.flag_bits & _SEALED else None)
    except RuntimeError:
        raise ArchiveRefused(f"an entry that the password does not open: {info.filename[:80]!r}") from None


def contents(file: Source, password: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The entries of a ZIP that was looked at, for a scanner that cannot open it: names, and contents that are read one
    after the other. Raises: ArchiveRefused, OSError."""
    with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with _entry(archive, info, password.encode()) as inner:
                    yield info.filename, iter(partial(inner.read, PIECE), b"")


def _tar(opened: IO[bytes], counting: Counting, depth: int) -> None:
    seen: set[str] = set()
    with tarfile.open(fileobj=opened, mode="r|", tarinfo=_Info) as archive:
        for info in archive:
            counting.entry([info.name], seen)
            if counting.strict and not (info.isfile() or info.isdir()):
                raise ArchiveRefused(f"a link or device: {info.name[:80]!r}")
            inner = archive.extractfile(info) if info.isfile() else None
            if inner is not None:
                _inner(inner, counting, depth)
        opened.seek(archive.offset)
    while piece := opened.read(PIECE):
        if piece.strip(b"\0"):
            raise ArchiveRefused("bytes behind the end of the archive")


def _packed(opened: IO[bytes], head: bytes, counting: Counting, depth: int) -> None:
    kinds: tuple[tuple[bytes, Callable[[IO[bytes]], Any]], ...] = (
        (_GZIP, lambda source: gzip.GzipFile(fileobj=source)),
        (_XZ, lambda source: io.BufferedReader(_Streams(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)))),
        (_BZIP2, lambda source: io.BufferedReader(_Streams(source, bz2.BZ2Decompressor))),
    )
    unpack = next(made for begins, made in kinds if head.startswith(begins))
    with unpack(opened) as stream:
        _inner(stream, counting, depth)


class _Streams(io.RawIOBase):
    """What xz or bzip2 has packed, one stream behind the other, to the last byte: Python's own readers leave out what
    they do not know behind the first."""

    def __init__(self, source: IO[bytes], unpacks: Callable[[], Any]) -> None:
        self._source, self._unpacks = source, unpacks
        self._unpack = unpacks()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer)
        while True:
            packed = b""
            if self._unpack.eof:
                packed = self._unpack.unused_data.lstrip(b"\0")  # streams may be filled up
                while not packed and (more := self._source.read(_PACKED)):
                    packed = more.lstrip(b"\0")
                if not packed:
                    return 0
                self._unpack = self._unpacks()
            elif self._unpack.needs_input and not (packed := self._source.read(_PACKED)):
                raise EOFError("it is cut off")
            if data := self._unpack.decompress(packed, len(room)):
                room[: len(data)] = data
                return len(data)


def _inner(stream: IO[bytes], counting: Counting, depth: int) -> None:
    """One file in an archive: counted, and looked into where it is an archive itself."""
    first = stream.read(PIECE)
    size = len(first)
    counting.bytes(size)
    if not _is_archive(first[:512]):
        whole = bytearray(first)
        while piece := stream.read(PIECE):
            size += len(piece)
            counting.bytes(len(piece))
            if counting.see is not None and len(whole) <= SEEN_BYTES:
                whole += piece
        if counting.see is not None:
            counting.see(bytes(whole))
        counting.largest = max(counting.largest, size)
        return
    if first[257:262] == b"ustar" and first[:4] != _ZIP:
        passing: Any = _Passing(first, stream, counting)
        _deeper(counting, depth + 1)
        _tar(passing, counting, depth + 1)
        counting.largest = max(counting.largest, passing.at)
        return
    held = io.BytesIO()
    piece = first
    while piece:
        counting.held += len(piece)
        if counting.held > INNER_BYTES:
            raise ArchiveRefused(f"archives within archives of more than {INNER_BYTES >> 20} MiB")
        held.write(piece)
        piece = stream.read(PIECE)
        counting.bytes(len(piece))
    size = held.tell()
    counting.largest = max(counting.largest, size)
    held.seek(0)
    _look(held, counting, depth + 1)
    counting.held -= size


class _Passing:
    """A tar that comes out of another archive: read once, counted, and not held. `seek` leads back into what was read
    last alone, since what stands behind the tar's end is looked at as well."""

    def __init__(self, first: bytes, stream: IO[bytes], counting: Counting) -> None:
        self._ahead, self._stream, self._counting = io.BytesIO(first), stream, counting
        self._last = b""
        self.at = 0

    def read(self, count: int) -> bytes:
        data = self._ahead.read(count)
        if not data:
            data = self._stream.read(count)
            self._counting.bytes(len(data))
        self._last = data
        self.at += len(data)
        return data

    def seek(self, place: int) -> None:
        again = self._last[len(self._last) - (self.at - place) :] if place < self.at else b""
        self.at -= len(again)
        self._ahead = io.BytesIO(again + self._ahead.read())


class _Info(tarfile.TarInfo):
    """Headers about the next entry are read whole, whatever size they say."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.size > HEADER_BYTES and self.type in _HEADERS:
            raise ArchiveRefused(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]
