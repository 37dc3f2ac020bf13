"""Store and log are written at the same time: what is told before the disk has it, and what becomes of that when the
power fails in between."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper_work import KEPT_NS
from cofferdam.brokers.relay.ledger import booked
from cofferdam.brokers.relay.records import Item
from tests.brokers.relay.keeping import SECOND, body
from tests.brokers.relay.power import Killed, PoweredBench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PoweredBench]:
    made = PoweredBench(tmp_path)
    yield made
    made.close()


def pushed(bench: PoweredBench) -> list[tuple[int, int]]:
    """(commit, first number) of each entry that is not told again."""
    told = bench.log.events("messages-pushed")
    return [(event["commit"], event["first"]) for event in told if not event["again"]]


def ask(bench: PoweredBench, key: str, count: int) -> int:
    return bench.inner.ask(records.Push, "mes", "counts", (Item(key, body(count=count)),))


def test_what_was_told_and_is_not_there_was_never_acknowledged_and_counts_for_nothing(bench: PoweredBench) -> None:
    assert bench.stored(1, 2) == [1, 2]
    assert bench.cut_in_sync(lambda: ask(bench, "k3", 3))
    before = dict(bench.inner.answers)
    bench.power_fails()
    assert [first for _, first in pushed(bench)] == [1, 3], "it was told while the disk was waited for"
    assert all(answer.request <= 1 for answer in before.values()), "and nobody was told that it was there"
    bench.start()
    assert bench.verified() == []
    [result] = bench.push(("k9", body(count=9))).results
    assert (result.state, result.number) == ("stored", 3), "its number is the next message's"
    assert [first for _, first in pushed(bench)] == [1, 3, 3]
    assert bench.numbers("erp", 1) == [1]
    assert bench.verified() == []
    assert bench.stored(3) == [4], "and its key is new"
    assert bench.verified() == []


def test_what_the_disk_had_is_told_again_and_counts_once(bench: PoweredBench) -> None:
    """The power fails behind the sync, before anything was answered, and the log has it or not."""
    for lost, count in ((True, 1), (False, 2)):
        bench.log.held = True
        number = ask(bench, f"k{count}", count)
        bench.run()
        assert number not in bench.inner.answers, "the disk has it, and the log has not said so"
        bench.power_fails(lost=lost)
        bench.start()
        assert [result.again for result in bench.push((f"k{count}", body(count=count))).results] == [True]
        assert bench.verified() == []


@pytest.mark.parametrize("end", ["in order", "by the power, later"])
def test_a_backup_that_lacks_but_the_last_message_is_not_taken_for_a_power_cut(bench: PoweredBench, end: str) -> None:
    bench.stored(1)
    bench.end()
    backup = bench.folder / "backup"
    shutil.copytree(bench.store, backup)
    bench.start()
    bench.stored(2)
    if end == "in order":
        bench.end()
    else:
        bench.move(KEPT_NS / SECOND + 1)
        bench.power_fails()
    bench.store = bench.folder / "put-back"
    shutil.copytree(backup, bench.store)
    bench.start()
    assert any("in the log by commit" in each and "not in the store" in each for each in bench.verified())
    bench.stored(3)
    assert any("given out once more" in each for each in bench.verified())


def test_that_the_last_messages_last_is_told_once_and_only_where_nothing_shows_it(bench: PoweredBench) -> None:
    bench.stored(1)
    assert bench.log.events("store-kept") == []
    for _ in range(3):
        bench.move(KEPT_NS / SECOND)
    [kept] = bench.log.events("store-kept")
    assert kept["commit"] == pushed(bench)[-1][0]
    bench.stored(2)
    handed = bench.pull()
    assert bench.settle(handed).results[0].state == "stored"
    bench.move(KEPT_NS / SECOND + 1)
    assert len(bench.log.events("store-kept")) == 1, "a later commit's entry shows it"


def test_nothing_is_told_before_the_log_has_that_the_store_was_opened(bench: PoweredBench) -> None:
    """Else entries of this keeper could be taken for the last one's."""
    bench.stored(1)
    bench.power_fails()
    bench.log.held = True
    bench.start()
    number = ask(bench, "k2", 2)
    bench.run()
    bench.log.lose("the disk is full")
    bench.run()
    assert bench.inner.answers[number].problem.fault == "log"  # type: ignore[union-attr]
    bench.log.held = False
    number = ask(bench, "k3", 3)
    bench.run()
    assert number not in bench.inner.answers
    bench.run(tick=True)
    assert bench.inner.answers[number].results[0].number == 3  # type: ignore[union-attr]
    found = [(event["kind"], event.get("first")) for event in bench.log.events() if "commit" in event]
    assert found[-4:] == [("store-opened", None), *(("messages-pushed", number) for number in (1, 2, 3))]
    assert bench.push(("k2", body(count=2))).results[0].again
    assert bench.verified() == []


def test_which_entries_count() -> None:
    def event(kind: str, commit: int, first: int = 0, store: str = "s") -> dict[str, object]:
        return {"kind": kind, "store": store, "commit": commit, "first": first}

    log: list[dict[str, object]] = [
        event("store-opened", 0),
        event("messages-pushed", 2, 1),
        event("messages-pushed", 2, 7, "other"),
        event("messages-pushed", 3, 2),
        event("messages-pushed", 3, 2),  # told again
        event("store-opened", 2),  # commit 3 was not there
        event("messages-pushed", 3, 2),
        event("messages-leased", 4),
        event("store-opened", 2),  # a backup: commit 3 had lasted
        event("messages-pushed", 3, 3),
        event("store-kept", 3),
        event("messages-pushed", 4, 4),
        event("store-opened", 2),  # a backup, whatever became of commit 4
        event("messages-pushed", 4, 5),
        event("store-opened", 9, 0, "other"),
        event("store-opened", 4),
        {"kind": "gate-started"},
    ]
    assert [(one["store"], one["commit"], one["first"]) for one in booked(log)] == [
        ("s", 2, 1), ("s", 3, 2), ("s", 3, 3), ("s", 4, 4), ("other", 2, 7), ("s", 4, 5),
    ]  # fmt: skip


class Script:
    """A producer that pushes, singly and many at once, and again what it got no answer to; a consumer that settles."""

    def __init__(self, bench: PoweredBench) -> None:
        self.bench = bench
        self.stored: dict[str, int] = {}
        self.done: set[int] = set()

    def push(self, *counts: int) -> None:
        answer = self.bench.push(*[(f"k{count}", body(count=count)) for count in counts])
        for count, result in zip(counts, answer.results, strict=True):
            assert self.stored.setdefault(f"k{count}", result.number) == result.number

    def take(self) -> None:
        handed = self.bench.pull()
        assert not {message.number for message in handed.messages} & self.done, "what was done comes again"
        if handed.messages and self.bench.settle(handed).results[0].state == "stored":
            self.done |= {message.number for message in handed.messages}

    def play(self) -> None:
        self.push(1)
        self.push(2, 3, 4)
        self.take()
        self.push(5)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder that no disk holds up."""
    shared = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("how", ["killed", "without power", "without power, and the log has nothing of it"])
def test_killed_before_each_statement(in_memory: Path, how: str) -> None:
    """Of all that the script has the store do, one after the other, its syncs among them."""
    at, ended = 0, True
    while ended:
        at += 1
        folder = in_memory / str(at)
        folder.mkdir()
        bench = PoweredBench(folder)
        script, seen = Script(bench), 0

        def before(_: str, at: int = at) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise Killed

        bench.before = before
        try:
            script.play()
            ended = False
        except Killed:
            pass
        bench.before = lambda _: None
        if how == "killed":
            bench.crash()
        else:
            bench.power_fails(lost=how != "without power")
        bench.start()
        assert bench.verified() == [], at
        bench.move(31)  # a lease that nobody knows of ends
        script.play()
        assert sorted(script.stored.values()) == [1, 2, 3, 4, 5], at
        assert len(script.done) >= 1, at
        assert bench.verified() == [], at
        bench.close()
        shutil.rmtree(folder)
    assert at > 30, "the script has the store do more than that"
