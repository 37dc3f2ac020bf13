"""Many messages in one push: each becomes what it would become alone, whatever stands beside it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper_push import TOGETHER_MOST
from cofferdam.brokers.relay.records import Answered, Item, Result
from cofferdam.brokers.relay.store import Store
from cofferdam.policy.terms.relay_rows import Limit
from tests.brokers.relay.keeping import COUNTS, Bench, body, make_rows

MANY = 2 * TOGETHER_MOST + 7


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def push(bench: Bench, items: list[Item]) -> list[Result]:
    number = bench.inner.ask(records.Push, "mes", "counts", tuple(items))
    while number not in bench.inner.answers:
        bench.run()
    answer = bench.inner.answers.pop(number)
    assert isinstance(answer, Answered), answer
    return list(answer.results)


def good(number: int, key: str = "") -> Item:
    return Item(key or f"k{number}", body(count=number, line="L\u00e9"))


def test_all_that_is_new_is_numbered_in_order_and_told_as_one_entry(bench: Bench) -> None:
    assert bench.stored(1_000_000) == [1]  # the channel and its producer are known from here on
    items = [good(number) for number in range(MANY)]
    results = push(bench, items)
    assert [(one.state, one.number, one.again) for one in results] == [
        ("stored", number, False) for number in range(2, MANY + 2)
    ]
    assert [one.sha256 for one in results] == [hashlib.sha256(item.body).digest() for item in items]
    entry = bench.log.events("messages-pushed")[-1]
    assert (entry["first"], entry["count"], entry["principal"]) == (2, MANY, "mes")
    assert entry["size"] == sum(len(item.body) for item in items)
    found = bench.keeper._work.store.messages("counts", 1, MANY)
    assert [(one.number, one.who, one.key, one.body) for one in found] == [
        (number, "mes", item.key, item.body) for number, item in enumerate(items, 2)
    ]
    assert bench.verified() == []
    again = push(bench, items)
    assert [(one.state, one.number, one.again) for one in again] == [
        ("stored", number, True) for number in range(2, MANY + 2)
    ]


def test_a_key_that_stands_twice_in_a_push_is_the_same_message_or_a_conflict(bench: Bench) -> None:
    items = [*map(good, range(50)), good(7), good(8, "k9"), good(60)]
    for _ in range(2):
        results = push(bench, items)
        assert [one.state for one in results] == ["stored"] * 51 + ["conflict", "stored"]
        assert (results[50].number, results[50].again) == (8, True)
        assert results[51].number == 10
        assert results[52].number == 51
        assert bench.verified() == []


@pytest.mark.parametrize("seed", range(6))
def test_a_push_of_anything_is_what_its_messages_are_alone(tmp_path: Path, seed: int) -> None:
    choose = random.Random(seed)
    limits = (Limit(at="/count", max=900), *((Limit(at="/count", key="/line", max_step=800),) if seed % 2 else ()))
    row = msgspec.structs.replace(COUNTS, room_messages=150, limits=limits)
    together, alone = (Bench(tmp_path / name, make_rows((row,))) for name in ("together", "alone"))

    def item() -> Item:
        number = choose.randrange(1_000)
        key = f"k{choose.randrange(400)}"
        if seed > 2 and choose.random() < 0.03:
            return Item(key, body(count="none"), doubtful=True)
        if number > 900:
            return Item(key, body(count=number), doubtful=True) if seed > 2 else good(900, key)
        return Item(key, body(count=number, line=choose.choice("AB")))

    def told(one: Result) -> Any:
        return one.state, one.number, one.again, one.sha256, one.other, one.problem, one.retry

    for _ in range(5):
        items = [item() for _ in range(choose.choice((1, 2, 40, 70)))]
        before = [result for each in items for result in push(alone, [each])]
        assert list(map(told, push(together, items))) == list(map(told, before))
    for bench in (together, alone):
        assert bench.verified() == []
        bench.close()


def test_what_has_no_room_in_the_middle_of_a_push_is_refused_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, make_rows((msgspec.structs.replace(COUNTS, room_messages=100),)))
    results = push(bench, [good(number) for number in range(130)])
    assert [one.state for one in results] == ["stored"] * 100 + ["refused"] * 30
    assert {one.problem.fault for one in results[100:] if one.problem is not None} == {"room"}
    assert bench.verified() == []
    bench.close()


def test_what_was_added_together_is_taken_back_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.begin()
    store.channel("counts")
    store.who("mes")
    store.commit([], {})
    keys, bodies = ["a", "b"], [b"1", b"2"]
    hashes = [hashlib.sha256(each).digest() for each in bodies]
    assert store.add_all("counts", 1, "mes", keys, bodies, hashes, 5)
    assert not store.add_all("counts", 3, "mes", ["c", "b"], bodies, hashes, 5), "one of them is known"
    assert not store.add_all("counts", 3, "mes", ["c", "c"], bodies, hashes, 5), "one of them stands twice"
    store.rollback()
    assert store.find("counts", "mes", "a") is None
    assert store.messages("counts", 0, 10) == []
    assert store.add_all("counts", 1, "mes", keys, bodies, hashes, 5)
    store.commit([], {})
    known = store.find("counts", "mes", "b")
    assert known is not None
    assert (known.number, known.sent) == (2, hashes[1])
    store.close()


def test_verdicts_given_together_are_what_they_are_alone(bench: Bench) -> None:
    push(bench, [good(number) for number in range(6)])
    handed = bench.pull(most=6)
    assert len(handed.messages) == 1, "strict"
    bench.settle(handed)
    wide = make_rows((msgspec.structs.replace(COUNTS, order=10),))
    bench.work_by(wide)
    handed = bench.pull(most=10)
    assert [message.number for message in handed.messages] == [2, 3, 4, 5, 6]

    def settle(*numbers: int) -> list[str]:
        verdicts = tuple(records.Verdict(number, "done") for number in numbers)
        number = bench.outer.ask(records.Settle, "erp", "counts", handed.lease, verdicts)
        bench.run()
        answer = bench.outer.answers[number]
        assert isinstance(answer, Answered)
        return [one.state for one in answer.results]

    assert settle(2, 99, 3, 3) == ["stored", "refused", "stored", "refused"]
    assert settle(4, 3) == ["stored", "refused"]
    assert settle(5, 6) == ["stored", "stored"]
    assert settle(5, 6) == ["refused", "refused"]
    assert [(each["count"], each["first"], each["last"]) for each in bench.log.events("messages-settled")] == [
        (1, 1, 1), (2, 2, 3), (1, 4, 4), (2, 5, 6),
    ]  # fmt: skip
    assert bench.verified() == []
    bench.crash()
    bench.start()
    assert bench.numbers(most=10) == []
