"""From a compiled policy to the plan of its network: who stands on which side, and what may be said there. PURE.

A side gets the interfaces of its zones. Where a conduit begins, its principals may reach the addresses at which its
assets are published; where it ends, a broker may reach the devices themselves. Nothing else is in the plan.

Not here: rules of the firewall (rules), whether the interfaces exist (enforce.namespaces).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cofferdam.enforce.plans.records import Link, Listen, NetworkPlan, Reach, Route, SidePlan
from cofferdam.policy.rows import Conduit, Zone
from cofferdam.policy.table import CompiledPolicy


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
        sides=(_side(policy, "it"), _side(policy, "ot")),
    )


def _used_zones(policy: CompiledPolicy) -> list[Zone]:
    """The zones that conduits begin or end in."""
    names = {name for conduit in policy.conduits.values() for name in (conduit.from_zone, conduit.to_zone)}
    return [zone for zone in policy.zones.values() if zone.name in names]


def _side(policy: CompiledPolicy, side: str) -> SidePlan:
    zones = [zone for zone in policy.zones.values() if zone.side.value == side]
    here = {zone.name for zone in zones}
    own = {str(ipaddress.ip_interface(text).ip) for zone in zones for text in zone.addresses}
    listens = [
        listen
        for conduit in policy.conduits.values()
        if conduit.from_zone in here
        for listen in _listens(policy, conduit)
    ]
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
    )


def _link(zone: Zone) -> Link:
    if zone.vlan:
        return Link(zone.name, "vlan", zone.interface, zone.vlan, zone.addresses)
    return Link(zone.name, "macvlan" if zone.macvlan else "move", zone.interface, 0, zone.addresses)


def _listens(policy: CompiledPolicy, conduit: Conduit) -> Iterable[Listen]:
    """One entry for each set of principals and port, so that equal ones share a rule."""
    found: dict[tuple[tuple[str, ...], int], set[str]] = {}
    for rule in conduit.rules:
        listen = policy.assets[rule.asset].listen
        names = [name for name in rule.who if policy.principals[name].zone == conduit.from_zone]
        sources = _collapsed(network for name in names for network in policy.principals[name].networks)
        if listen is not None and sources:
            found.setdefault((sources, listen[1]), set()).add(listen[0])
    for (sources, port), addresses in sorted(found.items()):
        yield Listen(conduit.name, conduit.from_zone, sources, _sorted(addresses), port)


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
