"""Every buffer, count and patience that reading a capture bounds, with its unit.

A capture file comes from anywhere and is not trusted: each structure that grows with what the file says has its
limit here. Not here: the limits of the running brokers (cofferdam.limits).
"""

from __future__ import annotations

import msgspec


class CaptureLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one pass over a capture file."""

    packet_bytes: int = 1 << 20
    """The longest captured packet; a record that claims more is taken for damage."""
    block_bytes: int = 1 << 24
    """The longest pcapng block of a type that we read. Blocks of other types are skipped at any length."""
    interfaces: int = 4096
    """Interfaces that one pcapng section may describe."""
    vlan_tags: int = 4
    """VLAN tags on one frame."""
    extension_headers: int = 16
    """IPv6 extension headers of one packet."""
    fragmented_datagrams: int = 256
    """IP datagrams that wait for fragments at one time; the oldest is given up first."""
    fragments_per_datagram: int = 256
    """Fragments of one datagram; with more it is given up."""
    fragment_patience_ns: int = 30_000_000_000
    """Capture time after which a datagram with missing fragments is given up (RFC 791, 3.2: 15 s or more)."""
    flows: int = 10_000
    """TCP connections followed at one time; the one idle longest is closed first."""
    held_bytes_per_direction: int = 1 << 18
    """Bytes that wait behind a hole in one direction of a connection; beyond it the hole is reported as lost."""
    held_segments_per_direction: int = 512
    """Segments that wait behind a hole in one direction of a connection; beyond it the hole is reported as lost."""
    held_bytes: int = 1 << 26
    """Bytes that wait behind holes in all connections; beyond it no more is held."""
    history_bytes: int = 1 << 12
    """Delivered bytes that each direction keeps, to notice a retransmission with other content."""
    window_bytes: int = 1 << 22
    """A segment further than this from the expected one belongs to no continuation of the connection."""
    strays_before_restart: int = 3
    """Segments outside the window, one after the other, after which the connection is taken for a new one."""
    hole_patience_ns: int = 10_000_000_000
    """Capture time for which a hole waits for a retransmission when the receiver has not acknowledged it."""
    acked_hole_patience_ns: int = 1_000_000_000
    """The same when the receiver has acknowledged the missing bytes: then only a reordered capture can bring them."""
    unparsed_bytes: int = 1 << 16
    """Bytes of one direction in which the next frame is searched for; older ones are skipped and counted."""
    outstanding: int = 256
    """Requests of one connection that wait for their answer; the oldest is given up first."""
    standing: int = 4096
    """Requests of one connection of which news may come; the oldest is forgotten first."""
    answer_patience_ns: int = 1_000_000_000
    """Capture time after which a request counts as answered by the gate, so that its id may be used again."""
    groups: int = 20_000
    """Lines of a report. Requests beyond it are still judged, and counted in one last line."""
    notes: int = 1000
    """Remarks on the capture's state (gaps, inconsistent retransmissions) that are kept; all are counted."""
    spans_per_group: int = 64
    """Ranges of cells that one line of a report lists; beyond it ranges are joined and marked as such."""
    learned_points: int = 200
    """Points that a learned policy names for one asset; with more written cells it lists ranges and no limits."""
    learned_items: int = 2000
    """Items, methods and streams of one asset that a learned policy names; requests of others are left out."""
