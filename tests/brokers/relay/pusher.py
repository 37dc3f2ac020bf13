"""A keeper in a process of its own, with an auditor and a pushing, pulling, settling side in the same loop. It prints
what was acknowledged. For tests that kill it, or let its disk fail.

    python -m tests.brokers.relay.pusher FOLDER SEED

prints, each line whole and at once:

    stored KEY NUMBER       a push was acknowledged
    handed NUMBER           the consumer was handed a message (strict order)
    done NUMBER             its settling was acknowledged
    refused FAULT           a request was refused
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from cofferdam.audit.client import AuditClient
from cofferdam.audit.records import Ack, Batch, FromAuditor, Hello, ToAuditor
from cofferdam.audit.recovery import open_log
from cofferdam.audit.service import Auditor
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.broker import RELAY
from cofferdam.brokers.relay.keeper_part import Keeper
from cofferdam.brokers.relay.records import Answered, FromKeeper, Handed, Item, NotDone, ToKeeper, Verdict, Works
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.memory import memory_channel
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import StoreError
from cofferdam.policy.terms.relay_rows import Channel, fingerprint, slice_for
from tests.brokers.relay.keeping import PRINCIPALS, body, make_policy, make_rows

ROW = make_rows((Channel(name="counts", schema="count.json", keep=86_400, room=1 << 40, tries=1000, lease=1),))


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Running:
    """All of it."""

    def __init__(self, folder: Path, seed: int, filler: int) -> None:
        self.choose = random.Random(seed)
        self.filler = "x" * filler
        self.reactor = Reactor()
        self.auditor = Auditor(open_log(folder / "audit", folder / "audit.key", site="test", background=False))
        self.auditor.introduce("keeper", RELAY.crew.parts["keeper"].says)
        self.answers: Sender[FromAuditor]
        self.waiting: list[Batch] = []
        to_auditor, _ = memory_channel(self.reactor, RecordCodec[ToAuditor](ToAuditor), self.take)
        client = AuditClient(self.reactor, to_auditor, wait_seconds=60)
        self.answers, _ = memory_channel(self.reactor, RecordCodec[FromAuditor](FromAuditor), client.on_record)
        self.answers.send(Hello(True))
        limit = records.RECORD_BYTES
        from_keeper = RecordCodec[FromKeeper](FromKeeper, limit=limit)
        self.inner, _ = memory_channel(self.reactor, from_keeper, self.pushed)
        self.outer, _ = memory_channel(self.reactor, from_keeper, self.pulled)
        (folder / "store").mkdir(exist_ok=True)
        self.keeper = Keeper(
            Setting(
                crew="relay/enterprise-control", part="keeper", broker="relay", boot="b", again=False,
                policy=make_policy(ROW), severed=frozenset(), assets=(), zones=(("enterprise",), "control"),
                reactor=self.reactor, audit=client, senders={"inner": self.inner, "outer": self.outer},
                dial=lambda *_: (_ for _ in ()).throw(AssertionError), store=folder / "store",
            )
        )  # fmt: skip
        to_keeper = RecordCodec[ToKeeper](ToKeeper, limit=limit)
        self.push, pushes = memory_channel(self.reactor, to_keeper, self.keeper.taker("inner"))
        self.pull, pulls = memory_channel(self.reactor, to_keeper, self.keeper.taker("outer"))
        self.heard = (pushes, pulls)
        for sender, zone in ((self.push, "control"), (self.pull, "enterprise")):
            names = {name for name, where in PRINCIPALS.items() if where == zone}
            sender.send(Works(fingerprint({"out": slice_for(ROW, names)})))
        self.asked = {"push": 0, "pull": 0}
        self.keys: dict[int, list[str]] = {}
        self.handed: Handed | None = None
        self.seed = seed
        self.count = 0
        self.halted = False

    def take(self, batch: ToAuditor) -> None:
        assert isinstance(batch, Batch)
        self.waiting.append(batch)
        if len(self.waiting) == 1:
            self.reactor.later(self.record)

    def record(self) -> None:
        waiting, self.waiting = self.waiting, []
        for batch in waiting:
            self.auditor.submit("keeper", batch.number, batch.drafts, batch.policy)
        for result in self.auditor.commit():
            self.answers.send(Ack(result.batch, result.ok, result.reason))

    def ask(self) -> None:
        """A push, of one message or several."""
        self.asked["push"] += 1
        items = []
        for _ in range(self.choose.choice((1, 1, 3, 40))):
            self.count += 1
            items.append(Item(f"{self.seed}-{self.count}", body(count=self.count, text=self.filler)))
        self.keys[self.asked["push"]] = [item.key for item in items]
        self.push.send(records.Push(self.asked["push"], "mes", "counts", tuple(items)))

    def pushed(self, answer: FromKeeper) -> None:
        if isinstance(answer, NotDone):
            say("refused", answer.problem.fault)
            self.reactor.call_in(0.01, self.ask)
            return
        assert isinstance(answer, Answered)
        for key, result in zip(self.keys.pop(answer.request), answer.results, strict=True):
            say(*((result.state, key, result.number) if result.problem is None else ("refused", result.problem.fault)))
        self.ask()

    def fetch(self) -> None:
        self.asked["pull"] += 1
        self.pull.send(records.Pull(self.asked["pull"], "erp", "counts", 1, 30, 1_000))

    def pulled(self, answer: FromKeeper) -> None:
        self.asked["pull"] += 1
        if isinstance(answer, Handed) and answer.messages:
            self.handed = answer
            say("handed", answer.messages[0].number)
            verdict = Verdict(answer.messages[0].number, "done")
            self.pull.send(records.Settle(self.asked["pull"], "erp", "counts", answer.lease, (verdict,)))
            return
        if isinstance(answer, Answered) and self.handed is not None and answer.results[0].problem is None:
            say("done", self.handed.messages[0].number)
        if isinstance(answer, NotDone):
            say("refused", answer.problem.fault)
        self.pull.send(records.Pull(self.asked["pull"], "erp", "counts", 1, 30, 1_000))

    def tick(self) -> None:
        self.auditor.tick()
        if not self.halted:
            self.keeper.tick()
        self.reactor.call_in(0.05, self.tick)

    def halt(self) -> None:
        """The part has ended: what it said leaves, and nothing calls it any more."""
        self.halted = True
        for receiver in self.heard:
            receiver.pause()
        self.keeper.halt()

    def run(self) -> None:
        self.ask()
        self.ask()
        self.fetch()
        self.tick()
        self.reactor.run()


def main() -> None:
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    running: Running | None = None
    try:
        running = Running(folder, seed, int(sys.argv[3]) if len(sys.argv) > 3 else 10)
        running.run()
    except StoreError as error:
        if running is not None:  # as the process around a part does
            running.halt()
            for _ in range(5):
                running.reactor.turn(0)
        say("stopped", error)
        sys.exit(5)


if __name__ == "__main__":
    main()
