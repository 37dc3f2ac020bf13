"""The part of the office side that publishes channels to the site's NATS JetStream.

It has no store and opens no file; it connects to the hubs that the policy names for its zone, and to nothing else.

Not here: the work on streams (nats_work), what ways have in common (ways).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.relay.ways import Way
from cofferdam.errors import GateError, extra
from cofferdam.policy.terms.relay_rows import Nats, RelayRows

if TYPE_CHECKING:
    from cofferdam.brokers.relay.nats_work import Publisher

Wanted = tuple[Nats, str, str]
"""(hub, channel, principal)."""


class NatsWay(Way[Wanted, "Publisher"]):
    """The part."""

    figures_of = ("nats_published",)
    troubled = "nats_away"

    def __init__(self, setting: Setting) -> None:
        try:
            import cofferdam.brokers.relay.nats_work  # noqa: F401 - before the filter is on
        except ImportError as error:
            missing = f"a relay with NATS needs nats-py: {error}"
            raise GateError(missing, hint=extra("relay")) from None
        super().__init__(setting)

    def wanted(self, rows: Collection[RelayRows]) -> Iterator[Wanted]:
        for row in rows:
            for hub in row.nats:
                for line in row.lines:
                    for who in line.who:
                        if row.stands[who] == hub.zone:
                            for channel in line.pull:
                                yield hub, channel, who

    def make(self, key: Wanted) -> Publisher:
        from cofferdam.brokers.relay.nats_work import Publisher

        return Publisher(self, *key)

    def place(self, key: Wanted) -> tuple[str, str]:
        return key[0].zone, key[0].stream
