"""A keeper with very many messages waiting: what it costs. Prints figures as JSON; for the soak test and for people.

python -m tests.brokers.relay.million FOLDER MESSAGES
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.records import Answered, Item
from cofferdam.policy.terms.relay_rows import Channel
from tests.brokers.relay.keeping import Bench, Clock, body, make_rows

CHANNEL = Channel(name="counts", schema="count.json", room=1 << 40, room_messages=100_000_000, order=1_000, lease=300)
ROUNDS = 15


class Running(Clock):
    """Both clocks run."""

    @property
    def wall(self) -> int:
        return time.time_ns()

    @wall.setter
    def wall(self, _: int) -> None: ...

    @property
    def mono(self) -> int:
        return time.monotonic_ns()

    @mono.setter
    def mono(self, _: int) -> None: ...


class Many:
    """Pushes and pulls, with random keys, as UUIDs are."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.count = 0

    def push(self, count: int) -> None:
        items = tuple(Item(str(uuid.uuid4()), body(count=n, text="x" * 380)) for n in range(count))
        number = self.bench.inner.ask(records.Push, "mes", "counts", items)
        while number not in self.bench.inner.answers:
            self.bench.reactor.turn(None)
        answer = self.bench.inner.answers.pop(number)
        assert isinstance(answer, Answered) and all(result.state == "stored" for result in answer.results), answer
        self.count += count

    def pull(self, count: int) -> None:
        handed = self.bench.pull(most=count)
        assert len(handed.messages) == count
        self.bench.settle(handed)
        self.bench.outer.answers.clear()

    def costs(self) -> dict[str, float]:
        """Microseconds of processor time a message: they hold on a busy machine."""
        return {
            "push 100": self._cost(lambda: self.push(100), 100),
            "push 500": self._cost(lambda: self.push(500), 500),
            "lease and settle 500": self._cost(lambda: self.pull(500), 500),
        }

    def _cost(self, act: Callable[[], None], count: int) -> float:
        taken = []
        for _ in range(ROUNDS):
            began = time.process_time()
            act()
            taken.append(time.process_time() - began)
        return sorted(taken)[ROUNDS // 2] / count * 1e6


def resident() -> int:
    """MiB of this process now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) >> 10
    raise AssertionError


def main() -> None:
    folder, wanted = Path(sys.argv[1]), int(sys.argv[2])
    bench = Bench(folder, make_rows((CHANNEL,)), clock=Running())
    before = resident()
    many = Many(bench)
    many.push(1_000)
    many.push(1_000)
    few = many.costs()
    store = bench.keeper._work.store
    store.run("PRAGMA synchronous=OFF")
    while many.count < wanted:
        many.push(1_000)
    store.run("PRAGMA synchronous=FULL")
    lots = many.costs()
    grown = resident() - before
    bench.end()
    began = time.monotonic()
    bench.start()
    start = time.monotonic() - began
    bench.pull(most=1)
    print(json.dumps({"few": few, "many": lots, "messages": many.count, "grown_mib": grown, "resident_mib": resident(),
                      "start_s": start}))  # fmt: skip
    bench.close()


if __name__ == "__main__":
    main()
