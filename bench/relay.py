"""`make bench ARGS=--relay`: durable messages through the whole relay, beside bare SQLite, PostgreSQL as a queue table
and NATS JetStream, on the same disk in the same run. Best of the rounds; the disk's own fdatasync stands beside it.

The gate is the real one (processes on loopback, as an ordinary start gives them), with its audit log on; every message
is checked against a JSON Schema on both sides. The peers check nothing. How to read it: docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from processes import HERE, BenchError, cpu_of, held_port

COFFERDAM = [sys.executable, "-m", "cofferdam.cli.main"]
POLICY = """
site: bench
zones:
  office: {{side: it, level: 4}}
  plant: {{side: ot, level: 2}}
principals:
  erp: {{zone: office, addresses: [127.0.0.1]}}
  mes: {{zone: plant, addresses: [127.0.0.2]}}
conduits:
  counts-to-erp:
    from: plant
    to: office
    broker: relay
    owner: bench
    reason: bench
    expires: 2035-06-30
    listen:
      office: {{at: "127.0.0.1:{office}", plain: true}}
      plant: {{at: "127.0.0.2:{plant}", plain: true}}
    channels:
      counts: {{schema: count.json, keep: 60 s, room: 10 GB, messages: 10000000, order: parallel 1000}}
    allow:
      - {{who: mes, push: counts}}
      - {{who: erp, pull: counts}}
"""
SCHEMA = {
    "type": "object",
    "required": ["line", "good", "at"],
    "additionalProperties": False,
    "properties": {
        "line": {"type": "string", "pattern": "^[A-Z][0-9]+$"},
        "good": {"type": "integer", "minimum": 0},
        "at": {"type": "string", "format": "date-time"},
        "note": {"type": "string", "maxLength": 400},
    },
}
BODY = json.dumps({"line": "L1", "good": 240, "at": "2026-11-26T12:00:00Z", "note": "n" * 300}).encode()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/relay.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="time of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="best of so many")
    parser.add_argument("--json", type=Path, help="where the figures go")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-", dir=HERE) as name:
        try:
            figures = measure(Path(name), args.seconds, args.rounds)
        except BenchError as error:
            print(f"bench: {error}\n  {error.hint}", file=sys.stderr)
            return 2
    show(figures)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure(folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {}

    def note(name: str, figure: dict[str, float]) -> None:
        found.setdefault(name, []).append(figure)
        print(f"  {name}: {', '.join(f'{key} {value:,.3f}' for key, value in figure.items())}", file=sys.stderr)

    with gate(folder) as relay, peers(folder) as others:
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            note("fdatasync", fdatasync(folder, seconds / 3))
            for name, work in others.items():
                note(name, work(seconds))
            for name, making in (
                ("relay, one at a time", lambda: relay.pushing(1, seconds)),
                ("relay, 64 connections", lambda: relay.pushing(64, seconds)),
                ("relay, batches of 500, end to end", lambda: relay.batches(500, seconds, 1)),
                ("relay, batches of 500, 4 producers", lambda: relay.batches(500, seconds, 4)),
                ("relay, push to long poll", lambda: relay.across(seconds)),
            ):
                note(name, asyncio.run(making()))
    best = {
        name: max(some, key=lambda each: each.get("per_second", -each.get("median_ms", 0)))
        for name, some in found.items()
    }
    return {"best": best, "all": found, "cpus": os.cpu_count()}


def show(figures: dict[str, Any]) -> None:
    best = figures["best"]
    print(f"\n{'':44}{'per second':>12}{'median ms':>12}{'p99 ms':>10}{'CPU µs each':>14}")
    for name, each in best.items():
        cells = [
            f"{each['per_second']:>12,.0f}" if "per_second" in each else " " * 12,
            f"{each['median_ms']:>12.3f}" if "median_ms" in each else " " * 12,
            f"{each['p99_ms']:>10.3f}" if "p99_ms" in each else " " * 10,
            f"{each['cpu_us']:>14.0f}" if "cpu_us" in each else "",
        ]
        print(f"{name:44}" + "".join(cells))

    def ratio(said: str, one: str, other: str, goal: float) -> None:
        if one in best and other in best:
            value = best[one]["per_second"] / best[other]["per_second"]
            print(f"{said:64}{value:6.2f} (goal {goal:g}{', met' if value >= goal else ', NOT met'})")

    print()
    ratio("one at a time / bare SQLite one by one", "relay, one at a time", "SQLite, one by one", 0.5)
    ratio("one at a time / JetStream, synced", "relay, one at a time", "JetStream synced, one by one", 1)
    ratio("64 connections / JetStream, synced, 500", "relay, 64 connections", "JetStream synced, 500 under way", 1.2)
    ratio("batches of 500 / PostgreSQL executemany", "relay, batches of 500, end to end",
          "PostgreSQL, executemany of 500", 0.7)  # fmt: skip


# --- the relay ----------------------------------------------------------------------------------------------------


class Relay:
    """A running gate, and clients of it."""

    def __init__(self, process: subprocess.Popen[bytes], ports: dict[str, int], keys: dict[str, str], state: Path):
        self.process, self.ports, self.keys, self.state = process, ports, keys, state
        self.number = 0

    def pids(self) -> list[int]:
        said = subprocess.run(
            [*COFFERDAM, "status", "--json", "--state", str(self.state)], capture_output=True, check=True
        )
        status = json.loads(said.stdout)
        return [half["pid"] for pair in status["pairs"] for half in pair["halves"]] + [status["audit"]["pid"]]

    async def connect(self, who: str) -> Client:
        address, port = ("127.0.0.1", self.ports["office"]) if who == "erp" else ("127.0.0.2", self.ports["plant"])
        reader, writer = await asyncio.open_connection(address, port, local_addr=(address, 0))
        return Client(reader, writer, self.keys[who])

    async def pushing(self, connections: int, seconds: float) -> dict[str, float]:
        """PUT of one message after the other on so many connections."""
        clients = [await self.connect("mes") for _ in range(connections)]
        pids = self.pids()
        took: list[float] = []
        before, began = used(pids), time.perf_counter()
        until = began + seconds

        async def go(client: Client) -> None:
            while (now := time.perf_counter()) < until:
                self.number += 1
                await client.ask("PUT", f"/v1/channels/counts/messages/m{began:.0f}-{self.number}", BODY, 201)
                took.append(time.perf_counter() - now)

        await asyncio.gather(*map(go, clients))
        spent = time.perf_counter() - began
        cpu = used(pids) - before
        await asyncio.gather(*(client.close() for client in clients))
        await self.drain()
        return spread(took, spent) | {"cpu_us": cpu / len(took) * 1e6}

    async def drain(self) -> int:
        client = await self.connect("erp")
        count = 0
        while await self.pull(client, 0):
            count += 1
        await client.close()
        return count

    async def lease(self, client: Client, wait: int) -> dict[str, Any]:
        asked = json.dumps({"max": 1000, "seconds": 60, "wait": wait}).encode()
        lease: dict[str, Any] = json.loads(await client.ask("POST", "/v1/channels/counts/lease", asked, 200))
        return lease

    async def pull(self, client: Client, wait: int) -> list[Any]:
        return await self.settle(client, await self.lease(client, wait))

    async def settle(self, client: Client, lease: dict[str, Any]) -> list[Any]:
        numbers = [message["number"] for message in lease["messages"]]
        if numbers:
            done = json.dumps({"lease": lease["lease"], "done": numbers}).encode()
            await client.ask("POST", "/v1/channels/counts/settle", done, 200)
        found: list[Any] = lease["messages"]
        return found

    async def batches(self, size: int, seconds: float, producers: int) -> dict[str, float]:
        """NDJSON pushed on so many connections, pulled and settled on another, until all has arrived. One producer
        waits for each batch to be durable: side and keeper take turns. With several, both work."""
        makers, erp = [await self.connect("mes") for _ in range(producers)], await self.connect("erp")
        pids = self.pids()
        before, began = used(pids), time.perf_counter()
        pushed = pulled = 0
        finished = asyncio.Event()

        async def push(mes: Client) -> None:
            nonlocal pushed
            while time.perf_counter() - began < seconds:
                lines = b"".join(
                    b'{"id":"b%d-%d","data":%s}\n' % (int(began), self.number + row, BODY) for row in range(size)
                )
                self.number += size
                await mes.ask("POST", "/v1/channels/counts/messages", lines, 200, "application/x-ndjson")
                pushed += size

        async def push_all() -> None:
            await asyncio.gather(*map(push, makers))
            finished.set()

        async def pull() -> None:
            nonlocal pulled
            while not (finished.is_set() and pulled >= pushed):
                pulled += len(await self.pull(erp, 1))

        await asyncio.gather(push_all(), pull())
        spent = time.perf_counter() - began
        cpu = used(pids) - before
        await asyncio.gather(erp.close(), *(mes.close() for mes in makers))
        return {"per_second": pushed / spent, "cpu_us": cpu / pushed * 1e6}

    async def across(self, seconds: float) -> dict[str, float]:
        """From the start of a push to the end of the long poll that it answers (not of the settling behind it)."""
        mes, erp = await self.connect("mes"), await self.connect("erp")
        took: list[float] = []
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            waiting = asyncio.ensure_future(self.lease(erp, 30))  # noqa: TID251 - awaited below
            await asyncio.sleep(0.005)
            began = time.perf_counter()
            self.number += 1
            pushing = asyncio.ensure_future(  # noqa: TID251 - awaited below
                mes.ask("PUT", f"/v1/channels/counts/messages/a{began:.0f}-{self.number}", BODY, 201)
            )
            lease = await waiting
            took.append(time.perf_counter() - began)
            await pushing
            await self.settle(erp, lease)
        await asyncio.gather(mes.close(), erp.close())
        return {key: value for key, value in spread(took, seconds).items() if key != "per_second"}


def used(pids: list[int]) -> float:
    """CPU time of all of them so far, in seconds."""
    return sum(cpu_of(pid).total for pid in pids)


class Client:
    """One connection of HTTP/1.1, as thin as can be: the load must not cost more than what it measures."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self.reader, self.writer = reader, writer
        self.head = f"HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {key}\r\ncontent-type: ".encode()

    async def ask(self, method: str, path: str, body: bytes, wanted: int, kind: str = "application/json") -> bytes:
        head = b"%s%s\r\ncontent-length: %d\r\n\r\n" % (self.head, kind.encode(), len(body))
        self.writer.write(f"{method} {path} ".encode() + head + body)
        said = await self.reader.readuntil(b"\r\n\r\n")
        length = int(said.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self.reader.readexactly(length)
        if int(said[9:12]) != wanted:
            raise BenchError(f"{method} {path}: {said[:40]!r} {answer[:300]!r}", "the gate's log says why")
        return answer

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@contextlib.contextmanager
def gate(folder: Path) -> Iterator[Relay]:
    ports = {"office": held_port("127.0.0.1"), "plant": held_port("127.0.0.2")}
    (folder / "policy.yaml").write_text(POLICY.format(**ports))
    (folder / "count.json").write_text(json.dumps(SCHEMA))
    state = folder / "state"
    with (folder / "gate.log").open("wb") as log:
        process = subprocess.Popen(
            [*COFFERDAM, "up", str(folder / "policy.yaml"), "--state", str(state)], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 60
        while b"gate-ready" not in (folder / "gate.log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError("the gate does not start", (folder / "gate.log").read_text()[-500:])
            time.sleep(0.1)
        keys = {}
        for who in ("erp", "mes"):
            made = subprocess.run(
                [*COFFERDAM, "relay", "key", "new", who, "--json", "--state", str(state)],
                capture_output=True, check=True,
            )  # fmt: skip
            keys[who] = json.loads(made.stdout)["key"]
        yield Relay(process, ports, keys, state)
    finally:
        process.terminate()
        process.wait(30)


# --- peers --------------------------------------------------------------------------------------------------------

Peer = Callable[[float], dict[str, float]]


def spread(took: list[float], seconds: float) -> dict[str, float]:
    took = sorted(took)
    return {
        "per_second": len(took) / seconds,
        "median_ms": statistics.median(took) * 1e3,
        "p99_ms": took[min(len(took) - 1, int(len(took) * 0.99))] * 1e3,
    }


def fdatasync(folder: Path, seconds: float) -> dict[str, float]:
    took: list[float] = []
    fd = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        os.write(fd, bytes(4096))
        os.fdatasync(fd)
        took.append(time.perf_counter() - now)
    os.close(fd)
    (folder / "sync").unlink()
    return spread(took, time.perf_counter() - began)


def timed(work: Callable[[int], object], seconds: float, each: int = 1) -> dict[str, float]:
    took: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        work(len(took))
        took.append(time.perf_counter() - now)
    found = spread(took, time.perf_counter() - began)
    return found | {"per_second": found["per_second"] * each}


@contextlib.contextmanager
def peers(folder: Path) -> Iterator[dict[str, Peer]]:
    """Those of them that this machine has."""
    found: dict[str, Peer] = {}
    with contextlib.ExitStack() as stack:
        found["SQLite, one by one"] = stack.enter_context(sqlite(folder))
        found |= stack.enter_context(postgres(folder))
        found |= stack.enter_context(jetstream(folder))
        yield found


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Peer]:
    base = sqlite3.connect(folder / "bare.db", isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute("PRAGMA synchronous = FULL")
    base.execute("CREATE TABLE m (source TEXT, id TEXT, body BLOB, UNIQUE (source, id))")
    counter = iter(range(1 << 40))
    yield lambda seconds: timed(
        lambda _: base.execute("INSERT INTO m VALUES ('mes', ?, ?)", (str(next(counter)), BODY)), seconds
    )
    base.close()


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[dict[str, Peer]]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        print("without PostgreSQL: Debian's postgresql is not here", file=sys.stderr)
        yield {}
        return
    import pwd

    import psycopg

    data, port = folder / "pg", held_port("127.0.0.1")
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        owner = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data.mkdir(mode=0o700)
        os.chown(data, user.pw_uid, user.pw_gid)
        for path in (folder, *folder.parents):
            if path.stat().st_uid == 0 and path.stat().st_mode & 0o001 == 0:
                path.chmod(path.stat().st_mode | 0o001)
    run = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", **owner}
    subprocess.run([str(programs[-1] / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust"], **run)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {data}"
    subprocess.run([str(programs[-1] / "pg_ctl"), "-D", str(data), "-w", "-l", str(data / "log"), "-o", options,
                    "start"], **run)  # fmt: skip
    try:
        with psycopg.connect(f"host=127.0.0.1 port={port} user=bench dbname=postgres", autocommit=True) as conn:
            conn.execute("CREATE TABLE m (source text, id text, body json, UNIQUE (source, id))")
            counter = iter(range(1 << 40))
            insert, text = "INSERT INTO m VALUES ('mes', %s, %s)", BODY.decode()

            def many(_: int) -> None:
                with conn.transaction(), conn.cursor() as cursor:
                    cursor.executemany(insert, [(str(next(counter)), text) for _ in range(500)])

            yield {
                "PostgreSQL, one by one": lambda seconds: timed(
                    lambda _: conn.execute(insert, (str(next(counter)), text)), seconds
                ),
                "PostgreSQL, executemany of 500": lambda seconds: timed(many, seconds, 500),
            }
    finally:
        subprocess.run([str(programs[-1] / "pg_ctl"), "-D", str(data), "-m", "fast", "-w", "stop"], **run)


@contextlib.contextmanager
def jetstream(folder: Path) -> Iterator[dict[str, Peer]]:
    server = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if server is None:
        print("without JetStream: there is no nats-server", file=sys.stderr)
        yield {}
        return
    found: dict[str, Peer] = {}
    processes = []
    try:
        for name, sync in (("synced", "sync_interval: always"), ("default", "")):
            port, home = held_port("127.0.0.1"), folder / f"nats-{name}"
            home.mkdir()
            (home / "conf").write_text(
                f'listen: "127.0.0.1:{port}"\njetstream {{store_dir: "{home}/streams", {sync}}}\n'
            )
            command, quiet = [server, "-c", str(home / "conf")], subprocess.DEVNULL
            processes.append(subprocess.Popen(command, stdout=quiet, stderr=quiet))
            for under_way, said in ((1, "one by one"), (500, "500 under way")):
                found[f"JetStream {name}, {said}"] = _publishing(port, under_way)
        time.sleep(1)
        yield found
    finally:
        for process in processes:
            process.terminate()
            process.wait(30)


def _publishing(port: int, under_way: int) -> Peer:
    async def go(seconds: float) -> dict[str, float]:
        import nats

        client = await nats.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream(timeout=30)
        await stream.add_stream(name="BENCH", subjects=["bench"])
        took: list[float] = []
        began = time.perf_counter()

        async def one(number: int) -> None:
            count = 0
            while (now := time.perf_counter()) - began < seconds:
                count += 1
                await stream.publish("bench", BODY, headers={"Nats-Msg-Id": f"{began}-{number}-{count}"})
                took.append(time.perf_counter() - now)

        await asyncio.gather(*(one(number) for number in range(under_way)))
        found = spread(took, time.perf_counter() - began)
        await client.close()
        return found

    return lambda seconds: asyncio.run(go(seconds))


if __name__ == "__main__":
    sys.exit(main())
