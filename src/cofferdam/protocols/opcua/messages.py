"""What crosses: requests, answers and news about named things. No NodeId of a server, no channel, no session, no token.

A node is named by the one spelling of its URI and identifier (dialect.canonical), so no half ever counts in the other's
namespaces. Values are `values.Value`s, or one of the kinds below that a policy has no types for and nobody can write.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

import msgspec
from msgspec import Meta

from cofferdam.model import Assign, Item, Microseconds
from cofferdam.values import (
    Bool,
    Float32,
    Float64,
    Int8,
    Int16,
    Int32,
    Int64,
    Octets,
    Text,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Value,
)

READ_ITEMS, WRITE_ITEMS, SURVEY_ITEMS, HISTORY_VALUES, CALLS = 1000, 100, 1000, 10_000, 10
STRUCTURE_BYTES = 65_536
HEAD_BYTES, NUMBER_BYTES = 6, 24
"""Of what stands beside a number, and of a number with its two times."""
FIELDS, EVENTS, OF_TYPES, TYPES = 100, 1000, 20, 200
"""Fields of an event; events of one notice; types of which subtypes are wanted as well, and such of which they are
not."""
NODES = 4000
"""Nodes of one description: what was asked for, and the objects on the way to it."""

Status = Annotated[int, Meta(ge=0, lt=1 << 32)]
Ticks = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""100 ns since 1601 (OPC 10000-6, 5.2.2.5)."""
Name = Annotated[str, Meta(max_length=6000)]
Short = Annotated[str, Meta(max_length=4096)]
Field = Annotated[str, Meta(min_length=1, max_length=1024)]


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The form that all have."""


# ---- values that policy has no types for ----


class Times(_Message, frozen=True, tag="time"):
    builtin: ClassVar[int] = 13
    values: Annotated[tuple[Ticks, ...], Meta(max_length=65536)]
    array: bool = False


class Guids(_Message, frozen=True, tag="guid"):
    builtin: ClassVar[int] = 14
    values: Annotated[tuple[Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")], ...],
                      Meta(max_length=65536)]  # fmt: skip
    array: bool = False


class Statuses(_Message, frozen=True, tag="status"):
    builtin: ClassVar[int] = 19
    values: Annotated[tuple[Status, ...], Meta(max_length=65536)]
    array: bool = False


class Localized(_Message, frozen=True):
    locale: Short
    text: Annotated[str, Meta(max_length=65536)]


class Texts(_Message, frozen=True, tag="localized"):
    builtin: ClassVar[int] = 21
    values: Annotated[tuple[Localized, ...], Meta(max_length=65536)]
    array: bool = False


class Names(_Message, frozen=True, tag="names"):
    """QualifiedNames: (URI, name). One in a namespace that the policy does not list makes the value unreadable."""

    builtin: ClassVar[int] = 20
    values: Annotated[tuple[tuple[Name, Short], ...], Meta(max_length=65536)]
    array: bool = False


class Nodes(_Message, frozen=True, tag="nodes"):
    """NodeIds, in their one spelling."""

    builtin: ClassVar[int] = 17
    values: Annotated[tuple[Name, ...], Meta(max_length=65536)]
    array: bool = False


class Markups(_Message, frozen=True, tag="xml"):
    """XmlElements, as their characters. Nobody has parsed them."""

    builtin: ClassVar[int] = 16
    values: Annotated[tuple[Annotated[str, Meta(max_length=65536)], ...], Meta(max_length=65536)]
    array: bool = False


class Structures(_Message, frozen=True, tag="structure"):
    """Structures of one encoding, whose bytes nobody has looked at: where a point says so, and nowhere else."""

    builtin: ClassVar[int] = 22
    values: Annotated[tuple[Annotated[bytes, Meta(max_length=STRUCTURE_BYTES)], ...], Meta(max_length=1000)]
    encoding: Name
    array: bool = False


AnyValue: TypeAlias = (
    Bool | Int8 | UInt8 | Int16 | UInt16 | Int32 | UInt32 | Int64 | UInt64 | Float32 | Float64 | Text | Octets
    | Times | Guids | Statuses | Texts | Names | Nodes | Markups | Structures
)  # fmt: skip


class Sample(_Message, frozen=True):
    """A value with its quality and its times; 0 for no time. `dimensions`: of a matrix, whose elements the value has
    row by row; none for any other value."""

    value: AnyValue | None
    status: Status = 0
    source: Ticks = 0
    server: Ticks = 0
    dimensions: Annotated[tuple[Annotated[int, Meta(ge=0, le=65536)], ...], Meta(max_length=10)] = ()


# ---- requests; the tag is the function code ----


class Read(_Message, frozen=True, cache_hash=True, tag=631):
    """What is asked again is looked up by it each time."""

    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=READ_ITEMS)]


class Write(_Message, frozen=True, tag=673):
    """`localized`: the places of texts that are LocalizedTexts at the server, without a locale."""

    writes: Annotated[tuple[Assign, ...], Meta(min_length=1, max_length=WRITE_ITEMS)]
    localized: Annotated[tuple[Annotated[int, Meta(ge=0, lt=WRITE_ITEMS)], ...], Meta(max_length=WRITE_ITEMS)] = ()


class CallMethod(_Message, frozen=True, tag=712):
    """`localized`: the places of texts that are LocalizedTexts at the server, without a locale."""

    item: Item
    arguments: Annotated[tuple[Value, ...], Meta(max_length=64)] = ()
    localized: Annotated[tuple[Annotated[int, Meta(ge=0, lt=64)], ...], Meta(max_length=64)] = ()


class CallMethods(_Message, frozen=True, tag=711):
    """Several, judged as one: with one that is not allowed none is called. Their order is the server's affair."""

    calls: Annotated[tuple[CallMethod, ...], Meta(min_length=2, max_length=CALLS)]


class Survey(_Message, frozen=True, tag=527):
    """What these nodes are, and the objects on the way to them; of a subtree of the policy's (kind "tree") also what
    stands below."""

    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=SURVEY_ITEMS)]


class History(_Message, frozen=True, tag=664):
    """Recorded values from `start` to `end`, the oldest first unless `end` is before `start`; 0: open."""

    item: Item
    start: Ticks
    end: Ticks
    most: Annotated[int, Meta(ge=1, le=HISTORY_VALUES)]
    bounds: bool = False


class Subscribe(_Message, frozen=True, tag=751):
    """`trigger` 0 status, 1 status and value, 2 and its time; `deadband`: an absolute one, 0 for none."""

    item: Item
    interval_us: Microseconds
    queue: Annotated[int, Meta(ge=1, le=100)] = 1
    oldest: bool = True
    trigger: Annotated[int, Meta(ge=0, le=2)] = 1
    deadband: Annotated[float, Meta(ge=0, le=1e300)] = 0.0


class Events(_Message, frozen=True, tag=727):
    """Events of a notifier: `fields` of each, as (type that has it, field). Those of at least this severity, and, where
    types are named, of one `of` them or its subtypes, or `exactly` one. `refresh`: the conditions that there are tell
    first how they stand."""

    item: Item
    interval_us: Microseconds
    fields: Annotated[tuple[tuple[Name, Field], ...], Meta(min_length=1, max_length=FIELDS)]
    queue: Annotated[int, Meta(ge=1, le=EVENTS)] = 1
    oldest: bool = True
    severity: Annotated[int, Meta(ge=0, le=1000)] = 0
    of: Annotated[tuple[Name, ...], Meta(max_length=OF_TYPES)] = ()
    exactly: Annotated[tuple[Name, ...], Meta(max_length=TYPES)] = ()
    refresh: bool = False


# ---- responses ----


class Values(_Message, frozen=True, tag=634):
    samples: Annotated[tuple[Sample, ...], Meta(max_length=READ_ITEMS)]


class Numbers(_Message, frozen=True, tag=635):
    """Values that are single numbers, or none: `heads`, of each the fields that there are (1 value, 2 status, 4 and 8
    the times), the builtin type and the status, in 6 bytes; `data`, of each the number and the times, side by side as
    little-endian fields. What is not among the fields is 0 in the heads, and not in the data."""

    heads: Annotated[bytes, Meta(min_length=HEAD_BYTES, max_length=HEAD_BYTES * READ_ITEMS)]
    data: Annotated[bytes, Meta(max_length=NUMBER_BYTES * READ_ITEMS)]


class Written(_Message, frozen=True, tag=676):
    results: Annotated[tuple[Status, ...], Meta(max_length=WRITE_ITEMS)]


class Outputs(_Message, frozen=True, tag=715):
    status: Status
    inputs: Annotated[tuple[Status, ...], Meta(max_length=64)]
    outputs: Annotated[tuple[AnyValue | None, ...], Meta(max_length=64)]


class Results(_Message, frozen=True, tag=714):
    results: Annotated[tuple[Outputs, ...], Meta(min_length=2, max_length=CALLS)]


class Node(_Message, frozen=True):
    """What a node is. `parents`: (its place in the description, the type of the reference) of what it hangs on;
    `klass` 1 object, 2 variable, 4 method; `type`: its type definition, or ""."""

    id: Name
    klass: Annotated[int, Meta(ge=1, le=128)]
    name: tuple[Name, Short]
    display: Localized
    type: Name = ""
    data_type: Name = ""
    rank: Annotated[int, Meta(ge=-3, le=100)] = -1
    access: Annotated[int, Meta(ge=0, le=255)] = 0
    parents: Annotated[tuple[tuple[Annotated[int, Meta(ge=-1, le=NODES)], Name], ...], Meta(max_length=64)] = ()
    """-1: Objects itself."""
    historizing: bool = False


class Described(_Message, frozen=True, tag=530):
    nodes: Annotated[tuple[Node, ...], Meta(max_length=NODES)]


class Samples(_Message, frozen=True, tag=667):
    samples: Annotated[tuple[Sample, ...], Meta(max_length=HISTORY_VALUES)]
    more: bool = False
    """There are more than were asked for."""


class Subscribed(_Message, frozen=True, tag=754):
    """The watch stands. `refreshed`: what came of a refresh."""

    interval_us: Microseconds
    queue: Annotated[int, Meta(ge=1, le=100)]
    refreshed: Status = 0


class Refused(_Message, frozen=True, tag=397):
    """The whole request was not done, with the status that says why."""

    status: Status


# ---- news ----


class Changed(_Message, frozen=True, tag=811):
    samples: Annotated[tuple[Sample, ...], Meta(min_length=1, max_length=1000)]


Happening = Annotated[tuple[AnyValue | None, ...], Meta(min_length=1, max_length=FIELDS)]
"""An event: the values of the fields that were asked for, in their order."""


class Happened(_Message, frozen=True, tag=916):
    events: Annotated[tuple[Happening, ...], Meta(min_length=1, max_length=EVENTS)]


OpcUaRequest: TypeAlias = Read | Write | CallMethod | CallMethods | Survey | History | Subscribe | Events
OpcUaNotice: TypeAlias = Changed | Happened
OpcUaResponse: TypeAlias = Values | Numbers | Written | Outputs | Results | Described | Samples | Subscribed | Refused
