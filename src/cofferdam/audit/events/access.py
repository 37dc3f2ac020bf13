"""Events of proxies: sessions, reads, writes, refusals, limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cofferdam.audit.events.base import (
    Address,
    Cell,
    Count,
    Event,
    Name,
    Names,
    Port,
    Small,
    Text,
    WallNs,
)
from cofferdam.audit.events.lines import Line, Said, many, seconds, span_ns, times, who

ITEM, VALUE = 512, 4096
"""Greatest lengths in characters: of an item's name with its range, of a value."""
ITEMS = 256
"""Items of one request that an entry names; a request with more is refused."""
Items = Annotated[tuple["OfItem", ...], Meta(max_length=ITEMS)]


class Written(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Raw cells that a write sets, in address order: words 0-65535, bits 0 or 1."""

    space: Name
    start: Cell
    values: Annotated[tuple[Cell, ...], Meta(max_length=2048)]


class PointValue(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A named point's value in its own unit. `value` is text, so that no JSON tool rounds it: see `number`."""

    point: Name
    value: Name
    unit: Name = ""


class Cells(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Cells that a request named. `count` is what a client claimed: no standard bounds it."""

    space: Name
    start: Cell
    count: Count


class OfItem(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An item that a request named, what it asked to do with it, and the values that it brought: one for a write, none
    where nobody can tell it, each argument of a call. Values are text, as `PointValue`'s are. What is too long ends in
    its SHA-256."""

    item: Annotated[str, Meta(max_length=ITEM)]
    act: Literal["read", "write", "call", "subscribe", "stream"]
    type: Name = ""
    values: Annotated[tuple[Annotated[str, Meta(max_length=VALUE)], ...], Meta(max_length=64)] = ()


class SessionOpened(Event, frozen=True, kw_only=True):
    """A client's session begins. `session` is unique in the log (the maker sees to that)."""

    session: Name
    half: Name
    source: Address
    source_port: Port
    asset: Name
    principals: Names = ()
    conduits: Names = ()


class ClientIdentified(Event, frozen=True, kw_only=True):
    """A client has shown who it is, beyond its address, in a protocol in which it can: a user, an application, a
    certificate (thumbprint). It is judged as `principals` from now on; a session on a gateway's port may be none. Who
    comes by a port of the jump server is the person, and `access` is the session there (`access-opened`)."""

    session: Name
    source: Address
    user: Text = ""
    application: Text = ""
    certificate: Name = ""
    principals: Names = ()
    access: Name = ""


class SessionClosed(Event, frozen=True, kw_only=True):
    """A client's session ended. Counts are of requests: all, refused by policy, malformed, and writes done."""

    session: Name
    reason: Text
    requests: Count = 0
    refused: Count = 0
    malformed: Count = 0
    writes: Count = 0
    bytes_in: Count = 0
    bytes_out: Count = 0
    opened_ns: WallNs = 0


class WriteAllowed(Event, frozen=True, kw_only=True):
    """A write was allowed and is about to be sent. It is sent only after this entry is durable. `write` is unique
    in the log and ties it to its `WriteOutcome`. `exact` is False where the cells depend on what the device holds
    (Modbus mask write: values are the and- and or-mask). `function` is the protocol's, `sub` its subfunction
    or -1, `unit` the unit or -1. `writes` are raw cells, `items` what is written by name, called, or opened as a
    stream; `points` are the values in the policy's names and units, `before` what those of them held that have a
    `max_step` or `max_rate`, `body` the bytes of a vendor's function, which nobody here understands (hex)."""

    session: Name
    write: Name
    principals: Names
    source: Address
    asset: Name
    conduit: Name
    rule: Name
    function: Small
    sub: Small = -1
    unit: Small = -1
    writes: Annotated[tuple[Written, ...], Meta(max_length=64)] = ()
    points: Annotated[tuple[PointValue, ...], Meta(max_length=256)] = ()
    exact: bool = True
    items: Items = ()
    before: Annotated[tuple[PointValue, ...], Meta(max_length=256)] = ()
    body: Annotated[str, Meta(max_length=512, pattern="^[0-9a-f]*$")] = ""


Outcome = Literal["done", "exception", "timeout", "unreachable", "bad-reply", "not-sent", "unknown"]


class WriteOutcome(Event, frozen=True, kw_only=True):
    """What became of a write. "not-sent": the asset never saw it. "unknown": it may have (the connection or the half
    was lost while it was under way). `code` is the exception code of the device, else 0. `device_ns` is the time
    from sending to the answer, in ns."""

    session: Name
    write: Name
    asset: Name
    outcome: Outcome
    code: Small = 0
    device_ns: Count = 0
    detail: Text = ""


class Refused(Event, frozen=True, kw_only=True):
    """A request was refused by policy. `fault` is `model.Fault`, `detail` its sentence, `rule` the nearest rule.
    "busy": a write that policy may have allowed, and that was turned away before anything was sent, for want of a place
    or of a value that it depends on."""

    session: Name
    principals: Names
    source: Address
    asset: Name
    conduit: Name
    rule: Name
    fault: Name
    detail: Text
    function: Small = -1
    sub: Small = -1
    unit: Small = -1
    is_write: bool = False
    spans: Annotated[tuple[Cells, ...], Meta(max_length=64)] = ()
    values: Annotated[tuple[Cell, ...], Meta(max_length=128)] = ()
    items: Items = ()


class RefusedMany(Event, frozen=True, kw_only=True):
    """`count` further refusals of one flow between two times, which have no entry each: a flood cannot swamp the
    log. `faults` counts them by fault, as pairs. Of writes (`is_write`), which are never told together with reads: the
    cells that they named, the least and the greatest raw value, and some of the items."""

    session: Name
    source: Address
    asset: Name
    count: Count
    faults: Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=32)] = ()
    detail: Text = ""
    from_ns: WallNs = 0
    to_ns: WallNs = 0
    principals: Names = ()
    is_write: bool = False
    spans: Annotated[tuple[Cells, ...], Meta(max_length=64)] = ()
    least: Cell = 0
    greatest: Cell = 0
    items: Annotated[tuple[OfItem, ...], Meta(max_length=16)] = ()


class Malformed(Event, frozen=True, kw_only=True):
    """A peer broke the protocol. `section` is the document and section; `sample` the first bytes in hexadecimal.
    `count` is above 1 where several are told of at once."""

    session: Name
    source: Address
    asset: Name = ""
    section: Text
    detail: Text
    sample: Annotated[str, Meta(max_length=128, pattern="^[0-9a-f]*$")] = ""
    count: Count = 1


class DeviceTrouble(Event, frozen=True, kw_only=True):
    """A device did what it should not, `count` times: `what` is "late" (an answer after its time), "unasked" (a frame
    that nobody asked for) or "identity" (it says that it is another one than before). `address` is where it is. Answers
    that break the protocol are `malformed`."""

    asset: Name
    address: Address
    what: Name
    detail: Text
    count: Count = 1


class LimitHit(Event, frozen=True, kw_only=True):
    """A limit of `limits.Limits` (by its name) turned something away, `count` times."""

    limit: Name
    source: Address
    detail: Text
    asset: Name = ""
    count: Count = 1


class ReadsCounted(Event, frozen=True, kw_only=True):
    """Reads of one flow in an interval. `reads` were allowed, `cells` is how many cells or items they asked for,
    `shared` how many were answered without asking the device, `failed` how many got no good answer. `notices`: what
    came by itself, from watches that stand."""

    session: Name
    principals: Names
    source: Address
    asset: Name
    conduit: Name
    reads: Count
    cells: Count
    shared: Count = 0
    failed: Count = 0
    from_ns: WallNs
    to_ns: WallNs
    notices: Count = 0


class StreamEnded(Event, frozen=True, kw_only=True):
    """A stream is over, which the write `write` opened. Frames: `sent` to the asset, `received` from it, `refused` for
    a value outside its limits, `dropped` since they came too fast or found no room, `lost_out` and `lost_in` on their
    way from the client and from the asset, by their numbers."""

    session: Name
    write: Name
    asset: Name
    reason: Text
    sent: Count = 0
    received: Count = 0
    refused: Count = 0
    dropped: Count = 0
    lost_out: Count = 0
    lost_in: Count = 0
    from_ns: WallNs
    to_ns: WallNs


CROWD = frozenset(
    {
        SessionOpened,
        ClientIdentified,
        SessionClosed,
        Refused,
        RefusedMany,
        Malformed,
        DeviceTrouble,
        LimitHit,
        ReadsCounted,
    }
)
"""What whoever speaks with a part can cause as often as they like: the log has so much room for it in a day."""

Draft = (
    SessionOpened
    | ClientIdentified
    | SessionClosed
    | WriteAllowed
    | WriteOutcome
    | Refused
    | RefusedMany
    | Malformed
    | DeviceTrouble
    | LimitHit
    | ReadsCounted
    | StreamEnded
)
OUTER = (SessionOpened, ClientIdentified, SessionClosed, Refused, RefusedMany, Malformed, LimitHit)
"""What the part that faces clients may say."""
INNER = (*OUTER, WriteAllowed, WriteOutcome, ReadsCounted, StreamEnded, DeviceTrouble)
"""What the part that decides and speaks with assets may say."""


def _cells(event: Said) -> str:
    parts = [
        f"{space} {start}" + (f"-{start + count - 1}" if count > 1 else "")
        for space, start, count in event.get("spans", ())
    ]
    return ", ".join([*parts, *map(_item, event.get("items", ()))])


def _item(said: Any) -> str:
    item, act, _, values = said
    some = ", ".join(value[:80] for value in values[:8]) + (" …" if len(values) > 8 else "")
    if act == "call":
        return f"call {item}({some})"
    return f"{item} = {some}" if act == "write" else f"{act} {item}"


def _written(event: Said) -> str:
    points = event.get("points", ())
    items = event.get("items", ())
    if points:
        named = [f"{name} = {value}{' ' + unit if unit else ''}" for name, value, unit in points]
        return ", ".join([*named, *(_item(said) for said in items if said[1] != "write")])
    parts = [_item(said) for said in items]
    for space, start, values in event.get("writes", ()):
        some = " ".join(map(str, values[:8])) + (" …" if len(values) > 8 else "")
        parts.append(f"{space} {start} = {some}")
    if body := str(event.get("body", "")):
        parts.append(f"function {event.get('function')} with {body[:32]}{' …' if len(body) > 32 else ''}")
    return ", ".join(parts) or f"function {event.get('function')}"


def _refused(event: Said) -> str:
    what = _cells(event)
    where = f" [{event['rule']}]" if event.get("rule") else ""
    return (
        f"{who(event)} → {event.get('asset')}: function {event.get('function')}{' of ' + what if what else ''}:"
        f" {event.get('fault')}: {event.get('detail')}{where}"
    )


def _outcome(event: Said) -> str:
    code = f" {event['code']}" if event.get("code") else ""
    detail = f": {event['detail']}" if event.get("detail") else ""
    took = seconds(event.get("device_ns"))
    return f"{event.get('asset')} {event.get('write')}: {event.get('outcome')}{code} in {took}{detail}"


def _reads(event: Said) -> str:
    span = span_ns(event)
    shared = f", {event['shared']} shared" if event.get("shared") else ""
    shared += f", {event['notices']} notices" if event.get("notices") else ""
    failed = f", {event['failed']} failed" if event.get("failed") else ""
    return (
        f"{who(event)} → {event.get('asset')}: {many(event, 'reads', 'read')}, {many(event, 'cells', 'cell')}"
        f"{shared}{failed}{' in ' + seconds(span) if span >= 0 else ''} [{event.get('conduit')}]"
    )


def _closed(event: Said) -> str:
    return (
        f"{event.get('session')}: {event.get('reason')} ({many(event, 'requests', 'request')},"
        f" {many(event, 'writes', 'write')}, {event.get('refused')} refused, {event.get('malformed')} malformed)"
    )


def _refused_many(event: Said) -> str:
    faults = ", ".join(f"{count} {name}" for name, count in event.get("faults", ()))
    split = f" ({faults})" if faults else ""
    return f"{who(event)} → {event.get('asset')}: {event.get('count')} more refusals{split}"


LINES: dict[str, Line] = {
    "client-identified": lambda e: (
        f"{e.get('session')}: {e.get('source')} shows to be "
        + ", ".join(f"{word} {e[word]}" for word in ("user", "application", "certificate") if e.get(word))
        + (f" ({', '.join(e['principals'])})" if e.get("principals") else ", whom no principal names")
    ),
    "session-opened": lambda e: f"{e.get('session')}: {who(e)} port {e.get('source_port')} → {e.get('asset')}",
    "session-closed": _closed,
    "write-allowed": lambda e: f"{who(e)} → {e.get('asset')}: {_written(e)} [{e.get('rule')}] {e.get('write')}",
    "write-outcome": _outcome,
    "refused": _refused,
    "refused-many": _refused_many,
    "malformed": lambda e: f"{e.get('source')} → {e.get('asset') or '?'}: {e.get('detail')} ({e.get('section')})",
    "device-trouble": lambda e: (
        f"{e.get('asset')} at {e.get('address')}: {e.get('what')}: {e.get('detail')} ({times(e)})"
    ),
    "limit-hit": lambda e: f"{e.get('source')}: {e.get('limit')}: {e.get('detail')} ({times(e)})",
    "reads-counted": _reads,
    "stream-ended": lambda e: (
        f"{e.get('asset')} {e.get('write')}: {e.get('reason')} ({e.get('sent')} frames sent, {e.get('received')}"
        f" received, {e.get('refused')} refused, {e.get('dropped')} dropped)"
    ),
}
