"""Keeps the auditor process alive: starts it, opens the log, starts it again when it dies, closes it last.

While there is no auditor, nothing is confirmed, and so no write reaches the plant; that needs nothing from the gate.
The launcher keeps all producers' pipes, so the next auditor goes on reading where the last one stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from cofferdam.audit.supervision import (
    Close,
    FromAuditorControl,
    LogStatus,
    Open,
    OpenedLog,
    RefusedLog,
    ReportLog,
    ToAuditorControl,
    Violation,
)
from cofferdam.crossing.link import Link
from cofferdam.crossing.records import RecordCodec
from cofferdam.enforce.orders import PartOrder
from cofferdam.errors import AuditError, CrossingError, GateError
from cofferdam.gate.context import Context
from cofferdam.gate.crew.launcher import Born

OPEN_SECONDS = 120.0
"""Opening a log reads its journal, and after a crash may read more of it."""
CLOSE_SECONDS = 10.0
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5.0
"""Between attempts to start an auditor that refuses: the first pause and, doubling each time, the longest."""
SILENCE_SECONDS = 30.0
"""It reports once a second; a disk may hold it up, but not for so long."""

_INCOMING: RecordCodec[FromAuditorControl] = RecordCodec(FromAuditorControl)
_OUTGOING: RecordCodec[ToAuditorControl] = RecordCodec(ToAuditorControl)


class Auditor:
    """Supervises one auditor after the other."""

    def __init__(self, gate: Context) -> None:
        self._gate = gate
        self._launcher = gate.launcher
        self._log = gate.log
        self._site: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._born: Born | None = None
        self._link: Link[ToAuditorControl, FromAuditorControl] | None = None
        self._refused: RefusedLog | None = None
        self._closing = False
        self._opened = asyncio.Event()
        self._reported = asyncio.Event()
        self._heard = 0.0
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the log is open; an AuditError if it does not open at the gate's start."""
        self.status: LogStatus | None = None
        self.key = ""
        self.restarts = 0
        self.started_ns = 0

    @property
    def pid(self) -> int:
        return self._born.pid if self._born is not None else 0

    def open(self, site: str) -> None:
        """The site is known: the auditor, which may be starting, opens its log."""
        self._site.set_result(site)

    async def run(self) -> None:
        """Until `close`, or until the first start failed."""
        pause = 0.0
        while not self._closing:
            opened = await self._life()
            if self._closing or not self.first.done() or self.first.exception() is not None:
                return
            self.restarts += 1
            pause = 0.0 if opened else min(max(PAUSE_SECONDS, 2 * pause), LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(pause)

    async def _life(self) -> bool:
        try:
            (born,) = await self._launcher.spawn("auditor", "auditor", [PartOrder("auditor")])
        except GateError as error:
            self._log.error("auditor-not-started", reason=str(error))
            self._fail_first(AuditError(str(error), hint=error.hint))
            return False
        self._born, self._refused, self.status = born, None, None
        self.started_ns, self._heard = time.time_ns(), time.monotonic()
        self._opened.clear()
        self._link = Link(
            self._gate.reactor, born.read_fd, born.write_fd, _INCOMING, _OUTGOING, self._on_record, self._on_closed
        )
        either: set[asyncio.Future[Any]] = {self._site, born.ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._site.done():
            self._link.send(Open(self._site.result()))
        while True:
            done, _ = await asyncio.wait([born.ended], timeout=1.0)
            if done:
                break
            allowed = SILENCE_SECONDS if self._opened.is_set() else OPEN_SECONDS
            if time.monotonic() - self._heard > allowed:
                self._log.error("auditor-hangs", pid=born.pid)
                self._launcher.kill(born)
        self._link.drain()
        self._link.close()
        self._born = None
        opened = self._opened.is_set()
        self._opened.clear()
        status = born.ended.result()
        if self._closing:
            self._log.info("auditor-ended", pid=born.pid, status=status)
            return opened
        refused = self._refused or RefusedLog(
            f"the auditor ended ({status}) without a word", "its messages stand above"
        )
        self._log.error("auditor-ended", pid=born.pid, status=status, reason="" if opened else refused.message)
        self._gate.alarm("auditor-down", "the auditor process ended" if opened else refused.message)
        self._fail_first(AuditError(refused.message, hint=refused.hint))
        return opened

    def _fail_first(self, error: AuditError) -> None:
        if not self.first.done():
            self.first.set_exception(error)
            self.first.exception()  # looked at: nobody may be waiting any more

    def _on_record(self, record: FromAuditorControl) -> None:
        self._heard = time.monotonic()
        match record:
            case OpenedLog():
                self.key = record.key
                self._opened.set()
                self._log.info("audit-log-open", size=record.size, pid=record.pid)
                self._gate.alarm("auditor-down", "")
                if not self.first.done():
                    self.first.set_result(None)
            case RefusedLog():
                self._refused = record
            case LogStatus():
                self.status = record
                self._reported.set()
                self._gate.alarm(
                    "log-unwritable", "" if record.writable else record.reason or "the log is not writable"
                )
            case Violation():
                self._gate.violation(record.producer, record.detail)

    def _on_closed(self, error: CrossingError | None) -> None:
        if error is not None and self._born is not None:
            self._log.error("auditor-violation", detail=str(error))
            self._launcher.kill(self._born)

    async def report(self, seconds: float) -> None:
        """Has the auditor report now, and waits for it."""
        if self._link is None or not self._opened.is_set():
            return
        self._reported.clear()
        self._link.send(ReportLog())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._reported.wait(), seconds)

    async def close(self) -> None:
        """Has it record what is in the pipes and sign a checkpoint; it ends."""
        self._closing = True
        born = self._born
        if born is None:
            return
        if self._link is not None and self._opened.is_set():
            self._link.send(Close())
            await asyncio.wait([born.ended], timeout=CLOSE_SECONDS)
            if not born.ended.done():
                self._log.error("auditor-does-not-close", pid=born.pid)
        # One whose log is not open yet has nothing to close: the start has failed, for a reason that is not its own.
        if not born.ended.done():
            self._launcher.kill(born)
            await asyncio.wait([born.ended])
