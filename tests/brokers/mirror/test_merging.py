"""What is brought in tag by tag touches each day at each sealing: files stay few, and no sample is written again and
again."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cofferdam.audit.events.mirror import HistorySealed
from cofferdam.brokers.mirror import keeper, merging, partials, sealing
from cofferdam.brokers.mirror.catalogue import File
from cofferdam.brokers.mirror.columns import HOUR_NS, STORED, tidy, to_batch
from cofferdam.brokers.mirror.hot import Commit
from cofferdam.brokers.mirror.records import LANES, Fetch
from cofferdam.brokers.mirror.store import UNCOUNTED_MOST
from cofferdam.errors import StoreError
from tests.brokers.mirror.pairing import HOUR, Pair, batch
from tests.brokers.mirror.test_docs import POLICY, compiled

TODAY = HOUR // 24
WRITTEN_MOST = 9
"""So often a sample may be written: of as many files as here it was hundreds of times."""


def file(day: int, rows: int, name: str = "") -> File:
    return File(name or f"{day}-{rows}", day * 24, day * 24 + 23, rows, rows, "", 1, 1)


def busy(day: int) -> bool:
    return False


@pytest.mark.parametrize(
    "size",
    [lambda dice: 100, lambda dice: dice.randrange(1, 10_000), lambda dice: 4 ** dice.randrange(9)],
    ids=["alike", "any", "of all kinds"],
)
def test_a_day_that_grows_without_end_is_written_a_few_times(size: Callable[[random.Random], int]) -> None:
    dice = random.Random(7)
    files: list[File] = []
    came = written = 0
    for number in range(2_000):
        files.append(file(0, size(dice), str(number)))
        came += files[-1].rows
        while groups := merging.due(files, 1_000, busy):
            (some,) = groups
            assert len(some) > 1
            rows = sum(one.rows for one in some)
            written += rows
            files = [one for one in files if one not in some] + [file(0, rows, f"{number}+")]
        assert len(files) <= merging.FILES_MOST + came.bit_length()
    assert sum(one.rows for one in files) == came
    assert written <= (WRITTEN_MOST - 1) * came
    assert merging.due(files, 1_000, lambda day: True) == (
        [sorted(files, key=lambda one: -one.rows)] if files[1:] else []
    )


def test_days_that_are_over_become_one_file_and_some_days_at_a_time() -> None:
    some = [file(day, 1_500_000, f"{day}{part}") for day in range(5) for part in "ab"]
    assert [[one.name for one in group] for group in merging.due(some, 1_000, busy)] == [["0a", "0b"], ["1a", "1b"]]
    assert not merging.due(some[:2], 24 + merging.OVER_AFTER_HOURS - 1, busy)  # it is not over
    little = [file(0, 1_000_000), file(0, 10)]
    assert not merging.due(little, 1_000, busy)
    assert merging.due(little, 1_000, lambda day: True) == [little]
    hours = [file(0, 100, str(hour)) for hour in range(merging.OPEN_FILES_MOST + 1)]
    assert merging.due(hours, 30, busy) == [hours] and not merging.due(hours[1:], 30, busy)


def test_an_import_in_the_order_of_tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags, days, a_day = 60, 20, 6
    policy = compiled(POLICY.replace("tags: [tank_*, flow_*]", "tags: all"))
    pair = Pair(tmp_path, policy)
    monkeypatch.setattr(keeper, "HOT_ROWS", 2 * days * a_day)
    pair.back()
    for number in range(tags):
        rows = [(f"tag_{number}", ((TODAY - 30 + day) * 24 + hour) * HOUR_NS, 1.0)
                for day in range(days) for hour in range(a_day)]  # fmt: skip
        pair.offer(batch("backfill", rows))
        pair.all()
        for _ in range(3):
            pair.keeper.tick()
            pair.settle()
        by_day: dict[int, int] = {}
        for one in pair.keeper.store.catalogue.files:
            by_day[one.first // 24] = by_day.get(one.first // 24, 0) + 1
        assert max(by_day.values(), default=0) <= merging.FILES_MOST
    sealed = [one for one in pair.log.told if isinstance(one, HistorySealed)]
    assert sum(one.rows for one in sealed) <= WRITTEN_MOST * tags * days * a_day
    assert len({one.file for one in sealed}) == len(sealed)  # no name comes again
    monkeypatch.setattr(merging, "QUIET_SECONDS", 0.0)
    pair.seal()
    for _ in range(30):
        pair.keeper.tick()
        pair.settle()
    found = pair.keeper.store.catalogue
    assert len(found.files) == days == len({name for one in found.reckoned if one.step == 3600 for name in one.of})
    assert pair.has((TODAY - 30) * 24, TODAY * 24) == {f"tag_{number}": days * a_day for number in range(tags)}
    pair.close()


def test_of_a_day_that_is_hot_nothing_is_reckoned() -> None:
    some = [file(0, 100), file(1, 100)]
    found = partials.wanted(some, [], 48, {1: 5})
    assert found is not None and found.files == (some[0],)
    assert partials.wanted(some, [], 48, {0: 5, 1: 5}) is None


def test_what_comes_now_and_then_joins_its_day_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    came = merging.Came()
    assert came.quiet(7)
    for number in range(20):
        came.note(7)
        assert came.quiet(7) == (number < merging.FEW) and came.quiet(8)
    monkeypatch.setattr(merging, "QUIET_SECONDS", 0.0)  # it is over
    assert came.quiet(7)
    monkeypatch.undo()
    came.note(7)
    assert came.quiet(7)


def test_files_are_put_together_by_reading_each_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few tags are in memory at a time; and one of many row groups, too."""
    dice = random.Random(3)
    monkeypatch.setattr(sealing, "GROUP_ROWS", 40)
    monkeypatch.setattr(sealing, "AT_ONCE_ROWS", 50)
    files = []
    for number in range(1, 5):
        rows = [(f"tag_{dice.randrange(30)}", HOUR * HOUR_NS + dice.randrange(9), 1.0) for _ in range(300)]
        rows += [("tag_7", HOUR * HOUR_NS + 100 + at, float(number % 2)) for at in range(150)]
        files += sealing.seal(tmp_path, [Commit(number, "live", number, "historian", to_batch(batch("live", rows)))])
    paths = [tmp_path / one.name for one in files]
    whole = tidy(pa.concat_tables(table for path in paths for table in sealing.read_groups(path)).cast(STORED))
    groups = sum(sealing.open_file(path).num_row_groups for path in paths)
    read = sealing.read_group
    reads: list[int] = []

    def counted(file: Any, index: int, columns: Any = None) -> Any:
        reads.append(columns is None)
        return read(file, index, columns)

    monkeypatch.setattr(sealing, "read_group", counted)
    some = list(sealing.merged(paths))
    assert sum(reads) == groups > 20
    assert pa.concat_tables(some).equals(whole)
    assert max(one.num_rows for one in some if len(one["tag"].unique()) > 1) <= 50
    assert sealing.merge(tmp_path, files).rows == whole.num_rows


def test_tags_of_what_is_taken_are_counted_some_commits_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And their names are in memory once for all of these."""
    pair = Pair(tmp_path)
    pair.back()
    counted: list[str] = []
    tags = pair.keeper.store._tags

    def spied(source: str, table: pa.Table) -> None:
        counted.append(source)
        tags(source, table)

    monkeypatch.setattr(pair.keeper.store, "_tags", spied)
    for number in range(2 * UNCOUNTED_MOST):
        names = ("tank_a", f"tank_{number}")
        pair.offer(batch("live", [(name, HOUR * HOUR_NS + number, 1.0) for name in names]))
        pair.back()
        pair.forth()
    assert len(counted) == 2
    pair.all()
    hot = pair.keeper.store.hot
    assert len({one.batch.column(0).dictionary.buffers()[2].address for one in hot}) == 2
    assert [one.batch.column(0).to_pylist() for one in hot] == [
        ["tank_a", f"tank_{number}"] for number in range(len(hot))
    ]
    assert pair.has(HOUR, HOUR) == {"tank_a": len(hot)} | {f"tank_{number}": 1 for number in range(len(hot))}
    pair.close()


def test_days_that_are_made_into_files_before_one_that_cannot_be_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else they would stay on a full disk, be made again at each attempt, and never be known."""
    pair = Pair(tmp_path)
    pair.back()
    monkeypatch.setattr(pair.keeper, "_to_merge", list)
    days = [TODAY - ago for ago in (4, 3, 2)]
    for number in range(2):
        pair.offer(batch("live", [("tank_a", day * 24 * HOUR_NS + number, 1.0) for day in days]))
        pair.all()
        pair.seal()
    found, merge = pair.keeper.store.catalogue, sealing.merge

    def no_room(folder: Path, files: list[File], *, whole: bool) -> File:
        if files[0].first // 24 == days[-1]:
            raise StoreError("the disk has no room for it")
        return merge(folder, files, whole=whole)

    monkeypatch.undo()
    monkeypatch.setattr(sealing, "merge", no_room)
    pair.keeper.tick()
    with pytest.raises(StoreError, match="no room for it"):  # it is first now
        pair.settle()
    of_days = [[one.name[0] for one in found.files if one.first // 24 == day] for day in days]
    assert of_days == [["d"], ["d"], ["h", "h"]]


def test_nothing_is_sealed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever lane, how often and in whatever order it comes: in the sealed files together each revision is once,
    at every moment, also where some files of a day are made into one; and the last revision is what came last."""
    dice = random.Random(5)
    pair = Pair(tmp_path)
    pair.back()
    to_merge: list[list[File]] = []
    monkeypatch.setattr(pair.keeper, "_to_merge", lambda: [to_merge.pop()] if to_merge else [])
    came: dict[tuple[str, int], list[float]] = {}
    merged = some_merged = 0
    for number in range(40):
        rows = []
        for _ in range(dice.choice((1, 20, 20, 200))):
            day, at = dice.choice((TODAY - 3, TODAY - 3, TODAY - 2)), dice.randrange(30)
            rows.append((f"tank_{dice.randrange(3)}", day * 24 * HOUR_NS + at, float(dice.randrange(2))))
        for tag, at, value in rows:
            revisions = came.setdefault((tag, at - (TODAY - 3) * 24 * HOUR_NS), [])
            if revisions[-1:] != [value]:
                revisions.append(value)
        pair.offer(batch(dice.choice(("live", "backfill")), rows))
        pair.all()
        if dice.random() < 0.8:
            pair.seal()
            of_day = [one for one in pair.keeper.store.catalogue.files if one.first // 24 == TODAY - 3]
            if len(of_day) > 3:
                to_merge.append(dice.sample(of_day, dice.choice((2, 3, 4))))
                merged += 1
                some_merged += len(to_merge[-1]) < len(of_day)
            pair.keeper.tick()
            pair.settle()
            assert _sealed(pair).num_rows == tidy(_sealed(pair)).num_rows, number
    pair.seal()
    assert merged > some_merged > 3
    found: dict[tuple[str, int], list[float]] = {}
    whole = tidy(_sealed(pair))
    times = pc.subtract(whole["time"].cast(pa.int64()), (TODAY - 3) * 24 * HOUR_NS)
    for tag, at, value in zip(*(column.to_pylist() for column in (whole["tag"], times, whole["value"])), strict=True):
        found.setdefault((tag, at), []).append(value)
    assert found == came
    pair.close()


def _sealed(pair: Pair) -> pa.Table:
    store = pair.keeper.store
    some = (sealing.read_groups(store.folder / file.name) for file in store.catalogue.files)
    return pa.concat_tables([table.cast(STORED) for groups in some for table in groups])


def test_what_is_wholly_sealed_makes_no_file(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    rows = [("tank_a", HOUR * HOUR_NS + at, float(at)) for at in range(50)]
    for lane in LANES:
        pair.offer(batch(lane, rows))
        pair.all()
        pair.seal()
    found = pair.keeper.store.catalogue
    assert (len(found.files), found.files[0].rows, found.sealed, pair.keeper.store.hot) == (1, 50, 2, [])
    assert pair.keeper.figures()["repeated"][""] == 50
    pair.close()


def test_of_a_file_that_cannot_be_read_nothing_counts_as_sealed(tmp_path: Path) -> None:
    """What may be in it is sealed anew, and it goes: else both would count once it could be read."""
    pair = Pair(tmp_path)
    pair.back()
    rows = [("tank_a", HOUR * HOUR_NS + at, float(at)) for at in range(50)]
    pair.offer(batch("live", rows))
    pair.all()
    pair.seal()
    (file,) = pair.keeper.store.catalogue.files
    path = pair.keeper.store.folder / file.name
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    pair.offer(batch("backfill", [*rows, ("tank_a", HOUR * HOUR_NS + 50, 0.0)]))
    pair.all()
    pair.seal()
    (fresh,) = pair.keeper.store.catalogue.files
    assert fresh.rows == 51 and path.with_name(f"{file.name}.damaged").exists()
    assert any(isinstance(one, Fetch) for one in pair.to_spooler.waiting)
    assert [one.why for one in pair.keeper.store.catalogue.losses] == ["its file is damaged"]
    pair.close()


def _half(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tags: int
) -> tuple[Pair, list[File], list[tuple[str, int, float]]]:
    """Two sealed files, and what they have: a sound one of a sample, of a day of its own, and one of a row group for
    each tag, of which the last has a flipped bit in its values."""
    monkeypatch.setattr(sealing, "GROUP_ROWS", 1_000)
    pair = Pair(folder)
    pair.back()
    old = ("tank_0", (HOUR - 24) * HOUR_NS, 1.0)
    pair.offer(batch("live", [old]))
    pair.all()
    pair.seal()
    rows = [(f"tank_{tag}", HOUR * HOUR_NS + at, at + 0.5) for tag in range(tags) for at in range(1_000)]
    pair.offer(batch("live", rows))
    pair.all()
    pair.seal()
    files = list(pair.keeper.store.catalogue.files)
    path = pair.keeper.store.folder / files[-1].name
    said = pq.read_metadata(path)
    assert said.num_row_groups == tags
    values = said.row_group(tags - 1).column(STORED.names.index("value"))
    data = bytearray(path.read_bytes())
    data[values.data_page_offset + values.total_compressed_size // 2] ^= 1
    path.write_bytes(data)
    return pair, files, [old, *rows]


@pytest.mark.parametrize("tags", [2, 3])
def test_what_a_file_has_that_goes_aside_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: int
) -> None:
    """Some of it can be read, and counts as little as the rest: the whole file goes."""
    pair, files, rows = _half(tmp_path, monkeypatch, tags)
    other = ("tank_0", (HOUR - 48) * HOUR_NS, 2.0)  # of a day before: its file is made twice
    pair.offer(batch("backfill", [other, *rows]))
    pair.all()
    pair.seal()
    store = pair.keeper.store
    assert (store.folder / f"{files[-1].name}.damaged").exists()
    assert _sealed(pair).num_rows == tidy(_sealed(pair)).num_rows == len(rows) + 1
    assert pair.keeper.figures()["repeated"][""] == 1  # of what was sealed at last, not of each time that it was tried
    names = {one.name for one in store.catalogue.files}
    assert len(names) == 3 and {path.name for path in store.folder.glob("*.parquet")} == names
    pair.born()
    assert {one.name for one in pair.keeper.store.catalogue.files} == names and not pair.keeper.store.hot
    pair.close()


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_a_disk_that_gets_full_while_it_is_sealed_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Whichever file has no room: nothing of the sealing is there, what was taken stays hot, and later it is sealed."""
    pair, files, rows = _half(tmp_path, monkeypatch, 2)
    pair.offer(batch("backfill", [*rows, ("tank_0", (HOUR - 24) * HOUR_NS, 2.0)]))
    pair.all()
    written: list[Path] = []
    sync_file = sealing.sync_file

    def synced(path: Path) -> None:
        if len(written) == room:
            raise OSError(errno.ENOSPC, "full")
        written.append(path)
        sync_file(path)

    with monkeypatch.context() as small:
        small.setattr(sealing, "sync_file", synced)
        pair.seal()
    store = pair.keeper.store
    assert pair.keeper.full and store.hot and len(written) == room
    assert sorted(path.name for path in store.folder.glob("*.parquet")) == sorted(one.name for one in files)
    assert not list(store.folder.glob("*.new")) and pair.keeper.figures()["repeated"][""] == 0
    pair.seal()
    assert not store.hot and _sealed(pair).num_rows == tidy(_sealed(pair)).num_rows == len(rows) + 1
    pair.close()
