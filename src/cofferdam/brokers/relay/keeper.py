"""What the keeper knows and decides: numbers, positions, leases, as a state machine. PURE: no I/O, no clock of its own.

It holds little, however much waits: a channel's totals, and for each consumer where it stands and what it has under
way. Messages themselves are in the store.

    numbers     a channel's messages are 1, 2, 3, ...; `next` is the one that the next message gets
    shown       up to here messages are recorded in the audit log, and may be handed out
    cursor      a consumer's: what it gets next, of what it has never been handed
    leased      what it was handed and has not settled, at most `order` messages; `free`: of these, what came back
    settled     everything below the cursor that is neither leased nor free (done, or dead to it)
    gone        up to here messages were removed: older than `keep`, and settled by every consumer in the policy
    gaps        numbers that are not there: of a channel outside, whose messages and numbers come over a strand

A consumer that never comes keeps its messages: the channel fills, alarms tell of it, and in the end pushes are refused;
nothing is dropped. It lets go when the policy no longer lets it pull: its position stays, but holds nothing. A consumer
that is new begins with the oldest message that is still there.

Times: `now` is monotonic, `wall` UTC, both ns. Order hangs on numbers alone; leases run by the monotonic clock.

What has changed comes out as rows (`changes`), and rows are what a machine is made from.

Not here: the store (store), the check of a message (policy.messages), pipes and the audit log (keeper_part).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from cofferdam.brokers.relay.gaps import Gap, Gaps
from cofferdam.brokers.relay.keeper_rows import (
    ChannelRow,
    DeadRow,
    GapsRow,
    Known,
    Memory,
    OpenRow,
    OpenRows,
    PositionRow,
    Row,
    StepRow,
)
from cofferdam.brokers.relay.records import Result, Verdict
from cofferdam.policy.messages.checked import Checked, Problem
from cofferdam.policy.terms import relay_rows as terms

SECOND: Final = 1_000_000_000
HELD_MOST: Final = 1_000
"""Messages of one channel in quarantine. They may take a tenth of the channel's room."""
FUTURE_NS: Final = 300 * SECOND
"""By so much a message's own time may be ahead of ours."""
RETRY_ROOM, RETRY_STOPPED, RETRY_PAUSED = 60, 60, 60
"""Seconds after which a refused push may be tried again."""
BUCKET_NS: Final = 6 * SECOND
BUCKETS: Final = 11
"""A rate is counted by buckets. Any 60 seconds lie within this many of them, so a limit is never passed."""
SERIES_MOST: Final = 100_000
"""Series that the limits of one channel remember."""
SERIES_OF_MESSAGE: Final = 1_000
"""Series that one message may have values of: each is looked up and written."""
PUSH, PULL = 1, 2
"""Bits of `paused`."""


# --- state ------------------------------------------------------------------------------------------------------


class Open:
    """One message under way with one consumer. `until`: monotonic ns."""

    __slots__ = ("count", "lease", "until")

    def __init__(self, lease: int, until: int, count: int) -> None:
        self.lease = lease
        self.until = until
        self.count = count


class Consumer:
    """One principal's place in one channel. `present`: the policy lets it pull."""

    __slots__ = ("asked", "channel", "cursor", "dead", "free", "lease", "leased", "name", "present", "soonest")

    def __init__(self, channel: Channel, name: str, cursor: int, now: int) -> None:
        self.channel = channel
        self.name = name
        self.cursor = cursor
        self.lease = 0
        self.leased: dict[int, Open] = {}
        self.free: dict[int, Open] = {}
        self.dead = 0
        self.present = False
        self.asked = now
        self.soonest = 0

    @property
    def lowest(self) -> int:
        """The lowest number that it has not settled."""
        return min(self.cursor, min(self.leased, default=self.cursor), min(self.free, default=self.cursor))

    @property
    def lag(self) -> int:
        """Messages that it has not settled."""
        ahead = self.channel.shown + 1 - self.cursor
        if self.channel.gaps and ahead > 0:
            ahead -= self.channel.gaps.absent(self.cursor)
        return max(0, ahead) + len(self.leased) + len(self.free)

    @property
    def stopped(self) -> bool:
        """It gets nothing until somebody decides on what is dead to it."""
        return self.dead > 0 and self.channel.row.on_error == "stop"


class Channel:
    """One channel's totals and consumers."""

    __slots__ = (
        "consumers", "gaps", "gone", "held", "held_size", "messages", "name", "next", "paused", "row", "served",
        "shown", "size",
    )  # fmt: skip

    def __init__(self, row: terms.Channel, saved: ChannelRow) -> None:
        self.name = saved.channel
        self.row = row
        self.served = True
        self.next = saved.next
        self.shown = saved.next - 1
        self.gone = saved.gone
        self.messages = saved.messages
        self.size = saved.size
        self.held = saved.held
        self.held_size = saved.held_size
        self.paused = saved.paused
        self.consumers: dict[str, Consumer] = {}
        self.gaps = Gaps()

    @property
    def removable(self) -> int:
        """Up to here every consumer of the policy has settled."""
        lowest = (consumer.lowest for consumer in self.consumers.values() if consumer.present)
        return min(self.shown, min(lowest, default=self.next) - 1)

    def saved(self) -> ChannelRow:
        """As a row."""
        return ChannelRow(
            self.name, self.next, self.gone, self.messages, self.size, self.held, self.held_size, self.paused
        )


class Machine:
    """All channels. Made from rows; asked by one process; says what changed."""

    def __init__(self, relay: terms.Relay, rows: Iterable[Row], memory: Memory, now: int, wall: int) -> None:
        self.channels: dict[str, Channel] = {}
        """Those of the policy, and those that hold something of an earlier one (`served` is False)."""
        self._memory = memory
        self._touched: dict[str, Channel] = {}
        self._gapped: dict[str, Channel] = {}
        self._moved: dict[tuple[str, str], Consumer] = {}
        self._open: dict[tuple[str, str], dict[int, Open | None]] = {}
        self._died: list[DeadRow] = []
        self.steps: list[StepRow] = []
        """What limits remember of the last `push`, to be stored with it."""
        for row in rows:
            self._restore(row, now, wall)
        self.take_policy(relay, now)

    def _restore(self, row: Row, now: int, wall: int) -> None:
        """Takes a stored row; a channel's comes before those of its consumers."""
        if isinstance(row, ChannelRow):
            self.channels[row.channel] = Channel(terms.Channel(name=row.channel), row)
            return
        channel = self.channels[row.channel]
        if isinstance(row, GapsRow):
            channel.gaps = Gaps(row.gaps)
            return
        consumer = channel.consumers.get(row.consumer)
        if consumer is None:
            consumer = channel.consumers[row.consumer] = Consumer(channel, row.consumer, 1, now)
        if isinstance(row, PositionRow):
            consumer.cursor, consumer.lease, consumer.dead = row.cursor, row.lease, row.dead
        elif isinstance(row, OpenRow):
            # A clock that was set while the keeper was away must not make a lease longer than it was.
            left = min(max(0, row.until - wall), 31_536_000 * SECOND)
            (consumer.leased if row.lease else consumer.free)[row.number] = Open(row.lease, now + left, row.count)

    def take_policy(self, relay: terms.Relay, now: int) -> None:
        """Works by these rows from now on."""
        for channel in self.channels.values():
            channel.served = False
        for name, row in relay.channels.items():
            known = self.channels.get(name)
            if known is None:
                known = self.channels[name] = Channel(row, ChannelRow(name))
                self._touched[name] = known
            known.row, known.served = row, True
            longest = now + row.lease * SECOND
            for consumer in known.consumers.values():
                consumer.present = False
                for open_ in consumer.leased.values():
                    open_.until = min(open_.until, longest)
            for who in relay.who("pull", name):
                if who not in known.consumers:
                    known.consumers[who] = Consumer(known, who, known.gone + 1, now)
                consumer = known.consumers[who]
                consumer.present = True
                self._moved[name, who] = consumer

    def _past(self, consumer: Consumer, gone: int) -> None:
        """What is gone can no longer be handed to a consumer that was away from the policy."""
        consumer.cursor = max(consumer.cursor, gone + 1)
        for number in [number for number in (*consumer.leased, *consumer.free) if number <= gone]:
            self._close(consumer, number)

    # --- push -----------------------------------------------------------------------------------------------------

    def may_push(self, channel: Channel) -> Result | None:
        """None, or why nothing may be pushed now."""
        if channel.paused & PUSH:
            return _no("paused", f"the channel {channel.name} is paused by an operator", RETRY_PAUSED)
        if channel.row.on_error == "stop" and channel.held:
            detail = f"the channel {channel.name} stands until a message in its quarantine is decided on"
            return _no("stopped", detail, RETRY_STOPPED)
        return None

    def repeat(self, known: Known, sha256: bytes) -> Result:
        """A key that a message has already: the first answer again, or a conflict."""
        if known.sent == sha256:
            return Result("stored", known.number, again=True, sha256=sha256)
        return Result("conflict", known.number, sha256=sha256, other=known.sent)

    def push(
        self, channel: Channel, checked: Checked | Problem, size: int, wall: int, *, released: bool = False
    ) -> Result:
        """A message whose key is new: it gets a number, is put into quarantine (the caller numbers its rows), or is
        refused. What limits have to remember is in `steps`. `released`: a person lets it out of quarantine, and knows
        better than a limit what may follow what came before; its bounds, schema and fields hold all the same."""
        self.steps = []
        if channel.messages >= channel.row.room_messages or channel.size + size > channel.row.room:
            detail = f"the channel {channel.name} is full: {channel.messages} messages, {channel.size} bytes"
            return _no("room", detail, RETRY_ROOM)
        if isinstance(checked, Problem):
            return self._hold(channel, checked, size)
        verdict = self._by_memory(channel, checked, wall, released)
        if verdict is None:
            number = channel.next
            channel.next += 1
            channel.messages += 1
            channel.size += size
            self._touched[channel.name] = channel
            return Result("stored", number)
        self.steps = []
        if isinstance(verdict, Problem):
            return self._hold(channel, verdict, size)
        return verdict

    def takes(self, channel: Channel, messages: int, size: int) -> bool:
        """Whether so many messages, of this size in all, would each be stored if their keys are new and they pass: they
        have room, and nothing that the channel asks for needs a memory."""
        row = channel.row
        return (
            channel.messages + messages <= row.room_messages
            and channel.size + size <= row.room
            and not (row.stamp or channel.held)
            and not any([limit.max_step is not None or limit.per_minute for limit in row.limits])
        )

    def push_all(self, channel: Channel, messages: int, size: int) -> None:
        """They are stored, under the next numbers. (`takes` has said that they may be.)"""
        channel.next += messages
        channel.messages += messages
        channel.size += size
        self._touched[channel.name] = channel

    def _hold(self, channel: Channel, problem: Problem, size: int) -> Result:
        if channel.held >= HELD_MOST or channel.held_size + size > max(channel.row.room // 10, channel.row.most):
            full = f" (not kept: the quarantine of {channel.name} is full)"
            problem = msgspec.structs.replace(problem, detail=problem.detail[: 512 - len(full)] + full)
            return Result("refused", problem=problem)
        channel.held += 1
        channel.held_size += size
        self._touched[channel.name] = channel
        return Result("quarantined", problem=problem)

    def unheld(self, channel: Channel, size: int) -> None:
        """A row has left the quarantine."""
        channel.held -= 1
        channel.held_size -= size
        self._touched[channel.name] = channel

    def resized(self, channel: Channel, by: int) -> None:
        """A row of the quarantine was edited."""
        channel.held_size += by
        self._touched[channel.name] = channel

    def _by_memory(self, channel: Channel, checked: Checked, wall: int, released: bool) -> Result | Problem | None:
        """What needs a memory: the message's own time, steps, rates."""
        row = channel.row
        if row.stamp and not released:
            if checked.stamp_ns < wall - row.keep * SECOND:
                detail = f"too old: its own time is more than {row.keep} s ago, for which repeats are known"
                return _no("stamp", detail, 0, row.stamp)
            if checked.stamp_ns > wall + FUTURE_NS:
                return _no(
                    "stamp", f"its own time is more than {FUTURE_NS // SECOND} s ahead of the gate's", 0, row.stamp
                )
        several = {(step.limit, step.key) for step in checked.steps}
        if len(several) > SERIES_OF_MESSAGE:
            detail = f"it has values of {len(several)} series; at most {SERIES_OF_MESSAGE} are taken of a message"
            return Problem("limit", detail)
        seen: dict[tuple[str, str], StepRow] = {}
        new = 0
        for step in checked.steps:
            limit = row.limits[step.limit]
            name = f"{limit.at} {limit.key}"
            last = seen.get((name, step.key)) or self._memory.recall(channel.name, name, step.key)
            new += last is None
            if new and self._memory.count(channel.name) + new > SERIES_MOST:
                return Problem("step", f"{SERIES_MOST} series are known, and {step.key} is another"[:512], limit.at)
            counts, bucket = _counted(last, wall // BUCKET_NS)
            series = f" of {step.key}" if step.key else ""
            too_far = last is not None and limit.max_step is not None and abs(step.value - last.value) > limit.max_step
            if last is not None and too_far and not released:
                detail = f"{step.value} is more than {limit.max_step} away from {last.value}, the last one{series}"
                return Problem("step", detail[:512], limit.at)
            if limit.per_minute and sum(counts) >= limit.per_minute and not released:
                return _no("rate", f"more than {limit.per_minute} a minute{series}", BUCKET_NS // SECOND, limit.at)
            counts = (counts[0] + 1, *counts[1:])
            seen[name, step.key] = StepRow(channel.name, name, step.key, step.value, bucket, counts)
        self.steps = list(seen.values())
        return None

    def show(self, name: str, number: int) -> None:
        """Messages up to this number are in the audit log."""
        channel = self.channels[name]
        channel.shown = max(channel.shown, number)

    # --- pull -----------------------------------------------------------------------------------------------------

    def ready(self, consumer: Consumer, most: int, now: int) -> list[int]:
        """The numbers that may be handed to a consumer now, lowest first."""
        channel = consumer.channel
        consumer.asked = now
        if channel.paused & PULL or consumer.stopped:
            return []
        room = channel.row.order - len(consumer.leased)
        found = sorted(consumer.free)
        if channel.row.order == 1:  # nothing overtakes what is lower, not even while that rests
            found = found[:1]
        found = [number for number in found if consumer.free[number].until <= now][: max(0, min(most, room))]
        count = min(most - len(found), room - len(consumer.free), channel.shown + 1 - consumer.cursor)
        return found + _from(channel, consumer.cursor, count)

    def lease(self, consumer: Consumer, numbers: list[int], seconds: int, now: int) -> dict[int, int]:
        """Hands these out, which `ready` has just named (or the first of them), for so long. Returns number -> how
        often it was handed to this consumer by now; the lease's own number is `consumer.lease`."""
        consumer.lease += 1
        until = now + seconds * SECOND
        counts: dict[int, int] = {}
        changing, free, leased, lease = self._changing(consumer), consumer.free, consumer.leased, consumer.lease
        for number in numbers:
            open_ = (free.pop(number, None) if free else None) or Open(0, 0, 0)
            open_.lease, open_.until, open_.count = lease, until, open_.count + 1
            changing[number] = leased[number] = open_
            counts[number] = open_.count
        consumer.cursor = max(consumer.cursor, max(numbers) + 1)
        consumer.soonest = min(consumer.soonest, until) if len(consumer.leased) > len(numbers) else until
        return counts

    def settle(self, consumer: Consumer, lease: int, verdict: Verdict, now: int, wall: int) -> Result:
        """A verdict on a message of a lease."""
        open_ = consumer.leased.get(verdict.number)
        if open_ is None or open_.lease != lease or open_.until <= now:
            detail = f"{verdict.number} is not under lease {lease}: settled already, handed out again, or never leased"
            return _no("lease", detail, 0)
        if verdict.says == "done":
            self._close(consumer, verdict.number)
        elif verdict.says == "extend":
            open_.until = now + max(1, min(verdict.seconds, consumer.channel.row.lease)) * SECOND
            consumer.soonest = min(consumer.soonest, open_.until)
            self._changed(consumer, verdict.number, open_)
        else:
            self._back(consumer, verdict.number, now + verdict.seconds * SECOND, verdict.reason or "failed", wall)
        return Result("stored", verdict.number)

    def settle_all(self, consumer: Consumer, lease: int, numbers: list[int], now: int) -> bool:
        """It is done with these, each of which stands once. False: nothing is settled, since one is not under this
        lease."""
        leased = consumer.leased
        for number in numbers:
            open_ = leased.get(number)
            if open_ is None or open_.lease != lease or open_.until <= now:
                return False
        changing = self._changing(consumer)
        for number in numbers:
            del leased[number]
            changing[number] = None
        return True

    def expire(self, now: int, wall: int) -> list[Consumer]:
        """Ends the leases whose time is up. Returns whose they were."""
        found = []
        for channel in self.channels.values():
            for consumer in channel.consumers.values():
                if not consumer.leased or consumer.soonest > now:
                    continue
                for number in [number for number, open_ in consumer.leased.items() if open_.until <= now]:
                    self._back(consumer, number, now, "its lease ended", wall)
                consumer.soonest = min((open_.until for open_ in consumer.leased.values()), default=0)
                found.append(consumer)
        return found

    def _back(self, consumer: Consumer, number: int, until: int, reason: str, wall: int) -> None:
        """A message was not done: it waits to be handed out again, or is dead."""
        open_ = consumer.leased[number]
        if open_.count >= consumer.channel.row.tries:
            self._close(consumer, number)
            consumer.dead += 1
            row = DeadRow(consumer.channel.name, consumer.name, number, open_.count, reason[:512], wall)
            self._died.append(row)
            return
        del consumer.leased[number]
        open_.lease, open_.until = 0, until
        consumer.free[number] = open_
        self._changed(consumer, number, open_)

    def _close(self, consumer: Consumer, number: int) -> None:
        if consumer.leased.pop(number, None) is None:
            consumer.free.pop(number, None)
        self._changed(consumer, number, None)

    def _changed(self, consumer: Consumer, number: int, open_: Open | None) -> None:
        self._changing(consumer)[number] = open_

    def _changing(self, consumer: Consumer) -> dict[int, Open | None]:
        """Where to put what becomes of its messages."""
        at = (consumer.channel.name, consumer.name)
        self._moved[at] = consumer
        found = self._open.get(at)
        if found is None:
            found = self._open[at] = {}
        return found

    # --- over a strand --------------------------------------------------------------------------------------------

    def ahead(self, consumer: Consumer, most: int, now: int) -> list[int]:
        """Inside: the numbers that are to go over the strand, lowest first. It has no leases: what has left is
        `passed`."""
        channel = consumer.channel
        consumer.asked = now
        if channel.paused & PULL:
            return []
        found = sorted(consumer.free)[:most]
        return found + _from(channel, consumer.cursor, min(most - len(found), channel.shown + 1 - consumer.cursor))

    def passed(self, consumer: Consumer, numbers: Iterable[int]) -> None:
        """Inside: these have left."""
        for number in numbers:
            if number in consumer.free:
                self._close(consumer, number)
            consumer.cursor = max(consumer.cursor, number + 1)
        self._moved[consumer.channel.name, consumer.name] = consumer

    def highest(self, channel: Channel, number: int, wall: int) -> Gap | None:
        """Outside: messages up to this number have left. Returns what is missing by that and was not known to be."""
        if number < channel.next:
            return None
        gap = Gap(channel.next, number, wall)
        channel.gaps.add(gap)
        channel.next = number + 1
        self._touched[channel.name] = self._gapped[channel.name] = channel
        return gap

    def carry(self, channel: Channel, number: int, size: int, wall: int) -> Gap | None:
        """Outside: a message has come, above all others (returns what is missing before it) or into a gap, which it
        leaves by `arrived`."""
        gap = self.highest(channel, number - 1, wall)
        channel.next = max(channel.next, number + 1)
        channel.messages += 1
        channel.size += size
        self._touched[channel.name] = channel
        return gap

    def arrived(self, channel: Channel, number: int, now: int) -> None:
        """Outside: a message that was missing is in store and log by now: each consumer that was past it gets it."""
        channel.gaps.fill(number)
        self._gapped[channel.name] = channel
        for consumer in channel.consumers.values():
            if number < consumer.cursor:
                open_ = consumer.free[number] = Open(0, now, 0)
                self._changed(consumer, number, open_)

    def give_up(self, channel: Channel, upto: int) -> list[Gap]:
        """Outside: nobody waits for what is missing up to here."""
        self._gapped[channel.name] = channel
        return channel.gaps.give_up(upto)

    # --- operators ------------------------------------------------------------------------------------------------

    def pause(self, channel: Channel, bits: int) -> None:
        """What rests from now on."""
        channel.paused = bits
        self._touched[channel.name] = channel

    def replay(self, consumer: Consumer, first: int, revived: int) -> None:
        """All from `first` on is handed to the consumer (again), in order; `revived` of it was dead to it."""
        for number in [number for number in (*consumer.leased, *consumer.free) if number >= first]:
            self._close(consumer, number)
        consumer.cursor = min(consumer.cursor, first)
        consumer.dead -= revived
        self._moved[consumer.channel.name, consumer.name] = consumer

    def revive(self, consumer: Consumer, number: int, now: int) -> None:
        """One dead message is handed to the consumer again, with all its tries."""
        consumer.dead -= 1
        open_ = consumer.free[number] = Open(0, now, 0)
        self._changed(consumer, number, open_)

    def skip(self, consumer: Consumer) -> None:
        """One dead message is given up for good."""
        consumer.dead -= 1
        self._moved[consumer.channel.name, consumer.name] = consumer

    def awaits(self, channel: Channel, number: int) -> bool:
        """Whether a consumer of the policy has this message under way, or it has just died to one."""
        return any(
            number in consumer.leased or number in consumer.free
            for consumer in channel.consumers.values()
            if consumer.present
        ) or any(row.channel == channel.name and row.number == number for row in self._died)

    def removed(self, channel: Channel, upto: int, messages: int, size: int) -> None:
        """Messages up to this number have left the store, but for those that are dead to somebody."""
        channel.gone = max(channel.gone, upto)
        if channel.gaps.drop(channel.gone):
            self._gapped[channel.name] = channel
        channel.messages -= messages
        channel.size -= size
        for consumer in channel.consumers.values():
            if not consumer.present:
                self._past(consumer, channel.gone)
        self._touched[channel.name] = channel

    # --- what changed -----------------------------------------------------------------------------------------------

    def died(self) -> list[DeadRow]:
        """Messages that have died since `changes` was last asked."""
        return self._died

    def changes(self, now: int, wall: int) -> Iterator[Row]:
        """What is to be stored since this was last asked, channels first."""
        touched, self._touched = self._touched, {}
        moved, self._moved = self._moved, {}
        opened, self._open = self._open, {}
        died, self._died = self._died, []
        for channel in touched.values():
            yield channel.saved()
        gapped, self._gapped = self._gapped, {}
        for channel in gapped.values():
            yield GapsRow(channel.name, tuple(channel.gaps.rows))
        for (name, who), consumer in moved.items():
            yield PositionRow(name, who, consumer.cursor, consumer.lease, consumer.dead)
        ahead = wall - now
        for (name, who), found in opened.items():
            yield OpenRows(
                name,
                who,
                [(number, one.lease, ahead + one.until, one.count) for number, one in found.items() if one is not None],
                [number for number, one in found.items() if one is None],
            )
        yield from died


def _from(channel: Channel, cursor: int, count: int) -> list[int]:
    """Up to `count` numbers that may be handed out, from `cursor` on; none is above what may be shown."""
    if not channel.gaps:
        return list(range(cursor, cursor + max(0, count)))
    top = channel.shown
    if channel.row.on_gap == "wait" and (awaited := next((gap for gap in channel.gaps.rows if not gap.given), None)):
        top = min(top, awaited.first - 1)
    return channel.gaps.there(cursor, max(0, count), top)


def _counted(last: StepRow | None, bucket: int) -> tuple[tuple[int, ...], int]:
    """What has been counted by now, and the newest bucket. A clock that was set back by more begins anew."""
    behind = BUCKETS if last is None else bucket - last.at
    if last is not None and behind in (0, -1):
        return last.counts, last.at
    if last is not None and 0 < behind < BUCKETS:
        return (0,) * behind + last.counts[:-behind], bucket
    return (0,) * BUCKETS, bucket


def _no(fault: str, detail: str, retry: int, place: str = "") -> Result:
    return Result("refused", problem=Problem(fault, detail[:512], place), retry=retry)
