"""The process of a job: takes one piece of work over its control pipe, does it under the filter of its profile, says
its answer once, and ends.

What it reads may take it over: so it has no network, no store, no way to the audit log, and nothing of its memory is
used again. Whoever ordered it judges the answer as an attacker's.

Not here: what the work is (the broker's `jobs`), who starts and ends the process (gate.crew.jobs).
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cofferdam.brokers.broker import Job
from cofferdam.brokers.kit.supervision import DoJob, JobResult
from cofferdam.brokers.registry import BROKERS, named
from cofferdam.crossing.link import RECORD_BYTES
from cofferdam.crossing.pipe import PipeReceiver, PipeSender
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce import sandbox
from cofferdam.errors import CofferdamError

LAST_WORDS_SECONDS = 5.0


def run(kind: str, job: str, control_in: int, control_out: int) -> int:
    """Does the one piece of work. Returns the exit code."""
    broker = BROKERS[kind]
    profile = broker.crew.jobs[job]
    reactor = Reactor()
    incoming: RecordCodec[DoJob] = RecordCodec(DoJob, limit=RECORD_BYTES)
    outgoing: RecordCodec[JobResult] = RecordCodec(JobResult, limit=RECORD_BYTES)
    answers: PipeSender[JobResult] = PipeSender(reactor, control_out, outgoing, backlog_limit=RECORD_BYTES)
    taken: list[DoJob] = []

    def take(record: DoJob) -> None:
        taken.append(record)
        reactor.stop()

    orders: PipeReceiver[DoJob] = PipeReceiver(reactor, control_in, incoming, take, reactor.stop)
    for module in profile.preload:
        __import__(module)
    work = named(broker.jobs[job])
    reactor.run()
    if not taken:
        return 2
    order = taken[0]
    for said, module in broker.loads.get(job, {}).items():
        if said in order.arguments:  # not read before the filter is on
            __import__(module)
    reads = {name: Path(folder) for name, folder in order.reads.items()}
    sandbox.confine(profile, (), tuple(reads.values()))
    try:
        answer = JobResult(work(Job(order.arguments, reads, dict(order.sockets))))
    except CofferdamError as error:
        answer = JobResult(b"", str(error)[:4000] or "it failed")
    except MemoryError:
        answer = JobResult(b"", f"it needs more memory than the {profile.memory >> 20} MiB that it may have")
    orders.pause()
    answers.send(answer)
    answers.flush()
    until = time.monotonic() + LAST_WORDS_SECONDS
    while answers.backlog and time.monotonic() < until:
        reactor.turn(0.01)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: `python -I -m cofferdam.brokers.job --name ... --kind ... --job ... --control-in FD ...`."""
    parser = argparse.ArgumentParser(prog="cofferdam-job")
    parser.add_argument("--name", required=True)
    parser.add_argument("--kind", required=True, choices=list(BROKERS))
    parser.add_argument("--job", required=True)
    for option in ("control-in", "control-out"):
        parser.add_argument(f"--{option}", type=int, required=True)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return run(args.kind, args.job, args.control_in, args.control_out)


if __name__ == "__main__":
    sys.exit(main())
