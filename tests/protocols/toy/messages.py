"""The toy's messages: what crosses, and what only the wire knows."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from cofferdam.model import Assign, Item, Microseconds
from cofferdam.values import Value

Id = Annotated[int, Meta(ge=0, lt=1 << 32)]


class _Message(msgspec.Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The form that all have."""


# ---- requests; the tag is the function code ----


class Read(_Message, frozen=True, tag=1):
    items: Annotated[tuple[Item, ...], Meta(min_length=1, max_length=100)]


class Write(_Message, frozen=True, tag=2):
    writes: Annotated[tuple[Assign, ...], Meta(min_length=1, max_length=100)]


class CallMethod(_Message, frozen=True, tag=3):
    item: Item
    arguments: Annotated[tuple[Value, ...], Meta(max_length=16)] = ()


class Subscribe(_Message, frozen=True, tag=4):
    item: Item
    interval_us: Microseconds


class Open(_Message, frozen=True, tag=5):
    item: Item
    interval_us: Microseconds


class Uptime(_Message, frozen=True, tag=7):
    pass


class Restart(_Message, frozen=True, tag=8):
    pass


# ---- responses ----


class Values(_Message, frozen=True, tag=101):
    values: Annotated[tuple[Value, ...], Meta(max_length=100)]


class Done(_Message, frozen=True, tag=102):
    """Written, called, restarted."""


class Agreed(_Message, frozen=True, tag=104):
    """The watch, or the stream, stands."""


class Seconds(_Message, frozen=True, tag=107):
    seconds: Annotated[int, Meta(ge=0, lt=1 << 32)]


class Refusal(_Message, frozen=True, tag=199):
    """No. 1 not allowed, 2 unknown, 3 value, 4 busy, 5 away, 6 malformed."""

    code: Annotated[int, Meta(ge=1, le=6)]


# ---- what comes by itself ----


class News(_Message, frozen=True, tag=110):
    value: Value


class Signal(_Message, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    value: Value


class Signals(_Message, frozen=True, tag=111):
    """One frame of a stream: parts of it by name."""

    signals: Annotated[tuple[Signal, ...], Meta(max_length=32)]


# ---- on the wire alone ----


class Hello(_Message, frozen=True, tag=120):
    version: Annotated[int, Meta(ge=0, le=255)]


class Welcome(_Message, frozen=True, tag=121):
    pass


class Ping(_Message, frozen=True, tag=122):
    pass


class Pong(_Message, frozen=True, tag=123):
    pass


class Who(_Message, frozen=True, tag=124):
    """Answered by whoever is at the other end of the wire."""


class Name(_Message, frozen=True, tag=125):
    name: Annotated[str, Meta(max_length=64)]


class Drop(_Message, frozen=True, tag=126):
    """Gives up what stands by the request of this id."""

    standing: Id


class Over(_Message, frozen=True, tag=127):
    """What stood by the request of this id has ended."""

    code: Annotated[int, Meta(ge=1, le=6)]


ToyRequest: TypeAlias = Read | Write | CallMethod | Subscribe | Open | Uptime | Restart
ToyResponse: TypeAlias = Values | Done | Agreed | Seconds | Refusal
FromClient: TypeAlias = ToyRequest | Signals | Hello | Pong | Who | Drop
FromServer: TypeAlias = ToyResponse | News | Signals | Welcome | Ping | Name | Over
