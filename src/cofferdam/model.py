"""The nouns that everyone shares. All are frozen, hold no behaviour beyond plain questions, and do no I/O.

`protocols` turn their messages into `Operation`s; `policy` judges `Operation`s. Neither knows the other: this
module is where they meet. Addresses of data are `Span`s: a space of cells (for Modbus: "coil", "discrete",
"input", "holding", "fifo", "file:N"), a first cell and a count. A cell is one bit or one 16-bit word.

Not here: the policy file's schema (policy.schema), protocol messages (protocols.*.messages).
"""

from __future__ import annotations

import enum

import msgspec


class Side(enum.StrEnum):
    """Which bulkhead a zone stands behind."""

    IT = "it"
    OT = "ot"


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`count` cells of `space` from `start` on. start 0-65535, count ≥ 1 (validated by who makes one)."""

    space: str
    start: int
    count: int

    @property
    def stop(self) -> int:
        """The first cell after the span."""
        return self.start + self.count


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a write does to the cells of `space` from `start` on.

    `values` are raw cells in address order: bits as 0 or 1, words as 0-65535. `exact` is False where the
    resulting cells depend on what the device holds (Modbus FC 22 mask write: values are the and- and or-mask);
    then `values` says nothing that a limit could be checked against, and `count` says how many cells change.
    """

    space: str
    start: int
    count: int
    values: tuple[int, ...]
    exact: bool = True

    @property
    def stop(self) -> int:
        """The first cell after the change."""
        return self.start + self.count


class Operation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one request asks of an asset, in the terms that policy judges.

    `function` is the protocol's own code (Modbus function code, with MEI type or diagnostics sub-function in
    `sub`, else -1). `unit` is the addressed unit behind the asset's address, or -1 where the protocol has none.
    `is_write` is True for whatever may change the device's state: such an operation is never sent twice and
    waits for the audit log. An operation without reads and writes (diagnostics, identification) is judged by
    its function alone.
    """

    function: int
    sub: int
    unit: int
    is_write: bool
    reads: tuple[Span, ...] = ()
    writes: tuple[Change, ...] = ()


class Allow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A verdict: the operation may be carried out. Only `policy` makes one; acting takes one as an argument.

    `rule` names the conduit and the number of the rule in it ("pump-setpoint/0"); `valid_until` is the UTC time
    in nanoseconds at which the verdict lapses (end of a window, expiry), or NEVER.
    """

    conduit: str
    rule: str
    valid_until: int


NEVER = (1 << 63) - 1
"""`Allow.valid_until` of a verdict that no window and no expiry ends (ns)."""


class Fault(enum.StrEnum):
    """The one field in which the nearest rule failed to allow an operation."""

    CONDUIT = "conduit"  # no conduit leads from this zone to that one with this broker
    PRINCIPAL = "principal"  # the source address belongs to no principal that a rule names
    ASSET = "asset"  # no rule for this principal names the asset
    UNIT = "unit"  # the request addresses another unit than the asset's
    FUNCTION = "function"  # the function code is not allowed, or no rule allows this access (read, write)
    ADDRESS = "address"  # at least one cell lies outside the allowed points and ranges
    VALUE = "value"  # type, min, max, or a part of a multi-word point
    STEP = "step"  # further from the last known value than max_step
    RATE = "rate"  # more writes per minute than writes_per_minute
    WINDOW = "window"  # outside the conduit's time window
    EXPIRED = "expired"  # the conduit's expiry has passed
    SEVERED = "severed"  # an operator has cut this side off
    AUDIT = "audit"  # the audit log cannot be written


class Deny(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A verdict: refused. `rule` is the rule that came nearest ("" if none), `fault` the field that failed in it,
    `detail` one sentence for people, with what was asked and what would be allowed."""

    conduit: str
    rule: str
    fault: Fault
    detail: str


class NeedValues(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Not a verdict yet: `max_step` needs the present value of these spans. Read them, then decide again."""

    spans: tuple[Span, ...]


class Failure(enum.StrEnum):
    """Why an allowed request got no answer from the asset. A protocol has its own words for each."""

    UNREACHABLE = "unreachable"  # no connection to the asset
    TIMEOUT = "timeout"  # no (valid) answer in time
    BUSY = "busy"  # a queue or limit of ours is full; nothing was sent
    BAD_REPLY = "bad-reply"  # the asset answered, but not to what was asked


class CellType(enum.StrEnum):
    """How the cells of a point make a value. Words are big-endian (Modbus); `word_order` orders the words."""

    BOOL = "bool"
    UINT16 = "uint16"
    INT16 = "int16"
    UINT32 = "uint32"
    INT32 = "int32"
    UINT64 = "uint64"
    INT64 = "int64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Point(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A named value of an asset. Limits are in the point's own unit; None is no limit."""

    name: str
    span: Span
    type: CellType
    word_order: str = "big"  # "big": most significant word first; "little": last
    unit: str = ""
    min: float | None = None
    max: float | None = None
    max_step: float | None = None
    writes_per_minute: int | None = None


class Asset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device in the plant, as the brokers need it. Times in milliseconds."""

    name: str
    zone: str
    address: str  # the real one, on the OT side
    port: int
    protocol: str
    unit: int  # -1: any
    listen: tuple[str, int] | None  # where the outer half answers for it (overlay address or explicit)
    connections: int = 1
    outstanding: int = 1
    timeout_ms: int = 1000
    share_reads_ms: int = 0
    quirks: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    also: tuple[tuple[str, int], ...] = ()  # further places where the outer half answers (the other IP version)

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Everywhere that the outer half answers for it."""
        return (() if self.listen is None else (self.listen,)) + self.also
