"""The scanner against Debian's clamd with a base of one signature, and against what only looks like it."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import shutil
import socket
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from cofferdam.brokers.kit import archives
from cofferdam.brokers.kit.clamd import scan
from cofferdam.brokers.patch import apt_bundle, debs
from cofferdam.brokers.patch.examiner import _scanner_alone
from cofferdam.brokers.patch.reports import Report
from tests.brokers.patch.makers import EICAR, HAS_CLAMD, clamd, run
from tests.brokers.patch.test_archives import encrypted, tarred

pytestmark = pytest.mark.skipif(not HAS_CLAMD, reason="clamd is not installed")


LIMIT = 4 << 20


@pytest.fixture(scope="module")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with clamd(tmp_path_factory.mktemp("clamd") / "clamd", "MaxFileSize 4M", "StreamMaxLength 30M") as at:
        yield str(at)


def zipped(data: bytes, name: str = "inner") -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return held.getvalue()


def beside_zeros(data: bytes, count: int) -> bytes:
    """As a tar."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, content in (("zeros", bytes(count)), ("inner", data)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def behind(data: bytes) -> bytes:
    """As one that unpacks itself."""
    return b"MZ" + b"program" * 100 + data


@pytest.mark.parametrize(
    ("data", "verdict", "detail"),
    [
        (b"firmware" * 100_000, "clean", ""),
        (zipped(EICAR), "found", "Test.Eicar.UNOFFICIAL"),
        (zipped(beside_zeros(EICAR, LIMIT // 2)), "found", "Test.Eicar.UNOFFICIAL"),
        # Without a word from the scanner, whose AlertExceedsMax does not count here.
        (zipped(bytes(LIMIT) + EICAR), "not scanned", "raise MaxFileSize"),
        (zipped(beside_zeros(EICAR, LIMIT)), "not scanned", "raise MaxFileSize"),
        (zipped(zipped(bytes(LIMIT) + EICAR)), "not scanned", "raise MaxFileSize"),
        (gzip.compress(zipped(bytes(LIMIT) + EICAR)), "not scanned", "raise MaxFileSize"),
        # What it cannot read it calls clean, though others may read it.
        (zipped(EICAR)[:-22], "not scanned", "damaged"),
        (zipped(bytes(LIMIT) + EICAR)[:-40], "not scanned", "damaged"),
        (zipped(EICAR) + b"x" * 70_000, "not scanned", "damaged"),
        (behind(zipped(bytes(LIMIT) + EICAR)), "not scanned", "raise MaxFileSize"),
        (encrypted(), "not scanned", "password"),
        (lzma.compress(bytes(2 * LIMIT)), "not scanned", "raise MaxFileSize"),
        # Not to be installed, but nothing that a scanner would not see.
        (behind(zipped(b"hello")), "clean", ""),
        (tarred(tarfile.SYMTYPE), "clean", ""),
        (zipped(b"hello", "../up"), "clean", ""),
        (bytes(2 * LIMIT), "not scanned", "Limits.Exceeded"),
    ],
)
def test_what_it_says(scanner: str, tmp_path: Path, data: bytes, verdict: str, detail: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    found = scan(scanner, file)
    assert (found.verdict, detail in found.detail) == (verdict, True), found


@pytest.mark.parametrize(
    ("data", "verdict", "partly"),
    [
        (lzma.compress(bytes(2 * LIMIT)), "not scanned", True),  # the scanner sees the file, and not what is in it
        (zipped(bytes(LIMIT) + b"x"), "not scanned", True),
        (zipped(b"hello") + b"a trailer", "not scanned", True),
        (zipped(EICAR) + b"a trailer", "found", False),
        # Beyond MaxFileSize it sees nothing, were it the first bytes.
        (EICAR + bytes(LIMIT), "not scanned", False),
        (zipped(EICAR) + bytes(2 * LIMIT), "not scanned", False),
    ],
)
def test_what_it_has_seen_nothing_of_is_not_seen_partly(
    scanner: str, tmp_path: Path, data: bytes, verdict: str, partly: bool
) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    found = scan(scanner, file, anyway=True)
    assert (found.verdict, found.partly) == (verdict, partly), found
    assert partly or verdict == "found" or "looks at no file" in found.detail


def test_what_the_scanner_is_given_is_told_of(scanner: str, tmp_path: Path) -> None:
    file, told = tmp_path / "file", bytearray()
    file.write_bytes(data := b"firmware" * 200_000)
    assert scan(scanner, file, seen=told.extend).verdict == "clean"
    assert told == data


def test_a_large_entry_is_seen_however_deep(scanner: str, tmp_path: Path) -> None:
    file = tmp_path / "file.zip"
    file.write_bytes(zipped(zipped(bytes(LIMIT) + EICAR)))
    largest = archives.look(file).largest
    assert largest == LIMIT + len(EICAR)
    assert "raise MaxFileSize" in scan(scanner, file, largest=largest).detail
    assert "raise MaxFileSize" in scan(scanner, file, largest=1 << 40).detail


def package(folder: Path, how: str, content: bytes, name: str = "x") -> bytes:
    """A Debian package, by Debian's own tool."""
    tree = folder / f"{name}-{how}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr").mkdir()
    said = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@vendor.example>\nDescription: {name}\n"
    (tree / "DEBIAN" / "control").write_text(said)
    (tree / "usr" / "file").write_bytes(content)
    made = folder / f"{name}-{how}.deb"
    run("dpkg-deb", "--root-owner-group", f"-Z{how}", "-b", tree, made)
    return made.read_bytes()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
@pytest.mark.parametrize(
    ("how", "verdict", "detail"),
    [("xz", "found", "data.tar.xz: Test.Eicar"), ("gzip", "found", "data.tar.gz: Test.Eicar"),
     ("none", "found", "data.tar: Test.Eicar"), ("zstd", "not scanned", "packed by zstd")],
)  # fmt: skip
def test_a_package_is_looked_into(scanner: str, tmp_path: Path, how: str, verdict: str, detail: str) -> None:
    """clamd itself does not open what a Debian package is, and calls it clean."""
    bad, good = package(tmp_path, how, EICAR), package(tmp_path, "xz", b"hello", "good")
    file = tmp_path / "file"
    file.write_bytes(bad)
    found = scan(scanner, file, debs.of(file))
    assert (found.verdict, detail in found.detail) == (verdict, True), found
    snapshot = tmp_path / "snapshot.tar"
    with tarfile.open(snapshot, "w") as archive:
        for name, data in (("dists/s/InRelease", EICAR), ("pool/good.deb", good), ("pool/bad.deb", bad)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found = scan(scanner, snapshot, apt_bundle.contents(snapshot))
    assert (found.verdict, detail in found.detail) == (verdict, True), found
    assert found.detail.startswith("bad.deb")
    for wrong in (bad[:-200], b"x" + bad, bad.replace(b"`\n", b"..")):
        file.write_bytes(wrong)
        assert scan(scanner, file, debs.of(file)).verdict != "clean"


def test_what_is_under_a_password_is_shown_entry_by_entry(scanner: str, tmp_path: Path) -> None:
    for name, data in (("good", b"hello"), ("bad", zipped(EICAR))):
        (tmp_path / name).write_bytes(data)
    file = tmp_path / "sealed.zip"
    run("zip", "-q", "-j", "-P", "let me in", file, tmp_path / "good", tmp_path / "bad")
    assert scan(scanner, file, largest=0).verdict == "clean"  # it sees nothing of what is in it
    found = scan(scanner, file, archives.contents(file, "let me in"), largest=0)
    assert (found.verdict, found.detail.partition(":")[0]) == ("found", "bad"), found


@pytest.mark.parametrize(
    ("more", "says"),
    [(("AlertExceedsMax no",), "AlertExceedsMax"),
     # It looks deep, and says nothing of what else it left out.
     (("AlertExceedsMax no", "MaxRecursion 50"), "AlertExceedsMax"), (("MaxRecursion 500",), "MaxRecursion 100"),
      (("StreamMaxLength 1M",), "size limit|hung up")],
)  # fmt: skip
def test_what_it_did_not_look_into_is_not_clean(tmp_path: Path, more: tuple[str, ...], says: str) -> None:
    with clamd(tmp_path / "clamd", *more) as at:
        file = tmp_path / "file"
        file.write_bytes(b"\1firmware" * 1_000_000)
        found = scan(str(at), file)
        assert found.verdict == "not scanned"
        assert any(word in found.detail for word in says.split("|")), found


@pytest.mark.parametrize("answer", [b"", b"nonsense\0", b"ClamAV 1.4.6/27000/Thu Jan  1 10:00:00 2026\0", b"x" * 9000])
def test_a_scanner_that_is_none(tmp_path: Path, answer: bytes) -> None:
    at = tmp_path / "fake.ctl"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(at))
    server.listen()

    def serve() -> None:
        while True:
            try:
                peer, _ = server.accept()
            except OSError:
                return
            with peer:
                peer.recv(100)
                peer.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    file = tmp_path / "file"
    file.write_bytes(b"x")
    assert scan(str(at), file).verdict == "not scanned"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    assert scan(str(tmp_path / "nothing"), file).verdict == "not scanned"


@pytest.mark.parametrize(("days", "verdict"), [(0, "clean"), (6, "clean"), (8, "not scanned"), (30, "not scanned")])
def test_a_base_may_be_so_old_and_no_older(scanner: str, tmp_path: Path, days: int, verdict: str) -> None:
    """The scanner itself, which says that its base is of another day."""
    made = datetime.now(UTC) - timedelta(days=days, minutes=1)
    at = tmp_path / "between.ctl"

    def pump(peer: socket.socket, real: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := peer.recv(1 << 16):
                real.sendall(piece)

    def serve(peer: socket.socket) -> None:
        with peer, socket.socket(socket.AF_UNIX) as real:
            asked = peer.recv(10)
            if asked == b"zVERSION\0":
                peer.sendall(f"ClamAV 1.4.6/27000/{made:%a %b %d %H:%M:%S %Y}\0".encode())
                return
            real.connect(scanner)
            real.sendall(asked)
            pool.submit(pump, peer, real)
            peer.sendall(real.recv(4096))
            peer.shutdown(socket.SHUT_RDWR)

    with socket.create_server(str(at), family=socket.AF_UNIX) as server, ThreadPoolExecutor() as pool:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    serve(server.accept()[0])

        pool.submit(accept)
        file = tmp_path / "file"
        file.write_bytes(b"firmware")
        found = scan(str(at), file)
        server.shutdown(socket.SHUT_RDWR)
    assert found.verdict == verdict, found
    assert f"of {made:%Y-%m-%d}" in found.base if verdict == "clean" else f"27000 is {days} days old" in found.detail


def test_it_is_looked_at_without_a_file(scanner: str, tmp_path: Path) -> None:
    found = msgspec.json.decode(_scanner_alone(scanner), type=Report)
    assert (found.scan, found.base.startswith("clamd ")) == ("clean", True), found
    for path in ("", str(tmp_path / "nothing")):
        found = msgspec.json.decode(_scanner_alone(path), type=Report)
        assert (found.scan, bool(found.scan_detail)) == ("not scanned", True), found


def test_a_scanner_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes all that it is sent, and says nothing."""
    monkeypatch.setattr("cofferdam.brokers.kit.clamd.SECONDS", 0.3)
    file = tmp_path / "file"
    file.write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "slow.ctl"))
        server.listen()
        assert scan(str(tmp_path / "slow.ctl"), file).verdict == "not scanned"
