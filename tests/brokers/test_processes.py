"""The halves as real processes, with real sockets: pymodbus as client and as asset, and a hostile outer half."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import socket
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymodbus.client import ModbusTcpClient

from cofferdam.audit.events.access import LimitHit, Malformed, SessionClosed, WriteAllowed, WriteOutcome
from cofferdam.audit.events.gate import RecordViolation
from cofferdam.brokers.kit.supervision import Configure, Failing, NewPolicy, PolicyTaken, Ready, SetSevered
from cofferdam.brokers.proxy.records import Closed, Denied, Failed, Opened, Reply, Request, Rows, to_outer
from cofferdam.crossing.exit import EXIT_REFUSED
from cofferdam.crossing.framing import PACKET, pack
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import Unpacker
from cofferdam.protocols.modbus.messages import ReadHoldingRegisters, WriteMultipleRegisters, WriteSingleRegister
from tests.brokers.harness import COMPILED, Auditor, Half, eventually, listen, make_policy, running, sliced, write_all
from tests.brokers.stage import read, write
from tests.waiting import PATIENT, readable


@pytest.fixture(
    params=["plain", pytest.param("compiled", marks=pytest.mark.skipif(not COMPILED.is_compiled, reason=COMPILED.why))],
    autouse=True,
)
def build(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with halves from the source, and with compiled ones where there is a build that fits."""
    monkeypatch.setenv("COFFERDAM_TEST_BUILD", request.param)


class Plc(threading.Thread):
    """An asset on a real socket that keeps every request it gets. `mode` makes it misbehave."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = listen()
        self.port: int = self.listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self.open: set[socket.socket] = set()
        self.mode = "good"
        self.registers = dict.fromkeys(range(65536), 7)
        self._wake = os.pipe()
        self.closing = False

    def run(self) -> None:
        buffers: dict[socket.socket, bytes] = {}
        while not self.closing:
            watched: list[Any] = [self._wake[0], self.listener, *buffers]
            found = readable(watched, 5)
            for ready in found:
                if ready is self.listener:
                    sock, _ = self.listener.accept()
                    self.connections += 1
                    self.open.add(sock)
                    buffers[sock] = b""
                elif isinstance(ready, socket.socket):
                    data = b""
                    with contextlib.suppress(OSError):
                        data = ready.recv(4096)
                    if not data:
                        del buffers[ready]
                        self.open.discard(ready)
                        ready.close()
                        continue
                    buffers[ready] += data
                    while len(buffers[ready]) >= 6:
                        size = 6 + int.from_bytes(buffers[ready][4:6], "big")
                        if len(buffers[ready]) < size:
                            break
                        frame, buffers[ready] = buffers[ready][:size], buffers[ready][size:]
                        self.requests.append(frame)
                        with contextlib.suppress(OSError):
                            ready.sendall(self.answer(frame))
        for sock in (*buffers, self.listener):
            sock.close()
        for fd in self._wake:
            os.close(fd)

    def answer(self, frame: bytes) -> bytes:
        if self.mode == "silent" or (self.mode == "mute" and frame[7] == 6):
            return b""
        if self.mode == "nonsense":
            return b"\x00\x01\x00\x02hello, this is no Modbus"
        function, start = frame[7], int.from_bytes(frame[8:10], "big")
        if function in (3, 4):
            count = int.from_bytes(frame[10:12], "big")
            words = b"".join(self.registers[start + n].to_bytes(2, "big") for n in range(count))
            return frame[:4] + struct.pack(">HBBB", 3 + len(words), frame[6], function, len(words)) + words
        if function == 6:
            self.registers[start] = int.from_bytes(frame[10:12], "big")
            return frame
        return frame[:4] + struct.pack(">HBBB", 3, frame[6], function | 0x80, 1)

    def stop(self) -> None:
        if self.closing:
            return
        self.closing = True
        os.write(self._wake[1], b"x")
        self.join(PATIENT)

    def writes(self) -> list[bytes]:
        return [frame for frame in self.requests if frame[7] in (5, 6, 15, 16, 22, 23)]


@pytest.fixture
def plc() -> Iterator[Plc]:
    device = Plc()
    device.start()
    yield device
    device.stop()


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENT)
    sock.settimeout(PATIENT)
    return sock


def ask(sock: socket.socket, frame: bytes) -> bytes:
    sock.sendall(frame)
    return receive(sock)


def receive(sock: socket.socket) -> bytes:
    head = b""
    while len(head) < 6:
        part = sock.recv(6 - len(head))
        if not part:
            return head
        head += part
    size = int.from_bytes(head[4:6], "big")
    body = b""
    while len(body) < size:
        part = sock.recv(size - len(body))
        if not part:
            break
        body += part
    return head + body


def test_pymodbus_reads_and_writes_through_the_gate(plc: Plc) -> None:
    with running(plc.port) as pair:
        with ModbusTcpClient("127.0.0.1", port=pair.port, retries=0) as client:
            assert client.read_holding_registers(0, count=10, device_id=1).registers == [7] * 10
            assert not client.write_register(200, 1400, device_id=1).isError()
            assert client.read_holding_registers(200, count=1, device_id=1).registers == [1400]
            assert client.write_register(200, 1501, device_id=1).exception_code == 3
            assert client.read_holding_registers(300, count=1, device_id=1).exception_code == 2
            assert client.report_device_id(device_id=1).exception_code == 1
        assert len(plc.writes()) == 1
        assert plc.connections == 1
        assert eventually(lambda: len(pair.auditor.of(WriteOutcome)) == 1)
        assert eventually(lambda: len(pair.auditor.of(SessionClosed)) == 1)


def test_a_client_that_comes_before_the_auditor_has_answered_has_its_write_when_it_has(plc: Plc) -> None:
    with running(plc.port, late=True) as pair, connect(pair.port) as client:
        client.sendall(frame := write(1, 200, 700))
        assert not any(half.said_ready() for half in pair.halves)
        assert pair.outer.status().open == {}, "nobody is taken whose requests could not be recorded"
        pair.auditor.greet()
        pair.wait_ready()
        assert receive(client) == frame
        assert len(plc.writes()) == 1


IMPATIENT = """
import sys
from cofferdam.brokers import half

half.ANSWER_SECONDS = 0.01
sys.exit(half.main())
"""


def test_a_half_whose_auditor_never_answers_says_so_and_ends(plc: Plc) -> None:
    with running(plc.port, late=True, build=("-c", IMPATIENT)) as pair:
        ends = [half.ended() for half in pair.halves]
        assert EXIT_REFUSED in [code for code, _ in ends], "the other may have seen its end first"
        why = next(record for half in pair.halves for record in half.records if isinstance(record, Failing))
        assert "the auditor has not answered" in why.reason and "auditor-down" in why.hint and not why.store


def test_many_clients_share_one_connection(plc: Plc) -> None:
    async def client(port: int, number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        good = 0
        for n in range(20):
            writer.write(read(n, number, 3))
            frame = await asyncio.wait_for(reader.readexactly(15), PATIENT)
            good += frame[:2] == n.to_bytes(2, "big") and frame[9:] == b"\0\7" * 3
        writer.close()
        await writer.wait_closed()
        return good

    async def all_clients(port: int) -> list[int]:
        return await asyncio.gather(*(client(port, number) for number in range(40)))

    with running(plc.port, limits="asset_queue: 1000") as pair:
        assert asyncio.run(all_clients(pair.port)) == [20] * 40
        assert plc.connections == 1


def test_an_asset_that_is_silent_talks_nonsense_or_is_gone(plc: Plc) -> None:
    with running(plc.port, asset_extra="timeout: 2 s") as pair:
        sock = connect(pair.port)
        plc.mode = "silent"
        assert ask(sock, read(1))[7:] == b"\x83\x0b"
        plc.mode = "nonsense"
        assert ask(sock, read(2))[7:] == b"\x83\x0b"
        plc.mode = "good"
        assert eventually(lambda: ask(sock, read(3))[7] == 3)
        plc.stop()
        assert eventually(lambda: ask(sock, read(4))[7:] == b"\x83\x0a")
        sock.close()
        assert eventually(lambda: bool(pair.auditor.of(Malformed)))


def test_a_write_in_doubt_is_followed_by_a_look(plc: Plc) -> None:
    """What a write that was not answered has left is not known: the next step is judged from a value read anew."""
    with running(plc.port, asset_extra="timeout: 2 s") as pair:
        sock = connect(pair.port)
        assert eventually(lambda: ask(sock, write(1, 210, 50))[7] == 6)
        plc.mode = "mute"
        assert ask(sock, write(2, 210, 60))[7:] == b"\x86\x0b"
        plc.mode = "good"
        while (answer := ask(sock, write(3, 210, 70)))[7] != 6:
            # Busy while it is in doubt, or in doubt again; never refused for a step from nowhere.
            assert answer[7:] in (b"\x86\x06", b"\x86\x0b")
        written = [frame[8:] for frame in plc.requests].index(write(2, 210, 60)[8:])
        assert 3 in [frame[7] for frame in plc.requests[written:]], "it is read before it is written again"
        sock.close()


def test_garbage_on_one_connection_harms_no_other(plc: Plc) -> None:
    rng = random.Random(5)
    with running(plc.port) as pair:
        good = connect(pair.port)
        for number in range(100):
            bad = connect(pair.port)
            with contextlib.suppress(OSError):
                bad.sendall(rng.randbytes(rng.randrange(1, 600)))
            assert ask(good, read(number))[7] == 3
            bad.close()
        good.close()
        assert all(frame[7] == 3 for frame in plc.requests)


def test_thousands_of_connections_are_turned_away_by_name_and_memory_stays_bounded(plc: Plc) -> None:
    few = "client_connections: 100, client_connections_per_address: 64, client_connects_per_second: 100000"
    with running(plc.port, limits=few) as pair:
        good = connect(pair.port)
        assert ask(good, read(1))[7] == 3
        assert pair.outer.process is not None
        pid = pair.outer.process.pid

        def memory() -> int:
            return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096

        before = memory()
        for _ in range(40):
            crowd = [connect(pair.port) for _ in range(250)]
            assert eventually(lambda crowd=crowd: len(readable(crowd, 0)) >= 250 - 64)  # type: ignore[misc]
            for sock in crowd:
                sock.close()
        assert ask(good, read(2))[7] == 3
        assert memory() - before < 32 << 20
        status = pair.outer.status()
        assert status.limits["client_connections_per_address"] > 1000
        assert eventually(
            lambda: any(hit.limit == "client_connections_per_address" for hit in pair.auditor.of(LimitHit))
        )
        good.close()


def test_a_client_that_sends_a_byte_now_and_then_and_one_that_never_reads(plc: Plc) -> None:
    limits = "client_frame_seconds: 0.6, client_unsent_bytes: 4096, client_requests_per_second: 100000"
    with running(plc.port, limits=limits) as pair:
        slow, deaf, good = connect(pair.port), connect(pair.port), connect(pair.port)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.sendall(read(1)[:3])
        left = b""

        def deaf_is_cut() -> bool:
            """It goes on where it has stopped: else it would be cut for what it sends."""
            nonlocal left
            try:
                deaf.setblocking(False)
                while True:
                    left = left or b"".join(read(n & 0xFFFF, 0, 100) for n in range(50))
                    left = left[deaf.send(left) :]
            except BlockingIOError:
                return False
            except OSError:
                return True

        assert eventually(deaf_is_cut)
        assert slow.recv(10) == b""
        assert ask(good, read(2))[7] == 3
        for sock in (slow, deaf, good):
            sock.close()
        assert eventually(
            lambda: {"client_frame_seconds", "client_unsent_bytes"} <= {hit.limit for hit in pair.auditor.of(LimitHit)}
        )


def test_the_log_unwritable_and_writable_again(plc: Plc) -> None:
    from cofferdam.audit.records import Writable

    with running(plc.port) as pair:
        sock = connect(pair.port)
        assert ask(sock, write(1, 200, 1))[7] == 6
        pair.auditor.unwritable("no space left on device")
        assert eventually(lambda: ask(sock, write(2, 200, 2))[7:] == b"\x86\x04")
        assert ask(sock, read(3))[7] == 3
        pair.auditor.mode = "ok"
        pair.auditor.say(Writable(True))
        assert eventually(lambda: ask(sock, write(4, 200, 4))[7] == 6)
        sock.close()
        assert plc.registers[200] == 4
        assert b"\x00\x02" not in [frame[10:12] for frame in plc.writes()]


def test_severing_and_a_new_policy(plc: Plc) -> None:
    with running(plc.port) as pair:
        sock = connect(pair.port)
        assert ask(sock, read(1))[7] == 3
        for half in pair.halves:
            half.send(SetSevered(("it",)))
        assert sock.recv(1) == b""
        again = connect(pair.port)
        with contextlib.suppress(ConnectionResetError):
            assert again.recv(1) == b""
        for half in pair.halves:
            half.send(SetSevered(()))
        sock.close()
        again.close()
        assert eventually(lambda: _works(pair.port))
        other = make_policy(device_port=plc.port, port=pair.port, registers="50-99")
        for half, role in zip(pair.halves, ("outer", "inner"), strict=True):
            half.send(NewPolicy(sliced(other, role), (), tuple(other.assets)))
        for half in pair.halves:
            assert half.wait_for(PolicyTaken).policy == other.hash


def _works(port: int) -> bool:
    with contextlib.suppress(OSError), connect(port) as sock:
        return len(ask(sock, read(1))) > 9
    return False


# --- an outer half that has been taken over -----------------------------------------------------------------------


class Hostile:
    """A real inner half whose outer half is the test."""

    def __init__(self, plc: Plc) -> None:
        self.auditor = Auditor()
        inner_in, self.to_inner = make_pipe()
        self.from_inner, inner_out = make_pipe()
        self._answers = 0
        self.half = Half("inner", self.auditor, (inner_in, inner_out))
        self.auditor.start()
        self.half.start([])
        policy = make_policy(device_port=plc.port, port=1)
        self._unpacker = Unpacker(to_outer(policy, "modbus"))
        self.half.send(
            Configure(
                crew="test", part="inner", broker="modbus", source_zones=("enterprise",), target_zone="control",
                boot="t", policy=sliced(policy, "inner"), assets=("plc",),
            )
        )  # fmt: skip
        self.half.wait_for(Ready)
        assert self.half.process is not None

    def say(self, packet: bytes) -> bool:
        """False once the half has gone."""
        try:
            write_all(self.to_inner, packet)
        except BrokenPipeError:
            return False
        return True

    def records(self, *records: Any) -> bool:
        return all(self.say(packet) for packet in pack([msgspec.msgpack.encode(record) for record in records]))

    def answered(self, count: int) -> None:
        """Returns when so many answers have come in all, or the half has ended."""
        assert self.half.process is not None
        process = self.half.process

        def done() -> bool:
            ended = process.poll() is not None
            with contextlib.suppress(BlockingIOError):
                while packet := os.read(self.from_inner, PACKET):
                    for it in self._unpacker.feed(packet):
                        self._answers += (
                            len(it.rows) if isinstance(it, Rows) else isinstance(it, Reply | Denied | Failed)
                        )
            return ended or self._answers >= count

        eventually(done)

    def heard(self) -> None:
        """Returns when the half has dealt with all that was said, or has ended over it."""
        with contextlib.suppress(BrokenPipeError, AssertionError):
            eventually(lambda: int.from_bytes(fcntl.ioctl(self.to_inner, termios.FIONREAD, bytes(4)), "little") == 0)
            for _ in range(2):  # what it had read by the first answer it has judged by the second
                self.half.status()

    def close(self) -> None:
        for fd in (self.to_inner, self.from_inner):
            os.close(fd)
        with contextlib.suppress(BrokenPipeError):
            self.half.close()
        self.auditor.stop()


def allowed(frame: bytes) -> bool:
    """What the policy of the tests allows, said again in the plainest way."""
    if frame[6] != 1:
        return False
    start, second = int.from_bytes(frame[8:10], "big"), int.from_bytes(frame[10:12], "big")
    if frame[7] in (3, 4):
        cells = set(range(start, start + second))
        readable_cells = set(range(100)) | {100, 101, 200, 210, 220} if frame[7] == 3 else {12, 13}
        return cells <= readable_cells
    if frame[7] == 6:
        return (start == 200 and second <= 1500) or start in (210, 220)
    if frame[7] == 16:
        return start in (200, 210, 220) and second == 1
    return False


def test_hostile_records_never_get_an_operation_outside_policy_to_the_asset(plc: Plc) -> None:
    rng = random.Random(11)
    violations = 0
    for _ in range(12):
        hostile = Hostile(plc)
        hostile.records(Opened(1, "t-1", "127.0.0.1", "plc"), Opened(2, "t-2", "10.9.9.9", "plc"))
        number = 10
        for step in range(150):
            if step % 10 == 0:
                hostile.answered(step)
            number += rng.randrange(1, 3)
            session = rng.choice([1, 1, 1, 2, 3])
            unit, start = rng.choice([0, 1, 1, 1, 255]), rng.choice([0, 12, 99, 100, 200, 210, 300, 65000])
            message: Any = rng.choice([
                ReadHoldingRegisters(unit, start, rng.choice([1, 2, 100, 125])),
                WriteSingleRegister(unit, start, rng.randrange(65536)),
                WriteMultipleRegisters(unit, start, tuple(rng.randrange(65536) for _ in range(rng.choice([1, 2])))),
            ])  # fmt: skip
            if not hostile.records(Request(session, number, message)):
                break
        kind = rng.randrange(4)
        if kind == 0:
            hostile.say(rng.randbytes(rng.randrange(1, 4096)))
        elif kind == 1:
            hostile.records([2, 1, number + 1, [6, 1, 200, 1 << 20]])
        elif kind == 2:
            hostile.records(Request(1, 1, ReadHoldingRegisters(1, 0, 1)), Closed(1))
        else:
            body = bytearray(msgspec.msgpack.encode(Request(1, number + 1, ReadHoldingRegisters(1, 0, 1))))
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
            hostile.say(b"\x00" + len(body).to_bytes(2, "big") + bytes(body))
        hostile.heard()
        hostile.close()
        violations += len(hostile.auditor.of(RecordViolation))
        for outcome in hostile.auditor.of(WriteAllowed):
            assert outcome.source == "127.0.0.1"
    wrong = [frame.hex() for frame in plc.requests if not allowed(frame)]
    assert not wrong, f"{len(wrong)} of {len(plc.requests)} requests at the asset are outside policy: {wrong[:3]}"
    assert len(plc.requests) > 50, "the hostile half's honest-looking requests should have come through"
    assert violations > 3


def test_a_violation_ends_the_half_and_is_told(plc: Plc) -> None:
    hostile = Hostile(plc)
    hostile.records(Opened(1, "t-1", "127.0.0.1", "plc"))
    hostile.say(b"\x09\x00\x01x")
    failing = hostile.half.wait_for(Failing)
    assert "crossing" in failing.reason
    assert hostile.half.process is not None
    assert hostile.half.process.wait(PATIENT) == 4
    assert eventually(lambda: len(hostile.auditor.of(RecordViolation)) == 1)
    hostile.close()
