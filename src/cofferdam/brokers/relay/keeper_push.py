"""How the keeper takes what is pushed: each message is known already, or is checked again, and is stored, quarantined
or refused, each with an answer of its own.

Who causes more entries than its part of the log's share (keeper_pace) waits with its pushes: they go on together, in
one commit, once there is room for one more entry.

Not here: who may push (keeper_part), what becomes of a message (keeper), when it is answered (keeper_work).
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from cofferdam.audit.events import relay as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper import Channel
from cofferdam.brokers.relay.keeper_pace import Pace
from cofferdam.brokers.relay.keeper_telling import Telling
from cofferdam.brokers.relay.keeper_turns import ITEM_EFFORT, Pushing, Side
from cofferdam.brokers.relay.keeper_work import UNLOGGED_MOST, Work
from cofferdam.brokers.relay.records import Answered, Result
from cofferdam.crossing.reactor import Reactor
from cofferdam.errors import CrossingError
from cofferdam.policy.messages.checked import Checked, Problem

WAITING_MOST: Final = 64
WAITING_BYTES: Final = 8 << 20
"""Pushes of one principal that wait for their part of the log, and what they may weigh together; a single one may be
more."""

TOGETHER_MOST: Final = 128
TOGETHER_BYTES: Final = 1 << 17
"""Messages of one push that are looked at in one go, before it is looked whether the side's turn is over."""

LOOK_SECONDS: Final = 0.01
"""How often it is looked whether they may go on, while some wait."""


class Pushes:
    """What is pushed. `may`: the channel of a request, or None where it was refused; `refuse`: refuses one; `later`:
    a side has more to do in the next turn."""

    def __init__(
        self,
        work: Work,
        reactor: Reactor,
        telling: Telling,
        pace: Pace,
        may: Callable[[Side, Any], Channel | None],
        refuse: Callable[..., None],
        later: Callable[[Side], None],
    ) -> None:
        self._work = work
        self._reactor = reactor
        self._telling = telling
        self._pace = pace
        self._may = may
        self._refuse = refuse
        self._later = later
        self._waiting: dict[str, deque[tuple[Side, Pushing]]] = {}
        self._turn = -1
        self._caused: set[tuple[str, str]] = set()
        """(principal, channel) that have an entry of this turn: more messages of theirs are in the same one."""
        self._timed = False

    @property
    def waiting(self) -> int:
        """Pushes that wait for their part of the log."""
        return sum(map(len, self._waiting.values()))

    def take(self, side: Side, pushing: Pushing) -> None:
        """As many of its messages as this turn has room for; the rest comes first in the next one. What an earlier turn
        has stored stays stored if the rest is refused: whoever pushes again gets the same answers for it."""
        work, record, results = self._work, pushing.record, pushing.results
        if pushing.over:
            return
        channel = self._may(side, record)
        if channel is None:
            pushing.over = True
            return
        why = self.not_now()
        no = None if results else work.machine.may_push(channel)
        if why is None and no is not None and no.problem is not None:
            why = (no.problem, no.retry)
        if why is not None:
            pushing.over = True
            self._refuse(side, record, *why)
            return
        turn = self._reactor.now
        if not self._has_part(side, pushing, turn):
            return
        wall, request = work.wall, record.request
        before = len(results)
        while len(results) < len(record.items) and (len(results) == before or side.has_turn(turn)):
            results += self._some(side, record, channel, _together(record.items, len(results)), wall, turn)
        work.store.write()

        def yes() -> None:
            if not pushing.over:
                pushing.over = True
                side.sender.send(Answered(request, tuple(results)))

        def no_answer(problem: Problem, retry: int) -> None:
            if not pushing.over:
                pushing.over = True
                side.refuse(request, problem, retry)

        if len(results) < len(record.items):
            side.queue.appendleft(pushing)
            self._later(side)
            # Commits reach the log in order: the last one answers for all. Of the others only a failure is told.
            work.after_log(_nothing, no_answer)
        elif all(result.state in ("refused", "conflict") for result in results):
            yes()
        else:
            work.after_log(yes, no_answer)

    def _has_part(self, side: Side, pushing: Pushing, turn: int) -> bool:
        """Whether the entry of this push may be caused now. If not, it waits, or is refused where too much does."""
        record = pushing.record
        who, at = record.who, (record.who, record.channel)
        if turn != self._turn:
            self._turn = turn
            self._caused.clear()
        must = pushing.waited or bool(pushing.results)
        waiting = self._waiting.get(who)
        if must or waiting is None:
            key = record.items[0].key if len(record.items) == 1 else ""
            if at in self._caused or self._pace.may(who, self._work.now, key, must=must):
                self._caused.add(at)
                return True
            waiting = self._waiting[who] = deque()
        size = sum(one.size for _, one in waiting)
        if len(waiting) >= WAITING_MOST or (waiting and size + pushing.size > WAITING_BYTES):
            pushing.over = True
            self._refuse(side, record, Problem("busy", "too many pushes wait for your part of the audit log"), 1)
        else:
            waiting.append((side, pushing))
            self._look_later()
        return False

    def _look_later(self) -> None:
        if not self._timed and self._waiting:
            self._timed = True
            self._reactor.call_in(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """All that waits of one who has a part again is next at its side, in the order in which it came."""
        self._timed = False
        for who in list(self._waiting):
            if self._pace.ready(who, self._work.now):
                for side, pushing in reversed(self._waiting.pop(who)):
                    pushing.waited = True
                    side.queue.appendleft(pushing)
                    self._later(side)
        self._look_later()

    def drop(self, problem: Problem, retry: int, of: Side | None = None) -> None:
        """Refuses what waits, of one side or of all: the gate stops, or it was asked by rows that hold no more."""
        for who, waiting in list(self._waiting.items()):
            for side, pushing in waiting:
                if of in (None, side):
                    pushing.over = True
                    side.refuse(pushing.record.request, problem, retry)
            left = deque(each for each in waiting if not each[1].over)
            if left:
                self._waiting[who] = left
            else:
                del self._waiting[who]

    def forget(self) -> None:
        """Nothing is served any more."""
        self._waiting.clear()

    def not_now(self) -> tuple[Problem, int] | None:
        """Why nothing new can be taken."""
        work = self._work
        if work.full:
            return Problem("store", clip(f"the relay's store is full: {work.full}")), 60
        if down := work.log_down:
            return Problem("log", clip(f"nothing can be recorded: {down}")), 5
        if work.unlogged > UNLOGGED_MOST:
            return Problem("busy", "more messages than the audit log keeps up with"), 1
        return None

    def _some(
        self, side: Side, record: records.Push, channel: Channel, items: tuple[records.Item, ...], wall: int, turn: int
    ) -> list[Result]:
        """Several of a push's messages: all at once where each is new, passes and has room, else one by one, until the
        turn is over."""
        bodies = [item.body for item in items]
        checked = None
        if (
            len(items) > 1
            and self._work.machine.takes(channel, len(items), sum(map(len, bodies)))
            and not any([item.doubtful for item in items])
        ):
            checked = self._work.checks.all_again(channel.name, bodies)
        if checked is not None and all([type(one) is Checked for one in checked]):
            stored = self._all_new(side, record, channel, [item.key for item in items], bodies, wall)
            if stored is not None:
                return stored
        results: list[Result] = []
        for item, found in zip(items, checked or itertools.repeat(None), strict=False):
            if results and not side.has_turn(turn):
                break
            results.append(self._item(side, record, channel, item, wall, found))
        return results

    def _all_new(
        self, side: Side, record: records.Push, channel: Channel, keys: list[str], bodies: list[bytes], wall: int
    ) -> list[Result] | None:
        """Messages that passed unchanged and have room. None: nothing is done with them, since one may not be new."""
        work, name, who = self._work, channel.name, record.who
        sizes = list(map(len, bodies))
        size = sum(sizes)
        hashes = [hashlib.sha256(body).digest() for body in bodies]
        first = channel.next
        if not work.store.add_all(name, first, who, keys, bodies, hashes, wall):
            return None
        side.spend(ITEM_EFFORT * len(bodies), size)
        work.machine.push_all(channel, len(bodies), size)
        work.told.push_all(name, first, who, keys, hashes, sizes)
        work.figures.add("pushed", len(bodies), name)
        return [Result("stored", number, False, sha256) for number, sha256 in enumerate(hashes, first)]

    def _item(
        self, side: Side, record: records.Push, channel: Channel, item: records.Item, wall: int,
        found: Checked | Problem | None = None,
    ) -> Result:  # fmt: skip
        """One message. `found`: what its channel's checks say, where they were asked already."""
        work = self._work
        name, body = channel.name, item.body
        side.spend(ITEM_EFFORT, len(body))
        sha256 = hashlib.sha256(body).digest()
        known = work.store.find(name, record.who, item.key)
        if known is not None:
            result = work.machine.repeat(known, sha256)
            work.figures.add("repeated" if result.again else "conflicts", 1, name)
            if not result.again:
                self._telling.count(record, Problem("conflict", "the key is taken by another content"), item.key)
            return result
        if channel.held:
            before = work.shelf.find(name, record.who, item.key, sha256)
            if before is not None:
                return Result("quarantined", before[0], again=True, sha256=sha256, problem=before[1])
        checked = self._check(side, name, item, found)
        side.spend(len(checked.steps) if isinstance(checked, Checked) else 0)
        remade = checked.body if isinstance(checked, Checked) else body
        result = work.machine.push(channel, checked, len(remade), wall)
        if result.state == "stored":
            work.store.series.remember(work.machine.steps)
            stored = sha256 if remade is body or remade == body else hashlib.sha256(remade).digest()
            work.store.add(name, result.number, record.who, item.key, remade, stored, sha256, wall)
            work.told.push(name, result.number, record.who, item.key, stored, len(remade))
            work.figures.add("pushed", 1, name)
            return Result("stored", result.number, sha256=sha256)
        problem = result.problem or Problem("schema", "it does not pass")
        if result.state == "quarantined":
            row = work.shelf.put(name, record.who, item.key, body, sha256, wall, problem)
            work.told.add(
                events.MessageQuarantined, channel=name, row=row, principal=record.who, key=clip(item.key),
                sha256=sha256.hex(), size=len(body), fault=problem.fault, place=clip(problem.place),
                detail=clip(problem.detail),
            )  # fmt: skip
            work.figures.add("quarantined", 1, name)
            return Result("quarantined", row, sha256=sha256, problem=problem)
        self._telling.count(record, problem, item.key)
        return Result("refused", sha256=sha256, problem=problem, retry=result.retry)

    def _check(
        self, side: Side, channel: str, item: records.Item, found: Checked | Problem | None
    ) -> Checked | Problem:
        """The channel's own checks. A side that works by other rows just now may err; its word counts for nothing.

        Raises:
            CrossingError: a sound side would not have sent this body.
        """
        checks = self._work.checks
        if item.doubtful and checks.readable(channel, item.body) != item.body:
            raise CrossingError(f"a body for {channel} that is not canonical")
        checked = checks.again(channel, item.body) if found is None else found
        if item.doubtful or (isinstance(checked, Checked) and checked.body == item.body):
            return checked
        if side.works == side.fingerprint:
            why = "is not in its remade form" if isinstance(checked, Checked) else f"fails its checks: {checked.detail}"
            raise CrossingError(f"a body for {channel} that {why}")
        if checks.readable(channel, item.body) != item.body:
            raise CrossingError(f"a body for {channel} that is not canonical")
        return checked


def _together(items: tuple[records.Item, ...], first: int) -> tuple[records.Item, ...]:
    """As many from `first` on as are looked at in one go: one at least."""
    last, size, end = first + 1, len(items[first].body), min(len(items), first + TOGETHER_MOST)
    while last < end and (size := size + len(items[last].body)) <= TOGETHER_BYTES:
        last += 1
    return items[first:last]


def _nothing() -> None:
    """What a part of a push that is stored calls for."""
