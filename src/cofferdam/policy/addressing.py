"""Overlay addresses: which asset, and which peer, has which.

An address comes from, in this order: what the policy says (`overlay:`), what was recorded (`overlay: assigned:`), and
the name. The name's address is a hash within the prefix, so it depends on nothing else: another asset cannot move
it. Two names that hash to one address are a finding, whose way out is to record addresses; `record` does that, and
looks for a free one beside the hash.

Not here: writing the record (gate.overlay.record), where clients find the prefix (enforce.plans.overlay).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cofferdam.policy import schema
from cofferdam.policy.document import Path

NAME_SERVER = "ns"
"""The name server's own label in the overlay's zone."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass
class Given:
    """Addresses by name, IPv4 first, and what stands in the way: (place in the policy, found, expected)."""

    assets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    peers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    findings: list[tuple[Path, str, str]] = field(default_factory=list)
    unrecorded: list[tuple[str, str]] = field(default_factory=list)
    """("asset" or "peer", name) of those whose address follows from the name alone."""


def ula(site: str, subnet: int) -> str:
    """The site's IPv6 unique local network (RFC 4193), /64: its 40-bit global id is a hash of the site's name, so that
    two sites that meet do not collide."""
    global_id = hashlib.sha256(f"cofferdam overlay {site}".encode()).digest()[:5]
    number = int.from_bytes(b"\xfd" + global_id + subnet.to_bytes(2, "big"), "big") << 64
    return str(ipaddress.IPv6Network((number, 64)))


def label(name: str) -> str:
    """A name as one label of DNS: lower case, and a hyphen for what DNS has no letter for."""
    text = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in name.lower())
    return text.strip("-") or "x"


def prefixes(site: str, overlay: schema.Overlay) -> tuple[str, ...]:
    """The networks of assets' addresses, IPv4 first."""
    six = {"auto": ula(site, 0), "none": ""}.get(overlay.prefix6, overlay.prefix6)
    return tuple(filter(None, (overlay.prefix or "", six)))


def peer_networks(site: str, wireguard: schema.WireGuard) -> tuple[str, ...]:
    """The networks of peers' addresses, IPv4 first."""
    six = {"auto": ula(site, 1), "none": ""}.get(wireguard.peers6, wireguard.peers6)
    return tuple(filter(None, (wireguard.peers, six)))


def dns_addresses(site: str, overlay: schema.Overlay) -> tuple[str, ...]:
    """Where names are served."""
    if overlay.dns is not None:
        return overlay.dns
    return tuple(str(ipaddress.ip_network(text)[1]) for text in prefixes(site, overlay))


def published(policy: schema.Policy) -> tuple[str, ...]:
    """The assets that a rule names, sorted."""
    names = {name for conduit in policy.conduits.values() for rule in conduit.allow for name in rule.assets}
    return tuple(sorted(names & policy.assets.keys()))


def give(policy: schema.Policy, *, resolve: bool = False) -> Given:
    """The addresses of a policy. `resolve`: where names collide, take a free address beside instead of a finding."""
    given = Given()
    for name, asset in policy.assets.items():
        if asset.overlay is not None and asset.listen is None:
            given.assets[name] = (asset.overlay,)
    overlay = policy.overlay
    if overlay is None:
        return given
    networks = tuple(map(ipaddress.ip_network, prefixes(policy.site, overlay)))
    reserved = {
        *dns_addresses(policy.site, overlay),
        *(text.split("/")[0] for zone in policy.zones.values() for text in zone.addresses),
        *(asset.listen[0] for asset in policy.assets.values() if asset.listen is not None),
    }
    # In a free slice of the office's network the gate would answer for somebody who lives there.
    taken = dict(neighbours(policy))
    wanting = [name for name in published(policy) if policy.assets[name].listen is None]
    fixed = {name: given.assets.get(name, ()) for name in wanting}
    _Giver(given, "asset", networks, reserved, overlay.assigned, resolve, taken).run(wanting, fixed, given.assets)
    if overlay.wireguard is not None:
        peers = sorted({principal.peer for principal in policy.principals.values() if principal.peer})
        own = tuple(map(ipaddress.ip_network, peer_networks(policy.site, overlay.wireguard)))
        first = {str(network[1]) for network in own}
        _Giver(given, "peer", own, first, overlay.assigned_peers, resolve).run(peers, {}, given.peers)
    return given


def neighbours(policy: schema.Policy) -> Iterable[tuple[str, str]]:
    """(address, who has it) of the hosts and routers of the office side that the policy knows one by one."""
    for name, zone in policy.zones.items():
        if zone.side == "it":
            yield from ((via, f"the router of {name}") for _, via in zone.routes)
    for name, principal in policy.principals.items():
        zone_ = policy.zones.get(principal.zone)
        for text in principal.addresses if zone_ is not None and zone_.side == "it" else ():
            network = ipaddress.ip_network(text)
            if network.prefixlen == network.max_prefixlen:
                yield str(network.network_address), name


class _Giver:
    """One kind of names and their networks."""

    def __init__(
        self, given: Given, kind: str, networks: tuple[Network, ...], reserved: set[str],
        record: Mapping[str, tuple[str, ...]], resolve: bool, taken: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.given = given
        self.kind = kind
        self.networks = networks
        self.reserved = reserved
        self.record = record
        self.resolve = resolve
        self.taken = taken or {}
        self.owners: dict[str, str] = {}

    def run(self, names: Iterable[str], fixed: Mapping[str, tuple[str, ...]], into: dict[str, tuple[str, ...]]) -> None:
        names = list(names)
        # What is fixed or recorded comes first, also for names that are in no rule now: they may come back.
        for name, addresses in fixed.items():
            self.owners.update(dict.fromkeys(addresses, name))
        for name, addresses in self.record.items():
            for address in addresses:
                if address in self.taken:
                    self._finding(name, address, f"{self.taken[address]} has as well")
                owner = self.owners.setdefault(address, name)
                if owner != name:
                    self._finding(name, address, f"{owner} has as well")
        for name in names:
            got: list[str] = []
            for network in self.networks:
                address = self._find(name, network, fixed.get(name, ()))
                if address:
                    got.append(address)
            # An address that the policy gives counts, in whatever network it is.
            got = [*(address for address in fixed.get(name, ()) if address not in got), *got]
            into[name] = tuple(sorted(got, key=lambda text: ":" in text))

    def _find(self, name: str, network: Network, fixed: tuple[str, ...]) -> str:
        same = [text for text in fixed if ipaddress.ip_address(text).version == network.version]
        if same:
            return same[0]
        for text in self.record.get(name, ()):
            address = ipaddress.ip_address(text)
            if address.version == network.version:
                if address not in network:
                    self._finding(name, text, f"outside {network}")
                return text
        self.given.unrecorded.append((self.kind, name))
        return self._by_name(name, network)

    def _by_name(self, name: str, network: Network) -> str:
        # Neither the first, which is the network's own, nor the last, which is IPv4's broadcast.
        size = network.num_addresses - 2
        digest = hashlib.sha256(f"{self.kind} {name}".encode()).digest()
        first = int.from_bytes(digest[:16], "big") % size
        for step in range(min(size, 1 << 16)):
            address = str(network[1 + (first + step) % size])
            owner = "the gate" if address in self.reserved else self.owners.get(address, self.taken.get(address, name))
            if owner == name:
                self.owners[address] = name
                return address
            if not self.resolve:
                self._finding(name, address, f"{owner} has as well")
                return ""
        self._finding(name, str(network), "all of whose addresses are taken")
        return ""

    def _finding(self, name: str, address: str, why: str) -> None:
        section = "assigned" if self.kind == "asset" else "assigned_peers"
        recorded = name in self.record
        path: Path = ("overlay", section, name) if recorded else ("overlay",)
        self.given.findings.append((
            path, f"{address} for {self.kind} {name}, {why}",
            "another address for one of them" if recorded else
            "addresses on record (`cofferdam overlay assign POLICY` writes them), or an explicit one",
        ))  # fmt: skip


def record(policy: schema.Policy) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """(assets, peers) to be recorded: what was recorded before, and every name of now. Nothing of before changes."""
    given = give(policy, resolve=True)
    overlay = policy.overlay
    if overlay is None:
        return {}, {}
    explicit = {name for name, asset in policy.assets.items() if asset.overlay is not None}
    listed = {name: addresses for name, addresses in given.assets.items() if addresses}
    assets = {name: found for name, found in listed.items() if name not in explicit}
    for name in explicit & listed.keys():
        more = tuple(text for text in listed[name] if text != policy.assets[name].overlay)
        if more:
            assets[name] = more
    peers = {name: found for name, found in given.peers.items() if found}
    return {**overlay.assigned, **assets}, {**overlay.assigned_peers, **peers}
