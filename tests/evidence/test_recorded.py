"""The recordings of an archivist that was taken over, read by root each night: it always ends, soon, and says so."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from cofferdam.audit.events.jump import RecordingMarked, RecordingUsed
from cofferdam.audit.files import LogReader
from cofferdam.enforce import stores
from cofferdam.evidence import recorded
from cofferdam.evidence.checks.tables import run_checks
from cofferdam.evidence.gather import log_key
from cofferdam.evidence.inputs import Inputs, Recorded
from tests.evidence.ledger import NS, T0, Ledger
from tests.evidence.test_services import the_policy

NAME = f"{T0 // NS}-s1.cast"
LATER = T0 + 86_400 * NS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    for size in (2, 4):
        digest = hashlib.sha256(b"said"[:size]).hexdigest()
        ledger.say(RecordingMarked(recording=NAME, session="s1", size=size, sha256=digest, ended=size == 4))
    huge = RecordingMarked(recording=f"2{NAME}", session="s2", size=1 << 42, sha256="0" * 64, ended=True)
    ledger.say(huge)
    ledger.close()
    made = tmp_path / "state" / stores.FOLDER / "jump" / "archivist" / "recordings"
    made.mkdir(parents=True)
    (made / NAME).write_bytes(b"said")
    (made / f"2{NAME}").write_bytes(b"")
    return made


def look(folder: Path) -> Recorded:
    state = folder.parents[3]
    found = recorded.recorded(state, LogReader(state / "audit", log_key(state)), T0, LATER)
    assert found is not None
    assert len(found.findings) <= recorded.FINDINGS_MOST + 1
    assert all(one.isascii() and one.isprintable() for one in found.findings)
    return found


def test_a_whole_one_and_one_that_is_cut(folder: Path) -> None:
    found = look(folder)
    assert (found.count, found.findings) == (2, [f"2{NAME}: it has 0 bytes, and had {1 << 42}: it was cut"])


def _sparse(folder: Path) -> None:
    os.truncate(folder / f"2{NAME}", 1 << 42)


def _many(folder: Path) -> None:
    for number in range(500):
        (folder / f"{T0 // NS}-{number}.cast").touch()


def _link(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to("elsewhere")


def _gone(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")


@pytest.mark.parametrize(("does", "says"), [
    (_sparse, "it has holes"),
    (_many, "the audit log does not know it"),
    (_link, "the folder of recordings cannot be read"),
    (_gone, "it is gone, and nothing says that it was removed"),
    (lambda folder: (folder / "²-s1.cast").touch(), "xb2-s1.cast: the audit log does not know it"),
    (lambda folder: (folder / os.fsdecode(b"9999999999999-\xff\x1b[2J\n.cast")).touch(), "x1b[2J"),
    (lambda folder: (folder / f"{LATER // NS * 2}-s1.cast").touch(), "the audit log does not know it"),
])  # fmt: skip
def test_what_an_archivist_puts_there(folder: Path, does: Callable[[Path], None], says: str) -> None:
    does(folder)
    found = look(folder)
    assert any(says in one for one in found.findings), found.findings


def test_what_was_not_removed_after_all_is_missed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "state")
    ledger.begin()
    for name, taken_back in (("1-s1.cast", False), ("2-s2.cast", True)):
        ledger.say(RecordingMarked(recording=name, session=name, size=1, sha256="0" * 64, ended=True))
        ledger.say(RecordingUsed(recording=name, how="removed", by="the policy"))
        if taken_back:
            ledger.say(RecordingUsed(recording=name, how="not-removed", by="the policy", reason="read-only"))
    ledger.close()
    made = tmp_path / "state" / stores.FOLDER / "jump" / "archivist" / "recordings"
    made.mkdir(parents=True)
    assert look(made).findings == ["2-s2.cast: it is gone, and nothing says that it was removed"]


def test_what_is_kept_of_marks_is_small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year of work has millions."""
    state, count = folder.parents[3], 20_000
    many = (
        SimpleNamespace(event={"kind": "recording-marked", "recording": f"{number % 100}-s.cast", "session": "s",
                               "size": number, "sha256": hashlib.sha256(b"%d" % number).hexdigest()})
        for number in range(count)
    )  # fmt: skip
    monkeypatch.setattr(recorded, "matching", lambda *_: ((0, one) for one in many))
    tracemalloc.start()
    try:
        found = recorded.recorded(state, LogReader(state / "audit", log_key(state)), T0, LATER)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is not None
    assert sum("it is gone" in one for one in found.findings) >= 98
    assert peak < 100 * count


def test_the_time_it_takes_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than can be read in a night nothing else of that night comes to harm, and it is not called whole."""
    (folder / f"2{NAME}").unlink()
    state = folder.parents[3]
    reader = LogReader(state / "audit", log_key(state))
    found = recorded.recorded(state, reader, T0, LATER, 0.0)
    assert found is not None
    assert (found.count, found.left) == (1, 1)
    assert found.findings == [f"2{NAME}: it is gone, and nothing says that it was removed"]
    found.findings.clear()
    [], [missing] = run_checks(Inputs(LATER, policy=the_policy(), recorded=found), ["recording.whole"])
    assert missing.reason.startswith("1 of 2 recordings were not compared")
    times = iter([0.0, 0.0, 0.0, 2.0])  # it ends within a recording
    monkeypatch.setattr(recorded, "time", SimpleNamespace(monotonic=lambda: next(times)))  # and nobody else's
    found = recorded.recorded(state, reader, T0, LATER, 1.0)
    assert found is not None
    assert (found.count, found.left) == (1, 1)
