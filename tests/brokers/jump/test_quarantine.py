"""What waits for its scan, on a disk that fills up: a file has its trouble, and the archivist goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.broker import RunJob
from cofferdam.brokers.jump import quarantine, records
from cofferdam.brokers.jump.quarantine import Quarantine, Room
from cofferdam.brokers.kit.clamd import Scanned
from cofferdam.errors import CrossingError


class Held:
    """A quarantine, and what it says."""

    def __init__(self, store: Path, run_job: RunJob = lambda *_: None) -> None:
        self.said: list[Any] = []
        self.store = store
        self.of = Quarantine(store, "b", run_job, self.said.append, Room(store))

    def say(self, *records_: Any) -> Any:
        for record in records_:
            self.of.on_record(record)
        return self.said[-1] if self.said else None


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    held = Held(small_disk)
    held.say(records.Hold(1, "s"))
    piece, answer = bytes(256 << 10), records.Held(1, 0)
    for _ in range(60):
        answer = held.say(records.HoldPiece(1, piece))
    assert "full" in answer.trouble
    assert answer.size <= 10 << 20  # what was free beyond the rest, and a look's worth
    assert "full" in held.say(records.Hold(2, "s"), records.HoldPiece(2, b"x")).trouble
    judged = held.say(records.Judge(2))
    assert (judged.verdict, "full" in judged.detail) == ("not scanned", True)
    held.say(records.Let(2, False), records.Let(1, False))
    assert held.say(records.Hold(3, "s"), records.HoldPiece(3, b"x")) == records.Held(3, 1)
    held.of.close()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    held = Held(tmp_path)
    (tmp_path / quarantine.FOLDER).rmdir()
    assert held.say(records.Hold(1, "s"), records.HoldPiece(1, b"x")).trouble
    assert held.say(records.Give(1, 0)).data == b""
    held.say(records.Let(1, True))
    held.of.close()


def test_what_no_honest_inner_part_says(tmp_path: Path) -> None:
    held = Held(tmp_path)
    for record in (records.Hold(2, "s"), records.HoldPiece(1, b"x"), records.Give(9, 0), records.Let(1, True)):
        with pytest.raises(CrossingError):
            held.say(record)
    for number in range(1, records.HELD_MOST + 1):
        held.say(records.Hold(number, "s"))
    with pytest.raises(CrossingError):
        held.say(records.Hold(records.HELD_MOST + 1, "s"))
    held.of.close()


def test_nobody_fills_it_up_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by large files nor by many, be they under way at once; what is thrown away counts no more."""
    found = msgspec.json.encode(Scanned("found", "a virus"))
    held = Held(tmp_path, lambda _, __, tell: tell(found, ""))
    last = 0

    def comes(person: str, size: int) -> str:
        """Its name in quarantine, "" for none."""
        nonlocal last
        last += 1
        judged = held.say(records.Hold(last, person), records.HoldPiece(last, bytes(size)), records.Judge(last))
        return str(judged.name)

    def lies(number: int, keep: bool = True) -> None:
        held.say(records.Let(number, keep))

    monkeypatch.setattr(quarantine, "KEPT_BYTES", 400)
    monkeypatch.setattr(quarantine, "KEPT_MOST", 8)
    first = comes("mallory", 150)
    assert (first, comes("mallory", 51), comes("anna", 51)) == ("b-1", "", "b-3")  # nothing lies there yet
    for number in (1, 2, 3):
        lies(number)
    assert held.of.kept == 2 and {one["name"] for one in held.of.listed()} == {"b-1", "b-3"}
    assert held.of.remove(first) == ""
    assert [comes("mallory", 1) != "" for _ in range(5)] == [True, True, True, True, False]
    lies(4, False)  # somebody has released it
    assert comes("mallory", 1) != "" and comes("mallory", 0) == "" and comes("anna", 0) != ""
    assert held.of.kept == 6
    held.of.close()
    held = Held(tmp_path)
    assert held.of.kept == 1  # the others waited for somebody who is gone
    held.of.close()


def test_its_job_may_read_what_waits_and_nobody_else(tmp_path: Path) -> None:
    old = tmp_path / quarantine.FOLDER
    old.mkdir(mode=0o700)  # as it was once made
    held = Held(tmp_path)
    held.say(records.Hold(1, "s"), records.HoldPiece(1, b"x"))
    (file,) = old.iterdir()
    assert (old.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o750, 0o640)
    held.of.close()


def test_nobody_waits_for_all_that_one_person_brings(tmp_path: Path) -> None:
    jobs: list[tuple[str, Any]] = []
    of = Quarantine(
        tmp_path, "b", lambda _, order, done: jobs.append((order.decode(), done)), lambda _: None, Room(tmp_path)
    )
    whose = ["hog"] * 6 + ["anna", "bert", "bert"]
    for number, person in enumerate(whose, 1):
        of.on_record(records.Hold(number, person))
        of.on_record(records.Judge(number))

    def begun() -> list[int]:
        return [int(order.rpartition("-")[2].rstrip('"}')) for order, _ in jobs]

    assert begun() == [1, 2, 7, 8]
    jobs[2][1](b"", "late")  # anna's
    assert begun()[4:] == [9]
    jobs[0][1](b"", "late")
    assert begun()[5:] == [3]
    of.on_record(records.Let(4, False))
    jobs[1][1](b"", "late")
    assert begun()[6:] == [5]
    for index in range(3, 7):
        jobs[index][1](b"", "late")
    assert begun()[7:] == [6]


def test_what_is_kept_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one person's locked archives fill the disk on which others are recorded."""
    monkeypatch.setattr(quarantine, "KEPT_BYTES", 25)
    jobs: list[Any] = []
    said: list[Any] = []

    def begin() -> Quarantine:
        return Quarantine(tmp_path, "b", lambda _, __, done: jobs.append(done), said.append, Room(tmp_path))

    of = begin()
    for number in (1, 2, 3):
        for record in (records.Hold(number, f"{number}"), records.HoldPiece(number, bytes(10)), records.Judge(number)):
            of.on_record(record)
        jobs.pop()(b"", "a password")
        name = said[-1].name
        of.on_record(records.Let(number, True))
        assert (bool(name), (tmp_path / "quarantine" / (name or "new-b-3")).exists()) == (number < 3, number < 3)
    assert (of.kept, begin().kept) == (2, 2)
    assert begin()._kept_bytes == 20
