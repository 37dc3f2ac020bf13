"""What a policy may say about a protocol: spaces of cells, function codes without cells, default port. Data only.

Not here: messages, machines, quirks' meaning (the protocol's folder).
"""

from __future__ import annotations

import msgspec


class Space(msgspec.Struct, frozen=True):
    """Cells of one kind. `numbered`: the name carries a number ("file:4"). The codes read, write one, write several."""

    name: str
    bits: bool
    writable: bool
    numbered: bool = False
    read: int = 0
    write_one: int = 0
    write_many: int = 0


class Family(msgspec.Struct, frozen=True):
    """One protocol. `codes` are the functions that carry no cells, with words for people; `changing` those
    (code, sub) among them that may change the device's state, sub -1 for all of a code."""

    name: str
    default_port: int
    spaces: tuple[Space, ...]
    codes: dict[int, str]
    changing: frozenset[tuple[int, int]]
    cell_codes: frozenset[int]
    max_unit: int
    quirks: frozenset[str] = frozenset()
    """Known deviations that an asset may be declared to have."""
    lone_quirks: frozenset[str] = frozenset()
    """Those under which only one request may be in flight."""

    def space(self, name: str) -> Space | None:
        """The space that a name such as "holding" or "file:4" means."""
        kind, _, number = name.partition(":")
        for space in self.spaces:
            if space.name == kind and space.numbered == bool(number):
                return space
        return None

    def changes(self, code: int, sub: int) -> bool:
        """Whether a function without cells may change the device's state."""
        return (code, sub) in self.changing or (code, -1) in self.changing
