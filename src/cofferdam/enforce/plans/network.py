"""From a compiled policy to the plan of its network: who stands on which side, and what may be said there. PURE.

A side gets the interfaces of its zones. Principals may reach the sockets at which a conduit's parts listen, and a part
the sockets that it needs; both come from the brokers' terms by way of the crews that the policy needs (policy.crews).
Nothing else is in the plan.

Not here: rules of the firewall (rules), whether the interfaces exist (enforce.namespaces).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import NamedTuple

from cofferdam.enforce.crews import EXPORTER, WITNESS, export_crew
from cofferdam.enforce.plans.overlay import PORT
from cofferdam.enforce.plans.records import (
    MOST_OPENINGS,
    Goal,
    Hosted,
    Link,
    Listen,
    NetworkPlan,
    Ping,
    Reach,
    Route,
    SidePlan,
    Strand,
    Tunnel,
)
from cofferdam.policy.crews import groups
from cofferdam.policy.rows import Zone
from cofferdam.policy.table import CompiledPolicy
from cofferdam.policy.terms.base import PartNeeds

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAMES = "overlay.names"
"""Stands for a conduit where rules let questions to the name server through."""
OPENINGS = 2
"""So many times `client_connects_per_second` pass the firewall: the outer half shall see who opens too many, and record
it, without being kept busy by it."""


def network_plan(policy: CompiledPolicy) -> NetworkPlan:
    """The plan. Namespaces are in it if the policy asks for them, or leaves it open and names interfaces.

    Raises: PolicyError, where no crews can serve the policy.
    """
    gate = policy.gate
    asked = gate.require_namespaces or gate.separation == "namespaces"
    used = _used_zones(policy)
    named = bool(used) and all(zone.interface for zone in used)
    needs = _needs(policy)
    return NetworkPlan(
        site=policy.site,
        namespaces=asked or (gate.separation == "auto" and named),
        required=asked,
        sides=(_side(policy, needs, _zones(policy, "it"), "it"), *_ot_sides(policy, needs), *_strands(policy, needs)),
        hosted=tuple(_hosted(policy)),
    )


def doors(policy: CompiledPolicy, peer: str) -> tuple[str, ...]:
    """The addresses at which something answers this peer of the overlay: what its tunnel has to lead to."""
    own = [
        ipaddress.ip_network(text)
        for principal in policy.principals.values() if principal.peer == peer for text in principal.networks
    ]  # fmt: skip

    def has(listen: Listen) -> bool:
        there = [ipaddress.ip_network(text) for text in listen.sources]
        return listen.tunnel and any(a.version == b.version and a.subnet_of(b) for a in own for b in there)  # type: ignore[arg-type]

    plan = network_plan(policy)
    return _sorted({address for side in plan.sides for one in side.listens if has(one) for address in one.addresses})


def _hosted(policy: CompiledPolicy) -> Iterable[Hosted]:
    """The parts that take the log to others: an export reaches its collector, the witness whom it visits."""
    for one in policy.audit.collectors:
        goals = (Goal(one.address, one.port, one.way == "udp"),) if one.address else ()
        yield Hosted(export_crew(one.name), EXPORTER, goals)
    if policy.audit.witnesses:
        places = dict.fromkeys(Goal(one.address, one.port) for one in policy.audit.witnesses)
        yield Hosted(WITNESS.kind, next(iter(WITNESS.parts)), tuple(places))


class _Need(NamedTuple):
    """What one part of a crew needs for a conduit."""

    conduit: str
    crew: str
    part: str
    needs: PartNeeds


def _needs(policy: CompiledPolicy) -> list[_Need]:
    """In the order of conduits' names, which is that of counters."""
    found = [
        _Need(conduit, base, part, needed)
        for base, group in groups(policy).items()
        for conduit, needs in group.conduits.items()
        for part, needed in needs.parts.items()
    ]
    return sorted(found, key=lambda need: need.conduit)


def _zones(policy: CompiledPolicy, side: str) -> list[Zone]:
    return [
        zone
        for zone in policy.zones.values()
        if zone.side.value == side and policy.is_here(zone.name) and not zone.diode
    ]


def _strands(policy: CompiledPolicy, needs: list[_Need]) -> Iterable[SidePlan]:
    """A namespace for each end of a strand."""
    for need, strand in ((one, strand) for one in needs for strand in one.needs.strands):
        zone = policy.zones[strand.zone]
        if not zone.interface:
            continue
        yield SidePlan(
            side="it" if zone.side.value == "it" else "ot",
            links=(_link(zone),),
            cell=zone.name,
            strand=Strand(
                zone.name, strand.way, strand.address, strand.peer, strand.port, need.crew, need.part, zone.station
            ),
        )


def _ot_sides(policy: CompiledPolicy, needs: list[_Need]) -> Iterable[SidePlan]:
    """One namespace for the plant; or, where zones have the same addresses, as machine cells bought twice have, more:
    each zone goes into the first in which its addresses mean nothing else."""
    spaces: list[tuple[list[Zone], list[_Network]]] = [([], [])]
    for zone in _zones(policy, "ot"):
        own = _meant(policy, needs, zone)
        for zones, taken in spaces:
            if not any(one.version == other.version and one.overlaps(other) for one in own for other in taken):
                zones.append(zone)
                taken += own
                break
        else:
            spaces.append(([zone], own))
    for number, (zones, _) in enumerate(spaces):
        yield _side(policy, needs, zones, "ot", zones[0].name if number else "")


def _meant(policy: CompiledPolicy, needs: list[_Need], zone: Zone) -> list[_Network]:
    """What an address in a zone is: its networks and those behind its routers; without them, its devices."""
    networks: list[_Network] = [ipaddress.ip_interface(text).network for text in zone.addresses]
    networks += [ipaddress.ip_network(network) for network, _ in zone.routes]
    devices = {asset.address for asset in policy.assets.values() if asset.zone == zone.name}
    devices |= {there.address for need in needs for there in need.needs.towards if there.zone == zone.name}
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
    return [zone for zone in policy.zones.values() if zone.name in names and policy.is_here(zone.name)]


def _side(policy: CompiledPolicy, needs: list[_Need], zones: list[Zone], side: str, cell: str = "") -> SidePlan:
    here = {zone.name for zone in zones}
    own = {str(ipaddress.ip_interface(text).ip) for zone in zones for text in zone.addresses}
    listens = [listen for need in needs for listen in _listens(policy, need, here)]
    listens += [listen for zone in zones for listen in _names(policy, needs, zone)]
    reaches = [reach for need in needs for reach in _reaches(need, here)]
    published = {address for listen in listens for address in listen.addresses}
    return SidePlan(
        side="it" if side == "it" else "ot",
        links=tuple(_link(zone) for zone in zones if zone.interface),
        overlay=_sorted(published - own),
        routes=tuple(Route(zone.name, network, via) for zone in zones for network, via in zone.routes),
        listens=tuple(listens),
        reaches=tuple(reaches),
        pings=tuple(ping for need in needs for ping in _pings(need, here)),
        tunnel=_tunnel(policy) if side == "it" else None,
        cell=cell,
        openings=min(OPENINGS * policy.limits.client_connects_per_second, MOST_OPENINGS) if listens else 0,
    )


def _tunnel(policy: CompiledPolicy) -> Tunnel | None:
    found = policy.overlay.wireguard if policy.overlay is not None else None
    return None if found is None else Tunnel(found.port, found.networks)


def _names(policy: CompiledPolicy, needs: list[_Need], zone: Zone) -> Iterable[Listen]:
    """Every principal of the office side may ask for names; by a tunnel those who come to where an asset is published.
    Names are of such places: whom the policy lets in at another door (people, at the jump server's), they would only
    tell what else there is."""
    if policy.overlay is None or zone.side.value != "it":
        return
    named = {place for asset in policy.assets.values() for place in asset.places}
    listens = [listen for need in needs for listen in need.needs.listens]
    asking = {who for listen in listens if (listen.address, listen.port) in named for who in listen.who}
    for tunnel in (False, True):
        sources = _collapsed(
            network
            for principal in policy.principals.values()
            if principal.zone == zone.name
            and bool(principal.peer) == tunnel
            and (principal.name in asking or not tunnel)
            for network in principal.networks
        )
        if sources and policy.overlay.dns:
            for datagrams in (True, False):
                yield Listen(NAMES, zone.name, sources, _sorted(policy.overlay.dns), PORT, datagrams, tunnel)


def _link(zone: Zone) -> Link:
    if zone.vlan:
        return Link(zone.name, "vlan", zone.interface, zone.vlan, zone.addresses)
    return Link(zone.name, "macvlan" if zone.macvlan else "move", zone.interface, 0, zone.addresses)


def _listens(policy: CompiledPolicy, need: _Need, zones: Collection[str]) -> Iterable[Listen]:
    """One entry for each set of principals and port, so that equal ones share a rule."""
    sources: dict[tuple[tuple[str, ...], ...], list[tuple[bool, tuple[str, ...]]]] = {}
    found: dict[tuple[tuple[str, ...], str, int, bool, bool, tuple[str, ...]], set[str]] = {}
    for listen in need.needs.listens:
        if listen.zone not in zones:
            continue
        ways = sources.get((listen.who, listen.sources))
        if ways is None:
            who = [policy.principals[name] for name in listen.who]
            ways = sources[listen.who, listen.sources] = [
                (tunnel, _collapsed(text for one in who if bool(one.peer) == tunnel for text in one.networks))
                for tunnel in (False, True)
            ]
            if listen.sources:
                ways.append((False, _collapsed(listen.sources)))
        for tunnel, networks in ways:
            if networks:
                # What goes to a group goes by the zone's interface, and never by the tunnel.
                key = (networks, listen.zone, listen.port, tunnel, listen.datagrams, () if tunnel else listen.groups)
                found.setdefault(key, set()).add(listen.address)
    for (networks, zone, port, tunnel, datagrams, sent), addresses in sorted(found.items()):
        yield Listen(need.conduit, zone, networks, _sorted(addresses), port, datagrams, tunnel, sent)


def _reaches(need: _Need, zones: Collection[str]) -> Iterable[Reach]:
    found: dict[tuple[int, str, bool], set[str]] = {}
    for reach in need.needs.reaches:
        if reach.zone in zones:
            found.setdefault((reach.port, reach.zone, reach.datagrams), set()).add(reach.address)
    for (port, zone, datagrams), addresses in sorted(found.items()):
        yield Reach(need.conduit, zone, _sorted(addresses), port, need.crew, need.part, datagrams)


def _pings(need: _Need, zones: Collection[str]) -> Iterable[Ping]:
    for zone in sorted({ping.zone for ping in need.needs.pings} & set(zones)):
        addresses = _sorted(ping.address for ping in need.needs.pings if ping.zone == zone)
        yield Ping(need.conduit, zone, addresses, need.crew, need.part)


def _collapsed(texts: Iterable[str]) -> tuple[str, ...]:
    """Networks without overlap, IPv4 first: a set of the firewall may not name an address twice."""
    networks = {ipaddress.ip_network(text) for text in texts}
    four = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    six = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return tuple(map(str, (*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six))))


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    found = {ipaddress.ip_address(text) for text in addresses}
    return tuple(map(str, sorted(found, key=lambda address: (address.version, int(address)))))
