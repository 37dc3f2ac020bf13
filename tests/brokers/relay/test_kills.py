"""Each part of a relay is killed while a producer and a consumer work by HTTP; a ledger of what was acknowledged says
whether anything was lost, came twice, or came out of order. A few kills in the suite, KILLS in `make soak`."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.brokers.relay.crew import PARTS, RunningCrew, crew
from tests.waiting import PATIENT

COUNTS = "/v1/channels/counts"
FEW, MANY = 3, int(os.environ.get("COFFERDAM_SOAK_KILLS", "1000"))


class Peer(threading.Thread):
    """A client that takes what is broken or refused for "not yet", and asks again."""

    def __init__(self, relay: RunningCrew, who: str) -> None:
        super().__init__(daemon=True)
        self.relay = relay
        self.who = who
        self.stopped = threading.Event()
        self.wrong: list[str] = []
        self._client: httpx.Client | None = None

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response | None:
        """The answer, or None where it is not known what became of the request."""
        try:
            if self._client is None:
                self._client = self.relay.client(self.who)
            answer = self._client.request(method, path, **options)
        except httpx.TransportError:
            if self._client is not None:
                self._client.close()
            self._client = None
            time.sleep(0.01)
            return None
        if answer.status_code in (200, 201, 409):
            return answer
        if answer.status_code not in (429, 503):
            self.wrong.append(f"{answer.status_code} {answer.text}")
        time.sleep(0.02)
        return None

    def stop(self) -> None:
        self.stopped.set()
        self.join(PATIENT)
        if self._client is not None:
            self._client.close()
        assert not self.is_alive() and not self.wrong, self.wrong[:3]


class Producer(Peer):
    """Pushes one after the other, each until it is acknowledged. `acknowledged`: numbers, in this order."""

    def __init__(self, relay: RunningCrew) -> None:
        super().__init__(relay, "mes")
        self.acknowledged: list[int] = []
        self.repeated = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            at = len(self.acknowledged)
            answer = self.ask("PUT", f"{COUNTS}/messages/k{at}", json={"line": "L", "n": at})
            if answer is not None and answer.status_code == 409:
                self.wrong.append(answer.text)
            elif answer is not None:
                self.acknowledged.append(answer.json()["number"])
                self.repeated += answer.status_code == 200


class Consumer(Peer):
    """Takes each number once, as a consumer with a table of its own does. `seen`: (number, id, n), in this order."""

    def __init__(self, relay: RunningCrew) -> None:
        super().__init__(relay, "erp")
        self.seen: list[tuple[int, str, int]] = []
        self.hashes: dict[int, str] = {}
        self.again = 0

    def run(self) -> None:
        while not self.stopped.is_set():
            answer = self.ask("POST", f"{COUNTS}/lease", json={"max": 20, "wait": 0.5})
            if answer is None or not (messages := answer.json()["messages"]):
                continue
            for message in messages:
                known = self.hashes.setdefault(message["number"], message["sha256"])
                if known != message["sha256"]:
                    self.wrong.append(f"another content for {message['number']}")
                if len(self.hashes) > len(self.seen):
                    self.seen.append((message["number"], message["id"], message["data"]["n"]))
                else:
                    self.again += 1
            done = {"lease": answer.json()["lease"], "done": [message["number"] for message in messages]}
            self.ask("POST", f"{COUNTS}/settle", json=done)  # if not known what became of it, they come again


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(4 * 3600)])])
def test_killed_at_any_moment_what_was_acknowledged_arrives_once_and_in_order(tmp_path: Path, kills: int) -> None:
    choose = random.Random(20261127)
    words = {"counts": ", order: strict, tries: 1000, lease: 1 s"}
    with crew(tmp_path / "store", words=words) as relay:
        producer, consumer = Producer(relay), Consumer(relay)
        producer.start()
        consumer.start()
        killed = dict.fromkeys(PARTS, 0)
        for turn in range(kills):
            before = len(producer.acknowledged)
            deadline = time.monotonic() + PATIENT
            while len(producer.acknowledged) < before + 2 and time.monotonic() < deadline:
                time.sleep(0.005)
            assert len(producer.acknowledged) >= before + 2, "it goes on after each kill"
            time.sleep(choose.uniform(0, 0.1))
            relay.kill(PARTS[turn % len(PARTS)])
            killed[PARTS[turn % len(PARTS)]] += 1
            relay.start()
        producer.stop()
        count = len(producer.acknowledged)
        deadline = time.monotonic() + PATIENT
        while len(consumer.seen) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        consumer.stop()
        print(f"killed {killed}: {count} acknowledged ({producer.repeated} asked again), {len(consumer.seen)} taken, "
              f"{consumer.again} of them handed out again")  # fmt: skip
        assert producer.acknowledged == list(range(1, count + 1)), "numbered without a gap, in the order of pushing"
        assert consumer.seen == [(number, f"k{number - 1}", number - 1) for number in range(1, count + 1)]
        found = msgspec.json.decode(relay.ask("keeper", "verify", {"channel": "counts", "after": 0}).result)
        assert found["findings"] == []
        relay.ends_well()
