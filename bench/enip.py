"""`make bench ARGS=--enip`: EtherNet/IP through the gate beside direct and beside HAProxy, which passes the bytes, in
turns of one run: reads of tags, packets of reads, 32 clients at once; and how old packets of I/O are when they arrive.

The controller is cm-ethernetip's tag server in a process of its own, as it is; clients are raw sockets, pylogix and
pycomm3; the adapter and the scanner of I/O are those of enip_io. What is compared are medians of the same requests.
Device and generator are Python programs, which take their share of the machine's cores: unlike Modbus's, which are C.
`--io-seconds 600` are the goal's ten minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import selectors
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from enip_io import OUTPUTS, Adapter, Scanner
from processes import BenchError, cpu_of, descendants, held_port

COFFERDAM = [sys.executable, "-m", "cofferdam.cli.main"]
CELL = [sys.executable, "-m", "cofferdam.lab.packer.cell"]
GATE, CONTROLLER, DRIVE, PERSON, NOBODY = "127.0.0.1", "127.0.0.3", "127.0.0.2", "127.0.0.9", "127.0.0.4"
POLICY = """
site: bench
zones:
  office: {{side: it}}
  plant: {{side: ot}}
assets:
  packer:
    zone: plant
    address: {controller}
    port: {controller_port}
    protocol: enip
    route: backplane 0
    connections: 32
    listen: "{gate}:{tags}"
    points:
      pump: {{at: tag Pump, type: dint, min: 0, max: 1500}}
      counts: {{at: "tag Counts[0-49]", type: dint}}
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
      - {{who: bench, asset: packer, read: all}}
      - {{who: bench, asset: drive, stream: [{names}]}}
"""
CONNECTIONS = 20
"""A stream with outputs is one connection's at a time: there is one for each."""
ASKED = 2000
"""Requests by which processor time is measured."""
REALTIME = "    priority: realtime\n"
"""Of the conduit, for I/O: halves of such a priority do not look for work before they sleep."""
READ = b"\x4c\x03\x91\x04Pump\x01\x00"


def packet(count: int) -> bytes:
    """A Multiple Service Packet of so many reads."""
    head = [count, *(2 + 2 * count + len(READ) * index for index in range(count))]
    return b"\x0a\x02\x20\x02\x24\x01" + struct.pack(f"<{count + 1}H", *head) + READ * count


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

    @property
    def socket(self) -> socket.socket:
        return self._socket

    def ask(self, cip: bytes) -> bytes:
        self.begin(cip)
        return self.finish()

    def begin(self, cip: bytes) -> None:
        body = bytes(6) + struct.pack("<HHHHH", 2, 0, 0, 0xB2, len(cip)) + cip
        self._socket.sendall(struct.pack("<HH4sI8sI", 0x6F, len(body), self._session, 0, b"bench...", 0) + body)

    def finish(self) -> bytes:
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


def worked(pid: int, ask: Callable[[], Any]) -> float:
    """The processor time of one request, of a process and all that it has begun, in µs."""
    family = list(descendants(pid))
    before = sum(cpu_of(one).total for one in family)
    for _ in range(ASKED):
        ask()
    return (sum(cpu_of(one).total for one in family) - before) * 1e6 / ASKED


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


def many(place: tuple[str, int], count: int, seconds: float) -> float:
    """Reads a second of so many clients, each of which asks again when it has its answer."""
    clients = [Raw(*place) for _ in range(count)]
    waiting = selectors.DefaultSelector()
    for one in clients:
        one.begin(READ)
        waiting.register(one.socket, selectors.EVENT_READ, one)
    done, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        for key, _ in waiting.select(1):
            key.data.finish()
            done += 1
            key.data.begin(READ)
    for one in clients:
        one.close()
    waiting.close()
    return done / seconds


def io_ages(
    adapter: Adapter, target: tuple[str, int], count: int, interval: float, multiplier: int, seconds: float,
    flood: tuple[str, int] | None = None,
) -> tuple[list[float], int, int]:  # fmt: skip
    """(ages one way in ms, packets that came later than the time-out at the adapter, and at the scanner). `flood`:
    where 8 clients read tags meanwhile, as fast as they have answers."""
    raw = Raw(*target)
    scanner = Scanner(raw, target[0], PERSON, count, interval, multiplier)
    scanner.run(0.5)
    adapter.told()
    scanner.gaps = 0
    if flood is not None:
        with multiprocessing.Pool(1) as pool:
            pool.apply_async(many, (flood, 8, seconds + 1))
            time.sleep(0.3)
            scanner.run(seconds)
    else:
        scanner.run(seconds)
    ages, gaps = adapter.told()
    raw.close()
    scanner.close()
    return sorted(ages), gaps, scanner.gaps


@contextlib.contextmanager
def plant(priority: str = "") -> Iterator[tuple[dict[str, tuple[str, int]], Adapter, dict[str, int]]]:
    """The devices, the gate and HAProxy, where each answers, and by which process of ours it was begun. `priority`: a
    line of the conduit."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-") as folder, contextlib.ExitStack() as ends:
        wanted = {"tags": GATE, "io": GATE, "controller": CONTROLLER, "drive": DRIVE, "haproxy": GATE, "other": NOBODY}
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
        ports = {"tags": places["tags"][1], "io": places["io"][1]}
        policy.write_text(
            POLICY.format(
                gate=GATE, controller=CONTROLLER, drive=DRIVE, controller_port=places["controller"][1],
                drive_port=places["drive"][1], priority=priority, points=", ".join(points),
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
            config = Path(folder) / "haproxy.cfg"
            config.write_text(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
                f"listen tags\n bind {GATE}:{places['haproxy'][1]}\n"
                f" server one {CONTROLLER}:{places['controller'][1]}\n"
            )
            commands.append(["haproxy", "-db", "-q", "-f", str(config)])
        else:
            del places["haproxy"]
        pids: dict[str, int] = {}
        for way, command in zip(("direct", "gate", "haproxy"), commands, strict=False):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            pids[way] = process.pid
            ends.callback(process.wait, 30)
            ends.callback(process.terminate)
        for name in ("controller", "tags", "haproxy"):
            if name in places:
                _wait(places[name])
        yield places, adapter, pids


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

    with plant() as (places, _, pids):
        ways = {"direct": "controller", "haproxy": "haproxy", "gate": "tags"}
        for _ in range(rounds):
            for way, place in ((way, places[name]) for way, name in ways.items() if name in places):
                raw = Raw(*place)
                note("one tag, raw socket, µs", way, median(lambda: raw.ask(READ), seconds))  # noqa: B023
                note("one tag, processor time, µs", way, worked(pids[way], lambda: raw.ask(READ)))  # noqa: B023
                twenty = packet(20)
                note("20 tags in a packet, µs", way, median(lambda: raw.ask(twenty), seconds))  # noqa: B023
                raw.close()
                note("reads a second, 32 clients", way, many(place, 32, seconds))
                for what, opened in libraries().items() if way != "haproxy" else ():
                    ask, close = opened(*place)
                    note(f"{what}, µs", way, median(ask, seconds))
                    close()
    with plant(REALTIME) as (places, adapter, _):
        for way, place in (("direct", places["drive"]), ("gate", places["io"])):
            for what, count, interval, multiplier in (
                (f"I/O at 10 ms, {CONNECTIONS} connections", CONNECTIONS, 0.01, 3),
                ("I/O at 2 ms x 4, one connection", 1, 0.002, 0),
            ):  # fmt: skip
                ages, late, silent = io_ages(adapter, place, count, interval, multiplier, io_seconds)
                if ages:
                    note(f"{what}, age, median ms", way, statistics.median(ages))
                    note(f"{what}, age, p99.9 ms", way, ages[int(len(ages) * 0.999)])
                note(f"{what}, time-outs", way, late + silent)
        for way, flood in (("gate", None), ("gate, flood", places["tags"])):
            ages, _, _ = io_ages(adapter, places["io"], 1, 0.01, 3, io_seconds, flood)
            if ages:
                note("I/O at 10 ms beside a flood of reads, p99.9 ms", way, ages[int(len(ages) * 0.999)])
    return {what: {way: statistics.median(values) for way, values in ways.items()} for what, ways in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="EtherNet/IP through the gate, beside direct and HAProxy")
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one measurement (default: 2)")
    parser.add_argument("--io-seconds", type=float, default=10.0, help="time of one of I/O (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    args = parser.parse_args()
    before = os.getloadavg()[0]
    try:
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
