"""A small plant on loopback, and a gate started the way a user starts it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from cofferdam.audit.checkpoint import VerifierKey
from cofferdam.audit.files import LogReader
from cofferdam.audit.show import verify_folder
from cofferdam.enforce import fence
from cofferdam.errors import GateError
from cofferdam.gate.client import ask
from tests.nursery import Born, bear
from tests.ports import held_port
from tests.verbs import cli as cli
from tests.waiting import PATIENT, eventually

READ, WRITE_MANY = 3, 16
LEVEL, SPEED = 0, 200


class Device:
    """A Modbus TCP device that keeps every write that reaches it, in order. Knows functions 3 and 16."""

    def __init__(self, port: int = 0) -> None:
        self.writes: list[int] = []
        """The value of each write (two registers as one number)."""
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", port or held_port()), backlog=64)
        self.open: set[socket.socket] = set()
        """Connections to it."""
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.add(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError), peer:
            while piece := peer.recv(4096):
                data += piece
                while len(data) >= 6 and len(data) >= (end := 6 + int.from_bytes(data[4:6], "big")):
                    frame, data = data[:end], data[end:]
                    reply = self._reply(frame[7:])
                    peer.sendall(frame[:4] + struct.pack(">HB", len(reply) + 1, frame[6]) + reply)
        self.open.discard(peer)

    def _reply(self, pdu: bytes) -> bytes:
        if pdu[0] == READ:
            count = int.from_bytes(pdu[3:5], "big")
            return bytes([READ, 2 * count]) + struct.pack(">H", 42) * count
        self.writes.append(int.from_bytes(pdu[6:10], "big"))
        return pdu[:5]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in list(self.open):
            peer.close()


class Client:
    """A Modbus TCP client of one connection, with a deadline for everything."""

    def __init__(self, port: int, timeout: float = PATIENT, *, address: str = "127.0.0.1", source: str = "") -> None:
        """`source`: the address to come from, if it matters."""
        self._socket = socket.create_connection((address, port), timeout, (source, 0) if source else None)
        self._id = 0

    def ask(self, pdu: bytes) -> bytes:
        """The answer's PDU. Raises: OSError (also when the connection ends)."""
        self._id = self._id % 65535 + 1
        self._socket.sendall(struct.pack(">HHHB", self._id, 0, len(pdu) + 1, 1) + pdu)
        head = self._exactly(7)
        number, _, length, _ = struct.unpack(">HHHB", head)
        assert number == self._id
        return self._exactly(length - 1)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionResetError("closed by the gate")
            data += piece
        return data

    def read(self, start: int = LEVEL, count: int = 1) -> bytes:
        return self.ask(struct.pack(">BHH", READ, start, count))

    def write(self, value: int) -> bool:
        """Writes the two registers of SPEED; True if the device did it, False if it was refused."""
        answer = self.ask(struct.pack(">BHHBI", WRITE_MANY, SPEED, 2, 4, value))
        return answer[0] == WRITE_MANY

    def ended(self, timeout: float = PATIENT) -> bool:
        """Whether the other end closes the connection within so long."""
        self._socket.settimeout(timeout)
        try:
            return self._socket.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


UNHURRIED = "{asset_connect_seconds: 60, audit_wait_seconds: 60, client_wait_seconds: 60}"
"""A policy's `limits:` where none of them is the subject: on a busy machine an entry takes its time to the disk, and so
does a device of the test's own process to say who it is. By the defaults, of 1 to 3 s, that is a refusal."""


def policy_text(
    assets: dict[str, tuple[int, int]], *, management: int = 0, extra: str = "", allow: str = "write: [speed]"
) -> str:
    """A policy whose `assets` are name -> (port of the device, port where the gate listens for it)."""
    lines = ["site: riverside", "zones:", "  enterprise: {side: it}", "  control: {side: ot}"]
    lines += ["assets:"] if "limits:" in extra else [f"limits: {UNHURRIED}", "assets:"]
    for name, (device, listen) in assets.items():
        lines += [
            f"  {name}:",
            "    zone: control",
            "    address: 127.0.0.1",
            f"    port: {device}",
            "    protocol: modbus",
            "    unit: 1",
            f'    listen: "127.0.0.1:{listen}"',
            "    timeout: 20 s",  # a device of the test's own process waits for its turn, too
            "    points:",
            f"      level: {{at: holding {LEVEL}, type: uint16}}",
            f"      speed: {{at: holding {SPEED}, type: uint32}}",
        ]
    lines += ["principals:", "  erp: {zone: enterprise, addresses: [127.0.0.1]}", "conduits:"]
    for name in assets:
        lines += [
            f"  {name}-road:",
            "    from: enterprise",
            "    to: control",
            "    broker: modbus",
            "    owner: operations",
            "    reason: for the test",
            "    allow:",
            f"      - {{who: erp, asset: {name}, read: [level], {allow}}}",
        ]
    if management:
        lines += ["gate:", f'  management: "127.0.0.1:{management}"']
    return "\n".join([*lines, extra, ""])


LOADED = """
import functools, importlib, os, runpy, sys
import msgspec
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
from cofferdam.audit import process, records
msgspec.msgpack.Decoder(records.ToAuditor)
from cofferdam.brokers import registry
from cofferdam.cli import gate_options, main, up
from cofferdam.enforce import choice, compiled, doors, journal, launcher, users
from cofferdam.gate import serving
from cofferdam.policy.load import loads
loads("site: riverside\\nzones:\\n  enterprise: {side: it}\\n  control: {side: ot}\\n")

def ours():
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "cofferdam"}

def become(folder, modules, finders):  # in a fork, or for as long as these are loaded
    for name in ours():
        del sys.modules[name]
    sys.modules.update(modules)
    sys.path.insert(0, folder)
    sys.meta_path.extend(finders)

folder = compiled.find().arguments[0]
sys.compiled = folder, lambda: None
if folder != "-m":  # halves have a second set of modules, beside the one of all others
    plain, path, finders, words = ours(), list(sys.path), list(sys.meta_path), sys.argv
    become(folder, {}, [])
    sys.argv = [folder, "--run", os.devnull]
    runpy.run_path(folder, run_name="__main__")
    importlib.import_module("cofferdam.brokers.half")
    sys.compiled = folder, functools.partial(become, folder, ours(), sys.meta_path[len(finders):])
    become(folder, plain, [])
    sys.path[:], sys.meta_path[:], sys.argv = path, finders, words
"""
FORKED = """
import importlib, os, signal, sys
from cofferdam.cli.main import program
exec_program = os.execve
PROGRAMS = "cofferdam.gate.process", "cofferdam.audit.process", "cofferdam.brokers.half", "cofferdam.brokers.job"

def run(path, command, environment):
    words = command[3:]
    folder, become = sys.compiled
    if words[0] == folder != "-m":
        become()
        words[:1] = "-m", "cofferdam.brokers.half"
    if command[1:3] != ["-I", "-B"] or words[0] != "-m" or words[1] not in PROGRAMS:
        exec_program(path, command, environment)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = words[2:]
    try:
        code = importlib.import_module(words[1]).main()
    except SystemExit as error:
        code = error.code
    sys.stderr.flush()
    os._exit(code or 0)

os.execve = run
sys.exit(program())
"""


class Gate:
    """`cofferdam up` in a process of its own."""

    program: tuple[str, ...] = (sys.executable, "-m", "cofferdam.cli.main")
    process: subprocess.Popen[bytes] | Born

    def __init__(self, state: Path, policy: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.state = state
        self.errors = state.parent / f"{state.name}.stderr"
        command = [*self.program, "up", str(policy), "--state", str(state), *options]
        env = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"} | (environment or {})
        with self.errors.open("ab") as errors:
            self.process = self._begin(command, env, errors.fileno())

    def _begin(self, command: list[str], env: dict[str, str], errors: int) -> subprocess.Popen[bytes] | Born:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, env=env)

    def wait_ready(self, seconds: float = PATIENT) -> Self:
        """Until the gate answers and all pairs work."""
        try:
            eventually(self._is_ready, seconds)
        except AssertionError as error:
            raise AssertionError(f"not ready: {self.said()}") from error
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, "the gate ended"
        with contextlib.suppress(GateError):
            status = ask(self.state, "status", fresh=False)
            return bool(status["pairs"]) and all(pair["working"] for pair in status["pairs"])
        return False

    def said(self) -> str:
        return self.errors.read_text()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = ask(self.state, "status")
        return found

    def pids(self) -> dict[str, int]:
        """Process ids by outer, inner, both, auditor, gate."""
        status = ask(self.state, "status", fresh=False)
        found = {half["role"]: half["pid"] for pair in status["pairs"] for half in pair["halves"] if half["ready"]}
        if status["audit"]["pid"]:
            found["auditor"] = status["audit"]["pid"]
        return found | {"gate": status["pid"]}

    def pid(self, role: str) -> int:
        """That of one of them, once it is ready: it may be about to be born again."""
        found: dict[str, int] = {}

        def there() -> bool:
            found.update(self.pids())
            return role in found

        eventually(there)
        return found[role]

    def reborn(self, role: str, before: int) -> None:
        """Waits until one that was killed is another process, and all work: a moment after its end nobody knows yet."""
        eventually(lambda: self.pids().get(role) not in (None, before))
        self.wait_ready()

    def stop(self, *, seconds: float = PATIENT) -> int:
        """Ends it in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENT)
        if os.geteuid() == 0:  # who was one of its users may be another gate's part next
            fence.remove(self.state)


class QuickGate(Gate):
    """The same by a launcher that was loaded before it was asked for, and whose gate, auditor, parts and jobs are forks
    of it that start no program: a quarter of what a start costs. For tests of what a gate does, where how it is started
    and kept apart is no part of it. A compiled half runs from the compiled build as ever."""

    loaded = LOADED

    def _begin(self, command: list[str], env: dict[str, str], errors: int) -> subprocess.Popen[bytes] | Born:
        born = bear(("-c", FORKED, self.loaded), command[len(self.program) :], [], errors, env)
        return born if born is not None else super()._begin(command, env, errors)


def tried(state: Path, policy: Path, *options: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """Starts a gate that must not start: its exit code and what it said."""
    command = [*prefix, sys.executable, "-m", "cofferdam.cli.main", "up", str(policy), "--state", str(state), *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENT)
    return done.returncode, done.stderr


def refuses(state: Path, policy: Path, *options: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
    """The same where nothing of it may be left."""
    said = tried(state, policy, *options, prefix=prefix)
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if f"--state\0{state}\0" in read_text(path)]
    assert not left, f"still there: {left}"
    return said


def read_text(path: Path) -> str:
    """A file of /proc; "" if the process has gone."""
    try:
        return path.read_text()
    except OSError:
        return ""


def links(pid: int) -> list[str]:
    """What the descriptors of a process are. One may be closed while they are looked at."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(path.readlink()))
    return found


@contextlib.contextmanager
def running(state: Path, policy: Path, *options: str, kind: type[Gate] = QuickGate) -> Iterator[Gate]:
    """A gate that is ready; ended afterwards, whatever happens."""
    gate = kind(state, policy, *options)
    try:
        yield gate.wait_ready()
    finally:
        gate.close()


def settle(state: Path) -> None:
    """Who was answered may look before the entry is on disk: a refusal, say, waits for none. Where a gate runs, what
    its parts have said to the auditor until now is there afterwards: they report, and after that the auditor does
    twice, the second time in a turn that began after all of it had come."""
    with contextlib.suppress(GateError):
        for _ in range(3):
            ask(state, "status")


def copied(state: Path, to: Path) -> bool:
    """A backup of a running gate's state. The log seals files all the time: a copy from which one had gone meanwhile
    is to be made again, as docs/howto.md says."""
    shutil.rmtree(to, ignore_errors=True)
    try:
        shutil.copytree(state, to, ignore=lambda _, names: [one for one in names if one.endswith(".sock")])
    except shutil.Error as error:
        assert "No such file" in str(error)
        return False
    return True


def log_of(state: Path) -> list[dict[str, Any]]:
    """The whole audit log, verified; one that is being written may end in the middle of an append."""
    settle(state)
    key = VerifierKey.parse((state / "keys" / "audit.pub").read_text().strip())
    found = verify_folder(state / "audit", key, None, None)
    assert not found.findings and not found.report.more, [str(finding) for finding in found.findings]
    return [msgspec.json.decode(entry) for _, entry in LogReader(state / "audit", key).entries()]


def events(state: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in the log."""
    return [entry["event"] for entry in log_of(state) if entry["event"]["kind"] == kind]
