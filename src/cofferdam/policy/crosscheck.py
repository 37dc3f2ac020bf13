"""Checks between fields and between entries of a policy: names that must exist, zones that must fit, limits that must
make sense. All findings at once; names that exist but are themselves wrong are not complained of twice.

Not here: the form of single fields (policy.schema), what one broker's conduits say (policy.terms), what is legal but
unwise (policy.lint).
"""

from __future__ import annotations

import ipaddress
import re

from cofferdam.policy import addressing, schema, schema_assets, syntax, witnesses
from cofferdam.policy.document import Document, Path
from cofferdam.policy.findings import Checking, Reader
from cofferdam.policy.mannerchecks import check_manners, check_shared, check_tls, check_vendor
from cofferdam.policy.networks import network_of
from cofferdam.policy.placechecks import PlaceChecks
from cofferdam.policy.points.values import FLOATS
from cofferdam.policy.problems import Problem, nearest, one_of
from cofferdam.policy.rows import MOST_COLLECTORS, MOST_WITNESSES
from cofferdam.policy.terms.diode_rows import strand_of
from cofferdam.policy.terms.kinds import KINDS, Kinds, dialects
from cofferdam.policy.yamltext import quote
from cofferdam.protocols.dialect import Dialect
from cofferdam.values import ValueType


def check(
    policy: schema.Policy, document: Document, kept: dict[str, list[int]], problems: list[Problem], *,
    kinds: Kinds = KINDS, resolve: bool = False, reader: Reader | None = None,
) -> dict[str, bytes]:  # fmt: skip
    """Append every finding. `kept`: numbers of the rules that are left in conduits from which some were dropped.
    `resolve`: overlay addresses that collide are no finding. Returns the files that the policy names, by name."""
    checker = _Checker(policy, document, kept, problems, reader, kinds)
    checker.resolve = resolve
    checker.run()
    return checker.files


_CALLS, _REACHED = -1, -2
"""In the place of a port: devices of an address that open connections to us, and those that we open them to."""


def _device_port(asset: schema_assets.Asset, dialect: Dialect) -> int:
    if asset.reverse is not None and asset.reverse.listen is not None:
        return asset.reverse.listen[1]
    return asset.port or dialect.port(secure=asset.tls is not None and asset.tls.asset)


def _loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


class _Checker(Checking):
    def __init__(
        self, policy: schema.Policy, document: Document, kept: dict[str, list[int]], problems: list[Problem],
        reader: Reader | None, kinds: Kinds,
    ) -> None:  # fmt: skip
        super().__init__(policy, document, problems, reader, dialects(kinds))
        self.kinds = kinds
        self.kept = kept
        self.resolve = False

    def run(self) -> None:
        if self.policy.site == syntax.FILL_IN:
            self.at(("site",), syntax.FILL_IN, "the site's name", check="fill-in")
        for name, conduit in self.policy.conduits.items():
            for field in ("owner", "reason"):
                if getattr(conduit, field).startswith(syntax.FILL_IN):
                    self.at(("conduits", name, field), syntax.FILL_IN, f"the {field} of {name}", check="fill-in")
        for name, zone in self.policy.zones.items():
            self.zone(name, zone)
        for name, asset in self.policy.assets.items():
            self.asset(name, asset)
        self.devices()
        self.shared_addresses()
        self.listeners()
        for name, principal in self.policy.principals.items():
            self.known("zones", principal.zone, ("principals", name, "zone"))
            self.principal(name, principal)
        for overlay_path, found, expected in addressing.give(self.policy, resolve=self.resolve).findings:
            self.at(overlay_path, found, expected, check="overlay-address")
        self.neighbours()
        self.peers_apart()
        self.names_in_dns()
        for name, conduit in self.policy.conduits.items():
            self.conduit(name, conduit)
        self.witnesses()
        self.collectors()
        self.time_zone(self.policy.evidence.zone, ("evidence", "zone"))

    # --- the log

    def witnesses(self) -> None:
        found = self.policy.audit.witnesses
        for name, one in found.items():
            if not witnesses.fits(one.to.way, one.key):
                wanted = "a host key such as ssh-ed25519 AAAA..." if one.to.way == "sftp" else "NAME+ID+BASE64"
                what = f"a key that does not answer by {one.to.way}"
                self.at(("audit", "witnesses", name, "key"), what, wanted, check="witness")
        if len(found) > MOST_WITNESSES:
            self.key(("audit", "witnesses"), f"{len(found)} witnesses", f"at most {MOST_WITNESSES}", check="witness")

    def collectors(self) -> None:
        found = self.policy.audit.collectors
        for name, one in found.items():
            at: Path = ("audit", "collectors", name)
            secured = one.to.way in ("tls", "https")
            if secured and one.authority is None:
                self.key(at, f"{one.to.way} without an authority", "authority: FILE, who has signed its certificate",
                         check="collector")  # fmt: skip
            for field in ("authority", "name"):
                if getattr(one, field) is not None and not secured:
                    self.at((*at, field), f"{field} for {one.to.way}", "one with tls or https", check="collector")
            if one.header is not None and one.to.way != "https":
                self.at((*at, "header"), f"header for {one.to.way}", "one with https", check="collector")
            data = self.file(one.authority, (*at, "authority")) if one.authority else None
            if data is not None and b"BEGIN CERTIFICATE" not in data:
                self.at((*at, "authority"), "a file that is no certificate", "a PEM file", check="collector")
        if len(found) > MOST_COLLECTORS:
            self.key(("audit", "collectors"), f"{len(found)} collectors", f"at most {MOST_COLLECTORS}",
                     check="collector")  # fmt: skip

    # --- zones

    def zone(self, name: str, zone: schema.Zone) -> None:
        if zone.machine is None and any(other.machine for other in self.policy.zones.values()):
            found, expected = f"the zone {name} without machine", "machine: as other zones have it"
            self.key(("zones", name), found, expected, check="machine")
        if zone.crossing is not None:
            if len(zone.addresses) != 1 or ":" in zone.addresses[0]:
                found = f"{len(zone.addresses)} addresses" if len(zone.addresses) != 1 else zone.addresses[0]
                self.key(("zones", name), found, "one address of IPv4 with its prefix length, at an end of a strand",
                         check="strand")  # fmt: skip
            inside = [("assets", entry, asset.zone) for entry, asset in self.policy.assets.items()]
            inside += [("principals", entry, one.zone) for entry, one in self.policy.principals.items()]
            for section, entry, used in inside:
                if used == name:
                    expected = "a zone that others are in: a strand has two ends and nothing else"
                    self.key((section, entry), f"{entry} in {name}, an end of a strand", expected, check="strand")
        elif zone.station is not None:
            self.at(("zones", name, "station"), "a station", "crossing: diode, which it is for", check="strand")
        if zone.interface is None:
            for field, value in (("vlan", zone.vlan), ("routes", zone.routes)):
                if value:
                    self.at(("zones", name, field), f"{field} without an interface", "an interface", check="interface")
        elif zone.attach != "macvlan":
            for other, there in self.policy.zones.items():
                if other == name:
                    break
                if (zone.machine, zone.interface, zone.vlan) == (there.machine, there.interface, there.vlan):
                    expected = f"an interface of its own, a vlan, or attach: macvlan: {other} has that one"
                    self.at(("zones", name, "interface"), f"{zone.interface} again", expected, check="interface")
        if zone.vlan is not None and zone.attach == "macvlan":
            self.at(("zones", name, "attach"), "macvlan and vlan", "one of them", check="interface")

    # --- assets

    def asset(self, name: str, asset: schema_assets.Asset) -> None:
        here: Path = ("assets", name)
        self.known("zones", asset.zone, (*here, "zone"))
        dialect = self.dialects.get(asset.protocol)
        if dialect is None:
            near, known = nearest(asset.protocol, self.dialects), one_of(self.dialects)
            self.at((*here, "protocol"), f"the protocol {quote(asset.protocol)}", known, near, "protocol")
            return
        for quirk in asset.quirks:
            if quirk not in dialect.quirks:
                near = nearest(quirk, dialect.quirks)
                place = (*here, "quirks")
                self.at(place, f"the quirk {quote(quirk)}", one_of(sorted(dialect.quirks)), near, "quirks")
            elif quirk in dialect.lone_quirks and asset.outstanding != 1:
                what = f"{asset.outstanding} with the quirk {quirk}, under which answers are told apart by their order"
                self.at((*here, "outstanding"), what, "1", check="quirks")
        if asset.route is not None and not re.fullmatch(dialect.routes or "(?!)", asset.route):
            such = f"a route such as {dialect.route_example}"
            expected = such if dialect.routes else f"no route: {dialect.name} has none"
            self.at((*here, "route"), f"the route {quote(asset.route)}", expected, check="route")
        if asset.explicit is not None and not dialect.connected:
            self.at((*here, "explicit"), quote(asset.explicit), f"nothing: {dialect.name} has none", check="explicit")
        elif asset.explicit is not None and asset.outstanding != 1:
            what = f"{asset.outstanding} within a connection, which has one request after the other"
            self.at((*here, "outstanding"), what, "1; for more, `connections`", check="explicit")
        limited = [
            p for p, point in asset.points.items() if point.max_step or point.max_rate or point.writes_per_minute
        ]
        units = dialect.units
        if units is not None and asset.unit == -1 and limited:
            what = f"any, and limits of {limited[0]} that need to know whose value it is"
            expected = f"a unit from {units.low} to {units.high} (one asset for each unit)"
            self.at((*here, "unit"), what, expected, check="unit")
        if asset.device_unit is not None and (units is None or asset.unit == -1):
            what = "a device's unit for an asset of any" if units is not None else f"{dialect.name}, which has no units"
            self.at((*here, "device_unit"), what, "an asset of one unit", check="unit")
        if asset.numbering is not None and dialect.numberings is None:
            found, expected = f"numbering {asset.numbering}", f"none: {dialect.name} has no numbered cells"
            self.at((*here, "numbering"), found, expected, check="numbering")
        if asset.security is not None and asset.security.user and asset.security.login:
            expected = "one of them: a user with a password, or a certificate"
            self.at((*here, "security", "login"), "login beside user", expected, check="security")
        if asset.namespaces and dialect.shorts is None:
            found, expected = "namespaces", f"none: {dialect.name} has none"
            self.at((*here, "namespaces"), found, expected, check="namespaces")
        self.reverse(here, asset, dialect)
        check_manners(self, here, asset)
        check_vendor(self, here, asset, dialect)
        check_tls(self, here, asset, dialect)
        PlaceChecks(self, here, asset, dialect).check()

    def reverse(self, here: Path, asset: schema_assets.Asset, dialect: Dialect) -> None:
        """Connections that are opened the other way round."""
        said = asset.reverse
        if said is None:
            return
        if not dialect.reverse:
            expected = f"none: with {dialect.name}, who asks opens the connection"
            self.at((*here, "reverse"), "reverse", expected, check="reverse")
            return
        if said.listen is None and not said.clients:
            self.at((*here, "reverse"), "nothing in it", "listen, clients or both", check="reverse")
        if said.listen is not None and asset.port is not None:
            found, expected = f"port {asset.port}", "none: the device opens the connections, to reverse: listen:"
            self.at((*here, "port"), found, expected, check="reverse")
        zone = self.policy.zones.get(asset.zone)
        own = [text.split("/")[0] for text in zone.addresses] if zone is not None else []
        if said.listen is not None and own and said.listen[0] not in own:
            expected = f"an address of this machine in {asset.zone}: {one_of(own)}"
            self.at((*here, "reverse", "listen"), said.listen[0], expected, check="reverse")
        key = (asset.zone, _plain(asset.address), _device_port(asset, dialect))
        for other, twin in self.policy.assets.items():
            if twin is asset:
                break
            if (twin.zone, _plain(twin.address), _device_port(twin, dialect)) == key:
                there = None if twin.reverse is None else twin.reverse.listen
                if said.listen is not None and there != said.listen:
                    expected = f"a port that no other asset of {asset.address} has: {other} has this one"
                    self.at((*here, "reverse", "listen"), f"port {said.listen[1]}", expected, check="reverse")
        if said.clients and asset.listen is None and asset.overlay is None:
            expected = "listen or overlay as well: it is the address by which these clients know the asset"
            self.at((*here, "reverse", "clients"), "clients", expected, check="reverse")

    def listeners(self) -> None:
        """No two assets answer at one address and port, unless their units tell them apart."""
        places: dict[int, dict[str, list[tuple[int, int, str]]]] = {}  # port -> address -> (number, unit, name)
        for number, (name, asset) in enumerate(self.policy.assets.items()):
            dialect = self.dialects.get(asset.protocol)
            if dialect is None or (asset.listen is None and asset.overlay is None):
                continue
            address, port = asset.listen or (
                asset.overlay or "",
                dialect.port(secure=asset.tls is not None and asset.tls.clients),
            )
            path: Path = ("assets", name, "listen" if asset.listen else "overlay")
            here = places.setdefault(port, {})
            # Only those that can clash are looked at, since a policy may have thousands of assets.
            others = here if _takes_all(address) else (other for other in (address, *_EVERY) if other in here)
            clashes = [
                (*found, other)
                for other in others
                for found in here[other]
                if (address == other and (asset.unit == found[1] or -1 in (asset.unit, found[1])))
                or (address != other and _wild(address, other))
            ]
            if clashes:
                _, unit, first, other = min(clashes)
                found_there = f"{address}:{port}, which {first} has ({other}:{port}, unit {_unit(unit)})"
                self.at(path, found_there, "an address and port of its own, or another unit", check="listen")
            here.setdefault(address, []).append((number, asset.unit, name))

    def devices(self) -> None:
        """No asset may be written that is the device and unit of another one with limits: limits, pace and known values
        are kept by asset, so that a second name for a device would be a way around those of the first. All zones of a
        side are one network (policy.networks says when not), and a unit that stands for the device itself is each of
        its units."""
        written = {
            asset
            for conduit in self.policy.conduits.values()
            for rule in conduit.allow
            if rule.changes
            for asset in rule.assets
        }
        seen: dict[tuple[str, str, int], list[str]] = {}
        for name, asset in self.policy.assets.items():
            dialect = self.dialects.get(asset.protocol)
            if dialect is None:
                continue
            zone = self.policy.zones.get(asset.zone)
            side = network_of(asset.zone, asset.address, self.policy.zones) if zone is not None else asset.zone
            others = seen.setdefault((side, _plain(asset.address), _device_port(asset, dialect)), [])
            # A device that opens the connections may be one that is reached by another port as well.
            callers = seen.setdefault((side, _plain(asset.address), _CALLS), [])
            calls = asset.reverse is not None and asset.reverse.listen is not None
            reached = seen.setdefault((side, _plain(asset.address), _REACHED), [])
            for other in dict.fromkeys((*others, *(reached if calls else callers))):
                twin = self.policy.assets[other]
                if not _one_unit(asset, twin, dialect):
                    continue
                if (name in written and _limited(twin, dialect)) or (other in written and _limited(asset, dialect)):
                    found = f"the device of {other} (unit {_unit(twin.unit)}) again, with unit {_unit(asset.unit)}"
                    expected = "one asset for both, since writes by one name would not count for the other's limits"
                    if dialect.units is not None and not _one_unit(asset, twin, dialect, serial=True):
                        expected += "; or gateway: serial for both, where a gateway to a serial line tells them apart"
                    self.at(("assets", name, "address"), found, expected, check="device")
                    break
            others.append(name)
            (callers if calls else reached).append(name)

    def shared_addresses(self) -> None:
        """Assets behind one address say alike how it wants to be asked."""
        found: dict[tuple[str, str, int], list[tuple[str, schema_assets.Asset]]] = {}
        for name, asset in self.policy.assets.items():
            dialect = self.dialects.get(asset.protocol)
            if dialect is not None and dialect.units is not None:
                key = (asset.zone, _plain(asset.address), _device_port(asset, dialect))
                found.setdefault(key, []).append((name, asset))
        check_shared(self, found)

    def neighbours(self) -> None:
        """No asset is published at the address of a host that the policy knows: the gate would answer for it there."""
        taken = dict(addressing.neighbours(self.policy))
        for name, asset in self.policy.assets.items():
            if asset.overlay is not None and asset.overlay in taken and not _loopback(asset.overlay):
                found = f"{asset.overlay}, which {taken[asset.overlay]} has"
                self.at(("assets", name, "overlay"), found, "an address that nobody has", check="overlay-address")

    def peers_apart(self) -> None:
        """The network of peers leads into the tunnel, so nothing else may lie in it."""
        overlay = self.policy.overlay
        if overlay is None or overlay.wireguard is None:
            return
        others = [(text, "the overlay's prefix") for text in addressing.prefixes(self.policy.site, overlay)]
        # A slice of the office's network may be the peers', but not the gate's own place in it.
        others += [
            (str(ipaddress.ip_interface(text).ip), f"the gate's address in zone {name}")
            for name, zone in self.policy.zones.items() if zone.side == "it" for text in zone.addresses
        ]  # fmt: skip
        for peers in map(ipaddress.ip_network, addressing.peer_networks(self.policy.site, overlay.wireguard)):
            for text, what in others:
                network = ipaddress.ip_network(text)
                if network.version == peers.version and network.overlaps(peers):
                    field = "peers" if peers.version == 4 else "peers6"
                    place: Path = ("overlay", "wireguard", *((field,) if field == "peers" else ()))
                    self.at(place, f"{peers}, which meets {network}, {what}", "a network of its own", check="peer")

    def names_in_dns(self) -> None:
        """Each published asset has a name of its own in the overlay's zone, also where DNS sees no difference."""
        if self.policy.overlay is None:
            return
        seen = {addressing.NAME_SERVER: "the name server"}
        for name in addressing.published(self.policy):
            label = addressing.label(name)
            if label in seen:
                place = self.document.key(("assets", name))
                found = f"{name}, which is {label} in DNS as {seen[label]} is"
                self.problems.append(place.problem(found, "a name that DNS can tell from others", check="dns-name"))
            seen[label] = name

    # --- principals

    def principal(self, name: str, principal: schema.Principal) -> None:
        here: Path = ("principals", name)
        wireguard = self.policy.overlay.wireguard if self.policy.overlay is not None else None
        if principal.jump is not None:
            self.by_jump(here, principal)
            return
        if principal.peer is None:
            if not principal.addresses and "addresses" not in self.document.fields(here):  # wrong ones were told
                place = self.document.key(here)
                expected = "addresses: source addresses and networks (CIDR), IPv4 or IPv6"
                self.problems.append(place.problem(f"principal {name} without addresses", expected, check="missing"))
            elif wireguard is not None:
                self.peer_networks(here, principal, wireguard)
            return
        if principal.addresses:
            expected = "one of them: a peer has the address of its key"
            self.at((*here, "addresses"), "addresses and a peer", expected, check="peer")
        if wireguard is None:
            expected = "a policy with `overlay: wireguard:`, by which peers come"
            self.at((*here, "peer"), f"the peer {quote(principal.peer)}", expected, check="peer")
        zone = self.policy.zones.get(principal.zone)
        if zone is not None and zone.side != "it":
            expected = "a zone of side it, where the tunnel ends"
            self.at((*here, "zone"), f"a peer in zone {principal.zone} of side {zone.side}", expected, check="peer")

    def by_jump(self, here: Path, principal: schema.Principal) -> None:
        """Who comes by the jump server comes by no address."""
        for field in ("addresses", "peer", "application", "certificate"):
            if getattr(principal, field):
                expected = "one of them: who comes by the jump server has signed in there"
                self.at((*here, field), f"{field} and jump", expected, check="jump")
        name = principal.jump or ""
        if not self.known("conduits", name, (*here, "jump")):
            return
        conduit = self.policy.conduits.get(name)
        if conduit is not None and conduit.broker != "jump":
            self.at((*here, "jump"), f"{name}, a conduit of {conduit.broker}", "one of the jump server", check="jump")
        elif conduit is not None and conduit.from_zone != principal.zone:
            expected = f"zone: {conduit.from_zone}, where {name} begins"
            self.at((*here, "zone"), principal.zone, expected, conduit.from_zone, check="jump")

    def peer_networks(self, here: Path, principal: schema.Principal, wireguard: schema.WireGuard) -> None:
        """Only a key gives a peer's address: no list of addresses may hold one."""
        own = [ipaddress.ip_network(text) for text in addressing.peer_networks(self.policy.site, wireguard)]
        for index, text in enumerate(principal.addresses):
            network = ipaddress.ip_network(text)
            for peers in own:
                if network.version == peers.version and network.overlaps(peers):
                    expected = "addresses outside the network of overlay peers, who are principals of their own"
                    self.at((*here, "addresses", index), f"{text}, which holds {peers}", expected, check="peer")

    # --- conduits

    def conduit(self, name: str, conduit: schema.Conduit) -> None:
        here: Path = ("conduits", name)
        known_from = self.known("zones", conduit.from_zone, (*here, "from"))
        known_to = self.known("zones", conduit.to_zone, (*here, "to"))
        if known_from and known_to and conduit.from_zone == conduit.to_zone:
            self.at((*here, "to"), f"{conduit.to_zone}, where it comes from", "another zone", check="zones")
        if known_from and known_to:
            self.machines(name, conduit)
        terms = self.kinds.get(conduit.broker)
        if terms is None:
            near = nearest(conduit.broker, self.kinds) or self.by_words(here)
            self.at((*here, "broker"), f"the broker {quote(conduit.broker)}", one_of(self.kinds), near, "broker")
        if conduit.expires is not None:
            self.time_zone(conduit.expires.partition(" ")[2], (*here, "expires"))
        for index, window in enumerate(conduit.window):
            self.window(window, (*here, "window", index))
        if terms is None:
            return
        numbers = self.kept.get(name, range(len(conduit.allow)))
        required = type(conduit).model_fields["allow"].is_required()
        if required and not conduit.allow and name not in self.kept:
            self.at((*here, "allow"), "no rules", "at least one rule", check="missing")
        terms.check(name, conduit, numbers, self)

    def machines(self, name: str, conduit: schema.Conduit) -> None:
        """One that goes from one machine to another needs a strand."""
        ends = [self.policy.zones.get(zone) for zone in (conduit.from_zone, conduit.to_zone)]
        machines = {end.machine for end in ends if end is not None and end.crossing is None}
        if len(machines) > 1 and not strand_of(self.policy.conduits, name):
            found = f"{conduit.to_zone}, which hangs on another machine than {conduit.from_zone}"
            expected = "a zone of the same machine"
            if conduit.may_ride:
                expected += f", or a conduit of the broker diode with carries: [{name}]"
            self.at(("conduits", name, "to"), found, expected, check="machine")

    def by_words(self, here: Path) -> str:
        """The broker whose words a conduit uses, where its own word is no broker's; "" if that is not plain."""
        said = set(self.document.names(*map(str, here)))
        counts = {word: len(said & set(terms.sections)) for word, terms in self.kinds.items()}
        most = max(counts.values(), default=0)
        found = [word for word, count in counts.items() if count == most]
        return found[0] if most and len(found) == 1 else ""


def _one_unit(one: schema_assets.Asset, other: schema_assets.Asset, dialect: Dialect, *, serial: bool = False) -> bool:
    """Whether two assets at one address may be one device: most devices do not mind by which unit they are asked.
    `serial`: what would be so with a gateway to a serial line."""
    if one.route is not None and other.route is not None and one.route != other.route:
        return False  # behind the address a request goes on to another device
    units = dialect.units
    mine, theirs = _asked(one), _asked(other)
    if units is None or mine == theirs or -1 in (mine, theirs):
        return True
    if units.broadcast in (mine, theirs):
        return True
    return not serial and not one.gateway == other.gateway == "serial"


def _asked(asset: schema_assets.Asset) -> int:
    """The unit that the device sees."""
    return asset.unit if asset.device_unit is None else asset.device_unit


def _limited(asset: schema_assets.Asset, dialect: Dialect) -> bool:
    """Whether writes of a point are judged by more than by where it is, or calls of a method by more than its name."""
    if asset.write_bits == "read-first":
        return True
    limits = ("min", "max", "max_step", "max_rate", "writes_per_minute", "max_length", "scale_from")
    fixed = {space.name for space in dialect.spaces if not space.writable}
    for point in asset.points.values():
        if point.at is not None and point.at.space in fixed:
            continue
        # Not all that the cells of a number, a text or decimal digits can hold is a value.
        judged = point.type in FLOATS or point.type in (ValueType.TEXT, "bcd")
        if judged or point.values or any(getattr(point, limit) is not None for limit in limits):
            return True
    return any(method.writes_per_minute is not None or method.arguments for method in asset.methods.values())


def _plain(address: str) -> str:
    """An IPv6 address that stands for an IPv4 one, as that one: both reach the same device."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def _wild(a: str, b: str) -> bool:
    """Whether one of two listeners takes every address, the other's too. [::] takes IPv4 as well."""
    one, two = ipaddress.ip_address(a), ipaddress.ip_address(b)
    return any(w.is_unspecified and (w.version == 6 or o.version == 4) for w, o in ((one, two), (two, one)))


_EVERY = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def _takes_all(address: str) -> bool:
    return ipaddress.ip_address(address).is_unspecified


def _unit(unit: int) -> str:
    return "any" if unit == -1 else str(unit)
