"""What was written to a device in the last minute, whatever the policy called it then.

The log knows assets by their names, limits belong to devices: who gives a device another name gives it no new minute.
A name that no policy of this gate's life explains may have been any device: then nobody can say.

Not here: the log's own memory (audit.recent), counting (policy.points.state).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from cofferdam.audit.recent import SPAN_NS
from cofferdam.audit.supervision import PastWrite, Recent
from cofferdam.model import Asset

Place = tuple[str, int, int]
"""A device: address, port, unit."""
EARLIER = 64
"""Policies that are remembered within a minute; with more, what was written under the oldest of them is unknown."""

MOST = 8192
"""Writes that a part is told of; with more, they count as unknown."""


class PastWrites:
    """Times: ns of a clock that never goes back."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Recent | None]], clock: Callable[[], int]) -> None:
        self._ask = ask
        self._clock = clock
        self._now: dict[str, Place] = {}
        self._earlier: list[tuple[int, dict[str, Place]]] = []  # until when each was in force

    def take(self, assets: Mapping[str, Asset]) -> None:
        """Another policy is in force."""
        now = self._clock()
        if self._now:
            self._earlier.append((now, self._now))
        self._earlier = [one for one in self._earlier[-EARLIER:] if now - one[0] < SPAN_NS]
        self._now = {name: (asset.address, asset.port, asset.unit) for name, asset in assets.items()}

    async def of(self, assets: Sequence[str]) -> tuple[PastWrite, ...] | None:
        """The writes of the last minute to these assets, by their present names; None where nobody can say."""
        called: dict[str, set[Place]] = {}
        for places in (self._now, *(places for _, places in self._earlier)):
            for name, place in places.items():
                called.setdefault(name, set()).add(place)
        mine: dict[str, list[str]] = {}  # by the name that it had: the assets that it may be
        for asset in assets:
            mine.setdefault(asset, []).append(asset)
            for name, places_of in called.items():
                if name != asset and self._now.get(asset) in places_of:
                    mine.setdefault(name, []).append(asset)
        answer = await self._ask(tuple(mine))
        if answer is None or not answer.complete or not called.keys() >= set(answer.assets):
            return None
        found = tuple(
            PastWrite(asset, write.age_ns, write.spans, write.points, write.items, write.moves)
            for write in answer.writes
            for asset in mine.get(write.asset, ())
        )
        return found if len(found) <= MOST else None
