"""The nouns that everyone shares. All are frozen, hold no behaviour beyond plain questions, and do no I/O.

`protocols` turn their messages into `Operation`s; `policy` judges `Operation`s. Neither knows the other: this
module is where they meet. Data has one of two kinds of address:

- **Cells** have numbers: a `Span` is a space of cells (for Modbus: "coil", "discrete", "input", "holding", "fifo",
  "file:N"), a first cell and a count. A cell is one bit or one 16-bit word.
- **Items** have names: an `Item` is a tag, a node, an object's attribute, or a range of its elements; its values have
  types (`values`). Items can also be called (`Call`), watched (`Watch`) and joined to a stream (`Opening`).

A call and an opening are kinds of writes, a watch is a kind of read: whatever cares for writes cares for calls. All of
them, and values, decode strictly: every size has a bound, and what no single field can say is told by `fault`.

Not here: values and their types (values), the policy file's schema (policy.schema), protocol messages
(protocols.*.messages), how a protocol writes the names of its items (protocols.dialect).
"""

from __future__ import annotations

import enum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from cofferdam.values import Value, ValueType


class Side(enum.StrEnum):
    """Which bulkhead a zone stands behind."""

    IT = "it"
    OT = "ot"


class Span(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=0):
    """`count` cells of `space` from `start` on. start 0-65535, count ≥ 1 (validated by who makes one)."""

    space: str
    start: int
    count: int

    @property
    def stop(self) -> int:
        """The first cell after the span."""
        return self.start + self.count


class Change(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=0):
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


KIND_LENGTH, NAME_LENGTH = 32, 4096
"""Characters of an item's kind and of its name, at most."""
ALL_ELEMENTS = 1 << 32
"""`Item.stop` of a whole item: after the last element that any range can name."""

Index = Annotated[int, Meta(ge=-1, lt=1 << 31)]
ElementCount = Annotated[int, Meta(ge=1, le=1 << 31)]
Microseconds = Annotated[int, Meta(ge=0, le=10**10)]
"""Of an interval, at most some hours; 0 where the protocol says none."""


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1, forbid_unknown_fields=True):
    """Something with a name: `kind` is the dialect's word for what it is, `name` its one spelling (the dialect's
    `canonical` form, so that equal names mean the same thing).

    `first` and `count` are a range of its elements; `first` -1 stands for the whole of it, however many elements that
    has, and `count` is 1 then. `space`, `start` and `stop` make it comparable like cells: an element lies within the
    whole, the whole lies within no range.
    """

    kind: Annotated[str, Meta(min_length=1, max_length=KIND_LENGTH)]
    name: Annotated[str, Meta(min_length=1, max_length=NAME_LENGTH)]
    first: Index = -1
    count: ElementCount = 1

    @property
    def space(self) -> str:
        """The item without its range, as a key and for people: "tag pump.speed"."""
        return f"{self.kind} {self.name}"

    @property
    def start(self) -> int:
        """The first element; -1 for the whole."""
        return self.first

    @property
    def stop(self) -> int:
        """The first element after the range; ALL_ELEMENTS for the whole."""
        return ALL_ELEMENTS if self.first < 0 else self.first + self.count

    @property
    def fault(self) -> str:
        """What no single field says: what is wrong with the range; "" for nothing."""
        return "a range of the whole" if self.first < 0 and self.count != 1 else ""


class _OfItem(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """What is done with an item; it lies where the item does."""

    item: Item

    @property
    def space(self) -> str:
        """See Item."""
        return self.item.space

    @property
    def start(self) -> int:
        """See Item."""
        return self.item.start

    @property
    def stop(self) -> int:
        """See Item."""
        return self.item.stop

    @property
    def count(self) -> int:
        """See Item."""
        return self.item.count


class Assign(_OfItem, frozen=True, gc=False, tag=1):
    """A write of an item. `value` is None where what it becomes depends on what the device holds, or is a form that
    nobody here can read; then no limit can be checked against it."""

    value: Value | None

    @property
    def exact(self) -> bool:
        """Whether the item holds `value` afterwards."""
        return self.value is not None


class Call(_OfItem, frozen=True, gc=False, tag=2):
    """A call of a method (the item) with arguments. Counts as a write."""

    arguments: Annotated[tuple[Value, ...], Meta(max_length=64)] = ()

    exact: ClassVar[bool] = True


class Opening(_OfItem, frozen=True, gc=False, tag=3):
    """The opening of a stream (the item), in which values then go both ways by themselves, a frame at least every
    `interval_us`. Counts as a write, which its frames' values then do not."""

    interval_us: Microseconds = 0

    exact: ClassVar[bool] = True


class Watch(_OfItem, frozen=True, gc=False, tag=2):
    """A standing read of an item, which the device looks at every `interval_us`: values come by themselves from then
    on. Counts as a read."""

    interval_us: Microseconds = 0


Read = Span | Item | Watch
Write = Change | Assign | Call | Opening


class Operation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one request asks of an asset, in the terms that policy judges.

    `function` is the protocol's own code (Modbus function code, with MEI type or diagnostics sub-function in
    `sub`, else -1). `unit` is the addressed unit behind the asset's address, or -1 where the protocol has none.
    `is_write` is True for whatever may change the device's state: such an operation is never sent twice and
    waits for the audit log. An operation without reads and writes (diagnostics, identification) is judged by
    its function alone. Where a watch is among the reads, or an opening among the writes, it is the only one: what
    stands afterwards has one verdict and one handle.

    `browse`: asks for a list of what there is. Whoever may do anything may ask it; of the answer each gets what
    concerns items with which it may do something. `never`: why no policy can allow it, in words; "" for all else.
    `body`: what it carries that nobody here understands, for the log alone.
    """

    function: int
    sub: int
    unit: int
    is_write: bool
    reads: tuple[Read, ...] = ()
    writes: tuple[Write, ...] = ()
    browse: bool = False
    never: str = ""
    body: bytes = b""


PAST = "history"
"""The kind of items that are a point's recorded values: its elements are seconds of a span of time."""


def cells_of(operation: Operation) -> int:
    """How many cells, or elements, it reads. A span of the past counts as one."""
    return sum(1 if isinstance(read, Item) and read.kind == PAST else read.count for read in operation.reads)


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
    STEP = "step"  # further from the last known value than max_step, or from those of late than max_rate
    RATE = "rate"  # more writes per minute than writes_per_minute
    WINDOW = "window"  # outside the conduit's time window
    EXPIRED = "expired"  # the conduit's expiry has passed
    TAKEN = "taken"  # the stream is another client's just now
    SEVERED = "severed"  # an operator has cut this side off
    AUDIT = "audit"  # the audit log cannot be written


class Deny(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A verdict: refused. `rule` is the rule that came nearest ("" if none), `fault` the field that failed in it,
    `detail` one sentence for people, with what was asked and what would be allowed."""

    conduit: str
    rule: str
    fault: Fault
    detail: str


class AllowBits(Allow, frozen=True, array_like=True, gc=False):
    """A verdict: only these bits of the word that is asked may be written. `operation` is that, and what is done and
    recorded in place of what was asked; `held` is what the word holds, -1 where the device puts bits in by itself."""

    operation: Operation
    held: int


class NeedValues(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Not a verdict yet: `max_step` needs the present value of these spans. Read them, then decide again."""

    spans: tuple[Span | Item, ...]


class Failure(enum.StrEnum):
    """Why an allowed request got no answer from the asset. A protocol has its own words for each."""

    UNREACHABLE = "unreachable"  # no connection to the asset
    TIMEOUT = "timeout"  # no (valid) answer in time
    BUSY = "busy"  # a queue or limit of ours is full; nothing was sent
    BAD_REPLY = "bad-reply"  # the asset answered, but not to what was asked


class Point(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A named value of an asset. Limits are in the point's own unit; None is no limit.

    `elements`: how many values of the type it has; more than one is an array. `max_length`: of a text in characters, of
    a byte string in bytes. `fastest_us`: the shortest interval at which it may be watched, 0 for any. `max_rate`: how
    far its value may move within any `rate_seconds`.
    """

    name: str
    at: Span | Item
    type: ValueType
    word_order: str = (
        "big"  # cells only; "big": most significant word first; "little": last; "-swapped": its bytes, too
    )
    unit: str = ""
    min: float | None = None
    max: float | None = None
    max_step: float | None = None
    writes_per_minute: int | None = None
    elements: int = 1
    max_length: int | None = None
    fastest_us: int = 0
    max_rate: float | None = None
    rate_seconds: int = 60
    values: tuple[float, ...] = ()  # the only ones that may be written; none: any within the limits
    scale: float = 1.0
    """What people mean is the value times this, plus `offset`. All limits above are in the device's own numbers."""
    offset: float = 0.0
    mask: int = 0
    """Which bits of its one word it is, without a gap between them; 0: all of its cells. Its value counts from the
    lowest of them."""
    bcd: bool = False
    """Its cells are decimal digits, four in a word."""
    structure: str = ""
    """It is a structure of this encoding, whose bytes may be read as they are, up to `max_length`; nobody writes it."""
    factor: Span | None = None
    """The word that holds, as an int16, the power of ten by which the value is multiplied; limits are in what that
    makes, and `scale` and `offset` are 1 and 0."""
    form: str = ""
    """What it is at the device, in the protocol's word, where that is another type, of which policy judges this form:
    DATE_TIME as a count, an identifier as its text. "": it is of its type."""
    dimensions: tuple[int, ...] = ()
    """It is a matrix of these, row by row in its `elements`."""


class Argument(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What a method takes, in one place of its call; the fields are those of `Point`."""

    name: str
    type: ValueType
    unit: str = ""
    min: float | None = None
    max: float | None = None
    elements: int = 1
    max_length: int | None = None
    form: str = ""


class Method(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What can be called at an asset. `writes_per_minute`: calls within any 60 seconds."""

    name: str
    at: Item
    arguments: tuple[Argument, ...] = ()
    writes_per_minute: int | None = None
    returns: tuple[Argument, ...] = ()  # without limits


class Notifier(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What events come from, and which of their fields: the item of each."""

    name: str
    at: Item
    fields: tuple[Item, ...]
    conditions: tuple[Method, ...] = ()
    """What may be told of conditions that its events show, with what is said in it."""


class Subtree(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A part of what an asset's server has, whose structure may be shown: from one object down, so many steps and so
    many nodes at most."""

    name: str
    at: Item
    depth: int
    nodes: int


class Stream(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A stream that can be opened to an asset. `fastest_us`: the shortest interval of its frames, 0 for any. The
    limits of its values are those of the asset's points."""

    name: str
    at: Item
    fastest_us: int = 0
    form: str = ""  # what it is made of, in the protocol's words
    group: str = ""  # the multicast group to which its frames go for clients that ask for that; "" for none
    config: str = ""  # bytes of configuration that an opening may bring, in hexadecimal; "" for none


class Shown(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Who a client has shown to be, beyond its address: a user, an application's URI, a certificate's thumbprint
    (hexadecimal SHA-1); "" for what it has not."""

    user: str = ""
    application: str = ""
    certificate: str = ""


NOBODY = Shown()
"""Known by the address alone."""


class Security(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """How an asset is spoken with, on either side, for protocols that can be secured. In the dialect's words: what
    clients may use, and what is used towards the asset. `server`: who the asset has to show to be; "" for anybody whose
    certificate is trusted. `user`: as whom we log in there; "" for nobody. `revocation`: certificates by an authority
    are good only with a current revocation list."""

    clients: tuple[str, ...]
    asset: str
    server: str = ""
    user: str = ""
    revocation: bool = False
    login: str = ""  # "certificate": we log in there by one


class Manners(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """How a device wants to be asked. They hold for the address, whatever units are behind it. Times in milliseconds; 0
    is what everybody has: no delay, no pause, and the gate's own idle time.

    `connect_delay_ms`: from the connection to the first request. `reconnect_delay_ms`: from the end of a connection to
    the next attempt. `pause_ms`: from an answer to the next request.
    `idle_ms`: a connection that nobody has used for so long is closed. `wait_ms`: how long a request may wait in line;
    -1 where it was not said. `repeat_reads`: a read whose connection broke is asked once more on a fresh one."""

    connect_delay_ms: int = 0
    reconnect_delay_ms: int = 0
    pause_ms: int = 0
    idle_ms: int = 0
    wait_ms: int = -1
    repeat_reads: bool = False
    keep_alive_ms: int = 0  # a connection that nobody has used for so long is used by the gate, for a read


class Tls(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Where a device is spoken with within TLS: by its clients, and by us. `name`: who it has to show to be; "": who
    has its address."""

    clients: bool
    asset: bool
    name: str = ""


PLAIN = Manners()
"""Those of a device of which nothing is said."""


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
    vendor_reads: tuple[int, ...] = ()
    """Functions of its vendor that are carried without being understood; the engineer says that they change nothing."""
    vendor_writes: tuple[int, ...] = ()  # those that may
    points: tuple[Point, ...] = ()
    methods: tuple[Method, ...] = ()
    streams: tuple[Stream, ...] = ()
    bits: tuple[str, ...] = ()  # its spaces whose cells are bits; those of all others are words
    kinds: tuple[tuple[str, str], ...] = ()
    """Kinds of items that it has, each with the characters after which a name goes on to a part of what stands before
    them."""
    route: str = ""  # how a request goes on from the address to the device, in the protocol's words
    connected: bool = False  # requests go within a connection of the protocol's own (Dialect.connected)
    broadcast: int = -2
    """The unit to which a write reaches more than one device; an asset of any unit does not take such a write."""
    bits_of: tuple[tuple[str, str, int], ...] = ()
    """Spaces of bits that are kept in words of another space: the one, the other, and the word of the first bit."""
    security: Security | None = None
    manners: Manners = PLAIN
    tls: Tls | None = None
    device_unit: int = -1  # what the device itself is called, where that is another than `unit`; -1: it is not
    present: tuple[Point, ...] = ()
    """Words whose present value some write is judged from, besides points: those with bits that may be written, and
    those that hold another's factor. Called as the protocol writes them, "holding 88", so that no point is."""
    notifiers: tuple[Notifier, ...] = ()
    subtrees: tuple[Subtree, ...] = ()
    namespaces: tuple[tuple[str, str], ...] = ()
    """Short names for what names of items begin with: (short, long)."""
    read_first: bool = False
    """It knows no writes of single bits: the gate reads a word, puts them in and writes it."""
    also: tuple[tuple[str, int], ...] = ()  # further places where the outer half answers (the other IP version)
    calls_at: tuple[str, int] | None = None
    """Where the inner half waits for the device, which opens connections to us; None: we open them."""
    clients: tuple[tuple[str, int], ...] = ()  # clients to which the outer half opens connections for it

    @property
    def places(self) -> tuple[tuple[str, int], ...]:
        """Everywhere that the outer half answers for it."""
        return (() if self.listen is None else (self.listen,)) + self.also
