"""The relay's keeper: the process that keeps messages, and says who gets which. It has no network.

It takes the requests of the sides, holds each to what that side may ask for, decides (keeper), and answers when what
it says is certain (keeper_work). It checks every body again, with the channel's own checks: one that a sound side
cannot have sent ends the crew, before anything of the turn is stored.

A side that floods does not starve another: a turn has so much for each side and no more (keeper_turns), and a side that
does not take its answers is not served.

Not here: what operators may do (keeper_verbs).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, Final

from cofferdam.audit.events.base import clip
from cofferdam.brokers.broker import Asked, Part, Setting
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.relay import records
from cofferdam.brokers.relay.keeper import PULL, SECOND, Channel, Consumer
from cofferdam.brokers.relay.keeper_pace import Pace
from cofferdam.brokers.relay.keeper_push import Pushes
from cofferdam.brokers.relay.keeper_rows import Stored
from cofferdam.brokers.relay.keeper_telling import Telling
from cofferdam.brokers.relay.keeper_turns import (
    REQUEST_EFFORT,
    Parked,
    Pushing,
    Side,
    answer_of,
    message_of,
    missing_of,
)
from cofferdam.brokers.relay.keeper_verbs import Verbs
from cofferdam.brokers.relay.keeper_watch import Watch
from cofferdam.brokers.relay.keeper_work import Work
from cofferdam.brokers.relay.records import Answered, Handed, Result
from cofferdam.brokers.relay.riding import Rider
from cofferdam.crossing.strand import StrandSender
from cofferdam.errors import CrossingError, StoreError
from cofferdam.policy.messages.checked import Problem
from cofferdam.policy.standing import standing
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.relay_rows import Verb, fingerprint, slice_for, way_of

PARKED_OF_SIDE: Final = 1_024
PARKED_OF_CONSUMER: Final = 64
"""Pulls that wait for a message."""
TELL_NS: Final = 10 * SECOND
"""Refusals and readings of one kind are counted for so long, and told as one entry."""


CHANGING: Final = Problem("policy", "the policy is just changing")
PACED: Final[tuple[Verb, ...]] = ("push", "pull")
"""What causes an entry each time, or nearly."""


class Keeper(Part):
    """The part."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._setting = setting
        self._work = Work(setting, self._shown)
        self._verbs = Verbs(self._work)
        self._pace = Pace(self._work.now)
        self._watch = Watch(self._work, self._pace)
        self._sides = {name: Side(name, sender) for name, sender in setting.senders.items() if name != "far"}
        self._parked: dict[tuple[str, str], deque[Parked]] = {}
        self._telling = Telling(self._work, setting.audit)
        self._pushes = Pushes(
            self._work, setting.reactor, self._telling, self._pace, self._may_push, self._refuse, self._later
        )
        self._told_at = self._work.now
        self._open: dict[str, tuple[int, int, str]] = {}
        self._again = False
        self._stopping = False
        self._last: Reported = {}
        self._know_sides()
        self.set_severed(setting.severed)
        strand = setting.senders.get("far")
        self._rider = Rider(self._work, strand, self._no_reading) if isinstance(strand, StrandSender) else None

    def _know_sides(self) -> None:
        """Who may ask on each side, and by which rows it should work."""
        sources, target = self._setting.zones
        policy, rows = self._work.policy, self._work.rows
        for side in self._sides.values():
            zones = {target} if records.side_of(side.name) == "inner" else set(sources)
            names = {name for name, principal in policy.principals.items() if principal.zone in zones}
            side.principals = frozenset(names)
            way = way_of(side.name)
            side.fingerprint = fingerprint({name: slice_for(each, names, way) for name, each in rows.items()})
        self._open = {}
        served = {
            who for verb in PACED for name in self._work.relay.channels for who in self._work.relay.who(verb, name)
        }
        self._pace.serve(frozenset(served))

    # --- the gate -----------------------------------------------------------------------------------------------------

    def take_policy(self, policy: CompiledPolicy, assets: tuple[str, ...]) -> int:
        self._work.take_policy(policy)
        self._pushes.drop(CHANGING, 2)
        self._know_sides()
        if self._rider is not None:
            self._rider.take_policy()
        ended = 0
        for at, queue in list(self._parked.items()):
            if self._work.relay.right(at[1], "pull", at[0]) is None:
                ended += len(queue)
                self._drop(at, Problem("policy", "the policy does not let you pull any more"), 0)
        return ended

    def set_severed(self, sides: Collection[str]) -> None:
        sources, target = self._setting.zones
        zones = self._work.policy.zones
        for side in self._sides.values():
            zone = zones[target if records.side_of(side.name) == "inner" else sources[0]]
            side.severed = str(zone.side) in sides
        for at, queue in list(self._parked.items()):
            if any(parked.side.severed for parked in queue):
                self._drop(at, Problem("severed", "an operator has cut this side off"), 60)

    def command(self, asked: Asked) -> None:
        self._verbs.command(asked)
        self._wake_all()

    def tick(self) -> None:
        try:
            self._tick()
        except StoreError as error:
            self._work.guard(error)

    def _tick(self) -> None:
        work = self._work
        work.tick()
        now = work.now
        if work.machine.expire(now, work.wall):
            work.change(durable=False)
        for at, queue in list(self._parked.items()):
            for parked in [parked for parked in queue if parked.until <= now]:
                queue.remove(parked)
                channel = self._channel(at[0])
                if why := _rests(channel, channel.consumers[at[1]]):  # not that there is nothing
                    parked.side.parked -= 1
                    self._refuse(parked.side, parked.request, why, 60)
                else:
                    self._hand(parked, channel, [], {}, 0)
            if not queue:
                del self._parked[at]
        self._wake_all()
        if self._rider is not None:
            self._rider.tick()
        self._watch.tick()
        if now - self._told_at >= TELL_NS:
            self._tell()

    def stop(self) -> None:
        self._stopping = True
        for at in list(self._parked):
            self._drop(at, Problem("busy", "the gate stops"), 1)
        self._pushes.drop(Problem("busy", "the gate stops"), 1)

    def end(self) -> None:
        self._tell()
        self._last = self._watch.figures()  # told once more, after the store is closed
        self._forget()
        self._work.end()

    def halt(self) -> None:
        self._forget()
        self._work.halt()

    def _forget(self) -> None:
        """Nothing that waits is served any more."""
        for side in self._sides.values():
            side.forget()
        self._pushes.forget()

    @property
    def busy(self) -> int:
        return self._work.busy + self._pushes.waiting + sum(len(side.queue) for side in self._sides.values())

    def figures(self) -> Reported:
        if self._last:
            return self._last
        try:
            return self._watch.figures()
        except StoreError as error:
            self._work.guard(error)
            raise

    def alarms(self) -> dict[str, str]:
        """What needs a person, by name."""
        return self._watch.alarms

    # --- requests -----------------------------------------------------------------------------------------------------

    def on_record(self, source: str, record: Any) -> None:
        side = self._sides[source]
        if isinstance(record, records.GiveUp):
            if record.request > side.last:
                raise CrossingError(f"gives up request {record.request}, which it has not made")
            self._give_up(side, record.request)
            return
        if isinstance(record, records.Works):
            side.spoken = True
        elif not side.spoken:
            raise CrossingError("asks before it has said by which rows it works")
        elif record.request != side.last + 1:
            raise CrossingError(f"request {record.request} after {side.last}: one is left out")
        else:
            side.last = record.request
        if isinstance(record, records.Push) and not records.all_printable([item.key for item in record.items]):
            raise CrossingError(f"a key for {record.channel} that is not of printable characters")
        if not side.queue and side.has_turn(self._setting.reactor.now):
            self._serve(side, record)
        elif (busy := side.enqueue(record)) is not None:
            self._refuse(side, record, busy, 1)
        if side.queue:
            self._later(side)

    def _serve_queue(self, side: Side) -> None:
        """What waits, as far as this turn goes."""
        while side.queue and side.has_turn(self._setting.reactor.now):
            self._serve_as(side, side.first())
        if side.queue:
            self._later(side)

    def _serve_as(self, side: Side, record: Any) -> None:
        """Serves what has waited: nothing that is being read just now says who broke the rules."""
        try:
            self._serve(side, record)
        except CrossingError as error:
            error.by = side.name
            raise

    def _serve(self, side: Side, record: Any) -> None:
        if isinstance(record, records.Works):
            side.works = record.fingerprint
            self._pushes.drop(CHANGING, 2, side)
            return
        side.spend(REQUEST_EFFORT)
        try:
            if isinstance(record, records.Push):
                self._pushes.take(side, Pushing(record))
            elif isinstance(record, Pushing):
                self._pushes.take(side, record)
            elif isinstance(record, records.Pull):
                self._pull(side, record)
            elif isinstance(record, records.Settle):
                self._settle(side, record)
            else:
                self._browse(side, record)
        except StoreError as error:
            self._work.guard(error)
            if isinstance(record, Pushing):
                if record.over:
                    return
                record.over, record = True, record.record
            self._refuse(side, record, Problem("store", clip(str(error))), 60)

    def _refuse(self, side: Side, record: Any, problem: Problem, retry: int = 0) -> None:
        """The whole request."""
        side.refuse(record.request, problem, retry)
        self._telling.count(record, problem)

    def _may(self, side: Side, record: Any, verb: Verb) -> Channel | None:
        """The channel, or None: the request was refused.

        Raises:
            CrossingError: a side that works by the present rows would not have asked.
        """
        right = self._work.relay.right(record.who, verb, record.channel) if record.who in side.principals else None
        if right is None or right.via != way_of(side.name):
            if side.works == side.fingerprint:
                raise CrossingError(f"{record.who} asks to {verb} {record.channel}, which its rows do not allow")
            self._refuse(side, record, CHANGING, 2)
            return None
        if side.severed:
            self._refuse(side, record, Problem("severed", "an operator has cut this side off"), 60)
            return None
        # Whoever has a message under lease may say what became of it whatever the hour.
        if shut := "" if isinstance(record, records.Settle) else self._shut(right.conduit):
            self._refuse(side, record, Problem("window", shut), 60)
            return None
        if self._stopping:
            self._refuse(side, record, Problem("busy", "the gate stops"), 1)
            return None
        return self._channel(record.channel)

    def _may_push(self, side: Side, record: Any) -> Channel | None:
        return self._may(side, record, "push")

    def _channel(self, name: str) -> Channel:
        return self._work.machine.channels[name]

    def _shut(self, conduit: str) -> str:
        """Why a conduit carries nothing now, "" if it does."""
        wall = self._work.wall
        since, until, says = self._open.get(conduit, (0, 0, ""))
        if not since <= wall < until:
            policy = self._work.policy
            found = standing(policy.conduits[conduit], policy.table.clocks, wall)
            says = "" if found.open else f"the conduit {conduit} is {found.says}"
            self._open[conduit] = (wall, min(found.changes_ns or 1 << 63, wall + 60 * SECOND), says)
        return says

    # --- pull ---------------------------------------------------------------------------------------------------------

    def _no_reading(self) -> tuple[Problem, int] | None:
        """Why nothing can be handed out."""
        if (down := self._work.log_down) and not self._work.policy.audit.messages_without_log:
            return Problem("log", clip(f"nothing can be recorded: {down}")), 5
        return None

    def _pull(self, side: Side, record: records.Pull) -> None:
        channel = self._may(side, record, "pull")
        if channel is None:
            return
        consumer = channel.consumers[record.who]
        at = (channel.name, consumer.name)
        queue = self._parked.get(at, ())
        if why := self._no_reading():
            self._refuse(side, record, *why)
        elif resting := _rests(channel, consumer):
            self._refuse(side, record, resting, 60)
        elif side.parked >= PARKED_OF_SIDE or len(queue) >= PARKED_OF_CONSUMER:
            self._refuse(side, record, Problem("busy", "too many pulls are waiting"), 1)
        else:
            side.parked += 1
            until = self._work.now + record.wait_ms * 1_000_000
            self._parked.setdefault(at, deque()).append(Parked(side, record, until))
            self._wake(consumer)
            queue = self._parked.get(at, ())
            if not record.wait_ms and queue and queue[-1].request is record:
                self._hand(self._parked[at].pop(), channel, [], {}, 0)

    def _shown(self, channels: Iterable[str]) -> None:
        """There is more to hand out."""
        for name in channels:
            for consumer in list(self._channel(name).consumers.values()):
                self._wake(consumer)
        if self._rider is not None:
            try:
                self._rider.go()
            except StoreError as error:
                self._work.guard(error)

    def _wake_all(self) -> None:
        for name, who in list(self._parked):
            self._wake(self._channel(name).consumers[who])

    def _wake(self, consumer: Consumer) -> None:
        """Hands what there is to the pulls that wait for it, the first one first."""
        work, channel = self._work, consumer.channel
        queue = self._parked.get((channel.name, consumer.name))
        while queue:
            parked = queue[0]
            if not parked.side.has_turn(self._setting.reactor.now):
                self._later(parked.side)
                return
            if self._no_reading() or self._shut(work.relay.who("pull", channel.name)[consumer.name].conduit):
                return
            numbers = work.machine.ready(consumer, parked.request.most, work.now)
            if not numbers or not self._pace.may(consumer.name, work.now):  # as time goes by, `tick` looks again
                return
            try:
                messages = answer_of(work.store, channel.name, numbers)
            except StoreError as error:
                work.guard(error)
                return
            parked.side.give(len(messages), sum([one.size for one in messages]))
            queue.popleft()
            seconds = max(1, min(parked.request.seconds or channel.row.lease, channel.row.lease))
            taken = [one.number for one in messages]
            counts = work.machine.lease(consumer, taken, seconds, work.now)
            work.told.lease(channel.name, consumer.name, consumer.lease, messages)
            work.figures.add("handed", len(messages), f"{channel.name} {consumer.name}")
            self._hand(parked, channel, messages, counts, consumer.lease, seconds)
        self._parked.pop((channel.name, consumer.name), None)

    def _later(self, side: Side) -> None:
        """Its turn is over, or it does not take its answers: looks again in the next turn, or soon."""
        if not self._again:
            self._again = True
            self._setting.reactor.call_in(0.01 if side.sender.full else 0, self._look_again)

    def _look_again(self) -> None:
        self._again = False
        for side in self._sides.values():
            self._serve_queue(side)
        self._wake_all()

    def _hand(
        self, parked: Parked, channel: Channel, messages: list[Stored], counts: dict[int, int], lease: int,
        seconds: int = 0,
    ) -> None:  # fmt: skip
        """Answers a pull. With messages: once their leases are written."""
        side, request = parked.side, parked.request.request
        side.parked -= 1
        told = tuple(message_of(one, counts) for one in messages)
        handed = Handed(request, lease, seconds, channel.shown, told, missing_of(channel))
        if not messages:
            side.sender.send(handed)
            return
        no = functools.partial(side.refuse, request)
        self._work.after_commit(functools.partial(side.sender.send, handed), no)

    def _give_up(self, side: Side, request: int) -> None:
        for record in side.queue:
            if isinstance(record, records.Pull) and record.request == request:
                side.drop(record)
                return
        for at, queue in self._parked.items():
            for parked in queue:
                if parked.side is side and parked.request.request == request:
                    queue.remove(parked)
                    side.parked -= 1
                    if not queue:
                        del self._parked[at]
                    return

    def _drop(self, at: tuple[str, str], problem: Problem, retry: int) -> None:
        """Refuses the pulls that wait at a channel for a consumer."""
        for parked in self._parked.pop(at):
            parked.side.parked -= 1
            parked.side.refuse(parked.request.request, problem, retry)

    def _settle(self, side: Side, record: records.Settle) -> None:
        work = self._work
        channel = self._may(side, record, "pull")
        if channel is None:
            return
        consumer = channel.consumers[record.who]
        now, wall, label = work.now, work.wall, f"{channel.name} {consumer.name}"
        side.spend(2 * len(record.verdicts))
        results: list[Result] = []
        done: list[int] = []
        failed = False
        numbers = [verdict.number for verdict in record.verdicts]
        alike = all([verdict.says == "done" for verdict in record.verdicts]) and len(set(numbers)) == len(numbers)
        if alike and work.machine.settle_all(consumer, record.lease, numbers, now):
            done, results = numbers, [Result("stored", number) for number in numbers]
        else:
            for verdict in record.verdicts:
                result = work.machine.settle(consumer, record.lease, verdict, now, wall)
                results.append(result)
                if result.problem is not None:
                    self._telling.count(record, result.problem)
                elif verdict.says == "done":
                    done.append(verdict.number)
                elif verdict.says == "failed":
                    failed = True
                    work.told.settle(channel.name, consumer.name, verdict.number, verdict.says, verdict.reason)
        if done:
            work.told.done(channel.name, consumer.name, done)
            work.figures.add("settled", len(done), label)
        for number in done:
            if number <= channel.gone:
                work.let_go(channel, number)
        answer = functools.partial(side.sender.send, Answered(record.request, tuple(results)))
        if not done and all(result.problem is not None for result in results):
            answer()
            return
        work.after_commit(answer, functools.partial(side.refuse, record.request))
        if done or failed:
            self._pace.may(consumer.name, now, max((verdict.reason for verdict in record.verdicts), key=len), must=True)
        work.change(durable=bool(done) or failed)
        self._wake(consumer)

    def _browse(self, side: Side, record: records.Browse) -> None:
        channel = self._may(side, record, "browse")
        if channel is None:
            return
        if why := self._no_reading():
            self._refuse(side, record, *why)
            return
        after = min(record.after, channel.shown)
        found = self._work.store.messages(channel.name, after, record.most, channel.shown, records.HANDED_BYTES)
        if channel.gaps:  # what comes late counts as missing until it is in the log
            found = [one for one in found if one.number not in channel.gaps]
        side.give(len(found), sum(one.size for one in found))
        if found:
            self._telling.read(channel.name, record.who, len(found), found[0].number, found[-1].number)
        told = tuple(message_of(one, {}) for one in found)
        side.sender.send(Handed(record.request, 0, 0, channel.shown, told, missing_of(channel)))

    def _tell(self) -> None:
        """What is counted and not told one by one."""
        self._told_at = self._work.now
        if self._rider is not None:
            self._rider.tell()
        self._telling.tell()


def _rests(channel: Channel, consumer: Consumer) -> Problem | None:
    """Why a consumer is handed nothing, whatever there is."""
    if channel.paused & PULL:
        return Problem("paused", f"the channel {channel.name} is paused by an operator")
    if consumer.stopped:
        detail = f"{consumer.dead} messages are dead to you; {channel.name} stands until that is decided on"
        return Problem("stopped", detail)
    return None
