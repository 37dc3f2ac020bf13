"""What the keeper inside hands to a strand: each message that it has recorded, under its number. Nothing comes back.

The strand is a consumer like others, with a place in each channel; but it leases nothing: what lies in the strand's
folder, on disk, has left, and the place moves. A crash in between hands it over again, and the keeper outside knows it.
An operator has it handed over once more by `replay --to strand:NAME`.

A second after the last message, and each minute, the highest number that has left is said, so that it is seen outside
what is missing at the end.

Not here: what is made of it outside (far), the strand (crossing.strand).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cofferdam.audit.events import relay as events
from cofferdam.brokers.relay.keeper import SECOND, Consumer
from cofferdam.brokers.relay.keeper_turns import answer_of
from cofferdam.brokers.relay.keeper_work import Work
from cofferdam.brokers.relay.records import Carried, Highest, ToFar
from cofferdam.crossing.strand import StrandSender
from cofferdam.policy.terms.relay_rows import print_of

AT_ONCE: Final = 256
"""Messages that are read together."""
QUIET_NS: Final = SECOND
REPEAT_NS: Final = 60 * SECOND


class Rider:
    """For the one conduit of a keeper that rides. `rests`: whether nothing may be handed out just now."""

    def __init__(self, work: Work, sender: StrandSender[ToFar], rests: Callable[[], object]) -> None:
        self._work = work
        self._sender = sender
        self._rests = rests
        self._store = bytes.fromhex(work.store.name)
        self._unsure: list[tuple[Consumer, list[int]]] = []
        """What was handed over and is not certain to be on disk."""
        self._left: dict[str, list[int]] = {}
        """Channel -> how many have left since that was told, the lowest and the highest, and since when."""
        self._said: dict[str, int] = {}
        self._last_at = self._said_at = work.now
        sender.on_room = self.go
        self.take_policy()

    def take_policy(self) -> None:
        """Works by the present rows from now on."""
        ((_, rows),) = self._work.rows.items()
        self._name = rows.rider
        self._prints = {channel.name: print_of(rows, channel.name) for channel in rows.channels}

    def go(self) -> None:
        """Hands over what there is, as far as there is room. Raises: StoreError."""
        work, sender = self._work, self._sender
        while not (self._unsure and sender.unsaved):
            for consumer, numbers in self._unsure:
                self._passed(consumer, numbers)
            self._unsure.clear()
            if sender.full or sender.closed or self._rests():
                return
            for name, print_ in self._prints.items():
                consumer = work.machine.channels[name].consumers[self._name]
                if not (ahead := work.machine.ahead(consumer, AT_ONCE, work.now)):
                    continue
                messages = answer_of(work.store, name, ahead)
                for one in messages:
                    sender.send(Carried(self._store, print_, name, one.number, one.who, one.key, one.body))
                self._unsure.append((consumer, [one.number for one in messages]))
            if not self._unsure:
                return
            sender.flush()

    def _passed(self, consumer: Consumer, numbers: list[int]) -> None:
        work, name = self._work, consumer.channel.name
        # The machine may have been made anew since, out of the store.
        work.machine.passed(work.machine.channels[name].consumers[self._name], numbers)
        work.change(durable=False)
        work.figures.add("handed", len(numbers), f"{name} {self._name}")
        self._last_at = work.now
        told = self._left.setdefault(name, [0, numbers[0], numbers[0], work.wall])
        told[0] += len(numbers)
        told[1], told[2] = min(told[1], *numbers), max(told[2], *numbers)

    def tick(self) -> None:
        """Twice a second. Raises: StoreError."""
        self.go()
        now = self._work.now
        again = now - self._said_at > REPEAT_NS
        if self._unsure or now - self._last_at < QUIET_NS or self._rests() or self._sender.full:
            return
        for name in self._prints:
            number = self._work.machine.channels[name].consumers[self._name].cursor - 1
            if again or number != self._said.get(name, 0):
                self._said[name], self._said_at = number, now
                self._sender.send(Highest(self._store, name, number))

    def tell(self) -> None:
        """What has left, into the log."""
        left, self._left = self._left, {}
        for channel, (count, first, last, since) in left.items():
            self._work.note(
                events.MessagesCarried(
                    wall_ns=self._work.wall, channel=channel, consumer=self._name, count=count, first=first, last=last,
                    from_ns=since, to_ns=self._work.wall,
                )
            )  # fmt: skip
