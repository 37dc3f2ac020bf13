"""The keeper against a model: any interleaving of push, repeat, lease, settle, expiry, an auditor that lags, crashes.

numbers     1, 2, 3, ... without a gap, a key has one number for ever
promises    what was acknowledged is there, with that number and content, whatever came between
order       strict: a consumer is handed the next number when the one before is done or dead to it, and no sooner
settled     what a consumer's "done" was acknowledged for is not handed to it again
log         at each quiet moment the log has an entry for every message, with its hash, and for no other
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.records import Answered, Handed, Item, NotDone
from cofferdam.policy.terms.relay_rows import Line
from tests.brokers.relay.keeping import COUNTS, PRINCIPALS, Bench, body, make_rows
from tests.brokers.relay.power import PoweredBench
from tests.examples import examples

CONSUMERS = ("erp", "lake")
PRODUCERS = ("mes", "scada")
LINES = (Line(number=0, who=PRODUCERS, push=("counts",)), Line(number=1, who=CONSUMERS, pull=("counts",)))


class Keeping(RuleBasedStateMachine):
    """`order` is that of the channel: 1 is strict."""

    order = 1
    bench_of: type[Bench] = Bench

    @initialize()
    def begin(self) -> None:
        shared = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        channel = msgspec.structs.replace(COUNTS, order=self.order, keep=100_000)
        self.bench: Any = self.bench_of(self.folder, make_rows((channel,), LINES))
        self.fresh = 0
        self.keys: dict[tuple[str, str], int] = {}
        """What was acknowledged: its number."""
        self.sent: dict[tuple[str, str], bytes] = {}
        """What was ever sent under a key that is its first."""
        self.asked: dict[int, tuple[str, tuple[Item, ...]]] = {}
        """Pushes without an answer."""
        self.leases: list[tuple[str, Handed]] = []
        self.lease: dict[tuple[str, int], int] = {}
        """The lease that a consumer has a message under, of those that it knows."""
        self.done: dict[str, set[int]] = {who: set() for who in CONSUMERS}
        self.under: dict[str, dict[int, int]] = {who: {} for who in CONSUMERS}
        """number -> how often it was handed to a consumer by now, and not settled."""
        self.highest: dict[str, int] = dict.fromkeys(CONSUMERS, 0)
        self.contents: dict[int, tuple[str, str, bytes]] = {}

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self._quiet()
            self.bench.close()
            shutil.rmtree(self.folder)

    # --- producers ------------------------------------------------------------------------------------------------

    def _push(self, who: str, items: tuple[Item, ...]) -> None:
        for item in items:
            self.sent.setdefault((who, item.key), item.body)
        number = self.bench.inner.ask(records.Push, who, "counts", items)
        self.asked[number] = (who, items)
        self.bench.run()
        self._collect()

    def _collect(self) -> None:
        for number in [number for number in self.asked if number in self.bench.inner.answers]:
            who, items = self.asked.pop(number)
            answer = self.bench.inner.answers[number]
            if isinstance(answer, NotDone):
                assert answer.problem.fault == "log", answer
                continue
            assert isinstance(answer, Answered)
            for item, result in zip(items, answer.results, strict=True):
                key = (who, item.key)
                if result.state == "conflict":
                    assert self.sent[key] != item.body
                    assert self.keys.get(key, result.number) == result.number
                    continue
                assert result.state == "stored", result
                assert self.keys.setdefault(key, result.number) == result.number, "a key has one number"
                assert self._content(result.number, who, item.key, item.body)

    def _content(self, number: int, who: str, key: str, data: bytes) -> bool:
        return self.contents.setdefault(number, (who, key, data)) == (who, key, data)

    @rule(who=st.sampled_from(PRODUCERS), count=st.integers(1, 4))
    def push(self, who: str, count: int) -> None:
        items = tuple(Item(f"k{self.fresh + n}", body(count=self.fresh + n)) for n in range(count))
        self.fresh += count
        self._push(who, items)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        who, key = data.draw(st.sampled_from(sorted(self.sent)))
        self._push(who, (Item(key, self.sent[who, key]),))

    @precondition(lambda self: self.keys)
    @rule(data=st.data())
    def push_other_content(self, data: st.DataObject) -> None:
        who, key = data.draw(st.sampled_from(sorted(self.keys)))
        self._push(who, (Item(key, body(count=-1)),))

    # --- consumers ------------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from(CONSUMERS), most=st.integers(1, 5))
    def pull(self, who: str, most: int) -> None:
        answer = self.bench.pull(who, most)
        if answer is None or isinstance(answer, NotDone):
            return
        logged: set[int] = set()
        for event in self.bench.log.events("messages-pushed") if answer.messages else ():
            logged |= set(range(event["first"], event["first"] + event["count"]))
        for message in answer.messages:
            assert message.number in logged, "it is handed out only after it was recorded"
            self.lease[who, message.number] = answer.lease
            assert message.number not in self.done[who], "what was done is not handed out again"
            assert self._content(message.number, message.who, message.key, message.body)
            under = self.under[who]
            assert message.count >= under.get(message.number, 0) + 1 or message.number not in under
            if self.order == 1:
                lower = {number for number in range(1, message.number)} - self.done[who]
                assert not {number for number in lower if number > self.highest[who]}, "one was left out"
                assert len(answer.messages) == 1
            under[message.number] = message.count
            self.highest[who] = max(self.highest[who], message.number)
        assert len({message.number for message in answer.messages}) == len(answer.messages) <= min(most, self.order)
        if answer.messages:
            self.leases.append((who, answer))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), says=st.sampled_from(("done", "done", "failed", "extend")))
    def settle(self, data: st.DataObject, says: Any) -> None:
        who, handed = data.draw(st.sampled_from(self.leases))
        answer = self.bench.settle(handed, says, who=who, seconds=5 if says == "extend" else 0)
        assert isinstance(answer, Answered), answer
        for message, result in zip(handed.messages, answer.results, strict=True):
            if result.state == "stored":
                assert self.lease[who, message.number] == handed.lease, "it has been handed out again since"
            if result.state == "stored" and says == "done":
                self.done[who].add(message.number)
            if result.state == "stored" and says != "extend":
                self.under[who].pop(message.number, None)

    # --- time, the log, crashes -------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.5, 10, 31, 400)))
    def time_goes_by(self, seconds: float) -> None:
        self.bench.move(seconds)
        self._collect()

    @rule(seconds=st.sampled_from((-1_000_000, -50, 50, 1_000_000)))
    def the_clock_is_set(self, seconds: int) -> None:
        self.bench.clock.wall = max(1, self.bench.clock.wall + seconds * 1_000_000_000)
        self.bench.run(tick=True)
        self._collect()

    @rule()
    def the_auditor_lags(self) -> None:
        self.bench.log.held = True

    @precondition(lambda self: self.bench.log.held)
    @rule()
    def the_auditor_catches_up(self) -> None:
        self._quiet()

    def _quiet(self) -> None:
        self.bench.log.held = False
        self.bench.log.record()
        self.bench.run(tick=True)
        self.bench.run(tick=True)
        self._collect()
        assert self.bench.verified() == [], "store and log agree"

    @rule(in_the_middle=st.booleans(), lost=st.booleans())
    def crash(self, in_the_middle: bool, lost: bool) -> None:
        if in_the_middle:  # nothing of the turn's records has been taken, or all, and no answer has come
            self.bench.inner.ask(records.Push, "mes", "counts", (Item(f"k{self.fresh}", body(count=self.fresh)),))
            self.sent.setdefault(("mes", f"k{self.fresh}"), body(count=self.fresh))
            self.fresh += 1
            self.bench.reactor.turn(0)
        self.bench.crash(lost=lost)
        self.asked = {}
        self.bench.log.held = lost
        self.bench.start()
        self._collect()

    @rule()
    def the_gate_stops_and_starts(self) -> None:
        self._quiet()
        self.bench.end()
        self._collect()
        assert not self.asked
        self.bench.start()

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def promises_are_kept(self) -> None:
        if not hasattr(self, "bench"):
            return
        listed: dict[int, Any] = {}
        after = 0
        while page := self.bench.command("list", channel="counts", after=after, most=1000):
            listed |= {one["number"]: one for one in page}
            after = page[-1]["number"]
        assert sorted(listed) == list(range(1, len(listed) + 1)), "numbers have no gap"
        for key, number in self.keys.items():
            assert (listed[number]["who"], listed[number]["key"]) == key
        names = [(one["who"], one["key"]) for one in listed.values()]
        assert len(set(names)) == len(names), "nothing is stored twice"
        [status] = self.bench.command("status")["channels"]
        assert (status["next"], status["messages"]) == (len(listed) + 1, len(listed))


class KeepingParallel(Keeping):
    """Several messages of a consumer are under way."""

    order = 4


class KeepingPower(Keeping):
    """The power fails as well: the store has what it last synced, the log that and perhaps more."""

    bench_of = PoweredBench

    @rule(in_the_sync=st.booleans(), lost=st.booleans())
    def the_power_fails(self, in_the_sync: bool, lost: bool) -> None:
        if in_the_sync:
            item = Item(f"k{self.fresh}", body(count=self.fresh))
            self.fresh += 1
            self.sent.setdefault(("mes", item.key), item.body)
            self.bench.cut_in_sync(lambda: self.bench.inner.ask(records.Push, "mes", "counts", (item,)))
        self.bench.power_fails(lost=lost)
        # Leases were perhaps never made.
        self.asked, self.leases, self.lease = {}, [], {}
        self.under = {who: {} for who in CONSUMERS}
        self.bench.start()
        self._collect()


assert set(PRODUCERS + CONSUMERS) <= PRINCIPALS.keys()
TestKeeping = Keeping.TestCase
TestKeepingParallel = KeepingParallel.TestCase
TestKeepingPower = KeepingPower.TestCase
TestKeeping.settings = TestKeepingParallel.settings = TestKeepingPower.settings = examples(40, stateful_step_count=30)
