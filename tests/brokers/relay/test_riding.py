"""Messages over a strand: two keepers, a folder at each end, and a wire that loses what the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cofferdam.brokers.relay.gaps import Gap, Gaps
from cofferdam.brokers.relay.records import Browse, Carried, Handed, Highest
from cofferdam.crossing import strand
from cofferdam.errors import CrossingError, GateError
from tests.brokers.relay.keeping import COUNTS, body
from tests.brokers.relay.riding import Both, riding, without

EAGER = msgspec.structs.replace(COUNTS, order=100)


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(tmp_path)
    yield made
    made.close()


def drain(both: Both, who: str = "erp") -> list[int]:
    """All that a consumer gets now, settled."""
    found: list[int] = []
    while (handed := both.outside.pull(who, 100)).messages:
        found += [message.number for message in handed.messages]
        both.outside.settle(handed, who=who)
    return found


def test_messages_come_out_under_their_numbers(both: Both) -> None:
    both.inside.stored(*range(1, 8))
    assert both.cross() == []
    assert drain(both) == drain(both, "lake") == list(range(1, 8))
    assert both.missing() == [] and both.outside.verified() == both.inside.verified() == []
    (inside,) = both.inside.command("status")["channels"]
    assert [(one["consumer"], one["lag"]) for one in inside["consumers"]] == [("strand:strand", 0)]
    first = both.outside.command("show", channel="counts", number=1)
    assert (first["who"], first["key"]) == ("mes", "k1")
    assert first["sha256"] == both.inside.command("show", channel="counts", number=1)["sha256"]
    assert not list(both.outside.ride.glob("[0-9]*")), "the strand's files go once all is in the log"
    both.inside.move(20)
    (told,) = both.inside.log.events("messages-carried")
    assert (told["consumer"], told["count"], told["first"], told["last"]) == ("strand:strand", 7, 1, 7)


def test_a_gap_is_named_and_closed_by_what_comes_late(both: Both) -> None:
    for end in (both.inside, both.outside):
        end.work_by(riding(EAGER))
    both.inside.stored(*range(1, 11))
    lost = both.cross(without(3, 4, 5, 8))
    assert both.missing() == [(3, 5), (8, 8)]
    handed = both.outside.pull("erp", 100)
    assert isinstance(handed, Handed) and handed.missing == ((3, 5), (8, 8))
    assert [message.number for message in handed.messages] == [1, 2, 6, 7, 9, 10]
    both.outside.settle(handed)
    number = both.outside.outer.ask(Browse, "lake", "counts", 0, 100)
    both.outside.run()
    browsed = both.outside.outer.answers[number]
    assert isinstance(browsed, Handed) and browsed.missing == handed.missing and browsed.messages[2].number == 6
    both.outside.move(3)
    said = both.outside.keeper.alarms()
    assert "numbers 3 to 5 and 1 further ranges of counts are missing" in said["counts-missing"]
    told = both.outside.log.events("numbers-missing")
    assert [(one["first"], one["last"], one["what"]) for one in told] == [(3, 5, "missing"), (8, 8, "missing")]
    both.brings(lost)  # a ticket
    assert both.missing() == []
    assert drain(both) == [3, 4, 5, 8] and drain(both, "lake") == list(range(1, 11))
    both.outside.move(3)
    assert "counts-missing" not in both.outside.keeper.alarms()
    assert both.outside.verified() == []
    for number in range(1, 11):
        assert (
            both.outside.command("show", channel="counts", number=number)["sha256"]
            == both.inside.command("show", channel="counts", number=number)["sha256"]
        )


def test_a_channel_that_waits_hands_out_nothing_behind_a_gap(tmp_path: Path) -> None:
    both = Both(tmp_path, riding(msgspec.structs.replace(EAGER, on_gap="wait")))
    both.inside.stored(*range(1, 7))
    lost = both.cross(without(3, 5))
    assert drain(both) == [1, 2] and both.outside.pull("erp").missing == ((3, 3), (5, 5))
    both.brings(lost[:1])
    assert drain(both) == [3, 4]
    with pytest.raises(GateError, match="nothing of counts is missing up to 4"):
        both.outside.command("give-up", channel="counts", upto=4, by="ann")
    assert both.outside.command("give-up", channel="counts", upto=5, by="ann")["given_up"] == [[5, 5]]
    assert drain(both) == [6] and both.outside.pull("erp").missing == ()
    assert both.outside.log.events("numbers-missing")[-1]["by"] == "ann"
    assert both.outside.verified() == []
    both.brings(lost[1:])  # after all
    assert drain(both) == [5] and drain(both, "lake") == list(range(1, 7))
    assert both.outside.verified() == []
    both.close()


def test_what_is_lost_at_the_end_is_seen_as_well(both: Both) -> None:
    both.inside.stored(1, 2, 3)
    lost = both.cross(without(2, 3))
    assert both.missing() == []
    both.quiet()
    both.cross()
    assert both.missing() == [(2, 3)]
    both.outside.crash()
    both.outside.start()
    assert both.missing() == [(2, 3)]
    both.brings(lost)
    assert drain(both) == [1, 2, 3] and both.missing() == [] and both.outside.verified() == []


def test_an_operator_inside_has_it_sent_again(both: Both) -> None:
    both.inside.stored(*range(1, 6))
    both.cross(without(2, 4))
    both.inside.command("replay", channel="counts", consumer="strand:strand", first=2, by="ann")
    both.inside.run(tick=True)
    both.cross()
    assert both.missing() == [] and sorted(drain(both)) == [1, 2, 3, 4, 5]
    assert both.outside.verified() == []


@pytest.mark.parametrize("end", ["inside", "outside"])
def test_a_crash_at_either_end_loses_nothing_and_doubles_nothing(both: Both, end: str) -> None:
    both.inside.stored(*range(1, 4))
    if end == "inside":
        both.inside.run(tick=True)
        both.inside.crash()  # the folder stays
        both.inside.start()
        both.inside.stored(4)
        both.cross()
    else:
        both.inside.stored(4)
        both.brings(both.sent(), run=False)
        both.outside.log.held = True  # in the store, and not in the log
        for _ in range(4):
            both.outside.run()
        assert drain(both) == [] and list(both.outside.ride.glob("[0-9]*"))
        both.outside.crash(lost=True)
        both.outside.start()
        both.brings([])
    assert drain(both) == [1, 2, 3, 4] and both.missing() == []
    assert both.outside.verified() == [] and not list(both.outside.ride.glob("[0-9]*"))


def test_what_comes_late_is_nobodys_before_it_is_in_the_log(both: Both) -> None:
    both.inside.stored(*range(1, 6))
    lost = both.cross(without(2))
    assert drain(both) == [1, 3, 4, 5]
    both.outside.log.held = True
    both.brings(lost)
    assert drain(both) == [] and both.missing() == [(2, 2)]
    both.outside.crash(lost=True)
    both.outside.start()
    both.brings([])
    assert drain(both) == [2] and both.missing() == [] and both.outside.verified() == []


def test_without_room_or_log_it_waits(tmp_path: Path) -> None:
    both = Both(tmp_path, riding(msgspec.structs.replace(EAGER, room_messages=4, keep=60)))
    both.inside.stored(1, 2, 3, 4)
    both.cross()
    drain(both), drain(both, "lake")
    both.inside.move(61)
    both.inside.stored(5, 6)
    both.outside.log.say(False, "the disk is full")
    both.outside.run()
    both.cross()
    assert "the disk is full" in both.outside.keeper.alarms()["strand-waits"]
    both.outside.log.say(True)
    both.outside.move(1)
    both.brings([])
    assert drain(both) == [5, 6] and "strand-waits" not in both.outside.keeper.alarms()
    both.close()


def carried(both: Both, number: int, data: bytes = b"", **other: Any) -> Carried:
    """A record as the keeper inside would send it, but for what is said."""
    rider = both.inside.keeper._rider
    assert rider is not None
    made = Carried(rider._store, rider._prints["counts"], "counts", number, "mes", f"k{number}", data or body(count=1))
    return msgspec.structs.replace(made, **other)


ENDS: dict[str, dict[str, Any]] = {
    "a body that is not canonical": {"body": b'{"count": 1}'},
    "one that is no JSON": {"body": b"{"},
    "one that fails the schema by which it has passed": {"body": body(count="many")},
    "one that is too large": {"body": body(count=1, text="x" * 1_000_000)},
    "a principal who may not push": {"who": "erp"},
    "one that there is not": {"who": "root"},
    "a number far beyond": {"number": 1 << 40},
    "a key that shows nothing": {"key": "\x1b[2J"},
}


@pytest.mark.parametrize("what", list(ENDS))
def test_what_no_honest_keeper_sends_ends_the_crew(both: Both, what: str) -> None:
    both.inside.stored(1)
    both.cross()
    with pytest.raises(CrossingError) as found:
        both.brings([carried(both, 2), msgspec.structs.replace(carried(both, 3), **ENDS[what])])
    assert found.value.by == "keeper"
    both.outside.keeper.halt()
    assert drain_store(both) == [1]


def drain_store(both: Both) -> list[int]:
    both.outside.crash()
    both.outside.ride.joinpath("gone").mkdir(exist_ok=True)
    for path in both.outside.ride.glob("[0-9]*"):
        path.unlink()
    both.outside.ride.joinpath("gone").rmdir()
    both.outside.start()
    return [one["number"] for one in both.outside.command("list", channel="counts")]


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "a schema that one machine has": ({"print_": bytes(8), "body": body(count="many")}, "policy"),
    "a channel": ({"channel": "nowhere"}, "policy"),
    "a principal": ({"print_": bytes(8), "who": "root"}, "policy"),
    "a size": ({"print_": bytes(8), "body": body(count=1, text="x" * 1_000_000)}, "policy"),
    "a store": ({"store": bytes(32)}, "store"),
    "another content": ({"number": 1}, "conflict"),
}


@pytest.mark.parametrize("what", list(OTHERS))
def test_what_may_be_an_honest_ones_is_refused_and_told(both: Both, what: str) -> None:
    both.inside.stored(1)
    both.cross()
    other, fault = OTHERS[what]
    both.brings([carried(both, 2, body(count=7), **other), carried(both, 3)] if fault != "conflict" else
                [carried(both, 1, body(count=7)), carried(both, 3)])  # fmt: skip
    assert f"strand-{fault}" in both.outside.keeper.alarms()
    assert drain(both) == [1, 3] and both.missing() == [(2, 2)] and both.outside.verified() == []
    both.outside.move(11)
    (told,) = both.outside.log.events("message-refused")
    assert told["fault"] == fault and told["count"] == 1


def test_a_million_names_of_channels_are_one_refusal(both: Both) -> None:
    for _ in range(5):
        both.brings([carried(both, 1, channel=f"c{number}", who=f"p{number}") for number in range(2_000)])
    both.outside.move(11)
    (told,) = both.outside.log.events("message-refused")
    assert told["count"] == 10_000 and len(both.outside.keeper.alarms()) == 1


def test_holes_are_bounded(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cofferdam.brokers.relay.far.GAPS_MOST", 5)
    both.brings([carried(both, number) for number in range(1, 21, 2)])
    for _ in range(20):
        both.outside.run(tick=True)
    assert len(both.missing()) == 5
    assert "5 ranges of counts are missing" in both.outside.keeper.alarms()["strand-waits"]
    both.brings([carried(both, 2)])  # it is behind what waits
    rider = both.inside.keeper._rider
    assert rider is not None
    for number in range(30, 60):
        both.brings([Highest(rider._store, "counts", number)], run=False)
    both.brings([])
    assert len(both.outside.keeper._work.machine.channels["counts"].gaps) == 5
    assert both.outside.keeper.riding


def test_what_is_missing_at_the_end_again_and_again_is_one_range(both: Both) -> None:
    for number in range(1, 8):
        both.inside.stored(number)
        both.sent()
        both.quiet()
        both.cross()
    assert both.missing() == [(1, 7)]


def test_a_mark_stops_what_the_strand_brings(both: Both) -> None:
    strand.stop(both.outside.ride, "tests")
    both.brings([carried(both, 1)])
    assert drain(both) == []


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.integers(0, 99), max_size=5), st.sampled_from("ricx")), max_size=8
    )
)
def test_whatever_is_lost_comes_late_or_twice_the_end_is_equal(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, list[int], str]]
) -> None:
    """Pushes, losses by place, crashes of either end: then all that was lost comes, once more in another order."""
    both = Both(tmp_path_factory.mktemp("both"), riding(EAGER))
    pushed = 0
    got: list[int] = []
    lost: list[Any] = []
    for count, gone, then in steps:
        both.inside.stored(*range(pushed + 1, pushed + count + 1))
        pushed += count
        some = both.sent()
        there = [one for at, one in enumerate(some) if at not in gone]
        lost += [one for at, one in enumerate(some) if at in gone]
        both.brings(there)
        if then == "i":
            both.inside.crash()
            both.inside.start()
        elif then == "x":
            both.outside.crash()
            both.outside.start()
        elif then == "c":
            got += drain(both)
        elif lost:
            both.brings([lost.pop()])
    both.quiet()
    both.brings([*both.sent(), *reversed(lost), *lost])
    both.brings([])
    got += drain(both)
    assert sorted(got) == list(range(1, pushed + 1))
    assert drain(both, "lake") == list(range(1, pushed + 1))
    assert both.missing() == [] and both.outside.verified() == both.inside.verified() == []
    both.close()


@given(st.sets(st.integers(1, 40)), st.integers(1, 45), st.integers(0, 20), st.integers(0, 45))
def test_gaps_are_as_a_set_of_numbers_would_be(absent: set[int], first: int, count: int, top: int) -> None:
    gaps = Gaps()
    run: list[int] = []
    for number in [*sorted(absent), 0]:
        if run and number != run[-1] + 1:
            gaps.add(Gap(run[0], run[-1], 0))
            run = []
        run.append(number)
    assert {number for number in range(46) if number in gaps} == absent
    assert gaps.there(first, count, top) == [n for n in range(first, top + 1) if n not in absent][:count]
    assert gaps.absent(first) == len([number for number in absent if number >= first])
    covered = {number for low, high in gaps.uncovered(first, top) for number in range(low, high + 1)}
    assert covered == set(range(first, top + 1)) - absent
    for number in sorted(absent)[::2]:
        gaps.fill(number)
    assert {number for number in range(46) if number in gaps} == set(sorted(absent)[1::2])


def test_the_highest_is_said_when_nothing_more_comes(both: Both) -> None:
    both.inside.stored(1)
    both.sent()
    both.quiet()
    (said,) = both.sent()
    assert isinstance(said, Highest) and said.number == 1
    both.quiet()
    assert both.sent() == []
    both.clock.move(61)
    both.inside.run(tick=True)
    assert len(both.sent()) == 1
