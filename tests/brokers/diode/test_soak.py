"""What takes long: a gigabyte at 5 % of loss, several times, and parts of both ends killed again and again. How often,
the environment says (`RUNS`, `BYTES`, `RATE`, `COFFERDAM_SOAK_KILLS`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cofferdam.errors import GateError
from tests.brokers.diode.machines import PARTS, Machine, Strand, eventually
from tests.brokers.diode.test_machines import arrived, put, sent_as
from tests.brokers.diode.test_rides import Works
from tests.brokers.patch.makers import HAS_CLAMD, clamd
from tests.enforce.site import netns
from tests.protocols.device import Device, served
from tests.waiting import kill

pytestmark = [*netns, pytest.mark.soak, pytest.mark.timeout(0)]
RUNS = int(os.environ.get("RUNS", "10"))
KILLS = int(os.environ.get("COFFERDAM_SOAK_KILLS", "100"))
RATE = os.environ.get("RATE", "80 Mbit/s")
SIZE = int(os.environ.get("BYTES", str(10**9)))


def test_a_gigabyte_is_whole_at_five_percent_of_loss(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with Strand(tmp_path, files='{names: ["*.csv"], most: 2 GB}', rate=RATE) as strand:
        strand.up()
        strand.lose(0.05)
        whole = 0
        for run in range(RUNS):
            began = time.monotonic()
            name = f"run-{run}.csv"
            block = os.urandom(1 << 20)
            digest = put(strand, name, (block * (SIZE // len(block) + 1))[:SIZE])

            def over(name: str = name) -> bool:
                missing = strand.outside.status()["channels"][0]["missing"]
                return missing > 0 or (strand.outside.folder() / name).exists()

            eventually_long(over)
            missing = strand.outside.status()["channels"][0]["missing"]
            if missing:
                strand.outside.ask("give-up", channel="files:reports")
            else:
                arrived(strand, name, digest)
                whole += 1
            print(f"run {run + 1}: {time.monotonic() - began:.0f} s, missing {missing}; {whole} of {run + 1} whole",
                  flush=True)  # fmt: skip
            for folder in (strand.outside.folder(), strand.inside.folder()):
                (folder / name).unlink(missing_ok=True)
        assert whole == RUNS


class _After:
    """What follows a kill: when the gap is named, counted from the first heartbeat after it, and tickets until the file
    is whole."""

    def __init__(self, strand: Strand, path: Path, machine: Machine, part: str, before: int, killed: int) -> None:
        self.strand, self.path, self.machine, self.part = strand, path, machine, part
        self.before, self.killed = before, killed
        self.heard: float | None = None
        self.named: float | None = None
        self.tickets = 0
        self._carried = 0.0

    def whole(self) -> bool:
        status = self.strand.outside.status()
        beat, now = status["heartbeat"], time.monotonic()
        if self.heard is None and beat and beat["told"] > self.killed and self.machine.pid(self.part) != self.before:
            self.heard = now
        missing = sum(one["missing"] for one in status["channels"])
        if missing and self.named is None:
            self.named = now - self.heard if self.heard is not None else 0.0
        if missing and (not self._carried or now - self._carried > 30):
            for ticket in self.strand.outside.ask("ticket")["tickets"]:
                self.strand.inside.ask("resend", ticket=ticket["text"], go=True)
                self.tickets += 1
            self._carried = now
        return self.path.exists() and not missing


def test_either_end_is_killed_in_mid_transfer(tmp_path: Path) -> None:
    """Nothing is lost without a name: the gap is named soon after the next heartbeat, and one ticket closes it."""
    tmp_path.chmod(0o755)
    chance = random.Random(7)
    parts = [(end, part) for end, both in PARTS.items() for part in both]
    named: list[float] = []
    kills: dict[str, int] = {}
    tickets = again = 0
    with Strand(tmp_path, more="wait: 1 s,") as strand:
        strand.up()
        for turn in range(KILLS):
            end, part = chance.choice(parts)
            machine = strand.inside if end == "inside" else strand.outside
            before = machine.pid(part)
            name = f"turn-{turn}.csv"
            digest = put(strand, name, os.urandom(6_000_000))
            sent_as(strand, name)  # 0.6 s of the policy's rate are under way
            time.sleep(chance.random() / 2)
            kill(before)
            killed = time.time_ns()
            kills[part] = kills.get(part, 0) + 1
            after = _After(strand, strand.outside.folder() / name, machine, part, before, killed)
            eventually_long(after.whole)
            named += [after.named] if after.named is not None else []
            tickets += after.tickets
            again += max(0, after.tickets - 1)
            arrived(strand, name, digest)
            for folder in (strand.outside.folder(), strand.inside.folder()):
                (folder / name).unlink(missing_ok=True)
            if turn % 10 == 9:
                print(f"{turn + 1} kills: {tickets} tickets, {again} more than one for a gap; named within "
                      f"{max(named, default=0):.1f} s of the next heartbeat", flush=True)  # fmt: skip
    print(f"{KILLS} kills {kills}: every file whole, once; {len(named)} gaps, {tickets} tickets, {again} more than one "
          f"for a gap; named within {sorted(named)[len(named) // 2] if named else 0:.1f} s (median), "
          f"{max(named, default=0):.1f} s at most", flush=True)  # fmt: skip
    assert not again


def eventually_long(condition: Any) -> None:
    for _ in range(20):
        with contextlib.suppress(AssertionError):
            eventually(condition)
            return
    eventually(condition)


@pytest.fixture
def works(tmp_path: Path) -> Iterator[Works]:
    with contextlib.ExitStack() as held:
        port = held.enter_context(served(Device()))
        scanner = held.enter_context(clamd(Path("/tmp") / f"clamd-{os.getpid()}")) if HAS_CLAMD else None
        yield held.enter_context(contextlib.closing(Works(tmp_path, port, scanner)))


def test_whatever_is_killed_messages_and_files_come_out_once(works: Works) -> None:
    chance = random.Random(13)
    pushed, files = 0, {}
    parts = [("relay", part) for part in ("keeper", "far", "inner", "outer")]
    parts += [("diode", part) for part in ("spool", "sender", "receiver", "keeper")]
    for turn in range(KILLS):
        broker, part = chance.choice(parts)
        for number in range(pushed + 1, pushed + 11):
            push(works, number)
        pushed += 10
        if HAS_CLAMD and turn % 5 == 0:
            data = chance.randbytes(300_000)
            files[f"f{turn}.csv"] = hashlib.sha256(data).hexdigest()
            out = works.state / "folders" / "reports-out"
            (out / f".f{turn}").write_bytes(data)
            (out / f".f{turn}").rename(out / f"f{turn}.csv")
        found: list[int] = []

        def there(broker: str = broker, part: str = part, found: list[int] = found) -> bool:
            with contextlib.suppress(ValueError, GateError):
                found[:] = [works.pid(part, broker)]
            return bool(found)

        eventually(there)
        kill(found[0])
        time.sleep(chance.random())
    got: list[int] = []
    into = works.state / "folders" / "reports-in"

    def whole() -> bool:
        with contextlib.suppress(httpx.HTTPError, KeyError, ValueError, GateError, AssertionError):
            got.extend(works.pull())
            if set(got) >= set(range(1, pushed + 1)) and all((into / name).exists() for name in files):
                return True
            for ticket in json.loads(works.cli("diode", "ticket", "--json"))["tickets"]:
                works.cli("diode", "resend", "--ticket", ticket["text"], "--go")
            time.sleep(2)
        return False

    eventually_long(whole)
    assert works.ask("relay", "far", "status")["channels"][0]["missing"] == []
    listed = [json.loads(works.cli("relay", "list", "counts", "--most", "0", "--end", end, "--json"))
              for end in ("inside", "outside")]  # fmt: skip
    inside, outside = ([(one["number"], one["key"], one["sha256"]) for one in end] for end in listed)
    assert inside == outside and len(inside) == pushed
    for name, digest in files.items():
        assert hashlib.sha256((into / name).read_bytes()).hexdigest() == digest
    assert sorted(path.name for path in into.glob("*.csv")) == sorted(files), "none twice"
    for end in ("inside", "outside"):
        assert "no findings" in works.cli("relay", "verify", "--end", end)
    print(f"{KILLS} kills: {pushed} messages and {len(files)} files, each once; {len(got)} were handed out", flush=True)


def push(works: Works, number: int) -> None:
    def stored() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return works.mes.put(f"/messages/shift-{number}", json={"line": "a", "n": number}).status_code in (200, 201)
        return False

    eventually(stored)
