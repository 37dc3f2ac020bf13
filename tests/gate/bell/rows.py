"""What of a bell's conduit travels to its parts. PURE."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct


class BellRows(Struct, frozen=True, forbid_unknown_fields=True, tag="bell"):
    """Where the bell is asked for, and for each line who may ring which bells."""

    address: str
    port: int
    rules: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()

    def allows(self, who: Collection[str], bell: str) -> bool:
        """Whether one of these principals may ring it."""
        return any(bell in bells and not set(who).isdisjoint(names) for names, bells in self.rules)
