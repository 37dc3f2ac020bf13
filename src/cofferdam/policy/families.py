"""What the policy file may say about each protocol: spaces of cells, function codes without cells, default port.

A few facts, so that a policy can be checked without importing a protocol's code: `protocols` and `policy` meet only in
`model.Operation`. A new protocol adds one entry here. Not here: messages, machines, quirks' meaning (protocols.*).
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


MODBUS = Family(
    name="modbus",
    default_port=502,
    spaces=(
        Space("holding", bits=False, writable=True, read=3, write_one=6, write_many=16),
        Space("input", bits=False, writable=False, read=4),
        Space("coil", bits=True, writable=True, read=1, write_one=5, write_many=15),
        Space("discrete", bits=True, writable=False, read=2),
        Space("file", bits=False, writable=True, numbered=True, read=20, write_many=21),
        Space("fifo", bits=False, writable=False, read=24),
    ),
    codes={
        7: "read exception status",
        8: "diagnostics",
        11: "get comm event counter",
        12: "get comm event log",
        17: "report server id",
        43: "encapsulated interface (43/13 CANopen, 43/14 device identification)",
    },
    # Restart communications, change delimiter, force listen only, clear counters, clear overrun; CANopen may write.
    changing=frozenset({(8, 1), (8, 3), (8, 4), (8, 10), (8, 20), (43, 13)}),
    cell_codes=frozenset({1, 2, 3, 4, 5, 6, 15, 16, 20, 21, 22, 23, 24}),
    max_unit=255,
    quirks=frozenset({"any_unit", "zero_transaction_id", "wrong_transaction_id"}),
    lone_quirks=frozenset({"zero_transaction_id", "wrong_transaction_id"}),
)

FAMILIES: dict[str, Family] = {MODBUS.name: MODBUS}
"""By name: an asset's `protocol`, and the conduit's `broker` that speaks it."""
