"""A Debian snapshot as an examiner proves it, whoever has put it together: a fetcher that was taken over, say."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cofferdam.brokers.patch import apt_bundle
from cofferdam.brokers.patch.origin import NotProved
from tests.brokers.patch.makers import Gpg

NOW = datetime.now(UTC).replace(microsecond=0)
VERSION = f"{NOW:%Y%m%dT%H%M%SZ}"
DEB = b"!<arch>\npackage"
IN, INDEX, POOL = "dists/stable/InRelease", "dists/stable/main/binary-amd64/Packages", "pool/tool_1_amd64.deb"
Files = list[tuple[str, bytes]]


def packages(deb: bytes = DEB, path: str = POOL, name: str = "tool") -> bytes:
    return (
        f"Package: {name}\nVersion: 1\nArchitecture: amd64\nFilename: {path}\nSize: {len(deb)}\n"
        f"SHA256: {hashlib.sha256(deb).hexdigest()}\n"
    ).encode()


class Vendor:
    def __init__(self, folder: Path) -> None:
        self._gpg = Gpg(folder)
        self.key = self._gpg.public()

    def release(self, index: bytes, *, days: int = 7, digest: str = "SHA256") -> bytes:
        made = hashlib.new(digest.lower(), index).hexdigest()
        text = (
            f"Suite: stable\nCodename: stable\nDate: {NOW:%a, %d %b %Y %H:%M:%S} UTC\n"
            f"Valid-Until: {NOW + timedelta(days=days):%a, %d %b %Y %H:%M:%S} UTC\nArchitectures: amd64\n"
            f"Components: main\n{digest}:\n {made} {len(index)} main/binary-amd64/Packages\n"
        )
        return self._gpg._gpg("--clearsign", data=text.encode())

    def close(self) -> None:
        self._gpg.close()


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    made = Vendor(tmp_path_factory.mktemp("gpg") / "vendor")
    yield made
    made.close()


def whole(vendor: Vendor) -> Files:
    return [(IN, vendor.release(packages())), (INDEX, packages()), (POOL, DEB)]


def prove(folder: Path, vendor: Vendor, files: Files) -> str:
    file = folder / "snapshot"
    with tarfile.open(file, "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return apt_bundle.prove(file, VERSION, [vendor.key], ["tool*"]).facts["packages"]


def test_what_a_vendor_signs_is_taken(vendor: Vendor, tmp_path: Path) -> None:
    assert prove(tmp_path, vendor, whole(vendor)) == "1"


OTHER = b"!<arch>\nanother"


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda vendor: [(IN, vendor.release(packages())), (INDEX, packages(OTHER)), (POOL, OTHER)], "an older one"),
        (lambda vendor: [*whole(vendor)[:2], (POOL, OTHER)], "another hash or size"),
        (lambda vendor: [*whole(vendor), ("pool/more_1_amd64.deb", DEB)], "is in no index"),
        (lambda vendor: [*whole(vendor), (POOL, DEB)], "a name twice"),
        (lambda vendor: [*whole(vendor), ("pool/../x", DEB)], "leads out"),
        (lambda vendor: [*whole(vendor), ("dists/stable/x", DEB)], "is not in the Release"),
        (lambda vendor: whole(vendor)[1:], "does not begin with an InRelease"),
        (lambda vendor: [], "empty snapshot"),
        (lambda vendor: [(IN, vendor.release(packages(), days=-1)), *whole(vendor)[1:]], "has expired"),
        (lambda vendor: [(IN, vendor.release(packages(), digest="SHA1")), *whole(vendor)[1:]], "SHA-256"),
        (lambda vendor: [(IN, whole(vendor)[0][1].replace(b"Suite: stable", b"Suite: stablf")), *whole(vendor)[1:]],
         "does not hold|signed by none"),
        (lambda vendor: [(IN, b"Suite: stable\n"), *whole(vendor)[1:]], "does not hold|signed by none"),
        (lambda vendor: [(IN, vendor.release(packages(name="game"))), (INDEX, packages(name="game")), (POOL, DEB)],
         "which no rule names"),
    ],
)  # fmt: skip
def test_what_was_put_together_otherwise_is_refused(
    vendor: Vendor, tmp_path: Path, made: Callable[[Vendor], Files], says: str
) -> None:
    with pytest.raises(NotProved, match=says):
        prove(tmp_path, vendor, made(vendor))


def test_another_vendors_is_refused(vendor: Vendor, tmp_path: Path) -> None:
    other = Vendor(tmp_path / "other")
    files = whole(other)
    other.close()
    with pytest.raises(NotProved):
        prove(tmp_path, vendor, files)
