"""A part of a broker's crew as the gate sees it: what it last reported, and an operator's questions to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import structs

from cofferdam.brokers.broker import Broker
from cofferdam.brokers.kit.reports import PAGES
from cofferdam.brokers.kit.supervision import (
    ARGUMENT_BYTES,
    HOUSE_SESSIONS,
    REPORT_BYTES,
    RESULT_BYTES,
    SESSIONS,
    Alarms,
    Command,
    CommandDone,
    Failing,
    FromPart,
    PartStatus,
    PolicyTaken,
    Ready,
    ReportNow,
    SessionStatus,
    StartJob,
    ToPart,
)
from cofferdam.crossing.link import RECORD_BYTES
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError, GateError
from cofferdam.gate.crew.hearing import Hearing, Incoming, clean
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.supervisor import Child
from cofferdam.gate.log import spelled
from cofferdam.policy.table import CompiledPolicy

QUESTIONS = 16
"""Questions to one part that may be open."""

_OUTGOING: RecordCodec[ToPart] = RecordCodec(ToPart, limit=RECORD_BYTES)


class Part(Child[ToPart, FromPart]):
    """A process of a broker's crew."""

    def __init__(
        self, reactor: Reactor, name: str, born: Born, on_violation: Callable[[Any, str], None], broker: Broker,
        on_alarms: Callable[[str, Alarms], None] = lambda _name, _alarms: None,
        on_job: Callable[[Part, StartJob], None] | None = None,
    ) -> None:  # fmt: skip
        self._on_job = on_job
        self.ready: Ready | None = None
        self.policy = ""
        """Hash of the policy that it says it works by."""
        self.ended = 0
        """Sessions that it has ended because a policy did not allow them any more."""
        self.owed = 0
        """Policies that it was sent and has not said to have taken."""
        self.status: PartStatus | None = None
        self.broker = broker
        self._on_alarms = on_alarms
        self._hearing = Hearing(broker.figures.get(born.part, ()))
        self._questions: dict[int, asyncio.Future[CommandDone]] = {}
        self._number = 0
        super().__init__(reactor, name, born, Incoming(self._hearing), _OUTGOING, on_violation)

    @property
    def is_ready(self) -> bool:
        return self.ready is not None

    def take(self, record: FromPart) -> None:
        match record:
            case Ready():
                facts = tuple((spelled(name), on, spelled(detail)) for name, on, detail in record.facts)
                self.ready, self.policy = structs.replace(record, facts=facts), record.policy
            case PartStatus():
                if record.alarms and self.born.part not in self.broker.alarms:
                    raise CrossingError("it raises an alarm, which its broker does not have it do")
                whole = self._hearing.take(record)
                if whole is not None:
                    self.status = whole
                    self._on_alarms(self.name, whole.alarms)
            case PolicyTaken():
                self.policy = record.policy
                self.ended += record.ended
                self.owed = max(0, self.owed - 1)
            case Failing():
                self.failing, self.hint = spelled(record.reason, lines=True), spelled(record.hint, lines=True)
                self.of_store = record.store
            case StartJob():
                if self._on_job is None:
                    raise CrossingError("it orders a job, and there are none")
                self._on_job(self, record)
            case CommandDone():
                # One that comes after its time is up has no question any more.
                question = self._questions.pop(record.number, None)
                if question is not None and not question.done():
                    question.set_result(record)
                elif record.number > self._number:
                    raise CrossingError(f"it answers question {record.number}, which was not asked")

    def works_by(self, policy: CompiledPolicy) -> None:
        """It is about to be told this policy: what it reports may name what stands there."""
        self._hearing.works_by(policy.conduits, policy.assets)

    def report(self) -> None:
        """Has it report now, and not only when it would by itself."""
        self._hearing.asked(PAGES * REPORT_BYTES)
        self.send(ReportNow())

    async def sessions(self, seconds: float) -> list[SessionStatus]:
        """The first of its sessions. Raises: GateError."""
        answer = await self.ask(HOUSE_SESSIONS, b"{}", seconds)
        try:
            said = msgspec.convert(answer, list[SessionStatus])
        except msgspec.ValidationError as error:
            self.broke(f"its sessions are none: {error}")
            raise GateError(f"{self.name} answered with what are no sessions") from None
        return [clean(session) for session in said[:SESSIONS]]

    def broke(self, what: str) -> None:
        """It turns out that what it said is none that an honest part would say."""
        self._on_violation(self, what)

    async def ask(self, verb: str, arguments: bytes, seconds: float) -> Any:
        """An operator's question: its answer, as what JSON can say.

        Raises:
            GateError: the part says no, ends, or does not answer in time.
        """
        if len(arguments) > ARGUMENT_BYTES:
            raise GateError(f"a question of {len(arguments)} bytes; a part is asked at most {ARGUMENT_BYTES}")
        if len(self._questions) >= QUESTIONS:
            raise GateError(f"{self.name} has {QUESTIONS} questions open already", hint="try again in a moment")
        self._number += 1
        number = self._number
        question: asyncio.Future[CommandDone] = asyncio.get_running_loop().create_future()
        self._questions[number] = question
        try:
            self._hearing.asked(RESULT_BYTES)
            self.send(Command(number, verb, arguments))
            if not await self.until(question.done, seconds):
                why = f"does not answer within {seconds:.0f} s" if self.alive else "ended before it answered"
                raise GateError(f"{self.name} {why}", hint="the gate's log says more")
        finally:
            self._questions.pop(number, None)
        done = question.result()
        if done.error:
            raise GateError(spelled(done.error, lines=True), hint=spelled(done.hint, lines=True))
        try:
            return msgspec.json.decode(done.result)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._on_violation(self, f"an answer that is no JSON: {error}")
            raise GateError(f"{self.name} answered with what is no JSON") from None
