"""The numbers of a channel that are not there: a strand has not brought them (yet). PURE.

A gap is known once a higher number has come, or was said to have left. It closes when its messages come; a person may
give it up, and then nobody waits for it, but it stands here, since its numbers are still not there.

Not here: what consumers get meanwhile (keeper), where messages come from (far).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import msgspec


class Gap(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """From `first` to `last`, missing since then (UTC ns). `given`: nobody waits for it any more."""

    first: int
    last: int
    since: int
    given: bool = False

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


class Gaps:
    """Those of one channel, lowest first; no two meet."""

    __slots__ = ("rows",)

    def __init__(self, rows: Iterable[Gap] = ()) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.rows, number, key=_first) - 1
        return at >= 0 and number <= self.rows[at].last

    @property
    def awaited(self) -> list[Gap]:
        """Those that were not given up."""
        return [gap for gap in self.rows if not gap.given]

    def add(self, gap: Gap) -> None:
        """One above all others. It goes on with the last one, if that is awaited and ends where it begins."""
        if self.rows and self.rows[-1].last + 1 == gap.first and not self.rows[-1].given:
            gap = msgspec.structs.replace(self.rows.pop(), last=gap.last)
        self.rows.append(gap)

    def fill(self, number: int) -> None:
        """A number is there now."""
        at = bisect_right(self.rows, number, key=_first) - 1
        gap = self.rows[at]
        left = [msgspec.structs.replace(gap, last=number - 1)] if gap.first < number else []
        right = [msgspec.structs.replace(gap, first=number + 1)] if number < gap.last else []
        self.rows[at : at + 1] = left + right

    def give_up(self, upto: int) -> list[Gap]:
        """Nobody waits for these any more: those that begin at or below `upto`. Returns them."""
        found = [gap for gap in self.rows if not gap.given and gap.first <= upto]
        self.rows = [
            msgspec.structs.replace(gap, given=True) if gap.first <= upto and not gap.given else gap
            for gap in self.rows
        ]
        return found

    def drop(self, upto: int) -> bool:
        """All up to this number is gone from the channel, and with it its gaps. Whether there were any."""
        kept = [msgspec.structs.replace(gap, first=max(gap.first, upto + 1)) for gap in self.rows if gap.last > upto]
        changed = kept != self.rows
        self.rows = kept
        return changed

    def absent(self, first: int) -> int:
        """How many numbers are not there, from this one on."""
        at = bisect_left(self.rows, first, key=_last)
        return sum(gap.last + 1 - max(gap.first, first) for gap in self.rows[at:])

    def there(self, first: int, count: int, top: int) -> list[int]:
        """Up to `count` numbers that are there, from `first` on and not above `top`."""
        found: list[int] = []
        at = bisect_left(self.rows, first, key=_last)
        while len(found) < count and first <= top:
            end = top
            if at < len(self.rows):
                end = min(top, self.rows[at].first - 1)
            found += range(first, min(end + 1, first + count - len(found)))
            if end == top:
                break
            first = self.rows[at].last + 1
            at += 1
        return found

    def uncovered(self, first: int, last: int) -> list[tuple[int, int]]:
        """What of these numbers no gap explains, as (first, last)."""
        found = []
        for gap in self.rows[bisect_left(self.rows, first, key=_last) :]:
            if gap.first > last:
                break
            if gap.first > first:
                found.append((first, gap.first - 1))
            first = gap.last + 1
        return [*found, (first, last)] if first <= last else found


def _first(gap: Gap) -> int:
    return gap.first


def _last(gap: Gap) -> int:
    return gap.last
