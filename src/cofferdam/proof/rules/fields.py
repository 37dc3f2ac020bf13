"""The fields of a packet as rules test them, and sets of their values as ranges of integers. PURE.

A field is a name and a width in bits. A value is an integer; names that nft prints (`tcp`, `echo-request`) are turned
into theirs here. A name or form that is not known here gives None, and the caller leaves that match free.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

Range = tuple[int, int]
Ranges = tuple[Range, ...]
"""Sorted, without overlap, both ends included."""

WIDTHS: Final[dict[str, int]] = {
    "ethertype": 16, "l4proto": 8, "ip saddr": 32, "ip daddr": 32, "ip6 saddr": 128, "ip6 daddr": 128, "sport": 16,
    "dport": 16, "tcp flags": 8, "icmp type": 8, "icmp code": 8, "icmpv6 type": 8, "icmpv6 code": 8, "ip ttl": 8,
    "ip6 hoplimit": 8, "ip6 nexthdr": 8, "mark": 32, "ct state": 2, "fragment": 1, "skuid": 32,
}  # fmt: skip
INTERFACES: Final = ("iif", "oif")
"""Fields whose values are names; their numbers are given out when all names are known (solver)."""
STATES: Final = {"new": 0, "invalid": 1, "untracked": 2}
"""What a packet that belongs to no connection can be. `established` and `related` are never true of one."""
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
ETHERTYPES: Final = {
    "ip": IPV4, "ipv4": IPV4, "ipv6": IPV6, "arp": ARP, "ip6": IPV6, "vlan": 0x8100, "8021q": 0x8100,
    "8021ad": 0x88A8,
}  # fmt: skip
PROTOCOLS: Final = {
    "icmp": 1, "igmp": 2, "ipencap": 4, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50,
    "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "ospf": 89, "pim": 103, "comp": 108, "vrrp": 112, "sctp": 132,
    "udplite": 136,
}  # fmt: skip
FLAGS: Final = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}
_ICMP: Final = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
    "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
    "timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16, "address-mask-request": 17,
    "address-mask-reply": 18,
}  # fmt: skip
_ICMPV6: Final = {
    "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
    "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131,
    "mld-listener-done": 132, "mld-listener-reduction": 132, "nd-router-solicit": 133, "nd-router-advert": 134,
    "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138,
    "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143,
}  # fmt: skip
_NAMES: Final[dict[str, dict[str, int]]] = {
    "ethertype": ETHERTYPES, "l4proto": PROTOCOLS, "ip6 nexthdr": PROTOCOLS, "tcp flags": FLAGS, "icmp type": _ICMP,
    "icmpv6 type": _ICMPV6,
}  # fmt: skip


class Among(NamedTuple):
    """The field has one of these values."""

    field: str
    ranges: Ranges


class Named(NamedTuple):
    """The interface has one of these names (`eth*` stands for all that begin so), or none of them."""

    field: str
    names: tuple[str, ...]
    positive: bool


class Free(NamedTuple):
    """A match that is not modelled: it may be true or false of any packet. Equal keys are true together."""

    key: str


class AnyOf(NamedTuple):
    """One of these combinations holds, or none does: a set of concatenations."""

    options: tuple[tuple[Among | Named, ...], ...]
    positive: bool


Clause = Among | Named | Free | AnyOf
Conj = tuple[Clause, ...]
"""All of these hold."""


def everything(field: str) -> Ranges:
    return ((0, (1 << WIDTHS[field]) - 1),)


def union(ranges: Iterable[Range]) -> Ranges:
    """Sorted, with overlapping and touching ones joined."""
    joined: list[Range] = []
    for low, high in sorted(ranges):
        if joined and low <= joined[-1][1] + 1:
            if high > joined[-1][1]:
                joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return tuple(joined)


def complement(field: str, ranges: Ranges) -> Ranges:
    """All other values of the field. `ranges` as `union` gives them."""
    top = 2 if field == "ct state" else (1 << WIDTHS[field]) - 1
    result: list[Range] = []
    start = 0
    for low, high in ranges:
        if low > start:
            result.append((start, low - 1))
        start = high + 1
    if start <= top:
        result.append((start, top))
    return tuple(result)


def values(field: str, right: Any) -> Ranges | None:
    """A value, range, prefix or set of values as nft prints it; None if a part is not understood."""
    if isinstance(right, dict):
        if "set" in right:
            return many(field, right["set"])
        if "prefix" in right:
            return _prefix(field, right["prefix"])
        if "range" in right:
            low, high = (_number(field, end) for end in right["range"])
            return ((low, high),) if low is not None and high is not None and low <= high else None
        if "elem" in right:
            return values(field, right["elem"]["val"])
        if "|" in right and field == "tcp flags":
            bits = _bits(right["|"])
            return None if bits is None else ((bits, bits),)
        return None
    if field == "ct state":
        # A state that only a packet of a connection has is no value at all for the packets that are modelled.
        if right in ("established", "related"):
            return ()
        return ((STATES[right], STATES[right]),) if right in STATES else None
    number = _number(field, right)
    return None if number is None else ((number, number),)


def many(field: str, elements: Any) -> Ranges | None:
    """The elements of a set."""
    found: list[Range] = []
    for element in elements if isinstance(elements, list) else [elements]:
        got = values(field, element)
        if got is None:
            return None
        found += got
    return union(found)


def _prefix(field: str, prefix: dict[str, Any]) -> Ranges | None:
    address, length = _number(field, prefix["addr"]), prefix["len"]
    if address is None:
        return None
    spare = WIDTHS[field] - length
    low = address >> spare << spare
    return ((low, low + (1 << spare) - 1),)


def _number(field: str, value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if field in ("ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr"):
            return _address(value, field.startswith("ip6"))
        if value.isdigit():
            value = int(value)
        else:
            return _NAMES.get(field, {}).get(value)
    return value if isinstance(value, int) and 0 <= value < 1 << WIDTHS[field] else None


@functools.lru_cache(maxsize=65536)
def _address(value: str, six: bool) -> int | None:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    return int(address) if (address.version == 6) == six else None


def _bits(names: Any) -> int | None:
    """Flags of TCP, by name or number, as one number."""
    if isinstance(names, dict) and "|" in names:
        names = names["|"]
    result = 0
    for name in names if isinstance(names, list) else [names]:
        bits = _bits(name) if isinstance(name, (list, dict)) else _number("tcp flags", name)
        if bits is None:
            return None
        result |= bits
    return result


def flags(op: str, mask: Any, right: Any) -> Ranges | None:
    """The values of the TCP flags for which `flags & mask OP right`; with `mask` None: `flags OP right`."""
    bits = _bits(right)
    if bits is None:
        return None
    if mask is None:
        if op in ("in", "!"):  # any of them is set; none is
            return union((f, f) for f in range(256) if bool(f & bits) == (op == "in"))
        if op not in ("==", "!=") or isinstance(right, list):
            return None
        return union((f, f) for f in range(256) if (f == bits) == (op == "=="))
    masked = _bits(mask)
    if masked is None or op not in ("==", "!="):
        return None
    return union((f, f) for f in range(256) if (f & masked == bits) == (op == "=="))


def compared(field: str, op: str, ranges: Ranges) -> Ranges | None:
    """The values of the field for which `field OP ranges` holds."""
    if op in ("==", "in"):
        return ranges
    if op in ("!=", "!"):
        return complement(field, ranges)
    if len(ranges) != 1 or ranges[0][0] != ranges[0][1]:
        return None
    value, top = ranges[0][0], (1 << WIDTHS[field]) - 1
    bounds = {"<": (0, value - 1), "<=": (0, value), ">": (value + 1, top), ">=": (value, top)}.get(op)
    if bounds is None:
        return None
    return (bounds,) if bounds[0] <= bounds[1] else ()


def text(field: str, value: int) -> str:
    """A value for people."""
    if field in ("ip saddr", "ip daddr"):
        return str(ipaddress.IPv4Address(value))
    if field in ("ip6 saddr", "ip6 daddr"):
        return str(ipaddress.IPv6Address(value))
    if field == "tcp flags":
        return ",".join(name for name, bit in FLAGS.items() if value & bit) or "none"
    if field == "ct state":
        return next(name for name, number in STATES.items() if number == value)
    names = _NAMES.get(field, {})
    return next((name for name, number in names.items() if number == value), str(value))


def one_of(field: str, wanted: Sequence[int]) -> Among:
    """The field has one of these values."""
    return Among(field, union((value, value) for value in wanted))
