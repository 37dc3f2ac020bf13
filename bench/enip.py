"""`make bench ARGS=--enip`: reads of tags through the gate beside the same reads direct, in turns of one run; and how
old a packet of I/O is when it arrives.

The device is cm-ethernetip's tag server in a process of its own, as it is; the clients are a raw socket, pylogix and
pycomm3. What is compared are medians of the same requests. Not here: HAProxy (run.py has it for Modbus), load by many
clients, the goals' ten minutes of I/O.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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

from processes import BenchError, held_port

COFFERDAM = [sys.executable, "-m", "cofferdam.cli.main"]
CELL = [sys.executable, "-m", "cofferdam.lab.packer.cell"]
GATE, CONTROLLER, DRIVE, PERSON = "127.0.0.1", "127.0.0.3", "127.0.0.2", "127.0.0.9"
UDP = 2222
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
    points:
      reference: {{at: io Drive.0, type: dint, min: 0, max: 2000000000}}
    streams:
      drive: {{at: io Drive, form: "outputs 150 of 4 bytes, inputs 100 of 8 bytes, config 151"}}
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
    allow:
      - {{who: bench, asset: packer, read: all}}
      - {{who: bench, asset: drive, stream: drive}}
"""
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


def io_ages(target: tuple[str, int], seconds: float, interval: float = 0.01) -> list[float]:
    """How long a reference takes until the drive says it back: out, and in with the drive's next packet, in ms."""
    raw = Raw(*target)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((PERSON, UDP))
    udp.settimeout(interval)
    rpi = int(interval * 1e6)
    body = struct.pack("<BBIIHHIB3xIHIHBB", 10, 14, 0, 0x5CA00001, 1, 77, int(time.time()) & 0xFFFF, 4, rpi, 0x480A,
                       rpi, 0x480A, 1, 4)  # fmt: skip
    answer = raw.ask(b"\x54\x02\x20\x06\x24\x01" + body + b"\x20\x04\x24\x97\x2c\x96\x2c\x64")
    number = int.from_bytes(answer[4:8], "little")
    sent: dict[int, float] = {}
    ages: list[float] = []
    until, sequence, due = time.perf_counter() + seconds, 0, time.perf_counter()
    while time.perf_counter() < until:
        if time.perf_counter() >= due:
            due += interval
            sequence += 1
            data = struct.pack("<HIi", sequence & 0xFFFF, 1, sequence)
            head = struct.pack("<HHHIIHH", 2, 0x8002, 8, number, sequence, 0xB1, len(data))
            sent[sequence] = time.perf_counter()
            udp.sendto(head + data, (target[0], UDP))
        udp.settimeout(max(0.0005, due - time.perf_counter()))
        with contextlib.suppress(TimeoutError):
            value = int.from_bytes(udp.recv(2000)[20:24], "little", signed=True)
            if value in sent:
                ages.append((time.perf_counter() - sent.pop(value)) * 1000)
    raw.close()
    udp.close()
    time.sleep(interval * 70)  # the drive's watchdog
    return ages


@contextlib.contextmanager
def plant() -> Iterator[dict[str, tuple[str, int]]]:
    """The device and the gate, and where each answers."""
    with tempfile.TemporaryDirectory(prefix="cofferdam-bench-") as folder:
        ports = {name: held_port(at) for name, at in (("tags", GATE), ("io", GATE), ("controller", CONTROLLER),
                                                      ("drive", DRIVE))}  # fmt: skip
        policy = Path(folder) / "policy.yaml"
        text = POLICY.format(
            gate=GATE, tags=ports["tags"], io=ports["io"], controller=CONTROLLER, drive=DRIVE,
            controller_port=ports["controller"], drive_port=ports["drive"],
        )  # fmt: skip
        policy.write_text(text)
        places = {"controller": (CONTROLLER, ports["controller"]), "drive": (DRIVE, ports["drive"]),
                  "tags": (GATE, ports["tags"]), "io": (GATE, ports["io"])}  # fmt: skip
        arguments = [f"--{name}={places[name][0]}:{places[name][1]}" for name in ("controller", "drive")]
        cell = subprocess.Popen([*CELL, *arguments], stdout=subprocess.DEVNULL)
        gate = subprocess.Popen(
            [*COFFERDAM, "up", str(policy), "--state", str(Path(folder) / "state")], stderr=subprocess.DEVNULL
        )
        try:
            for name in ("controller", "tags"):
                _wait(places[name])
            yield places
        finally:
            for process in (gate, cell):
                process.terminate()
                process.wait(30)


def _wait(place: tuple[str, int]) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError, BenchError):
            Raw(*place).close()
            return
        time.sleep(0.1)
    raise BenchError(f"nobody answers at {place[0]}:{place[1]}")


def measure(seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """{what: {direct, gate}}: medians of the rounds, which take turns."""
    found: dict[str, dict[str, list[float]]] = {}

    def note(what: str, way: str, value: float) -> None:
        found.setdefault(what, {}).setdefault(way, []).append(value)

    with plant() as places:
        for _ in range(rounds):
            for way, place in (("direct", places["controller"]), ("gate", places["tags"])):
                raw = Raw(*place)
                note("one tag, raw socket, µs", way, median(lambda: raw.ask(READ), seconds))  # noqa: B023
                twenty = packet(20)
                note("20 tags in a packet, µs", way, median(lambda: raw.ask(twenty), seconds))  # noqa: B023
                raw.close()
                for what, opened in libraries().items():
                    ask, close = opened(*place)
                    note(f"{what}, µs", way, median(ask, seconds))
                    close()
        for way, place in (("direct", places["drive"]), ("gate", places["io"])):
            ages = sorted(io_ages(place, 3 * seconds))
            if ages:
                note("I/O at 10 ms, out and back, median ms", way, statistics.median(ages))
                note("I/O at 10 ms, out and back, p99 ms", way, ages[int(len(ages) * 0.99)])
    return {what: {way: statistics.median(values) for way, values in ways.items()} for what, ways in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="EtherNet/IP through the gate, beside direct")
    parser.add_argument("--seconds", type=float, default=2.0, help="time of one measurement (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    args = parser.parse_args()
    try:
        found = measure(args.seconds, args.rounds)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"{'':44}{'direct':>10}{'gate':>10}{'ratio':>8}")
    for what, ways in found.items():
        direct, gate = ways.get("direct", 0.0), ways.get("gate", 0.0)
        print(f"{what:44}{direct:10.2f}{gate:10.2f}{gate / direct if direct else 0:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
