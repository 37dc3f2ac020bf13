"""The spool's room: what goes for its age or for what is new, in turns; what then waits; what a start reads."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.audit.events import diode as events
from cofferdam.brokers.diode import database, spool_lanes, spool_store
from cofferdam.crossing import strand
from cofferdam.errors import StoreError
from cofferdam.limits import strand_end
from tests.brokers.diode.test_hostile import Part
from tests.brokers.diode.test_hostile import inside as inside


def many(spool: Any, count: int, *, at: int, sent: bool, channel: str = "records:history") -> None:
    """So many small records of a spool's, 100 bytes each."""
    epoch, store = spool.epoch, spool._store
    first = store.take_messages(channel, epoch, [bytes(100)] * count, at, "")
    if sent:
        store.left(channel, epoch, first + count - 1)
    else:
        spool._lanes.put(channel, epoch, first, first + count - 1, 100 * count)


@pytest.mark.parametrize("why", ["age", "room", "a file"])
def test_however_much_goes_it_goes_in_turns(inside: Part, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """A gigabyte of small records went in one turn of some minutes. The part was ended for its silence, what it had
    done taken back, and so with each one after it."""
    monkeypatch.setattr(spool_store, "STEP_RECORDS", 100)
    spool, store = inside.part, inside.part._store
    aged = 0 if why == "age" else inside.setting.wall()
    many(spool, 5_000, at=aged, sent=True)
    store.size += spool._row.room - store.size if why == "a file" else 0  # as with others that have not left
    sizes = [store.size]
    with monkeypatch.context() as patch:
        if why == "room":
            spool._row = msgspec.structs.replace(spool._row, room=100_000)
        if why == "a file":
            spool._make_room(store.size - 400_000)
        else:
            patch.setattr(spool, "_backfill", lambda: None)
            spool._age()
        sizes.append(store.size)
        while spool._trimming:
            inside.later.pop(0)()
            sizes.append(store.size)
    assert sizes[-1] <= {"age": 0, "room": 100_000, "a file": sizes[0] - 400_000}[why]
    assert max(before - after for before, after in itertools.pairwise(sizes)) == 100 * 100
    losses = [entry for entry in inside.said if isinstance(entry, events.DiodeLoss)]
    assert [entry.count for entry in losses] == ([] if why == "age" else [4_000])


def test_what_is_new_waits_for_room(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came faster than what is old went, a turn each."""
    monkeypatch.setattr(spool_store, "STEP_RECORDS", 100)
    spool, store, folder = inside.part, inside.part._store, inside.folders[strand_end("history", "out")]
    many(spool, 5_000, at=inside.setting.wall(), sent=True)
    spool._row = msgspec.structs.replace(spool._row, room=100_000)
    strand.put(folder, f"{1:020d}", bytes(100), synced=False)
    assert spool._look() > 0 and len(strand.waiting(folder)) == 1
    while spool._trimming:
        inside.later.pop(0)()
    spool._look()
    assert not strand.waiting(folder) and store.highest("records:history", spool.epoch) == 5_001


def test_what_is_not_kept_any_more_waits_for_nothing(inside: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted as waiting until the last of its channel had left: `behind` stood for hours after it was over."""
    monkeypatch.setattr(spool_lanes, "CREDIT_BYTES", 1)
    spool = inside.part
    many(spool, 5_000, at=inside.setting.wall(), sent=False)
    before = spool._lanes.waiting
    spool._row = msgspec.structs.replace(spool._row, room=100_000)
    spool._age()
    while spool._trimming:
        inside.later.pop(0)()
    assert before > 400_000 and spool._store.size == 100_000
    assert spool._lanes.waiting == 100_000


def test_a_channel_that_is_stuck_holds_back_no_other(inside: Part) -> None:
    """Nothing of any channel went for its age while one that is not sent had something as old."""
    spool, store = inside.part, inside.part._store
    many(spool, 10, at=1, sent=False, channel="records:held")
    many(spool, 10, at=2, sent=True)
    while store.expire(inside.setting.wall()):
        pass
    assert [store.messages(f"records:{name}", spool.epoch, 1, 10)[0] for name in ("held", "history")] == [10, 0]


def test_a_start_reads_through_no_large_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 20 GB was looked through for damage, counted and counted again: no part of it was ready in half a minute,
    and it never was."""
    store = spool_store.SpoolStore(tmp_path)
    store.take_messages("records:a", 7, [bytes(100)] * 5_000, 1, "1")
    assert store.waiting("records:a", 7, 1, 4_000) == 400_000
    monkeypatch.setattr(spool_store, "SAMPLE", 10)
    assert store.waiting("records:a", 7, 1, 4_000) == 400_000
    with store.db.commit():
        store.db.run("UPDATE meta SET value=value+1 WHERE name='bytes'")
    store.db.close()
    store = spool_store.SpoolStore(tmp_path)
    assert store.size == 500_001  # as it was written down: nobody has counted
    with store.db.commit():
        store.db.run("DELETE FROM meta WHERE name='bytes'")
    store.db.close()
    store = spool_store.SpoolStore(tmp_path)
    assert store.size == 500_000  # one of an earlier version
    store.db.close()
    file = tmp_path / "spool.db"
    with file.open("r+b") as raw:
        raw.seek(file.stat().st_size // 8192 * 4096)
        raw.write(bytes(4096))
    with monkeypatch.context() as large:
        large.setattr(database, "CHECKED_BYTES", 0)
        spool_store.SpoolStore(tmp_path).db.close()
    with pytest.raises(StoreError, match=r"damaged|malformed"):
        spool_store.SpoolStore(tmp_path)
