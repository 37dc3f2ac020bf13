"""What is legal in a policy but unwise, or without effect: warnings with their places.

Not here: what does not load (policy.crosscheck), what is unwise in one broker's terms (policy.terms).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator

from cofferdam.model import Asset, Point, Span
from cofferdam.policy import addressing
from cofferdam.policy.compile import compile_policy
from cofferdam.policy.findings import Linting
from cofferdam.policy.load import Loaded
from cofferdam.policy.points import values
from cofferdam.policy.problems import Problem
from cofferdam.policy.schema import side
from cofferdam.policy.terms.kinds import KINDS, Kinds, dialects

CARRIER_GRADE = ipaddress.ip_network("100.64.0.0/10")
"""Shared address space (RFC 6598), which mesh overlays take their addresses from as well."""


def lint(loaded: Loaded, *, now_ns: int | None = None) -> tuple[Problem, ...]:
    """Every warning, in the order of the file. With `now_ns` (UTC), also what has expired or soon will."""
    compiled = compile_policy(loaded, now_ns=now_ns or 0)
    run = Linting(loaded.policy, loaded.document, compiled, now_ns, dialects(loaded.kinds))
    for check in _checks(loaded.kinds).values():
        check(run)
    return tuple(sorted(set(run.problems), key=lambda p: (p.file, p.line, p.column, p.check)))


def _writes_without_expiry(run: Linting) -> None:
    """A conduit that allows writes and never expires."""
    for name, conduit in run.policy.conduits.items():
        if conduit.expires is None and any(rule.changes for rule in conduit.allow):
            run.key(
                ("conduits", name), "no-expiry", f"conduit {name}, which allows writes and never expires",
                "expires: the date on which its owner looks at it again",
            )  # fmt: skip


def _assets_without_points(run: Linting) -> None:
    """An asset without points, where its protocol has any."""
    for name, asset in run.policy.assets.items():
        dialect = run.dialects[asset.protocol]
        if not asset.points and (dialect.spaces or dialect.kinds):
            run.key(("assets", name), "no-points", f"asset {name} without points", "points, so that values are checked")


def _shared_addresses(run: Linting) -> None:
    """Two assets at the same address, port and unit, or at one address without units or routes that tell them apart."""
    seen: dict[tuple[str, str, int], list[tuple[str, int, str]]] = {}
    for name, asset in run.policy.assets.items():
        others = seen.setdefault(
            (
                side(run.policy.zones[asset.zone]),
                asset.address,
                asset.port or run.dialects[asset.protocol].port(secure=asset.tls is not None and asset.tls.asset),
            ),
            [],
        )
        for other, unit, route in others:
            apart = route and asset.route and route != asset.route
            if not apart and (unit == asset.unit or -1 in (unit, asset.unit)):
                run.value(
                    ("assets", name, "address"), "shared-address", f"the address of {other} again, with the same unit",
                    "an address or unit of its own (limits of connections count for each asset)",
                )  # fmt: skip
                break
        others.append((name, asset.unit, asset.route or ""))


def _everyone(run: Linting) -> None:
    """A principal that is every address there is."""
    for name, principal in run.policy.principals.items():
        for index, text in enumerate(principal.addresses):
            if ipaddress.ip_network(text).prefixlen == 0:
                run.value(
                    ("principals", name, "addresses", index), "everyone", f"{text}, which is everybody",
                    "the networks that the zone has",
                )  # fmt: skip


def _alike(run: Linting) -> None:
    """Two names of one section that differ in capital letters only."""
    for section in ("zones", "assets", "principals", "conduits"):
        seen: dict[str, str] = {}
        for name in getattr(run.policy, section):
            other = seen.setdefault(name.lower(), name)
            if other != name:
                run.key((section, name), "alike", f"{name}, and {other} beside it", "names that people can tell apart")


def _writes_to_any_unit(run: Linting) -> None:
    """An asset of any unit that may be written: a client chooses the unit, reserved ones too."""
    written = {
        asset for conduit in run.policy.conduits.values() for rule in conduit.allow if rule.changes
        for asset in rule.assets
    }  # fmt: skip
    for name, asset in run.policy.assets.items():
        if asset.unit == -1 and name in written and run.dialects[asset.protocol].units is not None:
            run.value(("assets", name, "unit"), "any-unit", f"writes to {name} with any unit", "an asset for each unit")


def _carrier_grade(run: Linting) -> None:
    """An overlay address in the range that other overlays use."""
    for name, asset in run.policy.assets.items():
        for field, address in (("overlay", asset.overlay), ("listen", asset.listen[0] if asset.listen else None)):
            if address is not None and (found := ipaddress.ip_address(address)).version == 4 and found in CARRIER_GRADE:
                run.value(
                    ("assets", name, field), "carrier-grade", f"{address}, in {CARRIER_GRADE}",
                    "a prefix that carriers and mesh overlays do not use as well",
                )  # fmt: skip


def _overlay_prefix(run: Linting) -> None:
    """An overlay prefix in the range that other overlays use."""
    overlay = run.policy.overlay
    if overlay is not None and overlay.prefix is not None:
        found = ipaddress.ip_network(overlay.prefix)
        if found.overlaps(CARRIER_GRADE):
            run.value(
                ("overlay", "prefix"), "carrier-grade", f"{found}, in {CARRIER_GRADE}",
                "a prefix that carriers and mesh overlays do not use as well",
            )  # fmt: skip


def _plant_prefix(run: Linting) -> None:
    """An overlay prefix that meets a network of the plant: one address would then be two hosts, one on each side."""
    overlay = run.compiled.overlay
    if overlay is None:
        return
    plant = [
        (ipaddress.ip_interface(text).network, f"a network of zone {zone.name}")
        for zone in run.compiled.zones.values() if zone.side.value == "ot"
        for text in (*zone.addresses, *(network for network, _ in zone.routes))
        if ipaddress.ip_interface(text).network.prefixlen  # a way to everywhere says nothing of where the plant is
    ]  # fmt: skip
    plant += [
        (ipaddress.ip_network(asset.address), f"the own address of {asset.name}")
        for asset in run.compiled.assets.values() if run.compiled.zones[asset.zone].side.value == "ot"
    ]  # fmt: skip
    for prefix in map(ipaddress.ip_network, overlay.prefixes):
        field = "prefix" if prefix.version == 4 else "prefix6"
        meets = [f"{net}, {what}" for net, what in plant if net.version == prefix.version and net.overlaps(prefix)]
        if meets:
            more = f" (and {len(meets) - 1} more)" if len(meets) > 1 else ""
            run.value(
                ("overlay", field), "plant-prefix", f"{prefix}, which meets {meets[0]}{more}",
                "a prefix that is nowhere in the plant, so that an address says on which side it is",
            )  # fmt: skip


def _own_address(run: Linting) -> None:
    """An asset that is published at the device's own address."""
    for name, asset in run.policy.assets.items():
        at = ("listen", asset.listen[0]) if asset.listen else ("overlay", asset.overlay or "")
        if at[1] == asset.address and not ipaddress.ip_address(asset.address).is_loopback:
            run.value(
                ("assets", name, at[0]), "own-address", f"{at[1]}, which is the device's own address",
                "an address of the gate, on the other side",
            )  # fmt: skip


def _no_way(run: Linting) -> None:
    """An address that no network or route of its zone leads to, where the zone says which it has; the address of a
    network itself as the gate's own."""
    ways: dict[str, list[ipaddress.IPv4Network | ipaddress.IPv6Network]] = {}
    for zone in run.compiled.zones.values():
        if not zone.addresses or not zone.interface:  # the machine's own routes lead on
            continue
        ways[zone.name] = [ipaddress.ip_interface(text).network for text in zone.addresses]
        ways[zone.name] += [ipaddress.ip_network(network) for network, _ in zone.routes]
        for text in zone.addresses:
            own = ipaddress.ip_interface(text)
            if own.version == 4 and own.ip == own.network.network_address and own.network.prefixlen < 31:
                run.value(
                    ("zones", zone.name, "addresses"), "network-address", f"{text}, which is the network itself",
                    f"this machine's address in it, such as {own.ip + 1}/{own.network.prefixlen}",
                )  # fmt: skip
    hosts: list[tuple[str, str, str, str, tuple[str, ...]]] = [
        ("assets", one.name, "address", one.zone, (one.address,)) for one in run.compiled.assets.values()
    ]
    hosts += [("principals", one.name, "addresses", one.zone, one.networks)
              for one in run.compiled.principals.values() if not one.peer]  # fmt: skip
    for section, name, field, zone_name, addresses in hosts:
        there = ways.get(zone_name)
        if there is None:
            continue
        for text in addresses:
            network = ipaddress.ip_network(text)
            if not network.is_loopback and not any(
                network.version == way.version and network.overlaps(way) for way in there
            ):
                found = f"{text.removesuffix('/32')}, to which no network or route of zone {zone_name} leads"
                run.value(
                    (section, name, field), "no-way", found,
                    f"an address in {', '.join(map(str, there[:3]))}, or `routes: NETWORK via ROUTER` of the zone",
                )  # fmt: skip


def _never_meet(run: Linting) -> None:
    """A rule whose principal has no address of the IP version by which its asset is published."""
    for conduit in run.compiled.conduits.values():
        for rule in conduit.rules:
            asset = run.compiled.assets[rule.asset]
            here = {ipaddress.ip_address(address).version for address, _ in asset.places}
            for who in rule.who:
                there = {ipaddress.ip_network(text).version for text in run.compiled.principals[who].networks}
                if here and there and not here & there:
                    versions = f"{who} by IPv{min(there)} and {rule.asset} at IPv{min(here)}"
                    run.key(
                        ("principals", who), "never-meet", f"{versions} alone, which never meet",
                        "an address of the same version for both",
                    )  # fmt: skip


def _unrecorded_addresses(run: Linting) -> None:
    """An overlay address that is not on record: a new name that hashes to it would be refused."""
    given = addressing.give(run.policy)
    names = sorted({name for _, name in given.unrecorded})
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        run.key(
            ("overlay",), "not-recorded", f"overlay addresses of {', '.join(names[:3])}{more} that follow from names",
            "addresses on record: `cofferdam overlay assign POLICY`",
        )  # fmt: skip


def _unused(run: Linting) -> None:
    """A principal or asset that no rule names, a zone that nothing is in."""
    rules = [rule for conduit in run.policy.conduits.values() for rule in conduit.allow]
    clients = {name for conduit in run.policy.conduits.values() for name in conduit.principals}
    sources = {name for conduit in run.policy.conduits.values() for name in conduit.assets}
    for section, names in (
        ("principals", {name for rule in rules for name in rule.principals} | clients),
        ("assets", {name for rule in rules for name in rule.assets} | sources),
    ):
        for name in getattr(run.policy, section):
            if name not in names:
                noun = section.rstrip("s")
                run.key((section, name), "unused", f"{noun} {name}, which no rule names", "a rule for it, or no entry")
    used = {asset.zone for asset in run.policy.assets.values()} | {p.zone for p in run.policy.principals.values()}
    for conduit in run.policy.conduits.values():  # what a mirror or a relay reads there is no asset
        used |= {conduit.from_zone, conduit.to_zone}
    for name, zone in run.policy.zones.items():
        if name not in used and zone.crossing is None:  # an end of a strand has nobody in it
            expected = "assets or principals in it, or no entry"
            run.key(("zones", name), "unused", f"zone {name}, which nothing is in", expected)


def _same_side(run: Linting) -> None:
    """A conduit that stays on one side."""
    for name, conduit in run.compiled.conduits.items():
        begin, end = run.compiled.zones[conduit.from_zone].side, run.compiled.zones[conduit.to_zone].side
        if begin is end:
            run.key(
                ("conduits", name), "same-side", f"conduit {name}, both of whose zones are {end.value}", "two sides"
            )


def _expired(run: Linting) -> None:
    """A conduit that has expired, or will within 30 days."""
    if run.now_ns is None:
        return
    for name, conduit in run.compiled.conduits.items():
        left = conduit.expires - run.now_ns
        if left <= 0:
            found = f"a conduit that expired {conduit.expires_text}"
            run.value(("conduits", name, "expires"), "expired", found, "a later date, or no conduit")
        elif left < 30 * 86_400 * 10**9:
            days = left // (86_400 * 10**9)
            found = f"a conduit that expires in {days} days"
            run.value(("conduits", name, "expires"), "expires-soon", found, "a review by its owner")


def _overlapping_points(run: Linting) -> None:
    """Two points of one asset that share cells, where a write would have to satisfy both."""
    for asset in run.compiled.assets.values():
        for first, second in _overlaps(asset):
            if values.has_limit(first) or values.has_limit(second):
                run.key(
                    ("assets", asset.name, "points", second.name), "overlap",
                    f"point {second.name}, which shares cells with {first.name}",
                    "cells of its own: a write must satisfy both",
                )  # fmt: skip


def _overlaps(asset: Asset) -> Iterator[tuple[Point, Point]]:
    spaces: dict[str, list[Point]] = {}
    for point in asset.points:
        spaces.setdefault(point.at.space, []).append(point)
    for points in spaces.values():
        points.sort(key=lambda point: (point.at.start, point.at.stop))
        furthest: Point | None = None  # of those that are all of their cells
        bits: dict[int, list[Point]] = {}  # by word, those that share none with each other
        for point in points:
            start, stop = point.at.start, point.at.stop
            alike = (other for other in bits.get(start, ()) if not point.mask or other.mask & point.mask)
            if furthest is not None and start < furthest.at.stop:
                yield furthest, point
            elif (other := next(alike, None)) is not None:
                yield other, point
            elif point.mask:
                bits.setdefault(start, []).append(point)
            if not point.mask and (furthest is None or stop > furthest.at.stop):
                furthest = point


def _silent_budget(run: Linting) -> None:
    """Silent refusals where writes are allowed: the client cannot tell a refusal from a broken line."""
    for name, conduit in run.policy.conduits.items():
        if conduit.deny == "silent" and any(rule.changes for rule in conduit.allow):
            run.value(
                ("conduits", name, "deny"), "silent-writes", "silent refusals where writes are allowed",
                "refuse, so that an operator sees that a command was not carried out",
            )  # fmt: skip


def _leak_probe_off(run: Linting) -> None:
    """The leak probe switched off: a way round the gate is then found by the next proof only."""
    if run.policy.gate.leak_probe == 0:
        run.value(
            ("gate", "leak_probe"), "leak-probe-off", "a leak probe that is off",
            "an interval, so that a way round the gate does not stay unseen until the next proof",
        )  # fmt: skip


def _counted_from_one(run: Linting) -> None:
    """Cells whose number looks like a Modicon address, such as holding 40101: numbers count from 0 in each space."""
    for name, asset in run.policy.assets.items():
        dialect = run.dialects.get(asset.protocol)
        digits = {space.name: space.digit for space in dialect.spaces} if dialect is not None else {}
        for point, said in asset.points.items():
            at = said.at
            digit = digits.get(at.space) if isinstance(at, Span) else None
            if not digit or not isinstance(at, Span):
                continue
            for unit in (10_000, 100_000):
                if digit * unit < at.start < (digit + 1) * unit:
                    run.value(
                        ("assets", name, "points", point, "at"), "counted-from-one",
                        f"{at.space} {at.start}, which looks like a Modicon address",
                        f"cells counted from 0: for that address {at.space} {at.start - digit * unit - 1}",
                    )  # fmt: skip


_OWN: dict[str, Callable[[Linting], None]] = {
    "writes without an expiry": _writes_without_expiry,
    "assets without points": _assets_without_points,
    "shared addresses": _shared_addresses,
    "everyone": _everyone,
    "names alike": _alike,
    "writes to any unit": _writes_to_any_unit,
    "carrier-grade overlay": _carrier_grade,
    "carrier-grade prefix": _overlay_prefix,
    "plant-side prefix": _plant_prefix,
    "own addresses": _own_address,
    "addresses that nothing leads to": _no_way,
    "addresses that never meet": _never_meet,
    "addresses on record": _unrecorded_addresses,
    "unused entries": _unused,
    "sides": _same_side,
    "expired": _expired,
    "overlapping points": _overlapping_points,
    "silent writes": _silent_budget,
    "leak probe": _leak_probe_off,
    "counted from one": _counted_from_one,
}


def _checks(kinds: Kinds) -> dict[str, Callable[[Linting], None]]:
    return {**_OWN, **{name: check for terms in kinds.values() for name, check in terms.warnings.items()}}


CHECKS = _checks(KINDS)
"""Every check, by what it looks for; the docstrings are the documentation."""
