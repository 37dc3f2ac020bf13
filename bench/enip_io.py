"""I/O for bench/enip.py: a scanner and an adapter by raw bytes, which know when a packet left and when it came.

The outputs are the sender's clock (µs, CLOCK_MONOTONIC, which all processes of a machine share), so that the adapter
knows each packet's age one way. It answers each with one of its own, and says in the end what it saw. Not here: the
gate, tables.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from processes import BenchError

UDP = 2222
OUTPUTS = 150
"""The assembly of the first connection's outputs; each further one has the next."""
PRIORITY = 20
"""Above the halves', which is 10 where the policy says `priority: realtime`."""
MASK = 0x3FFF_FFFF
"""Of a clock in µs: about 18 minutes, and a number that any DINT holds."""


Pauses = list[tuple[int, float]]
"""When each was over (monotonic ns), and how long it was (ms)."""


class Row(NamedTuple):
    """What came of one run. `ages` one way in ms, sorted; `due`: packets that were to come; longer than four intervals
    nothing came `at_device` or `at_scanner`; `late`: the scanner itself was so late, by more than an interval (one
    that runs above all else is so because the machine stood still). `began`: monotonic ns."""

    ages: list[float]
    due: int
    at_device: Pauses
    at_scanner: Pauses
    late: Pauses
    began: int

    @property
    def ended(self) -> bool:
        """What has ended sends no more."""
        return len(self.ages) < 0.99 * self.due


def clock() -> int:
    """µs."""
    return (time.monotonic_ns() // 1000) & MASK


def exactly(peer: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = peer.recv(count - len(data))
        if not piece:
            raise ConnectionError("closed")
        data += piece
    return data


def frame(peer: socket.socket) -> bytes:
    """The next frame of encapsulation."""
    head = exactly(peer, 24)
    return head + exactly(peer, int.from_bytes(head[2:4], "little"))


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """As if this were a machine of its own, which a scanner and a drive are: what the gate and all else here do takes
    the core from nobody meanwhile. Takes root; without it they share. No garbage is collected: in ten minutes' worth of
    figures that would be a pause of its own."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, *before)


class Adapter:
    """A device with any number of connections of 4 bytes out and 8 in, in a process of its own."""

    def __init__(self, address: str, port: int) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_adapter, args=(address, port, theirs), daemon=True)
        with apart():  # it and its threads are as whoever starts them
            self._process.start()
        theirs.close()  # or its end is never seen
        try:
            self._pipe.recv()
        except EOFError:
            raise BenchError(f"no adapter of I/O at {address}:{port}", f"it needs UDP port {UDP} there") from None

    def told(self, since: int = 0) -> tuple[list[float], Pauses]:
        """(ages in ms of what has come since then (monotonic ns), pauses of more than four intervals). It is busy with
        that for so long that a stream with a short time-out ends: to be asked once nobody sends."""
        self._pipe.send(since)
        found: tuple[list[float], Pauses] = self._pipe.recv()
        return found

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(10)


def _adapter(address: str, port: int, pipe: Connection) -> None:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, UDP))
    listener = socket.create_server((address, port))
    links: dict[int, tuple[int, int]] = {}  # ours -> (theirs, interval in µs)
    threading.Thread(target=_serve, args=(listener, links), daemon=True).start()
    pipe.send(None)
    ages: list[tuple[int, float]] = []
    gaps: Pauses = []
    last: dict[int, int] = {}
    sequence = 0
    udp.settimeout(0.02)
    while True:
        if pipe.poll():
            since = pipe.recv()
            pipe.send(([age for at, age in ages if at >= since], [one for one in gaps if one[0] >= since]))
            ages, gaps, last = [], [], {}
        with contextlib.suppress(TimeoutError):
            data, source = udp.recvfrom(2000)
            now = clock()
            number = int.from_bytes(data[6:10], "little")
            if number not in links or len(data) != 28:
                continue
            theirs, interval = links[number]
            said = int.from_bytes(data[24:28], "little")
            at = time.monotonic_ns()
            ages.append((at, ((now - said) & MASK) / 1000))
            if number in last and ((now - last[number]) & MASK) > 4 * interval:
                gaps.append((at, ((now - last[number]) & MASK) / 1000))
            last[number] = now
            sequence += 1
            body = struct.pack("<HII", sequence & 0xFFFF, said, 0)
            head = struct.pack("<HHHIIHH", 2, 0x8002, 8, theirs, sequence, 0xB1, len(body))
            udp.sendto(head + body, source)


def _serve(listener: socket.socket, links: dict[int, tuple[int, int]]) -> None:
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=_answer, args=(peer, links), daemon=True).start()


def _answer(peer: socket.socket, links: dict[int, tuple[int, int]]) -> None:
    with contextlib.suppress(OSError, ConnectionError), peer:
        while True:
            asked = frame(peer)
            if asked[0] == 0x65:
                peer.sendall(asked[:4] + struct.pack("<I", 7) + asked[8:])
                continue
            cip = asked[40:]
            if cip[0] == 0x54:
                theirs, serial, vendor, own = struct.unpack_from("<IHHI", cip, 12)
                rpi_out, rpi_in = struct.unpack_from("<I", cip, 28)[0], struct.unpack_from("<I", cip, 34)[0]
                ours = 0x0DE0_0000 + len(links)
                links[ours] = (theirs, rpi_out)
                body = struct.pack("<IIHHIIIBx", ours, theirs, serial, vendor, own, rpi_out, rpi_in, 0)
            else:
                body = cip[8:16] + b"\0\0"
            answer = bytes([cip[0] | 0x80, 0, 0, 0]) + body
            data = bytes(6) + struct.pack("<HHHHH", 2, 0, 0, 0xB2, len(answer)) + answer
            peer.sendall(struct.pack("<HH", 0x6F, len(data)) + asked[4:24] + data)


def stray(address: str, pause: float) -> None:
    """Sends packets of a connection that nobody has opened, until its process is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        while True:
            udp.sendto(struct.pack("<HHHIIHHHIi", 2, 0x8002, 8, 9, 1, 0xB1, 10, 1, 1, 0), (address, UDP))
            time.sleep(pause)


class Scanner:
    """One client with so many connections of one interval (s); the time-out is four intervals, times 2^`multiplier`."""

    def __init__(self, raw: Any, gate: str, person: str, count: int, interval: float, multiplier: int) -> None:
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((person, UDP))
        self._gate = gate
        self._interval = interval
        self._numbers: list[int] = []
        self.gaps: Pauses = []
        self.late: Pauses = []
        self._sequence = self.began = 0
        rpi, base = int(interval * 1e6), int(time.time()) & 0xFFFF
        for index in range(count):
            body = struct.pack(
                "<BBIIHHIB3xIHIHBB", 10, 14, 0, 0x5CA0_0000 + index, index + 1, 77, base, multiplier, rpi, 0x480A, rpi,
                0x480A, 1, 4,
            )  # fmt: skip
            path = bytes([0x20, 4, 0x24, 99, 0x2C, OUTPUTS + index, 0x2C, 100])
            answer = raw.ask(b"\x54\x02\x20\x06\x24\x01" + body + path)
            self._numbers.append(int.from_bytes(answer[4:8], "little"))

    def run(self, before: float, seconds: float) -> None:
        """Sends on all connections, in turn, each at its interval, `before` (s) and then for so long without a pause
        in between, which might be longer than a time-out. `began`: when the first was over (monotonic ns). Since then,
        `gaps`: waits of more than four intervals for an answer; `late`: see Row."""
        step = self._interval / len(self._numbers)
        due = time.perf_counter()
        counts, until, turn = due + before, due + before + seconds, 0
        last: dict[int, float] = {}
        while (now := time.perf_counter()) < until:
            if not self.began and now >= counts:
                self.began, self.gaps, self.late = time.monotonic_ns(), [], []
            if now >= due:
                if now - due > self._interval:
                    self.late.append((time.monotonic_ns(), (now - due) * 1000))
                due += step
                self._sequence += turn == 0
                data = struct.pack("<HIi", self._sequence & 0xFFFF, 1, clock())
                head = struct.pack("<HHHIIHH", 2, 0x8002, 8, self._numbers[turn], self._sequence, 0xB1, len(data))
                self._udp.sendto(head + data, (self._gate, UDP))
                turn = (turn + 1) % len(self._numbers)
            self._udp.settimeout(max(0.0002, due - time.perf_counter()))
            with contextlib.suppress(TimeoutError):
                number = int.from_bytes(self._udp.recv(2000)[6:10], "little")
                now = time.perf_counter()
                if number in last and now - last[number] > 4 * self._interval:
                    self.gaps.append((time.monotonic_ns(), (now - last[number]) * 1000))
                last[number] = now

    def close(self) -> None:
        self._udp.close()
