"""A catalogue that is damaged, gone, or older than its files: the keeper deletes nothing and does not start, and what
is made anew of the files has everything that was sealed, once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cofferdam.brokers.mirror import anew, catalogue, sealing
from cofferdam.brokers.mirror.catalogue import Hold, Loss
from cofferdam.brokers.mirror.columns import HOUR_NS
from cofferdam.brokers.mirror.query import Reading
from cofferdam.cli.main import main
from cofferdam.errors import StoreError
from tests.brokers.mirror.pairing import HOUR, NOW, Pair, batch

DAYS = (0, 1, 2)
ROWS = 50


def filled(pair: Pair, number: int) -> None:
    """A batch of each lane, sealed: an hour of each of some days."""
    for lane in ("live", "backfill"):
        for day in DAYS:
            at = NOW - 24 * day * HOUR_NS + number * 10**9 * ROWS
            tag = "tank_a" if lane == "live" else "flow_b"
            pair.offer(batch(lane, [(tag, at + n * 10**9, number + n / 7) for n in range(ROWS)]))
    pair.all()
    pair.seal()


def has(pair: Pair) -> dict[str, int]:
    return pair.has(HOUR - 24 * len(DAYS), HOUR)


def _whole(folder: Path) -> None:
    """No harm: somebody makes it anew all the same."""
    assert (folder / catalogue.NAME).exists()


def _gone(folder: Path) -> None:
    (folder / catalogue.NAME).unlink()


def _damaged(folder: Path) -> None:
    (folder / catalogue.NAME).write_text('{"version":1,"generation":7')


def _both(folder: Path) -> None:
    _damaged(folder)
    (folder / catalogue.COPY).write_text("{")


@pytest.mark.parametrize("harm", [_gone, _damaged, _both])
def test_a_catalogue_is_made_anew_of_the_files(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"
    for number in range(3):
        filled(pair, number)
        if number == 1:
            pair.keeper._merge([[file for file in pair.keeper.store.catalogue.files if file.first // 24 == HOUR // 24]])
            pair.settle()
            found = pair.keeper.store.catalogue
            found.holds = [Hold(HOUR - 5, HOUR, "auditor", "why")]
            found.losses = [Loss("historian", 1, 2, 3, "lost", NOW)]
            catalogue.save(keeper, found)
    pair.offer(batch("live", [("tank_a", NOW + 1, 1.0)]))  # not sealed yet
    pair.all()
    wanted = {"tank_a": 3 * ROWS * len(DAYS) + 1, "flow_b": 3 * ROWS * len(DAYS)}
    assert has(pair) == wanted
    before = sorted(path.name for path in keeper.glob("*.parquet"))
    assert not {path.name for path in keeper.glob("*.parquet")} <= {
        file.name for file in pair.keeper.store.catalogue.files
    }, "those that were made into one lie there for a while"
    points = {name: (tag.points, tag.kind) for name, tag in pair.keeper.store.catalogue.tags.items()}
    harm(keeper)
    with pytest.raises(StoreError) as refused:
        pair.born()
    assert "cofferdam mirror rebuild" in (refused.value.hint or "")
    assert sorted(path.name for path in keeper.glob("*.parquet")) == before  # nothing is deleted
    made = anew.rebuild(keeper, NOW)
    assert not made.damaged and made.before == (harm is not _both)
    pair.born()
    assert "made anew" in pair.keeper.alarms()["mirror-store-mended"]
    pair.all()
    assert has(pair) == wanted
    found = pair.keeper.store.catalogue
    assert {name: (tag.points, tag.kind) for name, tag in found.tags.items()} == points
    if harm is _both:  # nobody knows what was held: all of it is
        assert [(one.first, one.last) for one in found.holds] == [
            (min(file.first for file in found.files), max(file.last for file in found.files))
        ]
    else:
        assert [one.by for one in found.holds] == ["auditor"] and [one.why for one in found.losses] == ["lost"]
    filled(pair, 3)  # it goes on, with the numbers that it had
    assert has(pair) == {tag: count + ROWS * len(DAYS) for tag, count in wanted.items()}
    assert len(found.losses) == (harm is not _both)
    pair.born()
    assert "mirror-store-mended" not in pair.keeper.alarms()
    pair.close()


@pytest.mark.parametrize("gone", [False, True])
def test_no_commit_comes_again_where_no_file_has_the_last(tmp_path: Path, gone: bool) -> None:
    """What only repeats others makes no file, and a file may be gone: a database that follows knows the commits."""
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"
    rows = [("tank_a", NOW + n, 1.0) for n in range(ROWS)]
    for lane in ("live", "backfill", "live"):
        pair.offer(batch(lane, rows))
        pair.all()
        pair.seal()
    store = pair.keeper.store
    before = (store.catalogue.sealed, store.catalogue.taken)
    assert before == (3, {"live": 2, "backfill": 1}) and [file.commits for file in store.catalogue.files] == [1]
    for path in keeper.glob("hot-*"):  # they lie there for ten minutes more
        path.unlink()
    if gone:
        (keeper / store.catalogue.files[0].name).unlink()
    _both(keeper)
    anew.rebuild(keeper, NOW)
    pair.born()
    found = pair.keeper.store.catalogue
    assert (found.sealed, found.taken) == before
    pair.offer(batch("live", [("tank_a", NOW + ROWS, 1.0)]))
    pair.all()
    assert pair.keeper.store.commit == 4 and has(pair) == {"tank_a": 1 if gone else ROWS + 1}
    assert not found.losses  # nor does anybody say that batches are missing
    pair.close()


def test_a_note_that_cannot_be_written_or_read_is_in_nobodys_way(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"
    (keeper / "sealed.new").mkdir()
    filled(pair, 0)
    assert not (keeper / catalogue.NOTE).exists() and not pair.keeper.store.hot
    (keeper / "sealed.new").rmdir()
    (keeper / catalogue.NOTE).write_text("{")
    wanted = has(pair)
    _both(keeper)
    anew.rebuild(keeper, NOW)
    pair.born()
    # Nobody knows what was sealed, so it is the hot log that counts, and what it has is sealed once more.
    assert has(pair) == wanted and pair.keeper.store.commit == 6
    pair.seal()
    assert has(pair) == wanted and pair.keeper.store.catalogue.sealed == 6
    pair.close()


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It works as the store's owner, on a store that no keeper has, and not without need."""
    pair = Pair(tmp_path / "made")
    pair.back()
    filled(pair, 0)
    pair.close()
    keeper = tmp_path / "stores" / "mirror%2Foffice-plant" / "keeper"
    shutil.copytree(tmp_path / "made" / "keeper", keeper)
    owner = (65_534, 65_534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    for path in (keeper, *keeper.iterdir()):
        os.chown(path, *owner)
    words = ["mirror", "rebuild", "--state", str(tmp_path)]
    assert main(words) == 2 and "can be read" in capsys.readouterr().err
    _both(keeper)
    assert main(["mirror", "tags", "--state", str(tmp_path)]) == 2
    assert "mirror rebuild" in capsys.readouterr().err
    assert main(words) == 0
    assert "2 tags are in a new catalogue" in capsys.readouterr().out
    assert (keeper / catalogue.NAME).stat().st_uid == owner[0]
    assert len(catalogue.load(keeper).holds) == 1
    assert main([*words, "--yes"]) == 0


def test_a_catalogue_from_an_older_backup_costs_no_file(tmp_path: Path) -> None:
    """The keeper used to take what an older catalogue does not name for what a crash had left, and delete it."""
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"
    filled(pair, 0)
    shutil.copy(keeper / catalogue.NAME, tmp_path / "backup.json")
    filled(pair, 1)
    wanted = has(pair)
    for path in keeper.glob("hot-*"):  # they lie there for ten minutes more
        path.unlink()
    shutil.copy(tmp_path / "backup.json", keeper / catalogue.NAME)
    with pytest.raises(StoreError, match="older than"):
        pair.born()
    anew.rebuild(keeper, NOW)
    pair.born()
    pair.all()
    assert has(pair) == wanted
    pair.close()


def test_what_a_crash_has_left_is_removed_as_before(tmp_path: Path) -> None:
    """Sealed, and not in the catalogue yet: the hot log still has it."""
    pair = Pair(tmp_path)
    pair.back()
    filled(pair, 0)
    pair.offer(batch("live", [("tank_a", NOW + 5, 1.0)]))
    pair.all()
    shutil.copy(tmp_path / "keeper" / catalogue.NAME, tmp_path / "before.json")
    pair.seal()
    (path,) = (tmp_path / "keeper").glob(f"h*-{pair.keeper.store.commit:016d}.parquet")
    shutil.copy(tmp_path / "before.json", tmp_path / "keeper" / catalogue.NAME)
    wanted = has(pair)
    pair.born()
    assert not path.exists() and has(pair) == wanted
    pair.close()


@pytest.mark.parametrize("harm", [_whole, _gone, _damaged, _both])
@pytest.mark.parametrize("days", range(1, len(DAYS) + 1))
def test_a_kill_between_the_files_of_a_sealing_costs_nothing(
    tmp_path: Path, harm: Callable[[Path], None], days: int
) -> None:
    """Each of them says that all up to the last commit is sealed, and those of other days are not there yet: what is
    made anew used to believe it, and the keeper then deleted the hot log, which alone had them."""
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"
    filled(pair, 0)
    for day in DAYS:
        at = NOW - 24 * day * HOUR_NS + 10**12
        pair.offer(batch("live", [("tank_a", at + n * 10**9, n / 7) for n in range(ROWS)]))
    pair.all()
    wanted, store = has(pair), pair.keeper.store
    files = sealing.seal(keeper, store.to_seal(), before=sealing.Before(keeper, store.catalogue.files))
    assert len(files) == len(DAYS) and wanted["tank_a"] == 2 * ROWS * len(DAYS)
    for file in files[days:]:  # where it was killed, they were not written
        (keeper / file.name).unlink()
    harm(keeper)
    assert not anew.rebuild(keeper, NOW).damaged
    pair.born()
    pair.all()
    assert has(pair) == wanted
    pair.seal()
    assert has(pair) == wanted and not pair.keeper.store.hot
    assert pair.keeper.store.catalogue.taken == {"live": 2 * len(DAYS), "backfill": len(DAYS)}
    pair.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_note_that_is_behind_is_put_right_before_anything_of_the_hot_log_goes(
    tmp_path: Path, full: bool, no_room: Any
) -> None:
    """A keeper was killed before it wrote the note of a sealing, and the next one dropped the hot log of before: then
    nobody could tell the files of another sealing, if that was killed as well."""
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"
    filled(pair, 0)
    filled(pair, 1)
    older = catalogue.Catalogue(sealed=2 * len(DAYS), taken={"live": len(DAYS), "backfill": len(DAYS)})
    catalogue.note(keeper, older)
    if full:  # then it is later
        no_room.append(True)
    pair.born()
    store = pair.keeper.store
    assert bool(list(keeper.glob("hot-*"))) == full
    if full:
        store._lingering[:] = [(0.0, name) for _, name in store._lingering]
        store.sweep()
        assert list(keeper.glob("hot-*")) and catalogue.load(keeper, catalogue.NOTE).sealed == older.sealed
        no_room.clear()
        store._lingering[:] = [(0.0, name) for _, name in store._lingering]
        store.sweep()
        assert not list(keeper.glob("hot-*"))
    assert catalogue.load(keeper, catalogue.NOTE).sealed == store.catalogue.sealed == 4 * len(DAYS)
    for day in DAYS:
        pair.offer(batch("live", [("tank_a", NOW - 24 * day * HOUR_NS + 10**13 + n, n / 7) for n in range(ROWS)]))
    pair.all()
    wanted = has(pair)
    files = sealing.seal(keeper, store.to_seal(), before=sealing.Before(keeper, store.catalogue.files))
    for file in files[1:]:  # where it was killed, they were not written
        (keeper / file.name).unlink()
    _both(keeper)
    anew.rebuild(keeper, NOW)
    pair.born()
    pair.all()
    assert has(pair) == wanted
    pair.close()


def test_a_note_that_cannot_be_written_is_told_as_long_as_the_hot_log_stays_for_it(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    in_the_way = tmp_path / "keeper" / "sealed.new"
    in_the_way.mkdir()
    filled(pair, 0)
    store = pair.keeper.store

    def swept() -> bool:
        """Whether what lingers is gone, once its time has come."""
        store._lingering[:] = [(0.0, name) for _, name in store._lingering]
        store.sweep()
        return not list((tmp_path / "keeper").glob("hot-*"))

    assert not swept()
    assert "sealed.json cannot be written" in pair.keeper.alarms()["mirror-store-note"]
    in_the_way.rmdir()
    assert swept() and "mirror-store-note" not in pair.keeper.alarms()
    pair.close()


def test_what_is_hot_when_the_catalogue_is_written_is_counted_once(tmp_path: Path) -> None:
    """Samples nearly always come while others are sealed."""
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"

    def come(second: int, tag: str) -> None:
        pair.offer(batch("live", [(tag, NOW + (second + n) * 10**9, n / 7) for n in range(ROWS)]))
        pair.all()

    def counted() -> list[dict[str, int]]:
        """By the keeper, and by who reads."""
        return [
            {name: tag.points for name, tag in tags.items()}
            for tags in (pair.keeper.store.catalogue.tags, Reading(keeper).view().tags())
        ]

    come(0, "tank_a")
    store = pair.keeper.store
    commits = store.to_seal()
    files = sealing.seal(keeper, commits, before=sealing.Before(keeper, []))
    come(ROWS, "tank_a")
    come(0, "flow_b")
    store.sealed(commits, files)
    wanted = {"tank_a": 2 * ROWS, "flow_b": ROWS}
    assert counted() == [wanted, wanted]
    for _ in range(2):
        pair.born()
        pair.all()
        assert counted() == [wanted, wanted]
    pair.seal()
    assert counted() == [wanted, wanted]
    pair.close()


def test_a_damaged_file_is_set_aside_and_told(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    filled(pair, 0)
    keeper = tmp_path / "keeper"
    first, *_ = sorted(keeper.glob("*.parquet"))
    column = pq.ParquetFile(first).metadata.row_group(0).column(3)
    data = bytearray(first.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1  # the last of its values
    first.write_bytes(data)
    (keeper / "notes.parquet").write_bytes(b"somebody's own")
    _both(keeper)
    made = anew.rebuild(keeper, NOW)
    assert made.damaged == [first.name] and first.with_name(f"{first.name}.damaged").exists()
    pair.born()
    assert len(pair.keeper.store.catalogue.losses) == 1 and (keeper / "notes.parquet").exists()
    pair.close()
