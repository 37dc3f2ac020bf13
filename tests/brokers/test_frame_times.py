"""Ages of streams' packets, and the alarm where they come near the time-out: by a clock that the test turns."""

from __future__ import annotations

from cofferdam.brokers.proxy import frame_times
from cofferdam.brokers.proxy.frame_times import FrameTimes
from cofferdam.protocols.base import Cadence

MS = 1_000_000
CADENCE = Cadence(out_ns=10 * MS, in_ns=20 * MS, silence=4)


def run(times: frame_times.Times, ages: list[int], interval: int = 10 * MS) -> int:
    now = 0
    for age in ages:
        now += interval
        times.sent(now - age, now)
    return now


def test_ages_and_jitter_are_told_by_stream_and_by_conduit() -> None:
    one = FrameTimes("outputs")
    run(one.begin("drive", "speed", "road", CADENCE, 0), [MS] * 9 + [3 * MS], 12 * MS)
    run(one.begin("drive", "torque", "road", CADENCE, 0), [2 * MS])
    told = one.report()
    assert set(told) == {"outputs_age", "outputs_jitter", "packets"}
    age, jitter = told["outputs_age"]["drive/speed"], told["outputs_jitter"]["drive/speed"]
    assert not isinstance(age, int) and not isinstance(jitter, int)
    assert (sum(age.counts.values()), age.sum, age.max) == (10, 12 * MS, 3 * MS)
    assert (sum(jitter.counts.values()), jitter.max) == (9, 2 * MS), "from the interval to the device"
    packets = told["packets"]["road"]
    assert not isinstance(packets, int) and sum(packets.counts.values()) == 11


def test_the_longest_pause_of_late_is_told_with_the_one_that_lasts() -> None:
    times = FrameTimes("outputs").begin("drive", "speed", "road", CADENCE, 0)
    assert times.paused(50 * MS) == 0, "nothing was sent yet"
    at = run(times, [MS] * 5)
    assert times.paused(at + 20 * MS) == 0
    times.sent(at, at + 35 * MS)
    times.sent(at, at + 45 * MS)
    assert times.paused(at + 45 * MS) == 35 * MS
    assert times.paused(at + 45 * MS + 40 * MS) == 40 * MS


def test_an_age_that_the_other_half_made_up_is_none() -> None:
    one = FrameTimes("inputs")
    times = one.begin("drive", "speed", "road", CADENCE, 0)
    for born in (10 * MS + 1, -(1 << 62)):
        times.sent(born, 10 * MS)
    age = one.report()["inputs_age"]["drive/speed"]
    assert not isinstance(age, int) and not age.counts


def test_one_of_a_thousand_beyond_a_quarter_of_the_time_out_is_an_alarm_until_a_better_while() -> None:
    one = FrameTimes("outputs")
    times = one.begin("drive", "speed", "road", CADENCE, 0)
    assert times.limit == 10 * MS
    run(times, [MS] * 998 + [11 * MS] * 2)
    assert one.alarms(frame_times.WINDOW_NS - 1) == {}, "the while is not over"
    [(name, said)] = one.alarms(frame_times.WINDOW_NS).items()
    assert name == "late-outputs-drive/speed" and "11." in said and "40 ms" in said
    run(times, [MS] * 998 + [9 * MS] * 2)
    assert one.alarms(2 * frame_times.WINDOW_NS) == {}
    run(times, [11 * MS] * (frame_times.FEWEST - 1))
    assert one.alarms(3 * frame_times.WINDOW_NS) == {}, "too few to say anything"
    run(times, [11 * MS] * frame_times.FEWEST)
    assert one.alarms(4 * frame_times.WINDOW_NS)
    one.end(times)
    assert one.alarms(4 * frame_times.WINDOW_NS) == {}


def test_clients_of_one_stream_have_a_slot_each_as_far_as_there_are() -> None:
    one = FrameTimes("inputs")
    open_ = [one.begin("drive", "inputs", "road", CADENCE, 0) for _ in range(frame_times.SLOTS + 2)]
    for age, times in enumerate(open_, 1):
        run(times, [age * MS])
    told = {name: found.max for name, found in one.report()["inputs_age"].items() if not isinstance(found, int)}
    names = ["drive/inputs", *(f"drive/inputs#{number}" for number in range(2, frame_times.SLOTS + 1))]
    ages = [*range(1, frame_times.SLOTS), frame_times.SLOTS + 2]
    assert told == {name: age * MS for name, age in zip(names, ages, strict=True)}, "the last is shared by three"
    # Who leaves makes room for the next: no client makes up new ones.
    one.end(open_[1])
    assert one.begin("drive", "inputs", "road", CADENCE, 0).label == "drive/inputs#2"
    assert one.begin("other", "inputs", "road", CADENCE, 0).label == "other/inputs"
    for times in open_:
        one.end(times)
    assert one.begin("drive", "inputs", "road", CADENCE, 0).label == "drive/inputs"


def test_streams_that_are_told_apart_are_bounded() -> None:
    one = FrameTimes("outputs")
    for number in range(frame_times.LABELS + 5):
        one.end(one.begin("drive", f"s{number}", "road", CADENCE, 0))
    assert len(one.report()["outputs_age"]) == frame_times.LABELS + 1
