"""What a side may not say to the keeper: it ends the crew, and the store is as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.records import Item, Push, Works
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError
from cofferdam.policy.terms.relay_rows import Channel, Limit, Line
from tests.brokers.relay.keeping import COUNTS, LINES, Bench, SideEnd, body, make_rows, refused

ORDERS = Channel(name="orders", tries=3)
ROWS = make_rows(
    (msgspec.structs.replace(COUNTS, limits=(Limit(at="/count", max=1_000),)), ORDERS),
    (*LINES, Line(number=2, who=("erp",), push=("orders",)), Line(number=3, who=("mes",), pull=("orders",))),
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, ROWS)
    yield made
    made.close()


def pushes(who: str, channel: str, data: bytes, doubtful: bool = False) -> Callable[[int], Push]:
    return lambda number: Push(number, who, channel, (Item("evil", data, doubtful),))


OUTER: dict[str, Callable[[int], Any]] = {
    "another's channel": pushes("erp", "counts", body(count=1)),
    "a channel that there is not": pushes("erp", "nowhere", b"1"),
    "a principal of the other side": pushes("mes", "counts", body(count=1)),
    "a principal that there is not": pushes("root", "orders", b"1"),
    "pulls what it may only push": lambda number: records.Pull(number, "erp", "orders", 1, 30),
    "settles what it may only push": lambda number: records.Settle(
        number, "erp", "orders", 1, (records.Verdict(1, "done"),)
    ),
    "browses what it may only pull": lambda number: records.Browse(number, "erp", "counts", 0, 10),
    "not canonical": pushes("erp", "orders", b'{"a": 1}'),
    "not canonical, and doubtful": pushes("erp", "orders", b'{"b":1,"a":2}', True),
    "no JSON": pushes("erp", "orders", b"{"),
    "no JSON, and doubtful": pushes("erp", "orders", b"{", True),
    "a name twice": pushes("erp", "orders", b'{"a":1,"a":2}', True),
    "NaN": pushes("erp", "orders", b"NaN", True),
    "deep": pushes("erp", "orders", b"[" * 10_000 + b"]" * 10_000, True),
    "bytes": pushes("erp", "orders", b"\x00\xff\xfe", True),
    "too large for the channel": pushes("erp", "orders", b'"' + b"x" * 1_000_001 + b'"', True),
    "a number that skips": lambda number: Push(number + 1, "erp", "orders", (Item("k", b"1"),)),
    "a number again": lambda number: Push(number - 1, "erp", "orders", (Item("k", b"1"),)),
    "gives up what it has not asked": lambda number: records.GiveUp(number + 5),
}
INNER: dict[str, Callable[[int], Any]] = {
    "fails the schema": pushes("mes", "counts", body(count="many")),
    "fails a limit": pushes("mes", "counts", body(count=10_000_000)),
    "fails the schema in the middle of a batch": lambda number: Push(
        number, "mes", "counts", (Item("a", body(count=1)), Item("b", body(count=2.5)), Item("c", body(count=3)))
    ),
    "not canonical in the middle of a batch": lambda number: Push(
        number, "mes", "counts", (Item("a", body(count=1)), Item("b", b'{"count": 2}'), Item("c", body(count=3)))
    ),
    "a name twice in the middle of a batch": lambda number: Push(
        number, "mes", "counts", (Item("a", body(count=1)), Item("b", b'{"count":2,"count":2}'))
    ),
    "two bodies in one, and none in the next": lambda number: Push(
        number, "mes", "counts", (Item("a", b'{"count":1}\n{"count":2}'), Item("b", b""), Item("c", body(count=3)))
    ),
    "a body that ends in the next one": lambda number: Push(
        number, "mes", "counts", (Item("a", b'{"count":1,"text":"'), Item("b", b'"}'), Item("c", body(count=3)))
    ),
}


@pytest.mark.parametrize(
    ("side", "what"), [("outer", name) for name in OUTER] + [("inner", name) for name in INNER]
)  # fmt: skip
def test_what_no_sound_side_says_ends_the_crew_and_leaves_the_store_alone(bench: Bench, side: str, what: str) -> None:
    end: SideEnd = getattr(bench, side)
    bench.stored(1)
    assert bench.push(("o1", b"1"), who="erp", channel="orders").results[0].state == "stored"
    good = bench.inner.ask(Push, "mes", "counts", (Item("k2", body(count=2)),))  # of the same turn
    record = (OUTER if side == "outer" else INNER)[what](end.number + 1)
    end.keeper(record)
    with pytest.raises(CrossingError):
        bench.run()
    bench.keeper.halt()
    bench.run()
    assert good not in bench.inner.answers
    bench.crash()
    bench.start()
    found = {channel["channel"]: channel for channel in bench.command("status")["channels"]}
    assert (found["counts"]["messages"], found["orders"]["messages"]) == (1, 1)
    assert (found["counts"]["quarantine"], found["orders"]["quarantine"]) == (0, 0)
    assert {event["commit"] for event in bench.log.events("messages-pushed")} == {2, 3}, "one perhaps told twice"
    assert bench.verified() == []
    assert bench.stored(2) == [2]


def test_a_side_that_has_not_said_by_what_it_works_is_not_heard(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ROWS)
    bench.keeper.halt()
    bench.start(works=False)
    bench.inner.ask(Push, "mes", "counts", (Item("k", body(count=1)),))
    with pytest.raises(CrossingError, match="by which rows"):
        bench.run()
    bench.close()


def test_while_the_policy_changes_a_side_errs_without_harm(bench: Bench) -> None:
    """The side still works by the old rows: what it asks is refused, or checked by the new ones, and nobody ends."""
    row = make_rows(
        (msgspec.structs.replace(COUNTS, limits=(Limit(at="/count", max=5),)),),
        (Line(number=0, who=("scada",), push=("counts",)), LINES[1]),
    )
    bench.policy = bench.policy.__class__(
        msgspec.structs.replace(
            bench.policy.table,
            conduits={"out": msgspec.structs.replace(bench.policy.conduits["out"], terms=row)},
        )
    )
    bench.keeper.take_policy(bench.policy, ())
    assert refused(bench.push(("k1", body(count=1)))) == "policy"
    assert refused(bench.push(("o1", b"1"), who="erp", channel="orders")) == "policy"
    [result] = bench.push(("k2", body(count=100)), who="scada").results
    assert (result.state, result.problem.fault) == ("quarantined", "limit")
    bench.row = row
    bench.inner.keeper(Works(bench.fingerprint("inner")))
    bench.run()
    bench.inner.ask(Push, "mes", "counts", (Item("k3", body(count=1)),))
    with pytest.raises(CrossingError):
        bench.run()


def test_a_side_cannot_say_anything_else(bench: Bench) -> None:
    """Bytes instead of records: decoded, they are one of the closed set, or the crew ends."""
    codec: RecordCodec[Any] = RecordCodec(records.ToKeeper, limit=records.RECORD_BYTES)
    good = codec.encode(Push(1, "erp", "orders", (Item("k", b"1"),)))
    choose = random.Random(8)
    for _ in range(2_000):
        data = bytearray(good)
        for _ in range(choose.randint(1, 4)):
            data[choose.randrange(len(data))] = choose.randrange(256)
        try:
            record = codec.decode(bytes(data))
        except CrossingError:
            continue
        assert isinstance(record, (Works, Push, records.Pull, records.Settle, records.Browse, records.GiveUp))
    for wrong in (
        Push(0, "erp", "orders", (Item("k", b"1"),)),
        Push(1, "erp", "orders", ()),
        Push(1, "erp", "orders", (Item("", b"1"),)),
        Push(1, "erp", "orders", (Item("k" * 257, b"1"),)),
        Push(1, "", "orders", (Item("k", b"1"),)),
        Push(1, "erp", "orders", tuple(Item(str(n), b"1") for n in range(1_001))),
        records.Pull(1, "erp", "counts", 0, 30),
        records.Pull(1, "erp", "counts", 1_001, 30),
        records.Pull(1, "erp", "counts", 1, 30, 60_001),
        records.Settle(1, "erp", "counts", 1, ()),
        records.Settle(1, "erp", "counts", 1, (records.Verdict(0, "done"),)),
        records.Settle(1, "erp", "counts", 1, (records.Verdict(1, "eaten"),)),  # type: ignore[arg-type]
        Works(b"short"),
    ):
        with pytest.raises(CrossingError):
            codec.decode(codec.encode(wrong))


def test_a_flood_of_one_side_does_not_starve_the_other(bench: Bench) -> None:
    """Through channels that hold as much as a pipe: while one side has thousands waiting, the other is answered."""
    for number in range(5_000):
        bench.inner.ask(Push, "mes", "counts", (Item(f"k{number}", body(count=1)),))
    asked = bench.outer.ask(Push, "erp", "orders", (Item("o1", b"1"),))
    turns = 0
    while asked not in bench.outer.answers:
        bench.reactor.turn(0)
        turns += 1
    assert turns < 10
    for _ in range(100):
        bench.run()
    assert len(bench.inner.answers) == 5_000


def test_messages_as_large_as_can_be_cross_and_come_out_again(tmp_path: Path) -> None:
    large = Channel(name="counts", most=20_000_000, room=100_000_000, tries=3)
    bench = Bench(tmp_path, make_rows((large,)))
    data = b'"' + b"x" * (20_000_000 - 2) + b'"'
    number = bench.inner.ask(Push, "mes", "counts", (Item("k1", data),))
    while number not in bench.inner.answers:
        bench.run()
    answer = bench.inner.answers[number]
    assert isinstance(answer, records.Answered) and answer.results[0].state == "stored"
    asked = bench.outer.ask(records.Pull, "erp", "counts", 10, 30)
    while asked not in bench.outer.answers:
        bench.run()
    handed = bench.outer.answers[asked]
    assert isinstance(handed, records.Handed) and handed.messages[0].body == data
    assert bench.verified() == []
    bench.close()


def test_a_side_that_does_not_take_its_answers_holds_up_nobody(bench: Bench) -> None:
    """Its pulls wait; what it was not handed is leased to nobody."""
    assert bench.pull(wait_ms=30_000) is None
    # The other end reads no more.
    bench.outer.receiver.pause()
    bench.outer.sender.backlog_limit = -1
    bench.stored(1)
    assert bench.command("positions")[0]["leased"] == 0
    bench.outer.sender.backlog_limit = 1 << 20
    bench.outer.receiver.resume()
    bench.run(tick=True)
    assert isinstance(bench.outer.answers[1], records.Handed)
