"""`make bench ARGS=--enip`: EtherNet/IP through the gate beside direct and beside HAProxy, which passes the bytes, in
turns of one run: reads of tags, packets of reads, 32 clients at once; and how old packets of I/O are when they arrive.

Reads are made by the load generator and answered by the device of load.c, which compares each answer in full. pylogix
and pycomm3 read from it too, and from cm-ethernetip's tag server, a Python program, which takes its share of the
machine's cores; the adapter and the scanner of I/O are those of enip_io, which run above all else here where they may.
`--io-seconds 600` are the goal's ten minutes. With `--only io` each row of I/O says what came, which pauses there were
and when, and what the gate ended and why.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from enip_io import OUTPUTS, Adapter, Row, Scanner, apart, stray
from enip_rows import Told, lines
from processes import LOAD, BenchError, Process, build_load, generated, haproxy, held_port, timed_reads

COFFERDAM = [sys.executable, "-m", "cofferdam.cli.main"]
CELL = [sys.executable, "-m", "cofferdam.lab.packer.cell"]
GATE, CONTROLLER, DRIVE, PERSON, NOBODY, DEVICE = (f"127.0.0.{number}" for number in (1, 3, 2, 9, 4, 5))
POLICY = """
site: bench
zones:
  office: {{side: it}}
  plant: {{side: ot}}
assets:
  packer: {{address: {controller}, port: {controller_port}, listen: "{gate}:{packer}", {tags}}}
  fast: {{address: {device}, port: {device_port}, listen: "{gate}:{fast}", {tags}}}
  drive:
    zone: plant
    address: {drive}
    port: {drive_port}
    protocol: enip
    listen: "{gate}:{io}"
    points: {{{points}}}
    streams: {{{streams}}}
principals:
  bench: {{zone: office, addresses: [127.0.0.0/8]}}
limits: {{client_requests_per_second: 100000}}
conduits:
  road:
    from: office
    to: plant
    broker: enip
    owner: bench
    reason: bench
    expires: 2035-06-30
{priority}    allow:
      - {{who: bench, asset: [packer, fast], read: all}}
      - {{who: bench, asset: drive, stream: [{names}]}}
"""
TAGS = """zone: plant, protocol: enip, route: backplane 0, connections: 32, outstanding: 16,
         points: {pump: {at: tag Pump, type: dint, min: 0, max: 1500}, counts: {at: "tag Counts[0-49]", type: dint}}"""
CONNECTIONS = 20
"""A stream with outputs is one connection's at a time: there is one for each."""
REALTIME = "    priority: realtime\n"
"""Of the conduit, for I/O: halves of such a priority do not look for work before they sleep."""
READS = {
    "one tag": ["--clients=1"], "20 tags in a packet": ["--clients=1", "--tags=20"], "32 clients": ["--clients=32"],
}  # fmt: skip
"""What is asked of the device, as the load generator is told."""
FIGURES = {
    "median_us": "median, µs", "p99_us": "p99, µs", "p99_9_us": "p99.9, µs", "per_second": "a second",
    "cpu_us": "processor time, µs",
}  # fmt: skip


class Raw:
    """One session by raw bytes."""

    def __init__(self, address: str, port: int) -> None:
        self._socket = socket.create_connection((address, port), 10, (PERSON, 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(struct.pack("<HHII8sI", 0x65, 4, 0, 0, bytes(8), 0) + b"\1\0\0\0")
        self._session = self._frame()[4:8]

    def _frame(self) -> bytes:
        data = self._socket.recv(65536)
        while len(data) < 24 + int.from_bytes(data[2:4], "little"):
            data += self._socket.recv(65536)
        return data

    def ask(self, cip: bytes) -> bytes:
        body = bytes(6) + struct.pack("<HHHHH", 2, 0, 0, 0xB2, len(cip)) + cip
        self._socket.sendall(struct.pack("<HH4sI8sI", 0x6F, len(body), self._session, 0, b"bench...", 0) + body)
        answer = self._frame()[40:]
        if answer[2]:
            raise BenchError(f"status {answer[2]:02X}")
        return answer

    def close(self) -> None:
        self._socket.close()


def median(ask: Callable[[], Any], seconds: float) -> float:
    """The median of one request after the other, in µs."""
    for _ in range(20):
        ask()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter_ns()
        ask()
        times.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(times)


def libraries() -> dict[str, Callable[[str, int], tuple[Callable[[], Any], Callable[[], Any]]]]:
    """Each library's read of one tag, and how it is closed."""

    def pylogix(address: str, port: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
        from pylogix import PLC

        plc = PLC(address, port=port)
        return lambda: plc.Read("Pump"), plc.Close

    def pycomm3(address: str, port: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
        from pycomm3 import LogixDriver

        plc = LogixDriver(f"{address}:{port}")
        plc.open()
        return lambda: plc.read("Pump"), plc.close

    return {"pylogix, one tag": pylogix, "pycomm3, one tag": pycomm3}


@contextlib.contextmanager
def reading(target: tuple[str, int], seconds: float) -> Iterator[None]:
    """8 clients read tags meanwhile, as fast as they have answers."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(generated, target, seconds + 2, 0, ["--enip", "--clients=8"])
        time.sleep(0.3)
        yield
        done.result()


@contextlib.contextmanager
def straying(address: str) -> Iterator[None]:
    """A stranger sends packets of no connection meanwhile, ten for each that is due."""
    stranger = multiprocessing.Process(target=stray, args=(address, 0.001), daemon=True)
    stranger.start()
    try:
        yield
    finally:
        stranger.terminate()
        stranger.join(10)


def io_ages(
    adapter: Adapter, target: tuple[str, int], count: int, interval: float, multiplier: int, seconds: float,
    beside: contextlib.AbstractContextManager[None] | None = None,
) -> Row:  # fmt: skip
    """So many connections for so long. `beside`: what happens meanwhile. Nothing here takes its time while a stream is
    open: it would end."""
    with beside or contextlib.nullcontext():
        raw = Raw(*target)
        scanner = Scanner(raw, target[0], PERSON, count, interval, multiplier)
        with apart():
            scanner.run(0.5, seconds)
            raw.close()  # at once, or its streams end for silence
        ages, gaps = adapter.told(scanner.began)
        scanner.close()
    return Row(sorted(ages), round(count * seconds / interval), gaps, scanner.gaps, scanner.late, scanner.began)


@contextlib.contextmanager
def plant(priority: str = "") -> Iterator[tuple[dict[str, tuple[str, int]], Adapter, dict[str, int], str]]:
    """The devices, the gate and HAProxy, where each answers, by which process of ours it was begun, and the gate's
    state. `priority`: a
    line of the conduit."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-") as folder, contextlib.ExitStack() as ends:
        wanted = {
            "packer": GATE, "fast": GATE, "io": GATE, "controller": CONTROLLER, "drive": DRIVE, "haproxy": GATE,
            "other": NOBODY, "device": DEVICE,
        }  # fmt: skip
        places = {name: (at, held_port(at)) for name, at in wanted.items()}
        policy = Path(folder) / "policy.yaml"
        streams = [
            f'drive{index}: {{at: io Drive{index}, fastest: 2 ms, form: "outputs {OUTPUTS + index} of 4 bytes, '
            'inputs 100 of 8 bytes, config 99"}'
            for index in range(CONNECTIONS)
        ]
        points = [
            f"reference{index}: {{at: io Drive{index}.0, type: dint, min: 0, max: 2000000000}}"
            for index in range(CONNECTIONS)
        ]
        ports = {name: places[name][1] for name in ("packer", "fast", "io")}
        ports |= {f"{name}_port": places[name][1] for name in ("controller", "device", "drive")}
        policy.write_text(
            POLICY.format(
                gate=GATE, controller=CONTROLLER, device=DEVICE, drive=DRIVE, tags=TAGS, priority=priority,
                points=", ".join(points),
                streams=", ".join(streams), names=", ".join(f"drive{index}" for index in range(CONNECTIONS)), **ports,
            )
        )  # fmt: skip
        adapter = Adapter(*places["drive"])
        ends.callback(adapter.stop)
        cell = [*CELL, *(f"--{name}={places[at][0]}:{places[at][1]}" for name, at in (("controller", "controller"),
                                                                                     ("drive", "other")))]  # fmt: skip
        gate = [*COFFERDAM, "up", str(policy), "--state", str(Path(folder) / "state")]
        commands = [cell, gate]
        if shutil.which("haproxy"):
            between = f"{GATE}:{places['haproxy'][1]}"
            commands.append(haproxy(Path(folder), between, f"{DEVICE}:{places['device'][1]}"))
        else:
            del places["haproxy"]
        device = Process("device", [str(LOAD), "server", "--enip", "--listen", f"{DEVICE}:{places['device'][1]}"])
        ends.callback(device.stop)
        pids = {"direct": device.pid}
        for way, command in zip(("controller", "gate", "haproxy"), commands, strict=False):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            pids[way] = process.pid
            ends.callback(process.wait, 30)
            ends.callback(process.terminate)
        for name in ("controller", "device", "packer", "fast", "haproxy"):
            if name in places:
                _wait(places[name])
        yield places, adapter, pids, str(Path(folder) / "state")


def _wait(place: tuple[str, int]) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError, BenchError):
            Raw(*place).close()
            return
        time.sleep(0.1)
    raise BenchError(f"nobody answers at {place[0]}:{place[1]}")


def measure(seconds: float, io_seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """{what: {direct, haproxy, gate}}: medians of the rounds, which take turns."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(what: str, way: str, value: float) -> None:
        found.setdefault(what, {}).setdefault(way, []).append(value)

    with plant() as (places, _, pids, _):
        ways = {"direct": "device", "haproxy": "haproxy", "gate": "fast"}
        for number in range(rounds):
            order = [(way, name) for way, name in ways.items() if name in places][:: -1 if number % 2 else 1]
            for what, words in READS.items():
                for way, name in order:
                    measured = timed_reads(places[name], seconds, ["--enip", *words], pids[way])
                    for figure, value in measured.items():
                        note(f"{what}, {FIGURES[figure]}", way, value)
            for server, where in (("C", ("device", "fast")), ("Python", ("controller", "packer"))):
                for what, opened in libraries().items():
                    for way, name in zip(("direct", "gate"), where, strict=True):
                        ask, close = opened(*places[name])
                        note(f"{what}, from {server}, µs", way, median(ask, seconds))
                        close()
    with plant(REALTIME) as (places, adapter, _, _):
        for way, place in (("direct", places["drive"]), ("gate", places["io"])):
            for what, count, interval, multiplier in (
                (f"I/O at 10 ms, {CONNECTIONS} connections", CONNECTIONS, 0.01, 3),
                ("I/O at 2 ms x 4, one connection", 1, 0.002, 0),
            ):  # fmt: skip
                row = io_ages(adapter, place, count, interval, multiplier, io_seconds)
                if row.ages:
                    note(f"{what}, age, median ms", way, statistics.median(row.ages))
                    note(f"{what}, age, p99.9 ms", way, row.ages[int(len(row.ages) * 0.999)])
                    note(f"{what}, time-outs", way, len(row.at_device) + len(row.at_scanner) + row.ended)
                else:
                    note(f"{what}, time-outs", way, count)
        for what, beside in (
            ("a flood of reads", reading(places["fast"], io_seconds)), ("strays, ten for each packet", straying(GATE))
        ):  # fmt: skip
            for way, meanwhile in (("gate", None), ("gate, flood", beside)):
                row = io_ages(adapter, places["io"], 1, 0.01, 3, io_seconds, meanwhile)
                if row.ended:
                    raise BenchError(f"I/O beside {what}: {len(row.ages)} packets of {row.due} came")
                note(f"I/O at 10 ms beside {what}, p99.9 ms", way, row.ages[int(len(row.ages) * 0.999)])
    return {what: {way: statistics.median(values) for way, values in ways.items()} for what, ways in found.items()}


def watch_io(seconds: float) -> None:
    """Prints what becomes of I/O, row by row: what came, which pauses there were, what the gate ended and why."""
    with plant(REALTIME) as (places, adapter, _, state):
        told = Told(COFFERDAM, state)
        for what, count, interval, multiplier, flood in (
            (f"{CONNECTIONS} connections at 10 ms", CONNECTIONS, 0.01, 3, False),
            ("2 ms x 4, one connection", 1, 0.002, 0, False),
            ("10 ms beside a flood of reads", 1, 0.01, 3, True),
        ):
            for way, place, tags in (("direct", "drive", "device"), ("gate", "io", "fast")):
                beside = reading(places[tags], seconds) if flood else None
                told.begin()
                row = io_ages(adapter, places[place], count, interval, multiplier, seconds, beside)
                print("\n".join(lines(what, way, seconds, row, told.since_then() if way == "gate" else [])), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="EtherNet/IP through the gate, beside direct and HAProxy")
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one measurement (default: 2)")
    parser.add_argument("--io-seconds", type=float, default=10.0, help="time of one of I/O (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument("--only", choices=["io"], help="I/O alone, for --io-seconds each, with what ended and why")
    args = parser.parse_args()
    before = os.getloadavg()[0]
    try:
        build_load()
        if args.only:
            watch_io(args.io_seconds)
            print(f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after")
            return 0
        found = measure(args.seconds, args.io_seconds, args.rounds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found))
        return 0
    columns = ("direct", "haproxy", "gate", "gate, flood")
    print(f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(f"{'':54}" + "".join(f"{one:>12}" for one in columns) + f"{'ratio':>8}")
    for what, ways in found.items():
        figures = "".join(f"{ways[one]:12.2f}" if one in ways else f"{'':12}" for one in columns)
        base = ways.get("haproxy") or ways.get("direct") or ways.get("gate", 0.0)
        ratio = (ways["gate, flood"] if "gate, flood" in ways else ways.get("gate", 0.0)) / base if base else 0.0
        print(f"{what:54}{figures}{ratio:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
