"""Events of the overlay: peers that come and go."""

from __future__ import annotations

from cofferdam.audit.events.base import (
    Event,
    Name,
    Names,
)


class PeerAdded(Event, frozen=True, kw_only=True):
    """An overlay peer was let in. `key` is its public key."""

    peer: Name
    key: Name
    addresses: Names = ()
    by: Name = ""


class PeerRevoked(Event, frozen=True, kw_only=True):
    """An overlay peer was shut out."""

    peer: Name
    key: Name
    by: Name = ""


Draft = PeerAdded | PeerRevoked
GATE: tuple[type[Event], ...] = Draft.__args__
