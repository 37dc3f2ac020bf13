"""From a captured frame to a TCP segment: link layer, VLAN tags, IPv4 and IPv6, fragments.

Link types: Ethernet, Linux cooked v1 and v2, raw IP, BSD loopback. Everything else is counted by name and skipped.
Checksums are not verified: network cards fill them in after the capture was taken, so most captures made on an end
system hold wrong ones. A segment keeps the length it had on the wire (by the IP header), since the capture may have
cut it off, and since Ethernet pads short frames.

Not here: the order of segments (streams.py). Tunnels (GRE, VXLAN, IP in IP) are not opened.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Container
from ipaddress import ip_address
from typing import Final

import msgspec

from cofferdam.capture.files import Packet
from cofferdam.capture.limits import CaptureLimits

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

MOST_TUNNELS: Final = 4
"""Tunnels within one another that are followed."""
VXLAN_PORT: Final = 4789
"""RFC 7348, 5: the UDP port to which VXLAN is sent."""

_TCP: Final = 6
_UDP: Final = 17
_GRE: Final = 47
_MPLS_TYPE: Final = 0x8847
_PPPOE_TYPE: Final = 0x8864
_BRIDGED: Final = 0x6558
_ERSPAN: Final = 0x88BE
_ERSPAN_3: Final = 0x22EB
_VLAN_TYPES: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_IPV4_TYPE: Final = 0x0800
_IPV6_TYPE: Final = 0x86DD

_ETHERNET: Final = 1
_LINUX_COOKED: Final = 113
_LINUX_COOKED_2: Final = 276
_LOOPBACKS: Final = frozenset({0, 108})
_RAW: Final = frozenset({12, 14, 101, 228, 229})
_LOOPBACK_IPV6: Final = frozenset({10, 24, 28, 30})  # AF_INET6 of Linux, NetBSD, FreeBSD, macOS

_OPTIONS_LIKE: Final = frozenset({0, 43, 60, 135, 139, 140})  # IPv6 headers of the common form (RFC 6564)
_FRAGMENT_HEADER: Final = 44
_AUTHENTICATION: Final = 51

_PROTOCOL_NAMES: Final = {1: "ICMP", 2: "IGMP", 4: "IP in IP", 17: "UDP", 41: "IPv6 in IP", 47: "GRE", 50: "ESP",
                          58: "ICMPv6", 59: "no next header", 89: "OSPF", 132: "SCTP"}  # fmt: skip
_TYPE_NAMES: Final = {0x0806: "ARP", 0x88CC: "LLDP", 0x8892: "PROFINET", 0x88A4: "EtherCAT", 0x8847: "MPLS",
                      0x8863: "PPPoE", 0x8864: "PPPoE", 0x888E: "802.1X", 0x88E5: "MACsec"}  # fmt: skip


class Segment(msgspec.Struct, frozen=True, gc=False):
    """One TCP segment. Addresses are packed (4 or 16 bytes). `length` is its payload's length on the wire, of which
    `data` was captured. `packet` and `time_ns` are those of the packet that completed it."""

    source: bytes
    target: bytes
    source_port: int
    target_port: int
    seq: int
    ack: int
    flags: int
    length: int
    data: bytes
    packet: int
    time_ns: int


class Datagram(msgspec.Struct, frozen=True, gc=False):
    """One UDP datagram to a port at which frames of streams go. Addresses are packed."""

    source: bytes
    target: bytes
    target_port: int
    data: bytes
    packet: int
    time_ns: int


class _Pieces:
    """The fragments of one datagram so far. Starts are byte offsets in its payload."""

    __slots__ = ("captured", "first_ns", "parts", "total")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.parts: dict[int, bytes] = {}
        self.total = -1
        self.captured = True


_Key = tuple[bytes, bytes, int, int]


class Decoder:
    """Turns packets into TCP segments, one at a time; `ports`: datagrams to these are kept as well.

    Attributes: `datagram` is what the last packet held where it was such a datagram; `skipped` counts packets that hold
    neither, by what they are; `damaged` counts packets whose headers are cut off or contradict themselves;
    `fragments_lost` counts datagrams given up for missing, overlapping or too many fragments.
    """

    def __init__(self, limits: CaptureLimits | None = None, ports: Container[int] = ()) -> None:
        self._limits = limits or CaptureLimits()
        self._ports = ports
        self.datagram: Datagram | None = None
        self._waiting: OrderedDict[_Key, _Pieces] = OrderedDict()
        self._time_ns = 0
        self._tunnels = 0  # how many the packet has gone through
        self.skipped: Counter[str] = Counter()
        self.damaged = 0
        self.fragments_lost = 0
        self.segments = 0

    def segment(self, packet: Packet) -> Segment | None:
        """The TCP segment that `packet` holds or completes, or None (then a counter says why)."""
        if packet.time_ns >= 0:
            self._time_ns = packet.time_ns
        self._tunnels = 0
        self.datagram = None
        try:
            found = self._link(packet)
        except IndexError:
            found = None
            self.damaged += 1
        if found is not None:
            self.segments += 1
        return found

    def finish(self) -> None:
        """The file is over: what still waits for fragments is lost."""
        self.fragments_lost += len(self._waiting)
        self._waiting.clear()

    # -- link layer ------------------------------------------------------------------------------------------

    def _link(self, packet: Packet) -> Segment | None:
        data, link = packet.data, packet.link
        if link == _ETHERNET:
            return self._typed(packet, 12)
        if link == _LINUX_COOKED:
            return self._typed(packet, 14)
        if link == _LINUX_COOKED_2:
            return self._network(packet, _word(data, 0), 20)
        if link in _RAW:
            return self._network(packet, _IPV6_TYPE if data[0] >> 4 == 6 else _IPV4_TYPE, 0)
        if link in _LOOPBACKS:
            # four bytes with the address family, in the byte order of whoever captured: the small number is it
            family = data[0] or data[3]
            if family == 2:
                return self._network(packet, _IPV4_TYPE, 4)
            if family in _LOOPBACK_IPV6:
                return self._network(packet, _IPV6_TYPE, 4)
            self.skipped[f"address family {family}"] += 1
            return None
        self.skipped[f"link type {link}"] += 1
        return None

    def _typed(self, packet: Packet, at: int) -> Segment | None:
        """A header that ends with an EtherType at `at`."""
        return self._network(packet, _word(packet.data, at), at + 2)

    def _network(self, packet: Packet, kind: int, at: int) -> Segment | None:
        tags = 0
        while kind in _VLAN_TYPES:
            tags += 1
            if tags > self._limits.vlan_tags:
                self.damaged += 1
                return None
            kind = _word(packet.data, at + 2)
            at += 4
        if kind == _IPV4_TYPE:
            return self._ipv4(packet, at)
        if kind == _IPV6_TYPE:
            return self._ipv6(packet, at)
        if kind == _MPLS_TYPE:
            return self._mpls(packet, at)
        if kind == _PPPOE_TYPE:
            inner = {0x0021: _IPV4_TYPE, 0x0057: _IPV6_TYPE}.get(_word(packet.data, at + 6))
            if inner is not None:
                return self._network(packet, inner, at + 8)
            self.skipped["PPPoE without IP"] += 1
        elif kind < 0x0600:
            self.skipped["802.3 LLC"] += 1
        else:
            self.skipped[_TYPE_NAMES.get(kind, f"EtherType {kind:#06x}")] += 1
        return None

    # -- tunnels: what is mirrored to a collector, or passes a carrier, stands inside other frames -----------------

    def _mpls(self, packet: Packet, at: int) -> Segment | None:
        """RFC 3032: labels to the bottom of the stack; then IP, or Ethernet behind a control word (RFC 4448)."""
        for _ in range(self._limits.vlan_tags):
            bottom = packet.data[at + 2] & 1
            at += 4
            if bottom:
                version = packet.data[at] >> 4
                if version in (4, 6):
                    return self._network(packet, _IPV4_TYPE if version == 4 else _IPV6_TYPE, at)
                return self._inner(packet, at + 4)
        self.damaged += 1
        return None

    def _inner(self, packet: Packet, at: int) -> Segment | None:
        """An Ethernet frame inside another packet."""
        self._tunnels += 1
        if self._tunnels > MOST_TUNNELS:
            self.damaged += 1
            return None
        return self._network(packet, _word(packet.data, at + 12), at + 14)

    def _gre(self, packet: Packet, at: int) -> Segment | None:
        """RFC 2784 and 2890; ERSPAN of types I, II and III (draft-foschiano-erspan)."""
        flags, kind = _word(packet.data, at), _word(packet.data, at + 2)
        if flags & 0x4007:  # routing, or another version (PPTP)
            self.skipped["GRE of another kind"] += 1
            return None
        start = at + 4 + 4 * bool(flags & 0x8000) + 4 * bool(flags & 0x2000) + 4 * bool(flags & 0x1000)
        if kind == _ERSPAN:
            return self._inner(packet, start + (8 if flags & 0x1000 else 0))
        if kind == _ERSPAN_3:
            return self._inner(packet, start + 12 + 8 * (packet.data[start + 11] & 1))
        if kind == _BRIDGED:
            return self._inner(packet, start)
        self._tunnels += 1
        if self._tunnels > MOST_TUNNELS:
            self.damaged += 1
            return None
        return self._network(packet, kind, start)

    # -- network layer ---------------------------------------------------------------------------------------

    def _ipv4(self, packet: Packet, at: int) -> Segment | None:
        data = packet.data
        header = (data[at] & 0x0F) * 4
        total = _word(data, at + 2)
        if data[at] >> 4 != 4 or header < 20 or (total and total < header):
            self.damaged += 1
            return None
        # Length 0: the card cuts the segment later (segmentation offload), so the whole frame is the datagram.
        length = (total or packet.length - at) - header
        protocol = data[at + 9]
        source, target = data[at + 12 : at + 16], data[at + 16 : at + 20]
        if len(target) < 4:
            raise IndexError
        where = _word(data, at + 6)
        body = data[at + header : at + header + length]
        if where & 0x3FFF:
            if protocol != _TCP:
                self.skipped[_PROTOCOL_NAMES.get(protocol, f"IP protocol {protocol}")] += 1
                return None
            key = (source, target, _word(data, at + 4), protocol)
            return self._fragment(packet, key, (where & 0x1FFF) * 8, not where & 0x2000, body, length)
        if protocol == _GRE:
            return self._gre(packet, at + header)
        if protocol == _UDP and len(body) >= 16 and _word(body, 2) == VXLAN_PORT and body[8] & 0x08:
            return self._inner(packet, at + header + 16)
        return self._transport(packet, protocol, source, target, body, length)

    def _ipv6(self, packet: Packet, at: int) -> Segment | None:
        data = packet.data
        if data[at] >> 4 != 6:
            self.damaged += 1
            return None
        length = _word(data, at + 4)
        source, target = data[at + 8 : at + 24], data[at + 24 : at + 40]
        if len(target) < 16:
            raise IndexError
        start = at + 40
        if not length:
            length = max(packet.length - start, 0)  # jumbogram or segmentation offload
        return self._extensions(packet, data[at + 6], source, target, data[start : start + length], length)

    def _extensions(
        self, packet: Packet, kind: int, source: bytes, target: bytes, body: bytes, length: int
    ) -> Segment | None:
        at = 0
        for _ in range(self._limits.extension_headers):
            if kind in _OPTIONS_LIKE:
                kind, at = body[at], at + (body[at + 1] + 1) * 8
            elif kind == _AUTHENTICATION:
                kind, at = body[at], at + (body[at + 1] + 2) * 4
            elif kind == _FRAGMENT_HEADER:
                where = _word(body, at + 2)
                inner, ident = body[at], int.from_bytes(body[at + 4 : at + 8], "big")
                start = at + 8
                if length < start:
                    raise IndexError
                if where & 0xFFF9:
                    key = (source, target, ident, -1 - inner)
                    return self._fragment(packet, key, where & 0xFFF8, not where & 1, body[start:], length - start)
                kind, at = inner, start  # an atomic fragment (RFC 6946)
            else:
                return self._transport(packet, kind, source, target, body[at:], length - at)
        self.damaged += 1
        return None

    # -- fragments -------------------------------------------------------------------------------------------

    def _fragment(self, packet: Packet, key: _Key, start: int, last: bool, body: bytes, length: int) -> Segment | None:
        self._expire()
        pieces = self._waiting.get(key)
        if pieces is None:
            if len(self._waiting) >= self._limits.fragmented_datagrams:
                self._waiting.popitem(last=False)
                self.fragments_lost += 1
            pieces = self._waiting[key] = _Pieces(self._time_ns)
        known = pieces.parts.get(start)
        if known == body and len(body) == length:
            return None  # the same fragment again
        overlaps = known is not None or any(
            start < other + len(part) and other < start + length for other, part in pieces.parts.items()
        )
        wrong_end = last and pieces.total not in (-1, start + length)
        beyond = start + length > 0xFFFF or (pieces.total >= 0 and start + length > pieces.total)
        too_many = len(pieces.parts) >= self._limits.fragments_per_datagram
        if overlaps or wrong_end or beyond or too_many or len(body) < length or not length:
            # Overlapping fragments are how reassembly is tricked (RFC 5722): such a datagram is not guessed at.
            del self._waiting[key]
            self.fragments_lost += 1
            return None
        pieces.parts[start] = body
        if last:
            pieces.total = start + length
            if any(other + len(part) > pieces.total for other, part in pieces.parts.items()):
                del self._waiting[key]
                self.fragments_lost += 1
                return None
        if pieces.total < 0 or sum(map(len, pieces.parts.values())) < pieces.total:
            return None
        del self._waiting[key]
        whole = b"".join(pieces.parts[at] for at in sorted(pieces.parts))
        source, target, _ident, protocol = key
        if protocol < 0:
            return self._extensions(packet, -1 - protocol, source, target, whole, len(whole))
        return self._transport(packet, protocol, source, target, whole, len(whole))

    def _expire(self) -> None:
        while self._waiting:
            key, pieces = next(iter(self._waiting.items()))
            if self._time_ns - pieces.first_ns <= self._limits.fragment_patience_ns:
                return
            del self._waiting[key]
            self.fragments_lost += 1

    # -- transport layer -------------------------------------------------------------------------------------

    def _transport(
        self, packet: Packet, protocol: int, source: bytes, target: bytes, body: bytes, length: int
    ) -> Segment | None:
        if protocol == _UDP and length >= 8 and _word(body, 2) in self._ports:
            at = packet.number, self._time_ns
            self.datagram = Datagram(source, target, _word(body, 2), body[8:length], *at)
            return None
        if protocol != _TCP:
            self.skipped[_PROTOCOL_NAMES.get(protocol, f"IP protocol {protocol}")] += 1
            return None
        header = (body[12] >> 4) * 4
        flags = body[13]
        if header < 20 or length < header:
            self.damaged += 1
            return None
        return Segment(
            source,
            target,
            _word(body, 0),
            _word(body, 2),
            int.from_bytes(body[4:8], "big"),
            int.from_bytes(body[8:12], "big"),
            flags,
            length - header,
            body[header:length],
            packet.number,
            self._time_ns,
        )


def _word(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def address_text(packed: bytes) -> str:
    """The usual text of a packed address; an IPv4 address mapped into IPv6 prints as IPv4."""
    address = ip_address(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
