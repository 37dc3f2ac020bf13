"""What is asked and answered, as it crosses. Names and values are typed; no field holds bytes of a request.

The one field of bytes is a structure's value (`Octets`), of a tag whose point is a `structure`; policy sees it as one
value that it cannot look into, so a structure with limited points in it cannot be written whole.

Not here: what their fields' types cannot say (faults), their bytes (requests, replies), what they mean to policy
(operations).
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from cofferdam.model import Item
from cofferdam.values import Value

U8 = Annotated[int, Meta(ge=0, lt=1 << 8)]
U16 = Annotated[int, Meta(ge=0, lt=1 << 16)]
U32 = Annotated[int, Meta(ge=0, lt=1 << 32)]
Symbolic = Annotated[str, Meta(min_length=1, max_length=128)]

LONGEST = 1400
"""Bytes of data in one packet of an I/O connection, at most: one datagram."""
FASTEST_US, SLOWEST_US = 2_000, 10_000_000
Rpi = Annotated[int, Meta(ge=FASTEST_US, le=SLOWEST_US)]
"""An interval of packets, in µs."""
SYMBOLS = 20_000
"""Tags of one list, at most."""
MEMBERS = 2000
"""Members of one structure, at most."""
PROGRAM = 48
"""Characters of a program's name, with what stands before it, at most."""
PARTS = 200
"""Requests in one packet, at most."""
SIDE_BY_SIDE = 8192
"""Bytes of values that cross side by side, at most."""
ATTRIBUTES = 64
"""Attributes of one Get Attribute List, at most."""


class Message(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    pass


# ---- requests ----


class ReadTag(Message, frozen=True, tag=1, cache_hash=True):
    """Read Tag, whole or in pieces (services 4C and 52)."""

    item: Item


class WriteTag(Message, frozen=True, tag=2):
    """Write Tag, whole or in pieces (4D and 53). `code`: its type; `handle`: that of a structure, 0 for anything
    else."""

    item: Item
    code: U16
    handle: U16
    value: Value


class WriteBit(Message, frozen=True, tag=3):
    """Read Modify Write (4E) of one bit; the item is "tag NAME.BIT". `size`: of the tag, in bytes."""

    item: Item
    size: Literal[1, 2, 4, 8]
    value: bool


class ModifyTag(Message, frozen=True, tag=4):
    """Read Modify Write (4E) of several bits: what the tag becomes depends on what it holds. Masks as numbers."""

    item: Item
    size: Literal[1, 2, 4]
    or_mask: U32
    and_mask: U32


class GetAttribute(Message, frozen=True, tag=5):
    """Get Attribute Single (0E)."""

    item: Item


class SetAttribute(Message, frozen=True, tag=6):
    """Set Attribute Single (10)."""

    item: Item
    value: Value


class Service(Message, frozen=True, tag=7):
    """A service without data on an object, that policy names by service and class."""

    service: Annotated[int, Meta(ge=1, le=127)]
    cls: U16
    instance: U32


class Unserved(Message, frozen=True, tag=8):
    """What nobody serves here: no policy can allow it, and so it never crosses. It is said to be judged and
    recorded."""

    service: Annotated[int, Meta(ge=0, le=127)]
    cls: Annotated[int, Meta(ge=-1, lt=1 << 16)]
    why: Annotated[str, Meta(max_length=256)]


class Identify(Message, frozen=True, tag=9):
    """The identity object (01 on class 1, instance 1), also for ListIdentity."""


class ListTags(Message, frozen=True, tag=10):
    """All tags of the controller, or of a program ("Program:Main"): 55 on class 6B, page by page."""

    program: Annotated[str, Meta(max_length=PROGRAM)] = ""


class DescribeStructure(Message, frozen=True, tag=11):
    """A structure's template (03 and 4C on class 6C)."""

    instance: U16


class Packet(Message, frozen=True, tag=12, cache_hash=True, gc=True, weakref=True):
    """A Multiple Service Packet (0A) that is asked as one. What is found out of it goes with it (together)."""

    parts: Annotated[
        tuple[ReadTag | WriteTag | WriteBit | ModifyTag | GetAttribute | SetAttribute, ...],
        Meta(min_length=1, max_length=PARTS),
    ]


class GetAttributes(Message, frozen=True, tag=13):
    """Get Attribute List (03): several of one instance."""

    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=ATTRIBUTES)]


class Key(Message, frozen=True):
    """An electronic key: which device is meant. 0 for any; `compatible`: or one that stands in for it."""

    vendor: U16
    device: U16
    product: U16
    major: Annotated[int, Meta(ge=0, lt=128)]
    minor: U8
    compatible: bool


class OpenIo(Message, frozen=True, tag=14):
    """A Forward Open of class 0 or 1. RPIs in µs; the time-out is four RPIs, doubled `multiplier` times. `key`: the
    device is asked who it is before. `config`: it brings the stream's configuration, whose bytes the policy has."""

    item: Item
    rpi_out: Rpi
    rpi_in: Rpi
    multiplier: Annotated[int, Meta(ge=0, le=7)]
    cls: Literal[0, 1]
    key: Key | None = None
    config: bool = False


# ---- responses ----


class Held(Message, frozen=True, tag=101):
    """What a tag or an attribute holds. `code`, its type, is 0 for an attribute: CIP says none there."""

    code: U16
    handle: U16
    value: Value


class Done(Message, frozen=True, tag=102):
    """Written; carried out."""


class CipError(Message, frozen=True, tag=103):
    """No: a general status and its additional words."""

    status: Annotated[int, Meta(ge=1, lt=256)]
    more: Annotated[tuple[U16, ...], Meta(max_length=8)] = ()


class Identity(Message, frozen=True, tag=104):
    vendor: U16
    device: U16
    product: U16
    major: U8
    minor: U8
    status: U16
    serial: U32
    name: Annotated[str, Meta(max_length=255)]


class Symbol(Message, frozen=True):
    """A tag of the list: the device's number for it, its name as the device spells it, its type word and dimensions."""

    instance: U32
    name: Symbolic
    code: U16
    dimensions: tuple[U32, U32, U32]


class TagList(Message, frozen=True, tag=105):
    symbols: Annotated[tuple[Symbol, ...], Meta(max_length=SYMBOLS)]


class Member(Message, frozen=True):
    name: Annotated[str, Meta(max_length=128)]
    info: U16
    code: U16
    offset: U32


class Structure(Message, frozen=True, tag=106):
    """A template: `handle` as in reads, `size` in bytes, `name` as the device writes it."""

    handle: U16
    size: U32
    name: Annotated[str, Meta(max_length=256)]
    members: Annotated[tuple[Member, ...], Meta(max_length=MEMBERS)]


class Answers(Message, frozen=True, tag=107):
    """One answer for each part of a packet."""

    parts: Annotated[tuple[Held | Done | CipError, ...], Meta(min_length=1, max_length=PARTS)]


class HeldList(Message, frozen=True, tag=108):
    """The values of GetAttributes, or the status of each that has none."""

    values: Annotated[tuple[Value | U8, ...], Meta(min_length=1, max_length=ATTRIBUTES)]


class HeldAll(Message, frozen=True, tag=110):
    """What all the tags hold that a packet reads, or the one of a read: their types by one byte each, all of them of
    numbers, and their values side by side, little-endian. A bool is 0 or 1."""

    codes: Annotated[bytes, Meta(min_length=1, max_length=PARTS)]
    data: Annotated[bytes, Meta(min_length=1, max_length=SIDE_BY_SIDE)]


class IoOpened(Message, frozen=True, tag=109):
    """The I/O connection is open, with these RPIs (µs)."""

    rpi_out: Rpi
    rpi_in: Rpi


# ---- what comes by itself ----


class IoData(Message, frozen=True, tag=130):
    """One packet of an I/O connection: whether its sequence count has moved since the one before, whether it says run,
    and the data of its assembly, of which policy sees the points that lie in it."""

    moved: bool
    run: bool
    data: Annotated[bytes, Meta(max_length=LONGEST)]


EnipRequest: TypeAlias = (
    ReadTag | WriteTag | WriteBit | ModifyTag | GetAttribute | SetAttribute | Service | Unserved | Identify | ListTags
    | DescribeStructure | Packet | GetAttributes | OpenIo
)  # fmt: skip
EnipResponse: TypeAlias = (
    Held | Done | CipError | Identity | TagList | Structure | Answers | HeldList | IoOpened | HeldAll
)
