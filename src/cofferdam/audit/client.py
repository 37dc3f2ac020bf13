"""A broker's way to the audit log: drafts go to the auditor process in batches, and it says when they are on disk.

`note` is for what happened; `record` is for what may only happen once it is recorded. Fails closed: no answer in
time, a broken pipe, an auditor that was restarted, each counts as "not recorded". A draft that would not pass the
auditor's strict decoding costs that draft (drafts), never the part that made it.

What has left for the auditor's pipe outlasts this process, however it ends. So what is answered `when_sent` is known to
the log, or will be; and what is only counted goes there as well, each time it has grown (`counted`). What an auditor
that died had not confirmed of refused writes is said again to the next one: rather twice than not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from cofferdam.audit.drafts import fitting, told
from cofferdam.audit.entry import MAX_BATCH_DRAFTS, Draft
from cofferdam.audit.events.access import Refused, RefusedMany
from cofferdam.audit.events.log import NotRecorded
from cofferdam.audit.records import (
    COUNT_BYTES_A_SECOND,
    COUNT_LEAST,
    Ack,
    Batch,
    Counting,
    FromAuditor,
    Hello,
    ToAuditor,
)
from cofferdam.crossing.channel import Sender
from cofferdam.crossing.reactor import Reactor, Timer

Done = Callable[[bool, str], None]
"""Called once: (recorded, why not)."""

BATCH_BYTES = 256 << 10
"""Drafts of one batch, encoded: well below what the auditor's channel carries, whatever the drafts hold."""
AGAIN_SECONDS = 0.002
"""How often it is looked whether a pipe that was full has taken what waited."""
COUNTS_NS = 2_000_000
"""From one time that counts are said to the next: whoever has one more counted and waits for each answer, in a flood of
single requests, waits for so long, and costs little. Where many sources and assets have one, it is longer by as much
as they take (COUNT_BYTES_A_SECOND)."""
MOST_REFUSED = 4096
"""Batches with refused writes that are kept until they are acknowledged."""
MOST_CALLS = 16_384
"""That may wait for their entries to have left; more are made at once."""


class AuditClient:
    """One producer's end. `writable` is what the auditor last said of the log."""

    def __init__(self, reactor: Reactor, sender: Sender[ToAuditor], *, wait_seconds: float) -> None:
        self._reactor = reactor
        self._sender = sender
        self._wait_ns = int(wait_seconds * 1e9)
        self._drafts: list[tuple[Draft, Done | None]] = []
        self._scheduled = False
        self._number = 0
        self._pending: dict[int, tuple[int, list[Done]]] = {}  # number -> (deadline, who waits), oldest first
        self._timer: Timer | None = None
        self.policy = ""
        self.writable = False
        self.on_writable: Callable[[], None] | None = None
        """Called when the auditor says that the log can be written."""
        self.reason = "the auditor has not answered yet"
        self.on_answered: Callable[[], None] | None = None
        """Called once, when the auditor has first said how the log stands."""
        self._untold = 0
        self._books: list[Callable[[bool], list[tuple[int, RefusedMany]]]] = []
        self._count = 0
        self._counted = self._all = False
        self._refused: dict[int, list[Draft]] = {}  # refused writes by batch, until that is acknowledged
        self._next_counts = self._said = 0
        self._calls: list[tuple[int, Callable[[], None]]] = []  # (deadline, call)
        self._again: Timer | None = None
        self.dropped = 0
        """Drafts that `note` could not hand over because the auditor's pipe was full or gone."""

    def note(self, draft: Draft, *, always: bool = False) -> None:
        """Hands over a draft that nothing waits for. With `always` also when the auditor does not keep up: for what is
        few by itself, such as the outcome of a write. Whatever is dropped is counted, and told when there is room."""
        if self._sender.closed or (self._sender.full and not always):
            self.dropped += 1
            self._untold += 1
            return
        if self._untold and not self._sender.full:
            untold, self._untold = self._untold, 0
            lost = NotRecorded(wall_ns=draft.wall_ns, count=untold, reason="the auditor did not keep up")
            self._drafts.append((lost, None))
        self._drafts.append((draft, None))
        self._schedule()

    def record(self, draft: Draft, done: Done) -> None:
        """Hands over a draft and calls `done` when it is on disk, or when that failed or took too long."""
        if self._sender.closed or self._sender.full or not self.writable:
            reason = self.reason if not self.writable else "the auditor does not keep up"
            self._reactor.later(lambda: done(False, reason))
            return
        self._drafts.append((draft, done))
        self._schedule()

    @property
    def has_room(self) -> bool:
        """Whether what is noted now leaves this process at the end of the turn."""
        return not self._sender.backlog and not self._sender.closed

    def add_book(self, so_far: Callable[[bool], list[tuple[int, RefusedMany]]]) -> None:
        """`so_far(all)` says what is counted, each with a number of its own: what has grown since it was last asked, or
        all of it. It is asked at the end of a turn in which `counted` was called."""
        self._books.append(so_far)

    def new_count(self) -> int:
        """The number of a count that begins."""
        self._count += 1
        return self._count

    def counted(self) -> None:
        """A count has grown: the auditor is told at the end of the turn, and has it should this process be no more."""
        self._counted = True
        self._schedule()

    def close_count(self, number: int, draft: RefusedMany) -> None:
        """A count is over, and becomes an entry."""
        self._flush_drafts()  # in order
        self._say_count(number, draft, over=True)

    def _say_count(self, number: int, draft: RefusedMany, *, over: bool) -> None:
        if self._sender.closed:
            self.dropped += over
            return
        fit, data, why = fitting(draft)
        if isinstance(fit, RefusedMany):
            self._said += max(len(data), COUNT_LEAST)
            batch = self._keep([fit]) if over else 0
            self._sender.send(Counting(number, self.policy, fit, over, batch))
        if why and over:
            self.note(told(draft, why, kept=fit is not None), always=True)

    def when_sent(self, call: Callable[[], None]) -> None:
        """Makes a call once all that was noted and counted until now has left for the auditor: at the end of this turn,
        as a rule; where the auditor's pipe is full, when it has room, or after the time that an entry may take."""
        if len(self._calls) >= MOST_CALLS:
            call()
            return
        self._calls.append((self._reactor.now + self._wait_ns, call))
        self._schedule()

    def _let_go(self) -> None:
        """Says what was counted, and makes the calls that waited for what has left."""
        self._again = None
        sender = self._sender
        sender.flush()
        now = self._reactor.now
        soon = self._counted and now < self._next_counts and not sender.closed
        if self._counted and not sender.backlog and not soon:
            every, self._all, self._counted = self._all, False, False
            for book in self._books:
                for number, draft in book(every):
                    self._say_count(number, draft, over=False)
            said, self._said = self._said, 0
            self._next_counts = now + max(COUNTS_NS, said * 1_000_000_000 // COUNT_BYTES_A_SECOND)
            sender.flush()
        waits = soon or (bool(sender.backlog) and not sender.closed)
        calls, self._calls = self._calls, []
        for due, call in calls:
            if waits and due > now:
                self._calls.append((due, call))
            else:
                call()
        if waits and (self._calls or self._counted) and self._again is None:
            self._again = self._reactor.call_in(AGAIN_SECONDS, self._let_go)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._reactor.later(self._flush)

    def flush(self) -> None:
        """Hands over now what would leave at the end of the turn."""
        self._flush()
        self._sender.flush()

    def _flush(self) -> None:
        self._scheduled = False
        self._flush_drafts()
        if self._counted or self._calls:
            self._let_go()

    def _flush_drafts(self) -> None:
        if not self._drafts:
            return
        drafts, self._drafts = self._drafts, []
        deadline = self._reactor.now + self._wait_ns
        part: list[tuple[Draft, Done | None]] = []
        size = 0
        misfits: dict[tuple[type[Draft], str, bool], list[Draft]] = {}
        for draft, done in drafts:
            fit, data, why = fitting(draft)
            if why:  # told in an entry that does fit; what waits for it hears that it is not there
                misfits.setdefault((type(draft), why, fit is not None), []).append(draft)
            if fit is None:
                if done is not None:
                    self._reactor.later(functools.partial(done, False, f"its entry does not fit the audit log: {why}"))
                continue
            entry, length = (fit, done), len(data)
            if part and (size + length > BATCH_BYTES or len(part) >= MAX_BATCH_DRAFTS):
                self._send(part, deadline)
                part, size = [], 0
            part.append(entry)
            size += length
        if part:
            self._send(part, deadline)
        if misfits:
            told_of = [told(some[0], why, kept=kept, times=len(some)) for (_, why, kept), some in misfits.items()]
            self._send([(one, None) for one in told_of[:MAX_BATCH_DRAFTS]], deadline)
        self._arm()

    def _send(self, part: list[tuple[Draft, Done | None]], deadline: int) -> None:
        waiters = [done for _, done in part if done is not None]
        drafts = tuple(draft for draft, _ in part)
        refused: list[Draft] = [draft for draft in drafts if isinstance(draft, Refused) and draft.is_write]
        self._keep(refused)
        wants_ack = bool(waiters or refused)
        self._sender.send(Batch(number=self._number, policy=self.policy, drafts=drafts, wants_ack=wants_ack))
        if waiters:
            self._pending[self._number] = (deadline, waiters)

    def _keep(self, refused: list[Draft]) -> int:
        """The number of a batch that leaves now. What is refused in it is kept until the auditor has it on disk."""
        self._number += 1
        if refused:
            self._refused[self._number] = refused
            if len(self._refused) > MOST_REFUSED:
                del self._refused[next(iter(self._refused))]
        return self._number

    def _arm(self) -> None:
        if self._timer is None and self._pending:
            deadline = next(iter(self._pending.values()))[0]
            self._timer = self._reactor.call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._reactor.now
        late = [number for number, (deadline, _) in self._pending.items() if deadline <= now]
        for number in late:
            _, waiters = self._pending.pop(number)
            for done in waiters:
                done(False, "the audit log did not confirm the entry in time")
        self._arm()

    def on_record(self, record: FromAuditor) -> None:
        """What the auditor says."""
        if isinstance(record, Ack):
            _, waiters = self._pending.pop(record.number, (0, []))
            if self._refused:
                self._refused.pop(record.number, None)
            for done in waiters:
                done(record.ok, record.reason)
            return
        self.writable, self.reason = record.writable, record.reason
        if isinstance(record, Hello):
            for number, refused in self._refused.items():
                self._sender.send(Batch(number, self.policy, tuple(refused)))
            self._all = True
            self.counted()
            self._fail_all("the auditor was restarted before it confirmed the entry")
            answered, self.on_answered = self.on_answered, None
            if answered is not None:
                answered()
        if self.writable and self.on_writable is not None:
            self.on_writable()

    def lost(self) -> None:
        """The auditor's pipe is gone."""
        self.writable, self.reason = False, "the auditor is gone"
        self._fail_all(self.reason)

    def _fail_all(self, reason: str) -> None:
        pending, self._pending = self._pending, {}
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for _, waiters in pending.values():
            for done in waiters:
                done(False, reason)
