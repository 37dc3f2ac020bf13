"""What operators ask of the keeper, and what time does."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cofferdam.brokers.kit.figures import check
from cofferdam.brokers.relay.figures import FIGURES
from cofferdam.brokers.relay.records import Answered
from cofferdam.errors import GateError
from cofferdam.policy.terms.relay_rows import Channel, Limit
from tests.brokers.relay.keeping import COUNTS, LINES, SECOND, Bench, body, make_rows, refused


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def counts(**changes: object) -> Channel:
    return msgspec.structs.replace(COUNTS, **changes)


def hold(bench: Bench, key: str = "bad", count: object = "many") -> int:
    [result] = bench.push((key, body(count=count)), doubtful=True).results
    assert result.state == "quarantined", result
    return int(result.number)


# --- quarantine ---------------------------------------------------------------------------------------------------


def test_a_release_is_checked_again_and_an_editor_cannot_release(bench: Bench) -> None:
    row = hold(bench)
    with pytest.raises(GateError, match="does not pass: schema at /count"):
        bench.command("release", row=row, by="ann")
    still = bench.command("edit", row=row, by="ann", body='{"count": "few"}')["problem"]
    assert (still["fault"], still["place"]) == ("schema", "/count")
    edited = bench.command("edit", row=row, by="ann", body='{ "count": 7 }')
    assert edited["problem"] is None
    assert [line for line in edited["diff"] if line[:1] in "+-" and line[1:2] == " "] == [
        '- "count": "few"', '+ "count": 7',
    ]  # fmt: skip
    with pytest.raises(GateError, match="ann has edited row 1"):
        bench.command("release", row=row, by="ann")
    assert bench.command("release", row=row, by="bob") == {
        "row": 1, "released": True, "number": 1, "people": ["bob"],
    }  # fmt: skip
    handed = bench.pull()
    assert [(message.number, message.key, message.body) for message in handed.messages] == [(1, "bad", body(count=7))]
    decided = bench.log.events("quarantine-decided")
    assert [(event["decision"], event["by"], event["number"]) for event in decided] == [
        ("edited", "ann", 0), ("edited", "ann", 0), ("released", "bob", 1),
    ]  # fmt: skip
    assert decided[0]["sha256"] == decided[1]["before"] != decided[1]["sha256"] == decided[2]["sha256"]
    assert bench.command("held") == []
    [again] = bench.push(("bad", body(count="many")), doubtful=True).results
    assert (again.state, again.number, again.again) == ("stored", 1, True), "what its producer sent is answered by it"
    assert bench.verified() == []


def test_two_people_release_and_neither_has_edited(bench: Bench) -> None:
    bench.work_by(make_rows((counts(release=2),)))
    row = hold(bench)
    bench.command("edit", row=row, by="ann", body='{"count": 7}')
    assert not bench.command("release", row=row, by="bob")["released"]
    for who, why in (("bob", "released row 1 already"), ("ann", "has edited")):
        with pytest.raises(GateError, match=why):
            bench.command("release", row=row, by=who)
    bench.command("edit", row=row, by="ann", body='{"count": 8}')
    assert not bench.command("release", row=row, by="bob")["released"], "another body was approved before"
    bench.crash()
    bench.start()
    assert bench.command("release", row=row, by="cay")["people"] == ["bob", "cay"]
    assert [event["decision"] for event in bench.log.events("quarantine-decided") if not event["again"]] == [
        "edited", "approved", "edited", "approved", "released",
    ]  # fmt: skip
    assert bench.log.events("quarantine-decided")[-1]["people"] == ["bob", "cay"]


def test_a_rejected_message_is_gone_and_may_come_again(bench: Bench) -> None:
    row = hold(bench)
    bench.command("reject", row=row, by="ann", reason="a test")
    assert bench.command("status")["channels"][0]["quarantine"] == 0
    assert bench.log.events("quarantine-decided")[0]["reason"] == "a test"
    with pytest.raises(GateError, match="no row 1"):
        bench.command("release", row=row, by="ann")
    assert hold(bench) == 2, "rows are not numbered twice"


def test_what_its_producer_has_mended_is_not_released_as_well(bench: Bench) -> None:
    row = hold(bench)
    assert bench.push(("bad", body(count=5))).results[0].number == 1
    bench.command("edit", row=row, by="ann", body='{"count": 6}')
    with pytest.raises(GateError, match="key bad is message 1"):
        bench.command("release", row=row, by="bob")


def test_a_channel_may_stand_until_quarantine_is_decided_on(bench: Bench) -> None:
    bench.work_by(make_rows((counts(on_error="stop"),)))
    bench.stored(1)
    row = hold(bench)
    answer = bench.push(("k2", body(count=2)))
    assert refused(answer) == "stopped" and answer.retry
    assert bench.numbers() == [1]
    bench.command("reject", row=row, by="ann")
    assert bench.stored(2) == [2]


def test_the_quarantine_has_its_own_room(bench: Bench) -> None:
    bench.work_by(make_rows((counts(room=20_000, most=5_000),)))
    for number in range(3):
        hold(bench, f"k{number}", "x" * 1_400)
    answer = bench.push(("k3", body(count="x" * 1_400)), doubtful=True)
    assert isinstance(answer, Answered)
    [result] = answer.results
    assert result.state == "refused" and result.problem is not None
    assert result.problem.fault == "schema" and "quarantine of counts is full" in result.problem.detail
    assert bench.stored(1) == [1]


# --- limits with a memory -----------------------------------------------------------------------------------------


def test_a_step_is_judged_by_the_last_of_its_series_also_after_a_crash(bench: Bench) -> None:
    bench.work_by(make_rows((counts(limits=(Limit(at="/count", max_step=10, key="/line"),)),)))
    assert bench.push(("a", body(count=100, line="one"))).results[0].state == "stored"
    assert bench.push(("b", body(count=5, line="two"))).results[0].state == "stored"
    bench.crash()
    bench.start()
    [result] = bench.push(("c", body(count=111, line="one"))).results
    assert (result.state, result.problem.fault, result.problem.place) == ("quarantined", "step", "/count")
    assert '111 is more than 10 away from 100, the last one of "one"' in result.problem.detail
    assert bench.push(("d", body(count=110, line="one"))).results[0].state == "stored"
    assert bench.push(("e", body(count=15, line="two"))).results[0].state == "stored"
    several = bench.push(("f", body(count=120, line="one")), ("g", body(count=130, line="one")))
    assert [each.state for each in several.results] == ["stored", "stored"], "each by the one before"
    assert bench.command("release", row=1, by="ann")["released"], "a person may know better than a step"
    assert bench.push(("h", body(count=120, line="one"))).results[0].state == "stored", "and the next is judged by it"


def test_a_rate_holds_in_any_minute_also_through_crashes_and_the_rest_is_refused(bench: Bench) -> None:
    bench.work_by(make_rows((counts(limits=(Limit(at="/count", per_minute=5),)),)))
    taken: list[float] = []
    for tenth in range(3_000):
        bench.clock.move(0.1)
        if tenth % 4:
            continue
        if tenth % 600 == 300:  # whoever ends the keeper has no fresh minute by that
            bench.crash()
            bench.start()
        [result] = bench.push((f"k{tenth}", body(count=1))).results
        if result.state == "stored":
            taken.append(tenth / 10)
        else:
            assert result.problem.fault == "rate" and result.retry
    assert all(later - earlier >= 60 for earlier, later in zip(taken, taken[5:], strict=False))
    assert len(taken) >= 20
    assert bench.command("held") == []


def test_a_message_beyond_keep_is_refused_by_its_own_time(bench: Bench) -> None:
    bench.work_by(make_rows((counts(stamp="/at", keep=3_600),)))
    bench.clock.wall = 1_800_000_000_000_000_000  # 2027-01-15T08:00:00Z
    for when, fault in (
        ("1970-01-01T00:00:00Z", "too old"), ("2027-01-15T06:59:59Z", "too old"), ("2027-01-15T08:06:00Z", "ahead"),
    ):  # fmt: skip
        [result] = bench.push(("k1", body(count=1, at=when))).results
        assert (result.state, result.problem.fault, result.problem.place) == ("refused", "stamp", "/at")
        assert fault in result.problem.detail
    assert bench.push(("k1", body(count=1, at="2027-01-15T07:30:00Z"))).results[0].state == "stored"
    assert bench.push(("k1", body(count=1, at="2027-01-15T07:30:00Z"))).results[0].again


# --- consumers ----------------------------------------------------------------------------------------------------


def die(bench: Bench, who: str = "erp") -> None:
    for _ in range(3):
        bench.settle(bench.pull(who), "failed", who=who, reason="no such article")


def test_dead_letters_are_seen_replayed_and_skipped(bench: Bench) -> None:
    bench.stored(1, 2)
    die(bench)
    assert bench.command("dead", channel="counts", consumer="erp") == [
        {"number": 1, "tries": 3, "reason": "no such article", "at": bench.clock.wall}
    ]
    assert bench.command("replay", channel="counts", consumer="erp", first=1, one=True, by="ann")["lag"] == 2
    handed = bench.pull()
    assert [(message.number, message.count) for message in handed.messages] == [(1, 1)], "with all its tries, and first"
    bench.settle(handed)
    assert bench.command("dead", channel="counts", consumer="erp") == []
    with pytest.raises(GateError, match="is not dead to erp"):
        bench.command("skip", channel="counts", consumer="erp", first=1, by="ann")
    die(bench)
    bench.command("skip", channel="counts", consumer="erp", first=2, by="ann")
    assert bench.numbers() == []
    assert [(event["how"], event["first"], event["by"]) for event in bench.log.events("position-set")] == [
        ("one", 1, "ann"), ("skip", 2, "ann"),
    ]  # fmt: skip


def test_a_dead_letter_may_stop_its_consumer_and_nobody_else(bench: Bench) -> None:
    bench.work_by(make_rows((counts(on_error="stop"),)))
    bench.stored(1, 2)
    die(bench)
    assert refused(bench.pull()) == "stopped"
    assert bench.numbers("lake") == [1]
    bench.crash()
    bench.start()
    assert refused(bench.pull()) == "stopped"
    bench.command("skip", channel="counts", consumer="erp", first=1, by="ann")
    assert bench.numbers() == [2]


def test_a_replay_hands_out_the_same_again_under_the_same_keys(bench: Bench) -> None:
    bench.stored(1, 2, 3)
    seen = []
    for _ in range(3):
        handed = bench.pull()
        seen.append((handed.messages[0].number, handed.messages[0].key, handed.messages[0].sha256))
        bench.settle(handed)
    bench.stored(4)
    stale = bench.pull()
    bench.command("replay", channel="counts", consumer="erp", first=2, by="ann")
    assert bench.settle(stale).results[0].problem.fault == "lease", "what was under way is handed out anew"
    again = []
    for _ in range(3):
        handed = bench.pull()
        again.append((handed.messages[0].number, handed.messages[0].key, handed.messages[0].sha256))
        bench.settle(handed)
    assert again[:2] == seen[1:] and again[2][0] == 4
    for first in (0, 5):
        with pytest.raises(GateError):
            bench.command("replay", channel="counts", consumer="erp", first=first, by="ann")


def test_a_channel_rests_and_goes_on(bench: Bench) -> None:
    bench.stored(1)
    assert bench.pull("lake", wait_ms=0).messages
    bench.command("pause", channel="counts", by="ann")
    bench.crash()
    bench.start()
    assert refused(bench.push(("k2", body(count=2)))) == "paused"
    assert refused(bench.pull()) == "paused"
    bench.command("resume", channel="counts", by="bob", pull=False)
    assert bench.stored(2) == [2]
    assert refused(bench.pull()) == "paused"
    assert bench.command("status")["channels"][0]["paused"] == ["pull"]
    bench.command("resume", channel="counts", by="bob")
    assert bench.numbers() == [1]
    told = {event["commit"]: event["paused"] for event in bench.log.events("channel-set")}
    assert list(told.values()) == [["push", "pull"], ["pull"], []]


def test_a_resume_wakes_who_waits(bench: Bench) -> None:
    assert bench.pull(wait_ms=60_000) is None
    bench.command("pause", channel="counts", by="ann", push=False)
    bench.stored(1)
    assert not bench.outer.answers
    bench.command("resume", channel="counts", by="ann")
    assert [message.number for message in bench.outer.answers[1].messages] == [1]  # type: ignore[union-attr]


def test_who_has_waited_at_a_channel_that_rests_is_told_so(bench: Bench) -> None:
    """And not that there is nothing: a hub would be caught up with then, and have what the operator holds back."""
    assert bench.pull(wait_ms=1_000) is None
    bench.command("pause", channel="counts", by="ann", push=False)
    bench.stored(1)
    bench.move(2)
    assert refused(bench.outer.answers[1]) == "paused"
    bench.command("resume", channel="counts", by="ann")
    assert bench.numbers() == [1]


# --- looking ------------------------------------------------------------------------------------------------------


def test_bodies_are_shown_to_named_people_and_that_is_an_entry(bench: Bench) -> None:
    bench.stored(1, 2, 3)
    shown = bench.command("show", channel="counts", number=2)
    assert "body" not in shown and shown["consumers"] == dict.fromkeys(("erp", "lake"), "waits to be handed out")
    assert not bench.log.events("messages-browsed")
    with pytest.raises(GateError, match="not known"):
        bench.command("show", channel="counts", number=2, body=True)
    assert bench.command("show", channel="counts", number=2, body=True, by="ann")["body"] == '{"count":2}'
    exported = bench.command("export", channel="counts", by="bob")
    assert [message["key"] for message in exported["messages"]] == ["k1", "k2", "k3"]
    seen = [
        (event["how"], event["by"], event["first"], event["last"]) for event in bench.log.events("messages-browsed")
    ]
    assert seen == [("show", "ann", 2, 2), ("export", "bob", 1, 3)]
    assert all(b"count" not in str(event).encode() for event in bench.log.events("messages-browsed") if "body" in event)


def test_a_large_body_is_exported_in_parts(bench: Bench) -> None:
    bench.work_by(make_rows((counts(most=2_000_000, room=10_000_000, schema=""),)))
    large = b'"' + bytes(range(97, 123)) * 40_000 + b'"'
    bench.push(("k1", large), ("k2", b"2"))
    got, after, offset, parts = b"", 0, 0, 0
    while after == 0:
        page = bench.command("export", channel="counts", by="bob", after=after, offset=offset)
        got += base64.b64decode(page["messages"][0]["body"])
        after, offset = page["after"], page["offset"]
        parts += 1
    assert got == large and parts == 3
    assert bench.command("export", channel="counts", by="bob", after=after)["messages"][0]["key"] == "k2"


def test_acts_need_a_name_and_the_log(bench: Bench) -> None:
    row = hold(bench)
    for verb in ("release", "reject"):
        with pytest.raises(GateError, match="by"):
            bench.command(verb, row=row)
    bench.log.say(False, "the disk is full")
    bench.run()
    with pytest.raises(GateError, match="the disk is full"):
        bench.command("reject", row=row, by="ann")
    with pytest.raises(GateError, match="has no 'format'"):
        bench.command("format", by="ann")
    with pytest.raises(GateError, match="there is no channel"):
        bench.command("list", channel="nowhere")
    with pytest.raises(GateError, match="unknown field"):
        bench.command("status", everything=True)
    assert len(bench.command("held")) == 1


def test_verify_finds_what_was_changed_in_the_store(bench: Bench) -> None:
    bench.stored(1, 2, 3)
    bench.stored(4)
    assert bench.verified() == []
    db = bench.keeper._work.store._db
    db.execute("UPDATE messages SET body=x'31' WHERE key='k2'")
    assert bench.verified() == ["counts 2: the body is not the one that was stored"]
    db.execute(
        "UPDATE messages SET body=x'31', size=1, sha256=? WHERE key='k2'",
        (__import__("hashlib").sha256(b"1").digest(),),
    )
    [finding] = bench.verified()
    assert "counts 1 to 3: the store has other messages than the log has" in finding
    db.execute("DELETE FROM messages WHERE key='k2'")
    assert any("2 to 2 are missing" in finding for finding in bench.verified())
    db.execute("DELETE FROM messages WHERE key='k4'")
    assert any("from 4 on: in the log by commit" in finding for finding in bench.verified())


# --- time ---------------------------------------------------------------------------------------------------------


def settle_all(bench: Bench, who: str) -> None:
    while (handed := bench.pull(who)).messages:
        bench.settle(handed, who=who)


def test_messages_go_after_their_time_once_every_consumer_has_settled_them(bench: Bench) -> None:
    bench.stored(1, 2)
    bench.move(1_800)
    bench.stored(3)
    settle_all(bench, "erp")
    bench.move(1_801)
    assert bench.command("status")["channels"][0]["messages"] == 3, "the other consumer has not come"
    handed = bench.pull("lake")
    bench.settle(handed, who="lake")
    bench.run(tick=True)
    status = bench.command("status")["channels"][0]
    assert (status["messages"], status["gone"]) == (2, 1), "what the other has settled, and no more"
    settle_all(bench, "lake")
    bench.run(tick=True)
    status = bench.command("status")["channels"][0]
    assert (status["messages"], status["gone"], status["size"]) == (1, 2, len(body(count=3)))
    assert bench.push(("k3", body(count=3))).results[0].again
    [anew] = bench.push(("k1", body(count=1))).results
    assert (anew.number, anew.again) == (4, False), "beyond keep a key is new, where the channel demands no stamp"
    assert bench.verified() == []
    bench.crash()
    bench.start()
    assert bench.verified() == []
    assert [event["last"] for event in bench.log.events("messages-removed") if not event["again"]] == [1, 2]


def test_a_person_makes_room_before_its_time_of_what_everybody_is_done_with(bench: Bench) -> None:
    bench.work_by(make_rows((counts(room_messages=3, keep=10**6),)))
    bench.stored(1, 2, 3)
    settle_all(bench, "erp")
    with pytest.raises(GateError, match="nothing up to 2 that everybody is done with") as found:
        bench.command("clear", channel="counts", upto=2, by="ann")
    assert found.value.hint == "not done with message 1: lake"
    handed = bench.pull("lake")
    bench.settle(handed, who="lake")
    assert [result.state for result in bench.push(("k4", body(count=4))).results] == ["refused"]
    said = bench.command("clear", channel="counts", upto=3, by="ann")
    assert said == {"channel": "counts", "removed": 1, "size": len(body(count=1)), "last": 1, "more": False}
    bench.stored(4)
    bench.crash()
    bench.start()
    assert bench.numbers("lake") == [2]
    assert [(event["last"], event["by"]) for event in bench.log.events("messages-removed")][-1] == (1, "ann")
    assert bench.verified() == []


def test_a_consumer_that_the_policy_takes_away_holds_nothing(
    bench: Bench,
) -> None:
    bench.stored(1, 2)
    settle_all(bench, "erp")
    bench.pull("lake")
    lines = (LINES[0], msgspec.structs.replace(LINES[1], who=("erp",)))
    bench.work_by(make_rows(lines=lines))
    bench.move(3_601)
    assert bench.command("status")["channels"][0]["messages"] == 0
    assert bench.stored(3) == [3]
    bench.work_by(make_rows())
    assert bench.numbers("lake") == [3], "what it missed is gone; it goes on with what is there"


def test_what_is_dead_to_somebody_stays_until_that_is_decided(bench: Bench) -> None:
    bench.stored(1, 2)
    die(bench)
    settle_all(bench, "erp")
    settle_all(bench, "lake")
    bench.move(3_601)
    status = bench.command("status")["channels"][0]
    assert (status["messages"], status["gone"]) == (1, 2)
    assert bench.verified() == []
    bench.command("replay", channel="counts", consumer="erp", first=1, one=True, by="ann")
    handed = bench.pull()
    assert [message.number for message in handed.messages] == [1]
    bench.settle(handed, "failed")
    bench.settle(bench.pull(), "failed")
    bench.settle(bench.pull(), "failed")
    bench.command("skip", channel="counts", consumer="erp", first=1, by="ann")
    assert bench.command("status")["channels"][0]["messages"] == 0


@pytest.mark.parametrize("how", ["policy", "crash"])
def test_what_was_revived_is_handed_out_whatever_happens_in_between(bench: Bench, how: str) -> None:
    bench.stored(1, 2)
    die(bench)
    settle_all(bench, "erp")
    settle_all(bench, "lake")
    bench.move(3_601)
    bench.command("replay", channel="counts", consumer="erp", first=1, one=True, by="ann")
    if how == "policy":
        bench.work_by(make_rows((counts(tries=7),)))
    else:
        bench.crash()
        bench.start()
    handed = bench.pull()
    assert [message.number for message in handed.messages] == [1]
    bench.settle(handed, "done")
    bench.move(1)
    assert bench.command("status")["channels"][0]["messages"] == 0, "nobody waits for it any more"
    assert bench.verified() == []


def test_what_one_gives_up_another_still_gets(bench: Bench) -> None:
    bench.stored(1, 2)
    for who in ("erp", "lake"):
        die(bench, who)
        settle_all(bench, who)
    bench.move(3_601)
    bench.command("replay", channel="counts", consumer="erp", first=1, one=True, by="ann")
    bench.command("skip", channel="counts", consumer="lake", first=1, by="ann")
    assert bench.numbers("erp") == [1]


def test_alarms_say_what_needs_a_person(bench: Bench) -> None:
    bench.work_by(make_rows((counts(room_messages=10, alarm_oldest=60, alarm_silent=120),)))
    bench.move(2)
    assert bench.keeper.alarms() == {}
    bench.stored(*range(1, 9))
    hold(bench)
    bench.move(100)
    for _ in range(4):
        bench.keeper.tick()
    assert set(bench.keeper.alarms()) == {
        "counts-room", "counts-quarantine", "counts-erp-oldest", "counts-lake-oldest",
    }  # fmt: skip
    bench.move(100)
    for _ in range(4):
        bench.keeper.tick()
    assert "counts-erp-silent" in bench.keeper.alarms()
    die(bench)
    for _ in range(4):
        bench.keeper.tick()
    alarms = bench.keeper.alarms()
    assert "counts-erp-silent" not in alarms and "counts-erp-dead" in alarms
    assert alarms["counts-erp-oldest"] == "message 2 of counts has waited 200 s for erp"


def test_figures_are_those_that_are_declared(bench: Bench) -> None:
    bench.stored(1, 2)
    bench.push(("k1", body(count=1)), ("k2", body(count=9)))
    hold(bench)
    bench.settle(bench.pull())
    bench.pull("lake")
    bench.move(7)
    reported = bench.keeper.figures()
    check({figure.name: figure for figure in FIGURES}, reported)
    expected = {
        "pushed": {"counts": 2}, "repeated": {"counts": 1}, "conflicts": {"counts": 1}, "quarantined": {"counts": 1},
        "handed": {"counts erp": 1, "counts lake": 1}, "settled": {"counts erp": 1}, "waiting": {"counts": 2},
        "oldest": {"counts": 7_000_000_000}, "leases": {"counts": 1}, "lag": {"counts erp": 1, "counts lake": 2},
        "quarantine": {"counts": 1},
    }  # fmt: skip
    assert {name: reported[name] for name in expected} == expected


def test_windows_and_expiry_of_the_conduit_hold(bench: Bench) -> None:
    bench.stored(1)
    assert bench.pull("lake", wait_ms=60_000).messages
    handed = bench.pull("erp")
    bench.work_by(make_rows(), expires=bench.clock.wall + 10_000_000_000)
    assert bench.stored(2) == [2]
    bench.clock.move(11)
    assert refused(bench.push(("k3", body(count=3)))) == "window"
    assert refused(bench.pull("erp")) == "window"
    assert bench.settle(handed).results[0].state == "stored", "what is under way may be settled"


def test_status_says_how_long_the_oldest_has_waited(bench: Bench) -> None:
    def oldest() -> dict[str, int]:
        [channel] = [each for each in bench.command("status")["channels"] if each["channel"] == "counts"]
        return {each["consumer"]: each["oldest_ns"] // SECOND for each in channel["consumers"]}

    assert oldest() == {"erp": 0, "lake": 0}
    bench.stored(1)
    bench.move(5)
    bench.stored(2)
    bench.move(10)
    assert oldest() == {"erp": 15, "lake": 15}
    bench.settle(bench.pull())
    assert oldest() == {"erp": 10, "lake": 15}
    bench.settle(bench.pull())
    assert oldest() == {"erp": 0, "lake": 15}
