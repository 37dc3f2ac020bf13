"""The keeper's store when things go wrong: killed at any moment, a full disk, a disk that fails, files that are not as
they were left. What was acknowledged holds, whatever comes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.events.relay import StoreKept
from cofferdam.audit.files import LogReader
from cofferdam.audit.recovery import open_log
from cofferdam.brokers.relay import shelf
from cofferdam.brokers.relay.gaps import Gaps
from cofferdam.brokers.relay.ledger import Batch, booked, compare
from cofferdam.brokers.relay.records import Answered
from cofferdam.brokers.relay.store import Store
from cofferdam.enforce import kernel
from cofferdam.errors import StoreError
from tests.brokers.relay.keeping import LINES, Bench, body, logged, make_rows, refused
from tests.disk import library, needs_gcc
from tests.waiting import PATIENT, eventually

ROOT = Path(__file__).parent.parent.parent.parent
FEW, MANY = 10, 1000
"""Kills in the suite, and in `make soak`."""
pytestmark = needs_gcc


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that fails or kills at a call."""
    return library(tmp_path_factory.mktemp("disk"))


class Lives:
    """A keeper's lives, one after the other on one store, and what each was told for certain."""

    def __init__(self, folder: Path, disk: Path) -> None:
        self.folder = folder
        self.disk = disk
        self.count = 0
        self.stored: dict[str, int] = {}
        self.next = 1
        self.under = 0

    def live(self, seconds: float, until: str = "", tell_to: int = -1, **do: str) -> tuple[int, list[str]]:
        """One life: so long after it has said something with `until` in it, or as the failing disk has it. Returns its
        exit code, and what it said."""
        self.count += 1
        named = {f"DISK_{name.upper()}": value for name, value in do.items()}
        env = os.environ | {"LD_PRELOAD": str(self.disk), "DISK_FILE": "/store/keeper.db"} | named
        said, errors = self.folder / f"said-{self.count}", self.folder / f"errors-{self.count}"
        with said.open("wb") as out, errors.open("wb") as wrong:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.brokers.relay.pusher", str(self.folder), str(self.count)],
                stdout=out, stderr=wrong, cwd=ROOT, env=env, pass_fds=(tell_to,) if tell_to >= 0 else (),
            )  # fmt: skip
        try:
            eventually(lambda: child.poll() is not None or (said.read_text() and until in said.read_text()))
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            child.kill()
            child.wait()
        assert "Traceback" not in errors.read_text(), errors.read_text()
        lines = [line[:-1] for line in said.read_text().splitlines(keepends=True) if line.endswith("\n")]
        self._hold(lines)
        return child.returncode, lines

    def _hold(self, lines: list[str]) -> None:
        for line in lines:
            word, *rest = line.split(" ")
            if word == "stored":
                key, number = rest[0], int(rest[1])
                assert self.stored.setdefault(key, number) == number
            elif word == "handed":
                number = int(rest[0])
                assert number in (self.next, self.under, self.under + 1), f"{line} after {self.next - 1} was done"
                assert number >= self.next, f"{line}, which was done"
                self.under = number
            elif word == "done":
                assert int(rest[0]) == self.under
                self.next = self.under + 1

    def verify(self) -> int:
        """Holds the store to what was acknowledged, and to the log. Returns how many messages there are."""
        store = Store(self.folder / "store")
        assert len(set(self.stored.values())) == len(self.stored)
        for key, number in self.stored.items():
            message = store.message("counts", number)
            assert message is not None and message.key == key, (key, number)
            known = store.find("counts", "mes", key)
            assert known is not None and known.number == number
        [row] = [row for row in store.rows() if type(row).__name__ == "ChannelRow"]
        last = row.next - 1  # type: ignore[union-attr]
        assert row.messages == last  # type: ignore[union-attr]
        batches: list[Batch] = []
        findings: list[str] = []
        after = 0
        while True:
            step = shelf.verify(store, "counts", after, 0, last, 10_000, Gaps())
            findings += step.findings
            batches += step.batches
            after = step.next
            if not after:
                break
        assert findings == []
        log = open_log(self.folder / "audit", self.folder / "audit.key", site="test", background=False)
        entries = [json.loads(data)["event"] for _, data in LogReader(log.folder, log.key.verifier).entries()]
        log.close()
        pushed = [one.event for one in booked(logged(entries))[0]]
        assert compare(store.name, {}, batches, [*pushed, *_as_told(store)]) == []
        told = {event["commit"] for event in pushed}
        acknowledged = set(self.stored.values())
        for batch in batches:
            if batch.commit not in told:
                numbers = set(range(batch.first, batch.first + batch.count))
                assert not numbers & acknowledged, "acknowledged, and not in the log"
        store.close()
        return int(last)


def _as_told(store: Store) -> list[dict[str, object]]:
    """What waits in the store to be told, as the log would have it."""
    drafts = [draft for untold in store.untold() for draft in untold.drafts]
    told = [msgspec.to_builtins(draft) for draft in drafts]
    return [event for event in told if event["kind"] == "messages-pushed"]


@pytest.mark.parametrize("rounds", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(3 * 3600)])])
def test_whatever_was_acknowledged_survives_kills_at_each_call_to_the_disk(
    tmp_path: Path, disk: Path, rounds: int
) -> None:
    choose = random.Random(20261126)
    lives = Lives(tmp_path, disk)
    for turn in range(rounds):
        if turn % 3 == 2:
            lives.live(choose.uniform(0, 0.3))
        else:
            lives.live(PATIENT, "nothing", do=choose.choice(("kill", "killed")), at=str(choose.randint(1, 400)))
        if turn % (5 if rounds == FEW else 50) == 4:
            lives.verify()
    code, _ = lives.live(0.5, "done")
    assert code == -9
    assert lives.verify() >= len(lives.stored) > rounds
    assert lives.next > 1


def test_a_failed_fsync_ends_the_keeper_and_is_not_tried_again(tmp_path: Path, disk: Path) -> None:
    lives = Lives(tmp_path, disk)
    lives.live(0.3)
    read_end, write_end = os.pipe()
    for at in (2, 10, 15):
        code, lines = lives.live(
            PATIENT, "nothing", tell_to=write_end, do="eio", only="fdatasync", at=str(at), tell=str(write_end)
        )
        assert code == 5
        assert lines[-1].startswith("stopped ") and (
            "SQLITE_IOERR_FSYNC" in lines[-1] or "be synced: Input" in lines[-1]
        )
        os.set_blocking(read_end, False)
        calls = b""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(read_end, 1 << 16):
                calls += data
        assert calls.split() == [b"fdatasync"] * at, "not one more after the one that failed"
        lives.verify()
    os.close(read_end)
    os.close(write_end)
    lives.live(0.5)
    assert lives.verify() > 0
    log = open_log(tmp_path / "audit", tmp_path / "audit.key", site="test", background=False)
    entries = [json.loads(data)["event"] for _, data in LogReader(log.folder, log.key.verifier).entries()]
    log.close()
    assert [event["kind"] for event in entries].count("store-failed") == 2, "the first failed before it served"


@pytest.mark.parametrize("at", [5, 30])
def test_a_write_that_fails_ends_the_keeper(tmp_path: Path, disk: Path, at: int) -> None:
    lives = Lives(tmp_path, disk)
    lives.live(0.3)
    code, lines = lives.live(PATIENT, "nothing", do="eio", only="pwrite64", at=str(at))
    assert code == 5 and "SQLITE_IOERR_WRITE" in lines[-1]
    lives.live(0.5)
    assert lives.verify() > 0


def test_a_disk_that_is_full_in_the_middle_of_a_commit_takes_it_back(tmp_path: Path, disk: Path) -> None:
    lives = Lives(tmp_path, disk)
    _, lines = lives.live(0.1, "refused store", do="enospc", only="pwrite64", at="150")
    assert "refused store" in lines and lives.stored
    code, lines = lives.live(PATIENT, "nothing", do="enospc", only="pwrite64", at="1")
    assert code == 5 and lines[-1].endswith("has no more room"), "at the start there has to be room"
    lives.live(0.5)
    assert lives.verify() > 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    folder = tmp_path / "small"
    folder.mkdir()
    kernel.mount("tmpfs", str(folder), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=16m")
    yield folder
    kernel.umount(str(folder))


def test_a_full_disk_refuses_takes_nothing_back_that_was_said_and_goes_on(tmp_path: Path, small: Path) -> None:
    bench = Bench(tmp_path, store=small / "store")
    first = bench.stored(*range(1, 100))
    handed = bench.pull()
    ballast = small / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    answers = [bench.push((f"f{n}", body(count=n, text="x" * 900))) for n in range(40)]
    assert {"store"} == {refused(answer) for answer in answers[-1:]}
    for _ in range(5):
        bench.run(tick=True)
    alarm = bench.keeper.alarms()["store"]
    assert "no more messages" in alarm and f"{small}/store/keeper.db" in alarm and "make room on its disk" in alarm
    kept = sum(isinstance(answer, Answered) for answer in answers)
    status = bench.command("status")["channels"][0]
    assert status["messages"] == len(first) + kept == status["next"] - 1
    ballast.unlink()
    bench.run(tick=True)
    assert bench.stored(1000) == [len(first) + kept + 1], "numbers have no gap"
    assert bench.settle(handed).results[0].state == "stored"
    assert bench.numbers() == [2]
    assert bench.verified() == []
    bench.crash_in(tmp_path / "elsewhere")
    bench.start()
    assert bench.verified() == []
    bench.close()


def test_an_alarm_comes_before_the_disk_is_full(tmp_path: Path, small: Path) -> None:
    bench = Bench(tmp_path, store=small / "store")
    with (small / "ballast").open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, 13 << 20)
    for _ in range(5):
        bench.run(tick=True)
    assert f"MiB of 16 are left in {small}/store, where" in bench.keeper.alarms()["store"]
    assert bench.stored(1) == [1], "and still it works"
    bench.close()


# --- files that are not as they were left --------------------------------------------------------------------------


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Path]:
    """The folder of a keeper that has ended, with some messages."""
    bench = Bench(tmp_path)
    bench.stored(*range(1, 400))
    bench.pull()
    bench.end()
    bench.log.log.close()
    yield bench.store


def opened(folder: Path) -> StoreError:
    with pytest.raises(StoreError) as caught:
        Store(folder)
    assert str(folder / "keeper.db") in str(caught.value), "the file is named"
    assert caught.value.hint, "and the way out"
    return caught.value


def test_two_at_once_are_refused(left: Path) -> None:
    store = Store(left)
    code = (
        "import sys; from pathlib import Path; from cofferdam.brokers.relay.store import Store\n"
        "try: Store(Path(sys.argv[1]))\nexcept Exception as error: print(type(error).__name__, error, error.hint)"
    )
    done = subprocess.run([sys.executable, "-c", code, left], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("StoreError") and "in use by another process" in done.stdout
    assert store.message("counts", 1) is not None
    store.close()


@pytest.mark.parametrize(("version", "than"), [(0, "older"), (99, "newer")])
def test_another_format_is_named(left: Path, version: int, than: str) -> None:
    with contextlib.closing(sqlite3.connect(left / "keeper.db")) as db:
        db.execute(f"PRAGMA user_version={version}")
    assert f"has format {version}, {than}" in str(opened(left))


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "keeper.db")) as db:
        db.execute("CREATE TABLE recipes(name)")
        db.commit()
    before = (tmp_path / "keeper.db").read_bytes()
    assert "of something else" in str(opened(tmp_path))
    assert (tmp_path / "keeper.db").read_bytes() == before


def test_damage_is_named_wherever_it_is(left: Path) -> None:
    """Bytes that were overwritten: either the store does not open, with the file and the way out, or reading it through
    finds it, or it was in a place that holds nothing."""
    choose = random.Random(1)
    whole = (left / "keeper.db").read_bytes()
    pages = len(whole) // 4096
    unnoticed = []
    for page in range(pages):
        at = page * 4096 + choose.randrange(0, 64)
        damaged = bytearray(whole)
        damaged[at : at + 512] = choose.randbytes(512)
        (left / "keeper.db").write_bytes(damaged)
        with contextlib.suppress(FileNotFoundError):
            (left / "keeper.db-wal").unlink()
        try:
            store = Store(left)
        except StoreError as error:
            assert "keeper.db" in str(error) and error.hint
            continue
        try:
            found = shelf.verify(store, "counts", 0, 0, 399, 10_000, Gaps())
        except StoreError as error:
            assert "damaged" in str(error)
            store.fail()
            continue
        store.close()
        if not found.findings:
            unnoticed.append(page)
    assert len(unnoticed) <= pages // 10, unnoticed


def test_a_file_cut_short_is_named(left: Path) -> None:
    whole = (left / "keeper.db").read_bytes()
    for size in (100, 4096, len(whole) // 2 // 4096 * 4096, len(whole) - 4096):
        (left / "keeper.db").write_bytes(whole[:size])
        opened(left)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "nowhere")


# --- the index of keys --------------------------------------------------------------------------------------------


def test_keys_are_known_in_sealed_segments_and_after_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cofferdam.brokers.relay.store.SEGMENT", 50)
    bench = Bench(tmp_path)
    for start in range(0, 320, 40):
        bench.stored(*range(start, start + 40))
    assert len(bench.keeper._work.store.index.segments) == 4
    for _ in range(2):
        again = bench.push(*[(f"k{count}", body(count=count)) for count in range(320)])
        assert [(result.again, result.number) for result in again.results] == [(True, n + 1) for n in range(320)]
        [other] = bench.push(("k7", body(count=-1))).results
        assert other.state == "conflict"
        bench.crash()
        bench.start()
    bench.work_by(make_rows(lines=LINES[:1]))
    bench.move(3_601)
    assert bench.command("status")["channels"][0]["messages"] == 0
    assert len(bench.keeper._work.store.index.segments) == 0, "what is gone is forgotten"
    assert bench.stored(5) == [321]
    bench.close()


def test_two_keys_that_meet_in_the_index_are_told_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    index = bench.keeper._work.store.index
    bench.keeper._work.store.index.print_of = lambda source, key: 2**64 - 1  # type: ignore[method-assign]
    assert bench.stored(1, 2, 3) == [1, 2, 3]
    assert len(index.newest) == 3
    for count in (1, 2, 3):
        assert bench.push((f"k{count}", body(count=count))).results[0].number == count
    assert bench.push(("k2", body(count=9))).results[0].state == "conflict"
    bench.close()


def test_a_turn_that_was_taken_back_leaves_nothing_in_the_index(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sha256 = hashlib.sha256(b"1").digest()
    store.add("counts", 1, "mes", "k", b"1", sha256, sha256, 5)
    assert store.find("counts", "mes", "k") is not None
    store.rollback()
    assert store.find("counts", "mes", "k") is None and len(store.index) == 0
    store.close()


def test_no_commit_has_the_number_of_another(tmp_path: Path) -> None:
    """With entries for the log or without, and however far the log has confirmed them."""
    choose = random.Random(5)
    draft = StoreKept(wall_ns=1, store="0" * 64, commit=0)
    store = Store(tmp_path)
    last = store.group
    for _ in range(200):
        store.begin()
        if choose.random() < 0.5:
            store.told(last - choose.randrange(2))
        assert store.commit([draft] * choose.randrange(2), {}).group == last + 1
        last += 1
        if choose.random() < 0.2:
            store.close()
            store = Store(tmp_path)
            assert store.group == last
    store.close()


def test_numbers_that_a_restored_backup_gave_out_again_are_named() -> None:
    """Even if its commits have other numbers than those that were lost."""

    def told(commit: int, first: int, count: int, root: str) -> dict[str, Any]:
        return {"store": "s", "commit": commit, "channel": "counts", "first": first, "count": count, "root": root}

    def batch(commit: int, first: int, count: int, root: str) -> Batch:
        return Batch(commit, "counts", first, count, 1, root)

    before = [told(1, 1, 2, "a"), told(1, 1, 2, "a"), told(3, 3, 1, "b"), told(4, 4, 4, "c")]  # one is told again
    assert compare("s", {}, [batch(1, 1, 2, "a"), batch(3, 3, 1, "b"), batch(4, 4, 4, "c")], before) == []
    after = [told(2, 3, 1, "d"), told(3, 4, 2, "e")]
    found = compare("s", {}, [batch(1, 1, 2, "a"), batch(2, 3, 1, "d"), batch(3, 4, 2, "e")], [*before, *after])
    again = [each.partition(":")[0] for each in found if "given out once more" in each]
    assert again == ["counts 3 to 3", "counts 4 to 5"]
