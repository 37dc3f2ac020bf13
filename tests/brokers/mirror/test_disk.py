"""Disks under spool and store: killed before and after each call that writes, calls that fail, disks that are really
full, folders that are taken away. What was acknowledged is there, once, and it goes on where there is room."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from cofferdam.brokers.mirror import spooler
from cofferdam.enforce import kernel
from cofferdam.errors import StoreError
from tests.brokers.mirror.crew import Plant, crew, historian
from tests.brokers.mirror.lives import BATCHES, ROWS, TAGS, rows
from tests.brokers.mirror.pairing import HOUR, NOW, Pair, batch
from tests.brokers.mirror.test_kill import verified
from tests.disk import library, needs_gcc
from tests.services import Postgres, needs_postgres
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
PARTS = ("spooler", "keeper")


class Lives:
    """Lives, each in a folder of its own, and what has to be there afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._number = count()
        env = os.environ | {"LD_PRELOAD": str(library(folder))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.brokers.mirror.lives"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=ROOT, env=env, text=True,
        )  # fmt: skip

    def live(self, part: str, **disk: str) -> tuple[int, list[str], list[str]]:
        """One life whose disk does this to a part: how it ended, what it said, the calls that were counted. Afterwards
        another goes on from there, and is held to what was acknowledged."""
        folder = self.folder / f"life-{next(self._number)}"
        folder.mkdir()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "part": part, "disk": disk}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        calls = (folder / "calls").read_text().splitlines()
        self._holds(folder, {int(word.split()[1]) for word in found["said"] if word.startswith("stored ")})
        shutil.rmtree(folder)
        return found["code"], found["said"], calls

    def _holds(self, folder: Path, stored: set[int]) -> None:
        pair = Pair(folder)
        pair.all()
        want: dict[str, set[int]] = {tag: set() for tag in TAGS}
        for number in stored:
            for tag, at, _ in rows(number):
                want[tag].add(at)
        found = pair.has(HOUR - 4, HOUR)
        assert all(found.get(tag, 0) >= len(times) for tag, times in want.items()), (stored, found)
        for number in range(BATCHES):  # a source sends again what it heard nothing of, and more besides
            pair.offer(batch("live", rows(number)))
        pair.all()
        pair.seal()
        assert pair.has(HOUR - 4, HOUR) == dict.fromkeys(TAGS, BATCHES * ROWS)
        assert not pair.keeper.store.catalogue.losses
        pair.close()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        assert self._process.wait() == 0
        self._process.stdout.close()


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    made = Lives(tmp_path_factory.mktemp("lives"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def calls(lives: Lives) -> dict[str, list[str]]:
    """What each part calls, where nothing fails."""
    found = {}
    for part in PARTS:
        code, said, found[part] = lives.live(part)
        assert code == 0 and said == [*(f"stored {n}" for n in range(BATCHES)), "end"]
        assert {"fdatasync", "fsync", "pwrite64", "write"} <= {*found[part]}
    return found


def kills(lives: Lives, calls: dict[str, list[str]], step: int) -> int:
    done = 0
    for part in PARTS:
        for at in range(1, len(calls[part]) + 1):
            if at % step == 0:
                for do in ("kill", "killed"):
                    code, _, made = lives.live(part, do=do, at=str(at))
                    # What is sealed and merged beside is not always asked for at the same time: a life may call less.
                    assert (code, len(made)) == (-9, at) or (code == 0 and len(made) < at)
                    done += code == -9
    return done


@needs_gcc
def test_a_kill_at_a_write(lives: Lives, calls: dict[str, list[str]]) -> None:
    assert kills(lives, calls, 7) > 10


@needs_gcc
@pytest.mark.soak
def test_a_kill_at_every_write(lives: Lives, calls: dict[str, list[str]]) -> None:
    assert kills(lives, calls, 1) > 100


@needs_gcc
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("call", ["pwrite64", "write", "fdatasync", "fsync"])
@pytest.mark.parametrize("error", ["eio", "enospc"])
def test_a_call_that_fails(lives: Lives, calls: dict[str, list[str]], part: str, call: str, error: str) -> None:
    """EIO ends the part, which says so. A disk without room is an alarm and no end, where nothing is left half done."""
    code, said, _ = lives.live(part, do=error, only=call, at=str(calls[part].count(call) // 2 + 1))
    alarmed = any(word.startswith("alarm mirror-") and word.endswith("-full") for word in said)
    goes_on = code == 0 and said[-1] == "end" and alarmed
    ends = code == 3 and said[-1].startswith("ended ")
    if error == "eio" or call == "fdatasync":  # nobody knows what is on such a disk
        assert ends, said
    else:
        assert goes_on or (ends and call == "fsync"), said


@needs_gcc
@pytest.mark.parametrize("part", PARTS)
def test_a_disk_that_stands_still_for_a_while(lives: Lives, calls: dict[str, list[str]], part: str) -> None:
    """Nothing is acknowledged meanwhile, nothing is lost, and nobody ends by it."""
    at = str(calls[part].count("fdatasync") // 2 + 1)
    code, said, _ = lives.live(part, do="slow", only="fdatasync", at=at)
    assert code == 0 and said == [*(f"stored {n}" for n in range(BATCHES)), "end"]


# --- disks of real crews ----------------------------------------------------------------------------------------------


def mounted(folder: Path, size: str, *, again: bool = False) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | (kernel.MS_REMOUNT if again else 0)
    kernel.mount("tmpfs", str(folder), "tmpfs", flags, f"size={size},mode=0700")


@pytest.fixture(scope="module")
def made() -> Iterator[Postgres]:
    with historian() as found:
        yield found


@needs_postgres
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("part", PARTS)
def test_a_real_disk_without_room(tmp_path: Path, made: Postgres, part: str) -> None:
    """Nothing is acknowledged that is not there, readers are answered, and with room it goes on by itself; at the end
    the mirror and its source are equal, value by value."""
    plant = Plant(made)
    begin = int(time.time()) - 3600
    (tmp_path / part).mkdir()
    mounted(tmp_path / part, "512k")
    try:
        with crew(tmp_path, plant) as mirror:
            plant.add([("tank", begin, 1.0, 192)])
            mirror.catches_up()
            plant.add([(f"tag{n}", begin + 1 + s, n + s / 7, 192) for s in range(1500) for n in range(20)])
            name = "mirror-spool-full" if part == "spooler" else "mirror-store-full"
            eventually(lambda: name in mirror.children[part].status().alarms)
            eventually(lambda: 0 < mirror.mirrored() < plant.count())  # a reader may be asked to come again
            mounted(tmp_path / part, "64m", again=True)
            mirror.catches_up()
            eventually(lambda: name not in mirror.children[part].status().alarms)
            run = verified(mirror, begin // 3600, int(time.time()) // 3600)
            assert (run["differences"], run["failed"], run["points"]) == (0, "", plant.count()), run
            assert mirror.ask("keeper", "gaps")["count"] == 0
            mirror.ends_well()
    finally:
        kernel.umount(str(tmp_path / part))


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_that_is_taken_away_acknowledges_nothing(tmp_path: Path, part: str) -> None:
    pair = Pair(tmp_path)
    pair.offer(batch("live", rows(0)))
    pair.all()
    shutil.rmtree(tmp_path / part)
    with pytest.raises(StoreError, match="gone"):
        pair.offer(batch("live", rows(1)))
        pair.all()
    assert pair.stored == (1 if part == "spooler" else 2)
    (tmp_path / part).mkdir()
    pair.born()
    for number in range(2):
        pair.offer(batch("live", rows(number)))
    pair.all()
    if part == "spooler":  # what the keeper has, it has
        assert pair.has(HOUR - 4, HOUR) == dict.fromkeys(TAGS, 2 * ROWS)
    pair.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("part", PARTS)
def test_a_disk_that_may_only_be_read(tmp_path: Path, part: str) -> None:
    (tmp_path / part).mkdir()
    mounted(tmp_path / part, "1m")
    try:
        kernel.mount("", str(tmp_path / part), "", kernel.MS_REMOUNT | kernel.MS_RDONLY)
        pair = Pair(tmp_path)
        with pytest.raises(StoreError, match="Read-only"):
            pair.offer(batch("live", rows(0)))
            pair.all()
        assert pair.stored == (part == "keeper")
        pair._gone()
    finally:
        kernel.umount(str(tmp_path / part))


def test_hours_left_of_the_spool_are_told_at_24_and_at_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rate at which it fills, while the keeper takes nothing; and not any more once it has taken all."""
    clock = [1_000.0]
    monkeypatch.setattr(spooler, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    pair = Pair(tmp_path)
    pair.back()
    spool = pair.spooler._spool
    for number in range(600):  # ten minutes of a batch a second, so that the rate is known
        pair.offer(batch("live", [("tank_a", NOW + number, 1.0)]))
        clock[0] += 1.0
        pair.spooler.tick()
    rate = spool.written / 600
    told: dict[str, int] = {}
    for hours in (100, 25, 23, 5, 3, 1):
        spool.most = spool.size + int(rate * hours * 3600)
        left = pair.spooler._left() / 3600
        assert abs(left - hours) < hours / 50
        for name, words in pair.spooler.alarms().items():
            told[name] = max(told.get(name, 0), hours)
            assert f"room for {int(left)} h" in words
    assert told == {"mirror-spool": 23, "mirror-spool-soon": 3}
    assert set(pair.spooler.alarms()) == {"mirror-spool-soon"}  # the nearer one alone
    pair.all()
    assert pair.spooler.alarms() == {}
    pair.close()
