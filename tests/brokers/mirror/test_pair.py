"""Spooler and keeper: any order of live, backfill, repetition, lateness, sealing and death ends with exactly what
sources were told is kept; and what a broken spooler or source says ends the crew."""

from __future__ import annotations

import csv
import datetime
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cofferdam.audit.events.mirror import SamplesLost
from cofferdam.brokers.mirror import hot, spool
from cofferdam.brokers.mirror.columns import HOUR_NS, Sample, check, pack
from cofferdam.brokers.mirror.query import Deadline, Reading
from cofferdam.brokers.mirror.records import POINTS_MOST, Lost, Samples, Taken, from_source, to_keeper
from cofferdam.errors import CrossingError
from tests.brokers.mirror.pairing import HOUR, NOW, Pair, batch
from tests.brokers.mirror.test_docs import POLICY, compiled

TAGS = ("tank_a", "flow_b", "flow_c")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from(["live", "backfill"]), st.integers(0, 7), st.integers(0, 3)),
        st.sampled_from([("forth", 1), ("forth", 100), ("back",), ("crash",), ("seal",), ("tick",), ("merge",)]),
    ),
    min_size=5, max_size=40,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_any_order_of_things_ends_with_what_was_promised(steps: list[Any]) -> None:
    promised: set[tuple[str, int]] = set()
    offered: set[tuple[str, int]] = set()
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder))
        for step in steps:
            if step[0] == "offer":
                _, lane, block, width = step
                rows = [
                    (tag, (HOUR - block) * HOUR_NS + 10**9 * (block * 7 + n), float(n))
                    for n in range(width + 1)
                    for tag in TAGS
                ]
                before = pair.stored
                pair.offer(batch(lane, rows))
                offered |= {(tag, at) for tag, at, _ in rows}
                if pair.stored > before:
                    promised |= {(tag, at) for tag, at, _ in rows}
            elif step[0] == "forth":
                pair.forth(step[1])
            elif step[0] == "back":
                pair.back()
            elif step[0] == "seal":
                pair.seal()
            elif step[0] == "tick":
                pair.spooler.tick()
                pair.turn()
            elif step[0] == "merge" and pair.keeper.store.catalogue.files:
                pair.settle()
                pair.keeper._merge([list(pair.keeper.store.catalogue.files)])
                pair.settle()
            elif step[0] == "crash":
                pair.born()  # what was in memory is gone; nobody closed anything
        pair.born()
        pair.all()
        found = pair.has(HOUR - 8, HOUR)
        wanted = {tag: len({at for name, at in promised if name == tag}) for tag in TAGS}
        assert promised <= offered
        assert {tag: found.get(tag, 0) for tag in TAGS} == wanted
        view = Reading(pair.folder / "keeper").view()  # a reader sees the same, by its own way
        table = view.samples(TAGS, (HOUR - 8) * HOUR_NS, (HOUR + 1) * HOUR_NS, Deadline(60))
        assert table.num_rows == len(promised)
        assert {name: tag.points for name, tag in view.tags().items()}.keys() == {name for name, _ in promised}
        pair.close()


def test_live_goes_before_backfill(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    for number in range(20):
        pair.offer(batch("backfill", [("tank_a", NOW - number * 10**9, 1.0)]))
    pair.offer(batch("live", [("tank_a", NOW - 10**12, 1.0)]))
    lanes = [record.lane for record in pair.to_keeper.waiting]
    assert lanes == ["backfill", "backfill", "live"]
    pair.all()
    pair.close()


def test_what_the_keeper_has_goes_after_two_hours_and_numbers_go_on(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    for lane in ("live", "backfill"):
        pair.offer(batch(lane, [("tank_a", NOW, 1.0)]))
    pair.all()
    pair.born()
    pair.all()
    pair.offer(batch("live", [("tank_a", NOW + 1, 1.0)]))
    pair.all()
    assert len(list((tmp_path / "spooler").glob("live-*.spool"))) == 2
    pair.wall += 3 * HOUR_NS
    pair.spooler.tick()
    assert len(list((tmp_path / "spooler").glob("live-*.spool"))) == 1
    for path in (tmp_path / "spooler").iterdir():  # somebody removes the spool
        path.unlink()
    pair.born()
    pair.back()
    pair.offer(batch("live", [("tank_a", NOW + 2, 1.0)]))
    pair.all()
    assert pair.has(HOUR, HOUR) == {"tank_a": 3}
    pair.close()


def test_a_spool_that_is_full_says_what_it_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 16 << 10)
    pair = Pair(tmp_path)
    pair.back()
    pair.spooler._spool.most = 40 << 10
    rows = [("tank_a", NOW - n, 1.0) for n in range(20)]
    for _ in range(60):
        pair.offer(batch("backfill", rows))
    for _ in range(40):
        pair.offer(batch("live", rows))
    pair.spooler.tick()
    pair.turn()
    assert pair.spooler._spool.size <= 41 << 10
    lost = [one for one in pair.log.told if isinstance(one, SamplesLost)]
    assert lost and lost[0].points > 0
    pair.all()
    losses = pair.keeper.store.catalogue.losses
    assert sum(loss.points for loss in losses) == pair.spooler._lost
    assert losses[0].source == "historian"
    pair.born()
    pair.all()
    assert len(pair.keeper.store.catalogue.losses) == len(losses)  # told once
    pair.close()


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_bit_flipped_in_the_hot_log_ends_what_verifies(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    for number in range(5):
        pair.offer(batch("live", [("tank_a", NOW - number, float(number))]))
    pair.all()
    (path,) = (tmp_path / "keeper").glob("hot-*.arrows")
    data = bytearray(path.read_bytes())
    numbers = [one.number for one in hot.read(path)]
    assert numbers == [1, 2, 3, 4, 5]
    for at in range(0, len(data), 37):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        found = [(one.number, one.batch.column(1).to_pylist()) for one in hot.read(path)]
        assert found == [(n, [NOW - n + 1]) for n in range(1, len(found) + 1)], at  # a prefix, and never a wrong number
    path.write_bytes(data[: len(data) - 40])
    pair.born()
    pair.all()  # the spool still has it
    assert pair.has(HOUR, HOUR) == {"tank_a": 5}
    pair.close()


def test_a_spool_that_is_damaged(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    for number in range(5):
        pair.offer(batch("live", [("tank_a", NOW - number, 1.0)]))
    (path,) = (tmp_path / "spooler").glob("live-*.spool")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    pair.born()
    pair.all()
    assert 0 < pair.has(HOUR, HOUR)["tank_a"] < 5  # and the source was told that all were kept: it is a loss
    assert pair.spooler.alarms()["mirror-spool-mended"]
    pair.close()


# --- hostile --------------------------------------------------------------------------------------------------------

GOOD = pack("live", "historian", [Sample("tank_a", NOW, 1.5), Sample("flow_b", NOW, True), Sample("flow_b", NOW, "x")])
FORGED: dict[str, dict[str, Any]] = {
    "columns of unequal length": {"time": GOOD.time[:-8]},
    "a tag that is not named": {"tag": b"\x07\0\0\0" + GOOD.tag[4:]},
    "a kind that there is not": {"kind": b"\x09" + GOOD.kind[1:]},
    "a bool that is 2": {"value": GOOD.value[:8] + b"\x02" + GOOD.value[9:]},
    "a text that is not there": {"value": GOOD.value[:16] + b"\x01" + GOOD.value[17:]},
    "a name twice": {"names": ("tank_a", "tank_a")},
    "a name with a line's end": {"names": ("tank_a", "flow\nb")},
    "no samples, and names": {"tag": b"", "time": b"", "kind": b"", "value": b"", "quality": b"", "texts": ()},
    "server times for some": {"server": b"\0" * 8},
    "more samples than a batch has": {"kind": bytes(POINTS_MOST + 1)},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_batch_that_no_source_can_send(tmp_path: Path, what: str) -> None:
    check(GOOD)
    forged: Samples = msgspec.structs.replace(GOOD, **FORGED[what])
    with pytest.raises(CrossingError):
        check(forged)
    pair = Pair(tmp_path)
    with pytest.raises(CrossingError):
        pair.spooler.on_record("collector", forged)
    with pytest.raises(CrossingError):
        pair.keeper.on_record("spooler", msgspec.structs.replace(forged, number=1))


def test_a_record_that_says_to_have_2_31_samples() -> None:
    """Its length is looked at before anything of it is."""
    whole = bytearray(from_source().encode(GOOD))
    at = whole.index(b"\xc4" + bytes([len(GOOD.time)]))
    forged = bytes(whole[:at]) + b"\xc6" + (1 << 31).to_bytes(4, "big") + bytes(whole[at + 2 :])
    with pytest.raises(CrossingError):
        from_source().decode(forged)


@pytest.mark.parametrize(
    "record",
    [
        msgspec.structs.replace(GOOD, number=2),
        Lost("live", 2, 3, "historian", 0, 0, 1),
        Lost("live", 1, 0, "historian", 0, 0, 1),
    ],
)
def test_what_no_spooler_would_say(tmp_path: Path, record: Any) -> None:
    pair = Pair(tmp_path)
    with pytest.raises(CrossingError):
        codec = to_keeper()
        pair.keeper.on_record("spooler", codec.decode(codec.encode(record)))


def test_a_keeper_that_claims_what_was_never_sent(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    with pytest.raises(CrossingError):
        pair.spooler.on_record("keeper", Taken(7, 0))
    with pytest.raises(CrossingError):
        pair.spooler.on_record("collector", msgspec.structs.replace(GOOD, number=1))


# --- real data ------------------------------------------------------------------------------------------------------

DATA = Path(__file__).parents[4] / "shared" / "data" / "nab-machine-temperature.csv"


@pytest.mark.skipif(not DATA.is_file(), reason="no data beside the checkout (../shared/data)")
def test_a_real_machine_s_temperature_goes_through_whole(tmp_path: Path) -> None:
    """22,695 rows of 22,683 times, with a backward jump: each row is there, as a sample or as a revision of one."""
    with DATA.open(newline="") as file:
        rows = [
            (int(datetime.datetime.fromisoformat(f"{row['timestamp']}+00:00").timestamp()) * 10**9, float(row["value"]))
            for row in csv.DictReader(file)
        ]
    pair = Pair(tmp_path, compiled(POLICY.replace("keep: 5 years", "keep: 90 years")))
    pair.back()
    for at in range(0, len(rows), 5_000):
        pair.offer(batch("live", [("tank_temperature", when, value) for when, value in rows[at : at + 5_000]]))
        if at == 10_000:
            pair.all()
            pair.seal()
            pair.born()
    pair.all()
    pair.seal()
    view = Reading(tmp_path / "keeper").view()
    low, high = min(rows)[0], max(rows)[0] + 1
    last = view.samples(["tank_temperature"], low, high, Deadline(60))
    assert last.num_rows == len({when for when, _ in rows}) == 22_683
    every = view.samples(["tank_temperature"], low, high, Deadline(60), revisions=True)
    assert every.num_rows == len(set(rows))
    newest = dict(rows)  # of a time that is there twice, the later row
    assert last["value"].to_pylist() == [newest[when] for when in sorted(newest)]
    size = sum(file.size for file in view.catalogue.files)
    pair.keeper._merge([list(pair.keeper.store.catalogue.files)])
    pair.settle()
    merged = Reading(tmp_path / "keeper").view()
    assert merged.samples(["tank_temperature"], low, high, Deadline(60)).equals(last)
    (one,) = merged.catalogue.files
    assert one.size < size and one.size / 22_683 < 10  # bytes a sample
    pair.close()


def test_a_sealed_file_that_is_not_as_it_was_sealed_is_named(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.back()
    pair.offer(batch("live", [("flow_1", NOW - 3_600 * 10**9 * hour, float(hour)) for hour in range(1, 50)]))
    pair.all()
    pair.seal()
    pair.close()
    view = Reading(tmp_path / "keeper").view()
    assert view.catalogue.files and list(view.damaged()) == []
    file = tmp_path / "keeper" / view.catalogue.files[0].name
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert list(view.damaged()) == [(view.catalogue.files[0].name, "its bytes are not those that were sealed")]
    file.unlink()
    [(name, why)] = view.damaged()
    assert name == view.catalogue.files[0].name and "No such file" in why
