"""A Debian repository's index: Release and Packages, and the one file that a snapshot of it becomes. Nothing here
trusts anything: whether a Release is signed by whom, the examiner finds out (apt_bundle).

A snapshot is a tar without compression, made of the vendor's own files under their own paths, in this order:

    dists/SUITE/InRelease
    dists/SUITE/COMPONENT/binary-ARCH/Packages.xz      one of .xz, .gz or plain, for each
    pool/...                                           the packages that rules name

Times, owners and modes in it are zero, so that the same snapshot is the same file. Its version is the Release's Date.

Deb822 as in deb-src-control(5), Release and Packages as in the Debian repository format. Not here: sources,
translations, contents, pdiffs; serving (apt_tree).
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from msgspec import Struct

from cofferdam.errors import CofferdamError

RELEASE_BYTES: Final = 4 << 20
PACKAGES_BYTES: Final = 64 << 20
"""Of one Packages as it is sent."""
UNPACKED_BYTES: Final = 1 << 30
LINE_BYTES: Final = 1 << 20
PACKAGES_MOST: Final = 1_000_000
FILES_MOST: Final = 50_000
"""Of one snapshot."""
ENDINGS: Final = (".xz", ".gz", "")
"""Of Packages, the one that apt itself would ask for first."""
PATH: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~:%@-]*(/[A-Za-z0-9][A-Za-z0-9._+~:%@-]*){0,15}\Z")
_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")
_BLOCK: Final = 512
_END: Final = bytes(2 * _BLOCK)


class BadIndex(CofferdamError):
    """A repository that is not what it should be."""


class Item(Struct, frozen=True):
    """A file that an index names. `package` and `version`: "" for an index."""

    path: str
    size: int
    sha256: str
    package: str = ""
    version: str = ""


class ReleaseFile(Struct, frozen=True):
    """What a Release says. `files` are by their paths beneath dists/SUITE; times are UTC."""

    date: datetime
    valid_until: datetime | None
    suite: str
    codename: str
    origin: str
    files: dict[str, Item]

    @property
    def version(self) -> str:
        """What a snapshot of it is called."""
        return f"{self.date:%Y%m%dT%H%M%SZ}"


def stanzas(lines: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """Paragraphs of Deb822, with their names in lower case. Raises: BadIndex."""
    found: dict[str, str] = {}
    name = ""
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line.strip():
            if found:
                yield found
            found, name = {}, ""
        elif line[0] in " \t":
            if not name:
                raise BadIndex("an index whose lines go on from nothing")
            found[name] += "\n" + line[1:]
        elif line[0] != "#":
            word, colon, value = line.partition(":")
            name = word.strip().lower()
            if not colon or not name:
                raise BadIndex(f"an index with a line that is none: {line[:60]!r}")
            if name in found:
                raise BadIndex(f"an index with {name} twice in one entry")
            found[name] = value.strip()
    if found:
        yield found


def read_release(text: bytes) -> ReleaseFile:
    """The text of a Release, without its signature. Raises: BadIndex."""
    found = list(stanzas(text.splitlines()))
    if len(found) != 1:
        raise BadIndex("a Release of other than one paragraph")
    fields = found[0]
    if "sha256" not in fields:
        weak = " (it has weaker ones)" if "md5sum" in fields or "sha1" in fields else ""
        raise BadIndex(f"a Release without SHA-256{weak}")
    files: dict[str, Item] = {}
    for line in fields["sha256"].splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not _HASH.match(words[0]) or not words[1].isdecimal() or len(words[1]) > 14:
            raise BadIndex(f"a Release with a line that is none: {line[:60]!r}")
        if PATH.match(words[2]):
            files[words[2]] = Item(words[2], int(words[1]), words[0])
    return ReleaseFile(
        _time(fields.get("date", "")) or _no_date(), _time(fields.get("valid-until", "")),
        fields.get("suite", "")[:100], fields.get("codename", "")[:100], fields.get("origin", "")[:100], files,
    )  # fmt: skip


def _no_date() -> datetime:
    raise BadIndex("a Release without a date")


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        raise BadIndex(f"a Release with a time that is none: {text[:60]!r}") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def signed_text(inline: bytes) -> bytes:
    """The text of an InRelease, as it stands between its marks. For looking only. Raises: BadIndex."""
    head, mark, rest = inline.partition(b"-----BEGIN PGP SIGNED MESSAGE-----")
    body, end, _ = rest.partition(b"-----BEGIN PGP SIGNATURE-----")
    if head.strip() or not mark or not end:
        raise BadIndex("an InRelease that is not signed within itself")
    lines = body.split(b"\n")
    try:
        start = lines.index(b"", 1) if b"" in lines[1:] else lines.index(b"\r", 1)
    except ValueError:
        raise BadIndex("an InRelease without a text") from None
    return b"\n".join(line[2:] if line.startswith(b"- ") else line for line in lines[start + 1 :])


def packages_of(release: ReleaseFile, component: str, architecture: str) -> Item:
    """Which Packages is asked for. Raises: BadIndex."""
    for ending in ENDINGS:
        item = release.files.get(f"{component}/binary-{architecture}/Packages{ending}")
        if item is not None:
            if item.size > PACKAGES_BYTES:
                raise BadIndex(f"{item.path} has {item.size} bytes, and at most {PACKAGES_BYTES} are taken")
            return item
    raise BadIndex(f"the Release has no Packages for {component} and {architecture}")


def unpacked(data: bytes, name: str) -> Iterator[bytes]:
    """The lines of a Packages as it is sent. Raises: BadIndex: damaged, or it unpacks to too much (a bomb)."""
    total, held = 0, b""
    for piece in _pieces(data, name):
        total += len(piece)
        if total > UNPACKED_BYTES:
            raise BadIndex(f"{name} unpacks to more than {UNPACKED_BYTES} bytes (a bomb)")
        lines = (held + piece).split(b"\n")
        held = lines.pop()
        if len(held) > LINE_BYTES:
            raise BadIndex(f"{name} has a line of more than {LINE_BYTES} bytes")
        yield from lines
    if held:
        yield held


def _pieces(data: bytes, name: str) -> Iterator[bytes]:
    size = 1 << 20
    try:
        if name.endswith(".xz"):
            xz = lzma.LZMADecompressor(memlimit=256 << 20)
            yield xz.decompress(data, size)
            while not xz.eof:
                if xz.needs_input:
                    raise BadIndex(f"{name} is cut off")
                yield xz.decompress(b"", size)
        elif name.endswith(".gz"):
            gz = zlib.decompressobj(31)
            piece = gz.decompress(data, size)
            while piece or gz.unconsumed_tail:
                yield piece
                piece = gz.decompress(gz.unconsumed_tail, size)
            if not gz.eof:
                raise BadIndex(f"{name} is cut off")
        else:
            for at in range(0, len(data), size):
                yield data[at : at + size]
    except (lzma.LZMAError, zlib.error) as error:
        raise BadIndex(f"{name} is damaged: {error}") from None


def read_packages(data: bytes, name: str) -> Iterator[Item]:
    """The packages of a Packages as it is sent. Raises: BadIndex, also for one without a SHA-256."""
    for number, fields in enumerate(stanzas(unpacked(data, name))):
        if number >= PACKAGES_MOST:
            raise BadIndex(f"{name} has more than {PACKAGES_MOST} packages")
        package, path, size = fields.get("package", ""), fields.get("filename", ""), fields.get("size", "")
        sha256 = fields.get("sha256", "").lower()
        if not package or not PATH.match(path) or path.startswith("dists/") or not size.isdecimal() or len(size) > 14:
            raise BadIndex(f"{name} has a package with a path or size that is none: {package[:40]!r} {path[:80]!r}")
        if not _HASH.match(sha256):
            raise BadIndex(f"{name} has no SHA-256 for {package[:40]!r}: weaker hashes are none")
        yield Item(path, int(size), sha256, package, fields.get("version", "")[:100])


# --- the tar --------------------------------------------------------------------------------------------------------


def head_of(path: str, size: int) -> bytes:
    """What stands before a file in the tar."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def padding_of(size: int) -> bytes:
    return bytes(-size % _BLOCK)


END: Final = _END


def size_of(files: Iterable[tuple[str, int]]) -> int:
    """Of the whole tar."""
    return sum(len(head_of(path, size)) + size + -size % _BLOCK for path, size in files) + len(END)


def by_hash(release: ReleaseFile, suite: str, have: Mapping[str, object]) -> dict[str, str]:
    """Where apt asks for an index by its hash (Acquire-By-Hash) -> the path that it has in the tar."""
    found: dict[str, str] = {}
    for item in release.files.values():
        path = f"dists/{suite}/{item.path}"
        if path in have:
            found[f"{path.rpartition('/')[0]}/by-hash/SHA256/{item.sha256}"] = path
    return found
