"""All that the two halves of a proxy can say to each other.

Messages travel as the protocol's own typed messages, never as bytes from the wire: a field that no message has can
not cross. The inner half believes nothing of it: a session's source is what the outer half says it is (only the
outer half has seen the client), so a session never gets more than policy gives to some principal; and every request
is decided again.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.model import Failure, Fault
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.registry import PROTOCOLS

M = TypeVar("M")

Id = Annotated[int, Meta(ge=1, le=(1 << 63) - 1)]
Ns = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Name = Annotated[str, Meta(max_length=128)]
Address = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=512)]


# --- outer to inner ---------------------------------------------------------------------------------------------


class Opened(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """A client may speak with an asset: requests of this session follow."""

    session: Id
    name: Name  # the session's name in the audit log
    source: Address
    asset: Name


class Request(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """One request that the outer half found allowed. `id` is new in each request and comes back in the answer."""

    session: Id
    id: Id
    message: M


class Closed(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """The session is over; answers to what is under way are no longer wanted."""

    session: Id


# --- inner to outer ---------------------------------------------------------------------------------------------


class Reply(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """The asset's answer. `device_ns`: from sending the request to the asset to its answer; `waited_ns`: for a free
    place at the asset and for the disk; `shared`: the asset was not asked for it."""

    id: Id
    message: M
    device_ns: Ns
    waited_ns: Ns
    shared: bool = False


class Denied(Struct, frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """The inner half refuses the request; nothing was sent to the asset."""

    id: Id
    conduit: Name
    rule: Name
    fault: Fault
    detail: Text


class Failed(Struct, frozen=True, gc=False, array_like=True, tag=3, forbid_unknown_fields=True):
    """The request was allowed and got no answer from the asset."""

    id: Id
    failure: Failure
    device_ns: Ns
    waited_ns: Ns


class Ended(Struct, frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """The inner half ends the session: policy no longer allows it, or something in it went wrong."""

    session: Id
    reason: Text


def to_inner(policy: CompiledPolicy, broker: str) -> RecordCodec[Any]:
    """The codec of the pipe from outer to inner, for a protocol's requests."""
    request_type = PROTOCOLS[broker].request_type
    return RecordCodec(Opened | Request[request_type] | Closed, limit=policy.limits.record_bytes)  # type: ignore[valid-type]


def to_outer(policy: CompiledPolicy, broker: str) -> RecordCodec[Any]:
    """The codec of the pipe from inner to outer, for a protocol's responses."""
    response_type = PROTOCOLS[broker].response_type
    return RecordCodec(Reply[response_type] | Denied | Failed | Ended, limit=policy.limits.record_bytes)  # type: ignore[valid-type]
