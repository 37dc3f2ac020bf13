"""Jobs: processes that live for one piece of work, which a part of a crew has the gate start.

The gate checks that this part may have this job, has the launcher start it, hands the work over and the answer back,
and ends the process: after its answer, when its time is up, or when the part that ordered it has gone. It looks into
neither. A job that says what is no record, or twice, gave no answer.

Not here: what a job may do (enforce.profile, Crew.jobs), its process (brokers.job), its work (the broker).
"""

from __future__ import annotations

import asyncio
from typing import Final

from cofferdam.brokers.broker import JOBS_OF_PART, Broker
from cofferdam.brokers.kit.supervision import DoJob, JobDone, JobResult, StartJob
from cofferdam.crossing.link import RECORD_BYTES
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.profile import Profile
from cofferdam.errors import CrossingError, GateError
from cofferdam.gate.context import Context
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.part import Part
from cofferdam.gate.crew.supervisor import Child, how

_INCOMING: Final[RecordCodec[JobResult]] = RecordCodec(JobResult, limit=RECORD_BYTES)
_OUTGOING: Final[RecordCodec[DoJob]] = RecordCodec(DoJob, limit=RECORD_BYTES)


class _JobChild(Child[DoJob, JobResult]):
    """A job's process."""

    def __init__(self, gate: Context, name: str, born: Born) -> None:
        self.result: JobResult | None = None
        self.broke = ""
        super().__init__(gate.reactor, name, born, _INCOMING, _OUTGOING, self._violated)

    @property
    def is_ready(self) -> bool:
        return True

    def take(self, record: JobResult) -> None:
        if self.result is not None:
            raise CrossingError("it answers twice")
        self.result = record

    def _violated(self, _: object, detail: str) -> None:
        self.broke, self.result = detail, None


class Jobs:
    """Those of one crew."""

    def __init__(self, gate: Context, crew: str, road: str, broker: Broker) -> None:
        self._gate = gate
        self._crew = crew
        self._road = road
        self._broker = broker
        self._running: dict[Part, int] = {}

    def start(self, part: Part, order: StartJob) -> None:
        """Raises: CrossingError, where this part may have no such job, or no more of them."""
        profile = self._broker.crew.jobs.get(order.job)
        if profile is None or profile.ordered_by != part.born.part:
            raise CrossingError(f"it orders the job {order.job[:64]!r}, which is none of its own")
        if self._running.get(part, 0) >= JOBS_OF_PART:
            raise CrossingError(f"it orders more than {JOBS_OF_PART} jobs at once")
        self._running[part] = self._running.get(part, 0) + 1
        self._gate.spawn(self._run(part, order, profile))

    async def _run(self, part: Part, order: StartJob, profile: Profile) -> None:
        result, error = b"", ""
        try:
            result, error = await self._work(part, order, profile)
        except GateError as failed:
            error = f"{failed} ({failed.hint})" if failed.hint else str(failed)
        finally:
            self._running[part] -= 1
            if not self._running[part]:
                del self._running[part]
        part.send(JobDone(order.number, result, error[:4000]))

    async def _work(self, part: Part, order: StartJob, profile: Profile) -> tuple[bytes, str]:
        launcher, name = self._gate.launcher, f"{self._crew}/{order.job}"
        born = await launcher.spawn_job(self._broker.crew.kind, self._crew, order.job, road=self._road)
        child = _JobChild(self._gate, name, born)
        try:
            child.send(DoJob(order.arguments, dict(born.reads), dict(born.sockets)))
            loop = asyncio.get_running_loop()
            stop = loop.time() + profile.seconds
            # In turns, so that a job whose orderer has gone does not work on.
            while part.alive and child.alive and child.result is None and not child.broke and loop.time() < stop:
                await child.until(lambda: child.result is not None or bool(child.broke), 0.5)
            late = loop.time() >= stop
        finally:
            launcher.kill(born)
            await asyncio.wait([born.ended])
            child.forget()
        if child.broke:
            self._gate.log.error("job-broke-the-rules", job=name, detail=child.broke)
            return b"", f"it broke the rules of its pipe: {child.broke}"
        if child.result is not None:
            return child.result.result, child.result.error
        if late:
            return b"", f"it was not done within {profile.seconds:.0f} s"
        return b"", f"it ended without an answer: {how(born.ended.result(), born.call, '') or 'exit code 0'}"
