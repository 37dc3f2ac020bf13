"""Subscriptions that outlive the connection that made them, until a session of the same client asks for them
(TransferSubscriptions; OPC 10000-4, 5.14.7), or their lifetime is over.

What is kept are a subscription's items, the values that wait, and the notifications that are not acknowledged. Nothing
stands at the asset for it meanwhile: watches end with their session, and are asked for anew by the session that takes
the subscription, in whose name they are judged. A subscription that still has its session is taken from it; that
session is told. Whose it is says an `Owner`: address, user, application and certificate, all of which must be the same.

Not here: what a subscription is (subscriptions), how it is taken (server_items).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cofferdam.protocols.opcua.subscriptions import Subscription

KEPT, KEPT_OF_ONE, KEPT_BYTES = 200, 20, 16 << 20
"""Subscriptions without a session in a part, and of one owner; of all their values, in bytes as names.weight counts.
The oldest goes."""
KEPT_NS = 3600 * 1_000_000_000
"""None is kept longer, whatever its lifetime."""


@dataclass(frozen=True)
class Owner:
    """Whose a subscription is."""

    asset: str
    source: str
    user: str
    application: str
    certificate: str
    uris: tuple[str, ...]
    """The namespaces that were shown: by another array the nodes in its values would be others."""


class _Kept:
    __slots__ = ("owner", "size", "subscription", "until")

    def __init__(self, owner: Owner, subscription: Subscription, until: int) -> None:
        self.owner = owner
        self.subscription = subscription
        self.until = until
        self.size = subscription.weight


class Keeping:
    """All of a part."""

    def __init__(self) -> None:
        self._last = 0
        self._holders: dict[int, tuple[Owner, Any]] = {}  # of subscriptions with a session: its services
        self._kept: dict[int, _Kept] = {}

    def number(self) -> int:
        """The id of a new subscription."""
        self._last = self._last % 0x7FFFFFFF + 1
        while self._last in self._holders or self._last in self._kept:
            self._last += 1
        return self._last

    def hold(self, subscription: Subscription, owner: Owner, services: Any) -> None:
        """A session has it."""
        self._holders[subscription.id] = (owner, services)

    def forget(self, number: int) -> None:
        """It has ended."""
        self._holders.pop(number, None)

    def keep(self, subscription: Subscription, now: int) -> None:
        """Its session is over. `now`: monotonic ns."""
        found = self._holders.pop(subscription.id, None)
        if found is None or not any(item.request is not None for item in subscription.items.values()):
            return  # one without a watch is made anew as easily, and strangers, who get none, would push out others'
        left = min((subscription.lifetime - subscription.since_client) * subscription.interval, KEPT_NS)
        self._kept[subscription.id] = _Kept(found[0], subscription, now + left)
        self._sweep(now, found[0])

    def _sweep(self, now: int, owner: Owner) -> None:
        for number in [number for number, one in self._kept.items() if now >= one.until]:
            del self._kept[number]
        mine = [number for number, one in self._kept.items() if one.owner == owner]
        for number in mine[:-KEPT_OF_ONE]:
            del self._kept[number]
        size = sum(one.size for one in self._kept.values())
        while self._kept and (len(self._kept) > KEPT or size > KEPT_BYTES):
            size -= self._kept.pop(next(iter(self._kept))).size

    def take(self, number: int, owner: Owner, services: Any, now: int) -> Subscription | None:
        """Gives it to another session of its owner; None where there is no such subscription of that owner."""
        kept = self._kept.get(number)
        if kept is not None:
            if kept.owner != owner:
                return None
            del self._kept[number]
            found: Subscription | None = kept.subscription if now < kept.until else None
        else:
            holder = self._holders.get(number)
            if holder is None or holder[0] != owner or holder[1] is services:
                return None
            found = holder[1].surrender(number)
        if found is not None:
            self.hold(found, owner, services)
        return found

    def __len__(self) -> int:
        return len(self._kept)
