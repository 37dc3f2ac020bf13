"""The process of a part: inherits pipes and sockets, is configured over its control pipe, runs until told to stop.

It knows no broker: which part it runs stands in its broker's declaration (broker.Broker), and that module is all that
it loads of any. It opens no file but those of its own store, and starts no process. When the gate is gone (end of the
control pipe) it exits at once; when another part of its crew is gone it takes no new work, lets what is under way come
to its end, and exits; when one sends what no honest part would send, it says so and stops. It is ready, and takes
clients, once its auditor has answered: before that nothing that it does could be recorded.

Not here: what a part does (its broker), who starts parts and keeps them apart (enforce.launcher, gate).
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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # what is loaded stays: an eighth of what a start costs
from cofferdam.audit.client import AuditClient
from cofferdam.audit.events.base import clip
from cofferdam.audit.events.gate import RecordViolation
from cofferdam.audit.records import FromAuditor, ToAuditor
from cofferdam.brokers.broker import Asked, Broker, Part, Setting
from cofferdam.brokers.kit import priority
from cofferdam.brokers.kit.reports import Pager
from cofferdam.brokers.kit.seamed import Seams
from cofferdam.brokers.kit.supervision import (
    HOUSE_END,
    HOUSE_SESSIONS,
    SESSIONS,
    Away,
    Command,
    CommandDone,
    Configure,
    EndSources,
    Failing,
    FromPart,
    JobDone,
    Listener,
    NewPolicy,
    PartStatus,
    PolicyTaken,
    Ready,
    ReportNow,
    SetSevered,
    StartJob,
    Stop,
    ToPart,
)
from cofferdam.brokers.kit.transport import TcpTransport, Transport, place_of
from cofferdam.brokers.registry import BROKERS, named
from cofferdam.crossing import strand
from cofferdam.crossing.channel import Receiver, Sender, hold_back
from cofferdam.crossing.exit import EXIT_BUG, EXIT_GATE_GONE, EXIT_PEER_GONE, EXIT_REFUSED, EXIT_STOPPED, EXIT_VIOLATION
from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.reactor import READ, Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce import sandbox
from cofferdam.errors import CofferdamError, CrossingError, GateError, StoreError
from cofferdam.policy.table import CompiledPolicy

CONTROL_BYTES = 16 << 20
"""The largest control record: a compiled policy of 10,000 rules has about 2 MiB."""
TICK_SECONDS = 0.5
FULL_TICKS = 120
STATUS_SECONDS = 1.0
ANSWER_SECONDS = 25.0
"""A part whose auditor has not answered for so long says so and ends: before the gate ends it for not being ready
(gate.crew.supervisor.Supervisor.ready_seconds), which would not know why."""
LAST_WORDS_SECONDS = 1.0
"""How long a part that stops waits for its last audit drafts to leave."""
ACCEPTS_A_TURN = 8
"""New connections of one listener that are taken before others' requests have their turn."""

Start = Callable[[Coroutine[Any, Any, None]], None]


class PartProcess:
    """The process around one part."""

    def __init__(self, args: argparse.Namespace, brokers: Mapping[str, Broker] = BROKERS) -> None:
        self.broker = brokers[args.kind]
        self.name: str = args.part
        self.profile = self.broker.crew.parts[args.part]
        self.reactor, self._start = _reactor(self.profile.runtime)
        self.code = EXIT_STOPPED
        control_in: RecordCodec[ToPart] = RecordCodec(ToPart, limit=CONTROL_BYTES)
        control_out: RecordCodec[FromPart] = RecordCodec(FromPart, limit=CONTROL_BYTES)
        self._control: Sender[FromPart] = PipeSender(self.reactor, args.control_out, control_out)
        self._control_in: Receiver[ToPart] = PipeReceiver(
            self.reactor, args.control_in, control_in, self._on_control, self._gate_gone, self._blaming("the gate")
        )
        self._control.on_closed = self._gate_gone
        self._audit_out: Sender[ToAuditor] = PipeSender(self.reactor, args.audit_out, RecordCodec(ToAuditor))
        self._audit_in_fd: int = args.audit_in
        self._in_fds: dict[str, int] = dict(args.input)
        self._out_fds: dict[str, int] = dict(args.output)
        self.audit: AuditClient | None = None
        self.part: Part | None = None
        self.crew = self._policy = ""
        self._broken = "another part"
        self._severed: frozenset[str] = frozenset()
        self._files: tuple[str, ...] = ()  # its own store, and those of other parts that it reads
        self._listeners: dict[int, tuple[socket.socket, Listener]] = {}
        self._seams: Seams | None = None
        self._receivers: dict[str, Receiver[Any]] = {}
        self._returning: dict[str, tuple[PipeSender[Any] | None, PipeReceiver[Any] | None]] = {}
        """The pipes to and from parts that come again."""
        self._lives: dict[str, int] = {}
        self._gone: set[str] = set()
        self._riding: set[str] = set()
        """Parts that are at the other end of a strand."""
        self._jobs: dict[int, Callable[[bytes, str], None]] = {}
        self._job = self._stop_by = self._ticks = 0
        self._halted = self._ready = False
        self._pager = Pager()

    def run(self) -> int:
        """Runs until the part has stopped. Returns the exit code."""
        try:
            self.reactor.run()
        except CrossingError as error:
            self._broken = error.by or self._broken
            self._violation(str(error))
        except (GateError, StoreError) as refusal:  # it cannot work: a damaged store, a certificate that is none
            self._failing(str(refusal), refusal.hint, stored=isinstance(refusal, StoreError))
            self.code = EXIT_REFUSED
        except Exception as bug:  # not `error`: compiled code gives a name one type. The gate starts a new crew
            traceback.print_exception(bug)
            way_out = f" ({bug.hint})" if isinstance(bug, CofferdamError) and bug.hint else ""
            self._failing(f"{type(bug).__name__}: {bug}{way_out}", stored=not isinstance(bug, CofferdamError))
            self.code = EXIT_BUG
        self._last_words()
        return self.code

    def _failing(self, why: str, hint: str = "", *, stored: bool = False) -> None:
        """`stored`: it is for what is in a store of its crew's, or nobody knows for what."""
        if stored and not hint and self._files:
            hint = f"look at what is in {' and '.join(self._files)}: keep a copy, and put back a backup"
        self._control.send(Failing(clip(why, 4000), clip(hint, 4000), stored))

    def _blaming(self, who: str) -> Callable[[CrossingError], None]:
        """For a receiver: remembers who broke the rules, and lets the error go on its way, which ends the loop."""

        def blame(error: CrossingError) -> None:
            self._broken = who
            raise error

        return blame

    def _violation(self, detail: str) -> None:
        """Somebody broke the rules of a pipe. Nothing more is read from any other part."""
        who = self._broken
        if self.audit is not None:
            half = f"{self.crew}/{who}" if who in self._in_fds or who in self._riding else who
            self.audit.note(RecordViolation(wall_ns=time.time_ns(), half=half, detail=clip(detail)))
        self._failing(f"{who} broke the crossing's rules: {detail}", stored=True)
        self.code = EXIT_VIOLATION

    def _last_words(self) -> None:
        """Lets audit drafts and control records leave, for a moment; reads nothing from other parts any more."""
        self._hear_no_more()
        until = time.monotonic() + LAST_WORDS_SECONDS
        with contextlib.suppress(Exception):
            if self.part is not None:
                # An entry that is confirmed in these last moments must not lead to any action any more.
                self._halted = True
                self.part.halt()
        # First of all, and not at the end of a turn: what else is due in it may raise again, and take them with it.
        with contextlib.suppress(Exception):
            if self.audit is not None:
                self.audit.flush()
        for sender in (self._audit_out, self._control):
            with contextlib.suppress(Exception):
                sender.flush()
        while (self._audit_out.backlog or self._control.backlog) and time.monotonic() < until:
            with contextlib.suppress(Exception):
                self.reactor.turn(0.01)

    def _hear_no_more(self) -> None:
        """Nothing of another part, or of the auditor, leads to anything from now on."""
        for receiver in self._receivers.values():
            receiver.pause()

    # --- the gate's orders --------------------------------------------------------------------------------------

    def _on_control(self, record: ToPart) -> None:
        part = self.part
        if part is None:
            if not isinstance(record, Configure):
                raise CrossingError(f"{type(record).__name__} before Configure")
            self._configure(record)
        elif self._halted and not isinstance(record, Command):
            return  # it has ended, and what it works on is shut
        elif isinstance(record, NewPolicy):
            self._new_policy(part, record)
        elif isinstance(record, SetSevered):
            part.set_severed(record.sides)
            self._severed = frozenset(record.sides)
            self._status()
        elif isinstance(record, ReportNow):
            self._status()
        elif isinstance(record, Command):
            self._command(part, record)
        elif isinstance(record, Stop):
            self._stop(record.seconds)
        elif isinstance(record, Away):
            self._away(part, record)
        elif isinstance(record, JobDone):
            if (job_done := self._jobs.pop(record.number, None)) is None:
                raise CrossingError(f"the answer of job {record.number}, which was not asked for")
            job_done(record.result, record.error)
        else:
            raise CrossingError("a second Configure")

    def _configure(self, record: Configure) -> None:
        policy = CompiledPolicy.from_bytes(record.policy)
        limits = policy.limits
        self.crew = record.crew
        audit = AuditClient(self.reactor, self._audit_out, wait_seconds=limits.audit_wait_seconds)
        self.audit = audit
        audit.policy = policy.hash
        codec: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
        blame = self._blaming("the auditor")
        acks = PipeReceiver(self.reactor, self._audit_in_fd, codec, audit.on_record, audit.lost, blame)
        self._receivers["the auditor"] = acks
        self._audit_out.on_closed = audit.lost
        for module in self.profile.preload:
            __import__(module)
        senders: dict[str, Sender[Any]] = {}
        folders = {name: Path(folder) for name, folder in record.folders.items()}
        ride_out, ride_in = strand.ends(self.broker.crew.rides, self.name, folders)
        for other in {*ride_out, *ride_in}:  # on one machine there are pipes as well, and nobody has one back
            self._riding.add(other)
            for fd in filter(None, (self._out_fds.pop(other, None), self._in_fds.pop(other, None))):
                os.close(fd)
        for other, path in ride_out.items():
            ride_codec = self._codec(self.name, other, policy)
            senders[other] = strand.StrandSender(
                self.reactor, path, ride_codec, backlog_limit=limits.crossing_backlog_bytes
            )
        for other, fd in self._out_fds.items():
            codec_out = self._codec(self.name, other, policy)
            backlog = limits.crossing_backlog_bytes
            sender: PipeSender[Any] = PipeSender(self.reactor, fd, codec_out, backlog_limit=backlog, batches=True)
            sender.on_closed = functools.partial(self._part_gone, other)
            senders[other] = sender
            if record.life:
                sender.anew(record.life)
            if other in self.broker.crew.returns:
                self._returning[other] = (sender, None)
        store = Path(record.store) if record.store else None
        self._files = tuple(filter(None, (record.store, *map(record.reads.get, self.profile.reads))))
        reads = {name: Path(folder) for name, folder in record.reads.items()}
        self._policy, self._severed = policy.hash, frozenset(record.severed)
        make: type[Part] = named(self.broker.make[self.name])
        self.part = part = make(
            Setting(
                crew=record.crew, part=self.name, broker=record.broker, boot=record.boot, again=record.again,
                policy=policy, severed=self._severed, assets=record.assets,
                zones=(record.source_zones, record.target_zone), reactor=self.reactor, audit=audit, senders=senders,
                dial=self._dial, start=self._start, store=store, reads=reads, folders=folders,
                secrets={secret.name: secret.value for secret in record.secrets}, recent=record.recent,
                life=record.life, run_job=self._run_job,
            )
        )  # fmt: skip
        for other, fd in self._in_fds.items():
            gone = functools.partial(self._part_gone, other)
            codec_in = self._codec(other, self.name, policy)
            returns = other in self.broker.crew.returns
            receiver: PipeReceiver[Any] = PipeReceiver(
                self.reactor, fd, codec_in, part.taker(other), gone, self._blaming(other),
                on_anew=functools.partial(self._anew, other) if returns else None, life=record.life,
            )  # fmt: skip
            self._receivers[other] = receiver
            if returns:
                self._returning[other] = (self._returning.get(other, (None, None))[0], receiver)
            if self.name in self.broker.answers | self.broker.crew.returns and other in senders:
                hold_back(receiver, senders[other])  # else who asks and does not listen fills its memory
        for other, path in ride_in.items():
            ride_codec = self._codec(other, self.name, policy)
            self._receivers[other] = strand.StrandReceiver(
                self.reactor, path, ride_codec, part.taker(other), lambda: part.riding, self._blaming(other)
            )
        self._seams = Seams(self.reactor, part, audit, f"{self.crew}/{self.name}")
        self._listen(record.listeners)
        # At a real-time priority, who looks again and again keeps the processor from those who have none.
        self.reactor.look_for(limits.busy_poll_microseconds * 1000 if part.spins and not part.urgent else 0)
        urgent = (priority.raised(),) if part.urgent and self.profile.urgent else ()
        writes = (*([store] if store is not None else []), *folders.values())
        # From here on this process can do no more than its work. Sockets are open, modules loaded, and the policy of
        # later reloads comes over the control pipe.
        profile = self.profile.needing(listens=bool(record.listeners), dials=record.dials)
        facts = sandbox.confine(
            profile, writes, tuple(reads.values()),
            deaf=[listener.fd for listener in record.listeners if listener.way == "out"],
            mute=[listener.fd for listener in record.listeners if listener.way == "in"],
        )  # fmt: skip
        audit.on_answered = functools.partial(self._begin, (*facts, *urgent))
        self.reactor.call_in(ANSWER_SECONDS, self._need_answer)
        # What lives now lives on: the collector need not look at it again. In a part of our own reactor, cycles of
        # later objects (clients that have gone) are collected by `_tick`, away from the hot path; libraries make more.
        gc.collect()
        gc.freeze()
        (gc.disable if self._start is None else gc.enable)()

    def _begin(self, facts: tuple[tuple[str, bool, str], ...]) -> None:
        """The auditor has answered: what is done from now on can be recorded, or it is known why not."""
        self._ready = True
        self._control.send(Ready(os.getpid(), self._policy, facts))
        for fd, (_, listener) in self._listeners.items():
            if not listener.datagrams:
                self._relisten(fd)
        self.reactor.call_in(TICK_SECONDS, self._tick)
        self.reactor.call_in(STATUS_SECONDS, self._report)

    def _need_answer(self) -> None:
        if not self._ready:
            raise GateError(
                f"the auditor has not answered within {ANSWER_SECONDS:g} s, and nothing could be recorded",
                hint="see the alarm `auditor-down` and the gate's log; this part is tried again by itself",
            )

    def _codec(self, source: str, target: str, policy: CompiledPolicy) -> RecordCodec[Any]:
        """The closed set of records of one pipe."""
        codec: RecordCodec[Any] = named(self.broker.records[source, target])(policy, self.broker.name)
        return codec

    def _new_policy(self, part: Part, record: NewPolicy) -> None:
        policy = CompiledPolicy.from_bytes(record.policy)
        if self.audit is not None:
            self.audit.policy = policy.hash
        if record.secrets is not None:
            try:
                part.take_secrets({secret.name: secret.value for secret in record.secrets})
            except GateError as unfit:
                print(f"{self.name}: {unfit}", file=sys.stderr)  # it goes on with those that it has
        ended = part.take_policy(policy, record.assets)
        self._policy = policy.hash
        if not self._stop_by:  # a part that stops has closed its listeners: their numbers may be others' by now
            self._listen(record.listeners)
        self._control.send(PolicyTaken(policy.hash, ended))

    def _away(self, part: Part, said: Away) -> None:
        """A part that comes again has ended; its next life may have been heard of before this."""
        sender, receiver = self._returning.get(said.part, (None, None))
        if receiver is not None:
            receiver.drain()  # what it said last
        if said.life >= self._lives.get(said.part, 0):
            self._lives[said.part] = said.life + 1
            if sender is not None:
                sender.away()
            part.away(said.part)

    def _anew(self, other: str, life: int) -> None:
        """It has come: what it said from now on is of this life."""
        part = self.part
        if part is None or self._stop_by:
            return
        if self._lives.get(other, 0) < life:
            part.away(other)
        self._lives[other] = life
        sender = self._returning[other][0]
        if sender is not None:
            sender.anew(life)
        part.anew(other, life)

    def _command(self, part: Part, record: Command) -> None:
        number = record.number

        def done(result: bytes, error: str, hint: str) -> None:
            self._control.send(CommandDone(number, result, clip(error, 4000), clip(hint, 4000)))

        asked = Asked(record.verb, record.arguments, done)
        if self._halted:  # its stores are shut, and what it would say of that helps nobody
            asked.refuse("it has just ended its work", "ask again in a moment: it is born anew")
            return
        try:
            if record.verb == HOUSE_SESSIONS:
                asked.answer(part.sessions()[:SESSIONS])
            elif record.verb == HOUSE_END:
                wanted = asked.decode(EndSources)
                sources = frozenset(wanted.sources)
                ending = [
                    session.session
                    for session in part.sessions()
                    if session.source in sources or session.session in wanted.sessions
                ]
                part.end_sessions(ending, wanted.reason)
                asked.answer(len(ending))
            else:
                part.command(asked)
        except CrossingError:
            raise
        except CofferdamError as error:
            asked.refuse(str(error), error.hint)

    def _run_job(self, job: str, arguments: bytes, done: Callable[[bytes, str], None]) -> None:
        self._job += 1
        self._jobs[self._job] = done
        self._control.send(StartJob(self._job, job, arguments))

    def _stop(self, seconds: float) -> None:
        self._stop_by = self.reactor.now + int(seconds * 1e9)
        for fd in list(self._listeners):
            self._unlisten(fd)
        if self._seams is not None:
            self._seams.leave()
        if self.part is not None:
            self.part.stop()
        self._check_stop()

    def _check_stop(self) -> None:
        """Ends the part once nothing is under way, or time is up. One that answers others waits for them to end."""
        part = self.part
        waits = self.name in self.broker.answers and not self._gone >= self._in_fds.keys()
        if part is None or (not part.busy and not waits) or self.reactor.now >= self._stop_by:
            if part is not None:
                self._hear_no_more()  # in this turn, which has not come to its end
                self._halted = True
                part.end()
                self._status()
            self.reactor.later(self.reactor.stop)
            return
        self.reactor.call_in(0.005, self._check_stop)

    def _gate_gone(self) -> None:
        """Without the gate nobody watches and nobody can cut this part off: it ends at once."""
        self.code = EXIT_GATE_GONE
        self.reactor.stop()

    def _part_gone(self, other: str) -> None:
        if other in self._gone:
            return
        self._gone.add(other)
        if self._stop_by:
            return
        self.code = EXIT_PEER_GONE
        self._stop(0.5)

    # --- clients and assets -------------------------------------------------------------------------------------

    def _listen(self, listeners: Sequence[Listener]) -> None:
        if self._seams is not None:
            self._seams.join([listener for listener in listeners if listener.is_seam])
        listeners = [listener for listener in listeners if not listener.is_seam]
        wanted = {listener.fd: listener for listener in listeners}
        for fd in [fd for fd in self._listeners if fd not in wanted]:
            self._unlisten(fd)
        for fd in wanted.keys() - self._listeners.keys():
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self._listeners[fd] = (sock, wanted[fd])
            if wanted[fd].datagrams:
                if self.part is not None:
                    self.part.serve_datagrams(sock, wanted[fd])
            else:
                events = READ if self._ready else 0  # whoever comes before that waits in the backlog
                self.reactor.add(fd, events, lambda _events, sock=sock: self._accept(sock))  # type: ignore[misc]

    def _unlisten(self, fd: int) -> None:
        sock, listener = self._listeners.pop(fd)
        if not listener.datagrams:
            self.reactor.remove(fd)
        elif self.part is not None:
            self.part.end_datagrams(sock)
        sock.close()

    def _accept(self, listener: socket.socket) -> None:
        part = self.part
        if part is None:
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
            source, port = place_of(peer)
            if part.is_hasty(source):
                sock.close()
                continue
            try:
                local = place_of(sock.getsockname())
                if self._start is not None:
                    sock.setblocking(False)
                    part.accept_socket(sock, source, port, local)
                    continue
                transport = TcpTransport(self.reactor, sock)
            except OSError:
                sock.close()
                continue
            part.accept(transport, source, port, local)

    def _relisten(self, fd: int) -> None:
        if fd in self._listeners:
            self.reactor.change(fd, READ)

    def _dial(self, address: str, port: int, connected: Callable[[], None]) -> Transport:
        transport = TcpTransport.connect(self.reactor, address, port)
        transport.on_connected = connected
        return transport

    # --- time ---------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self.part is not None and not self._halted:
            self.part.tick()
        if self._start is None:
            self._ticks += 1
            # What has lived for a second is looked through once a minute: connections that ended, and hold themselves.
            gc.collect(1 if self._ticks % FULL_TICKS else 2)
        self.reactor.call_in(TICK_SECONDS, self._tick)

    def _report(self) -> None:
        if not self._control.full:
            self._status()
        self.reactor.call_in(STATUS_SECONDS, self._report)

    def _status(self) -> None:
        part = self.part
        if part is None:
            return
        seams = self._seams.alarms() if self._seams is not None else {}
        report = PartStatus(
            crew=self.crew, part=self.name, policy=self._policy,
            severed=tuple(sorted(self._severed)),  # type: ignore[arg-type]
            open=part.open_sessions(), assets=part.assets(), figures=part.figures(),
            alarms=part.alarms() | seams, limits=dict(part.limit_hits), faults=dict(part.faults),
            malformed=part.malformed, backlog=part.busy,
        )  # fmt: skip
        for page in self._pager.pages(report):
            self._control.send(page)


def _reactor(runtime: str) -> tuple[Reactor, Start | None]:
    """The loop of a part, made before the filter is on; and what starts a task there, if it has tasks."""
    if runtime == "reactor":
        return Reactor(), None
    from cofferdam.brokers.kit.aio import PartLoop
    from cofferdam.crossing.loops import LoopReactor

    reactor = LoopReactor(PartLoop())
    return reactor, reactor.start


def _pipe(text: str) -> tuple[str, int]:
    """PART=FD of the command line."""
    part, _, fd = text.partition("=")
    return part, int(fd)


def main(argv: Sequence[str] | None = None, brokers: Mapping[str, Broker] = BROKERS) -> int:
    """Entry point: `python -I -m cofferdam.brokers.half --name ... --kind ... --part ... --control-in FD ...`.

    `brokers` are those that there are; a test's program may bring one of its own."""
    parser = argparse.ArgumentParser(prog="cofferdam-part")
    parser.add_argument("--name", required=True)
    parser.add_argument("--kind", required=True, choices=list(brokers))
    parser.add_argument("--part", required=True)
    for option in ("control-in", "control-out", "audit-in", "audit-out"):
        parser.add_argument(f"--{option}", type=int, required=True)
    parser.add_argument("--in", dest="input", metavar="PART=FD", type=_pipe, action="append", default=[])
    parser.add_argument("--out", dest="output", metavar="PART=FD", type=_pipe, action="append", default=[])
    for option in ("listeners-at", "listeners"):  # the gate says which is which (Configure.listeners)
        parser.add_argument(f"--{option}", type=int)
    args = parser.parse_args(argv)
    # The gate decides when a part stops; a Ctrl-C in the terminal is for the gate.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return PartProcess(args, brokers).run()
    except CofferdamError as error:
        print(f"cofferdam part {args.name}: {error}", file=sys.stderr)
        return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
