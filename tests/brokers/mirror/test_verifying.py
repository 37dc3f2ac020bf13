"""Counting at a source by itself: what came late is followed back, and nights in which nothing ran are made up for. The
source is a table in this process, which answers as the collector does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cofferdam.audit.events.mirror import MirrorVerified
from cofferdam.brokers.mirror import sealing, verifying
from cofferdam.brokers.mirror.catalogue import File
from cofferdam.brokers.mirror.columns import HOUR_NS, stored, summary, tidy, to_batch
from cofferdam.brokers.mirror.records import Count, Counted, Fetch
from tests.brokers.mirror.pairing import HOUR, Pair, batch
from tests.brokers.mirror.test_docs import POLICY, compiled

FIRST = HOUR - 40
DAY = HOUR // 24 * 24


class Table:
    """A historian: of each hour, minutes at which it has a sample."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.rows: dict[int, list[int]] = {}
        self.asked: list[Count] = []
        self.away = ""
        self.most = 24
        """Hours that it can count before its time for a statement is over."""
        self.other = range(0)
        """Hours of which its values are others than those that it sent."""
        self.double = range(0)
        """Hours in which it has two samples of one time."""

    def add(self, hours: range, minute: int) -> None:
        for hour in hours:
            self.rows.setdefault(hour, []).append(minute)

    def samples(self, hours: range) -> list[tuple[str, int, float]]:
        return [
            ("tank_a", at := hour * HOUR_NS + 60 * 10**9 * minute, at / 1e12 + (hour in self.other))
            for hour in hours
            for minute in self.rows.get(hour, ())
        ]

    def send(self, hours: range, *, lane: str = "live") -> None:
        self.pair.offer(batch("live" if lane == "live" else "backfill", self.samples(hours)))
        self.pair.all()

    def digests(self, hours: range) -> tuple[int | None, ...]:
        if any(hour in self.double for hour in hours):
            return (None,)
        found = summary(tidy(stored([(1, to_batch(batch("live", self.samples(hours))))])))
        return tuple(one.digest for one in found.values())

    def work(self) -> None:
        """Until the keeper asks nothing more."""
        pair = self.pair
        while True:
            pair.keeper.tick()
            pair.settle()
            records = [one for one in pair.to_spooler.waiting if isinstance(one, (Count, Fetch))]
            pair.back()
            for one in records:
                if isinstance(one, Fetch):
                    self.send(range(one.since // HOUR_NS, one.until // HOUR_NS), lane="backfill")
                    continue
                self.asked.append(one)
                if one.source == self.away:
                    failed = Counted(one.request, one.source, one.hour, failed="permission denied")
                    pair.keeper.on_record("spooler", failed)
                    continue
                if one.hours > self.most:
                    failed = Counted(one.request, one.source, one.hour, failed="canceling statement (57014)")
                    pair.keeper.on_record("spooler", failed)
                    continue
                hours = range(one.hour, one.hour + one.hours)
                many = sum(len(self.rows.get(hour, ())) for hour in hours)
                names, counts = (("tank_a",), (many,)) if many else ((), ())
                digests = self.digests(hours) if many and one.values else ()
                answer = Counted(one.request, one.source, one.hour, names, counts, digests=digests)
                pair.keeper.on_record("spooler", answer)
                pair.settle()
            if not records and not pair.keeper.verifying.busy:
                return


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(verifying, "SETTLE_SECONDS", 0.0)
    return Pair(tmp_path)


def test_what_came_late_is_followed_back_to_an_hour_that_is_whole(pair: Pair) -> None:
    """A station that was cut off hands in ten hours at once: the next counting finds the last two, and so the rest."""
    source = Table(pair)
    source.add(range(FIRST, HOUR), 1)
    source.send(range(FIRST, HOUR))
    source.add(range(HOUR - 10, HOUR), 2)
    pair.wall = (HOUR + 1) * HOUR_NS - 1
    source.work()
    assert not source.asked  # the hour is not over
    pair.wall = HOUR * HOUR_NS + verifying.HOURLY_AFTER_NS + HOUR_NS
    source.work()
    assert pair.has(FIRST, HOUR) == {"tank_a": sum(map(len, source.rows.values()))}
    assert {one.hour for one in source.asked} == {*range(HOUR - 11, HOUR + 1)}
    assert pair.keeper.figures()["late"][""] == 17
    source.asked.clear()
    pair.wall += HOUR_NS
    source.work()
    assert [one.hour for one in source.asked] == [HOUR, HOUR + 1]
    pair.close()


def test_a_source_that_is_away_keeps_no_other_from_being_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once a run, and the run says that it failed; what came late at the others comes."""
    monkeypatch.setattr(verifying, "SETTLE_SECONDS", 0.0)
    gone = "energy: {at: '10.2.0.6:5432', database: plant, table: public.energy}"
    pair = Pair(tmp_path, compiled(POLICY.replace("    sources:\n", f"    sources:\n      {gone}\n")))
    source = Table(pair)
    source.away = "energy"
    source.add(range(HOUR - 4, HOUR), 1)
    source.send(range(HOUR - 4, HOUR))
    source.add(range(HOUR - 4, HOUR), 2)
    pair.wall = HOUR * HOUR_NS
    run = pair.keeper.verifying.begin(HOUR - 4, HOUR - 1, "counts", "")
    source.work()
    assert run.ended and run.done == run.total == 8
    assert run.failed == "energy: permission denied" and not run.differ
    assert [one.source for one in source.asked].count("energy") == 1
    assert pair.has(HOUR - 4, HOUR) == {"tank_a": 8}
    pair.close()


@pytest.mark.parametrize("against", ["counts", "source"])
@pytest.mark.parametrize("most", [24, 6, 1])
def test_a_long_time_is_counted_by_days_and_halved_where_it_differs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, most: int, against: str
) -> None:
    """Down to what the source can count in its time; what differs is read again, and told by its hour."""
    monkeypatch.setattr(pair.keeper, "_to_merge", list)
    today = HOUR // 24 * 24
    source = Table(pair)
    source.most = most
    source.add(range(today - 20 * 24, HOUR), 1)
    source.send(range(today - 20 * 24, HOUR))
    pair.seal()
    late, gone = today - 13 * 24 + 5, today - 3 * 24 + 23
    source.add(range(late, late + 1), 2)
    source.rows[gone] = []
    run = pair.keeper.verifying.begin(today - 20 * 24 - 1, HOUR - 1, against, "")
    source.work()
    assert run.ended and run.done == run.total == 20 * 24 + 1 + HOUR - today
    assert not run.failed and not run.differ and run.more == [("tank_a", gone, 1, 0)]
    assert run.points == 20 * 24 + HOUR - today + 1
    assert pair.has(late, late) == {"tank_a": 2}
    asked = [one.hours for one in source.asked]
    assert {one.hour for one in source.asked if one.hours == 1} >= {late, gone, today - 20 * 24 - 1}
    assert asked.count(24) == (20 if most == 24 else 1)
    if most == 24:  # two days were halved, one of them down to the hour that came meanwhile
        assert len(asked) < 20 + 2 * (4 * 2 + 2) + 1 + HOUR - today + 30
    pair.close()


def test_values_of_a_long_time_are_compared_by_days(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that differs is found by halving; where a time has several samples, an hour is not compared, and no more."""
    monkeypatch.setattr(pair.keeper, "_to_merge", list)
    today = HOUR // 24 * 24
    first, other, double = today - 5 * 24, today - 4 * 24 + 7, today - 24 + 9
    source = Table(pair)
    source.add(range(first, today), 1)
    source.send(range(first, today))
    pair.seal()
    source.other, source.double = range(other, other + 1), range(double, double + 1)
    run = pair.keeper.verifying.begin(first, today - 1, "source", "")
    source.work()
    assert run.ended and not run.differ and not run.failed and run.points == 5 * 24
    assert pair.has(other, other) == {"tank_a": 1} and run.done == run.total
    asked = [(one.hour, one.hours) for one in source.asked]
    assert asked[0] == (first, 24) and asked.count((other, 1)) > 1
    assert [one for one in asked if one[0] >= today - 24] == [
        (today - 24, 24),
        *((today - 24 + n, 1) for n in range(24)),
    ]
    source.other = range(double + 1, double + 2)  # beside the hour of which nothing can be said
    source.asked.clear()
    pair.keeper.verifying.begin(today - 24, today - 1, "source", "")
    source.work()
    asked = [(one.hour, one.hours) for one in source.asked]
    assert asked.count((double + 1, 1)) > 1 and asked.count((double, 1)) == 1
    pair.close()


def test_files_of_a_long_time_are_looked_at_once_a_day(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is damaged takes none beside it out of what is told."""
    monkeypatch.setattr(pair.keeper, "_to_merge", list)
    today = HOUR // 24 * 24
    source = Table(pair)
    for minute, lane in enumerate(("live", "backfill")):  # two files of each day
        source.add(range(today - 3 * 24, today), minute)
        source.send(range(today - 3 * 24, today), lane=lane)
        pair.seal()
    bad = pair.keeper.store.files_of(today - 24, today - 1)[0]
    path = pair.keeper.store.folder / bad.name
    path.write_bytes(path.read_bytes()[:-1])
    looked: list[str] = []
    damaged = sealing.damaged

    def spied(folder: Path, files: list[File]) -> list[str]:
        looked.extend(file.name for file in files)
        return damaged(folder, files)

    monkeypatch.setattr(sealing, "damaged", spied)
    run = pair.keeper.verifying.begin(today - 3 * 24, today - 1, "store", "")
    source.work()
    assert run.ended and run.damaged == [bad.name] and run.points == 5 * 24 and run.done == run.total
    assert max(looked.count(name) for name in looked) == 2  # that beside the damaged one, twice
    pair.close()


def test_what_comes_again_is_counted(pair: Pair) -> None:
    rows = [("tank_a", HOUR * HOUR_NS + n, float(n)) for n in range(5)]
    for some in (rows, rows[:3], [("tank_a", HOUR * HOUR_NS, 7.5)]):
        pair.offer(batch("live", some))
        pair.all()
    pair.seal()
    told = pair.keeper.figures()
    assert (told["repeated"][""], told["revised"][""], told["late"][""]) == (3, 1, 0)
    pair.close()


def test_nights_without_a_gate_are_made_up_for(pair: Pair) -> None:
    source = Table(pair)
    day = HOUR // 24
    for nights, days in ((1, 1), (3, 3), (40, verifying.NIGHTS_MOST)):
        source.add(range(HOUR, HOUR + 1), nights)
        source.send(range(HOUR, HOUR + 1))
        pair.seal()  # with which the catalogue is written
        pair.wall += nights * 24 * HOUR_NS
        day += nights
        pair.born()
        source.asked.clear()
        source.work()
        compared = {one.hour // 24 for one in source.asked if one.values}
        assert compared == {*range(day - days, day)}
        pair.seal()
    pair.close()


def test_a_full_disk_ends_no_look_at_files_and_hides_no_damage(pair: Pair, no_room: list[bool]) -> None:
    """What is damaged is told, and read again at its source, once that can be written down."""
    source = Table(pair)
    source.add(range(HOUR - 2, HOUR), 1)
    source.send(range(HOUR - 2, HOUR))
    pair.seal()
    (bad,) = pair.keeper.store.catalogue.files
    path = pair.keeper.store.folder / bad.name
    path.write_bytes(path.read_bytes()[:-1])
    run = pair.keeper.verifying.begin(HOUR - 2, HOUR - 1, "store", "")
    no_room.append(True)
    pair.keeper.tick()
    pair.settle()
    assert run.done < run.total and pair.keeper.full
    assert not [one for one in pair.to_spooler.waiting if isinstance(one, Fetch)]
    no_room.clear()
    pair.keeper.verifying._not_before = 0.0
    pair.keeper.tick()
    pair.settle()
    assert run.ended
    assert run.damaged == [bad.name] and run.done == run.total
    fetches = [one for one in pair.to_spooler.waiting if isinstance(one, Fetch)]
    assert [(one.since, one.until) for one in fetches] == [(bad.first * HOUR_NS, (bad.last + 1) * HOUR_NS)]
    assert [loss.why for loss in pair.keeper.store.catalogue.losses] == ["its file is damaged"]
    pair.close()


class Silence:
    """A source that is asked, and a clock."""

    def __init__(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pair, self.now = pair, 1_000.0
        monkeypatch.setattr(verifying, "time", SimpleNamespace(monotonic=lambda: self.now))
        pair.back()
        self.run = pair.keeper.verifying.begin(DAY - 48, DAY - 1, "source", "engineer")

    def asked(self, seconds: float = 0.0) -> list[Count]:
        """What is asked after so many seconds more."""
        self.now += seconds
        self.pair.keeper.tick()
        self.pair.settle()
        found = [one for one in self.pair.to_spooler.waiting if isinstance(one, Count)]
        self.pair.to_spooler.waiting.clear()
        return found

    def answers(self, record: Counted) -> None:
        self.pair.keeper.on_record("spooler", record)
        self.pair.settle()


def test_a_source_of_which_nothing_is_heard_ends_a_run(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not after hours, and not asked for less and less again; while it is heard of, it has time."""
    found = Silence(pair, monkeypatch)
    (one,) = found.asked()
    for _ in range(20):  # for two hours it is read, and the answer is not there yet
        assert found.asked(verifying.SILENT_SECONDS - 1) == [] and not found.run.ended
        found.answers(one.not_counted("", "going"))
    assert found.asked(verifying.SILENT_SECONDS + 1) == []
    assert found.run.ended and found.run.failed == "historian: nothing was heard of it for 360 s"
    assert found.run.done == found.run.total and not pair.keeper.verifying.busy
    (told,) = [one for one in pair.log.told if isinstance(one, MirrorVerified)]
    assert told.detail == found.run.failed
    pair.close()


def test_a_source_that_breaks_off_is_asked_again_for_a_minute(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Silence(pair, monkeypatch)
    (one,) = found.asked()
    for _ in range(3):  # once it answers, the next break has its own minute
        for _ in range(2):
            found.answers(one.not_counted("connection reset"))
            (again,) = found.asked(verifying.AWAY_SECONDS / 3)
            assert (again.hour, again.hours) == (one.hour, one.hours) and not found.run.ended
            one = again
        found.answers(Counted(one.request, one.source, one.hour, failed="canceling statement (57014)"))
        (half,) = found.asked(verifying.SILENT_SECONDS)
        assert half.hours < one.hours
        one = half
    for _ in range(3):
        found.answers(one.not_counted("connection refused"))
        rest = found.asked(verifying.AWAY_SECONDS / 2)
        if found.run.ended:
            break
        (one,) = rest
    assert found.run.ended and found.run.failed == "historian: connection refused"
    pair.close()
