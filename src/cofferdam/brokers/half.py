"""The process of a half: inherits pipes and listeners, is configured over its control pipe, runs until told to stop.

It opens no file and starts no process. When the gate is gone (end of the control pipe) it exits at once; when the
other half is gone it answers nobody any more, lets what is under way at the assets come to its end, and exits; when
the other half sends what no honest half would send, it says so and stops.

Not here: what a broker does (brokers.proxy), who starts halves and keeps them apart (enforce.launcher, gate).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import RecordViolation
from cofferdam.audit.records import FromAuditor, ToAuditor
from cofferdam.brokers.kit.supervision import (
    Configure,
    EndSessions,
    Failing,
    FromHalf,
    HalfStatus,
    Listener,
    NewPolicy,
    PolicyTaken,
    Ready,
    Report,
    SetSevered,
    Stop,
    ToHalf,
)
from cofferdam.brokers.kit.transport import TcpTransport, Transport
from cofferdam.brokers.proxy import records
from cofferdam.brokers.proxy.inner import Inner
from cofferdam.brokers.proxy.outer import Outer
from cofferdam.crossing.channel import Receiver, Sender
from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.reactor import READ, Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce import sandbox
from cofferdam.errors import CofferdamError, CrossingError
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.registry import PROTOCOLS

CONTROL_BYTES = 16 << 20
"""The largest control record: a compiled policy of 10,000 rules has about 2 MiB."""
TICK_SECONDS = 0.5
STATUS_SECONDS = 1.0
LAST_WORDS_SECONDS = 1.0
"""How long a half that stops waits for its last audit drafts to leave."""
ACCEPTS_A_TURN = 8
"""New connections of one listener that are taken before others' requests have their turn."""

EXIT_STOPPED, EXIT_GATE_GONE, EXIT_PEER_GONE, EXIT_VIOLATION, EXIT_BUG = 0, 2, 3, 4, 5


class HalfProcess:
    """One half."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.name: str = args.name
        self.role: str = args.role
        self._crossing_fds = (args.crossing_in, args.crossing_out)
        self.reactor = Reactor()
        self.code = EXIT_STOPPED
        control_in: RecordCodec[ToHalf] = RecordCodec(ToHalf, limit=CONTROL_BYTES)
        control_out: RecordCodec[FromHalf] = RecordCodec(FromHalf, limit=CONTROL_BYTES)
        self._control: Sender[FromHalf] = PipeSender(self.reactor, args.control_out, control_out)
        self._control_in: Receiver[ToHalf] = PipeReceiver(
            self.reactor, args.control_in, control_in, self._on_control, self._gate_gone
        )
        self._control.on_closed = self._gate_gone
        self._audit_out: Sender[ToAuditor] = PipeSender(self.reactor, args.audit_out, RecordCodec(ToAuditor))
        self._audit_in_fd: int = args.audit_in
        self.audit: AuditClient | None = None
        self.outer: Outer | None = None
        self.inner: Inner | None = None
        self.pair = ""
        self._listeners: dict[int, socket.socket] = {}
        self._stop_by = 0
        self._peer_gone = False
        self._from_outer: Receiver[records.Opened] | None = None

    def run(self) -> int:
        """Runs until the half has stopped. Returns the exit code."""
        try:
            self.reactor.run()
        except CrossingError as error:
            self._violation(str(error))
        except Exception as error:  # a bug: this half stops, the gate starts a new pair
            traceback.print_exc()
            self._control.send(Failing(clip(f"{type(error).__name__}: {error}", 4000)))
            self.code = EXIT_BUG
        self._last_words()
        return self.code

    def _violation(self, detail: str) -> None:
        """The other half broke the crossing's rules. Nothing more of it is read."""
        other = "inner" if self.role == "outer" else "outer"
        if self.audit is not None:
            self.audit.note(RecordViolation(wall_ns=time.time_ns(), half=f"{self.pair}/{other}", detail=clip(detail)))
        self._control.send(Failing(clip(f"the {other} half broke the crossing's rules: {detail}", 4000)))
        self.code = EXIT_VIOLATION

    def _last_words(self) -> None:
        """Lets audit drafts and control records leave, for a moment; reads nothing from the crossing any more."""
        if self._from_outer is not None:
            self._from_outer.pause()
        until = time.monotonic() + LAST_WORDS_SECONDS
        with contextlib.suppress(Exception):
            if self.inner is not None:
                # An entry that is confirmed in these last moments must not send its write any more.
                self.inner.halt()
            self.reactor.turn(0)
            while (self._audit_out.backlog or self._control.backlog) and time.monotonic() < until:
                self.reactor.turn(0.01)

    # --- the gate's orders --------------------------------------------------------------------------------------

    def _on_control(self, record: ToHalf) -> None:
        if isinstance(record, Configure):
            self._configure(record)
        elif isinstance(record, NewPolicy):
            self._new_policy(record)
        elif isinstance(record, SetSevered):
            if self.inner is not None:
                self.inner.set_severed(record.sides)
            if self.outer is not None:
                self.outer.set_severed(record.sides)
            self._status()
        elif isinstance(record, EndSessions):
            if self.outer is not None:
                self.outer.end_sessions(record.sessions, record.reason)
        elif isinstance(record, Report):
            self._status()
        elif isinstance(record, Stop):
            self._stop(record.seconds)

    def _configure(self, record: Configure) -> None:
        policy = CompiledPolicy.from_bytes(record.policy)
        limits = policy.limits
        protocol = PROTOCOLS[record.broker]
        self.pair = record.pair
        audit = AuditClient(self.reactor, self._audit_out, wait_seconds=limits.audit_wait_seconds)
        self.audit = audit
        codec: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
        PipeReceiver(self.reactor, self._audit_in_fd, codec, audit.on_record, audit.lost)
        self._audit_out.on_closed = audit.lost
        to_inner = records.to_inner(protocol.request_type, limits)
        to_outer = records.to_outer(protocol.response_type, limits)
        zones = (record.source_zones, record.target_zone)
        backlog = limits.crossing_backlog_bytes

        def make_outer(sender: Sender[object]) -> Outer:
            return Outer(
                pair=record.pair, broker=record.broker, boot=record.boot, protocol=protocol, policy=policy,
                assets=record.assets, zones=zones, severed=record.severed, inner=sender, audit=audit,
                reactor=self.reactor,
            )  # fmt: skip

        def make_inner(sender: Sender[object]) -> Inner:
            return Inner(
                pair=record.pair, broker=record.broker, boot=record.boot, protocol=protocol, policy=policy,
                assets=record.assets, zones=zones, severed=record.severed, outer=sender, audit=audit,
                reactor=self.reactor, connect=self._connect, again=record.again,
            )  # fmt: skip

        read_fd, write_fd = self._crossing_fds
        if self.role == "outer":
            sender: Sender[object] = PipeSender(self.reactor, write_fd, to_inner, backlog_limit=backlog, batches=True)
            sender.on_closed = self._other_half_gone
            self.outer = make_outer(sender)
            PipeReceiver(self.reactor, read_fd, to_outer, self.outer.on_record, self._other_half_gone)
        else:
            sender = PipeSender(self.reactor, write_fd, to_outer, backlog_limit=backlog, batches=True)
            sender.on_closed = self._other_half_gone
            self.inner = make_inner(sender)
            self._hold_back(
                sender,
                PipeReceiver(self.reactor, read_fd, to_inner, self.inner.on_record, self._other_half_gone),
            )
        self._listen(record.listeners)
        self.reactor.spin_ns = limits.busy_poll_microseconds * 1000
        # From here on this process can do no more than its work. Listeners are open, modules loaded, and the policy
        # of later reloads comes over the control pipe.
        self._control.send(Ready(os.getpid(), policy.hash, sandbox.confine(self.role)))
        self.reactor.call_in(TICK_SECONDS, self._tick)
        self.reactor.call_in(STATUS_SECONDS, self._report)
        # What lives now lives on: the collector need not look at it again. Cycles of later objects (clients that have
        # gone) are collected by `_tick`, away from the hot path.
        gc.collect()
        gc.freeze()
        gc.disable()

    def _hold_back(self, answers: Sender[object], questions: Receiver[records.Opened]) -> None:
        """The inner half takes no more questions while its answers find no room in the crossing."""
        self._from_outer = questions

        def check() -> None:
            if answers.full:
                questions.pause()

        answers.on_room = questions.resume
        self._check_room: Callable[[], None] = check
        take = questions.on_record

        def on_record(record: records.Opened) -> None:
            take(record)
            if answers.backlog:
                check()

        questions.on_record = on_record

    def _new_policy(self, record: NewPolicy) -> None:
        policy = CompiledPolicy.from_bytes(record.policy)
        ended = 0
        if self.inner is not None:
            ended = self.inner.new_policy(policy, record.assets)
        if self.outer is not None:
            ended = self.outer.new_policy(policy, record.assets)
        if not self._stop_by:  # a half that stops has closed its listeners: their numbers may be others' by now
            self._listen(record.listeners)
        self._control.send(PolicyTaken(policy.hash, ended))

    def _stop(self, seconds: float) -> None:
        self._stop_by = self.reactor.now + int(seconds * 1e9)
        for fd in list(self._listeners):
            self._unlisten(fd)
        if self.outer is not None:
            self.outer.stop()
        self._check_stop()

    def _check_stop(self) -> None:
        """Ends the half once nothing is under way, or time is up. An inner half waits for its outer half to end."""
        outer_done = self.outer is None or not self.outer.busy
        inner_done = self.inner is None or not self.inner.busy
        waits = self.role == "inner" and not self._peer_gone
        if (outer_done and inner_done and not waits) or self.reactor.now >= self._stop_by:
            if self.outer is not None:
                for client in list(self.outer.clients):
                    self.outer.end(client, "the gate stops")
                self.outer.tell()
            if self.inner is not None:
                self.inner.stop()
            self._status()
            self.reactor.later(self.reactor.stop)
            return
        self.reactor.call_in(0.005, self._check_stop)

    def _gate_gone(self) -> None:
        """Without the gate nobody watches and nobody can cut this half off: it ends at once."""
        self.code = EXIT_GATE_GONE
        self.reactor.stop()

    def _other_half_gone(self) -> None:
        if self._peer_gone:
            return
        self._peer_gone = True
        if self._stop_by:
            return
        self.code = EXIT_PEER_GONE
        self._stop(0.5)

    # --- clients and assets -------------------------------------------------------------------------------------

    def _listen(self, listeners: Sequence[Listener]) -> None:
        wanted = {listener.fd for listener in listeners}
        for fd in [fd for fd in self._listeners if fd not in wanted]:
            self._unlisten(fd)
        for fd in wanted - set(self._listeners):
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self._listeners[fd] = sock
            self.reactor.add(fd, READ, lambda _events, sock=sock: self._accept(sock))  # type: ignore[misc]

    def _unlisten(self, fd: int) -> None:
        self.reactor.remove(fd)
        self._listeners.pop(fd).close()

    def _accept(self, listener: socket.socket) -> None:
        outer = self.outer
        if outer is None:
            return
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # Nothing to accept with. Look again soon, not in a tight loop.
                    fd = listener.fileno()
                    self.reactor.change(fd, 0)
                    self.reactor.call_in(0.1, functools.partial(self._relisten, fd))
                    return
                continue  # that client has gone already (ECONNABORTED and its like)
            try:
                local = sock.getsockname()
                transport = TcpTransport(self.reactor, sock)
            except OSError:
                sock.close()
                continue
            outer.accept(transport, _plain(peer[0]), int(peer[1]), (_plain(local[0]), int(local[1])))

    def _relisten(self, fd: int) -> None:
        if fd in self._listeners:
            self.reactor.change(fd, READ)

    def _connect(self, address: str, port: int, connected: Callable[[], None]) -> Transport:
        transport = TcpTransport.connect(self.reactor, address, port)
        transport.on_connected = connected
        return transport

    # --- time ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.outer is not None:
            self.outer.tick()
        if self.inner is not None:
            self.inner.tick()
        gc.collect(1)
        self.reactor.call_in(TICK_SECONDS, self._tick)

    def _report(self) -> None:
        if not self._control.full:
            self._status()
        self.reactor.call_in(STATUS_SECONDS, self._report)

    def _status(self) -> None:
        outer, inner = self.outer, self.inner
        if outer is not None:
            self._control.send(
                HalfStatus(
                    pair=self.pair,
                    role="outer",
                    policy=outer.policy.hash,
                    severed=tuple(sorted(outer.severed)),
                    sessions=outer.sessions(),
                    flows=outer.stats.status(),
                    assets=(),
                    limits=dict(outer.limit_hits),
                    faults=dict(outer.stats.faults),
                    malformed=outer.malformed,
                    backlog=outer.busy,
                )
            )
        if inner is not None:
            self._control.send(
                HalfStatus(
                    pair=self.pair,
                    role="inner",
                    policy=inner.policy.hash,
                    severed=tuple(sorted(inner.severed)),
                    sessions=(),
                    flows=(),
                    assets=inner.assets(),
                    limits=dict(inner.limit_hits),
                    faults=dict(inner.faults),
                    malformed=inner.malformed,
                    backlog=inner.busy,
                )
            )


def _plain(address: str) -> str:
    """An IPv4 address that a dual-stack listener shows as IPv6, in its own form."""
    return address.removeprefix("::ffff:") if "." in address else address


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: `python -I -m cofferdam.brokers.half --name ... --role ... --control-in FD ...`."""
    parser = argparse.ArgumentParser(prog="cofferdam-half")
    parser.add_argument("--name", required=True)
    parser.add_argument("--role", required=True, choices=["outer", "inner"])
    for option in ("control-in", "control-out", "audit-in", "audit-out", "crossing-in", "crossing-out"):
        parser.add_argument(f"--{option}", type=int, required=True)
    args = parser.parse_args(argv)
    # The gate decides when a half stops; a Ctrl-C in the terminal is for the gate.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return HalfProcess(args).run()
    except CofferdamError as error:
        print(f"cofferdam half {args.name}: {error}", file=sys.stderr)
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
