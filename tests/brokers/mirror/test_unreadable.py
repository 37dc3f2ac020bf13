"""Sealed files that have the bytes that the catalogue says, and cannot be read: whoever could write to the store has
left them. Whatever the keeper does with one, it sets it aside, says so, has its hours read again, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cofferdam.audit.events.mirror import HistoryDropped
from cofferdam.brokers.mirror import sealing
from cofferdam.brokers.mirror.catalogue import File
from cofferdam.brokers.mirror.columns import HOUR_NS, STORED
from cofferdam.brokers.mirror.records import Count, Counted, Fetch
from tests.brokers.mirror.pairing import HOUR, Pair, batch

DAY = (HOUR // 24 - 3) * 24


def _column(path: Path, name: str, column: Callable[[pa.Table], pa.Array]) -> None:
    table = pq.read_table(path)
    field = STORED.field(name).with_type(column(table).type)
    pq.write_table(table.set_column(STORED.names.index(name), field, column(table)), path)


def no_parquet(path: Path) -> None:
    path.write_bytes(b"it was sealed so, and nobody can read it")


def a_page_that_is_torn(path: Path) -> None:
    data = bytearray(path.read_bytes())
    values = pq.read_metadata(path).row_group(0).column(STORED.names.index("value"))
    data[values.data_page_offset + values.total_compressed_size // 2] ^= 1  # within the page, behind its own words
    path.write_bytes(data)


def other_types(path: Path) -> None:
    _column(path, "time", lambda table: table["time"].cast(pa.int64()).cast(pa.string()))


def no_tags(path: Path) -> None:
    _column(path, "tag", lambda table: pa.nulls(table.num_rows, pa.string()))


def tags_that_are_no_text(path: Path) -> None:
    def column(table: pa.Table) -> pa.Array:
        raw = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary())
        return pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())

    _column(path, "tag", column)


def merge(pair: Pair) -> None:
    pair.keeper.tick()


def verify(pair: Pair) -> None:
    pair.keeper.verifying.begin(DAY, DAY + 23, "store", "")


def verify_at_the_source(pair: Pair) -> None:
    run = pair.keeper.verifying.begin(DAY, DAY + 23, "source", "")
    while not run.damaged and not run.ended:
        pair.keeper.tick()
        pair.settle()
        for one in [one for one in pair.to_spooler.waiting if isinstance(one, Count)]:
            pair.to_spooler.waiting.remove(one)
            pair.keeper.on_record(
                "spooler", Counted(one.request, one.source, one.hour, ("tank_a",), (1,), digests=(7,))
            )


def seal_more(pair: Pair) -> None:
    pair.offer(batch("live", [("tank_a", DAY * HOUR_NS + 1, 5.0)]))
    pair.all()
    pair.keeper.seal_now()


FILES = (no_parquet, a_page_that_is_torn, other_types, no_tags, tags_that_are_no_text)
WORK = {"merge": (merge, 2), "reckon": (merge, 1), "verify": (verify, 1), "at the source": (verify_at_the_source, 1),
        "seal": (seal_more, 1)}  # fmt: skip


@pytest.mark.parametrize(("spoil", "work"), [
    (spoil, work) for spoil in FILES for work in WORK
    if work != "seal" or spoil not in (no_tags, tags_that_are_no_text)  # which has nothing of what is sealed, and waits
])  # fmt: skip
def test_a_file_that_is_as_it_was_sealed_and_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None], work: str
) -> None:
    monkeypatch.setattr("cofferdam.brokers.mirror.verifying.SETTLE_SECONDS", 0.0)
    do, many = WORK[work]
    pair = Pair(tmp_path)
    pair.back()
    with monkeypatch.context() as still:
        still.setattr(pair.keeper, "_to_merge", list)
        still.setattr("cofferdam.brokers.mirror.partials.wanted", lambda *said: None)
        for number in range(many):
            pair.offer(batch("live", [("tank_a", DAY * HOUR_NS + n, n + number / 2) for n in range(2_000)]))
            pair.all()
            pair.seal()
        store = pair.keeper.store
        file = store.catalogue.files[-1]
        path = store.folder / file.name
        spoil(path)
        odd = msgspec.structs.replace(file, sha256=sealing.sha256_of(path), size=path.stat().st_size)
        store.catalogue.files[-1] = odd
        pair.to_spooler.waiting.clear()
        if work not in ("merge", "reckon"):
            do(pair)
            _until_aside(pair, odd)
    if work in ("merge", "reckon"):
        do(pair)
        _until_aside(pair, odd)
    assert path.with_name(f"{file.name}.damaged").exists()
    assert [one.file for one in pair.log.told if isinstance(one, HistoryDropped)] == [file.name]
    fetches = [one for one in pair.to_spooler.waiting if isinstance(one, Fetch)]
    assert [(one.since, one.until) for one in fetches] == [(DAY * HOUR_NS, (DAY + 1) * HOUR_NS)]
    pair.back()
    pair.offer(batch("backfill", [("tank_a", DAY * HOUR_NS + n, n + 0.5) for n in range(2_000)]))
    pair.all()
    pair.seal()
    assert pair.has(DAY, DAY) == {"tank_a": 2_000}
    pair.close()


def _until_aside(pair: Pair, file: File) -> None:
    for _ in range(50):
        pair.keeper.tick()
        pair.settle()
        if file.name not in {one.name for one in pair.keeper.store.catalogue.files}:
            return
    raise AssertionError("it still counts")
