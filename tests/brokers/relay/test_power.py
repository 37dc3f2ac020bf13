"""Store and log are written at the same time: what is told before the disk has it, and what becomes of that when the
power fails in between."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper_work import KEPT_NS
from cofferdam.brokers.relay.ledger import SYNCED_NS, booked
from cofferdam.brokers.relay.records import Item
from cofferdam.cli.main import main
from cofferdam.errors import GateError
from tests.brokers.relay.keeping import SECOND, body, logged
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


def backed_up(bench: PoweredBench) -> Path:
    """A backup with one message; the keeper runs again."""
    bench.stored(1)
    bench.end()
    backup = bench.folder / "backup"
    shutil.copytree(bench.store, backup)
    bench.start()
    return backup


def put_back(bench: PoweredBench, backup: Path) -> None:
    bench.store = bench.folder / "put-back"
    shutil.copytree(backup, bench.store)
    bench.start()


def ask_for_two(bench: PoweredBench) -> int:
    items = (Item("k2", body(count=2)), Item("k3", body(count=3)))
    return bench.inner.ask(records.Push, "mes", "counts", items)


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
    backup = backed_up(bench)
    bench.stored(2)
    if end == "in order":
        bench.end()
    else:
        bench.move(KEPT_NS / SECOND + 1)
        bench.power_fails()
    put_back(bench, backup)
    assert any("in the log by commit" in each and "not in the store" in each for each in bench.verified())
    bench.stored(3)
    assert any("given out once more" in each for each in bench.verified())


def test_that_the_last_messages_last_is_told_once_whatever_else_was_told(bench: PoweredBench) -> None:
    bench.stored(1)
    assert bench.log.events("store-kept") == []
    for _ in range(3):
        bench.move(KEPT_NS / SECOND)
    [kept] = bench.log.events("store-kept")
    assert kept["commit"] == pushed(bench)[-1][0]
    bench.stored(2)
    handed = bench.pull()
    assert bench.settle(handed).results[0].state == "stored"
    for _ in range(3):
        bench.move(KEPT_NS / SECOND)
    assert [each["commit"] for each in bench.log.events("store-kept")] == [kept["commit"], pushed(bench)[-1][0]]


def test_three_kinds_of_entries_are_enough_where_messages_were_handed_out_since(bench: PoweredBench) -> None:
    """The evidence reads no others."""
    backup = backed_up(bench)
    bench.stored(2)
    bench.settle(bench.pull())
    bench.move(KEPT_NS / SECOND + 1)
    bench.power_fails()
    put_back(bench, backup)
    bench.stored(3)
    every = bench.log.events()
    told = [event for event in every if event["kind"] in ("messages-pushed", "store-opened", "store-kept")]
    for events in (every, told):
        counts, passed = booked(logged(events))
        assert [one.event["first"] for one in counts] == [1, 2, 2]
        assert passed == []


def test_verify_says_what_it_passes_over(
    bench: PoweredBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(state: object, command: str, *, part: str, verb: str, crew: str, arguments: Any, **more: object) -> Any:
        if part != "keeper":
            raise GateError("no strand carries it")
        return [{"crew": "relay", "result": bench.command(verb, **arguments)}]

    monkeypatch.setattr("cofferdam.gate.client.ask", ask)
    keys = bench.folder / "keys"
    keys.mkdir()
    (keys / "audit.pub").write_text(f"{bench.log.log.key.verifier.text}\n")
    words = ["relay", "verify", "--log", str(bench.log.log.folder)]
    bench.stored(1)
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] == []
    assert bench.cut_in_sync(lambda: ask_for_two(bench))
    bench.power_fails()
    bench.clock.move(3)
    bench.start()
    entries = bench.log.events()
    [at] = [number for number, event in enumerate(entries) if event.get("first") == 2]
    opened = [number for number, event in enumerate(entries) if event["kind"] == "store-opened"][-1]
    assert main(words) == 0
    assert f"passed over: entry {at}, counts 2 to 3, which the store lacked when" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    [said] = json.loads(capsys.readouterr().out)["passed"]
    assert said == {
        "entry": at, "channel": "counts", "first": 2, "count": 2, "commit": entries[at]["commit"], "opened": opened,
        "seconds_before": 3.0,
    }  # fmt: skip


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


def event(kind: str, commit: int, first: int = 0, store: str = "s", channel: str = "c") -> dict[str, Any]:
    return {"kind": kind, "store": store, "commit": commit, "first": first, "count": 1, "channel": channel}


def test_which_entries_count() -> None:
    log: list[dict[str, Any]] = [
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
    counts, passed = booked(logged(log))
    assert [(one.event["store"], one.event["commit"], one.event["first"]) for one in counts] == [
        ("s", 2, 1), ("s", 3, 2), ("s", 3, 2), ("s", 3, 2), ("s", 3, 3), ("s", 4, 4), ("other", 2, 7), ("s", 4, 5),
    ]  # fmt: skip
    assert passed == []


def test_one_entry_of_a_channel_is_passed_over_and_no_more() -> None:
    """A keeper tells a commit twice only after it has synced it."""
    begins = [event("messages-pushed", 1, 1)]
    cut = [event("messages-pushed", 2, 2), event("messages-pushed", 2, 5, channel="d"), event("store-opened", 1)]
    counts, passed = booked(logged([*begins, *cut], 2 * SECOND))
    assert [one.event["first"] for one in counts] == [1]
    assert [(one.entry.index, one.opened.index) for one in passed] == [(1, 3), (2, 3)]
    assert [one.as_json()["seconds_before"] for one in passed] == [4.0, 2.0]
    hidden = [event("messages-pushed", 2, first) for first in range(2, 100)]
    counts, passed = booked(logged([*begins, *hidden, event("store-opened", 1)]))
    assert [one.event["first"] for one in counts] == list(range(1, 100))
    assert passed == []


def test_an_entry_counts_if_its_keeper_lived_on_for_longer_than_a_sync() -> None:
    for later in (event("messages-pushed", 2, 5, channel="d"), event("messages-leased", 2), event("store-kept", 1)):
        log = [event("messages-pushed", 2, 2), later, event("store-opened", 1)]
        assert booked(logged(log, SYNCED_NS))[1] != []
        counts, passed = booked(logged(log, SYNCED_NS + 1))
        assert counts[0].event["first"] == 2
        assert passed == []
    log = [event("messages-pushed", 2, 2), event("store-opened", 1)]
    assert len(booked(logged(log, 24 * 3600 * SECOND))[1]) == 1, "without power until the next day"


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
