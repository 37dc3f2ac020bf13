"""The auditor process: the reactor's loop around `service.Auditor`.

Producers (halves, the gate) come from the launcher as a pair of pipe ends each. All that arrived in one turn of the
loop is made durable together, and then each batch is answered. A producer that sends what is no batch is not read
any further, and the gate is told; the others do not notice.

Not here: what an entry is (entry), the disk (log), which producers there are (the launcher says).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until all is loaded, which stays: an eighth of what a start costs
from cofferdam.audit import open_writes
from cofferdam.audit.checkpoint import Checkpoint, open_checkpoint
from cofferdam.audit.entry import MAX_ENTRY_BYTES
from cofferdam.audit.files import LogReader
from cofferdam.audit.recent import TAIL, things_of
from cofferdam.audit.records import (
    COUNT_BYTES_A_SECOND,
    COUNT_LEAST,
    Ack,
    Counting,
    FromAuditor,
    Hello,
    ToAuditor,
    Writable,
)
from cofferdam.audit.recovery import open_log, origin
from cofferdam.audit.service import COUNTS, Auditor
from cofferdam.audit.supervision import (
    AskHead,
    AskRecent,
    Close,
    FromAuditorControl,
    Keep,
    LogStatus,
    Open,
    OpenedLog,
    Recent,
    RefusedLog,
    ReportLog,
    SignedHead,
    ToAuditorControl,
    Violation,
)
from cofferdam.audit.tree import consistency_proof
from cofferdam.audit.upkeep import Retention
from cofferdam.crossing.framing import MORE, PACKET, Assembler
from cofferdam.crossing.introduction import INTRODUCTION_BYTES, INTRODUCTIONS
from cofferdam.crossing.lone_part import LonePart, run
from cofferdam.crossing.pipe import PIPE_PACKETS, PipeSender
from cofferdam.crossing.reactor import READ, Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import AuditError, CrossingError

TICK_SECONDS = 0.1
RECENT = 4096
"""Writes that are told at once; a record carries no more."""
RECENT_THINGS = 20_000
"""Cells, points and moves that these may name together."""
REPORT_SECONDS = 1.0
REST_SECONDS = 0.05
"""For a producer that has written its share of the day: so often it is read, a batch at a time ..."""
REST_TIMES = 4
"""... and after so many times what a batch took, should that be longer."""
HEAVY_SECONDS = 2.0
"""For a producer that says more between two checkpoints than memory should hold: so often it is read, a batch at a
time, until there is the next."""
PACKETS_A_TURN = 64
"""Packets read from one producer in one turn, so that a flood from one does not hold up the others."""
RECORDS_A_TURN = 1024
"""Records in them, but for the rest of a packet: each takes time, however small it is."""
COUNTS_A_SECOND = 2 * COUNT_BYTES_A_SECOND
"""Bytes of counts, and of what is not taken, that one producer is read in a second, twice what an honest one says."""
_PR_SET_DUMPABLE = 4
EXIT_UNCLOSED, EXIT_REFUSED = 1, 2
"""The log could not be closed in order; it could not be opened."""

_BATCHES: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
_ANSWERS: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
_CONTROL: RecordCodec[FromAuditorControl] = RecordCodec(FromAuditorControl)


class Producer:
    """One producer's pipes. `resumed`: an earlier auditor may have read the first chunks of a record, whose rest is
    passed over."""

    def __init__(
        self,
        reactor: Reactor,
        name: str,
        resumed: bool,
        fds: tuple[int, int],
        on_said: Callable[[Producer, ToAuditor, int], None],
        on_end: Callable[[Producer, str], None],
    ) -> None:
        self.name = name
        self._reactor = reactor
        self._fd, answers = fds
        self._on_said = on_said
        self._on_end = on_end
        self._feed = Assembler(_BATCHES.limit).feed
        self._skip = self._resumed = resumed
        self._first = self._last = 0
        self._reading = False
        self._resting = False
        self._closed = False
        self._counts, self._counted_at = float(COUNTS_A_SECOND), reactor.now
        os.set_blocking(self._fd, False)
        self.answers: PipeSender[FromAuditor] = PipeSender(reactor, answers, _ANSWERS)
        self.answers.on_room = self._resume
        self.answers.on_closed = self._gone

    def start(self) -> None:
        """Reads from now on."""
        if not self._reading and not self._closed:
            self._reading = True
            self._reactor.add(self._fd, READ, self._on_event)

    def answer(self, record: FromAuditor) -> None:
        """Tells the producer something. One that does not read its answers is not read either, until it does."""
        self.answers.send(record)
        if self.answers.full and self._reading:
            self._reading = False
            self._reactor.remove(self._fd)

    def rest(self, seconds: float = REST_SECONDS) -> None:
        """It says more than it may: it is read again in a moment, and others have their turn."""
        if self._reading and not self._resting:
            self._reading, self._resting = False, True
            self._reactor.remove(self._fd)
            self._reactor.call_in(max(seconds, REST_SECONDS), self._resume)

    def had(self, number: int) -> bool:
        """Whether this batch was read already. A part that lives on says again what an earlier auditor had not
        confirmed, and some of that had left for that one, and was still in the pipe."""
        if not self._resumed or not number:
            return False
        self._first = self._first or number
        had = self._first <= number <= self._last
        self._last = max(self._last, number)
        return had

    def counts(self, size: int) -> None:
        """It has said what it has counted so far, or what was not taken, in so many bytes: that takes no room in the
        log, but time."""
        now = self._reactor.now
        again = (now - self._counted_at) * COUNTS_A_SECOND / 1e9
        self._counts = min(COUNTS_A_SECOND, self._counts + again) - max(size, COUNT_LEAST)
        self._counted_at = now
        if self._counts < 0:
            self.rest()

    def _resume(self) -> None:
        self._resting = False
        if not self.answers.full:
            self.start()

    def _gone(self) -> None:
        # It takes no more answers, but what it said is still to be read; its end comes as the end of that.
        self.start()

    def _on_event(self, _events: int) -> None:
        self.read(PACKETS_A_TURN)

    def read(self, packets: int) -> bool:
        """Takes at most so many packets; False once there are none (left)."""
        said = 0
        try:
            for _ in range(packets):
                if self._closed:
                    return False
                if said >= RECORDS_A_TURN:
                    return True
                if self._resting:
                    return False
                packet = os.read(self._fd, PACKET)
                if not packet:
                    self._end("")
                    return False
                if self._skip and packet[0] == MORE:
                    continue
                self._skip = False
                for data in self._feed(packet):
                    said += 1
                    self._on_said(self, _BATCHES.decode(data), len(data))
        except BlockingIOError:
            return False
        except CrossingError as error:
            self._end(str(error))
            return False
        return True

    def drain(self) -> None:
        """Takes all that lies there now. What somebody who talks without end says meanwhile waits for its turn."""
        for _ in range(PIPE_PACKETS):
            self._resting = False
            if not self.read(1):
                return

    def _end(self, fault: str) -> None:
        self.close()
        self._on_end(self, fault)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._reading:
                self._reactor.remove(self._fd)
            os.close(self._fd)
            self.answers.close()


class Process(LonePart[ToAuditorControl, FromAuditorControl]):
    """The whole process."""

    name = "auditor"
    _reactor: Reactor

    def __init__(self, state: Path, control_in: int, control_out: int, producers: int) -> None:
        incoming: RecordCodec[ToAuditorControl] = RecordCodec(ToAuditorControl)
        super().__init__(Reactor(), control_in, control_out, incoming, _CONTROL)
        self._state = state
        self._auditor: Auditor | None = None
        self._reader: LogReader | None = None
        self._producers: dict[str, Producer] = {}
        self._says: dict[str, tuple[str, ...]] = {}
        self._living: set[str] = set()
        """Producers that had said something to an earlier auditor, and may go on."""
        self._retention = Retention()
        self._batches = 0
        self._refused = 0
        self._silent: set[tuple[str, int]] = set()
        self._scheduled = False
        self._log_state = (True, "")
        self._launcher = socket.socket(fileno=producers)
        self._launcher.setblocking(False)
        self._reactor.add(producers, READ, self._on_launcher)

    def gate_gone(self) -> None:
        """Those who tell may end after the gate: what they have said is still written, until the launcher has gone."""

    def ended(self) -> None:
        self._reactor.turn(0)  # what was said last leaves

    # --- the gate and the launcher ------------------------------------------------------------------------------

    def heard(self, record: ToAuditorControl) -> bool:
        match record:
            case Open():
                self._open(record)
            case Keep(keep_ns, most, move):
                self._retention = Retention(keep_ns, most, move)
                if self._auditor is not None:
                    self._auditor.upkeep.retention = self._retention
            case ReportLog():
                self._report()
            case Close():
                self._close()
            case AskRecent(number, assets):
                self._tell_recent(number, frozenset(assets))
            case AskHead(number, old):
                self._gate.send(self._head(number, old))
        return True

    def _on_launcher(self, _events: int) -> None:
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._launcher, INTRODUCTION_BYTES, 2)
            except BlockingIOError:
                return
            if not data:
                self._reactor.remove(self._launcher.fileno())
                self._close()
                return
            said = INTRODUCTIONS.decode(data)
            if len(fds) != 2:
                raise CrossingError(f"producer {said.name} came with {len(fds)} descriptors, not 2")
            old = self._producers.pop(said.name, None)
            if old is not None:  # its end has not been read yet
                old.drain()
                old.close()
                if self._auditor is not None:
                    self._auditor.close_counts(said.name)
                # Its successor has its name, and numbers batches from 1 as well: what became of the old one's batches
                # must not be told to the new one, which would take it for its own.
                self._commit()
            self._says[said.name] = said.says
            if said.resumed:
                self._living.add(said.name)
            elif self._auditor is not None:
                self._auditor.ended(said.name)  # whoever had that name
            if self._auditor is not None:
                self._auditor.introduce(said.name, said.says)
            producer = Producer(self._reactor, said.name, said.resumed, (fds[0], fds[1]), self._on_said, self._on_end)
            self._producers[said.name] = producer
            if self._auditor is not None:
                self._welcome(producer)

    def _open(self, said: Open) -> None:
        try:
            anchor = Checkpoint(origin(said.site), said.size, said.root) if said.size else None
            log = open_log(self._state / "audit", self._state / "keys" / "audit.key", site=said.site, anchor=anchor)
        except AuditError as error:
            self._gate.send(RefusedLog(str(error)[:4096], error.hint[:4096]))
            self.stop(EXIT_REFUSED)
            return
        self._auditor = Auditor(log)
        self._auditor.upkeep.retention = self._retention
        self._reader = reader = LogReader(log.folder, log.key.verifier)
        start = reader.tail(TAIL)
        tail = (entry for _, entry in reader.entries(start))
        self._auditor.recent.load(tail, time.time_ns(), time.monotonic_ns(), whole=not start)
        for name, says in self._says.items():
            self._auditor.introduce(name, says)
        self._on_launcher(READ)  # whoever lives on is introduced first of all
        last = (entry for _, entry in reader.entries(reader.tail(open_writes.TAIL)))
        self._auditor.open_writes.load(last, self._living, time.time_ns())
        self._gate.send(OpenedLog(os.getpid(), log.size, log.key.verifier.text))
        for producer in list(self._producers.values()):
            self._welcome(producer)
        self._tick()
        self._every_report()

    def _tell_recent(self, number: int, assets: frozenset[str]) -> None:
        auditor = self._auditor
        if auditor is None:
            self._gate.send(Recent(number, False, ()))
            return
        for producer in list(self._producers.values()):
            if not producer.answers.full:  # who takes no answers is not read, that they may not fill our memory
                producer.drain()  # what a part that has ended said last counts as well
                self._commit()  # what one says leaves no less room for the next
        complete, writes = auditor.recent.of(assets, time.monotonic_ns())
        # One write may name hundreds of points: what does not fit into a record is not known.
        whole = complete and len(writes) <= RECENT and sum(map(things_of, writes)) <= RECENT_THINGS
        answer = Recent(number, whole, writes if whole else (), auditor.recent.written())
        if len(_CONTROL.encode(answer)) > _CONTROL.limit:  # the names in it are as long as a part makes them
            answer = Recent(number, False, ())
        self._gate.send(answer)

    def _head(self, number: int, old: int) -> SignedHead:
        """From the files, as anybody would read them: what is given away is what lies there."""
        reader = self._reader
        if reader is None:
            return SignedHead(number, b"", why="the log is not open yet")
        try:
            note = reader.checkpoint_note()
            size = open_checkpoint(note, reader.key).size
            hashes = tuple(consistency_proof(old, size, reader.hashes(size))) if 0 < old < size else ()
        except (AuditError, OSError) as error:
            return SignedHead(number, b"", why=str(error)[:1000])
        return SignedHead(number, note, hashes)

    def _welcome(self, producer: Producer) -> None:
        producer.answer(Hello(*self._log_state))
        producer.start()

    def _close(self) -> None:
        for producer in list(self._producers.values()):
            producer.drain()
            if self._auditor is not None:
                self._auditor.close_counts(producer.name)
            self._commit()  # what one says leaves no less room for the next
        if self._auditor is not None:
            try:
                self._auditor.close()
            except AuditError as error:
                print(f"error   audit-log-close {error}", file=sys.stderr)
                self.stop(EXIT_UNCLOSED)
        self._report()
        self.stop()

    # --- producers ----------------------------------------------------------------------------------------------

    def _on_said(self, producer: Producer, said: ToAuditor, size: int) -> None:
        auditor = self._auditor
        if auditor is None:
            return
        begun = time.monotonic()
        if isinstance(said, Counting):
            if size > MAX_ENTRY_BYTES or not auditor.keep_count(producer.name, said):
                raise CrossingError("it counts more than there is")
            producer.counts(size)
            producer.had(said.batch)
            if not said.over:
                return
        elif producer.had(said.number):
            producer.counts(size)
        else:
            self._batches += 1
            if not said.wants_ack:
                self._silent.add((producer.name, said.number))
            if not auditor.submit(producer.name, said.number, said.drafts, said.policy):
                producer.counts(size)
        if auditor.heavy(producer.name):
            producer.rest(HEAVY_SECONDS)
        elif auditor.over(producer.name):
            producer.rest(REST_TIMES * (time.monotonic() - begun))
        if not self._scheduled:
            self._scheduled = True
            self._reactor.later(self._commit)

    def _commit(self) -> None:
        self._scheduled = False
        auditor = self._auditor
        if auditor is None:
            return
        for result in auditor.commit():
            if not result.ok:
                self._refused += 1
            if result.batch == COUNTS:
                continue
            key = (result.producer, result.batch)
            if key in self._silent:
                self._silent.discard(key)
                continue
            producer = self._producers.get(result.producer)
            if producer is not None:
                producer.answer(Ack(result.batch, result.ok, result.reason))
        self._tell()

    def _on_end(self, producer: Producer, fault: str) -> None:
        if self._producers.get(producer.name) is producer:
            del self._producers[producer.name]
            if self._auditor is not None:
                self._auditor.close_counts(producer.name)
                self._commit()
                self._auditor.ended(producer.name)
        if fault:
            self._gate.send(Violation(producer.name, fault[:4096]))

    # --- the log's state ----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """Tells everyone at once when the log becomes unwritable, and when it is well again."""
        auditor = self._auditor
        if auditor is None or self._log_state == (auditor.writable, auditor.reason[:4096]):
            return
        changed = self._log_state[0] != auditor.writable
        self._log_state = (auditor.writable, auditor.reason[:4096])
        if changed:
            for producer in list(self._producers.values()):
                producer.answer(Writable(*self._log_state))
            self._report()

    def _tick(self) -> None:
        if self._auditor is not None:
            self._auditor.tick()
            self._tell()
        self._reactor.call_in(TICK_SECONDS, self._tick)

    def _every_report(self) -> None:
        self._report()
        self._reactor.call_in(REPORT_SECONDS, self._every_report)

    def _report(self) -> None:
        if self._auditor is None:
            return
        status = self._auditor.status()
        self._gate.send(
            LogStatus(
                size=status.entries,
                signed=status.published,
                writable=status.writable,
                reason=status.reason[:4096],
                batches=self._batches,
                refused=self._refused,
                commits=status.commits.count,
                commit_ns=status.commits.sum,
                commit_max_ns=status.commits.max,
                over=status.over[:16],
                free=status.free,
                total=status.total,
                root=status.root,
                stuck=status.stuck[:4096],
                bytes=status.growth.bytes,
                per_day=status.growth.per_day,
                first=status.growth.first,
                since=status.growth.since,
                sealed=status.growth.sealed,
                trouble=status.growth.trouble[:4096],
            )
        )


def _made(args: argparse.Namespace) -> LonePart[Any, Any]:
    # The log's key is in this process's memory: no other process may look at it. The kernel lifts this at exec, so
    # it cannot be done by the launcher.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    gc.freeze()
    gc.enable()
    return Process(args.state, args.control_in, args.control_out, args.producers)


def main() -> int:
    return run("auditor", _made, ("producers",), {"state": {"type": Path, "required": True}})


if __name__ == "__main__":
    sys.exit(main())
