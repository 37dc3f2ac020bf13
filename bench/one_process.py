"""Both halves of a proxy in one process, a memory channel between them: `one_process.py up POLICY --state STATE`.

It shows what parsing, deciding and recording cost without a second process. The audit log is on, in a process of its
own, as it always is. There is no gate, no launcher, no sandbox and no separation: Cofferdam itself has no such form.

Started by paths.py, for measuring, and by nothing else. It starts itself anew on the compiled build, if there is one.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TICK_SECONDS = 0.5
POLICY = "policy.compiled"
"""The compiled policy, in the state folder: the build does not hold what reads one."""


def prepare(arguments: list[str]) -> None:
    """Compiles the policy, finds the build, and starts this program from it."""
    from cofferdam.enforce import compiled
    from cofferdam.policy.compile import compile_policy
    from cofferdam.policy.load import load

    parser = argparse.ArgumentParser(prog="one_process.py")
    parser.add_argument("verb", choices=["up"])
    parser.add_argument("policy", type=Path)
    parser.add_argument("--state", type=Path, required=True)
    args = parser.parse_args(arguments)
    args.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("audit", "keys"):
        (args.state / name).mkdir(mode=0o700, exist_ok=True)
    (args.state / POLICY).write_bytes(compile_policy(load(args.policy), now_ns=time.time_ns()).to_bytes())
    build = compiled.find()
    how = [build.arguments[0], "--run"] if build.is_compiled else []
    os.execv(sys.executable, [sys.executable, "-I", *how, __file__, str(args.state)])


def start_auditor(state: Path, site: str) -> tuple[int, int]:
    """Starts the auditor and has it open its log. The ends for a producer: (read answers, write batches)."""
    from cofferdam.audit.entry import kinds
    from cofferdam.audit.events import access
    from cofferdam.audit.supervision import FromAuditorControl, Open, OpenedLog, ToAuditorControl
    from cofferdam.crossing.framing import PACKET, Assembler, pack
    from cofferdam.crossing.introduction import INTRODUCTIONS, Introduction
    from cofferdam.crossing.pipe import make_pipe
    from cofferdam.crossing.records import RecordCodec

    out: RecordCodec[ToAuditorControl] = RecordCodec(ToAuditorControl)
    back: RecordCodec[FromAuditorControl] = RecordCodec(FromAuditorControl)
    to_read, to_write = make_pipe()
    from_read, from_write = make_pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    given = (to_read, from_write, theirs.fileno())
    command = [sys.executable, "-I", "-m", "cofferdam.audit.process", "--state", str(state)]
    for option, fd in zip(("--control-in", "--control-out", "--producers"), given, strict=True):
        command += [option, str(fd)]
    subprocess.Popen(command, pass_fds=given)
    theirs.close()
    batches_read, batches_write = make_pipe()
    answers_read, answers_write = make_pipe()
    says = kinds((*access.OUTER, *access.INNER))
    message = INTRODUCTIONS.encode(Introduction("bench/both", False, says))
    socket.send_fds(ours, [message], [batches_read, answers_write])
    for packet in pack([out.encode(Open(site))]):
        os.write(to_write, packet)
    os.set_blocking(from_read, True)
    assembler = Assembler(1 << 20)
    while True:
        for data in assembler.feed(os.read(from_read, PACKET)):
            if isinstance(back.decode(data), OpenedLog):
                KEPT.extend((ours, to_write))  # their end would be the auditor's
                return answers_read, batches_write


KEPT: list[object] = []


def run(state: Path) -> None:
    """Serves until the process is ended."""
    from cofferdam.audit.client import AuditClient
    from cofferdam.audit.records import FromAuditor, ToAuditor
    from cofferdam.brokers.broker import Setting
    from cofferdam.brokers.kit.transport import TcpTransport
    from cofferdam.brokers.proxy import records
    from cofferdam.brokers.proxy.inner import Inner
    from cofferdam.brokers.proxy.outer import Outer
    from cofferdam.crossing.memory import memory_channel
    from cofferdam.crossing.pipe import PipeReceiver, PipeSender
    from cofferdam.crossing.reactor import READ, Reactor
    from cofferdam.crossing.records import RecordCodec
    from cofferdam.policy.table import CompiledPolicy

    policy = CompiledPolicy.from_bytes((state / POLICY).read_bytes())
    (conduit,) = policy.conduits.values()
    limits = policy.limits
    reactor = Reactor()
    answers, batches = start_auditor(state, policy.site)
    to_auditor: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
    from_auditor: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
    log: PipeSender[ToAuditor] = PipeSender(reactor, batches, to_auditor)
    audit = AuditClient(reactor, log, wait_seconds=limits.audit_wait_seconds)
    PipeReceiver(reactor, answers, from_auditor, audit.on_record, audit.lost)
    halves: dict[str, Any] = {}
    backlog = limits.crossing_backlog_bytes

    def connect(address: str, port: int, connected: Any) -> TcpTransport:
        transport = TcpTransport.connect(reactor, address, port)
        transport.on_connected = connected
        return transport

    to_inner, questions = memory_channel(
        reactor, records.to_inner(policy, conduit.broker), lambda record: halves["inner"].take(record),
        backlog_limit=backlog,
    )  # fmt: skip
    to_outer, _ = memory_channel(
        reactor, records.to_outer(policy, conduit.broker), lambda record: halves["outer"].take(record),
        backlog_limit=backlog,
    )  # fmt: skip

    def setting(part: str, senders: dict[str, Any]) -> Setting:
        return Setting(
            crew="bench", part=part, broker=conduit.broker, boot="bench", again=False, policy=policy,
            severed=frozenset(), assets=tuple(policy.assets), zones=((conduit.from_zone,), conduit.to_zone),
            reactor=reactor, audit=audit, senders=senders, dial=connect,
        )  # fmt: skip

    outer = halves["outer"] = Outer(setting("outer", {"inner": to_inner}))
    inner = halves["inner"] = Inner(setting("inner", {"outer": to_outer}))

    def take(record: Any) -> None:
        """The inner half takes no more questions while its answers find no room."""
        inner.take(record)
        if to_outer.full:
            questions.pause()

    questions.on_record, to_outer.on_room = take, questions.resume

    def accept(listener: socket.socket) -> None:
        try:
            sock, peer = listener.accept()
        except OSError:
            return
        outer.accept(TcpTransport(reactor, sock), peer[0], peer[1], sock.getsockname()[:2])

    for address, port in {place for asset in policy.assets.values() for place in asset.places}:
        listener = socket.create_server((address, port), backlog=512)
        listener.setblocking(False)
        reactor.add(listener.fileno(), READ, lambda _events, at=listener: accept(at))  # type: ignore[misc]

    def tick() -> None:
        outer.tick()
        inner.tick()
        gc.collect(1)
        reactor.call_in(TICK_SECONDS, tick)

    tick()
    reactor.look_for(limits.busy_poll_microseconds * 1000)
    gc.freeze()
    gc.disable()
    reactor.run()


if __name__ == "__main__":
    if sys.argv[1:2] == ["up"]:
        prepare(sys.argv[1:])
    run(Path(sys.argv[1]))
