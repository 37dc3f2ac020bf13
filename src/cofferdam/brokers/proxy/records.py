"""All that the two halves of a proxy can say to each other.

Messages travel as the protocol's own typed messages, never as bytes from the wire: a field that no message has can
not cross. The inner half believes nothing of it: a session's source is what the outer half says it is (only the
outer half has seen the client), so a session never gets more than policy gives to some principal; and every request
is decided again.

Three shapes cross. A *call* is a Request and its Reply. A *watch* is a Watch, answered by Watched; from then on Notices
come. A *stream* is opened by a Request, answered by Watched too; then Frames go both ways. What stands is named by its
handle, which the inner half gives out: the outer half knows none that it was not given, and one of another session, or
one that never was, ends the half that says it. A protocol without watches or streams has no such records.

A read that comes again and again may cross by a place, where the inner half keeps its message (kept).
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Generic, TypeVar

from msgspec import Meta, Struct

from cofferdam.crossing.records import RecordCodec
from cofferdam.model import Failure, Fault
from cofferdam.policy.table import CompiledPolicy
from cofferdam.protocols.registry import PROTOCOLS, Protocols

M = TypeVar("M")

MOST_ID: Final = (1 << 63) - 1
Id = Annotated[int, Meta(ge=1, le=MOST_ID)]
Ns = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Name = Annotated[str, Meta(max_length=128)]
Source = Annotated[str, Meta(max_length=80)]
"""An address, or a conduit of the jump server by which somebody comes."""
Text = Annotated[str, Meta(max_length=512)]
PLACES: Final = 2048
"""Reads that the inner half keeps, at most: as many as a flow remembers."""
Place = Annotated[int, Meta(ge=1, le=PLACES)]
GATHERED: Final = 128
"""Reads that are asked for in one record, and answers that come in one."""
MOST_LOST = (1 << 31) - 1
MOST_ALSO = 999
Lost = Annotated[int, Meta(ge=0, le=MOST_LOST)]


# --- outer to inner ---------------------------------------------------------------------------------------------


class Opened(Struct, frozen=True, gc=False, array_like=True, tag=1, forbid_unknown_fields=True):
    """A client may speak with an asset: requests of this session follow."""

    session: Id
    name: Name  # the session's name in the audit log
    source: Source
    asset: Name
    user: Text = ""
    application: Text = ""
    certificate: Name = ""
    lent: Name = ""  # by which session of another broker it has come (kit.seam)


class Request(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=2, forbid_unknown_fields=True):
    """One request that the outer half found allowed. `id` is new in each request and comes back in the answer. `born`:
    of a write, when it was taken from its client (monotonic ns; both halves have one clock): it is no younger than
    that, however long it lay in between."""

    session: Id
    id: Id
    message: M
    born: Ns = 0


class Watch(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=4, forbid_unknown_fields=True):
    """A request whose good answer leaves a watch standing. `id` is counted with those of Request."""

    session: Id
    id: Id
    message: M


class Unwatch(Struct, frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The client gives up what stands by this handle, a watch or a stream; `silent`: it has sent nothing in time. For
    the log, of the ten seconds before: the longest time in which nothing was sent to it (`paused`), and in which the
    half that says so did not look (`held`); ns, 0 for none to speak of."""

    session: Id
    handle: Id
    silent: bool = False
    paused: Ns = 0
    held: Ns = 0


class Frame(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=6, forbid_unknown_fields=True):
    """A frame of the stream of this handle. The same in both directions; none is answered. `born`: when the half that
    says it had read it (monotonic ns; both have one clock), for figures alone; `lost`: so many before it have not come
    to that half, for the log."""

    handle: Id
    message: M
    born: Ns = 0
    lost: Lost = 0


class Kept(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """A Request for a read that the inner half keeps at this place, so that it can be asked for by Again. What was kept
    there is forgotten."""

    session: Id
    id: Id
    message: M
    place: Place


class Again(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """Requests for reads that are kept, whoever asked for them first: what one turn brought. `asked`: the session and
    the place of each, one after the other; `first`: the id of the first, from which the others count on."""

    first: Id
    asked: Annotated[list[Id], Meta(min_length=2, max_length=2 * GATHERED)]


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


class Rows(Struct, frozen=True, gc=False, array_like=True, tag=9, forbid_unknown_fields=True):
    """Replies to reads whose good answers are a row of values, the rest of which follows from the request
    (`Protocol.rows`): what one turn brought. `numbers`: of each, one after the other, its id, and the durations that
    Reply has; `rows`: the values of each."""

    numbers: Annotated[list[Ns], Meta(min_length=3, max_length=3 * GATHERED)]
    rows: Annotated[list[bytes], Meta(min_length=1, max_length=GATHERED)]


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


class Watched(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=5, forbid_unknown_fields=True):
    """The asset's answer, as in Reply, after which what was asked for stands: a watch, or an open stream."""

    id: Id
    handle: Id
    message: M
    device_ns: Ns
    waited_ns: Ns


class Notice(Struct, Generic[M], frozen=True, gc=False, array_like=True, tag=7, forbid_unknown_fields=True):
    """News for the watch of this handle, and of those in `also`: what many have asked for crosses once."""

    handle: Id
    message: M
    also: Annotated[tuple[Id, ...], Meta(max_length=MOST_ALSO)] = ()


class Unwatched(Struct, frozen=True, gc=False, array_like=True, tag=8, forbid_unknown_fields=True):
    """What stood by this handle does no longer. `fault`: policy has ended it; None: the asset has, or is away."""

    handle: Id
    conduit: Name
    rule: Name
    fault: Fault | None
    detail: Text


# What a protocol's messages make of the records; to a type checker they are made at run time.
_REQUEST: Any = Request
_WATCH: Any = Watch
_KEPT: Any = Kept
_FRAME: Any = Frame
_REPLY: Any = Reply
_WATCHED: Any = Watched
_NOTICE: Any = Notice


def to_inner(policy: CompiledPolicy, broker: str, protocols: Protocols = PROTOCOLS) -> RecordCodec[Any]:
    """The codec of the pipe from outer to inner, for a protocol's requests."""
    protocol = protocols[broker]
    union: Any = Opened | _REQUEST[protocol.request_type] | Closed
    if protocol.repeats:
        union = union | _KEPT[protocol.request_type] | Again
    if protocol.notice_type is not None:
        union = union | _WATCH[protocol.request_type] | Unwatch
    if protocol.frame_type is not None:
        union = union | _FRAME[protocol.frame_type] | Unwatch
    return RecordCodec(union, limit=policy.limits.record_bytes)


def to_outer(policy: CompiledPolicy, broker: str, protocols: Protocols = PROTOCOLS) -> RecordCodec[Any]:
    """The codec of the pipe from inner to outer, for a protocol's responses."""
    protocol = protocols[broker]
    union: Any = _REPLY[protocol.response_type] | Denied | Failed | Ended
    if protocol.rows:
        union = union | Rows
    if protocol.notice_type is not None:
        union = union | _WATCHED[protocol.response_type] | _NOTICE[protocol.notice_type] | Unwatched
    if protocol.frame_type is not None:
        union = union | _WATCHED[protocol.response_type] | _FRAME[protocol.frame_type] | Unwatched
    return RecordCodec(union, limit=policy.limits.record_bytes)
