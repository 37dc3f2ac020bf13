"""What a client's machine may ask of where it stands (protocols.base.Facing), and who a client shows to be.

Not here: judging of what is asked (outer), sessions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from cofferdam.brokers.proxy.clients import Client
from cofferdam.model import Asset, Item, Operation, Shown
from cofferdam.policy.points.decide import Flow
from cofferdam.protocols.base import Facing, Identified


class Face:
    """Of one client, which is made after its machine: `would` judges what it might ask."""

    __slots__ = ("_would", "client")

    def __init__(self, would: Callable[[Client, Operation], bool]) -> None:
        self._would = would
        self.client: Client | None = None

    def facing(
        self, common: Any, asset: Asset, wall: Callable[[], int], source: str, local: tuple[str, int], *,
        alone: bool = False, dialled: bool = False,
    ) -> Facing:  # fmt: skip
        """For its machine."""
        return Facing(
            common,
            asset,
            secrets.token_bytes,
            wall,
            self._may,
            self._reach,
            source,
            local,
            alone,
            dialled,
            self._pace,
        )

    def turn_away(self) -> None:
        """The client has gone."""
        self.client = None

    def _may(self, operation: Operation) -> bool:
        return self.client is not None and self._would(self.client, operation)

    def _reach(self, verb: str, item: Item) -> bool:
        sessions = () if self.client is None else self.client.sessions.values()
        return any(isinstance(one.flow, Flow) and one.flow.reaches(verb, item) for one in sessions)

    def _pace(self, item: Item) -> tuple[int, int]:
        sessions = () if self.client is None else self.client.sessions.values()
        return next((one.flow.pace(item) for one in sessions if isinstance(one.flow, Flow)), (0, 0))


def towards(common: Any, asset: Asset, wall: Callable[[], int]) -> Facing:
    """For a machine towards an asset: policy is asked before such a one is."""
    dialled = asset.calls_at is not None
    return Facing(common, asset, secrets.token_bytes, wall, _everything, _everything, dialled=dialled)


def _everything(*_asked: object) -> bool:
    return True


def shown_by(event: Identified) -> Shown:
    """Who a client shows to be, as long as a record may be."""
    return Shown(event.user[:512], event.application[:512], event.certificate[:128])
