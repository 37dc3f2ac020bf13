"""The keeper: what one uploader may hold, what makes room, and what is not kept when the log cannot have it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cofferdam.brokers.patch import keeper as module
from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.catalogue import FileRow
from cofferdam.brokers.patch.examining import Examining, asked_of
from cofferdam.brokers.patch.keeper import Keeper
from cofferdam.brokers.patch.records import Looked
from cofferdam.brokers.patch.reports import Report
from cofferdam.brokers.patch.sealing import Sealing
from cofferdam.errors import StoreFull
from cofferdam.policy.terms.patch_rows import Origin, PatchRows, Product
from tests.brokers.patch.test_keeper_verbs import REPORT, Log

FW = Product(name="fw", origin=Origin(proof="pgp", keys=()), most=1000)


@pytest.fixture
def keeper(tmp_path: Path) -> Any:
    made: Any = object.__new__(Keeper)
    made.store = tmp_path
    for name in ("incoming", "quarantine"):
        (tmp_path / name).mkdir()
    made.files = Table(Book(tmp_path / "book.db"), "file", FileRow)
    made.rows = PatchRows(products=(FW,))
    made.stopping, made._full = False, ""
    made.sealing = Sealing(bytes(32), encrypt=True)
    made.examining = Examining(made)
    made.figures_ = SimpleNamespace(add=lambda *_: None)
    made.log = Log()
    made.setting = SimpleNamespace(audit=made.log, wall=lambda: 1)
    return made


def row(
    number: int, by: str = "stage", state: Any = "waiting", size: int = 10, report: Report | None = None
) -> FileRow:
    return FileRow(number=number, product="fw", version=str(number), file="f", size=size, sha256="ab" * 32, by=by,
                   how="put", at=1, state=state, report=report)  # fmt: skip


def take(keeper: Any, version: str) -> list[tuple[int, str, str, str]]:
    path = keeper.store / "incoming" / version
    path.write_bytes(b"x" * 10)
    answers: list[tuple[int, str, str, str]] = []
    keeper.take_file(path, "fw", version, "f", 10, "ab" * 32, "stage", "put", None, lambda *said: answers.append(said))
    return answers


def test_one_uploader_leaves_the_others_room(keeper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNDECIDED_MOST", 3)
    for number in (1, 2, 3):
        keeper.files.put(number, row(number))
    assert "wait already" in keeper.too_much("stage", 1)
    assert keeper.too_much("other", 1) == ""
    keeper.files.put(3, row(3, state="released"))
    assert keeper.too_much("stage", 1) == ""
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=20, f_frsize=1))
    assert keeper.too_much("other", 15) == ""
    assert "half of what there is" in keeper.too_much("stage", 15)


def test_what_was_refused_makes_room(keeper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FILES_MOST", 2)
    keeper.files.put(1, row(1, state="refused"))
    keeper.files.put(2, row(2, state="released"))
    (keeper.store / "quarantine" / "1").write_bytes(b"x")
    answers = take(keeper, "3")
    keeper.log.write()
    assert answers[0][0] == 3
    assert sorted(keeper.files.rows) == ["2", "3"]
    assert not (keeper.store / "quarantine" / "1").exists()
    assert "10000" not in take(keeper, "4")[0][3]
    assert len(keeper.files.rows) == 2


def test_what_the_log_cannot_have_is_not_kept(keeper: Any) -> None:
    answers = take(keeper, "1")
    keeper.log.write(ok=False)
    assert answers[0][2:] == ("log", "nothing can be recorded: the disk is full")
    assert not keeper.files.rows
    assert not list((keeper.store / "quarantine").iterdir())
    again = take(keeper, "1")  # it may come again
    keeper.log.write()
    assert again[0][2] == ""


def test_a_book_on_a_full_disk_is_a_refusal(keeper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreFull("the disk is full")

    monkeypatch.setattr(keeper.files, "put", full)
    assert take(keeper, "1")[0][2] == "store"


def test_what_nobody_scanned_has_not_passed(keeper: Any) -> None:
    """Whatever an examiner says: the policy asks for a scan."""
    keeper.files.put(1, row(1, state="examining", size=REPORT.size))
    fields = {name: getattr(REPORT, name) for name in Report.__struct_fields__}
    keeper.examining.judge(1, Report(**{**fields, "scan": "not asked"}), "")
    keeper.log.write()
    assert keeper.files.rows["1"].state == "not-scanned"


def test_another_key_or_scan_is_another_examination() -> None:
    other = Product(name="fw", origin=Origin(proof="pgp", keys=(b"other",)), most=1000)
    unscanned = Product(name="fw", origin=FW.origin, most=1000, scan="")
    larger = Product(name="fw", origin=FW.origin, most=2000)
    assert len({asked_of(FW), asked_of(other), asked_of(unscanned)}) == 3
    assert asked_of(larger) == asked_of(FW)


@pytest.mark.parametrize(
    ("days", "says"),
    [(61, ""), (59, "fewer than 60"), (29, "fewer than 30"), (6, "in 6 days (fewer than 7)"), (-1, "has expired")],
)
def test_a_root_and_a_list_that_end_are_alarms(keeper: Any, days: int, says: str) -> None:
    expires = datetime(2027, 3, 1, tzinfo=UTC)
    wall = int((expires - timedelta(days=days, hours=12 if days > 0 else 0)).timestamp()) * 10**9
    unfit = "the root has expired" if days < 0 else ""
    keeper.setting.wall = lambda: wall
    keeper.repository = SimpleNamespace(unfit=unfit, root=SimpleNamespace(signed=SimpleNamespace(expires=expires)))
    keeper.desk = keeper.fetching = SimpleNamespace(alarms=dict)
    keeper.looked, keeper._days = Looked(0), days
    keeper.examining.unfit = "its base is 30 days old"
    found = keeper.alarms()
    names = {"patch-root"} if days < 0 else {"patch-root-expires", "patch-targets-expire"} if says else set()
    assert found.pop("patch-scanner") == "nothing can be scanned: its base is 30 days old"
    assert found.keys() == names
    assert says in found.get("patch-root-expires", found.get("patch-root", ""))
    assert days < 0 or not says or f"for {days} days more" in found["patch-targets-expire"]
