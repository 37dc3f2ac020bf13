"""Events of the proof: whether anything crosses, what the leak probe found, what the firewalls dropped."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from cofferdam.audit.events.base import (
    Count,
    Event,
    Hash,
    Name,
    Text,
    WallNs,
)
from cofferdam.audit.events.lines import Line, Said, seconds, span_ns


class ProofDone(Event, frozen=True, kw_only=True):
    """The separation was proven, or was not. `report` is the hash of the report."""

    report: Hash
    result: Name
    detail: Text = ""


class LeakFound(Event, frozen=True, kw_only=True):
    """Something reached the other side, or could, without a broker."""

    asset: Name
    detail: Text


class LeakProbeSet(Event, frozen=True, kw_only=True):
    """From here on the leak probe asks every `seconds`; 0: it is off by the policy, nobody asks between two proofs."""

    seconds: Count


class PacketsDropped(Event, frozen=True, kw_only=True):
    """The firewall of a side dropped packets, unseen by any half and without an answer: `packets` counts them, as
    pairs, by what they were: of no conduit and coming in (input), going out (output) or to be passed on (forward), or
    a client's attempts to connect faster than one may (openings). Of the side `host`: what was refused to an export
    or the witness, which stand in the host's network, since it went elsewhere than to a collector of its own."""

    side: Name
    packets: Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=32)]
    from_ns: WallNs
    to_ns: WallNs


Draft = ProofDone | LeakFound | LeakProbeSet | PacketsDropped
GATE: tuple[type[Event], ...] = Draft.__args__


DROPPED = {
    "input": "coming in", "output": "going out", "forward": "to be forwarded",
    "openings": "connection attempts faster than one client may make",
}  # fmt: skip
"""What a side's firewall drops, by the names of its counters."""


def _dropped(event: Said) -> str:
    span = span_ns(event)
    counts = ", ".join(f"{count:,} {DROPPED.get(hook, f'from {hook}')}" for hook, count in event.get("packets", ()))
    return f"{event.get('side')}: {counts}, within {seconds(span)}"


LINES: dict[str, Line] = {
    "packets-dropped": _dropped,
    "leak-probe-set": lambda e: f"every {e['seconds']} s" if e.get("seconds") else "OFF by the policy",
}
