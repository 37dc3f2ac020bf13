"""What can stand in the audit log: a closed set of events, and how one becomes the bytes of a log entry.

A half or the gate makes a *draft* (a member of `Draft`); the auditor checks it, adds what only the log knows, and
stores it. Drafts travel in batches (audit.records).

A stored entry is canonical JSON (RFC 8785) with exactly these members:

    {"event": {"kind": ..., ...}, "index": n, "maker": ..., "policy": ..., "site": ..., "time": ...}

`event` is the draft. `time` is the log's own time (RFC 3339, UTC, nine decimals, never going backwards), `maker`
the process that sent the draft, `policy` the hash of the policy in force there. Any JSON tool must read the same
numbers: so every integer is below 2**53 in size, times in ns since 1970 are strings of digits, and values of points
are strings.

Every text and tuple has a greatest length, checked when a draft is decoded: a half that has been taken over cannot
blow up the log. `clip` shortens a text that a maker does not control.

Not here: hashing (tree), the disk (log), who sends drafts when (the brokers and the gate).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from cofferdam.audit.events import access, diode, evidence, gate, http, jump, log, mirror, overlay, patch, proof, relay
from cofferdam.audit.events.base import Event, kebab
from cofferdam.errors import AuditError

MAX_ENTRY_BYTES = 65535
"""The largest entry that an entry bundle can hold (C2SP tlog-tiles: a 16-bit length goes before each entry)."""
MAX_BATCH_DRAFTS = 4096
"""Drafts in one batch of a producer."""


Draft = (
    gate.Draft
    | access.Draft
    | log.Draft
    | proof.Draft
    | overlay.Draft
    | http.Draft
    | relay.Draft
    | mirror.Draft
    | evidence.Draft
    | patch.Draft
    | jump.Draft
    | diode.Draft
)  # fmt: skip
"""What a producer may hand over, one line for each topic."""
DRAFTS: tuple[type[Event], ...] = Draft.__args__
"""Every class of draft."""
KINDS: tuple[str, ...] = tuple(kebab(draft.__name__) for draft in DRAFTS)
"""Every kind of event, as it stands in the log."""
TOPICS: tuple[str, ...] = tuple(dict.fromkeys(draft.__module__ for draft in DRAFTS))
"""The modules of the topics, in the union's order."""
LOG_OWN = log.LOG
ANYONE = log.ANYONE
CROWD: frozenset[type[Event]] = frozenset(
    one for topic in TOPICS for one in getattr(sys.modules[topic], "CROWD", frozenset())
)
"""What all topics together say that a crowd can cause (audit.quota)."""


def kinds(classes: Iterable[type[Event]]) -> tuple[str, ...]:
    """Their kinds, as a profile lists what its part may say."""
    return tuple(kebab(one.__name__) for one in classes)


def said_by(maker: str) -> tuple[type[Event], ...]:
    """What all topics together let a maker say, such as "GATE"."""
    return tuple(one for topic in TOPICS for one in getattr(sys.modules[topic], maker, ()))


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
TIMES = frozenset({"wall_ns", "from_ns", "to_ns", "opened_ns", "until_ns"})
"""Members of events that stand in the log as strings of digits: JSON's numbers do not hold them."""
_MORE_TIMES = frozenset(kind for kind in DRAFTS if (TIMES - {"wall_ns"}) & set(kind.__struct_fields__))
# A quote inside a JSON string is always escaped, so `"wall_ns":` can only be a member's name.
_TIMES = re.compile(rb'"((?:wall|from|to|opened|until)_ns)":([0-9]+)')


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
        raise AuditError(f"a {kebab(type(draft).__name__)} event cannot be written as JSON: {error}") from error
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
        raise AuditError(f"{text!r} is not a UTC time such as 2026-03-01T08:00:00Z") from error
