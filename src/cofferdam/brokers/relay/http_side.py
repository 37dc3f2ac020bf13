"""A side of the relay: answers HTTP for the principals of its zone, and asks the keeper.

It has no store, opens no connection and no file, and knows of the policy what concerns its own principals. What it
decides is a quick answer; the keeper decides again.

Not here: the API (http_api), doors, keys and connections (kit.http).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from cofferdam.audit.events.relay import MessageRefused
from cofferdam.brokers.broker import Setting
from cofferdam.brokers.kit.http.connection import Limits
from cofferdam.brokers.kit.http.doors import HttpPart, RefusedKind
from cofferdam.brokers.relay.http_api import Api
from cofferdam.brokers.relay.http_asking import Keeper
from cofferdam.brokers.relay.records import keeper_of
from cofferdam.policy.messages.checking import Checks
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.doors import Door
from cofferdam.policy.terms.relay_rows import LARGEST_MESSAGE, Relay, RelayRows, fingerprint

_BATCH: Final = LARGEST_MESSAGE + (1 << 20)
LIMITS: Final = Limits(body_bytes=_BATCH, rest_bytes=_BATCH)


class Side(HttpPart):
    """The part."""

    api: Api

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, LIMITS)

    def make_api(self) -> Api:
        self._keeper = Keeper(keeper_of(self.setting.senders), self.loop, self.setting.reactor)
        return Api(self._keeper, self.note, self.setting.wall)

    def doors(self, policy: CompiledPolicy) -> Iterable[Door]:
        rows = {
            name: conduit.terms for name, conduit in policy.conduits.items() if isinstance(conduit.terms, RelayRows)
        }
        relay = Relay(rows.items())
        self.api.relay, self.api.checks = relay, Checks(relay)
        self._rows = rows
        return [door for each in rows.values() for door in each.doors]

    def work_by(self, policy: CompiledPolicy) -> None:
        super().work_by(policy)
        self._keeper.works(fingerprint(self._rows))

    def on_record(self, source: str, record: Any) -> None:
        self._keeper.on_record(record)

    def told(self, found: RefusedKind) -> MessageRefused:
        return MessageRefused(
            wall_ns=self.setting.wall(), channel=found.what, principal=found.principal, source=found.source,
            verb=found.verb, fault=found.fault, detail=found.detail, place=found.place, key=found.key,
            count=found.count,
        )  # fmt: skip

    @property
    def busy(self) -> int:
        return self._keeper.waiting
