"""What one side may have of the keeper's time and memory, whatever it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper_rows import Known
from cofferdam.brokers.relay.keeper_turns import ANSWERS_OF_TURN, EFFORT_OF_TURN, QUEUED_BYTES, QUEUED_MOST
from cofferdam.brokers.relay.records import Answered, Handed, Item, NotDone
from cofferdam.brokers.relay.store import Store
from cofferdam.crossing.memory import MemoryReceiver
from cofferdam.errors import CrossingError
from cofferdam.policy.messages.json_reading import canonical
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, Channel, Limit, Line
from tests.brokers.relay.keeping import COUNTS, Bench, SideEnd, body, make_rows

LARGE = Channel(name="large", most=LARGEST_MESSAGE, room=1 << 30)
PARTS = Channel(name="parts", limits=(Limit(at="/parts/*/v", max_step=5, key="/parts/*/id"),))
OUTWARDS = ("counts", "large", "parts")
ROWS = make_rows(
    (COUNTS, LARGE, PARTS),
    (
        Line(number=0, who=("mes",), push=OUTWARDS),
        Line(number=1, who=("erp", "lake"), pull=OUTWARDS, browse=OUTWARDS),
    ),
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, ROWS)
    yield made
    made.close()


def unread(side: SideEnd) -> MemoryReceiver[Any]:
    """The side takes no more answers."""
    receiver: MemoryReceiver[Any] = side.receiver
    receiver.pause()
    return receiver


def backlog(side: SideEnd) -> int:
    return side.sender.backlog + sum(map(len, side.receiver.packets))


def until_answered(bench: Bench, side: SideEnd, asked: list[int]) -> int:
    """Returns after how many turns all is answered."""
    for turn in range(1_000):
        if all(number in side.answers for number in asked):
            return turn
        bench.reactor.turn(0.02)
    raise AssertionError("not all is answered")


def test_a_side_that_takes_no_answers_is_read_no_bodies(bench: Bench) -> None:
    text = canonical("x" * 4_000_000)
    for number in range(3):
        assert isinstance(bench.push((f"k{number}", text), channel="large"), Answered)
    receiver = unread(bench.outer)
    asked = [bench.outer.ask(records.Browse, "erp", "large", number % 3, 1) for number in range(60)]
    asked += [bench.outer.ask(records.Pull, who, "large", 1, 30) for who in ("erp", "lake")]
    for _ in range(20):
        bench.run()
    assert backlog(bench.outer) < ANSWERS_OF_TURN + 5_000_000
    assert isinstance(bench.push(("k9", b"1"), channel="large"), Answered), "the other side is served"
    receiver.resume()
    until_answered(bench, bench.outer, asked)
    assert all(isinstance(bench.outer.answers[number], Handed) for number in asked), "none was lost"
    assert sum(len(message.body) for number in asked for message in _messages(bench, number)) > 40 * 4_000_000


def _messages(bench: Bench, number: int) -> tuple[records.Message, ...]:
    answer = bench.outer.answers[number]
    assert isinstance(answer, Handed)
    return answer.messages


def test_pulls_that_wait_are_woken_as_far_as_a_turn_goes(bench: Bench) -> None:
    asked = [bench.outer.ask(records.Pull, who, "large", 1, 30, 60_000) for who in ("erp", "lake") * 2]
    bench.run()
    receiver = unread(bench.outer)
    held = LARGEST_MESSAGE - 1_000
    text = canonical("x" * held)
    for number in range(2):
        assert isinstance(bench.push((f"k{number}", text), channel="large"), Answered)
    bench.run(tick=True)
    assert backlog(bench.outer) < 1.5 * held
    receiver.resume()
    until_answered(bench, bench.outer, asked[:2])


def test_what_waits_of_a_side_is_bounded(bench: Bench) -> None:
    text = canonical("x" * 4_000_000)
    assert isinstance(bench.push(("k", text), channel="large"), Answered)
    receiver = unread(bench.outer)
    more = QUEUED_MOST + 500
    asked = [bench.outer.ask(records.Browse, "erp", "large", 0, 1) for _ in range(more)]
    bench.run()
    side = bench.keeper._sides["outer"]
    assert len(side.queue) <= QUEUED_MOST
    assert bench.keeper.busy >= len(side.queue)
    receiver.resume()
    bench.run()
    last = bench.outer.answers[asked[-1]]
    assert isinstance(last, NotDone)
    assert (last.problem.fault, last.retry) == ("busy", 1)
    assert side.queued <= QUEUED_BYTES


def lots(first: int, count: int = 900, series: int = 450, value: int = 1) -> bytes:
    return canonical({"parts": [{"id": f"p{first + each % series}", "v": value} for each in range(count)]})


def test_a_push_of_many_series_goes_on_in_later_turns(bench: Bench) -> None:
    items = tuple(Item(f"k{number}", lots(number * 450)) for number in range(20))
    asked = bench.inner.ask(records.Push, "mes", "parts", items)
    browsed = bench.outer.ask(records.Browse, "erp", "parts", 0, 10)
    assert 4 * EFFORT_OF_TURN < 20 * 900
    bench.reactor.turn(0)
    channel = bench.keeper._work.machine.channels["parts"]
    assert 0 < channel.next - 1 <= EFFORT_OF_TURN // 900 + 1, "a turn has its end"
    assert asked not in bench.inner.answers
    assert browsed in bench.outer.answers, "the other side was served in this turn"
    assert until_answered(bench, bench.inner, [asked]) >= 3
    answer = bench.inner.answers[asked]
    assert isinstance(answer, Answered)
    assert [result.number for result in answer.results] == list(range(1, 21))
    assert bench.verified() == []
    again = bench.inner.ask(records.Push, "mes", "parts", items)
    until_answered(bench, bench.inner, [again])
    assert {result.again for result in getattr(bench.inner.answers[again], "results")} == {True}  # noqa: B009


def test_a_push_that_is_refused_halfway_is_answered_once_and_can_be_repeated(bench: Bench) -> None:
    items = tuple(Item(f"k{number}", lots(number * 450)) for number in range(20))
    asked = bench.inner.ask(records.Push, "mes", "parts", items)
    bench.reactor.turn(0)
    bench.keeper.set_severed(frozenset({"ot"}))
    until_answered(bench, bench.inner, [asked])
    assert isinstance(bench.inner.answers[asked], NotDone)
    bench.keeper.set_severed(frozenset())
    stored = bench.keeper._work.machine.channels["parts"].next - 1
    assert 0 < stored < 20
    again = bench.inner.ask(records.Push, "mes", "parts", items)
    until_answered(bench, bench.inner, [again])
    answer = bench.inner.answers[again]
    assert isinstance(answer, Answered)
    assert [result.number for result in answer.results] == list(range(1, 21))
    assert [result.again for result in answer.results] == [True] * stored + [False] * (20 - stored)


def test_a_violation_in_a_later_turn_is_its_sides(bench: Bench) -> None:
    items = [Item(f"k{number}", lots(number * 450)) for number in range(10)]
    bench.inner.ask(records.Push, "mes", "parts", (*items, Item("evil", b'{"b":1, "a":2}')))
    with pytest.raises(CrossingError) as caught:
        for _ in range(20):
            bench.reactor.turn(0.02)
    assert caught.value.by == "inner"


def test_one_message_of_too_many_series_is_refused_by_words(bench: Bench) -> None:
    answer = bench.push(("k", lots(0, 1_001, 1_001)), channel="parts")
    assert isinstance(answer, Answered)
    [result] = answer.results
    assert result.state == "quarantined"
    assert result.problem is not None
    assert "1001 series" in result.problem.detail
    [sound] = bench.push(("k2", lots(0, 1_001, 1_000)), channel="parts").results
    assert sound.state == "stored"


def test_a_series_is_looked_up_once_in_a_turn_and_remembered_right(bench: Bench) -> None:
    store = bench.keeper._work.store
    looked: list[str] = []
    one = store.one

    def counted(sql: str, *values: Any) -> Any:
        looked.append(sql)
        return one(sql, *values)

    store.one = counted  # type: ignore[method-assign]
    answer = bench.push(*[(f"k{number}", lots(0, 20, 10, number)) for number in range(5)], channel="parts")
    assert {result.state for result in answer.results} == {"stored"}
    assert sum("FROM steps WHERE channel=? AND lim" in sql for sql in looked) == 10
    assert sum("count(*) FROM steps" in sql for sql in looked) <= 1
    assert store.series.count("parts") == one("SELECT count(*) FROM steps")[0] == 10
    [far] = bench.push(("far", lots(0, 1, 1, 10)), channel="parts").results
    assert far.problem is not None
    assert far.problem.fault == "step"
    [near] = bench.push(("near", lots(0, 1, 1, 9)), channel="parts").results
    assert near.state == "stored"


def test_what_was_taken_back_is_not_remembered(bench: Bench) -> None:
    store = bench.keeper._work.store
    assert isinstance(bench.push(("k", lots(0, 1, 1, 1)), channel="parts"), Answered)
    before = store.series.recall("parts", "/parts/*/v /parts/*/id", "p0")
    assert before is None or before.value == 1
    [known] = [msgspec.structs.replace(row) for row in bench.keeper._work.machine.steps]
    store.series.remember([msgspec.structs.replace(known, value=77)])
    store.rollback()
    found = store.series.recall(known.channel, known.limit, known.key)
    assert found is not None
    assert found.value == 1


def test_what_was_added_is_seen_by_what_comes_next_and_is_taken_back_with_its_turn(tmp_path: Path) -> None:
    """(Messages that are added are written together, a little later.)"""
    store = Store(tmp_path)

    def add(number: int) -> None:
        assert store.find("counts", "mes", f"k{number}") is None
        store.add("counts", number, "mes", f"k{number}", b"1", bytes(32), bytes(32), 1)

    def numbers() -> list[int]:
        return [message.number for message in store.messages("counts", 0, 10)]

    add(1)
    add(2)
    assert [store.find("counts", "mes", key) for key in ("k1", "k2")] == [Known(1, bytes(32)), Known(2, bytes(32))]
    assert numbers() == [1, 2]
    add(3)
    store.commit([], {})
    assert numbers() == [1, 2, 3]
    add(4)
    store.rollback()
    assert numbers() == [1, 2, 3]
    add(4)
    store.write()
    store.commit([], {})
    assert numbers() == [1, 2, 3, 4]
    store.close()


def test_a_flood_of_requests_leaves_the_other_side_its_part_of_each_turn(bench: Bench) -> None:
    bench.stored(1, 2, 3)
    asked = [bench.outer.ask(records.Browse, "erp", "counts", 0, 3) for _ in range(1_000)]
    mine = bench.inner.ask(records.Push, "mes", "counts", (Item("mine", body(count=4)),))
    for _ in range(2):
        bench.reactor.turn(0)
    assert mine in bench.inner.answers
    assert len(bench.outer.answers) < 1_000, "the flood waits for its next turns"
    until_answered(bench, bench.outer, asked)
    assert all(isinstance(bench.outer.answers[number], Handed) for number in asked)


def test_a_pull_that_was_given_up_in_the_queue_is_handed_nothing(bench: Bench) -> None:
    bench.stored(1)
    for _ in range(800):
        bench.outer.ask(records.Browse, "erp", "counts", 0, 3)
    asked = bench.outer.ask(records.Pull, "erp", "counts", 1, 30)
    bench.outer.keeper(records.GiveUp(asked))
    for _ in range(20):
        bench.run()
    assert asked not in bench.outer.answers
    assert bench.numbers() == [1]


@pytest.mark.parametrize("key", ["a\nb", "\x00", " ", "\x1b[2J", "\u202e", "a\u2028b"])
def test_a_key_that_no_side_takes_ends_the_crew(bench: Bench, key: str) -> None:
    bench.inner.ask(records.Push, "mes", "counts", (Item("sound", body(count=1)), Item(key, body(count=2))))
    with pytest.raises(CrossingError, match="printable"):
        bench.run()


def test_a_key_of_an_event_is_taken(bench: Bench) -> None:
    [result] = bench.push(("/line/4 Zähler 17", body(count=1))).results
    assert result.state == "stored"
