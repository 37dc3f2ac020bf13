"""What a policy may say about Modbus."""

from __future__ import annotations

from cofferdam.protocols.dialect import Family, Space

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
