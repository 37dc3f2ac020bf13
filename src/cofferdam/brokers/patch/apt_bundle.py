"""Proof of a Debian repository's snapshot (apt_index says what one is): InRelease by a pinned OpenPGP certificate, each
Packages by InRelease, each package by its Packages; and nothing in it besides. Runs in the examiner.

Refused: another signature, a Release that has expired, hashes weaker than SHA-256, a file that no index or no rule
names, an index or a package with another hash or size (an older Packages among them), links, names that lead out,
names twice.

Not here: that the snapshot is not older than the last (keeper).
"""

from __future__ import annotations

import fnmatch
import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Final

import pysequoia

from cofferdam.brokers.kit.source import Source
from cofferdam.brokers.patch import apt_index, debs
from cofferdam.brokers.patch.apt_index import BadIndex, Item, ReleaseFile
from cofferdam.brokers.patch.origin import NotProved, Proved, pgp_certificates

PIECE: Final = 1 << 20


def prove(file: Source, version: str, keys: Sequence[bytes], packages: Sequence[str]) -> Proved:
    """Raises: NotProved, with the reason."""
    pinned = pgp_certificates(keys)
    try:
        with file.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
            return _Reading(archive, version, pinned, packages).run()
    except BadIndex as error:
        raise NotProved(str(error)) from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise NotProved(f"the snapshot is no tar: {error}") from None


class _Reading:
    """One snapshot."""

    def __init__(
        self, archive: tarfile.TarFile, version: str, pinned: dict[str, pysequoia.Cert], wanted: Sequence[str]
    ) -> None:
        self._archive = archive
        self._version = version
        self._pinned = pinned
        self._wanted = wanted
        self._by = ""
        self._seen: set[str] = set()
        self._named: dict[str, Item] = {}
        """Packages that an index names, by path."""
        self._packages = 0

    def run(self) -> Proved:
        release: ReleaseFile | None = None
        suite = ""
        for number, info in enumerate(self._archive):
            if number >= apt_index.FILES_MOST:
                raise BadIndex(f"more than {apt_index.FILES_MOST} files")
            if not info.isreg() or not apt_index.PATH.match(info.name) or info.name in self._seen:
                raise BadIndex(f"a link, a name twice or one that leads out: {info.name[:80]!r}")
            self._seen.add(info.name)
            opened = self._archive.extractfile(info)
            if opened is None:
                raise BadIndex(f"{info.name[:80]!r} cannot be read")
            if release is None:
                release, suite = self._release(info, opened), info.name
                suite = suite.removeprefix("dists/").removesuffix("/InRelease")
            elif info.name.startswith(f"dists/{suite}/"):
                self._index(info, opened, release.files.get(info.name.removeprefix(f"dists/{suite}/")))
            else:
                self._package(info, opened)
        if release is None:
            raise BadIndex("an empty snapshot")
        by = self._pinned[self._by]
        name = next((str(user) for user in by.user_ids), "no name")
        facts = {
            "date": release.version, "suite": suite, "packages": str(self._packages), "certificate": self._by,
            "repository": f"{release.origin} {release.codename or release.suite}".strip(),
        }  # fmt: skip
        if release.valid_until is not None:
            facts["valid_until"] = f"{release.valid_until:%Y-%m-%dT%H:%M:%SZ}"
        return Proved(f"apt, {release.origin or 'no origin'} {suite} of {release.version}, {name}", facts)

    def _release(self, info: tarfile.TarInfo, opened: IO[bytes]) -> ReleaseFile:
        if not info.name.startswith("dists/") or not info.name.endswith("/InRelease"):
            raise BadIndex("it does not begin with an InRelease")
        if info.size > apt_index.RELEASE_BYTES:
            raise BadIndex(f"an InRelease of {info.size} bytes")
        data = opened.read()
        try:
            result = pysequoia.verify(data, store=lambda _ids: list(self._pinned.values()))
        except Exception as error:  # its errors have no class of their own
            raise NotProved(f"the signature of InRelease does not hold: {error}") from None
        good = [one for one in result.valid_sigs if one.certificate.lower() in self._pinned]
        if not good or result.bytes is None:
            raise NotProved("InRelease is signed by none of the pinned certificates")
        self._by = good[0].certificate.lower()
        release = apt_index.read_release(bytes(result.bytes))
        if release.version != self._version:
            raise BadIndex(f"the Release is of {release.version}, and not of {self._version}")
        now = datetime.now(UTC)
        if release.valid_until is not None and release.valid_until < now:
            raise BadIndex(f"the Release has expired: it was valid until {release.valid_until:%Y-%m-%d %H:%M} UTC")
        return release

    def _index(self, info: tarfile.TarInfo, opened: IO[bytes], item: Item | None) -> None:
        if item is None:
            raise BadIndex(f"{info.name} is not in the Release")
        if info.size > apt_index.PACKAGES_BYTES:
            raise BadIndex(f"{info.name} has {info.size} bytes")
        data = opened.read()
        if len(data) != item.size or hashlib.sha256(data).hexdigest() != item.sha256:
            raise BadIndex(f"{info.name} is another one than the Release says (an older one, perhaps)")
        if "/binary-" in info.name:
            for package in apt_index.read_packages(data, info.name):
                if self._named.setdefault(package.path, package).sha256 != package.sha256:
                    raise BadIndex(f"two packages at {package.path}")

    def _package(self, info: tarfile.TarInfo, opened: IO[bytes]) -> None:
        item = self._named.get(info.name)
        if item is None:
            raise BadIndex(f"{info.name} is in no index")
        if not any(fnmatch.fnmatchcase(item.package, pattern) for pattern in self._wanted):
            raise BadIndex(f"{item.package}, which no rule names")
        digest = hashlib.sha256()
        while piece := opened.read(PIECE):
            digest.update(piece)
        if info.size != item.size or digest.hexdigest() != item.sha256:
            raise BadIndex(f"{info.name} has another hash or size than its index says")
        self._packages += 1


def contents(file: Source) -> Iterator[tuple[str, Iterator[bytes]]]:
    """What the packages of a snapshot that was proved are made of, for a scanner."""
    with file.open("rb") as whole, tarfile.open(fileobj=whole, mode="r:") as archive:
        for info in archive:
            opened = archive.extractfile(info)
            if opened is not None and not info.name.startswith("dists/"):
                yield from debs.members(opened, info.name.rpartition("/")[2])
