"""Canary frames: one or more of every family that could carry something across, each with a token to know it by. PURE.

    link        ARP, LLDP, PTP (802.1AS), PROFINET, GOOSE, EtherCAT, a VLAN tag around IPv4
    IPv4, IPv6  UDP, TCP, ICMP, GRE, IPIP, SCTP

Checksums are right, so that a kernel that would forward a frame has no other reason to drop it.

Not here: sending and listening (enforce.prove.canaries).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

TOKEN_BYTES: Final = 12
FAMILIES: Final = (
    "ipv4-udp", "ipv4-tcp", "ipv4-icmp", "ipv4-gre", "ipv4-ipip", "ipv4-sctp", "ipv6-udp", "ipv6-tcp", "ipv6-icmp",
    "ipv6-gre", "ipv6-ipip", "ipv6-sctp", "vlan-ipv4-udp", "vlan-ipv4-tcp", "vlan-ipv6-udp", "arp", "profinet", "goose",
    "ethercat", "lldp", "ptp",
)  # fmt: skip
"""What is claimed; each has a positive control of its own."""
_ETHERTYPES: Final = {"profinet": 0x8892, "goose": 0x88B8, "ethercat": 0x88A4, "lldp": 0x88CC, "ptp": 0x88F7}
_GROUPS: Final = {
    "profinet": "01:0e:cf:00:00:00", "goose": "01:0c:cd:01:00:00", "ethercat": "01:01:05:01:00:00",
    "lldp": "01:80:c2:00:00:0e", "ptp": "01:1b:19:00:00:00",
}  # fmt: skip
BROADCAST: Final = "ff:ff:ff:ff:ff:ff"
_TCP, _UDP, _ICMP, _GRE, _IPIP, _SCTP, _ICMPV6, _IP6IP6 = 6, 17, 1, 47, 4, 132, 58, 41


class Target(NamedTuple):
    """Where frames are addressed to. `macs`: those of the gate's interface and of the far device, in turn."""

    source_mac: str
    macs: tuple[str, ...]
    source_v4: str
    targets_v4: tuple[str, ...]
    source_v6: str
    targets_v6: tuple[str, ...]
    port: int


def frames(family: str, target: Target, token: bytes) -> tuple[bytes, ...]:
    """The frames of a family: to each address, and to each station. `token` is in every one of them."""
    if family == "arp":
        return tuple(
            _arp(target, mac, address, token) for mac in (*target.macs, BROADCAST) for address in target.targets_v4
        )
    if family in _ETHERTYPES:
        ethertype = _ETHERTYPES[family]
        return tuple(
            _ethernet(mac, target.source_mac, ethertype, _head(family) + token)
            for mac in (_GROUPS[family], *target.macs)
        )
    tagged = family.startswith("vlan-")
    version, protocol = family.removeprefix("vlan-").split("-")
    found = []
    addresses = target.targets_v4 if version == "ipv4" else target.targets_v6
    for mac in (*target.macs, BROADCAST):
        for address in addresses:
            packet = _packet(version, protocol, target, address, token)
            ethertype = 0x0800 if version == "ipv4" else 0x86DD
            if tagged:
                packet = struct.pack(">HH", 7, ethertype) + packet  # TCI with VLAN 7, then the inner type
                ethertype = 0x8100
            found.append(_ethernet(mac, target.source_mac, ethertype, packet))
    return tuple(found)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ethernet(to: str, source: str, ethertype: int, body: bytes) -> bytes:
    return (_mac(to) + _mac(source) + struct.pack(">H", ethertype) + body).ljust(60, b"\0")


def _head(family: str) -> bytes:
    """The first bytes that make a frame one of its kind."""
    return {
        "profinet": struct.pack(">H", 0xFEFE) + b"\x05\0" + bytes(8),  # DCP identify request
        "goose": struct.pack(">HHHH", 3, 200, 0, 0) + b"\x61\x81\xb0",
        "ethercat": struct.pack("<H", 0x1000 | 44) + bytes(10),
        "lldp": b"\x02\x07\x04" + bytes(6) + b"\x04\x02\x07a\x06\x02\0\x78"
        + struct.pack(">H", 127 << 9 | 16) + b"\0\x80\xc2\0",
        "ptp": b"\0\x02" + struct.pack(">H", 44) + bytes(30),
    }[family]  # fmt: skip


def _arp(target: Target, to: str, address: str, token: bytes) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + _mac(target.source_mac) + _v4(target.source_v4)
    body += bytes(6) + _v4(address)
    return _ethernet(to, target.source_mac, 0x0806, body + token)


def _v4(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed


def _packet(version: str, protocol: str, target: Target, address: str, token: bytes) -> bytes:
    source = target.source_v4 if version == "ipv4" else target.source_v6
    ends = ipaddress.ip_address(source).packed, ipaddress.ip_address(address).packed
    number, body = _body(version, protocol, ends, target, token)
    return _ip(version, ends, number, body)


def _ip(version: str, ends: tuple[bytes, bytes], number: int, body: bytes) -> bytes:
    if version == "ipv6":
        return struct.pack(">IHBB", 6 << 28, len(body), number, 64) + ends[0] + ends[1] + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0) + ends[0] + ends[1]
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body


def _body(
    version: str, protocol: str, ends: tuple[bytes, bytes], target: Target, token: bytes
) -> tuple[int, bytes]:  # fmt: skip
    if protocol == "udp":
        body = struct.pack(">HHHH", 40000, target.port, 8 + len(token), 0) + token
        return _UDP, body[:6] + _pseudo(ends, _UDP, body).to_bytes(2, "big") + body[8:]
    if protocol == "tcp":
        # A SYN with data in it, so that the token travels with the first packet.
        body = struct.pack(">HHIIBBHHH", 40000, target.port, 1, 0, 5 << 4, 2, 64240, 0, 0) + token
        return _TCP, body[:16] + _pseudo(ends, _TCP, body).to_bytes(2, "big") + body[18:]
    if protocol == "icmp":
        if version == "ipv4":
            body = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + token
            return _ICMP, body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        body = struct.pack(">BBHHH", 128, 0, 0, 1, 1) + token
        return _ICMPV6, body[:2] + _pseudo(ends, _ICMPV6, body).to_bytes(2, "big") + body[4:]
    if protocol == "sctp":
        # An INIT chunk; its checksum is CRC-32C, which no router looks at.
        return _SCTP, struct.pack(">HHII", 40000, target.port, 0, 0) + struct.pack(">BBH", 1, 0, 4 + len(token)) + token
    inner = _ip(version, ends, *_body(version, "udp", ends, target, token))
    if protocol == "gre":
        return _GRE, struct.pack(">HH", 0, 0x0800 if version == "ipv4" else 0x86DD) + inner
    return (_IPIP if version == "ipv4" else _IP6IP6), inner


def _pseudo(ends: tuple[bytes, bytes], number: int, body: bytes) -> int:
    return checksum(ends[0] + ends[1] + struct.pack(">II", len(body), number) + body) or 0xFFFF


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
