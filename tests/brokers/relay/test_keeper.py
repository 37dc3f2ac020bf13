"""The keeper by playbooks: this is asked, that is answered, stored and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper_push import WAITING_MOST
from cofferdam.brokers.relay.ledger import message_leaf, prove, shown
from cofferdam.brokers.relay.records import Answered, Handed, Item, NotDone
from cofferdam.policy.terms.relay_rows import Line
from tests.brokers.relay.keeping import COUNTS, LINES, Bench, body, make_rows, refused


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_message_is_stored_recorded_acknowledged_handed_out_and_settled(bench: Bench) -> None:
    answer = bench.push(("k1", body(count=7)))
    assert isinstance(answer, Answered)
    [result] = answer.results
    assert (result.state, result.number, result.again) == ("stored", 1, False)
    [pushed] = bench.log.events("messages-pushed")
    assert (pushed["channel"], pushed["first"], pushed["count"], pushed["key"]) == ("counts", 1, 1, "k1")
    assert pushed["sha256"] == result.sha256.hex()
    handed = bench.pull()
    assert isinstance(handed, Handed)
    [message] = handed.messages
    assert (message.number, message.who, message.key, message.body, message.count) == (1, "mes", "k1", body(count=7), 1)
    [settled] = bench.settle(handed).results
    assert settled.state == "stored"
    assert bench.numbers() == []
    assert bench.numbers("lake") == [1], "each consumer has a place of its own"
    bench.move(1)
    leased = bench.log.events("messages-leased")
    assert [(event["consumer"], event["first"], event["sha256"]) for event in leased] == [
        ("erp", 1, pushed["sha256"]), ("lake", 1, pushed["sha256"]),
    ]  # fmt: skip
    [event] = bench.log.events("messages-settled")
    assert (event["consumer"], event["says"], event["first"], event["last"]) == ("erp", "done", 1, 1)
    assert bench.verified() == []


def test_an_acknowledgement_waits_for_the_log_and_so_does_handing_out(bench: Bench) -> None:
    bench.log.held = True
    assert bench.push(("k1", body(count=1))) is None
    assert bench.numbers() == [], "not recorded, so not handed out"
    repeated = bench.push(("k1", body(count=1)))
    assert repeated is None, "the first answer is not certain yet, nor is its repetition"
    bench.log.held = False
    bench.log.record()
    bench.run()
    answers = [bench.inner.answers[number] for number in (1, 2)]
    assert [answer.results[0].again for answer in answers if isinstance(answer, Answered)] == [False, True]
    assert bench.numbers() == [1]


def test_the_same_key_is_answered_alike_or_is_a_conflict(bench: Bench) -> None:
    bench.stored(1)
    [again] = bench.push(("k1", body(count=1))).results
    assert (again.state, again.number, again.again) == ("stored", 1, True)
    [other] = bench.push(("k1", body(count=2))).results
    assert (other.state, other.number) == ("conflict", 1)
    assert other.sha256 != other.other == again.sha256
    assert bench.stored(3) == [2], "neither took a number"
    mixed = bench.push(("k4", body(count=4)), ("k1", body(count=9)), ("k4", body(count=4)), ("k3", body(count=3)))
    assert [(each.state, each.number, each.again) for each in mixed.results] == [
        ("stored", 3, False), ("conflict", 1, False), ("stored", 3, True), ("stored", 2, True),
    ]  # fmt: skip
    bench.move(11)
    [told] = bench.log.events("message-refused")
    assert (told["fault"], told["count"]) == ("conflict", 2)


def test_keys_are_a_producers_own(bench: Bench) -> None:
    bench.work_by(make_rows(lines=(Line(number=0, who=("mes", "scada"), push=("counts",)), *LINES[1:])))
    bench.stored(1)
    [result] = bench.push(("k1", body(count=5)), who="scada").results
    assert (result.state, result.number) == ("stored", 2)


def test_strict_order_hands_out_one_at_a_time(bench: Bench) -> None:
    bench.stored(1, 2, 3)
    first = bench.pull(most=10)
    assert [message.number for message in first.messages] == [1]
    assert bench.numbers(most=10) == []
    bench.settle(first, "failed", reason="busy")
    again = bench.pull(most=10)
    assert [(message.number, message.count) for message in again.messages] == [(1, 2)]
    bench.settle(again)
    assert bench.numbers(most=10) == [2]


def test_a_lease_that_ends_is_handed_out_again_and_in_the_end_dead(bench: Bench) -> None:
    bench.stored(1, 2)
    for count in (1, 2, 3):
        handed = bench.pull()
        assert [(message.number, message.count) for message in handed.messages] == [(1, count)]
        bench.move(31)
        [late] = bench.settle(handed).results
        assert late.problem is not None and late.problem.fault == "lease"
    bench.move(1)  # an entry that nothing waits for leaves within a moment, not at once
    [dead] = bench.log.events("messages-dead")
    assert (dead["first"], dead["consumer"], dead["tries"], dead["reason"]) == (1, "erp", 3, "its lease ended")
    assert bench.numbers() == [2], "the channel goes on"
    assert bench.numbers("lake") == [1], "to another it is alive"
    assert bench.command("dead", channel="counts", consumer="erp")[0]["number"] == 1


def test_a_long_poll_is_woken_by_a_push_once(bench: Bench) -> None:
    assert bench.pull(wait_ms=10_000) is None
    assert bench.pull("lake", wait_ms=10_000) is None
    assert bench.pull(wait_ms=10_000) is None
    bench.stored(1)
    answers = [bench.outer.answers.get(number) for number in (1, 2, 3)]
    assert [[m.number for m in answer.messages] for answer in answers if isinstance(answer, Handed)] == [[1], [1]]
    assert answers[2] is None, "the second pull of one consumer waits on: order is strict"
    bench.move(11)
    late = bench.outer.answers[3]
    assert isinstance(late, Handed) and late.messages == ()


def test_a_pull_that_was_given_up_takes_nothing(bench: Bench) -> None:
    assert bench.pull(wait_ms=10_000) is None
    bench.outer.keeper(records.GiveUp(1))
    bench.stored(1)
    assert 1 not in bench.outer.answers
    assert bench.numbers() == [1]


def test_settling_what_is_not_ones_own_is_refused_and_moves_nobody(bench: Bench) -> None:
    bench.stored(1, 2)
    mine = bench.pull("erp")
    theirs = bench.pull("lake")
    assert mine.lease == theirs.lease == 1, "leases are numbered for each consumer"
    invented = Handed(1, 99, 30, 2, mine.messages)
    assert bench.settle(invented).results[0].problem.fault == "lease"
    assert bench.settle(mine).results[0].state == "stored"
    assert bench.settle(mine).results[0].problem.fault == "lease", "twice"
    assert bench.numbers("lake") == [], "still leased to the other"
    assert bench.settle(theirs, who="lake").results[0].state == "stored"
    assert bench.numbers("erp") == [2] == bench.numbers("lake")


def test_a_consumer_that_only_takes_and_gives_back_does_not_use_up_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is an entry; one who causes more than its share waits, and nobody else does."""
    monkeypatch.setattr("cofferdam.brokers.relay.keeper_pace.PLENTY", 1)
    monkeypatch.setattr("cofferdam.brokers.relay.keeper_pace.OWN", 20)
    bench.work_by(make_rows((msgspec.structs.replace(COUNTS, tries=1000),)))
    bench.stored(1)
    for _ in range(30):
        handed = bench.pull()
        if handed.messages:
            bench.settle(handed, "failed")
    assert 10 <= len(bench.log.events("messages-leased")) <= 11
    assert bench.numbers("lake") == [1]
    assert bench.pull(wait_ms=10_000) is None
    bench.move(0.5)
    assert len(bench.log.events("messages-leased")) <= 13, "what has waited goes on as time goes by"
    woken = bench.outer.answers[bench.outer.number]
    assert isinstance(woken, Handed) and [message.number for message in woken.messages] == [1]


SEVERAL = (Line(number=0, who=("mes", "scada"), push=("counts",)), LINES[1])


@pytest.fixture
def scarce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A keeper whose share of the log is used up, but for a little that each has."""
    monkeypatch.setattr("cofferdam.brokers.relay.keeper_pace.PLENTY", 1)
    monkeypatch.setattr("cofferdam.brokers.relay.keeper_pace.OWN", 6)
    made = Bench(tmp_path, make_rows((msgspec.structs.replace(COUNTS, order=1_000),), SEVERAL))
    yield made
    made.close()


def test_a_producer_that_floods_the_log_waits_and_its_pushes_go_together(scarce: Bench) -> None:
    """Nothing of it is lost or out of order, and who asks for less notices nothing."""
    answers = [scarce.push((f"k{n}", body(count=n))) for n in range(80)]
    assert sum(isinstance(answer, Answered) for answer in answers) == 5
    assert [refused(answer) for answer in answers[5 + WAITING_MOST :]] == ["busy"] * (75 - WAITING_MOST)
    assert answers[5 : 5 + WAITING_MOST] == [None] * WAITING_MOST
    assert scarce.push(("mine", body(count=1)), who="scada").results[0].state == "stored"
    for _ in range(4):
        scarce.run(tick=True)
    assert "mes cause more entries" in scarce.keeper.alarms()["log"]
    before = len(scarce.log.events("messages-pushed"))
    scarce.clock.move(0.1)
    while len(scarce.inner.answers) < 81:
        scarce.reactor.turn(1)
    [event] = scarce.log.events("messages-pushed")[before:]
    assert (event["count"], event["principal"]) == (WAITING_MOST, "mes")
    handed = scarce.pull(most=1_000)
    assert [message.key for message in handed.messages if message.who == "mes"] == [f"k{n}" for n in range(69)]
    assert scarce.verified() == []


def test_what_waits_for_the_log_is_refused_by_a_new_policy_or_a_stop_and_ends_nobody(scarce: Bench) -> None:
    for n in range(7):
        scarce.push((f"k{n}", body(count=n)))
    fewer = make_rows(lines=(Line(number=0, who=("scada",), push=("counts",)), LINES[1]))
    scarce.work_by(fewer)
    assert [refused(scarce.inner.answers[number]) for number in (6, 7)] == ["policy"] * 2
    scarce.work_by(make_rows(lines=SEVERAL))
    last = [scarce.push((f"m{n}", body(count=n))) for n in range(6)][-1]
    assert last is None and scarce.keeper.busy
    scarce.keeper.stop()
    scarce.run()
    assert refused(scarce.inner.answers[scarce.inner.number]) == "busy" and not scarce.keeper.busy


def test_a_consumer_that_never_settles_has_what_its_channel_lets_and_no_more(bench: Bench) -> None:
    """However often it asks, and with whatever leases it settles: what it does not give back it does not get twice."""
    bench.work_by(make_rows((msgspec.structs.replace(COUNTS, order=40, tries=1000),)))
    bench.stored(*range(60))
    first = bench.pull(most=1_000)
    assert [message.number for message in first.messages] == list(range(1, 41))
    assert all(bench.numbers(most=1_000) == [] for _ in range(500))
    verdicts = tuple(records.Verdict(number, "done") for number in range(1, 1_001))
    for lease in (first.lease + 1, 1 << 62):
        number = bench.outer.ask(records.Settle, "erp", "counts", lease, verdicts)
        bench.run()
        results = bench.outer.answers[number].results  # type: ignore[union-attr]
        assert {result.problem.fault for result in results if result.problem} == {"lease"} and len(results) == 1_000
    assert bench.numbers(most=1_000) == []
    assert bench.numbers("lake", most=1_000) == list(range(1, 41)), "and nobody else has less"
    bench.move(31)
    again = bench.pull(most=1_000)
    assert [(message.number, message.count) for message in again.messages] == [(n, 2) for n in range(1, 41)]


def test_one_who_is_refused_for_everything_hides_nobody_elses_refusals(bench: Bench) -> None:
    bench.outer.keeper(records.Works(bytes(16)))  # it works by other rows, so its requests are refused and no more
    for at in range(200):
        bench.outer.ask(records.Pull, "erp", f"c{at}", 1, 1, 0)
    bench.outer.ask(records.Pull, "lake", "stock", 1, 1, 0)
    bench.move(11)
    told = [(event["principal"], event["channel"], event["count"]) for event in bench.log.events("message-refused")]
    assert ("lake", "stock", 1) in told and ("erp", "", 136) in told
    assert len(told) == 66


def test_a_lease_can_be_extended_but_not_beyond_the_channels_longest(bench: Bench) -> None:
    bench.stored(1)
    handed = bench.pull(seconds=10)
    bench.move(9)
    assert bench.settle(handed, "extend", seconds=1_000_000).results[0].state == "stored"
    bench.move(29)
    assert bench.numbers() == []
    bench.move(2)
    assert bench.numbers() == [1]


def test_a_failed_message_rests_as_long_as_the_consumer_says(bench: Bench) -> None:
    bench.stored(1, 2)
    bench.settle(bench.pull(), "failed", seconds=60)
    bench.move(59)
    assert bench.numbers() == [], "and nothing overtakes it"
    bench.move(2)
    assert bench.numbers() == [1]


def test_a_burst_is_one_entry_against_which_each_message_can_be_shown(bench: Bench) -> None:
    items = [(f"k{count}", body(count=count)) for count in range(1, 301)]
    answer = bench.push(*items)
    [pushed] = bench.log.events("messages-pushed")
    assert (pushed["first"], pushed["count"], pushed["principal"], pushed["key"]) == (1, 300, "mes", "")
    leaves = [
        message_leaf("counts", result.number, "mes", key, result.sha256, len(data))
        for (key, data), result in zip(items, answer.results, strict=True)
    ]
    for index in (0, 17, 255, 256, 299):
        path = prove(leaves, index)
        assert shown(leaves[index], index, 300, path, pushed["root"])
        assert not shown(leaves[index - 1], index, 300, path, pushed["root"])
    assert bench.verified() == []


def test_what_fails_the_checks_is_kept_apart_and_blocks_nothing(bench: Bench) -> None:
    bad = body(count="many")
    [result] = bench.push(("k1", bad), doubtful=True).results
    assert (result.state, result.number, result.problem.fault, result.problem.place) == (
        "quarantined",
        1,
        "schema",
        "/count",
    )
    [again] = bench.push(("k1", bad), doubtful=True).results
    assert (again.state, again.number, again.again, again.problem) == ("quarantined", 1, True, result.problem)
    assert bench.stored(2) == [1]
    [event] = bench.log.events("message-quarantined")
    assert (event["row"], event["principal"], event["key"], event["place"]) == (1, "mes", "k1", "/count")
    [row] = bench.command("held", channel="counts")
    assert (row["detail"], row["line"], row["column"]) == (result.problem.detail, 1, 10)
    [mended] = bench.push(("k1", body(count=1))).results
    assert (mended.state, mended.number) == ("stored", 2), "the producer may mend it by itself"


def test_a_side_that_calls_a_sound_message_doubtful_errs_and_no_more(bench: Bench) -> None:
    [result] = bench.push(("k1", body(count=1)), doubtful=True).results
    assert result.state == "stored"


def test_a_full_channel_refuses_and_drops_nothing(bench: Bench) -> None:
    bench.work_by(make_rows((msgspec.structs.replace(COUNTS, room_messages=2),)))
    answer = bench.push(*[(f"k{count}", body(count=count)) for count in (1, 2, 3)])
    assert [result.state for result in answer.results] == ["stored", "stored", "refused"]
    assert answer.results[2].problem.fault == "room" and answer.results[2].retry > 0
    [again] = bench.push(("k1", body(count=1))).results
    assert again.again, "what is there is still known"
    assert bench.numbers() == [1]


def test_nothing_is_taken_or_handed_out_while_the_log_cannot_be_written(bench: Bench) -> None:
    bench.stored(1)
    bench.log.say(False, "the disk is full")
    bench.run()
    answer = bench.push(("k2", body(count=2)))
    assert refused(answer) == "log" and "the disk is full" in answer.problem.detail and answer.retry
    assert refused(bench.pull()) == "log"
    bench.log.say(True)
    bench.run()
    assert bench.stored(2) == [2]
    assert bench.numbers() == [1]


def test_requests_of_a_severed_side_are_refused_and_the_other_sides_are_not(bench: Bench) -> None:
    bench.stored(1)
    assert bench.pull("lake", wait_ms=10_000) is not None
    assert bench.pull("lake", wait_ms=10_000) is None
    bench.keeper.set_severed(["it"])
    bench.run()
    assert refused(bench.outer.answers[2]) == "severed"
    assert refused(bench.pull()) == "severed"
    assert bench.stored(2) == [2]
    bench.keeper.set_severed([])
    assert bench.numbers() == [1]


def test_browsing_shows_without_moving_anybody(bench: Bench) -> None:
    bench.work_by(make_rows(lines=(*LINES, Line(number=2, who=("lake",), browse=("counts",)))))
    bench.stored(*range(1, 6))
    number = bench.outer.ask(records.Browse, "lake", "counts", 2, 2)
    bench.run()
    answer = bench.outer.answers[number]
    assert isinstance(answer, Handed) and answer.lease == 0 and answer.upto == 5
    assert [(message.number, message.count) for message in answer.messages] == [(3, 0), (4, 0)]
    assert bench.numbers("lake") == [1]
    bench.move(11)
    [read] = bench.log.events("messages-browsed")
    assert (read["principal"], read["count"], read["first"], read["last"]) == ("lake", 2, 3, 4)


def test_parallel_order_hands_out_so_many_and_keeps_what_is_open(bench: Bench) -> None:
    bench.work_by(make_rows((msgspec.structs.replace(COUNTS, order=3),)))
    bench.stored(*range(1, 8))
    first = bench.pull(most=10)
    assert [message.number for message in first.messages] == [1, 2, 3]
    assert bench.numbers() == []
    one = Handed(0, first.lease, 0, 0, first.messages[1:2])
    bench.settle(one)
    second = bench.pull(most=10)
    assert [message.number for message in second.messages] == [4]
    bench.settle(Handed(0, first.lease, 0, 0, first.messages[:1]), "failed")
    assert bench.numbers(most=10) == [1]
    bench.crash()
    bench.start()
    bench.settle(second)
    bench.move(31)
    assert bench.numbers(most=10) == [1, 3, 5], "after a crash and the end of all leases"
    assert bench.verified() == []


def test_what_the_clock_does_changes_no_order(bench: Bench) -> None:
    bench.stored(1)
    bench.clock.wall -= 365 * 86_400 * 1_000_000_000
    bench.stored(2)
    bench.clock.wall += 3_650 * 86_400 * 1_000_000_000
    bench.stored(3)
    bench.run(tick=True)
    for number in (1, 2, 3):
        handed = bench.pull()
        assert [message.number for message in handed.messages] == [number]
        bench.settle(handed)
        bench.settle(bench.pull("lake"), who="lake")
        bench.run(tick=True)
    assert bench.command("status")["channels"][0]["messages"] == 3, "nor is anything removed before its time"


def test_requests_that_a_turn_brings_together_share_a_commit(bench: Bench) -> None:
    before = bench.command("status")["commit"]
    for count in range(50):
        bench.inner.ask(records.Push, "mes", "counts", (Item(f"k{count}", body(count=count)),))
    bench.run()
    assert len(bench.inner.answers) == 50
    assert bench.command("status")["commit"] == before + 1
    assert len(bench.log.events("messages-pushed")) == 1


def test_the_gate_stops_in_order(bench: Bench) -> None:
    bench.stored(1)
    assert bench.pull("lake", wait_ms=0) is not None
    assert bench.pull("lake", wait_ms=10_000) is None
    bench.keeper.stop()
    bench.run()
    assert isinstance(bench.outer.answers[2], NotDone)
    assert bench.keeper.busy == 0
    bench.end()
    bench.start()
    assert bench.numbers() == [1]
    assert bench.log.events("store-opened")[-1]["found"] == ""


def test_the_settling_of_an_old_lease_does_not_count_for_a_new_one(bench: Bench) -> None:
    bench.stored(1, 2)
    old = bench.pull()
    bench.move(31)
    new = bench.pull()
    assert [message.number for message in new.messages] == [1] and new.lease != old.lease
    for says in ("done", "failed", "extend"):
        assert bench.settle(old, says, seconds=9).results[0].problem.fault == "lease"
    assert bench.numbers() == []
    assert bench.settle(new).results[0].state == "stored"
    assert bench.numbers() == [2]


def test_leases_outlive_the_keeper(bench: Bench) -> None:
    """The crew is born anew when a side dies: a consumer on the other one need not notice."""
    bench.stored(1, 2)
    handed = bench.pull()
    bench.crash()
    bench.start()
    assert bench.numbers() == []
    assert bench.settle(handed).results[0].state == "stored"
    assert bench.numbers() == [2]


def test_what_a_crash_left_untold_is_told_before_it_is_handed_out(bench: Bench) -> None:
    """Stored, and neither recorded nor acknowledged: the next keeper tells it, marked as perhaps told before."""
    bench.stored(1)
    bench.log.held = True
    bench.inner.ask(records.Push, "mes", "counts", (Item("k2", body(count=2)),))
    bench.inner.ask(records.Push, "mes", "counts", (Item("k3", body(count=3)),))
    bench.run()
    bench.crash(lost=True)
    assert [event["first"] for event in bench.log.events("messages-pushed")] == [1]
    bench.log.held = True
    bench.start()
    bench.settle(bench.pull())
    assert bench.numbers() == [], "it is in the store, and not in the log"
    assert bench.push(("k2", body(count=2))) is None
    bench.log.held = False
    bench.log.record()
    bench.run(tick=True)
    pushed = [(event["first"], event["count"], event["again"]) for event in bench.log.events("messages-pushed")]
    assert pushed[-1] == (2, 2, True)
    assert bench.log.events("store-opened")[-1]["untold"] >= 1
    assert bench.inner.answers[1].results[0].again  # type: ignore[union-attr]
    assert bench.numbers() == [2]
    assert bench.verified() == []


def test_a_log_that_refuses_leaves_the_push_in_doubt_and_its_repetition_right(bench: Bench) -> None:
    bench.log.held = True
    bench.inner.ask(records.Push, "mes", "counts", (Item("k1", body(count=1)),))
    bench.run()
    bench.log.lose("the disk is full")
    bench.run()
    assert refused(bench.inner.answers[1]) == "log"
    assert bench.numbers() == []
    bench.log.held = False
    bench.run(tick=True)
    [result] = bench.push(("k1", body(count=1))).results
    assert (result.state, result.number, result.again) == ("stored", 1, True)
    assert bench.numbers() == [1]
    assert bench.verified() == []
