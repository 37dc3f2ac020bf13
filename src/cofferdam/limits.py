"""Every buffer, count and depth that the brokers bound, with its unit. One place, so that none is forgotten.

The fields are defaults; the policy's `limits:` section may set those that an operator has reason to change.
"""

from __future__ import annotations

from typing import Final

import msgspec

FOLDER_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""The name of a folder of the site's, in policies and orders."""


def strand_end(conduit: str, way: str) -> str:
    """The folder at an end ("out" inside, "in" outside) of a conduit whose crossing goes over a strand."""
    return f"strand.{conduit}-{way}"


def is_strand_end(folder: str, way: str) -> bool:
    """Whether a folder is one of those."""
    return folder.startswith("strand.") and folder.endswith(f"-{way}")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds of one pair of halves."""

    client_connections: int = 512
    """Open client connections of one pair of halves; one more is closed at once."""
    client_connections_per_address: int = 64
    """Open connections from one source address."""
    client_connects_per_second: int = 50
    """Sustained new connections a second from one source address; four times as many at once."""
    stranger_connections: int = 32
    """Open connections of all addresses that no principal stands for. They get refusals, and keep nobody else out."""
    stranger_connections_per_address: int = 4
    """Open connections from one such address."""
    stranger_idle_seconds: float = 10.0
    """A connection from such an address without a complete request for so long is closed."""
    client_outstanding: int = 16
    """Requests of one client connection that may be under way (Modbus TCP guide 1.0b, 4.2.2: 1 to 16)."""
    client_requests_per_second: int = 2000
    """Sustained requests a second of one principal, from all its addresses together, or of one address (an IPv6 /64)
    that is none's. What comes faster waits, and is not read meanwhile."""
    client_requests_burst: int = 100
    """Requests that it may send at once above the sustained rate."""
    client_wait_seconds: float = 1.0
    """A write that waited so long at the gate before its turn came is answered "busy", and not sent late."""
    client_standing: int = 1000
    """Subscriptions and streams that stand of one client's session; one more is answered "busy"."""
    client_idle_seconds: float = 300.0
    """A client connection without a complete request for so long is closed."""
    client_frame_seconds: float = 5.0
    """A frame that has begun must be complete after so long."""
    client_unsent_bytes: int = 65536
    """Answers that a client does not take; beyond it the connection is closed."""
    client_refusals_per_connection: int = 1000
    """Refused or malformed requests on one connection before it is closed."""
    asset_queue: int = 256
    """Requests that wait for one device, and besides writes of one asset that wait for a present value; with one more,
    whoever has most waiting loses one, which is answered "busy"."""
    asset_queue_per_client: int = 32
    """Requests of one client connection that wait for one device."""
    asset_standing: int = 5000
    """Subscriptions and streams that stand at one device; with one more, who has most loses one, or it is answered
    "busy"."""
    asset_frames_per_second: int = 2000
    """Sustained frames a second of one stream towards a device. What comes faster is dropped and counted."""
    asset_connect_seconds: float = 3.0
    """A connection to a device that is not up after so long has failed."""
    asset_backoff_seconds: float = 0.25
    """Pause after the first failed connection; doubles with each, up to asset_backoff_max_seconds."""
    asset_backoff_max_seconds: float = 10.0
    """The longest pause between two attempts to connect."""
    asset_idle_seconds: float = 60.0
    """A connection to a device that nothing used for so long is closed."""
    known_value_seconds: float = 0.0
    """How long a value that was read or written counts as known for a point's `max_step` and `max_rate`. With 0 it is
    read anew for each write."""
    audit_wait_seconds: float = 2.0
    """A write whose audit entry is not durable after so long is refused."""
    record_bytes: int = 1 << 20
    """The largest record that a crossing carries, chunked or not. Not below 1 MiB, which protocols count on."""
    crossing_backlog_bytes: int = 1 << 20
    """Records that wait for room in a full pipe; beyond it the half stops reading from its peers."""
    busy_poll_microseconds: int = 100
    """After work a half may look for more for so long before it sleeps, giving way to other processes in between. It
    finds out by itself whether that shortens its waits, and sleeps at once where it does not; 0: always."""
