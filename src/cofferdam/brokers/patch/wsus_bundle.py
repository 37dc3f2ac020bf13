"""Proof of an export of WSUS, made for a server without a network: one tar of the metadata (`wsusutil export`) and of
the folder WsusContent, signed by whoever exported it. Runs in the examiner.

    export.xml.gz (or .cab)         the metadata, once; signed by nobody but the exporter
    WsusContent/.../SHA1.ext        the updates, each with Authenticode under a pinned certificate

Both are asked for. The updates' own signatures say that they are the vendor's; but the metadata says which of them is
run where and with what arguments, and a signed program with a stranger's arguments is a well-known way in. A file is
called after its SHA-1, which is held to; it proves nothing by itself.

Texts (licences) carry no signature, and have to be texts. Refused by name: what carries none otherwise (express files
and feature updates: .psf, .esd, .wim), links, names that lead out, names twice.

Not here: what the metadata has in it (WSUS reads that), signatures (origin, authenticode).
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, Final

from cofferdam.brokers.kit.source import Source
from cofferdam.brokers.patch import authenticode, chains, cms, compound, origin

FILES_MOST: Final = 20_000
METADATA_BYTES: Final = 1 << 30
TEXT_BYTES: Final = 4 << 20
PIECE: Final = 1 << 20
_CONTENT: Final = re.compile(r"(?:\./)?WsusContent/(?:[0-9A-Fa-f]{2}/)?([0-9A-Fa-f]{40})\.([A-Za-z0-9]{1,8})\Z")
_METADATA: Final = re.compile(r"(?:\./)?[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.(?:xml\.gz|cab)\Z")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def prove(file: Source, signature: bytes, exporters: Sequence[bytes], pins: origin.Pins) -> origin.Proved:
    """Raises: NotProved, with the reason."""
    by = origin.prove("pgp", file, signature, origin.Pins(exporters))
    try:
        with file.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            found = _Reading(archive, pins).run()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise origin.NotProved(f"the export is no tar: {error}") from None
    facts = {**{f"exporter_{name}": value for name, value in by.facts.items()}, **found}
    detail = f"WSUS, {found['updates']} updates of {found['publishers'][:200]}, exported by {by.facts['name']}"
    return origin.Proved(detail, facts)


class _Reading:
    """One export."""

    def __init__(self, archive: tarfile.TarFile, pins: origin.Pins) -> None:
        self._archive = archive
        self._pins = pins
        self._seen: set[str] = set()
        self._metadata = ""
        self._publishers: set[str] = set()
        self._updates = self._texts = 0

    def run(self) -> dict[str, str]:
        for number, info in enumerate(self._archive):
            if number >= FILES_MOST:
                raise origin.NotProved(f"more than {FILES_MOST} files")
            if info.isdir():
                continue
            name = info.name.removeprefix("./")
            opened = self._archive.extractfile(info) if info.isreg() and not info.issparse() else None
            if opened is None or name.casefold() in self._seen:
                raise origin.NotProved(f"a link, or a name twice: {name[:80]!r}")
            self._seen.add(name.casefold())
            content = _CONTENT.match(name)
            if content is not None:
                self._content(name, content[1], content[2].lower(), opened, info.size)
            elif _METADATA.match(name) and not self._metadata and info.size <= METADATA_BYTES:
                self._metadata = f"{name}, SHA-256 {_hash(opened, 'sha256')}"
            else:
                raise origin.NotProved(
                    f"{name[:80]!r}, where an export has its metadata once, and WsusContent/SHA1.ext"
                )
        if not self._metadata or not self._updates:
            raise origin.NotProved("an export without metadata, or without updates")
        return {
            "metadata": self._metadata, "updates": str(self._updates), "texts": str(self._texts),
            "publishers": ", ".join(sorted(self._publishers)),
        }  # fmt: skip

    def _content(self, name: str, sha1: str, ending: str, opened: IO[bytes], size: int) -> None:
        if _hash(opened, "sha1") != sha1.lower():
            raise origin.NotProved(f"{name} has another SHA-1 than it is called after")
        if ending == "txt":
            self._texts += 1
            if size > TEXT_BYTES or not _is_text(opened):
                raise origin.NotProved(f"{name} is called a text, and is none")
            return
        try:
            _, signed = authenticode.signer(opened, size)
            facts = chains.signs_code(signed, self._pins.keys, self._pins.publisher, self._pins.stamps)
        except (cms.NotSigned, compound.NotCompound, chains.NotVouched) as error:
            raise origin.NotProved(f"{name}: {error}") from None
        self._updates += 1
        self._publishers.add(facts["publisher"])


def _hash(opened: IO[bytes], name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    while piece := opened.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()


def _is_text(opened: IO[bytes]) -> bool:
    opened.seek(0)
    data = opened.read()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    return not _CONTROL.search(text)


def contents(file: Source) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files of an export that was proved, for a scanner."""
    with file.open("rb") as whole, tarfile.open(fileobj=whole, mode="r:") as archive:
        for info in archive:
            opened = archive.extractfile(info) if info.isreg() else None
            if opened is not None:
                yield info.name.rpartition("/")[2], _pieces(opened)


def _pieces(opened: IO[bytes]) -> Iterator[bytes]:
    while piece := opened.read(PIECE):
        yield piece
