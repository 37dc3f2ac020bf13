"""Archives that are let in, and those that are refused while they are read."""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import random
import shutil
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cofferdam.brokers.kit import archives
from cofferdam.brokers.kit.archives import ArchiveRefused, contents, look
from tests.brokers.patch.makers import run

FOUND_BY_FUZZING = (
    "504b0304504b01021403140000000800000021009e0ee3ec8a000000bb000000090000000000000000000000800100000000"
    "007e6e65722e7a6970504b0506000000000100010037000000b10000000000"
)
"""zipfile reads it into an IndexError."""


def zipped(*entries: tuple[str, bytes], mode: int = 0) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return held.getvalue()


def nest(depth: int) -> bytes:
    data = b"inner"
    for _ in range(depth):
        data = zipped(("inner.zip", data))
    return data


def tarred(kind: bytes, name: str = "x") -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return held.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped(("a", b"x")))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + at] |= 1
    return bytes(data)


def bomb() -> bytes:
    """As 42.zip: archives of archives, small each, and ten gigabytes in all."""
    data = zipped(("0", b"\0" * 10_000_000))
    for _ in range(3):
        data = zipped(*((f"{number}.zip", data) for number in range(10)))
    return data


def encoded() -> bytes:
    """One name twice, in the encoding of DOS and in UTF-8."""
    data = zipped(("\u00fc", b"x"), ("?", b"y"))
    return data.replace(b"?", b"\x81")


def million() -> bytes:
    """A directory of 10^6 entries; nothing but it."""
    entry = bytearray(b"PK\1\2" + bytes(42) + b"0000000")
    entry[28] = 7
    entries = b"".join(bytes(entry[:46]) + b"%07d" % number for number in range(1_000_000))
    return b"PK\3\4" + entries + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, len(entries), 4, 0)


def twice() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a", b"x")
        archive.writestr("a", b"y")
    return held.getvalue()


@pytest.mark.parametrize(
    ("make", "entries"),
    [(lambda: b"firmware", 0), (lambda: zipped(("a", b"x"), ("b/c", b"y")), 2), (lambda: nest(8), 8),
     (lambda: bz2.compress(b"x" * 3_000_000) * 2 + bz2.compress(tarred(tarfile.REGTYPE)), 0),
     (lambda: lzma.compress(b"x") + lzma.compress(b"y" * 3_000_000), 0),
     (lambda: lzma.compress(tarred(tarfile.REGTYPE, "a")), 1), (lambda: bz2.compress(tarred(tarfile.REGTYPE)), 1),
     (lambda: zipped(("META-INF/maven/", b""), mode=0o177777), 1),
     (lambda: lzma.compress(b"x") + bytes(4) + lzma.compress(b"y") + bytes(40_000), 0),
     (lambda: tarred(tarfile.REGTYPE) + bytes(10240), 1), (lambda: gzip.compress(b"plain"), 0),
     (lambda: gzip.compress(tarred(tarfile.REGTYPE)), 1), (lambda: b"", 0)],
)  # fmt: skip
def test_what_is_let_in(make: Callable[[], bytes], entries: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(make())
    assert look(file).entries == entries


def untold(other: bytes) -> bytes:
    """An entry that the directory does not have: who reads it as it comes sees that one."""
    data = zipped(("seen", b"x"))
    at, its = (struct.unpack_from("<I", each, len(each) - 6)[0] for each in (data, other))
    end = struct.pack("<IH", at + its, 0)
    return data[:at] + other[:its] + data[at:-6] + end


def changed(data: bytes, at: int, to: bytes) -> bytes:
    at %= len(data)
    return data[:at] + to + data[at + len(to) :]


def called_otherwise(name: str, *, twice: bool = False) -> bytes:
    """By the field in which Info-ZIP has names in UTF-8, which unzip and 7-Zip go by."""
    field = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, zlib.crc32(b"fw.bin")) + name.encode()
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        info = zipfile.ZipInfo("fw.bin")
        info.extra = field * (1 + twice)
        archive.writestr(info, b"x")
        archive.writestr("other", b"y")
    return held.getvalue()


def behind(data: bytes) -> bytes:
    """Something else, and a ZIP behind it that tells of where it is."""
    held = io.BytesIO(data)
    with zipfile.ZipFile(held, "a") as archive:
        archive.writestr("evil.exe", b"MZ" * 50)
    return held.getvalue()


def two_ends() -> bytes:
    """Who goes by the end as of old finds a directory that lies in an entry; zipfile goes by the one of ZIP64."""
    evil = zipped(("evil.exe", b"MZ"))
    directory = evil[evil.index(b"PK\1\2") : -22]
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("fw.bin", b"firmware" + directory)
    data = held.getvalue()
    start = data.index(b"PK\1\2", data.index(directory) + len(directory))
    size = len(data) - 22 - start
    far = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, size, start)
    where = struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1)
    near = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), data.index(directory), 0)
    return data[:-22] + far + where + near


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: called_otherwise("../../etc/passwd"), "leads out"),
        (lambda: called_otherwise("OTHER"), "two entries"),
        (lambda: called_otherwise("a", twice=True), "stands twice"),
        (two_ends, "tells of another one"),
        (lambda: behind(tarred(tarfile.REGTYPE)), "behind the end"),
        (lambda: tarred(tarfile.REGTYPE) + tarred(tarfile.REGTYPE, "y"), "behind the end"),
        (lambda: gzip.compress(tarred(tarfile.REGTYPE) + b"more"), "behind the end"),
        (lambda: behind(lzma.compress(b"x")), "damaged"),
        (lambda: behind(bz2.compress(b"x")), "damaged"),
        (lambda: behind(gzip.compress(b"x")), "damaged"),
        (lambda: lzma.compress(b"x" * 99)[:-9], "cut off"),
        (lambda: bz2.compress(b"\0" * (100 << 20)), "bomb"),
        (lambda: lzma.compress(b"\0" * (100 << 20)), "bomb"),
        (lambda: changed(zipped(("a", b"x")), -2, b"\5"), "tells of another one"),
        (lambda: changed(zipped(("a", b"x"), ("b", b"x")), -14, b"\1\0\1"), "tells of another one"),
        (lambda: changed(zipped(("a", b"x")), 30, b"b"), "damaged"),
        (lambda: changed(zipped(("a", b"x" * 99)), 18, b"\1"), "says something else of itself"),
        (lambda: changed(zipped(("a", b"x" * 99)), 8, b"\0"), "says something else of itself"),
        (lambda: zipped(("a/", b"MZ" * 99)), "a folder with contents"),
        (lambda: zipped(("a/xevil.exe", b"MZ" * 99)).replace(b"a/x", b"a/\0"), "leads out"),
        (lambda: zipped(("../x", b"")), "leads out"),
        (lambda: zipped(("/x", b"")), "leads out"),
        (lambda: zipped(("C:\\x", b"")), "leads out"),
        (lambda: zipped(("a\\..\\x", b"")), "leads out"),
        (lambda: zipped(("x", b"/etc/passwd"), mode=0o120777), "link"),
        (lambda: tarred(tarfile.SYMTYPE), "link"),
        (lambda: tarred(tarfile.CHRTYPE), "link"),
        (lambda: tarred(tarfile.REGTYPE, "../x"), "leads out"),
        (lambda: nest(20), "deeper than 8"),
        (twice, "two entries"),
        (lambda: zipped(("A", b"x"), ("a", b"x")), "two entries"),
        (encrypted, "password"),
        (lambda: gzip.compress(b"\0" * (100 << 20)), "bomb"),
        (lambda: zipped(("hidden", b"x")) + zipped(("seen", b"x")), "before, between or behind"),
        (lambda: b"PK" + b"x" * 600 + zipped(("a", b"x")), "before, between or behind"),
        (lambda: untold(zipped(("evil.exe", b"MZ" * 99))), "before, between or behind"),
        (lambda: zipped(("a", b"x")) + b"x" * 99, "behind the end"),
        (lambda: zipped(("a", b"x"), ("a.", b"x")), "two entries"),
        (lambda: b"MZ" + b"\0" * 600 + zipped(("a", b"x")), "two kinds"),
        (lambda: zipped(("a", b"x" * 1000))[:-30], "damaged|cannot be read"),
        (lambda: zipped(*((str(n), b"") for n in range(20_001))), "more than 20000"),
        (lambda: bytes.fromhex(FOUND_BY_FUZZING), "cannot be read|leads out"),
        (bomb, "bomb"),
        (encoded, "two entries"),
        (million, "directory of an archive"),
    ],
)
def test_what_is_refused(make: Callable[[], bytes], says: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(make())
    with pytest.raises(ArchiveRefused, match=says):
        look(file)


def test_a_password_of_the_sites_opens_an_archive_and_no_other_does(tmp_path: Path) -> None:
    """Made by Info-ZIP, as a vendor's portal does it."""
    (tmp_path / "fw.bin").write_bytes(b"firmware " * 30_000)
    (tmp_path / "notes.zip").write_bytes(zipped(("readme", b"r" * 100)))
    file = tmp_path / "sealed.zip"
    run("zip", "-q", "-j", "-P", "let me in", file, tmp_path / "fw.bin", tmp_path / "notes.zip")
    with pytest.raises(ArchiveRefused, match=r"needs a password: 'fw\.bin'"):
        look(file)
    with pytest.raises(ArchiveRefused, match=r"the password does not open|damaged"):  # one in 256 opens it, to no avail
        look(file, password="let me out")
    seen: list[bytes] = []
    found = look(file, seen.append, "let me in")
    assert (found.sealed, found.entries, found.deepest) == (True, 3, 2)
    assert seen == [b"firmware " * 30_000, b"r" * 100]
    shown = {name: b"".join(pieces) for name, pieces in contents(file, "let me in")}
    assert shown == {"fw.bin": b"firmware " * 30_000, "notes.zip": (tmp_path / "notes.zip").read_bytes()}
    outer = tmp_path / "outer.zip"
    outer.write_bytes(zipped(("sealed.zip", file.read_bytes())))
    with pytest.raises(ArchiveRefused, match="needs a password"):
        look(outer, password="let me in")


def under_aes(folder: Path, how: str, packed: str = "Deflate") -> Path:
    """By 7-Zip: a file of many pieces, an archive within it, and an empty file."""
    (folder / "fw.bin").write_bytes(b"firmware " * 30_000)
    (folder / "notes.zip").write_bytes(zipped(("readme", b"r" * 100)))
    (folder / "empty").write_bytes(b"")
    file = folder / "aes.zip"
    file.unlink(missing_ok=True)
    names = (folder / name for name in ("fw.bin", "notes.zip", "empty"))
    run("7zz", "a", "-bd", "-tzip", f"-mm={packed}", f"-mem={how}", "-plet me in", file, *names)
    return file


@pytest.mark.skipif(shutil.which("7zz") is None, reason="7zip is not installed")
@pytest.mark.parametrize(("how", "packed"), [("AES128", "Deflate"), ("AES192", "Copy"), ("AES256", "Deflate")])
def test_a_password_opens_what_is_under_aes(tmp_path: Path, how: str, packed: str) -> None:
    file = under_aes(tmp_path, how, packed)
    with pytest.raises(ArchiveRefused, match="needs a password"):
        look(file)
    with pytest.raises(ArchiveRefused, match=r"the password does not open|changed"):  # one in 65,536 seems to open it
        look(file, password="let me out")
    seen: list[bytes] = []
    found = look(file, seen.append, "let me in")
    assert (found.sealed, found.entries, found.deepest) == (True, 4, 2)
    assert sorted(seen) == [b"", b"firmware " * 30_000, b"r" * 100]
    shown = {name: b"".join(pieces) for name, pieces in contents(file, "let me in")}
    assert shown == {name: (tmp_path / name).read_bytes() for name in ("fw.bin", "notes.zip", "empty")}


@pytest.mark.skipif(shutil.which("7zz") is None, reason="7zip is not installed")
def test_nothing_of_it_may_be_changed_under_aes(tmp_path: Path) -> None:
    file = under_aes(tmp_path, "AES256")
    data = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("fw.bin")
        name = data.index(b"fw.bin", archive.start_dir)
    start = info.header_offset + 30 + sum(struct.unpack_from("<HH", data, info.header_offset + 26))
    field = data.index(b"\x01\x99\x07\x00", name)
    for at, says in (
        (start + 20, "changed|wrongly|damaged"), (start + info.compress_size - 1, "changed"), (start + 17, "password"),
        (field + 4, "not known"), (field + 8, "password"), (field + 9, "not known"), (name - 46 + 24, "longer|says"),
    ):  # fmt: skip
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ArchiveRefused, match=says):
            look(file, password="let me in")
    for at in (info.header_offset + 6, info.header_offset + 8, info.header_offset + 30, start - 4):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(ArchiveRefused, match="something else of itself"):  # who reads it as it comes goes by that
            look(file, password="let me in")


@pytest.mark.skipif(shutil.which("7zz") is None, reason="7zip is not installed")
def test_a_bomb_under_aes_is_counted_while_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "zeros").open("wb") as out:
        out.truncate(90_000_000)
    file = tmp_path / "bomb.zip"
    run("7zz", "a", "-bd", "-tzip", "-mx=1", "-mem=AES256", "-plet me in", file, tmp_path / "zeros")
    tracemalloc.start()
    with pytest.raises(ArchiveRefused, match="a bomb"):
        look(file, password="let me in")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_is_packed_well_takes_no_memory(kind: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with zipfile.ZipFile(file, "w", kind) as archive, archive.open("a", "w") as entry:
        for _ in range(150):
            entry.write(bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveRefused, match="packed in a way"):
            look(file)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_entries_that_were_written_without_a_way_back_are_taken(tmp_path: Path) -> None:
    """Their sizes stand behind them."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.held = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.held += data
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"x" * 1000)
        archive.writestr("b", b"y" * 1000)
        archive.comment = b"made by a pipe"
    file = tmp_path / "file"
    file.write_bytes(pipe.held)
    assert look(file).entries == 2


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.sampled_from([zipped(("a", b"xx")), tarred(tarfile.REGTYPE), gzip.compress(b"x")]),
                  st.integers(0, 200), st.integers(0, 255)).map(
            lambda t: t[0][: t[1]] + bytes([t[2]]) + t[0][t[1] + 1 :]),
    )
)  # fmt: skip
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        for strict in (True, False):
            with contextlib.suppress(ArchiveRefused):
                look(Path(file.name), strict=strict)


def test_a_packed_tar_is_read_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be larger than what is held of archives; of those, all that are held at a time count."""
    monkeypatch.setattr(archives, "INNER_BYTES", 1 << 20)
    data = random.Random(1).randbytes(5 << 19)
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        tar.addfile(info := tarfile.TarInfo("data"), None)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    file = tmp_path / "file"
    for pack in (gzip.compress, functools.partial(lzma.compress, preset=0), bz2.compress):
        file.write_bytes(pack(held.getvalue()))
        assert look(file, strict=False).largest == len(held.getvalue())
        for behind, why in ((b"x" * 600, "behind the end"), (bytes(70_000) + b"x", "behind the end")):
            file.write_bytes(pack(held.getvalue() + behind))
            with pytest.raises(ArchiveRefused, match=why):
                look(file, strict=False)
    file.write_bytes(gzip.compress(held.getvalue()[:1_000_000]))
    with pytest.raises(ArchiveRefused, match="damaged"):
        look(file, strict=False)
    inner = zipped(("a", data[:450_000]))
    file.write_bytes(zipped(("one.zip", inner), ("two.zip", inner), ("three.zip", inner)))
    look(file)
    file.write_bytes(zipped(("three.zip", zipped(("two.zip", zipped(("one.zip", inner)))))))
    with pytest.raises(ArchiveRefused, match="more than 1 MiB"):
        look(file)


def test_a_header_that_says_it_is_enormous_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "file").write_bytes(gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20)))
    with pytest.raises(ArchiveRefused, match="a header of"):
        look(tmp_path / "file")
