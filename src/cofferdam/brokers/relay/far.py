"""The keeper outside: takes what the keeper inside sends over a strand, under the numbers that it has there, and serves
its own consumers. Nothing goes back.

Nothing is believed. A record that no honest keeper would send (a body that is not canonical; one that fails checks by
which it passed inside; a channel or a principal that the policy inside cannot have; a number far beyond all) ends the
crew, and the strand's channel stands. What may be an honest one's is refused, counted and an alarm: a message that
passed by other checks than those here (one machine has another policy than the other), a number that came before with
other content (a backup was put back inside), another keeper's numbers.

A number that is skipped is missing, and named: to operators, in the log, and to consumers with each answer. If it comes
after all (a ticket, a backfill, a replay inside), it is handed to everybody who was past it. What comes late is handed
out, and its number no longer missing, once it is in the log; until then it counts as missing.

What cannot be taken just now (no room, no log) waits; nothing is dropped. A file of the strand goes only when all of it
is in the store and in the log, so a crash brings it again.

Not here: what any part asks of a keeper (keeper_part), what is missing (gaps).
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from typing import Any, Final

from cofferdam.audit.events import relay as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.gaps import Gap
from cofferdam.brokers.relay.keeper import SECOND, Channel
from cofferdam.brokers.relay.keeper_part import Keeper
from cofferdam.brokers.relay.keeper_turns import BYTES_A_UNIT
from cofferdam.brokers.relay.records import Carried, Highest, ToFar
from cofferdam.errors import CrossingError, StoreError
from cofferdam.policy.messages.checked import Checked, Problem
from cofferdam.policy.terms.relay_rows import STRAND, print_of

GAPS_MOST: Final = 10_000
"""Ranges of one channel that are missing or were given up; beyond it nothing is taken above them."""
JUMP_MOST: Final = 1_000_000_000
"""Numbers that may be missing between one and the next."""
EFFORT_A_TURN: Final = 2_000
"""About what one message costs, so that consumers have their turn."""
SPLIT_EFFORT: Final = 100
ALARM_NS: Final = 3_600 * SECOND
"""So long a refusal is an alarm."""


class FarKeeper(Keeper):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._waiting: deque[ToFar] = deque()
        self._under_way: list[Carried] = []
        """What the present commit brings."""
        self._group = -1
        self._unlogged = 0
        self._turning = False
        self._held_up = ""
        """Why nothing is taken just now."""
        self._refused: dict[str, tuple[int, str]] = {}
        self._take_rows()

    def _take_rows(self) -> None:
        ((self._conduit, self._row),) = self._work.rows.items()
        self._prints = {channel.name: print_of(self._row, channel.name) for channel in self._row.channels}

    def take_policy(self, policy: Any, assets: tuple[str, ...]) -> int:
        ended = super().take_policy(policy, assets)
        self._take_rows()
        return ended

    @property
    def riding(self) -> int:
        return len(self._waiting) + self._unlogged

    @property
    def busy(self) -> int:
        return super().busy + self.riding

    def on_record(self, source: str, record: Any) -> None:
        if source != "keeper":
            super().on_record(source, record)
            return
        self._waiting.append(record)
        self._soon()

    def _tick(self) -> None:
        super()._tick()
        if self._waiting:
            self._soon()
        now = self._work.now
        self._refused = {name: found for name, found in self._refused.items() if now - found[0] < ALARM_NS}

    def _soon(self) -> None:
        if not self._turning:
            self._turning = True
            self._setting.reactor.call_in(0, self._turn)

    def halt(self) -> None:
        self._waiting.clear()
        super().halt()

    # --- taking -------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._turning = False
        effort = EFFORT_A_TURN
        while self._waiting and effort > 0:
            record = self._waiting[0]
            try:
                self._held_up = self._why_not(record)
                if self._held_up:
                    return  # the next tick looks again
                cost = self._take(record)
            except StoreError as error:
                self._work.guard(error)
                return
            except CrossingError as error:
                error.by = "keeper"
                raise
            if cost < 0:  # what one commit brings is without a hole, as the log is told of it: this begins another
                self._work.split()
                effort -= SPLIT_EFFORT
                continue
            effort -= cost
            self._waiting.popleft()
        if self._waiting:
            self._soon()

    def _why_not(self, record: ToFar) -> str:
        if (no := self._pushes.not_now()) is not None:
            return no[0].detail
        channel = self._work.machine.channels.get(record.channel)
        if channel is None or not channel.served:
            return ""
        skips = record.number + isinstance(record, Highest) > channel.next
        if skips and len(channel.gaps) >= GAPS_MOST:
            return f"{GAPS_MOST} ranges of {channel.name} are missing: bring them or give them up"
        if isinstance(record, Carried) and len(record.body) <= channel.row.most:
            size = len(record.body)
            if channel.messages >= channel.row.room_messages or channel.size + size > channel.row.room:
                return f"the channel {channel.name} is full: {channel.messages} messages, {channel.size} bytes"
        return ""

    def _take(self, record: ToFar) -> int:
        """Takes it, passes it over, or refuses it. Returns what that has cost; -1: not in the same commit as what came
        before it. Raises: CrossingError, StoreError."""
        work = self._work
        channel = work.machine.channels.get(record.channel)
        if channel is None or not channel.served:
            self._no(record, "policy", f"the policy here has no channel {record.channel}")
            return 1
        if record.number >= channel.next + JUMP_MOST:
            raise CrossingError(f"{channel.name} {record.number} after {channel.next - 1}: no keeper has so many")
        origin = record.store.hex()
        known = work.store.origin()
        if known != origin:
            if known:
                detail = f"another keeper ({origin[:16]}…) numbers inside than the one whose messages are here"
                self._no(record, "store", detail)
                return 1
            work.store.begin()
            work.store.origin(origin)
            work.change(durable=False)
        if isinstance(record, Highest):
            self._missing(channel, work.machine.highest(channel, record.number, work.wall))
            return 1
        return self._message(channel, record)

    def _message(self, channel: Channel, record: Carried) -> int:
        work, number = self._work, record.number
        cost = 1 + len(record.body) // BYTES_A_UNIT
        agreed = record.print_ == self._prints[channel.name]
        right = work.relay.right(record.who, "push", channel.name)
        if right is None or right.via != STRAND:
            if agreed:
                raise CrossingError(f"{record.who} has pushed to {channel.name}, which nobody's rows allow")
            self._no(record, "policy", f"{record.who} may not push to {channel.name} by the policy here")
            return cost
        if not records.printable(record.key):
            raise CrossingError(f"a key for {channel.name} that is not of printable characters")
        checked = work.checks.again(channel.name, record.body)
        if not isinstance(checked, Checked) or checked.body != record.body:
            why = "it would be another one" if isinstance(checked, Checked) else checked.detail
            if agreed:
                raise CrossingError(
                    f"message {number} of {channel.name} fails the checks by which it has passed: {why}"
                )
            readable = work.checks.readable(channel.name, record.body)
            if readable != record.body and not (isinstance(readable, Problem) and readable.fault == "size"):
                raise CrossingError(f"a body for {channel.name} that is not canonical")
            self._no(record, "policy", f"message {number} of {channel.name} does not pass by the policy here: {why}")
            return cost
        sha256 = hashlib.sha256(record.body).digest()
        there = work.store.message(channel.name, number) if number < channel.next else None
        if number <= channel.gone:
            return cost  # its time is over
        if there is not None and there.sha256 != sha256:
            self._no(record, "conflict", f"message {number} of {channel.name} came before, with other content")
            return cost
        late = number in channel.gaps
        if number < channel.next and not late:
            work.figures.add("repeated", 1, channel.name)
            return cost
        before = work.told.last(channel.name)
        if there is None:
            if before and before != number - 1:
                return -1
            self._missing(channel, work.machine.carry(channel, number, len(record.body), work.wall))
            work.store.add(channel.name, number, record.who, record.key, record.body, sha256, sha256, work.wall)
            work.store.write()
            work.told.push(channel.name, number, record.who, record.key, sha256, len(record.body))
            work.figures.add("pushed", 1, channel.name)
        self._logged(record)
        return cost

    def _logged(self, record: Carried) -> None:
        """It counts as taken once its commit is in the log."""
        some = self._under_way
        if not some or self._group != self._work.store.group:
            some = self._under_way = []
            self._group = self._work.store.group
            self._work.after_log(functools.partial(self._arrived, some), functools.partial(self._put_back, some))
        some.append(record)
        self._unlogged += 1

    def _arrived(self, some: list[Carried]) -> None:
        work = self._work
        late = False
        for record in some:
            channel = work.machine.channels[record.channel]
            if record.number in channel.gaps:
                late = True
                work.machine.arrived(channel, record.number, work.now)
                work.figures.add("late", 1, record.channel)
        done = functools.partial(self._done, len(some))
        if late:  # the strand's file stays until that is on disk as well
            work.after_commit(done, lambda _problem, _retry: self._put_back(some))
            work.change(durable=True)
        else:
            done()

    def _done(self, count: int) -> None:
        self._unlogged -= count

    def _put_back(self, some: list[Carried], _problem: object = None, _retry: int = 0) -> None:
        """The commit was taken back, or the log is not certain to have it: what is there by then is passed over."""
        self._unlogged -= len(some)
        self._waiting.extendleft(reversed(some))

    def _missing(self, channel: Channel, gap: Gap | None) -> None:
        if gap is not None:
            self._work.told.add(
                events.NumbersMissing, channel=channel.name, first=gap.first, last=gap.last, what="missing"
            )
        self._work.change(durable=False)

    def _no(self, record: ToFar, fault: str, detail: str) -> None:
        """It is refused, and nobody inside hears of it."""
        self._refused[fault] = (self._work.now, clip(detail))
        # Whom and which channel it names counts for nothing before the policy knows it.
        known = record.channel in self._work.machine.channels
        who = record.who if isinstance(record, Carried) and record.who in self._row.stands else self._row.rider
        named = records.Push(1, who, record.channel if known else self._conduit, (records.Item("-", b""),))
        self._telling.count(named, Problem(fault, detail[:512]))

    def alarms(self) -> dict[str, str]:
        found = {f"strand-{fault}": f"refused outside: {detail}" for fault, (_, detail) in self._refused.items()}
        if self._held_up:
            found["strand-waits"] = clip(f"what the strand has brought is not taken: {self._held_up}")
        return {**found, **super().alarms()}
