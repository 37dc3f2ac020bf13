"""What people ask of the desk, as it arrives from the command line. Not here: what becomes of it (desk)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cofferdam.brokers.patch.advice.ledger import OwnerState
from cofferdam.brokers.patch.asks import By

_Text = Annotated[str, Meta(min_length=1, max_length=512)]
_Name = Annotated[str, Meta(min_length=1, max_length=100)]


class Which(By):
    advisory: str


class Evaluate(Which):
    note: _Text
    assets: tuple[_Name, ...] = ()
    applies: bool | None = None
    """None: as the document says; what is unknown stays so."""
    rest: bool = False
    """Also all assets that it does not name."""


class SetState(Which):
    assets: Annotated[tuple[_Name, ...], Meta(min_length=1)]
    state: OwnerState
    note: str = ""


class MakePlan(Which):
    owner: Annotated[str, Meta(min_length=1, max_length=128)]
    text: _Text
    until: int
    assets: tuple[_Name, ...] = ()


class ApprovePlan(Which):
    plan: int
