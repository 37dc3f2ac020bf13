"""The installer's own copies, its book on a full disk, and what an asset must say."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from cofferdam.brokers.patch.book import Book, Table
from cofferdam.brokers.patch.health import _says
from cofferdam.brokers.patch.installer import Installer
from cofferdam.brokers.patch.outcome import Outcome, Refused
from cofferdam.brokers.patch.pacing import Pacer
from cofferdam.brokers.patch.plan import Step
from cofferdam.brokers.patch.records import Custom, Release
from cofferdam.brokers.patch.synced import SYNC_BYTES, Synced
from cofferdam.brokers.patch.trust import NotBelieved
from cofferdam.errors import StoreFull
from cofferdam.policy.hours import Window
from cofferdam.policy.terms.patch_rows import Install, PatchRows, Way
from cofferdam.policy.zones import clock

DATA = bytes(range(256)) * 40_000


def installer(folder: Path) -> Any:
    found: Any = object.__new__(Installer)
    found._files, found._offered = folder / "files", folder / "tuf"
    found._files.mkdir()
    found._lacking, found._copying, found._sha1, found._trust = {}, {}, {}, None
    found._full, found._unwritten = "", set()
    found.policy = SimpleNamespace(table=SimpleNamespace(assets={}))
    found._guards = SimpleNamespace(why=lambda _: "")
    notes: list[Any] = []
    found.notes = notes

    def record(draft: Any, done: Any) -> None:
        notes.append(draft)
        done(True, "")

    audit = SimpleNamespace(note=lambda draft, **_: notes.append(draft), record=record)
    found.setting = SimpleNamespace(audit=audit, wall=lambda: 1)
    found._open, found._untold = SimpleNamespace(get=lambda _: None, rows={}), []
    found.figures_ = SimpleNamespace(add=lambda *_: None)
    found.loop = SimpleNamespace(time=lambda: 0.0)
    return found


def release(folder: Path, data: bytes = DATA) -> Release:
    custom = Custom(number=1, product="fw", version="1", file="f", uploaded_by="u", requested_by="r", origin="o",
                    scan="s", at="")  # fmt: skip
    sha256 = hashlib.sha256(DATA).hexdigest()
    place = folder / "tuf" / "targets" / "fw" / "1"
    place.mkdir(parents=True)
    (place / f"{sha256}.f").write_bytes(data)
    return Release(custom.path, len(DATA), sha256, custom)


def test_many_who_fetch_at_once_get_what_was_signed(tmp_path: Path) -> None:
    part, wanted = installer(tmp_path), release(tmp_path)

    async def one(delay: int) -> bytes:
        for _ in range(delay):
            await asyncio.sleep(0)
        file: Path = await part.take_copy(wanted)
        with file.open("rb") as opened:
            return opened.read()

    async def run() -> list[bytes]:
        part.loop = asyncio.get_running_loop()
        return await asyncio.gather(*(one(delay) for delay in (0, 3, 5, 50)))

    assert set(asyncio.run(run())) == {DATA}
    assert asyncio.run(part.sha1_of(wanted)) == hashlib.sha1(DATA, usedforsecurity=False).hexdigest()


def test_a_file_that_is_another_is_not_read_again_and_again(tmp_path: Path) -> None:
    part, wanted = installer(tmp_path), release(tmp_path, DATA[:-1] + b"!")

    async def run() -> None:
        part.loop = asyncio.get_running_loop()
        for _ in range(3):
            with pytest.raises(NotBelieved, match="not the file that people signed"):
                await part.take_copy(wanted)
            (tmp_path / "tuf" / "targets" / "fw" / "1" / f"{wanted.sha256}.f").unlink(missing_ok=True)

    asyncio.run(run())
    assert len(part.notes) == 1
    assert not list(part._files.iterdir())


@pytest.mark.parametrize("data", [DATA, DATA[:-1] + b"!"])
def test_what_assets_are_going_to_get_is_copied_and_checked_before_their_turn(tmp_path: Path, data: bytes) -> None:
    part, wanted = installer(tmp_path), release(tmp_path, data)
    part.rows = PatchRows(installs=(Install(number=1, asset="a", products=("fw", "other"), ring="all"),))
    part.plan = lambda: SimpleNamespace(newest=lambda product: wanted if product == "fw" else None)

    async def run() -> None:
        part.loop = asyncio.get_running_loop()
        await part._take_ahead()

    asyncio.run(run())
    assert [each.name for each in part._files.iterdir()] == ([wanted.sha256] if data == DATA else [])
    assert ["not the file that people signed" in note.detail for note in part.notes] == ([] if data == DATA else [True])


def test_a_step_that_cannot_be_written_ends_nothing_and_begins_nothing(tmp_path: Path) -> None:
    part = installer(tmp_path)

    def full(*_: object) -> None:
        raise StoreFull("the disk is full")

    step = Step(asset="a", product="fw", release=1, version="1", sha256="", state="sending", at=1)
    part.steps = SimpleNamespace(put=full, rows={step.key: step}, get=lambda key: part.steps.rows.get(key))
    assert part.settle(step, "sent").state == "sent"
    assert "disk is full" in part._full
    part._cut, part._why, part.policy = False, "", SimpleNamespace(conduits={})
    part.stopping = False
    assert "disk is full" in part.shut()
    part.steps.put = lambda key, row: part.steps.rows.__setitem__(key, row)
    part._held = SimpleNamespace(get=lambda _: None, put=lambda *_: None)
    part._try_book()
    assert part.shut() == ""
    part._why = "targets was signed by 1/2 keys"
    assert "not believed" in part.shut()  # also what was believed before begins no more


@pytest.mark.parametrize(("said", "state"), [("failed", "failed"), (None, "gone")])
def test_a_health_check_does_not_undo_what_was_said_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any, state: str
) -> None:
    part = installer(tmp_path)
    step = Step(asset="a", product="fw", release=1, version="1", sha256="", state="sent", at=1)
    rows = {step.key: step}
    part.steps = SimpleNamespace(put=rows.__setitem__, rows=rows, get=rows.get)
    part.secret = lambda _way: ""

    async def check(*_: object) -> str:
        rows.pop(step.key)
        if said is not None:
            part.settle(step, said, "the asset says so")
        return ""

    monkeypatch.setattr("cofferdam.brokers.patch.health.check", check)
    install: Any = Install(number=1, asset="a", products=("fw",), ring="r", windows=(), health=SimpleNamespace())  # type: ignore[arg-type]
    asyncio.run(part.finish(step, install, Way(asset="a", address="10.0.0.1", rate=1)))
    assert rows[step.key].state == state if step.key in rows else state == "gone"


OPENED = Step(asset="a", product="fw", release=2, version="2", sha256="", state="sending", at=5, begun=5)


@pytest.mark.parametrize(
    ("state", "begun", "told", "why"),
    [
        ("", 0, "failed", "not begun after all: the installer ended before it was"),
        ("done", 4, "failed", "not begun after all: the installer ended before it was"),
        ("sent", 5, "sent", "so it was"),
        ("done", 5, "done", "so it was"),
        ("unknown", 5, "unknown", "so it was"),
        ("again", 5, "failed", "so it was"),
        ("sending", 5, "", ""),
        ("backing", 5, "", ""),
    ],
)
def test_a_start_that_the_log_may_have_gets_its_end_after_a_crash(
    tmp_path: Path, state: Any, begun: int, told: str, why: str
) -> None:
    """The clock was set back meanwhile."""
    part, book = installer(tmp_path), Book(tmp_path / "book.db")
    part.steps, part._open = Table(book, "step", Step), Table(book, "open", Step)
    if state:
        part.steps.put(OPENED.key, replace(OPENED, state=state, begun=begun, at=1, detail="so it was"))
    part._open.put(OPENED.key, OPENED)
    part._left_open()
    assert [(draft.state, draft.detail) for _, draft in part._untold] == ([(told, why)] if told else [])
    for key, draft in part._untold:
        part._tell_end(key, draft)
        assert not Table(book, "open", Step).rows
        part._open.put(OPENED.key, opened := replace(OPENED, at=7))
        part._tell_end(key, draft)
        assert not part._open.rows
        part.setting.audit.record = lambda _draft, done: part._open.put(OPENED.key, OPENED) or done(True, "")
        part._open.put(OPENED.key, opened)
        part._tell_end(key, draft)  # another was begun while the log wrote it: that one stays
        assert part._open.rows == {OPENED.key: OPENED}
        part.setting.audit.record = lambda _draft, done: done(False, "the disk is full")
        part._tell_end(key, draft)
        assert (len(part._untold), len(part._open.rows)) == (2, 1)
        break
    book.close()


@pytest.mark.parametrize(("tries", "is_at"), [(0, False), (1, True)])
def test_what_another_release_has_replaced_before_it_began_is_not_what_an_asset_is_at(
    tmp_path: Path, tries: int, is_at: bool
) -> None:
    """A device that was offered it meanwhile says that it failed: nothing had begun, and the newer one is to go on."""
    part, first = installer(tmp_path), release(tmp_path)
    step = Step(asset="a", product="fw", release=1, version="1", sha256="", state="again", at=1, tries=tries)
    part.steps = SimpleNamespace(rows={step.key: step}, get={step.key: step}.get)
    part.rows, part._held = PatchRows(), SimpleNamespace(get=lambda _: None)
    part.policy = SimpleNamespace(table=SimpleNamespace(clocks={}))
    part._trust = SimpleNamespace(releases=(first,))
    assert part.at("a", 1) is first
    part._trust.releases = (first, replace(first, custom=replace(first.custom, number=2)))
    assert (part.at("a", 1) is first) is is_at


@pytest.mark.parametrize(
    ("text", "says", "holds"),
    [
        ("version 2.1", "2.1", True), ("v2.1\n", "2.1", True), ("running 2.10", "2.1", False), ("12.1", "2.1", False),
        ("1.2.1", "2.1", False), ("2.1.7", "2.1", False), ("it is 2.1.", "2.1", True), ("2.10 after 2.1", "2.1", True),
        ("goodness", "good", True), ("a+b", "a.b", False),
    ],
)  # fmt: skip
def test_a_version_is_not_a_part_of_another(text: str, says: str, holds: bool) -> None:
    assert _says(text, says) is holds


def test_a_large_file_is_brought_to_disk_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One wait for all of a gigabyte lasts longer than a part may be silent."""
    behind, most = 0, 0

    def fsync(_fd: int) -> None:
        nonlocal behind
        behind = 0

    monkeypatch.setattr("os.fsync", fsync)
    with Synced((tmp_path / "file").open("wb")) as out:
        for _ in range(200):
            out.write(b"x" * (1 << 20))
            behind += 1 << 20
            most = max(most, behind if behind < SYNC_BYTES else 0)
            assert behind <= SYNC_BYTES
        out.sync()
    assert most


@pytest.mark.parametrize(
    ("when_shut", "start", "emergency", "ends"),
    [
        ("stop", 0, False, "its window has shut"),
        ("finish", 0, False, ""),
        ("stop", 0, True, ""),
        ("stop", 48_000, False, ""),
    ],
)
def test_a_transfer_may_be_stopped_when_its_window_shuts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when_shut: Any, start: int, emergency: bool, ends: str
) -> None:
    part, wanted = installer(tmp_path), release(tmp_path)
    wanted = msgspec.structs.replace(wanted, custom=msgspec.structs.replace(wanted.custom, emergency=emergency))
    wall = (1_767_225_600 + 50_000) * 1_000_000_000  # a day in 2026, 13:53
    part._pacer, part._running, part.secret = Pacer(lambda: 0.0), {"a": ("fw", 0)}, lambda _way: ""
    part.policy = SimpleNamespace(table=SimpleNamespace(clocks={"UTC": clock("UTC", wall)}))
    part.setting.wall = lambda: wall
    window = Window((0, 1, 2, 3, 4, 5, 6), start, start + 3600 * 2, "UTC")
    install = Install(number=1, asset="a", products=("fw",), ring="r", windows=(window,), when_shut=when_shut)

    async def push(_way: Way, *more: Any) -> Outcome:
        try:
            await more[-1](10)
        except Refused as error:
            return Outcome("failed", str(error))
        return Outcome("sent")

    monkeypatch.setattr("cofferdam.brokers.patch.pushing.push", push)
    assert asyncio.run(part._push(Way(asset="a", address="10.0.0.1"), wanted, install)).detail == ends
    assert part._running == {"a": ("fw", 10)}


def test_all_that_goes_out_together_goes_no_faster_than_may_be() -> None:
    at = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal at
        at += seconds

    async def run(rate: int) -> float:
        nonlocal at
        at, pacer = 0.0, Pacer(lambda: at, sleep)
        pacer.rate = rate
        for _ in range(500):
            await pacer.went(3_000)
            await pacer.went(1_000)
        return at

    assert asyncio.run(run(0)) == 0.0
    assert asyncio.run(run(100_000)) == pytest.approx(20.0, abs=0.1)
