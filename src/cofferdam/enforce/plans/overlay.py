"""What clients of the overlay need to know, worked out from a policy: names, routes, a peer's configuration. PURE.

The zone holds what a client can reach and nothing else: no real address of a device stands in it.

Not here: which address an asset has (policy.addressing), serving names (enforce.overlay.names), the tunnel itself
(enforce.overlay.tunnel).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, Struct

from cofferdam.policy.addressing import NAME_SERVER, label
from cofferdam.policy.table import CompiledPolicy

TTL, NEGATIVE_TTL = 300, 60
"""Seconds that resolvers keep an answer, and keep that there is none."""
REVERSE_ZONES = 256
"""The most reverse zones that one prefix makes: one for each octet (IPv4) or digit (IPv6) boundary within it."""
MTU = 1280
"""Of the tunnel: what every IPv6 path carries, also within another tunnel."""
PORT = 53

Label = Annotated[str, Meta(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
Domain = Annotated[str, Meta(max_length=255, pattern=r"^[a-z0-9._-]+$")]
Address = Annotated[str, Meta(max_length=45, pattern=r"^[0-9a-f.:]+$")]
Text = Annotated[str, Meta(max_length=255)]


class Host(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One name of the zone, with its addresses and what stands in its TXT record."""

    label: Label
    addresses: tuple[Address, ...]
    texts: tuple[Text, ...] = ()


class NameZone(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An authoritative zone with its reverse zones. `serial` is that of the SOA record (RFC 1035, 3.3.13)."""

    domain: Domain
    serial: Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
    servers: tuple[Address, ...]
    hosts: tuple[Host, ...]
    reverse: tuple[Domain, ...] = ()

    @property
    def name_server(self) -> str:
        return f"{NAME_SERVER}.{self.domain}"


def name_zone(policy: CompiledPolicy, serial: int) -> NameZone | None:
    """The zone of a policy; None if it has no overlay. An asset that is published nowhere has no name."""
    overlay = policy.overlay
    if overlay is None:
        return None
    published = {rule.asset for conduit in policy.conduits.values() for rule in conduit.rules}
    hosts = []
    for name in sorted(published):
        asset = policy.assets[name]
        addresses = tuple(address for address, _ in asset.places if not _is_local(address))
        ports = sorted({port for _, port in asset.places})
        if addresses:
            texts = (f"protocol={asset.protocol}", *(f"port={port}" for port in ports))
            hosts.append(Host(label(name), addresses, texts))
    reverse = [zone for prefix in overlay.prefixes for zone in reverse_zones(prefix)]
    return NameZone(overlay.domain, serial & 0xFFFFFFFF, overlay.dns, tuple(hosts), tuple(reverse))


def _is_local(text: str) -> bool:
    address = ipaddress.ip_address(text)
    return address.is_unspecified or address.is_loopback


def reverse_zones(prefix: str) -> tuple[str, ...]:
    """The names under in-addr.arpa or ip6.arpa that hold a prefix and no address outside it."""
    network = ipaddress.ip_network(prefix)
    step = 8 if network.version == 4 else 4
    boundary = -(-network.prefixlen // step) * step
    found = []
    for part in network.subnets(new_prefix=boundary):
        pointer = part.network_address.reverse_pointer
        labels = pointer.split(".")
        spare = (part.max_prefixlen - boundary) // step
        found.append(".".join(labels[spare:]))
        if len(found) == REVERSE_ZONES:
            break
    return tuple(found)


def zone_files(zone: NameZone) -> dict[str, str]:
    """The zone and its reverse zones by their names, as files (RFC 1035, section 5) for the site's own DNS server."""
    head = [
        f"$TTL {TTL}",
        f"@ IN SOA {zone.name_server}. hostmaster.{zone.domain}. ( {zone.serial} 3600 600 604800 {NEGATIVE_TTL} )",
        f"@ IN NS {zone.name_server}.",
    ]
    hosts = (Host(NAME_SERVER, zone.servers), *zone.hosts)
    lines = [f"$ORIGIN {zone.domain}.", *head]
    for host in hosts:
        lines += [f"{host.label} IN {'AAAA' if ':' in text else 'A'} {text}" for text in host.addresses]
        if host.texts:
            lines.append(f"{host.label} IN TXT " + " ".join(f'"{text}"' for text in host.texts))
    files = {zone.domain: "\n".join(lines) + "\n"}
    for reverse in zone.reverse:
        lines = [f"$ORIGIN {reverse}.", *head]
        for host in hosts:
            for text in host.addresses:
                pointer = ipaddress.ip_address(text).reverse_pointer
                if pointer == reverse or pointer.endswith(f".{reverse}"):
                    lines.append(f"{pointer}. IN PTR {host.label}.{zone.domain}.")
        files[reverse] = "\n".join(lines) + "\n"
    return files


class RouteLine(Struct, frozen=True):
    """A route that routers of the office need: to an overlay network by the gate's address in a zone.

    `by_neighbour`: the network lies within the zone's own, so hosts there need no route, the gate answers them."""

    zone: str
    network: str
    via: str
    by_neighbour: bool


def routes(policy: CompiledPolicy) -> tuple[RouteLine, ...]:
    """For each zone of the office side with addresses of ours, the way to every overlay address."""
    found = []
    targets = [*(policy.overlay.prefixes if policy.overlay is not None else ())]
    covered = [ipaddress.ip_network(text) for text in targets]
    for name in sorted({rule.asset for conduit in policy.conduits.values() for rule in conduit.rules}):
        for text, _ in policy.assets[name].places:
            address = ipaddress.ip_address(text)
            outside = not any(address.version == net.version and address in net for net in covered)
            if outside and not _is_local(text) and name in policy.overlays:
                targets.append(f"{text}/{address.max_prefixlen}")
    for zone in policy.zones.values():
        if zone.side.value != "it":
            continue
        own = [ipaddress.ip_interface(text) for text in zone.addresses]
        for target in targets:
            network = ipaddress.ip_network(target)
            same = [interface for interface in own if interface.version == network.version]
            if same:
                near = any(_within(network, interface.network) for interface in same)
                found.append(RouteLine(zone.name, target, str(same[0].ip), near))
    return tuple(found)


def _within(
    inner: ipaddress.IPv4Network | ipaddress.IPv6Network, outer: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    return inner.version == outer.version and inner.network_address in outer and inner.prefixlen >= outer.prefixlen


def router_lines(route: RouteLine, style: str) -> str:
    """One route as a router's configuration line. `style`: linux, cisco, junos, routeros."""
    network = ipaddress.ip_network(route.network)
    six = network.version == 6
    if style == "cisco":
        if six:
            return f"ipv6 route {network} {route.via}"
        return f"ip route {network.network_address} {network.netmask} {route.via}"
    if style == "junos":
        rib = "rib inet6.0 " if six else ""
        return f"set routing-options {rib}static route {network} next-hop {route.via}"
    if style == "routeros":
        return f"/{'ipv6' if six else 'ip'} route add dst-address={network} gateway={route.via}"
    return f"ip{' -6' if six else ''} route add {network} via {route.via}"


STYLES = ("linux", "cisco", "junos", "routeros")


def routes_text(policy: CompiledPolicy, style: str) -> list[str]:
    """What to configure on the office's routers, line by line, with what has no route."""
    found = routes(policy)
    lines = []
    for route in found:
        if route.by_neighbour:
            lines += [
                f"# {route.network} lies within zone {route.zone}: hosts there need no route, the gate answers them;",
                "# others reach it as they reach that zone. Keep the network out of DHCP.",
            ]
        else:
            lines += [f"# on the routers of zone {route.zone}", router_lines(route, style)]
    overlay = policy.overlay
    if overlay is None:
        return lines
    for network in overlay.prefixes:
        if not any(route.network == network for route in found):
            version = "IPv6" if ":" in network else "IPv4"
            lines.append(f"# no route to {network}: the policy gives no {version} address of the gate in an it zone")
    if overlay.wireguard is not None:
        port = overlay.wireguard.port
        lines.append(f"# for WireGuard peers: let UDP port {port} through to this machine's management network")
    return lines


def asset_addresses(policy: CompiledPolicy) -> dict[str, tuple[str, ...]]:
    """The addresses that each asset is published at."""
    return {name: tuple(where for where, _ in asset.places) for name, asset in policy.assets.items() if asset.places}


def peer_addresses(policy: CompiledPolicy) -> dict[str, tuple[str, ...]]:
    """The addresses of each peer that a principal names."""
    return {
        principal.peer: tuple(text.split("/")[0] for text in principal.networks)
        for principal in policy.principals.values()
        if principal.peer
    }


def peer_config(
    *, private_key: str, addresses: Iterable[str], server_key: str, endpoint: tuple[str, int], networks: Iterable[str],
    dns: Iterable[str], domain: str, keepalive: int,
) -> str:  # fmt: skip
    """A peer's configuration in the form that wg-quick(8) and the WireGuard applications read.

    Only the overlay goes through the tunnel (AllowedIPs), so a peer keeps its own way to everything else.
    """
    host, port = endpoint
    shown = f"[{host}]" if ":" in host else host
    own = ", ".join(f"{text}/{128 if ':' in text else 32}" for text in addresses)
    lines = ["[Interface]", f"PrivateKey = {private_key}", f"Address = {own}", f"MTU = {MTU}"]
    servers = list(dns)
    if servers:
        lines.append(f"DNS = {', '.join([*servers, domain])}")
    lines += ["", "[Peer]", f"PublicKey = {server_key}", f"AllowedIPs = {', '.join(networks)}"]
    lines.append(f"Endpoint = {shown}:{port}")
    if keepalive:
        lines.append(f"PersistentKeepalive = {keepalive}")
    return "\n".join(lines) + "\n"
