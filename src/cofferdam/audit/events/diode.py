"""Events of the diode: epochs, gaps, tickets, re-sends, losses, strangers on the wire, files sent and received.

Nobody acknowledges anything over a strand: what the inside records as sent may be lost, and what the outside records
as received is what came. `epoch` and numbers tell which is which.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from cofferdam.audit.events.base import Count, Event, Hash, Name, Text
from cofferdam.audit.events.lines import Line, Said

Span = Annotated[str, Meta(max_length=64)]
Epoch = Count
"""Microseconds since 1970 at which the inside began it, or more."""


class DiodeEpoch(Event, frozen=True, kw_only=True):
    """A new epoch: inside, the spool began it; outside, a sender that is known announced it. `sender`: the words of its
    key; `told_ns`: its clock, as it says."""

    strand: Name
    epoch: Epoch
    sender: Text = ""
    told: Text = ""


class DiodeGap(Event, frozen=True, kw_only=True):
    """Outside: numbers of a channel are missing ("missing"), have come after all ("closed"), or will not come, since
    the inside does not keep them any more or an operator gave them up ("lost"). One entry for what was found at a time:
    `first` and `last` are of the lowest and highest of `ranges` ranges."""

    strand: Name
    channel: Name
    epoch: Epoch
    what: Literal["missing", "closed", "lost"]
    first: Count
    last: Count
    count: Count
    ranges: Count


class DiodeTicketMade(Event, frozen=True, kw_only=True):
    """Outside: a ticket that asks for what is missing. `by`: who had it made."""

    strand: Name
    serial: Count
    ranges: Count
    count: Count
    until: Text
    by: Name


class DiodeTicketUsed(Event, frozen=True, kw_only=True):
    """Inside: a ticket was brought, and what it asks for is sent again. `lost`: numbers that are not kept any more."""

    strand: Name
    serial: Count
    count: Count
    size: Count
    lost: Count
    by: Name


class DiodeResent(Event, frozen=True, kw_only=True):
    """Inside: records were sent again, for a ticket or by blind backfill (serial 0)."""

    strand: Name
    serial: Count
    count: Count
    size: Count


class DiodeLoss(Event, frozen=True, kw_only=True):
    """What was lost or refused since the last such entry. "blocks": not to be repaired; "kernel": packets that the
    kernel had no room for; "overrun": records that the keeper did not take in time; "spool": records that the spool
    gave up before their time, for want of room."""

    strand: Name
    what: Literal["blocks", "kernel", "overrun", "spool"]
    count: Count


class DiodeForeign(Event, frozen=True, kw_only=True):
    """Outside: packets that are not the sender's, or not of this epoch, since the last such entry."""

    strand: Name
    count: Count


class DiodeStopped(Event, frozen=True, kw_only=True):
    """Outside: a channel takes no more, since the sender said what no honest one would."""

    strand: Name
    channel: Name
    detail: Text


class DiodeFileSent(Event, frozen=True, kw_only=True):
    """Inside: a file is about to be sent, as numbers `first` to `last` of its channel. Recorded before it is."""

    strand: Name
    channel: Name
    name: Text
    size: Count
    sha256: Hash
    epoch: Epoch
    first: Count
    last: Count


class DiodeFileNotSent(Event, frozen=True, kw_only=True):
    """Inside: a file lies in a channel's folder and is not sent."""

    strand: Name
    channel: Name
    name: Text
    detail: Text


class DiodeFileReceived(Event, frozen=True, kw_only=True):
    """Outside: a file has come whole, its hash is what its manifest says, and it is in its folder as `placed`.
    `scan`: where it was scanned, the verdict and by what."""

    strand: Name
    channel: Name
    name: Text
    size: Count
    sha256: Hash
    epoch: Epoch
    first: Count
    last: Count
    placed: Text
    scan: Text = ""


class DiodeFileRefused(Event, frozen=True, kw_only=True):
    """Outside: a file was not put into its folder."""

    strand: Name
    channel: Name
    name: Text
    detail: Text


SPOOL = (DiodeEpoch, DiodeFileSent, DiodeFileNotSent, DiodeTicketUsed, DiodeResent, DiodeLoss)
KEEPER = (
    DiodeEpoch, DiodeGap, DiodeTicketMade, DiodeLoss, DiodeForeign, DiodeStopped, DiodeFileReceived, DiodeFileRefused,
)  # fmt: skip


def _numbers(event: Said) -> str:
    return f"{event.get('channel', '?')} {event.get('first', '?')} to {event.get('last', '?')}"


def _gap(event: Said) -> str:
    return f"{_numbers(event)}: {event.get('count', '?')} {event.get('what', '?')}"


def _file(event: Said) -> str:
    facts = f"{event.get('size', '?')} bytes, {str(event.get('sha256', ''))[:12]}"
    return f"{event.get('name', '?')} ({facts}) as {_numbers(event)}"


def _not(event: Said) -> str:
    return f"{event.get('name', '?')} of {event.get('channel', '?')}: {event.get('detail', '?')}"


LINES: dict[str, Line] = {
    "diode-gap": _gap,
    "diode-file-sent": _file,
    "diode-file-received": _file,
    "diode-file-not-sent": _not,
    "diode-file-refused": _not,
}

Draft = (
    DiodeEpoch
    | DiodeGap
    | DiodeTicketMade
    | DiodeTicketUsed
    | DiodeResent
    | DiodeLoss
    | DiodeForeign
    | DiodeStopped
    | DiodeFileSent
    | DiodeFileNotSent
    | DiodeFileReceived
    | DiodeFileRefused
)
"""What may stand in the log about the diode."""
