"""Real halves, started as the gate starts them, with a small gate and auditor of the test's own around them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

from cofferdam.audit.entry import Draft
from cofferdam.audit.records import Ack, Counting, FromAuditor, Hello, ToAuditor, Writable
from cofferdam.brokers.kit.supervision import (
    Configure,
    Failing,
    FromPart,
    Listener,
    PartStatus,
    Ready,
    ReportNow,
    Stop,
    ToPart,
)
from cofferdam.crossing.framing import PACKET, Assembler, pack
from cofferdam.crossing.pipe import make_pipe
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce import compiled
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.load import loads
from cofferdam.policy.table import CompiledPolicy, to_bytes
from cofferdam.policy.terms.base import AnyTerms, Scope
from cofferdam.policy.terms.kinds import KINDS
from tests import waiting
from tests.nursery import Born, bear
from tests.waiting import PATIENT, readable

POLICY = """
site: test
zones:
  enterprise: {{side: it, level: 4}}
  control: {{side: ot, level: 2}}
assets:
  plc:
    zone: control
    address: 127.0.0.1
    port: {device_port}
    protocol: modbus
    unit: 1
    listen: "127.0.0.1:{port}"
    {asset_extra}
    points:
      level: {{at: input 12, type: float32}}
      total: {{at: holding 100, type: uint32}}
      speed: {{at: holding 200, type: uint16, min: 0, max: 1500}}
      step: {{at: holding 210, type: uint16, max_step: 100}}
      pace: {{at: holding 220, type: uint16, writes_per_minute: 2}}
principals:
  tester: {{zone: enterprise, addresses: [127.0.0.1]}}
conduits:
  main:
    from: enterprise
    to: control
    broker: modbus
    owner: tests
    reason: tests
    {conduit_extra}
    allow:
      - {{who: tester, asset: plc, read: all, write: [speed, step, pace]}}
      - {{who: tester, asset: plc, registers: [holding {registers}]}}
limits: {{{limits}}}
audit: {{reads: {reads}}}
"""


QUICK = "client_requests_burst: 4000, known_value_seconds: 5"
"""Clients may ask faster than by default, and what a point holds is known for a while: most tests are about something
else than that."""
COMPILED = compiled.find()
BUILDS = {"plain": ("-m", "cofferdam.brokers.half"), "compiled": COMPILED.arguments}
"""How to start a half, after `python -I`: from the source, and from the compiled build where there is one."""
LATE = "imported too late"
WATCH = f"""
import sys
from cofferdam.brokers import half
from cofferdam.enforce import sandbox
confine, confined = sandbox.confine, []

def tell(event, arguments):
    if confined and event == "import":
        print("{LATE}:", arguments[0], file=sys.stderr, flush=True)

def confine_and_watch(*arguments, **more):
    facts = confine(*arguments, **more)
    confined.append(True)
    return facts

sandbox.confine = confine_and_watch
sys.addaudithook(tell)
sys.exit(half.main())
"""
WATCHED = ("-c", WATCH)
"""A part that tells each import that comes after its filter, where no file can be opened any more: what its profile
should `preload`."""


def impatient(module: str) -> tuple[str, str]:
    """The same, of a part that waits longer after each trouble, up to what this module says: here for no more than a
    second. For tests of what it does then, and not of when."""
    return "-c", f"import {module} as pauses\n\npauses.LAST_SECONDS = 1.0\n{WATCH}"


def make_policy(
    *,
    device_port: int,
    port: int,
    asset_extra: str = "",
    conduit_extra: str = "",
    limits: str = "",
    reads: str = "allow",
    registers: str = "0-99",
) -> CompiledPolicy:
    if "client_requests_burst" not in limits:
        limits += f"{',' if limits.strip() and not limits.strip().endswith(',') else ''} {QUICK}"
    text = POLICY.format(
        device_port=device_port, port=port, asset_extra=asset_extra, conduit_extra=conduit_extra, limits=limits,
        reads=reads, registers=registers,
    )  # fmt: skip
    return compile_policy(loads(text), now_ns=time.time_ns())


def write_all(fd: int, data: bytes) -> None:
    while True:
        try:
            os.write(fd, data)
            return
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll(1000)


class Auditor(threading.Thread):
    """Acknowledges every batch of all halves, unless told to refuse or to stay silent; keeps the drafts in order. One
    that is `late` says nothing before it is told to (`greet`)."""

    def __init__(self, *, late: bool = False) -> None:
        super().__init__(daemon=True)
        self.late = late
        self.drafts: list[Draft] = []
        self.mode = "ok"  # ok, refuse, silent
        self._unanswered: list[tuple[int, int]] = []
        self._pipes: dict[int, tuple[int, Assembler]] = {}
        self._codec: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
        self._out: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
        self._wake = os.pipe()
        self.closing = False

    def pipe(self) -> tuple[int, int]:
        """The ends for a half: (audit-in, audit-out)."""
        from_half, half_out = make_pipe()
        half_in, to_half = make_pipe()
        self._pipes[from_half] = (to_half, Assembler(1 << 20))
        if not self.late:
            self._send(to_half, Hello(True))
        os.write(self._wake[1], b"x")
        return half_in, half_out

    def _send(self, fd: int, record: FromAuditor) -> None:
        with contextlib.suppress(BrokenPipeError):
            for packet in pack([self._out.encode(record)]):
                write_all(fd, packet)

    def say(self, record: FromAuditor) -> None:
        for to_half, _ in list(self._pipes.values()):
            self._send(to_half, record)

    def greet(self) -> None:
        self.late = False
        self.say(Hello(True))

    def unwritable(self, reason: str) -> None:
        self.mode = "refuse"
        self.say(Writable(False, reason))

    def speaks_again(self) -> None:
        """After silence: what it has heard meanwhile is acknowledged."""
        self.mode = "ok"
        while self._unanswered:
            to_half, number = self._unanswered.pop(0)
            self._send(to_half, Ack(number, True, ""))

    def run(self) -> None:
        while True:
            found = readable([self._wake[0], *self._pipes], 0 if self.closing else 5)
            if self.closing and not found:
                return  # what was said before the end has been read
            for fd in found:
                if fd == self._wake[0]:
                    os.read(fd, 64)
                    continue
                packet = os.read(fd, PACKET)
                to_half, assembler = self._pipes[fd]
                if not packet:
                    del self._pipes[fd]
                    os.close(fd)
                    os.close(to_half)
                    continue
                for data in assembler.feed(packet):
                    batch = self._codec.decode(data)
                    if isinstance(batch, Counting):
                        if batch.over:
                            self.drafts.append(batch.draft)
                        continue
                    if self.mode != "refuse":
                        self.drafts += batch.drafts
                    if batch.wants_ack and self.mode == "silent":
                        self._unanswered.append((to_half, batch.number))
                    elif batch.wants_ack:
                        ok = self.mode == "ok"
                        self._send(to_half, Ack(batch.number, ok, "" if ok else "disk full"))

    def stop(self) -> None:
        self.closing = True
        os.write(self._wake[1], b"x")
        self.join(PATIENT)
        for fd, (to_half, _) in self._pipes.items():
            os.close(fd)
            os.close(to_half)
        for fd in self._wake:
            os.close(fd)

    def of(self, kind: type[Any]) -> list[Any]:
        return [draft for draft in list(self.drafts) if isinstance(draft, kind)]


class PartChild:
    """A process of a part, with the test's ends of its control pipe. `inputs`, `outputs`: its pipes by the part at
    their other end."""

    def __init__(
        self,
        kind: str,
        part: str,
        auditor: Auditor,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        build: tuple[str, ...],
    ) -> None:
        control_in, self._to = make_pipe()
        self._from, control_out = make_pipe()
        audit_in, audit_out = auditor.pipe()
        self._assembler = Assembler(16 << 20)
        self._in: RecordCodec[FromPart] = RecordCodec(FromPart, limit=16 << 20)
        self._outgoing: RecordCodec[ToPart] = RecordCodec(ToPart, limit=16 << 20)
        self.records: list[FromPart] = []
        fds = {"control-in": control_in, "control-out": control_out, "audit-in": audit_in, "audit-out": audit_out}
        self._inherit = [*fds.values(), *inputs.values(), *outputs.values()]
        self._build = build
        self._argv = ["--name", f"test/{part}", "--kind", kind, "--part", part]
        for name, fd in fds.items():
            self._argv += [f"--{name}", str(fd)]
        for other, fd in inputs.items():
            self._argv += ["--in", f"{other}={fd}"]
        for other, fd in outputs.items():
            self._argv += ["--out", f"{other}={fd}"]
        self.process: subprocess.Popen[bytes] | Born | None = None

    def start(self, listeners: list[socket.socket], stderr: IO[bytes] | None = None) -> None:
        inherit = self._inherit + [sock.fileno() for sock in listeners]
        self.process = bear(self._build, self._argv, inherit, 2 if stderr is None else stderr.fileno())
        if self.process is None:
            start = ("-c", "".join(reversed(self._build[1:]))) if self._build[0] == "-c" else self._build
            command = [sys.executable, "-I", *start, *self._argv]
            self.process = subprocess.Popen(command, pass_fds=inherit, stderr=stderr)
        for fd in self._inherit:
            os.close(fd)

    def send(self, record: ToPart) -> None:
        for packet in pack([self._outgoing.encode(record)]):
            write_all(self._to, packet)

    def wait_for(self, kind: type[Any], seconds: float = PATIENT) -> Any:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for record in self.records:
                if isinstance(record, kind):
                    self.records.remove(record)
                    return record
            found = readable([self._from], 0.1)
            if found:
                packet = os.read(self._from, PACKET)
                if not packet:
                    break
                self.records += [self._in.decode(data) for data in self._assembler.feed(packet)]
        raise AssertionError(
            f"no {kind.__name__} from {self._argv[self._argv.index('--name') + 1]}; got {self.records}"
        )

    def ended(self) -> tuple[int, str]:
        """Its exit code, once it has ended, and why it failed."""
        assert self.process is not None
        code = self.process.wait(PATIENT)
        while readable([self._from], 0) and (packet := os.read(self._from, PACKET)):
            self.records += [self._in.decode(data) for data in self._assembler.feed(packet)]
        return code, "; ".join(record.reason for record in self.records if isinstance(record, Failing))

    def status(self) -> PartStatus:
        """What the half says of itself now. It also reports unasked, once a second: of two reports that come after
        two questions the second is an answer, or later than one."""
        while readable([self._from], 0) and (packet := os.read(self._from, PACKET)):
            self.records += [self._in.decode(data) for data in self._assembler.feed(packet)]
        self.records = [record for record in self.records if not isinstance(record, PartStatus)]
        for _ in range(2):
            self.send(ReportNow())
        self.wait_for(PartStatus)
        newest: PartStatus = self.wait_for(PartStatus)
        return newest

    def said_ready(self) -> bool:
        """Whether it has, once it has done all that it was told until now."""
        self.status()
        return any(isinstance(record, Ready) for record in self.records)

    def close(self) -> None:
        for fd in (self._to, self._from):
            with contextlib.suppress(OSError):
                os.close(fd)
        if self.process is not None:
            try:
                self.process.wait(PATIENT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


class Half(PartChild):
    """A process of a half of a proxy. `crossing`: what it reads from and writes to its other half by."""

    def __init__(
        self,
        role: str,
        auditor: Auditor,
        crossing: tuple[int, int],
        build: tuple[str, ...] | None = None,
        kind: str = "modbus",
    ) -> None:
        if build is None:
            build = BUILDS[os.environ.get("COFFERDAM_TEST_BUILD", "plain")]
        other = "inner" if role == "outer" else "outer"
        super().__init__(kind, role, auditor, {other: crossing[0]}, {other: crossing[1]}, build)


def sliced(policy: CompiledPolicy, role: str, terms: AnyTerms = KINDS["modbus"]) -> bytes:
    """What a half gets of a policy whose every asset it serves."""
    whole = Scope(frozenset(policy.conduits), frozenset(policy.assets))
    return to_bytes(terms.slice(policy, whole, role))


class Pair:
    """Both halves of a proxy. `build` starts them, where it is not one of BUILDS."""

    def __init__(
        self,
        policy: CompiledPolicy,
        listener: socket.socket,
        *,
        terms: AnyTerms = KINDS["modbus"],
        build: tuple[str, ...] | None = None,
        zones: tuple[str, str] = ("enterprise", "control"),
        late: bool = False,
    ) -> None:
        self.auditor = Auditor(late=late)
        self.port: int = listener.getsockname()[1]
        inner_in, outer_out = make_pipe()
        outer_in, inner_out = make_pipe()
        self.outer = Half("outer", self.auditor, (outer_in, outer_out), build, terms.word)
        self.inner = Half("inner", self.auditor, (inner_in, inner_out), build, terms.word)
        halves = [self.outer, self.inner]
        self.halves = halves
        self.auditor.start()
        self.outer.start([listener])
        self.inner.start([])
        self.policy = policy
        for half in halves:
            half.send(
                Configure(
                    crew="test",
                    part="outer" if half is self.outer else "inner",
                    broker=terms.word,
                    source_zones=(zones[0],),
                    target_zone=zones[1],
                    boot="t",
                    policy=sliced(policy, "outer" if half is self.outer else "inner", terms),
                    listeners=(Listener(listener.fileno(), "127.0.0.1", self.port),) if half is self.outer else (),
                    assets=tuple(policy.assets),
                )
            )
        if not late:
            self.wait_ready()

    def wait_ready(self) -> None:
        for half in self.halves:
            half.wait_for(Ready)

    def stop(self) -> None:
        for half in self.halves:
            with contextlib.suppress(BrokenPipeError):
                half.send(Stop(1.0))
        for half in self.halves:
            half.close()
        self.auditor.stop()


def tell_to_stop(children: Iterable[PartChild], seconds: float) -> None:
    """Tells all parts of a crew to stop before any of them does: one that sees another end, and has had no order of its
    own yet, ends as one that was left alone."""
    held = [(child, child.process) for child in children if child.process is not None]
    for _, process in held:
        process.send_signal(signal.SIGSTOP)
    try:
        for child, _ in held:
            child.send(Stop(seconds))
    finally:
        for _, process in held:
            process.send_signal(signal.SIGCONT)


def listen() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    return sock


@contextlib.contextmanager
def running(
    device_port: int, *, late: bool = False, build: tuple[str, ...] | None = None, **options: Any
) -> Iterator[Pair]:
    listener = listen()
    options.setdefault("asset_extra", "timeout: 20 s")  # a device of the test's own process waits for its turn, too
    options["limits"] = f"audit_wait_seconds: 60, {options.get('limits', '')}"  # and so does its auditor
    policy = make_policy(device_port=device_port, port=listener.getsockname()[1], **options)
    pair = Pair(policy, listener, late=late, build=build)
    listener.close()
    try:
        yield pair
    finally:
        pair.stop()


def eventually(condition: Callable[[], object]) -> bool:
    """To be asserted: true, or no answer."""
    waiting.eventually(condition)
    return True
