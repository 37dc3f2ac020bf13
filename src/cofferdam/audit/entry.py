"""What can stand in the audit log: a closed set of events, and how one becomes the bytes of a log entry.

A half or the gate makes a *draft* (a member of `Draft`); the auditor checks it, adds what only the log knows, and
stores it. Drafts travel in batches (audit.records).

A stored entry is canonical JSON (RFC 8785) with exactly these members:

    {"event": {"kind": ..., ...}, "index": n, "maker": ..., "policy": ..., "site": ..., "time": ...}

`event` is the draft. `time` is the log's own time (RFC 3339, UTC, nine decimals, never going backwards), `maker`
the process that sent the draft, `policy` the hash of the policy in force there. Any JSON tool must read the same
numbers: so every integer is below 2**53 in size, times in ns since 1970 are strings of digits, and values of points
are strings.

Every text and tuple has a greatest length, checked when a draft is decoded: a half that has been taken over can not
blow up the log. `clip` shortens a text that a maker does not control.

Not here: hashing (tree), the disk (log), who sends drafts when (the brokers and the gate).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cofferdam.errors import AuditError

MAX_ENTRY_BYTES = 65535
"""The largest entry that an entry bundle can hold (C2SP tlog-tiles: a 16-bit length goes before each entry)."""
MAX_BATCH_DRAFTS = 4096
"""Drafts in one batch of a producer."""
MAX_SAFE_INTEGER = (1 << 53) - 1
"""Beyond this an integer is not exact in every JSON tool (RFC 8785, 3.2.2.3 and appendix D)."""
NAME, TEXT, ADDRESS = 128, 512, 64
"""Greatest lengths in characters: of a name, of a sentence, of an IP address."""

Name = Annotated[str, Meta(max_length=NAME)]
Text = Annotated[str, Meta(max_length=TEXT)]
Address = Annotated[str, Meta(max_length=ADDRESS)]
Hash = Annotated[str, Meta(max_length=64, pattern="^([0-9a-f]{64})?$")]
Count = Annotated[int, Meta(ge=0, le=MAX_SAFE_INTEGER)]
Small = Annotated[int, Meta(ge=-1, le=1 << 32)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Cell = Annotated[int, Meta(ge=0, le=65535)]
WallNs = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Names = Annotated[tuple[Name, ...], Meta(max_length=16)]


def kebab(name: str) -> str:
    """The kind of a draft class: WriteAllowed is "write-allowed"."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


def clip(text: str, length: int = TEXT) -> str:
    """`text`, cut to `length` characters with an ellipsis, and without what is not Unicode text (lone surrogates)."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= length else text[: length - 1] + "…"


class _Draft(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag=kebab
):
    """What all drafts share: `wall_ns`, when it happened by the maker's clock, UTC, ns since 1970; 0 if unknown."""

    wall_ns: WallNs = 0


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


def number(value: float | int | bool) -> str:
    """A point's value as text: shortest form that reads back as the same number."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


# --- the gate ---------------------------------------------------------------------------------------------------


class GateStarted(_Draft, frozen=True, kw_only=True):
    """The gate runs. `separation` is what keeps the halves apart, in force now ("processes", "namespaces", ...)."""

    version: Name
    separation: Name = ""
    host: Name = ""
    pid: Count = 0


class GateStopped(_Draft, frozen=True, kw_only=True):
    """The gate stops in an orderly way. A start without a stop before it means that it was killed or crashed."""

    reason: Text


class PolicyLoaded(_Draft, frozen=True, kw_only=True):
    """`policy` is in force from here on; `previous` was ("" at start). `files` are those it was read from."""

    policy: Hash
    previous: Hash = ""
    files: Annotated[tuple[Text, ...], Meta(max_length=32)] = ()


class PolicyRefused(_Draft, frozen=True, kw_only=True):
    """A new policy did not load; the old one stays in force. `problem` is the first finding."""

    problem: Text
    problems: Count = 1


class Severed(_Draft, frozen=True, kw_only=True):
    """All sessions of one side were ended and new ones are refused. `by` is who asked (user name or address)."""

    side: Name
    by: Name = ""
    sessions: Count = 0


class Restored(_Draft, frozen=True, kw_only=True):
    """A severed side works again."""

    side: Name
    by: Name = ""


# --- halves -----------------------------------------------------------------------------------------------------


class HalfStarted(_Draft, frozen=True, kw_only=True):
    """A half has come up. `half` is its name, such as "modbus/enterprise-control/inner"."""

    half: Name
    pid: Count


class HalfDied(_Draft, frozen=True, kw_only=True):
    """A half has ended: `status` is its exit code, or minus the signal's number. `expected` if the gate ended it."""

    half: Name
    pid: Count
    status: Annotated[int, Meta(ge=-255, le=255)]
    expected: bool = False
    restarts: Count = 0


class RecordViolation(_Draft, frozen=True, kw_only=True):
    """The other half sent what is no valid record. `half` is the one that sent it."""

    half: Name
    detail: Text


# --- sessions ---------------------------------------------------------------------------------------------------


class SessionOpened(_Draft, frozen=True, kw_only=True):
    """A client's session begins. `session` is unique in the log (the maker sees to that)."""

    session: Name
    half: Name
    source: Address
    source_port: Port
    asset: Name
    principals: Names = ()
    conduits: Names = ()


class SessionClosed(_Draft, frozen=True, kw_only=True):
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


class WriteAllowed(_Draft, frozen=True, kw_only=True):
    """A write was allowed and is about to be sent. It is sent only after this entry is durable. `write` is unique
    in the log and ties it to its `WriteOutcome`. `exact` is False where the cells depend on what the device holds
    (Modbus mask write: values are the and- and or-mask). `code` is the protocol's function, `sub` its subfunction
    or -1, `unit` the unit or -1."""

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


Outcome = Literal["done", "exception", "timeout", "unreachable", "bad-reply", "not-sent", "unknown"]


class WriteOutcome(_Draft, frozen=True, kw_only=True):
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


class Refused(_Draft, frozen=True, kw_only=True):
    """A request was refused by policy. `fault` is `model.Fault`, `detail` its sentence, `rule` the nearest rule."""

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


class RefusedMany(_Draft, frozen=True, kw_only=True):
    """`count` further refusals of one flow between two times, which have no entry each: a flood can not swamp the
    log. `faults` counts them by fault, as pairs."""

    session: Name
    source: Address
    asset: Name
    count: Count
    faults: Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=32)] = ()
    detail: Text = ""
    from_ns: WallNs = 0
    to_ns: WallNs = 0


class Malformed(_Draft, frozen=True, kw_only=True):
    """A peer broke the protocol. `section` is the document and section; `sample` the first bytes in hexadecimal.
    `count` is above 1 where several are told of at once."""

    session: Name
    source: Address
    asset: Name = ""
    section: Text
    detail: Text
    sample: Annotated[str, Meta(max_length=128, pattern="^[0-9a-f]*$")] = ""
    count: Count = 1


class LimitHit(_Draft, frozen=True, kw_only=True):
    """A limit of `limits.Limits` (by its name) turned something away, `count` times."""

    limit: Name
    source: Address
    detail: Text
    asset: Name = ""
    count: Count = 1


class ReadsCounted(_Draft, frozen=True, kw_only=True):
    """Reads of one flow in an interval. `reads` were allowed, `cells` is how many cells they asked for, `shared` how
    many were answered without asking the device, `failed` how many got no good answer."""

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


# --- the log and its surroundings -----------------------------------------------------------------------------


class Alarm(_Draft, frozen=True, kw_only=True):
    """Something needs a person. `cleared` when it is over. `name` is stable ("log-unwritable")."""

    name: Name
    detail: Text
    cleared: bool = False


class ClockJump(_Draft, frozen=True, kw_only=True):
    """The wall clock and the monotonic clock parted by `jump_ns` (signed, text) since they were last compared. The
    time in the log stays ordered: after a jump back it stands still until the clock has caught up."""

    jump_ns: Annotated[str, Meta(max_length=24, pattern="^-?[0-9]+$")]
    clock: Annotated[str, Meta(max_length=40)]


class TornTail(_Draft, frozen=True, kw_only=True):
    """The log was not closed in an orderly way. `entries` were recovered from the journal; `cut_bytes` at the end of
    the journal were an unfinished append, never acknowledged to anyone, and were cut off."""

    entries: Count
    cut_bytes: Count


class LogOpened(_Draft, frozen=True, kw_only=True):
    """The auditor opened the log. `key` is the verifier key that signs from here on; `size` how many entries were
    there before."""

    key: Text
    size: Count


class ProofDone(_Draft, frozen=True, kw_only=True):
    """The separation was proven, or was not. `report` is the hash of the report."""

    report: Hash
    result: Name
    detail: Text = ""


class LeakFound(_Draft, frozen=True, kw_only=True):
    """Something reached the other side, or could, without a broker."""

    asset: Name
    detail: Text


class LeakProbeSet(_Draft, frozen=True, kw_only=True):
    """From here on the leak probe asks every `seconds`; 0: it is off by the policy, nobody asks between two proofs."""

    seconds: Count


class PacketsDropped(_Draft, frozen=True, kw_only=True):
    """The firewall of a side dropped packets, unseen by any half and without an answer: `packets` counts them, as
    pairs, by what they were: of no conduit and coming in (input), going out (output) or to be passed on (forward), or
    a client's attempts to connect faster than one may (openings)."""

    side: Name
    packets: Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=32)]
    from_ns: WallNs
    to_ns: WallNs


class PeerAdded(_Draft, frozen=True, kw_only=True):
    """An overlay peer was let in. `key` is its public key."""

    peer: Name
    key: Name
    addresses: Names = ()
    by: Name = ""


class PeerRevoked(_Draft, frozen=True, kw_only=True):
    """An overlay peer was shut out."""

    peer: Name
    key: Name
    by: Name = ""


Draft = (
    GateStarted
    | GateStopped
    | PolicyLoaded
    | PolicyRefused
    | Severed
    | Restored
    | HalfStarted
    | HalfDied
    | RecordViolation
    | SessionOpened
    | SessionClosed
    | WriteAllowed
    | WriteOutcome
    | Refused
    | RefusedMany
    | Malformed
    | LimitHit
    | ReadsCounted
    | Alarm
    | ClockJump
    | TornTail
    | LogOpened
    | ProofDone
    | LeakFound
    | LeakProbeSet
    | PacketsDropped
    | PeerAdded
    | PeerRevoked
)
DRAFTS: tuple[type[_Draft], ...] = Draft.__args__
"""Every class of draft."""
KINDS: tuple[str, ...] = tuple(kebab(draft.__name__) for draft in DRAFTS)
"""Every kind of event, as it stands in the log."""
LOG_OWN = (ClockJump, TornTail, LogOpened)
"""What only the log itself may say: refused from a producer."""
EITHER_HALF = (SessionOpened, SessionClosed, Refused, RefusedMany, Malformed, LimitHit, RecordViolation)
"""What any half may say. The rest is for the gate: a half that was taken over must not restore a side, load a policy or
end another half in the log."""
INNER_HALF = (*EITHER_HALF, WriteAllowed, WriteOutcome, ReadsCounted)
"""What a half that speaks with assets may say."""


def may_say(producer: str) -> tuple[type[_Draft], ...]:
    """The classes that a producer may send. Halves are named by pair and role ("modbus/it-ot/outer"), the gate without
    a slash."""
    if "/" not in producer:
        return tuple(draft for draft in DRAFTS if draft not in LOG_OWN)
    return INNER_HALF if producer.endswith(("/inner", "/both")) else EITHER_HALF


# --- bytes of an entry ----------------------------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stored entry as read back. `event` stays a plain mapping: an older log may hold kinds that have changed."""

    event: dict[str, Any]
    index: int
    maker: str
    policy: str
    site: str
    time: str

    @property
    def kind(self) -> str:
        """The kind of the event."""
        return str(self.event.get("kind", ""))


class EntryHead(msgspec.Struct, frozen=True, gc=False):
    """The two members of a stored entry whose order the verifier checks."""

    index: int
    time: str


_encoder = msgspec.json.Encoder(order="sorted")
_entries = msgspec.json.Decoder(Entry)
_OTHER_TIMES = {"from_ns", "to_ns", "opened_ns"}
_MORE_TIMES = frozenset(kind for kind in DRAFTS if _OTHER_TIMES & set(kind.__struct_fields__))
# A quote inside a JSON string is always escaped, so `"wall_ns":` can only be a member's name.
_TIMES = re.compile(rb'"((?:wall|from|to|opened)_ns)":([0-9]+)')


def encode_event(draft: Draft) -> bytes:
    """The draft as canonical JSON (RFC 8785), with times in ns as strings.

    Raises: AuditError if it would not fit in an entry.
    """
    try:
        event = _encoder.encode(draft)
        if type(draft) in _MORE_TIMES:
            event = _TIMES.sub(rb'"\1":"\2"', event)
        else:  # the usual case, for speed
            event = event.replace(b'"wall_ns":%d' % draft.wall_ns, b'"wall_ns":"%d"' % draft.wall_ns, 1)
    except (msgspec.MsgspecError, UnicodeEncodeError, OverflowError) as error:
        raise AuditError(f"a {kebab(type(draft).__name__)} event can not be written as JSON: {error}") from error
    if len(event) > MAX_ENTRY_BYTES - 1024:  # room for the members around it
        raise AuditError(
            f"a {kebab(type(draft).__name__)} event of {len(event)} bytes is too large for the audit log",
            hint=f"an entry holds at most {MAX_ENTRY_BYTES} bytes",
        )
    return event


def encode_text(text: str) -> bytes:
    """A string as canonical JSON."""
    return _encoder.encode(text)


def decode_entry(data: bytes) -> Entry:
    """A stored entry. Raises: AuditError if the bytes are none."""
    try:
        return _entries.decode(data)
    except msgspec.MsgspecError as error:
        raise AuditError(f"not an audit entry: {error}") from error


def format_time(wall_ns: int) -> bytes:
    """UTC nanoseconds since 1970 as RFC 3339 with nine decimals; sorts as text in order of time until year 9999."""
    seconds, fraction = divmod(wall_ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode() + b".%09dZ" % fraction


def parse_time(text: str) -> int:
    """The inverse of `format_time`; fewer or no decimals are fine too. Raises: AuditError."""
    main, _, fraction = text.removesuffix("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(main).replace(tzinfo=UTC).timestamp())
        return seconds * 1_000_000_000 + int(fraction.ljust(9, "0")[:9] or "0")
    except (ValueError, OverflowError) as error:
        raise AuditError(f"{text!r} is no UTC time such as 2026-03-01T08:00:00Z") from error
