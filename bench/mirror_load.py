"""The mirror under a load that goes on: a historian that records so many samples a second, and readers with heavy
queries besides. Part of bench/mirror.py; alone: `python bench/mirror_load.py --rate 250000 --readers 10`.

The lag is the keeper's own: from a sample's time in the historian until it can be read, so that the historian's commit
and the interval between two readings (INTERVAL_MS) are in it. Historian, gate, readers and this program share the
machine's cores; what was recorded a second is printed beside what was asked for, and so are the processor time and the
memory of each part, which say more than the clock of a machine that has other work. Nothing is read twice here
(`overlap: 0 s`): with the usual overlap each row is read some ten times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
import time
from typing import Any, Final, NamedTuple

import mirror_crew
import msgspec

from cofferdam.gate.watch.report import FigureReport, Spread
from cofferdam.lab.layout import Addresses, Loopback
from cofferdam.lab.mirror import people
from cofferdam.lab.mirror.play import Mirror
from cofferdam.lab.mirror.steps import ANALYST, DOOR
from cofferdam.lab.play import Sections
from cofferdam.lab.scene import Scene
from cofferdam.lab.tour import on_stage

INTERVAL_MS: Final = 200
TICK_SECONDS: Final = 0.1
READERS_MOST: Final = 10
PATIENCE_SECONDS: Final = 120.0
RECORD = """
INSERT INTO samples SELECT 'boiler.' || lpad(n::text, 4, '0'), clock_timestamp(), 20 + n % 7 + random(), 192
FROM generate_series(1, {times}) AS again, generate_series(0, {tags} - 1) AS n
"""
QUERIES = (
    ("POST", "/v1/sql", "SELECT tag, time_bucket(INTERVAL 1 SECOND, time) AS t, avg(value), min(value), count(*)"
     " FROM samples GROUP BY ALL ORDER BY t LIMIT 1000"),
    ("GET", "/v1/aggregates?tags=boiler.00*&last=1h&every=1s&functions=avg,min,max,time_avg&format=csv", ""),
    ("GET", "/v1/samples?tags=boiler.000*&last=1h&format=parquet&limit=1000000", ""),
)  # fmt: skip


class Crowded(Mirror):
    """The lab's mirror, with as many analysts as there are readers."""

    def sections(self, where: Addresses) -> Sections:
        said = super().sections(where)
        names = [f"reader{number}" for number in range(READERS_MOST)]
        more = "".join(f"  {name}: {{zone: enterprise, addresses: [{where.host(ANALYST)}]}}\n" for name in names)
        rules = "".join(f"      - {{who: {name}, read: all, sql: yes}}\n" for name in names)
        conduits = said.conduits.replace("overlap: 1 min", "overlap: 0 s").replace("most: 1 GB", "most: 20 GB")
        return msgspec.structs.replace(said, principals=said.principals + more, conduits=conduits + rules)


class Found(NamedTuple):
    """What a run came to: samples recorded and taken a second, lag (ms), processor time of the three (µs a sample)."""

    recorded: float
    taken: float
    median: float
    p99: float
    cost: float


class Reading(threading.Thread):
    """A reader that asks one heavy query after the other."""

    def __init__(self, number: int, analyst: people.Analyst) -> None:
        super().__init__(daemon=True)
        self._number, self._analyst = number, analyst
        self.over = threading.Event()
        self.took: list[float] = []
        self.refused = 0

    def run(self) -> None:
        while not self.over.is_set():
            method, path, body = QUERIES[self._number % len(QUERIES)]
            self._number += 1
            began = time.monotonic()
            status, _ = self._analyst.ask(method, path, body)
            if status == 200:
                self.took.append(time.monotonic() - began)
            else:
                self.refused += 1
                time.sleep(0.1)


def _record(historian: people.Historian, tags: int, rate: int, seconds: float) -> tuple[int, float]:
    """Records at a rate, as far as the database can; rows, and the time that it took."""
    statement = RECORD.format(tags=tags, times=max(1, round(rate * TICK_SECONDS / tags)))
    began, rows, ticks = time.monotonic(), 0, 0
    with historian.connection() as conn:
        while (now := time.monotonic()) < began + seconds:
            rows += conn.execute(statement).rowcount
            ticks += 1
            time.sleep(max(0.0, began + ticks * TICK_SECONDS - now - (time.monotonic() - now)))
    return rows, time.monotonic() - began


def _figure(figures: tuple[FigureReport, ...], name: str) -> dict[str, Any]:
    return next((one.values for one in figures if one.broker == "mirror" and one.name == name), {})


async def _taken(scene: Scene) -> int:
    return sum(_figure((await scene.status()).figures, "taken").values())


async def _until(scene: Scene, rows: int) -> int:
    """Waits for so many to be taken; how many there are."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (taken := await _taken(scene)) < rows and time.monotonic() < until:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.1)
    return taken


async def _load(tags: int, rate: int, readers: int, seconds: float) -> Found:
    play = Crowded()
    async with on_stage(Loopback(play.spots), [play]) as scene:
        where = scene.layout.addresses
        historian = people.Historian(
            scene.directory / "historian", where.host("mirror-historian"), where.port("mirror-historian"), ""
        )
        await play.cast(scene)
        asking = []
        for number in range(readers):
            made = await scene.verb("mirror", "key", "new", f"reader{number}", "--json")
            analyst = people.Analyst(where.host(DOOR), where.port(DOOR), made.json()["key"], where.host(ANALYST))
            asking.append(Reading(number, analyst))
        pids = await mirror_crew.pids(scene)
        first, _ = await asyncio.to_thread(_record, historian, tags, tags, TICK_SECONDS)
        await _until(scene, first)  # tags that are not there yet are refused
        before = mirror_crew.parts(pids)
        began = time.monotonic()
        for one in asking:
            one.start()
        rows, took = await asyncio.to_thread(_record, historian, tags, rate, seconds)
        taken = await _until(scene, first + rows) - first
        drained = time.monotonic() - began
        for one in asking:
            one.over.set()
        lag = _figure((await scene.status()).figures, "lag").get("")
        after = mirror_crew.parts(pids)
        spread = lag if isinstance(lag, Spread) else Spread(0, 0.0, 0.0, 0.0, 0.0)
        cost = (
            sum(after[part][0] - before[part][0] for part in ("collector", "spooler", "keeper")) / max(1, taken) * 1e6
        )
        found = Found(rows / took, taken / drained, spread.median / 1e3, spread.p99 / 1e3, cost)
        print(f"{readers} readers, {tags} tags, {rate:,} samples a second asked for: {found.recorded:,.0f} recorded,"
              f" {found.taken:,.0f} taken; lag {found.median:.0f} ms median, {found.p99:.0f} ms p99 (of it up to"
              f" {INTERVAL_MS} until the next reading); load {os.getloadavg()[0]:.1f}")  # fmt: skip
        print("  " + ", ".join(
            f"{part} {(after[part][0] - before[part][0]) / max(1, taken) * 1e6:.2f} µs a sample and"
            f" {after[part][1]:.0f} MiB" for part in mirror_crew.PARTS
        ))  # fmt: skip
        for one in asking:
            await asyncio.to_thread(one.join)
        if took_each := sorted(second for one in asking for second in one.took):
            p99 = took_each[int(len(took_each) * 0.99)]
            print(f"  {len(took_each)} queries, {sum(one.refused for one in asking)} refused or cut off;"
                  f" {took_each[len(took_each) // 2]:.1f} s median, {p99:.1f} s p99")  # fmt: skip
        return found


def load(tags: int = 1_000, rate: int = 250_000, readers: int = READERS_MOST, seconds: float = 15.0) -> None:
    """Prints the figures without readers and with them, and what these change."""
    alone = asyncio.run(_load(tags, rate, 0, seconds))
    if readers:
        beside = asyncio.run(_load(tags, rate, readers, seconds))
        ratio = beside.p99 / max(alone.p99, 0.1)
        print(f"  with {readers} readers: {beside.taken / alone.taken:.2f} x of the samples a second (goal 0.97), lag"
              f" p99 {ratio:.1f} x (goal 2), {beside.cost / alone.cost:.2f} x of the processor time of collector,"
              " spooler and keeper")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/mirror_load.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--tags", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=250_000, help="samples a second (default: %(default)s)")
    parser.add_argument("--readers", type=int, default=READERS_MOST, choices=range(READERS_MOST + 1), metavar="COUNT")
    parser.add_argument("--seconds", type=float, default=15.0)
    args = parser.parse_args()
    load(args.tags, args.rate, args.readers, args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
