"""Hostile parts, clients, devices and files all at once, for as long as one likes: an operator at another road notices
nothing, and the log has what happened. `make soak SECONDS=...`; some seconds of it in the suite."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adversary.takeover import Taken, taken
from tests.gate.plant import Client, cli, log_of
from tests.waiting import PATIENT, eventually

FEW, MANY = 4, int(os.environ.get("COFFERDAM_SOAK_SECONDS", "3600"))
"""Seconds in the suite, and in `make soak`."""
MEMORY_MIB = 150

PARTS = [
    "os.write(crossing, os.urandom(4000))",
    "send(['nobody', 'knows', 'this'])",
    "send(records.Opened(9001, 'x', '127.0.0.1', 'plc'), *[records.Request(9001, 9000 + n, "
    "messages.WriteSingleRegister(1, 300 + n, n)) for n in range(1, 50)])",
    "os.fork()",
    "report(faults={'x' * 100: 1 << 60})",
    "[report(sessions=()) for _ in range(1000)]",
    "push(control, [1, 'c', 'outer', 1 << 62])",
    "push(audit, ['no', 'batch'])",
    "draft = Refused(session='x', principals=(), source='a', asset='p', conduit='', rule='', fault='value', detail='y' "
    "* 500)\nfor _ in range(200):\n    push(audit, Batch(number=1, policy='', drafts=(draft,) * 100, wants_ack=False))",
    "while True: pass",
]
"""What an intruder in the outer half of the first road does, one after the other."""
POLICIES = [
    "",
    "{",
    "a: &a [*a]",
    "site: [" * 500,
    "\x00",
    '{"<<": {max: 9}}',
    "site: x\n" * 3000,
    "? [1]\n: 2\n",
    "zones: " + "a" * 100_000,
]


class Crowd:
    """Threads that do something until they are told to stop. What one raises that it should not is kept."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.faults: list[str] = []
        self.done: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[random.Random], None], pause: float) -> None:
        chance = random.Random(name)

        def run() -> None:
            while not self.stop.is_set():
                try:
                    work(chance)
                except Exception as error:
                    self.faults.append(f"{name}: {type(error).__name__}: {error}")
                self.done[name] += 1
                self.stop.wait(pause)

        thread = threading.Thread(target=run, name=name)
        thread.start()
        self._threads.append(thread)

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENT)


class Operator:
    """Works at the other road by one connection, and minds everything."""

    def __init__(self, scene: Taken) -> None:
        self.scene = scene
        self.client = Client(scene.other_port)
        self.written: list[int] = []

    def work(self, chance: random.Random) -> None:
        value = len(self.written) + 1
        if self.client.read() != b"\x03\x02\x00\x2a":
            raise AssertionError("another value than the device has")
        if not self.client.write(value):
            raise AssertionError(f"a write of {value} was refused")
        self.written.append(value)


def client_of(port: int) -> Callable[[random.Random], None]:
    """A hostile client: broken frames, forbidden writes, connections that end in all ways."""

    def work(chance: random.Random) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as one:
            one.settimeout(0.2)
            for _ in range(chance.randrange(1, 20)):
                pdu = bytes([chance.randrange(256)]) + chance.randbytes(chance.randrange(0, 12))
                frame = struct.pack(">HHHB", chance.randrange(65536), 0, len(pdu) + 1, chance.randrange(256)) + pdu
                what = chance.randrange(4)
                if what == 0:
                    one.sendall(chance.randbytes(chance.randrange(1, 300)))
                elif what == 1:
                    one.sendall(frame[: chance.randrange(1, len(frame))])
                elif what == 2:
                    one.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 6, chance.randrange(190, 210), 31337))
                else:
                    one.sendall(frame * chance.randrange(1, 40))
                with contextlib.suppress(TimeoutError):
                    one.recv(4096)
            if chance.random() < 0.5:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return work


def misbehave(scene: Taken) -> None:
    """The device of the first road answers as it likes from now on."""
    chance = random.Random("device")

    def serve(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer:
            while data := peer.recv(4096):
                what = chance.randrange(5)
                if what == 0:
                    peer.sendall(chance.randbytes(chance.randrange(1, 400)))
                elif what == 1:
                    peer.sendall((data[:7] + b"\x03\x02\x00\x01") * chance.randrange(1, 2000))
                elif what == 2:
                    return
                elif what == 3:
                    peer.sendall(data[:4] + b"\x00\x05" + data[6:7] + b"\x03\x02\x00\x2a")

    scene.device._serve = serve  # type: ignore[method-assign]


def poll(port: int) -> Callable[[random.Random], None]:
    """An honest client of the road where everything is hostile: it gets what it gets."""

    def work(chance: random.Random) -> None:
        with contextlib.suppress(OSError), Client(port, timeout=2.0) as client:
            for _ in range(10):
                client.read()

    return work


def files(scene: Taken, folder: Path) -> Callable[[random.Random], None]:
    """Files that an operator names, or finds: every one gets an answer in time."""
    folder.mkdir()
    fifo = folder / "fifo"
    os.mkfifo(fifo)

    def work(chance: random.Random) -> None:
        bad = folder / "policy.yaml"
        bad.write_text(chance.choice(POLICIES))
        for path in (bad, fifo, Path("/dev/zero")):
            code, _, err = cli("reload", path, "--state", scene.site.state)
            assert code == 2 and "Traceback" not in err, err
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        with contextlib.suppress(shutil.Error):  # a gate writes it
            shutil.copytree(scene.site.state / "audit", copy)
        there = sorted(path for path in (copy / "tile").rglob("*") if path.is_file() and path.stat().st_size > 100)
        if there:
            path = chance.choice(there)
            data = bytearray(path.read_bytes())
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            command = [sys.executable, "-m", "cofferdam.cli.main", "audit", "verify", "--log", str(copy), "--key"]
            key = str(scene.site.state / "keys" / "audit.pub")
            done = subprocess.run([*command, key], capture_output=True, text=True, timeout=PATIENT)
            assert done.returncode == 1 and "Traceback" not in done.stderr, (path, done.stdout, done.stderr)

    return work


@pytest.mark.heavy
@pytest.mark.parametrize(
    "seconds", [FEW, pytest.param(MANY, marks=[pytest.mark.soak, pytest.mark.timeout(MANY + 600)])]
)
def test_all_at_once(tmp_path: Path, seconds: int) -> None:
    (tmp_path / "scene").mkdir()
    with taken(tmp_path / "scene") as scene:
        pid = scene.gate.pids()["gate"]
        operator = Operator(scene)
        before = scene.restarts()
        misbehave(scene)
        crowd = Crowd()
        at = iter(range(1 << 30))

        def intrude(_: random.Random) -> None:
            with contextlib.suppress(OSError):
                scene.inject(PARTS[next(at) % len(PARTS)] + "\nsay('done')")

        crowd.start("operator", operator.work, 0.01)
        crowd.start("client", client_of(scene.port), 0.02)
        crowd.start("client at the operator's road", client_of(scene.other_port), 0.02)
        crowd.start("poller", poll(scene.port), 0.05)
        crowd.start("intruder", intrude, 0.2)
        crowd.start("files", files(scene, tmp_path / "files"), 0.5)
        time.sleep(seconds)
        crowd.end()
        operator.client.close()
        print(f"{seconds} s: {dict(crowd.done)}, gate {scene.memory()} MiB, restarts {scene.restarts()}")
        assert not crowd.faults, crowd.faults[:5]
        assert scene.gate.pids()["gate"] == pid and scene.memory() < MEMORY_MIB
        other = {name: count for name, count in scene.restarts().items() if name != "modbus/enterprise-control"}
        assert other == {name: before[name] for name in other}
        eventually(lambda: scene.gate.status()["audit"]["writable"])
        assert scene.gate.stop() == 0, scene.gate.said()
        assert scene.other.writes == operator.written
        said = [entry["event"] for entry in log_of(scene.site.state)]
        recorded = [event["points"][0][1] for event in said if event["kind"] == "write-allowed"]
        assert set(map(str, operator.written)) <= set(recorded)
        size = sum(path.stat().st_blocks * 512 for path in (scene.site.state / "audit").rglob("*") if path.is_file())
        print(f"log: {len(said)} entries, {size >> 20} MiB")
