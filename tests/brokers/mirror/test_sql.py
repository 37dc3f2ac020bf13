"""SQL over the store: `samples` has the last revision of each time, wherever the others are, and what nobody has
revised is read as it is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cofferdam.brokers.mirror import anew, catalogue
from cofferdam.brokers.mirror.columns import HOUR_NS
from cofferdam.brokers.mirror.query import Deadline, Reading, View, _overlapping
from cofferdam.brokers.mirror.sql import Sql
from tests.brokers.mirror.pairing import NOW, Pair, batch

DAY_NS = 24 * HOUR_NS
SECOND = 10**9


def sealed(pair: Pair, *batches: list[tuple[str, int, float]]) -> set[str]:
    """Seals them together, and gives the names of the files that there are for it."""
    before = {file.name for file in pair.keeper.store.catalogue.files}
    for rows in batches:
        pair.offer(batch("live", rows))
    pair.all()
    pair.seal()
    return {file.name for file in pair.keeper.store.catalogue.files} - before


def looked_at(folder: Path, *, twice: bool = True) -> View:
    """What is there now, after SQL was seen to have each time's last revision, and all of them."""
    reading = Reading(folder)
    view = reading.view()
    sql = Sql(reading)
    tags = sorted(view.tags())
    found = sql.run("lake", view, "SELECT tag, time, value FROM samples ORDER BY tag, time", 10_000)
    wanted = view.samples(tags, 0, 1 << 62, Deadline(60))
    assert found.to_pylist() == wanted.select(["tag", "time", "value"]).to_pylist()
    (count,) = sql.run("lake", view, "SELECT count(*) AS n FROM raw", 1)["n"].to_pylist()
    assert count == sum(file.rows for file in view.catalogue.files) + view.hot().num_rows
    assert not twice or count > found.num_rows
    columns = sql.run("lake", view, "SELECT * FROM samples LIMIT 1", 1).schema.names
    assert columns == ["tag", "time", "kind", "value", "whole", "text", "quality", "server"]
    return view


def test_samples_are_the_last_revisions_wherever_they_are(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()

    def rows(
        hour: int, second: int, value: float, tags: tuple[str, ...] = ("tank_a", "flow_b")
    ) -> list[tuple[str, int, float]]:
        at = NOW // DAY_NS * DAY_NS + hour * HOUR_NS
        return [(tag, at + (second + n) * SECOND, value + n) for tag in tags for n in range(5)]

    nobody = sealed(pair, rows(5, 0, 1.0))
    nobody |= sealed(pair, rows(5, 5, 2.0))  # of the same hour, and of another time
    nobody |= sealed(pair, rows(4, 0, 3.0), rows(4, 5, 4.0))
    within = sealed(pair, rows(3, 0, 5.0), rows(3, 4, 6.0))
    between = sealed(pair, rows(2, 0, 7.0)) | sealed(pair, rows(2, 4, 8.0, ("tank_a",)))
    beside = sealed(pair, rows(1, 0, 9.0))
    files = {file.name: file.revised for file in pair.keeper.store.catalogue.files}
    assert {name: files[name] for name in within} == dict.fromkeys(within, 2)
    assert sum(files.values()) == 2 and len(files) == 7
    pair.offer(batch("live", rows(1, 2, 10.0, ("flow_b",))))
    pair.offer(batch("live", rows(0, 0, 11.0)))
    pair.all()
    keeper = tmp_path / "keeper"
    view = looked_at(keeper)
    assert view.unrevised()[0] == nobody and within | between | beside == files.keys() - nobody
    # Files of which nobody has counted it, as those of before have it.
    found = pair.keeper.store.catalogue
    counted = list(found.files)
    found.files = [msgspec.structs.replace(file, revised=-1) for file in found.files]
    catalogue.save(keeper, found)
    assert not looked_at(keeper).unrevised()[0]
    found.files = counted
    catalogue.save(keeper, found)
    pair.close()
    anew.rebuild(keeper, NOW)
    assert looked_at(keeper).unrevised()[0] == nobody


def test_what_is_hot_is_looked_at_where_it_may_have_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cofferdam.brokers.mirror.hot.BATCHES_MOST", 3)  # of a file
    pair = Pair(tmp_path)
    pair.back()
    keeper = tmp_path / "keeper"
    reading = Reading(keeper)

    def come(*batches: list[tuple[str, int, float]]) -> tuple[int, int]:
        """How many samples have one revision for certain, and how many may have more."""
        for rows in batches:
            pair.offer(batch("live", rows))
        pair.all()
        looked_at(keeper, twice=False)
        files, once, several = reading.view().unrevised()
        assert not files
        return once.num_rows, several.num_rows

    def at(second: int, *tags: str) -> list[tuple[str, int, float]]:
        return [(tag, NOW + second * SECOND, float(second)) for tag in tags]

    assert come(at(0, "tank_a", "flow_b") + at(1, "tank_a")) == (3, 0)
    assert come(at(2, "tank_a"), at(3, "flow_b", "tank_a")) == (6, 0)
    assert come(at(5, "tank_a") + at(5, "tank_a")) == (6, 2)  # twice in one batch
    assert come(at(6, "tank_a"), at(7, "tank_a")) == (6, 4)
    assert come(at(9, "tank_a")) == (7, 4)
    assert come(at(9, "flow_b")) == (6, 6)  # of the same time, and nobody looks whether of the same tag
    assert come(at(10, "flow_b"), at(12, "flow_b")) == (7, 7)
    assert come(at(1, "tank_a")) == (0, 15)  # something late, in the file of the last
    pair.close()


def test_spans_that_have_something_in_common() -> None:
    assert _overlapping([(0, 1, "a"), (2, 3, "b"), (4, 4, "c")]) == set()
    assert _overlapping([(0, 9, "a"), (1, 2, "b"), (3, 4, "c"), (9, 9, "d"), (10, 11, "e")]) == {"a", "b", "c", "d"}
    assert _overlapping([(5, 9, "a"), (0, 5, "b"), (10, 20, "c"), (15, 15, "d"), (21, 22, "e")]) == {"a", "b", "c", "d"}
    assert _overlapping([]) == set()
