"""The auditor's crew: has the log opened once the site is known, and closed last.

While there is no auditor, nothing is confirmed, and so no write reaches the plant; that needs nothing from the gate.
The launcher keeps all producers' pipes, so the next auditor goes on reading where the last one stopped.

Not here: its life (supervisor), what it does (audit.process).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import AuditError, GateError
from cofferdam.gate import state
from cofferdam.gate.context import Context
from cofferdam.gate.crew.launcher import Born
from cofferdam.gate.crew.supervisor import Child, Supervisor
from cofferdam.policy import rows

CLOSE_SECONDS = 10.0
ANCHOR_SECONDS = 10.0
"""How often it is written down how far the log has come."""
DAY = 86_400

_INCOMING: RecordCodec[FromAuditorControl] = RecordCodec(FromAuditorControl)
_OUTGOING: RecordCodec[ToAuditorControl] = RecordCodec(ToAuditorControl)


class AuditorPart(Child[ToAuditorControl, FromAuditorControl]):
    """The process. What it says of the log is its supervisor's to know."""

    def __init__(self, supervisor: Auditor, gate: Context, born: Born) -> None:
        self._supervisor = supervisor
        self.opened: OpenedLog | None = None
        super().__init__(gate.reactor, "auditor", born, _INCOMING, _OUTGOING, supervisor.violation)

    @property
    def is_ready(self) -> bool:
        return self.opened is not None

    def take(self, record: FromAuditorControl) -> None:
        match record:
            case OpenedLog():
                self.opened = record
            case RefusedLog():
                self.failing, self.hint = record.message, record.hint
            case Recent() | SignedHead():
                self._supervisor.answered(record)
            case _:
                self._supervisor.told(record)


class Auditor(Supervisor[AuditorPart]):
    """Supervises one auditor after the other."""

    kind = "auditor"
    ready_seconds = 120.0
    """Opening a log reads its journal, and after a crash may read more of it."""
    silence_seconds = 30.0
    """It reports once a second; a disk may hold it up, but not for so long."""
    keeps_trying = False

    def __init__(self, gate: Context, state_folder: Path) -> None:
        """Raises: GateError: what is written down of the log cannot be understood."""
        super().__init__(gate, "auditor")
        self._site: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reported = asyncio.Event()
        self.status: LogStatus | None = None
        self.key = ""
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._keep = Keep(0, 0, False)
        self._state = state_folder
        self._anchor, self._anchor_saved = state.load_anchor(state_folder), 0.0
        state.keep_spare(state_folder)

    def orders(self) -> Sequence[PartOrder]:
        return [PartOrder("auditor")]

    def adopt(self, born: Born) -> AuditorPart:
        self.status = None
        return AuditorPart(self, self._gate, born)

    @property
    def pid(self) -> int:
        return self.parts[0].born.pid if self.parts else 0

    @property
    def started_ns(self) -> int:
        return self.parts[0].started_ns if self.parts else 0

    def open(self, site: str) -> None:
        """The site is known: the auditor, which may be starting, opens its log."""
        self._site.set_result(site)

    def keep(self, audit: rows.Audit) -> None:
        """The policy in force says what is kept of the log."""
        self._keep = Keep(audit.keep_seconds * 1_000_000_000, audit.most_bytes, audit.move)
        for part in self.parts:
            part.send(self._keep)

    async def configure(self) -> None:
        (part,) = self.parts
        either: set[asyncio.Future[Any]] = {self._site, part.born.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._site.done():
            part.send(self._keep)
            part.send(Open(self._site.result(), *self._anchor))

    def on_ready(self) -> None:
        opened = self.parts[0].opened
        if opened is not None:
            self.key = opened.key
            self._gate.log.info("audit-log-open", size=opened.size, pid=opened.pid)
        self._gate.alarm("auditor-down", "")

    def on_end(self, part: AuditorPart, reason: str, expected: bool) -> None:
        if not expected:
            self._gate.alarm("auditor-down", part.failing or f"the auditor process ended: {reason or 'no reason'}")

    def failure(self, reason: str, hint: str) -> AuditError:
        return AuditError(reason.removeprefix("auditor: "), hint=hint or "its messages stand above")

    def told(self, record: LogStatus | Violation) -> None:
        """How the log does, or what a producer did."""
        if isinstance(record, Violation):
            self._gate.violation(record.producer, record.detail)
            return
        self.status = record
        self._reported.set()
        over = ", ".join(record.over)
        self._gate.alarm(
            "log-share",
            f"more than a day's share of the log was written by {over}; the rest is counted" if over else "",
        )
        used = 100 - 100 * record.free // record.total if record.total else 0
        for bound in (80, 90):
            there = f"the disk of the audit log is {used} % full" if used >= bound else ""
            self._gate.alarm(f"log-disk-{bound}", there)
        lives = f"the log lives on its reserve: {record.stuck}" if record.stuck else ""
        self._gate.alarm("log-reserve", "; ".join(filter(None, (lives, record.reason if record.writable else ""))))
        self._gate.alarm("log-upkeep", f"the log is not kept in order: {record.trouble}" if record.trouble else "")
        self._gate.alarm("log-keeps-less", self._keeps_less(record))
        self._drop_anchor(record)
        self._gate.alarm("log-unwritable", "" if record.writable else record.reason or "the log is not writable")

    def _keeps_less(self, record: LogStatus) -> str:
        """Whether the room that the policy gives the log will do for the time that it names."""
        keep, most = self._keep.keep_ns, self._keep.most
        if not keep or not most or record.per_day <= 0:
            return ""
        days, wanted = most // record.per_day, keep // (DAY * 1_000_000_000)
        return f"at this rate `at_most` holds about {days} days, and `keep` is {wanted}" if days < wanted else ""

    def _drop_anchor(self, record: LogStatus) -> None:
        """Writes down how far the log has come, so that a log that was put back is not taken at the next start."""
        if record.signed <= self._anchor[0] or len(record.root) != 32:
            return
        self._anchor = (record.signed, record.root)
        if time.monotonic() - self._anchor_saved >= ANCHOR_SECONDS:
            self._anchor_saved = time.monotonic()
            try:
                state.save_anchor(self._state, *self._anchor)
            except GateError as error:
                self._gate.alarm("anchor-not-durable", str(error))
            else:
                self._gate.alarm("anchor-not-durable", "")

    def violation(self, part: AuditorPart, detail: str) -> None:
        """It told the gate what is no record."""
        self._gate.log.error("auditor-violation", detail=detail)
        self.kill_part(part)

    def answered(self, record: Recent | SignedHead) -> None:
        """What somebody asked for."""
        question = self._questions.pop(record.number, None)
        if question is not None and not question.done():
            question.set_result(record)

    async def recent(self, assets: Sequence[str], seconds: float) -> Recent | None:
        """The writes of the last minute to assets of these names; None where no answer came."""
        found = await self._asked(lambda number: AskRecent(number, tuple(assets)), seconds)
        return found if isinstance(found, Recent) else None

    async def head(self, old: int, seconds: float) -> SignedHead | None:
        """The log's signed head, and how it goes on from the tree of `old` entries; None where no answer came."""
        found = await self._asked(lambda number: AskHead(number, old), seconds)
        return found if isinstance(found, SignedHead) else None

    async def _asked(self, ask: Callable[[int], ToAuditorControl], seconds: float) -> object:
        part = next((part for part in self.parts if part.opened is not None), None)
        if part is None:
            return None
        self._number += 1
        number = self._number
        question: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._questions[number] = question
        part.send(ask(number))
        try:
            return await asyncio.wait_for(question, seconds)
        except TimeoutError:
            return None
        finally:
            self._questions.pop(number, None)

    async def report(self, seconds: float) -> None:
        """Has the auditor report now, and waits for it."""
        if not self.working:
            return
        self._reported.clear()
        for part in self.parts:
            part.send(ReportLog())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reported.wait(), seconds)

    def ask_to_stop(self, part: AuditorPart, seconds: float) -> None:
        if part.is_ready:
            part.send(Close())
        else:  # there is nothing to close: the start has failed, for a reason that is not its own
            self.kill_part(part)

    async def close(self) -> None:
        """Has it record what is in the pipes and sign a checkpoint; it ends."""
        await self.stop(CLOSE_SECONDS)
        if self._anchor[0]:
            with contextlib.suppress(GateError):
                state.save_anchor(self._state, *self._anchor)
