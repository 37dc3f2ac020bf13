"""The gate as a producer of audit entries, over the same kind of pipes and records as a half.

What the gate records has happened already (a half died) or must happen whatever the log says (a side is severed), so
an entry is kept and handed over again until the log has it: after a full disk, after an auditor's death. The other
way round than a half's write, which is refused instead.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque

from cofferdam.audit.drafts import fitting, told
from cofferdam.audit.entry import Draft
from cofferdam.audit.records import Ack, Batch, FromAuditor, Hello, ToAuditor
from cofferdam.crossing.link import Link
from cofferdam.crossing.reactor import Reactor
from cofferdam.crossing.records import RecordCodec
from cofferdam.errors import CrossingError

KEPT = 4096
"""Entries that wait while the log cannot take them; beyond it the oldest are lost, and counted."""
AFTER_HELLO_SECONDS = 1.0
"""An auditor that came back finds our last batches in the pipe; so long it has to confirm them."""


class GateAudit:
    """`note` an entry, or `record` it and wait until it is on disk.

    A client of its own over the same pipes as every part's: `audit.client` refuses what is not confirmed in time,
    because then its action must not happen; this one keeps it and hands it over again, because it has happened."""

    def __init__(self, reactor: Reactor, read_fd: int, write_fd: int) -> None:
        incoming: RecordCodec[FromAuditor] = RecordCodec(FromAuditor)
        outgoing: RecordCodec[ToAuditor] = RecordCodec(ToAuditor)
        self._link: Link[ToAuditor, FromAuditor] = Link(
            reactor, read_fd, write_fd, incoming, outgoing, self._on_record, self._on_closed
        )
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._sent: OrderedDict[int, tuple[Draft, str, list[asyncio.Future[None]]]] = OrderedDict()
        self._refused: deque[tuple[Draft, str, list[asyncio.Future[None]]]] = deque()
        self.policy = ""
        """Hash of the policy in force."""
        self.writable = False
        self.reason = "the auditor has not answered yet"
        self.lost = 0
        """Entries given up because too many waited."""

    def note(self, draft: Draft) -> None:
        """Hands an entry over and does not wait."""
        self._hand(draft, [])

    async def record(self, draft: Draft, wait_seconds: float) -> bool:
        """Hands an entry over; True once it is on disk, False if that took too long (it is still kept)."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._hand(draft, [done])
        await asyncio.wait([done], timeout=wait_seconds)
        return done.done()

    def _hand(self, draft: Draft, waiters: list[asyncio.Future[None]]) -> None:
        """An entry that the auditor would refuse is handed over cut, or is told of by another one."""
        fit, _, why = fitting(draft)
        if why:
            self._send(told(draft, why, kept=fit is not None), self.policy, [])
        if fit is not None:
            self._send(fit, self.policy, waiters)

    def _send(self, draft: Draft, policy: str, waiters: list[asyncio.Future[None]]) -> None:
        while len(self._sent) + len(self._refused) >= KEPT:
            if self._refused:
                self._refused.popleft()
            else:
                self._sent.popitem(last=False)
            self.lost += 1
        self._number += 1
        self._sent[self._number] = (draft, policy, waiters)
        self._link.send(Batch(number=self._number, policy=policy, drafts=(draft,)))

    def _on_record(self, record: FromAuditor) -> None:
        if isinstance(record, Ack):
            draft, policy, waiters = self._sent.pop(record.number, (None, "", []))
            if draft is None:
                return
            if record.ok:
                for done in waiters:
                    if not done.done():
                        done.set_result(None)
            else:
                self._refused.append((draft, policy, waiters))
            return
        self.writable, self.reason = record.writable, record.reason
        if isinstance(record, Hello) and self._sent:
            self._loop.call_later(AFTER_HELLO_SECONDS, self._send_again, max(self._sent))
        if record.writable:
            refused, self._refused = self._refused, deque()
            for entry in refused:
                self._send(*entry)

    def _send_again(self, last: int) -> None:
        for number in [number for number in self._sent if number <= last]:
            self._send(*self._sent.pop(number))

    def _on_closed(self, error: CrossingError | None) -> None:
        # The launcher keeps these pipes open: only nonsense from the auditor ends them.
        raise CrossingError(f"the auditor's answers to the gate are malformed: {error}")


def now_ns() -> int:
    """The wall clock, for drafts: UTC, ns since 1970."""
    return time.time_ns()
