"""Any changed, missing, reordered or truncated byte of a log is found, and the right file is named."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.audit.checkpoint import VerifierKey, open_checkpoint
from cofferdam.audit.events.gate import GateStopped
from cofferdam.audit.files import DirFiles
from cofferdam.audit.frames import SECTOR, read_segment
from cofferdam.audit.keys import load_public
from cofferdam.audit.log import AuditLog
from cofferdam.audit.verify import Verification, verify_log
from cofferdam.errors import AuditError
from tests.audit.conftest import SMALL, Opener, write


class Copy:
    """A log in memory, to be damaged. Reads like a folder."""

    def __init__(self, folder: Path) -> None:
        files = DirFiles(folder)
        self.data = {path: files.read(path) or b"" for path in files.paths()}

    def read(self, path: str) -> bytes | None:
        return self.data.get(path)

    def paths(self) -> list[str]:
        return list(self.data)

    def changed(self, path: str, data: bytes | None) -> Copy:
        other = object.__new__(Copy)
        other.data = dict(self.data)
        if data is None:
            del other.data[path]
        else:
            other.data[path] = data
        return other


def crashed(log: AuditLog, folder: Path, to: Path) -> None:
    """A copy of the folder as a crash now would leave it."""
    shutil.copytree(folder, to)


@pytest.fixture(scope="module")
def small(small_home: Path) -> tuple[Copy, VerifierKey]:
    """That log in memory."""
    return Copy(small_home / "copy"), load_public(small_home / "keys/audit.pub")


def blamed(report: Verification, path: str) -> bool:
    """Only this file is named (or the folder that should hold it)."""
    return not report.good and {finding.file for finding in report.findings} <= {path, path.split("/")[0]}


def test_the_undamaged_log_is_good(small: tuple[Copy, VerifierKey]) -> None:
    copy, key = small
    report = verify_log(copy, key)
    assert report.good and report.total == report.checked == SMALL + 1 > report.size
    assert {path.split("/")[1] for path in copy.paths() if path.startswith("tile/")} == {"0", "1", "entries"}
    assert any(".p/" in path for path in copy.paths())


def places(length: int, path: str) -> Iterator[int]:
    """All bytes of what is short, and a sample of the rest, ends included."""
    if length <= 300:
        yield from range(length)
    else:
        yield from range(12)
        yield from range(length - 12, length)
        yield from random.Random(path).sample(range(length), 25)


def test_every_flipped_byte(small: tuple[Copy, VerifierKey]) -> None:
    copy, key = small
    for path, data in copy.data.items():
        for at in places(len(data.rstrip(b"\x00")) if path.startswith("journal/") else len(data), path):
            wrong = bytearray(data)
            wrong[at] ^= 1 << (at % 8)
            report = verify_log(copy.changed(path, bytes(wrong)), key)
            assert blamed(report, path), (path, at, [str(finding) for finding in report.findings])
            assert not any(finding.unfinished for finding in report.findings if finding.entry < report.size)


def test_every_removed_file(small: tuple[Copy, VerifierKey]) -> None:
    """Narrower forms of a partial tile are no part of the log any more: everything in them stands in the wider one."""
    copy, key = small
    needed = [path for path in copy.data if ".p/" not in path or path.rsplit("/", 1)[1] in ("79", "2")]
    assert len(needed) == 9
    for path in needed:
        report = verify_log(copy.changed(path, None), key)
        assert blamed(report, path), (path, [str(finding) for finding in report.findings])


def test_every_cut_and_padded_file(small: tuple[Copy, VerifierKey]) -> None:
    copy, key = small
    for path, data in copy.data.items():
        journal = path.startswith("journal/")
        used = len(data.rstrip(b"\x00")) if journal else len(data)
        for length in {0, 1, used // 3, used // 2, used - 33, used - 32, used - 1}:
            if 0 <= length < used:
                report = verify_log(copy.changed(path, data[:length]), key)
                assert blamed(report, path), (path, length, [str(finding) for finding in report.findings])
        if not journal:
            for extra in (b"\x00", b"x", b"\x00\x01x", bytes(32)):
                assert blamed(verify_log(copy.changed(path, data + extra), key), path), path
        else:
            assert blamed(verify_log(copy.changed(path, data[:used] + b"x"), key), path), path


def test_every_byte_put_in_or_taken_out(small: tuple[Copy, VerifierKey]) -> None:
    copy, key = small
    for path, data in copy.data.items():
        used = len(data.rstrip(b"\x00")) if path.startswith("journal/") else len(data)
        for at in random.Random(path).sample(range(used), min(used, 10)):
            for wrong in (data[:at] + b"\x55" + data[at:], data[:at] + data[at + 1 :]):
                report = verify_log(copy.changed(path, wrong), key)
                assert blamed(report, path), (path, at, [str(finding) for finding in report.findings])


def test_swapped_files_and_entries(small: tuple[Copy, VerifierKey]) -> None:
    copy, key = small
    for one, other in [("tile/entries/000", "tile/entries/001"), ("tile/0/000", "tile/0/001")]:
        swapped = copy.changed(one, copy.data[other]).changed(other, copy.data[one])
        assert {finding.file for finding in verify_log(swapped, key).findings} == {one, other}
    bundle = copy.data["tile/entries/001"]
    first = 2 + int.from_bytes(bundle[:2], "big")
    second = first + 2 + int.from_bytes(bundle[first : first + 2], "big")
    report = verify_log(copy.changed("tile/entries/001", bundle[first:second] + bundle[:first] + bundle[second:]), key)
    assert [(finding.file, finding.entry) for finding in report.findings] == [("tile/entries/001", 256)]


def test_the_right_entry_is_named(small: tuple[Copy, VerifierKey]) -> None:
    copy, key = small
    bundle = copy.data["tile/entries/001"]
    at = bundle.index(b'"w300"')
    report = verify_log(copy.changed("tile/entries/001", bundle[:at] + b'"w301"' + bundle[at + 6 :]), key)
    assert [(finding.file, finding.entry) for finding in report.findings] == [("tile/entries/001", 301)]
    tile = bytearray(copy.data["tile/0/000"])
    tile[32 * 7] ^= 1
    report = verify_log(copy.changed("tile/0/000", bytes(tile)), key)
    assert [(finding.file, finding.entry) for finding in report.findings] == [("tile/0/000", 7)]


def test_foreign_files_are_named(small: tuple[Copy, VerifierKey]) -> None:
    copy, key = small
    for path in ("notes.txt", "tile/0/0", "tile/9/000", "tile/entries/007"):
        assert blamed(verify_log(copy.changed(path, b"x" * 32), key), path)


def test_a_checkpoint_kept_elsewhere_unmasks_an_old_backup(opener: Opener, tmp_path: Path) -> None:
    log = opener()
    log.append([write(n) for n in range(300)], maker="inner")
    log.publish()
    crashed(log, tmp_path / "audit", tmp_path / "backup")
    log.append([write(n) for n in range(300, 900)], maker="inner")
    log.close()
    key = log.key.verifier
    kept = open_checkpoint((tmp_path / "audit/checkpoint").read_bytes(), key)
    old = open_checkpoint((tmp_path / "backup/checkpoint").read_bytes(), key)
    assert verify_log(DirFiles(tmp_path / "audit"), key, earlier=kept).good
    assert verify_log(DirFiles(tmp_path / "audit"), key, earlier=old).good
    assert verify_log(DirFiles(tmp_path / "backup"), key).good  # by itself it cannot be told
    report = verify_log(DirFiles(tmp_path / "backup"), key, earlier=kept)
    assert "cut back" in str(report.findings[0])
    # A log of the same key with another history.
    shutil.rmtree(tmp_path / "audit")
    shutil.copytree(tmp_path / "backup", tmp_path / "audit")
    log = opener()
    log.append([GateStopped(reason="another history")] * 700, maker="gate")
    log.close()
    report = verify_log(DirFiles(tmp_path / "audit"), key, earlier=kept)
    assert "not those of the earlier checkpoint" in str(report.findings[0])


def test_opening_a_damaged_log_names_entry_and_file(opener: Opener, tmp_path: Path) -> None:
    log = opener()
    log.append([write(n) for n in range(700)], maker="inner")
    log.close()
    bundle = tmp_path / "audit/tile/entries/001"
    good = bundle.read_bytes()
    bundle.write_bytes(good.replace(b'"w300"', b'"w3x0"'))
    with pytest.raises(AuditError, match="tile/entries/001: entry 301: does not fit") as caught:
        opener()
    assert "audit verify" in caught.value.hint
    bundle.write_bytes(good)
    opener().close()


def test_unfinished_appends_are_told_from_damage(opener: Opener, tmp_path: Path) -> None:
    """A power cut loses whole sectors of the last append; anything else is damage."""
    log = opener()
    log.publish()
    for number in range(6):
        log.append([write(10 * number + n) for n in range(4)], maker="inner")
    path = next(iter(DirFiles(tmp_path / "audit/journal").paths()))
    key = log.key.verifier
    data = (tmp_path / "audit/journal" / path).read_bytes().rstrip(b"\0") + bytes(8192)
    log.close()
    path = f"journal/{path}"
    whole = read_segment(path, data, key)
    last, end = whole.frames[-1], whole.end
    assert len(whole.frames) == 6 and whole.stop == 25 and not whole.damage
    sectors = range(last.offset // SECTOR * SECTOR, end, SECTOR)
    assert len(sectors) > 3
    for sector in sectors:
        torn = bytearray(data)
        low, high = max(sector, last.offset), min(sector + SECTOR, end)
        torn[low:high] = bytes(high - low)
        found = read_segment(path, bytes(torn), key)
        assert (found.damage, found.stop) == ("", 21) and found.cut_bytes > 0, sector
    for at in (*range(last.offset, last.offset + 30), *range(last.offset, end, 11), *range(end - 70, end)):
        wrong = bytearray(data)
        wrong[at] ^= 4
        found = read_segment(path, bytes(wrong), key)
        assert found.damage and found.stop == 21, at
    for zeros in (0, 1, 1 << 16, (1 << 16) - end, (1 << 17) - end + 1, 5 << 16):
        found = read_segment(path, data[:end] + bytes(zeros), key)
        assert (found.stop, found.end, found.damage, found.cut_bytes) == (25, end, "", 0), zeros
        found = read_segment(path, data[:end] + bytes(zeros) + b"x" + bytes(zeros), key)
        assert found.stop == 25 and (found.damage or found.cut_bytes == zeros + 1), zeros
    middle = whole.frames[2].offset
    for width in (1, 4, 24, SECTOR):
        wrong = bytearray(data)
        wrong[middle : middle + width] = bytes(width)
        assert read_segment(path, bytes(wrong), key).damage, width


def test_segments_that_go_one_after_the_other_while_they_are_read_leave_no_gap(opener: Opener, tmp_path: Path) -> None:
    """An auditor that takes over has two of them, and removes the older one first: who has read that by then does not
    find the other any more. Its entries stand under the checkpoint."""
    log = opener()
    copies = []
    for number in range(3):
        log.append([write(number)], maker="inner")
        copies.append(Copy(tmp_path / "audit"))
        log.publish()
    key = log.key.verifier
    now = Copy(tmp_path / "audit")
    log.close()
    (oldest, old), (between, _) = (
        next((path, data) for path, data in copy.data.items() if path.startswith("journal/")) for copy in copies[:2]
    )
    read = now.changed(oldest, old)
    assert between not in read.paths() and verify_log(read, key).good
    # Where the checkpoint does not cover it, it is missing.
    late = copies[2].changed(oldest, old)
    report = verify_log(late.changed("checkpoint", copies[0].data["checkpoint"]), key)
    assert any("a gap before it" in finding.problem for finding in report.findings)
