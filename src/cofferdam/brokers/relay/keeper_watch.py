"""What the keeper does as time goes by: removes what has had its time, counts, and says what needs a person.

A message goes when it is older than its channel keeps messages and every consumer in the policy has settled it. What
is dead to somebody stays until a person has decided. Age is reckoned by the slower of two clocks, the wall's and the
one that runs from the keeper's start, so that a clock that jumps ahead removes nothing before its time.

Not here: leases (keeper), refusals of what finds no room (keeper, keeper_work).
"""

from __future__ import annotations

from typing import Final

from cofferdam.audit.events import relay as events
from cofferdam.audit.events.base import clip
from cofferdam.brokers.kit.figures import Reported
from cofferdam.brokers.relay.keeper import BUCKET_NS, SECOND, Channel, Consumer
from cofferdam.brokers.relay.keeper_pace import Pace
from cofferdam.brokers.relay.keeper_work import Work

REMOVED_A_TICK: Final = 1_000
"""Messages that are removed at once, so that others have their turn."""
ALARM_SHARE: Final = 0.8
"""An alarm from this share of a room on."""
ALARMS_MOST: Final = 32
"""Alarms that a report has room for."""
FORGET_NS: Final = 3_600 * SECOND
"""So often what limits remember is looked through."""


class Watch:
    """`alarms`: what needs a person, by a stable name."""

    def __init__(self, work: Work, pace: Pace) -> None:
        self._work = work
        self._pace = pace
        self.alarms: dict[str, str] = {}
        self._began = (work.now, work.wall)
        self._forgot = work.now
        self._ticks = 0

    @property
    def _aged(self) -> int:
        """UTC ns by the slower clock."""
        now, wall = self._began
        return min(self._work.wall, wall + self._work.now - now)

    def tick(self) -> None:
        """Twice a second."""
        for channel in self._work.machine.channels.values():
            if channel.served:
                self._retire(channel)
        self._ticks += 1
        if self._ticks % 4 == 1:
            self._look()
        if self._work.now - self._forgot > FORGET_NS:
            self._forgot = self._work.now
            for channel in self._work.machine.channels.values():
                before = (self._aged - channel.row.keep * SECOND) // BUCKET_NS
                self._work.store.series.forget(channel.name, before)
            self._work.change(durable=False)

    def _retire(self, channel: Channel) -> None:
        work = self._work
        upto = channel.removable
        before = self._aged - channel.row.keep * SECOND
        if upto <= channel.gone or work.store.stored_at(channel.name, channel.gone + 1) >= before:
            return
        work.store.begin()
        last, count, size = work.store.remove(channel.name, channel.gone, upto, before, REMOVED_A_TICK)
        work.machine.removed(channel, last, count, size)
        work.told.add(events.MessagesRemoved, channel=channel.name, last=last, count=count)
        work.store.drop_segments(channel.name, last)
        work.figures.add("removed", count, channel.name)
        work.change(durable=False)

    # --- figures and alarms -------------------------------------------------------------------------------------------

    def figures(self) -> Reported:
        """A copy for the gate."""
        work, figures = self._work, self._work.figures
        for channel in work.machine.channels.values():
            name = channel.name
            present = [consumer for consumer in channel.consumers.values() if consumer.present]
            figures.set("messages", channel.messages, name)
            figures.set("size", channel.size, name)
            figures.set("room", channel.row.room, name)
            figures.set("waiting", max((consumer.lag for consumer in present), default=0), name)
            figures.set("oldest", max((work.oldest(consumer) for consumer in present), default=0), name)
            figures.set("leases", sum(len(consumer.leased) for consumer in present), name)
            figures.set("quarantine", channel.held, name)
            figures.set("missing", sum(gap.last - gap.first + 1 for gap in channel.gaps.awaited), name)
            for consumer in present:
                label = f"{name} {consumer.name}"
                figures.set("lag", consumer.lag, label)
                figures.set("dead_letters", consumer.dead, label)
        figures.set("unlogged", work.unlogged)
        return figures.report()

    def _look(self) -> None:
        """Those of the whole store come first, then those of channels, then those of consumers: a report has room for
        so many."""
        work = self._work
        served = [channel for channel in work.machine.channels.values() if channel.served]
        found: dict[str, str] = {}
        free, size = work.store.room()
        if work.full:
            found["store"] = f"the relay takes no more messages: {work.full}"
        elif free < (1 - ALARM_SHARE) * size:
            found["store"] = (
                f"{free >> 20} MiB of {size >> 20} are left in {work.store.folder}, where the relay keeps its messages:"
                " make room on that disk, before none are taken any more"
            )
        if short := self._pace.short():
            found["log"] = (
                f"more than half of the relay's share of the audit log is used up: {', '.join(short)} cause more"
                " entries than their part, and wait"
            )
        for channel in served:
            name, row = channel.name, channel.row
            if channel.held:
                stands = "; the channel stands" if row.on_error == "stop" else ""
                found[f"{name}-quarantine"] = f"{channel.held} messages of {name} are in quarantine{stands}"
            if awaited := channel.gaps.awaited:
                more = f" and {len(awaited) - 1} further ranges" if len(awaited) > 1 else ""
                since = (work.wall - awaited[0].since) // SECOND
                does = "the channel waits for them" if row.on_gap == "wait" else "the channel goes on without them"
                found[f"{name}-missing"] = (
                    f"numbers {awaited[0]}{more} of {name} are missing for {since} s: a ticket of the strand brings"
                    f" them; {does}"
                )
            share = max(channel.messages / row.room_messages, channel.size / row.room)
            if share >= ALARM_SHARE:
                found[f"{name}-room"] = f"the channel {name} is {share:.0%} full; a full one takes no more"
        for channel in served:
            for consumer in channel.consumers.values():
                if consumer.present:
                    self._look_at(consumer, found)
        self.alarms = {name: clip(detail) for name, detail in list(found.items())[:ALARMS_MOST]}

    def _look_at(self, consumer: Consumer, found: dict[str, str]) -> None:
        name, row = consumer.channel.name, consumer.channel.row
        of = f"{name}-{consumer.name}"
        if consumer.dead:
            stands = "; it gets no more until that is decided on" if consumer.stopped else ""
            found[f"{of}-dead"] = f"{consumer.dead} messages of {name} are dead to {consumer.name}{stands}"
        waited = self._work.oldest(consumer) // SECOND
        if row.alarm_oldest and waited > row.alarm_oldest:
            found[f"{of}-oldest"] = f"message {consumer.lowest} of {name} has waited {waited} s for {consumer.name}"
        silent = (self._work.now - consumer.asked) // SECOND
        if row.alarm_silent and consumer.lag and not consumer.leased and silent > row.alarm_silent:
            found[f"{of}-silent"] = f"{consumer.name} has not asked for {name} for {silent} s, and {consumer.lag} wait"
