"""What has come and what is missing, channel by channel. No I/O, and no clock but what it is told.

A record is known by its channel, the epoch in which it was numbered, and its number, from 1 on. A re-send has the
numbers of old. The heartbeat says of each channel, for each epoch that the sender still keeps something of, the oldest
number kept and the highest given: what lies between and has not come is missing, and what is older than the oldest kept
is lost.

Nothing is handed on twice, or out of its order where the channel waits: there a record waits for those before it until
they come or are given up.

Not here: how the missing is asked for (tickets), what becomes of it above (keeper).
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cofferdam.brokers.diode.records import SPANS_MOST
from cofferdam.errors import CrossingError

JUMP_MOST: Final = 50_000_000
"""A number may be so far above the highest known one, and no further: at a million records a second, 50 s."""
RANGES_MOST: Final = 20_000
"""Ranges of a channel, about. With more the smallest holes are told as lost, some at a time."""
EPOCHS_MOST: Final = 2 * SPANS_MOST
"""Epochs of one channel. With more an older one goes that is whole, or else the oldest; not one of those that the
sender still tells of, since all of it would be missing again."""
FEW_RANGES: Final = RANGES_MOST // EPOCHS_MOST
"""An epoch may have so many in any case."""


class Gap(NamedTuple):
    """Numbers that are missing. `since` in UTC ns."""

    epoch: int
    first: int
    last: int
    since: int = 0

    @property
    def total(self) -> int:
        return self.last - self.first + 1


def apart(some: Sequence[Gap], others: Sequence[Gap]) -> list[Gap]:
    """Those of some that have no number with others in common. Each in order, and none that overlap."""
    ends = [(gap.epoch, gap.last) for gap in others]
    found = []
    for gap in some:
        at = bisect.bisect_left(ends, (gap.epoch, gap.first))
        if at == len(ends) or (others[at].epoch, others[at].first) > (gap.epoch, gap.last):
            found.append(gap)
    return found


class Ranges:
    """A set of whole numbers, as sorted ranges."""

    def __init__(self, ranges: list[tuple[int, int]] | None = None) -> None:
        self._first = [first for first, _ in ranges or ()]
        self._last = [last for _, last in ranges or ()]

    def __contains__(self, number: int) -> bool:
        at = bisect.bisect_right(self._first, number) - 1
        return at >= 0 and number <= self._last[at]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._first, self._last, strict=True))

    def __len__(self) -> int:
        return len(self._first)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def highest(self) -> int:
        """0 for none."""
        return self._last[-1] if self._last else 0

    def add(self, first: int, last: int) -> None:
        """All from `first` to `last`."""
        left = bisect.bisect_left(self._last, first - 1)
        right = bisect.bisect_right(self._first, last + 1)
        if left < right:
            first, last = min(first, self._first[left]), max(last, self._last[right - 1])
        self._first[left:right] = [first]
        self._last[left:right] = [last]

    def missing(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """What of `first` to `last` is not in it."""
        at = bisect.bisect_left(self._last, first)
        while first <= last:
            if at >= len(self._first) or self._first[at] > last:
                yield first, last
                return
            if self._first[at] > first:
                yield first, self._first[at] - 1
            first = self._last[at] + 1
            at += 1


@dataclass
class Epoch:
    """One channel in one epoch. `have`: what came, was given up, or is lost. `highest`: as far as anybody knows.
    `came`: the highest that came; `told`: the highest that a heartbeat said has left."""

    have: Ranges = field(default_factory=Ranges)
    highest: int = 0
    since: dict[tuple[int, int], int] = field(default_factory=dict)
    lost: int = 0
    given_up: int = 0
    came: int = 0
    told: int = 0

    def gaps(self) -> Iterator[tuple[int, int]]:
        return self.have.missing(1, self.highest)

    @property
    def whole(self) -> bool:
        return next(self.gaps(), None) is None


class Channel:
    """One channel's ledger."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.epochs: dict[int, Epoch] = {}
        self.newest = 0

    def _epoch(self, epoch: int, current: int) -> Epoch:
        if not 0 < epoch <= current:
            raise CrossingError(f"{self.name}: epoch {epoch} is above {current}, the sender's present one")
        found = self.epochs.get(epoch)
        if found is None:
            if len(self.epochs) >= EPOCHS_MOST:
                older = sorted(self.epochs)[:-SPANS_MOST]
                done = next((one for one in older if self.epochs[one].whole), older[0])
                del self.epochs[done]
            found = self.epochs[epoch] = Epoch()
            self.newest = max(self.newest, epoch)
        return found

    def named(self, gaps: Sequence[Gap]) -> None:
        """What an earlier life knew of gaps: since when they are."""
        for gap in gaps:
            if (one := self.epochs.get(gap.epoch)) is not None:
                one.since[gap.first, gap.last] = gap.since

    def take(self, epoch: int, number: int, current: int) -> bool:
        """A record has come. Whether it is new: one that is not is dropped.

        Raises:
            CrossingError: no honest sender gives such a number.
        """
        one = self._epoch(epoch, current)
        if not 1 <= number <= one.highest + JUMP_MOST:
            raise CrossingError(f"{self.name}: number {number} after {one.highest}")
        if number in one.have:
            return False
        one.have.add(number, number)
        one.highest = max(one.highest, number)
        one.came = max(one.came, number)
        self._bound(one)
        return True

    def told(self, epoch: int, oldest: int, highest: int, current: int) -> list[Gap]:
        """The heartbeat's words. Returns what is lost: it is missing, and the sender does not keep it any more.

        Raises:
            CrossingError: they contradict what was said before.
        """
        one = self._epoch(epoch, current)
        if not 1 <= oldest <= highest + 1 or highest > one.highest + JUMP_MOST:
            raise CrossingError(f"{self.name}: a heartbeat tells of {oldest} to {highest} after {one.highest}")
        one.highest = max(one.highest, highest)
        one.told = max(one.told, highest)
        lost = [Gap(epoch, first, last) for first, last in one.have.missing(1, min(oldest - 1, one.highest))]
        for gap in lost:
            one.have.add(gap.first, gap.last)
            one.lost += gap.total
        return lost

    def look(self, wall_ns: int, present: int = 0) -> list[Gap]:
        """What is missing now, each with since when; new ones since this moment. `present`: an epoch of which it is
        what has left, as a heartbeat said: at a low rate what is behind others is there minutes before them."""
        found: list[Gap] = []
        for number, one in sorted(self.epochs.items()):
            since: dict[tuple[int, int], int] = {}
            before = sorted(one.since.items())
            at = 0
            upto = one.told if number == present else one.highest
            for first, last in one.have.missing(1, upto):
                while at < len(before) and before[at][0][1] < first:
                    at += 1
                known = before[at][1] if at < len(before) and before[at][0][0] <= last else wall_ns
                since[first, last] = known
                found.append(Gap(number, first, last, known))
            one.since = since
        return found

    def behind(self, named: Collection[Gap]) -> tuple[int, int]:
        """How many records above the last that came are lost, or among the `named` ones that are missing; and since
        when the newest of the others is (ns; 0: there is none)."""
        newest = max((epoch for epoch, one in self.epochs.items() if one.came), default=0)
        came = {epoch: one.came for epoch, one in self.epochs.items() if epoch >= newest}
        count = since = 0
        for epoch, last_come in came.items():
            one = self.epochs[epoch]
            open_still = sum(last - first + 1 for first, last in one.have.missing(last_come + 1, one.highest))
            count += one.highest - last_come - open_still
        for gap in named:
            if gap.epoch in came and gap.first > came[gap.epoch]:
                count += gap.total
            else:
                since = max(since, gap.since)
        return count, since

    def give_up(self, epoch: int, first: int, last: int) -> int:
        """Nobody waits for these any more; how many there were."""
        one = self.epochs.get(epoch)
        if one is None:
            return 0
        count = 0
        for low, high in list(one.have.missing(first, min(last, one.highest))):
            one.have.add(low, high)
            count += high - low + 1
        one.given_up += count
        return count

    def _bound(self, one: Epoch) -> None:
        if len(one.have) <= FEW_RANGES or sum(len(other.have) for other in self.epochs.values()) <= RANGES_MOST:
            return
        holes = sorted(one.have.missing(1, one.highest), key=lambda gap: gap[1] - gap[0])
        for first, last in holes[: len(holes) // 10 + 1]:
            one.have.add(first, last)
            one.lost += last - first + 1


class Order:
    """Records of one channel in the order of their numbers: one waits for those before it, for so long and no longer.

    `held`: bytes that wait."""

    def __init__(self, wait_ns: int, most: int) -> None:
        self._wait, self._most = wait_ns, most
        self._waiting: dict[tuple[int, int], tuple[int, int, int, bytes]] = {}
        self._next: tuple[int, int] = (0, 1)
        self.held = 0

    def put(self, epoch: int, number: int, size: int, record: bytes, now: int, count: int = 1) -> None:
        """A record that is new, and has so many numbers from this one on."""
        self._waiting[epoch, number] = (now, size, count, record)
        self.held += size

    def peek(self, channel: Channel, now: int) -> Iterator[tuple[int, int, int, bytes]]:
        """(epoch, number, how many numbers, record) of what may go on now: each waits on until it is `done`. What
        waited too long goes on without those before it, which then come, if they do, as what they are: late."""
        for at in sorted(self._waiting):
            since, _, count, record = self._waiting[at]
            waited = now - since >= self._wait or self.held > self._most
            if not (waited or at < self._next or self._passable(channel, at)):
                return
            yield *at, count, record

    def done(self, epoch: int, number: int) -> None:
        """It has gone on."""
        _, size, count, _ = self._waiting.pop((epoch, number))
        self.held -= size
        self._next = max(self._next, (epoch, number + count))

    def _passable(self, channel: Channel, at: tuple[int, int]) -> bool:
        """Whether all before it came or are given up."""
        epoch, number = at
        one = channel.epochs.get(epoch)
        if one is None:
            return False
        if epoch == self._next[0]:
            return next(one.have.missing(self._next[1], number - 1), None) is None
        before = channel.epochs.get(self._next[0])
        closed = before is None or next(before.have.missing(self._next[1], before.highest), None) is None
        return closed and next(one.have.missing(1, number - 1), None) is None

    def __len__(self) -> int:
        return len(self._waiting)
