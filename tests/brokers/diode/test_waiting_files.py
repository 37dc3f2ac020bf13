"""Files that wait outside: for what the line has lost, for their scan, for a folder that takes nothing. They hold up
their channel and no other, for no longer than that, and end no part."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cofferdam.brokers.diode.keeper_files import COMING_MOST, WHOLE_MOST
from cofferdam.brokers.kit.clamd import Scanned
from tests.brokers.diode.test_hostile import Outside, Part, beat, chunk, file, hand, manifest
from tests.brokers.diode.test_hostile import inside as inside
from tests.brokers.diode.test_hostile import outside as outside


def there(outside: Outside, folder: str = "reports-in") -> set[str]:
    return {path.name for path in outside.folders[folder].iterdir() if path.name[0] != "."}


def parts(outside: Outside) -> int:
    return len(list((outside.folder / "store" / "part").iterdir()))


def verdicts(outside: Outside) -> None:
    while outside.jobs:
        outside.jobs.pop()(msgspec.json.encode(Scanned("clean", "", "clamd 1")), "")
        outside.turn()


def test_files_of_which_the_line_has_lost_something_stop_no_channel(outside: Outside) -> None:
    """With 256 of them the sender had lied, it said, and nothing more was taken until the gate was started anew."""
    for number in range(1, 3 * COMING_MOST, 2):
        outside.say(manifest(number, f"{number}.csv"))
    outside.ticks(3)
    assert not outside.part._stopped and outside.part._store.count("files:reports", "coming") == COMING_MOST
    assert "cofferdam diode give-up files:reports" in outside.part.alarms()["waits-reports"]
    outside.say(*file(1, "b.bin", b"fine", channel="files:others"))
    verdicts(outside)
    assert there(outside, "others-in") == {"b.bin"}
    at = 3 * COMING_MOST + 3
    outside.say(*file(at, "late.csv", b"1"), beat(highest=at + 1))
    assert not there(outside)
    outside.ticks(3)
    (gap,) = [one for one in outside.part.gaps("files:reports") if one.last == at]
    assert gap.first <= at  # what was not taken is missing, and so named
    outside.ask("give-up", channel="files:reports")
    assert "waits-reports" not in outside.part.alarms()
    outside.say(*file(at + 2, "next.csv", b"2"))
    assert there(outside) == {"next.csv"}


def test_what_came_of_files_whose_manifest_is_lost_goes(outside: Outside) -> None:
    """It lay there for good, counted, and with 256 of them the channel was stopped at each start."""
    for number in range(1, 3 * COMING_MOST):
        outside.say(chunk(2 * number, 2 * number - 1, 0))
    assert not outside.part._stopped and parts(outside) == COMING_MOST
    highest = 6 * COMING_MOST
    (outside.folder / "store" / "part" / "of somebody else").touch()
    outside.say(beat(oldest=highest + 1, highest=highest))
    assert parts(outside) == 1
    outside.say(*file(highest + 1, "a.csv", b"1"))
    assert there(outside) == {"a.csv"}


def test_files_that_wait_for_their_scan_stop_no_channel(outside: Outside) -> None:
    """They counted as files of which something is still to come: a scanner that was away for a night stopped it."""
    assert WHOLE_MOST > 3 * COMING_MOST
    for number in range(COMING_MOST + 40):
        outside.say(*file(1 + 2 * number, f"{number}.bin", b"x", channel="files:others"))
    assert not outside.part._stopped and not there(outside, "others-in")
    verdicts(outside)
    assert len(there(outside, "others-in")) == COMING_MOST + 40 and not outside.part.alarms().get("waits-others")


def away(folder: Path) -> Callable[[], object]:
    folder.rename(folder.with_name("away"))
    return lambda: folder.with_name("away").rename(folder)


def no_folder(folder: Path) -> Callable[[], object]:
    folder.rename(folder.with_name("away"))
    folder.write_bytes(b"")

    def back() -> None:
        folder.unlink()
        folder.with_name("away").rename(folder)

    return back


@pytest.mark.parametrize("take", [away, no_folder])
@pytest.mark.parametrize("when", ["at once", "as it is recorded"])
def test_a_folder_that_takes_nothing_holds_up_its_own_files(
    outside: Outside, take: Callable[[Path], Callable[[], object]], when: str
) -> None:
    """It ended the keeper, again and again, and nothing came by the strand at all."""
    folder = outside.folders["reports-in"]
    if when == "at once":
        back = take(folder)
        outside.say(*file(1, "a.csv", b"1"))
    else:
        for piece in file(1, "a.csv", b"1"):
            outside.part.on_record("receiver", piece)
        while "DiodeFileReceived" not in outside.kinds():
            outside.later.pop(0)()
        back = take(folder)
        outside.turn()
    outside.ticks(1)
    words = outside.part.alarms()["waits-reports"]
    assert f"its folder {folder}: {os.strerror(errno.ENOENT if take is away else errno.ENOTDIR)}" in words
    outside.say(*file(1, "b.bin", b"fine", channel="files:others"))
    verdicts(outside)
    assert there(outside, "others-in") == {"b.bin"}
    outside.ticks(11)
    assert "waits-reports" in outside.part.alarms()
    back()
    outside.ticks(6)
    assert there(outside) == {"a.csv"} and (folder / "a.csv").read_bytes() == b"1"
    assert "waits-reports" not in outside.part.alarms()
    assert outside.part._store.count("files:reports", "done") == 1 and not parts(outside)
    outside.part.halt()
    assert "waits-reports" not in outside.part.alarms()  # it is still asked, and its store is closed


def test_a_keeper_is_born_where_a_folder_takes_nothing(tmp_path: Path) -> None:
    """What was about to be in it when the process ended goes there once it can."""
    outside = Outside(tmp_path)
    for piece in file(1, "a.csv", b"1"):
        outside.part.on_record("receiver", piece)
    while "DiodeFileReceived" not in outside.kinds():
        outside.later.pop(0)()
    folder, store = outside.folders["reports-in"], outside.part._store
    outside.part._save()
    (row,) = store.files("coming")
    store.state(row, "placing", "a.csv")
    outside.part.halt()
    (folder / "a.csv").mkdir()
    outside = Outside(tmp_path)
    outside.ticks(1)
    assert "waits-reports" in outside.part.alarms()
    (folder / "a.csv").rmdir()
    outside.ticks(6)
    assert there(outside) == {"a.csv"} and not parts(outside)
    outside.part.halt()


@pytest.mark.parametrize("take", [away, no_folder])
def test_a_folder_inside_that_is_away_ends_no_part(inside: Part, take: Callable[[Path], Callable[[], object]]) -> None:
    """It ended the spool, again and again, and nothing left by the strand at all."""
    folder = inside.folders["reports-out"]
    back = take(folder)
    inside.ticks(1)
    assert str(folder) in inside.part.alarms()["folder-reports"]
    (inside.folders["others-out"] / "a.bin").write_bytes(b"1")
    inside.ticks(1.5)
    assert "DiodeFileSent" in inside.kinds() and not any(inside.folders["others-out"].iterdir())
    back()
    hand(inside, "a.csv", b"1")
    assert inside.kinds().count("DiodeFileSent") == 2 and "folder-reports" not in inside.part.alarms()
