"""The log on disk: durable when it says so, refused when it cannot be, in order whatever the clock does."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.audit import files
from cofferdam.audit.checkpoint import open_checkpoint
from cofferdam.audit.entry import decode_entry, format_time
from cofferdam.audit.events.gate import GateStopped, PolicyLoaded
from cofferdam.audit.files import DirFiles, LogReader
from cofferdam.audit.keys import load_key, load_public, write_file
from cofferdam.audit.log import ALLOCATE, AuditLog
from cofferdam.audit.recovery import open_log
from cofferdam.audit.tiles import tile_path
from cofferdam.audit.tree import WIDTH
from cofferdam.audit.verify import verify_log
from cofferdam.errors import AuditError, LogUnwritable
from tests.audit.conftest import Clock, Opener, write

SECOND = 1_000_000_000


def entries(log: AuditLog) -> list[dict[str, object]]:
    return [json.loads(data) for _, data in LogReader(log.folder, log.key.verifier).entries()]


def events(log: AuditLog) -> list[dict[str, str]]:
    return [entry["event"] for entry in entries(log)]  # type: ignore[misc]


def test_an_entry_says_all_it_must(opener: Opener, clock: Clock) -> None:
    log = opener()
    assert log.append([write(7), write(8)], maker="modbus/it-ot/inner", policy="ab" * 32) == range(1, 3)
    found = entries(log)[1]
    assert set(found) == {"event", "index", "maker", "policy", "site", "time"}
    assert (found["index"], found["maker"], found["policy"], found["site"]) == (
        1,
        "modbus/it-ot/inner",
        "ab" * 32,
        "riverside",
    )
    assert found["time"] == format_time(clock.wall).decode()
    assert isinstance(found["event"], dict) and found["event"]["wall_ns"] == "1795404737123456796"
    log.close()


def test_the_policy_last_loaded_stands_in_entries_that_name_none(opener: Opener) -> None:
    log = opener()
    log.append([PolicyLoaded(policy="cd" * 32)], maker="gate")
    log.append([write()], maker="inner")
    log.append([write()], maker="inner", policy="ef" * 32)
    log.append([write()], maker="inner")
    assert [entry["policy"] for entry in entries(log)][1:] == ["cd" * 32, "cd" * 32, "ef" * 32, "cd" * 32]
    log.close()


def test_entries_go_on_where_they_stopped(opener: Opener, tmp_path: Path) -> None:
    total, log = 0, opener()
    log.close()
    for count in (0, 1, 255, 256, 3, 700):
        log = opener()
        log.append([write(n) for n in range(count)] or [GateStopped(reason="nothing")], maker="inner")
        total = log.size
        log.close()
        report = verify_log(DirFiles(tmp_path / "audit"), log.key.verifier)
        assert report.good and report.size == report.total == total
    assert [entry["index"] for entry in entries(log)] == list(range(total))
    with pytest.raises(LogUnwritable, match="closed"):
        log.append([write()], maker="inner")


def test_tick_publishes_at_intervals(opener: Opener, clock: Clock, tmp_path: Path) -> None:
    log = opener()
    log.append([write()], maker="inner")
    log.tick()
    assert log.unpublished == 1
    clock.move(SECOND)
    log.tick()
    assert log.unpublished == 0
    assert open_checkpoint((tmp_path / "audit/checkpoint").read_bytes(), log.key.verifier).size == log.size
    log.close()


def test_what_is_published_while_a_reader_looks_is_not_missed(opener: Opener) -> None:
    """Between its looks at the checkpoint and at the journal, entries go from one to the other."""
    log = opener()

    class Slow(LogReader):
        def journal(self) -> Iterator[tuple[int, bytes]]:
            log.publish()
            return super().journal()

    reader = Slow(log.folder, log.key.verifier)
    log.append([write(1), write(2)], maker="inner")
    assert [index for index, _ in reader.entries()] == list(range(log.size))
    log.append([write(3)], maker="inner")
    assert reader.size() == log.size
    log.close()


def test_who_reads_slowly_while_the_log_grows_is_not_told_that_an_entry_is_missing(opener: Opener) -> None:
    log = opener()
    log.append([write(0)], maker="inner")
    log.publish()
    read = []
    for index, _ in LogReader(log.folder, log.key.verifier).entries():
        read.append(index)
        if index < 400:
            log.append([write(index)], maker="inner")
            log.publish()
    assert read == list(range(log.size)) and log.size > 400
    log.close()


def test_publishing_in_the_background(opener: Opener, clock: Clock, tmp_path: Path) -> None:
    log = opener(background=True)
    for number in range(40):
        log.append([write(number * 50 + n) for n in range(50)], maker="inner")
        clock.move(SECOND)
        log.tick()
    log.close()
    report = verify_log(DirFiles(tmp_path / "audit"), log.key.verifier)
    assert report.good and report.size == 2001
    kept = [path for path in DirFiles(tmp_path / "audit").paths() if ".p/" in path]
    assert all(path.startswith(("tile/0/007.p", "tile/entries/007.p", "tile/1/000.p")) for path in kept)


@pytest.mark.parametrize("jump", [3600 * SECOND, -3600 * SECOND, 2 * SECOND, -2 * SECOND])
def test_a_clock_that_jumps_is_told_of_and_time_stays_ordered(opener: Opener, clock: Clock, jump: int) -> None:
    log = opener()
    log.append([write()], maker="inner")
    clock.move(SECOND // 2)
    clock.wall += jump
    log.append([write()], maker="inner")
    clock.move(SECOND)
    log.append([write()], maker="inner")
    found = entries(log)
    jumps = [event["jump_ns"] for event in events(log) if event["kind"] == "clock-jump"]
    assert jumps == [str(jump)]
    times = [str(entry["time"]) for entry in found]
    assert times == sorted(times)
    log.close()


def test_a_slow_clock_is_no_jump_until_it_adds_up(opener: Opener, clock: Clock) -> None:
    log = opener()
    for _ in range(12):
        clock.move(SECOND)
        clock.wall += SECOND // 10
        log.tick()
    kinds = [decode_entry(data).kind for _, data in LogReader(log.folder, log.key.verifier).entries()]
    assert kinds.count("clock-jump") == 1
    log.close()


def test_a_clock_behind_the_log_at_start(opener: Opener, clock: Clock) -> None:
    log = opener()
    log.close()
    clock.wall -= 7200 * SECOND
    log = opener()
    found = entries(log)
    assert [event["kind"] for event in events(log)] == ["log-opened", "log-opened", "clock-jump"]
    assert len({entry["time"] for entry in found}) == 1
    log.close()


def test_one_writer(opener: Opener) -> None:
    log = opener()
    with pytest.raises(AuditError, match="another process is writing"):
        opener()
    log.close()
    opener().close()


# --- keys ---------------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_private(opener: Opener, tmp_path: Path) -> None:
    opener().close()
    path = tmp_path / "keys/audit.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = load_key(path)
    assert key is not None and key.name == "cofferdam/riverside"
    assert load_public(tmp_path / "keys/audit.pub").text == key.verifier.text
    text = path.read_text()
    opener().close()
    assert path.read_text() == text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_can_read_is_refused(opener: Opener, tmp_path: Path, mode: int) -> None:
    opener().close()
    (tmp_path / "keys/audit.key").chmod(mode)
    with pytest.raises(AuditError, match="can be read or changed by others") as caught:
        opener()
    assert "chmod 600" in caught.value.hint


def test_a_missing_damaged_or_foreign_key_is_refused(opener: Opener, tmp_path: Path) -> None:
    opener().close()
    path = tmp_path / "keys/audit.key"
    text = path.read_text()
    path.unlink()
    with pytest.raises(AuditError, match=r"its key .* is missing"):
        opener()
    path.write_text(text[:-4])
    path.chmod(0o600)
    with pytest.raises(AuditError, match=r"audit.key: the audit key is damaged"):
        opener()
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match="cannot be read"):
        opener()
    path.unlink()
    open_log(tmp_path / "other", tmp_path / "keys/other.key", site="riverside").close()
    (tmp_path / "keys/other.key").rename(path)
    with pytest.raises(AuditError, match="is not the public half"):
        opener()
    (tmp_path / "keys/audit.pub").unlink()
    with pytest.raises(AuditError, match=r"checkpoint: the key .* has not signed this"):
        opener()


def test_a_log_that_vanished_is_not_begun_anew(opener: Opener, tmp_path: Path) -> None:
    opener().close()
    (tmp_path / "audit").rename(tmp_path / "away")
    with pytest.raises(AuditError, match="checkpoint is missing, but the log's key exists"):
        opener()


def test_a_first_start_that_was_cut_short_is_done_again(opener: Opener, tmp_path: Path) -> None:
    opener(interval_ns=10**18).close()
    for left in (["journal/00000000000000000000"], ["journal/00000000000000000000", "checkpoint"]):
        for path in DirFiles(tmp_path / "audit").paths():
            (tmp_path / "audit" / path).unlink()
        (tmp_path / "keys/audit.key").unlink()
        for path in left:
            (tmp_path / "audit" / path).write_bytes(b"half")
        opener().close()


# --- a disk that fails ----------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs root to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def count(log: AuditLog) -> int:
    return sum(1 for _ in LogReader(log.folder, log.key.verifier).entries())


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_a_full_disk(tiny: Path, tmp_path: Path, clock: Clock, batch: int) -> None:
    def again() -> AuditLog:
        return open_log(
            tiny / "audit",
            tmp_path / "keys/audit.key",
            site="riverside",
            wall_ns=lambda: clock.wall,
            mono_ns=lambda: clock.mono,
            retry_ns=0,
            background=False,
        )

    log = again()
    ballast = tiny / "ballast"
    ballast.write_bytes(bytes(400 << 10))  # room for the journal to be written once more
    accepted = log.size
    with pytest.raises(LogUnwritable, match="ENOSPC") as caught:
        for number in range(10_000):
            accepted = log.append([write(number)] * batch, maker="inner").stop
            clock.move(SECOND // 100)
            log.tick()
    assert "free some space" in caught.value.hint
    for _ in range(3):
        with pytest.raises(LogUnwritable):
            log.append([write()] * batch, maker="inner")
    assert log.size >= accepted and count(log) == log.size
    size = log.size
    ballast.unlink()
    assert log.append([write()] * batch, maker="inner") == range(size, size + batch)
    assert not log.fault
    log.publish()
    log.close()
    assert verify_log(DirFiles(tiny / "audit"), log.key.verifier).good
    again().close()


def test_a_crash_while_the_disk_is_full(tiny: Path, tmp_path: Path, clock: Clock) -> None:
    """What was accepted is there after the crash; what was refused is not."""
    folder, key = tiny / "audit", tmp_path / "keys/audit.key"
    log = open_log(folder, key, site="riverside", retry_ns=0, background=False)
    ballast = tiny / "ballast"
    ballast.write_bytes(bytes(450 << 10))
    with pytest.raises(LogUnwritable):
        for number in range(100_000):
            log.append([write(number)], maker="inner")
    size = log.size
    os.close(log._lock)  # as the kernel does when the process dies
    log._closed = True
    with pytest.raises(LogUnwritable, match="ENOSPC"):
        open_log(folder, key, site="riverside", retry_ns=0, background=False)
    ballast.unlink()
    log = open_log(folder, key, site="riverside", retry_ns=0, background=False)
    kinds = [decode_entry(data).kind for _, data in LogReader(folder, log.key.verifier).entries()]
    assert kinds.count("write-allowed") == size - 1
    assert kinds[size : size + 2] == ["log-opened", "torn-tail"]
    log.close()


def test_the_reserve_holds_through_a_crash_on_a_full_disk(tmp_path: Path) -> None:
    """The disk is full, and all that was kept is the reserve: the log goes on, and opens again after a crash."""
    folder, key = tmp_path / "tiny", tmp_path / "keys/audit.key"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs root to mount a small file system")
    try:
        log = open_log(folder / "audit", key, site="riverside", retry_ns=0, background=False)
        log.keep_reserve()
        with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        for number in range(300):
            log.append([write(number)], maker="inner")
            log.tick()
        assert log.stuck and not log.fault
        size = log.size
        os.close(log._lock)
        log._closed = True
        if not (folder / "audit/reserve").exists():  # it is used up: nothing is left to open the log by
            (folder / "ballast").unlink()
        log = open_log(folder / "audit", key, site="riverside", retry_ns=0, background=False)
        kinds = [decode_entry(data).kind for _, data in LogReader(folder / "audit", log.key.verifier).entries()]
        assert kinds.count("write-allowed") == 300 and log.size >= size + 2
        log.append([write(1000)], maker="inner")
        (folder / "ballast").unlink(missing_ok=True)
        log.publish()
        log.close()
        assert verify_log(DirFiles(folder / "audit"), log.key.verifier).good
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_the_log_opens_on_a_full_disk_by_its_reserve(tmp_path: Path) -> None:
    folder, key = tmp_path / "tiny", tmp_path / "keys/audit.key"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs root to mount a small file system")
    try:
        log = open_log(folder / "audit", key, site="riverside", retry_ns=0, background=False)
        log.keep_reserve()
        log.close()
        with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        log = open_log(folder / "audit", key, site="riverside", retry_ns=0, background=False)
        assert log.stuck
        log.append([write(1)], maker="inner")
        (folder / "ballast").unlink()
        log.close()
        assert verify_log(DirFiles(folder / "audit"), log.key.verifier).good
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_file_that_may_not_grow(opener: Opener, tmp_path: Path) -> None:
    """The limit on file size stands for any error of write(2) on any file."""
    log = opener()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    log.append([write(n) for n in range(100)], maker="inner")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(LogUnwritable, match="EFBIG"):
            log.append([write(n) for n in range(100)], maker="inner")
        assert log.size == 101
        with pytest.raises(LogUnwritable):
            log.publish()
        with pytest.raises(LogUnwritable):
            log.tick()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.tick()
    assert log.append([write()], maker="inner") == range(101, 102)
    log.close()
    assert verify_log(DirFiles(tmp_path / "audit"), log.key.verifier).good


def test_a_failed_publication_stops_appends_until_it_succeeds(opener: Opener, tmp_path: Path) -> None:
    log = opener()
    log.append([write(n) for n in range(10)], maker="inner")
    (tmp_path / "audit/checkpoint.new").mkdir()  # so that no checkpoint can be put in place
    with pytest.raises(LogUnwritable, match=r"publish .*checkpoint"):
        log.publish()
    with pytest.raises(LogUnwritable):
        log.append([write()], maker="inner")
    (tmp_path / "audit/checkpoint.new").rmdir()
    assert log.append([write()], maker="inner") == range(11, 12)
    log.close()
    assert verify_log(DirFiles(tmp_path / "audit"), log.key.verifier).good


def test_mending_is_not_tried_all_the_time(opener: Opener, tmp_path: Path, clock: Clock) -> None:
    log = opener(retry_ns=SECOND)
    log.append([write()], maker="inner")
    blocker = tmp_path / "audit/checkpoint.new"
    blocker.mkdir()
    with pytest.raises(LogUnwritable):
        log.publish()
    blocker.rmdir()
    with pytest.raises(LogUnwritable):
        log.append([write()], maker="inner")
    clock.move(SECOND)
    assert log.append([write()], maker="inner") == range(2, 3)
    log.close()


def test_segments_grow_past_what_was_allocated(opener: Opener, tmp_path: Path) -> None:
    log = opener(interval_ns=10**18)
    batch = [write(n) for n in range(1000)]
    appended = 0
    while appended < 2 * ALLOCATE[0]:
        log.append(batch, maker="inner")
        appended += 1000 * 400
    assert log.unpublished
    report = verify_log(DirFiles(tmp_path / "audit"), log.key.verifier)
    assert report.good and report.total == log.size
    log.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_file_that_finds_no_room_leaves_none_behind(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "small", str(small)], check=True)
    try:
        with pytest.raises(OSError, match="space"):
            write_file(small / "x", b"x" * 65536)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_large_entries_at_the_end_hold_up_no_start(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start looked through the last 65,536 entries three times, however large an owned half had made them: gigabytes,
    while all writes waited, and on a slow machine longer than an auditor has for its start."""
    log = opener()
    for number in range(0, 5 * WIDTH, WIDTH):
        log.append([write(number + at) for at in range(WIDTH)], maker="inner")
    log.publish()
    reader = LogReader(log.folder, log.key.verifier)
    assert (reader.tail(10**6), reader.tail(100)) == (0, log.size - 100)
    one = sum(len(entry) for _, entry in reader.entries(4 * WIDTH)) // (log.size - 4 * WIDTH) * WIDTH
    log.close()
    read: list[str] = []
    honest = DirFiles.read
    monkeypatch.setattr(files, "TAIL_BYTES", 3 * one)

    def reading(self: DirFiles, path: str) -> bytes | None:
        read.append(path)
        return honest(self, path)

    monkeypatch.setattr(DirFiles, "read", reading)
    log = opener()
    assert reader.tail(10**6) in (2 * WIDTH, 3 * WIDTH)
    wanted = {tile_path("entries", index) for index in range(5)}
    assert wanted - set(read) == {tile_path("entries", 0)} and log.size == 5 * WIDTH + 2
    log.append([write(1)], maker="inner")
    log.close()
