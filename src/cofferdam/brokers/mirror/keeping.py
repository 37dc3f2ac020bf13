"""What the keeper is to those who work for it: its verbs, and verifying. Not here: the keeper (keeper)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from cofferdam.brokers.broker import Setting
from cofferdam.brokers.mirror.catalogue import File, Loss
from cofferdam.brokers.mirror.store import Store
from cofferdam.policy.terms.mirror_rows import MirrorRows


class Keeping(Protocol):
    """The keeper."""

    setting: Setting
    store: Store
    row: MirrorRows
    conduit: str
    acks: bool

    @property
    def full(self) -> str:
        """Why nothing can be taken, "" if it can."""

    def in_thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> bool:
        """Runs something beside the keeper, and `done` with what it gave in the keeper's own turn. False: something
        else is running."""

    def strand_gaps(self, known: Collection[Loss]) -> list[Loss]:
        """What a strand says that it has not brought, as gaps, but what is `known` by the numbers of batches."""

    def tell_damaged(self, file: File) -> None:
        """A file was set aside."""

    def seal_now(self) -> None:
        """What is hot is sealed now."""
