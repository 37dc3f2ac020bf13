"""Sessions of forwarded ports, as the inner part has them: lent to the broker that serves the asset.

That broker's inner part takes what came by a port for sessions alone that are lent here, so that an outer part which
was taken over gets no further than the keeper's grants; and when a session ends, all that came by it ends there.

Not here: what goes through a seam (kit.seam), the channel (outer_port).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from cofferdam.brokers.jump import records
from cofferdam.brokers.jump.inner_session import Live
from cofferdam.brokers.kit import seam
from cofferdam.crossing.channel import Sender
from cofferdam.model import Asset

KNOWN_NS: Final = 10 * 10**9
"""How long the other broker may take to say that it serves one."""
Place = tuple[str, int]


class PortLeg:
    """In place of a connection to an asset: what is said goes by another way."""

    def write(self, data: bytes) -> bool:
        return True

    def write_eof(self) -> None: ...

    def resize(self, columns: int, rows: int) -> None: ...

    def signal(self, name: str) -> None: ...

    def hold(self, held: bool) -> None: ...

    def close(self) -> None: ...


class Lending:
    """All that is lent."""

    def __init__(self, to_outer: Callable[[Any], None], now: Callable[[], int]) -> None:
        self._to_outer = to_outer
        self._now = now
        self._seams: dict[Place, Sender[Any]] = {}
        self._lent: dict[str, tuple[Place, Live]] = {}
        self._asked: dict[str, int] = {}
        self._said = 0

    def join(self, place: Place, sender: Sender[Any]) -> Callable[[Any], None]:
        self._seams[place] = sender
        sender.send(seam.Fresh())
        return functools.partial(self._take, place)

    def leave(self, place: Place) -> None:
        self._end(place, "the gate has no way to that broker any more")  # while it can be told
        del self._seams[place]

    def lend(self, live: Live, asset: Asset) -> None:
        """A session that has a grant."""
        place = asset.places[0] if asset.places else None
        if place is None or place not in self._seams:
            live.end("the gate has no way to that broker just now")
            return
        name = live.grant.name
        self._lent[name], self._asked[name] = (place, live), self._now()
        self._say(place, live)

    def _say(self, place: Place, live: Live) -> None:
        grant = live.grant
        self._seams[place].send(seam.Lend(grant.name, grant.conduit, grant.asset, grant.person))

    def ended(self, live: Live) -> None:
        """A session has ended."""
        self._asked.pop(live.grant.name, None)
        found = self._lent.pop(live.grant.name, None)
        if found is not None and found[0] in self._seams:
            self._seams[found[0]].send(seam.Withdraw(live.grant.name))
            self._seams[found[0]].flush()

    def tick(self) -> None:
        late = [name for name, at in self._asked.items() if self._now() - at > KNOWN_NS]
        for name in late:
            self._lent[name][1].end("the broker of this asset does not answer")
        if self._now() - self._said > seam.AGAIN_NS:
            self._said = self._now()
            for place, live in self._lent.values():
                if place in self._seams and not self._seams[place].backlog:
                    self._say(place, live)

    def _take(self, place: Place, record: Any) -> None:
        """What the other broker says. Raises: CrossingError: it breaks the rules."""
        if isinstance(record, seam.Fresh):
            self._end(place, "the broker of this asset was born again")
        elif isinstance(record, seam.Known):
            found = self._lent.get(record.session)
            if found is None or found[0] != place or self._asked.pop(record.session, None) is None:
                return  # it has just ended
            live = found[1]
            live.start(PortLeg())
            self._to_outer(records.Lent(live.number, *place, live.grant.name, live.grant.conduit))
        else:
            raise seam.unfit(record)

    def _end(self, place: Place, reason: str) -> None:
        for where, live in list(self._lent.values()):
            if where == place:
                live.end(reason)
