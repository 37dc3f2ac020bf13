"""From a compiled policy to the plan of its network: who stands on which side, and what may be said there. PURE.

A side gets the interfaces of its zones. Where a conduit begins, its principals may reach the addresses at which its
assets are published; where it ends, a broker may reach the devices themselves. Nothing else is in the plan.

Not here: rules of the firewall (rules), whether the interfaces exist (enforce.namespaces).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cofferdam.enforce.plans.overlay import PORT
from cofferdam.enforce.plans.records import MOST_OPENINGS, Link, Listen, NetworkPlan, Reach, Route, SidePlan, Tunnel
from cofferdam.policy.rows import Conduit, Zone
from cofferdam.policy.table import CompiledPolicy

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAMES = "overlay.names"
"""Stands for a conduit where rules let questions to the name server through."""
OPENINGS = 2
"""The firewall lets so many times `client_connects_per_second` through: who opens too many is to be seen by the outer
half, which says so in the audit log, and is not to cost it more than that."""


def network_plan(policy: CompiledPolicy) -> NetworkPlan:
    """The plan. Namespaces are in it if the policy asks for them, or leaves it open and names interfaces."""
    gate = policy.gate
    asked = gate.require_namespaces or gate.separation == "namespaces"
    used = _used_zones(policy)
    named = bool(used) and all(zone.interface for zone in used)
    return NetworkPlan(
        site=policy.site,
        namespaces=asked or (gate.separation == "auto" and named),
        required=asked,
        sides=(_side(policy, _zones(policy, "it"), "it"), *_ot_sides(policy)),
    )


def _zones(policy: CompiledPolicy, side: str) -> list[Zone]:
    return [zone for zone in policy.zones.values() if zone.side.value == side]


def _ot_sides(policy: CompiledPolicy) -> Iterable[SidePlan]:
    """One namespace for the plant; or, where zones have the same addresses, as machine cells bought twice have, more:
    each zone goes into the first in which its addresses mean nothing else."""
    spaces: list[tuple[list[Zone], list[_Network]]] = [([], [])]
    for zone in _zones(policy, "ot"):
        own = _meant(policy, zone)
        for zones, taken in spaces:
            if not any(one.version == other.version and one.overlaps(other) for one in own for other in taken):
                zones.append(zone)
                taken += own
                break
        else:
            spaces.append(([zone], own))
    for number, (zones, _) in enumerate(spaces):
        yield _side(policy, zones, "ot", zones[0].name if number else "")


def _meant(policy: CompiledPolicy, zone: Zone) -> list[_Network]:
    """What an address in a zone is: its networks and those behind its routers; without them, its devices."""
    networks: list[_Network] = [ipaddress.ip_interface(text).network for text in zone.addresses]
    networks += [ipaddress.ip_network(network) for network, _ in zone.routes]
    devices = {asset.address for asset in policy.assets.values() if asset.zone == zone.name}
    addresses = [ipaddress.ip_network(text) for text in devices]
    # A default route is no claim to addresses that another zone has itself.
    networks = [network for network in networks if network.prefixlen]
    return networks + [
        one
        for one in addresses
        if not any(one.version == net.version and one.subnet_of(net) for net in networks)  # type: ignore[arg-type]
    ]


def _used_zones(policy: CompiledPolicy) -> list[Zone]:
    """The zones that conduits begin or end in."""
    names = {name for conduit in policy.conduits.values() for name in (conduit.from_zone, conduit.to_zone)}
    return [zone for zone in policy.zones.values() if zone.name in names]


def _side(policy: CompiledPolicy, zones: list[Zone], side: str, cell: str = "") -> SidePlan:
    here = {zone.name for zone in zones}
    own = {str(ipaddress.ip_interface(text).ip) for zone in zones for text in zone.addresses}
    listens = [
        listen
        for conduit in policy.conduits.values()
        if conduit.from_zone in here
        for listen in _listens(policy, conduit)
    ]
    listens += [listen for zone in zones for listen in _names(policy, zone)]
    reaches = [
        reach for conduit in policy.conduits.values() if conduit.to_zone in here for reach in _reaches(policy, conduit)
    ]
    published = {address for listen in listens for address in listen.addresses}
    return SidePlan(
        side="it" if side == "it" else "ot",
        links=tuple(_link(zone) for zone in zones if zone.interface),
        overlay=_sorted(published - own),
        routes=tuple(Route(zone.name, network, via) for zone in zones for network, via in zone.routes),
        listens=tuple(listens),
        reaches=tuple(reaches),
        tunnel=_tunnel(policy) if side == "it" else None,
        cell=cell,
        openings=min(OPENINGS * policy.limits.client_connects_per_second, MOST_OPENINGS) if listens else 0,
    )


def _tunnel(policy: CompiledPolicy) -> Tunnel | None:
    found = policy.overlay.wireguard if policy.overlay is not None else None
    return None if found is None else Tunnel(found.port, found.networks)


def _names(policy: CompiledPolicy, zone: Zone) -> Iterable[Listen]:
    """Every principal of the office side may ask for names."""
    if policy.overlay is None or zone.side.value != "it":
        return
    for tunnel in (False, True):
        sources = _collapsed(
            network
            for principal in policy.principals.values()
            if principal.zone == zone.name and bool(principal.peer) == tunnel
            for network in principal.networks
        )
        if sources and policy.overlay.dns:
            for datagrams in (True, False):
                yield Listen(NAMES, zone.name, sources, _sorted(policy.overlay.dns), PORT, datagrams, tunnel)


def _link(zone: Zone) -> Link:
    if zone.vlan:
        return Link(zone.name, "vlan", zone.interface, zone.vlan, zone.addresses)
    return Link(zone.name, "macvlan" if zone.macvlan else "move", zone.interface, 0, zone.addresses)


def _listens(policy: CompiledPolicy, conduit: Conduit) -> Iterable[Listen]:
    """One entry for each set of principals and port, so that equal ones share a rule."""
    found: dict[tuple[tuple[str, ...], int, bool], set[str]] = {}
    for rule in conduit.rules:
        who = [policy.principals[name] for name in rule.who if policy.principals[name].zone == conduit.from_zone]
        for tunnel in (False, True):
            sources = _collapsed(text for one in who if bool(one.peer) == tunnel for text in one.networks)
            if sources:
                for address, port in policy.assets[rule.asset].places:
                    found.setdefault((sources, port, tunnel), set()).add(address)
    for (sources, port, tunnel), addresses in sorted(found.items()):
        yield Listen(conduit.name, conduit.from_zone, sources, _sorted(addresses), port, tunnel=tunnel)


def _reaches(policy: CompiledPolicy, conduit: Conduit) -> Iterable[Reach]:
    found: dict[int, set[str]] = {}
    for rule in conduit.rules:
        asset = policy.assets[rule.asset]
        found.setdefault(asset.port, set()).add(asset.address)
    for port, addresses in sorted(found.items()):
        yield Reach(conduit.name, conduit.to_zone, _sorted(addresses), port)


def _collapsed(texts: Iterable[str]) -> tuple[str, ...]:
    """Networks without overlap, IPv4 first: a set of the firewall may not name an address twice."""
    networks = {ipaddress.ip_network(text) for text in texts}
    four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return tuple(map(str, (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))))


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    found = {ipaddress.ip_address(text) for text in addresses}
    return tuple(map(str, sorted(found, key=lambda address: (address.version, int(address)))))
