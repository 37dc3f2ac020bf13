"""What goes wrong on a spooler's or a keeper's own disk, and what a policy, a clock or a plant's attacker may do to
what waits: none of it ends the mirror for good."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cofferdam.audit.events.mirror import SamplesLost, SamplesRefused
from cofferdam.brokers.broker import Asked
from cofferdam.brokers.mirror import catalogue, keeper, sealing, spool, store, times
from cofferdam.brokers.mirror.columns import (
    DAY_NS,
    HOUR_NS,
    NO_TIME,
    Sample,
    pack,
    places,
    stored,
    tidy,
    to_batch,
)  # fmt: skip
from cofferdam.brokers.mirror.hot import Commit
from cofferdam.brokers.mirror.query import Deadline, Reading
from cofferdam.brokers.mirror.records import POINTS_MOST, Fetch, Samples
from cofferdam.brokers.mirror.spool import Spool
from cofferdam.crossing import strand_missing
from cofferdam.errors import GateError, StoreError
from cofferdam.limits import strand_end
from cofferdam.policy.table import CompiledPolicy
from tests.brokers.mirror.pairing import HOUR, NOW, Pair, batch
from tests.brokers.mirror.test_docs import POLICY, compiled

YEAR_NS = 365 * DAY_NS
VALUES: tuple[float | int | bool | str, ...] = (1.0, 2.5, 7, True, "x", "")


PLC = """assets:
  plc: {zone: control, address: 10.2.0.7, protocol: modbus, unit: 1, points: {flow: {at: holding 1, type: uint16}}}
"""


def with_device() -> CompiledPolicy:
    """The policy with a device as a source beside the historian."""
    text = POLICY.replace("conduits:\n", f"{PLC}conduits:\n", 1)
    place = text.index("historian:")
    return compiled(f"{text[:place]}line: {{asset: plc, every: 1 s}}\n      {text[place:]}")


def refused(pair: Pair) -> list[tuple[str, int]]:
    return [(one.fault, one.count) for one in pair.log.told if isinstance(one, SamplesRefused)]


def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PATIENCE_NS", 0)


def test_a_tag_that_the_policy_has_no_more_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The spool holds samples of a tag when a reload takes it away: the keeper may not die of them again and again."""
    no_patience(monkeypatch)
    pair = Pair(tmp_path)
    pair.back()
    pair.offer(batch("live", [("tank_a", NOW, 1.0), ("flow_b", NOW, 2.0)]))
    pair.policy = compiled(POLICY.replace("tags: [tank_*, flow_*]", "tags: [flow_*]"))
    pair.born()
    pair.all()
    pair.offer(batch("live", [("flow_b", NOW + 1, 2.0)]))
    pair.all()
    assert pair.has(HOUR, HOUR) == {"flow_b": 2}
    assert refused(pair) == [("tag", 1)]
    pair.born()
    assert pair.has(HOUR, HOUR) == {"flow_b": 2}
    pair.close()


def test_what_only_the_next_policy_allows_waits_for_it(tmp_path: Path) -> None:
    pair = Pair(tmp_path, compiled(POLICY.replace("tags: [tank_*, flow_*]", "tags: [flow_*]")))
    pair.back()
    pair.offer(batch("live", [("tank_a", NOW, 1.0)]))
    pair.back()
    pair.forth()
    assert pair.keeper.busy == 1 and not refused(pair)
    pair.keeper.take_policy(compiled(), ())
    pair.keeper.tick()
    pair.turn()
    assert pair.has(HOUR, HOUR) == {"tank_a": 1} and not refused(pair)
    pair.close()


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (msgspec.structs.replace(batch("live", [("tank_a", NOW, 1.0)]), source="nobody"), "source"),
        (batch("live", [("secret", NOW, 1.0)]), "tag"),
        (batch("live", [("tank_a", NOW + 30 * HOUR_NS, 1.0)]), "future"),
        (batch("live", [("tank_a", (1 << 63) - 1, 1.0)]), "future"),
        (batch("live", [("tank_a", NOW - 6 * YEAR_NS, 1.0)]), "old"),
        (batch("backfill", [("tank_a", -(1 << 63), 1.0)]), "old"),
    ],
)
def test_what_an_owned_collector_sends_is_told_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Any, fault: str
) -> None:
    no_patience(monkeypatch)
    pair = Pair(tmp_path)
    pair.back()
    pair.offer(record)
    pair.offer(batch("live", [("flow_b", NOW, 1.0)]))
    pair.all()
    assert refused(pair) == [(fault, 1)]
    assert "secret" not in pair.keeper.store.catalogue.tags
    pair.born()
    pair.all()
    assert pair.has(HOUR, HOUR) == {"flow_b": 1}
    pair.close()


def test_what_an_owned_collector_claims_to_have_read_blinds_no_later_one(tmp_path: Path) -> None:
    """It says that all is read up to the end of time: the next one would read nothing until then."""
    pair = Pair(tmp_path)
    pair.back()
    for upto in (NOW - 5, (1 << 63) - 1):
        pair.offer(msgspec.structs.replace(batch("live", [("flow_b", NOW, 1.0)]), upto=upto))
    pair.born()
    begin = Spool(tmp_path / "spooler", 1 << 30, HOUR_NS).state.upto
    assert begin == {"historian": NOW}
    pair.close()


def test_more_tags_than_there_may_be_leave_the_others_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "TAGS_MOST", 3)
    pair = Pair(tmp_path)
    pair.back()
    pair.offer(batch("live", [(f"tank_{n}", NOW, 1.0) for n in range(5)]))
    pair.offer(batch("live", [(f"tank_{n}", NOW + 1, 1.0) for n in range(5)]))
    pair.all()
    assert pair.has(HOUR, HOUR) == {f"tank_{n}": 2 for n in range(3)}
    assert refused(pair) == [("tags", 2), ("tags", 2)]
    pair.close()


def test_a_clock_that_is_put_back_loses_nothing_of_what_waits(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    pair.offer(batch("live", [("tank_a", NOW, 1.0)]))
    pair.wall -= 3 * HOUR_NS
    pair.born()
    pair.all()
    assert pair.has(HOUR, HOUR) == {"tank_a": 1}
    pair.close()


@pytest.mark.parametrize("step", [HOUR_NS, -HOUR_NS, -5 * 10**9], ids=["an hour on", "an hour back", "as NTP steps it"])
def test_a_step_of_the_clock_costs_no_sample_and_no_order(tmp_path: Path, step: int) -> None:
    """Samples of a historian, with times of their own, and of a device, which have the gate's: what a clock has stamped
    twice, before it was put back and after, has both as revisions."""
    pair = Pair(tmp_path, with_device())
    pair.back()
    own: dict[str, list[tuple[int, float]]] = {"tank_a": [], "plc.flow": []}
    for number in range(40):
        if number in (10, 20, 30):
            pair.wall += step if number != 20 else -step
        if number == 15:
            pair.born()
        source = NOW + number * 10**9
        own["tank_a"].append((source, float(number)))
        own["plc.flow"].append((pair.wall, float(number)))
        pair.offer(batch("live", [("tank_a", source, float(number))]))
        pair.offer(batch("live", [("plc.flow", pair.wall, float(number))], source="line"))
        if number % 7 == 3:
            pair.all()
            pair.seal()
            pair.keeper.tick()
            pair.settle()
        pair.wall += 10**9
    pair.all()
    pair.seal()
    view = Reading(pair.keeper.store.folder).view()
    for tag, wanted in own.items():
        found = view.samples([tag], NOW - 3 * HOUR_NS, NOW + 3 * HOUR_NS, Deadline(60), revisions=True)
        times = found["time"].cast(pa.int64()).to_pylist()
        assert sorted(zip(times, found["value"].to_pylist(), strict=True)) == sorted(wanted) and times == sorted(times)
        last = view.samples([tag], NOW - 3 * HOUR_NS, NOW + 3 * HOUR_NS, Deadline(60))
        assert dict(zip(last["time"].cast(pa.int64()).to_pylist(), last["value"].to_pylist(), strict=True)) == dict(
            wanted
        )
    assert pair.keeper.store.catalogue.losses == [] and refused(pair) == []
    pair.close()


# --- times of any year ----------------------------------------------------------------------------------------------


def days(pair: Pair) -> int:
    return len(list((pair.folder / "keeper").glob("h*.parquet")))


def test_times_of_any_year_are_no_sealed_file_a_day(tmp_path: Path) -> None:
    """A sample a week from 1700 to 2262, and each day about both limits: those are taken that would stay; the rest is
    told with tag and time, counted, and an alarm."""
    pair = Pair(tmp_path)
    pair.back()
    low, high = times.oldest(pair.keeper.row, NOW), NOW + 600 * 10**9 + times.SPARE_NS
    limits = (day for limit in (low, high) for day in range(limit // DAY_NS - 30, limit // DAY_NS + 30))
    span = sorted({*range(-98_000, 106_000, 7), *limits})
    for at in range(0, len(span), POINTS_MOST):
        samples = [("tank_a", day * DAY_NS, 1.0) for day in span[at : at + POINTS_MOST]]
        pair.offer(batch("backfill", samples))
        pair.all()
    pair.seal()
    old, ahead = (sum(day * DAY_NS < low for day in span), sum(day * DAY_NS > high for day in span))
    assert 5 * 52 < days(pair) == len(span) - old - ahead < 5 * 366
    told: dict[str, int] = {}
    for fault, count in refused(pair):
        told[fault] = told.get(fault, 0) + count
    assert told == {"old": old, "future": ahead}
    assert pair.keeper.figures()["passed_over"] == {"historian": sum(told.values())}
    alarms = pair.keeper.alarms()
    assert "such as of tank_a: older than `keep` (5 years), such as 1701-" in alarms["mirror-historian-old"]
    assert "ahead of the clock, such as 2026-" in alarms["mirror-historian-future"]
    pair.close()


def test_twenty_years_of_every_hour_come_at_once(tmp_path: Path) -> None:
    """Honest history that is brought in later waits for nothing, and none of it is lost."""
    pair = Pair(tmp_path, compiled(POLICY.replace("keep: 5 years", "keep: 30 years")))
    pair.back()
    hours = range(HOUR - 20 * 8_766, HOUR)
    for at in range(0, len(hours), POINTS_MOST):
        pair.offer(batch("backfill", [("tank_a", hour * HOUR_NS, 1.0) for hour in hours[at : at + POINTS_MOST]]))
    pair.all()
    assert not refused(pair) and not pair.keeper.alarms()
    assert sum(one.batch.num_rows for one in pair.keeper.store.hot) == len(hours)
    pair.close()


def test_more_new_days_than_are_begun_within_an_hour_wait_and_hold_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def days_before(tag: str, first: int, last: int) -> Samples:
        return batch("backfill", [(tag, NOW - day * DAY_NS, 1.0) for day in range(first, last)])

    pair = Pair(tmp_path)
    monkeypatch.setattr(times, "DAYS_MOST", 100)
    pair.back()
    live = batch("live", [("flow_b", NOW, 1.0)])
    for record in (days_before("tank_a", 100, 199), days_before("tank_a", 200, 299), live):
        pair.offer(record)
        pair.back()
        pair.forth()
    assert pair.keeper.store.taken == {"live": 1, "backfill": 1} and pair.keeper.busy == 1
    assert "99 new days at once" in pair.keeper.alarms()["mirror-historian-days"]
    pair.born()  # what waits is in the spool; and the part that is born again has forgotten what was begun
    pair.all()
    assert pair.keeper.store.taken == {"live": 1, "backfill": 2} and not pair.keeper.alarms()
    assert not refused(pair)
    pair.keeper._times._left = 0  # the same days again are no new ones
    pair.offer(days_before("flow_b", 100, 199))
    pair.all()
    pair.offer(days_before("flow_b", 300, 310))
    pair.back()
    pair.forth()
    assert pair.keeper.busy == 1
    pair.keeper._times._at -= 3_600  # an hour later
    pair.keeper.tick()
    pair.all()
    assert pair.keeper.store.taken["backfill"] == 4
    pair.close()


def test_a_time_that_is_held_is_taken_whatever_its_age(tmp_path: Path) -> None:
    """A held file that is damaged is read again, and backfill of what goes at once is refused by the verb."""
    pair = Pair(tmp_path)
    pair.back()
    old = NOW - 7 * YEAR_NS
    pair.keeper.store.catalogue.holds = [catalogue.Hold(old // HOUR_NS, old // HOUR_NS, "eve", "an inquiry")]
    pair.offer(batch("backfill", [("tank_a", old, 1.0), ("tank_a", old - HOUR_NS, 1.0)]))
    pair.all()
    assert refused(pair) == [("old", 1)]
    assert pair.has(old // HOUR_NS, old // HOUR_NS) == {"tank_a": 1}
    found: list[bytes] = []
    for at in (old, old - 9 * HOUR_NS):
        said = json.dumps({"first": at // HOUR_NS, "last": at // HOUR_NS}).encode()
        asked = Asked("backfill", said, lambda result, *_: found.append(result))
        if at == old:
            pair.keeper.command(asked)
            continue
        with pytest.raises(GateError, match=r"older than `keep` \(5 years\)"):
            pair.keeper.command(asked)
    assert found == [b'{"sources":["historian"]}']
    pair.close()


def test_what_is_sealed_some_tags_at_a_time_is_what_it_is_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several days, repetitions and revisions, in slices of a few rows: nothing of any tag is lost or doubled, and no
    more is in memory at a time than a row group has, or one tag."""
    dice = random.Random(5)
    commits = []
    for number in range(1, 8):
        rows = [
            Sample(f"tag_{dice.randrange(9)}", NOW - day * DAY_NS + dice.randrange(20), dice.choice(VALUES))
            for day in (0, 1, 2) * 100
        ]
        commits.append(Commit(number, "live", number, "historian", to_batch(pack("live", "historian", rows))))
    whole = tidy(stored([(one.commit, one.batch) for one in commits]))
    wanted = Counter({"repeated": 2_100 - whole.num_rows, "revised": whole.num_rows - places(whole)})
    assert min(wanted.values()) > 100
    sizes: list[int] = []

    def noted(table: pa.Table) -> pa.Table:
        sizes.append(table.num_rows)
        return tidy(table)

    monkeypatch.setattr(sealing, "GROUP_ROWS", 100)
    monkeypatch.setattr(sealing, "tidy", noted)
    seen: Counter[str] = Counter()
    files = sealing.seal(tmp_path, commits, seen)
    assert len(files) == 3 and seen == wanted and max(sizes) < 150 and len(sizes) > 12
    found = pa.concat_tables([pq.read_table(tmp_path / file.name) for file in files])
    assert found.num_rows == sum(file.rows for file in files) == whole.num_rows
    for file in files:
        table = pq.read_table(tmp_path / file.name)
        assert table.equals(tidy(table))  # in order
        times = table["time"].cast(pa.int64()).to_pylist()
        assert (file.first, file.last) == (min(times) // HOUR_NS, max(times) // HOUR_NS)
    assert tidy(found).combine_chunks().equals(whole.combine_chunks())


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_sealed_file_is_never_another_number(tmp_path: Path) -> None:
    dice = random.Random(3)
    record = pack("live", "historian", [Sample("tank_a", NOW + n, dice.random()) for n in range(5_000)])
    (file,) = sealing.seal(tmp_path, [Commit(1, "live", 1, "historian", to_batch(record))])
    tag = catalogue.Tag("historian", 0, NOW, NOW + 4_999, 5_000)
    catalogue.save(tmp_path, catalogue.Catalogue(sealed=1, files=[file], tags={"tank_a": tag}))
    path = tmp_path / file.name
    data, good = path.read_bytes(), pq.read_table(path)
    found = 0
    for _ in range(100):
        flipped = bytearray(data)
        flipped[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        try:
            table = Reading(tmp_path).view().samples(["tank_a"], NOW, NOW + HOUR_NS, Deadline(60))
        except StoreError:
            found += 1
        else:
            assert table.equals(good)
    assert found > 50


def test_a_damaged_file_does_not_end_the_keeper_that_would_merge_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(tmp_path)
    pair.back()
    monkeypatch.setattr(pair.keeper, "_to_merge", list)
    for number in range(2):
        pair.offer(batch("live", [("tank_a", NOW - 48 * HOUR_NS + n + number, n / 7) for n in range(500)]))
        pair.all()
        pair.seal()
    files = pair.keeper.store.catalogue.files
    assert len(files) == 2
    path = tmp_path / "keeper" / files[0].name
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    monkeypatch.undo()
    pair.keeper.tick()  # the day is over, and its files become one
    pair.settle()
    assert [file.name for file in pair.keeper.store.catalogue.files] == [files[1].name]
    assert [loss.why for loss in pair.keeper.store.catalogue.losses] == ["its file is damaged"]
    assert any(isinstance(record, Fetch) for record in pair.to_spooler.waiting)
    pair.close()


def test_a_damaged_file_of_the_hot_log_before_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keeper goes on from before the damage, and the spool sends the rest again."""
    monkeypatch.setattr("cofferdam.brokers.mirror.hot.BATCHES_MOST", 2)
    pair = Pair(tmp_path)
    pair.back()
    for number in range(6):
        pair.offer(batch("live", [("tank_a", NOW + number, float(number))]))
    pair.all()
    first, *rest = sorted((tmp_path / "keeper").glob("hot-*.arrows"))
    assert len(rest) == 2
    data = bytearray(first.read_bytes())
    data[-60] ^= 1
    first.write_bytes(data)
    pair.born()
    assert pair.keeper.alarms()["mirror-store-mended"]
    pair.all()
    assert pair.has(HOUR, HOUR) == {"tank_a": 6}
    pair.born()
    assert pair.has(HOUR, HOUR) == {"tank_a": 6}
    pair.close()


# --- full disks -----------------------------------------------------------------------------------------------------


def test_a_full_disk_does_not_end_a_spooler_that_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_room: list[bool]
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 16 << 10)
    pair = Pair(tmp_path)
    pair.back()
    pair.spooler._spool.most = 20 << 10
    rows = [("tank_a", NOW - n, 1.0) for n in range(20)]
    for _ in range(80):
        pair.offer(batch("backfill", rows))
    no_room.append(True)
    pair.spooler.tick()
    lost = [one for one in pair.log.told if isinstance(one, SamplesLost)]
    assert not lost and pair.spooler._spool.size > 20 << 10  # nothing goes that cannot be told of
    no_room.clear()
    pair.spooler.tick()
    assert [one for one in pair.log.told if isinstance(one, SamplesLost)]
    assert pair.spooler._spool.size < 40 << 10
    pair.all()
    pair.close()


def test_a_full_disk_does_not_end_a_keeper_that_drops_what_is_old(tmp_path: Path, no_room: list[bool]) -> None:
    pair = Pair(tmp_path, compiled(POLICY.replace("keep: 5 years", "keep: 90 years")))
    pair.back()
    for hour in (HOUR - 9 * 365 * 24, HOUR):
        pair.offer(batch("live", [("tank_a", hour * HOUR_NS, 1.0)]))
    pair.all()
    pair.seal()
    assert len(pair.keeper.store.catalogue.files) == 2
    pair.keeper.take_policy(compiled(), ())
    no_room.append(True)
    pair.keeper.tick()
    assert len(pair.keeper.store.catalogue.files) == 2 and pair.keeper.alarms()["mirror-store-full"]
    no_room.clear()
    pair.keeper.tick()
    assert len(pair.keeper.store.catalogue.files) == 1
    pair.close()


@pytest.mark.parametrize("again", [False, True])
def test_a_clock_that_is_years_ahead_has_no_history_go(tmp_path: Path, again: bool) -> None:
    """All of it went within a second, for its age. `again`: the gate starts with that clock."""
    pair = Pair(tmp_path)
    pair.back()
    pair.offer(batch("live", [("tank_a", HOUR * HOUR_NS, 1.0)]))
    pair.all()
    pair.seal()
    [file] = pair.keeper.store.catalogue.files
    pair.wall += 20 * 365 * DAY_NS
    if again:
        pair.born()
        pair.back()
    pair.settle()
    pair.keeper.tick()
    assert pair.keeper.store.catalogue.files == [file]
    assert "mirror-clock" in pair.keeper.alarms()
    # What comes has the plant's own time, which is right, and is taken.
    pair.offer(batch("live", [("tank_a", (HOUR + 1) * HOUR_NS, 2.0)]))
    pair.all()
    assert pair.keeper.store.hot_rows == 1 and not [one for one in pair.keeper.alarms() if one.endswith("-old")]
    pair.wall -= 20 * 365 * DAY_NS
    pair.settle()
    pair.keeper.tick()
    assert pair.keeper.store.catalogue.files == [file] and "mirror-clock" not in pair.keeper.alarms()
    pair.close()


def test_what_a_clock_has_stamped_that_was_wrong_at_the_start_ages_nothing(tmp_path: Path) -> None:
    """A gate that starts years ahead, and reads devices itself: history went by times that were its own. Begun again
    with that clock, a hundred times, too."""
    pair = Pair(tmp_path, with_device())

    def read() -> None:
        pair.back()
        pair.offer(pack("live", "line", [Sample("plc.flow", pair.wall, 7)]))
        pair.all()
        pair.seal()
        pair.keeper.tick()

    read()
    [file] = pair.keeper.store.catalogue.files
    pair.wall += 20 * 365 * DAY_NS
    for _ in range(100):
        pair.born()
        read()
    assert file in pair.keeper.store.catalogue.files
    assert " days ahead of all that is known here" in pair.keeper.alarms()["mirror-clock"]
    pair.offer(batch("live", [("tank_a", pair.wall, 1.0)]))  # what has a clock of its own says the same
    pair.all()
    pair.keeper.tick()
    assert file not in pair.keeper.store.catalogue.files and "mirror-clock" not in pair.keeper.alarms()
    pair.close()


def test_history_grows_old_by_the_time_that_passes() -> None:
    """Also where no clock but the gate's says when: twice as fast at most, until it is where the clock is."""
    at, days = 1_000 * DAY_NS, 200
    found = times.Times(at)
    wall = at + days * DAY_NS
    aged = [found.aged(wall + day * DAY_NS, NO_TIME, day * DAY_NS) for day in range(2 * days)]
    steps = {later - earlier for earlier, later in itertools.pairwise(aged)}
    assert aged[0] == at + times.BEYOND_NS and steps == {2 * DAY_NS, DAY_NS}
    assert aged[-1] == wall + (2 * days - 1) * DAY_NS and not found.alarms()
    assert times.Times(found.known_at).aged(aged[-1], NO_TIME, 0) == aged[-1]
    behind = times.Times(at)  # a clock that is put right afterwards
    assert behind.aged(at - days * DAY_NS, NO_TIME, 0) == at - days * DAY_NS
    assert times.Times(0).aged(wall, NO_TIME, 0) == wall  # of a store that begins


def test_a_clock_that_begins_at_1970_ends_no_age_for_ever() -> None:
    """A clock without a battery, put right by the network once the gate runs: what was known before it stays known."""
    at, hour = 20_000 * DAY_NS, HOUR_NS
    found = times.Times(at)
    assert found.aged(hour, NO_TIME, 0) == hour and found.known_at == at
    assert found.aged(at + 2 * hour, NO_TIME, hour) == at + hour, "what has passed since for certain"
    later = found.aged(at + 40 * DAY_NS, NO_TIME, 40 * DAY_NS)
    assert at + 39 * DAY_NS < later <= at + 40 * DAY_NS and not found.alarms()
    again = times.Times(found.known_at)
    assert again.aged(at + 41 * DAY_NS, NO_TIME, 0) == at + 41 * DAY_NS and not again.alarms()


def test_an_old_gap_hides_none_that_a_strand_has_found_since(tmp_path: Path) -> None:
    """`gaps` left it out, as one of batches whose numbers are known, while any such gap stood."""
    pair = Pair(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    pair.keeper.setting = dataclasses.replace(pair.keeper.setting, folders={strand_end("m", "in"): folder})

    def found() -> list[str]:
        return [loss.why for loss in pair.keeper._verbs._losses()]

    strand_missing.tell_missing(folder, strand_missing.Missing())
    assert not found()
    at = NOW - HOUR_NS
    pair.keeper.store.lost(catalogue.Loss("*", at, at + 9, 0, "batches", at, "live", 1, 1), "live", 1)
    strand_missing.tell_missing(folder, strand_missing.Missing(3, 1, since=at))
    assert [why[:29] for why in found()] == ["batches", "the strand has not brought th"]  # the last, and no others
    strand_missing.tell_missing(folder, strand_missing.Missing(3, 1, since=NOW))
    assert "the strand has not brought 2 of its records: nobody knows of what time all of them are" in found()
    pair.keeper.store.lost(catalogue.Loss("*", NOW, NOW, 0, "more", NOW, "live", 2, 2), "live", 2)
    assert len(found()) == 3
    (folder / strand_missing.MISSING).unlink()
    assert "nobody can read what the strand has not brought" in found()[-1]
    pair.close()


def test_what_is_lost_is_told_once_there_is_room_to_write_it(tmp_path: Path, no_room: list[bool]) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    made = store.Store(folder)
    loss = catalogue.Loss("historian", 0, 1, 7, "the spool had no room for it", NOW)
    no_room.append(True)
    with pytest.raises(StoreError):
        made.lost(loss, "live", 7)
    assert made.taken["live"] == 0 and not made.catalogue.losses
    no_room.clear()
    made.lost(loss, "live", 7)
    assert store.Store(folder).taken["live"] == 7


# --- readers --------------------------------------------------------------------------------------------------------


def test_a_cursor_from_the_beginning_reads_and_holds_no_more_than_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reader who begins at commit 0 may not have the whole store in memory."""
    pair = Pair(tmp_path)
    pair.back()
    for number in range(60):
        pair.offer(
            batch("live", [("tank_a", NOW - 48 * HOUR_NS * (number % 3) + number * 50 + n, 1.0) for n in range(50)])
        )
        if number % 20 == 19:
            pair.all()
            pair.seal()
    pair.all()
    read = sealing.read_group
    reads: list[int] = []

    def counted(*said: Any) -> Any:
        reads.append(1)
        return read(*said)

    monkeypatch.setattr(sealing, "read_group", counted)
    view = Reading(tmp_path / "keeper").view()
    files = len(view.catalogue.files)
    whole, upto = view.changes(["tank_a"], 0, Deadline(60), 1_000_000)
    assert (upto, whole.num_rows, len(reads)) == (60, 3_000, files)
    reads.clear()
    found, after = [], 0
    while after < 60:
        page, last = view.changes(["tank_a"], after, Deadline(60), 120)
        assert 0 < page.num_rows <= 120 and last > after
        found.append(page)
        if not after:
            assert len(reads) < files
        after = last
    assert pa.concat_tables(found).combine_chunks().equals(whole.combine_chunks())
    pair.close()
