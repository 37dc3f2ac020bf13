"""Which pairs of halves a policy needs, and how to get from the pairs that run to those of a new policy. No I/O.

One pair serves all conduits of a (from zone, to zone, broker). Two rules bend that:

- A device is reached by one pair only, since only one inner half can keep to the device's `connections`. Conduits
  from several zones to one device therefore share a pair.
- `shards` spreads the devices of a pair over so many pairs, for more cores.

A pair's listeners are handed to its outer half at birth. So a pair that gets another listener must be started anew,
while one that loses an asset goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cofferdam.enforce.orders import Place
from cofferdam.errors import GateError
from cofferdam.model import Asset
from cofferdam.policy.table import CompiledPolicy

NAME_LETTERS = 96
"""The longest name of a pair, without what is added for shards and halves. Orders and entries allow 128."""
MOST_SPOTS = 4096
"""Listeners of one pair. The order that starts it carries no more."""
Device = tuple[str, str, int]
"""(zone, address, port) of a device on its own side."""


@dataclass(frozen=True, order=True)
class Spot:
    """Where an outer half listens: (side, address, port), and the zone by which clients come."""

    side: str
    address: str
    port: int
    zone: str = field(compare=False)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Served:
    """An asset in a pair: the device behind it and where clients find it (nowhere, or by IPv4 and IPv6)."""

    name: str
    device: Device
    spots: tuple[Spot, ...]


@dataclass(frozen=True)
class PairPlan:
    """One pair of halves. `base` is the name without the number of a shard or of a later addition."""

    name: str
    base: str
    broker: str
    source_zones: tuple[str, ...]
    outer: Place
    inner: Place
    assets: tuple[Served, ...]

    @property
    def spots(self) -> tuple[Spot, ...]:
        """Where its outer half listens, sorted."""
        return tuple(sorted({spot for asset in self.assets for spot in asset.spots}))

    @property
    def devices(self) -> set[Device]:
        return {asset.device for asset in self.assets}

    @property
    def asset_names(self) -> tuple[str, ...]:
        return tuple(asset.name for asset in self.assets)


@dataclass(frozen=True)
class Change:
    """From the pairs that run to those that should: `keep` go on under the new policy, `restart` get new listeners,
    `start` are new, `stop` are no longer needed."""

    keep: tuple[PairPlan, ...]
    restart: tuple[PairPlan, ...]
    start: tuple[PairPlan, ...]
    stop: tuple[str, ...]


def plan_pairs(policy: CompiledPolicy, *, shards: int = 1) -> dict[str, PairPlan]:
    """The pairs for a policy, by name.

    Raises:
        GateError: two zones of different sides reach one device, which one pair cannot serve; or a pair would have
            more than MOST_SPOTS listeners.
    """
    groups: list[tuple[set[str], str, str, dict[str, Asset]]] = []  # (from zones, to zone, broker, assets)
    for conduit in policy.conduits.values():
        assets = {rule.asset: policy.assets[rule.asset] for rule in conduit.rules}
        groups.append(({conduit.from_zone}, conduit.to_zone, conduit.broker, assets))
    pairs: dict[str, PairPlan] = {}
    for froms, to_zone, broker, assets in _merge(groups):
        sides = {policy.zones[zone].side for zone in froms}
        if len(sides) > 1:
            raise GateError(
                f"zones {' and '.join(sorted(froms))} are on different sides and reach the same device in {to_zone}",
                hint="one pair of halves serves a device, and its outer half stands on one side: "
                "let one of the zones reach the device, or give each its own",
            )
        first = min(froms)
        outer = Place(policy.zones[first].side.value, first)
        inner = Place(policy.zones[to_zone].side.value, to_zone)
        sources = tuple(sorted(froms))
        base = _base(broker, sources, to_zone)
        shares: dict[int, list[Served]] = {}
        for asset in sorted(assets.values(), key=lambda asset: asset.name):
            served = _served(asset, outer)
            shares.setdefault(_shard(served.device, shards), []).append(served)
        for number, share in sorted(shares.items()):
            name = base if shards == 1 else f"{base}:{number + 1}"
            pairs[name] = _checked(PairPlan(name, base, broker, sources, outer, inner, tuple(share)))
    return pairs


def _checked(plan: PairPlan) -> PairPlan:
    if len(plan.spots) > MOST_SPOTS:
        raise GateError(
            f"the pair {plan.name} would listen at {len(plan.spots)} addresses and ports; at most {MOST_SPOTS} can be",
            hint="start the gate with `--pairs N`, which spreads the devices of a road over N pairs",
        )
    return plan


def _base(broker: str, sources: tuple[str, ...], to_zone: str) -> str:
    """The pair's name. A long one is cut and made unique again: names travel in records and audit entries."""
    name = f"{broker}/{'+'.join(sources)}-{to_zone}"
    if len(name) <= NAME_LETTERS:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name[: NAME_LETTERS - 13]}#{digest}"


def _merge(
    groups: Iterable[tuple[set[str], str, str, dict[str, Asset]]],
) -> list[tuple[set[str], str, str, dict[str, Asset]]]:
    """Groups with the same zones and broker become one, and so do groups that share a device."""
    merged: list[tuple[set[str], str, str, dict[str, Asset]]] = []
    for froms, to_zone, broker, assets in groups:
        froms, assets = set(froms), dict(assets)
        devices = {_device(asset) for asset in assets.values()}
        rest = []
        for other in merged:
            same_road = other[1] == to_zone and other[2] == broker
            if same_road and (froms & other[0] or devices & {_device(asset) for asset in other[3].values()}):
                froms |= other[0]
                assets |= other[3]
                devices |= {_device(asset) for asset in other[3].values()}
            else:
                rest.append(other)
        merged = [*rest, (froms, to_zone, broker, assets)]
    return merged


def _device(asset: Asset) -> Device:
    return (asset.zone, asset.address, asset.port)


def _served(asset: Asset, outer: Place) -> Served:
    spots = tuple(Spot(outer.side, *place, zone=outer.zone) for place in asset.places)
    return Served(asset.name, _device(asset), spots)


def _shard(device: Device, shards: int) -> int:
    """Spreads devices evenly and the same way each time."""
    digest = hashlib.sha256("\0".join(map(str, device)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % shards


def change_pairs(running: Mapping[str, PairPlan], fresh: Mapping[str, PairPlan]) -> Change:
    """What to do with the pairs that run so that they serve what `fresh` plans.

    A device stays with the pair that has it. The devices that no running pair has get a new pair, whose number
    follows the name ("modbus/enterprise-control+2").

    Raises: GateError: a pair that goes on would have more than MOST_SPOTS listeners.
    """
    keep: list[PairPlan] = []
    restart: list[PairPlan] = []
    start: list[PairPlan] = []
    stays: set[str] = set()
    names = set(running)
    by_base: dict[str, list[PairPlan]] = {}
    for plan in fresh.values():
        by_base.setdefault(plan.base, []).append(plan)
    for base, plans in sorted(by_base.items()):
        first = plans[0]
        members = [old for old in running.values() if old.base == base and _same_place(old, first)]
        share: dict[str, list[Served]] = {old.name: [] for old in members}
        for plan in plans:
            new: list[Served] = []
            for device, served in _by_device(plan.assets).items():
                owner = _owner(device, served, members)
                (new if owner is None else share[owner.name]).extend(served)
            if new:
                name = _free_name(plan.name, names)
                names.add(name)
                start.append(replace(plan, name=name, assets=tuple(sorted(new, key=lambda asset: asset.name))))
        for old in members:
            if not share[old.name]:
                continue
            assets = tuple(sorted(share[old.name], key=lambda asset: asset.name))
            plan = _checked(replace(first, name=old.name, assets=assets))
            stays.add(old.name)
            (keep if set(plan.spots) <= set(old.spots) else restart).append(plan)
    stop = tuple(sorted(set(running) - stays))
    return Change(tuple(keep), tuple(restart), tuple(start), stop)


def _same_place(old: PairPlan, new: PairPlan) -> bool:
    return (old.outer, old.inner, old.broker) == (new.outer, new.inner, new.broker)


def _by_device(assets: Iterable[Served]) -> dict[Device, list[Served]]:
    found: dict[Device, list[Served]] = {}
    for asset in assets:
        found.setdefault(asset.device, []).append(asset)
    return found


def _owner(device: Device, served: list[Served], members: list[PairPlan]) -> PairPlan | None:
    """The running pair that reaches the device, else the one that listens for the same asset (the device moved)."""
    for old in members:
        if device in old.devices:
            return old
    wanted = {(asset.name, asset.spots) for asset in served}
    for old in members:
        if wanted & {(asset.name, asset.spots) for asset in old.assets}:
            return old
    return None


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}+{number}" in taken:
        number += 1
    return f"{name}+{number}"
