"""Multicast groups to which streams' frames go, for clients that ask for that: as written, checked, and as they travel.

A group is sent to from an IPv4 address of the asset's own, and by the interface of the zone where that is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cofferdam.policy.problems import one_of
from cofferdam.protocols.dialect import Dialect

DERIVED = "derived"
SCOPE = ipaddress.IPv4Network("239.0.0.0/8")
"""Groups that are a site's own affair (RFC 2365)."""
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with


def wrong(text: str, dialect: Dialect, own: str | None) -> tuple[str, str] | None:
    """What is wrong with a stream's `multicast`: (found, expected). `own`: the asset's address as the file has it, None
    where it is given one."""
    if dialect.group_of is None:
        return f"multicast {text}", f"none: in {dialect.name} each client is sent its own"
    if text != DERIVED and not _in_scope(text):
        return f"multicast {text}", one_of([DERIVED, f"an address of {SCOPE}, such as 239.192.1.32"])
    if own is not None and not _is_own(own):
        return f"multicast, with {own} as the asset's address", "an IPv4 address of its own: packets go out from there"
    return None


def group(text: str | None, places: Iterable[tuple[str, int]], dialect: Dialect) -> str:
    """The group; "" for none."""
    own = next((address for address, _ in places if _is_own(address)), "")
    if text is None or dialect.group_of is None or not own:
        return ""
    return dialect.group_of(own) if text == DERIVED else text


def _in_scope(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text) in SCOPE
    except ValueError:
        return False


def _is_own(address: str) -> bool:
    return address not in _EVERYWHERE and ":" not in address
