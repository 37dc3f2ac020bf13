"""The plan of a site's network, as the gate gives it to the launcher: closed, strictly typed, without a policy in it.

The launcher makes namespaces, addresses and rules from these records alone. None of them holds a command, a path or a
rule's text, so a broken gate can ask for a wrong address, and for nothing else.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

PLAN_BYTES: Final = 16 << 20
"""The largest plan, encoded. 10,000 assets with a rule each have about 1 MiB."""

MOST_OPENINGS: Final = 1 << 28
"""Connections a second; the burst is a small multiple of it, and a rule holds 32 bits."""

Name = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Crew = Annotated[str, Meta(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9./+#_-]*$")]
Interface = Annotated[str, Meta(min_length=1, max_length=15, pattern=r"^[^\s/:]+$")]  # IFNAMSIZ - 1
Address = Annotated[str, Meta(max_length=45, pattern=r"^[0-9A-Fa-f.:]+$")]
Network = Annotated[str, Meta(max_length=49, pattern=r"^[0-9A-Fa-f.:]+/[0-9]{1,3}$")]
Port = Annotated[int, Meta(ge=1, le=65535)]
SideName = Literal["it", "ot"]


class Link(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The interface that leads to a zone.

    `kind` "move": `interface` itself goes into the namespace. "vlan" and "macvlan": one is made on it, the VLAN with
    the number `vlan` (1 to 4094). `addresses` are this machine's own there, with prefix length; none: those that a
    moved interface has are kept, with its routes.
    """

    zone: Name
    kind: Literal["move", "vlan", "macvlan"]
    interface: Interface
    vlan: Annotated[int, Meta(ge=0, le=4094)] = 0
    addresses: Annotated[tuple[Network, ...], Meta(max_length=64)] = ()


class Route(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A way to a network behind a router of a zone."""

    zone: Name
    network: Network
    via: Address


class Listen(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Clients of `zone` with these source networks may open TCP connections to these addresses, for a conduit.

    `datagrams`: they may send UDP instead. `tunnel`: they come by the tunnel, and not by the zone's interface.
    `groups`: multicast groups to which these addresses may send from there."""

    conduit: Name
    zone: Name
    sources: tuple[Network, ...]
    addresses: tuple[Address, ...]
    port: Port
    datagrams: bool = False
    tunnel: bool = False
    groups: tuple[Address, ...] = ()


class Reach(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part of a crew may open TCP connections to these addresses of `zone`, for a conduit. `crew` is the name of the
    crew without what is added for shards. `datagrams`: it may send UDP instead."""

    conduit: Name
    zone: Name
    addresses: tuple[Address, ...]
    port: Port
    crew: Crew
    part: Name
    datagrams: bool = False

    @property
    def who(self) -> str:
        """The part, as users are known by it."""
        return f"{self.crew}/{self.part}"


class Ping(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part of a crew may ask these addresses of `zone` for an echo (ICMP), for a conduit, and gets it."""

    conduit: Name
    zone: Name
    addresses: tuple[Address, ...]
    crew: Crew
    part: Name

    @property
    def who(self) -> str:
        """The part, as users are known by it."""
        return f"{self.crew}/{self.part}"


class Tunnel(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Overlay peers come by a WireGuard device of this side: `networks` are those of their addresses. Its UDP port
    stays in the host's namespace."""

    port: Annotated[int, Meta(ge=1024, le=65535)]
    networks: Annotated[tuple[Network, ...], Meta(max_length=4)]


class Strand(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What this namespace is for, and nothing else: UDP from `address` to `peer` ("out"), or from `peer` to `address`
    ("in"), at one port. `station`: the other end's hardware address, "" for that of everybody. `crew` and `part`: whose
    it is."""

    zone: Name
    way: Literal["out", "in"]
    address: Address
    peer: Address
    port: Port
    crew: Crew
    part: Name
    station: Annotated[str, Meta(pattern=r"^(([0-9a-f]{2}:){5}[0-9a-f]{2})?$")] = ""

    @property
    def who(self) -> str:
        """The part, as users are known by it."""
        return f"{self.crew}/{self.part}"


class SidePlan(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One namespace. `overlay` are addresses that answer there without being on an interface (AnyIP).

    `cell`: the zone that this namespace is for alone, where the first of the side cannot have it: two machine cells
    with the same addresses. `openings`: how many TCP connections a second one client may open, before more of them are
    dropped unseen; 0: as many as it likes."""

    side: SideName
    links: tuple[Link, ...] = ()
    overlay: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    listens: tuple[Listen, ...] = ()
    reaches: tuple[Reach, ...] = ()
    tunnel: Tunnel | None = None
    cell: Annotated[str, Meta(max_length=128, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")] = ""
    openings: Annotated[int, Meta(ge=0, le=MOST_OPENINGS)] = 0
    strand: Strand | None = None
    pings: tuple[Ping, ...] = ()

    @property
    def towards(self) -> tuple[Reach | Ping, ...]:
        """All by which parts turn to somebody."""
        return (*self.reaches, *self.pings)

    @property
    def space(self) -> str:
        """What tells this namespace from the others: "it", "ot", or "ot.CELL"; of an end of a strand "it.ZONE" too."""
        return f"{self.side}.{self.cell}" if self.cell else self.side

    @property
    def has_ipv6(self) -> bool:
        """Whether anything on this side is IPv6; if not, IPv6 is off in its namespace."""
        texts = [address for link in self.links for address in link.addresses]
        texts += [address for listen in self.listens for address in (*listen.addresses, *listen.sources)]
        texts += [address for there in self.towards for address in there.addresses]
        texts += self.tunnel.networks if self.tunnel is not None else ()
        return any(":" in text for text in texts)


class Goal(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a part that stands in the host's network may send packets: TCP, or UDP (`datagrams`)."""

    address: Address
    port: Port
    datagrams: bool = False


class Hosted(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A part that stands in the host's network, and all that it may reach there."""

    crew: Crew
    part: Name
    goals: Annotated[tuple[Goal, ...], Meta(max_length=64)] = ()

    @property
    def who(self) -> str:
        """The part, as users are known by it."""
        return f"{self.crew}/{self.part}"


class NetworkPlan(Struct, frozen=True, array_like=True, tag=1, forbid_unknown_fields=True):
    """Both sides of a site: it, ot, and further cells of ot that need a namespace of their own.

    `namespaces`: the policy wants them, so far as can be had (`required`: or nothing). `hosted`: parts that stand in
    neither side."""

    site: Name
    namespaces: bool
    required: bool
    sides: Annotated[tuple[SidePlan, ...], Meta(min_length=2, max_length=64)]
    hosted: Annotated[tuple[Hosted, ...], Meta(max_length=256)] = ()

    def side(self, name: str) -> SidePlan:
        """The first namespace of a side."""
        return self.sides[0] if self.sides[0].side == name else self.sides[1]

    def space_of(self, side: str, zone: str) -> str:
        """The namespace in which a side reaches a zone."""
        mine = [plan for plan in self.sides if plan.side == side and any(link.zone == zone for link in plan.links)]
        return mine[0].space if mine else side


def check(plan: NetworkPlan) -> str:
    """What is wrong with a plan that the types cannot say, as a sentence; "" if nothing is."""
    spaces = [side.space for side in plan.sides]
    if spaces[:2] != ["it", "ot"] or any(not side.cell for side in plan.sides[2:]):
        return "the plan's sides are not it and ot"
    if any(side.strand is None and side.side != "ot" for side in plan.sides[2:]):
        return "a cell of side it that is no end of a strand"
    if len(set(spaces)) != len(spaces):
        return "the plan has a cell twice"
    moved: set[str] = set()
    made: set[tuple[str, str, int]] = set()
    for side in plan.sides:
        zones = [link.zone for link in side.links]
        if len(set(zones)) != len(zones):
            return f"a zone of side {side.side} has two interfaces"
        for link in side.links:
            if (link.kind == "vlan") != (link.vlan > 0):
                return f"zone {link.zone}: a VLAN needs a number, and only a VLAN has one"
            if link.kind == "move":
                if link.interface in moved:
                    return f"two zones name the interface {link.interface}; each needs its own, a VLAN or a macvlan"
                moved.add(link.interface)
            elif link.kind == "vlan" and ("vlan", link.interface, link.vlan) in made:
                return f"two zones name VLAN {link.vlan} of {link.interface}"
            else:
                made.add((link.kind, link.interface, link.vlan))
        used = {use.zone for use in side.listens} | {use.zone for use in side.towards}
        for zone in sorted((used | {route.zone for route in side.routes}) - set(zones)):
            return f"zone {zone} is used on side {side.side} and has no interface"
    for _, parent, _ in made:
        if parent in moved:
            return f"{parent} carries another zone's VLAN or macvlan, so it cannot be moved for a zone itself"
    return _check_texts(plan)


def _check_texts(plan: NetworkPlan) -> str:
    """The types hold addresses to their letters; here they are held to their meaning."""
    try:
        for goal in (goal for hosted in plan.hosted for goal in hosted.goals):
            ipaddress.ip_address(goal.address)
        for side in plan.sides:
            for link in side.links:
                for text in link.addresses:
                    ipaddress.ip_interface(text)
            for route in side.routes:
                ipaddress.ip_network(route.network)
                ipaddress.ip_address(route.via)
            for network in side.tunnel.networks if side.tunnel is not None else ():
                ipaddress.ip_network(network)
            for address in side.overlay:
                ipaddress.ip_address(address)
            for listen in side.listens:
                for text in listen.sources:
                    ipaddress.ip_network(text)
                for address in listen.addresses:
                    ipaddress.ip_address(address)
            for there in side.towards:
                for address in there.addresses:
                    ipaddress.ip_address(address)
            if (strand := side.strand) is not None:
                if side.listens or side.towards or side.tunnel or [link.zone for link in side.links] != [strand.zone]:
                    return f"the strand {strand.zone} is not alone in its namespace"
                ends = ipaddress.ip_address(strand.address), ipaddress.ip_address(strand.peer)
                if any(end.version != 4 for end in ends):
                    return f"the strand {strand.zone} has addresses that are not of IPv4"
    except ValueError as error:
        return str(error)
    return ""


def namespace_name(site: str, side: str, tag: str) -> str:
    """What a side's namespace is called. `tag` tells gates with different state directories apart; the default one
    has none."""
    return "-".join(filter(None, ("cofferdam", site[:48], tag, side)))
